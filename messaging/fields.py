"""What a field of a message may hold: no number beyond 63 bits, no long string, no long list."""

from enum import StrEnum
from typing import Annotated, TypeAlias

from msgspec import Meta

from messaging.units import (
    INT_MAX,
    AccountId,
    Asset,
    Height,
    LiquidationId,
    Micros,
    NodeId,
    Ppm,
    Qty8,
    ReservationId,
    Usd6,
)

Account: TypeAlias = Annotated[AccountId, Meta(min_length=1, max_length=64)]
NodeName: TypeAlias = Annotated[NodeId, Meta(min_length=1, max_length=16)]
Symbol: TypeAlias = Annotated[Asset, Meta(min_length=1, max_length=16)]
ReservationKey: TypeAlias = Annotated[ReservationId, Meta(min_length=16, max_length=16)]
LiquidationKey: TypeAlias = Annotated[LiquidationId, Meta(min_length=16, max_length=16)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=INT_MAX)]
Time: TypeAlias = Annotated[Micros, Meta(ge=0, le=INT_MAX)]
Amount: TypeAlias = Annotated[Usd6, Meta(ge=0, le=INT_MAX)]
SignedAmount: TypeAlias = Annotated[Usd6, Meta(ge=-INT_MAX, le=INT_MAX)]
Quantity: TypeAlias = Annotated[Qty8, Meta(ge=0, le=INT_MAX)]
SignedQuantity: TypeAlias = Annotated[Qty8, Meta(ge=-INT_MAX, le=INT_MAX)]
Ratio: TypeAlias = Annotated[Ppm, Meta(ge=0, le=INT_MAX)]
Hash: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
Bucket: TypeAlias = Annotated[int, Meta(ge=0, le=255)]
PublicKey: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature: TypeAlias = Annotated[bytes, Meta(min_length=64, max_length=64)]
Nonce: TypeAlias = Annotated[bytes, Meta(min_length=8, max_length=8)]
Epoch: TypeAlias = Annotated[int, Meta(ge=1, le=2**32 - 1)]
BlockHeight: TypeAlias = Annotated[Height, Meta(ge=0, le=INT_MAX)]
ENTRIES_MAX = 512


class Family(StrEnum):
    """What a channel is about; each (sender, receiver, family) is one channel (P5)."""

    MARGIN_STATE = "margin-state"
    RESERVATION = "reservation"
    LIQUIDATION = "liquidation"
    PRICE = "price"
    CONTROL = "control"
    ORDER = "order"  # local to one chain: traders and their venue
