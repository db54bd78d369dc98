"""Liquidation at least cost, through the hub's front door."""

import pytest

from hub.liquidation import Plan
from messaging.messages import Family
from messaging.units import ONE, USD
from tests.hub.test_oracle import BASE, SOL, Desk, reports
from tests.hub.test_watch import POSITION, at, ended, orders, placed


def desk(*rates_ppm: int, plan: Plan = Plan.LEAST_COST) -> Desk:
    """Return a desk with 50 BTC long on either spoke, and 1,000 dollars of cash."""
    found = Desk(plan=plan, rates_ppm=rates_ppm)
    for spoke in (BASE, SOL):
        placed(found, spoke=spoke, qty8=POSITION // 2)
    return found


def test_only_the_cheaper_spoke_gives_and_the_account_is_at_its_target() -> None:
    """At 96: equity 600, requirement 624, target 816; a dollar closed brings 7.4999 cents."""
    here = desk(10_000, 20_000)
    (order,) = orders(at(here, 96))
    closed_usd6 = order.max_qty8 * 96 * USD // ONE

    assert here.account().bounds() == {(0, 0): order.target_qty8}
    assert order.max_qty8 + order.target_qty8 == POSITION // 2
    assert closed_usd6 == pytest.approx(216 * USD * 1_000_000 // 74_999, abs=100)


def test_the_other_spoke_gives_what_the_cheaper_one_cannot() -> None:
    here = desk(20_000, 10_000)
    told = orders(at(here, 93.2))

    assert here.account().bounds()[1, 0] == 0
    assert 0 < here.account().bounds()[0, 0] < POSITION // 2
    assert len(told) == 2


def test_what_is_under_way_is_not_ordered_again() -> None:
    here = desk(10_000, 20_000)
    assert len(orders(at(here, 96))) == 1

    assert [orders(at(here, price)) for price in (96, 95.999, 96.5)][::2] == [[], []]


def test_a_deeper_fall_goes_on_from_what_is_under_way() -> None:
    here = desk(10_000, 20_000)
    (first,) = orders(at(here, 96))
    rest, other = sorted(orders(at(here, 94)), key=lambda one: one.target_qty8)

    assert rest.target_qty8 == 0 < first.target_qty8
    assert here.account().bounds() == {(0, 0): 0, (1, 0): other.target_qty8}

    # All executed at 94: 400 less what both cost is 8.5 % of what is left.
    left_usd = other.target_qty8 * 94 / ONE
    equity_usd = 400 - 4_700 * 0.010001 - (4_700 - left_usd) * 0.020001
    assert equity_usd == pytest.approx(left_usd * 0.085, abs=1e-4)


def test_a_leg_that_is_being_closed_whole_is_not_ordered_again() -> None:
    here = desk(20_000, 10_000)
    assert len(orders(at(here, 93.2))) == 2
    (order,) = orders(at(here, 91.5))

    assert here.account().bounds() == {(0, 0): order.target_qty8, (1, 0): 0}


def test_the_outcome_of_a_plan_is_at_its_target() -> None:
    here = desk(10_000, 20_000)
    (order,) = orders(at(here, 96))
    left, price_usd6 = order.target_qty8, 96 * USD
    fee_usd6 = -(-order.max_qty8 * price_usd6 * 10_000 // (ONE * 1_000_000))
    here.tell(ended(order, version=2), family=Family.LIQUIDATION)
    outcome = reports(
        2,
        qty8=left,
        cost_usd6=left * 100 * USD // ONE,
        realised_usd6=-order.max_qty8 * 4 * USD // ONE,
        fees_usd6=fee_usd6,
    )
    here.report(outcome, at=9)
    told = at(here, 96.0001)
    standing = here.hub.state.assess_latest(here.account(), here.hub.state.conditions(here.now_us))
    aim_usd6 = standing.maintenance_usd6 + standing.notional_usd6 // 50

    assert orders(told) == []
    assert 0 <= standing.equity_usd6 - aim_usd6 < 15_000  # the print moved by a hundredth of a cent


def test_without_figures_every_position_gives_its_share() -> None:
    ours, theirs = desk(), desk(plan=Plan.PRO_RATA)

    assert bodies(at(ours, 96)) == bodies(at(theirs, 96))


def test_one_figure_missing_is_all_missing() -> None:
    ours, theirs = desk(10_000), desk(plan=Plan.PRO_RATA)

    assert bodies(at(ours, 96)) == bodies(at(theirs, 96))


def bodies(told: list) -> list[tuple[int, int]]:
    found = [(order.target_qty8, order.max_qty8) for order in orders(told)]
    assert len(found) == 2
    return found
