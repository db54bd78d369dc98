"""Operators' orders at one node: who has given which, what waits, and what came of the rest.

Rule P70 of docs/protocol.md. Pure: it is part of the fold.
"""

from collections import deque

import msgspec

from messaging.operator_orders import TARGETS, OperatorOrdered
from messaging.units import Micros, NodeId

WAITING_MAX = 64
OUTCOMES_MAX = 16


class Waiting(msgspec.Struct, frozen=True):
    """An order that more operators must give."""

    order: OperatorOrdered
    operators: tuple[NodeId, ...]
    since_us: Micros


class Outcome(msgspec.Struct, frozen=True):
    """What came of an order; `why` says why it was refused, and is empty if it was not."""

    order: OperatorOrdered
    operators: tuple[NodeId, ...]
    at_us: Micros
    why: str


class Approvals:
    """All orders that a node has been given.

    Attributes:
        waiting: by id, those that more operators must give.
        decided: by id, those that so many have; an id is never used again, for a broker may
            hand old frames out once more.
        outcomes: the newest ones, refusals too; ended: how many there have been.
    """

    def __init__(self) -> None:
        self.waiting: dict[bytes, Waiting] = {}
        self.decided: dict[bytes, OperatorOrdered] = {}
        self.outcomes: deque[Outcome] = deque(maxlen=OUTCOMES_MAX)
        self.ended = 0

    def take(
        self, order: OperatorOrdered, operator: NodeId, now_us: Micros
    ) -> tuple[NodeId, ...] | None:
        """Note that an operator has given an order; return all who have, once that is enough."""
        decided = self.decided.get(order.order_id)
        if decided is not None:
            if decided != order:
                self._other_body(order, (operator,), now_us)
            return None
        kind, needed = TARGETS[order.verb]
        if type(order.target) is not kind:
            found = type(order.target).__name__
            self.close(
                order, (operator,), now_us, f"expected {kind.__name__} as target, found {found}"
            )
            return None
        waits = self.waiting.get(order.order_id)
        operators: tuple[NodeId, ...] = ()
        if waits is not None:
            if waits.order != order:
                self._other_body(order, (operator,), now_us)
                return None
            if operator in waits.operators:
                return None
            operators = waits.operators
        operators = (*operators, operator)
        if len(operators) >= needed:
            self.waiting.pop(order.order_id, None)
            self.decided[order.order_id] = order
            return operators
        if len(self.waiting) >= WAITING_MAX:
            why = f"expected at most {WAITING_MAX} orders that wait, found one more"
            self.close(order, operators, now_us, why)
            return None
        self.waiting[order.order_id] = Waiting(order, operators, now_us)
        return None

    def _other_body(
        self, order: OperatorOrdered, operators: tuple[NodeId, ...], now_us: Micros
    ) -> None:
        why = "expected the order that was first given under this id, found another one"
        self.close(order, operators, now_us, why)

    def amend(self, why: str) -> None:
        """Note that the last order could not be carried out after all."""
        self.outcomes[-1] = msgspec.structs.replace(self.outcomes[-1], why=why)

    def close(
        self, order: OperatorOrdered, operators: tuple[NodeId, ...], now_us: Micros, why: str
    ) -> None:
        """Note what came of an order."""
        self.outcomes.append(Outcome(order, operators, now_us, why))
        self.ended += 1
