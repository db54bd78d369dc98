"""Publish what is committed, in order, until the broker says that it is durable (P90, P97)."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Self

import msgspec
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder

from messaging.drivers import client
from messaging.drivers.client import Connection
from messaging.store import Row

CHUNK = 1_000  # records under way at a time
DEADLINE_S = 10.0  # after which the outcome is unknown, and the same bytes go out again
RETRY_S = 0.5

_headers = msgspec.msgpack.Decoder(list[tuple[str, bytes]])  # the client wants lists
log = structlog.get_logger()


class Publisher:
    """Sends rows in order; after any doubt it starts again from the first that is not certain.

    Publishes from entering its context until leaving it.

    Attributes:
        published: number of the newest row that is durable at the broker.
        note: why it waits, if it does.
    """

    def __init__(self, connection: Connection, published: int) -> None:
        self._connection = connection
        self._waiting: deque[Row] = deque()
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stuck = ""  # at which topic
        self.published = published
        self.note = ""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._task is not None
        self._task.cancel()

    def check(self) -> None:
        """Raise what has ended the publishing, if anything has: a bug."""
        if self._task is not None and self._task.done():
            self._task.result()

    def put(self, rows: Sequence[Row]) -> None:
        """Take rows that are committed, in order of their numbers."""
        if rows:
            self._waiting += rows
            self._more.set()

    @property
    def backlog(self) -> int:
        """Return how many rows are not certain yet."""
        return len(self._waiting)

    async def _run(self) -> None:
        """Publish until cancelled."""
        while True:
            producer = client.producer(self._connection)
            try:
                self._stuck = ""
                async with asyncio.timeout(DEADLINE_S):  # it tries for ever to get a number
                    await producer.start()
                while True:
                    await self._publish(producer)
            except (KafkaError, TimeoutError, OSError) as error:
                why = f"publishing{self._stuck}: {str(error) or type(error).__name__}"
                if why != self.note:
                    log.warning("publish_again", why=why, rows=len(self._waiting))
                self.note = why
                await asyncio.sleep(RETRY_S)
            finally:
                # Closing waits for a broker that may be gone; what is not certain is sent again.
                await _close(producer)

    async def _publish(self, producer: AIOKafkaProducer) -> None:
        if not self._waiting:
            self._more.clear()
            await self._more.wait()
        rows = list(islice(self._waiting, CHUNK))
        sent: list[tuple[str, asyncio.Future[object]]] = []
        topic = ""
        try:
            async with asyncio.timeout(DEADLINE_S):
                for topic, batch in _batches(producer, rows):
                    sent.append((topic, await producer.send_batch(batch, topic, partition=0)))
                await asyncio.gather(*(one for _, one in sent))
        except (KafkaError, TimeoutError):
            self._stuck = f" to {next((to for to, one in sent if not _certain(one)), topic)}"
            raise
        self.note = ""
        for _ in rows:
            self.published = self._waiting.popleft().number


def _batches(producer: AIOKafkaProducer, rows: Iterable[Row]) -> Iterator[tuple[str, BatchBuilder]]:
    """Put rows into batches, in order within each topic: a third of the work of one by one."""
    filling: dict[str, BatchBuilder] = {}
    for row in rows:
        record = {"timestamp": None, "key": None, "value": row.data}
        headers = _headers.decode(row.headers)
        batch = filling.get(row.topic)
        if batch is not None and batch.append(**record, headers=headers) is not None:
            continue
        if batch is not None:
            yield row.topic, batch
        batch = filling[row.topic] = producer.create_batch()
        batch.append(**record, headers=headers)  # an empty one takes any size
    yield from filling.items()


def _certain(sent: "asyncio.Future[object]") -> bool:
    return sent.done() and not sent.cancelled() and sent.exception() is None


async def _close(producer: AIOKafkaProducer) -> None:
    try:
        async with asyncio.timeout(1.0):
            await producer.stop()
    except (KafkaError, TimeoutError, OSError):
        return
