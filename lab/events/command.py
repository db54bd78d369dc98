"""The command `omnimargin events`: nine historic days, several ways each, and what they show."""

import os
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from lab import reading
from lab.events import plan, recorded
from lab.events.claims import Claim, Found
from lab.events.seen import Seen
from lab.events.ways import FULL, Tables, carry_out_all
from lab.progress import counted
from lab.result import payers
from lab.summary import usd
from lab.world import path_of

FAILED = 1
WIDTH = 160

# \b keeps the lines as they are.
_EXAMPLES = """\b
Examples:
  omnimargin events                                  all nine
  omnimargin events luna_2022 usdc_2023              two of them
  omnimargin events --accounts 60 --json             smaller, for machines
  omnimargin events --prices FOLDER                  along recorded candles, where there are any
"""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One way of an event. Money in usd6.

    Attributes:
        paid_usd6: by whom, as far as anybody has.
        deleveraged_usd6: closed against bankrupt accounts.
        refused: requests for credit, by reason.
        exposure_usd6: most that any zone held at once.
        least_cover_ppm: least that all equity was of all maintenance margin.
    """

    way: str
    bad_debt_usd6: int
    open_shortfall_usd6: int
    paid_usd6: dict[str, int]
    deleveraged_usd6: int
    overshoot_usd6: int
    liquidations: int
    liquidated_usd6: int
    granted: int
    refused: dict[str, int]
    exposure_usd6: int
    least_cover_ppm: int
    digest: str


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """One event: its ways, and what it has shown."""

    name: str
    title: str
    prices: str
    stylised: bool
    rows: list[Row]
    claims: list[Claim]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints.

    Attributes:
        without_candles: events that were left out for that.
        holds: every claim does.
    """

    events: list[Shown]
    without_candles: list[str]
    holds: bool


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("events", epilog=_EXAMPLES)(events_command)


def events_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(help=f"Some of {', '.join(plan.EVENTS)}; all if none.", metavar="NAME"),
    ] = None,
    accounts: Annotated[
        int | None,
        typer.Option(help="Accounts beside the named ones; else the scenario's.", min=1, max=5_000),
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option(help="A folder of recorded candles, files such as btcusdt_1h.csv."),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes; 0 for one a core.", min=0, max=256)] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    checks: Annotated[
        bool, typer.Option(help="Check the invariants after every event (docs/invariants.md).")
    ] = True,
) -> None:
    """Replay nine historic days of stress with and without each defence, and judge what they show.

    Each event is a scenario of its own, scenarios/event_NAME.toml, and is run as shipped, with the
    other time-weighted buffer, without any, without breakers, without zone caps, and without all
    three. Below the rows stands what the event must show, with figures of these runs
    (docs/stress.md). Exit code 1: a claim does not hold; 4: an invariant did not.
    """
    without: list[str] = []
    if prices is None:
        scenarios = {name: plan.tables(name, accounts) for name in plan.named(names or ())}
    else:
        scenarios, without = recorded.with_candles(prices, names or (), accounts)
    shown = run(scenarios, jobs or os.cpu_count() or 1, checks=checks)
    report = Report(
        events=shown,
        without_candles=without,
        holds=all(claim.holds for event in shown for claim in event.claims),
    )
    if json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        _show(report)
    if not report.holds:
        raise typer.Exit(FAILED)


def run(scenarios: dict[str, Tables], processes: int, *, checks: bool) -> list[Shown]:
    """Run every way of some events, and judge them."""
    jobs = [
        job for name, tables in scenarios.items() for job in plan.jobs(name, tables, checks=checks)
    ]
    with counted("runs", len(jobs)) as progress:
        found = carry_out_all(jobs, processes, progress)
    shown = []
    for name, tables in scenarios.items():
        seen = {job.way: one for job, one in zip(jobs, found, strict=True) if job.event == name}
        path = path_of(reading.check(tables, directory=Path()))
        test = plan.EVENTS[name]
        event = Shown(
            name=name,
            title=test.title,
            prices=seen[FULL].result.prices_source,
            stylised=seen[FULL].result.stylised,
            rows=[_row(way, one) for way, one in seen.items() if way not in test.hidden],
            claims=plan.judge(name, Found(seen, path)),
        )
        shown.append(event)
    return shown


def _row(way: str, seen: Seen) -> Row:
    result = seen.result
    return Row(
        way=way,
        bad_debt_usd6=result.bad_debt_usd6,
        open_shortfall_usd6=result.open_shortfall_usd6,
        paid_usd6={who: usd6 for who, usd6 in payers(result) if usd6},
        deleveraged_usd6=result.deleveraging.closed_usd6,
        overshoot_usd6=result.deleveraging.overshoot_usd6,
        liquidations=result.liquidations,
        liquidated_usd6=result.liquidated_usd6,
        granted=result.reservations.granted,
        refused=result.reservations.reject_reasons,
        exposure_usd6=seen.peak_usd6,
        least_cover_ppm=seen.least_cover_ppm,
        digest=result.digest,
    )


def _show(report: Report) -> None:
    console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else WIDTH)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    heads = ("way", "bad debt", "still open", "paid by", "deleveraged", "liquidated", "refused")
    for head in (*heads, "peak of a zone", "least cover"):
        left = head in ("way", "paid by", "refused")
        table.add_column(head, justify="left" if left else "right", no_wrap=head == "way")
    for event in report.events:
        table.add_row(f"[bold]{event.title}[/bold]")
        for row in event.rows:
            table.add_row(
                f"  {row.way}",
                usd(row.bad_debt_usd6),
                usd(row.open_shortfall_usd6),
                ", ".join(f"{usd(usd6)} {who}" for who, usd6 in row.paid_usd6.items()),
                usd(row.deleveraged_usd6),
                usd(row.liquidated_usd6),
                ", ".join(f"{reason} {count:,}" for reason, count in row.refused.items()),
                usd(row.exposure_usd6),
                f"{row.least_cover_ppm / 1e4:,.0f} %",
            )
    console.print(table)
    for event in report.events:
        console.print(f"\n[bold]{event.title}[/bold]  {_source(event)}")
        for claim in event.claims:
            verdict = "holds         " if claim.holds else "[bold]does not hold[/bold] "
            console.print(f"  {verdict}({claim.how}) {claim.text}: {claim.figures}", soft_wrap=True)
    if report.without_candles:
        console.print(f"\nno candles for {', '.join(report.without_candles)}")


def _source(event: Shown) -> str:
    return "stylised through true anchors" if event.stylised else "recorded candles"
