"""What collateral counts that is not dollars: less, the longer it takes to sell (O9, O10, O15)."""

import math

import msgspec

from messaging.units import YEAR_S, Asset, Ppm, Qty8, Usd6, ratio_down, ratio_up, value_down

WHOLE = 1_000_000
PEG_PPM = 990_000  # of a dollar: from here down a peg counts as lost


class CollateralRisk(msgspec.Struct, frozen=True, kw_only=True):
    """How one asset counts as collateral.

    Attributes:
        maintenance_haircut_ppm, initial_haircut_ppm: at the least.
        volatility_ppm: annualised, under stress. quantile_z: of the price move to survive.
        depth_usd6_per_s, participation_ppm: what a sale may be, as for `AssetRisk`.
        volume_usd6: traded in a day. impact_ppm: what selling that much moves the price by.
        cap_usd6: of one account's collateral, no more than this counts, before the haircut.
        pegged: meant to be worth a dollar.
        depeg_factor: what is taken off for each dollar below 0.99 of a pegged one, for IM.
        age_max_s: at an older price it counts nothing for IM.
        follows: place of the underlying whose price it follows, if it does (O16).
        ratio_ppm: by which it may fall against that.
    """

    asset: Asset
    maintenance_haircut_ppm: Ppm
    initial_haircut_ppm: Ppm
    volatility_ppm: Ppm
    quantile_z: float
    depth_usd6_per_s: int
    participation_ppm: Ppm
    volume_usd6: int
    impact_ppm: Ppm
    cap_usd6: Usd6
    pegged: bool
    depeg_factor: int
    age_max_s: float = 3_600.0
    follows: int | None = None
    ratio_ppm: Ppm = Ppm(80_000)


class Collateral(msgspec.Struct, frozen=True, kw_only=True):
    """What an account has of one asset, at the price in use, which is `age_s` old."""

    risk: CollateralRisk
    qty8: Qty8
    price_usd6: Usd6
    age_s: float


class Valued(msgspec.Struct, frozen=True, kw_only=True):
    """What one asset counts for maintenance and for initial margin, and the haircuts.

    `ratio_usd6` is what it loses if it falls against what it follows (O16).
    """

    asset: Asset
    market_usd6: int
    maintenance_haircut_ppm: Ppm
    initial_haircut_ppm: Ppm
    maintenance_usd6: int
    initial_usd6: int
    ratio_usd6: int


def valued(held: Collateral) -> Valued:
    """Return what collateral counts (rules O9, O10, O15); haircuts round up, values down.

    haircut = max(floor, 1 - exp(-z sigma sqrt(age + time to sell)) + kappa sqrt(value / volume))
    """
    risk = held.risk
    market_usd6 = value_down(held.qty8, held.price_usd6)
    counted_usd6 = min(market_usd6, risk.cap_usd6)
    sale_s = counted_usd6 / (risk.depth_usd6_per_s * risk.participation_ppm / 1e6)
    z_sigma = risk.quantile_z * risk.volatility_ppm / 1e6
    impact = risk.impact_ppm / 1e6 * math.sqrt(counted_usd6 / risk.volume_usd6)
    moved = -math.expm1(-z_sigma * math.sqrt((held.age_s + sale_s) / YEAR_S))
    moved_ppm = math.ceil((moved + impact) * 1e6 - 1e-6)
    lost_ppm = 0
    if risk.pegged:
        lost_ppm = risk.depeg_factor * max(0, PEG_PPM - held.price_usd6)
    maintenance = Ppm(min(WHOLE, max(risk.maintenance_haircut_ppm, moved_ppm)))
    initial = Ppm(min(WHOLE, max(risk.initial_haircut_ppm, moved_ppm) + lost_ppm))
    if held.age_s > risk.age_max_s:
        initial = Ppm(WHOLE)
    return Valued(
        asset=risk.asset,
        market_usd6=market_usd6,
        maintenance_haircut_ppm=maintenance,
        initial_haircut_ppm=initial,
        maintenance_usd6=ratio_down(counted_usd6, WHOLE - maintenance),
        initial_usd6=ratio_down(counted_usd6, WHOLE - initial),
        ratio_usd6=0 if risk.follows is None else ratio_up(counted_usd6, risk.ratio_ppm),
    )
