"""The charts of the report by name, as Vega-Lite specifications with their data inside."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from lab.report import style
from lab.report.style import DOLLARS, HALF, SPOKES, WIDE, Course, Series, Spec, height, number, tip
from lab.result import Liquidation, Sample, Story
from messaging.units import ONE

MARKS_MAX = 1_500  # liquidations drawn one by one; above, together by time
_STATE = "age of the spoke's state"


def happened(story: Story) -> dict[str, Spec]:
    """Return the charts of what happened: prices, equity, losses."""
    if not story.samples:
        return {}
    course = Course(story)

    def usd(value: Callable[[Sample], int]) -> list[float]:
        return [round(value(one) / 1e6) for one in story.samples]

    standing = [
        Series("equity", style.EQUITY, usd(lambda one: one.equity_usd6)),
        Series("initial margin", style.INITIAL, usd(lambda one: one.initial_usd6)),
        Series("maintenance margin", style.MAINTENANCE, usd(lambda one: one.maintenance_usd6)),
    ]
    losses = [
        Series("bad debt so far", style.LOSS, usd(lambda one: one.bad_debt_usd6), filled=True),
        Series("insurance fund left", style.INSURANCE, usd(lambda one: one.insurance_usd6)),
    ]
    prices = {"prices": _prices(story, course)} if course.priced else {}
    return prices | {
        "equity": course.lines(standing, "US dollars", (WIDE, 210)),
        "losses": course.lines(losses, "US dollars", (WIDE, 170)),
    }


def late(story: Story) -> dict[str, Spec]:
    """Return the charts of why: delays, and how far prices moved meanwhile."""
    if not story.liquidations:
        return {}
    course = Course(story)
    charts = {"hops": _hops(story), "totals": _totals(story)}
    if course.priced:
        charts |= {"moves": _moves(story), "blind": _blind(story, course)}
    return charts


def credit(story: Story) -> dict[str, Spec]:
    """Return the charts of what spokes hold, and how old the hub's knowledge of them is."""
    if not story.samples:
        return {}
    course = Course(story)
    unit = style.unit_for(
        max((age for one in story.samples for age in one.state_age_us), default=0)
    )

    def lines(
        values: Callable[[Sample], list[int]], size: float, dash: tuple[int, ...] = ()
    ) -> list[Series]:
        columns = [[round(number / size, 1) for number in values(one)] for one in story.samples]
        return [
            Series(name, SPOKES[place % len(SPOKES)], [row[place] for row in columns], dash)
            for place, name in enumerate(story.result.spokes)
        ]

    reserved = lines(lambda one: one.reserved_usd6, 1e6)
    used = lines(lambda one: one.used_usd6, 1e6, (4, 3))
    carried = lines(lambda one: one.carried_usd6, 1e6)
    ages = lines(lambda one: one.state_age_us, unit.us)
    return {
        "credit": course.lines([*reserved, *used], "US dollars", (WIDE, 190)),
        "carried": course.lines(carried, "US dollars", (HALF, 170)),
        "ages": course.lines(ages, f"age [{unit.name}]", (HALF, 170)),
    }


def moves(story: Story) -> dict[str, list[float | None]]:
    """Return by asset how far its price moved over the median delay before each sample [%]."""
    course, total = Course(story), story.result.delay_us.get("total")
    if total is None or not course.priced:
        return {}
    first_us, moved = course.priced[0].at_us, {}
    for place, asset in enumerate(story.result.assets):
        times_us = [one.at_us for one in story.samples]
        now = course.price_at(place, times_us)
        before = course.price_at(place, [at_us - total.p50 for at_us in times_us])
        moved[asset] = [
            round(100 * (price / max(1e-9, old) - 1), 3) if at_us - total.p50 >= first_us else None
            for at_us, price, old in zip(times_us, now, before, strict=True)
        ]
    return moved


def _coloured(field: str, names: Sequence[str], colours: Sequence[str]) -> Spec:
    """Return an encoding of names by colour, with circles for a legend."""
    legend = {"title": None, "symbolType": "circle", "symbolOpacity": 1}
    scale = style.palette(names, colours)
    return {"field": field, "type": "nominal", "scale": scale, "legend": legend}


def _closed(largest: float, sizes: tuple[int, int]) -> Spec:
    """Return the encoding of dollars closed as the area of a circle."""
    legend = {"title": "closed", "labelExpr": DOLLARS, "tickCount": 3}
    legend |= {"symbolFillColor": "currentColor", "symbolOpacity": 0.5}
    scale = {"domain": [0, largest], "range": list(sizes)}
    return {"field": "usd", "type": "quantitative", "scale": scale, "legend": legend}


def _prices(story: Story, course: Course) -> Spec:
    """Draw each asset's price, and liquidations where they were filled."""
    marks, panels = _marks(story, course), []
    largest = max((one["usd"] for ones in marks.values() for one in ones), default=1)
    color, size = _coloured("spoke", story.result.spokes, SPOKES), _closed(largest, (4, 420))
    tips = [tip("t", f"time [{course.unit.name}]", ",.2f"), tip("price", "price", "$,.2f")]
    tips += [tip("usd", "closed", "$,.0f"), tip("count", "commands", ",")]
    for place, asset in enumerate(story.result.assets):
        x = course.x()
        if place < len(story.result.assets) - 1:
            x["axis"] = x["axis"] | {"title": None, "labels": False}
        y = height("price", f"{asset} [US dollars]", format="$,~r") | {"scale": {"zero": False}}
        rows = [
            {"t": course.at(one.at_us), "price": one.prices_usd6[place] / 1e6}
            for one in course.priced
        ]
        line = {"type": "line", "color": "currentColor", "opacity": 0.55, "strokeWidth": 1.2}
        line["point"] = len(rows) < 3
        price = {"data": {"values": rows}, "mark": line, "encoding": {"x": x, "y": y}}
        layers = [course.bands(), price]
        if asset in marks:
            circles = {"x": x, "y": y, "color": color, "size": size, "tooltip": tips}
            mark = {"type": "circle", "opacity": 0.6}
            values = {"values": marks[asset]}
            layers.append({"data": values, "mark": mark, "encoding": circles})
        panels.append({"width": WIDE, "height": 190, "layer": layers})
    return {"vconcat": panels, "spacing": 14}


def _marks(story: Story, course: Course) -> dict[str, list[Spec]]:
    """Return the circles of each asset: liquidations, together by time if there are many."""
    step_us = 0
    if len(story.liquidations) > MARKS_MAX:
        kinds = len({(one.asset, one.spoke) for one in story.liquidations})
        step_us = max(one.at_us for one in story.liquidations) * kinds // MARKS_MAX + 1
    together: dict[tuple[str, str, int], list[Liquidation]] = defaultdict(list)
    for place, one in enumerate(story.liquidations):
        when = one.at_us // step_us if step_us else place
        together[one.asset, one.spoke, when].append(one)
    marks: dict[str, list[Spec]] = defaultdict(list)
    for (asset, spoke, _), ones in together.items():
        usd, qty8 = sum(map(_usd, ones)), sum(one.filled_qty8 for one in ones)
        mark = {"t": course.at(sum(one.at_us for one in ones) // len(ones)), "spoke": spoke}
        mark |= {"price": round(usd * ONE / max(1, qty8), 4), "usd": round(usd)}
        marks[asset].append(mark | {"count": len(ones)})
    return marks


def _usd(one: Liquidation) -> float:
    return one.filled_qty8 * one.price_usd6 / ONE / 1e6


def _hop_rows(story: Story) -> dict[str, dict[str, int]]:
    """Return delays by hop [us]: of all liquidations, and the medians of each spoke's."""
    delay_us, spokes = story.result.delay_us, story.result.spokes
    rows = {
        "all spokes, median": {hop: delay.p50 for hop, delay in delay_us.items()},
        "all spokes, 99th percentile": {hop: delay.p99 for hop, delay in delay_us.items()},
    }
    for spoke in spokes if len(spokes) > 1 else []:
        own = [one.hops for one in story.liquidations if one.spoke == spoke]
        if own:
            medians = {hop: int(np.median([hops[hop] for hops in own])) for hop in delay_us}
            rows[f"{spoke}, median"] = medians
    return rows


def _hops(story: Story) -> Spec:
    """Draw where time goes between a price and the last fill, and how old the state was."""
    rows, bars, ends = _hop_rows(story), list[Spec](), list[Spec]()
    unit = style.unit_for(max(max(row.values()) for row in rows.values()))
    for row, delays in rows.items():
        for order, hop in enumerate(style.HOPS):
            value = round(delays[hop] / unit.us, 4)
            bars.append({"row": row, "way": "path", "hop": hop, "v": value, "order": order})
        age = round(delays["state_report"] / unit.us, 4)
        bars.append({"row": row, "way": "state", "hop": _STATE, "v": age, "order": 9})
        total_us, sum_us = delays["total"], sum(delays[hop] for hop in style.HOPS)
        end = {"row": row, "way": "path", "v": round(total_us / unit.us, 4)}
        end["text"] = round(max(total_us, sum_us) / unit.us, 4)
        ends.append(end | {"said": style.duration(total_us)})
    scale = style.palette([*style.HOPS, _STATE], [*style.HOPS.values(), style.STATE_AGE])
    y: Spec = {
        "field": "row",
        "type": "nominal",
        "sort": list(rows),
        "axis": {"title": None, "labelLimit": 190, "labelFontSize": 12, "labelOpacity": 1},
        "scale": {"paddingInner": 0.3},
    }
    offset = {"field": "way", "sort": ["path", "state"], "scale": {"paddingInner": 0.1}}
    where: Spec = {"y": y, "yOffset": offset}
    title = f"delay [{unit.name}]"
    where["x"] = number("v", title, tickCount=8)
    parts = {
        "color": {"field": "hop", "scale": scale, "legend": {"title": None}},
        "order": {"field": "order"},
        "tooltip": [{"field": "hop", "title": "hop"}, tip("v", title, ",.2f")],
    }
    tick = {"type": "tick", "color": "currentColor", "thickness": 2}
    text = {"type": "text", "align": "left", "dx": 6}
    said = {"x": number("text", ""), "text": {"field": "said"}}
    layers = [
        {"mark": "bar", "encoding": where | parts},
        {"data": {"values": ends}, "mark": tick, "encoding": where},
        {"data": {"values": ends}, "mark": text, "encoding": where | said},
    ]
    size = {"width": WIDE - 110, "height": {"step": 20}}
    return {**size, "data": {"values": bars}, "layer": layers}


def _delays(story: Story) -> tuple[list[float], list[float], Spec]:
    """Return total delays, the borders of their bins, and an axis for both."""
    unit = style.unit_for(max(one.hops["total"] for one in story.liquidations))
    values = [one.hops["total"] / unit.us for one in story.liquidations]
    edges, kind = style.edges(values)
    title = f"delay from the price to the last fill [{unit.name}]"
    axis = number("x", title, grid=False, tickCount=8, format="~g", labelOverlap=True)
    scale = {"type": kind, "domain": [edges[0], edges[-1]], "nice": False}
    return values, edges, axis | {"scale": scale}


def _totals(story: Story) -> Spec:
    """Draw how total delay is spread."""
    values, edges, x = _delays(story)
    rows: list[Spec] = []
    heights = [0] * len(edges)
    for spoke in story.result.spokes:
        own = zip(story.liquidations, values, strict=True)
        counts = Counter(style.bin_of(value, edges) for one, value in own if one.spoke == spoke)
        for place, count in sorted(counts.items()):
            row = {"x": edges[place], "until": edges[place + 1], "low": heights[place]}
            heights[place] += count
            rows.append({**row, "high": heights[place], "count": count, "spoke": spoke})
    tips = [tip("x", "from", ",.2f"), tip("until", "to", ",.2f"), tip("count", "commands", ",")]
    y = height("high", "commands", tickMinStep=1)
    encoding: Spec = {"x": x, "x2": {"field": "until"}, "y": y, "y2": {"field": "low"}}
    encoding["tooltip"] = tips
    encoding["color"] = _coloured("spoke", story.result.spokes, SPOKES)
    shape: Spec = {"width": HALF, "height": 210, "data": {"values": rows}}
    return shape | {"mark": "rect", "encoding": encoding}


def _moves(story: Story) -> Spec:
    """Draw what delay cost whoever was liquidated: liquidations in bins of both."""
    values, edges, x = _delays(story)
    moved = []
    for asset in story.result.assets:
        whole = zip(story.liquidations, values, strict=True)
        own = [(one, value) for one, value in whole if one.asset == asset]
        moved += [
            (value, 100 * one.moved_usd6 / 1e6 / max(1e-6, _usd(one)), asset, _usd(one))
            for one, value in own
        ]
    borders, _ = style.edges([0.0, *(move for _, move, _, _ in moved)])
    together: dict[tuple[int, int, str], float] = defaultdict(float)
    for value, move, asset, usd in moved:
        together[style.bin_of(value, edges), style.bin_of(move, borders), asset] += usd
    rows = [
        {
            "x": round((edges[place] + edges[place + 1]) / 2, 4),
            "move": round((borders[level] + borders[level + 1]) / 2, 4),
            "asset": asset,
            "usd": round(usd),
        }
        for (place, level, asset), usd in sorted(together.items())
    ]
    color = _coloured("asset", story.result.assets, style.ASSETS)
    size = _closed(max(round(usd) for usd in together.values()), (6, 320))
    tips = [tip("x", "delay", ",.2f"), tip("move", "gain [%]", ",.2f")]
    y = height("move", "gain of the holder [%]")
    encoding: Spec = {"x": x, "y": y, "color": color, "size": size}
    encoding["tooltip"] = [*tips, tip("usd", "closed", "$,.0f")]
    circles = {"mark": {"type": "circle", "opacity": 0.65}, "encoding": encoding}
    zero = {"data": {"values": [{}]}, "mark": "rule", "encoding": {"y": {"datum": 0}}}
    shape: Spec = {"width": HALF, "height": 210, "data": {"values": rows}}
    return shape | {"layer": [zero, circles]}


def _blind(story: Story, course: Course) -> Spec:
    """Draw how far prices move while one liquidation is under way."""
    colours = style.ASSETS
    lines = [
        Series(asset, colours[place % len(colours)], values)
        for place, (asset, values) in enumerate(moves(story).items())
    ]
    return course.lines(lines, "move in one delay [%]", (WIDE, 190))
