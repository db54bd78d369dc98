"""What trading does to prices. Pure functions, rules C1 to C5 of docs/impact.md.

A displacement is a difference of log prices, so whatever is sold leaves a price above zero.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from markets.price_path import NORMAL_PPM, PRICE_USD_MAX
from messaging.units import ONE, USD, Micros, Ppm, Usd6

LOG_MAX = math.log(10.0)  # fills carry no price further than tenfold, either way
PRICE_USD6_MAX = round(PRICE_USD_MAX * USD)


class ImpactPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How fills move prices, at normal depth.

    Attributes:
        lasting_per_usd: per asset, share of its price that a dollar moves it by for good.
        walk_per_usd: per asset, share that a dollar moves it by at first: it walks up the book.
        half_life_us: in which half of what does not last is gone; 0: it is gone at once.
        coupling_ppm: share of a venue's own displacement that each other venue follows.
    """

    lasting_per_usd: tuple[float, ...]
    walk_per_usd: tuple[float, ...]
    half_life_us: Micros
    coupling_ppm: Ppm


class Displacement(NamedTuple):
    """How far fills on one venue have moved one price, as a log: for good, and for a while."""

    lasting: float
    passing: float


NONE = Displacement(0.0, 0.0)


def pushed(
    policy: ImpactPolicy, asset: int, known: Displacement, bought_usd: float, depth_ppm: Ppm
) -> Displacement:
    """Return a displacement after so much was bought, or sold if below zero (C2)."""
    at_depth_usd = bought_usd * NORMAL_PPM / depth_ppm
    lasting = policy.lasting_per_usd[asset]
    passing = max(0.0, policy.walk_per_usd[asset] - lasting) if policy.half_life_us else 0.0
    return Displacement(
        _bounded(known.lasting + lasting * at_depth_usd),
        _bounded(known.passing + passing * at_depth_usd),
    )


def decayed(policy: ImpactPolicy, known: Displacement, passed_us: int) -> Displacement:
    """Return a displacement after some time without a fill (C2)."""
    if not known.passing:
        return known
    left = 0.5 ** (passed_us / policy.half_life_us)
    return Displacement(known.lasting, known.passing * left)


def at_venue(policy: ImpactPolicy, own: Sequence[Displacement], venue: int) -> float:
    """Return how far a price stands off on one venue, all venues' own displacements given (C3)."""
    moves = [one.lasting + one.passing for one in own]
    coupling = policy.coupling_ppm / 1e6
    return _bounded((1.0 - coupling) * moves[venue] + coupling * sum(moves))


def mean_share(policy: ImpactPolicy, venues: int) -> float:
    """Return what share of a fill's own impact the average over the venues shows (C4)."""
    return (1.0 + policy.coupling_ppm / 1e6 * (venues - 1)) / venues


def displaced_usd6(price_usd6: Usd6, displacement: float) -> Usd6:
    """Return a price so far off, rounded half to even, above zero and within the limit (C5)."""
    if not displacement:
        return price_usd6
    return Usd6(min(PRICE_USD6_MAX, max(1, round(price_usd6 * math.exp(displacement)))))


def mean_usd6(prices_usd6: Sequence[Usd6]) -> Usd6:
    """Return the average price over venues, rounded down (C4)."""
    return Usd6(sum(prices_usd6) // len(prices_usd6))


def value_usd(qty8: int, price_usd6: Usd6) -> float:
    """Return a quantity's value [USD], with its sign."""
    return qty8 / ONE * (price_usd6 / USD)


def _bounded(log: float) -> float:
    return max(-LOG_MAX, min(LOG_MAX, log))
