"""The command `omnimargin incident`: a forged release, and what each defence would have saved."""

import sys
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from lab.incident.loss import Loss, lose
from lab.incident.plan import Plan, check, rows
from lab.progress import counted
from lab.summary import usd
from messaging.units import USD

VIOLATED = 4
WIDTH = 100
DEFAULT = Plan()

# \b keeps the lines as they are.
_EXAMPLES = """\b
Examples:
  omnimargin incident                          as it happened, and eleven times otherwise
  omnimargin incident --halt-min 20            people were faster
  omnimargin incident --cap-usd 10e6 --json    a smaller cap, for machines
  omnimargin incident --hold-min 30            a hold that ends before the halt buys only time
"""


class Report(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    plan: Plan
    forged_usd6: int
    rows: list[Loss]


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("incident", epilog=_EXAMPLES)(incident_command)


def incident_command(
    units: Annotated[float, typer.Option(help="Units in the first forged claim.")] = DEFAULT.units,
    price_usd: Annotated[float, typer.Option(help="Dollars a unit.")] = DEFAULT.price_usd,
    more_units: Annotated[
        float, typer.Option(help="Units in each of the claims at minutes 51 and 53; 0 for none.")
    ] = DEFAULT.more_units,
    draw_min: Annotated[
        float, typer.Option(help="Minutes in which the first claim's credit would be used.")
    ] = DEFAULT.draw_min,
    cap_usd: Annotated[
        float, typer.Option(help="Zone cap of every spoke, in rows with a cap.")
    ] = DEFAULT.cap_usd,
    hold_min: Annotated[
        float, typer.Option(help="Minutes that a gain is held, in rows with a hold.")
    ] = DEFAULT.hold_min,
    halt_min: Annotated[
        float, typer.Option(help="Minute at which people halt the forger.")
    ] = DEFAULT.halt_min,
    early_min: Annotated[
        float, typer.Option(help="Minute at which an automatic watch would.")
    ] = DEFAULT.early_min,
    freeze_min: Annotated[
        float, typer.Option(help="Minute at which every spoke is halted, after either.")
    ] = DEFAULT.freeze_min,
    way_s: Annotated[
        float, typer.Option(help="Seconds that a message takes between hub and spoke.")
    ] = DEFAULT.way_s,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Replay the forged release of 18 April 2026 under every combination of three defences.

    A spoke that lies, or whoever has its key, claims gains that nobody has made; the hub cannot
    tell, and credit against them is used on three honest spokes, minute by minute. Forty and some
    minutes later people halt the forger, and later everything. Hub and spokes are the real ones,
    so the loss is what their books say at the end, with all checks on (docs/incident.md).

    Zone cap: what traders may win on one spoke on balance. Hold: how long a gain waits before it
    counts. Halt: from then on the spoke's claims are not booked, and back no credit anywhere.
    Exit code 4: an invariant did not hold.
    """
    plan = check(
        Plan(
            units=units,
            price_usd=price_usd,
            more_units=more_units,
            draw_min=draw_min,
            cap_usd=cap_usd,
            hold_min=hold_min,
            halt_min=halt_min,
            early_min=early_min,
            freeze_min=freeze_min,
            way_s=way_s,
        )
    )
    losses, wanted = [], rows(plan)
    with counted("rows", len(wanted)) as progress:
        for defences in wanted:
            losses.append(lose(plan, defences))
            progress(len(losses), f"{losses[-1].checked:,} checks")
    forged_usd6 = max(loss.forged_usd6 for loss in losses)
    if json:
        report = Report(plan, forged_usd6, losses)
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        _show(plan, losses, forged_usd6)
    for loss in losses:
        if loss.finding is not None:
            sys.stderr.write(f"omnimargin: invariant {loss.finding}\n")
            raise typer.Exit(VIOLATED)


def _show(plan: Plan, losses: list[Loss], forged_usd6: int) -> None:
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(
        f"[bold]A forged release[/bold]  {usd(forged_usd6)} claimed and not there: "
        f"{plan.units:,.0f} units at minute 0, {plan.more_units:,.0f} each at 51 and 53",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=None, header_style="bold", padding=(0, 3, 0, 0))
    for name in ("zone cap", "hold", "halt", "value taken", "of forged", "last taken"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("the rest was stopped by")
    for loss in losses:
        table.add_row(
            usd(round(plan.cap_usd * USD)) if loss.cap else "-",
            f"{plan.hold_min:,g} min" if loss.hold else "-",
            "-" if loss.halt_min is None else f"{loss.halt_min:,g} min",
            usd(loss.taken_usd6),
            f"{100 * loss.taken_usd6 / forged_usd6:.1f} %",
            "-" if loss.last_min is None else f"{loss.last_min:,.1f} min",
            ", ".join(loss.stopped_by) or "nothing",
        )
    console.print(table, highlight=False)
    checked = sum(loss.checked for loss in losses)
    console.print(
        f"{len(losses)} runs, {checked:,} checks; of the forger's own books none (P2)",
        highlight=False,
    )
