"""The bridges of a live stack: carry each frame to its reader, as late as the dice say.

The relay can delay, lose and repeat, but not forge: it does not change a byte, and readers
check the seals. It draws what the virtual driver draws for the same frame, for a draw depends on
(seed, channel, number) alone. It keeps nothing but cursors: after a crash it reads again what it
had not delivered, and carries some of it twice.
"""

import asyncio
import heapq
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from messaging.codec import decode_frame
from messaging.drivers import client, reader
from messaging.drivers.client import Connection
from messaging.drivers.clock import Clock
from messaging.drivers.publisher import Publisher
from messaging.envelope import Envelope
from messaging.errors import FrameRefused
from messaging.headers import AT, ORDER, TRACE, read_order
from messaging.identity import SEALED_BYTES_MAX, Sealed, Verifier
from messaging.messages import Family, LinkChanged
from messaging.network import LinkKey, LinkPolicy, Network
from messaging.store import Headers, Row, Store
from messaging.topics import LINK_TOPIC, Route, dead_letters
from messaging.units import OPERATOR, RELAY, Micros

FETCHED_MAX = 500
PENDING_MAX = 20_000  # frames of a topic on their way; beyond that it is not read on
SAVE_S = 0.5  # how often cursors are written; what a crash may carry twice
IDLE_MS, BUSY_MS = 10, 2
CARRIED_BYTES_MAX = SEALED_BYTES_MAX + 1  # enough for the reader to see that it is too long
HEADER_BYTES_MAX, WHY_MAX = 64, 300
CONTROL = TopicPartition(LINK_TOPIC, 0)

log = structlog.get_logger()


class Parcel(NamedTuple):
    """A frame on its way: when it arrives, where it stood, and the topic it goes to.

    Attributes:
        life: of the source, as in `_Source`.
    """

    at_us: Micros
    number: int
    route: Route
    offset: int
    headers: Headers
    data: bytes
    topic: str
    life: int


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
        """Let frames sent at or after `from_us` travel by another policy; said again, nothing."""
        versions = self._versions[key]
        place = bisect_left([known_us for known_us, _ in versions], from_us)
        if place == len(versions) or versions[place][0] != from_us:
            versions.insert(place, (from_us, Network(self._seed, {key: policy})))

    def arrivals(self, frame: Envelope, left_us: Micros) -> Sequence[Micros]:
        """Return when copies of a frame arrive that left at `left_us`."""
        versions = self._versions[frame.sender, frame.receiver]
        found = (one for from_us, one in reversed(versions) if from_us <= left_us)
        network = next(found, versions[0][1])
        return network.arrivals(frame, left_us)


class _Source:
    """One topic that the relay reads, and what of it is still on its way.

    Attributes:
        life: how often its offsets have begun again.
    """

    def __init__(self, route: Route, offset: int) -> None:
        self.route = route
        self.read = offset
        self.under_way: dict[int, int] = {}  # offset -> copies not yet delivered
        self.life = 0

    def begin(self, offset: int) -> None:
        """Go on elsewhere; what is on its way counts no more, for offsets may come again."""
        self.read, self.under_way, self.life = offset, {}, self.life + 1

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
        control = Route(LINK_TOPIC, OPERATOR, RELAY, Family.CONTROL, False)
        self._control = _Source(control, store.cursors().get(LINK_TOPIC, 0))
        self._began_s = 0.0
        self._silence = ""
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
        return self._silence or self._publisher.note

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
            await client.stop(consumer)

    async def _rounds(
        self,
        consumer: AIOKafkaConsumer,
        stop: asyncio.Event,
        tell: Callable[[], None],
    ) -> None:
        self._began_s = time.time()
        cursors = self._store.cursors()
        for route in self._routes:
            source = _Source(route, cursors.get(route.topic, 0))
            self._sources[TopicPartition(route.topic, 0)] = source
        consumer.assign([CONTROL, *self._sources])
        consumer.seek(CONTROL, 0)  # what links are like is all the changes there have been
        for partition, source in self._sources.items():
            consumer.seek(partition, source.read)
        consumer.pause(*self._sources)
        end = await self._control_end(consumer, stop, tell)
        saved_s = asyncio.get_running_loop().time()
        while not stop.is_set():
            await self._fetch(consumer)
            opened = await consumer.position(CONTROL) >= end
            if opened:
                consumer.resume(*self._open())
            self._deliver()
            self._settle()
            now_s = asyncio.get_running_loop().time()
            if now_s - saved_s > SAVE_S:
                self._save()
                saved_s = now_s
            self._listen(consumer, [CONTROL, *self._open()] if opened else [CONTROL])
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

    def _listen(self, consumer: AIOKafkaConsumer, read: Iterable[TopicPartition]) -> None:
        """Note which of the topics that are read the broker is silent about."""
        self._silence = reader.silence(consumer, read, self._began_s, time.time())

    async def _control_end(
        self, consumer: AIOKafkaConsumer, stop: asyncio.Event, tell: Callable[[], None]
    ) -> int:
        """Return where the operator's words end, once the broker says."""
        while not stop.is_set():
            try:
                end = int((await consumer.end_offsets([CONTROL]))[CONTROL])
            except KafkaError:
                self._listen(consumer, [CONTROL])
                tell()
                continue
            if end < self._control.read:
                expected = self._control.read
                log.warning("topic_gap", topic=LINK_TOPIC, expected=expected, found=end)
                self._control.begin(end)
            return end
        return 0

    async def _fetch(self, consumer: AIOKafkaConsumer) -> None:
        wait_ms = IDLE_MS
        if self._heap:
            due_ms = self._clock.seconds_until(self._heap[0].at_us) * 1e3
            wait_ms = max(BUSY_MS, min(IDLE_MS, round(due_ms)))
        try:
            fetched = await consumer.getmany(timeout_ms=wait_ms, max_records=FETCHED_MAX)
        except OffsetOutOfRangeError as error:
            await self._find_place(consumer, error.args[0])
            return
        except reader.UNREADABLE:
            fetched = await self._read_around(consumer)
        except KafkaError:  # such as no leave to read; then it is silent about the topic
            return
        for record in fetched.pop(CONTROL, ()):
            self._change(record)
        for partition, records in fetched.items():
            source = self._sources[partition]
            for record in records:
                self._accept(source, record)
            if len(source.under_way) >= PENDING_MAX:
                consumer.pause(partition)

    async def _read_around(
        self, consumer: AIOKafkaConsumer
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        """Return what can be read; what cannot leaves a gap, and its reader asks for more."""
        paused = consumer.paused()
        positions = {one: it.read for one, it in self._sources.items() if one not in paused}
        positions[CONTROL] = self._control.read
        try:
            found = await reader.read_around(consumer, positions, FETCHED_MAX)
        except KafkaError:
            for partition, offset in positions.items():
                consumer.seek(partition, offset)
            return {}
        for partition, (bad, until) in found.skipped.items():
            log.warning("unreadable", topic=partition.topic, offset=bad, until=until)
            self._sources.get(partition, self._control).read = until
        return found.records

    async def _find_place(
        self, consumer: AIOKafkaConsumer, lost: Mapping[TopicPartition, int]
    ) -> None:
        """Go on where a topic still has something; what is gone, its readers ask for again."""
        for partition, found in (await reader.beginnings(consumer, lost)).items():
            expected = lost[partition]
            log.warning("topic_gap", topic=partition.topic, expected=expected, found=found)
            self._sources.get(partition, self._control).begin(found)
            consumer.seek(partition, found)

    def _accept(self, source: _Source, record: ConsumerRecord) -> None:
        """Draw when copies of a record arrive, and put them on their way."""
        source.read = max(source.read, record.offset + 1)
        data, route, now_us = record.value or b"", source.route, self._clock.now_us()
        kept = _kept(record.headers)
        try:
            frame = decode_frame(_sealed.decode(data).frame)
            route.check(frame)
            left_us = read_order(dict(kept), frame).left_us
            arrivals = self._bridges.arrivals(frame, Micros(min(left_us, now_us)))
        except (FrameRefused, ValueError, RecursionError):
            # Whether it is refused is for the reader to say, who keeps it as evidence.
            self.unreadable += 1
            arrivals = [now_us]
        if not arrivals:
            self.lost += 1
            return
        source.under_way[record.offset] = len(arrivals)
        for at_us in arrivals:
            headers = (*kept, (AT, str(max(0, at_us)).encode()))
            self._send(source, record, at_us, headers, route.read_from)

    def _send(
        self,
        source: _Source,
        record: ConsumerRecord,
        at_us: Micros,
        headers: Headers,
        topic: str,
        most_bytes: int = CARRIED_BYTES_MAX,
    ) -> None:
        self._number += 1
        data = (record.value or b"")[:most_bytes]
        where = source.route, record.offset
        parcel = Parcel(at_us, self._number, *where, headers, data, topic, source.life)
        heapq.heappush(self._heap, parcel)

    def _change(self, record: ConsumerRecord) -> None:
        """Change a link as an operator says."""
        source, is_new = self._control, record.offset >= self._control.read
        source.read = max(source.read, record.offset + 1)
        try:
            frame = decode_frame(self._verifier.open(record.value or b"", OPERATOR).frame)
            message = frame.message
            source.route.check(frame)
            if not isinstance(message, LinkChanged):
                raise FrameRefused(f"expected LinkChanged, found {type(message).__name__}")
            policy = self._resolve(message)
        except FrameRefused as error:
            if is_new:  # all words are read again at each start
                self._refuse(record, str(error)[:WHY_MAX])
            return
        self._bridges.change((message.source, message.target), frame.sent_us, policy)
        log.info("link_changed", from_us=frame.sent_us, **msgspec.structs.asdict(message))

    def _refuse(self, record: ConsumerRecord, reason: str) -> None:
        """Put what is no operator's word to the dead letters (P28)."""
        self.refused += 1
        why = {"topic": record.topic, "offset": str(record.offset), "why": reason}
        log.warning("refused", **why)
        headers = tuple((name, word.encode()) for name, word in why.items())
        self._control.under_way[record.offset] = 1
        where, now_us = dead_letters(RELAY), self._clock.now_us()
        self._send(self._control, record, now_us, headers, where, SEALED_BYTES_MAX)

    def _deliver(self) -> None:
        """Hand over what has arrived."""
        now_us, rows = self._clock.now_us(), []
        while self._heap and self._heap[0].at_us <= now_us:
            parcel = heapq.heappop(self._heap)
            number = self.carried = self.carried + 1
            headers = msgspec.msgpack.encode(parcel.headers)
            rows.append(Row(number, parcel.topic, 0, headers, parcel.data))
            self._delivering.append((number, parcel))
        self._publisher.put(rows)

    def _settle(self) -> None:
        """Forget what the broker has."""
        certain = 0
        for number, parcel in self._delivering:
            if number > self._publisher.published:
                break
            certain += 1
            partition = TopicPartition(parcel.route.topic, 0)
            source = self._sources.get(partition, self._control)
            if parcel.life != source.life:
                continue
            copies = source.under_way[parcel.offset] - 1
            if copies:
                source.under_way[parcel.offset] = copies
            else:
                del source.under_way[parcel.offset]
        del self._delivering[:certain]

    def _save(self) -> None:
        sources = (self._control, *self._sources.values())
        self._store.commit(cursors={source.route.topic: source.cursor for source in sources})


_sealed = msgspec.msgpack.Decoder(Sealed)


def _kept(headers: Iterable[tuple[str, bytes | None]]) -> Headers:
    """Return the headers that are ours: of others there may be more than a topic takes."""
    return tuple(
        (name, word)
        for name, word in headers
        if name in (ORDER, TRACE) and word is not None and len(word) <= HEADER_BYTES_MAX
    )
