"""A world at rest, and how to harm it: each rule of the end is broken by hand."""

from collections.abc import Callable

import msgspec

from hub.node import Hub
from hub.reservation import Reservation, State
from lab.swarm import rest
from lab.swarm.options import draw
from lab.swarm.trial import Trial
from messaging.units import Micros, Usd6
from spokes.node import Spoke
from spokes.reservation import Credit
from spokes.reservation import State as Held


class World:
    """A world without faults that has come to rest after some trading."""

    def __init__(self) -> None:
        drawn = draw(1, 2.0)
        trial = Trial(msgspec.structs.replace(drawn, faults={}, accounts=4, spokes=2))
        assert trial.run().finding is None
        self.endpoints = trial.endpoints()
        nodes = [endpoint.node for endpoint in self.endpoints]
        (self.hub,) = [node.state for node in nodes if isinstance(node, Hub)]
        self.spokes = [node for node in nodes if isinstance(node, Spoke)]
        self.said: rest.Said = dict.fromkeys(rest.said(self.endpoints), 0)
        used = [one for one in self.hub.reservations.values() if one.state is State.SETTLED]
        self.known = used[0]

    def check(self) -> None:
        (hub,) = [one.node for one in self.endpoints if isinstance(one.node, Hub)]
        rest.check(hub, self.spokes, self.endpoints, self.said, Micros(0))

    def put(self, **changed: object) -> Reservation:
        """Change the reservation at the hub."""
        after: Reservation = msgspec.structs.replace(self.known, **changed)
        self.hub.reservations[after.rid] = after
        return after

    def credit(self, state: Held) -> None:
        """Let the spoke remember the reservation."""
        (spoke,) = [one for one in self.spokes if one.name == self.known.spoke]
        spoke.state.credits[self.known.rid] = Credit(
            rid=self.known.rid,
            account=self.known.account,
            state=state,
            used_usd6=self.known.used_usd6,
        )


def closed(world: World) -> None:
    world.credit(Held.CLOSED)


BROKEN: dict[str, tuple[str, Callable[[World], object]]] = {
    "another state": ("E1", lambda world: world.credit(Held.REQUESTED)),
    "another use": ("E1", lambda world: (closed(world), world.put(used_usd6=Usd6(7)))),
    "open at the hub": ("E2", lambda world: world.put(state=State.HELD)),
    "overdue": ("E2", lambda world: world.put(state=State.OVERDUE)),
    "not carried": ("E4", lambda world: world.put(carried=False)),
    "encumbered": ("E4", lambda world: setattr(world.hub.zones[0], "encumbered_usd6", 1)),
    "a spoke is overdue": ("E5", lambda world: world.hub.zones[0].overdue.update({b"": None})),
    "a close not acknowledged": ("E3", closed),
    "not heard": ("E3", lambda world: world.said.update(dict.fromkeys(world.said, 10**6))),
}
