"""A chain loses blocks: what it did in them is undone, and done again once."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messaging.breakers import Level
from messaging.messages import (
    CloseReason,
    CreditUsed,
    LiquidationDone,
    ReservationClosed,
    ReservationRequested,
    RevocationRequested,
    StateReported,
)
from messaging.units import ONE, Micros
from spokes.chain import Chain, Reorg
from spokes.reservation import State
from tests.spokes.test_closing import command
from tests.spokes.test_orders import POLICY, Bench, S, only, stop

FINAL = 60 * S


def bench(*reorgs: tuple[int, int], final_us: int = FINAL) -> Bench:
    """Return a spoke whose chain loses blocks: (time [us], how many) each."""
    chain = Chain(
        block_us=Micros(S),
        safe_after_us=Micros(0),
        final_after_us=Micros(final_us),
        reorgs=tuple(Reorg(at_us=Micros(at_us), depth=depth) for at_us, depth in reorgs),
    )
    return Bench(msgspec.structs.replace(POLICY, chain=chain, digest_us=Micros(0)))


def test_what_a_breaker_stops_is_no_fact_of_a_block() -> None:
    one = bench((5 * S + 7, 4))
    one.run(S)
    stop(one, "BTC", Level.REDUCE_ONLY, 1)
    one.run(8 * S)
    assert len(one.forks) == 1
    assert only(one.order(100 * ONE), ReservationRequested) == []
    assert one.state.refused == 1


def test_an_order_in_a_lost_block_is_carried_out_again_once() -> None:
    one = bench((5 * S + 7, 4))
    (asked,) = one.order(100 * ONE)
    one.grant(asked)
    one.run()
    assert one.held() == 100 * ONE
    used = only([sent.message for sent in one.sent], CreditUsed)
    one.run(5 * S + 7 - one.now_us)

    assert one.held() == 0
    assert [(fork.fork_height, fork.old_height) for fork in one.forks] == [(1, 5)]
    assert not only([sent.message for sent in one.sent], CreditUsed)
    assert one.state.credits[asked.rid].used_usd6 == 0
    one.run(3 * S)
    assert one.held() == 100 * ONE
    again = only([sent.message for sent in one.sent], CreditUsed)
    assert [word.used_usd6 for word in again] == [word.used_usd6 for word in used]
    versions = [w.version for w in only([sent.message for sent in one.sent], StateReported)]
    assert versions == [1]


def test_a_request_without_an_answer_is_sent_again_the_same() -> None:
    one = bench((5 * S + 7, 4))
    (asked,) = one.order(100 * ONE)
    one.run(5 * S + 7 - one.now_us)
    (again,) = only([sent.message for sent in one.sent], ReservationRequested)
    assert again == asked
    one.grant(asked)
    one.run(2 * S)
    assert one.held() == 100 * ONE


def test_a_request_with_an_answer_is_not_sent_again() -> None:
    one = bench((5 * S + 7, 4))
    (asked,) = one.order(100 * ONE)
    one.grant(asked)
    one.run(5 * S + 7 - one.now_us)
    assert not only([sent.message for sent in one.sent], ReservationRequested)
    assert one.state.credits[asked.rid].state is State.ACTIVE


def test_what_was_revoked_in_a_lost_block_is_revoked_again_with_the_use_that_is_left() -> None:
    one = bench((8 * S + 7, 2))
    (asked,) = one.order(100 * ONE)
    one.grant(asked)
    one.run(7 * S - one.now_us - 5)
    one.give(RevocationRequested(rid=asked.rid))
    one.run(2)
    one.run(S)
    closed = only([sent.message for sent in one.sent], ReservationClosed)
    assert [word.reason for word in closed] == [CloseReason.REVOKED]
    one.run(8 * S + 7 - one.now_us)
    assert one.state.credits[asked.rid].state is State.ACTIVE
    assert one.state.active_count == len(one.state.rows) == 1
    one.run(2 * S)
    assert only([sent.message for sent in one.sent], ReservationClosed) == closed
    assert one.state.active_count == len(one.state.rows) == 0


def test_a_right_whose_end_is_lost_ends_with_the_next_watermark() -> None:
    one = bench((22 * S + 7, 3))
    (asked,) = one.order(100 * ONE)
    one.grant(asked, ttl_us=15 * S)
    one.run(22 * S - one.now_us)
    assert only([sent.message for sent in one.sent], ReservationClosed)
    one.run(7)
    assert one.state.credits[asked.rid].state is State.ACTIVE
    one.run(10 * S)
    (closed,) = only([sent.message for sent in one.sent], ReservationClosed)
    assert closed.reason is CloseReason.EXPIRED


def test_what_came_too_late_stays_refused_and_is_said_again() -> None:
    one = bench((5 * S + 7, 3))
    (asked,) = one.order(100 * ONE)
    one.run(4 * S - one.now_us)
    one.grant(asked, ttl_us=-S)
    one.run(5 * S + 7 - one.now_us)
    (closed,) = only([sent.message for sent in one.sent], ReservationClosed)
    assert (closed.rid, closed.reason) == (asked.rid, CloseReason.REFUSED_LATE)
    assert one.sent[-1].height == 5


def test_of_an_order_that_turns_a_position_each_part_is_carried_out_once() -> None:
    one = bench((9 * S + 7, 6))
    one.hold(50 * ONE)
    (asked,) = only(one.order(-80 * ONE), ReservationRequested)
    assert one.held() == 0
    one.run(4 * S)
    one.grant(asked)
    one.run(2 * S)
    assert one.held() == -30 * ONE
    one.run(9 * S + 7 - one.now_us)
    one.run(3 * S)
    assert one.held() == -30 * ONE


def test_a_command_that_a_lost_block_ended_goes_on_and_closes_no_more_than_it_may() -> None:
    one = bench((9 * S + 7, 7), (15 * S + 7, 5))
    one.hold(50 * ONE)
    one.run(S)
    order = command(20 * ONE)
    one.give(order)
    one.run(9 * S - one.now_us)
    assert one.held() == 20 * ONE
    one.run(8)
    assert one.held() == 50 * ONE
    assert list(one.state.live) == [order.liq_id]
    one.run(20 * S)
    (done,) = only([sent.message for sent in one.sent], LiquidationDone)
    assert (done.filled_qty8, one.held()) == (30 * ONE, 20 * ONE)
    assert not one.state.live


def test_funding_paid_in_a_lost_block_is_paid_again() -> None:
    hour = 3_600 * S
    one, other = bench((hour + 3 * S + 7, 5)), bench()
    for each in (one, other):
        each.hold(50 * ONE)
        each.run(hour + 4 * S - each.now_us)
    assert one.forks
    assert one.state.traders["ann"].realised_usd6 == other.state.traders["ann"].realised_usd6 != 0


orders = st.lists(
    st.tuples(st.integers(-60, 60).filter(bool), st.integers(0, 3), st.booleans()), max_size=12
)


@settings(max_examples=150, deadline=None)
@given(orders=orders, reorgs=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 9)), max_size=4))
def test_whatever_is_lost_every_order_counts_once(
    orders: list[tuple[int, int, bool]], reorgs: list[tuple[int, int]]
) -> None:
    """What is held is what was ordered, less what waits or was refused."""
    plan = sorted(dict(reorgs).items())
    one = bench(*((at_s * S + 7, min(depth, at_s)) for at_s, depth in plan))
    for qty, wait_s, granted in orders:
        told = one.order(qty * ONE)
        for asked in only(told, ReservationRequested):
            if granted:
                one.grant(asked)
        one.run(wait_s * S)
    one.run(45 * S - one.now_us if one.now_us < 45 * S else S)
    for rid in list(one.state.for_credit):
        (asked,) = (
            sent.message
            for sent in one.sent
            if isinstance(sent.message, ReservationRequested) and sent.message.rid == rid
        )
        one.grant(asked)
    one.run(2 * S)

    waiting = [*one.state.pool, *one.state.for_credit.values()]
    ordered = sum(qty * ONE for qty, _, _ in orders)
    if not one.state.refused:
        assert one.held() + sum(each.order.qty8 for each in waiting) == ordered
    active = [c for c in one.state.credits.values() if c.state is State.ACTIVE]
    assert one.state.active_count == len(active) == len(one.state.rows)
    reported = only([sent.message for sent in one.sent], StateReported)
    if reported:
        assert reported[-1].version == len(reported) == one.state.traders["ann"].version
        held = {position.asset: position.qty8 for position in reported[-1].positions}
        assert held.get("BTC", 0) == one.held()


@pytest.mark.parametrize("depth", [1, 5])
def test_a_chain_that_loses_nothing_keeps_nothing_to_undo(depth: int) -> None:
    assert Bench().state.undo is None
    assert bench((S, depth)).state.undo is not None
