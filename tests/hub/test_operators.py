"""What operators may order the hub to do: nothing of it makes credit free that may be used."""

from hub.reservation import State
from messaging.effects import Effect, Refused, Send
from messaging.envelope import Envelope
from messaging.messages import (
    ClosureAcknowledged,
    Family,
    HaltOrdered,
    HaltReason,
    SpokeHalted,
    SpokeResumed,
)
from messaging.node import Approved, PassedOver
from messaging.operator_orders import (
    OperatorOrdered,
    PeerNamed,
    ReservationNamed,
    Target,
    Verb,
)
from messaging.units import HUB, MONITOR, OPERATORS, USD, Micros, NodeId
from tests.hub.test_digests import AMOUNT, Pair, row
from tests.hub.test_oracle import BASE, LATE, TTL, Desk, ask, closes, key, uses


def order(desk: Desk, verb: Verb, target: Target) -> list[Effect]:
    given = OperatorOrdered(order_id=bytes(8), verb=verb, target=target, reason="a test")
    return list(desk.hub.handle(Micros(desk.now_us), Approved(given, OPERATORS[:2])))


def write_off(desk: Desk, number: int) -> list[Effect]:
    return order(desk, Verb.WRITE_OFF, ReservationNamed(rid=key(number)))


def resume(desk: Desk) -> list[Effect]:
    return order(desk, Verb.RESUME, PeerNamed(peer=NodeId(BASE)))


def pass_over(desk: Desk, family: Family = Family.RESERVATION) -> None:
    desk.hub.handle(Micros(desk.now_us), PassedOver(NodeId(BASE), family, 7))


def why(effects: list[Effect]) -> str:
    (refused,) = effects
    assert isinstance(refused, Refused)
    return refused.why


# --- write off (P40) --------------------------------------------------------------------


def test_what_is_written_off_is_never_free_again() -> None:
    desk = Desk()
    desk.tell(ask(1))
    desk.tell(uses(1, 40 * USD), height=1)
    desk.block(TTL + LATE + 24)
    assert desk.state_of(1) is State.OVERDUE

    assert write_off(desk, 1) == []
    assert desk.state_of(1) is State.SETTLED
    assert desk.reserved() == AMOUNT
    desk.mark(10 * TTL, final=10 * TTL)
    desk.mark(10 * TTL, final=10 * TTL, family=Family.MARGIN_STATE)
    assert desk.reserved() == AMOUNT
    assert desk.tell(ask(2)) != [], "the spoke is overdue no more"
    assert desk.state_of(2) is State.HELD


def test_the_late_close_of_what_was_written_off_is_no_evidence_and_frees_nothing() -> None:
    desk = Desk()
    desk.tell(ask(1))
    write_off(desk, 1)
    told = desk.tell(closes(1, 30 * USD), height=5, final=5)
    assert told == [ClosureAcknowledged(rid=key(1))]
    assert desk.reserved() == AMOUNT
    assert desk.hub.state.zone_of[BASE].halted is None
    assert desk.tell(uses(1, AMOUNT + 1)) == [
        SpokeHalted(spoke=NodeId(BASE), reason=HaltReason.USED_TOO_MUCH)
    ]


def test_only_what_is_open_can_be_written_off() -> None:
    desk = Desk()
    assert why(write_off(desk, 1)) == ("expected a reservation that is held or overdue, found none")
    desk.tell(ask(1))
    desk.tell(closes(1), height=5, final=5)
    assert why(write_off(desk, 1)).endswith("found a released one")
    assert desk.reserved() == 0


# --- freeze (P71) -----------------------------------------------------------------------


def test_nothing_is_freed_behind_a_number_that_was_passed_over_until_a_digest_agrees() -> None:
    """The use and the close of 1 were in the frames that nobody can deliver any more."""
    pair = Pair(granted=2)
    pass_over(pair.desk)
    pair.rows.drop(key(1))
    pair.desk.mark(TTL + 1, final=TTL + 1)
    assert pair.desk.state_of(1) is State.HELD
    assert pair.desk.state_of(2) is State.HELD

    pair.exchange()
    pair.desk.mark(TTL + 2, final=TTL + 2)
    assert pair.desk.state_of(1) is State.HELD, "in quarantine: nobody knows what was used"
    write_off(pair.desk, 1)
    assert pair.digest() == []
    pair.desk.mark(TTL + 3, final=TTL + 3)
    assert pair.desk.state_of(2) is State.RELEASED
    assert pair.desk.reserved() == AMOUNT


def test_a_use_that_was_passed_over_is_found_by_the_digest() -> None:
    pair = Pair(granted=1)
    pass_over(pair.desk)
    pair.rows.put(row(1, 60 * USD))
    pair.exchange()
    assert pair.digest() == []
    pair.desk.mark(TTL + 1, final=TTL + 1)
    assert pair.desk.state_of(1) is State.SETTLED
    assert pair.desk.reserved() == 60 * USD


def test_what_no_digest_covers_takes_people_to_go_on() -> None:
    pair = Pair(granted=1)
    pass_over(pair.desk, Family.MARGIN_STATE)
    assert pair.digest() == []
    pair.desk.mark(TTL + 1, final=TTL + 1)
    assert pair.desk.state_of(1) is State.HELD
    assert resume(pair.desk) == []
    pair.desk.mark(TTL + 2, final=TTL + 2)
    assert pair.desk.state_of(1) is State.RELEASED

    pass_over(pair.desk)
    assert why(resume(pair.desk)) == "expected a spoke that is halted, found base trusted"
    assert pair.desk.hub.state.zone_of[BASE].frozen, "a digest ends it, not two people"


# --- quarantine (P62) -------------------------------------------------------------------


def let_out(desk: Desk, number: int) -> list[Effect]:
    return order(desk, Verb.RELEASE_QUARANTINE, ReservationNamed(rid=key(number)))


def test_people_let_out_of_quarantine_what_the_spoke_cannot_use_any_more() -> None:
    pair = Pair(granted=2)
    pair.rows.drop(key(1))
    pair.exchange()
    assert why(let_out(pair.desk, 2)).startswith("expected a reservation in quarantine")
    assert "it may still be used" in why(let_out(pair.desk, 1))
    pair.desk.mark(TTL + 1, final=TTL + 1)
    assert pair.desk.state_of(1) is State.HELD
    assert let_out(pair.desk, 1) == []
    assert pair.desk.state_of(1) is State.RELEASED
    assert pair.desk.reserved() == 0
    pair.rows.drop(key(2))  # it has expired
    assert pair.digest() == []


def test_what_the_spoke_says_it_holds_is_not_let_out() -> None:
    pair = Pair(granted=1)
    pair.desk.tell(uses(1, 40 * USD))
    pair.exchange()  # the spoke has used less
    pair.desk.mark(TTL + 1, final=TTL + 1)
    assert why(let_out(pair.desk, 1)).endswith("found it active there")
    assert pair.desk.reserved() == AMOUNT


# --- resume (P66) -----------------------------------------------------------------------


def halt(desk: Desk, seq: int = 1) -> list[Effect]:
    halted = HaltOrdered(spokes=(NodeId(BASE),), finding="a finding")
    frame = Envelope(MONITOR, HUB, Family.CONTROL, seq, 0, Micros(0), 0, 0, halted)
    return list(desk.hub.handle(Micros(desk.now_us), frame))


def test_a_spoke_that_is_resumed_gets_credit_again_and_is_told() -> None:
    desk = Desk()
    assert why(resume(desk)) == "expected a spoke that is halted, found base trusted"
    halt(desk)
    desk.tell(ask(1))
    assert desk.state_of(1) is State.REJECTED
    told = [effect.message for effect in resume(desk) if isinstance(effect, Send)]
    assert told == [SpokeResumed(spoke=NodeId(BASE))]
    desk.tell(ask(2))
    assert desk.state_of(2) is State.HELD
    assert halt(desk) == [], "the same order, handed out again by the broker"
    assert halt(desk, seq=2) != [], "a new one"


def test_nobody_is_resumed_who_is_not_there() -> None:
    found = order(Desk(), Verb.RESUME, PeerNamed(peer=NodeId("moon")))
    assert why(found) == "expected one of base, sol, found moon"


# --- revoke (P68) -----------------------------------------------------------------------


def test_a_spoke_whose_keys_are_revoked_is_halted_and_told() -> None:
    desk = Desk()
    revoked = PeerNamed(peer=NodeId(BASE))
    told = [one.message for one in order(desk, Verb.REVOKE, revoked) if isinstance(one, Send)]
    assert told == [SpokeHalted(spoke=NodeId(BASE), reason=HaltReason.KEY_REVOKED)]
    desk.tell(ask(1))
    assert desk.state_of(1) is State.REJECTED
    found = order(desk, Verb.REVOKE, PeerNamed(peer=NodeId("moon")))
    assert why(found) == "expected one of base, sol, found moon"
