import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import ConsumerRecord, TopicPartition
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab import ways, world
from messaging.codec import encode_frame
from messaging.drivers.client import TOPIC_BYTES_MAX, Connection
from messaging.drivers.clock import Clock
from messaging.drivers.relay import Bridges, Parcel, Relay, _Source
from messaging.envelope import Envelope
from messaging.identity import NO_DIGEST, SEALED_BYTES_MAX, Signer, Verifier, domain_of
from messaging.latency import Constant, Uniform
from messaging.link_control import Acknowledged
from messaging.messages import Family, LinkChanged, Message
from messaging.network import LinkPolicy, Network
from messaging.store import Headers, Store
from messaging.topics import LINK_TOPIC, Route, routes, topic_of
from messaging.units import HUB, OPERATOR, ORACLE, RELAY, SECOND_US, Height, Micros, NodeId, Ppm
from tests.messaging.test_durable import small

BASE, OPTIMISM = NodeId("base"), NodeId("optimism")
UP, DOWN = (BASE, HUB), (HUB, BASE)
DOMAIN = domain_of("test", "relay", HUB)
NAMES = (HUB, BASE, OPTIMISM, ORACLE, OPERATOR)
SIGNERS = {name: Signer(DOMAIN, bytes([place]) * 32) for place, name in enumerate(NAMES)}
VERIFIER = Verifier(DOMAIN, {name: signer.public for name, signer in SIGNERS.items()})
ROUTES = {route.topic: route for route in routes([BASE, OPTIMISM])}
CREDIT, PRICE = ROUTES["from-base.reservation"], ROUTES["price.oracle"]
ROOM_BYTES = 1_024  # what Kafka puts around a record

NOW_US = Micros(10**12)
AGES_NS = 10**28  # a clock that stands still, see test_intake
STILL = Clock(time.time_ns() - AGES_NS, (NOW_US * 1_000 + 500) / AGES_NS)
EARLY = Clock(time.time_ns() + AGES_NS, (NOW_US * 1_000 + 500) / AGES_NS)  # before the beginning

FAULTY = LinkPolicy(
    latency=Uniform(low_s=1, high_s=90),
    loss_ppm=Ppm(200_000),
    repeat_ppm=Ppm(200_000),
    reorder_ppm=Ppm(200_000),
)
SURE = LinkPolicy(latency=Uniform(low_s=1, high_s=90))


def frame(
    seq: int,
    route: Route = CREDIT,
    sent_us: int = 0,
    message: Message = Acknowledged(),  # noqa: B008
) -> Envelope:
    return Envelope(
        route.sender,
        route.receiver,
        route.family,
        seq,
        0,
        Micros(sent_us),
        Height(0),
        Height(0),
        message,
    )


def sealed(said: Envelope, by: NodeId | None = None) -> bytes:
    return SIGNERS[by or said.sender].seal(encode_frame(said), NO_DIGEST)[0]


def record(
    topic: str, offset: int, value: bytes | None, headers: Mapping[str, bytes | None]
) -> ConsumerRecord[Any, Any]:
    return ConsumerRecord(
        topic=topic,
        partition=0,
        offset=offset,
        timestamp=0,
        timestamp_type=0,
        key=None,
        value=value,
        checksum=None,
        serialized_key_size=-1,
        serialized_value_size=len(value or b""),
        headers=tuple(headers.items()),
    )


# --- bridges ----------------------------------------------------------------------------


def test_a_frame_takes_as_long_as_it_takes_in_virtual_time() -> None:
    made = world.build(small())
    bridges = Bridges(small().seed, ways.links(small(), made.lanes))
    relayed = {route.topic for route in ROUTES.values() if route.relayed}
    expected: Counter[tuple[int, bytes]] = Counter()
    found: Counter[tuple[int, bytes]] = Counter()
    last_us = 0
    for one in made.driver().run():
        last_us = one.at_us
        if isinstance(one.event, Envelope) and topic_of(one.event) in relayed:
            expected[one.at_us, encode_frame(one.event)] += 1
        for said in one.effects:
            if isinstance(said, Envelope) and said.receiver in (HUB, BASE, OPTIMISM):
                if topic_of(said) not in relayed:
                    continue
                for at_us in bridges.arrivals(said, one.at_us):
                    found[at_us, encode_frame(said)] += 1

    arrived = Counter({key: count for key, count in found.items() if key[0] < last_us})
    assert arrived == Counter({key: count for key, count in expected.items() if key[0] < last_us})
    assert sum(arrived.values()) > 2_000


@given(
    seed=st.integers(0, 2**32),
    policy=st.sampled_from([FAULTY, SURE]),
    seqs=st.lists(st.integers(1, 2_000), min_size=1, max_size=30, unique=True).map(sorted),
    restart=st.integers(0, 29),
)
def test_drawing_again_after_a_restart_gives_the_same(
    seed: int, policy: LinkPolicy, seqs: list[int], restart: int
) -> None:
    network, before = Network(seed, {UP: policy}), Bridges(seed, {UP: policy, DOWN: FAULTY})
    expected = {seq: network.arrivals(frame(seq), Micros(seq)) for seq in seqs}
    assert {seq: before.arrivals(frame(seq), Micros(seq)) for seq in seqs} == expected

    again = Bridges(seed, {DOWN: SURE, UP: policy})
    for seq in seqs[restart:]:
        assert list(again.arrivals(frame(seq), Micros(seq))) == list(expected[seq])


changes = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 99)), max_size=6)


@given(made=changes, left_us=st.lists(st.integers(0, 60), max_size=20), again=st.data())
def test_a_change_of_a_link_holds_for_what_leaves_from_its_time_on(
    made: list[tuple[int, int]], left_us: list[int], again: st.DataObject
) -> None:
    policies = {
        from_us: LinkPolicy(latency=Constant(value_s=value_s))
        for from_us, value_s in sorted(dict(made).items())
    }
    bridges = Bridges(1, {UP: SURE, DOWN: SURE})
    for from_us, policy in policies.items():
        bridges.change(UP, Micros(from_us), policy)
    # The same words once more, as a broker or a thief of old records may bring them.
    for from_us in again.draw(st.lists(st.sampled_from(sorted(policies)))) if policies else ():
        bridges.change(UP, Micros(from_us), policies[from_us])

    for seq, at_us in enumerate(left_us, start=1):
        in_force = [policy for from_us, policy in policies.items() if from_us <= at_us]
        policy = in_force[-1] if in_force else SURE
        (found,) = bridges.arrivals(frame(seq), Micros(at_us))
        assert [found] == list(Network(1, {UP: policy}).arrivals(frame(seq), Micros(at_us)))
    other, plain = frame(7, ROUTES["to-base.reservation"]), Network(1, {DOWN: SURE})
    assert bridges.arrivals(other, Micros(9)) == plain.arrivals(other, Micros(9))


@pytest.mark.parametrize("left_us", [-1, -2, -(2**63), -(10**30)])
def test_what_leaves_before_the_beginning_travels_as_at_the_beginning(left_us: int) -> None:
    bridges = Bridges(1, {UP: LinkPolicy(latency=Constant(value_s=3.0))})
    bridges.change(UP, Micros(0), SURE)
    assert list(bridges.arrivals(frame(1), Micros(left_us))) == [left_us + 3 * SECOND_US]


# --- the relay --------------------------------------------------------------------------


class Carrying:
    """A relay between topics that are lists: what it would publish, and what of it is certain."""

    def __init__(self, folder: Path, policy: LinkPolicy = SURE, clock: Clock = STILL) -> None:
        links = dict.fromkeys(ways.links(small(), world.lanes_of(small())), policy)
        self.store = Store(folder / "relay.db", {})
        self.relay = Relay(
            self.store,
            list(ROUTES.values()),
            Bridges(1, links),
            connection=Connection("127.0.0.1:1"),
            verifier=VERIFIER,
            clock=clock,
            resolve=lambda change: ways.changed(small(), links, change),
        )
        cursors = self.store.cursors()
        for topic, route in ROUTES.items():
            if not route.relayed:
                continue
            source = _Source(route, cursors.get(topic, 0))
            self.relay._sources[TopicPartition(topic, 0)] = source

    def source(self, route: Route = CREDIT) -> _Source:
        return self.relay._sources[TopicPartition(route.topic, 0)]

    def accept(
        self,
        offset: int,
        value: bytes | None,
        headers: Mapping[str, bytes | None] | None = None,
        route: Route = CREDIT,
    ) -> list[Parcel]:
        """Bring a record; return the copies of it that are now on their way."""
        known = set(self.relay._heap)
        self.relay._accept(self.source(route), record(route.topic, offset, value, headers or {}))
        return sorted(set(self.relay._heap) - known)

    def deliver(self, certain: int) -> None:
        """Hand over what has arrived; the broker has the first `certain` of all there were."""
        self.relay._deliver()
        self.relay._publisher.published = certain
        self.relay._settle()

    def control(self, value: bytes | None, offset: int = 0) -> None:
        self.relay._change(record(LINK_TOPIC, offset, value, {}))

    def __enter__(self) -> "Carrying":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.store.__exit__()


def headers_of(parcel: Parcel) -> dict[str, bytes]:
    """Return the headers as the publisher reads them."""
    return dict(msgspec.msgpack.decode(msgspec.msgpack.encode(parcel.headers), type=Headers))


def check_fits(parcel: Parcel) -> None:
    """Insist that the broker takes it: what it refuses is published again for ever."""
    around = sum(len(name) + len(value) for name, value in headers_of(parcel).items())
    assert len(parcel.data) + around < TOPIC_BYTES_MAX - ROOM_BYTES


def test_a_frame_is_carried_as_it_is_and_says_when_it_arrives(tmp_path: Path) -> None:
    network, arrived, lost = Network(1, {UP: FAULTY}), Counter[int](), 0
    with Carrying(tmp_path, FAULTY) as carrying:
        for seq in range(1, 200):
            value, order = sealed(frame(seq)), f"{seq * 1_000}.0.{seq}".encode()
            expected = network.arrivals(frame(seq), Micros(seq * 1_000))
            lost += not expected

            parcels = carrying.accept(seq, value, {"order": order, "traceparent": b"00-1-2-01"})

            assert [one.at_us for one in parcels] == sorted(expected)
            for one in parcels:
                at = str(one.at_us).encode()
                assert (one.data, one.route) == (value, CREDIT)
                assert headers_of(one) == {
                    "order": order,
                    "traceparent": b"00-1-2-01",
                    "at_us": at,
                }
            arrived[len(parcels)] += 1
        assert (carrying.relay.lost, carrying.relay.unreadable) == (lost, 0)
    assert arrived[0] == lost > 10
    assert arrived[2] > 10


def test_a_resend_leaves_when_it_leaves_and_not_when_its_frame_was_made(tmp_path: Path) -> None:
    said = frame(5, sent_us=77)
    with Carrying(tmp_path, LinkPolicy(latency=Constant(value_s=2.0))) as carrying:
        (first,) = carrying.accept(0, sealed(said), {"order": b"77.0.1"})
        (again,) = carrying.accept(1, sealed(said), {"order": b"900.0.8"})
        (bare,) = carrying.accept(2, sealed(said))
        (ahead,) = carrying.accept(3, sealed(said), {"order": b"%d.0.9" % (2 * NOW_US)})
    at_us = [one.at_us - 2 * SECOND_US for one in (first, again, bare, ahead)]
    assert at_us == [77, 900, 77, NOW_US]


JUNK: dict[str, tuple[bytes | None, dict[str, bytes | None]]] = {
    "nothing": (None, {}),
    "garbage": (b"garbage", {"order": b"1.0.1"}),
    "nesting": (b"\x91" * 60_000, {}),
    "as much as a topic takes": (bytes(TOPIC_BYTES_MAX - 200), {}),
    "a header without a value": (sealed(frame(1)), {"order": None}),
    "some such header": (sealed(frame(1)), {"order": b"1.0.1", "x": None}),
    "a time before all": (sealed(frame(1)), {"order": b"-9000.0.1"}),
    "a time beyond all": (sealed(frame(1)), {"order": b"9" * 4_000 + b".0.1"}),
    "large headers": (sealed(frame(1)), {"order": b"1" * 30_000, "traceparent": b"2" * 30_000}),
    "many headers": (sealed(frame(1)), {f"header {place}": b"x" * 50 for place in range(1_000)}),
    "an arrival of its own": (sealed(frame(1)), {"at_us": b"5"}),
    "another topic's": (sealed(frame(1, PRICE)), {}),
    "a wrong sender's": (sealed(frame(1), OPERATOR), {}),
}


@pytest.mark.parametrize("clock", [STILL, EARLY], ids=["now", "before the beginning"])
@pytest.mark.parametrize(("value", "headers"), JUNK.values(), ids=JUNK.keys())
def test_nothing_that_can_stand_on_a_topic_stops_the_relay(
    tmp_path: Path, value: bytes | None, headers: dict[str, bytes | None], clock: Clock
) -> None:
    """Whether it is refused is for its reader to say, so all of it goes on."""
    with Carrying(tmp_path, clock=clock) as carrying:
        (parcel,) = carrying.accept(0, value, headers)
        check_fits(parcel)
        assert headers_of(parcel)["at_us"] == str(max(0, parcel.at_us)).encode()
        said = value or b""
        assert parcel.data == said or (
            len(parcel.data) > SEALED_BYTES_MAX and said.startswith(parcel.data)
        )
        (good,) = carrying.accept(1, sealed(frame(2)), {"order": b"1.0.2"})
        assert good.at_us >= min(1, clock.now_us())


def test_what_cannot_be_read_is_carried_at_once_and_counted(tmp_path: Path) -> None:
    with Carrying(tmp_path) as carrying:
        for offset, value in enumerate((b"garbage", None, sealed(frame(1, PRICE)))):
            (parcel,) = carrying.accept(offset, value)
            assert parcel.at_us == NOW_US
        assert (carrying.relay.unreadable, carrying.relay.lost) == (3, 0)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(st.tuples(st.booleans(), st.integers(1, 4), st.integers(0, 9)), max_size=20),
    late=st.booleans(),
)
def test_a_cursor_passes_nothing_that_the_broker_does_not_have_yet(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int, int]], late: bool
) -> None:
    """Half of what is sent leaves so late that it never arrives here."""
    with Carrying(tmp_path_factory.mktemp("relay"), FAULTY) as carrying:
        offset = given = certain = 0
        for accepts, gap, more in steps:
            if accepts:
                offset += gap
                left_us = NOW_US if late and offset % 2 else 1
                carrying.accept(offset, sealed(frame(offset)), {"order": b"%d.0.1" % left_us})
            else:
                certain = min(given, certain + more)
                carrying.deliver(certain)
                given = carrying.relay.carried

            waiting = {one.offset for one in carrying.relay._heap}
            uncertain = {one.offset for number, one in carrying.relay._delivering}
            held = waiting | uncertain
            source = carrying.source()
            assert set(source.under_way) == held
            assert source.read == (offset + 1 if offset else 0)
            assert source.cursor == min(held, default=source.read)
            assert all(number > certain for number, _ in carrying.relay._delivering)


def test_a_relay_that_starts_again_carries_what_was_under_way_at_the_same_times(
    tmp_path: Path,
) -> None:
    values = [sealed(frame(seq)) for seq in range(60)]
    orders = [{"order": b"%d.0.1" % (NOW_US - 60 * SECOND_US + seq)} for seq in range(60)]
    with Carrying(tmp_path, FAULTY) as carrying:
        first = {seq: carrying.accept(seq, values[seq], orders[seq]) for seq in range(1, 60)}
        carrying.deliver(10**6)
        carrying.relay._save()
        cursor = carrying.source().cursor
    assert 1 <= cursor < 60

    with Carrying(tmp_path, FAULTY) as carrying:
        assert carrying.source().read == cursor
        for seq in range(cursor, 60):
            again = carrying.accept(seq, values[seq], orders[seq])
            assert [(one.at_us, one.headers) for one in again] == [
                (one.at_us, one.headers) for one in first[seq]
            ]


# --- an operator's word -----------------------------------------------------------------

CONTROL = ROUTES[LINK_TOPIC]
SLOW = LinkChanged(source=BASE, target=HUB, latency="constant:900s")


def word(change: Message = SLOW, sent_us: int = 50, **fields: Any) -> Envelope:
    return msgspec.structs.replace(frame(0, CONTROL, sent_us, change), **fields)


def arrival_s(carrying: Carrying, offset: int, left_us: int) -> float:
    """Return how long a frame that leaves then is under way."""
    (parcel,) = carrying.accept(offset, sealed(frame(offset)), {"order": b"%d.0.1" % left_us})
    return (parcel.at_us - left_us) / SECOND_US


def test_an_operator_slows_a_link_from_a_time_on_and_no_other(tmp_path: Path) -> None:
    with Carrying(tmp_path, LinkPolicy(latency=Constant(value_s=3.0))) as carrying:
        carrying.control(sealed(word()))
        carrying.control(
            sealed(word(msgspec.structs.replace(SLOW, latency="constant:60s"), sent_us=90))
        )
        carrying.control(sealed(word()))  # the first again

        found = [
            arrival_s(carrying, place, left_us) for place, left_us in enumerate((49, 50, 89, 90), 1)
        ]
        (other,) = carrying.accept(1, sealed(frame(1, PRICE)), {"order": b"90.0.1"}, PRICE)
    assert found == [3, 900, 900, 60]
    assert other.at_us - 90 == 3 * SECOND_US


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"garbage",
        encode_frame(word()),
        sealed(word(), HUB),
        sealed(word(Acknowledged())),
        sealed(word(receiver=HUB)),
        sealed(word(msgspec.structs.replace(SLOW, latency="soon"))),
        sealed(word(msgspec.structs.replace(SLOW, latency="constant:-3s"))),
        sealed(word(msgspec.structs.replace(SLOW, source=NodeId("moon")))),
        sealed(word(msgspec.structs.replace(SLOW, source=HUB, target=HUB))),
    ],
)
def test_a_word_that_is_no_operators_or_makes_no_sense_changes_nothing(
    tmp_path: Path, value: bytes | None
) -> None:
    with Carrying(tmp_path, LinkPolicy(latency=Constant(value_s=3.0))) as carrying:
        carrying.control(value)

        (letter,) = carrying.relay._heap
        assert (letter.topic, letter.at_us, letter.data) == ("dlq.relay", NOW_US, value or b"")
        assert {"topic": b"ctl.relay", "offset": b"0"}.items() <= headers_of(letter).items()
        assert b"expected " in headers_of(letter)["why"]
        check_fits(letter)
        assert [arrival_s(carrying, place, 99) for place in (1, 2, 3)] == [3, 3, 3]


def test_words_are_heard_again_at_each_start_and_refused_once(tmp_path: Path) -> None:
    words = [b"garbage", sealed(word()), b"more garbage"]
    letters, delays_s = [], []
    for _ in range(3):
        with Carrying(tmp_path, LinkPolicy(latency=Constant(value_s=3.0))) as carrying:
            for offset, value in enumerate(words):
                carrying.control(value, offset)
            letters.append([one.data for one in carrying.relay._heap])
            delays_s.append(arrival_s(carrying, 1, 99))
            carrying.deliver(certain=len(carrying.relay._heap))
            carrying.relay._save()
    assert letters == [[b"garbage", b"more garbage"], [], []]
    assert delays_s == [900] * 3


def test_a_refused_word_is_refused_again_until_the_broker_has_its_dead_letter(
    tmp_path: Path,
) -> None:
    for certain in (0, 1, 1):
        with Carrying(tmp_path) as carrying:
            carrying.control(b"garbage", 5)
            found = len(carrying.relay._heap)
            carrying.deliver(certain)
            carrying.relay._save()
            assert carrying.store.cursors()[LINK_TOPIC] == (6 if certain else 5)
    assert found == 0


def test_what_was_under_way_when_a_topic_began_anew_does_not_hold_its_cursor(
    tmp_path: Path,
) -> None:
    """Offsets begin at 0 again, so an old parcel's offset may be a new frame's too."""
    with Carrying(tmp_path) as carrying:
        old = frame(1)
        carrying.accept(7, sealed(old), {"order": b"1.0.1"})
        carrying.deliver(certain=0)
        carrying.source().begin(0)
        (fresh,) = carrying.accept(7, sealed(frame(2)), {"order": b"%d.0.2" % NOW_US})
        carrying.deliver(certain=1)
        assert carrying.source().under_way == {fresh.offset: 1}
        assert carrying.source().cursor == 7


def test_only_what_travels_between_chains_goes_through_the_relay() -> None:
    assert {route.family for route in ROUTES.values() if route.relayed} == {
        Family.MARGIN_STATE,
        Family.RESERVATION,
        Family.LIQUIDATION,
        Family.PRICE,
    }
    assert CONTROL.receiver == RELAY
