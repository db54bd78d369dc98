"""The command `omnimargin swarm`: many random worlds under all faults at once."""

import os
import re
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from lab.progress import counted
from lab.swarm import campaign
from lab.swarm.campaign import Summary
from lab.swarm.options import FAULTS, Options, draw
from lab.swarm.trial import EVENTS_MAX, Trial, Verdict
from messaging.errors import InputRefused
from messaging.log import new_file

VIOLATED = 4
LOGS = Path("runs/swarm")  # logs of seeds in which something was found
_RANGE = re.compile(r"(\d{1,15})(?:\.\.(\d{1,15}))?")

# \b keeps the lines as they are.
_EXAMPLES = """\b
Examples:
  omnimargin swarm                                  a thousand seeds
  omnimargin swarm --seeds 0..9999 --jobs 2         a campaign
  omnimargin swarm --seeds 298                      one seed, its options and counters
  omnimargin swarm --seeds 298 --without death,skew the same without two of its faults
  omnimargin swarm --seeds 298 --shrink             the smallest world that still fails
"""


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("swarm", epilog=_EXAMPLES)(swarm_command)


def swarm_command(
    seeds: Annotated[str, typer.Option(help="A..B, both included, or one.", metavar="A..B")] = (
        "0..999"
    ),
    minutes: Annotated[
        float,
        typer.Option(
            help="Scenario minutes with faults and load; five times as long in one seed of ten.",
            min=0.5,
            max=600,
        ),
    ] = 4.0,
    jobs: Annotated[int, typer.Option(help="Processes; 0 for one a core.", min=0, max=256)] = 0,
    without: Annotated[
        str | None, typer.Option(help="With one seed: faults to leave out.", metavar="A,B")
    ] = None,
    options: Annotated[
        str | None, typer.Option(help="With one seed: run these drawn options (JSON).")
    ] = None,
    until_event: Annotated[
        int, typer.Option(help="With one seed: stop at this event.", min=1)
    ] = EVENTS_MAX,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="With one seed: look for a smaller world that fails.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run random worlds under random faults, check every invariant after every event.

    Each seed draws a world and which faults befall it: networks that lose, repeat, forge and cut,
    processes that die at every point of a commit, clocks that jump, wrong prints. Then all heals
    and everything must come to rest. Exit code 4: something did not hold, or was never reached;
    the last lines reproduce it and say where the log of that seed is.
    """
    first, last = _range(seeds)
    if first == last:
        drawn = _options(options) if options is not None else draw(first, minutes)
        _one(_leave_out(drawn, without), until_event, shrink=shrink, json=json)
        return
    if without or options or shrink or until_event != EVENTS_MAX:
        raise InputRefused("--seeds", expected="one seed with these options", found=seeds)
    with counted("seeds", last - first + 1) as progress:
        summary = campaign.run(
            first,
            last,
            minutes,
            jobs or os.cpu_count() or 1,
            lambda known: progress(known.seeds, f"{known.events:,} events"),
        )
    if json:
        sys.stdout.write(msgspec.json.encode(summary).decode() + "\n")
    else:
        _show(summary)
    for verdict in summary.findings:
        _tell_finding(verdict, draw(verdict.seed, minutes))
    if summary.missing:
        _say(f"never reached: {', '.join(summary.missing)}")
    if summary.findings or summary.missing:
        raise typer.Exit(VIOLATED)


def _one(drawn: Options, until_event: int, *, shrink: bool, json: bool) -> None:
    """Run one seed, its options first."""
    _say(f"options: {msgspec.json.encode(drawn).decode()}")
    trial = Trial(drawn)
    verdict = trial.run(until_event)
    if json:
        sys.stdout.write(msgspec.json.encode(verdict).decode() + "\n")
    else:
        _show(
            Summary(
                seeds=1,
                events=verdict.events,
                virtual_h=verdict.virtual_s / 3_600,
                checked=verdict.checked,
                wall_s=verdict.wall_s,
                digest=verdict.digest,
                counts=dict(sorted(verdict.counts.items())),
            )
        )
    if verdict.finding is None:
        return
    for at_us, name, what in trial.newest:
        sys.stderr.write(f"  {at_us / 1e6:14.6f} s  {name:10} {what}\n")
    if shrink:
        rule = verdict.finding.text.split(":")[0]
        drawn = campaign.shrink(drawn, rule)
        verdict = Trial(drawn).run()
    _tell_finding(verdict, drawn)
    raise typer.Exit(VIOLATED)


def _tell_finding(verdict: Verdict, drawn: Options) -> None:
    assert verdict.finding is not None
    found, where = verdict.finding, f"seed {verdict.seed}, event {verdict.finding.event:,}"
    _say(f"{found.text} ({where}, {found.at_us / 1e6:,.6f} s)")
    words = f"--seeds {verdict.seed} --options '{msgspec.json.encode(drawn).decode()}'"
    _say(f"reproduce: omnimargin swarm {words}")
    path = LOGS / f"seed-{verdict.seed}.jsonl"
    with new_file(path) as log:
        Trial(drawn, log=log).run()
    _say(f"log: {path}")


def _show(summary: Summary) -> None:
    """Print the counters in columns, and what was run."""
    console = Console()
    table = Table("reached", "times", "reached", "times", box=None, header_style="bold")
    rows = [(name, f"{count:,}") for name, count in summary.counts.items()]
    half = -(-len(rows) // 2)
    for place in range(half):
        right = rows[half + place] if half + place < len(rows) else ("", "")
        table.add_row(*rows[place], *right)
    console.print(table)
    per_s = summary.events / summary.wall_s if summary.wall_s else 0.0
    console.print(
        f"{summary.seeds:,} seeds, {summary.events:,} events, {summary.virtual_h:,.1f} virtual "
        f"hours, {summary.checked:,} checks, {len(summary.findings)} violations; "
        f"{summary.wall_s:,.0f} s with {summary.jobs} processes, {per_s:,.0f} events/s; "
        f"digest {summary.digest}",
        highlight=False,
        soft_wrap=True,
    )


def _range(text: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if last < first:
        raise InputRefused("--seeds", expected="A..B with A <= B, or one", found=repr(text))
    return first, last


def _leave_out(drawn: Options, without: str | None) -> Options:
    names = [name for name in (without or "").split(",") if name]
    for name in names:
        if name not in FAULTS:
            expected = f"some of {', '.join(FAULTS)}"
            raise InputRefused("--without", expected=expected, found=repr(name))
    kept = {name: how for name, how in drawn.faults.items() if name not in names}
    return msgspec.structs.replace(drawn, faults=kept)


def _options(text: str) -> Options:
    try:
        return msgspec.json.decode(text, type=Options)
    except ValueError as error:
        raise InputRefused("--options", expected="drawn options", found=str(error)) from None


def _say(text: str) -> None:
    sys.stderr.write(f"omnimargin: {text}\n")
