"""Two views of the same reservations side by side: what differs, and whose word holds (P62).

Pure functions over rows of one equal cut.
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from messaging.digests import CreditRow
from messaging.units import NodeId, ReservationId

Rows = Mapping[ReservationId, CreditRow]


class Finding(StrEnum):
    """How the two views of a reservation compare."""

    UNHEARD = "unheard"  # no difference: granted after the cut, so still in flight
    MISSING = "missing"  # open at the hub, not at the spoke
    EXTRA = "extra"  # active at the spoke, not open at the hub
    UNEQUAL = "unequal"  # open on both sides, with other figures


class Remedy(StrEnum):
    """What follows from it (P62)."""

    NONE = "none"
    RAISE = "raise"  # the spoke has used more: that counts at once
    HUB_STANDS = "hub_stands"  # the hub's word on what is granted and released holds
    QUARANTINE = "quarantine"  # its repair would raise free credit: for a person


class Line(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One reservation in both views.

    Attributes:
        hub: as the hub knows it, open or ended; None if it does not.
        spoke: as the spoke tells it; None if it does not.
    """

    rid: ReservationId
    finding: Finding
    remedy: Remedy
    hub: CreditRow | None
    spoke: CreditRow | None

    @property
    def in_flight_usd6(self) -> int:
        """Return what the hub has granted and the spoke has not heard of at the cut."""
        return self.hub.amount_usd6 if self.finding is Finding.UNHEARD and self.hub else 0

    @property
    def used_difference_usd6(self) -> int:
        """Return by how much the spoke's use is above the hub's."""
        return _used(self.spoke) - _used(self.hub)

    @property
    def amount_difference_usd6(self) -> int:
        """Return by how much what is open at the spoke, or in flight to it, is above the hub's."""
        ours = 0 if self.hub is None or self.finding is Finding.EXTRA else self.hub.amount_usd6
        theirs = 0 if self.spoke is None else self.spoke.amount_usd6
        return theirs + self.in_flight_usd6 - ours


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """What an exchange after an unequal digest has shown, for people.

    Attributes:
        at_seq_in, at_seq_out: the cut: the last message of the hub that the spoke had applied,
            and the spoke's message that says so.
        buckets: how many were compared; 0 if none differed any more, or no rows came.
        lines: differences and what is in flight, by id; the first ones only.
        differences: how many reservations differ.
        left_out: lines that are not there for want of room.
    """

    spoke: NodeId
    at_seq_in: int
    at_seq_out: int
    buckets: int
    lines: tuple[Line, ...]
    differences: int
    left_out: int


def compare(ours: Rows, theirs: Rows, unheard: Rows, ended: Rows) -> tuple[Line, ...]:
    """Return a line for each reservation that differs or is in flight, by id.

    Used credit is never in flight here: what the spoke has used before the cut, it has said
    before it on the same channel.

    Args:
        ours: open at the hub, granted before the cut.
        theirs: what the spoke tells.
        unheard: open at the hub, granted after the cut.
        ended: what else the hub knows of the ids in `theirs`.
    """
    lines = []
    for rid in sorted(ours.keys() | theirs.keys() | unheard.keys()):
        mine, told = ours.get(rid), theirs.get(rid)
        if mine is not None and mine == told:
            continue
        if told is None and mine is None:
            finding, mine = Finding.UNHEARD, unheard[rid]
        elif told is None:
            finding = Finding.MISSING
        elif mine is None:
            finding, mine = Finding.EXTRA, unheard.get(rid) or ended.get(rid)
        else:
            finding = Finding.UNEQUAL
        remedy = _remedy(finding, mine, told)
        lines.append(Line(rid=rid, finding=finding, remedy=remedy, hub=mine, spoke=told))
    return tuple(lines)


def _remedy(finding: Finding, mine: CreditRow | None, told: CreditRow | None) -> Remedy:
    """Follow authority: the spoke on used, the hub on granted and released (P62)."""
    if finding is Finding.UNHEARD:
        return Remedy.NONE
    if _used(told) > _used(mine):
        return Remedy.RAISE
    if finding is Finding.MISSING or (finding is Finding.UNEQUAL and _used(told) < _used(mine)):
        return Remedy.QUARANTINE
    return Remedy.HUB_STANDS


def _used(row: CreditRow | None) -> int:
    return 0 if row is None else row.used_usd6
