"""What at a node waits for people, in words: stopped channels, halts, orders."""

from collections.abc import Iterable

from hub.node import Hub
from lab.stack.plan import Ended, Matters, Status, Waits
from messaging.endpoint import Endpoint
from messaging.operator_orders import TARGETS, brief
from spokes.node import Spoke


def matters_of(endpoint: Endpoint) -> Matters:
    """Return what at a node is for people."""
    orders = endpoint.orders
    return Matters(
        stopped=tuple(
            f"{peer} {family} {event.seq:,}: {event.why}"
            for (peer, family), inbox in endpoint.inboxes.items()
            for event in inbox.poison.values()
        ),
        halted=tuple(_halted(endpoint)),
        waiting=tuple(Waits(one.order, one.operators) for one in orders.waiting.values()),
        ended=tuple(Ended(one.order, one.operators, one.why) for one in orders.outcomes),
    )


def _halted(endpoint: Endpoint) -> Iterable[str]:
    node = endpoint.node
    if isinstance(node, Hub):
        for zone in node.state.zones:
            if zone.halted is not None:
                yield f"{zone.name} is halted: {zone.halted}"
            if zone.frozen:
                families = ", ".join(zone.frozen)
                yield f"{zone.name} frees nothing: a frame of {families} was passed over"
            for rid in zone.cut.quarantine:
                yield f"{zone.name}: {rid.hex()} is in quarantine"
    elif isinstance(node, Spoke):
        if node.state.halted:
            yield "halted by the hub"
        if node.state.doubts:
            yield "the hub has contradicted itself"


def lines(status: Status) -> Iterable[str]:
    """Yield what at a node is for people, a line each; of decided orders only refusals."""
    matters = status.matters
    yield from (f"{status.role}: stopped at {one}" for one in matters.stopped)
    yield from (f"{status.role}: {one}" for one in matters.halted)
    for waits in matters.waiting:
        _, needed = TARGETS[waits.order.verb]
        left = needed - len(waits.operators)
        given = f"given by {', '.join(waits.operators)} ({waits.order.reason})"
        yield f"{status.role}: order {brief(waits.order)} waits for {left} more, {given}"
    for ended in matters.ended:
        if ended.why:
            yield f"{status.role}: order {brief(ended.order)} refused: {ended.why}"
