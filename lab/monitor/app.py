"""The Faust app: one agent over all deliveries, two windowed tables, no state of its own.

What Faust would keep is switched off, for a view of the last minutes is made again in minutes: no
offset is committed (topics without acks) and no table writes a changelog. docs/monitor.md says
what of Faust made that needed.
"""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import faust
import msgspec
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
from lab.monitor.reader import arrival_us
from lab.monitor.tables import APP, DELAYS, ZONES
from lab.monitor.tables import CHANGELOGS as CHANGELOGS
from messaging.codec import decode_frame
from messaging.drivers import client
from messaging.drivers.client import Connection
from messaging.errors import FrameRefused
from messaging.identity import Sealed
from messaging.topics import DELIVERED

HOP = "hop."
WINDOW_S = 10.0
EXPIRES_S = 120.0
SAMPLE_S = 1.0
SESSION_S = 10.0
# The broker holds a fetch back until there is so much, or so long: a wake-up of Faust's consumer
# costs a millisecond of CPU, whether it brings one record or hundreds.
FETCH_BYTES_MIN = 65_536
FETCH_WAIT_MS = 500

_sealed = msgspec.msgpack.Decoder(Sealed)


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

    async def on_thread_stop(self) -> None:
        """Stop; the client cancels its own fetches, and would take that for ours."""
        with suppress(asyncio.CancelledError):
            await super().on_thread_stop()


class _Consumer(Consumer):
    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)


class _Transport(Transport):
    Consumer = _Consumer


class Worker:
    """The app and what it has made.

    Attributes:
        app: to be started and stopped.
        counts_hops: whether liquidations that end are news.
    """

    def __init__(self, connection: Connection, folder: Path, books: Books) -> None:
        """Follow what is delivered from now on; what Faust wants to write goes to `folder`."""
        self.app = _app(connection, folder)
        self.counts_hops = False
        self._books = books
        self._told_s = 0.0
        self._current: dict[str, tuple[float, Spread]] = {}
        self._delays = self.app.Table(DELAYS, default=Spread, partitions=1).tumbling(
            WINDOW_S, expires=EXPIRES_S
        )
        self._zones = self.app.Table(ZONES, default=dict, partitions=1).tumbling(
            WINDOW_S, expires=EXPIRES_S
        )
        source = self.app.topic(
            *(topic for topic in books.topics() if topic.startswith(DELIVERED)),
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
            acks=False,
            partitions=1,
        )
        self.app.agent(source, name="read", supervisor_strategy=CrashingSupervisor)(self._read)

    async def _read(self, stream: Any) -> None:
        """Count delays in the window of each delivery, and sample what is at stake."""
        async for event in stream.events():
            message = event.message
            delay_us = _delay_us(message.value or b"", message.headers or ())
            if delay_us is not None:
                way = message.topic.removeprefix(DELIVERED)
                self._spread(way, message.timestamp).add(delay_us)
            if not 0 <= message.timestamp - self._told_s < SAMPLE_S:
                self._told_s = message.timestamp
                self._sample(message.timestamp)

    def _sample(self, at_s: float) -> None:
        if self.counts_hops:
            for command in self._books.ended:
                for hop, hop_us in self._books.knowledge.hops_us(command).items():
                    self._spread(HOP + hop, at_s).add(hop_us)
            self._books.ended.clear()
        for name, figures in standing(self._books).items():
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


def _delay_us(value: bytes, headers: Any) -> int | None:
    """Return how late a frame is, or None for what is none; who forges one is found elsewhere."""
    try:
        frame = decode_frame(_sealed.decode(value).frame)
    except (FrameRefused, ValueError, RecursionError):
        return None
    return arrival_us(headers, frame) - frame.sent_us


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
        consumer_auto_offset_reset="latest",
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
    app.transport = _Transport([URL(f"kafka://{connection.bootstrap}")], app)
    return app
