"""From an authentic seal to the frame in it, or to what there is instead (P25, P69).

What was signed and cannot be read is the signer's word all the same: if its place can be told, it
is poison, and its channel stops there. Else it is refused, and its number stays missing.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from messaging.breakers import BreakerSet
from messaging.codec import decode_frame
from messaging.digests import BucketsAsked, BucketsTold, DigestTold, RowsAsked, RowsTold
from messaging.envelope import Envelope
from messaging.errors import FrameRefused
from messaging.fields import BlockHeight, Count, Epoch, Family, NodeName, Time
from messaging.identity import Sealed
from messaging.link_control import (
    Acknowledged,
    KeyRotated,
    RebuildAccepted,
    ResendRequested,
    ResyncAsked,
    ResyncTold,
)
from messaging.messages import (
    CHANNEL_FAMILIES,
    ChainReorganised,
    ClosureAcknowledged,
    CreditUsed,
    HaltOrdered,
    LinkChanged,
    LiquidationAcknowledged,
    LiquidationDone,
    LiquidationFilled,
    LiquidationOrdered,
    MarginSet,
    MarketMoved,
    OrderPlaced,
    PricePublished,
    ReservationClosed,
    ReservationGranted,
    ReservationRejected,
    ReservationRenewed,
    ReservationRequested,
    RevocationRequested,
    SpokeHalted,
    SpokeResumed,
    StateReported,
    Watermark,
)
from messaging.node import Poisoned
from messaging.operator_orders import OperatorOrdered
from messaging.rebuilding import ChannelRebuilt, OldEpochsClosed
from messaging.topics import Route
from messaging.units import HUB, OPERATORS

WHY_MAX = 200

TO_HUB: dict[Family, frozenset[type]] = {
    Family.RESERVATION: frozenset(
        (
            ReservationRequested,
            CreditUsed,
            ReservationClosed,
            Watermark,
            ChainReorganised,
            DigestTold,
            BucketsTold,
            RowsTold,
            OldEpochsClosed,
            ChannelRebuilt,
            KeyRotated,
        )
    ),
    Family.MARGIN_STATE: frozenset(
        (StateReported, Watermark, ChainReorganised, ChannelRebuilt, KeyRotated)
    ),
    Family.LIQUIDATION: frozenset(
        (
            LiquidationFilled,
            LiquidationDone,
            Watermark,
            ChainReorganised,
            ChannelRebuilt,
            KeyRotated,
        )
    ),
    Family.PRICE: frozenset((PricePublished,)),
    Family.CONTROL: frozenset((HaltOrdered,)),
}
TO_SPOKE: dict[Family, frozenset[type]] = {
    Family.RESERVATION: frozenset(
        (
            ReservationGranted,
            ReservationRejected,
            ReservationRenewed,
            RevocationRequested,
            ClosureAcknowledged,
            SpokeHalted,
            SpokeResumed,
            BucketsAsked,
            RowsAsked,
            ChannelRebuilt,
            KeyRotated,
        )
    ),
    Family.MARGIN_STATE: frozenset((MarginSet, BreakerSet, ChannelRebuilt, KeyRotated)),
    Family.LIQUIDATION: frozenset(
        (LiquidationOrdered, LiquidationAcknowledged, ChannelRebuilt, KeyRotated)
    ),
    Family.PRICE: frozenset((MarketMoved,)),
    Family.ORDER: frozenset((OrderPlaced,)),
    Family.CONTROL: frozenset((LinkChanged,)),
}
OUTSIDE_ROW = frozenset((Acknowledged, ResendRequested, ResyncAsked, ResyncTold, RebuildAccepted))


class FramePoisoned(FrameRefused):
    """A frame that its sender has signed, in a place of its channel, and that cannot be read."""

    def __init__(self, event: Poisoned) -> None:
        super().__init__(event.why)
        self.event = event


class _Head(msgspec.Struct, frozen=True, array_like=True, tag=Envelope.__struct_config__.tag):
    """A frame as far as its place can be told whatever its message is; see `Envelope`."""

    sender: NodeName
    receiver: NodeName
    family: Family
    seq: Count
    ack_seq: Count
    sent_us: Time
    height: BlockHeight
    final_height: BlockHeight
    message: Any
    node_epoch: Epoch = 1
    chan_epoch: Epoch = 1


_heads = msgspec.msgpack.Decoder(_Head)

# Returns the frame in an authentic seal that came on a route; `data` is the seal as it came.
Reader: TypeAlias = Callable[[Sealed, bytes, Route], Envelope]


def read_frame(sealed: Sealed, data: bytes, route: Route) -> Envelope:
    """Return the frame in an authentic seal.

    Raises:
        FramePoisoned: it stands in a channel and cannot be decoded, or its message has no
            business there.
        FrameRefused: it cannot be decoded, and stands in none; or it is of another topic.
    """
    try:
        frame = decode_frame(sealed.frame)
    except FrameRefused as error:
        raise _poison(sealed, data, route, str(error)) or error from None
    route.check(frame)
    kinds = _kinds(route, frame.seq)
    if type(frame.message) not in kinds:
        why = f"expected a message for {route.topic}, found {type(frame.message).__name__}"
        raise _poison(sealed, data, route, why) or FrameRefused(why)
    return frame


def _kinds(route: Route, seq: int) -> frozenset[type]:
    """Return the messages that have business on a route."""
    if route.sender in OPERATORS:
        return frozenset((OperatorOrdered,))
    if seq == 0 and route.family in CHANNEL_FAMILIES:
        return OUTSIDE_ROW
    return (TO_HUB if route.receiver == HUB else TO_SPOKE)[route.family]


def _poison(sealed: Sealed, data: bytes, route: Route, why: str) -> FramePoisoned | None:
    """Return a frame as poison, if it stands in the channel of a route."""
    try:
        head = _heads.decode(sealed.frame)
    except (ValueError, RecursionError):
        return None
    names = (head.sender, head.receiver, head.family)
    if names != route[1:4] or head.family not in CHANNEL_FAMILIES or head.seq == 0:
        return None
    return poison_of(head, data, why)


def poison_of(frame: _Head | Envelope, data: bytes, why: str) -> FramePoisoned:
    """Return what is known of a frame that cannot be read: its place, its bytes, and why."""
    why = " ".join(why.split())[:WHY_MAX]
    place = (frame.seq, frame.node_epoch, frame.chan_epoch)
    return FramePoisoned(Poisoned(frame.sender, frame.family, *place, data, why))
