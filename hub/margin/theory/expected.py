"""What a trigger costs, for any oracle, latency, side and jumps (rule T10).

Where a closed form exists it is used; where not, quadrature, which says so.
"""

from typing import NamedTuple

import numpy as np

from hub.margin.theory import moments, walk
from hub.margin.theory.moments import POWERS, Loss, loss
from hub.margin.theory.motion import SHORT, Floats, Motion, Position
from hub.margin.theory.passage import overshoot
from hub.margin.theory.walk import Overshoot, Prints

NODES = 48
ROOT_MAX = 6.5  # exp(-6.5^2) is below what a float notices
CHUNK = 256
NEGLIGIBLE = 1e-12  # weight of a point, of all


class Delay(NamedTuple):
    """What passes between a print and the fill: `fixed_years`, and an exponential time.

    Attributes:
        mean_years: of the exponential part; 0 for none.
    """

    fixed_years: float
    mean_years: float = 0.0


class Expected(NamedTuple):
    """What a trigger costs, and by which formula."""

    loss: Loss
    method: str


def finite(motion: Motion, side: int, prints: Prints, delay: Delay) -> bool:
    """Tell whether bad debt has a variance; of a short it may not, if times are long."""
    per_year = [1 / delay.mean_years] if delay.mean_years else []
    per_year += [1 / prints.gap_years] if prints.random else []
    return side != SHORT or all(rate > 1.01 * motion.growth(2.0) for rate in per_year)


def expected(position: Position, motion: Motion, prints: Prints, delay: Delay) -> Expected:
    """Return what a trigger costs, exactly or to about 1e-5 of it.

    Raises:
        ValueError: bad debt has no variance, see `finite`; or jumps too large, see
            `walk.resolution`.
    """
    if not finite(motion, position.side, prints, delay):
        raise ValueError("expected bad debt with a variance, found none")
    if prints.random and not motion.jumps.rate:
        return _poisson(position, motion, prints, delay)
    jumps = " and jumps (T9)" if motion.jumps.rate else ""
    latency = ", quadrature over latency" if delay.mean_years else ""
    kind = "Poisson" if prints.random else "discrete"
    method = f"recursion over {prints.waited} {kind} prints (T10){jumps}{latency}"
    dense = walk.resolution(motion, prints)
    coarse, fine = (
        _averaged(
            position,
            motion,
            walk.overshoot(motion, position.side, prints, per_step=per_step),
            delay,
        )
        for per_step in (dense // 2, dense)
    )
    better = [(4 * b - a) / 3 for a, b in zip(coarse, fine, strict=True)]  # Richardson
    return Expected(loss(position, (better[0], better[1], better[2])), method)


def corrected(position: Position, motion: Motion, prints: Prints, delay: Delay) -> Loss:
    """Return what a trigger costs if every print overshoots by the mean (rule T4).

    Asymptotic for prints that follow each other quickly; without jumps, not for random prints.
    """
    assert not prints.random
    beyond = overshoot(motion.sigma, prints.gap_years)
    at = Overshoot(np.array([beyond]), np.array([1.0]))
    m0, m1, m2 = _averaged(position, motion, at, delay)
    return loss(position, (m0, m1, m2))


def at_touch(position: Position, motion: Motion, delay: Delay) -> Expected:
    """Return what a trigger costs if it comes just as the price touches it (T5, T7, T9)."""
    if delay.mean_years and not delay.fixed_years and not motion.jumps.rate:
        laplace = moments.rates(motion.sigma, motion.nu, 1 / delay.mean_years)
        m0, m1, m2 = (
            moments.exponential(position.side, position.edge, laplace, power) for power in POWERS
        )
        return Expected(loss(position, (m0, m1, m2)), "closed form (T7)")
    m0, m1, m2 = _averaged(position, motion, Overshoot(np.zeros(1), np.ones(1)), delay)
    method = "closed form (T5)" if not motion.jumps.rate else "series over jumps (T9)"
    if delay.mean_years:
        method += ", quadrature over latency"
    return Expected(loss(position, (m0, m1, m2)), method)


def _poisson(position: Position, motion: Motion, prints: Prints, delay: Delay) -> Expected:
    laplace = moments.rates(motion.sigma, motion.nu, 1 / prints.gap_years)
    years, chances = latencies(delay)
    side, edge = position.side, position.edge
    m0, m1, m2 = (
        float(np.dot(chances, moments.poisson(side, edge, motion, laplace, years, power)))
        for power in POWERS
    )
    method = "closed form (T8)"
    if delay.mean_years:
        method += ", quadrature over latency"
    return Expected(loss(position, (m0, m1, m2)), method)


def latencies(delay: Delay) -> tuple[Floats, Floats]:
    """Return times and weights that integrate over the latency.

    An exponential time t = mean * v^2 has density 2 v exp(-v^2) in v, in which the standard
    deviation of the price is smooth: Gauss and Legendre's points on it.
    """
    if not delay.mean_years:
        return np.array([delay.fixed_years]), np.ones(1)
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    roots = ROOT_MAX * (nodes + 1) / 2
    chances = ROOT_MAX * weights * roots * np.exp(-(roots**2))
    return delay.fixed_years + delay.mean_years * roots**2, chances / chances.sum()


def _averaged(
    position: Position, motion: Motion, beyond: Overshoot, delay: Delay
) -> tuple[float, float, float]:
    """Return M_0, M_1, M_2 over overshoot, latency and jumps, given that it triggers."""
    side = position.side
    years, chances = latencies(delay)
    sums = [0.0, 0.0, 0.0]
    total = float(beyond.weight.sum())
    heavy = beyond.weight > NEGLIGIBLE * total
    distances, weights = beyond.distance[heavy], beyond.weight[heavy]
    for start in range(0, len(weights), CHUNK):
        distance, weight = distances[start : start + CHUNK], weights[start : start + CHUNK]
        b = (position.edge - side * distance)[:, None]
        for power in POWERS:
            at = moments.merton(side, b, motion, years[None, :], power) @ chances
            sums[power] += float((weight * np.exp(-side * power * distance)) @ at)
    return sums[0] / total, sums[1] / total, sums[2] / total


def in_years(seconds: float) -> float:
    """Return seconds as years of 365 days."""
    return seconds / (365 * 86_400)
