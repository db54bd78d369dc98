"""Settlement and the write-off, through the hub's front door."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub import ledger
from hub.reservation import State
from messaging.messages import (
    Family,
    HaltReason,
    LiquidationAcknowledged,
    LiquidationDone,
    LiquidationEnd,
    LiquidationFilled,
    LiquidationOrdered,
    Message,
    Position,
    RejectReason,
    SpokeHalted,
)
from messaging.units import ONE, USD
from tests.hub.test_oracle import ANN, BASE, CASH, SOL, Desk, ask, reports


def ruined(*, insurance_usd6: int = 0, held: bool = False) -> tuple[Desk, LiquidationOrdered]:
    """Return a desk whose account is being closed whole: cash 1,000, loss 1,500."""
    desk = Desk(insurance_usd6=insurance_usd6)
    desk.price(100 * USD)
    if held:
        desk.tell(ask(1), spoke=SOL)
    desk.report(reports(1, qty8=100 * ONE, cost_usd6=10_000 * USD), at=5, final=5)
    desk.now_us = 10
    desk.price(85 * USD)
    (order,) = [m for m in desk.block(12) if isinstance(m, LiquidationOrdered)]
    assert order.target_qty8 == 0
    return desk, order


CLOSED = reports(2, realised_usd6=-1_500 * USD, fees_usd6=5 * USD, penalty_usd6=10 * USD)


def done(order: LiquidationOrdered, version: int = 2) -> LiquidationDone:
    return LiquidationDone(
        liq_id=order.liq_id,
        filled_qty8=order.max_qty8,
        position_after_qty8=0,
        state_version=version,
        reason=LiquidationEnd.DONE,
    )


def end(desk: Desk, order: LiquidationOrdered) -> list[Message]:
    return desk.tell(done(order), family=Family.LIQUIDATION)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_the_highest_version_counts_in_any_order_with_repeats(versions: list[int]) -> None:
    desk = Desk()
    desk.price(100 * USD)
    for version in versions:
        desk.report(reports(version, realised_usd6=-version * USD), at=3, final=3)

    assert desk.account().views[0].settled.version == max(versions)
    assert desk.cash() == CASH - max(versions) * USD
    assert sum(desk.hub.state.ledger.balances.values()) == 0


def test_an_old_report_changes_nothing() -> None:
    desk = Desk()
    desk.report(reports(2, qty8=ONE, cost_usd6=100 * USD), at=3)
    before = desk.account()
    desk.report(reports(2, realised_usd6=USD), at=4, final=9)
    desk.report(reports(1, realised_usd6=USD), at=4, final=9)

    assert desk.account().views[0].latest is before.views[0].latest
    assert desk.cash() == CASH


def test_a_gain_is_settled_only_when_final_and_a_loss_lowers_free_credit_at_once() -> None:
    desk = Desk()
    desk.price(100 * USD)
    desk.report(reports(1, realised_usd6=300 * USD), at=5, final=4)
    assert (desk.cash(), desk.free()) == (CASH, CASH)
    desk.report(reports(2, realised_usd6=-100 * USD), at=6, final=4)
    assert (desk.cash(), desk.free()) == (CASH, CASH - 100 * USD)
    desk.mark(7, final=5, family=Family.MARGIN_STATE)
    assert (desk.cash(), desk.free()) == (CASH + 300 * USD, CASH - 100 * USD)

    desk.mark(8, final=6, family=Family.MARGIN_STATE)
    assert (desk.cash(), desk.free()) == (CASH - 100 * USD, CASH - 100 * USD)
    assert desk.balance(ledger.clearing(BASE)) == 100 * USD


def test_a_position_that_a_later_block_may_undo_still_needs_its_margin() -> None:
    desk = Desk()
    desk.price(100 * USD)
    desk.report(reports(1, qty8=10 * ONE, cost_usd6=1_000 * USD), at=5, final=5)
    assert desk.free() == CASH - 100 * USD
    desk.report(reports(2), at=6, final=5)
    assert desk.free() == CASH - 100 * USD

    desk.mark(7, final=6, family=Family.MARGIN_STATE)
    assert desk.free() == CASH


def test_a_zones_exposure_falls_only_at_finality() -> None:
    desk = Desk()
    zone = desk.hub.state.zone_of[BASE]
    desk.report(reports(1, qty8=ONE, cost_usd6=1_000 * USD), at=5, final=5)
    assert zone.exposure_usd6 == 100 * USD

    desk.report(reports(2), at=6, final=5)
    assert zone.exposure_usd6 == 100 * USD
    desk.mark(7, final=6, family=Family.MARGIN_STATE)
    assert zone.exposure_usd6 == 0


@given(*[st.integers(0, 2_000 * USD)] * 3, st.booleans())
def test_a_liquidation_fee_never_makes_cash_negative(
    loss_usd6: int, fees_usd6: int, penalty_usd6: int, twice: bool
) -> None:
    desk = Desk()
    state = reports(1, realised_usd6=-loss_usd6, fees_usd6=fees_usd6, penalty_usd6=penalty_usd6)
    desk.report(state, at=1, final=1)
    if twice:
        desk.report(msgspec.structs.replace(state, version=2), at=2, final=2)
    before_usd6 = CASH - loss_usd6 - fees_usd6
    paid_usd6 = min(penalty_usd6, max(0, before_usd6))

    assert desk.cash() == before_usd6 - paid_usd6
    assert desk.hub.state.ledger.forgiven_usd6.get(ANN, 0) == penalty_usd6 - paid_usd6
    assert desk.balance(ledger.INSURANCE) == paid_usd6 // 2
    assert desk.balance(ledger.FEES) == fees_usd6 + paid_usd6 - paid_usd6 // 2


@pytest.mark.parametrize("insurance_usd6", [0, 200 * USD, 900 * USD])
@pytest.mark.parametrize("report_first", [True, False])
def test_a_shortfall_is_written_off_once_frozen_flat_and_final(
    insurance_usd6: int, report_first: bool
) -> None:
    desk, order = ruined(insurance_usd6=insurance_usd6)
    if not report_first:
        end(desk, order)
    desk.report(CLOSED, at=9, final=8)
    if report_first:
        end(desk, order)
    assert (desk.cash(), desk.account().closed_out) == (CASH, False)
    desk.mark(10, final=9, family=Family.MARGIN_STATE)
    desk.mark(11, final=10, family=Family.MARGIN_STATE)
    end(desk, order)

    paid_usd6 = min(insurance_usd6, 505 * USD)
    books = desk.hub.state.ledger
    assert (desk.cash(), desk.account().closed_out) == (0, True)
    assert books.bad_debt_usd6 == 505 * USD == paid_usd6 - desk.balance(ledger.DEFICIT)
    assert books.insurance_used_usd6 == paid_usd6
    assert desk.balance(ledger.INSURANCE) == insurance_usd6 - paid_usd6
    assert books.forgiven_usd6 == {ANN: 515 * USD}
    assert desk.tell(ask(7))[0].reason is RejectReason.ACCOUNT_RESTRICTED


@pytest.mark.parametrize("lacking", ["end", "finality", "flat"])
def test_nothing_is_written_off_while_something_may_still_change(lacking: str) -> None:
    desk, order = ruined()
    closed = CLOSED
    if lacking == "flat":
        position = Position(asset="BTC", qty8=1, cost_usd6=0)
        closed = msgspec.structs.replace(CLOSED, positions=(position,))
    desk.report(closed, at=9, final=8 if lacking == "finality" else 9)
    if lacking != "end":
        end(desk, order)
    desk.block(24)

    assert not desk.account().closed_out
    assert desk.balance(ledger.DEFICIT) == 0


def test_nothing_is_written_off_while_a_spoke_may_still_open_a_position() -> None:
    desk, order = ruined(held=True)
    assert desk.state_of(1) is State.HELD
    desk.report(CLOSED, at=9, final=9)
    end(desk, order)

    assert not desk.account().closed_out


def test_an_ended_command_is_acknowledged_however_often_it_is_told() -> None:
    desk, order = ruined()
    acknowledged = [LiquidationAcknowledged(liq_id=order.liq_id)]

    assert end(desk, order) == end(desk, order) == acknowledged


def test_a_command_counts_until_the_report_with_its_outcome_has_come() -> None:
    desk, order = ruined()
    end(desk, order)
    assert len(desk.account().commands) == 1
    desk.report(CLOSED, at=9)

    assert desk.account().commands == ()


def test_a_fill_above_its_command_halts_the_spoke() -> None:
    desk, order = ruined()
    fills = [
        LiquidationFilled(
            liq_id=order.liq_id, filled_qty8=order.max_qty8 + more, proceeds_usd6=0, block_time_us=0
        )
        for more in (0, 1)
    ]

    assert desk.tell(fills[0], family=Family.LIQUIDATION) == []
    assert desk.tell(fills[1], family=Family.LIQUIDATION) == [
        SpokeHalted(spoke=BASE, reason=HaltReason.FILLED_TOO_MUCH)
    ]


@pytest.mark.parametrize("wrong", [{"account": "eve"}, {"asset": "DOGE"}])
def test_a_report_about_what_does_not_exist_halts_the_spoke(wrong: dict[str, str]) -> None:
    state = reports(1, qty8=1, account=wrong.get("account", ANN))
    if "asset" in wrong:
        position = Position(asset=wrong["asset"], qty8=1, cost_usd6=0)
        state = msgspec.structs.replace(state, positions=(position,))
    told = Desk().tell(state, family=Family.MARGIN_STATE)

    assert told == [SpokeHalted(spoke=BASE, reason=HaltReason.BROKEN_CLAIM)]
