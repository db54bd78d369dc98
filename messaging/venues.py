"""What a spoke's venue tells the market: what has been traded on it (C1)."""

from typing import Annotated

import msgspec
from msgspec import Meta

from messaging.fields import ENTRIES_MAX, SignedQuantity


class VenueTraded(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="venue_traded"):
    """So much of each asset was bought on the venue on balance in one block. Spoke to market.

    In the scenario's order of assets; below zero it was sold. What lost blocks had bought is told
    with the opposite sign. Lost or repeated: prices would stand elsewhere; its link does neither.
    """

    bought_qty8: Annotated[tuple[SignedQuantity, ...], Meta(max_length=ENTRIES_MAX)]
