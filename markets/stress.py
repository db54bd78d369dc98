"""Prices of a historic stress event: a stylised path through true anchor points.

Between two anchors, at times a < b, the log price is the straight line plus a Brownian
bridge, so that the anchors are hit exactly, whatever the seed:

    B(t) = sigma * ( W(t) - W(a) - (t - a)/(b - a) * (W(b) - W(a)) )

Depth is piecewise log-linear, without noise. This is no tick data, and `source` says so.
"""

import msgspec
import numpy as np

from markets.price_path import (
    YEAR_US,
    Floats,
    PricePath,
    Times,
    correlated_normals,
    join,
    require,
    ticks_us,
    to_usd6,
)
from markets.stress_event import StressEvent
from markets.stress_events import EVENTS
from messaging.errors import InputRefused, nearest
from messaging.units import HOUR_US, Asset, Ppm


class StressSource(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="stress",
):
    """A historic event, by name.

    Attributes:
        event: a key of `EVENTS`.
        start_hours: where in the event the scenario starts.
        volatility_per_sqrt_year: of the noise; 0 for none, absent for the event's own.
    """

    event: str
    start_hours: float = 0.0
    volatility_per_sqrt_year: float | None = None

    def __post_init__(self) -> None:
        require(self.start_hours, "start_hours", 0.0, 1_000.0)
        if self.volatility_per_sqrt_year is not None:
            require(self.volatility_per_sqrt_year, "volatility_per_sqrt_year", 0.0, 100.0)


def path(
    source: StressSource, assets: tuple[Asset, ...], *, duration_us: int, tick_us: int, seed: int
) -> PricePath:
    """Return the path of an event: a row each `tick_us`, and one at each anchor.

    Raises:
        InputRefused: an event we do not have, an asset the event lacks, a window that
            leaves the event, or too many rows.
    """
    event = find(source.event)
    for asset in assets:
        if asset not in event.anchors_usd:
            raise InputRefused(
                "prices.event",
                expected=f"an event with {asset}",
                found=f"{source.event!r}, which has {', '.join(event.anchors_usd)}",
            )
    start_us = _micros(source.start_hours)
    end_us = start_us + duration_us
    _check_window(source, event, start_us, end_us)

    grid_us = _grid(event, start_us, end_us, tick_us)
    times_us = grid_us[grid_us <= end_us]
    columns = {}
    for asset in assets:
        sigma = _sigma(event, source, asset)
        steps = np.sqrt(np.diff(grid_us) / YEAR_US)
        steps *= sigma * correlated_normals(seed, asset, len(steps), event.correlation)
        noise = np.concatenate(([0.0], np.cumsum(steps)))
        hours, usd = zip(*event.anchors_usd[asset], strict=True)
        log_price = _bridge(grid_us, _pins(hours, start_us), noise)
        log_price += _log_linear(grid_us, hours, usd)
        columns[asset] = to_usd6(asset, log_price[: len(times_us)])

    hours, ppm = zip(*event.depth_ppm, strict=True)
    depth = np.rint(np.exp(_log_linear(times_us, hours, ppm))).tolist()
    return join(
        times_us - start_us,
        columns,
        depth_ppm=[Ppm(int(value)) for value in depth],
        label=source.event,
        stylised=True,
        source=_describe(event, source, assets, seed),
    )


def find(name: str) -> StressEvent:
    """Return an event.

    Raises:
        InputRefused: there is none of that name; the message names the nearest.
    """
    if name not in EVENTS:
        raise InputRefused(
            "prices.event",
            expected=f"one of {', '.join(EVENTS)}",
            found=f"{name!r}{nearest(name, EVENTS)}",
        )
    return EVENTS[name]


def duration_us(name: str) -> int:
    """Return how long an event lasts [us].

    Raises:
        InputRefused: as `find`.
    """
    return _micros(find(name).depth_ppm[-1][0])


def _check_window(source: StressSource, event: StressEvent, start_us: int, end_us: int) -> None:
    last_us = duration_us(source.event)
    if end_us > last_us:
        raise InputRefused(
            "prices.event",
            expected=f"a window inside the {last_us / HOUR_US:g} h of {source.event!r}, which "
            f"starts at {event.start_utc} UTC",
            found=f"hour {start_us / HOUR_US:g} to {end_us / HOUR_US:g}",
        )


def _micros(hours: float) -> int:
    return round(hours * HOUR_US)


def _pins(hours: tuple[float, ...], start_us: int) -> Times:
    """Return the times where the noise is 0: the start, and each anchor after it [us]."""
    pins = [_micros(hour) for hour in hours if _micros(hour) > start_us]
    return np.array([start_us, *pins], dtype=np.int64)


def _grid(event: StressEvent, start_us: int, end_us: int, tick_us: int) -> Times:
    """Return ticks and anchors from the start to where every bridge in the window ends [us].

    It holds the anchors of all assets, so that one more asset moves no other's numbers.
    """
    pins = [_pins(tuple(h for h, _ in a), start_us) for a in event.anchors_usd.values()]
    until_us = max(int(pin[pin >= end_us][0]) for pin in pins)
    ticks = start_us + ticks_us(until_us - start_us, tick_us)
    anchors = np.concatenate(pins)
    return np.unique(np.concatenate((ticks, anchors[anchors <= until_us])))


def _bridge(grid_us: Times, pins_us: Times, noise: Floats) -> Floats:
    """Return `noise` less the line through its values at the pins, so that it is 0 there."""
    pins_us = pins_us[pins_us <= grid_us[-1]]
    at_pins = noise[np.searchsorted(grid_us, pins_us)]
    return noise - np.interp(grid_us, pins_us, at_pins)


def _log_linear(
    times_us: Times, hours: tuple[float, ...], values: tuple[float, ...] | tuple[Ppm, ...]
) -> Floats:
    """Return the log of what runs through (hours, values) with straight lines in the log."""
    knots_us = [_micros(hour) for hour in hours]
    return np.asarray(np.interp(times_us, knots_us, np.log(values)))


def _sigma(event: StressEvent, source: StressSource, asset: Asset) -> float:
    """Return the volatility of an asset's noise: the scenario's, its own, or the event's."""
    if source.volatility_per_sqrt_year is not None:
        return source.volatility_per_sqrt_year
    return event.own_volatility.get(asset, event.volatility_per_sqrt_year)


def _describe(
    event: StressEvent, source: StressSource, assets: tuple[Asset, ...], seed: int
) -> str:
    sigmas = {f"{_sigma(event, source, asset):g}": None for asset in assets}
    return (
        f"{event.title}, from hour {source.start_hours:g} after {event.start_utc} UTC. A stylised "
        f"path through true anchor points, not tick data: log-linear between them, with a "
        f"Brownian bridge of volatility {' or '.join(sigmas)} a year (seed {seed}). Where in its "
        f"hour an anchor lies, and market depth, are partly our assumptions. Figures: "
        f"{event.source}."
    )
