"""Loss of positions with curvature, delta and gamma given (rules T11 and T12)."""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from hub.margin.theory.motion import Floats


def loss_beyond(theta: float, delta: float, gamma: float, deviation: float, level: float) -> float:
    """Return P(theta + delta X + gamma X^2 / 2 < -level), X normal with `deviation` (rule T11).

    Args:
        theta: P&L of time alone over the horizon [USD].
        delta: USD for a dollar of X.
        gamma: USD for a dollar squared.
        deviation: of X over the horizon [USD].
        level: loss that is asked about [USD].
    """
    offset = theta + level
    if gamma == 0.0:
        if delta == 0.0:
            return 1.0 if offset < 0 else 0.0
        return float(ndtr(-offset / (abs(delta) * deviation)))
    inner = delta**2 - 2 * gamma * offset
    if inner <= 0:
        return 1.0 if gamma < 0 else 0.0
    root = math.sqrt(inner)
    # The root that does not cancel, and the other from their product 2 offset / gamma.
    sum_of = -(delta + math.copysign(root, delta))
    low, high = sorted((sum_of / gamma, 2 * offset / sum_of))
    between = float(ndtr(high / deviation) - ndtr(low / deviation))
    if gamma > 0:
        return between
    return float(ndtr(low / deviation) + ndtr(-high / deviation))


class Cumulants(NamedTuple):
    """The first four cumulants of a P&L."""

    mean: float
    variance: float
    third: float
    fourth: float

    @property
    def skew(self) -> float:
        """Return the skewness."""
        return self.third / (self.variance * math.sqrt(self.variance))

    @property
    def excess(self) -> float:
        """Return the excess kurtosis."""
        return self.fourth / self.variance**2


def cumulants(theta: float, delta: Floats, gamma: Floats, covariance: Floats) -> Cumulants:
    """Return those of theta + delta . X + X' gamma X / 2, X normal (rule T12).

    `delta` has shape (n,), `gamma` and `covariance` (n, n).
    """
    twist = gamma @ covariance
    square = twist @ twist
    spread = covariance @ delta

    def along(matrix: Floats) -> float:
        return float(delta @ covariance @ matrix @ delta)

    return Cumulants(
        theta + float(np.trace(twist)) / 2,
        float(np.trace(square)) / 2 + float(delta @ spread),
        float(np.trace(square @ twist)) + 3 * along(twist),
        3 * float(np.trace(square @ square)) + 12 * along(square),
    )


def quantile(found: Cumulants, chance: float) -> float:
    """Return the P&L that is undercut with `chance`, by Cornish and Fisher (rule T12).

    A sanity band: right to some ten percent where skewness is far from 0.
    """
    z, g1, g2 = float(ndtri(chance)), found.skew, found.excess
    w = z + (z**2 - 1) * g1 / 6 + (z**3 - 3 * z) * g2 / 24 - (2 * z**3 - 5 * z) * g1**2 / 36
    return found.mean + math.sqrt(found.variance) * w
