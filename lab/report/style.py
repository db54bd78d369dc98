"""How charts look: colours, numbers for people, and the parts that charts share.

A colour always means the same thing. Text and axes are drawn in `currentColor`, so that one page
serves light screens, dark screens and paper. No text from a scenario is ever put into a Vega
expression or a field name.
"""

from collections.abc import Sequence
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
_WORDS = {"labelColor": _INK, "titleColor": _INK, "titleFontWeight": "normal"}
_WORDS |= {"labelFontSize": 11.5, "titleFontSize": 11.5, "titleOpacity": 0.8}
_LINES = {"gridColor": _INK, "gridOpacity": 0.11, "domainColor": _INK, "domainOpacity": 0.35}
_LINES |= {"tickColor": _INK, "tickOpacity": 0.35}
CONFIG: Spec = {
    "background": None,
    "font": "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif",
    "view": {"stroke": None},
    "axis": _WORDS | _LINES | {"labelOpacity": 0.8, "titlePadding": 8},
    "axisY": {"domain": False, "ticks": False, "labelPadding": 6},
    "legend": _WORDS | {"orient": "top", "columnPadding": 18, "labelLimit": 260},
    "line": {"strokeWidth": 1.8, "strokeJoin": "round"},
    "text": {"color": _INK, "fontSize": 11.5},
    "rule": {"color": _INK},
}


class Unit(NamedTuple):
    """A unit of time, and how many microseconds it has."""

    name: str
    us: int


class Series(NamedTuple):
    """A line over time: one value for each sample."""

    name: str
    colour: str
    values: Sequence[float]
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
        return f"{us / 1e3:.3g} ms" if us else "0 s"
    unit = unit_for(us)
    return f"{us / unit.us:.{1 if us < 100 * unit.us else 0}f} {unit.name}"


def dollars(usd6: int) -> str:
    """Return money for people: three digits and a scale."""
    sign, usd = "-" if usd6 < 0 else "", abs(usd6) / 1e6
    for scale, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if usd >= scale * 0.9995:
            digits = 0 if usd >= 99.95 * scale else 1 if usd >= 9.995 * scale else 2
            return f"{sign}${usd / scale:,.{digits}f}{letter}"
    return f"{sign}${usd:,.0f}"


def palette(names: Sequence[str], colours: Sequence[str]) -> Spec:
    """Return a scale that gives each name its colour; colours repeat when they run out."""
    own = [colours[place % len(colours)] for place in range(len(names))]
    return {"domain": list(names), "range": own}


def number(field: str, title: str, **axis: Any) -> Spec:
    """Return an encoding of a number, with its axis."""
    return {"field": field, "type": "quantitative", "axis": {"title": title, **axis}}


def height(field: str, title: str, **axis: Any) -> Spec:
    """Return a vertical encoding; all its axes have one breadth, so that charts line up."""
    return number(field, title, minExtent=46, maxExtent=46, tickCount=5, **axis)


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


class Course:
    """The time axis of a run, and what charts draw along it."""

    def __init__(self, story: Story) -> None:
        self.samples = story.samples
        end_us = max((one.at_us for one in self.samples), default=0)
        self.unit = unit_for(end_us)
        self.end = max(0.001, self.at(end_us))
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
        rows = [
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
            colour = {"datum": line.name, "scale": scale, "legend": legend}
            layers.append({"mark": mark, "encoding": {"x": self.x(), "y": y, "color": colour}})
        form = "$,.0f" if money else ",.1f"
        tips = [tip("t", f"time [{self.unit.name}]", ",.2f")]
        tips += [
            tip(f"v{n}", f"{line.name}, used" if line.dash else line.name, form)
            for n, line in columns
        ]
        layers.append(_pointer(self.x(), tips))
        return {
            "width": size[0],
            "height": size[1],
            "data": {"values": rows},
            "layer": layers,
        }


def _pointer(x: Spec, tips: list[Spec]) -> Spec:
    """Return a rule that follows the pointer and says the values beside it."""
    select = {"type": "point", "on": "pointerover", "clear": "pointerout", "nearest": True}
    shown = {"condition": {"param": "hover", "empty": False, "value": 0.4}, "value": 0}
    return {
        "params": [{"name": "hover", "select": {**select, "encodings": ["x"]}}],
        "mark": {"type": "rule"},
        "encoding": {"x": x, "opacity": shown, "tooltip": tips},
    }
