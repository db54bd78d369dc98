import math
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.margin.buffer import AssetRisk, NoBuffer, SqrtTimeBuffer, range_ppm
from hub.margin.requirement import (
    Assessment,
    Conditions,
    MarginPolicy,
    Reported,
    assess,
    gain_cap_usd6,
    recognised_usd6,
)
from messaging.messages import Family, Position, StateReported
from messaging.units import ONE, SECOND_US, USD
from tests.hub.test_oracle import BTC, Desk

SOL = msgspec.structs.replace(
    BTC,
    asset="SOL",
    initial_margin_ppm=200_000,
    maintenance_margin_ppm=100_000,
    stress_volatility_ppm=3_500_000,
    jump_ppm=50_000,
)
POLICY = MarginPolicy(assets=(BTC, SOL), buffer=SqrtTimeBuffer(), gain_age_max_s=600.0)
PLACES = POLICY.index()
FULL = 1_000_000
CAP = 600 * 25_000 * USD  # ten minutes of what liquidations may trade

quantities = st.integers(-(10**12), 10**12).filter(bool)
prices = st.integers(1, 10**12)
money = st.integers(-(10**14), 10**14)
ages = st.floats(0, 1e6)


def known(
    *prices_usd6: int, ages_s: tuple[float, ...] = (0.0, 0.0), share: int = FULL
) -> Conditions:
    return Conditions(
        prices_usd6=prices_usd6,
        tau_s=tuple((age_s,) * len(prices_usd6) for age_s in ages_s),
        gain_share_ppm=(share,) * len(ages_s),
    )


def state(*held: tuple[str, int, int], realised_usd6: int = 0, fees_usd6: int = 0) -> StateReported:
    return StateReported(
        account="ann",
        version=1,
        block_time_us=0,
        positions=tuple(Position(asset=a, qty8=q, cost_usd6=c) for a, q, c in held),
        realised_usd6=realised_usd6,
        fees_usd6=fees_usd6,
        liquidation_fees_usd6=0,
    )


EMPTY = state()


def standing(
    conditions: Conditions,
    *states: StateReported,
    cash_usd6: int = 0,
    bounds: dict[tuple[int, int], int] | None = None,
    policy: MarginPolicy = POLICY,
) -> Assessment:
    reports = [Reported(one, EMPTY) for one in states]
    return assess(policy, PLACES, conditions, cash_usd6, reports, bounds or {})


@pytest.mark.parametrize(("asset", "mm", "im"), [("BTC", 6_500, 10_000), ("SOL", 10_000, 20_000)])
def test_at_age_zero_the_requirements_are_the_base_ratios(asset: str, mm: int, im: int) -> None:
    policy = msgspec.structs.replace(POLICY, buffer=NoBuffer())
    found = standing(known(100_000, 100_000), state((asset, 10**8, 100_000)), policy=policy)

    assert (found.maintenance_usd6, found.initial_usd6, found.notional_usd6) == (mm, im, 100_000)


@given(quantities, prices, money, money, ages)
def test_every_rounding_is_against_the_trader(
    qty8: int, price_usd6: int, cost_usd6: int, cash_usd6: int, age_s: float
) -> None:
    """Of one position, against exact fractions."""
    conditions = known(price_usd6, 1, ages_s=(age_s,))
    found = standing(conditions, state(("BTC", qty8, cost_usd6)), cash_usd6=cash_usd6)
    value = Fraction(qty8 * price_usd6, ONE)
    pnl = value - cost_usd6
    unwind_s = math.ceil(abs(value)) / BTC.unwind_usd6_per_s
    ratio = Fraction(range_ppm(POLICY.buffer, BTC, age_s + unwind_s / 3.0), 1_000_000)

    equity = cash_usd6 + min(pnl, max(CAP, 0)) if pnl > 0 else cash_usd6 + pnl
    assert equity - 2 < found.equity_usd6 <= equity
    assert abs(value) <= found.notional_usd6 < abs(value) + 1
    assert abs(value) * ratio <= found.maintenance_usd6 < (abs(value) + 1) * ratio + 1
    assert found.initial_usd6 * 65_000 >= found.maintenance_usd6 * 100_000
    assert all(type(figure) is int for figure in msgspec.structs.astuple(found))


@given(money, st.integers(0, FULL))
def test_a_loss_counts_in_full_and_a_gain_is_capped_and_tapered(pnl_usd6: int, share: int) -> None:
    found = recognised_usd6(POLICY, pnl_usd6, [0], share)

    assert gain_cap_usd6(POLICY, 0) == CAP
    assert found == (pnl_usd6 if pnl_usd6 <= 0 else min(pnl_usd6, CAP) * share // FULL)


@pytest.mark.parametrize(
    ("age_s", "share"), [(0, FULL), (150, 750_000), (599, 1_666), (600, 0), (601, 0), (10**6, 0)]
)
def test_a_gain_fades_with_the_age_of_the_report_and_is_nothing_when_stale(
    age_s: int, share: int
) -> None:
    conditions = Desk().hub.state.conditions(age_s * SECOND_US)

    assert conditions.gain_share_ppm == pytest.approx([share, share], abs=1)


@given(st.integers(1, 10**6), st.integers(600, 10**6))
def test_a_stale_gain_is_nothing_and_a_stale_loss_is_all(usd: int, age_s: int) -> None:
    share = Desk().hub.state.conditions(age_s * SECOND_US).gain_share_ppm[0]
    conditions = known(100 * USD, 1, ages_s=(0.0,), share=share)
    won = standing(conditions, state(("BTC", ONE, (100 - usd) * USD)))
    lost = standing(conditions, state(("BTC", ONE, (100 + usd) * USD)))

    assert (won.equity_usd6, lost.equity_usd6) == (0, -usd * USD)


def test_one_spokes_gain_does_not_hide_anothers_loss() -> None:
    conditions = known(100 * USD, 1, share=500_000)
    found = standing(
        conditions, state(("BTC", ONE, 90 * USD)), state(("BTC", ONE, 110 * USD)), cash_usd6=7
    )

    assert found.equity_usd6 == 7 + 5 * USD - 10 * USD


def test_ages_of_price_and_state_and_command_add_up() -> None:
    desk = Desk()
    desk.price(100 * USD)
    desk.now_us = 10 * SECOND_US
    desk.mark(4 * SECOND_US, final=0)
    desk.mark(7 * SECOND_US, final=0, family=Family.MARGIN_STATE)

    assert desk.hub.state.conditions(desk.now_us).tau_s == [[10.0 + 3.0], [10.0 + 10.0]]


@given(quantities, prices, ages, ages)
def test_a_hedge_across_spokes_nets_but_pays_for_different_ages(
    qty8: int, price_usd6: int, one_s: float, other_s: float
) -> None:
    legs = state(("BTC", qty8, 0)), state(("BTC", -qty8, 0))
    conditions = known(price_usd6, 1, ages_s=(one_s, other_s))
    both = standing(conditions, *legs)
    alone = [standing(known(price_usd6, 1, ages_s=(age,)), legs[0]) for age in (one_s, other_s)]
    charges = [each.maintenance_usd6 for each in alone]

    assert abs(both.maintenance_usd6 - abs(charges[0] - charges[1])) <= 1
    assert both.notional_usd6 == alone[0].notional_usd6 + alone[1].notional_usd6


def test_a_hedge_of_one_age_needs_nothing_and_of_two_ages_something() -> None:
    legs = state(("BTC", ONE, 0)), state(("BTC", -ONE, 0))

    assert standing(known(100 * USD, 1), *legs).maintenance_usd6 == 0
    assert standing(known(100 * USD, 1, ages_s=(0, 900)), *legs).maintenance_usd6 > 0


@given(quantities, st.integers(1, ONE), prices, ages, ages)
def test_a_hedge_never_counts_for_more_than_it_hedges(
    qty8: int, share8: int, price_usd6: int, age_s: float, hedge_age_s: float
) -> None:
    """However old it is: whoever delays what his hedge reports must not gain by it."""
    hedge8 = -qty8 * share8 // ONE
    legs = state(("BTC", qty8, 0)), state(("BTC", hedge8, 0)) if hedge8 else EMPTY
    left = state(("BTC", qty8 + hedge8, 0)) if qty8 + hedge8 else EMPTY
    hedged = standing(known(price_usd6, 1, ages_s=(age_s, hedge_age_s)), *legs)
    net = standing(known(price_usd6, 1, ages_s=(age_s,)), left)

    assert hedged.maintenance_usd6 >= net.maintenance_usd6 - 4  # sizes round up leg by leg


@given(quantities, quantities, prices, prices)
def test_there_is_no_credit_between_assets(btc8: int, sol8: int, btc: int, sol: int) -> None:
    conditions = known(btc, sol, ages_s=(9.0,))
    held = ("BTC", btc8, 0), ("SOL", sol8, 0)
    alone = [standing(conditions, state(one)).maintenance_usd6 for one in held]

    assert standing(conditions, state(*held)).maintenance_usd6 == sum(alone)


@given(quantities, st.integers(0, 2 * 10**12), prices, ages)
def test_a_bound_shrinks_the_requirement_and_leaves_equity_alone(
    qty8: int, bound_qty8: int, price_usd6: int, age_s: float
) -> None:
    conditions = known(price_usd6, 1, ages_s=(age_s,))
    bounds = {(0, 0): bound_qty8}
    whole = standing(conditions, state(("BTC", qty8, 5)))
    found = standing(conditions, state(("BTC", qty8, 5)), bounds=bounds)
    left8 = math.copysign(min(abs(qty8), bound_qty8), qty8)
    left = standing(conditions, state(("BTC", int(left8), 5)))

    assert found.equity_usd6 == whole.equity_usd6
    assert found.maintenance_usd6 == left.maintenance_usd6 <= whole.maintenance_usd6
    assert found.notional_usd6 == left.notional_usd6


@given(quantities, prices, ages, ages)
def test_older_knowledge_never_lowers_a_requirement(
    qty8: int, price_usd6: int, one_s: float, other_s: float
) -> None:
    younger_s, older_s = sorted((one_s, other_s))
    held = state(("BTC", qty8, 0))
    young = standing(known(price_usd6, 1, ages_s=(younger_s,)), held)

    assert (
        young.maintenance_usd6
        <= standing(known(price_usd6, 1, ages_s=(older_s,)), held).maintenance_usd6
    )


def test_what_is_reported_and_not_settled_counts_once() -> None:
    before = state(realised_usd6=-30, fees_usd6=2)
    after = state(realised_usd6=-90, fees_usd6=5)

    assert Reported(after, before).unsettled_usd6 == -60 - 3
    assert Reported(after, after).unsettled_usd6 == 0


def test_an_asset_needs_a_risk_of_its_own() -> None:
    assert [type(risk) for risk in POLICY.assets] == [AssetRisk] * 2
    assert PLACES == {"BTC": 0, "SOL": 1}
