"""The bridges of a live stack: carry each frame to its reader, as late as the dice say.

The relay can delay, lose and repeat, but not forge: it does not change a byte, and readers
check the seals. It draws what the virtual driver draws for the same frame, for a draw depends on
(seed, channel, number) alone. It keeps nothing but cursors: after a crash it reads again what it
had not delivered, and carries some of it twice.
"""

import asyncio
import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from messaging.codec import decode_frame
from messaging.drivers import client
from messaging.drivers.client import Connection
from messaging.drivers.clock import Clock
from messaging.drivers.publisher import Publisher
from messaging.durable import AT, read_order
from messaging.envelope import Envelope
from messaging.errors import FrameRefused
from messaging.identity import Sealed, Verifier
from messaging.messages import LinkChanged
from messaging.network import LinkKey, LinkPolicy, Network
from messaging.store import Headers, Row, Store
from messaging.topics import LINK_TOPIC, Route
from messaging.units import OPERATOR, RELAY, Micros

FETCHED_MAX = 500
PENDING_MAX = 20_000  # frames of a topic on their way; beyond that it is not read on
SAVE_S = 0.5  # how often cursors are written; what a crash may carry twice
IDLE_MS, BUSY_MS = 10, 2

log = structlog.get_logger()


class Parcel(NamedTuple):
    """A frame on its way: when it arrives, and where it stood."""

    at_us: Micros
    number: int
    route: Route
    offset: int
    headers: Headers
    data: bytes


class Bridges:
    """All links as they are, and as an operator has changed them.

    A frame travels by what was in force when it was sent, so that drawing again after a crash
    gives the same.
    """

    def __init__(self, seed: int, links: Mapping[LinkKey, LinkPolicy]) -> None:
        self._seed = seed
        self._versions: dict[LinkKey, list[tuple[int, Network]]] = {
            key: [(-1, Network(seed, {key: policy}))] for key, policy in links.items()
        }

    def change(self, key: LinkKey, from_us: Micros, policy: LinkPolicy) -> None:
        """Let frames sent at or after `from_us` travel by another policy."""
        self._versions[key].append((from_us, Network(self._seed, {key: policy})))

    def arrivals(self, frame: Envelope, left_us: Micros) -> Sequence[Micros]:
        """Return when copies of a frame arrive that left at `left_us`."""
        versions = self._versions[frame.sender, frame.receiver]
        network = next(one for from_us, one in reversed(versions) if from_us <= left_us)
        return network.arrivals(frame, left_us)


class _Source:
    """One topic that the relay reads, and what of it is still on its way."""

    def __init__(self, route: Route, offset: int) -> None:
        self.route = route
        self.read = offset
        self.under_way: dict[int, int] = {}  # offset -> copies not yet delivered

    @property
    def cursor(self) -> int:
        """Return the offset below which everything has been delivered."""
        return next(iter(self.under_way), self.read)


class Relay:
    """Carries frames between the topics of the relayed routes.

    Attributes:
        carried: frames delivered. lost: frames dropped. unreadable: passed on as they are.
    """

    def __init__(
        self,
        store: Store,
        routes: Sequence[Route],
        bridges: Bridges,
        *,
        connection: Connection,
        verifier: Verifier,
        clock: Clock,
        resolve: Callable[[LinkChanged], LinkPolicy],
    ) -> None:
        """`resolve` makes a policy of an operator's words; it may raise FrameRefused."""
        self._store = store
        self._routes = [route for route in routes if route.relayed]
        self._bridges = bridges
        self._connection = connection
        self._verifier = verifier
        self._clock = clock
        self._resolve = resolve
        self._heap: list[Parcel] = []
        self._number = 0
        self._sources: dict[TopicPartition, _Source] = {}
        self._delivering: list[tuple[int, Parcel]] = []
        self._publisher = Publisher(connection, 0)
        self.carried = self.lost = self.unreadable = 0
        self.late = self.refused = 0
        self.complete = False

    @property
    def at_us(self) -> Micros:
        """Return the scenario time."""
        return self._clock.now_us()

    @property
    def events(self) -> int:
        """Return how many frames have been delivered."""
        return self.carried

    @property
    def note(self) -> str:
        """Return why the relay waits, or nothing."""
        return self._publisher.note

    async def run(self, stop: asyncio.Event, tell: Callable[[], None]) -> None:
        """Carry until `stop` is set.

        Raises:
            StoreFailed: the cursors cannot be written.
        """
        consumer = client.consumer(self._connection)
        try:
            async with self._publisher:
                if await client.started(consumer, stop, tell):
                    await self._rounds(consumer, stop, tell)
        finally:
            await consumer.stop()

    async def _rounds(
        self,
        consumer: AIOKafkaConsumer,
        stop: asyncio.Event,
        tell: Callable[[], None],
    ) -> None:
        control = TopicPartition(LINK_TOPIC, 0)
        cursors = self._store.cursors()
        for route in self._routes:
            source = _Source(route, cursors.get(route.topic, 0))
            self._sources[TopicPartition(route.topic, 0)] = source
        consumer.assign([control, *self._sources])
        consumer.seek(control, 0)  # what links are like is all the changes there have been
        for partition, source in self._sources.items():
            consumer.seek(partition, source.read)
        consumer.pause(*self._sources)
        end = (await consumer.end_offsets([control]))[control]
        saved_s = asyncio.get_running_loop().time()
        while not stop.is_set():
            await self._fetch(consumer, control)
            if self._sources and await consumer.position(control) >= end:
                consumer.resume(*self._open())
            self._deliver()
            self._settle()
            now_s = asyncio.get_running_loop().time()
            if now_s - saved_s > SAVE_S:
                self._save()
                saved_s = now_s
            tell()
            self._publisher.check()
        self._settle()
        self._save()

    def _open(self) -> list[TopicPartition]:
        """Return the topics that may be read on."""
        return [
            partition
            for partition, source in self._sources.items()
            if len(source.under_way) < PENDING_MAX
        ]

    async def _fetch(self, consumer: AIOKafkaConsumer, control: TopicPartition) -> None:
        wait_ms = IDLE_MS
        if self._heap:
            due_ms = self._clock.seconds_until(self._heap[0].at_us) * 1e3
            wait_ms = max(BUSY_MS, min(IDLE_MS, round(due_ms)))
        try:
            fetched = await consumer.getmany(timeout_ms=wait_ms, max_records=FETCHED_MAX)
        except OffsetOutOfRangeError as error:
            await self._find_place(consumer, error.args[0])
            return
        for record in fetched.pop(control, ()):
            self._change(record)
        for partition, records in fetched.items():
            source = self._sources[partition]
            for record in records:
                self._accept(source, record)
            if len(source.under_way) >= PENDING_MAX:
                consumer.pause(partition)

    async def _find_place(
        self, consumer: AIOKafkaConsumer, lost: Mapping[TopicPartition, int]
    ) -> None:
        """Go on where a topic still has something; what is gone, its readers ask for again."""
        first = await consumer.beginning_offsets(list(lost))
        for partition, offset in lost.items():
            log.warning("topic_gap", topic=partition.topic, expected=offset, found=first[partition])
            if partition in self._sources:
                self._sources[partition].read = first[partition]
            consumer.seek(partition, first[partition])

    def _accept(self, source: _Source, record: ConsumerRecord) -> None:
        """Draw when copies of a record arrive, and put them on their way."""
        source.read = record.offset + 1
        data, route, now_us = record.value or b"", source.route, self._clock.now_us()
        try:
            frame = decode_frame(_sealed.decode(data).frame)
            if (frame.sender, frame.receiver, frame.family) != route[1:4]:
                raise FrameRefused("not of this topic")
            left_us = read_order(dict(record.headers), frame).left_us
            arrivals = self._bridges.arrivals(frame, min(left_us, now_us))
        except (FrameRefused, ValueError, RecursionError):
            # Whether it is refused is for the reader to say, who keeps it as evidence.
            self.unreadable += 1
            arrivals = [now_us]
        if not arrivals:
            self.lost += 1
            return
        source.under_way[record.offset] = len(arrivals)
        for at_us in arrivals:
            self._number += 1
            headers = (*record.headers, (AT, str(max(0, at_us)).encode()))
            parcel = Parcel(at_us, self._number, route, record.offset, headers, data)
            heapq.heappush(self._heap, parcel)

    def _change(self, record: ConsumerRecord) -> None:
        """Change a link as an operator says."""
        try:
            frame = decode_frame(self._verifier.open(record.value or b"", OPERATOR).frame)
            message = frame.message
            if not isinstance(message, LinkChanged) or frame.receiver != RELAY:
                raise FrameRefused(f"expected LinkChanged, found {type(message).__name__}")
            policy = self._resolve(message)
        except FrameRefused as error:
            log.warning("refused", topic=record.topic, offset=record.offset, why=str(error))
            return
        self._bridges.change((message.source, message.target), frame.sent_us, policy)
        log.info("link_changed", from_us=frame.sent_us, **msgspec.structs.asdict(message))

    def _deliver(self) -> None:
        """Hand over what has arrived."""
        now_us, rows = self._clock.now_us(), []
        while self._heap and self._heap[0].at_us <= now_us:
            parcel = heapq.heappop(self._heap)
            number = self.carried = self.carried + 1
            headers = msgspec.msgpack.encode(parcel.headers)
            rows.append(Row(number, parcel.route.read_from, 0, headers, parcel.data))
            self._delivering.append((number, parcel))
        self._publisher.put(rows)

    def _settle(self) -> None:
        """Forget what the broker has."""
        certain = 0
        for number, parcel in self._delivering:
            if number > self._publisher.published:
                break
            certain += 1
            source = self._sources[TopicPartition(parcel.route.topic, 0)]
            copies = source.under_way[parcel.offset] - 1
            if copies:
                source.under_way[parcel.offset] = copies
            else:
                del source.under_way[parcel.offset]
        del self._delivering[:certain]

    def _save(self) -> None:
        self._store.commit(
            cursors={source.route.topic: source.cursor for source in self._sources.values()}
        )


_sealed = msgspec.msgpack.Decoder(Sealed)
