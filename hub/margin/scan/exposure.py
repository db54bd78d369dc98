"""Greeks in dollars: of an account, of a spoke, of all; limits on them; a hedge (O13, O14)."""

from collections.abc import Sequence

import msgspec

from hub.margin.scan import values
from hub.margin.scan.legs import Leg, Market, ScanPolicy
from messaging.units import ONE, Qty8, Usd6

BUCKETS_DAYS = (7, 30, 90, 180)  # expiries up to each, and those beyond the last
BUCKETS = (*(f"{days}d" for days in BUCKETS_DAYS), f">{BUCKETS_DAYS[-1]}d")


class Exposure(msgspec.Struct, frozen=True, kw_only=True):
    """Greeks of positions on one underlying [usd6], to the nearest millionth.

    Attributes:
        delta_usd6: quantity times price that moves as much.
        gamma_usd6: by which that changes for a price 1 % higher.
        vega_usd6: P&L for a volatility one point higher at 30 days, by `BUCKETS`; other expiries
            by (30 / days)^p, as volatility shocks have it (O5).
        theta_usd6: P&L of a day.
    """

    delta_usd6: int = 0
    gamma_usd6: int = 0
    vega_usd6: tuple[int, ...] = (0,) * len(BUCKETS)
    theta_usd6: int = 0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The most that each may be, without sign; None is no limit."""

    delta_usd6: Usd6 | None = None
    gamma_usd6: Usd6 | None = None
    vega_usd6: Usd6 | None = None
    theta_usd6: Usd6 | None = None


def exposure(policy: ScanPolicy, market: Market, place: int, legs: Sequence[Leg]) -> Exposure:
    """Return the Greeks of these legs on one underlying (rule O13)."""
    price_usd6 = market.conditions.prices_usd6[place]
    spot = price_usd6 / 1e6
    delta = gamma = theta = 0.0
    vega = [0.0] * len(BUCKETS)
    optional = [leg for leg in legs if leg.series is not None]
    for leg in legs:
        if leg.series is None:
            delta += leg.qty8 / ONE
    series = [leg.series for leg in optional if leg.series is not None]
    if series:
        found = values.quoted(policy.options[place], price_usd6, series)
        for row, (leg, one) in enumerate(zip(optional, series, strict=True)):
            units = leg.qty8 / ONE
            delta += units * float(found.delta[row, 0])
            gamma += units * float(found.gamma[row, 0])
            theta += units * float(found.theta[row, 0]) / 365.0
            point = float(found.vega[row, 0]) / 100.0 * policy.shock.reach(one.left_days)
            vega[_bucket(one.left_days)] += units * point
    return Exposure(
        delta_usd6=round(delta * price_usd6),
        gamma_usd6=round(gamma * spot * price_usd6 / 100.0),
        vega_usd6=tuple(round(each * 1e6) for each in vega),
        theta_usd6=round(theta * 1e6),
    )


def _bucket(days: float) -> int:
    return sum(days > most for most in BUCKETS_DAYS)


def breaches(found: Exposure, limits: Limits) -> tuple[str, ...]:
    """Return which Greeks are beyond their limits; buckets of vega do not net (O13)."""
    sizes = {
        "delta": (abs(found.delta_usd6), limits.delta_usd6),
        "gamma": (abs(found.gamma_usd6), limits.gamma_usd6),
        "vega": (sum(abs(one) for one in found.vega_usd6), limits.vega_usd6),
        "theta": (abs(found.theta_usd6), limits.theta_usd6),
    }
    return tuple(name for name, (size, most) in sizes.items() if most is not None and size > most)


def hedge_qty8(delta_usd6: int, price_usd6: Usd6, band_usd6: Usd6) -> Qty8:
    """Return the smallest trade in perpetuals that brings delta inside the band (rule O14).

    Signed: above 0 to buy. 0 inside the band, its edges included.
    """
    beyond_usd6 = abs(delta_usd6) - band_usd6
    if beyond_usd6 <= 0:
        return Qty8(0)
    size8 = -(-beyond_usd6 * ONE // price_usd6)
    return Qty8(-size8 if delta_usd6 > 0 else size8)
