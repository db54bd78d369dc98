"""One seed of the swarm: a random world, its faults, a safety phase and a liveness phase."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import BinaryIO

import msgspec

from hub.node import Hub
from lab import world
from lab.checkers import Checker
from lab.scenario import Scenario
from lab.stack.outside import border_driver
from lab.swarm import laws, lies, rest
from lab.swarm.draws import Draws
from lab.swarm.fates import Fates
from lab.swarm.keyed import Seals, impostor_of, signer_of, verifier_of
from lab.swarm.log import line
from lab.swarm.options import Options, drain_s, scenario_of
from lab.swarm.orders import Orders
from lab.swarm.people import People
from lab.swarm.published import Published
from lab.swarm.rarities import Greedy, Impatient, narrow
from lab.swarm.reached import Reached, spoken
from lab.swarm.wire import Wire
from messaging.codec import encode_frame
from messaging.drivers.mortal import MortalDriver
from messaging.drivers.process import Parcel, Process
from messaging.effects import Effect
from messaging.endpoint import Endpoint
from messaging.envelope import Envelope
from messaging.errors import InvariantViolated, OmnimarginError, ReplayDiverged
from messaging.identity import NO_DIGEST, Signer, key_id
from messaging.link_control import KeyRotated
from messaging.node import Event, Node, TimerFired
from messaging.poison import read_frame
from messaging.rebuilding import spoke_epoch_of
from messaging.topics import routes, topic_of
from messaging.units import (
    HUB,
    MARKET,
    MONITOR,
    OPERATORS,
    ORACLE,
    SECOND_US,
    TRADERS,
    Micros,
    NodeId,
)
from spokes import contract
from spokes.node import Spoke
from spokes.state import SpokePolicy

STRANGER = NodeId("stranger")
EVENTS_MAX = 200_000
NEWEST = 40  # events shown with a finding
LOOK_EVERY, SEEN_EVERY = 30, 10  # rounds between two looks, and two of people
ASKED_EVERY = 300  # rounds between two questions about INV8 and INV9


class Finding(msgspec.Struct, frozen=True):
    """What did not hold, and the event it was found at."""

    text: str
    event: int
    at_us: Micros


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one seed.

    Attributes:
        events: handled by hub and spokes, each once. virtual_s: scenario time.
        checked: single checks made. counts: sometimes-counters.
    """

    seed: int
    events: int
    virtual_s: float
    checked: int
    digest: str
    wall_s: float
    counts: dict[str, int]
    finding: Finding | None = None


class Trial:
    """One seed, ready to run.

    Attributes:
        driver: runs its processes.
        counts: sometimes-counters; see docs/swarm.md. newest: the last events.
    """

    def __init__(
        self,
        options: Options,
        *,
        checks: bool = True,
        seals: Seals | None = None,
        log: BinaryIO | None = None,
    ) -> None:
        """Without `seals`, those that are drawn; without `checks` it only shows its speed.

        All that happens is written to `log`, but for the events of a commit that never was.
        """
        self.options = options
        self._log = log
        scenario = scenario_of(options)
        self._until_us = Micros(int(scenario.duration_h * 3_600 * SECOND_US))
        self._safety_us = Micros(int(options.safety_s * SECOND_US))
        names, deposits = world.names_of(scenario), world.deposits_of(scenario)
        self._routes = routes(names)
        self._reached = Reached()
        struck = self._reached.struck
        self._fates = Fates(options, (*names, HUB), struck)
        seals = seals or (Seals.REAL if options.real_signatures else Seals.KEYED)
        everyone = (HUB, *names, MARKET, ORACLE, TRADERS, MONITOR, *OPERATORS)
        signers = {name: signer_of(name, seals) for name in everyone}
        verifier = verifier_of({name: signers[name].public for name in everyone}, seals)
        self._signers = signers
        self._verifier = verifier
        stranger = signer_of(STRANGER, seals)
        strangers = {name: (stranger, impostor_of(STRANGER, name, seals)) for name in everyone}
        self._wire = Wire(options, self._routes, signers, strangers, struck)
        self.counts: Counter[str] = Counter()
        self._turns = sorted([*_halts(scenario), *((at_us, "F7") for at_us in self._fates.jumps())])
        self._newest: deque[tuple[Micros, NodeId, Event]] = deque(maxlen=NEWEST)

        self._processes: list[Process] = []
        self._orders = Orders(signers.__getitem__, self._put)
        operated = "operator" in options.faults
        self._people = (
            People(options, self._processes, signers[MONITOR], self._orders, self._put, struck)
            if operated
            else None
        )
        self._processes += [self._process(name, scenario, seals) for name in (*names, HUB)]
        nodes = [one.durable.endpoint.node for one in self._processes]
        hub = nodes[-1]
        assert isinstance(hub, Hub)
        spokes = tuple(node for node in nodes if isinstance(node, Spoke))
        liars, flawed = lies.told_by(options)
        self._checker = (
            Checker(hub, spokes, (), deposits, liars=liars, flawed=flawed, operators=operated)
            if checks
            else None
        )
        audited = checks and options.audited
        self._published = Published(self._wire, self._processes) if audited else None
        self._asks = Draws(options.seed, "asks")
        self._approvals = Draws(options.seed, "approvals")
        self._patience_us = options.ttl_s * SECOND_US
        self.driver = MortalDriver(
            self._processes,
            self._routes,
            self._script(scenario),
            self._published or self._wire,
            self._fates,
            self._born,
        )

    def _process(self, name: NodeId, scenario: Scenario, seals: Seals) -> Process:
        return Process(
            maker(self.options, scenario, name),
            self._signers[name],
            self._verifier,
            batch=self.options.batch,
            snapshot_events=self.options.snapshot_events,
            read=read_frame if self._people is None else self._people.read,
            new_key=partial(self._new_key, name, seals),
            outlives=None if name == HUB else chain_of,
        )

    def _new_key(self, name: NodeId, seals: Seals, number: int) -> Signer:
        signer = signer_of(name, seals, number)
        self._wire.later[key_id(signer.public)] = signer
        return signer

    def _born(self, endpoint: Endpoint, restored: bool) -> None:
        """Watch a new endpoint: the log first, then the checks, then what is counted."""
        if self._log is not None:
            endpoint.observers.append(partial(self._write, self._log, endpoint.name))
        if endpoint.lives.lost:
            self._approve(
                endpoint, int(max(0.0, self._approvals.uniform(-1.0, 2.0)) * self._patience_us)
            )
        if self._checker is None:
            return
        self._checker.watch(endpoint, restored=restored)
        if restored and self._published is not None:
            self._published.leave_out(endpoint.name)
        self._reached.watch(endpoint)
        if self._people is not None:
            self._people.watch(endpoint)
        endpoint.observers.append(partial(self._note, endpoint.name))

    def _write(
        self, log: BinaryIO, name: NodeId, now_us: Micros, event: Event, effects: Sequence[Effect]
    ) -> None:
        log.write(line(self.driver.now_us, name, now_us, event, effects))

    def _put(self, parcels: Iterable[Parcel]) -> None:
        self.driver.put(parcels)

    def _approve(self, endpoint: Endpoint, after_us: int) -> None:
        """Let operators say, some time from now, that a spoke may come back (P24)."""
        at_us = Micros(self.driver.now_us + after_us)
        self._orders.approve(endpoint.name, spoke_epoch_of(endpoint.lives.node_epoch), at_us)

    def _note(self, name: NodeId, now_us: Micros, event: Event, effects: Sequence[Effect]) -> None:
        """Keep the newest events for a finding; see that prints are the oracle's."""
        self._newest.append((now_us, name, event))
        if type(event) is not Envelope:
            return
        if type(event.message) is KeyRotated:
            self._wire.turned.add((topic_of(event), key_id(event.message.public_key)))
        if event.sender == ORACLE:
            known = event.message in self._wire.prints
            if not known:
                raise InvariantViolated("INV16", f"expected a print of the oracle, found {event}")

    @property
    def newest(self) -> list[tuple[Micros, NodeId, str]]:
        """Return the last events: when, where, what."""
        return [(at_us, name, _what(event)) for at_us, name, event in self._newest]

    def _script(self, scenario: Scenario) -> Iterator[Parcel]:
        """Yield what the world outside says; traders fall silent with the safety phase."""
        by_topic = {route.topic: route for route in self._routes}
        driver, border = border_driver(scenario, self._until_us)
        greedy = Greedy(self.options, world.names_of(scenario), self._reached.struck)
        for record in driver.run():
            for said in border.left:
                orders = said.sender == TRADERS
                if orders and record.at_us > self._safety_us:
                    continue
                if said.sender == ORACLE:
                    self._wire.prints.add(said.message)
                for frame in greedy.orders(said) if orders else (said,):
                    route = by_topic[topic_of(frame)]
                    data, _ = self._signers[frame.sender].seal(encode_frame(frame), NO_DIGEST)
                    if route.relayed:
                        yield from self._wire.carry(route, frame.seq, data, record.at_us)
                    else:
                        yield Parcel(record.at_us, route, data)
            border.left.clear()

    def run(self, until_event: int = EVENTS_MAX) -> Verdict:
        """Run it to its end, to a finding, or to an event."""
        began_s, finding = time.perf_counter(), None
        try:
            self._phase(self._safety_us, until_event)
            self._wire.healed = self._fates.healed = True
            if self._people is not None:
                self._people.healed = True
            self.driver.rouse()
            for endpoint in self.endpoints():
                if endpoint.lives.lost:
                    self._approve(endpoint, 0)
            drain_us = int(drain_s(self.options) * SECOND_US)
            self._phase(Micros(self._until_us - drain_us), until_event)
            said = rest.said(self.endpoints())
            self._phase(self._until_us, until_event)
            if self.driver.events < until_event and self._checker and self._goes_on_alone():
                excused = () if self.options.liar is None else (self.options.liar,)
                rest.rested(self._checker, self.endpoints(), said, self._until_us, excused)
                self._check_published()
        except (OmnimarginError, AssertionError, LookupError) as error:
            text = str(error) or type(error).__name__
            if isinstance(error, ReplayDiverged):
                text = f"INV11: {text}"
            finding = Finding(text, self.driver.events, self.driver.now_us)
        return Verdict(
            seed=self.options.seed,
            events=self.driver.events,
            virtual_s=self.driver.now_us / SECOND_US,
            checked=self._checker.checked if self._checker else 0,
            digest=self.driver.digest,
            wall_s=time.perf_counter() - began_s,
            counts=dict(self._counts()),
            finding=finding,
        )

    def _counts(self) -> Counter[str]:
        """Return all that was counted, why nodes have stopped, and what became of a liar."""
        ends = Counter(f"stopped: {why.split(': ')[-1]}" for why in self.driver.stopped.values())
        if self.options.liar is not None:
            ends[f"lied: {self.options.lie}"] += 1
        by_people = Counter[str]() if self._people is None else self._people.counts
        of_faults = self._wire.counts + by_people
        return ends + self.counts + self._reached.counts + self.driver.counts + of_faults

    def _goes_on_alone(self) -> bool:
        """Tell whether all can come to rest without a person (P60, P65)."""
        counts, people = self.driver.counts, self._people
        passed_over = people is not None and people.counts["skip, releases frozen"]
        # Who is put back behind a change of keys is not told so (P98).
        restored = any(process.restored for process in self._processes)
        lost = counts["rotated"] and (restored or counts["amnesia"])
        return not (self.driver.stopped or counts["doubled"] or passed_over or lost)

    def endpoints(self) -> list[Endpoint]:
        """Return the nodes as they are, or as their stores give them."""
        return [one.durable.endpoint for one in self._processes]

    def _check_published(self) -> None:
        """Go through all journals anew, if this is a seed for that (INV10)."""
        if self._published is not None:
            scenario = scenario_of(self.options)
            frames = self._published.check(
                lambda name: maker(self.options, scenario, name)(), self._verifier
            )
            self.counts["frames derived anew"] += frames

    def _ask(self) -> None:
        """Ask a copy of some process about INV8, and one of the hub about INV9."""
        process = self._processes[self._asks.whole(0, len(self._processes) - 1)]
        now_us = self.driver.now_us
        self.counts["delivered again"] += laws.delivered_again(process, self._asks, now_us)
        hub = self._processes[-1]
        self.counts["told in either order"] += laws.either_order(hub, self._asks, now_us)

    def _phase(self, until_us: Micros, until_event: int) -> None:
        driver, turns, audited = self.driver, self._turns, self._published is not None
        for rounds, now_us in enumerate(driver.run(until_us), start=1):
            if driver.events >= until_event:
                break
            while turns and turns[0][0] <= now_us:
                self._reached.struck(turns.pop(0)[1])
            if self._people is not None and rounds % SEEN_EVERY == 0:
                self._people.look(now_us)
            if rounds % LOOK_EVERY == 0:
                self._look(ask=audited and rounds % ASKED_EVERY == 0)

    def _look(self, *, ask: bool) -> None:
        """Look at what no event tells of."""
        if "tiny" in self.options.faults:
            self._reached.look_for_full()
        if ask:
            self._ask()


def _what(event: Event) -> str:
    if type(event) is Envelope:
        return spoken(event.message)
    return event.name if type(event) is TimerFired else type(event).__name__


def chain_of(node: Node) -> bytes:
    """Return what outlives a spoke."""
    assert isinstance(node, Spoke)
    return contract.read(node.state)


def _halts(scenario: Scenario) -> list[tuple[Micros, str]]:
    """Return when chains stop, and when they go on."""
    return [
        (Micros(int(at_h * 3_600 * SECOND_US)), "F8")
        for spoke in scenario.spokes
        for window in spoke.outages
        for at_h in (window.from_h, window.until_h)
    ]


def maker(options: Options, scenario: Scenario, name: NodeId) -> Callable[[], Endpoint]:
    """Return what makes a node's endpoint, new, with the rarities that are drawn."""
    lanes = world.lanes_of(scenario)
    deposits = world.deposits_of(scenario) if name == HUB else ()
    impatience, spam = options.faults.get("impatient"), options.faults.get("spam")

    def spoke(policy: SpokePolicy) -> Spoke:
        if name == options.liar:
            return lies.maker_of(options.lie, options.seed, options.safety_s)(policy)
        if impatience is None and spam is None:
            return Spoke(policy)
        every = int(60 - 50 * impatience) if impatience is not None else 0
        return Impatient(policy, every, int(120 - 100 * spam) if spam is not None else 0)

    def make() -> Endpoint:
        if name == HUB:
            endpoint = world.hub_of(scenario, lanes, deposits)
        else:
            place = world.names_of(scenario).index(name)
            endpoint = world.spoke_of(scenario, lanes, place, spoke)
        if "tiny" in options.faults:
            narrow(endpoint)
        return endpoint

    return make
