"""The commands of the live stack: up, down, status, prepare, link, rotate, operate."""

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from lab import running
from lab.stack import folders, operate, register, table
from lab.stack.down import take_down
from lab.stack.journals import Journals, verify
from lab.stack.link import change_link
from lab.stack.options import (
    Bootstrap,
    Buffer,
    Folder,
    Fresh,
    Json,
    JsonAtEnd,
    LatencyName,
    LogFile,
    NewFolder,
    OwnBroker,
    Port,
    ScenarioFile,
    Secure,
    Seed,
    Sets,
    Settle,
    Span,
    Speed,
    Spokes,
    Verbose,
)
from lab.stack.plan import read_plan
from lab.stack.prepare import Choices, in_use, roles_of, set_up
from lab.stack.rotate import rotate
from lab.stack.up import Wishes, bring_up
from lab.stack.view import by_their_word, gather
from messaging.errors import InputRefused
from messaging.messages import LinkChanged
from messaging.units import NodeId, Ppm

NOT_RUNNING = 3
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

# \b keeps the lines as they are.
_UP_EXAMPLES = """\b
Examples:
  omnimargin up                                   March 2020, an hour in a minute
  omnimargin up --latency cctp_v1 --speed 120     slower messages, faster clock
  omnimargin up scenarios/calm.toml --for 10m --json
"""
_LINK_EXAMPLES = """\b
Examples:
  omnimargin link base hub --latency constant:900s
  omnimargin link hub base --latency layerzero --loss 200000
"""


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("up", epilog=_UP_EXAMPLES)(up_command)
    app.command("down")(down_command)
    app.command("status")(status_command)
    app.command("link", epilog=_LINK_EXAMPLES)(link_command)
    app.command("rotate")(rotate_command)
    app.command("prepare")(prepare_command)
    app.add_typer(operate.app, name="operate")


def up_command(
    scenario: ScenarioFile = None,
    spokes: Spokes = None,
    latency: LatencyName = None,
    buffer: Buffer = None,
    seed: Seed = None,
    sets: Sets = None,
    speed: Speed = None,
    span: Span = None,
    bootstrap: Bootstrap = None,
    own_broker: OwnBroker = False,
    settle: Settle = None,
    monitor_port: Port = None,
    folder: NewFolder = None,
    fresh: Fresh = False,
    secure: Secure = False,
    log: LogFile = None,
    json: JsonAtEnd = False,
    verbose: Verbose = False,
) -> None:
    """Run hub, spokes, relay and the world outside as processes on Kafka, and watch them.

    Every process keeps a journal and may be killed at any time: it is started again and goes on.
    Ctrl-C, --for or the scenario's end stops everything, the broker too if it was started here;
    a second Ctrl-C does so at once. Exit code 2: bad input, or a process refused to go on.
    """
    choices = Choices(
        scenario=scenario,
        spokes=spokes,
        latency=latency,
        buffer=buffer,
        seed=seed,
        sets=tuple(sets or ()),
        speed=speed,
        settle_ms=settle,
        monitor_port=monitor_port,
        secure=secure,
    )
    wishes = Wishes(
        folder=folder,
        bootstrap=bootstrap,
        own_broker=own_broker,
        fresh=fresh,
        limit_s=None if span is None else seconds(span),
        quiet=json,
        verbose=verbose,
    )
    ending = bring_up(choices, wishes)
    if log is not None:
        _write_log(Path(ending.view.folder), log)
    if json:
        _print_json(ending)
    else:
        table.show_ending(ending, log=log)
    if ending.exit_code:
        raise typer.Exit(ending.exit_code)


def down_command(folder: Folder = None) -> None:
    """Stop the stack that runs in a folder, wherever it was started. Exit code 0 either way."""
    where = folders.chosen(folder)
    if not take_down(where, _say):
        _say(f"nothing runs in {where}")


def status_command(folder: Folder = None, json: Json = False) -> None:
    """Show the stack of a folder: processes, credit, liquidations, delays.

    Exit code 0: it runs; 3: it does not (the table shows the last that is known).
    """
    where = folders.chosen(folder)
    plan, scenario = read_plan(where)
    found = register.read(where)
    if found is not None:
        runs, processes = register.alive(found.supervisor), found.processes
    else:  # something else has started them
        runs, processes = in_use(where), by_their_word(where, roles_of(scenario))
    view = gather(where, plan, scenario, processes, runs=runs)
    if json:
        _print_json({"running": runs, **msgspec.to_builtins(view)})
    else:
        table.show(view)
    if not runs:
        raise typer.Exit(NOT_RUNNING)


def link_command(
    source: Annotated[str, typer.Argument(help="Where messages come from: hub or a spoke.")],
    target: Annotated[str, typer.Argument(help="Where they go: a spoke or hub.")],
    latency: Annotated[
        str, typer.Option(help="Preset, family or literal, as for 'up'.", metavar="LATENCY")
    ],
    loss: Annotated[int, typer.Option(help="Messages lost, in a million.", metavar="PPM")] = 0,
    repeat: Annotated[
        int, typer.Option(help="Messages that arrive twice, in a million.", metavar="PPM")
    ] = 0,
    reorder: Annotated[
        int, typer.Option(help="Messages held back, in a million.", metavar="PPM")
    ] = 0,
    folder: Folder = None,
) -> None:
    """Change a link of a running stack, one direction, from now on.

    The change is a message on the topic ctl.relay, sealed with the operator's key, so a relay
    that is started again finds it, and the stack's log has it.
    """
    where = folders.chosen(folder)
    for name, ppm in (("--loss", loss), ("--repeat", repeat), ("--reorder", reorder)):
        if not 0 <= ppm <= 1_000_000:
            raise InputRefused(name, expected="0 to 1,000,000 ppm", found=f"{ppm:,}")
    plan, scenario = read_plan(where)
    change = LinkChanged(
        source=NodeId(source),
        target=NodeId(target),
        latency=latency,
        loss_ppm=Ppm(loss),
        repeat_ppm=Ppm(repeat),
        reorder_ppm=Ppm(reorder),
    )
    from_us = change_link(where, plan, scenario, change)
    sys.stdout.write(f"{source} {target}: {latency} from scenario time {table.hms(from_us)} on\n")


def rotate_command(
    node: Annotated[str, typer.Argument(help="hub or a spoke.")],
    folder: Folder = None,
) -> None:
    """Give the hub or a spoke a new key; it goes over to it as it starts again.

    In a stack that runs here its process is stopped, and its supervisor starts it. The old private
    key is needed until everything said under it is acknowledged.
    """
    path, stopped = rotate(folders.chosen(folder), NodeId(node))
    when = "it starts again now" if stopped else f"in force as {node} next starts"
    sys.stdout.write(f"{path}: {when}\n")


def prepare_command(
    folder: Annotated[Path, typer.Argument(help="Folder to prepare.")],
    scenario: ScenarioFile = None,
    bootstrap: Annotated[
        str, typer.Option(help="The broker as the processes see it.", metavar="HOST:PORT")
    ] = "localhost:9092",
    spokes: Spokes = None,
    latency: LatencyName = None,
    buffer: Buffer = None,
    seed: Seed = None,
    sets: Sets = None,
    speed: Speed = None,
    settle: Settle = None,
    monitor_port: Port = None,
    lead: Annotated[
        float, typer.Option(help="Seconds until scenario time 0.", min=0, max=3_600)
    ] = 20.0,
    secure: Secure = False,
) -> None:
    """Set a stack up for processes that something else starts, such as docker compose.

    Writes keys, plan and scenario into the folder and makes the topics. A folder that was
    prepared before keeps its keys and goes on where its stack was.
    """
    choices = Choices(
        scenario=scenario,
        spokes=spokes,
        latency=latency,
        buffer=buffer,
        seed=seed,
        sets=tuple(sets or ()),
        speed=speed,
        settle_ms=settle,
        monitor_port=monitor_port,
        lead_s=lead,
        secure=secure,
    )
    plan, found = set_up(folder.absolute(), choices, bootstrap)
    names = ", ".join(spoke.name for spoke in found.spokes)
    sys.stdout.write(f"{folder}: {found.title}; spokes {names}; broker {plan.bootstrap}\n")


def seconds(text: str) -> float:
    """Return a span in seconds: 90s, 10m, 2h, 1d.

    Raises:
        InputRefused: it is none.
    """
    match = _SPAN.fullmatch(text)
    if match is None or float(match[1]) == 0:
        raise InputRefused("--for", expected="a span such as 90s, 10m or 2h", found=repr(text))
    return float(match[1]) * _SECONDS[match[2]]


def _write_log(folder: Path, log: Path) -> None:
    """Write what the journals hold, checking them and the invariants on the way.

    Raises:
        ReplayDiverged: a journal does not give the state that its process had.
        InvariantViolated: an invariant did not hold.
    """
    verify(folder)
    journals = Journals(folder)
    outcome = running.run(journals.world, driver=journals, log=log)
    if outcome.finding is not None:
        raise outcome.finding


def _print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def _say(text: str) -> None:
    sys.stderr.write(f"omnimargin: {text}\n")
