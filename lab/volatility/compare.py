"""Forecasters side by side on one series of prices (rules V5, V6 of docs/volatility.md)."""

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from hub.margin.volatility.estimate import DAY_S, VolatilityPolicy, margin, ramped
from hub.margin.volatility.forecasters import FORECASTERS
from markets.price_series import PriceSeries
from messaging.errors import InputRefused
from messaging.units import YEAR_S

Floats = NDArray[np.float64]
Places = NDArray[np.intp]

JUDGED_MIN = 30  # stretches of time that do not overlap
REACTIVE = "reactive"
TINY = 1e-6  # a volatility so low that a frozen price is divided by, not by zero


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """How one forecaster did.

    Attributes:
        qlike: mean of realised/expected - ln(realised/expected) - 1; less is better.
        coverage: share of moves within `z` expected deviations.
        margin_mean, margin_rise: of the margin made of it, share of notional: its mean, and its
            largest rise within a day.
        breaches: stretches of the horizon, end to end, whose move was beyond the margin.
    """

    name: str
    qlike: float | None
    coverage: float | None
    margin_mean: float
    margin_rise: float
    breaches: int


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All forecasters on the same times.

    Attributes:
        judged: times at which all of them said something and the horizon is on record.
        stretches: how many horizons follow each other end to end in that.
        nominal: coverage if moves were normal.
    """

    file: str
    prices: int
    judged: int
    stretches: int
    horizon_s: float
    z: float
    stress: float
    nominal: float
    rows: tuple[Row, ...]


class Ahead(NamedTuple):
    """What comes after each judged time: its place, the move, the variance, the time it took."""

    places: Places
    ends: Places
    moves: Floats
    realised: Floats
    years: Floats


def compare(
    name: str,
    series: PriceSeries,
    forecasters: Sequence[str],
    *,
    horizon_s: float,
    z: float,
    stress: float,
) -> Comparison:
    """Return how forecasters, by name, do on a series.

    Raises:
        InputRefused: too few prices for the horizon.
    """
    if len(series.times_ms) < 2:
        raise InputRefused(name, expected="at least 2 prices", found=len(series.times_ms))
    times_s = np.array(series.times_ms, dtype=np.float64) / 1e3
    logs = np.log(np.array(series.prices_usd6, dtype=np.float64))
    step_s = float(np.median(np.diff(times_s)))
    if horizon_s < step_s:
        expected = f"at least {step_s:g}s, the time from one price to the next"
        raise InputRefused("--horizon", expected=expected, found=f"{horizon_s:g}s")
    expected_by = {
        one: FORECASTERS[one]().variances(times_s, logs, horizon_s) for one in forecasters
    }
    ahead = _ahead(times_s, logs, horizon_s, np.sum(list(expected_by.values()), axis=0))
    stretches = _end_to_end(ahead)
    if len(stretches) < JUDGED_MIN:
        expected = f"prices for {JUDGED_MIN} horizons of {horizon_s:g} s beyond what is learnt from"
        raise InputRefused(name, expected=expected, found=f"for {len(stretches)}")
    rows = [
        _row(one, times_s, variances, ahead, stretches, z=z, stress=stress)
        for one, variances in expected_by.items()
    ]
    trailing = _trailing(times_s, logs)
    rows.append(_margin_row(REACTIVE, times_s, trailing, ahead, stretches, z))
    return Comparison(
        file=name,
        prices=len(times_s),
        judged=len(ahead.places),
        stretches=len(stretches),
        horizon_s=horizon_s,
        z=z,
        stress=stress,
        nominal=float(2.0 * ndtr(z) - 1.0),
        rows=tuple(rows),
    )


def _ahead(times_s: Floats, logs: Floats, horizon_s: float, said: Floats) -> Ahead:
    """Return what comes after each time for which `said` is a number and the record goes on."""
    ends = np.searchsorted(times_s, times_s + horizon_s - 1e-6)
    places = np.flatnonzero(np.isfinite(said) & (ends < len(times_s)))
    ends = ends[places]
    squares = np.concatenate(([0.0], np.cumsum(np.diff(logs) ** 2)))
    return Ahead(
        places,
        ends,
        np.abs(logs[ends] - logs[places]),
        squares[ends] - squares[places],
        (times_s[ends] - times_s[places]) / YEAR_S,
    )


def _end_to_end(ahead: Ahead) -> Places:
    """Return which of them to take so that none overlaps another."""
    taken, free_from = [], -1
    for number, (place, end) in enumerate(zip(ahead.places, ahead.ends, strict=True)):
        if place >= free_from:
            taken.append(number)
            free_from = end
    return np.array(taken, dtype=np.intp)


def _row(
    name: str,
    times_s: Floats,
    variances: Floats,
    ahead: Ahead,
    stretches: Places,
    *,
    z: float,
    stress: float,
) -> Row:
    expected = np.maximum(variances[ahead.places], TINY**2) * ahead.years
    moved = ahead.realised > 0.0  # of a frozen price the logarithm says nothing
    ratio = ahead.realised[moved] / expected[moved]
    found = _margin_row(name, times_s, _predictive(times_s, variances, stress), ahead, stretches, z)
    return msgspec.structs.replace(
        found,
        qlike=float(np.mean(ratio - np.log(ratio) - 1.0)) if len(ratio) else None,
        coverage=float(np.mean(ahead.moves <= z * np.sqrt(expected))),
    )


def _margin_row(
    name: str, times_s: Floats, sigma: Floats, ahead: Ahead, stretches: Places, z: float
) -> Row:
    """Return what a margin of z sigma sqrt(horizon) costs and what it misses."""
    margins = z * sigma[ahead.places] * math.sqrt(float(np.median(ahead.years)))
    beyond = ahead.moves[stretches] > margins[stretches]
    return Row(
        name=name,
        qlike=None,
        coverage=None,
        margin_mean=float(np.mean(margins)),
        margin_rise=_rise(times_s[ahead.places], margins),
        breaches=int(np.count_nonzero(beyond)),
    )


def _predictive(times_s: Floats, variances: Floats, stress: float) -> Floats:
    """Return the volatility that margin gets along a forecast (rules V2, V3)."""
    policy = VolatilityPolicy()
    found, sigma = [], margin(policy, 0.0, stress)
    hours = (np.diff(times_s, prepend=times_s[0]) / 3_600.0).tolist()
    for variance, passed_h in zip(np.nan_to_num(variances).tolist(), hours, strict=True):
        sigma = ramped(policy, sigma, margin(policy, variance, stress), passed_h)
        found.append(sigma)
    return np.array(found)


def _trailing(times_s: Floats, logs: Floats) -> Floats:
    """Return the volatility realised in the day before each time (of a shorter past, all)."""
    squares = np.concatenate(([0.0], np.cumsum(np.diff(logs) ** 2)))
    since = np.searchsorted(times_s, times_s - DAY_S)
    spans = np.maximum(times_s - times_s[since], np.finfo(float).tiny)
    return np.asarray(np.sqrt((squares - squares[since]) * YEAR_S / spans))


def _rise(times_s: Floats, margins: Floats) -> float:
    """Return the largest rise from any margin to a later one within a day."""
    lowest: deque[tuple[float, float]] = deque()  # (time, margin), both rising
    most = 0.0
    for time_s, found in zip(times_s.tolist(), margins.tolist(), strict=True):
        while lowest and lowest[-1][1] >= found:
            lowest.pop()
        lowest.append((time_s, found))
        while lowest[0][0] < time_s - DAY_S:
            lowest.popleft()
        most = max(most, found - lowest[0][1])
    return most
