"""What operators of a swarm order, signed, and who has given what."""

from collections.abc import Callable, Iterable

from messaging.codec import encode_frame
from messaging.drivers.process import Parcel
from messaging.envelope import NO_HEIGHT, Envelope
from messaging.identity import NO_DIGEST, Signer
from messaging.messages import Family
from messaging.operator_orders import EpochNamed, OperatorOrdered, Verb
from messaging.topics import order_route
from messaging.units import HUB, OPERATORS, Micros, NodeId

FIRST_ID = 2**63  # of approvals; orders of `People` have draws below that


class Orders:
    """Signs orders and puts them on their way.

    Attributes:
        given: by id of an order, the operators that have given it.
    """

    def __init__(
        self, signer_of: Callable[[NodeId], Signer], put: Callable[[Iterable[Parcel]], None]
    ) -> None:
        """`put` puts parcels on their way."""
        self._signers = {name: signer_of(name) for name in OPERATORS}
        self._put = put
        self._approved = 0
        self.given: dict[bytes, set[NodeId]] = {}

    def give(
        self,
        operator: NodeId,
        node: NodeId,
        order: OperatorOrdered,
        sent_us: Micros,
        arrives_us: Micros,
    ) -> None:
        """Let an operator give a node an order."""
        self.given.setdefault(order.order_id, set()).add(operator)
        head = (operator, node, Family.CONTROL, 0, 0, sent_us, NO_HEIGHT, NO_HEIGHT)
        data, _ = self._signers[operator].seal(encode_frame(Envelope(*head, order)), NO_DIGEST)
        self._put([Parcel(arrives_us, order_route(operator, node), data)])

    def approve(self, spoke: NodeId, spoke_epoch: int, at_us: Micros) -> None:
        """Let two operators say that a rebuilt spoke may come back (P24)."""
        order = rebuild_order(FIRST_ID + self._approved, spoke, spoke_epoch)
        self._approved += 1
        for operator in OPERATORS[:2]:
            self.give(operator, HUB, order, at_us, at_us)


def rebuild_order(number: int, spoke: NodeId, spoke_epoch: int) -> OperatorOrdered:
    """Return the order that lets a rebuilt spoke come back."""
    target = EpochNamed(spoke=spoke, spoke_epoch=spoke_epoch)
    return OperatorOrdered(
        order_id=number.to_bytes(8), verb=Verb.REBUILD, target=target, reason="its disk is gone"
    )
