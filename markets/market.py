"""The true price, as a node: tells venues, feeds and traders whenever it moves."""

from collections.abc import Sequence

from markets.price_path import PricePath
from messaging.effects import Effect, Send, SetTimer
from messaging.messages import Family, MarketMoved
from messaging.node import Event, TimerFired
from messaging.units import Micros, NodeId

TICK = "tick"


class Market:
    """Plays a price path."""

    def __init__(self, name: NodeId, path: PricePath, audience: Sequence[NodeId]) -> None:
        self.name = name
        self._path = path
        self._audience = audience
        self._row = 0

    def start(self) -> Sequence[Effect]:
        """See `messaging.node.Node.start`."""
        return self._tell()

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        """See `messaging.node.Node.handle`."""
        assert isinstance(event, TimerFired)
        return self._tell()

    def _tell(self) -> list[Effect]:
        path, row = self._path, self._row
        self._row += 1
        moved = MarketMoved(prices_usd6=path.prices_usd6[row], depth_ppm=path.depth_ppm[row])
        effects: list[Effect] = [Send(to, Family.PRICE, moved) for to in self._audience]
        if self._row < len(path.times_us):
            effects.append(SetTimer(TICK, path.times_us[self._row]))
        return effects
