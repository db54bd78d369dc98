"""What hub and spoke say to each other to compare their open reservations by digests (P59)."""

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from messaging.fields import ENTRIES_MAX, Amount, Bucket, Count, Hash, ReservationKey


class CreditRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An open reservation as one side sees it: what the two compare (P59)."""

    rid: ReservationKey
    amount_usd6: Amount
    used_usd6: Amount


class DigestTold(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="digest_told"):
    """All reservations that are active here, in one hash (P59). Spoke to hub.

    Holds for the cut between the frame's own number and `at_seq_in`, the last message of the
    hub on this family that the spoke had applied. Count and sums are for people. Lost or
    repeated: the next one says it again.
    """

    at_seq_in: Count
    open_count: Count
    sum_amount_usd6: Amount
    sum_used_usd6: Amount
    root: Hash


class BucketsAsked(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="buckets_asked"):
    """A digest was not the hub's own: which buckets differ? Hub to spoke. Changes nothing."""


class BucketsTold(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="buckets_told"):
    """The hash of each of the 256 buckets, at a cut of their own. Spoke to hub.

    Lost: the hub asks again after a later digest. Repeated or unasked: nothing happens.
    """

    at_seq_in: Count
    hashes: Annotated[tuple[Hash, ...], Meta(max_length=ENTRIES_MAX)]


class RowsAsked(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="rows_asked"):
    """Which reservations are active in these buckets? Hub to spoke. Changes nothing."""

    buckets: Annotated[tuple[Bucket, ...], Meta(max_length=ENTRIES_MAX)]


class RowsTold(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="rows_told"):
    """All active reservations of `buckets`, on so many pages. Spoke to hub.

    The pages leave one behind the other, so they share a cut. `buckets` may be fewer than
    were asked for. Lost, repeated, unasked: as `BucketsTold`.
    """

    at_seq_in: Count
    buckets: Annotated[tuple[Bucket, ...], Meta(max_length=ENTRIES_MAX)]
    page: Count
    pages: Count
    rows: Annotated[tuple[CreditRow, ...], Meta(max_length=ENTRIES_MAX)]


ReconcilingMessage: TypeAlias = DigestTold | BucketsAsked | BucketsTold | RowsAsked | RowsTold
