"""What there is to see of a live stack, drawn for a terminal."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from lab.stack.live import Ending
from lab.stack.view import View
from lab.summary import usd

WIDTH = 130
_STYLES = {"refused": "bold red", "restarting": "red", "waiting": "yellow", "silent": "yellow"}
_STYLES |= {"left over": "bold red", "gone": "dim"}
_MONEY = ("reserved", "used", "in flight", "exposure")
_COUNTS = ("fills", "granted", "rejected", "liq. ordered", "done")


def draw(view: View) -> RenderableType:
    """Return the table of a running stack."""
    parts = list(body(view))
    parts += [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in view.notes]
    parts.append(Text("Ctrl-C stops everything", style="bold"))
    return Group(*parts)


def show(view: View) -> None:
    """Print the figures of a stack."""
    _console().print(Group(*body(view)))


def show_ending(ending: Ending, *, log: Path | None) -> None:
    """Print what a run has shown."""
    out = _console()
    out.print(Group(*body(ending.view)))
    span = timedelta(seconds=round(ending.wall_s))
    out.print(f"ended after {span}: {ending.why}")
    if log is not None:
        out.print(f"log {log}")
    else:
        out.print(f"what it did, checked: omnimargin record {ending.view.folder}", soft_wrap=True)


def body(view: View) -> Iterable[RenderableType]:
    """Yield all figures, most general first."""
    yield Text(view.title, style="bold")
    yield Text(f"{clock_line(view)}, broker {view.broker}, folder {view.folder}", overflow="fold")
    yield processes(view)
    if view.figures:
        yield spokes(view)
        yield Text(system_line(view), style="bold red" if alarms(view) else "")
        yield from (Text(finding, style="red", overflow="ellipsis") for finding in alarms(view))
    yield from (Text(one, style="bold red", overflow="fold") for one in view.matters)


def clock_line(view: View) -> str:
    """Return how far the scenario is."""
    if view.at_us < 0:
        return f"scenario begins in {-view.at_us / view.speed / 1e6:.0f} s at speed {view.speed:g}"
    return f"scenario {hms(view.at_us)} of {hms(view.duration_us)} at speed {view.speed:g}"


def processes(view: View) -> Table:
    """Return the processes as a table."""
    table = _table("process", "state")
    for name in ("pid", "time", "events", "late", "refused", "restarts"):
        table.add_column(name, justify="right")
    table.add_column("note", no_wrap=True, overflow="ellipsis")
    for row in view.rows:
        counts = (row.events, row.late, row.refused, row.restarts)
        table.add_row(
            row.role,
            Text(row.state, style=_STYLES.get(row.state, "")),
            str(row.pid or ""),
            hms(row.at_us),
            *(f"{count:,}" for count in counts),
            row.note,
        )
    return table


def spokes(view: View) -> Table:
    """Return what the monitor has counted, by spoke."""
    table = _table("spoke")
    for name in (*_MONEY, *_COUNTS, "up p50/p99", "down p50/p99"):
        table.add_column(name, justify="right")
    per_spoke = view.figures.get("spokes", {})
    for name in (*view.spokes, "all"):
        found = view.figures.get("all", {}) if name == "all" else per_spoke.get(name, {})
        money, counts = spoke_figures(found)
        ways = ("", "")
        if name != "all":
            ways = (delays(view, f"from-{name}."), delays(view, f"to-{name}."))
        table.add_row(name, *map(usd, money), *(f"{count:,}" for count in counts), *ways)
    return table


def spoke_figures(found: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Return money and counts of a spoke, in the order of the columns."""
    in_flight_usd6 = found.get("granted_in_flight_usd6", 0) + found.get("used_in_flight_usd6", 0)
    money = [found.get("reserved_usd6", 0), found.get("used_usd6", 0), in_flight_usd6]
    money.append(found.get("exposure_usd6", 0))
    names = ("fills", "granted", "rejected", "liquidations_ordered", "liquidations_done")
    return money, [found.get(name, 0) for name in names]


def delays(view: View, prefix: str) -> str:
    """Return median and 99 % of the busiest of the channels that begin so, scenario seconds."""
    ways = [one for name, one in view.figures.get("delays", {}).items() if name.startswith(prefix)]
    if not ways:
        return "-"
    busiest = max(ways, key=lambda way: way.get("count", 0))
    return f"{busiest.get('p50_s', 0):.0f}/{busiest.get('p99_s', 0):.0f} s"


def system_line(view: View) -> str:
    """Return what concerns the whole stack."""
    found = view.figures
    ages = ", ".join(f"{asset} {age:.0f} s" for asset, age in found.get("price_age_s", {}).items())
    return (
        f"bad debt {usd(found.get('all', {}).get('bad_debt_usd6', 0))}, "
        f"age of prices: {ages or 'none yet'}, findings {len(found.get('findings', ()))}, "
        f"dead letters {sum(found.get('dead_letters', {}).values()):,}"
    )


def alarms(view: View) -> list[str]:
    """Return the monitor's findings and the halts, newest last."""
    per_spoke = view.figures.get("spokes", {})
    halts = [
        f"HALT of {name}: {one.get('halt') or 'by the hub'}"
        for name, one in per_spoke.items()
        if one.get("halt") or one.get("halted_by_hub")
    ]
    findings = view.figures.get("findings", ())[-3:]
    return halts + [f"{one.get('rule', '')}: {one.get('text', '')}" for one in findings]


def line(view: View) -> str:
    """Return the stack in one line, for where no table can be drawn."""
    found = view.figures.get("all", {})
    money, counts = spoke_figures(found)
    states = " ".join(
        f"{row.role}:{row.state}" for row in view.rows if row.state not in ("running", "complete")
    )
    figures = [f"{count:,} {name}" for name, count in zip(_COUNTS, counts, strict=True)]
    figures += [f"{usd(usd6)} {name}" for name, usd6 in zip(_MONEY, money, strict=True)]
    shown = ", ".join(figures) if found else "no word of the monitor"
    return f"{clock_line(view)}: {shown}; {states or 'all run'}"


def hms(at_us: int) -> str:
    """Return a span for people: 1:02:03."""
    return str(timedelta(seconds=max(0, at_us) // 1_000_000))


def _console() -> Console:
    console = Console(highlight=False, emoji=False, markup=False)
    return (
        console
        if console.is_terminal
        else Console(highlight=False, emoji=False, markup=False, width=WIDTH)
    )


def _table(*left: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in left:
        table.add_column(name, no_wrap=True)
    return table
