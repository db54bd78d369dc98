"""Forecasts of variance along a series of prices. Another one is another small class here."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from hub.margin.volatility.estimate import FAST_HALF_LIFE_S, SLOW_HALF_LIFE_S, gain
from messaging.units import YEAR_S

Floats = NDArray[np.float64]

LAGS = (1, 5, 22)
PERIOD_STEPS = 12  # returns in a period of HAR, at the least
PERIODS_MAX = 1_000_000  # whatever gap there is between two prices
FITTED_MIN = 30  # periods that HAR has seen the end of before it says anything
VARIANCE_MIN = 1e-4  # what a period without a move counts as: 1 % a year
RIDGE = 1e-9


class Forecaster(Protocol):
    """What to expect of the next stretch of time, from what has been seen by then."""

    def variances(self, times_s: Floats, logs: Floats, horizon_s: float) -> Floats:
        """Return the expected variance a year over the next `horizon_s`, at each time.

        Args:
            times_s: rising, shape (n,).
            logs: log prices, shape (n,). Entry i of the result rests on entries 0 to i alone.
            horizon_s: how far ahead.

        Returns:
            Shape (n,), all >= 0; NaN as long as there is too little to go by.
        """
        ...


class Ewma(msgspec.Struct, frozen=True):
    """The largest of exponentially weighted averages of squared returns (rule V1)."""

    half_lives_s: tuple[float, ...]

    def variances(self, times_s: Floats, logs: Floats, horizon_s: float) -> Floats:
        """See `Forecaster.variances`."""
        legs = [self._leg(times_s, logs, one) for one in self.half_lives_s]
        return np.asarray(np.max(legs, axis=0))

    def _leg(self, times_s: Floats, logs: Floats, half_life_s: float) -> Floats:
        spans_s, moves = np.diff(times_s), np.diff(logs)
        squared = (moves**2 * YEAR_S / spans_s).tolist()
        seen_s = (times_s[1:] - times_s[0]).tolist()
        found, variance = [np.nan], 0.0
        for one, span_s, so_far_s in zip(squared, spans_s.tolist(), seen_s, strict=True):
            variance += gain(span_s, so_far_s, half_life_s) * (one - variance)
            found.append(variance)
        return np.array(found)


class Har:
    """Log realised variance on its own means over 1, 5 and 22 periods (rule V4).

    A period is the horizon, or longer until it holds `PERIOD_STEPS` returns. The coefficients are
    least squares over all periods that have ended, anew after each.
    """

    def variances(self, times_s: Floats, logs: Floats, horizon_s: float) -> Floats:
        """See `Forecaster.variances`."""
        step_s = float(np.median(np.diff(times_s)))
        shortest_s = float(times_s[-1] - times_s[0]) / PERIODS_MAX
        period_s = max(horizon_s, PERIOD_STEPS * step_s, shortest_s)
        since = (times_s - times_s[0]) / period_s
        # A return belongs to the period in which it ends; one at the edge ends the earlier.
        place = np.maximum(np.ceil(since[1:] - 1e-9).astype(np.intp) - 1, 0)
        ended = np.floor(since + 1e-9).astype(np.intp)  # periods, at each time
        realised = np.bincount(place, np.diff(logs) ** 2, minlength=int(ended[-1]) + 1)
        known = np.log(np.maximum(realised * (YEAR_S / period_s), VARIANCE_MIN))
        after = np.concatenate((np.full(1, np.nan), self._after(known[: int(ended[-1])])))
        return np.asarray(after[ended])

    def _after(self, known: Floats) -> Floats:
        """Return the forecast after each period, given the log variance of each."""
        found, longest = np.full(len(known), np.nan), LAGS[-1]
        if len(known) <= longest:
            return found
        sums = np.concatenate(([0.0], np.cumsum(known)))
        ends = np.arange(longest, len(known) + 1)  # periods that have ended
        means = [(sums[ends] - sums[ends - lag]) / lag for lag in LAGS]
        rows = np.stack([np.ones(len(ends)), *means], axis=1)
        # Row i tells of period `ends[i]`; that one is over when row i + 1 is made.
        targets, told = known[longest:], rows[:-1]
        moments = np.cumsum(told[:, :, None] * told[:, None, :], axis=0)
        products = np.cumsum(told * targets[:, None], axis=0)
        squares = np.cumsum(targets**2)
        moments += RIDGE * np.eye(rows.shape[1])
        fitted = np.linalg.solve(moments, products[:, :, None])[:, :, 0]
        counts = np.arange(1.0, len(targets) + 1.0)
        left = np.maximum(squares - np.sum(fitted * products, axis=1), 0.0)
        spread = left / np.maximum(counts - rows.shape[1], 1.0)
        # No further than what has been seen: a straight line knows no bounds.
        low, high = np.minimum.accumulate(known), np.maximum.accumulate(known)
        expected = np.clip(np.sum(fitted * rows[1:], axis=1), low[longest:], high[longest:])
        enough = counts >= FITTED_MIN
        found[longest:][enough] = np.exp(expected + spread / 2.0)[enough]
        return found


FORECASTERS: Mapping[str, Callable[[], Forecaster]] = MappingProxyType(
    {
        "ewma": lambda: Ewma((FAST_HALF_LIFE_S, SLOW_HALF_LIFE_S)),
        "fast": lambda: Ewma((FAST_HALF_LIFE_S,)),
        "slow": lambda: Ewma((SLOW_HALF_LIFE_S,)),
        "har": Har,
    }
)
