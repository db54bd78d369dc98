"""Which topic carries what: one writer, one reader, one partition each (P6, P7).

    from-<spoke>.<family>   spoke to hub      to-<spoke>.<family>   hub to spoke
    market.<spoke>          true prices       order.<spoke>         orders of traders
    price.oracle            prints            ctl.halt, ctl.relay   watchdog, operator
    dlq.<node>              dead letters      ctl.<operator>.<node>   orders of an operator

What travels between chains goes through the relay, which writes `delivered.<topic>`; the rest
stays within one chain and is read where it was written.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from messaging.envelope import Envelope
from messaging.errors import FrameRefused
from messaging.messages import CHANNEL_FAMILIES, Family
from messaging.units import (
    HUB,
    MARKET,
    MONITOR,
    OPERATOR,
    OPERATORS,
    ORACLE,
    RELAY,
    TRADERS,
    NodeId,
)

DELIVERED = "delivered."
HALT_TOPIC = "ctl.halt"
LINK_TOPIC = "ctl.relay"


class Route(NamedTuple):
    """One topic: who writes frames of what to it, for whom.

    Attributes:
        topic: where the sender writes.
        sender, receiver, family: what every frame on it must say (P7).
        relayed: whether the receiver reads what the relay has delivered, not the topic itself.
    """

    topic: str
    sender: NodeId
    receiver: NodeId
    family: Family
    relayed: bool

    @property
    def read_from(self) -> str:
        """Name the topic that the receiver reads."""
        return DELIVERED + self.topic if self.relayed else self.topic

    @property
    def ordered(self) -> bool:
        """Tell whether it reaches its reader over Kafka alone: in order, and not sent again."""
        return self.family is Family.ORDER or self.sender == MARKET

    def check(self, frame: Envelope) -> None:
        """Refuse a frame of another route (P7).

        Raises:
            FrameRefused: its names are not those of the topic.
        """
        found, expected = (frame.sender, frame.receiver, frame.family), self[1:4]
        if found != expected:
            raise FrameRefused(f"expected {'/'.join(expected)}, found {'/'.join(found)}")


def dead_letters(node: NodeId) -> str:
    """Name the topic of what a node has refused."""
    return f"dlq.{node}"


def order_route(operator: NodeId, node: NodeId) -> Route:
    """Return the way that an operator's orders take to a node."""
    return Route(order_topic(operator, node), operator, node, Family.CONTROL, False)


def order_topic(operator: NodeId, node: NodeId) -> str:
    """Name the topic of an operator's orders to a node."""
    return f"ctl.{operator}.{node}"


def routes(spokes: Iterable[NodeId]) -> tuple[Route, ...]:
    """Return every way a frame may take between a hub, these spokes and the world outside."""
    spokes = tuple(spokes)
    found = [
        Route(f"price.{ORACLE}", ORACLE, HUB, Family.PRICE, True),
        Route(HALT_TOPIC, MONITOR, HUB, Family.CONTROL, False),
        Route(LINK_TOPIC, OPERATOR, RELAY, Family.CONTROL, False),
    ]
    for spoke in spokes:
        found.append(Route(f"market.{spoke}", MARKET, spoke, Family.PRICE, False))
        found.append(Route(f"order.{spoke}", TRADERS, spoke, Family.ORDER, False))
        for family in CHANNEL_FAMILIES:
            for one, other in ((spoke, HUB), (HUB, spoke)):
                found.append(Route(channel_topic(one, other, family), one, other, family, True))
    found += [order_route(operator, node) for node in (HUB, *spokes) for operator in OPERATORS]
    return tuple(found)


def channel_topic(sender: NodeId, receiver: NodeId, family: Family) -> str:
    """Name the topic of a channel."""
    return f"to-{receiver}.{family}" if sender == HUB else f"from-{sender}.{family}"


def topic_of(frame: Envelope) -> str:
    """Name the topic that the sender of a frame writes it to."""
    return _topic(frame.sender, frame.receiver, frame.family)


@lru_cache(maxsize=4_096)  # asked several times for each frame
def _topic(sender: NodeId, receiver: NodeId, family: Family) -> str:
    if family in CHANNEL_FAMILIES:
        return channel_topic(sender, receiver, family)
    if family is Family.PRICE:
        return f"market.{receiver}" if sender == MARKET else f"price.{sender}"
    if family is Family.ORDER:
        return f"order.{receiver}"
    if sender in OPERATORS:
        return order_topic(sender, receiver)
    return HALT_TOPIC if receiver == HUB else LINK_TOPIC
