"""Run one durable node on Kafka: consume, journal, handle, commit, publish, mark.

The same hub or spoke as in virtual time, and the same loop around it; the events come from
topics and the wall clock. Nothing is published before its commit, nothing is marked before the
broker has it, and a kill at any point costs time only (P87 to P97 of docs/protocol.md).
"""

import asyncio
from collections.abc import Callable, Mapping

import structlog
from aiokafka import AIOKafkaConsumer

from messaging.drivers import client
from messaging.drivers.camera import Camera
from messaging.drivers.client import Connection
from messaging.drivers.clock import Clock
from messaging.drivers.intake import Arrival, Intake, Stream
from messaging.drivers.publisher import Publisher
from messaging.durable import Durable
from messaging.endpoint import Endpoint
from messaging.errors import FrameRefused, StateLost
from messaging.identity import Verifier
from messaging.operator_orders import brief
from messaging.store import Store
from messaging.topics import Route
from messaging.units import Micros, NodeId

NEVER_US = Micros(2**62)
COMMIT_EVENTS = 500  # most events of one commit
FORGET_EVENTS = 1_000  # how often what nobody needs any more is dropped
BACKLOG_MAX = 5_000  # records to publish; beyond that the node waits for the broker
IDLE_MS, BUSY_MS = 20, 2  # how long to wait for records; with 0 the client would never fetch

log = structlog.get_logger()


class KafkaNode:
    """One node between its topics.

    Attributes:
        taken: records taken from topics.
        late: events that came after their time had been passed; they were handled then.
        refused: records put to the dead letters.
        complete: whether the scenario's time is up.
    """

    def __init__(
        self,
        durable: Durable,
        store: Store,
        routes: tuple[Route, ...],
        *,
        connection: Connection,
        verifier: Verifier,
        ranks: Mapping[NodeId, int],
        clock: Clock,
        until_us: Micros,
        settle_us: Micros | None,
        nonce: bytes,
    ) -> None:
        """Read every route of `routes` whose receiver is the node.

        `nonce` is drawn for this life alone; it is empty in the node's first (P95).
        `settle_us` is how long an event waits for older ones; None to take all as they come.
        """
        self._durable = durable
        self._store = store
        self._routes = [route for route in routes if route.receiver == durable.endpoint.name]
        self._connection = connection
        self._verifier = verifier
        self._ranks = ranks
        self._clock = clock
        self._until_us = until_us
        self._settle_us = settle_us
        self._publisher = Publisher(connection, store.published)
        self._publisher.put(durable.unpublished())
        self._camera = Camera(durable)
        self._forgot = durable.place
        self._nonce = nonce
        self._silence = ""
        self._said = durable.endpoint.orders.ended  # orders that are in the log
        self.taken = self.late = self.refused = 0
        self.complete = False

    @property
    def endpoint(self) -> Endpoint:
        """Return the node behind its channels, as it is now."""
        return self._durable.endpoint

    @property
    def at_us(self) -> Micros:
        """Return the time of the newest event."""
        return self._durable.at_us

    @property
    def events(self) -> int:
        """Return how many events have been handled in all."""
        return self._durable.place

    @property
    def backlog(self) -> int:
        """Return how many records are not certain to be at the broker."""
        return self._publisher.backlog

    @property
    def published(self) -> int:
        """Return how many records are."""
        return self._publisher.published

    @property
    def note(self) -> str:
        """Return why the node waits, or nothing."""
        return self._silence or self._publisher.note

    async def run(self, stop: asyncio.Event, tell: Callable[[], None]) -> None:
        """Handle events until `stop` is set or time is up; `tell` is called after each round.

        Raises:
            StoreFailed: the node's file cannot be written.
            InputLost: messages are gone that nobody will send again.
            StateLost: the node's file is older than what others have heard of it.
        """
        consumer = client.consumer(self._connection)
        try:
            async with self._publisher:
                if not await client.started(consumer, stop, tell):
                    return
                with self._camera:
                    await self._rounds(consumer, stop, tell)
                self._durable.commit({}, self._publisher.published)
                found = self._durable.fingerprint()
                self._durable.snapshot(found)
                log.info("stopped", at_us=self.at_us, events=self.events, fingerprint=found)
        finally:
            await client.stop(consumer)

    async def _rounds(
        self,
        consumer: AIOKafkaConsumer,
        stop: asyncio.Event,
        tell: Callable[[], None],
    ) -> None:
        cursors = self._store.cursors()
        streams = [Stream(route, cursors.get(route.read_from, 0)) for route in self._routes]
        intake = Intake(
            consumer, streams, self._verifier, self._ranks, self._clock, self._durable.read
        )
        if self._nonce:
            self._durable.restart(self.at_us, self._nonce)
        if self._durable.rotate(self.at_us) is not None:
            log.info("key_rotated", at_us=self.at_us)
        self._commit(intake)
        while not stop.is_set() and not self.complete:
            await self._round(intake)
            self._camera.tend()
            self._silence = "" if self.complete else intake.silence()
            tell()
            self._publisher.check()
        while self.complete and self._publisher.backlog and not stop.is_set():
            await asyncio.sleep(0.01)
            tell()

    async def _round(self, intake: Intake) -> None:
        """Fetch, handle what is due, commit, hand over to be published."""
        await intake.fetch(self._patience_ms(intake))
        moved = True
        while moved and self._publisher.backlog < BACKLOG_MAX:
            frontier_us = self._frontier_us(intake)
            moved = self._handle(intake, frontier_us)
            if moved:
                self._commit(intake)
                await asyncio.sleep(0)
            elif frontier_us >= self._until_us:
                self.complete = True

    def _commit(self, intake: Intake) -> None:
        """Write what has happened, and hand over what may now be published."""
        cursors = {topic.topic: stream.cursor for topic, stream in intake.streams.items()}
        rows = self._durable.commit(cursors, self._publisher.published)
        if self._durable.endpoint.lives.stopped:
            raise StateLost(self._durable.endpoint.lives.stopped)
        self._publisher.put(rows)
        if self._durable.place - self._forgot >= FORGET_EVENTS:
            self._forgot = self._durable.place
            self._durable.forget()
        self._say_orders()

    def _say_orders(self) -> None:
        """Log what has become of operators' orders since the last time."""
        orders = self._durable.endpoint.orders
        fresh = min(orders.ended - self._said, len(orders.outcomes))
        for outcome in list(orders.outcomes)[len(orders.outcomes) - fresh :]:
            order, operators = brief(outcome.order), outcome.operators
            reason = outcome.order.reason
            if outcome.why:
                log.error("order_refused", order=order, operators=operators, why=outcome.why)
            else:
                log.warning("order_done", order=order, operators=operators, reason=reason)
        self._said = orders.ended

    def _frontier_us(self, intake: Intake) -> Micros:
        """Return the time up to which nothing that is not here yet can be due."""
        now_us = self._clock.now_us()
        if self._settle_us is None:
            return now_us
        return Micros(min(now_us, intake.clear_us()) - self._settle_us)

    def _handle(self, intake: Intake, frontier_us: Micros) -> bool:
        """Handle up to a commit's worth of due events, in order; tell whether there were any."""
        durable, heads = self._durable, intake.heads
        last_us = min(frontier_us, self._until_us)
        for count in range(COMMIT_EVENTS):
            timer = durable.next_timer()
            due_us = heads[0].place[0] if heads else NEVER_US
            if timer is not None and timer[0] <= due_us:
                if timer[0] > last_us:
                    return count > 0
                durable.fire(max(timer[0], durable.at_us), timer[2])
            elif due_us <= last_us:
                self._take(intake.take())
            else:
                return count > 0
        return True

    def _take(self, arrival: Arrival) -> None:
        durable, stream = self._durable, arrival.stream
        self.taken += 1
        if arrival.frame is None:
            self._refuse(arrival, arrival.why)
            if arrival.poison is not None and arrival.link is not None:
                log.error("poison", **arrival.why)
                durable.poison(durable.at_us, arrival.poison, arrival.link)
            return
        assert arrival.link is not None
        try:
            durable.admit(arrival.frame, arrival.link)
        except FrameRefused as error:
            self._refuse(arrival, arrival.because(str(error)))
            return
        if durable.is_repeat(stream.route, arrival.frame):
            return
        due_us = arrival.place[0]
        if due_us < durable.at_us:
            self.late += 1
        at_us = max(due_us, durable.at_us)
        durable.take(at_us, arrival.frame, arrival.data, arrival.link)

    def _refuse(self, arrival: Arrival, why: Mapping[str, str]) -> None:
        self.refused += 1
        log.warning("refused", **why)
        self._durable.refuse(arrival.data, why)

    def _patience_ms(self, intake: Intake) -> int:
        """Return how long to wait for records: not beyond the next timer."""
        timer = self._durable.next_timer()
        if timer is None:
            return IDLE_MS
        due_us = timer[0] + (self._settle_us or 0)
        return max(BUSY_MS, min(IDLE_MS, round(self._clock.seconds_until(due_us) * 1e3)))
