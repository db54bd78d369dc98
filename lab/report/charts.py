"""The charts of the report, as Vega-Lite specifications with their data inside.

No text from a scenario is ever put into a Vega expression or a field name.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lab.report.style import (
    ASSETS,
    DOLLARS,
    EQUITY,
    HALF,
    HOPS,
    INITIAL,
    INSURANCE,
    LOSS,
    SPOKES,
    STATE_AGE,
    WIDE,
    Spec,
    Unit,
    axis,
    palette,
    tip,
    unit_for,
)
from lab.result import Liquidation, Sample, Story
from messaging.units import ONE

MARKS_MAX = 1_500  # liquidations drawn one by one; above, by time
_STATE = "state report age"


class Chart(NamedTuple):
    """A chart, its title, and what it shows in plain words."""

    name: str
    title: str
    note: str
    spec: Spec
    wide: bool = True


class Series(NamedTuple):
    """A line over time: one value for each sample."""

    name: str
    colour: str
    values: Sequence[float]
    dash: tuple[int, ...] = ()
    filled: bool = False


def happened(story: Story) -> list[Chart]:
    """Return the charts of what happened: prices, equity, losses."""
    charts = [_prices(story)] if _priced(story) else []
    samples = story.samples
    standing = [
        Series("equity", EQUITY, _usd(samples, lambda one: one.equity_usd6)),
        Series("initial margin", INITIAL, _usd(samples, lambda one: one.initial_usd6)),
        Series("maintenance margin", LOSS, _usd(samples, lambda one: one.maintenance_usd6)),
    ]
    losses = [
        Series("bad debt so far", LOSS, _usd(samples, lambda one: one.bad_debt_usd6), (), True),
        Series("insurance fund left", INSURANCE, _usd(samples, lambda one: one.insurance_usd6)),
    ]
    charts.append(
        Chart(
            "equity",
            "Equity and what it must cover",
            "All accounts together, in dollars, as the hub sees them: it works with prices and "
            "positions that are already old. Both requirements include the latency buffer. New "
            "credit needs equity above initial margin; an account whose own equity falls below "
            "its maintenance margin is liquidated.",
            _over_time(story, standing, "US dollars", 210),
        )
    )
    charts.append(
        Chart(
            "losses",
            "Bad debt and the insurance fund",
            "Bad debt, in dollars: what accounts owed beyond their collateral when they were "
            "closed out, added up; it is booked when the hub hears of the last fill, one message "
            "after the loss itself. Insurance pays it until the fund is empty.",
            _over_time(story, losses, "US dollars", 170),
        )
    )
    return charts


def late(story: Story) -> list[Chart]:
    """Return the charts of why: delays, and how far prices moved meanwhile."""
    if not story.liquidations:
        return []
    charts = [_hops(story), _totals(story)]
    if _priced(story):
        charts += [_moves(story), _blind(story)]
    return charts


def credit(story: Story) -> list[Chart]:
    """Return the charts of what spokes hold, and how old the hub's knowledge of them is."""
    samples, places = story.samples, range(len(story.result.spokes))
    oldest_us = max((max(one.state_age_us, default=0) for one in samples), default=0)
    unit = unit_for(oldest_us)

    def by_spoke(values: Callable[[Sample], list[int]], unit_size: float) -> list[list[float]]:
        return [[round(values(one)[place] / unit_size, 2) for one in samples] for place in places]

    def lines(columns: list[list[float]], dash: tuple[int, ...] = ()) -> list[Series]:
        named = zip(story.result.spokes, columns, strict=True)
        return [
            Series(name, SPOKES[place % len(SPOKES)], values, dash)
            for place, (name, values) in enumerate(named)
        ]

    reserved = lines(by_spoke(lambda one: one.reserved_usd6, 1e6))
    used = lines(by_spoke(lambda one: one.used_usd6, 1e6), (4, 3))
    carried = lines(by_spoke(lambda one: one.carried_usd6, 1e6))
    ages = lines(by_spoke(lambda one: one.state_age_us, unit.us))
    return [
        Chart(
            "credit",
            "Credit held by spoke",
            "Solid: credit that the hub has set aside for a spoke, in dollars. Dashed: the part "
            "that the hub knows to be used. The gap is capital that idles while messages travel.",
            _over_time(story, [*reserved, *used], "US dollars", 190, WIDE),
        ),
        Chart(
            "carried",
            "Margin carried by spoke",
            "Initial margin of positions that a spoke has reported, in dollars.",
            _over_time(story, carried, "US dollars", 170, HALF),
            wide=False,
        ),
        Chart(
            "ages",
            "Age of the hub's knowledge",
            f"Time since the moment that the hub's latest state of a spoke describes, in "
            f"{unit.name}. A climb without falls is silence: a lost lane or a halted chain.",
            _over_time(story, ages, f"age [{unit.name}]", 170, HALF),
            wide=False,
        ),
    ]


def median_us(story: Story) -> int:
    """Return the median total delay of liquidations, 0 if there were none."""
    total = story.result.delay_us.get("total")
    return 0 if total is None else total.p50


def worst_moves(story: Story) -> list[float]:
    """Return, by asset, the furthest that its price fell or rose in one median delay [%]."""
    return [max(moves, key=abs, default=0.0) for moves in _drifts(story)]


def _priced(story: Story) -> list[Sample]:
    """Return the samples that know all prices: the first has none yet."""
    count = len(story.result.assets)
    return [one for one in story.samples if count and len(one.prices_usd6) == count]


def _usd(samples: Sequence[Sample], value: Callable[[Sample], int]) -> list[float]:
    return [round(value(one) / 1e6) for one in samples]


def _clock(story: Story) -> Unit:
    return unit_for(story.samples[-1].at_us if story.samples else 0)


def _times(story: Story) -> Spec:
    """Return the time axis that all charts of a run share."""
    unit = _clock(story)
    end = max(1e-3, story.samples[-1].at_us / unit.us if story.samples else 1.0)
    words = {"h": "hours", "min": "minutes", "s": "seconds"}[unit.name]
    return {
        "field": "t",
        "type": "quantitative",
        "scale": {"domain": [0, round(end, 4)], "nice": False},
        "axis": {"title": f"{words} since the start", "grid": False},
    }


def _bands(story: Story) -> Spec:
    """Return the layer that marks when bad debt grew by at least 1 % of its end."""
    unit, samples, spans = _clock(story), story.samples, list[dict[str, float]]()
    least = max(1, samples[-1].bad_debt_usd6 // 100) if samples else 1
    for one, following in zip(samples, samples[1:], strict=False):
        if following.bad_debt_usd6 - one.bad_debt_usd6 >= least:
            start, end = round(one.at_us / unit.us, 4), round(following.at_us / unit.us, 4)
            if spans and spans[-1]["until"] == start:
                spans[-1]["until"] = end
            else:
                spans.append({"t": start, "until": end})
    return {
        "data": {"values": spans},
        "mark": {"type": "rect", "color": LOSS, "opacity": 0.13, "tooltip": None},
        "encoding": {"x": _times(story), "x2": {"field": "until"}},
    }


def _over_time(
    story: Story, series: Sequence[Series], title: str, height: int, width: int = WIDE
) -> Spec:
    """Return lines over time, with the values under the pointer."""
    unit, x = _clock(story), _times(story)
    rows = [
        {"t": round(one.at_us / unit.us, 4)}
        | {f"v{number}": line.values[place] for number, line in enumerate(series)}
        for place, one in enumerate(story.samples)
    ]
    names = list(dict.fromkeys(line.name for line in series))
    colour_of = {line.name: line.colour for line in series}
    scale = palette(names, [colour_of[name] for name in names])
    money = title == "US dollars"
    marks = []
    for number, line in enumerate(series):
        kind: Spec = {"type": "area", "line": True, "fillOpacity": 0.18} if line.filled else {}
        kind = kind or {"type": "line", "strokeDash": list(line.dash)}
        kind |= {"interpolate": "step-after", "clip": True, "point": len(rows) < 3}
        y = {"field": f"v{number}", "type": "quantitative"}
        y["axis"] = axis(title, labelExpr=DOLLARS) if money else axis(title)
        legend = {"title": None, "symbolType": "stroke"} if len(names) > 1 else None
        colour = {"datum": line.name, "scale": scale, "legend": legend}
        marks.append({"mark": kind, "encoding": {"x": x, "y": y, "color": colour}})
    form = "$,.0f" if money else ",.1f"
    said = [f"{line.name}, used" if line.dash else line.name for line in series]
    tips = [tip("t", f"time [{unit.name}]", ",.2f")]
    tips += [tip(f"v{number}", name, form) for number, name in enumerate(said)]
    return {
        "width": width,
        "height": height,
        "data": {"values": rows},
        "layer": [_bands(story), *marks, _pointer(x, tips)],
    }


def _pointer(x: Spec, tips: list[Spec]) -> Spec:
    """Return a rule that follows the pointer and says the values beside it."""
    select = {"type": "point", "on": "pointerover", "clear": "pointerout", "nearest": True}
    shown = {"condition": {"param": "hover", "empty": False, "value": 0.4}, "value": 0}
    return {
        "params": [{"name": "hover", "select": {**select, "encodings": ["x"]}}],
        "mark": {"type": "rule", "stroke": "currentColor"},
        "encoding": {"x": x, "opacity": shown, "tooltip": tips},
    }
