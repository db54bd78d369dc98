"""Run nodes in virtual time: a sorted queue instead of a clock and a network."""

import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from messaging.endpoint import Endpoint, Output
from messaging.envelope import Envelope
from messaging.node import Event, TimerFired
from messaging.record import Record
from messaging.units import Micros, NodeId

TIMER, DELIVERY = 0, 1  # at one instant, timers fire before deliveries

# Events sort by (time, kind, node, push number); the last three are one whole number, which
# compares faster than three and leaves no tie to chance.
_NUMBER_BITS = 44
_NODE_BITS = 12


class Network(Protocol):
    """What lies between the nodes."""

    def arrivals(self, envelope: Envelope, now_us: Micros) -> Sequence[Micros]:
        """Return when copies of a frame arrive: none if it is lost, two if it is repeated."""
        ...


class EventsExhausted(AssertionError):
    """The limit on events is reached: a livelock, or a limit too low."""


class VirtualDriver:
    """Deliver events one at a time, in an order fixed by the seed alone.

    Attributes:
        failed: the event that a node has raised at, if one has.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        network: Network,
        *,
        until_us: Micros,
        events_max: int = 10**9,
        elsewhere: Sequence[NodeId] = (),
    ) -> None:
        """Run `endpoints` over `network` up to and including virtual time `until_us`.

        `elsewhere` names receivers that are not run here; the network delivers nothing to them.
        """
        assert len(endpoints) < 1 << _NODE_BITS
        self._endpoints = endpoints
        self._network = network
        self._until_us = until_us
        self._events_max = events_max
        self._elsewhere = elsewhere
        self.failed: tuple[Micros, NodeId, Event] | None = None

    def run(self) -> Iterator[Record]:
        """Yield a record for each event until nothing is left to do, or time is up."""
        queue: list[tuple[Micros, int, Event]] = []
        timers: dict[tuple[int, str], Micros] = {}
        names = [endpoint.name for endpoint in self._endpoints]
        handlers = [endpoint.handle for endpoint in self._endpoints]
        carry_out = self._carrier(queue, timers)
        for index, endpoint in enumerate(self._endpoints):
            carry_out(Micros(0), index, endpoint.start())

        node_mask = (1 << _NODE_BITS) - 1
        until_us, left, pop = self._until_us, self._events_max, heapq.heappop
        while queue:
            now_us, order, event = pop(queue)
            if now_us > until_us:
                return
            index = (order >> _NUMBER_BITS) & node_mask
            if type(event) is TimerFired:
                if timers.get((index, event.name)) != now_us:
                    continue  # set again, for another time, since this one was queued
                del timers[index, event.name]
            if left == 0:
                raise EventsExhausted(f"expected at most {self._events_max:,} events")
            left -= 1
            try:
                effects = handlers[index](now_us, event)
            except BaseException:
                self.failed = (now_us, names[index], event)
                raise
            if effects:
                carry_out(now_us, index, effects)
            yield Record(now_us, names[index], event, effects)

    def _carrier(
        self, queue: list[tuple[Micros, int, Event]], timers: dict[tuple[int, str], Micros]
    ) -> Callable[[Micros, int, Sequence[Output]], None]:
        """Return what carries effects out: a closure, for it runs once for every event."""
        arrivals, push, number = self._network.arrivals, heapq.heappush, 0
        orders = dict.fromkeys(self._elsewhere, 0) | {
            endpoint.name: ((DELIVERY << _NODE_BITS) | index) << _NUMBER_BITS
            for index, endpoint in enumerate(self._endpoints)
        }

        def carry_out(now_us: Micros, source: int, effects: Sequence[Output]) -> None:
            nonlocal number
            for effect in effects:
                if type(effect) is Envelope:
                    order = orders[effect.receiver]
                    for at_us in arrivals(effect, now_us):
                        push(queue, (at_us, order + number, effect))
                        number += 1
                else:
                    at_us, name = effect.at_us, effect.name
                    assert at_us >= now_us, f"timer {name} set for the past"
                    timers[source, name] = at_us
                    push(queue, (at_us, (source << _NUMBER_BITS) + number, TimerFired(name)))
                    number += 1

        return carry_out
