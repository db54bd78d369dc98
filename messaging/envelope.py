"""What a channel adds to a message: who, to whom, which one in the row, how final."""

import msgspec

from messaging.messages import Family, Message
from messaging.units import Height, Micros, NodeId

NO_HEIGHT = Height(0)


class Envelope(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One frame.

    Attributes:
        sender: node that made the frame.
        receiver: node it is for.
        family: with sender and receiver, names the channel.
        seq: 1, 2, 3, ... in its channel; 0 outside the sequence (P17).
        ack_seq: last seq of the opposite channel that arrived with none missing (P18).
        sent_us: sender's time; for people and figures, never for a decision.
        height: block the fact belongs to; 0 from the hub.
        final_height: sender's final block when it sent; 0 from the hub.
        message: the content.
    """

    sender: NodeId
    receiver: NodeId
    family: Family
    seq: int
    ack_seq: int
    sent_us: Micros
    height: Height
    final_height: Height
    message: Message
