from collections.abc import Sequence
from functools import cache

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.channel import ChannelPolicy
from messaging.codec import decode_record, encode_record
from messaging.drivers.replay import replay
from messaging.drivers.virtual import VirtualDriver
from messaging.effects import Effect, Send, SetTimer
from messaging.endpoint import Endpoint
from messaging.envelope import Envelope
from messaging.errors import ReplayDiverged
from messaging.latency import Uniform
from messaging.messages import Family, Watermark
from messaging.network import LinkPolicy, Network
from messaging.node import Event, TimerFired
from messaging.record import Record
from messaging.units import HUB, Micros, NodeId, Ppm

BASE = NodeId("base")
POLICY = ChannelPolicy(
    tend_us=Micros(5_000),
    ack_after_us=Micros(10_000),
    gap_after_us=Micros(15_000),
    resend_after_us=Micros(40_000),
)


class Adder:
    """Adds up what it hears and tells the sum, until time is up."""

    def __init__(self, name: NodeId, peer: NodeId, first: int) -> None:
        self.name = name
        self.peer = peer
        self.sum = first

    def start(self) -> Sequence[Effect]:
        return (SetTimer("begin", Micros(self.sum)),)

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        if isinstance(event, Envelope):
            assert isinstance(event.message, Watermark)
            self.sum += event.message.spoke_time_us
        if now_us > 200_000:
            return ()
        said = Watermark(spoke_time_us=Micros(self.sum % 1_000_003), open_count=0)
        return (Send(self.peer, Family.RESERVATION, said),)


def endpoints(first: int = 1) -> list[Endpoint]:
    return [
        Endpoint(Adder(HUB, BASE, first), {BASE: POLICY}),
        Endpoint(Adder(BASE, HUB, 2), {HUB: POLICY}),
    ]


@cache
def recorded() -> tuple[Record, ...]:
    link = LinkPolicy(
        latency=Uniform(low_s=0.001, high_s=0.02),
        loss_ppm=Ppm(100_000),
        repeat_ppm=Ppm(100_000),
        reorder_ppm=Ppm(100_000),
    )
    network = Network(1, {(HUB, BASE): link, (BASE, HUB): link})
    return tuple(VirtualDriver(endpoints(), network, until_us=Micros(400_000)).run())


def divergence(records: Sequence[Record], ends: list[Endpoint] | None = None) -> ReplayDiverged:
    """Replay up to the divergence; what came before it must have been repeated."""
    found: list[Record] = []
    with pytest.raises(ReplayDiverged) as diverged:
        found.extend(replay(endpoints() if ends is None else ends, records))
    assert found == list(records[: diverged.value.index])
    return diverged.value


def changed(index: int, **changes: object) -> list[Record]:
    records = list(recorded())
    records[index] = msgspec.structs.replace(records[index], **changes)
    return records


places = st.integers(0, len(recorded()) - 1)
with_effects = st.sampled_from([i for i, record in enumerate(recorded()) if record.effects])


def test_a_recorded_run_is_repeated_to_the_last_record() -> None:
    assert len(recorded()) > 50
    assert tuple(replay(endpoints(), recorded())) == recorded()


def test_a_run_read_back_from_its_bytes_is_repeated_too() -> None:
    read = [decode_record(encode_record(record)) for record in recorded()]

    assert tuple(replay(endpoints(), read)) == recorded()


def test_an_empty_log_is_repeated() -> None:
    assert list(replay(endpoints(), [])) == []


@given(with_effects, st.data())
def test_a_changed_effect_is_found_where_it_is(index: int, data: st.DataObject) -> None:
    effects = list(recorded()[index].effects)
    place = data.draw(st.integers(0, len(effects) - 1))
    was = effects[place]
    field = "at_us" if isinstance(was, SetTimer) else "sent_us"
    effects[place] = msgspec.structs.replace(was, **{field: 999_999_999})

    diverged = divergence(changed(index, effects=effects))

    assert (diverged.index, diverged.expected, diverged.found) == (index, effects[place], was)
    assert diverged.exit_code == 3


@given(with_effects)
def test_an_effect_too_few_in_the_log_is_one_too_many_here(index: int) -> None:
    effects = recorded()[index].effects

    diverged = divergence(changed(index, effects=effects[:-1]))

    assert (diverged.index, diverged.expected) == (index, "nothing")
    assert diverged.found == effects[-1]


@given(places)
def test_an_effect_too_many_in_the_log_is_missed_here(index: int) -> None:
    extra = SetTimer("extra", Micros(1))

    diverged = divergence(changed(index, effects=[*recorded()[index].effects, extra]))

    assert (diverged.index, diverged.expected, diverged.found) == (index, extra, "nothing")


def answered() -> int:
    """Return the index of a record in which a message was heard and answered."""
    for index, record in enumerate(recorded()):
        if isinstance(record.event, Envelope) and record.event.seq == 3 and record.effects:
            return index
    raise AssertionError("nothing was answered")


def test_a_changed_event_is_found_by_what_it_leads_to() -> None:
    index = answered()
    record = recorded()[index]
    assert isinstance(record.event, Envelope)
    heard = Watermark(spoke_time_us=Micros(500_000), open_count=0)
    event = msgspec.structs.replace(record.event, message=heard)

    diverged = divergence(changed(index, event=event))

    assert diverged.index == index
    assert diverged.expected == record.effects[0]
    assert isinstance(diverged.found, Envelope)
    assert diverged.found.message != record.effects[0].message  # type: ignore[union-attr]


def test_a_changed_time_is_found_too() -> None:
    index = answered()

    assert divergence(changed(index, at_us=recorded()[index].at_us + 1)).index == index


def test_a_record_left_out_is_found() -> None:
    index = answered()

    assert divergence(recorded()[:index] + recorded()[index + 1 :]).index >= index


def test_another_build_is_found_at_the_first_thing_it_does_otherwise() -> None:
    diverged = divergence(recorded(), endpoints(first=7))

    assert diverged.index == 0
    assert f"record 0 (node hub, virtual time {recorded()[0].at_us / 1e6:.6f} s)" in str(diverged)


@given(places)
def test_a_record_of_a_node_that_is_not_ours_is_found(index: int) -> None:
    diverged = divergence(changed(index, node=NodeId("nobody"), event=TimerFired("a")))

    assert (diverged.index, diverged.found) == (index, "no such node")
