"""Reaching the trigger: first passage, the bridge between prints, discrete prints (T2 to T4)."""

import math

from scipy.special import log_ndtr, ndtr

from hub.margin.theory.motion import Motion

BETA = 0.5825971579390107  # -zeta(1/2) / sqrt(2 pi)


def touched(motion: Motion, distance: float, years: float) -> float:
    """Return the chance that ln(S) moves by `distance` at some time within `years` (rule T2).

    Above if `distance` > 0, below if it is < 0. Without jumps.
    """
    assert motion.jumps.rate == 0.0
    if distance == 0.0:
        return 1.0
    sign = -1.0 if distance > 0 else 1.0
    nu, sigma = motion.nu, motion.sigma
    deviation = sigma * math.sqrt(years)
    first = ndtr(sign * (distance - nu * years) / deviation)
    second = 2 * nu * distance / sigma**2 + log_ndtr(sign * (distance + nu * years) / deviation)
    return float(first + math.exp(second))


def touched_between(sigma: float, before: float, after: float, years: float) -> float:
    """Return the chance that a level was touched between two prints (Brownian bridge, rule T3).

    `before` and `after` are their log distances from it, both on its safe side (>= 0).
    """
    return math.exp(-2 * before * after / (sigma**2 * years))


def overshoot(sigma: float, gap_years: float) -> float:
    """Return the mean log distance by which a print passes a far trigger (rule T4).

    Prints every `gap_years`: beta * sigma * sqrt(gap), for small gaps (Broadie, Glasserman, Kou).
    """
    return BETA * sigma * math.sqrt(gap_years)
