"""How the report looks: colours, numbers for people, and the parts that charts share.

A colour always means the same thing. Text and axes are drawn in `currentColor`, so that one page
serves light screens, dark screens and paper.
"""

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple, TypeAlias

Spec: TypeAlias = dict[str, Any]

LOSS = "#d64550"
INSURANCE = "#1f9e89"
EQUITY = "#3f6fb5"
INITIAL = "#e0a030"
STATE_AGE = "#98a2b3"
SPOKES = ("#3d85c6", "#e8863a", "#3fa55f", "#a869c2", "#8f7a5a", "#38aab8")
ASSETS = ("#6d5fc7", "#b98a2f", "#c4588b", "#5b8794")
HOPS = {
    "oracle": "#7a8fb8",
    "hub": "#d9b23c",
    "command": "#6257c9",
    "inclusion": "#2ba3a0",
    "unwind": "#d377a6",
}
WIDE, HALF = 1030, 430
DOLLARS = "replace(format(datum.value, '$~s'), 'G', 'B')"


class Unit(NamedTuple):
    """A unit of time, and how many microseconds it has."""

    name: str
    us: int


SECONDS, MINUTES, HOURS = Unit("s", 1_000_000), Unit("min", 60_000_000), Unit("h", 3_600_000_000)


def unit_for(longest_us: int) -> Unit:
    """Return the unit in which durations up to this one read best."""
    if longest_us < 3 * MINUTES.us:
        return SECONDS
    return MINUTES if longest_us < 3 * HOURS.us else HOURS


def duration(us: int) -> str:
    """Return a duration for people: three digits at most matter."""
    if us < 100_000:
        return f"{us / 1e3:.3g} ms"
    if us < 3 * MINUTES.us:
        return f"{us / 1e6:.3g} s"
    if us < 3 * HOURS.us:
        return f"{us / MINUTES.us:.3g} min"
    return f"{us / HOURS.us:,.1f} h"


def dollars(usd6: int) -> str:
    """Return money for people: three digits and a scale."""
    sign, usd = "-" if usd6 < 0 else "", abs(usd6) / 1e6
    for scale, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if usd >= scale * 0.9995:
            digits = 0 if usd >= 99.95 * scale else 1 if usd >= 9.995 * scale else 2
            return f"{sign}${usd / scale:,.{digits}f}{letter}"
    return f"{sign}${usd:,.0f}"


def percent(part: int, whole: int) -> str:
    """Return a share for people, and a dash for a share of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else "–"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> str:
    """Return a table, everything in it escaped; columns after the first `words` hold numbers."""

    def row(tag: str, cells: Sequence[str]) -> str:
        kinds = ["" if place < words else ' class="number"' for place in range(len(cells))]
        marked = zip(kinds, cells, strict=True)
        return (
            "<tr>"
            + "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in marked)
            + "</tr>"
        )

    body = "\n".join(row("td", cells) for cells in rows)
    return f"<table><thead>{row('th', head)}</thead>\n<tbody>{body}</tbody></table>"


def palette(names: Sequence[str], colours: Sequence[str]) -> Spec:
    """Return a scale that gives each name its colour; colours repeat when they run out."""
    return {
        "domain": list(names),
        "range": [colours[place % len(colours)] for place in range(len(names))],
    }


def axis(title: str, **more: Any) -> Spec:
    """Return a vertical axis; all have the same breadth, so charts line up."""
    return {"title": title, "minExtent": 58, "maxExtent": 58, "tickCount": 5, **more}


def tip(field: str, title: str, form: str) -> Spec:
    """Return a line of a tooltip."""
    return {"field": field, "title": title, "type": "quantitative", "format": form}


CONFIG: Spec = {
    "background": None,
    "font": "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "currentColor",
        "labelOpacity": 0.8,
        "titleColor": "currentColor",
        "titleFontWeight": "normal",
        "titleOpacity": 0.8,
        "titlePadding": 8,
        "labelFontSize": 11,
        "titleFontSize": 11.5,
        "gridColor": "currentColor",
        "gridOpacity": 0.11,
        "domainColor": "currentColor",
        "domainOpacity": 0.35,
        "tickColor": "currentColor",
        "tickOpacity": 0.35,
    },
    "axisY": {"domain": False, "ticks": False, "labelPadding": 6},
    "legend": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "titleFontWeight": "normal",
        "titleOpacity": 0.8,
        "labelFontSize": 11.5,
        "titleFontSize": 11.5,
        "labelLimit": 260,
        "titleLimit": 300,
        "orient": "top",
        "direction": "horizontal",
        "columnPadding": 18,
        "symbolStrokeWidth": 2.5,
    },
    "title": {"color": "currentColor", "fontSize": 12.5, "anchor": "start", "offset": 6},
    "line": {"strokeWidth": 1.8, "strokeJoin": "round"},
    "text": {"color": "currentColor", "fontSize": 11.5},
}

CSS = """
:root { color-scheme: light dark; --ink: #1d2733; --soft: #5b6775; --rule: #d9dee5;
  --page: #ffffff; --tile: #f5f7fa; --loss: #b8323d; --warn: #fff4d6; --warn-ink: #6b4e00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #a3adba; --rule: #38414d;
  --page: #14181e; --tile: #1e242d; --loss: #f2757e; --warn: #40340f; --warn-ink: #f3d98b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 28px 36px 48px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 40px 0 6px; padding-top: 14px; border-top: 1px solid var(--rule); }
h3 { font-size: 15px; margin: 0 0 8px; }
p { margin: 6px 0; max-width: 100ch; }
.soft, figcaption { color: var(--soft); font-size: 13.5px; overflow-wrap: anywhere; }
code { font-size: 13px; overflow-wrap: anywhere; }
.banner { padding: 10px 14px; border-radius: 6px; margin: 14px 0; max-width: none;
  background: var(--warn); color: var(--warn-ink); overflow-wrap: anywhere; }
.banner.bad { background: var(--loss); color: var(--page); font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(3, 1fr); gap: 12px; margin: 20px 0; }
.tile { background: var(--tile); border-radius: 8px; padding: 12px 16px; }
.tile b { display: block; font-size: 27px; line-height: 1.25; font-weight: 600;
  font-variant-numeric: tabular-nums; }
.tile.loss b { color: var(--loss); }
.tile span { color: var(--soft); font-size: 13.5px; }
.figures { display: grid; grid-template-columns: 1fr 1fr; gap: 0 36px; }
figure { margin: 22px 0 6px; min-width: 0; break-inside: avoid; }
figure.wide { grid-column: 1 / -1; }
figcaption { margin-top: 6px; max-width: 110ch; }
.chart { width: 100%; } .chart svg { max-width: 100%; height: auto; display: block; }
table { border-collapse: collapse; font-size: 13.5px; margin: 10px 0 18px; width: 100%;
  break-inside: avoid; }
th, td { text-align: left; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--rule);
  vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 500; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
dl { display: grid; grid-template-columns: 170px 1fr; gap: 4px 18px; font-size: 13.5px; margin: 0; }
dt { font-weight: 600; } dd { margin: 0; color: var(--soft); max-width: 100ch; }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --rule: #ccc;
  --page: #fff; --tile: #f3f3f3; --loss: #a3202b; --warn: #fff4d6; --warn-ink: #4a3600; }
  main { padding: 0; } body { font-size: 12px; } h2 { break-after: avoid; } }
"""
