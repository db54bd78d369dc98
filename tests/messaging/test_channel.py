import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from messaging.channel import RESENT_MAX, ChannelPolicy, Life
from messaging.envelope import Envelope
from messaging.inbox import PARKED_MAX, Inbox
from messaging.lineage import Place
from messaging.messages import Family, Watermark
from messaging.outbox import Outbox
from messaging.units import HUB, Height, Micros, NodeId

POLICY = ChannelPolicy(
    tend_us=Micros(10),
    ack_after_us=Micros(200),
    gap_after_us=Micros(300),
    resend_after_us=Micros(1_000),
)
START_US = Micros(5_000)


def frame(seq: int) -> Envelope:
    return Envelope(
        NodeId("base"),
        HUB,
        Family.RESERVATION,
        seq,
        0,
        Micros(seq),
        Height(0),
        Height(0),
        Watermark(spoke_time_us=Micros(seq), open_count=0),
    )


def seqs(envelopes: list[Envelope]) -> list[int]:
    return [envelope.seq for envelope in envelopes]


def arrive(inbox: Inbox, *numbers: int, now_us: int = START_US) -> list[int]:
    """Hand frames over one after another; return the numbers that came out."""
    return [seq for number in numbers for seq in seqs(inbox.receive(frame(number), Micros(now_us)))]


def sent(count: int, now_us: int = START_US) -> Outbox:
    outbox = Outbox()
    for seq in range(1, count + 1):
        outbox.keep(frame(seq), Micros(now_us))
    return outbox


# --- the receiving end ------------------------------------------------------------------


@given(st.lists(st.integers(1, 30), max_size=120))
def test_whatever_arrives_the_row_comes_out_once_in_order_up_to_the_first_gap(
    numbers: list[int],
) -> None:
    inbox, out = Inbox(), []

    for count, number in enumerate(numbers, start=1):
        out += arrive(inbox, number)
        seen = set(numbers[:count])
        next_seq = next(seq for seq in range(1, 32) if seq not in seen)

        assert out == list(range(1, next_seq))
        assert inbox.next_seq == next_seq
        assert sorted(inbox.parked) == sorted(seq for seq in seen if seq > next_seq)
        assert inbox.repeats == count - len(seen)


def test_frames_that_waited_come_out_as_they_came_in() -> None:
    inbox, late = Inbox(), frame(2)
    inbox.receive(late, START_US)

    first, second = inbox.receive(frame(1), START_US)

    assert first == frame(1)
    assert second is late


def test_behind_a_gap_so_many_frames_wait_and_no_more() -> None:
    inbox = Inbox()
    arrive(inbox, *range(2, PARKED_MAX + 3))

    assert sorted(inbox.parked) == list(range(2, PARKED_MAX + 2))
    assert inbox.repeats == 0
    assert arrive(inbox, 1) == list(range(1, PARKED_MAX + 2))
    assert arrive(inbox, PARKED_MAX + 2) == [PARKED_MAX + 2]


def test_a_stranger_cannot_make_the_receiver_keep_more() -> None:
    inbox = Inbox()

    assert arrive(inbox, *range(10**9, 10**9 + 3 * PARKED_MAX, 2)) == []
    assert len(inbox.parked) == PARKED_MAX


def test_a_gap_is_asked_for_when_it_is_old_enough_and_again_after_as_long() -> None:
    inbox = Inbox()
    arrive(inbox, 1, 4)
    arrive(inbox, 6, now_us=START_US + 299)

    assert inbox.missing(Micros(START_US + 299), POLICY) == []
    assert inbox.missing(Micros(START_US + 300), POLICY) == [(2, 3)]
    assert inbox.missing(Micros(START_US + 598), POLICY) == []
    assert inbox.missing(Micros(START_US + 599), POLICY) == [(5, 5)]
    assert inbox.missing(Micros(START_US + 600), POLICY) == [(2, 3)]


def test_all_gaps_are_asked_for_at_once_for_losses_come_faster_than_round_trips() -> None:
    inbox = Inbox()
    arrive(inbox, *range(2, 2 * RESENT_MAX + 20, 2))
    gaps = inbox.missing(Micros(START_US + 300), POLICY)

    assert gaps == [(seq, seq) for seq in range(1, 2 * RESENT_MAX, 2)]
    assert len(inbox.missing(Micros(START_US + 300), POLICY)) == 9, "the rest, and none twice"


def test_a_gap_keeps_its_age_when_another_before_it_closes() -> None:
    inbox = Inbox()
    arrive(inbox, 2, 4)

    assert arrive(inbox, 1, now_us=START_US + 250) == [1, 2]
    assert inbox.missing(Micros(START_US + 299), POLICY) == []
    assert inbox.missing(Micros(START_US + 300), POLICY) == [(3, 3)]


def test_a_closed_gap_is_never_asked_for() -> None:
    inbox = Inbox()

    assert arrive(inbox, 2, 1) == [1, 2]
    assert inbox.missing(Micros(10**12), POLICY) == []


def test_an_arrival_waits_so_long_for_its_acknowledgement_whatever_follows() -> None:
    inbox = Inbox()
    arrive(inbox, 1)
    arrive(inbox, 2, 3, now_us=START_US + 199)

    assert not inbox.owes_ack(Micros(START_US + 199), POLICY)
    assert inbox.owes_ack(Micros(START_US + 200), POLICY)


def test_after_an_acknowledgement_the_next_arrival_starts_the_wait() -> None:
    inbox = Inbox()
    arrive(inbox, 1, 2)
    inbox.acked_seq = 2
    arrive(inbox, 3, now_us=START_US + 1_000)

    assert not inbox.owes_ack(Micros(START_US + 1_199), POLICY)
    assert inbox.owes_ack(Micros(START_US + 1_200), POLICY)


def test_nothing_arrived_or_only_behind_a_gap_is_not_acknowledged() -> None:
    inbox = Inbox()
    arrive(inbox, 2)

    assert not inbox.owes_ack(Micros(10**12), POLICY)


def test_a_repeat_of_an_acknowledged_frame_is_acknowledged_again() -> None:
    inbox = Inbox()
    arrive(inbox, 1)
    inbox.acked_seq = 1
    arrive(inbox, 1, now_us=START_US + 1_000)

    assert not inbox.owes_ack(Micros(START_US + 1_199), POLICY)
    assert inbox.owes_ack(Micros(START_US + 1_200), POLICY)


def test_a_repeat_does_not_put_off_an_acknowledgement_that_is_owed() -> None:
    inbox = Inbox()
    arrive(inbox, 1)
    arrive(inbox, 1, now_us=START_US + 199)

    assert inbox.owes_ack(Micros(START_US + 200), POLICY)


# --- the sending end --------------------------------------------------------------------


@given(count=st.integers(0, 30), acks=st.lists(st.integers(0, 40), max_size=20))
def test_acknowledged_is_what_the_highest_acknowledgement_says(count: int, acks: list[int]) -> None:
    outbox = sent(count)

    for ack_seq in acks:
        outbox.acknowledge(Place(1, ack_seq), START_US)

    believed = [ack_seq for ack_seq in acks if ack_seq <= count]  # of the rest nothing was said
    assert list(outbox.unacked) == list(range(max([0, *believed]) + 1, count + 1))
    assert outbox.next_seq == count + 1


@given(count=st.integers(0, 300), first=st.integers(1, 320), length=st.integers(-5, 2**40))
def test_asked_for_frames_are_the_stored_ones_and_at_most_so_many(
    count: int, first: int, length: int
) -> None:
    outbox = sent(count)
    outbox.acknowledge(Place(1, count // 3), START_US)
    expected = range(first, min(first + length, first + RESENT_MAX))

    found = outbox.asked(first, first + length - 1)

    assert seqs(found) == [seq for seq in expected if count // 3 < seq <= count]
    assert all(one is outbox.unacked[one.seq] for one in found)


def test_asked_from_zero_the_oldest_stored_frames_are_sent() -> None:
    outbox = sent(300)
    outbox.acknowledge(Place(1, 150), START_US)

    assert seqs(outbox.asked(0, 280)) == list(range(151, 251))
    assert seqs(outbox.asked(0, 160)) == list(range(151, 161))


def test_of_a_long_silence_the_oldest_frames_are_sent_again() -> None:
    outbox = sent(RESENT_MAX + 50)
    outbox.acknowledge(Place(1, 7), START_US)

    found = outbox.overdue(Micros(START_US + 1_000), POLICY)

    assert seqs(found) == list(range(8, 8 + RESENT_MAX))
    assert all(one is outbox.unacked[one.seq] for one in found)


def resends_us(outbox: Outbox, from_us: int, until_us: int) -> list[int]:
    return [now_us for now_us in range(from_us, until_us) if outbox.overdue(Micros(now_us), POLICY)]


def test_the_silence_between_resends_grows_by_half_up_to_sixteen_times() -> None:
    outbox = sent(1)

    found = resends_us(outbox, START_US, START_US + 100_000)

    gaps_us = [after - before for before, after in zip([START_US, *found], found, strict=False)]
    assert gaps_us[:4] == [1_000, 1_500, 2_250, 3_375]
    assert gaps_us == sorted(gaps_us)
    assert gaps_us[7:] == [16_000] * len(gaps_us[7:])
    assert len(gaps_us) > 8


def test_an_acknowledgement_ends_the_patience() -> None:
    outbox = sent(3)
    resends_us(outbox, START_US, START_US + 50_000)
    outbox.acknowledge(Place(1, 1), Micros(START_US + 50_000))

    assert resends_us(outbox, START_US + 50_000, START_US + 51_001) == [START_US + 51_000]


@pytest.mark.parametrize("ack_seq", [0, 1])
def test_an_old_acknowledgement_does_not_put_a_resend_off(ack_seq: int) -> None:
    outbox = sent(3)
    outbox.acknowledge(Place(1, 1), START_US)
    outbox.acknowledge(Place(1, ack_seq), Micros(START_US + 900))

    assert seqs(outbox.overdue(Micros(START_US + 1_000), POLICY)) == [2, 3]


def test_a_frame_sent_later_does_not_put_a_resend_off() -> None:
    outbox = sent(1)
    outbox.keep(frame(2), Micros(START_US + 900))

    assert seqs(outbox.overdue(Micros(START_US + 1_000), POLICY)) == [1, 2]


def test_a_frame_after_a_quiet_time_has_its_own_patience() -> None:
    outbox = sent(1)
    outbox.acknowledge(Place(1, 1), START_US)
    outbox.keep(frame(2), Micros(START_US + 70_000))

    assert not outbox.overdue(Micros(START_US + 70_999), POLICY)
    assert seqs(outbox.overdue(Micros(START_US + 71_000), POLICY)) == [2]


# --- lives ------------------------------------------------------------------------------


@given(
    heads=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    epoch=st.integers(1, 8),
    seq=st.integers(1, 9),
)
def test_what_one_accepted_life_does_not_know_no_later_one_brings_back(
    heads: list[int], epoch: int, seq: int
) -> None:
    inbox = Inbox()
    lives = [Life(2 + n, bytes(8), Place(1, head)) for n, head in enumerate(heads)]
    for life in lives:
        inbox.follow(life)

    later = [life for life in lives if life.node_epoch > epoch]
    known = epoch <= lives[-1].node_epoch and all(seq <= life.head.seq for life in later)
    assert inbox.believes(replace(frame(seq), node_epoch=epoch)) == known
