"""The reservation channel at the hub, through the hub's front door."""

import msgspec
import pytest

from hub.reservation import State
from messaging.messages import (
    ClosureAcknowledged,
    Family,
    HaltReason,
    MarginStatus,
    Message,
    RejectReason,
    ReservationGranted,
    ReservationRejected,
    ReservationRenewed,
    SpokeHalted,
)
from messaging.units import USD
from tests.hub.test_oracle import (
    BASE,
    CASH,
    LATE,
    SOL,
    TTL,
    Desk,
    ask,
    closes,
    key,
    reports,
    uses,
)


def no(number: int, reason: RejectReason) -> ReservationRejected:
    return ReservationRejected(rid=key(number), reason=reason)


def test_the_debit_is_made_in_the_same_step_as_the_grant() -> None:
    desk = Desk()
    (granted,) = desk.tell(ask(1))

    assert isinstance(granted, ReservationGranted)
    assert desk.reserved() == granted.amount_usd6 == 100 * USD
    assert desk.free() == CASH - 100 * USD


def test_a_repeated_request_gets_the_same_answer_and_holds_nothing_more() -> None:
    desk = Desk()
    first = desk.tell(ask(1))
    desk.mark(50, final=0)

    assert desk.tell(ask(1)) == first
    assert desk.reserved() == 100 * USD


def test_another_body_under_a_known_id_leaves_the_first_untouched() -> None:
    desk = Desk()
    first = desk.tell(ask(1))

    assert desk.tell(ask(1, 90 * USD)) == [no(1, RejectReason.EXISTS_DIFFERENT)]
    assert desk.reserved() == 100 * USD
    assert desk.tell(ask(1)) == first


def test_a_reservation_is_granted_to_one_spoke_only() -> None:
    desk = Desk()
    desk.tell(ask(1), spoke=BASE)

    assert desk.tell(ask(1), spoke=SOL) == [no(1, RejectReason.EXISTS_DIFFERENT)]


def test_a_rejection_is_for_ever_even_when_credit_is_free_again() -> None:
    desk = Desk()
    desk.tell(ask(1, CASH))
    assert desk.tell(ask(2)) == [no(2, RejectReason.FREE_SHORT)]
    desk.tell(closes(1), height=1, final=1)

    assert desk.free() == CASH
    assert desk.tell(ask(2)) == [no(2, RejectReason.FREE_SHORT)]
    assert desk.reserved() == 0
    assert isinstance(desk.tell(ask(3))[0], ReservationGranted)


@pytest.mark.parametrize(("amount_usd6", "granted"), [(CASH, True), (CASH + 1, False)])
def test_free_credit_can_be_had_to_the_last_millionth(amount_usd6: int, granted: bool) -> None:
    (answer,) = Desk().tell(ask(1, amount_usd6))

    assert isinstance(answer, ReservationGranted) == granted


def test_the_first_reason_that_applies_is_given() -> None:
    """All reasons apply at first; each is taken away in turn."""
    desk = Desk(cap_usd6=10 * USD)
    state, zone = desk.hub.state, desk.hub.state.zone_of[BASE]
    account = state.accounts[0]
    desk.tell(ask(1, 1 * USD))
    desk.block(TTL + LATE)
    desk.tell(uses(99, 1))
    assert desk.tell(ask(2, 0, account="eve", ttl_us=0)) == [no(2, RejectReason.HALTED)]
    zone.halted = None
    assert desk.tell(ask(3, 0, account="eve", ttl_us=0)) == [no(3, RejectReason.SPOKE_OVERDUE)]
    desk.tell(closes(1), height=1, final=1)
    assert desk.tell(ask(4, 0, account="eve", ttl_us=0)) == [no(4, RejectReason.ACCOUNT_UNKNOWN)]
    for number, status in ((5, MarginStatus.FROZEN), (6, MarginStatus.REDUCE_ONLY)):
        state.accounts[0] = msgspec.structs.replace(account, status=status)
        answer = desk.tell(ask(number, 0, ttl_us=0))
        assert answer == [no(number, RejectReason.ACCOUNT_RESTRICTED)]
    state.accounts[0] = account
    assert desk.tell(ask(7, 0, ttl_us=0)) == [no(7, RejectReason.AMOUNT_INVALID)]
    assert desk.tell(ask(8, 10_001 * USD, ttl_us=0)) == [no(8, RejectReason.AMOUNT_INVALID)]
    assert desk.tell(ask(9, 2 * CASH, ttl_us=0)) == [no(9, RejectReason.TTL_INVALID)]
    assert desk.tell(ask(10, 2 * CASH, ttl_us=TTL + 1)) == [no(10, RejectReason.TTL_INVALID)]
    assert desk.tell(ask(11, 2 * CASH)) == [no(11, RejectReason.ZONE_CAP)]


def test_the_zone_cap_counts_reservations_and_positions_of_all_accounts() -> None:
    desk = Desk(cap_usd6=100 * USD)
    desk.report(reports(1, qty8=1, cost_usd6=-300 * USD, account="bob"))
    assert isinstance(desk.tell(ask(1, 50 * USD))[0], ReservationGranted)

    assert desk.tell(ask(2, 20 * USD + 1)) == [no(2, RejectReason.ZONE_CAP)]
    assert isinstance(desk.tell(ask(3, 20 * USD))[0], ReservationGranted)
    assert isinstance(desk.tell(ask(4, 100 * USD), spoke=SOL)[0], ReservationGranted)


def test_a_close_releases_only_when_its_block_is_final() -> None:
    desk = Desk()
    desk.tell(ask(1))
    desk.tell(uses(1, 30 * USD), height=4)
    assert desk.tell(closes(1, 30 * USD), height=5, final=4) == []
    assert desk.reserved() == 100 * USD

    assert desk.tell(ask(2, 0), final=5)[1:] == [ClosureAcknowledged(rid=key(1))]
    assert (desk.state_of(1), desk.reserved()) == (State.SETTLED, 30 * USD)


@pytest.mark.parametrize(
    ("time_us", "final", "released"), [(99, 200, False), (100, 99, False), (100, 100, True)]
)
def test_a_watermark_releases_once_it_is_final_and_at_the_expiry(
    time_us: int, final: int, released: bool
) -> None:
    desk = Desk()
    desk.tell(ask(1))
    desk.mark(time_us, final=final)

    assert desk.reserved() == (0 if released else 100 * USD)


def test_only_the_reservation_channels_watermark_releases() -> None:
    desk = Desk()
    desk.tell(ask(1))
    desk.mark(500, final=500, family=Family.MARGIN_STATE)
    desk.mark(500, final=500, family=Family.LIQUIDATION)

    assert desk.reserved() == 100 * USD


def test_a_renewed_reservation_is_judged_by_the_largest_expiry_ever_sent() -> None:
    desk = Desk(renewals_max=1)
    desk.tell(ask(1))
    desk.mark(60, final=0)
    renewed = [m for m in desk.block(TTL // 2) if isinstance(m, ReservationRenewed)]
    assert [message.expires_at_us for message in renewed] == [160]
    desk.mark(159, final=159)
    assert desk.reserved() == 100 * USD

    desk.mark(160, final=160)
    assert desk.state_of(1) is State.RELEASED


def test_renewals_end() -> None:
    desk = Desk(renewals_max=2)
    desk.tell(ask(1))
    renewed = [m for now in range(0, 600, 10) for m in desk.block(now)]

    assert sum(isinstance(message, ReservationRenewed) for message in renewed) == 2


def test_the_hubs_own_clock_never_releases_it_only_marks_silence() -> None:
    desk = Desk()
    desk.tell(ask(1))
    desk.block(TTL + LATE - 1)
    assert desk.state_of(1) is State.HELD
    for now_us in (TTL + LATE, 10**6, 10**15):
        desk.block(now_us)

        assert (desk.state_of(1), desk.reserved()) == (State.OVERDUE, 100 * USD)
    assert desk.tell(ask(2)) == [no(2, RejectReason.SPOKE_OVERDUE)]
    assert isinstance(desk.tell(ask(3), spoke=SOL)[0], ReservationGranted)


def test_silence_ends_with_the_spokes_word() -> None:
    desk = Desk()
    desk.tell(ask(1))
    desk.block(10**6)
    desk.mark(TTL, final=TTL)

    assert desk.state_of(1) is State.RELEASED
    assert isinstance(desk.tell(ask(2))[0], ReservationGranted)


def test_used_credit_stays_held_until_final_reports_cover_its_last_use() -> None:
    desk = Desk()
    desk.tell(ask(1))
    desk.tell(uses(1, 30 * USD), height=7)
    desk.tell(closes(1, 30 * USD), height=8, final=8)
    desk.mark(6, final=6, family=Family.MARGIN_STATE)
    assert desk.reserved() == 30 * USD
    desk.mark(7, final=6, family=Family.MARGIN_STATE)
    assert desk.reserved() == 30 * USD

    desk.mark(8, final=7, family=Family.MARGIN_STATE)
    assert desk.reserved() == 0
    assert desk.hub.state.zone_of[BASE].exposure_usd6 == 0


def test_credit_used_and_not_closed_is_covered_from_its_last_use() -> None:
    desk = Desk()
    desk.tell(ask(1))
    desk.tell(uses(1, 30 * USD), height=7)
    desk.mark(TTL, final=TTL)
    desk.mark(6, final=90, family=Family.MARGIN_STATE)
    assert desk.reserved() == 30 * USD

    desk.mark(7, final=90, family=Family.MARGIN_STATE)
    assert desk.reserved() == 0


@pytest.mark.parametrize("first_usd", [0, 30])
@pytest.mark.parametrize("carried", [False, True])
def test_what_was_used_after_the_release_is_carried_once_that_is_covered(
    first_usd: int, carried: bool
) -> None:
    """A halted spoke that people let go on: the positions carry the late use too (P54)."""
    desk = Desk()
    zone = desk.hub.state.zone_of[BASE]
    desk.tell(ask(1))
    desk.tell(uses(1, first_usd * USD), height=2)
    desk.tell(closes(1, first_usd * USD), height=3, final=3)
    if carried:
        desk.mark(4, final=4, family=Family.MARGIN_STATE)
    desk.tell(uses(1, 80 * USD), height=8)
    zone.halted = None
    desk.mark(7, final=90, family=Family.MARGIN_STATE)
    assert desk.reserved() == 80 * USD

    desk.mark(8, final=90, family=Family.MARGIN_STATE)
    assert desk.reserved() == zone.exposure_usd6 == 0
    assert not zone.uncarried


def test_a_use_after_the_release_in_the_same_block_is_carried_once() -> None:
    desk = Desk()
    desk.tell(ask(1))
    desk.tell(uses(1, 30 * USD), height=3)
    desk.tell(closes(1, 30 * USD), height=3, final=3)
    desk.tell(uses(1, 80 * USD), height=3)
    desk.hub.state.zone_of[BASE].halted = None
    desk.mark(3, final=90, family=Family.MARGIN_STATE)
    assert desk.reserved() == 0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([uses(1, 100 * USD + 1)], HaltReason.USED_TOO_MUCH),
        ([closes(1, 100 * USD + 1)], HaltReason.USED_TOO_MUCH),
        ([closes(1), uses(1, 1)], HaltReason.USED_AFTER_CLOSE),
        ([uses(1, 2), closes(1, 1)], HaltReason.USED_AFTER_CLOSE),
        ([uses(99, 1)], HaltReason.UNKNOWN_RESERVATION),
        ([closes(99)], HaltReason.UNKNOWN_RESERVATION),
        ([closes(5)], HaltReason.UNKNOWN_RESERVATION),
    ],
)
def test_a_contradiction_halts_the_spoke_and_nothing_is_released_any_more(
    words: list[Message], reason: HaltReason
) -> None:
    desk = Desk()
    desk.tell(ask(5, 0))
    desk.tell(ask(1))
    desk.tell(ask(2))
    told = [answer for word in words for answer in desk.tell(word, height=1)]
    assert told == [SpokeHalted(spoke=BASE, reason=reason)]

    desk.tell(closes(2), height=2, final=500)
    desk.mark(500, final=500)
    desk.mark(500, final=500, family=Family.MARGIN_STATE)
    desk.block(10**6)
    too_much = reason is HaltReason.USED_TOO_MUCH  # which is booked, as the larger figure
    assert desk.reserved() == 200 * USD + too_much
    assert desk.tell(ask(3)) == [no(3, RejectReason.HALTED)]


def test_a_spoke_cannot_speak_about_anothers_reservation() -> None:
    desk = Desk()
    desk.tell(ask(1))
    told = desk.tell(closes(1), height=1, final=1, spoke=SOL)

    assert told == [SpokeHalted(spoke=SOL, reason=HaltReason.UNKNOWN_RESERVATION)]
    assert desk.reserved() == 100 * USD


@pytest.mark.parametrize("family", [Family.RESERVATION, Family.MARGIN_STATE, Family.LIQUIDATION])
def test_chain_time_that_falls_halts_the_spoke(family: Family) -> None:
    desk = Desk()
    assert desk.mark(50, final=0, family=family) == desk.mark(50, final=0, family=family) == []

    told = desk.mark(49, final=0, family=family)
    assert told == [SpokeHalted(spoke=BASE, reason=HaltReason.TIME_REGRESSED)]
