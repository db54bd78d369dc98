"""From finding to HALT: confirm doubts, seal the order, publish it once (P66)."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from lab.monitor.books import Books
from lab.monitor.docket import Finding
from messaging.codec import decode_frame, encode_frame
from messaging.drivers import client
from messaging.drivers.client import Connection
from messaging.drivers.clock import Clock
from messaging.envelope import NO_HEIGHT, Envelope
from messaging.errors import FrameRefused
from messaging.identity import NO_DIGEST, Signer, Verifier
from messaging.messages import Family, HaltOrdered
from messaging.topics import HALT_TOPIC
from messaging.units import HUB, MONITOR, Micros, NodeId

PATIENCE_S = 0.25  # for what is on its way into a topic when a doubt comes up
POLL_S = 0.05
RETRY_S = 0.5
RECALL_MS = 200
DEADLINE_S = 5.0
CLOSE_S = 1.0
FINDING_CHARACTERS_MAX = 1_024

log = structlog.get_logger()


class Herald:
    """Publishes HALT; a restart goes on where the topic ends.

    Each spoke is named once until people resume it, and no finding is published twice.

    Attributes:
        halted: spokes named so far, but for those that people have resumed.
    """

    def __init__(self, connection: Connection, signer: Signer, clock: Clock) -> None:
        self.halted: dict[NodeId, str] = {}
        self._said: set[str] = set()
        self._connection = connection
        self._signer = signer
        self._clock = clock
        self._seq = 0
        self._before = NO_DIGEST

    async def recall(self, verifier: Verifier) -> None:
        """Read what has been published before.

        Raises:
            KafkaError: the broker is gone again.
        """
        consumer, partition = client.consumer(self._connection), TopicPartition(HALT_TOPIC, 0)
        try:
            await consumer.start()
            consumer.assign([partition])
            ends = await consumer.end_offsets([partition])
            await consumer.seek_to_beginning(partition)
            while await consumer.position(partition) < ends[partition]:
                for records in (await consumer.getmany(timeout_ms=RECALL_MS)).values():
                    for record in records:
                        self._note(record.value or b"", verifier)
        finally:
            await client.stop(consumer)

    def _note(self, value: bytes, verifier: Verifier) -> None:
        try:
            sealed = verifier.open(value, MONITOR)
            frame = decode_frame(sealed.frame)
        except FrameRefused:
            return  # somebody else's; the hub refuses it too
        if isinstance(frame.message, HaltOrdered) and frame.seq > self._seq:
            self._seq, self._before = frame.seq, sealed.digest()
            self._said.add(frame.message.finding)
            for spoke in frame.message.spokes:
                self.halted.setdefault(spoke, frame.message.finding)

    async def publish(self, finding: Finding) -> None:
        """Order a HALT of the spokes that a finding names, if it is news for one of them."""
        fresh = tuple(spoke for spoke in finding.spokes if spoke not in self.halted)
        text = f"{finding.rule}: {finding.text}"[:FINDING_CHARACTERS_MAX]
        if not fresh or text in self._said:
            return
        frame = Envelope(
            MONITOR,
            HUB,
            Family.CONTROL,
            self._seq + 1,
            0,
            Micros(max(self._clock.now_us(), 0)),
            NO_HEIGHT,
            NO_HEIGHT,
            HaltOrdered(spokes=fresh, finding=text),
        )
        sealed, digest = self._signer.seal(encode_frame(frame), self._before)
        await self._send(sealed)
        self._seq, self._before = frame.seq, digest
        self._said.add(text)
        self.halted |= dict.fromkeys(fresh, text)
        log.warning("halt", spokes=fresh, finding=text, seq=frame.seq)

    async def _send(self, data: bytes) -> None:
        """Write until the broker has it; twice does no harm."""
        while True:
            producer = client.producer(self._connection)
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await producer.start()
                    await producer.send_and_wait(HALT_TOPIC, data, partition=0)
                    return
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("halt_again", why=str(error) or type(error).__name__)
                await asyncio.sleep(RETRY_S)
            finally:
                with suppress(KafkaError, OSError, TimeoutError):
                    async with asyncio.timeout(CLOSE_S):
                        await producer.stop()


class Judge:
    """Confirms doubts once every topic has been read to where it ended after they came up."""

    def __init__(
        self,
        books: Books,
        herald: Herald,
        next_offsets: Mapping[str, int],
        ends: Callable[[], Awaitable[Mapping[str, int]]],
    ) -> None:
        """`ends` asks the broker where each topic ends."""
        self._books = books
        self._herald = herald
        self._next_offsets = next_offsets
        self._ask = ends
        self._newest = 0
        self._ends: Mapping[str, int] | None = None
        self._published = 0

    async def run(self) -> None:
        """Judge until cancelled.

        Raises:
            FrameRefused: a HALT that cannot be sealed: a bug.
        """
        while True:
            await self._publish()
            if self._ends is None and self._books.docket.doubts:
                await self._open()
            elif self._ends is not None and self._read():
                self._books.confirm(self._newest)
                self._ends = None
            else:
                await asyncio.sleep(POLL_S)

    async def _open(self) -> None:
        """Note what is doubtful, then where every topic ends."""
        await asyncio.sleep(PATIENCE_S)
        newest = self._books.docket.newest
        try:
            self._ends = await self._ask()
        except KafkaError as error:
            log.warning("ends_again", why=str(error) or type(error).__name__)
            await asyncio.sleep(RETRY_S)
        self._newest = newest

    def _read(self) -> bool:
        assert self._ends is not None
        return all(self._next_offsets[topic] >= end for topic, end in self._ends.items())

    async def _publish(self) -> None:
        findings = self._books.findings
        for spoke, heard in self._books.heard.items():
            if heard.resumed:
                heard.resumed = False
                self._herald.halted.pop(spoke, None)
        while self._published < len(findings):
            finding = findings[self._published]
            self._published += 1
            log.warning("finding", rule=finding.rule, spokes=finding.spokes, text=finding.text)
            await self._herald.publish(finding)
