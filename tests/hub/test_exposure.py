"""Greeks of a book, limits on them, and the trade that brings delta back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.margin.options.black import CALL, PUT
from hub.margin.scan.account import worth_usd6
from hub.margin.scan.exposure import BUCKETS, Limits, breaches, exposure, hedge_qty8
from hub.margin.scan.legs import Leg
from messaging.units import ONE, USD
from tests.hub.test_scan import MARKET, POLICY, books, market, option, perpetual

quantities = st.floats(-20.0, 20.0)
straddle = [option(CALL, 60_000, 2.0, days=10.0), option(PUT, 60_000, 2.0, days=10.0, spoke=1)]


def worth_usd(legs: list[Leg], price_usd: float) -> float:
    known = market(prices=(round(price_usd * USD), 150 * USD))
    return sum(worth_usd6(POLICY, known, leg) for leg in legs) / 1e6


def test_greeks_in_dollars_are_what_a_small_move_does() -> None:
    legs = [perpetual(-0.7), *straddle, option(CALL, 75_000, -3.0, days=60.0)]
    found = exposure(POLICY, MARKET, 0, legs)
    up, same, down = (worth_usd(legs, 60_000 * share) for share in (1.001, 1.0, 0.999))

    assert found.delta_usd6 / 1e6 == pytest.approx((up - down) / 0.002, rel=1e-4)
    assert found.gamma_usd6 / 1e6 == pytest.approx((up - 2 * same + down) / 1e-4, rel=1e-2)
    assert found.theta_usd6 < 0


def test_vega_is_by_expiry_and_weighs_near_ones_more() -> None:
    """A point at 30 days; by how much more the nearer one moves is the shock's own."""
    near, month = option(CALL, 60_000, 1.0, days=3.0), option(CALL, 60_000, 1.0, days=30.0)
    one, other = (exposure(POLICY, MARKET, 0, [leg]).vega_usd6 for leg in (near, month))
    raised = [option(CALL, 60_000, 1.0, days=30.0, volatility_ppm=610_000)]

    assert [bool(each) for each in one] == [True, False, False, False, False]
    assert [bool(each) for each in other] == [False, True, False, False, False]
    point = worth_usd(raised, 60_000) - worth_usd([month], 60_000)
    assert other[1] / 1e6 == pytest.approx(point, rel=1e-3)
    # Bare vega goes with the root of time, the weight with its power -0.3.
    assert one[0] / other[1] == pytest.approx((1 / 10) ** 0.5 * 10**0.3, rel=1e-2)


@settings(deadline=None)
@given(books)
def test_the_greeks_of_spokes_add_up_to_those_of_the_account(legs: list[Leg]) -> None:
    for place in range(2):
        here = [leg for leg in legs if leg.place == place]
        whole = exposure(POLICY, MARKET, place, here)
        parts = [
            exposure(POLICY, MARKET, place, [leg for leg in here if leg.spoke == spoke])
            for spoke in range(3)
        ]
        assert sum(one.delta_usd6 for one in parts) == pytest.approx(whole.delta_usd6, abs=4)
        assert sum(one.gamma_usd6 for one in parts) == pytest.approx(whole.gamma_usd6, abs=4)
        vegas = zip(*(one.vega_usd6 for one in parts), strict=True)
        assert [sum(each) for each in vegas] == pytest.approx(list(whole.vega_usd6), abs=4)
        assert sum(one.theta_usd6 for one in parts) == pytest.approx(whole.theta_usd6, abs=4)


def test_a_limit_is_passed_above_it_and_not_at_it() -> None:
    found = exposure(POLICY, MARKET, 0, straddle)
    vega = sum(found.vega_usd6)
    at = Limits(
        delta_usd6=abs(found.delta_usd6),
        gamma_usd6=found.gamma_usd6,
        vega_usd6=vega,
        theta_usd6=-found.theta_usd6,
    )

    assert breaches(found, Limits()) == breaches(found, at) == ()
    below = Limits(
        delta_usd6=abs(found.delta_usd6) - 1,
        gamma_usd6=found.gamma_usd6 - 1,
        vega_usd6=vega - 1,
        theta_usd6=-found.theta_usd6 - 1,
    )
    assert breaches(found, below) == ("delta", "gamma", "vega", "theta")


def test_vegas_of_two_expiries_do_not_hide_each_other() -> None:
    legs = [option(CALL, 60_000, 1.0, days=20.0), option(CALL, 60_000, -1.0, days=60.0)]
    found = exposure(POLICY, MARKET, 0, legs)

    assert len(found.vega_usd6) == len(BUCKETS)
    assert abs(sum(found.vega_usd6)) < 40 * USD
    assert breaches(found, Limits(vega_usd6=40 * USD)) == ("vega",)


@settings(deadline=None)
@given(st.integers(-(10**14), 10**14), st.integers(1, 10**12), st.integers(0, 10**13))
def test_a_hedge_ends_inside_the_band_and_is_the_smallest_that_does(
    delta_usd6: int, price_usd6: int, band_usd6: int
) -> None:
    qty8 = hedge_qty8(delta_usd6, price_usd6, band_usd6)

    def left(size8: int) -> int:
        return abs(delta_usd6 * ONE + size8 * price_usd6)

    if abs(delta_usd6) <= band_usd6:
        assert qty8 == 0
        return
    assert qty8 * delta_usd6 < 0
    assert left(qty8) <= max(band_usd6 * ONE, price_usd6)
    smaller = qty8 - (1 if qty8 > 0 else -1)
    assert left(smaller) > band_usd6 * ONE


def test_after_the_hedge_delta_is_at_the_edge_of_the_band() -> None:
    legs = [option(CALL, 55_000, 9.0, days=20.0)]
    before = exposure(POLICY, MARKET, 0, legs)
    qty8 = hedge_qty8(before.delta_usd6, 60_000 * USD, 5_000 * USD)
    after = exposure(POLICY, MARKET, 0, [*legs, perpetual(qty8 / ONE, spoke=2)])

    assert before.delta_usd6 > 300_000 * USD
    assert after.delta_usd6 == pytest.approx(5_000 * USD, abs=1_000)
    assert after.gamma_usd6 == before.gamma_usd6
