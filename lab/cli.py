"""The command line: reads what the user wants, calls the lab, prints what came out.

The one place that catches our errors: one line on stderr, and the exit code of the fault. 0 all
well, 2 bad input, 3 a replay that differs, 4 an invariant broken, 130 interrupted.
"""

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import msgspec
import typer

from lab import adl_command, plants, reading, running, summary
from lab.events import command as events
from lab.incident import command as incident
from lab.margin import command as margin
from lab.progress import bar
from lab.report.page import write_report
from lab.stack import commands, journals
from lab.swarm import command as swarm
from lab.theory import command as theory
from lab.traces import write_traces
from lab.volatility import command as volatility
from lab.world import build
from messaging.errors import OmnimarginError

INTERRUPTED = 130

app = typer.Typer(
    name="omnimargin",
    help="Simulate a cross-chain margin system: a collateral hub, execution spokes, late messages.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command("run")
def run_command(
    scenario: Annotated[Path, typer.Argument(help="Scenario file, as in scenarios/.")],
    prices: Annotated[
        list[str] | None,
        typer.Option(help="Recorded candles: ASSET=FILE, once for each asset.", metavar="A=FILE"),
    ] = None,
    gaps: Annotated[
        str, typer.Option(help="Gaps in candles: 'refuse', or 'hold' the price as a halt does.")
    ] = "refuse",
    latency: Annotated[
        str | None,
        typer.Option(help="Preset or family (see 'omnimargin latency'), or e.g. constant:900s."),
    ] = None,
    buffer: Annotated[
        str | None, typer.Option(help="Margin buffer: none, flat, sqrt_time or quantile.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all dice.")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any knob, e.g. spokes.base.block_s=6.", metavar="KEY=VALUE"),
    ] = None,
    log: Annotated[Path | None, typer.Option(help="Write the message log here (MCAP).")] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report here.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    checks: Annotated[
        bool, typer.Option(help="Check the invariants after every event (docs/invariants.md).")
    ] = True,
    plant: Annotated[
        str | None,
        typer.Option(help=f"Plant a fault, to see it found: {', '.join(plants.PLANTS)}."),
    ] = None,
) -> None:
    """Run a scenario in virtual time and say what message latency did to it.

    The same seed gives the same run, to the byte; another --latency leaves prices and orders as
    they are. Exit code 4 means that an invariant did not hold.
    """
    tables = reading.read_file(scenario)
    if latency is not None:
        tables["latency"] = latency
    if buffer is not None:
        reading.use_buffer(tables, buffer)
    reading.use_prices(tables, prices or (), gaps)
    if seed is not None:
        tables["seed"] = seed
    for assignment in sets or ():
        reading.override(tables, assignment)
    checked = reading.check(tables, directory=scenario.parent)
    world = build(checked)
    with plants.planted(plant), bar(reading.duration_us(checked)) as progress, asked() as stop:
        outcome = running.run(world, checks=checks, log=log, progress=progress, stop=stop)
    _tell(outcome, json=json, log=log, report=report, seed=checked.seed)


@app.command("record")
def record_command(
    folder: Annotated[Path, typer.Argument(help="Folder of a stopped stack.")] = Path(
        "runs/live/latest"
    ),
    log: Annotated[Path | None, typer.Option(help="Write the message log here (MCAP).")] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report here.")] = None,
    traces: Annotated[
        Path | None,
        typer.Option(help="Write one trace a liquidation here (OpenTelemetry spans, JSON lines)."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    checks: Annotated[
        bool, typer.Option(help="Check the invariants after every event (docs/invariants.md).")
    ] = True,
) -> None:
    """Turn the journals of a live stack into one message log, checked, and say what came out.

    First each node's journal is folded from its beginning and must give the state that the live
    process had (exit code 3 if not). The log replays like that of a run; where nothing came
    late it is the log of the same run in virtual time, byte for byte.
    """
    verified = journals.verify(folder)
    recorded = journals.Journals(folder)
    with bar(reading.duration_us(recorded.scenario)) as progress, asked() as stop:
        outcome = running.run(
            recorded.world,
            driver=recorded,
            checks=checks,
            log=log,
            progress=progress,
            stop=stop,
        )
    if not json:
        events = ", ".join(f"{name} {count:,}" for name, count in verified.items())
        sys.stdout.write(f"journals fold to the live state: {events} events\n")
    if traces is not None:
        write_traces(traces, outcome.story.liquidations, recorded.plan.epoch_ns)
    _tell(outcome, json=json, log=log, report=report, seed=recorded.scenario.seed)


@app.command("replay")
def replay_command(
    log: Annotated[Path, typer.Argument(help="A message log written by 'run --log'.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Feed a message log back through fresh nodes and compare everything they do.

    Ends with the digest of the run. Exit code 2: the log is damaged or cut off, and where; 3: a
    node did something else than the log says, and where.
    """
    with bar(None) as progress:
        replayed = running.replay_log(log, progress)
    if json:
        _print_json(replayed)
    else:
        summary.show_replay(replayed)


@app.command("latency")
def latency_command(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the latency presets with quartiles, what they cover, basis and source."""
    if json:
        _print_json(summary.preset_rows())
    else:
        summary.show_presets()


commands.add_to(app)
swarm.add_to(app)
incident.add_to(app)
events.add_to(app)
theory.add_to(app)
margin.add_to(app)
volatility.add_to(app)
adl_command.add_to(app)


def _tell(
    outcome: running.Outcome, *, json: bool, log: Path | None, report: Path | None, seed: int
) -> None:
    """Print what came out; exit if it is not all well."""
    result = outcome.story.result
    if report is not None:
        write_report(outcome.story, report)
    if json:
        _print_json(result)
    else:
        summary.show(result, log=log, report=report)
    if outcome.finding is not None:
        _say(f"invariant {outcome.finding}")
        _say(f"at event {outcome.event:,}, virtual time {result.virtual_s:,.6f} s")
        _say(f"reproduce: {_reproduce(seed)}")
        raise typer.Exit(outcome.finding.exit_code)
    if result.status == running.INTERRUPTED:
        _say(f"interrupted at virtual time {result.virtual_s:,.0f} s; all above is of the part run")
        raise typer.Exit(INTERRUPTED)


def _print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def _say(text: str) -> None:
    sys.stderr.write(f"omnimargin: {text}\n")


def _reproduce(seed: int) -> str:
    """Return the command that was given, its seed written out."""
    words = ["omnimargin", *sys.argv[1:]]
    if not any(word.startswith("--seed") for word in words):
        words += ["--seed", str(seed)]
    return shlex.join(words)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def asked() -> Iterator[running.Stop]:
    """Yield what tells whether Ctrl-C or SIGTERM has come; the second one does not wait."""
    signals: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if signals:
            raise KeyboardInterrupt
        signals.append(number)

    before = [(number, signal.signal(number, note)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield lambda: bool(signals)
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def main() -> None:
    """Run the command line."""
    if not __debug__:
        _say("expected assertions to be on, found python -O or PYTHONOPTIMIZE")
        sys.exit(2)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except OmnimarginError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
