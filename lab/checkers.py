"""What must hold across hub, spokes and messages, checked after every event of a node.

Each event is followed by checks of all it has changed; now and then, and at the end, everything
is checked, which also catches a change that went past the nodes' own books. Rule names are those
of docs/invariants.md.
"""

from collections.abc import Collection, Sequence
from functools import partial

from hub.ledger import clearing
from hub.node import Hub
from hub.zone import Zone
from lab.audit import Audit
from lab.evidence import Evidence
from lab.fills import Fills
from lab.graces import Graces
from lab.overlay import Overlay
from lab.reservations import Reservations
from lab.standing import Standing
from lab.takeovers import Takeovers
from lab.tally import Tally
from lab.words import Words
from messaging.digests import DigestTold
from messaging.effects import Effect, Forked, Send
from messaging.endpoint import Endpoint
from messaging.envelope import Envelope
from messaging.link_control import KeyRotated
from messaging.messages import CHANNEL_FAMILIES, Family, HaltReason, StateReported
from messaging.node import Event, Node, PassedOver, TimerFired
from messaging.units import HUB, AccountId, Micros, NodeId, Usd6
from spokes.node import Spoke

SWEEP_EVENTS = 4_096


class Checker:
    """Watches the hub's and the spokes' endpoints."""

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
        self._watched: dict[NodeId, Endpoint] = {}
        self._spokes: dict[NodeId, Spoke] = {spoke.name: spoke for spoke in spokes}
        self._liars = frozenset(liars)
        self._flawed = frozenset(flawed)
        self._operators = operators
        self._accounts = [account for account, _ in deposits]
        self._evidence = {spoke.name: Evidence() for spoke in spokes}
        self._overlays = {spoke.name: Overlay() for spoke in spokes}
        self._audit = Audit(hub.state, deposits, self._evidence)
        self._standing = Standing(self._evidence)
        self._tally = Tally()
        self._reservations = Reservations(
            hub.state,
            self._spokes,
            self._accounts,
            self._evidence,
            self._standing,
            self._tally,
            liars=self._liars,
            in_doubt=self._in_doubt,
        )
        self._takeovers = Takeovers(hub.state)
        self._graces = Graces(hub.state)
        self._fills = {spoke.name: Fills(spoke) for spoke in spokes}
        self._fills_before: dict[NodeId, Fills] = {}
        self._postings = 0
        self._until_sweep = SWEEP_EVENTS
        self._words = Words()
        self._restored: dict[NodeId, list[Endpoint]] = {}
        self._lost = False  # the event under way takes blocks back
        self._passed_over: set[NodeId] = set()  # spokes of which people passed a frame over

        for endpoint in endpoints:
            self.watch(endpoint)

    @property
    def checked(self) -> int:
        """How many checks have been made."""
        return self._tally.made

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
            self._follow(endpoint)
        endpoint.observers.append(partial(self._after, node))

    def _follow(self, endpoint: Endpoint, *, amid: bool = False) -> None:
        node, self._watched[endpoint.name] = endpoint.node, endpoint
        if isinstance(node, Hub):
            self._hub = node.state
            self._audit.follow(node.state, amid=amid)
            self._reservations.follow(node.state)
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
        watched = self._watched[node.name]
        if watched is endpoint:
            return
        if isinstance(node, Spoke):
            self._reservations.spoke_us[node.name] = now_us
            if endpoint.lives.unsynced:
                self._fills_before[node.name] = Fills(node)
        if endpoint.lives.unsynced:
            if isinstance(node, Hub):
                self._hear(event)
            return
        if endpoint.lives.node_epoch < watched.lives.node_epoch:
            return  # an earlier life, which has heard the answer to its question late
        self._follow(endpoint, amid=True)
        if isinstance(node, Hub):
            self._reservations.adopt_hub()
        elif isinstance(node, Spoke):
            self._reservations.adopt_spoke(node)

    def _in_doubt(self, name: NodeId) -> bool:
        """Tell whether a node is put back and only some of the others have agreed to it.

        Those hear it already, while what it is going to be followed as is not settled yet.
        """
        return any(
            endpoint is not self._watched[name]
            and endpoint.observers
            and not endpoint.lives.stopped
            for endpoint in self._restored.get(name, ())  # one that has died is observed no more
        )

    def _after(self, node: Node, now_us: Micros, event: Event, effects: Sequence[Effect]) -> None:
        if self._watched[node.name].node is not node:
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
                self._tally.made += 1
                self._words.hear(HUB, event)
            told = event.sender not in self._liars and event.sender not in self._passed_over
            if self._lost and told and HUB not in self._restored:
                self._check_rollback(hub.zone_of[event.sender], event.family)
            if type(event.message) is DigestTold:
                self._check_views(event.sender)
        if effects:
            self._words.say(HUB, effects)
            self._tally.made += self._takeovers.check(effects, now_us)
            for effect in effects:
                if type(effect) is Send and effect.family is Family.RESERVATION:
                    self._reservations.note_grant(effect, now_us)
        if hub.changed_rids:
            self._reservations.check_changed(lost=self._lost)
        block = type(event) is TimerFired
        self._tally.made += len(hub.changed) + self._graces.check(now_us, block=block)
        self._audit.check(hub.changed, block=block)
        if effects:  # else nothing rests on how an account stands
            concerned = [hub.accounts[place] for place in hub.changed]
            self._tally.made += self._standing.check(hub, concerned, now_us)
        for zone in hub.zones:
            self._tally.made += 1
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
            self._tally.hold("INV14", zone.halted is not None, what, zone.halted)
        else:
            self._tally.made += 1
            self._overlays[zone.name].check(self._hub, zone, family)

    def _check_alarm(self, spoke: NodeId, reason: HaltReason) -> None:
        """Nobody accuses an honest spoke; where one lies, people may stop them all."""
        people = bool(self._liars) or self._operators
        by_order = people and reason is HaltReason.WATCHDOG
        sound = spoke in self._liars or spoke in self._flawed or by_order
        self._tally.hold("ALARM", sound, f"{spoke} is honest", reason)

    def _after_spoke(
        self, spoke: Spoke, now_us: Micros, event: Event, effects: Sequence[Effect]
    ) -> None:
        if spoke.name in self._liars:
            return
        self._reservations.spoke_us[spoke.name] = now_us
        if type(event) is PassedOver:
            self._words.pass_over(spoke.name, event)
        if type(event) is Envelope and event.family in CHANNEL_FAMILIES:
            self._tally.made += 1
            self._words.hear(spoke.name, event)
            if type(event.message) is KeyRotated:
                return  # no node sees it: what the last event changed has been checked
        self._lost = bool(effects) and type(effects[0]) is Forked
        if self._lost:
            self._fills[spoke.name] = Fills(spoke)  # positions and fills go back with the blocks
        for rid in spoke.state.changed_rids:
            self._reservations.check_credit(spoke, rid, lost=self._lost)
        fills = self._fills[spoke.name]
        if spoke.state.filled:
            self._tally.made += fills.check()
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
        self._tally.made += len(hub.accounts)
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
            self._tally.need(
                "INV2", hub.ledger.reserved_usd6(account), usd6, f"reserved of {account}"
            )
        for zone in hub.zones:
            self._check_won(zone)
            entered = len(zone.cut.rows) + len(zone.cut.unheard)
            self._tally.hold("VIEWS", entered == open_at[zone.name], "rows of the digest", entered)
            what = f"encumbered at {zone.name}"
            self._tally.need("INV2", zone.encumbered_usd6, by_zone[zone.name], what)
            won_usd6 = -sum(
                account.views[zone.place].settled.realised_usd6 for account in hub.accounts
            )
            booked_usd6 = hub.ledger.balances[clearing(zone.name)]
            self._tally.need("MONEY", booked_usd6, won_usd6, f"clearing of {zone.name}")
        self._check_balance()
        for spoke in self._spokes.values():
            for rid in () if spoke.name in self._liars else spoke.state.credits:
                self._reservations.check_credit(spoke, rid, lost=self._lost)

    def _check_won(self, zone: Zone) -> None:
        """No more has been won at a spoke, on balance, than may count (CAP)."""
        balances = self._hub.ledger.balances
        held_usd6 = [self._hub.ledger.held_usd6(zone.name, account) for account in self._accounts]
        self._tally.need("CAP", zone.held_usd6, sum(held_usd6), f"held at {zone.name}")
        self._tally.hold(
            "CAP", min(held_usd6) >= 0, f"held at {zone.name} of somebody", min(held_usd6)
        )
        won_usd6 = -balances[clearing(zone.name)] - zone.held_usd6
        within = won_usd6 <= zone.policy.cap_usd6
        self._tally.hold("CAP", within, f"won at {zone.name} beyond its cap", won_usd6)

    def _check_balance(self) -> None:
        """All books of the ledger add up to nothing, to the millionth."""
        self._tally.need("MONEY", sum(self._hub.ledger.balances.values()), 0, "sum of all balances")
        self._audit.check_bad_debt()

    def _check_views(self, spoke: NodeId) -> None:
        """Every digest is the hub's own, at a cut that there has been (VIEWS)."""
        if spoke in self._liars or spoke in self._flawed or self._operated(spoke):
            return
        cut = self._hub.zone_of[spoke].cut
        self._tally.hold("VIEWS", cut.incomparable == 0, f"{spoke} names a cut", cut.heard_seq)
        what = f"hub and {spoke} differ about open reservations"
        self._tally.hold(
            "VIEWS", cut.unequal == 0, what, f"{cut.unequal} of {cut.compared} digests"
        )

    def _operated(self, spoke: NodeId) -> bool:
        """Tell whether people have made the two sides differ, or may have, unseen."""
        if spoke in self._passed_over or (self._operators and HUB in self._restored):
            return True
        known = self._hub.reservations.values()
        return self._operators and any(one.written_off and one.spoke == spoke for one in known)
