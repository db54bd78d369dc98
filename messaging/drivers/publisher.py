"""Publish what is committed, in order, until the broker says that it is durable (P90, P97)."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Self

import msgspec
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from messaging.drivers import client
from messaging.drivers.client import Connection
from messaging.store import Headers, Row

CHUNK = 1_000  # records under way at a time
DEADLINE_S = 10.0  # after which the outcome is unknown, and the same bytes go out again
RETRY_S = 0.5

_headers = msgspec.msgpack.Decoder(Headers)
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
        count = min(CHUNK, len(self._waiting))
        sent: list[asyncio.Future[object]] = []
        try:
            async with asyncio.timeout(DEADLINE_S):
                for place in range(count):
                    row = self._waiting[place]
                    headers = list(_headers.decode(row.headers))
                    send = producer.send(row.topic, row.data, partition=0, headers=headers)
                    sent.append(await send)
                await asyncio.gather(*sent)
        except (KafkaError, TimeoutError):
            stuck = next((n for n, one in enumerate(sent) if not _certain(one)), len(sent))
            self._stuck = f" to {self._waiting[min(stuck, count - 1)].topic}"
            raise
        self.note = ""
        for _ in range(count):
            self.published = self._waiting.popleft().number


def _certain(sent: "asyncio.Future[object]") -> bool:
    return sent.done() and not sent.cancelled() and sent.exception() is None


async def _close(producer: AIOKafkaProducer) -> None:
    try:
        async with asyncio.timeout(1.0):
            await producer.stop()
    except (KafkaError, TimeoutError, OSError):
        return
