"""`omnimargin adl`: one scenario, three times, to see who pays when an account cannot."""

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from hub.adl import Adl
from lab import reading, running
from lab.progress import bar
from lab.result import Result, payers
from lab.summary import WIDTH, usd
from lab.world import build
from messaging.errors import InputRefused


def add_to(parent: typer.Typer) -> None:
    """Add the command to the command line."""
    parent.command("adl")(adl_command)


def adl_command(
    scenario: Annotated[Path, typer.Argument(help="Scenario file, as in scenarios/.")],
    seed: Annotated[int | None, typer.Option(help="Seed of all dice.")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any knob, e.g. hub.insurance_usd=0.", metavar="KEY=VALUE"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    checks: Annotated[
        bool, typer.Option(help="Check the invariants after every event (docs/invariants.md).")
    ] = True,
) -> None:
    """Run a scenario without auto-deleveraging, pro rata, and with a queue, and compare who pays.

    Prices and orders are the same in all three. Exit code 4 means that an invariant did not hold.
    """
    tables = reading.read_file(scenario)
    if seed is not None:
        tables["seed"] = seed
    for assignment in sets or ():
        reading.override(tables, assignment)
    results = {}
    for adl in Adl:
        checked = reading.check(_with(tables, adl), directory=scenario.parent)
        with bar(reading.duration_us(checked)) as progress:
            outcome = running.run(build(checked), checks=checks, progress=progress)
        if outcome.finding is not None:
            raise outcome.finding
        results[adl.value] = outcome.story.result
    if json:
        sys.stdout.write(msgspec.json.encode(results).decode() + "\n")
    else:
        _show(results)


def _with(tables: dict[str, Any], adl: Adl) -> dict[str, Any]:
    """Return the tables with another way of auto-deleveraging.

    Raises:
        InputRefused: `liquidation` is no table.
    """
    liquidation = tables.get("liquidation", {})
    if not isinstance(liquidation, dict):
        raise InputRefused("liquidation", expected="a table", found=repr(liquidation))
    return {**tables, "liquidation": {**liquidation, "adl": adl.value}}


def _show(results: dict[str, Result]) -> None:
    """Print one row for each way."""
    (first, *_) = results.values()
    table = Table(title=f"{first.scenario}, seed {first.seed}", title_justify="left")
    heads = ("bad debt", "paid by", "forced", "accounts", "given up", "overshoot")
    for head in ("adl", *heads):
        table.add_column(head, justify="left" if head in ("adl", "paid by") else "right")
    for name, result in results.items():
        adl = result.deleveraging
        table.add_row(
            name,
            usd(result.bad_debt_usd6),
            "\n".join(f"{usd(usd6)} {who}" for who, usd6 in payers(result)),
            usd(result.liquidated_usd6 + adl.closed_usd6),
            f"{result.liquidated_accounts:,} + {adl.accounts:,}",
            usd(adl.given_up_usd6),
            usd(adl.overshoot_usd6),
        )
    console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else WIDTH)
    console.print(table)
