from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.reservation import (
    Evidence,
    Reservation,
    State,
    carry,
    close,
    grant,
    overdue,
    reject,
    release,
    renew,
    repeat,
    use,
)
from messaging.messages import (
    CloseReason,
    CreditUsed,
    HaltReason,
    RejectReason,
    ReservationClosed,
    ReservationGranted,
    ReservationRejected,
    ReservationRequested,
)
from messaging.units import AccountId, Height, Micros, NodeId, ReservationId, Usd6

RID, BASE = ReservationId(b"r" * 16), NodeId("base")
AMOUNT = 1_000
ASKED = ReservationRequested(
    rid=RID, account=AccountId("ann"), amount_usd6=Usd6(AMOUNT), ttl_us=Micros(50)
)
HELD = grant(ASKED, BASE, heard_us=Micros(100))


def uses(used_usd6: int, block_time_us: int = 110) -> CreditUsed:
    return CreditUsed(rid=RID, used_usd6=Usd6(used_usd6), block_time_us=Micros(block_time_us))


def closes(used_usd6: int) -> ReservationClosed:
    return ReservationClosed(rid=RID, used_usd6=Usd6(used_usd6), reason=CloseReason.DONE)


def used(used_usd6: int, height: int = 1) -> Reservation:
    after = use(HELD, uses(used_usd6), Height(height))
    assert isinstance(after, Reservation)
    return after


def closed(known: Reservation, used_usd6: int, height: int = 2) -> Reservation:
    after = close(known, closes(used_usd6), Height(height))
    assert isinstance(after, Reservation)
    return after


def test_a_grant_holds_the_amount_until_the_ttl_after_the_spokes_newest_time() -> None:
    assert HELD.encumbered_usd6 == AMOUNT
    assert HELD.expires_max_us == 150
    assert HELD.answer == ReservationGranted(
        rid=RID, account=ASKED.account, amount_usd6=ASKED.amount_usd6, expires_at_us=Micros(150)
    )


@pytest.mark.parametrize("known", [HELD, reject(ASKED, BASE, RejectReason.FREE_SHORT)])
def test_a_request_gets_the_answer_it_got_and_another_body_gets_none(known: Reservation) -> None:
    other = msgspec.structs.replace(ASKED, amount_usd6=Usd6(AMOUNT - 1))

    assert repeat(known, ASKED, BASE) is known.answer
    assert repeat(known, other, BASE) == ReservationRejected(
        rid=RID, reason=RejectReason.EXISTS_DIFFERENT
    )


def test_a_rejection_holds_nothing() -> None:
    assert reject(ASKED, BASE, RejectReason.FREE_SHORT).encumbered_usd6 == 0


@given(st.lists(st.integers(0, AMOUNT), max_size=6), st.data())
def test_uses_are_cumulative_in_any_order_with_repeats(
    reported: list[int], data: st.DataObject
) -> None:
    known = HELD
    for figure in data.draw(st.permutations(reported * 2)):
        after = use(known, uses(figure), Height(1))
        assert isinstance(after, Reservation)
        known = after

        assert known.encumbered_usd6 == AMOUNT
    assert known.used_usd6 == max(reported, default=0)


def test_the_block_of_the_latest_use_is_that_of_the_largest_figure() -> None:
    again = use(used(600, height=7), uses(400), Height(9))

    assert isinstance(again, Reservation)
    assert again.use_height == 7


@pytest.mark.parametrize("known", [HELD, overdue(HELD)])
def test_use_of_all_is_fine_and_of_more_is_evidence(known: Reservation) -> None:
    assert isinstance(use(known, uses(AMOUNT), Height(1)), Reservation)

    outcome = use(known, uses(AMOUNT + 1), Height(1))
    assert isinstance(outcome, Evidence)
    assert outcome.reason is HaltReason.USED_TOO_MUCH


@pytest.mark.parametrize(
    ("known", "word"),
    [
        (HELD, uses(AMOUNT + 200)),
        (release(used(300), "mark"), uses(AMOUNT + 200)),
        (release(used(300), "mark"), closes(AMOUNT + 200)),
        (release(used(300), "mark"), closes(400)),
    ],
)
def test_evidence_books_the_larger_figure_as_used(
    known: Reservation, word: CreditUsed | ReservationClosed
) -> None:
    if isinstance(word, CreditUsed):
        outcome = use(known, word, Height(3))
    else:
        outcome = close(known, word, Height(3))

    assert isinstance(outcome, Evidence)
    assert outcome.reservation.used_usd6 == word.used_usd6


@pytest.mark.parametrize("block_time_us", [150, 151])
def test_use_at_or_after_the_largest_expiry_is_evidence(block_time_us: int) -> None:
    assert isinstance(use(HELD, uses(1, 149), Height(1)), Reservation)

    assert isinstance(use(HELD, uses(1, block_time_us), Height(1)), Evidence)


def test_use_after_the_spokes_own_close_is_evidence_and_is_booked() -> None:
    known = closed(used(300), 300)
    outcome = use(known, uses(301), Height(3))

    assert isinstance(outcome, Evidence)
    assert outcome.reason is HaltReason.USED_AFTER_CLOSE
    assert outcome.reservation.used_usd6 == 301


def test_a_repeated_use_after_the_close_changes_nothing() -> None:
    known = closed(used(300), 300)

    assert [use(known, uses(figure), Height(3)) for figure in (200, 300)] == [known, known]


def test_use_after_a_watermark_has_released_it_breaks_the_claim_and_is_booked() -> None:
    outcome = use(release(used(300), "mark"), uses(301), Height(3))

    assert isinstance(outcome, Evidence)
    assert outcome.reason is HaltReason.BROKEN_CLAIM
    assert outcome.reservation.encumbered_usd6 == 301


@pytest.mark.parametrize("figure", [0, 299, AMOUNT + 1])
def test_a_close_below_the_use_or_above_the_amount_is_evidence(figure: int) -> None:
    assert isinstance(close(used(300), closes(figure), Height(2)), Evidence)


def test_a_close_keeps_everything_held_until_the_release() -> None:
    known = closed(used(300), 400)

    assert (known.open, known.encumbered_usd6, known.used_usd6) == (True, AMOUNT, 400)


def test_a_repeated_close_changes_nothing() -> None:
    known = closed(used(300), 400)

    assert close(known, closes(400), Height(9)) is known
    after = release(known, "close")
    assert close(after, closes(400), Height(9)) is after


def test_a_second_close_with_more_used_is_evidence() -> None:
    outcome = close(closed(HELD, 0), closes(500), Height(3))

    assert isinstance(outcome, Evidence)


@pytest.mark.parametrize("figure", [300, 400])
def test_a_close_after_a_watermark_must_agree_with_it(figure: int) -> None:
    known = release(used(300), "mark")
    outcome = close(known, closes(figure), Height(3))

    assert outcome is known if figure == 300 else isinstance(outcome, Evidence)


@pytest.mark.parametrize(("figure", "state"), [(0, State.RELEASED), (1, State.SETTLED)])
def test_a_release_frees_what_was_not_used_and_keeps_the_rest_until_carried(
    figure: int, state: State
) -> None:
    after = release(used(figure), "close")

    assert (after.state, after.encumbered_usd6, after.released_by) == (state, figure, "close")
    if figure:
        assert carry(after).encumbered_usd6 == 0


@pytest.mark.parametrize("wrong", [HELD, release(HELD, "mark"), carry(release(used(1), "mark"))])
def test_only_credit_used_and_ended_is_carried_and_only_once(wrong: Reservation) -> None:
    with pytest.raises(AssertionError):
        carry(wrong)


def test_silence_frees_nothing() -> None:
    assert overdue(HELD).encumbered_usd6 == AMOUNT
    assert overdue(HELD).open


@given(st.lists(st.integers(0, 1_000), max_size=8))
def test_an_expiry_only_ever_rises_and_each_renewal_counts(expiries: list[int]) -> None:
    known = HELD
    for expires_at_us in expiries:
        before = known
        known, told = renew(known, Micros(expires_at_us))

        assert told.expires_at_us == known.expires_max_us
        assert known.expires_max_us == max(before.expires_max_us, expires_at_us)
        assert told.grant_version == before.grant_version + 1
        assert known.encumbered_usd6 == AMOUNT


def test_what_has_ended_is_not_released_or_renewed_again() -> None:
    ended = [release(HELD, "mark"), release(used(1), "mark")]
    for known, again in product(ended, (lambda r: release(r, ""), lambda r: renew(r, Micros(9)))):
        with pytest.raises(AssertionError):
            again(known)
