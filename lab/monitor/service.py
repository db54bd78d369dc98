"""The monitor as a process: waits for the broker, reads, judges, serves, and stops cleanly."""

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from faust.exceptions import FaustError

from lab.amounts import usd6
from lab.monitor.app import Worker
from lab.monitor.books import Books, Terms
from lab.monitor.halting import Herald, Judge
from lab.monitor.reader import Reader
from lab.monitor.serving import served
from lab.monitor.summary import Summary
from lab.monitor.tables import CHANGELOGS
from lab.scenario import Scenario
from lab.stack.plan import KEYS, Plan, State, Status, write_status
from lab.world import deposits_of
from messaging.drivers import client
from messaging.drivers.client import FETCH_BYTES_MAX
from messaging.drivers.clock import Clock
from messaging.drivers.reader import UNREADABLE, read_around
from messaging.errors import OmnimarginError
from messaging.key_files import read_signer, read_verifier
from messaging.topics import HALT_TOPIC
from messaging.units import MONITOR, Asset, Micros, NodeId, Ppm

TELL_S = 0.5
ASK_S = 2.0  # how often topics' ends are asked for
STOP_S = 10.0
IDLE_MS, FETCHED_MAX = 500, 2_000
FETCH_BYTES_MIN, FETCH_WAIT_MS = 65_536, 100  # few large fetches: each costs CPU, here and there
LAG = 500  # records to be read that are no backlog yet

log = structlog.get_logger()


class WorkerFailed(OmnimarginError):
    """The Faust worker has ended by itself, or reads no more. A new process starts afresh."""


def terms_of(scenario: Scenario) -> Terms:
    """Return what a scenario says beforehand."""
    return Terms(
        deposits_usd6=dict(deposits_of(scenario)),
        caps_usd6={NodeId(spoke.name): usd6(spoke.zone_cap_usd) for spoke in scenario.spokes},
        margins_ppm={Asset(one.name): Ppm(one.initial_margin_ppm) for one in scenario.assets},
    )


class Monitor:
    """Everything of one monitor."""

    def __init__(self, folder: Path, plan: Plan, scenario: Scenario) -> None:
        """Make it from what the stack's folder says.

        Raises:
            InputRefused: a key or a file of the connection cannot be read.
        """
        self._folder = folder
        self._port = plan.monitor_port
        self._connection = plan.connection(folder, MONITOR)
        self._verifier = read_verifier(folder / KEYS, plan.domain)
        signer = read_signer(folder / KEYS, MONITOR, plan.domain)
        self._clock = Clock(plan.epoch_ns, plan.speed)
        self._books = Books(terms_of(scenario))
        self._reader = Reader(self._books, self._verifier)
        self._herald = Herald(self._connection, signer, self._clock)
        self._summary = Summary(self._books, self._reader, self._herald, self._clock)
        self._partitions = [TopicPartition(topic, 0) for topic in self._reader.topics()]
        self._consumer = AIOKafkaConsumer(
            **client.settings(self._connection),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_uncommitted",
            max_partition_fetch_bytes=FETCH_BYTES_MAX,
            fetch_min_bytes=FETCH_BYTES_MIN,
            fetch_max_wait_ms=FETCH_WAIT_MS,
        )
        self._started_s = time.monotonic()
        self._recovery_ms = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set.

        Raises:
            InputRefused: the port is taken.
            WorkerFailed: the Faust worker has ended, or topics are not what they were.
        """
        try:
            async with served(self._summary, self._port):
                self._tell(State.WAITING, "for the broker")
                if await client.started(self._consumer, stop, self._tell_again):
                    await self._follow(stop)
                self._tell(State.STOPPED)
        finally:
            await client.stop(self._consumer)

    async def _follow(self, stop: asyncio.Event) -> None:
        try:
            if await self._wait_for_topics(stop):
                await self._herald.recall(self._verifier)
                await self._begin()
                await self._work(stop)
        except (KafkaError, FaustError) as error:
            found = str(error) or type(error).__name__
            raise WorkerFailed(f"expected the broker to stay, found {found}") from None
        log.info("stopped", frames=self._reader.frames, findings=len(self._books.findings))

    async def _wait_for_topics(self, stop: asyncio.Event) -> bool:
        """Wait until every topic is there; tell whether it was before `stop` was set."""
        wanted = {*self._reader.topics(), *CHANGELOGS, HALT_TOPIC}
        while not stop.is_set():
            try:
                missing = wanted - await self._consumer.topics()
            except KafkaError as error:
                self._tell(State.WAITING, f"for the broker: {error}")
            else:
                if not missing:
                    return True
                self._tell(State.WAITING, f"for topic {min(missing)}, {len(missing)} in all")
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), TELL_S)
        return False

    async def _begin(self) -> None:
        """Take every topic from its first record."""
        self._consumer.assign(self._partitions)
        await self._consumer.seek_to_beginning(*self._partitions)

    async def _work(self, stop: asyncio.Event) -> None:
        """Read, judge, count and tell at once, until `stop` is set or one of them fails."""
        worker = Worker(self._connection, self._folder / "faust", self._books)
        judge = Judge(self._books, self._herald, self._reader.next_offsets, self._ends)
        try:
            reading = asyncio.create_task(self._read())
            judging = asyncio.create_task(judge.run())
            telling = asyncio.create_task(self._watch(worker))
            stopping = asyncio.create_task(stop.wait())
            counting = asyncio.create_task(worker.app.start())
            tasks = {reading, judging, telling, stopping, counting}
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if done == {counting} and counting.exception() is None:
                self._summary.worker = worker
                log.info("started", topics=len(self._partitions))
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            await asyncio.wait(pending)
            for task in done:
                task.result()
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await worker.app.stop()

    async def _read(self) -> None:
        """Read on until cancelled.

        Raises:
            KafkaError: the broker refuses.
            WorkerFailed: what was to be read is gone.
        """
        while True:
            for partition, records in (await self._fetch()).items():
                row = [(one.offset, one.value or b"", one.headers) for one in records]
                self._reader.read(partition.topic, row)
            await asyncio.sleep(0)

    async def _fetch(self) -> dict[TopicPartition, list[ConsumerRecord]]:
        try:
            return dict(await self._consumer.getmany(timeout_ms=IDLE_MS, max_records=FETCHED_MAX))
        except OffsetOutOfRangeError as error:
            (topic, _), offset = next(iter(error.args[0].items()))
            raise WorkerFailed(f"expected offset {offset:,} of {topic}, found none") from None
        except UNREADABLE:
            positions = {one: self._reader.next_offsets[one.topic] for one in self._partitions}
            found = await read_around(self._consumer, positions, FETCHED_MAX)
            for (topic, _), (bad, until) in found.skipped.items():
                log.warning("unreadable", topic=topic, offset=bad, until=until)
            return found.records

    async def _ends(self) -> Mapping[str, int]:
        """Ask where each topic ends.

        Raises:
            KafkaError: no answer.
            WorkerFailed: a topic was made anew.
        """
        read = dict(self._reader.next_offsets)
        ends = await self._consumer.end_offsets(self._partitions)
        for (topic, _), end in ends.items():
            if end < read[topic]:
                expected = f"expected {topic} to end at {read[topic]:,} at least"
                raise WorkerFailed(f"{expected}, found {end:,}: it was made anew")
        return {topic: end for (topic, _), end in ends.items()}

    async def _watch(self, worker: Worker) -> None:
        """Tell how it is going, until the worker fails.

        Raises:
            WorkerFailed: it did.
        """
        behind, asked_s = await self._behind(), time.monotonic()
        while True:
            if worker.app.should_stop:
                found = repr(worker.app.crash_reason)
                raise WorkerFailed(f"expected Faust to go on, found it ended: {found}")
            caught_up = behind is not None and behind <= LAG
            if caught_up and not self._recovery_ms:
                self._recovery_ms = round((time.monotonic() - self._started_s) * 1e3)
                self._books.ended.clear()  # of the past
                worker.counts_hops = True
            if behind is None:
                self._tell(State.WAITING, "for the broker")
            elif self._recovery_ms and self._summary.worker:
                self._tell(State.RUNNING, "" if caught_up else f"{behind} records behind")
            else:
                self._tell(State.RECOVERING, f"{behind} records to read")
            await asyncio.sleep(TELL_S)
            if not caught_up or time.monotonic() - asked_s > ASK_S:
                behind, asked_s = await self._behind(), time.monotonic()

    async def _behind(self) -> int | None:
        """Return how many records there are to read; None if the broker does not say."""
        try:
            ends = await self._ends()
        except KafkaError:
            return None
        return sum(max(0, end - self._reader.next_offsets[topic]) for topic, end in ends.items())

    def _tell_again(self) -> None:
        self._tell(State.WAITING, "for the broker")

    def _tell(self, state: State, note: str = "") -> None:
        self._summary.state, self._summary.note = state, note
        if not note and self._books.findings:
            note = f"{len(self._books.findings)} findings, first {self._books.findings[0].text}"
        status = Status(
            role=MONITOR,
            pid=os.getpid(),
            state=state,
            at_us=Micros(max(0, self._clock.now_us())),
            events=self._reader.frames,
            refused=self._reader.refused.total() + self._books.refused,
            recovery_ms=self._recovery_ms,
            note=note,
        )
        write_status(self._folder, status)
