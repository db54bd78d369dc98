"""What a run has shown, for the eye: a page of text, most important first."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lab.measures import HOPS
from lab.result import Deleveraging, Result, by_fills, payers
from lab.running import Replayed
from messaging.latency import quantile_us
from messaging.presets import END_TO_END, PRESETS, resolve_families

WIDTH = 100


def show(result: Result, *, log: Path | None, report: Path | None) -> None:
    """Print the summary of a run."""
    console = _console()
    console.print(f"[bold]{result.scenario}[/bold]  seed {result.seed}, {result.status}")
    if result.stylised:
        console.print("prices are stylised: a path through true anchor points, not tick data")
    table = Table.grid(padding=(0, 3))
    for name, text in _lines(result):
        table.add_row(name, text)
    console.print(table)
    if result.delay_us:
        console.print(_delays(result))
    console.print(f"digest {result.digest}, of prices and orders {result.outside_digest}")
    if log is not None:
        console.print(f"log    {log}")
    if report is not None:
        console.print(f"report {report}")


def _lines(result: Result) -> list[tuple[str, str]]:
    reservations = result.reservations
    lost = f"{usd(result.bad_debt_usd6)} in {result.closed_out_accounts} accounts"
    covered = ", ".join(f"{usd(usd6)} by {who}" for who, usd6 in payers(result))
    ways = sorted({name for lane in result.lanes for name in (lane.up, lane.down)})
    return [
        ("latency", ", ".join(_way(name) for name in ways)),
        ("buffer", result.buffer),
        ("bad debt", f"{lost}; {covered}"),
        ("open shortfall", usd(result.open_shortfall_usd6)),
        (
            "liquidations",
            f"{result.liquidations:,} commands on {result.liquidated_accounts:,} of "
            f"{result.accounts:,} accounts, {usd(result.liquidated_usd6)} closed",
        ),
        *_deleveraged(result.deleveraging),
        ("lateness", f"{usd(result.liquidation_moved_usd6)} between decision and fill"),
        ("collateral", usd(result.collateral_usd6)),
        ("locked", f"{result.equity_locked_ppm / 1e4:.1f} % of collateral, time-averaged"),
        (
            "credit",
            f"{reservations.requested:,} requested, {reservations.granted:,} granted, "
            f"{reservations.rejected:,} rejected, {reservations.released:,} released",
        ),
        *_breakers(result),
        *_impact(result),
        ("orders", f"{result.orders:,} placed, {result.orders_refused:,} without credit"),
        (
            "events",
            f"{result.events:,} in {result.virtual_s / 3600:,.1f} h of virtual and "
            f"{result.wall_s:,.1f} s of real time; {result.messages:,} messages",
        ),
        (
            "invariants",
            f"{result.invariants_checked:,} checks, {result.violations} violations",
        ),
    ]


def _deleveraged(found: Deleveraging) -> list[tuple[str, str]]:
    if not found.commands:
        return []
    text = (
        f"{found.commands:,} commands, {usd(found.closed_usd6)} of {found.accounts:,} accounts "
        f"closed, {usd(found.given_up_usd6)} given up, {usd(found.overshoot_usd6)} of it too much"
    )
    return [("deleveraged", text)]


def _breakers(result: Result) -> list[tuple[str, str]]:
    """Return the line on breakers, if there are any."""
    tripped = result.breakers
    if tripped is None:
        return []
    rises = ", ".join(f"{name} {count:,}" for name, count in tripped.rises.items())
    text = f"rose on {rises}; level {tripped.highest} at most" if rises else "never tripped"
    return [("breakers", text)]


def _impact(result: Result) -> list[tuple[str, str]]:
    """Return the line on what fills did to prices, if they moved any."""
    found = result.impact
    return [] if found is None else [("impact", by_fills(found))]


def _way(name: str) -> str:
    """Return a way's name, and what it leaves out if it is not the whole way."""
    preset = PRESETS.get(name)
    whole = preset is None or preset.covers == END_TO_END
    return name if whole or preset is None else f"{name} ({preset.covers} only)"


def _delays(result: Result) -> Table:
    table = Table(title="delay of liquidations by hop, seconds", title_justify="left")
    table.add_column("quantile")
    for hop in HOPS:
        table.add_column(hop, justify="right")
    for name in ("p50", "p99"):
        cells = [f"{getattr(result.delay_us[hop], name) / 1e6:,.1f}" for hop in HOPS]
        table.add_row(name, *cells)
    return table


def show_replay(replayed: Replayed) -> None:
    """Print what a replay has shown."""
    console = _console()
    console.print(f"[bold]{replayed.scenario}[/bold]  seed {replayed.seed}, {replayed.status}")
    console.print(
        f"{replayed.records:,} records over {replayed.virtual_s / 3600:,.1f} h repeated, "
        "every effect the same"
    )
    if replayed.status != "complete":
        console.print(f"the run stopped early: {replayed.status}")
    console.print(f"digest {replayed.digest}")


def preset_rows() -> list[dict[str, Any]]:
    """Return the presets as plain data; quartiles in seconds, null where there is no draw."""
    rows = []
    for name, preset in PRESETS.items():
        latency = preset.latency
        quartiles_s = None
        if latency is not None:
            quartiles_s = [quantile_us(latency, q) / 1e6 for q in (0.25, 0.5, 0.75)]
        rows.append(
            {
                "name": name,
                "quartiles_s": quartiles_s,
                "measured_quartiles_s": preset.measured_quartiles_s,
                "covers": preset.covers,
                "basis": preset.basis,
                "source": preset.source,
                "note": preset.note,
            }
        )
    return rows


def show_presets() -> None:
    """Print the presets."""
    table = Table(title="latency presets, seconds", title_justify="left", show_lines=True)
    for column in ("preset", "q1", "median", "q3"):
        table.add_column(column, justify="left" if column == "preset" else "right", no_wrap=True)
    table.add_column("covers, basis, source", overflow="fold")
    for row in preset_rows():
        quartiles = row["quartiles_s"] or ("-", "-", "-")
        cells = [f"{cell:,.1f}" if isinstance(cell, float) else cell for cell in quartiles]
        about = f"{row['covers']}; {row['basis']}\n{row['source']}"
        if row["note"]:
            about += f"\n{row['note']}"
        table.add_row(row["name"], *cells, about)
    console = _console()
    console.print(table)
    families = ", ".join(resolve_families())
    console.print(f"families, which choose a preset for each lane by its chains: {families}")


def usd(usd6: int) -> str:
    """Return money for people: whole dollars with separators."""
    return f"{'-' if usd6 < 0 else ''}${abs(usd6) / 1e6:,.0f}"


def _console() -> Console:
    console = Console(highlight=False, emoji=False)
    return console if console.is_terminal else Console(highlight=False, emoji=False, width=WIDTH)
