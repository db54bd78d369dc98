"""What the hub's breakers say: how far trading in an asset, or on a spoke, is stopped (B1)."""

from enum import IntEnum, StrEnum
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from messaging.fields import Count

Scope: TypeAlias = Annotated[str, Meta(min_length=1, max_length=16)]


class Level(IntEnum):
    """How far a breaker has tripped; each level does what the lower ones do."""

    OPEN = 0
    NO_CREDIT = 1
    REDUCE_ONLY = 2
    FROZEN = 3


class Cause(StrEnum):
    """What a breaker has tripped on, or that nothing is left to trip on (B2, B3)."""

    CLEAR = "clear"
    PRICE_OLD = "price_old"
    PRICE_DOUBTED = "price_doubted"
    VOLATILITY = "volatility"
    CASCADE = "cascade"
    ZONE_WON = "zone_won"
    OFF_MEAN = "off_mean"
    FEED_STUCK = "feed_stuck"


class BreakerSet(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="breaker_set"):
    """So far is trading stopped in an asset, or on the spoke itself. Hub to spoke (B4, B5).

    `scope` is the asset's name or the spoke's. The highest version wins, so repeats and overtaken
    ones change nothing. Lost: the channel brings it again. Liquidation goes on at every level.
    """

    scope: Scope
    level: Level
    cause: Cause
    version: Count
