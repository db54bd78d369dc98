"""The hub compares what a spoke says of its open reservations with its own books (P59, P62).

An unequal digest is followed by two questions, which buckets and which rows. Each answer is
compared at the cut it names itself, so nothing waits for anything.
"""

import heapq
from collections.abc import Iterable

from hub import credit
from hub.cut import row
from hub.reconciliation import Finding, Line, Reconciliation, Remedy, compare
from hub.state import HubState
from hub.zone import Zone
from messaging.digests import BucketsAsked, BucketsTold, DigestTold, RowsAsked, RowsTold
from messaging.effects import Effect, Send
from messaging.fields import ENTRIES_MAX
from messaging.merkle import BUCKETS, bucket_of
from messaging.messages import CreditUsed, Family
from messaging.units import Height, Micros, ReservationId

PAGES_MAX = 256  # of one answer; more is none


def told(hub: HubState, zone: Zone, digest: DigestTold) -> list[Effect]:
    """Compare a digest with the hub's own; if they differ, ask for the buckets."""
    cut = zone.cut
    if not cut.reach(digest.at_seq_in, hub.reservations):
        cut.incomparable += 1
        return []
    cut.compared += 1
    if digest == cut.rows.digest(digest.at_seq_in):
        _agree(hub, zone, list(cut.quarantine))
        zone.frozen.pop(Family.RESERVATION, None)  # what was passed over hid no use (P71)
        return []
    cut.unequal += 1
    # A question that the spoke has applied without an answer before this is asked anew.
    if cut.asked_seq > digest.at_seq_in:
        return []
    _forget_question(zone)
    return [Send(zone.name, Family.RESERVATION, BucketsAsked())]


def buckets_told(hub: HubState, zone: Zone, answer: BucketsTold, seq: int) -> list[Effect]:
    """Ask for the rows of the buckets that differ; without any, the digest itself was wrong."""
    cut = zone.cut
    if not cut.asked_seq or cut.asked_buckets:
        return []
    if not cut.reach(answer.at_seq_in, hub.reservations):
        return []
    whole = len(answer.hashes) == BUCKETS
    differing = cut.rows.tree().buckets_that_differ(answer.hashes) if whole else []
    if not differing:
        _forget_question(zone)
        _file(zone, seq, 0, ())
        return []
    cut.asked_buckets = tuple(differing)
    return [Send(zone.name, Family.RESERVATION, RowsAsked(buckets=cut.asked_buckets))]


def rows_told(
    hub: HubState, zone: Zone, answer: RowsTold, seq: int, height: Height
) -> list[Effect]:
    """Compare rows once their last page is there, and do what P62 says about each."""
    cut = zone.cut
    if not cut.asked_buckets or not cut.reach(answer.at_seq_in, hub.reservations):
        return []
    if answer.page != len(cut.pages) + 1 or answer.pages > PAGES_MAX:
        _forget_question(zone)
        return []
    cut.pages.append(answer.rows)
    if answer.page < answer.pages:
        return []
    buckets = set(cut.asked_buckets) & set(answer.buckets)
    lines = _lines(hub, zone, buckets)
    _forget_question(zone)
    _file(zone, seq, len(buckets), lines)
    return _follow(hub, zone, buckets, lines, height)


def _lines(hub: HubState, zone: Zone, buckets: set[int]) -> tuple[Line, ...]:
    """Compare the hub's rows of some buckets with those that have come."""
    cut = zone.cut
    came = [one for page in cut.pages for one in page]
    theirs = {one.rid: one for one in came if bucket_of(one.rid) in buckets}
    unheard = [rid for rid in cut.unheard if bucket_of(rid) in buckets]
    known = (hub.reservations.get(rid) for rid in theirs)
    return compare(
        {one.rid: one for one in cut.rows.within(sorted(buckets))},
        theirs,
        {rid: row(hub.reservations[rid]) for rid in unheard},
        {one.rid: row(one) for one in known if one is not None and one.spoke == zone.name},
    )


def _follow(
    hub: HubState, zone: Zone, buckets: set[int], lines: tuple[Line, ...], height: Height
) -> list[Effect]:
    """Raise what the spoke has used more; keep from release what would raise free credit."""
    cut, effects = zone.cut, list[Effect]()
    different = {line.rid for line in lines}
    compared = [rid for rid in cut.quarantine if bucket_of(rid) in buckets]
    _agree(hub, zone, [rid for rid in compared if rid not in different])
    for line in lines:
        if line.remedy is Remedy.RAISE and line.spoke is not None:
            # A row that tells of more use is the spoke's word on it, as good as a report.
            used = CreditUsed(rid=line.rid, used_usd6=line.spoke.used_usd6, block_time_us=Micros(0))
            effects += credit.used(hub, zone, used, height)
        elif line.remedy is Remedy.QUARANTINE:
            cut.quarantine[line.rid] = line
    return effects


def _agree(hub: HubState, zone: Zone, rids: Iterable[ReservationId]) -> None:
    """Let out of quarantine what both sides say the same about again, while it is open."""
    cut = zone.cut
    for rid in rids:
        if rid in cut.rows:
            del cut.quarantine[rid]
            heapq.heappush(zone.expiries, (hub.reservations[rid].expires_max_us, rid))


def _forget_question(zone: Zone) -> None:
    zone.cut.asked_seq, zone.cut.asked_buckets = 0, ()
    zone.cut.pages.clear()


def _file(zone: Zone, seq: int, buckets: int, lines: tuple[Line, ...]) -> None:
    kept = lines[:ENTRIES_MAX]
    report = Reconciliation(
        spoke=zone.name,
        at_seq_in=zone.cut.heard_seq,
        at_seq_out=seq,
        buckets=buckets,
        lines=kept,
        differences=sum(line.finding is not Finding.UNHEARD for line in lines),
        left_out=len(lines) - len(kept),
    )
    zone.cut.reports.append(report)
