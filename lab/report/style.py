"""How charts look: colours, numbers for people, and the parts that charts share.

A colour always means the same thing. Text and axes are drawn in `currentColor`, so that one page
serves light screens, dark screens and paper. No text from a scenario is ever put into a Vega
expression or a field name.
"""

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from lab.result import Story

Spec: TypeAlias = dict[str, Any]

LOSS = "#d64550"
INSURANCE = "#1f9e89"
EQUITY = "#3f6fb5"
INITIAL = "#e0a030"
MAINTENANCE = "#b5602a"
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
WIDE, HALF, BINS = 1030, 430, 30
DOLLARS = "replace(format(datum.value, '$~s'), 'G', 'B')"

_INK = "currentColor"
_WORDS: Spec = {"labelColor": _INK, "titleColor": _INK, "titleFontWeight": "normal"}
_WORDS |= {"labelFontSize": 11.5, "titleFontSize": 11.5, "titleOpacity": 0.8}
_LINES: Spec = {"gridColor": _INK, "gridOpacity": 0.11, "domainColor": _INK, "domainOpacity": 0.35}
_LINES |= {"tickColor": _INK, "tickOpacity": 0.35}
CONFIG: Spec = {
    "background": None,
    "font": "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif",
    "view": {"stroke": None},
    "axis": _WORDS | _LINES | {"labelOpacity": 0.8, "titlePadding": 8, "labelFlush": False},
    "axisY": {"domain": False, "ticks": False, "labelPadding": 6},
    "legend": _WORDS | {"orient": "top", "columnPadding": 18, "titleOrient": "left"},
    "line": {"strokeWidth": 1.8, "strokeJoin": "round"},
    "text": {"color": _INK, "fontSize": 11.5},
    "rule": {"color": _INK},
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
td:first-child { min-width: 110px; }
th { color: var(--soft); font-weight: 500; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
dl { display: grid; grid-template-columns: 90px 1fr; gap: 4px; font-size: 13.5px; margin: 16px 0; }
dt { font-weight: 600; } dd { margin: 0; color: var(--soft); max-width: 100ch; }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --rule: #ccc;
  --page: #fff; --tile: #f3f3f3; --loss: #a3202b; --warn: #fff4d6; --warn-ink: #4a3600; }
  main { padding: 0; } body { font-size: 12px; } h2 { break-after: avoid; } }
"""


EXPORT = "window.vegaEmbed = vegaEmbed;"
START = """
for (const one of document.querySelectorAll("script[type='application/json']")) {
  const place = document.getElementById("chart-" + one.id);
  vegaEmbed(place, JSON.parse(one.textContent), {
    mode: "vega-lite", renderer: "svg", actions: false, config: CONFIG,
  }).catch((error) => { place.textContent = "This chart cannot be drawn: " + error; });
}
"""


class Unit(NamedTuple):
    """A unit of time, and how many microseconds it has."""

    name: str
    us: int


class Series(NamedTuple):
    """A line over time: one value for each sample."""

    name: str
    colour: str
    values: Sequence[float | None]
    dash: tuple[int, ...] = ()
    filled: bool = False


SECONDS, MINUTES, HOURS = Unit("s", 1_000_000), Unit("min", 60_000_000), Unit("h", 3_600_000_000)


def unit_for(longest_us: int) -> Unit:
    """Return the unit in which durations up to this one read best."""
    if longest_us < 3 * MINUTES.us:
        return SECONDS
    return MINUTES if longest_us < 3 * HOURS.us else HOURS


def duration(us: int) -> str:
    """Return a duration for people."""
    if us < SECONDS.us:
        return f"{us / 1e3:.3g}\u00a0ms" if us else "0\u00a0s"
    unit = unit_for(us)
    return f"{us / unit.us:.{1 if us < 100 * unit.us else 0}f}\u00a0{unit.name}"


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
    return f"{100 * part / whole:.1f}\u00a0%" if whole else "–"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Return a table, everything in it escaped; after the first `words` columns stand numbers."""
    lines, kind = [], ' class="number"'
    for tag, cells in [("th", head), *(("td", row) for row in rows)]:
        marked = [
            f"<{tag}{kind if place >= words else ''}>{escape(cell)}</{tag}>"
            for place, cell in enumerate(cells)
        ]
        lines.append(f"<tr>{''.join(marked)}</tr>")
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def palette(names: Sequence[str], colours: Sequence[str]) -> Spec:
    """Return a scale that gives each name its colour; colours repeat when they run out."""
    own = [colours[place % len(colours)] for place in range(len(names))]
    return {"domain": list(names), "range": own}


def number(field: str, title: str, **axis: Any) -> Spec:
    """Return an encoding of a number, with its axis."""
    return {"field": field, "type": "quantitative", "axis": {"title": title, **axis}}


def height(field: str, title: str, **axis: Any) -> Spec:
    """Return a vertical encoding; all its axes have one breadth, so that charts line up."""
    return number(field, title, minExtent=54, maxExtent=54, titleLimit=180, tickCount=5, **axis)


def tip(field: str, title: str, form: str) -> Spec:
    """Return a line of a tooltip."""
    return {"field": field, "title": title, "type": "quantitative", "format": form}


def edges(values: Sequence[float]) -> tuple[list[float], str]:
    """Return borders of equal bins, and the scale on which they are equal."""
    low, high = min(values), max(values)
    if low > 0 and high > 12 * low:
        return [round(float(edge), 6) for edge in np.geomspace(low, high * 1.001, BINS + 1)], "log"
    rough = max((high - low) / BINS, high / 200, 1e-3)
    scale = 10 ** np.floor(np.log10(rough))
    step = float(scale * next(nice for nice in (1, 2, 5, 10) if nice * scale >= rough * 0.999))
    first, last = int(low // step), int(high // step) + 1
    return [round(place * step, 6) for place in range(first, last + 1)], "linear"


def bin_of(value: float, edges: Sequence[float]) -> int:
    """Return the number of the bin that holds the value, or is nearest."""
    return min(max(int(np.searchsorted(edges, value, "right")) - 1, 0), len(edges) - 2)


class Course:
    """The time axis of a run, and what charts draw along it."""

    def __init__(self, story: Story) -> None:
        self.samples = story.samples
        end_us = max((one.at_us for one in self.samples), default=0)
        self.unit = unit_for(end_us)
        self.end = self.at(end_us) or 1.0
        assets = len(story.result.assets)  # the first sample knows no price yet
        self.priced = [one for one in self.samples if assets and len(one.prices_usd6) == assets]

    def at(self, us: int) -> float:
        """Return a moment as the axis counts it."""
        return round(us / self.unit.us, 4)

    def price_at(self, asset: int, at_us: Sequence[int]) -> list[float]:
        """Return true prices in dollars, on straight lines between samples."""
        prices = [one.prices_usd6[asset] / 1e6 for one in self.priced]
        known_us = [one.at_us for one in self.priced]
        return [float(price) for price in np.interp(at_us, known_us, prices)]

    def x(self) -> Spec:
        """Return the encoding of time."""
        words = {"h": "hours", "min": "minutes", "s": "seconds"}[self.unit.name]
        scale = {"domain": [0, self.end], "nice": False}
        return number("t", f"{words} since the start", grid=False) | {"scale": scale}

    def bands(self) -> Spec:
        """Return the layer that marks when at least 1 % of all bad debt was booked at once."""
        spans: list[dict[str, float]] = []
        for one, following in zip(self.samples, self.samples[1:], strict=False):
            grown = following.bad_debt_usd6 - one.bad_debt_usd6
            if grown <= 0 or grown * 100 < self.samples[-1].bad_debt_usd6:
                continue
            start, end = self.at(one.at_us), self.at(following.at_us)
            if spans and spans[-1]["until"] == start:
                spans[-1]["until"] = end
            else:
                spans.append({"t": start, "until": end})
        return {
            "data": {"values": spans},
            "mark": {"type": "rect", "color": LOSS, "opacity": 0.13},
            "encoding": {"x": self.x(), "x2": {"field": "until"}},
        }

    def lines(self, series: Sequence[Series], title: str, size: tuple[int, int]) -> Spec:
        """Return lines over time, with the values under the pointer."""
        money = title == "US dollars"
        columns = list(enumerate(series))
        rows: list[Spec] = [
            {"t": self.at(one.at_us)} | {f"v{n}": line.values[place] for n, line in columns}
            for place, one in enumerate(self.samples)
        ]
        colour_of = {line.name: line.colour for line in series}
        scale = {"domain": list(colour_of), "range": list(colour_of.values())}
        legend = {"title": None, "symbolType": "stroke"} if len(colour_of) > 1 else None
        layers = [self.bands()]
        for n, line in columns:
            mark: Spec = {"type": "line", "strokeDash": list(line.dash)}
            if line.filled:
                mark = {"type": "area", "line": True, "fillOpacity": 0.18}
            mark |= {"interpolate": "step-after" if money else "linear", "point": len(rows) < 3}
            y = height(f"v{n}", title, **({"labelExpr": DOLLARS} if money else {}))
            y["stack"] = None
            colour = {"datum": line.name, "scale": scale, "legend": legend}
            layers.append({"mark": mark, "encoding": {"x": self.x(), "y": y, "color": colour}})
        form = "$,.0f" if money else ",.1f"
        tips = [tip("t", f"time [{self.unit.name}]", ",.2f")]
        tips += [
            tip(f"v{n}", f"{line.name}, used" if line.dash else line.name, form)
            for n, line in columns
        ]
        layers.append(_pointer(self.x(), tips))
        width, tall = size
        return {"width": width, "height": tall, "data": {"values": rows}, "layer": layers}


def _pointer(x: Spec, tips: list[Spec]) -> Spec:
    """Return a rule that follows the pointer and says the values beside it."""
    select = {"type": "point", "on": "pointerover", "clear": "pointerout", "nearest": True}
    shown = {"condition": {"param": "hover", "empty": False, "value": 0.4}, "value": 0}
    return {
        "params": [{"name": "hover", "select": {**select, "encodings": ["x"]}}],
        "mark": {"type": "rule"},
        "encoding": {"x": x, "opacity": shown, "tooltip": tips},
    }
