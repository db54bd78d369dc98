"""A margin call with a grace period: how long a liquidation waits, and for whom."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.messages import Family, MarginStatus
from messaging.units import ONE, USD
from tests.hub.test_oracle import Desk, reports
from tests.hub.test_watch import POSITION, at, ended, orders, placed, statuses

GRACE_US = 100


def desk() -> Desk:
    """Return a desk with 100 BTC long from 100, on 1,000 dollars of cash."""
    found = Desk(grace_us=GRACE_US)
    placed(found)
    return found


def look(here: Desk, price_usd: float, now_us: int) -> list:
    """Bring a price and a block at a time."""
    here.now_us = now_us
    here.price(int(price_usd * USD))
    return here.block(now_us)


def test_below_maintenance_the_trader_is_called_and_given_time() -> None:
    here = desk()
    told = look(here, 96, 10)

    assert statuses(told) == [MarginStatus.REDUCE_ONLY] * 2
    assert orders(told) == []
    assert here.account().grace_until_us == 10 + GRACE_US


def test_the_deadline_is_kept_to_the_microsecond_and_does_not_move() -> None:
    here = desk()
    look(here, 96, 10)
    waited = [look(here, 96 - now / 1_000, now) for now in (20, 60, 109)]
    told = look(here, 96, 110)

    assert [orders(one) for one in waited] == [[], [], []]
    assert len(orders(told)) == 1
    assert here.account().status is MarginStatus.FROZEN


def test_below_the_floor_there_is_no_grace() -> None:
    """At 94.8 equity is 480; four fifths of 616.2 are 492.96."""
    here = desk()
    look(here, 96, 10)
    told = look(here, 94.8, 11)

    assert len(orders(told)) == 1
    assert here.account().grace_until_us == 11


@pytest.mark.parametrize(("equity_usd6", "waits"), [(520 * USD, True), (520 * USD - 1, False)])
def test_the_floor_is_a_share_of_maintenance(equity_usd6: int, waits: bool) -> None:
    here = Desk(grace_us=GRACE_US)
    loss_usd6 = 1_000 * USD - equity_usd6
    state = reports(1, qty8=POSITION, cost_usd6=10_000 * USD, realised_usd6=-loss_usd6)
    here.report(state, at=5)

    assert (orders(look(here, 100, 10)) == []) is waits


def test_a_trader_who_reduces_in_time_is_not_liquidated() -> None:
    here = desk()
    look(here, 96, 10)
    here.report(
        reports(2, qty8=POSITION // 2, cost_usd6=5_000 * USD, realised_usd6=-200 * USD), at=9
    )
    told = look(here, 96, 50)

    assert statuses(told) == [MarginStatus.OPEN] * 2
    assert here.account().grace_until_us is None
    assert orders(look(here, 96, 500)) == []


def test_coming_back_above_maintenance_only_neither_stops_nor_restarts_grace() -> None:
    here = desk()
    look(here, 96, 10)
    assert look(here, 96.4, 60) == []
    assert here.account().grace_until_us == 10 + GRACE_US
    assert orders(look(here, 96, 100)) == []

    assert len(orders(look(here, 96, 111))) == 1


def test_who_was_restored_has_a_new_grace() -> None:
    here = desk()
    look(here, 96, 10)
    assert statuses(look(here, 99, 60)) == [MarginStatus.OPEN] * 2
    assert orders(look(here, 96, 150)) == []
    assert here.account().grace_until_us == 150 + GRACE_US


def test_a_liquidation_that_has_begun_is_not_put_off() -> None:
    """Frozen below the floor, above it again and still short: what is missing is ordered."""
    here = desk()
    (first,) = orders(look(here, 94.8, 10))
    here.tell(ended(first, version=2), family=Family.LIQUIDATION)
    left = first.target_qty8
    here.report(reports(2, qty8=left, cost_usd6=left * 109 * USD // ONE), at=9)
    told = look(here, 96, 20)

    assert len(orders(told)) == 1


def test_after_a_liquidation_there_is_no_second_grace_before_the_account_is_restored() -> None:
    here = desk()
    (first,) = orders(look(here, 94.8, 10))
    here.tell(ended(first, version=2), family=Family.LIQUIDATION)
    half = POSITION // 2
    here.report(reports(2, qty8=half, cost_usd6=5_630 * USD), at=9)  # 350 left of equity at 99.6
    look(here, 99.6, 20)
    assert here.account().status is MarginStatus.REDUCE_ONLY

    assert len(orders(look(here, 99, 30))) == 1


def test_without_positions_a_debt_is_below_any_floor() -> None:
    here = desk()
    look(here, 96, 10)
    here.report(reports(2, realised_usd6=-1_001 * USD), at=9)
    look(here, 96, 11)

    assert here.account().status is MarginStatus.FROZEN


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(955, 990)), max_size=30))
def test_nobody_is_short_for_longer_than_the_grace(path: list[tuple[int, int]]) -> None:
    """Whatever the price does: at a look below maintenance, grace after the first, it is over."""
    here, now_us, since_us = desk(), 0, None
    for step_us, tenths in path:
        now_us += step_us
        look(here, tenths / 10, now_us)
        account = here.account()
        standing = here.hub.state.assess_latest(account, here.hub.state.conditions(now_us))
        if account.status is MarginStatus.OPEN:
            since_us = None
        elif not account.commands and standing.equity_usd6 < standing.maintenance_usd6:
            since_us = now_us if since_us is None else since_us

            assert now_us < since_us + GRACE_US
            assert standing.equity_usd6 * 5 >= standing.maintenance_usd6 * 4


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(930, 990)), max_size=30))
def test_no_grace_is_what_there_was_before(path: list[tuple[int, int]]) -> None:
    """With a grace of nothing an account is liquidated at its first look below maintenance."""
    here, now_us = Desk(), 0
    placed(here)
    for step_us, tenths in path:
        now_us += step_us
        before = here.account()
        told = at(here, tenths / 10)
        standing = here.hub.state.assess_latest(before, here.hub.state.conditions(here.now_us))
        if standing.equity_usd6 < standing.maintenance_usd6:
            assert here.account().status is MarginStatus.FROZEN
            assert orders(told)
