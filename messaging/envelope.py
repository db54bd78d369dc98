"""What a channel adds to a message: who, to whom, which one in the row, how final."""

from typing import final

import msgspec

from messaging.fields import BlockHeight, Count, Epoch, NodeName, Time
from messaging.messages import Family, Message
from messaging.units import Height

NO_HEIGHT = Height(0)


@final
class Envelope(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="frame.3"):
    """One frame. Its tag is the version of the wire.

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
        node_epoch: which of the sender's lives made it, from 1 (P19).
        chan_epoch: which version of the channel it belongs to, from 1 (P21).
        ack_epoch: version of the opposite channel that `ack_seq` counts in.
    """

    sender: NodeName
    receiver: NodeName
    family: Family
    seq: Count
    ack_seq: Count
    sent_us: Time
    height: BlockHeight
    final_height: BlockHeight
    message: Message
    node_epoch: Epoch = 1
    chan_epoch: Epoch = 1
    ack_epoch: Epoch = 1
