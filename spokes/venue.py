"""A perpetuals venue: positions, fills against a depth curve, funding. Pure functions."""

from enum import Enum, auto
from typing import NamedTuple

import msgspec

from messaging.messages import Position, StateReported
from messaging.units import ONE, AccountId, Asset, Micros, Ppm, Qty8, Usd6, ratio_up, value_up

SLIPPAGE_PPM_MAX = 500_000
PERCENT_PPM = 10_000


class Fees(Enum):
    """What a trade is charged."""

    NONE = auto()  # it was off the market
    TAKER = auto()
    LIQUIDATION = auto()  # the taker's, and a penalty


class Market(msgspec.Struct, frozen=True, kw_only=True):
    """How one asset trades here.

    Attributes:
        asset: what is traded.
        initial_margin_ppm: credit that an opening fill uses, as a share of its value.
        fee_ppm: taker fee.
        liquidation_fee_ppm: fee on what a liquidation closes.
        half_spread_ppm: distance of the best price from the middle.
        depth_usd6: value that moves the price by 1 % at normal depth.
        unwind_usd6_per_s: most that liquidations of one position trade in a second.
        funding_ppm: longs pay shorts this share of value each funding interval; signed.
    """

    asset: Asset
    initial_margin_ppm: Ppm
    fee_ppm: Ppm
    liquidation_fee_ppm: Ppm
    half_spread_ppm: Ppm
    depth_usd6: Usd6
    unwind_usd6_per_s: int
    funding_ppm: Ppm


class Holding(NamedTuple):
    """An open position: signed quantity, and the signed cost of what is open."""

    qty8: int
    cost_usd6: int


FLAT = Holding(0, 0)


class Trader(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One account at this venue.

    Attributes:
        version: number of the last report.
        holdings: open positions only, the one traded last at the end.
        realised_usd6: P&L realised by closing and by funding, since the beginning.
        fees_usd6, liquidation_fees_usd6: charged since the beginning.
    """

    id: AccountId
    version: int = 0
    holdings: tuple[tuple[Asset, Holding], ...] = ()
    realised_usd6: int = 0
    fees_usd6: int = 0
    liquidation_fees_usd6: int = 0

    def holding(self, asset: Asset) -> Holding:
        """Return the position in `asset`, flat if there is none."""
        for held, holding in self.holdings:
            if held == asset:
                return holding
        return FLAT


def fill_price_usd6(market: Market, middle_usd6: Usd6, qty8: int, depth_ppm: Ppm) -> Usd6:
    """Return the average price at which `qty8` trades: it walks up a linear book.

        price = middle * (1 +- (half_spread + value / depth * 1 % / 2))

    [usd6], + for a buy, - for a sale, rounded against the trader, at most 50 % off and never 0.
    """
    value_usd6 = value_up(abs(qty8), middle_usd6)
    depth_usd6 = max(1, market.depth_usd6 * depth_ppm // 1_000_000)
    impact_ppm = -(-value_usd6 * PERCENT_PPM // (2 * depth_usd6))
    off_ppm = min(market.half_spread_ppm + impact_ppm, SLIPPAGE_PPM_MAX)
    off_usd6 = ratio_up(middle_usd6, off_ppm)
    return Usd6(middle_usd6 + off_usd6 if qty8 > 0 else max(1, middle_usd6 - off_usd6))


def trade(
    trader: Trader, market: Market, qty8: int, price_usd6: Usd6, fees: Fees = Fees.TAKER
) -> Trader:
    """Return the trader after buying (`qty8 > 0`) or selling at `price_usd6`.

    What closes realises its share of the cost; what goes beyond flat opens the other way.
    Money is exact: cost moves, it is never rounded away.
    """
    assert qty8 != 0
    before = trader.holding(market.asset)
    # A buy's value rounds up, a sale's down: -(-x // 1) and x // 1 in one for signed x.
    value_usd6 = -(-qty8 * price_usd6 // ONE)
    closing = before.qty8 * qty8 < 0
    realised_usd6 = 0
    if not closing:
        after = Holding(before.qty8 + qty8, before.cost_usd6 + value_usd6)
    elif abs(qty8) <= abs(before.qty8):
        closed_cost_usd6 = before.cost_usd6 * -qty8 // before.qty8
        realised_usd6 = -value_usd6 - closed_cost_usd6
        after = Holding(before.qty8 + qty8, before.cost_usd6 - closed_cost_usd6)
    else:
        closed_value_usd6 = value_usd6 * -before.qty8 // qty8
        realised_usd6 = -closed_value_usd6 - before.cost_usd6
        after = Holding(before.qty8 + qty8, value_usd6 - closed_value_usd6)

    size_usd6 = abs(value_usd6)
    fee_usd6 = 0 if fees is Fees.NONE else ratio_up(size_usd6, market.fee_ppm)
    penalty_ppm = market.liquidation_fee_ppm if fees is Fees.LIQUIDATION else 0
    penalty_usd6 = ratio_up(size_usd6, penalty_ppm)
    return msgspec.structs.replace(
        trader,
        holdings=_hold(trader.holdings, market.asset, after),
        realised_usd6=trader.realised_usd6 + realised_usd6,
        fees_usd6=trader.fees_usd6 + fee_usd6,
        liquidation_fees_usd6=trader.liquidation_fees_usd6 + penalty_usd6,
    )


def fund(trader: Trader, market: Market, price_usd6: Usd6) -> Trader:
    """Return the trader after one funding payment: longs pay when the rate is positive."""
    qty8 = trader.holding(market.asset).qty8
    if qty8 == 0 or market.funding_ppm == 0:
        return trader
    paid_usd6 = -(-qty8 * price_usd6 * market.funding_ppm // (ONE * 1_000_000))
    return msgspec.structs.replace(trader, realised_usd6=trader.realised_usd6 - paid_usd6)


def report(trader: Trader, block_time_us: Micros) -> tuple[Trader, StateReported]:
    """Return the trader's next report, all of it."""
    after = msgspec.structs.replace(trader, version=trader.version + 1)
    return after, StateReported(
        account=trader.id,
        version=after.version,
        block_time_us=block_time_us,
        positions=tuple(
            Position(asset=asset, qty8=Qty8(held.qty8), cost_usd6=Usd6(held.cost_usd6))
            for asset, held in trader.holdings
        ),
        realised_usd6=Usd6(trader.realised_usd6),
        fees_usd6=Usd6(trader.fees_usd6),
        liquidation_fees_usd6=Usd6(trader.liquidation_fees_usd6),
    )


def _hold(
    holdings: tuple[tuple[Asset, Holding], ...], asset: Asset, after: Holding
) -> tuple[tuple[Asset, Holding], ...]:
    """Return the holdings with one replaced, added, or left out if flat."""
    assert after.qty8 != 0 or after.cost_usd6 == 0
    others = tuple(pair for pair in holdings if pair[0] != asset)
    return (*others, (asset, after)) if after.qty8 else others
