"""The hub's look at all accounts, through its front door."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messaging.messages import (
    Family,
    LiquidationDone,
    LiquidationEnd,
    LiquidationOrdered,
    MarginSet,
    MarginStatus,
    Message,
    RejectReason,
    ReservationRejected,
    RevocationRequested,
)
from messaging.units import ONE, SECOND_US, USD
from tests.hub.test_oracle import BASE, CASH, SOL, Desk, ask, closes, key, reports

POSITION = 100 * ONE  # at 100 dollars: 10,000 of notional on 1,000 of cash, 650 needed


def placed(desk: Desk, *, spoke: str = BASE, qty8: int = POSITION) -> None:
    desk.report(reports(1, qty8=qty8, cost_usd6=qty8 * 100 * USD // ONE), spoke=spoke)


def at(desk: Desk, price_usd: float) -> list[Message]:
    """Bring a price, then a block."""
    desk.now_us += 1
    desk.price(int(price_usd * USD))
    return desk.block(desk.now_us)


def orders(told: list[Message]) -> list[LiquidationOrdered]:
    return [message for message in told if isinstance(message, LiquidationOrdered)]


def statuses(told: list[Message]) -> list[MarginStatus]:
    return [message.status for message in told if isinstance(message, MarginSet)]


def ended(order: LiquidationOrdered, version: int) -> LiquidationDone:
    return LiquidationDone(
        liq_id=order.liq_id,
        filled_qty8=order.max_qty8,
        position_after_qty8=0,
        state_version=version,
        reason=LiquidationEnd.DONE,
    )


def test_an_account_under_a_call_is_asked_for_its_credit_back() -> None:
    desk = Desk()
    desk.price(100 * USD)
    desk.tell(ask(1))
    desk.tell(ask(2), spoke=SOL)
    desk.tell(closes(2), height=1, spoke=SOL)
    placed(desk)
    told = at(desk, 97)

    assert statuses(told) == [MarginStatus.REDUCE_ONLY] * 2
    assert [m.rid for m in told if isinstance(m, RevocationRequested)] == [key(1)]
    assert desk.reserved() == 200 * USD


@pytest.mark.parametrize(
    ("equity_usd", "status"),
    [
        (747.6, MarginStatus.OPEN),
        (747.4, MarginStatus.REDUCE_ONLY),
        (650, MarginStatus.REDUCE_ONLY),
        (649.9, MarginStatus.FROZEN),
    ],
)
def test_the_status_follows_the_standing(equity_usd: float, status: MarginStatus) -> None:
    """Called below 1.15 times 650, frozen below 650; the price stays, the loss is realised."""
    desk = Desk()
    loss = int((1_000 - equity_usd) * USD)
    state = reports(1, qty8=POSITION, cost_usd6=10_000 * USD, realised_usd6=-loss)
    desk.report(state, at=5)
    told = at(desk, 100)

    assert desk.account().status is status
    assert bool(orders(told)) == (status is MarginStatus.FROZEN)


def test_a_called_account_is_restored_at_the_restore_level_only() -> None:
    desk = Desk()
    placed(desk)
    assert statuses(at(desk, 97)) == [MarginStatus.REDUCE_ONLY] * 2
    assert statuses(at(desk, 97.5)) == []

    assert statuses(at(desk, 98)) == [MarginStatus.OPEN] * 2
    assert [desk.account().margin_version, desk.account().status] == [2, MarginStatus.OPEN]


def test_before_the_first_price_nothing_is_judged() -> None:
    desk = Desk(priced=False)
    desk.report(reports(1, realised_usd6=-2 * CASH))

    assert desk.block(12) == []


def test_before_the_first_price_no_credit_is_granted() -> None:
    """Without a price a short would need no margin, and look like a gain."""
    (answer,) = Desk(priced=False).tell(ask(1))
    assert answer == ReservationRejected(rid=ask(1).rid, reason=RejectReason.PRICE_UNKNOWN)


def test_a_liquidation_is_a_bound_on_the_position_of_the_report_decided_on() -> None:
    desk = Desk()
    placed(desk)
    desk.mark(40, final=0)
    (order,) = orders(at(desk, 96))

    # Equity 600, notional 9,600, aim 8.5 %, cost 1.2 %: (600 - 115.2) / (816 - 115.2) stays.
    assert order.target_qty8 == POSITION * 4_848 // 7_008
    assert order.max_qty8 == POSITION - order.target_qty8
    assert (order.state_version, order.price_usd6, order.margin_version) == (1, 0, 1)
    assert order.deadline_us == 40 + 1_000


def test_what_is_ordered_is_not_ordered_again() -> None:
    desk = Desk()
    placed(desk)
    assert len(orders(at(desk, 96))) == 1

    assert [orders(at(desk, price)) for price in (96, 95.99, 96.5)] == [[], [], []]


def test_a_deeper_fall_orders_a_smaller_bound_and_only_then() -> None:
    desk = Desk()
    placed(desk)
    (first,) = orders(at(desk, 96))
    (second,) = orders(at(desk, 93))

    assert second.target_qty8 < first.target_qty8
    assert desk.account().bounds() == {(0, 0): second.target_qty8}
    assert second.liq_id != first.liq_id


def test_a_deeper_command_can_reach_its_bound_by_itself() -> None:
    desk = Desk()
    placed(desk)
    at(desk, 96)
    (second,) = orders(at(desk, 93))

    assert second.max_qty8 >= POSITION - second.target_qty8


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(50, 120), min_size=1, max_size=8))
def test_bounds_only_ever_shrink_while_nothing_is_reported(path: list[int]) -> None:
    desk = Desk()
    placed(desk)
    placed(desk, spoke=SOL, qty8=-POSITION // 3)
    bounds: dict[tuple[int, int], int] = {}
    for price in path:
        for order in orders(at(desk, price)):
            assert order.max_qty8 > 0
        after = desk.account().bounds()

        assert all(after[key] <= bound for key, bound in bounds.items())
        bounds = after


def test_after_the_outcome_an_account_that_is_still_short_is_ordered_anew() -> None:
    desk = Desk()
    placed(desk)
    (first,) = orders(at(desk, 96))
    desk.tell(ended(first, version=2), family=Family.LIQUIDATION)
    assert orders(at(desk, 96)) == []
    left = reports(2, qty8=first.target_qty8, cost_usd6=first.target_qty8 * 108)
    desk.report(left, at=9)
    (second,) = orders(at(desk, 96))

    assert second.state_version == 2
    assert second.target_qty8 < first.target_qty8


def test_a_frozen_account_is_restored_when_its_commands_are_over() -> None:
    desk = Desk()
    placed(desk)
    (order,) = orders(at(desk, 96))
    assert statuses(at(desk, 120)) == []
    desk.report(reports(2, qty8=ONE, cost_usd6=100 * USD), at=9)
    desk.tell(ended(order, version=2), family=Family.LIQUIDATION)

    assert statuses(at(desk, 120)) == [MarginStatus.OPEN] * 2


def test_a_gain_that_fades_freezes_without_any_new_message() -> None:
    desk = Desk()
    desk.price(105 * USD)
    placed(desk)
    desk.report(reports(1, realised_usd6=-500 * USD), spoke=SOL)
    assert statuses(desk.block(1)) == []

    assert MarginStatus.FROZEN in statuses(desk.block(600 * SECOND_US))


@pytest.mark.parametrize("called", [False, True])
def test_a_debt_that_the_trader_left_by_closing_himself_is_written_off(called: bool) -> None:
    desk = Desk()
    placed(desk)
    at(desk, 97 if called else 100)
    desk.report(reports(2, realised_usd6=-1_200 * USD), at=9, final=8)
    at(desk, 88)
    desk.mark(10, final=9, family=Family.MARGIN_STATE)
    at(desk, 88)

    assert desk.account().status is MarginStatus.FROZEN
    assert desk.hub.state.ledger.bad_debt_usd6 == 200 * USD
    assert desk.cash() == 0


@pytest.mark.parametrize("short_usd6", [1, 999, 1_001])
def test_an_account_a_hair_in_debt_and_without_positions_is_no_liquidation(short_usd6: int) -> None:
    desk = Desk()
    placed(desk)
    at(desk, 97)
    desk.report(reports(2, realised_usd6=-CASH - short_usd6), at=9)

    assert orders(at(desk, 97)) == []
