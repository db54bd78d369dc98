"""What must hold across hub, spokes and messages, checked after every event of a node.

Each event is followed by checks of all it has changed; now and then, and at the end, everything
is checked, which also catches a change that went past the nodes' own books. Rule names are those
of docs/invariants.md.
"""

from collections.abc import Collection, Sequence
from functools import partial

from hub import reservation
from hub.breakers import Breaker
from hub.ledger import clearing
from hub.node import Hub
from hub.reservation import Reservation
from hub.zone import Zone
from lab.audit import Audit
from lab.evidence import Evidence
from lab.fills import Fills
from lab.graces import Graces
from lab.overlay import Overlay
from lab.standing import Standing
from lab.takeovers import Takeovers
from lab.words import Words
from messaging.digests import DigestTold
from messaging.effects import Effect, Forked, Send
from messaging.endpoint import Endpoint
from messaging.envelope import Envelope
from messaging.errors import InvariantViolated
from messaging.link_control import KeyRotated
from messaging.messages import (
    CHANNEL_FAMILIES,
    Family,
    HaltReason,
    ReservationGranted,
    ReservationRenewed,
    StateReported,
)
from messaging.node import Event, Node, PassedOver, TimerFired
from messaging.units import HUB, AccountId, Micros, NodeId, ReservationId, Usd6
from spokes.node import Spoke
from spokes.reservation import Credit
from spokes.reservation import State as Held

SWEEP_EVENTS = 4_096
IDLE = Breaker()
FINAL_STATES = (
    reservation.State.RELEASED,
    reservation.State.SETTLED,
    reservation.State.REJECTED,
)


class Checker:
    """Watches the hub's and the spokes' endpoints.

    Attributes:
        checked: how many checks have been made.
    """

    def __init__(
        self,
        hub: Hub,
        spokes: tuple[Spoke, ...],
        endpoints: tuple[Endpoint, ...],
        deposits: tuple[tuple[AccountId, Usd6], ...],
        *,
        liars: Collection[NodeId] = (),
        flawed: Collection[NodeId] = (),
        operators: bool = False,
    ) -> None:
        """Watch `endpoints`; `liars` are spokes of which nothing is expected (P2).

        With `operators`, people may halt spokes whose words are sound.

        What the hub makes of their words is checked all the same, and so is every other spoke.
        Those that are `flawed` keep to all rules but two: their digests may be wrong, and their
        chains may lose final blocks.
        """
        self._hub = hub.state
        nodes: tuple[Node, ...] = (hub, *spokes)
        self._watched = {node.name: node for node in nodes}
        self._spokes: dict[NodeId, Spoke] = {spoke.name: spoke for spoke in spokes}
        self._liars = frozenset(liars)
        self._flawed = frozenset(flawed)
        self._operators = operators
        self._accounts = [account for account, _ in deposits]
        self._evidence = {spoke.name: Evidence() for spoke in spokes}
        self._overlays = {spoke.name: Overlay() for spoke in spokes}
        self._hub_seen: dict[ReservationId, Reservation] = {}
        self._spoke_seen: dict[ReservationId, Credit] = {}
        self._expires_max_us: dict[ReservationId, Micros] = {}
        self._granted_usd6: dict[ReservationId, Usd6] = {}
        self._epochs: dict[ReservationId, int] = {}
        self._encumbered_usd6: dict[AccountId, int] = dict.fromkeys(self._accounts, 0)
        self._audit = Audit(hub.state, deposits, self._evidence)
        self._standing = Standing(self._evidence)
        self._takeovers = Takeovers(hub.state)
        self._graces = Graces(hub.state)
        self._fills = {spoke.name: Fills(spoke) for spoke in spokes}
        self._fills_before: dict[NodeId, Fills] = {}
        self._postings = 0
        self._until_sweep = SWEEP_EVENTS
        self._words = Words()
        self._restored: dict[NodeId, list[Endpoint]] = {}
        self._spoke_us: dict[NodeId, Micros] = dict.fromkeys(self._spokes, Micros(0))
        self._lost = False  # the event under way takes blocks back
        self._passed_over: set[NodeId] = set()  # spokes of which people passed a frame over
        self.checked = 0

        for endpoint in endpoints:
            self.watch(endpoint)

    def watch(self, endpoint: Endpoint, *, restored: bool = False) -> None:
        """Watch a node from now on, in place of the one of its name.

        One that was `restored` takes that place only when the others have agreed to it (P60).
        """
        node = endpoint.node
        self._words.watch(endpoint, restored=restored)
        if restored:
            self._restored.setdefault(node.name, []).append(endpoint)
            endpoint.observers.append(partial(self._until_agreed, endpoint))
        else:
            self._follow(node)
        endpoint.observers.append(partial(self._after, node))

    def _follow(self, node: Node, *, amid: bool = False) -> None:
        self._watched[node.name] = node
        if isinstance(node, Hub):
            self._hub = node.state
            self._audit.follow(node.state)
            self._takeovers.follow(node.state)
            self._graces.follow(node.state)
        elif isinstance(node, Spoke):
            name, before = node.name, self._fills_before.pop(node.name, None)
            self._spokes[name], self._fills[name] = node, before or Fills(node, amid=amid)

    def _until_agreed(
        self, endpoint: Endpoint, now_us: Micros, event: Event, effects: Sequence[Effect]
    ) -> None:
        """Wait until all agree to a restored node; then its past is what it knows of it."""
        node = endpoint.node
        if self._watched[node.name] is node:
            return
        if isinstance(node, Spoke):
            self._spoke_us[node.name] = now_us
            if endpoint.lives.unsynced:
                self._fills_before[node.name] = Fills(node)
        if endpoint.lives.unsynced:
            if isinstance(node, Hub):
                self._hear(event)
            return
        self._follow(node, amid=True)
        if isinstance(node, Hub):
            self._hub_seen = dict(node.state.reservations)
            # What it has granted and lost is fenced: no spoke had heard of it, none will.
            for rid in self._granted_usd6.keys() - self._granted_by(node):
                del self._granted_usd6[rid]
            for account in self._accounts:
                self._encumbered_usd6[account] = node.state.ledger.reserved_usd6(account)
        elif isinstance(node, Spoke):
            self._spoke_seen |= node.state.credits

    def _granted_by(self, hub: Hub) -> set[ReservationId]:
        known = hub.state.reservations.values()
        return {one.rid for one in known if one.state is not reservation.State.REJECTED}

    def _in_doubt(self, name: NodeId) -> bool:
        """Tell whether a node is put back and only some of the others have agreed to it.

        Those hear it already, while what it is going to be followed as is not settled yet.
        """
        return any(
            endpoint.node is not self._watched[name]
            and endpoint.observers
            and not endpoint.lives.stopped
            for endpoint in self._restored.get(name, ())  # one that has died is observed no more
        )

    def _after(self, node: Node, now_us: Micros, event: Event, effects: Sequence[Effect]) -> None:
        if self._watched[node.name] is not node:
            return  # another process of it has taken its place
        if isinstance(node, Hub):
            self._after_hub(now_us, event, effects)
        elif isinstance(node, Spoke):
            self._after_spoke(node, now_us, event, effects)

    def _hear(self, event: Event) -> None:
        if type(event) is Envelope and event.family in CHANNEL_FAMILIES:
            self._evidence[event.sender].hear(event)
            self._takeovers.hear(event.message)
            self._lost = self._overlays[event.sender].hear(event)

    def _after_hub(self, now_us: Micros, event: Event, effects: Sequence[Effect]) -> None:
        hub, self._lost = self._hub, False
        self._audit.now_us = now_us
        self._hear(event)
        if type(event) is PassedOver:
            self._words.pass_over(HUB, event)
            self._passed_over.add(event.peer)
        if type(event) is Envelope and event.family in CHANNEL_FAMILIES:
            if event.sender not in self._liars:
                self.checked += 1
                self._words.hear(HUB, event)
            told = event.sender not in self._liars and event.sender not in self._passed_over
            if self._lost and told and HUB not in self._restored:
                self._check_rollback(hub.zone_of[event.sender], event.family)
            if type(event.message) is DigestTold:
                self._check_views(event.sender)
        if effects:
            self._words.say(HUB, effects)
            self.checked += self._takeovers.check(effects, now_us)
            for effect in effects:
                if type(effect) is Send and effect.family is Family.RESERVATION:
                    self._note_grant(effect, now_us)
        if hub.changed_rids:
            self._check_encumbered()
            for rid in hub.changed_rids:
                self._check_reservation(hub.reservations[rid])
        block = type(event) is TimerFired
        self.checked += len(hub.changed) + self._graces.check(now_us, block=block)
        self._audit.check(hub.changed, block=block)
        if effects:  # else nothing rests on how an account stands
            concerned = [hub.accounts[place] for place in hub.changed]
            self.checked += self._standing.check(hub, concerned, now_us)
        for zone in hub.zones:
            self.checked += 1
            if zone.halted is not None:
                self._check_alarm(zone.name, zone.halted)
        if hub.ledger.postings != self._postings:
            self._postings = hub.ledger.postings
            self._check_balance()
        self._count_down()

    def _check_rollback(self, zone: Zone, family: Family) -> None:
        """What is not final is undone; a spoke that takes back more is halted (INV14, P56)."""
        if self._evidence[zone.name].violated:
            what = f"{zone.name} has taken back what was final"
            self._hold("INV14", zone.halted is not None, what, zone.halted)
        else:
            self.checked += 1
            self._overlays[zone.name].check(self._hub, zone, family)

    def _check_alarm(self, spoke: NodeId, reason: HaltReason) -> None:
        """Nobody accuses an honest spoke; where one lies, people may stop them all."""
        people = bool(self._liars) or self._operators
        by_order = people and reason is HaltReason.WATCHDOG
        sound = spoke in self._liars or spoke in self._flawed or by_order
        self._hold("ALARM", sound, f"{spoke} is honest", reason)

    def _after_spoke(
        self, spoke: Spoke, now_us: Micros, event: Event, effects: Sequence[Effect]
    ) -> None:
        if spoke.name in self._liars:
            return
        self._spoke_us[spoke.name] = now_us
        if type(event) is PassedOver:
            self._words.pass_over(spoke.name, event)
        if type(event) is Envelope and event.family in CHANNEL_FAMILIES:
            self.checked += 1
            self._words.hear(spoke.name, event)
            if type(event.message) is KeyRotated:
                return  # no node sees it: what the last event changed has been checked
        self._lost = bool(effects) and type(effects[0]) is Forked
        if self._lost:
            self._fills[spoke.name] = Fills(spoke)  # positions and fills go back with the blocks
        for rid in spoke.state.changed_rids:
            self._check_credit(spoke, rid)
        fills = self._fills[spoke.name]
        if spoke.state.filled:
            self.checked += fills.check()
        if effects:
            self._words.say(spoke.name, effects)
            for effect in effects:
                if type(effect) is Send and type(effect.message) is StateReported:
                    fills.reported(effect.message)
        self._count_down()

    def _count_down(self) -> None:
        self._until_sweep -= 1
        if self._until_sweep == 0:
            self._until_sweep = SWEEP_EVENTS
            self.sweep()

    def sweep(self) -> None:
        """Check everything there is.

        Raises:
            InvariantViolated: the rule, and what was expected and found.
        """
        hub = self._hub
        self.checked += len(hub.accounts)
        self._audit.check(range(len(hub.accounts)))
        encumbered: dict[AccountId, int] = dict.fromkeys(self._accounts, 0)
        by_zone: dict[NodeId, int] = dict.fromkeys(self._spokes, 0)
        open_at: dict[NodeId, int] = dict.fromkeys(self._spokes, 0)
        for known in hub.reservations.values():
            if known.account in encumbered:
                encumbered[known.account] += known.encumbered_usd6
                by_zone[known.spoke] += known.encumbered_usd6
                compared = known.spoke_epoch == hub.zone_of[known.spoke].cut.spoke_epoch
                open_at[known.spoke] += known.open and known.closed is None and compared
        for account, usd6 in encumbered.items():
            self._need("INV2", hub.ledger.reserved_usd6(account), usd6, f"reserved of {account}")
        for zone in hub.zones:
            self._check_won(zone)
            entered = len(zone.cut.rows) + len(zone.cut.unheard)
            self._hold("VIEWS", entered == open_at[zone.name], "rows of the digest", entered)
            what = f"encumbered at {zone.name}"
            self._need("INV2", zone.encumbered_usd6, by_zone[zone.name], what)
            won_usd6 = -sum(
                account.views[zone.place].settled.realised_usd6 for account in hub.accounts
            )
            booked_usd6 = hub.ledger.balances[clearing(zone.name)]
            self._need("MONEY", booked_usd6, won_usd6, f"clearing of {zone.name}")
        self._check_balance()
        for spoke in self._spokes.values():
            for rid in () if spoke.name in self._liars else spoke.state.credits:
                self._check_credit(spoke, rid)

    def _check_won(self, zone: Zone) -> None:
        """No more has been won at a spoke, on balance, than may count (CAP)."""
        balances = self._hub.ledger.balances
        held_usd6 = [self._hub.ledger.held_usd6(zone.name, account) for account in self._accounts]
        self._need("CAP", zone.held_usd6, sum(held_usd6), f"held at {zone.name}")
        self._hold("CAP", min(held_usd6) >= 0, f"held at {zone.name} of somebody", min(held_usd6))
        won_usd6 = -balances[clearing(zone.name)] - zone.held_usd6
        within = won_usd6 <= zone.policy.cap_usd6
        self._hold("CAP", within, f"won at {zone.name} beyond its cap", won_usd6)

    def _note_grant(self, frame: Send, now_us: Micros) -> None:
        """Remember what the hub has promised, from its own words."""
        message = frame.message
        if type(message) is ReservationGranted:
            rid, amount_usd6 = message.rid, message.amount_usd6
            again = rid in self._granted_usd6  # the first answer, given again (P32)
            first_usd6 = self._granted_usd6.setdefault(rid, amount_usd6)
            self._epochs.setdefault(rid, message.spoke_epoch)
            self._need("INV6", amount_usd6, first_usd6, f"amount granted to {rid.hex()}")
            self._expires_max_us[rid] = max(
                message.expires_at_us, self._expires_max_us.get(rid, Micros(0))
            )
            reserved_usd6 = self._hub.ledger.reserved_usd6(message.account)
            account = self._hub.accounts[self._hub.place_of[message.account]]
            within = again or reserved_usd6 <= self._standing.capacity_usd6(
                self._hub, account, now_us
            )
            what = f"{message.account} has {reserved_usd6:,} usd6 reserved beyond its capacity"
            self._hold("INV1", within, what, message.amount_usd6)
            hub = self._hub
            stops = [
                scope for scope in (frame.to, *hub.places) if hub.breakers.get(scope, IDLE).level
            ]
            self._hold("INV17", again or not stops, f"credit at {frame.to} in spite of", stops)
        elif type(message) is ReservationRenewed:
            before_us = self._expires_max_us[message.rid]
            self._hold("INV5", message.expires_at_us >= before_us, "an expiry fell", message)
            self._expires_max_us[message.rid] = message.expires_at_us

    def _check_balance(self) -> None:
        """All books of the ledger add up to nothing, to the millionth."""
        self._need("MONEY", sum(self._hub.ledger.balances.values()), 0, "sum of all balances")
        self._audit.check_bad_debt()

    def _check_reservation(self, known: Reservation) -> None:
        """Check one reservation of the hub against its past, the books and its spoke."""
        rid, seen = known.rid, self._hub_seen.get(known.rid)
        self._hub_seen[rid] = known
        in_bounds = 0 <= known.used_usd6 <= known.amount_usd6 or known.spoke in self._liars
        self._hold("INV5", in_bounds, "used beyond the amount", known)
        if seen is not None:
            fell = (
                (known.used_usd6 < seen.used_usd6 and not self._lost)  # then INV14 says to what
                or known.expires_max_us < seen.expires_max_us
                or known.grant_version < seen.grant_version
            )
            self._hold("INV5", not fell, "used, expiry or version fell", known)
            left = seen.state in FINAL_STATES and known.state is not seen.state
            self._hold("INV6", not left, f"left its final state {seen.state}", known)
        if known.carried and not (seen is not None and seen.carried):
            covered = self._evidence[known.spoke].covered >= known.use_height
            self._hold("INV3", covered, "carried before final reports cover its use", known)
        fresh_end = seen is None or seen.open
        if known.written_off:
            whole = known.encumbered_usd6 >= known.amount_usd6
            self._hold("INV7", whole, "written off, and some of it is free", known)
        elif known.state in (reservation.State.RELEASED, reservation.State.SETTLED) and fresh_end:
            self._check_release(known)
        self._check_both(known, self._spokes[known.spoke])

    def _check_encumbered(self) -> None:
        """What the ledger holds back of an account is what its reservations encumber (INV2)."""
        hub, concerned = self._hub, set()
        for rid in hub.changed_rids:
            known, seen = hub.reservations[rid], self._hub_seen.get(rid)
            if known.account in self._encumbered_usd6:
                before_usd6 = 0 if seen is None else seen.encumbered_usd6
                self._encumbered_usd6[known.account] += known.encumbered_usd6 - before_usd6
                concerned.add(known.account)
        for account in sorted(concerned):
            reserved_usd6, encumbered = hub.ledger.reserved_usd6(account), self._encumbered_usd6
            self._need("INV2", reserved_usd6, encumbered[account], f"reserved of {account}")

    def _check_release(self, known: Reservation) -> None:
        """A release rests on a final close, or a final watermark past every expiry (INV7)."""
        heard = self._evidence[known.spoke]
        height = heard.closed.get(known.rid)
        by_close = height is not None and height <= heard.final_heights[Family.RESERVATION]
        epoch = self._epochs[known.rid]
        late = heard.final_us >= self._expires_max_us[known.rid]
        by_mark = late and epoch == heard.spoke_epoch
        by_epoch = epoch < heard.ended_epoch
        found = by_close or by_mark or by_epoch
        self._hold("INV7", found, "released without final evidence", known)
        quarantined = known.rid in self._hub.zone_of[known.spoke].cut.quarantine
        self._hold("INV7", not quarantined, "released from quarantine", known)

    def _check_views(self, spoke: NodeId) -> None:
        """Every digest is the hub's own, at a cut that there has been (VIEWS)."""
        if spoke in self._liars or spoke in self._flawed or self._operated(spoke):
            return
        cut = self._hub.zone_of[spoke].cut
        self._hold("VIEWS", cut.incomparable == 0, f"{spoke} names a cut", cut.heard_seq)
        what = f"hub and {spoke} differ about open reservations"
        self._hold("VIEWS", cut.unequal == 0, what, f"{cut.unequal} of {cut.compared} digests")

    def _operated(self, spoke: NodeId) -> bool:
        """Tell whether people have made the two sides differ, or may have, unseen."""
        if spoke in self._passed_over or (self._operators and HUB in self._restored):
            return True
        known = self._hub.reservations.values()
        return self._operators and any(one.written_off and one.spoke == spoke for one in known)

    def _check_credit(self, spoke: Spoke, rid: ReservationId) -> None:
        """Check one reservation of a spoke against its past and the hub."""
        credit = spoke.state.credits.get(rid)
        if credit is None:
            return
        seen, known = self._spoke_seen.get(rid), self._hub.reservations.get(rid)
        self._spoke_seen[rid] = credit
        if seen is not None:
            revived = seen.state is Held.CLOSED and credit.state is not Held.CLOSED
            final = known is not None and not known.open and not known.written_off
            stands = not self._lost or final  # what is ended at the hub was final here
            self._hold(
                "INV6", not (revived and stands), "a closed reservation opened again", credit
            )
            fell = credit.used_usd6 < seen.used_usd6
            self._hold("INV5", not (fell and stands), "used fell", credit)
        granted_usd6 = self._granted_usd6.get(rid, 0)
        self._hold("INV1", credit.used_usd6 <= granted_usd6, "used more than granted", credit)
        if known is not None:
            self._check_both(known, spoke)
        elif not self._in_doubt(HUB):
            self._hold("INV4", credit.state is not Held.ACTIVE, "active, unknown to hub", credit)

    def _check_both(self, known: Reservation, spoke: Spoke) -> None:
        """What a spoke may still use or has used is encumbered at the hub (INV3, INV4)."""
        credit = spoke.state.credits.get(known.rid)
        if credit is None or known.spoke in self._liars:
            return
        if self._in_doubt(spoke.name) or self._in_doubt(HUB):
            return
        claim_usd6 = credit.used_usd6
        if credit.state is Held.ACTIVE:
            held = known.open or known.written_off
            self._hold("INV4", held, "active at the spoke, ended at the hub", known)
            claim_usd6 = credit.amount_usd6
        elif credit.state is Held.REQUESTED and known.rid in self._granted_usd6:
            # A grant under way can still be taken, until its last expiry on the spoke's chain.
            chain_us = spoke.state.policy.chain.time_at(self._spoke_us[spoke.name])
            if chain_us < self._expires_max_us[known.rid]:
                claim_usd6 = self._granted_usd6[known.rid]
        if not known.carried:
            held = claim_usd6 <= known.encumbered_usd6
            self._hold("INV3", held, f"the spoke may claim {claim_usd6}", known)

    def _need(self, rule: str, found: int, expected: int, what: str) -> None:
        self.checked += 1
        if found != expected:
            raise InvariantViolated(rule, f"{what}: expected {expected:,}, found {found:,} usd6")

    def _hold(self, rule: str, holds: bool, what: str, found: object) -> None:
        self.checked += 1
        if not holds:
            raise InvariantViolated(rule, f"{what}: found {_brief(found)}")


def _brief(found: object) -> str:
    """Say which reservation it is and where it stands."""
    if isinstance(found, Reservation | Credit):
        where = f" at {found.spoke}" if isinstance(found, Reservation) else ""
        return (
            f"{found.rid.hex()} of {found.account}{where}, {found.state}, "
            f"{found.used_usd6:,} of {found.amount_usd6:,} usd6 used"
        )
    return str(found)
