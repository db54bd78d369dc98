"""What a seed has reached: what was said, which rare turns things took, which faults struck when.

These are the sometimes-counters of docs/swarm.md. A campaign in which one that must be reached
stays at zero fails, however clean it was.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import msgspec

from hub import reservation
from hub.node import Hub
from hub.state import HubState
from hub.zone import Zone
from messaging.codec import decode_frame
from messaging.digests import RowsTold
from messaging.effects import Effect, Forked, Send
from messaging.endpoint import Endpoint
from messaging.envelope import Envelope
from messaging.identity import Sealed
from messaging.messages import (
    ChainReorganised,
    LiquidationOrdered,
    Message,
    ReservationClosed,
    ReservationGranted,
    ReservationRenewed,
    ReservationRequested,
)
from messaging.node import Contradicted, Event, Rejoined
from messaging.units import HUB, Micros, NodeId, ReservationId
from messaging.witness import place_of
from spokes.node import Spoke
from spokes.reservation import State as Held
from spokes.state import SpokeState

HELD, OVERDUE, ACTIVE, CLOSED = "held", "overdue", "active", "closed"
STATES = (HELD, OVERDUE, ACTIVE, CLOSED)  # of a reservation: two at the hub, two at a spoke
AT_HUB = {reservation.State.HELD: HELD, reservation.State.OVERDUE: OVERDUE}
GROUPS = ("F1", "F2", "F3", "F4", "F5", "F6", "F7", "F8", "F9", "F10", "F11", "F12", "F13")


class Reached:
    """Counters of one seed.

    Attributes:
        counts: how often each thing was reached. "Fn while ..." at most once: in how many seeds.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._left = {group: dict.fromkeys(STATES) for group in GROUPS}
        self._hub: dict[ReservationId, reservation.State] = {}
        self._at_hub = {HELD: 0, OVERDUE: 0}
        self._held_usd6: dict[NodeId, int] = {}
        self._spokes: dict[NodeId, SpokeState] = {}
        self._credits: dict[ReservationId, Held] = {}
        self._asked: set[ReservationId] = set()
        self._endpoints: dict[NodeId, Endpoint] = {}

    def watch(self, endpoint: Endpoint) -> None:
        """Watch a node from now on, in place of the one of its name."""
        node = endpoint.node
        self._endpoints[node.name] = endpoint
        if isinstance(node, Hub):
            endpoint.observers.append(partial(self._after_hub, node.state))
        elif isinstance(node, Spoke):
            self._spokes[node.name] = node.state
            endpoint.observers.append(partial(self._after_spoke, node.state))

    def struck(self, group: str) -> None:
        """Note in which states reservations are while a fault of a group strikes."""
        left = self._left[group]
        if not left:
            return
        for state in [state for state in left if self._is_any(state)]:
            del left[state]
            self.counts[f"{group} while {state}"] += 1

    def _is_any(self, state: str) -> bool:
        if state in self._at_hub:
            return self._at_hub[state] > 0
        spokes = self._spokes.values()
        if state == ACTIVE:
            return any(spoke.active_count for spoke in spokes)
        # What is neither active nor asked for is closed and not forgotten yet.
        return any(
            len(spoke.credits) > spoke.active_count + len(spoke.for_credit) for spoke in spokes
        )

    def look_for_full(self) -> None:
        """Count a receiver that has no room for what comes behind a gap."""
        for endpoint in self._endpoints.values():
            for inbox in endpoint.inboxes.values():
                if inbox.newer:
                    self.counts["reorg before the frames below"] += 1
                if len(inbox.parked) >= inbox.parked_max:
                    self.counts["parked buffer full"] += 1
                    self.struck("F13")
                    return

    def _after_hub(
        self, hub: HubState, now_us: Micros, event: Event, effects: Sequence[Effect]
    ) -> None:
        if type(event) is Rejoined:
            outbox = self._endpoints[HUB].outboxes[event.peer, event.family]
            self.counts["hub frames taken back"] += outbox.taken_back
        if effects:
            self._count(effects)
        if type(event) is Envelope:
            if type(event.message) in _RARE:
                self._told(hub, hub.zone_of[event.sender], event)
        elif type(event) is Contradicted:
            self._contradicted(event)
        if hub.changed:  # who settles changes an account
            self._count_gains(hub)
            self._count_waiting(hub, now_us)
        for rid in hub.changed_rids:
            known, before = hub.reservations[rid], self._hub.get(rid)
            if known.state is before:
                continue
            self._hub[rid] = known.state
            for state, change in ((before, -1), (known.state, 1)):
                if state in AT_HUB:
                    self._at_hub[AT_HUB[state]] += change
            if before is not None and not known.open:
                self._released(known, before)

    def _contradicted(self, found: Contradicted) -> None:
        """Count by what a spoke was caught at two frames that cannot both stand."""
        one, other = (place_of(_frame(data)) for data in (found.first, found.second))
        how = "two frames under a number" if one == other else "a head that does not link"
        self.counts[f"equivocated: {how}"] += 1

    def _told(self, hub: HubState, zone: Zone, frame: Envelope) -> None:
        """Count what the hub is rarely told."""
        match frame.message:
            case ChainReorganised():
                self.counts[f"reorg heard on {frame.family}"] += 1
            case ReservationClosed(rid=rid):
                known = hub.reservations.get(rid)
                if known is not None and not known.open and known.closed is None:
                    word = "agrees" if zone.halted is None else "of a halted spoke"
                    self.counts[f"close after release by watermark {word}"] += 1
            case RowsTold():
                if zone.cut.reports and zone.cut.reports[-1].at_seq_out == frame.seq:
                    for line in zone.cut.reports[-1].lines:
                        self.counts[f"rows differ: {line.finding}, {line.remedy}"] += 1

    def _count_gains(self, hub: HubState) -> None:
        """Count gains that wait and gains that have waited (rule L9)."""
        for zone in hub.zones:
            before_usd6 = self._held_usd6.get(zone.name, 0)
            if zone.held_usd6 > before_usd6:
                self.counts["gain held" if zone.policy.hold_us else "gain held by the cap"] += 1
            elif zone.held_usd6 < before_usd6:
                self.counts["held gain freed"] += 1
            self._held_usd6[zone.name] = zone.held_usd6

    def _count_waiting(self, hub: HubState, now_us: Micros) -> None:
        """Count margin calls that a liquidation waits for, from their first look on (rule L16)."""
        if hub.looked_us == now_us:
            begun_us = now_us + hub.policy.liquidation.grace_us
            for place in hub.changed:
                until_us = hub.accounts[place].grace_until_us
                self.counts["grace"] += until_us is not None and now_us < until_us == begun_us

    def _released(self, known: reservation.Reservation, before: reservation.State) -> None:
        """Count how a reservation came to its end."""
        by_close = known.closed is not None
        by_word = known.released_by.startswith("unknown")
        kind = "close" if by_close else "rebuilt word" if by_word else "watermark"
        self.counts[f"released by {kind}"] += 1
        if before is reservation.State.OVERDUE:
            self.counts["released after overdue"] += 1
        if 0 < known.used_usd6 < known.amount_usd6:
            self.counts["released partly used"] += 1

    def _after_spoke(
        self, spoke: SpokeState, now_us: Micros, event: Event, effects: Sequence[Effect]
    ) -> None:
        if effects and type(effects[0]) is Forked:
            self.counts["reorg"] += 1
            self.struck("F8")
        if type(event) is Envelope:
            self._taken(spoke, event.message)
        for rid in spoke.changed_rids:
            self._credits[rid] = spoke.credits[rid].state
        if not effects:
            return
        self._count(effects)
        for effect in effects:
            if type(effect) is Send and type(effect.message) is ReservationRequested:
                rid = effect.message.rid
                if rid in self._asked:
                    self.counts["asked again"] += 1
                    self.struck("F13")
                self._asked.add(rid)

    def _taken(self, spoke: SpokeState, message: Message) -> None:
        """Count what comes to a spoke when it is rarely of use."""
        kind = type(message)
        if kind is ReservationGranted or kind is ReservationRenewed:
            if message.spoke_epoch != spoke.spoke_epoch:  # type: ignore[union-attr]
                self.counts["grant of another epoch"] += 1
            if self._credits.get(message.rid) is Held.CLOSED:  # type: ignore[union-attr]
                self.counts[f"{kind.__name__} when closed"] += 1
        elif kind is LiquidationOrdered:
            assert isinstance(message, LiquidationOrdered)
            if self._others(spoke, message):
                self.counts["two commands on one position"] += 1

    def _others(self, spoke: SpokeState, command: LiquidationOrdered) -> bool:
        live = [spoke.orders[liq_id].command for liq_id in spoke.live]
        return any(
            (one.account, one.asset) == (command.account, command.asset)
            for one in live
            if one.liq_id != command.liq_id
        )

    def _count(self, effects: Iterable[Effect]) -> None:
        """Count what is said, with its reason or status."""
        counts = self.counts
        for effect in effects:
            if type(effect) is Send:
                message = effect.message
                kind = type(message)
                plain = _PLAIN.get(kind)
                counts[spoken(message) if plain is None else plain] += 1
                if type(message) is LiquidationOrdered and message.price_usd6:
                    counts["LiquidationOrdered at a price"] += 1


_RARE = (ChainReorganised, ReservationClosed, RowsTold)
_sealed = msgspec.msgpack.Decoder(Sealed)
Struck = Callable[[str], None]  # takes the group of a fault that strikes now
_PLAIN: dict[type, str | None] = {}  # what `spoken` says of a kind without reason and status


def _frame(data: bytes) -> Envelope:
    return decode_frame(_sealed.decode(data).frame)


def spoken(message: Message) -> str:
    """Name a message, with its reason, status or cause if it has one."""
    kind = type(message)
    for field in ("reason", "status", "cause"):
        if field in message.__struct_fields__:
            return f"{kind.__name__}: {getattr(message, field)}"
    _PLAIN[kind] = kind.__name__
    return kind.__name__
