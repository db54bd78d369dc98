"""What a historic stress event is: anchors of price and depth, as data.

Anchors are (hours since the start, US dollars): true levels of the public record, rounded;
depth is (hours since the start, ppm of normal). Depth is our reading of reports on order
books, not a measurement, except where `source` says otherwise.
"""

import msgspec

from messaging.units import Asset, Ppm

Anchors = tuple[tuple[float, float], ...]

BTC, ETH, SOL, LUNA = Asset("BTC"), Asset("ETH"), Asset("SOL"), Asset("LUNA")
AVAX, DOGE = Asset("AVAX"), Asset("DOGE")
STETH, MNGO, CRV = Asset("STETH"), Asset("MNGO"), Asset("CRV")
USDC, USDE = Asset("USDC"), Asset("USDE")


class StressEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event. Every list of anchors starts at hour 0 and ends at the same hour.

    Attributes:
        title: for the report.
        start_utc: hour 0.
        anchors_usd: for each asset, (hours, price in USD).
        depth_ppm: (hours, depth).
        volatility_per_sqrt_year: of the noise between anchors.
        own_volatility: the same, of assets that have another one.
        correlation: of the noise of any two assets.
        source: who published the figures.
    """

    title: str
    start_utc: str
    anchors_usd: dict[Asset, Anchors]
    depth_ppm: tuple[tuple[float, Ppm], ...]
    volatility_per_sqrt_year: float
    own_volatility: dict[Asset, float] = {}
    correlation: float
    source: str


def depth(*points: tuple[float, float]) -> tuple[tuple[float, Ppm], ...]:
    """Return (hours, multiplier) as (hours, ppm)."""
    return tuple((hours, Ppm(round(multiplier * 1_000_000))) for hours, multiplier in points)
