"""What trading does to prices. Pure functions, rules C1 to C5 of docs/impact.md.

A displacement is a difference of log prices, so whatever is sold leaves a price above zero. It is
counted in whole parts of 1e-12, in which a dollar's is not lost.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from markets.price_path import NORMAL_PPM, PRICE_USD_MAX
from messaging.units import ONE, USD, Micros, Ppm, Usd6

UNIT = 10**12
MOST_E12 = math.floor(math.log(10.0) * UNIT)  # fills carry no price beyond tenfold, either way
PRICE_USD6_MAX = round(PRICE_USD_MAX * USD)


class ImpactPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How fills move prices, at normal depth.

    Attributes:
        lasting_per_usd: per asset, share of its price that a dollar moves it by for good.
        walk_per_usd: per asset, share that a dollar moves it by at first: it walks up the book.
        half_life_us: in which half of what does not last is gone; 0: it is gone at once.
        coupling_ppm: share of a venue's own displacement that each other venue follows.
        depth_shares_ppm: per venue, its book's depth as a share of the asset's.
    """

    lasting_per_usd: tuple[float, ...]
    walk_per_usd: tuple[float, ...]
    half_life_us: Micros
    coupling_ppm: Ppm
    depth_shares_ppm: tuple[Ppm, ...]


class Displacement(NamedTuple):
    """How far fills on one venue have moved one price, as a log: for good, and for a while."""

    lasting_e12: int
    passing_e12: int


NONE = Displacement(0, 0)


def pushed(
    policy: ImpactPolicy,
    asset: int,
    venue: int,
    known: Displacement,
    bought_usd: float,
    depth_ppm: Ppm,
) -> Displacement:
    """Return a venue's displacement after so much was bought, or sold if below zero (C2)."""
    at_depth_usd = bought_usd * NORMAL_PPM / depth_ppm
    lasting = policy.lasting_per_usd[asset]
    walk = policy.walk_per_usd[asset] * NORMAL_PPM / policy.depth_shares_ppm[venue]
    passing = max(0.0, walk - lasting) if policy.half_life_us else 0.0
    return Displacement(
        _bounded(known.lasting_e12 + lasting * at_depth_usd * UNIT),
        _bounded(known.passing_e12 + passing * at_depth_usd * UNIT),
    )


def decayed(policy: ImpactPolicy, known: Displacement, passed_us: int) -> Displacement:
    """Return a displacement after some time without a fill (C2)."""
    if not known.passing_e12:
        return known
    left = 0.5 ** (passed_us / policy.half_life_us)
    return Displacement(known.lasting_e12, round(known.passing_e12 * left))


def at_venue_e12(policy: ImpactPolicy, own: Sequence[Displacement], venue: int) -> int:
    """Return how far a price stands off on one venue, all venues' own displacements given (C3)."""
    moves_e12 = [one.lasting_e12 + one.passing_e12 for one in own]
    others_e12 = sum(moves_e12) - moves_e12[venue]
    return _bounded(moves_e12[venue] + others_e12 * policy.coupling_ppm // 1_000_000)


def mean_share(policy: ImpactPolicy, venues: int) -> float:
    """Return what share of a fill's own impact the average over the venues shows (C4)."""
    return (1.0 + policy.coupling_ppm / 1e6 * (venues - 1)) / venues


def displaced_usd6(price_usd6: Usd6, displacement_e12: int) -> Usd6:
    """Return a price so far off, rounded half to even, above zero and within the limit (C5)."""
    if not displacement_e12:
        return price_usd6
    moved_usd6 = round(price_usd6 * math.exp(displacement_e12 / UNIT))
    return Usd6(min(PRICE_USD6_MAX, max(1, moved_usd6)))


def mean_usd6(prices_usd6: Sequence[Usd6]) -> Usd6:
    """Return the average price over venues, rounded down (C4)."""
    return Usd6(sum(prices_usd6) // len(prices_usd6))


def value_usd(qty8: int, price_usd6: Usd6) -> float:
    """Return a quantity's value [USD], with its sign."""
    return qty8 / ONE * (price_usd6 / USD)


def _bounded(log_e12: float) -> int:
    return round(max(-MOST_E12, min(MOST_E12, log_e12)))
