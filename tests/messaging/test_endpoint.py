from collections.abc import Sequence
from itertools import chain

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messaging.channel import RESENT_MAX, ChannelPolicy
from messaging.drivers.virtual import VirtualDriver
from messaging.effects import Effect, Send, SetTimer
from messaging.endpoint import TEND, Endpoint
from messaging.envelope import Envelope
from messaging.latency import Uniform
from messaging.messages import (
    CHANNEL_FAMILIES,
    Acknowledged,
    Family,
    Message,
    PricePublished,
    ResendRequested,
    Watermark,
)
from messaging.network import LinkPolicy, Network
from messaging.node import Event, TimerFired
from messaging.record import Record
from messaging.units import HUB, Asset, Height, Micros, NodeId, Ppm, Usd6

BASE = NodeId("base")
POLICY = ChannelPolicy(
    tend_us=Micros(5_000),
    ack_after_us=Micros(10_000),
    gap_after_us=Micros(15_000),
    resend_after_us=Micros(40_000),
)
TALK = "talk"
STEP_US = 3_000
EVENTS_MAX = 5_000  # far more than any of these conversations needs


def say(number: int) -> Watermark:
    return Watermark(spoke_time_us=Micros(number), open_count=0)


class Talker:
    """Says 1, 2, 3, ... on each family, one at a time, and remembers what it hears."""

    def __init__(self, name: NodeId, peer: NodeId, count: int, *, answers: bool = False) -> None:
        self.name = name
        self.peer = peer
        self.count = count
        self.answers = answers
        self.said = 0
        self.heard: dict[Family, list[Message]] = {family: [] for family in Family}

    def start(self) -> Sequence[Effect]:
        return (SetTimer(TALK, Micros(0)),) if self.count else ()

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        if isinstance(event, TimerFired):
            self.said += 1
            sends = [Send(self.peer, family, say(self.said)) for family in CHANNEL_FAMILIES]
            again = [SetTimer(TALK, Micros(now_us + STEP_US))] if self.said < self.count else []
            return [*sends, *again]
        self.heard[event.family].append(event.message)
        return (Send(self.peer, event.family, event.message),) if self.answers else ()


class Faults:
    """A network that does as told, frame by frame, and then is quick and sound."""

    def __init__(self, fates: Sequence[Sequence[int]]) -> None:
        self.fates = iter(fates)

    def arrivals(self, envelope: Envelope, now_us: Micros) -> Sequence[Micros]:
        return [Micros(now_us + delay_us) for delay_us in next(self.fates, (1_000,))]


def talk(
    network: Faults | Network, hub_count: int, base_count: int
) -> tuple[list[Record], list[Endpoint]]:
    """Run a conversation to its end."""
    ends = [
        Endpoint(Talker(HUB, BASE, hub_count), {BASE: POLICY}),
        Endpoint(Talker(BASE, HUB, base_count), {HUB: POLICY}),
    ]
    driver = VirtualDriver(ends, network, until_us=Micros(10**15), events_max=EVENTS_MAX)
    return list(driver.run()), ends


def check(records: list[Record], ends: list[Endpoint]) -> None:
    """Nothing got lost, nothing was heard twice or out of order, and nothing is left to do."""
    for end, other in (ends, ends[::-1]):
        assert isinstance(end.node, Talker)
        assert isinstance(other.node, Talker)
        expected = [say(number) for number in range(1, other.node.count + 1)]
        for family in CHANNEL_FAMILIES:
            assert end.node.heard[family] == expected
        for outbox, inbox in zip(end.outboxes.values(), end.inboxes.values(), strict=True):
            assert not outbox.unacked
            assert not inbox.parked
    made: dict[tuple[NodeId, Family], tuple[int, int]] = {}
    for one in chain.from_iterable(record.effects for record in records):
        if isinstance(one, Envelope):
            seq, ack_seq = made.get((one.sender, one.family), (0, 0))
            if one.seq == 0 or one.seq > seq:  # a resend is as old as its first journey
                assert one.ack_seq >= ack_seq
                made[one.sender, one.family] = max(seq, one.seq), one.ack_seq


fates = st.lists(st.lists(st.integers(0, 120_000), max_size=3), max_size=80)
counts = st.integers(0, 12)


@settings(max_examples=150, deadline=None)
@given(fates=fates, hub_count=counts, base_count=counts)
def test_every_message_is_heard_once_in_order_and_then_all_is_quiet(
    fates: list[list[int]], hub_count: int, base_count: int
) -> None:
    check(*talk(Faults(fates), hub_count, base_count))


@pytest.mark.parametrize("seed", range(12))
def test_so_it_is_over_links_that_lose_repeat_and_reorder_to_the_last(seed: int) -> None:
    link = LinkPolicy(
        latency=Uniform(low_s=0.001, high_s=0.04),
        loss_ppm=Ppm(300_000),
        repeat_ppm=Ppm(200_000),
        reorder_ppm=Ppm(200_000),
    )
    records, ends = talk(Network(seed, {(HUB, BASE): link, (BASE, HUB): link}), 40, 25)

    check(records, ends)
    inboxes = [inbox for end in ends for inbox in end.inboxes.values()]
    messages = [
        one.message for record in records for one in record.effects if type(one) is Envelope
    ]
    assert any(inbox.repeats for inbox in inboxes)
    assert any(isinstance(message, ResendRequested) for message in messages)
    assert any(isinstance(message, Acknowledged) for message in messages)


def test_over_a_sound_link_nothing_is_sent_twice_and_little_besides() -> None:
    records, ends = talk(Faults(()), 1, 0)

    check(records, ends)
    events = [record.event for record in records if isinstance(record.event, Envelope)]
    assert len(events) == 2 * len(CHANNEL_FAMILIES)  # each message, each acknowledgement
    assert records[-1].event == TimerFired(TEND)


# --- by hand ----------------------------------------------------------------------------


def hub(*, answers: bool = False) -> tuple[Endpoint, Talker]:
    node = Talker(HUB, BASE, 0, answers=answers)
    return Endpoint(node, {BASE: POLICY}), node


def frame(seq: int, message: Message | None = None, ack_seq: int = 0) -> Envelope:
    return Envelope(
        BASE,
        HUB,
        Family.RESERVATION,
        seq,
        ack_seq,
        Micros(0),
        Height(0),
        Height(0),
        say(seq) if message is None else message,
    )


def tend(end: Endpoint, now_us: int) -> list[Envelope]:
    out = end.handle(Micros(now_us), TimerFired(TEND))
    return [one for one in out if isinstance(one, Envelope)]


def heard_and_parked(end: Endpoint) -> object:
    assert isinstance(end.node, Talker)
    heard = {family: list(messages) for family, messages in end.node.heard.items()}
    return heard, {
        key: (inbox.next_seq, dict(inbox.parked), inbox.acked_seq, inbox.repeats)
        for key, inbox in end.inboxes.items()
    }


def test_an_endpoint_with_nothing_to_do_sets_no_timer() -> None:
    end, _ = hub()

    assert end.start() == []


def test_a_gap_is_asked_for_once_it_is_old_enough() -> None:
    end, node = hub()
    end.handle(Micros(0), frame(1))
    end.handle(Micros(0), frame(4))

    assert not any(isinstance(one.message, ResendRequested) for one in tend(end, 14_999))
    (asked,) = tend(end, 15_000)
    assert asked.message == ResendRequested(first_seq=2, last_seq=3)
    assert (asked.seq, asked.ack_seq) == (0, 1)
    assert node.heard[Family.RESERVATION] == [say(1)]


def test_frames_asked_for_are_the_stored_ones_at_most_a_hundred() -> None:
    end = Endpoint(Talker(HUB, BASE, 200), {BASE: POLICY})
    sent = [
        one
        for number in range(200)
        for one in end.handle(Micros(number), TimerFired(TALK))
        if isinstance(one, Envelope) and one.family is Family.RESERVATION
    ]

    found = end.handle(Micros(300), frame(0, ResendRequested(first_seq=51, last_seq=2**62)))

    assert len(found) == RESENT_MAX
    assert all(one is stored for one, stored in zip(found, sent[50:150], strict=True))


@given(
    arrived=st.lists(st.integers(1, 8), max_size=8),
    message=st.sampled_from([Acknowledged(), say(1), ResendRequested(first_seq=1, last_seq=9)]),
    ack_seq=st.integers(0, 12),
)
def test_a_frame_outside_the_row_does_nothing_but_acknowledge_and_ask(
    arrived: list[int], message: Message, ack_seq: int
) -> None:
    end, _ = hub(answers=True)
    for seq in arrived:
        end.handle(Micros(0), frame(seq))
    outbox, before = end.outboxes[BASE, Family.RESERVATION], heard_and_parked(end)
    believed = ack_seq if ack_seq < outbox.next_seq else 0  # of the rest nothing was said
    unacked = [seq for seq in outbox.unacked if seq > believed]

    out = end.handle(Micros(1), frame(0, message, ack_seq))

    asked = unacked if isinstance(message, ResendRequested) else []
    assert out == [outbox.unacked[seq] for seq in asked]
    assert list(outbox.unacked) == unacked
    assert heard_and_parked(end) == before


def test_an_answer_carries_the_acknowledgement_so_that_no_bare_one_follows() -> None:
    end, _ = hub(answers=True)
    answer, timer = end.handle(Micros(0), frame(1))

    assert isinstance(answer, Envelope)
    assert (answer.seq, answer.ack_seq) == (1, 1)
    assert timer == SetTimer(TEND, POLICY.tend_us)
    assert tend(end, 10_000) == []


def test_a_message_that_came_through_a_gap_is_acknowledged_with_all_behind_it() -> None:
    end, _ = hub()
    for seq in (3, 2, 1):
        end.handle(Micros(0), frame(seq))

    (bare,) = tend(end, 10_000)

    assert (bare.seq, bare.ack_seq, bare.message) == (0, 3, Acknowledged())


def test_a_lost_acknowledgement_is_told_again_when_its_frame_comes_again() -> None:
    end, _ = hub()
    end.handle(Micros(0), frame(1))
    tend(end, 10_000)
    end.handle(Micros(50_000), frame(1))

    (bare,) = tend(end, 60_000)

    assert (bare.ack_seq, bare.message) == (1, Acknowledged())


def test_observers_see_what_the_node_saw_and_wished_in_order() -> None:
    end, _ = hub(answers=True)
    seen: list[tuple[Micros, Event, Sequence[Effect]]] = []
    end.observers.append(lambda *saw: seen.append(saw))

    for event in (frame(2), frame(2), TimerFired(TEND), frame(0, Acknowledged()), frame(1)):
        end.handle(Micros(9), event)

    answers = [(Send(BASE, Family.RESERVATION, say(seq)),) for seq in (1, 2)]
    assert seen == [(9, frame(1), answers[0]), (9, frame(2), answers[1])]


def test_other_families_go_past_the_channels_with_a_count_of_their_own() -> None:
    price = PricePublished(asset=Asset("BTC"), price_usd6=Usd6(1), observed_us=Micros(0))
    shown = msgspec.structs.replace(frame(7, price), family=Family.PRICE)
    end, node = hub(answers=True)

    out = [end.handle(Micros(0), shown) for _ in range(2)]

    assert node.heard[Family.PRICE] == [price, price]
    assert [(one.seq, one.ack_seq) for one in chain.from_iterable(out)] == [(1, 0), (2, 0)]  # type: ignore[union-attr]
    assert not any(outbox.unacked for outbox in end.outboxes.values())
