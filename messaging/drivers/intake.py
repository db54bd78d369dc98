"""Read topics, check every frame, and hand events out in order of their time.

An event waits until every topic has been read up to what was written after the event's own time,
and a while longer for what may still be on its way into a topic. Then nothing older can come, and
a live run handles what the same run in virtual time would. Rules P25, P28, P69 of
docs/protocol.md.
"""

import heapq
import time
from bisect import insort
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from messaging.drivers import reader
from messaging.drivers.clock import Clock
from messaging.envelope import Envelope
from messaging.errors import FrameRefused, InputLost
from messaging.headers import AT, DELIVERY, read_order
from messaging.identity import SEALED_BYTES_MAX, Link, Opened, Verifier
from messaging.link_control import KeyRotated
from messaging.node import Poisoned
from messaging.poison import FramePoisoned, Reader, read_frame
from messaging.topics import Route
from messaging.units import Micros, NodeId

FETCHED_MAX = 1_000  # records taken from the client at a time
WAITING_MAX = 5_000  # records of a topic in memory; beyond that it is not read on
WHY_MAX = 300  # characters of a reason: a dead letter must fit into its topic
NEVER = Micros(-(2**62))

log = structlog.get_logger()

# Where an event stands: due, DELIVERY, sent, what caused it, rank of its sender, sender's count.
Place: TypeAlias = tuple[Micros, int, int, int, int, int]


class Stream:
    """One topic that a node reads.

    Attributes:
        read: offset to fetch next.
        clear_us: scenario time up to which all that was written has been read.
    """

    def __init__(self, route: Route, offset: int) -> None:
        self.route = route
        self.partition = TopicPartition(route.read_from, 0)
        self.read = offset
        self.clear_us = NEVER
        self.paused = False
        self.waiting: dict[int, None] = {}  # offsets read and not handled, in order
        self.row: deque[Arrival] = deque()  # the same, in order of their place
        self._vouched: dict[bytes, bytes] = {}

    @property
    def cursor(self) -> int:
        """Return the offset below which everything has been handled."""
        return next(iter(self.waiting), self.read)

    def check(
        self,
        records: Sequence[ConsumerRecord],
        verifier: Verifier,
        rank: int,
        clock: Clock,
        read: Reader = read_frame,
    ) -> Iterator["Arrival"]:
        """Yield records, checked; from now on they wait."""
        now_us = clock.now_us()
        values = [record.value or b"" for record in records]
        sender = self.route.sender
        opened = verifier.open_row(values, sender, self._vouched)
        for number, (record, value) in enumerate(zip(records, values, strict=True), start=1):
            found = opened[number - 1]
            headers, offset = {name: word or b"" for name, word in record.headers}, record.offset
            self.waiting[offset] = None
            try:
                if isinstance(found, FrameRefused):
                    raise found
                frame = read(found.sealed, value, self.route)
                if type(frame.message) is KeyRotated:  # those behind it are under a key unknown
                    verifier.learn(frame, frame.message)
                    opened[number:] = verifier.open_row(values[number:], sender, self._vouched)
            except FrameRefused as error:
                refused = self._refused(offset, rank, value, str(error))
                if isinstance(error, FramePoisoned) and isinstance(found, Opened):
                    refused = refused._replace(poison=error.event, link=found.link)
                yield refused
                continue
            order = read_order(headers, frame)
            due_us = Micros(min(_number(headers.get(AT), frame.sent_us), now_us))
            place: Place = (due_us, DELIVERY, order.left_us, order.cause, rank, order.number)
            yield Arrival(place, self, offset, frame, value, _NO_REASON, found.link)
        self.read = records[-1].offset + 1
        # The writer sets the time of a record, so it may be anything.
        written_us = clock.at_us(records[-1].timestamp * 1_000_000)
        self.clear_us = max(self.clear_us, min(written_us, now_us))

    def skip(self, rank: int, until: int) -> "Arrival":
        """Pass over what cannot be taken apart, up to an offset; return a dead letter about it."""
        offset, self.read = self.read, until
        self.waiting[offset] = None
        return self._refused(offset, rank, b"", f"expected records, found none up to {until}")

    def _refused(self, offset: int, rank: int, value: bytes, reason: str) -> "Arrival":
        why = self.why(offset, reason)
        place: Place = (Micros(0), DELIVERY, 0, 0, rank, offset)
        return Arrival(place, self, offset, None, value[:SEALED_BYTES_MAX], why)

    def why(self, offset: int, reason: str) -> Mapping[str, str]:
        """Return what a dead letter says beside the bytes."""
        return {"topic": self.partition.topic, "offset": str(offset), "why": _line(reason)}

    def __lt__(self, other: "Stream") -> bool:
        """Stand before another: what claims the same place on two topics goes by the topic."""
        return self.partition.topic < other.partition.topic  # type: ignore[no-any-return]


class Arrival(NamedTuple):
    """One record of a topic, checked.

    Attributes:
        place: where it stands among all events.
        stream, offset: the topic it is from, and where it stood there.
        frame, data: the frame, and the bytes as they came; None if it is refused.
        why: why it is refused, with where it stood, for the dead letters.
        link: what ties the frame into its stream; None if it is refused.
        poison: what it is if its sender has signed it and it cannot be read.
    """

    place: Place
    stream: Stream
    offset: int
    frame: Envelope | None
    data: bytes
    why: Mapping[str, str]
    link: Link | None = None
    poison: Poisoned | None = None

    def because(self, reason: str) -> Mapping[str, str]:
        """Return what a dead letter about it says."""
        return self.stream.why(self.offset, reason)


class Intake:
    """All topics that a node reads, by one consumer.

    Attributes:
        heads: of each topic with records that are not handled yet the first, checked; a heap.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        streams: Iterable[Stream],
        verifier: Verifier,
        ranks: Mapping[NodeId, int],
        clock: Clock,
        read: Reader = read_frame,
    ) -> None:
        self.streams = {stream.partition: stream for stream in streams}
        self.heads: list[Arrival] = []
        self._consumer = consumer
        self._verifier = verifier
        self._ranks = ranks
        self._clock = clock
        self._read = read
        self._began_s = time.time()
        self._why = ""
        consumer.assign(list(self.streams))
        for partition, stream in self.streams.items():
            consumer.seek(partition, stream.read)

    async def fetch(self, wait_ms: int) -> bool:
        """Take in what has come, waiting at most so long; tell whether anything has.

        Raises:
            InputLost: messages are gone that nobody will send again.
        """
        try:
            fetched = await self._consumer.getmany(timeout_ms=wait_ms, max_records=FETCHED_MAX)
        except OffsetOutOfRangeError as error:
            await self._find_place(error.args[0])
            return False
        except reader.UNREADABLE:
            fetched = await self._read_around()
        except KafkaError as error:  # such as no leave to read; then it is silent about the topic
            self._why = f": {error or type(error).__name__}"
            return False
        for partition, records in fetched.items():
            self._take_in(partition, records)
        for partition, stream in self.streams.items():
            self._note_clear(partition, stream)
        return bool(fetched)

    def _take_in(self, partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        stream = self.streams[partition]
        rank = self._ranks[stream.route.sender]
        for arrival in stream.check(records, self._verifier, rank, self._clock, self._read):
            self._put(arrival)
        if len(stream.waiting) > WAITING_MAX and not stream.paused:
            self._consumer.pause(partition)
            stream.paused = True

    def _put(self, arrival: Arrival) -> None:
        row, heads = arrival.stream.row, self.heads
        if not row:
            row.append(arrival)
            heapq.heappush(heads, arrival)
        elif row[-1] < arrival:  # nearly always: a topic is written in order of time
            row.append(arrival)
        else:
            insort(row, arrival)
            if row[0] is arrival:
                heads[:] = [head.stream.row[0] for head in heads]
                heapq.heapify(heads)

    async def _read_around(self) -> dict[TopicPartition, list[ConsumerRecord]]:
        """Return what can be read; what cannot is noted as a dead letter."""
        positions = {
            partition: stream.read
            for partition, stream in self.streams.items()
            if not stream.paused
        }
        try:
            found = await reader.read_around(self._consumer, positions, FETCHED_MAX)
        except KafkaError:
            for partition, offset in positions.items():
                self._consumer.seek(partition, offset)
            return {}
        for partition, (_, until) in found.skipped.items():
            if records := found.records.pop(partition, None):
                self._take_in(partition, records)
            stream = self.streams[partition]
            self._put(stream.skip(self._ranks[stream.route.sender], until))
        return found.records

    def silence(self) -> str:
        """Return which topic the broker has been silent about for long, or nothing."""
        read = [one for one, stream in self.streams.items() if not stream.paused]
        line = reader.silence(self._consumer, read, self._began_s, time.time())
        return line and line + self._why

    def _note_clear(self, partition: TopicPartition, stream: Stream) -> None:
        heard_ms = self._consumer.last_poll_timestamp(partition)
        if heard_ms is not None and self._consumer.highwater(partition) == stream.read:
            stream.clear_us = max(stream.clear_us, self._clock.at_us(heard_ms * 1_000_000))

    async def _find_place(self, lost: Mapping[TopicPartition, int]) -> None:
        """Go on where a topic still has something: it was truncated, or made anew (P8, P58)."""
        for partition, found in (await reader.beginnings(self._consumer, lost)).items():
            stream, offset = self.streams[partition], lost[partition]
            # From a channel's gap its sender is asked again; an order is never sent again.
            if stream.route.ordered:
                raise InputLost(
                    f"{partition.topic}: expected offset {offset}, found the topic to begin at "
                    f"{found}: orders between are lost"
                )
            log.warning("topic_gap", topic=partition.topic, expected=offset, found=found)
            # Its offsets may begin again, so what still waits is not of this stream.
            fresh = self.streams[partition] = Stream(stream.route, found)
            fresh.clear_us = stream.clear_us
            self._consumer.seek(partition, found)

    def clear_us(self) -> Micros:
        """Return the time up to which all that was written to any topic has been read."""
        return min(stream.clear_us for stream in self.streams.values())

    def take(self) -> Arrival:
        """Take the record that comes first."""
        stream = self.heads[0].stream
        arrival = stream.row.popleft()
        if stream.row:
            heapq.heapreplace(self.heads, stream.row[0])
        else:
            heapq.heappop(self.heads)
        del stream.waiting[arrival.offset]
        if stream.paused and len(stream.waiting) < WAITING_MAX // 2:
            self._consumer.resume(stream.partition)
            stream.paused = False
        return arrival


_NO_REASON: Mapping[str, str] = {}


def _line(reason: str) -> str:
    """Return a reason as one line that is not too long."""
    line = " ".join(reason.split())
    return line if len(line) <= WHY_MAX else line[: WHY_MAX - 3] + "..."


def _number(text: bytes | None, default: int) -> int:
    """Return a header's number; one that is none, from the writer of a relay's topic, is 0."""
    return int(text) if text and text.isdigit() and len(text) < 20 else default
