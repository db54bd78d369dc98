"""The Faust app: one agent over all topics, two windowed tables, no state of its own.

What Faust would keep is switched off, for all of it is read again from the topics at each start:
no offset is committed (topics without acks) and no table writes a changelog. docs/monitor.md
says what of Faust made that needed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import faust
from aiokafka import TopicPartition
from faust.tables.table import Table
from faust.transport.drivers.aiokafka import (
    AIOKafkaConsumerThread,
    Consumer,
    Transport,
)
from mode import CrashingSupervisor
from yarl import URL

from lab.monitor.books import Books
from lab.monitor.delays import Spread
from lab.monitor.reader import Reader
from lab.monitor.tables import APP, DELAYS, ZONES
from lab.monitor.tables import CHANGELOGS as CHANGELOGS
from messaging.drivers import client
from messaging.drivers.client import Connection

WINDOW_S = 10.0
EXPIRES_S = 120.0
SESSION_S = 10.0
# The broker holds a fetch back until there is so much, or so long: a wake-up of Faust's consumer
# costs a millisecond of CPU, whether it brings one record or hundreds.
FETCH_BYTES_MIN = 65_536
FETCH_WAIT_MS = 200


class View(Table[Any, Any]):
    """A table that is made again from its sources, so that it needs no changelog."""

    def on_key_set(self, key: Any, value: Any) -> None:
        """Note when a value of a window expires."""
        self._maybe_set_key_ttl(key, 0)

    def on_key_del(self, key: Any) -> None:
        """Forget that a value expires."""
        self._maybe_del_key_ttl(key, 0)


class _Thread(AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_min_bytes = FETCH_BYTES_MIN  # Faust has no setting for these
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer

    async def seek_to_committed(self) -> Mapping[TopicPartition, int]:
        """Go on behind what the books have read; nothing is ever committed."""
        found: Mapping[TopicPartition, int] = await self.call_thread(self._seek_to_read)
        return found

    async def _seek_to_read(self) -> Mapping[TopicPartition, int]:
        consumer = self._ensure_consumer()
        next_offsets = cast(_Transport, self.transport).next_offsets
        found = {
            partition: next_offsets[partition.topic]
            for partition in consumer.assignment()
            if partition.topic in next_offsets
        }
        for partition, offset in found.items():
            consumer.seek(partition, offset)
        return found


class _Consumer(Consumer):
    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)


class _Transport(Transport):
    Consumer = _Consumer

    def __init__(self, bootstrap: str, app: Any, next_offsets: Mapping[str, int]) -> None:
        super().__init__([URL(f"kafka://{bootstrap}")], app)
        self.next_offsets = next_offsets


class Worker:
    """The app and what it has made.

    Attributes:
        app: to be started and stopped.
    """

    def __init__(
        self, connection: Connection, folder: Path, reader: Reader, topics: list[str]
    ) -> None:
        """Read `topics`; what Faust wants to write goes to `folder`."""
        self.app = _app(connection, folder)
        self.app.transport = _Transport(connection.bootstrap, self.app, reader.next_offsets)
        self._reader = reader
        self._told_s = 0.0
        self._current: dict[str, tuple[float, Spread]] = {}
        self._delays = self.app.Table(DELAYS, default=Spread, partitions=1).tumbling(
            WINDOW_S, expires=EXPIRES_S
        )
        self._zones = self.app.Table(ZONES, default=dict, partitions=1).tumbling(
            WINDOW_S, expires=EXPIRES_S
        )
        source = self.app.topic(
            *topics,
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
            acks=False,
            partitions=1,
        )
        self.app.agent(source, name="read", supervisor_strategy=CrashingSupervisor)(self._read)

    async def _read(self, stream: Any) -> None:
        """Feed the books, and count delays in the window of each record."""
        read = self._reader.read
        async for event in stream.events():
            message = event.message
            value, headers = message.value or b"", message.headers or ()
            for way, delay_us in read(message.topic, message.offset, value, headers):
                self._spread(way, message.timestamp).add(delay_us)
            if not 0 <= message.timestamp - self._told_s < 1.0:
                self._told_s = message.timestamp
                for name, figures in standing(self._reader.books).items():
                    self._zones[name] = figures

    def _spread(self, name: str, at_s: float) -> Spread:
        """Return the delays of a window; the table is told of each once, for that costs."""
        start = at_s // WINDOW_S
        known = self._current.get(name)
        if known is not None and known[0] == start:
            return known[1]
        spread: Spread = self._delays[name].value()
        self._delays[name] = spread
        self._current[name] = (start, spread)
        return spread

    def delays(self, now_s: float) -> dict[str, Spread]:
        """Return the delays of the window under way and the one before it."""
        recent: dict[str, Spread] = {}
        for (name, (start_s, _)), spread in list(self._delays.table.items()):
            if now_s - start_s < 2 * WINDOW_S:
                recent.setdefault(name, Spread()).merge(spread)
        return recent

    def zones(self, now_s: float) -> dict[str, list[dict[str, int]]]:
        """Return the figures of each window that has not expired, oldest first."""
        recent: dict[str, list[dict[str, int]]] = {}
        for (name, (start_s, _)), figures in sorted(
            self._zones.table.items(), key=lambda entry: entry[0][1]
        ):
            if now_s - start_s < EXPIRES_S:
                recent.setdefault(name, []).append({"window_s": int(start_s), **figures})
        return recent


def standing(books: Books) -> dict[str, dict[str, int]]:
    """Return what is at stake at each spoke [usd6], and `all` for bad debt and feed ages."""
    found: dict[str, dict[str, int]] = {}
    for spoke in books.spokes:
        reserved_usd6, used_usd6, open_lines = books.lines.standing(spoke)
        found[spoke] = {
            "reserved_usd6": reserved_usd6,
            "used_usd6": used_usd6,
            "granted_in_flight_usd6": books.transit.usd6[f"to-{spoke}.reservation"],
            "used_in_flight_usd6": books.transit.usd6[f"from-{spoke}.reservation"],
            "exposure_usd6": reserved_usd6 + books.accounts.carried_usd6[spoke],
            "open_lines": open_lines,
            "state_us": books.knowledge.state_us.get(spoke, 0),
        }
    found["all"] = {"bad_debt_usd6": books.accounts.bad_debt_usd6()}
    found["all"] |= {f"{a}_us": at_us for a, at_us in books.knowledge.observed_us.items()}
    return found


def _app(connection: Connection, folder: Path) -> Any:
    settings = client.settings(connection)
    credentials = None
    if connection.username:
        credentials = faust.SASLCredentials(
            username=settings["sasl_plain_username"],
            password=settings["sasl_plain_password"],
            ssl_context=settings["ssl_context"],
            mechanism=settings["sasl_mechanism"],
        )
    app = faust.App(
        APP,
        broker=f"kafka://{connection.bootstrap}",
        broker_credentials=credentials,
        broker_session_timeout=SESSION_S,
        broker_heartbeat_interval=SESSION_S / 5,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=APP,  # a restart after a crash need not wait for the old one
        processing_guarantee="at_least_once",
        store="memory://",
        datadir=folder,
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_wait_empty=False,
        web_enabled=False,
        Table=View,
    )
    return app
