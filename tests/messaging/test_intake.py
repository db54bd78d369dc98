import heapq
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError
from hypothesis import given, settings
from hypothesis import strategies as st

from messaging.codec import encode_frame
from messaging.drivers.client import TOPIC_BYTES_MAX
from messaging.drivers.clock import Clock
from messaging.drivers.intake import FETCHED_MAX, NEVER, WAITING_MAX, Arrival, Intake, Stream
from messaging.envelope import Envelope
from messaging.errors import InputLost
from messaging.headers import DELIVERY, TIMER
from messaging.identity import NO_DIGEST, SEALED_BYTES_MAX, Signer, Verifier, domain_of
from messaging.messages import (
    Family,
    MarketMoved,
    Message,
    OrderPlaced,
    PricePublished,
    Watermark,
)
from messaging.topics import Route, routes
from messaging.units import (
    HUB,
    MARKET,
    ORACLE,
    TRADERS,
    AccountId,
    Asset,
    Height,
    Micros,
    NodeId,
    Ppm,
    Qty8,
    Usd6,
)

BASE = NodeId("base")
NODES = (MARKET, ORACLE, TRADERS, BASE, HUB)
RANKS = {name: rank for rank, name in enumerate(NODES)}
DOMAIN = domain_of("test", "intake", HUB)
SIGNERS = {name: Signer(DOMAIN, bytes([rank]) * 32) for name, rank in RANKS.items()}
VERIFIER = Verifier(DOMAIN, {name: signer.public for name, signer in SIGNERS.items()})
ROUTES = {route.topic: route for route in routes([BASE])}
TO_HUB = [route for route in ROUTES.values() if route.receiver == HUB and route.relayed]
STATE, CREDIT = ROUTES["from-base.margin-state"], ROUTES["from-base.reservation"]
PRICE, ORDER = ROUTES["price.oracle"], ROUTES["order.base"]
HEADERS_BYTES_MAX = TOPIC_BYTES_MAX - SEALED_BYTES_MAX - 1_024  # beside the largest dead letter

NOW_US = Micros(10_000_000)
AGES_NS = 10**28  # a clock that stands still: a microsecond takes it centuries
STILL = Clock(time.time_ns() - AGES_NS, (NOW_US * 1_000 + 500) / AGES_NS)


def message(route: Route) -> Message:
    """Return what has business on a route."""
    if route.family is Family.ORDER:
        whom, what = AccountId("ann"), Asset("BTC")
        return OrderPlaced(order_id=1, account=whom, asset=what, qty8=Qty8(1), close_ppm=Ppm(0))
    if route.sender == MARKET:
        return MarketMoved(prices_usd6=(Usd6(1),), depth_ppm=Ppm(1))
    if route.family is Family.PRICE:
        return PricePublished(asset=Asset("BTC"), price_usd6=Usd6(1), observed_us=Micros(0))
    return Watermark(spoke_time_us=Micros(1), open_count=0)


def frame(route: Route, seq: int = 1, sent_us: int = 5) -> Envelope:
    return Envelope(
        route.sender,
        route.receiver,
        route.family,
        seq,
        0,
        Micros(sent_us),
        Height(0),
        Height(0),
        message(route),
    )


def sealed(said: Envelope, by: NodeId | None = None) -> bytes:
    return SIGNERS[by or said.sender].seal(encode_frame(said), NO_DIGEST)[0]


def record(
    route: Route,
    offset: int,
    value: bytes | None,
    headers: Mapping[str, bytes | None] | None = None,
    at_ms: int = 0,
) -> ConsumerRecord[Any, Any]:
    return ConsumerRecord(
        topic=route.read_from,
        partition=0,
        offset=offset,
        timestamp=at_ms,
        timestamp_type=0,
        key=None,
        value=value,
        checksum=None,
        serialized_key_size=-1,
        serialized_value_size=len(value or b""),
        headers=tuple((headers or {}).items()),
    )


def checked(stream: Stream, *records: ConsumerRecord[Any, Any]) -> list[Arrival]:
    rank = RANKS[stream.route.sender]
    return list(stream.check(records, VERIFIER, rank, STILL))


def one(route: Route, value: bytes | None, **headers: bytes | None) -> Arrival:
    (found,) = checked(Stream(route, 0), record(route, 0, value, headers))
    return found


def test_the_clock_of_these_tests_stands_still() -> None:
    assert STILL.now_us() == NOW_US


# --- when -------------------------------------------------------------------------------


@given(at_us=st.integers(0, 2 * NOW_US), sent_us=st.integers(0, 2 * NOW_US))
def test_what_was_relayed_is_due_when_the_relay_says_and_never_later_than_now(
    at_us: int, sent_us: int
) -> None:
    value = sealed(frame(CREDIT, sent_us=sent_us))

    relayed = one(CREDIT, value, at_us=b"%d" % at_us, order=b"3.0.9")
    direct = one(CREDIT, value)

    assert relayed.place == (min(at_us, NOW_US), DELIVERY, 3, TIMER, RANKS[BASE], 9)
    assert direct.place == (min(sent_us, NOW_US), DELIVERY, sent_us, DELIVERY, RANKS[BASE], 0)


@pytest.mark.parametrize(
    "word", [None, b"", b"-1", b"soon", b"1.5", b" 7", b"9" * 20, "\u0663".encode(), b"\xff"]
)
def test_a_time_that_is_none_leaves_the_frame_its_own(word: bytes | None) -> None:
    assert one(CREDIT, sealed(frame(CREDIT, sent_us=70)), at_us=word).place[0] == 70


def test_a_topic_is_clear_up_to_its_newest_record_and_never_beyond_now() -> None:
    stream = Stream(CREDIT, 0)
    assert stream.clear_us == NEVER
    start_ms = time.time_ns() // 10**6
    known = []
    for offset, at_ms in enumerate([start_ms - 10**15, start_ms - 2 * 10**15, start_ms + 10**15]):
        checked(stream, record(CREDIT, offset, sealed(frame(CREDIT)), at_ms=at_ms))
        known.append(stream.clear_us)
    assert known[0] == known[1] == STILL.at_us((start_ms - 10**15) * 10**6)
    assert known[0] < known[2] <= NOW_US


# --- in which order ---------------------------------------------------------------------


class Sent(NamedTuple):
    """One frame: on which topic, when it arrives, and where it stood at its sender."""

    route: Route
    at_us: int
    left_us: int
    cause: int
    number: int


@st.composite
def sendings(draw: st.DrawFn) -> list[Sent]:
    """Draw what several senders sent; many at one time, and each with a count of its own."""
    found = []
    for number in range(1, draw(st.integers(0, 12)) + 1):
        route = draw(st.sampled_from(TO_HUB))
        at_us, left_us = draw(st.integers(0, 3)), draw(st.integers(0, 2))
        found.append(Sent(route, at_us, left_us, draw(st.sampled_from([TIMER, DELIVERY])), number))
    return found


@settings(deadline=None)
@given(sent=sendings(), dice=st.randoms(use_true_random=False))
def test_events_are_handed_out_in_the_order_of_virtual_time_however_topics_are_read(
    sent: list[Sent], dice: random.Random
) -> None:
    orders = []
    for _ in range(2):
        topics: dict[Route, list[ConsumerRecord[Any, Any]]] = {route: [] for route in TO_HUB}
        for one in sent:
            headers = {
                "order": f"{one.left_us}.{one.cause}.{one.number}".encode(),
                "at_us": str(one.at_us).encode(),
            }
            value = sealed(frame(one.route, one.number))
            row = topics[one.route]
            row.append(record(one.route, len(row) * 3, value, headers))
        batches = [route for route, row in topics.items() for _ in range(len(row))]
        dice.shuffle(batches)
        streams, heap = {route: Stream(route, 0) for route in TO_HUB}, list[Arrival]()
        for route in batches:  # one record at a time, in any order of topics
            for arrival in checked(streams[route], topics[route].pop(0)):
                heapq.heappush(heap, arrival)
        orders.append([heapq.heappop(heap) for _ in range(len(heap))])

    expected = sorted(
        sent, key=lambda one: (one.at_us, one.left_us, one.cause, RANKS[one.route.sender], one[4])
    )
    for found in orders:
        assert [(each.stream.route, each.frame.seq) for each in found if each.frame] == [
            (one.route, one.number) for one in expected
        ]


def test_what_stands_at_the_same_place_on_two_topics_is_taken_one_after_the_other() -> None:
    """Garbage at one offset of two topics, or headers that repeat, compare equal."""
    for garbage, headers in (
        (b"garbage", {}),
        (None, {"order": b"1.1.1", "at_us": b"1"}),
        (None, {}),
    ):
        heap: list[Arrival] = []
        for route in TO_HUB:
            for arrival in checked(
                Stream(route, 0),
                record(route, 7, garbage or sealed(frame(route)), headers),
                record(route, 8, garbage or sealed(frame(route)), headers),
            ):
                heapq.heappush(heap, arrival)
        found = [heapq.heappop(heap) for _ in range(len(heap))]
        assert len(found) == 2 * len(TO_HUB)
        assert {(one.stream.route, one.offset) for one in found} == {
            (route, offset) for route in TO_HUB for offset in (7, 8)
        }


# --- what is refused --------------------------------------------------------------------


ELSEWHERE = Signer(domain_of("test", "elsewhere", HUB), bytes([RANKS[BASE]]) * 32)
REFUSED: dict[str, tuple[bytes | None, str]] = {
    "nothing": (None, "expected a sealed frame, found Input data was truncated"),
    "garbage": (b"garbage", "expected a sealed frame, found "),
    "no seal": (encode_frame(frame(CREDIT)), "expected a sealed frame, found "),
    "too long": (bytes(SEALED_BYTES_MAX + 9), "expected at most 61,440 bytes, found 61,449"),
    "another's": (sealed(frame(CREDIT), HUB), "expected the key of base, found "),
    "another deployment": (
        ELSEWHERE.seal(encode_frame(frame(CREDIT)), NO_DIGEST)[0],
        "expected a frame of this deployment, found one of another",
    ),
    "lines": (
        msgspec.msgpack.encode(["a\nb\r\n", b"", b"", b"", b"", b""]),
        "expected a sealed frame, found ",
    ),
    "cut off": (sealed(frame(CREDIT))[:-1], "expected a sealed frame, found "),
    "no frame inside": (SIGNERS[BASE].seal(b"fact", NO_DIGEST)[0], "expected a frame, found "),
    "another topic's": (
        sealed(frame(STATE)),
        "expected base/hub/reservation, found base/hub/margin-state",
    ),
    "for another": (
        sealed(msgspec.structs.replace(frame(CREDIT), receiver=BASE)),
        "expected base/hub/reservation, found base/base/reservation",
    ),
    "in another's name": (
        sealed(msgspec.structs.replace(frame(CREDIT), sender=ORACLE), BASE),
        "expected base/hub/reservation, found oracle/hub/reservation",
    ),
}


@pytest.mark.parametrize(("value", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_says_where_it_stood_and_why_and_touches_nothing_else(
    value: bytes | None, why: str
) -> None:
    good = [record(CREDIT, offset, sealed(frame(CREDIT, offset + 1))) for offset in range(4)]
    expected = checked(Stream(CREDIT, 0), *good)
    stream = Stream(CREDIT, 0)

    found = checked(
        stream, *good[:2], record(CREDIT, 50, value), *good[2:], record(CREDIT, 51, value)
    )

    assert [one[2:] for one in found if one.frame] == [one[2:] for one in expected]
    letters = [one for one in found if one.frame is None]
    assert [one.offset for one in letters] == [50, 51]
    for letter in letters:
        assert letter.place[0] == 0  # due at once: it holds nothing up
        assert letter.data == (value or b"")[:SEALED_BYTES_MAX]
        assert letter.why["topic"] == "delivered.from-base.reservation"
        assert letter.why["offset"] == str(letter.offset)
        assert letter.why["why"].startswith(why)
        assert letter.why["why"].splitlines() == [letter.why["why"]]


@pytest.mark.parametrize(
    "value",
    [
        msgspec.msgpack.encode(["x" * 61_000, b"", b"", b"", b"", b""]),
        SIGNERS[BASE].seal(
            msgspec.msgpack.encode(
                ["frame.3", "base", "hub", "reservation", 1, 0, 0, 0, 0, {"type": "x" * 60_000}]
            ),
            NO_DIGEST,
        )[0],
        bytes(TOPIC_BYTES_MAX),
    ],
)
def test_every_dead_letter_is_small_enough_for_its_topic(value: bytes) -> None:
    """One that the broker refuses would be published again for ever, and all behind it wait."""
    letter = one(CREDIT, value)
    assert letter.frame is None
    assert len(letter.data) <= SEALED_BYTES_MAX
    assert sum(len(key) + len(word.encode()) for key, word in letter.why.items()) < (
        HEADERS_BYTES_MAX
    )


def test_what_cannot_even_be_taken_apart_is_a_dead_letter_too() -> None:
    stream = Stream(CREDIT, 0)
    checked(stream, record(CREDIT, 3, sealed(frame(CREDIT))))

    letter = stream.skip(RANKS[BASE], 9)

    assert (letter.frame, letter.data, letter.offset, letter.place[0]) == (None, b"", 4, 0)
    assert letter.why["offset"] == "4"
    assert (stream.read, list(stream.waiting)) == (9, [3, 4])


# --- cursors ----------------------------------------------------------------------------


class Topics:
    """What a broker keeps of some topics, read as aiokafka's consumer reads it.

    Attributes:
        kept: records by topic. begins: first offset that is not truncated.
        paused: topics that are not read on.
    """

    def __init__(self) -> None:
        self.kept: dict[TopicPartition, list[ConsumerRecord[Any, Any]]] = {}
        self.begins: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()
        self.heard_ms: int | None = None
        self._at: dict[TopicPartition, int] = {}

    def put(self, route: Route, *values: bytes, first: int | None = None) -> None:
        row = self.kept.setdefault(TopicPartition(route.read_from, 0), [])
        start = (row[-1].offset + 1 if row else 0) if first is None else first
        row += [record(route, start + place, value) for place, value in enumerate(values)]

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            self.kept.setdefault(partition, [])
            self._at[partition] = -1

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._at[partition] = offset

    def pause(self, *partitions: TopicPartition) -> None:
        self.paused |= set(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self.paused -= set(partitions)

    def highwater(self, partition: TopicPartition) -> int:
        row = self.kept[partition]
        return row[-1].offset + 1 if row else self._at[partition]

    def last_poll_timestamp(self, partition: TopicPartition) -> int | None:
        return self.heard_ms

    async def beginning_offsets(
        self, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, int]:
        return {one: self.begins.get(one, 0) for one in partitions}

    async def getmany(
        self, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[ConsumerRecord[Any, Any]]]:
        found: dict[TopicPartition, list[ConsumerRecord[Any, Any]]] = {}
        for partition, row in self.kept.items():
            at = self._at[partition]
            if at < self.begins.get(partition, 0):
                raise OffsetOutOfRangeError({partition: at})
            new = [one for one in row if one.offset >= at][:max_records]
            if new and partition not in self.paused:
                found[partition] = new
                self._at[partition] = new[-1].offset + 1
                max_records -= len(new)
        return found


def intake(topics: Topics, *found: Route, cursors: Mapping[str, int] | None = None) -> Intake:
    streams = [Stream(route, (cursors or {}).get(route.topic, 0)) for route in found]
    return Intake(topics, streams, VERIFIER, RANKS, STILL)


def waiting(taking: Intake) -> int:
    return sum(len(stream.row) for stream in taking.streams.values())


def cursors_of(taking: Intake) -> dict[str, int]:
    return {stream.route.topic: stream.cursor for stream in taking.streams.values()}


async def fetched(
    topics: Topics, *found: Route, cursors: Mapping[str, int] | None = None
) -> Intake:
    taking = intake(topics, *found, cursors=cursors)
    assert await taking.fetch(0)
    return taking


async def test_a_cursor_passes_nothing_that_is_not_handled_and_a_restart_reads_the_rest() -> None:
    dice, topics = random.Random(3), Topics()
    for route in TO_HUB:
        for seq in range(1, 30):
            value = sealed(frame(route, seq, sent_us=dice.randrange(50)))
            # Offsets have gaps where a transaction or a compaction left none.
            first = seq * 5 + dice.randrange(5)
            topics.put(route, b"garbage" if seq % 7 == 0 else value, first=first)
    known = {(partition.topic, one.offset) for partition, row in topics.kept.items() for one in row}
    handled: set[tuple[str, int]] = set()
    cursors: dict[str, int] = dict.fromkeys((route.topic for route in TO_HUB), 0)
    while len(handled) < len(known):
        # A restart: what lies behind a cursor and was handled before is handed out again.
        taking = await fetched(topics, *TO_HUB, cursors=cursors)
        for _ in range(min(dice.randrange(200), waiting(taking))):
            arrival = taking.take()
            handled.add((arrival.stream.partition.topic, arrival.offset))
            cursors = cursors_of(taking)
            for topic, offset in known - handled:
                assert cursors[topic.removeprefix("delivered.")] <= offset
    assert handled == known
    assert all(cursors[route.topic] > 140 for route in TO_HUB)


async def test_events_of_one_fetch_are_taken_in_order_with_the_dead_letters_first() -> None:
    topics = Topics()
    topics.put(PRICE, *(sealed(frame(PRICE, seq, 100 - seq)) for seq in (1, 2, 3)), b"garbage")
    topics.put(STATE, sealed(frame(STATE, 1, 98)), b"garbage")
    taking = await fetched(topics, PRICE, STATE)

    found = [taking.take() for _ in range(6)]

    assert [(one.frame and one.frame.sent_us) for one in found] == [None, None, 97, 98, 98, 99]
    assert [one.stream.route.sender for one in found[3:5]] == [ORACLE, BASE]  # by rank
    assert not taking.heads


async def test_a_flood_on_one_topic_is_left_at_the_broker_and_read_later() -> None:
    topics, count = Topics(), 2 * WAITING_MAX + 5 * FETCHED_MAX
    topics.put(CREDIT, *(b"garbage %d" % number for number in range(count)))
    topics.put(STATE, sealed(frame(STATE)))
    flooded = intake(topics, CREDIT, STATE)
    stream, other = flooded.streams.values()
    read, taken, most = [], 0, 0
    while taken <= count:
        while await flooded.fetch(0):
            most = max(most, len(stream.waiting))
        read.append(stream.read)
        assert topics.paused == ({stream.partition} if stream.read < count else set())
        for _ in range(min(WAITING_MAX, waiting(flooded))):
            flooded.take()
            taken += 1
    assert read[0] < read[1] < count
    assert WAITING_MAX < most <= WAITING_MAX + FETCHED_MAX
    assert (stream.cursor, other.cursor) == (count, 1)


async def test_time_is_clear_only_up_to_what_every_topic_has_been_heard_of() -> None:
    topics = Topics()
    topics.put(CREDIT, sealed(frame(CREDIT)))
    taking = intake(topics, CREDIT, STATE, PRICE)
    assert taking.clear_us() == NEVER
    await taking.fetch(0)
    assert taking.clear_us() == NEVER  # nothing has been heard of the idle ones

    topics.heard_ms = time.time_ns() // 10**6 - 10**15
    await taking.fetch(0)
    assert taking.clear_us() == STILL.at_us(topics.heard_ms * 10**6)

    before = taking.clear_us()
    topics.put(PRICE, sealed(frame(PRICE)))
    topics.pause(TopicPartition(PRICE.read_from, 0))
    topics.heard_ms += 10**14
    await taking.fetch(0)
    assert taking.clear_us() == before  # one has something that is not read yet


async def test_orders_that_are_lost_end_the_node_and_lost_frames_are_asked_for_again() -> None:
    for route in (ORDER, ROUTES["market.base"]):
        topics = Topics()
        topics.put(route, b"", b"", b"", first=90)
        topics.begins[TopicPartition(route.topic, 0)] = 90
        with pytest.raises(InputLost, match=f"{route.topic}: expected offset 7, found the topic"):
            await fetched(topics, route, cursors={route.topic: 7})

    for route in (CREDIT, STATE, PRICE):
        topics = Topics()
        topics.put(route, *(sealed(frame(route, seq)) for seq in (1, 2)), first=90)
        topics.begins[TopicPartition(route.read_from, 0)] = 90
        taking = intake(topics, route, cursors={route.topic: 7})
        assert not await taking.fetch(0)
        assert cursors_of(taking) == {route.topic: 90}
        assert await taking.fetch(0)
        assert [taking.take().offset for _ in range(2)] == [90, 91]
        assert cursors_of(taking) == {route.topic: 92}


def test_only_what_comes_over_one_broker_alone_comes_in_order() -> None:
    ordered = {route.topic for route in ROUTES.values() if route.ordered}
    assert ordered == {"order.base", "market.base"}
    assert all(ROUTES[topic].read_from == topic for topic in ordered)
    assert Family.ORDER not in {route.family for route in TO_HUB}
