from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.messages import Position
from messaging.units import ONE, USD
from spokes.venue import FLAT, Fees, Holding, Market, Trader, fill_price_usd6, fund, report, trade

BTC = Market(
    asset="BTC",
    initial_margin_ppm=100_000,
    fee_ppm=500,
    liquidation_fee_ppm=10_000,
    half_spread_ppm=100,
    depth_usd6=5_000_000 * USD,
    unwind_usd6_per_s=25_000 * USD,
    funding_ppm=100,
)
ANN = Trader(id="ann")

sizes = st.integers(1, 10**12)
quantities = st.integers(-(10**12), 10**12).filter(bool)
prices = st.integers(1, 10**12)
fills = st.tuples(quantities, prices)
depths = st.integers(0, 2_000_000)


def money(trader: Trader) -> int:
    """Return what has been paid for all that was ever traded: realised P&L less open cost."""
    return trader.realised_usd6 - trader.holding("BTC").cost_usd6


def held(qty8: int, cost_usd6: int) -> Trader:
    return Trader(id="ann", holdings=(("BTC", Holding(qty8, cost_usd6)),))


@given(st.lists(fills, min_size=1, max_size=12))
def test_a_fill_conserves_money_but_for_the_rounding_of_its_value(
    traded: list[tuple[int, int]],
) -> None:
    """Realised P&L less cost changes by the value paid, rounded once, against the trader."""
    trader, paid, qty8 = ANN, 0, 0
    for size8, price_usd6 in traded:
        exact = Fraction(size8 * price_usd6, ONE)
        before = money(trader)
        trader = trade(trader, BTC, size8, price_usd6)
        qty8 += size8
        value_usd6 = before - money(trader)
        paid += exact

        assert exact <= value_usd6 < exact + 1
        assert trader.holding("BTC").qty8 == qty8
    assert paid <= -money(trader) < paid + len(traded)


@given(quantities, prices, prices)
def test_closing_at_once_realises_the_difference_of_the_prices(
    qty8: int, bought: int, sold: int
) -> None:
    after = trade(trade(ANN, BTC, qty8, bought), BTC, -qty8, sold)
    exact = Fraction(qty8 * (sold - bought), ONE)

    assert after.holdings == ()
    assert exact - 2 < after.realised_usd6 <= exact


@given(quantities, st.integers(-(10**14), 10**14), st.fractions(0, 1), prices)
def test_a_partial_close_leaves_its_share_of_the_cost(
    qty8: int, cost_usd6: int, share: Fraction, price_usd6: int
) -> None:
    closed8 = -int(qty8 * share)
    if closed8 == 0:
        return
    after = trade(held(qty8, cost_usd6), BTC, closed8, price_usd6).holding("BTC")

    assert after.qty8 == qty8 + closed8
    assert abs(after.cost_usd6 - Fraction(cost_usd6 * after.qty8, qty8)) < 1


@given(quantities, sizes, prices)
def test_a_fill_through_flat_opens_the_rest_at_its_own_price(
    qty8: int, beyond8: int, price_usd6: int
) -> None:
    """Nothing of the old cost stays; what is open cost the fill's price."""
    size8 = -qty8 - (beyond8 if qty8 > 0 else -beyond8)
    after = trade(held(qty8, 123), BTC, size8, price_usd6)
    left = after.holding("BTC")

    assert left.qty8 == qty8 + size8
    assert abs(left.cost_usd6 - Fraction(left.qty8 * price_usd6, ONE)) <= 2
    assert abs(after.realised_usd6 - (Fraction(qty8 * price_usd6, ONE) - 123)) <= 2


@given(quantities, prices)
def test_fees_are_rounded_up_and_a_liquidation_pays_its_own_on_top(
    qty8: int, price_usd6: int
) -> None:
    normal = trade(ANN, BTC, qty8, price_usd6)
    forced = trade(ANN, BTC, qty8, price_usd6, Fees.LIQUIDATION)
    size = abs(normal.holding("BTC").cost_usd6)

    assert 0 <= normal.fees_usd6 * 1_000_000 - size * 500 < 1_000_000
    assert 0 <= forced.liquidation_fees_usd6 * 1_000_000 - size * 10_000 < 1_000_000
    assert (normal.liquidation_fees_usd6, forced.fees_usd6) == (0, normal.fees_usd6)


@given(prices, quantities, depths)
def test_a_fill_is_never_better_than_the_middle_and_never_free(
    middle: int, qty8: int, depth_ppm: int
) -> None:
    price = fill_price_usd6(BTC, middle, qty8, depth_ppm)

    assert price >= 1
    assert middle < price <= middle + -(-middle // 2) if qty8 > 0 else price <= middle
    assert qty8 > 0 or price >= middle // 2 or price == 1


@given(st.integers(1_000, 10**12), sizes, sizes, depths, st.sampled_from([-1, 1]))
def test_a_larger_fill_never_gets_a_better_price(
    middle: int, one8: int, other8: int, depth_ppm: int, side: int
) -> None:
    small8, large8 = sorted((one8, other8))
    better = fill_price_usd6(BTC, middle, side * small8, depth_ppm)
    worse = fill_price_usd6(BTC, middle, side * large8, depth_ppm)

    assert (worse - better) * side >= 0


@pytest.mark.parametrize(
    ("side", "depth_ppm", "price"),
    [
        (1, 1_000_000, 100_510_000),  # 0.01 % half spread, 5 M moves it 1 %, half of it on average
        (-1, 1_000_000, 99_490_000),
        (1, 500_000, 101_010_000),
        (1, 0, 150_000_000),
    ],
)
def test_a_fill_walks_up_a_linear_book(side: int, depth_ppm: int, price: int) -> None:
    assert fill_price_usd6(BTC, 100 * USD, side * 50_000 * ONE, depth_ppm) == price


@given(quantities, prices, st.integers(-100_000, 100_000))
def test_funding_goes_from_longs_to_shorts_and_rounds_against_both(
    qty8: int, price_usd6: int, rate_ppm: int
) -> None:
    market = Market(
        **{**{f: getattr(BTC, f) for f in Market.__struct_fields__}, "funding_ppm": rate_ppm}
    )
    exact = -Fraction(qty8 * price_usd6 * rate_ppm, ONE * 1_000_000)
    long, short = (fund(held(sign * qty8, 7), market, price_usd6) for sign in (1, -1))

    assert exact - 1 < long.realised_usd6 <= exact
    assert -2 < long.realised_usd6 + short.realised_usd6 <= 0
    assert long.holding("BTC") == Holding(qty8, 7)


def test_who_holds_nothing_pays_no_funding() -> None:
    assert fund(ANN, BTC, 100) is ANN
    assert ANN.holding("BTC") == FLAT


def test_a_report_tells_all_and_counts() -> None:
    trader = trade(held(2 * ONE, 30), BTC, -ONE, 50, Fees.LIQUIDATION)
    after, told = report(trader, 9)
    again, later = report(after, 12)

    assert (told.version, later.version, again.version) == (1, 2, 2)
    assert told.positions == (Position(asset="BTC", qty8=ONE, cost_usd6=15),)
    assert (told.realised_usd6, told.fees_usd6, told.liquidation_fees_usd6) == (35, 1, 1)
    assert (told.account, told.block_time_us) == ("ann", 9)
