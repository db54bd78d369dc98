"""An oracle, as a node: prints a price when it has moved enough, or has not printed for long.

The delay until a print can be used at the hub belongs to the link between the two.
"""

from collections.abc import Sequence

import msgspec

from messaging.effects import Effect, Send
from messaging.envelope import Envelope
from messaging.messages import Family, MarketMoved, PricePublished
from messaging.node import Event
from messaging.units import Asset, Micros, NodeId, Ppm, Usd6


class FeedPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When one asset's feed prints.

    Attributes:
        asset: what it prints.
        heartbeat_us: longest time between prints.
        deviation_ppm: a move of this share of the last print calls for a new one.
    """

    asset: Asset
    heartbeat_us: Micros
    deviation_ppm: Ppm


class Feed:
    """Watches the true prices of all assets and prints each by its own policy."""

    def __init__(self, name: NodeId, hub: NodeId, policies: Sequence[FeedPolicy]) -> None:
        """Print for `hub`; `policies` are in the order of the market's prices."""
        self.name = name
        self._hub = hub
        self._policies = policies
        self._prints: list[tuple[Micros, Usd6] | None] = [None] * len(policies)

    def start(self) -> Sequence[Effect]:
        """See `messaging.node.Node.start`."""
        return ()

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        """See `messaging.node.Node.handle`."""
        assert isinstance(event, Envelope)
        moved = event.message
        assert isinstance(moved, MarketMoved)
        effects: list[Effect] = []
        for index, policy in enumerate(self._policies):
            price_usd6 = moved.prices_usd6[index]
            if due(policy, self._prints[index], price_usd6, now_us):
                self._prints[index] = (now_us, price_usd6)
                published = PricePublished(
                    asset=policy.asset, price_usd6=price_usd6, observed_us=now_us
                )
                effects.append(Send(self._hub, Family.PRICE, published))
        return effects


def due(
    policy: FeedPolicy, last: tuple[Micros, Usd6] | None, price_usd6: Usd6, now_us: Micros
) -> bool:
    """Tell whether a price calls for a print: the first, a large move, or a heartbeat."""
    if last is None:
        return True
    printed_us, printed_usd6 = last
    moved = abs(price_usd6 - printed_usd6) * 1_000_000 >= policy.deviation_ppm * printed_usd6
    return moved or now_us - printed_us >= policy.heartbeat_us
