"""The true price, as a node: tells venues, feeds and traders whenever it moves."""

from collections.abc import Sequence

from markets.impact import (
    NONE,
    ImpactPolicy,
    at_venue_e12,
    decayed,
    displaced_usd6,
    mean_usd6,
    pushed,
    value_usd,
)
from markets.price_path import PricePath
from messaging.effects import Effect, Send, SetTimer
from messaging.envelope import Envelope
from messaging.messages import Family, MarketMoved
from messaging.node import Event, TimerFired
from messaging.units import Micros, NodeId, Usd6
from messaging.venues import VenueTraded

TICK = "tick"


class Market:
    """Plays a price path."""

    def __init__(self, name: NodeId, path: PricePath, audience: Sequence[NodeId]) -> None:
        self.name = name
        self._path = path
        self._audience = audience
        self._row = -1

    def start(self) -> Sequence[Effect]:
        """See `messaging.node.Node.start`."""
        return self._tick(Micros(0))

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        """See `messaging.node.Node.handle`."""
        assert isinstance(event, TimerFired)
        return self._tick(now_us)

    def _tick(self, now_us: Micros) -> list[Effect]:
        self._row += 1
        effects: list[Effect] = [*self._say(now_us)]
        if self._row + 1 < len(self._path.times_us):
            effects.append(SetTimer(TICK, self._path.times_us[self._row + 1]))
        return effects

    def _say(self, now_us: Micros) -> list[Send]:
        moved = self._moved(self._path.prices_usd6[self._row])
        return [Send(to, Family.PRICE, moved) for to in self._audience]

    def _moved(self, prices_usd6: tuple[Usd6, ...]) -> MarketMoved:
        return MarketMoved(prices_usd6=prices_usd6, depth_ppm=self._path.depth_ppm[self._row])


class MovedMarket(Market):
    """Plays a price path that fills move on: each venue has prices of its own (C1 to C4)."""

    def __init__(
        self,
        name: NodeId,
        path: PricePath,
        policy: ImpactPolicy,
        *,
        feeds: Sequence[NodeId],
        unmoved: Sequence[NodeId],
        venues: Sequence[NodeId],
    ) -> None:
        """Tell `venues` their own prices, `feeds` the average, and `unmoved` the path's."""
        super().__init__(name, path, (*feeds, *unmoved, *venues))
        self._policy = policy
        self._feeds = feeds
        self._unmoved = unmoved
        self._venues = venues
        self._own = [[NONE for _ in venues] for _ in path.assets]
        self._known_us = Micros(0)
        self._told: dict[NodeId, tuple[Usd6, ...]] = {}

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        """See `messaging.node.Node.handle`."""
        if type(event) is not Envelope:
            return super().handle(now_us, event)
        traded = event.message
        assert type(traded) is VenueTraded
        self._pass_time(now_us)
        venue, depth_ppm = self._venues.index(event.sender), self._path.depth_ppm[self._row]
        for asset, qty8 in enumerate(traded.bought_qty8):
            bought_usd = value_usd(qty8, self._told[event.sender][asset])
            own = self._own[asset]
            own[venue] = pushed(self._policy, asset, venue, own[venue], bought_usd, depth_ppm)
        before = self._told
        return [send for send in self._say(now_us) if before[send.to] != self._told[send.to]]

    def _say(self, now_us: Micros) -> list[Send]:
        self._pass_time(now_us)
        path_usd6 = self._path.prices_usd6[self._row]
        by_venue = [
            tuple(
                displaced_usd6(price_usd6, at_venue_e12(self._policy, own, venue))
                for price_usd6, own in zip(path_usd6, self._own, strict=True)
            )
            for venue in range(len(self._venues))
        ]
        mean = tuple(mean_usd6(prices_usd6) for prices_usd6 in zip(*by_venue, strict=True))
        self._told = dict.fromkeys(self._feeds, mean) | dict.fromkeys(self._unmoved, path_usd6)
        self._told |= dict(zip(self._venues, by_venue, strict=True))
        return [Send(to, Family.PRICE, self._moved(self._told[to])) for to in self._audience]

    def _pass_time(self, now_us: Micros) -> None:
        """Let go what does not last."""
        passed_us, self._known_us = now_us - self._known_us, now_us
        for own in self._own:
            own[:] = [decayed(self._policy, one, passed_us) for one in own]
