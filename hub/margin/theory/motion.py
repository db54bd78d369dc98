"""How the price moves in the theory, and the position that it may ruin (rules T1, T9)."""

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LONG, SHORT = 1, -1
MIXTURE_TAIL = 1e-11  # chance of more jumps than the mixture counts


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """A linear position whose collateral is cash.

    Attributes:
        side: +1 long, -1 short.
        leverage: notional over collateral when it was opened.
        maintenance: share of notional below which equity may not fall.
        fee: cost of the closing fill, a share of its value.
    """

    side: int
    leverage: float
    maintenance: float
    fee: float

    @property
    def edge(self) -> float:
        """Return ln(F / S_b): a fill at the trigger is so far from bad debt (rule T1)."""
        return math.log((1 - self.side * self.fee) / (1 - self.side * self.maintenance))

    def bankruptcy(self, opened: float) -> float:
        """Return S_b, the price at which equity is zero, given the opening price [USD] (T1)."""
        return opened * (1 - self.side / self.leverage)

    def trigger(self, opened: float) -> float:
        """Return S_m, the price at which equity is the maintenance margin [USD] (T1)."""
        return self.bankruptcy(opened) / (1 - self.side * self.maintenance)


class Jumps(msgspec.Struct, frozen=True, kw_only=True):
    """Compensated jumps: `rate` a year, log size normal with `mean` and `sd`."""

    rate: float
    mean: float
    sd: float


NO_JUMPS = Jumps(rate=0.0, mean=0.0, sd=0.0)


class Motion(msgspec.Struct, frozen=True, kw_only=True):
    """Geometric Brownian motion with jumps: E[S_t] = S_0 * exp(drift * t).

    Attributes:
        sigma: volatility of log returns, for a square root of a year; > 0.
        drift: of the expected price, a year.
        jumps: Merton's, none by default.
    """

    sigma: float
    drift: float = 0.0
    jumps: Jumps = NO_JUMPS

    @property
    def nu(self) -> float:
        """Return the drift of the log price between jumps, a year."""
        mean_jump = math.expm1(self.jumps.mean + self.jumps.sd**2 / 2)
        return self.drift - self.sigma**2 / 2 - self.jumps.rate * mean_jump

    def growth(self, power: float) -> float:
        """Return ln E[(S_1 / S_0)^power], a year."""
        jumps = self.jumps
        moment = math.expm1(power * jumps.mean + (power * jumps.sd) ** 2 / 2)
        return power * self.nu + (power * self.sigma) ** 2 / 2 + jumps.rate * moment

    def mixture(self, years: Floats) -> tuple[Floats, Floats, Floats]:
        """Return weights, means and variances of the log return, by number of jumps (rule T9).

            w_n = exp(-rate*t) (rate*t)^n / n!,  m_n = nu*t + n*mean,  v_n = sigma^2*t + n*sd^2

        Each of shape (jumps, *years.shape).
        """
        jumps = self.jumps
        expected = jumps.rate * years
        count = np.arange(jumps_max(float(np.max(expected))) + 1.0)
        count = count.reshape(-1, *(1 for _ in years.shape))
        factorials = np.cumsum(np.log(np.maximum(count, 1.0)), axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(count == 0.0, 0.0, count * np.log(expected))
        weights = np.exp(logs - expected - factorials)
        means = self.nu * years + count * jumps.mean
        variances = self.sigma**2 * years + count * jumps.sd**2
        return weights, means, variances


def jumps_max(expected: float, rare: float = MIXTURE_TAIL) -> int:
    """Return a number of jumps that hardly ever comes, if so many are expected."""
    if expected == 0.0:
        return 0
    term, total, count = math.exp(-expected), 0.0, 0
    while True:
        total += term
        if count > expected and term < rare:
            return count
        count += 1
        term *= expected / count
