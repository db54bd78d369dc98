"""What one account is worth and must hold, to the millionth of a dollar.

Rules M1 to M6 of docs/margin.md. Values and credits round down, requirements round up.
"""

from collections.abc import Mapping, Sequence

import msgspec

from hub.margin.buffer import AssetRisk, Buffer, range_ppm
from messaging.messages import StateReported
from messaging.units import ONE, Asset, Ppm, Qty8, Usd6, ratio_down, value_down

NO_BOUNDS: Mapping[tuple[int, int], Qty8] = {}


class MarginPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How accounts are margined.

    Attributes:
        assets: in the scenario's order; prices and arrays follow it.
        buffer: how ranges grow with age.
        gain_age_max_s: age at which an unrealised gain counts nothing (A_max of rule M2).
    """

    assets: tuple[AssetRisk, ...]
    buffer: Buffer
    gain_age_max_s: float

    def index(self) -> dict[Asset, int]:
        """Return each asset's place."""
        return {risk.asset: place for place, risk in enumerate(self.assets)}


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub knows at one instant, and how old it is.

    Attributes:
        prices_usd6: per asset, the price in use; 0 where none has come yet.
        tau_s: per spoke and asset, age of price + age of state + command delay (rule M4).
        gain_share_ppm: per spoke, the share of a gain that still counts (rule M2).
    """

    prices_usd6: Sequence[Usd6]
    tau_s: Sequence[Sequence[float]]
    gain_share_ppm: Sequence[Ppm]


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """An account's standing.

    Attributes:
        equity_usd6: cash + recognised P&L of every spoke.
        maintenance_usd6: below it the account is liquidated.
        initial_usd6: above it the account may open more.
        notional_usd6: gross notional over all spokes, as bounded.
    """

    equity_usd6: int
    maintenance_usd6: int
    initial_usd6: int
    notional_usd6: int


class Reported(msgspec.Struct, frozen=True):
    """One spoke's report on an account, against what the ledger has already settled of it."""

    state: StateReported
    settled: StateReported

    @property
    def unsettled_usd6(self) -> int:
        """Return realised P&L less fees that is reported but not yet in the ledger."""
        state, settled = self.state, self.settled
        if state is settled:
            return 0
        return (
            state.realised_usd6
            - settled.realised_usd6
            - state.fees_usd6
            + settled.fees_usd6
            - state.liquidation_fees_usd6
            + settled.liquidation_fees_usd6
        )


def gain_cap_usd6(policy: MarginPolicy, asset: int) -> int:
    """Return the gain that the market could realise while gains still count (rule M2)."""
    return round(policy.assets[asset].unwind_usd6_per_s * policy.gain_age_max_s)


def recognised_usd6(policy: MarginPolicy, pnl_usd6: int, assets: Sequence[int], share: Ppm) -> int:
    """Return what counts of one spoke's P&L: a loss in full, a gain capped and tapered (M2)."""
    if pnl_usd6 <= 0:
        return pnl_usd6
    cap_usd6 = sum(gain_cap_usd6(policy, asset) for asset in assets)
    return ratio_down(min(pnl_usd6, cap_usd6), share)


def assess(
    policy: MarginPolicy,
    places: dict[Asset, int],
    conditions: Conditions,
    cash_usd6: int,
    reports: Sequence[Reported],
    bounds: Mapping[tuple[int, int], Qty8] = NO_BOUNDS,
) -> Assessment:
    """Return an account's equity and requirements.

        equity = cash + sum over spokes of recognised P&L
        MM     = sum over assets of the dearer of fall and rise (`fall_and_rise`)   rounded up
        IM     = MM * (base IM / base MM), asset by asset                           rounded up

    [usd6]. A hedge across two spokes nets, but keeps a charge for the difference of their
    ages. Source: docs/margin.md, rules M1 to M6.

    Args:
        policy: ratios, buffer, taper.
        places: asset -> place in the policy.
        conditions: prices and ages of this instant.
        cash_usd6: the ledger's cash of the account.
        reports: one for each spoke, in the scenario's order.
        bounds: (spoke, asset) -> size that a liquidation under way brings the position down
            to; equity counts the position as reported, requirements count it as bounded (L7).
    """
    equity_usd6, notional_usd6 = cash_usd6, 0
    legs: list[list[tuple[int, Ppm]]] = [[] for _ in policy.assets]
    for spoke, report in enumerate(reports):
        pnl_usd6 = report.unsettled_usd6
        held = []
        for position in report.state.positions:
            place = places[position.asset]
            price_usd6 = conditions.prices_usd6[place]
            # The gross value rounds up, the P&L down; both against the trader.
            value_usd6 = value_down(position.qty8, price_usd6)
            pnl_usd6 += value_usd6 - position.cost_usd6
            size_qty8 = abs(position.qty8)
            if bounds:
                size_qty8 = min(size_qty8, bounds.get((spoke, place), size_qty8))
            size_usd6, ratio = charged(policy, conditions, spoke, place, size_qty8)
            notional_usd6 += size_usd6
            held.append(place)
            legs[place].append((size_usd6 if position.qty8 > 0 else -size_usd6, ratio))
        equity_usd6 += recognised_usd6(policy, pnl_usd6, held, conditions.gain_share_ppm[spoke])

    maintenance_usd6 = initial_usd6 = 0
    for risk, held_legs in zip(policy.assets, legs, strict=True):
        if held_legs:
            scan_usd6 = dearer_usd6(fall_and_rise(held_legs))
            maintenance_usd6 += scan_usd6
            initial_usd6 += -(-scan_usd6 * risk.initial_margin_ppm // risk.maintenance_margin_ppm)
    return Assessment(
        equity_usd6=equity_usd6,
        maintenance_usd6=maintenance_usd6,
        initial_usd6=initial_usd6,
        notional_usd6=notional_usd6,
    )


def charged(
    policy: MarginPolicy, conditions: Conditions, spoke: int, asset: int, size_qty8: int
) -> tuple[int, Ppm]:
    """Return the value of a leg of this size [usd6], rounded up, and its range (rule M4)."""
    risk = policy.assets[asset]
    size_usd6 = -(-size_qty8 * conditions.prices_usd6[asset] // ONE)
    unwind_s = size_usd6 / risk.unwind_usd6_per_s
    return size_usd6, range_ppm(
        policy.buffer, risk, conditions.tau_s[spoke][asset] + unwind_s / 3.0
    )


def dearer_usd6(fall_and_rise: tuple[int, int]) -> int:
    """Return what one asset requires [usd6], rounded up (rule M3)."""
    return -(-max(fall_and_rise) // 1_000_000)


def fall_and_rise(legs: Sequence[tuple[int, Ppm]]) -> tuple[int, int]:
    """Return what a fall and a rise by its range cost the legs of one asset [usd6 * ppm].

    Each leg is its signed size [usd6] and its range. What legs win counts at no larger range than
    any that loses: a hedge is not worth more for being older (rule M3). Below zero: won.
    """
    longs = [(size_usd6, ratio) for size_usd6, ratio in legs if size_usd6 > 0]
    shorts = [(-size_usd6, ratio) for size_usd6, ratio in legs if size_usd6 < 0]
    return _cost(longs, shorts), _cost(shorts, longs)


def _cost(losing: Sequence[tuple[int, Ppm]], winning: Sequence[tuple[int, Ppm]]) -> int:
    least = min((ratio for _, ratio in losing), default=None)
    won = sum(size * (ratio if least is None else min(ratio, least)) for size, ratio in winning)
    return sum(size * ratio for size, ratio in losing) - won
