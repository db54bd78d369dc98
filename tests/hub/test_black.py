"""Prices and Greeks of options against QuantLib, parity and numerical derivatives."""

import math
from itertools import product

import numpy as np
import pytest
import QuantLib
from hypothesis import given
from hypothesis import strategies as st

from hub.margin.options.black import CALL, PUT, Options, Quotes, prices, quotes

RELATIVE = 1e-9
# Phi(d1) and Phi(d2) are known to a few 1e-16 in either program, and the price is a difference of
# such multiples of spot and strike: below this share of them no digit of it means anything.
FLOOR = 4e-15
DENSITY_FLOOR = 1e-290  # from here down exp loses digits, and then all of them

Figures = tuple[int, float, float, float, float, float]

signs = st.sampled_from([CALL, PUT])
spots = st.floats(0.01, 1e6)
logs = st.floats(-2.0, 2.0)
lives = st.one_of(st.just(0.0), st.floats(1e-9, 5.0))
volatilities = st.one_of(st.just(0.0), st.floats(1e-12, 5.0))
rates = st.floats(-0.1, 0.3)


def options(*figures: float) -> Options:
    return Options(*(np.array([float(one)]) for one in figures))


def ours(*figures: float) -> Quotes:
    return Quotes(*(float(one[0]) for one in quotes(options(*figures))))


def price(*figures: float) -> float:
    return float(prices(options(*figures))[0])


def oracle(figures: Figures) -> QuantLib.BlackCalculator:
    sign, spot, strike, left, volatility, rate = figures
    kind = QuantLib.Option.Call if sign == CALL else QuantLib.Option.Put
    payoff = QuantLib.PlainVanillaPayoff(kind, strike)
    forward, sd = spot * math.exp(rate * left), volatility * math.sqrt(left)
    return QuantLib.BlackCalculator(payoff, forward, sd, math.exp(-rate * left))


def agree(figures: Figures) -> float:
    """Compare all with QuantLib; return to how many parts.

    That is `RELATIVE`, except where the last bit of the spot price changes more: it moves d1 by
    1e-16 / sd, and the density by d1 times that.
    """
    _, spot, strike, left, volatility, rate = figures
    found, known = ours(*figures), oracle(figures)
    owed, sd = strike * math.exp(-rate * left), volatility * math.sqrt(left)
    scale, d1 = spot + owed, math.log(spot / owed) / sd + sd / 2
    parts = max(RELATIVE, 1e-15 * (1 + abs(d1)) ** 2 / sd)

    assert found.price == pytest.approx(known.value(), rel=RELATIVE, abs=FLOOR * scale)
    assert found.delta == pytest.approx(known.delta(spot), rel=parts, abs=FLOOR)
    gamma_floor = DENSITY_FLOOR / sd / spot
    assert found.gamma == pytest.approx(known.gamma(spot), rel=parts, abs=gamma_floor)
    assert found.vega == pytest.approx(known.vega(left), rel=parts, abs=DENSITY_FLOOR * spot)
    # QuantLib divides logarithms of factors near 1 by the time left.
    theta_floor = FLOOR * scale * max(1.0, 1.0 / left)
    assert found.theta == pytest.approx(known.theta(spot, left), rel=parts, abs=theta_floor)
    return parts


def test_prices_and_greeks_are_quantlibs_to_nine_digits() -> None:
    dice = np.random.default_rng(1)
    for _ in range(4_000):
        sign = int(dice.choice([CALL, PUT]))
        spot = float(10 ** dice.uniform(-2, 6))
        left = float(dice.uniform(1 / 365, 5))
        volatility = float(dice.uniform(0.1, 4))
        away = float(dice.uniform(-6, 6)) * volatility * math.sqrt(left)
        rate = float(dice.choice([0.0, dice.uniform(-0.1, 0.3)]))
        assert agree((sign, spot, spot * math.exp(away), left, volatility, rate)) == RELATIVE


def test_they_are_at_tiny_volatilities_and_times_as_far_as_the_spot_price_says_them() -> None:
    dice, exact = np.random.default_rng(2), 0
    for _ in range(4_000):
        sign = int(dice.choice([CALL, PUT]))
        spot = float(10 ** dice.uniform(-2, 6))
        left, volatility = float(10 ** dice.uniform(-9, 0)), float(10 ** dice.uniform(-7, 0))
        away = float(dice.choice([0.0, dice.uniform(-6, 6)])) * volatility * math.sqrt(left)
        if volatility * math.sqrt(left) < 1e-12:
            continue
        exact += agree((sign, spot, spot * math.exp(away), left, volatility, 0.0)) == RELATIVE
    assert exact > 500


@pytest.mark.parametrize(
    ("sign", "strike", "rate"),
    [*product((CALL, PUT), (0.5, 90, 100, 110, 1e4), (0.0, 0.05, -0.02))],
)
@pytest.mark.parametrize(
    ("left", "volatility"), [(0.0, 0.8), (0.0, 0.0), (1.0, 0.0), (1e-9, 1e-13)]
)
def test_what_is_certain_is_worth_its_intrinsic_value(
    sign: int, strike: float, rate: float, left: float, volatility: float
) -> None:
    """At expiry, or without volatility.

    Of Greeks QuantLib has other ideas there: +1 for the delta of a put out of the money, say. So
    these are compared with the limits.
    """
    figures = (sign, 100.0, strike, left, volatility, rate)
    found, owed = ours(*figures), strike * math.exp(-rate * left)
    inside = sign * (100.0 - owed)

    assert found.price == pytest.approx(oracle(figures).value(), rel=RELATIVE, abs=1e-13)
    assert found.price == pytest.approx(max(0.0, inside), rel=RELATIVE, abs=1e-13)
    assert found.gamma == 0.0
    if abs(inside) > 1e-9:
        assert found.delta == (sign if inside > 0 else 0.0)
        assert found.vega == 0.0
    else:
        assert found.delta == sign / 2
        assert found.vega == pytest.approx(100 * math.sqrt(left / (2 * math.pi)))
    carry = sign * rate * owed if left and inside > 0 else 0.0
    if abs(inside) > 1e-9:
        assert found.theta == pytest.approx(-carry)


def test_no_price_is_below_zero_where_its_last_bit_would_be() -> None:
    spot, strike = 2.9883117035714184, 2.98831170357142
    left, volatility = 0.5167209916687585, 5.94038463467811e-16

    assert price(CALL, spot, strike, left, volatility, 0.0) == 0.0


def test_an_option_that_is_over_gains_and_loses_nothing_with_time() -> None:
    for sign, strike in product((CALL, PUT), (90.0, 100.0, 110.0)):
        assert ours(sign, 100.0, strike, 0.0, 0.8, 0.05).theta == 0.0


@given(spots, logs, lives, volatilities, rates)
def test_a_call_less_a_put_is_a_forward(
    spot: float, away: float, left: float, volatility: float, rate: float
) -> None:
    strike = spot * math.exp(away)
    call, put = (ours(sign, spot, strike, left, volatility, rate) for sign in (CALL, PUT))
    owed = strike * math.exp(-rate * left)

    assert call.price - put.price == pytest.approx(spot - owed, abs=2 * FLOOR * (spot + owed))
    assert call.delta - put.delta == pytest.approx(1.0, abs=1e-14)
    assert (call.gamma, call.vega) == (put.gamma, put.vega)


@given(signs, spots, logs, lives, volatilities, rates)
def test_prices_stay_within_their_bounds_and_are_those_with_the_greeks(
    sign: int, spot: float, away: float, left: float, volatility: float, rate: float
) -> None:
    figures = (sign, spot, spot * math.exp(away), left, volatility, rate)
    found, owed = ours(*figures), figures[2] * math.exp(-rate * left)
    room = FLOOR * (spot + owed)

    assert found.price == price(*figures)
    assert max(0.0, sign * (spot - owed) - room) <= found.price
    assert found.price <= (spot if sign == CALL else owed) + room
    assert all(math.isfinite(one) for one in found)
    assert found.gamma >= 0.0
    assert found.vega >= 0.0


@given(
    signs,
    st.floats(10.0, 1e5),
    st.floats(-2.5, 2.5),
    st.floats(0.01, 2.0),
    st.floats(0.1, 2.0),
    st.floats(-0.05, 0.2),
)
def test_greeks_are_the_derivatives_of_the_price(
    sign: int, spot: float, away: float, left: float, volatility: float, rate: float
) -> None:
    """Central differences; `away` in standard deviations."""
    sd = volatility * math.sqrt(left)
    strike = spot * math.exp(away * sd)
    found, bump = ours(sign, spot, strike, left, volatility, rate), 1e-3 * sd

    def at(spots: float = 0.0, lefts: float = 0.0, volatilities: float = 0.0) -> float:
        return price(
            sign,
            spot * (1 + spots),
            strike,
            left * (1 + lefts),
            volatility * (1 + volatilities),
            rate,
        )

    def slope(up: float, down: float, step: float) -> float:
        return (up - down) / (2 * step)

    delta = slope(at(spots=bump), at(spots=-bump), spot * bump)
    gamma = (at(spots=bump) - 2 * at() + at(spots=-bump)) / (spot * bump) ** 2
    vega = slope(at(volatilities=1e-4), at(volatilities=-1e-4), volatility * 1e-4)
    theta = -slope(at(lefts=1e-4), at(lefts=-1e-4), left * 1e-4)
    assert found.delta == pytest.approx(delta, rel=1e-5, abs=1e-6)
    assert found.gamma == pytest.approx(gamma, rel=1e-4, abs=1e-6 / (spot * sd))
    assert found.vega == pytest.approx(vega, rel=1e-5, abs=1e-7 * spot)
    assert found.theta == pytest.approx(theta, rel=1e-5, abs=1e-6 * spot * volatility)


def test_arrays_of_any_shape_that_go_together_are_quoted_as_one_by_one() -> None:
    """Here options down, scenarios across, and one of them certain."""
    dice = np.random.default_rng(3)
    sign = np.array([[1.0], [-1.0], [1.0]])
    strike, left = np.array([[90.0], [100.0], [120.0]]), np.array([[0.1], [0.0], [1.0]])
    spot, volatility = dice.uniform(80, 130, (3, 5)), dice.uniform(0.2, 1.0, (3, 1))
    found = quotes(Options(sign, spot, strike, left, volatility, 0.03))

    for row, column in product(range(3), range(5)):
        alone = ours(
            sign[row, 0],
            spot[row, column],
            strike[row, 0],
            left[row, 0],
            volatility[row, 0],
            0.03,
        )
        assert [one[row, column] for one in found] == pytest.approx(list(alone), rel=1e-14)
