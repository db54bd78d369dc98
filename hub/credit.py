"""The reservation channel at the hub: requests, uses, closes, watermarks, and their timers.

Finds what a message is about, lets `hub.reservation` decide, books the outcome. Rule numbers
are those of docs/protocol.md.
"""

import heapq
from collections.abc import Iterable

from hub import ledger, reservation
from hub.reservation import Evidence, Reservation, State
from hub.state import HubState
from hub.zone import Use, Zone
from messaging.effects import Effect, Send
from messaging.messages import (
    ClosureAcknowledged,
    CreditUsed,
    Family,
    HaltReason,
    MarginStatus,
    RejectReason,
    ReservationClosed,
    ReservationRequested,
    RevocationRequested,
    SpokeHalted,
    Watermark,
)
from messaging.units import AccountId, Height, Micros, ReservationId


def requested(
    hub: HubState, zone: Zone, asked: ReservationRequested, now_us: Micros
) -> list[Effect]:
    """Answer a request for credit (P29 to P33)."""
    known = hub.reservations.get(asked.rid)
    if known is not None:
        return [Send(zone.name, Family.RESERVATION, reservation.repeat(known, asked, zone.name))]
    reason = _refusal(hub, zone, asked, now_us)
    if reason is not None:
        rejected = reservation.reject(asked, zone.name, reason)
        hub.keep_reservation(rejected)
        return [Send(zone.name, Family.RESERVATION, rejected.answer)]

    granted = reservation.grant(
        asked,
        zone.name,
        heard_us=zone.heard_us,
        spoke_epoch=zone.epochs[Family.RESERVATION],
    )
    replace(hub, zone, None, granted)
    hub.open_of.setdefault(asked.account, {})[asked.rid] = None
    _note_expiry(zone, granted)
    if zone.policy.renewals_max:
        zone.renew_at.append((Micros(now_us + asked.ttl_us // 2), asked.rid))
    return [Send(zone.name, Family.RESERVATION, granted.answer)]


def _refusal(
    hub: HubState, zone: Zone, asked: ReservationRequested, now_us: Micros
) -> RejectReason | None:
    """Return the first reason that applies, in the order of P41."""
    if zone.halted is not None:
        return RejectReason.HALTED
    if zone.overdue:
        return RejectReason.SPOKE_OVERDUE
    place = hub.place_of.get(asked.account)
    if place is None:
        return RejectReason.ACCOUNT_UNKNOWN
    account = hub.accounts[place]
    if account.status is not MarginStatus.OPEN or account.closed_out:
        return RejectReason.ACCOUNT_RESTRICTED
    if not 0 < asked.amount_usd6 <= hub.policy.amount_max_usd6:
        return RejectReason.AMOUNT_INVALID
    if not 0 < asked.ttl_us <= hub.policy.ttl_max_us:
        return RejectReason.TTL_INVALID
    if not all(known.price_usd6 for known in hub.prints):
        return RejectReason.PRICE_UNKNOWN
    if hub.prices_doubted(now_us):
        return RejectReason.PRICE_DOUBTED
    if hub.credit_stopped(zone):
        return RejectReason.BREAKER
    if zone.exposure_usd6 + asked.amount_usd6 > zone.policy.cap_usd6:
        return RejectReason.ZONE_CAP
    if asked.amount_usd6 > hub.free_usd6(account, hub.conditions(now_us)):
        return RejectReason.FREE_SHORT
    return None


def used(hub: HubState, zone: Zone, report: CreditUsed, height: Height) -> list[Effect]:
    """Take in how much of a reservation has been used (P34, P35)."""
    known = _own(hub, zone, report.rid)
    if known is None:
        return halt(zone, HaltReason.UNKNOWN_RESERVATION)
    return _take(hub, zone, known, reservation.use(known, report, height), height)


def closed(hub: HubState, zone: Zone, report: ReservationClosed, height: Height) -> list[Effect]:
    """Take in a close; what it frees is freed when its block is final (P35, P36)."""
    known = _own(hub, zone, report.rid)
    if known is None:
        return halt(zone, HaltReason.UNKNOWN_RESERVATION)
    effects = _take(hub, zone, known, reservation.close(known, report, height), height)
    zone.closes.append((height, report.rid))
    return effects


def _own(hub: HubState, zone: Zone, rid: ReservationId) -> Reservation | None:
    """Return a reservation that this spoke may speak about."""
    known = hub.reservations.get(rid)
    if known is None or known.spoke != zone.name or known.state is State.REJECTED:
        return None
    return known


def _take(
    hub: HubState,
    zone: Zone,
    known: Reservation,
    outcome: Reservation | Evidence,
    height: Height,
) -> list[Effect]:
    """Keep the outcome of a report; against evidence, the larger use is booked (P35)."""
    if isinstance(outcome, Evidence):
        replace(hub, zone, known, outcome.reservation)
        if not (known.open or known.written_off) and outcome.reservation is not known:
            heapq.heappush(zone.uncarried, (outcome.reservation.use_height, known.rid))
        return halt(zone, outcome.reason)
    if outcome.used_usd6 > known.used_usd6:
        zone.uses.append(Use(height, known.rid, known.used_usd6, known.use_height))
    if outcome is not known:
        replace(hub, zone, known, outcome)
    return []


def halt(zone: Zone, reason: HaltReason) -> list[Effect]:
    """Stop trusting a spoke: no grant, no release, until a person resumes it (P65, P66)."""
    if zone.halted is not None:
        return []
    zone.halted = reason
    return [Send(zone.name, Family.RESERVATION, SpokeHalted(spoke=zone.name, reason=reason))]


def marked(zone: Zone, mark: Watermark, height: Height) -> None:
    """Note a watermark; it releases nothing before its block is final (P37)."""
    zone.marks.append((height, mark.spoke_time_us))


def advance(hub: HubState, zone: Zone) -> list[Effect]:
    """Release what final closes and final watermarks now allow (P36, P37).

    Not what is in quarantine, for the two sides disagree about it (P62).
    """
    final_height = zone.final_heights[Family.RESERVATION]
    while zone.marks and zone.marks[0][0] <= final_height:
        _, mark_us = zone.marks.popleft()
        zone.final_us = max(zone.final_us, mark_us)
    while zone.uses and zone.uses[0].height <= final_height:
        zone.uses.popleft()
    effects: list[Effect] = []
    if not zone.may_free:
        return effects
    while zone.closes and zone.closes[0][0] <= final_height:
        height, rid = zone.closes.popleft()
        if rid in zone.cut.quarantine:
            continue
        known = hub.reservations[rid]
        if known.open:
            end(hub, zone, known, f"close at final block {height}")
        effects.append(Send(zone.name, Family.RESERVATION, ClosureAcknowledged(rid=rid)))
    while zone.expiries and zone.expiries[0][0] <= zone.final_us:
        expires_us, rid = heapq.heappop(zone.expiries)
        known = hub.reservations[rid]
        # A renewal has pushed a later expiry of its own; only the largest counts.
        last = expires_us >= known.expires_max_us and rid not in zone.cut.quarantine
        if known.open and known.closed is None and last and zone.speaks_of(known.spoke_epoch):
            end(hub, zone, known, f"final watermark at {zone.final_us} us")
    return effects


def write_off(hub: HubState, zone: Zone, known: Reservation, by: str) -> None:
    """End a reservation on people's word; nothing of it is ever free again (P40)."""
    after = reservation.write_off(known, by)
    before_usd6 = hub.written_off_usd6.get(known.account, 0)
    hub.written_off_usd6[known.account] = before_usd6 + after.encumbered_usd6
    _ended(hub, zone, known, after)


def _ended(hub: HubState, zone: Zone, known: Reservation, after: Reservation) -> None:
    replace(hub, zone, known, after)
    hub.open_of[known.account].pop(known.rid, None)
    zone.overdue.pop(known.rid, None)
    zone.cut.quarantine.pop(known.rid, None)


def end(hub: HubState, zone: Zone, known: Reservation, evidence: str) -> None:
    """Release a reservation on the evidence named (P36, P37)."""
    released = reservation.release(known, evidence)
    _ended(hub, zone, known, released)
    if released.state is State.SETTLED:
        heapq.heappush(zone.uncarried, (released.use_height, known.rid))


def carry(hub: HubState, zone: Zone) -> None:
    """Hand used credit to the positions, once final reports cover its last use (P54)."""
    final_height = zone.final_heights[Family.MARGIN_STATE]
    while zone.covers and zone.covers[0] <= final_height:
        zone.covered = zone.covers.popleft()
    while zone.uncarried and zone.uncarried[0][0] <= zone.covered and zone.may_free:
        height, rid = heapq.heappop(zone.uncarried)
        known = hub.reservations[rid]
        if height == known.use_height and not known.carried:  # else more was used since
            replace(hub, zone, known, reservation.carry(known))


def replace(hub: HubState, zone: Zone, before: Reservation | None, after: Reservation) -> None:
    """Keep a reservation, and book what it encumbers more or less than before."""
    hub.keep_reservation(after)
    zone.cut.note(after)
    change_usd6 = after.encumbered_usd6 - (before.encumbered_usd6 if before else 0)
    if change_usd6:
        hub.ledger.post(ledger.reserve(after.account, change_usd6))
        zone.encumbered_usd6 += change_usd6


def _note_expiry(zone: Zone, known: Reservation) -> None:
    heapq.heappush(zone.expiries, (known.expires_max_us, known.rid))
    overdue_us = Micros(known.expires_max_us + zone.policy.overdue_after_us)
    heapq.heappush(zone.overdue_at, (overdue_us, known.rid))


def tend(hub: HubState, zone: Zone, now_us: Micros) -> list[Effect]:
    """Do what is due by the hub's own clock: renew, and mark silence; never free (P39)."""
    effects: list[Effect] = []
    while zone.renew_at and zone.renew_at[0][0] <= now_us:
        _, rid = zone.renew_at.popleft()
        effects += _renew(hub, zone, hub.reservations[rid], now_us)
    while zone.overdue_at and zone.overdue_at[0][0] <= now_us:
        _, rid = heapq.heappop(zone.overdue_at)
        known = hub.reservations[rid]
        due_us = known.expires_max_us + zone.policy.overdue_after_us
        if known.state is State.HELD and due_us <= now_us:
            hub.keep_reservation(reservation.overdue(known))
            zone.overdue[rid] = None
    return effects


def _renew(hub: HubState, zone: Zone, known: Reservation, now_us: Micros) -> list[Effect]:
    account = hub.accounts[hub.place_of[known.account]]
    wanted = (
        known.state is State.HELD
        and known.closed is None
        and known.used_usd6 < known.amount_usd6
        and known.grant_version <= zone.policy.renewals_max
        and account.status is MarginStatus.OPEN
        and zone.halted is None
        and zone.speaks_of(known.spoke_epoch)
        and not hub.credit_stopped(zone)
    )
    if not wanted:
        return []
    ttl_us = known.request.ttl_us
    after, renewed = reservation.renew(known, Micros(zone.heard_us + ttl_us))
    hub.keep_reservation(after)
    _note_expiry(zone, after)
    zone.renew_at.append((Micros(now_us + ttl_us // 2), known.rid))
    return [Send(zone.name, Family.RESERVATION, renewed)]


def revoke_all(hub: HubState, account: AccountId) -> list[Effect]:
    """Ask every spoke for the account's open reservations back; frees nothing by itself."""
    return _ask_back(hub.reservations[rid] for rid in hub.open_of.get(account, ()))


def revoke_all_of(hub: HubState, zone: Zone) -> list[Effect]:
    """Ask one spoke for everybody's open reservations back (B5); frees nothing by itself."""
    every = (hub.reservations[rid] for rids in hub.open_of.values() for rid in rids)
    return _ask_back(known for known in every if known.spoke == zone.name)


def _ask_back(open_now: Iterable[Reservation]) -> list[Effect]:
    return [
        Send(known.spoke, Family.RESERVATION, RevocationRequested(rid=known.rid))
        for known in open_now
        if known.closed is None
    ]
