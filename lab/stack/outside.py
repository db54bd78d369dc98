"""The world outside as a process: market, oracle and traders, on the wall clock.

Nothing that hub or spokes do reaches them, so all they say is known beforehand: after a crash
they are run again from the start, and what has been published is passed over.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from lab import world
from lab.reading import duration_us
from lab.scenario import Scenario
from messaging.codec import encode_frame
from messaging.drivers.client import Connection
from messaging.drivers.clock import Clock
from messaging.drivers.publisher import Publisher
from messaging.drivers.virtual import VirtualDriver
from messaging.envelope import Envelope
from messaging.headers import DELIVERY, ORDER, TIMER
from messaging.identity import NO_DIGEST, Signer
from messaging.store import Row, Store
from messaging.topics import topic_of
from messaging.units import HUB, ORACLE, TRADERS, Micros, NodeId

SAVE_S = 0.5
BACKLOG_MAX = 5_000


class Border:
    """The links between market, oracle and traders take no time; what leaves is kept here."""

    def __init__(self) -> None:
        self.left: list[Envelope] = []

    def arrivals(self, frame: Envelope, now_us: Micros) -> Sequence[Micros]:
        if frame.receiver in (ORACLE, TRADERS):
            return (now_us,)
        self.left.append(frame)
        return ()


def border_driver(scenario: Scenario, until_us: Micros) -> tuple[VirtualDriver, Border]:
    """Return a driver of market, oracle and traders alone, and what leaves them.

    Raises:
        InputRefused: prices that cannot be had.
    """
    border, elsewhere = Border(), (HUB, *world.names_of(scenario))
    endpoints = world.outside_of(scenario, world.path_of(scenario))
    return VirtualDriver(endpoints, border, until_us=until_us, elsewhere=elsewhere), border


class Outside:
    """Says at its hour what the world outside says.

    Attributes:
        at_us: scenario time reached. events: frames said so far. complete: nothing is left.
    """

    def __init__(
        self,
        scenario: Scenario,
        store: Store,
        signers: Mapping[NodeId, Signer],
        connection: Connection,
        clock: Clock,
    ) -> None:
        self._scenario = scenario
        self._store = store
        self._signers = signers
        self._clock = clock
        self._publisher = Publisher(connection, store.published)
        self._heads: dict[str, bytes] = {}
        self.at_us = Micros(0)
        self.events = 0
        self.late = self.refused = 0
        self.complete = False

    @property
    def note(self) -> str:
        """Return why nothing is said, if so."""
        return self._publisher.note

    async def run(self, stop: asyncio.Event, tell: Callable[[], None]) -> None:
        """Publish until all is said or `stop` is set.

        Raises:
            InputRefused: prices that cannot be had.
            StoreFailed: what has been published cannot be noted.
        """
        async with self._publisher:
            saved_us = self.at_us
            for frame in self._frames():
                while not stop.is_set() and self._wait_s(frame.sent_us) > 0:
                    await asyncio.sleep(self._wait_s(frame.sent_us))
                    tell()
                self._publisher.check()
                if stop.is_set():
                    break
                self.at_us = frame.sent_us
                self._say(frame)
                if self._clock.seconds_until(saved_us) < -SAVE_S:
                    saved_us = self._clock.now_us()
                    self._store.commit(published=self._publisher.published)
                    await asyncio.sleep(0)
            else:
                self.complete = True
            while self._publisher.backlog and not stop.is_set():
                self._publisher.check()
                tell()
                await asyncio.sleep(0.05)
            self._store.commit(published=self._publisher.published)

    def _wait_s(self, at_us: Micros) -> float:
        """Return how long to wait before something is said, at most a tenth of a second."""
        if self._publisher.backlog > BACKLOG_MAX:
            return 0.1
        return min(0.1, self._clock.seconds_until(at_us))

    def _frames(self) -> Iterator[Envelope]:
        """Yield all that goes to hub and spokes, in order."""
        driver, border = border_driver(self._scenario, duration_us(self._scenario))
        for _ in driver.run():
            yield from border.left
            border.left.clear()

    def _say(self, frame: Envelope) -> None:
        self.events += 1
        topic, signer, data = topic_of(frame), self._signers[frame.sender], encode_frame(frame)
        before = self._heads.get(topic, NO_DIGEST)
        if self.events <= self._store.published:
            self._heads[topic] = signer.digest(data, before)
            return
        sealed, self._heads[topic] = signer.seal(data, before)
        # The oracle speaks when it is told of a price, the others by their timers.
        cause = DELIVERY if frame.sender == ORACLE else TIMER
        order = f"{frame.sent_us}.{cause}.{self.events}".encode()
        headers = msgspec.msgpack.encode(((ORDER, order),))
        self._publisher.put([Row(self.events, topic, frame.seq, headers, sealed)])
