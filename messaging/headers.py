"""What travels beside a frame, unsigned: when it left and what caused it, and its trace.

No decision but the order of events rests on it (docs/protocol.md, section 3).
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple

from messaging.envelope import Envelope
from messaging.units import Micros

TIMER, DELIVERY = 0, 1  # what an output came of; in virtual time, timers come first
AT, ORDER, TRACE = "at_us", "order", "traceparent"  # headers of a record


class Order(NamedTuple):
    """Where a frame stands among all that its sender sent.

    Attributes:
        left_us: when it left; a resend's own time, where the frame has the first one's.
        cause: TIMER or DELIVERY.
        number: the how-manieth frame of its sender it is.
    """

    left_us: Micros
    cause: int
    number: int


def read_order(headers: Mapping[str, bytes], frame: Envelope) -> Order:
    """Return what a frame's header says; what is no header of ours, by the frame itself."""
    try:
        left_us, cause, number = map(int, headers[ORDER].split(b"."))
    except (KeyError, ValueError):
        return Order(frame.sent_us, DELIVERY, 0)
    return Order(Micros(left_us), cause, number)


def trace_of(frame: Envelope) -> bytes:
    """Return the W3C traceparent of a frame about a liquidation, whose id is the trace's."""
    liq_id = getattr(frame.message, "liq_id", None)
    if liq_id is None:
        return b""
    span = sha256(f"{frame.sender}/{frame.family}/{frame.seq}".encode()).hexdigest()[:16]
    return f"00-{liq_id.hex()}-{span}-01".encode()
