"""What outlives a spoke's memory, and what it says when it comes back (P22, P23, P61)."""

from messaging.breakers import Level
from messaging.messages import (
    CloseReason,
    Family,
    LiquidationDone,
    LiquidationEnd,
    Message,
    ReservationClosed,
    ReservationRequested,
    StateReported,
)
from messaging.node import Rebuilt, Rejoined
from messaging.rebuilding import ChannelRebuilt, OldEpochsClosed
from messaging.units import HUB, ONE
from spokes import contract
from spokes.reservation import State
from tests.spokes.test_closing import command
from tests.spokes.test_orders import Bench, S, only, stop
from tests.spokes.test_spoke_node import active

EPOCH = 2


def rebuilt(before: Bench) -> Bench:
    """Return a spoke that begins anew from another one's chain, at the same time."""
    after = Bench()
    after.now_us = before.now_us
    event = Rebuilt(spoke_epoch=EPOCH, contract=contract.read(before.state), streams=())
    after._timers.clear()
    after._carry_out(list(after.spoke.handle(after.now_us, event)))
    return after


def rejoin(bench: Bench, family: Family) -> list[Message]:
    event = Rejoined(HUB, family, EPOCH, 1, 40, 7)
    return bench._carry_out(list(bench.spoke.handle(bench.now_us, event)))


def test_positions_outlive_the_memory_and_rights_do_not() -> None:
    before, asked = active()
    after = rebuilt(before)

    assert after.held() == before.held() == 100 * ONE
    credit = after.state.credits[asked.rid]
    assert (credit.state, credit.used_usd6) == (
        State.CLOSED,
        before.state.credits[asked.rid].used_usd6,
    )
    assert after.state.active_count == len(after.state.rows) == 0


def test_what_a_breaker_stops_stays_stopped_without_memory() -> None:
    before, _ = active()
    assert b"breakers" not in contract.read(before.state)  # as ever, where there are none
    stop(before, "BTC", Level.REDUCE_ONLY, 4)
    after = rebuilt(before)
    assert only(after.order(ONE), ReservationRequested) == []
    stop(after, "BTC", Level.OPEN, 3)  # from before
    assert only(after.order(ONE), ReservationRequested) == []
    stop(after, "BTC", Level.OPEN, 5)
    assert len(only(after.order(ONE), ReservationRequested)) == 1


def test_used_credit_is_told_only_when_the_epoch_is_final_and_a_last_word_follows() -> None:
    before, asked = active()
    after = rebuilt(before)
    (word,) = rejoin(after, Family.RESERVATION)
    assert isinstance(word, ChannelRebuilt)
    assert only(after.run(4 * S), ReservationClosed) == []  # blocks are final after 5 s

    told = after.run(30 * S)
    (closed,) = only(told, ReservationClosed)
    used_usd6 = before.state.credits[asked.rid].used_usd6
    assert closed == ReservationClosed(
        rid=asked.rid, used_usd6=used_usd6, reason=CloseReason.REBUILT
    )
    assert told[told.index(closed) + 1] == OldEpochsClosed(spoke_epoch=EPOCH)
    assert only(after.run(60 * S), OldEpochsClosed) == []


def test_a_grant_of_another_epoch_is_of_no_use_and_none_of_ours_has_its_id() -> None:
    before, _ = active()
    (late,) = before.order(500 * ONE)
    after = rebuilt(before)
    (asked,) = only(after.order(500 * ONE), ReservationRequested)

    assert asked.rid != late.rid
    assert after.grant(late) == after.grant(asked) == []  # both of epoch 1
    assert after.state.credits_of == {}


def test_accounts_are_told_again_with_the_channel() -> None:
    before, _ = active()
    word, report = rejoin(rebuilt(before), Family.MARGIN_STATE)

    assert isinstance(word, ChannelRebuilt)
    assert isinstance(report, StateReported)
    assert report.version > before.state.traders[report.account].version - 1


def test_a_command_that_the_chain_does_not_know_ends_unless_it_is_of_this_epoch() -> None:
    before, _ = active()
    known = command(version=0)
    before.give(known, Family.LIQUIDATION)
    after = rebuilt(before)

    assert list(after.state.live) == [known.liq_id]
    assert after.give(known, Family.LIQUIDATION) == []
    (ended,) = after.give(command(number=2), Family.LIQUIDATION)
    assert isinstance(ended, LiquidationDone)
    assert (ended.reason, ended.filled_qty8) == (LiquidationEnd.OTHER_EPOCH, 0)
