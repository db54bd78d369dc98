"""An order is carried out once, by as many different operators as its verb needs (P70)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.approvals import WAITING_MAX, Approvals
from messaging.fields import Family
from messaging.operator_orders import (
    TARGETS,
    EpochNamed,
    FrameNamed,
    OperatorOrdered,
    PeerNamed,
    ReservationNamed,
    Target,
    Verb,
)
from messaging.units import OPERATORS, Micros, NodeId

EXAMPLES: dict[type, Target] = {
    FrameNamed: FrameNamed(peer=NodeId("base"), family=Family.RESERVATION, seq=3),
    ReservationNamed: ReservationNamed(rid=bytes(16)),
    PeerNamed: PeerNamed(peer=NodeId("base")),
    EpochNamed: EpochNamed(spoke=NodeId("base"), spoke_epoch=2),
}


def order(verb: Verb, number: int = 1, reason: str = "because") -> OperatorOrdered:
    target = EXAMPLES[TARGETS[verb][0]]
    return OperatorOrdered(order_id=number.to_bytes(8), verb=verb, target=target, reason=reason)


@given(st.sampled_from(Verb), st.lists(st.sampled_from(OPERATORS), max_size=8))
def test_an_order_is_carried_out_once_when_enough_different_operators_have_given_it(
    verb: Verb, givers: list[NodeId]
) -> None:
    approvals, needed = Approvals(), TARGETS[verb][1]
    given_by: list[NodeId] = []
    done = 0
    for giver in givers:
        found = approvals.take(order(verb), giver, Micros(0))
        if giver not in given_by:
            given_by.append(giver)
        if found is not None:
            done += 1
            assert found == tuple(given_by)
            assert len(found) == needed
        assert done == (len(given_by) >= needed)
        waits = 0 < len(given_by) < needed
        assert len(approvals.waiting) == waits
    assert approvals.ended == 0, "what came of it is for whoever carries it out to say"


def test_another_body_under_an_id_is_refused_and_the_first_one_stays() -> None:
    approvals, first, other = Approvals(), order(Verb.SKIP), order(Verb.SKIP, reason="else")
    assert approvals.take(first, OPERATORS[0], Micros(0)) is None
    assert approvals.take(other, OPERATORS[1], Micros(1)) is None
    assert approvals.outcomes[-1].why.startswith("expected the order that was first given")
    assert approvals.take(first, OPERATORS[1], Micros(2)) == OPERATORS[:2]
    assert approvals.take(other, OPERATORS[2], Micros(3)) is None
    assert approvals.ended == 2
    assert approvals.take(first, OPERATORS[2], Micros(4)) is None, "an old frame, handed out again"
    assert approvals.ended == 2


def test_a_target_that_is_none_for_the_verb_is_refused() -> None:
    approvals = Approvals()
    wrong = OperatorOrdered(
        order_id=bytes(8), verb=Verb.SKIP, target=EXAMPLES[PeerNamed], reason="because"
    )
    assert approvals.take(wrong, OPERATORS[0], Micros(0)) is None
    assert approvals.outcomes[-1].why == "expected FrameNamed as target, found PeerNamed"
    assert not approvals.waiting


@pytest.mark.parametrize("verb", [verb for verb in Verb if TARGETS[verb][1] == 2])
def test_one_operator_alone_cannot_fill_memory(verb: Verb) -> None:
    approvals = Approvals()
    for number in range(WAITING_MAX + 5):
        assert approvals.take(order(verb, number), OPERATORS[0], Micros(0)) is None
    assert len(approvals.waiting) == WAITING_MAX
    assert approvals.ended == 5
