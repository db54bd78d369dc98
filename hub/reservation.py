"""The hub's half of a reservation: grant, reject, renew, use, close, release.

Pure functions from one reservation and one fact to the reservation after it. Rules P29 to P42
of docs/protocol.md. Debit first, then grant; only the spoke's word releases, never the hub's
clock.
"""

from enum import StrEnum
from typing import NamedTuple, TypeAlias

import msgspec

from messaging.messages import (
    CreditUsed,
    HaltReason,
    RejectReason,
    ReservationClosed,
    ReservationGranted,
    ReservationRejected,
    ReservationRenewed,
    ReservationRequested,
)
from messaging.units import AccountId, Height, Micros, NodeId, ReservationId, Usd6

Answer: TypeAlias = ReservationGranted | ReservationRejected


class State(StrEnum):
    """Where a reservation stands at the hub; the last three are final."""

    HELD = "held"
    OVERDUE = "overdue"  # still encumbered; the spoke has been silent for too long
    RELEASED = "released"
    SETTLED = "settled"
    REJECTED = "rejected"


class Reservation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One credit line as the hub sees it.

    Attributes:
        request: what was asked; repeats must equal it (P33).
        answer: the first answer, repeated when the request is (P32).
        used_usd6: largest use reported, cumulative.
        use_height: block of the latest use.
        expires_max_us: largest expiry ever sent, spoke chain time (P37).
        grant_version: 1 for the grant, one more for each renewal.
        closed: the spoke's close, possibly not yet final; None before.
        carried: used credit has left the encumbrance, for the positions carry it (P54).
        spoke_epoch: of the spoke, when it was granted (P22).
        released_by: what the release rests on, for the record (INV7).
        written_off: operators have ended it; all of it counts as used for good (P40).
    """

    rid: ReservationId
    account: AccountId
    spoke: NodeId
    request: ReservationRequested
    answer: Answer
    state: State
    amount_usd6: Usd6 = Usd6(0)
    used_usd6: Usd6 = Usd6(0)
    use_height: Height = Height(0)
    expires_max_us: Micros = Micros(0)
    grant_version: int = 1
    closed: ReservationClosed | None = None
    close_height: Height = Height(0)
    carried: bool = False
    spoke_epoch: int = 1
    released_by: str = ""
    written_off: bool = False

    @property
    def open(self) -> bool:
        """Tell whether the spoke may still use it, as far as the hub knows."""
        return self.state is State.HELD or self.state is State.OVERDUE

    @property
    def encumbered_usd6(self) -> int:
        """Return what it takes out of the account's free credit."""
        if self.open:
            return max(self.amount_usd6, self.used_usd6)  # more is used only against the rules
        return 0 if self.carried or self.state is State.REJECTED else self.used_usd6


class Evidence(NamedTuple):
    """A spoke has contradicted itself: the reason, and the reservation with the worst case."""

    reason: HaltReason
    reservation: Reservation


def grant(
    asked: ReservationRequested, spoke: NodeId, *, heard_us: Micros, spoke_epoch: int = 1
) -> Reservation:
    """Hold the amount; the grant leaves in the same step (P30).

    Args:
        asked: the request.
        spoke: who asked.
        heard_us: newest spoke chain time that the hub has heard (P42).
        spoke_epoch: the only one in which it may be used (P22).
    """
    expires_at_us = Micros(heard_us + asked.ttl_us)
    answer = ReservationGranted(
        rid=asked.rid,
        account=asked.account,
        amount_usd6=asked.amount_usd6,
        expires_at_us=expires_at_us,
        spoke_epoch=spoke_epoch,
    )
    return Reservation(
        rid=asked.rid,
        account=asked.account,
        spoke=spoke,
        request=asked,
        answer=answer,
        state=State.HELD,
        amount_usd6=asked.amount_usd6,
        expires_max_us=expires_at_us,
        spoke_epoch=spoke_epoch,
    )


def reject(asked: ReservationRequested, spoke: NodeId, reason: RejectReason) -> Reservation:
    """Refuse for good: the same id is never granted later (P31, P38)."""
    return Reservation(
        rid=asked.rid,
        account=asked.account,
        spoke=spoke,
        request=asked,
        answer=ReservationRejected(rid=asked.rid, reason=reason),
        state=State.REJECTED,
    )


def repeat(known: Reservation, asked: ReservationRequested, spoke: NodeId) -> Answer:
    """Answer a request whose id is known (P32, P33). The first request stays untouched."""
    if asked == known.request and spoke == known.spoke:
        return known.answer
    return ReservationRejected(rid=asked.rid, reason=RejectReason.EXISTS_DIFFERENT)


def use(known: Reservation, used: CreditUsed, height: Height) -> Reservation | Evidence:
    """Raise the used credit to what the spoke reports, at once (P34).

    A report that says no more than is known changes nothing; one that contradicts the spoke's
    earlier word, or its right, is evidence (P35, P64).
    """
    raised = _raise_use(known, used.used_usd6, height)
    if used.used_usd6 > known.amount_usd6:
        return Evidence(HaltReason.USED_TOO_MUCH, raised)
    if raised is known:
        return known
    if known.closed is not None:
        return Evidence(HaltReason.USED_AFTER_CLOSE, raised)
    if not known.open:  # released by a watermark that claimed no such use would follow
        return Evidence(HaltReason.BROKEN_CLAIM, raised)
    if used.block_time_us >= known.expires_max_us:
        return Evidence(HaltReason.USED_LATE, raised)
    return raised


def close(known: Reservation, closed: ReservationClosed, height: Height) -> Reservation | Evidence:
    """Note the spoke's close; the release waits until it is final (P36)."""
    raised = _raise_use(known, closed.used_usd6, height)
    if closed.used_usd6 > known.amount_usd6:
        return Evidence(HaltReason.USED_TOO_MUCH, raised)
    if known.written_off:
        return known  # people have booked more than the spoke says, and that stands
    if closed.used_usd6 < known.used_usd6:
        return Evidence(HaltReason.USED_AFTER_CLOSE, known)
    if known.closed is not None:
        same = closed.used_usd6 == known.closed.used_usd6
        return known if same else Evidence(HaltReason.USED_AFTER_CLOSE, raised)
    if not known.open:
        return known if raised is known else Evidence(HaltReason.BROKEN_CLAIM, raised)
    return msgspec.structs.replace(raised, closed=closed, close_height=height)


def _raise_use(known: Reservation, used_usd6: Usd6, height: Height) -> Reservation:
    """Return the reservation with the larger use; positions do not carry what is new (P54)."""
    if used_usd6 <= known.used_usd6:
        return known
    return msgspec.structs.replace(
        known, used_usd6=used_usd6, use_height=max(known.use_height, height), carried=False
    )


def release(known: Reservation, evidence: str) -> Reservation:
    """End it: what was not used is free again, what was used stays until carried (P36, P37)."""
    assert known.open
    state = State.SETTLED if known.used_usd6 > 0 else State.RELEASED
    return msgspec.structs.replace(known, state=state, released_by=evidence)


def write_off(known: Reservation, by: str) -> Reservation:
    """End it on people's word: all of it counts as used, for good, whatever becomes known (P40)."""
    assert known.open
    return msgspec.structs.replace(
        known,
        state=State.SETTLED,
        used_usd6=Usd6(known.encumbered_usd6),
        released_by=by,
        written_off=True,
    )


def renew(known: Reservation, expires_at_us: Micros) -> tuple[Reservation, ReservationRenewed]:
    """Let it live longer; an expiry only ever rises (section 6.1 of the rules)."""
    assert known.state is State.HELD
    expires_at_us = max(expires_at_us, known.expires_max_us)
    after = msgspec.structs.replace(
        known, expires_max_us=expires_at_us, grant_version=known.grant_version + 1
    )
    renewed = ReservationRenewed(
        rid=known.rid,
        expires_at_us=expires_at_us,
        grant_version=after.grant_version,
        spoke_epoch=known.spoke_epoch,
    )
    return after, renewed


def overdue(known: Reservation) -> Reservation:
    """Mark silence: nothing is freed (P39)."""
    assert known.state is State.HELD
    return msgspec.structs.replace(known, state=State.OVERDUE)


def carry(known: Reservation) -> Reservation:
    """Hand used credit over to the positions, which are now known for certain (P54)."""
    assert not known.open
    assert known.used_usd6 > 0
    assert not known.carried
    return msgspec.structs.replace(known, carried=True)
