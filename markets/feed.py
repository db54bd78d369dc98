"""An oracle, as a node: prints a price when it has moved enough, or has not printed for long.

Of each asset there may be several feeds, each with errors and faults of its own. The delay
until a print can be used at the hub belongs to the link between the two.
"""

import math
from collections.abc import Sequence
from enum import StrEnum
from hashlib import blake2b
from statistics import NormalDist

import msgspec

from messaging.effects import Effect, Send
from messaging.envelope import Envelope
from messaging.messages import Family, MarketMoved, PricePublished
from messaging.node import Event
from messaging.units import Asset, Micros, NodeId, Ppm, Usd6, ratio_down

NORMAL = NormalDist()


class FaultKind(StrEnum):
    """What is wrong with a feed for a while."""

    SILENT = "silent"  # it does not print
    STUCK = "stuck"  # it prints its last price, freshly dated
    BENT = "bent"  # it prints a share of the true price


class FeedFault(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which a feed is wrong; a bent one prints `factor_ppm` of the true price."""

    kind: FaultKind
    from_us: Micros
    until_us: Micros
    factor_ppm: Ppm


class FeedPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When one feed prints one asset, and how well.

    Attributes:
        asset: what it prints.
        heartbeat_us: longest time between prints.
        deviation_ppm: a move of this share of the last print calls for a new one.
        feed: which of the asset's feeds it is.
        error_ppm: standard deviation of its error, a share of the price; it says so itself.
        seed: of its errors.
        faults: times in which it is wrong.
        tells_depth: whether its prints say how deep the market is (C6).
    """

    asset: Asset
    heartbeat_us: Micros
    deviation_ppm: Ppm
    feed: int = 0
    error_ppm: Ppm = Ppm(0)
    seed: int = 0
    faults: tuple[FeedFault, ...] = ()
    tells_depth: bool = False


class Feed:
    """Watches the true prices of all assets and prints each by its own policy."""

    def __init__(self, name: NodeId, hub: NodeId, policies: Sequence[FeedPolicy]) -> None:
        """Print for `hub`; `policies` are in the order of the market's prices, feed by feed."""
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
        prices_usd6 = moved.prices_usd6
        for index, policy in enumerate(self._policies):
            last = self._prints[index]
            price_usd6 = seen(policy, last, prices_usd6[index % len(prices_usd6)], now_us)
            if price_usd6 is not None and due(policy, last, price_usd6, now_us):
                self._prints[index] = (now_us, price_usd6)
                published = PricePublished(
                    asset=policy.asset,
                    price_usd6=price_usd6,
                    observed_us=now_us,
                    feed=policy.feed,
                    error_ppm=policy.error_ppm,
                    depth_ppm=moved.depth_ppm if policy.tells_depth else Ppm(0),
                )
                effects.append(Send(self._hub, Family.PRICE, published))
        return effects


def seen(
    policy: FeedPolicy, last: tuple[Micros, Usd6] | None, price_usd6: Usd6, now_us: Micros
) -> Usd6 | None:
    """Return what a feed takes the price to be; None if it does not print now."""
    for fault in policy.faults:
        if fault.from_us <= now_us < fault.until_us:
            match fault.kind:
                case FaultKind.SILENT:
                    return None
                case FaultKind.STUCK:
                    return price_usd6 if last is None else last[1]
                case FaultKind.BENT:
                    price_usd6 = Usd6(max(1, ratio_down(price_usd6, fault.factor_ppm)))
    if not policy.error_ppm:
        return price_usd6
    off = math.exp(policy.error_ppm / 1e6 * _normal(policy, now_us))
    return Usd6(max(1, round(price_usd6 * off)))


def _normal(policy: FeedPolicy, now_us: Micros) -> float:
    """Return a standard normal number that seed, feed, asset and time alone decide."""
    key = f"{policy.seed}/oracle/{policy.feed}/{policy.asset}/{now_us}"
    drawn = int.from_bytes(blake2b(key.encode(), digest_size=6).digest())
    return NORMAL.inv_cdf((drawn + 0.5) / 2**48)


def due(
    policy: FeedPolicy, last: tuple[Micros, Usd6] | None, price_usd6: Usd6, now_us: Micros
) -> bool:
    """Tell whether a price calls for a print: the first, a large move, or a heartbeat."""
    if last is None:
        return True
    printed_us, printed_usd6 = last
    moved = abs(price_usd6 - printed_usd6) * 1_000_000 >= policy.deviation_ppm * printed_usd6
    return moved or now_us - printed_us >= policy.heartbeat_us
