"""Bad debt from partial moments: one formula for the long and the short (rules T5 to T9).

A fill at F * exp(X), F = (1 - s f) S_m, leaves bad debt if s X < -s b, b = ln(F / S_b). With
M_k = E[exp(k X); bad debt] and the notional at the trigger as unit:

    P = M_0      E = s (S_b M_0 - F M_1)      E2 = S_b^2 M_0 - 2 S_b F M_1 + F^2 M_2

`b` may be an array; what is returned has its shape.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import log_ndtr, ndtr

from hub.margin.theory.motion import LONG, Floats, Motion, Position

POWERS = (0, 1, 2)


class Loss(NamedTuple):
    """What a trigger costs.

    Attributes:
        p: chance of bad debt given the trigger.
        e: expected bad debt given the trigger, a share of notional at the trigger price.
        e2: expected square of it.
    """

    p: float
    e: float
    e2: float

    @property
    def shortfall(self) -> float:
        """Return the mean bad debt given bad debt, a share of notional (ES = E / P)."""
        return self.e / self.p if self.p else 0.0


def loss(position: Position, moments: tuple[float, float, float]) -> Loss:
    """Return what partial moments M_0, M_1, M_2 mean for a position."""
    side = position.side
    bankruptcy, fill = 1 - side * position.maintenance, 1 - side * position.fee
    m0, m1, m2 = moments
    second = bankruptcy**2 * m0 - 2 * bankruptcy * fill * m1 + fill**2 * m2
    return Loss(m0, max(0.0, side * (bankruptcy * m0 - fill * m1)), max(0.0, second))


def normal(side: int, b: Floats, mean: Floats, variance: Floats, power: int) -> Floats:
    """Return M_k of a normal log return: Black and Scholes without discounting (rule T5)."""
    deviation = np.sqrt(variance)
    room = side * (-b - mean - power * variance)
    with np.errstate(divide="ignore", invalid="ignore"):
        # At variance 0 a fill just at the bankruptcy price is no bad debt.
        ratio = np.where(deviation > 0, room / deviation, np.where(room > 0, np.inf, -np.inf))
    tilt: Floats = np.exp(power * mean + power**2 * variance / 2)
    return np.asarray(tilt * ndtr(ratio))


def merton(side: int, b: Floats, motion: Motion, years: Floats, power: int) -> Floats:
    """Return M_k after a fixed time, whatever the jumps (rules T5, T9).

    `b` and `years` broadcast against each other.
    """
    years = np.asarray(years, dtype=np.float64)
    total = np.zeros(np.broadcast_shapes(b.shape, years.shape))
    weights, means, variances = motion.mixture(years)
    for weight, mean, variance in zip(weights, means, variances, strict=True):
        total += weight * normal(side, b, mean, variance, power)
    return total


class Rates(NamedTuple):
    """How fast the density of a Brownian motion at an exponential time falls off (rule T7).

    density(x) = peak * exp(down * x) for x < 0, peak * exp(-up * x) for x > 0
    """

    peak: float
    down: float
    up: float


def rates(sigma: float, nu: float, per_year: float) -> Rates:
    """Return them for a mean time of 1 / `per_year` years.

    kappa = sqrt(nu^2 + 2 per_year sigma^2), peak = per_year / kappa,
    down = (kappa + nu) / sigma^2, up = (kappa - nu) / sigma^2
    """
    kappa = math.sqrt(nu**2 + 2 * per_year * sigma**2)
    return Rates(per_year / kappa, (kappa + nu) / sigma**2, (kappa - nu) / sigma**2)


def exponential(side: int, b: float, laplace: Rates, power: int) -> float:
    """Return M_k after an exponential time without jumps (rule T7).

    Raises:
        ValueError: of a short, if exp(k X) has no expectation.
    """
    # Near is the side of the density that bad debt lies on.
    near, far, k = laplace.down, laplace.up, power
    if side != LONG:
        near, far, k = laplace.up, laplace.down, -power
    if near + k <= 0:
        raise ValueError(f"expected bad debt with a moment of order {power}, found none")
    room = side * b
    if room >= 0:
        return laplace.peak * math.exp(-room * (near + k)) / (near + k)
    slope = far - k
    beyond = -room if slope == 0 else -math.expm1(slope * room) / slope
    return laplace.peak * (1 / (near + k) + beyond)


def poisson(
    side: int, b: float, motion: Motion, laplace: Rates, years: Floats, power: int
) -> Floats:
    """Return M_k for prints at Poisson times and a fixed latency, without jumps (rule T8).

    The first print beyond the trigger is beyond by an exponential log distance, so this is a
    normal plus an exponential. `years` is an array.

    Raises:
        ValueError: of a short, if exp(k X) has no expectation.
    """
    eta = laplace.down if side == LONG else laplace.up
    k = side * power
    if eta + k <= 0:
        raise ValueError(f"expected bad debt with a moment of order {power}, found none")
    mean, variance = motion.nu * years, motion.sigma**2 * years
    deviation = np.sqrt(variance)
    room = side * (-b - mean) - k * variance
    tilt = eta / (eta + k) * np.exp(power * mean + power**2 * variance / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        still = np.exp(np.minimum(0.0, (eta + k) * room))
        return np.asarray(tilt * np.where(deviation > 0, _either(room, deviation, eta + k), still))


def _either(room: Floats, deviation: Floats, eta: float) -> Floats:
    """Return P(deviation * Z - Y < room), Y exponential with rate `eta`: G of rule T8."""
    x = room / deviation
    beyond = eta * room + (eta * deviation) ** 2 / 2 + log_ndtr(-(x + eta * deviation))
    return np.asarray(ndtr(x) + np.exp(beyond))
