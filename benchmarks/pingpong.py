"""Messages to and fro between two nodes, 64 under way, the same delays for every engine.

Ours goes through driver, link and envelope. SimPy's two styles and the bare heap do less: no
names, no families, no numbering, no record of what happened.
"""

import heapq
import time
from collections.abc import Callable, Generator, Iterator
from itertools import count

import simpy

from messaging.dice import BLOCK, Dice
from messaging.drivers.virtual import EventsExhausted, VirtualDriver
from messaging.effects import Effect, Send
from messaging.endpoint import Endpoint
from messaging.envelope import Envelope
from messaging.latency import Lognormal
from messaging.messages import Family, PricePublished
from messaging.network import LinkPolicy, Network
from messaging.node import Event
from messaging.units import Asset, Micros, NodeId, Usd6

UNDER_WAY = 64
LATENCY = Lognormal(median_s=1.0, sigma=0.5)
MESSAGE = PricePublished(asset=Asset("BTC"), price_usd6=Usd6(1), observed_us=Micros(1))


class Player:
    """Sends every message back."""

    def __init__(self, name: str, other: str) -> None:
        self.name = NodeId(name)
        self._other = NodeId(other)

    def start(self) -> list[Effect]:
        """See `messaging.node.Node.start`."""
        return [Send(self._other, Family.PRICE, MESSAGE)] * (UNDER_WAY // 2)

    def handle(self, now_us: Micros, event: Event) -> tuple[Effect, ...]:
        """See `messaging.node.Node.handle`."""
        assert isinstance(event, Envelope)
        return (Send(self._other, event.family, event.message),)


def ours(events: int) -> float:
    """Return events per second through the virtual driver."""
    ping, pong = Player("ping", "pong"), Player("pong", "ping")
    link = LinkPolicy(latency=LATENCY)
    network = Network(1, {(ping.name, pong.name): link, (pong.name, ping.name): link})
    endpoints = [Endpoint(ping, {}), Endpoint(pong, {})]
    driver = VirtualDriver(endpoints, network, until_us=Micros(2**62), events_max=events)
    seen = 0
    started_s = time.perf_counter()
    try:
        for _ in driver.run():
            seen += 1
    except EventsExhausted:
        pass
    assert seen == events
    return events / (time.perf_counter() - started_s)


def _delays() -> Iterator[float]:
    """Yield delays in seconds, drawn a block at a time as our links do."""
    body, choice = Dice(1, "body"), Dice(1, "choice")
    for number in count():
        block = LATENCY.sample_us(body.block(number), choice.block(number))
        assert len(block) == BLOCK
        yield from block.tolist()


def simpy_callbacks(events: int) -> float:
    """Return events per second with SimPy timeouts and callbacks."""
    environment, delays, left = simpy.Environment(), _delays(), [events]

    def arrive(event: simpy.Event) -> None:
        left[0] -= 1
        if left[0] > 0:
            environment.timeout(next(delays), event.value).callbacks.append(arrive)

    for _ in range(UNDER_WAY):
        environment.timeout(next(delays), MESSAGE).callbacks.append(arrive)
    started_s = time.perf_counter()
    while left[0] > 0:
        environment.step()
    return events / (time.perf_counter() - started_s)


def simpy_store(events: int) -> float:
    """Return events per second in SimPy's own idiom: processes, a Store at the end of a wire."""
    environment, delays, left = simpy.Environment(), _delays(), [events]
    inboxes = [simpy.Store(environment), simpy.Store(environment)]

    def wire(message: object, to: int) -> Generator[simpy.Event]:
        yield environment.timeout(next(delays))
        inboxes[to].put(message)

    def player(own: int) -> Generator[simpy.Event]:
        while left[0] > 0:
            message = yield inboxes[own].get()
            left[0] -= 1
            environment.process(wire(message, 1 - own))

    for own in (0, 1):
        environment.process(player(own))
        for _ in range(UNDER_WAY // 2):
            environment.process(wire(MESSAGE, own))
    started_s = time.perf_counter()
    while left[0] > 0:
        environment.step()
    return events / (time.perf_counter() - started_s)


def bare_heap(events: int) -> float:
    """Return events per second of a heap of tuples: what Python can do at all."""
    delays = _delays()
    queue = [(next(delays), number, number % 2, MESSAGE) for number in range(UNDER_WAY)]
    heapq.heapify(queue)
    started_s = time.perf_counter()
    for number in range(UNDER_WAY, UNDER_WAY + events):
        at, _, to, message = heapq.heappop(queue)
        heapq.heappush(queue, (at + next(delays), number, 1 - to, message))
    return events / (time.perf_counter() - started_s)


ENGINES: dict[str, Callable[[int], float]] = {
    "omnimargin": ours,
    "simpy callbacks": simpy_callbacks,
    "simpy store": simpy_store,
    "bare heap": bare_heap,
}
