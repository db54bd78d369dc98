"""When to stop credit and trading, and when to let them go on: a ladder. Pure functions.

Rules B1 to B4 of docs/breakers.md. Nothing here ever stops a liquidation.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from messaging.breakers import Cause, Level
from messaging.units import Micros, Ppm

LEVEL_OF: Mapping[Cause, Level] = {
    Cause.CLEAR: Level.OPEN,
    Cause.PRICE_OLD: Level.NO_CREDIT,
    Cause.PRICE_DOUBTED: Level.NO_CREDIT,
    Cause.VOLATILITY: Level.REDUCE_ONLY,
    Cause.CASCADE: Level.REDUCE_ONLY,
    Cause.ZONE_WON: Level.REDUCE_ONLY,
    Cause.OFF_MEAN: Level.FROZEN,
    Cause.FEED_STUCK: Level.FROZEN,
}


class BreakerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What trips a breaker, and for how long (B2 to B4).

    Attributes:
        price_age_us: a price in use older than this is old; older than `stuck_us`, stuck.
        off_mean_ppm: how far the price in use may be from its mean over `mean_us`.
        volatility_times: most that fast volatility may be of slow.
        volatility_floor: yearly volatility below which the slow one counts as this.
        won_ppm: share of its cap that traders may win in a zone.
        cascade_ppm: largest reproduction number of liquidations.
        impacts_per_usd: per asset, share of its price that the sale of a dollar moves it by.
        looks: a level is left after so many looks in a row that call for less.
    """

    price_age_us: Micros
    stuck_us: Micros
    off_mean_ppm: Ppm
    mean_us: Micros
    volatility_times: float
    volatility_floor: float
    won_ppm: Ppm
    cascade_ppm: Ppm
    impacts_per_usd: tuple[float, ...]
    looks: int


class AssetSeen(NamedTuple):
    """What one look sees of an asset.

    Attributes:
        age_us: of the price in use. off_mean_ppm: how far it is from its mean.
        doubted: whether anything may be wrong with it (K4).
        fast, slow: averages of squared log returns, per year (V1).
        cascade_ppm: reproduction number of its liquidations (B6).
    """

    age_us: int
    off_mean_ppm: int
    doubted: bool
    fast: float
    slow: float
    cascade_ppm: int


def of_asset(policy: BreakerPolicy, seen: AssetSeen) -> Cause:
    """Return the gravest cause to stop an asset (B2)."""
    calm = max(seen.slow, policy.volatility_floor**2)
    if seen.age_us > policy.stuck_us:
        return Cause.FEED_STUCK
    if seen.off_mean_ppm > policy.off_mean_ppm:
        return Cause.OFF_MEAN
    if seen.cascade_ppm > policy.cascade_ppm:
        return Cause.CASCADE
    if seen.fast > policy.volatility_times**2 * calm:
        return Cause.VOLATILITY
    if seen.doubted:
        return Cause.PRICE_DOUBTED
    return Cause.PRICE_OLD if seen.age_us > policy.price_age_us else Cause.CLEAR


def of_zone(policy: BreakerPolicy, won_usd6: int, cap_usd6: int) -> Cause:
    """Return the gravest cause to stop a spoke (B3)."""
    much = won_usd6 * 1_000_000 > cap_usd6 * policy.won_ppm
    return Cause.ZONE_WON if much else Cause.CLEAR


class Breaker(NamedTuple):
    """One scope's breaker.

    Attributes:
        recent: what the latest looks have called for, oldest first.
        version: how often its level has changed.
    """

    recent: tuple[Cause, ...] = ()
    version: int = 0

    @property
    def cause(self) -> Cause:
        """Return the gravest of what was called for, the latest of several."""
        found = Cause.CLEAR
        for cause in self.recent:
            if LEVEL_OF[cause] >= LEVEL_OF[found]:
                found = cause
        return found

    @property
    def level(self) -> Level:
        """Return the highest level that any of the latest looks has called for (B4)."""
        return LEVEL_OF[self.cause]


def looked(policy: BreakerPolicy, known: Breaker, cause: Cause) -> Breaker:
    """Return a breaker after another look: up at once, down after `looks` that call for less."""
    recent = (*known.recent, cause)[-policy.looks :]
    if recent == known.recent:
        return known
    after = Breaker(recent, known.version)
    if after.level is known.level:
        return after
    return after._replace(version=known.version + 1)
