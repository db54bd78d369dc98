"""Who acts in the incident besides hub and spokes: who takes, and who halts. Nodes."""

from collections.abc import Mapping, Sequence

from messaging.effects import Effect, Send, SetTimer
from messaging.messages import Family, HaltOrdered, OrderPlaced
from messaging.node import Event, TimerFired
from messaging.units import AccountId, Asset, Micros, NodeId, Ppm, Qty8

NEXT = "next"


class Taker:
    """Tries for one more order of the same size all the time, on each venue in turn.

    Nobody tells it what is left, so it goes on when refused: credit may come.
    """

    def __init__(
        self,
        name: NodeId,
        account: AccountId,
        venues: Sequence[NodeId],
        *,
        asset: Asset,
        qty8: Qty8,
        from_us: Micros,
        every_us: Micros,
    ) -> None:
        self.name = name
        self._account = account
        self._venues = venues
        self._asset = asset
        self._qty8 = qty8
        self._from_us = from_us
        self._every_us = every_us
        self._placed = 0

    def start(self) -> Sequence[Effect]:
        """See `messaging.node.Node.start`."""
        return (SetTimer(NEXT, self._from_us),)

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        """See `messaging.node.Node.handle`."""
        assert isinstance(event, TimerFired)
        venue = self._venues[self._placed % len(self._venues)]
        self._placed += 1
        order = OrderPlaced(
            order_id=self._placed,
            account=self._account,
            asset=self._asset,
            qty8=self._qty8,
            close_ppm=Ppm(0),
        )
        again = SetTimer(NEXT, Micros(now_us + self._every_us))
        return (Send(venue, Family.ORDER, order), again)


class Operators:
    """Order spokes halted at times set beforehand."""

    def __init__(
        self, name: NodeId, hub: NodeId, halts: Mapping[Micros, tuple[NodeId, ...]]
    ) -> None:
        """Order `halts`, by time, of `hub`."""
        self.name = name
        self._hub = hub
        self._halts = halts

    def start(self) -> Sequence[Effect]:
        """See `messaging.node.Node.start`."""
        return [SetTimer(str(due_us), due_us) for due_us in self._halts]

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        """See `messaging.node.Node.handle`."""
        assert isinstance(event, TimerFired)
        order = HaltOrdered(spokes=self._halts[now_us], finding="claims that nobody can explain")
        return (Send(self._hub, Family.CONTROL, order),)
