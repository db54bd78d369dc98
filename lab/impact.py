"""What fills did to prices in a run, read off what the market has told (C8)."""

import math
from collections.abc import Sequence

from lab.result import Fall, Impact
from markets.price_path import PricePath
from messaging.effects import Effect, Send
from messaging.envelope import Envelope
from messaging.messages import MarketMoved
from messaging.node import Event
from messaging.units import ORACLE, TRADERS, Micros, NodeId, Usd6
from messaging.venues import VenueTraded


class Drop:
    """The largest fall of one price so far, and what its path without fills did meanwhile.

    Attributes:
        worst: that fall; None while the price has only risen.
    """

    def __init__(self) -> None:
        self.worst: Fall | None = None
        self._top: tuple[Micros, Usd6, Usd6] | None = None

    def see(self, at_us: Micros, price_usd6: Usd6, path_usd6: Usd6) -> None:
        """Take in a price, and that of the path at the same time."""
        if self._top is None or price_usd6 >= self._top[1]:
            self._top = (at_us, price_usd6, path_usd6)
            return
        top_us, top_usd6, path_top_usd6 = self._top
        fell_ppm = (top_usd6 - price_usd6) * 1_000_000 // top_usd6
        if fell_ppm <= (self.worst.fell_ppm if self.worst else 0):
            return
        path_fell_ppm = (path_top_usd6 - path_usd6) * 1_000_000 // path_top_usd6
        own_ppm = (fell_ppm - path_fell_ppm) * 1_000_000 // fell_ppm
        self.worst = Fall(top_us, at_us, fell_ppm, path_fell_ppm, own_ppm)


class Impacts:
    """Collects while a run goes on."""

    def __init__(self, path: PricePath, venues: Sequence[NodeId]) -> None:
        self._drops = {asset: Drop() for asset in path.assets}
        self._venues = venues
        first_usd6: Sequence[Usd6] = path.prices_usd6[0]  # which the market tells as it starts
        self._told = dict.fromkeys((ORACLE, TRADERS, *venues), first_usd6)
        self._see(Micros(0))
        self._own = self._others = 0.0

    def after_market(self, now_us: Micros, event: Event, effects: Sequence[Effect]) -> None:
        """Take in what the market tells; see `messaging.endpoint.Observer`."""
        before = dict(self._told)
        for effect in effects:
            if type(effect) is Send and type(effect.message) is MarketMoved:
                self._told[effect.to] = effect.message.prices_usd6
        if type(event) is Envelope and type(event.message) is VenueTraded:
            self._compare(event.sender, before)
        self._see(now_us)

    def _see(self, now_us: Micros) -> None:
        rows = zip(self._drops.values(), self._told[ORACLE], self._told[TRADERS], strict=True)
        for drop, price_usd6, path_usd6 in rows:
            drop.see(now_us, price_usd6, path_usd6)

    def _compare(self, venue: NodeId, before: dict[NodeId, Sequence[Usd6]]) -> None:
        """Regress the others' moves on the venue's own, through zero."""
        moves = {
            one: [
                math.log(now / then) for now, then in zip(self._told[one], before[one], strict=True)
            ]
            for one in self._venues
        }
        for place, own in enumerate(moves[venue]):
            for one in self._venues:
                if one != venue:
                    self._own += own * own
                    self._others += own * moves[one][place]

    def result(self, cascades_ppm: Sequence[int] | None) -> Impact:
        """Return what was found; `cascades_ppm` is what the hub has measured, if it has."""
        return Impact(
            coupling_ppm=round(1e6 * self._others / self._own) if self._own else None,
            cascades_ppm=(
                None if cascades_ppm is None else dict(zip(self._drops, cascades_ppm, strict=True))
            ),
            falls={asset: one.worst for asset, one in self._drops.items() if one.worst},
        )
