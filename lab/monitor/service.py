"""The monitor as a process: waits for the broker, reads, judges, serves, and stops cleanly."""

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

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
from messaging.drivers.clock import Clock
from messaging.errors import OmnimarginError
from messaging.identity import read_signer, read_verifier
from messaging.topics import HALT_TOPIC
from messaging.units import MONITOR, Asset, Micros, NodeId, Ppm

TELL_S = 0.5
ASK_S = 5.0  # how often topics' ends are asked for
STUCK_S = 30.0  # without reading what is there, though the broker answers
STOP_S = 10.0
FETCH_MS, FETCHED_MAX = 200, 2_000

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
        self._probe = client.consumer(self._connection)
        self._started_s = time.monotonic()
        self._recovery_ms = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set.

        Raises:
            InputRefused: the port is taken.
            WorkerFailed: the Faust worker has ended.
        """
        self._tell(State.WAITING, "for the broker")
        async with served(self._summary, self._port):
            try:
                if not await client.started(self._probe, stop, self._tell_again):
                    return
                if await self._wait_for_topics(stop):
                    await self._herald.recall(self._verifier)
                    await self._catch_up(stop)
                    await self._work(stop)
            finally:
                await self._probe.stop()
                self._tell(State.STOPPED)

    async def _wait_for_topics(self, stop: asyncio.Event) -> bool:
        """Wait until every topic is there; tell whether it was before `stop` was set."""
        wanted = {*self._reader.topics(), *CHANGELOGS, HALT_TOPIC}
        while not stop.is_set():
            try:
                missing = wanted - await self._probe.topics()
            except KafkaError as error:
                self._tell(State.WAITING, f"for the broker: {error}")
            else:
                if not missing:
                    return True
                self._tell(State.WAITING, f"for topic {min(missing)}, {len(missing)} in all")
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), TELL_S)
        return False

    async def _catch_up(self, stop: asyncio.Event) -> None:
        """Read what there is in bulk, ten times as fast as by Faust, event by event.

        Raises:
            KafkaError: the broker is gone again.
        """
        partitions = [TopicPartition(topic, 0) for topic in self._reader.topics()]
        self._probe.assign(partitions)
        await self._probe.seek_to_beginning(*partitions)
        while not stop.is_set():
            behind = await self._behind()
            if behind == 0:
                break
            self._tell_progress(behind)
            fetched = await self._probe.getmany(timeout_ms=FETCH_MS, max_records=FETCHED_MAX)
            for partition, records in fetched.items():
                row = [(one.offset, one.value or b"", one.headers) for one in records]
                self._reader.read_row(partition.topic, row)
        self._probe.pause(*partitions)  # from here on it only says where topics end

    async def _work(self, stop: asyncio.Event) -> None:
        topics = self._reader.topics()
        worker = Worker(self._connection, self._folder / "faust", self._reader, topics)
        judge = Judge(self._books, self._herald, self._reader.next_offsets, self._ends)
        self._tell(State.RECOVERING)
        try:
            await worker.app.start()
            self._summary.worker = worker
            log.info("started", topics=len(topics))
            tasks = [
                asyncio.create_task(one) for one in (stop.wait(), judge.run(), self._watch(worker))
            ]
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            await asyncio.wait(pending)
            for task in done:
                task.result()
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await worker.app.stop()
        log.info("stopped", frames=self._reader.frames, findings=len(self._books.findings))

    async def _ends(self) -> Mapping[str, int]:
        """Ask where each topic ends.

        Raises:
            KafkaError: no answer.
        """
        partitions = [TopicPartition(topic, 0) for topic in self._reader.topics()]
        ends = await self._probe.end_offsets(partitions)
        return {partition.topic: end for partition, end in ends.items()}

    async def _watch(self, worker: Worker) -> None:
        """Tell how it is going, until the worker fails.

        Raises:
            WorkerFailed: it did.
        """
        behind = await self._behind()
        asked_s = moved_s = time.monotonic()
        frames = self._reader.frames
        while True:
            await asyncio.sleep(TELL_S)
            if worker.app.should_stop:
                found = repr(worker.app.crash_reason)
                raise WorkerFailed(f"expected Faust to go on, found it ended: {found}")
            now_s = time.monotonic()
            if now_s - asked_s > (TELL_S if behind else ASK_S):
                behind, asked_s = await self._behind(), now_s
            if frames != self._reader.frames or not behind:
                frames, moved_s = self._reader.frames, now_s
            if now_s - moved_s > STUCK_S:
                raise WorkerFailed(f"expected {behind} records to be read, found none read")
            self._tell_progress(behind)

    def _tell_progress(self, behind: int | None) -> None:
        if behind is None:
            self._tell(State.WAITING, "for the broker")
        elif behind and not self._recovery_ms:
            self._tell(State.RECOVERING, f"{behind} records to read")
        else:
            if not self._recovery_ms:
                self._recovery_ms = round((time.monotonic() - self._started_s) * 1e3)
            self._tell(State.RUNNING)

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
            refused=self._reader.refused.total(),
            recovery_ms=self._recovery_ms,
            note=note,
        )
        write_status(self._folder, status)
