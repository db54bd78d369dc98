"""What a spoke tells the hub of all its open reservations at once, to be compared (P59)."""

from collections.abc import Sequence

from messaging.digests import BucketsTold, CreditRow, RowsTold
from messaging.effects import Effect
from messaging.fields import ENTRIES_MAX
from messaging.units import Micros
from spokes.state import SpokeState

PAGES_MAX = 64  # of one answer; buckets that do not fit any more are left for the next


def told(spoke: SpokeState, now_us: Micros) -> list[Effect]:
    """Tell the digest, if it is time for one again."""
    policy = spoke.policy
    chain_us = policy.chain.time_at(now_us)
    if not policy.digest_us or chain_us < spoke.digest_us:
        return []
    spoke.digest_us = Micros(chain_us + policy.digest_us)
    return [spoke.tell(spoke.rows.digest(spoke.heard_seq), now_us)]


def buckets(spoke: SpokeState, now_us: Micros) -> Effect:
    """Tell the hash of each bucket as it is now."""
    hashes = spoke.rows.tree().bucket_hashes()
    return spoke.tell(BucketsTold(at_seq_in=spoke.heard_seq, hashes=hashes), now_us)


def rows(spoke: SpokeState, asked: Sequence[int], now_us: Micros) -> list[Effect]:
    """Tell the rows of the buckets asked for as they are now, the first ones if too many."""
    told_of: list[int] = []
    found: list[CreditRow] = []
    for bucket in sorted(set(asked)):
        inside = spoke.rows.within((bucket,))
        if told_of and len(found) + len(inside) > PAGES_MAX * ENTRIES_MAX:
            break
        told_of.append(bucket)
        found += inside
    starts = range(0, max(1, len(found)), ENTRIES_MAX)
    return [
        spoke.tell(
            RowsTold(
                at_seq_in=spoke.heard_seq,
                buckets=tuple(told_of),
                page=number,
                pages=len(starts),
                rows=tuple(found[start : start + ENTRIES_MAX]),
            ),
            now_us,
        )
        for number, start in enumerate(starts, start=1)
    ]
