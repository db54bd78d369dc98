"""Two laws that copies of the nodes are asked about now and then: INV8 and INV9.

A node's copy is shown what the node itself has not been shown; the run goes on as if nobody had
asked. Dear, so it happens in few seeds (`Options.audited`) and there only every some rounds.
"""

import pickle
from typing import TypeVar

from hub.node import Hub
from hub.reservation import Reservation
from lab.swarm.draws import Draws
from messaging.codec import decode_frame
from messaging.drivers.process import Parcel, Process
from messaging.endpoint import Endpoint
from messaging.envelope import Envelope
from messaging.errors import FrameRefused, InvariantViolated
from messaging.fingerprint import fingerprint
from messaging.link_control import ResyncAsked
from messaging.messages import CloseReason, CreditUsed, Family, ReservationClosed
from messaging.units import HUB, Height, Micros, Usd6
from spokes.node import Spoke

AGAIN = 8  # frames delivered again each time
_T = TypeVar("_T")


def delivered_again(process: Process, draws: Draws, now_us: Micros) -> int:
    """Deliver some of what a process has committed once more to a copy; return how much.

    Raises:
        InvariantViolated: INV8, the state is another one afterwards.
    """
    if process.durable.endpoint.lives.unsynced or process.durable.endpoint.lives.stopped:
        return 0  # it hears nothing until the others have agreed to it
    endpoint, asked = _copy(process.durable.endpoint), 0
    history = process.history
    for _ in range(AGAIN if history else 0):
        frame = _applied(process, history[draws.whole(0, len(history) - 1)])
        if frame is None:
            continue
        before = state_hash(endpoint)
        endpoint.handle(max(now_us, process.durable.at_us), frame)
        asked += 1
        if state_hash(endpoint) != before:
            what = f"{endpoint.name}: {type(frame.message).__name__} {frame.seq} of {frame.sender}"
            raise InvariantViolated("INV8", f"{what} again changes the state")
    return asked


def either_order(process: Process, draws: Draws, now_us: Micros) -> int:
    """Tell two copies of the hub of a use and a close, in either order; return 1 if they compare.

    Not where one of the two makes a block final with which the spoke's earlier word frees the
    other: no use may follow such a word (P51), and a close that does finds another end noted.

    Raises:
        InvariantViolated: INV9, the state depends on the order.
    """
    hub = process.durable.endpoint.node
    assert isinstance(hub, Hub)
    open_now = [
        known
        for known in hub.state.reservations.values()
        if known.open and known.closed is None and hub.state.zone_of[known.spoke].halted is None
    ]
    if len(open_now) < 2:
        return 0
    first = draws.whole(0, len(open_now) - 1)
    second = (first + draws.whole(1, len(open_now) - 1)) % len(open_now)
    final = draws.chance(0.5)
    one, other = open_now[first], open_now[second]
    use = _use(hub, one, final=final, now_us=now_us)
    close = _close(hub, other, final=final, now_us=now_us)
    at_us = max(now_us, process.durable.at_us)
    found = set()
    for earlier, later, behind in ((use, close, other), (close, use, one)):
        endpoint = _copy(process.durable.endpoint)
        endpoint.node.handle(at_us, earlier)
        if one.spoke == other.spoke and not _still_open(endpoint, behind):
            return 0
        endpoint.node.handle(at_us, later)
        found.add(state_hash(endpoint))
    if len(found) > 1:
        rids = f"{one.rid.hex()} and close of {other.rid.hex()}"
        raise InvariantViolated("INV9", f"use of {rids}: the state depends on their order")
    return 1


def state_hash(endpoint: Endpoint) -> str:
    """Return a hash of a node and the cursors of its channels, without what it notes by the way.

    What an event has changed is kept for the checks and cleared with the next one; digests over
    open rows are brought up when they are asked for.
    """
    node = endpoint.node
    if isinstance(node, Hub):
        node.state.changed.clear()
        node.state.changed_rids.clear()
        for zone in node.state.zones:
            zone.cut.rows.tree().root()
    elif isinstance(node, Spoke):
        node.state.changed_rids.clear()
        node.state.filled.clear()
        node.state.rows.tree().root()
    heard = [inbox.cursor for inbox in endpoint.inboxes.values()]
    said = [(outbox.chan_epoch, outbox.next_seq) for outbox in endpoint.outboxes.values()]
    return fingerprint((node, heard, said))


def _applied(process: Process, parcel: Parcel) -> Envelope | None:
    """Return the frame in a parcel if the node has taken it in, not refused or dropped it."""
    try:
        sealed, link = process.verifier.open_linked(parcel.data, parcel.route.sender)
        frame = decode_frame(sealed.frame)
        parcel.route.check(frame)
        process.durable.admit(frame, link)
    except FrameRefused:
        return None
    if process.durable.is_repeat(parcel.route, frame):
        return None  # never shown to the endpoint a second time
    inbox = process.durable.endpoint.inboxes.get((frame.sender, frame.family))
    if inbox is None:
        return frame
    if type(frame.message) is ResyncAsked and frame.node_epoch > inbox.life.node_epoch:
        return None  # not answered yet: people have to readmit it first (P24)
    return frame if inbox.has(frame) else None  # else there was no room for it when it came


def _still_open(endpoint: Endpoint, known: Reservation) -> bool:
    assert isinstance(endpoint.node, Hub)
    return endpoint.node.state.reservations[known.rid].open


def _use(hub: Hub, known: Reservation, *, final: bool, now_us: Micros) -> Envelope:
    left_usd6 = known.amount_usd6 - known.used_usd6
    zone = hub.state.zone_of[known.spoke]
    used = CreditUsed(
        rid=known.rid,
        used_usd6=Usd6(known.used_usd6 + (left_usd6 + 1) // 2),
        block_time_us=min(zone.heard_us, Micros(known.expires_max_us - 1)),
    )
    return _fact(hub, known, used, final=final, now_us=now_us)


def _close(hub: Hub, known: Reservation, *, final: bool, now_us: Micros) -> Envelope:
    closed = ReservationClosed(rid=known.rid, used_usd6=known.used_usd6, reason=CloseReason.EXPIRED)
    return _fact(hub, known, closed, final=final, now_us=now_us)


def _fact(
    hub: Hub,
    known: Reservation,
    message: CreditUsed | ReservationClosed,
    *,
    final: bool,
    now_us: Micros,
) -> Envelope:
    """Put a fact of the spoke's next block into a frame; with `final` the block is final."""
    before = hub.state.zone_of[known.spoke].final_heights[Family.RESERVATION]
    height = Height(before + 1)
    last = height if final else before
    return Envelope(known.spoke, HUB, Family.RESERVATION, 1, 0, now_us, height, last, message)


def _copy(value: _T) -> _T:
    copied: _T = pickle.loads(pickle.dumps(value, protocol=5))
    return copied
