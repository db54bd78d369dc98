"""Operators in a swarm: frames that a version cannot read, gaps, overdue credit, halts (F11).

They look at the nodes now and then, as people do, and order something about what they see. Not
always the second one agrees, and some say the same twice.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from hub.node import Hub
from hub.reservation import State
from lab.swarm.draws import Draws
from lab.swarm.options import FAULTS, Options
from lab.swarm.orders import Orders
from lab.swarm.reached import Struck
from messaging.codec import encode_frame
from messaging.drivers.process import Parcel, Process
from messaging.effects import Effect, Refused
from messaging.endpoint import Endpoint
from messaging.envelope import NO_HEIGHT, Envelope
from messaging.errors import InvariantViolated
from messaging.identity import NO_DIGEST, Sealed, Signer
from messaging.lineage import Place
from messaging.messages import CHANNEL_FAMILIES, Family, HaltOrdered
from messaging.node import Approved, Event, PassedOver
from messaging.operator_orders import (
    TARGETS,
    FrameNamed,
    OperatorOrdered,
    PeerNamed,
    ReservationNamed,
    Target,
    Verb,
)
from messaging.poison import poison_of, read_frame
from messaging.topics import HALT_TOPIC, Route
from messaging.units import HUB, MONITOR, OPERATORS, SECOND_US, Micros, NodeId

VERSIONS = 4  # of the code; each reads more than the one before
UNREADABLE_MAX = 0.05  # of all frames of channels
PATIENCE_US = 20 * SECOND_US  # before an order about the same is given again
HALTS, MISTAKES = 0.02, 0.02  # of looks, at most, with a HALT, and with a write-off, for nothing
SKIPPED_MAX = 12  # numbers of one gap

HALT = Route(HALT_TOPIC, MONITOR, HUB, Family.CONTROL, False)

_Wish: TypeAlias = tuple[NodeId, Verb, Target]


class People:
    """The operators of one seed, and the watchdog that halts honest spokes.

    Attributes:
        counts: what they have come to do.
        passes_over: whether they skip and clear: what was said there is never heard.
        healed: they do all that is left to do.
    """

    def __init__(
        self,
        options: Options,
        processes: Sequence[Process],
        watchdog: Signer,
        orders: Orders,
        put: Callable[[Iterable[Parcel]], None],
        struck: Struck,
    ) -> None:
        """`put` puts parcels on their way, and `orders` those of operators."""
        self._strength = options.faults["operator"]
        self._draws = Draws(options.seed, "operator")
        self.passes_over = Draws(options.seed, "operator/skips").chance(0.4)
        self._upgrade_us = options.safety_s * SECOND_US / VERSIONS
        self._processes = processes
        self._watchdog = watchdog
        self._orders = orders
        self._put = put
        self._struck = struck
        self._last_us: dict[_Wish, Micros] = {}
        self._kept: defaultdict[tuple[NodeId, NodeId, Family], set[Place]] = defaultdict(set)
        self._now_us = Micros(0)
        self.counts: Counter[str] = Counter()
        self.healed = False

    def watch(self, endpoint: Endpoint) -> None:
        """Watch a node from now on."""
        endpoint.observers.append(
            lambda now_us, event, effects: self._after(endpoint, event, effects)
        )

    def _after(self, endpoint: Endpoint, event: Event, effects: Sequence[Effect]) -> None:
        """See that nothing is done that not enough operators have ordered (INV16)."""
        if type(event) is not Approved and type(event) is not PassedOver:
            return
        order = endpoint.orders.outcomes[-1].order
        given, needed = self._orders.given.get(order.order_id, set()), TARGETS[order.verb][1]
        if len(given) < needed:
            finding = f"{endpoint.name}: {order.verb} by {len(given)} operators, not {needed}"
            raise InvariantViolated("INV16", finding)
        if type(event) is PassedOver:
            self.counts["skip, releases frozen"] += endpoint.name == HUB
            self.counts[f"passed over by {order.verb}"] += 1
        elif any(type(effect) is Refused for effect in effects):
            self.counts[f"refused: {order.verb}"] += 1
        else:
            done = {Verb.WRITE_OFF: "WRITE_OFF", Verb.RESUME: "resumed"}
            self.counts[done.get(order.verb, order.verb)] += 1

    def read(self, sealed: Sealed, data: bytes, route: Route) -> Envelope:
        """Read a frame as the code of the day can; see `messaging.poison.read_frame`."""
        frame = read_frame(sealed, data, route)
        if frame.seq and route.family in CHANNEL_FAMILIES and not self.healed:
            share, version = sealed.digest()[0] / 256, sealed.digest()[1] % VERSIONS
            finer = share + sealed.digest()[2] / 65_536
            if finer < UNREADABLE_MAX * self._strength and version > self._version:
                raise poison_of(frame, data, f"expected version {self._version}, found {version}")
        return frame

    @property
    def _version(self) -> int:
        return int(self._now_us / self._upgrade_us)

    def look(self, now_us: Micros) -> None:
        """Order something about what there is to see."""
        self._now_us = now_us
        self._count_freed()
        for wish in self._wishes():
            last_us = self._last_us.get(wish)
            if last_us is not None and now_us < last_us + PATIENCE_US:
                continue
            if self.healed or self._draws.chance(0.5 * self._strength):
                self._last_us[wish] = now_us
                self._struck(FAULTS["operator"])
                self._order(*wish)
        self._err()

    def _err(self) -> None:
        """Halt a spoke, or write a reservation off, that nothing is wrong with."""
        if self.healed:
            return
        hub = self._processes[-1].durable.endpoint.node
        assert isinstance(hub, Hub)
        open_now = [known.rid for known in hub.state.reservations.values() if known.open]
        if open_now and self._draws.chance(MISTAKES * self._strength):
            rid = self._draws.choice(open_now)
            self._order(HUB, Verb.WRITE_OFF, ReservationNamed(rid=rid))
        if self._draws.chance(HALTS * self._strength):
            names = [process.name for process in self._processes if process.name != HUB]
            halt = HaltOrdered(spokes=(self._draws.choice(names),), finding="a false alarm")
            self._halt(halt)

    def _wishes(self) -> Iterator[_Wish]:
        for process in self._processes:
            endpoint = process.durable.endpoint
            if process.ended or endpoint.lives.stopped:
                continue
            for (peer, family), inbox in endpoint.inboxes.items():
                for place in inbox.poison:
                    yield (
                        endpoint.name,
                        self._for_poison(endpoint, family),
                        FrameNamed(peer=peer, family=family, seq=place.seq),
                    )
                if self._may_pass_over(endpoint, family) and not inbox.poison:
                    first = min(inbox.parked, default=0)
                    for seq in range(inbox.next_seq, min(first, inbox.next_seq + SKIPPED_MAX)):
                        target = FrameNamed(peer=peer, family=family, seq=seq)
                        yield endpoint.name, Verb.SKIP, target
            if isinstance(endpoint.node, Hub):
                yield from self._for_hub(endpoint.node)

    def _may_pass_over(self, endpoint: Endpoint, family: Family) -> bool:
        ours = endpoint.name == HUB and family is Family.RESERVATION
        return self.passes_over and ours and not self.healed

    def _for_poison(self, endpoint: Endpoint, family: Family) -> Verb:
        draw = self._draws.next()[0]
        if draw < 0.3 and self._may_pass_over(endpoint, family):
            return Verb.CLEAR
        return Verb.NILIFY if draw > 0.9 else Verb.RETRY

    def _for_hub(self, hub: Hub) -> Iterator[_Wish]:
        for zone in hub.state.zones:
            for rid in zone.overdue:
                if not self.healed:
                    yield HUB, Verb.WRITE_OFF, ReservationNamed(rid=rid)
            for rid in zone.cut.quarantine:
                known = hub.state.reservations[rid]
                if known.state in (State.HELD, State.OVERDUE):
                    yield HUB, Verb.WRITE_OFF, ReservationNamed(rid=rid)
            if zone.halted is not None or zone.frozen:
                yield HUB, Verb.RESUME, PeerNamed(peer=zone.name)

    def _order(self, node: NodeId, verb: Verb, target: Target) -> None:
        """Let one operator order it, then a second one, or the same again."""
        draws = self._draws.next()
        order_id = int(draws[0] * 2**63).to_bytes(8)
        order = OperatorOrdered(order_id=order_id, verb=verb, target=target, reason="as seen")
        first = int(draws[1] * len(OPERATORS))
        second = first if draws[2] < 0.2 and not self.healed else (first + 1) % len(OPERATORS)
        for operator in (OPERATORS[first], OPERATORS[second]):
            now_us = self._now_us
            self._orders.give(operator, node, order, now_us, Micros(now_us + SECOND_US))

    def _halt(self, message: HaltOrdered) -> None:
        head = (MONITOR, HUB, Family.CONTROL, 0, 0, self._now_us, NO_HEIGHT, NO_HEIGHT)
        data, _ = self._watchdog.seal(encode_frame(Envelope(*head, message)), NO_DIGEST)
        self._put([Parcel(Micros(self._now_us + SECOND_US), HALT, data)])

    def _count_freed(self) -> None:
        """Count frames that were kept and have been taken in since."""
        for process in self._processes:
            for (peer, family), inbox in process.durable.endpoint.inboxes.items():
                kept = self._kept[process.name, peer, family]
                if kept or inbox.poison:
                    over = {place for place in kept if place <= inbox.cursor}
                    self.counts["poison then retry"] += len(over)
                    self._kept[process.name, peer, family] = (kept - over) | set(inbox.poison)
