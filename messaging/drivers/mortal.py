"""Run durable nodes in virtual time, and let them die at the worst moment.

The contract is the live driver's: what a node hears is in its journal before anybody hears what
it says, and what is not certain to have left leaves again (P87 to P97 of docs/protocol.md). A
process that dies loses its memory, keeps its store, and finds what it had not yet committed in
front of it again, as the broker would hand it out.
"""

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Protocol

from messaging.codec import encode_event
from messaging.drivers.process import NEVER_US, Death, Loss, Parcel, Point, Process
from messaging.durable import Durable
from messaging.endpoint import Endpoint
from messaging.errors import FrameRefused, ReplayDiverged
from messaging.link_control import KeyRotated
from messaging.memory import MemoryStore
from messaging.node import Restarted, TimerFired
from messaging.poison import FramePoisoned
from messaging.store import Row
from messaging.topics import Route
from messaging.units import Micros, NodeId

TIMER, DELIVERY, BIRTH = range(3)  # at one instant, in this order


class Wire(Protocol):
    """What lies between the nodes."""

    def carry(self, route: Route, seq: int, data: bytes, now_us: Micros) -> Iterable[Parcel]:
        """Return what comes of a frame that leaves now: nothing, itself, or worse."""
        ...


class Fate(Protocol):
    """What happens to processes; asked once a round."""

    def death(self, name: NodeId, now_us: Micros) -> Death | None:
        """Return how the process dies in this round, if it does."""
        ...

    def pause_us(self, name: NodeId, now_us: Micros) -> int:
        """Return how long the process does nothing after this round."""
        ...

    def local_us(self, name: NodeId, now_us: Micros) -> Micros:
        """Return the time on the process's own clock."""
        ...

    def global_us(self, name: NodeId, local_us: Micros, now_us: Micros) -> Micros:
        """Return when, from now, its clock will show a time."""
        ...


class MortalDriver:
    """Processes over a wire, with the world outside as a script.

    Attributes:
        counts: how often what has happened.
        stopped: nodes that may not go on, and why.
        events: handled and committed. now_us: virtual time.
    """

    def __init__(
        self,
        processes: Sequence[Process],
        routes: Iterable[Route],
        outside: Iterator[Parcel],
        wire: Wire,
        fate: Fate,
        born: Callable[[Endpoint, bool], None],
    ) -> None:
        """Let them run.

        `outside` yields what the world says, by time; `born` is told of each new endpoint, and
        whether it is one that the others have yet to agree to: restored, or a second one.
        """
        self._processes = list(processes)
        self._routes = {route.topic: route for route in routes}
        self._by_name = {process.name: [index] for index, process in enumerate(processes)}
        self._outside = outside
        self._next = next(outside, None)
        self.wire = wire
        self.fate = fate
        self._born = born
        self._queue: list[tuple[Micros, int, int, int, Parcel | int]] = []
        self._pushed = 0
        self._digest = blake2b(digest_size=16)
        self.counts: Counter[str] = Counter()
        self.stopped: dict[NodeId, str] = {}
        self.events = 0
        self.now_us = Micros(0)
        for index, process in enumerate(processes):
            born(process.durable.endpoint, False)
            self._wake(index)

    @property
    def digest(self) -> str:
        """Return a hash of every committed event, where and when; no signature is part of it."""
        return self._digest.hexdigest()

    def run(self, until_us: Micros) -> Iterator[Micros]:
        """Go on until a time; yield after each round.

        Raises:
            ReplayDiverged: a journal does not give the state that its process had.
        """
        while True:
            at_us = self._queue[0][0] if self._queue else until_us
            if self._next is not None and self._next.at_us <= min(at_us, until_us):
                parcel, self._next = self._next, next(self._outside, None)
                self.put([parcel])
                continue
            if not self._queue or at_us > until_us:
                self.now_us = until_us
                return
            self.now_us, kind, index, _, what = heapq.heappop(self._queue)
            process = self._processes[index]
            if kind == BIRTH:
                if what == process.birth and not process.up:
                    self._rise(index)
            elif isinstance(what, Parcel):
                process.arrived.append(what)
            if process.up and self.now_us >= process.ready_us:
                self._rounds(index)
            yield self.now_us

    def rouse(self) -> None:
        """Let every process run from now on that is down or stands still."""
        for index, process in enumerate(self._processes):
            if process.ended:
                continue
            process.ready_us = self.now_us
            if not process.up:
                self._push(self.now_us, BIRTH, index, process.birth)
            self._push(self.now_us, TIMER, index, 0)

    def put(self, parcels: Iterable[Parcel]) -> None:
        """Put parcels on their way; those to nobody here are dropped."""
        for parcel in parcels:
            for index in self._by_name.get(parcel.route.receiver, ()):
                at_us = Micros(max(parcel.at_us, self.now_us))
                self._push(at_us, DELIVERY, index, parcel)

    def _push(self, at_us: Micros, kind: int, index: int, what: Parcel | int) -> None:
        self._pushed += 1
        heapq.heappush(self._queue, (at_us, kind, index, self._pushed, what))

    def _wake(self, index: int) -> None:
        """Come back to a process when its next timer is due, or its pause is over."""
        process = self._processes[index]
        timer = process.durable.next_timer()
        if timer is None:
            return
        due_us = self.fate.global_us(process.name, timer[0], self.now_us)
        at_us = Micros(max(due_us, process.ready_us, self.now_us))
        if self.now_us >= process.woken_us or at_us < process.woken_us:
            process.woken_us = at_us
            self._push(at_us, TIMER, index, 0)

    def _rounds(self, index: int) -> None:
        """Handle what is there, a commit at a time, until nothing is or the process stops."""
        process, fate = self._processes[index], self.fate
        name, now_us = process.name, self.now_us
        while process.up:
            local_us = fate.local_us(name, now_us)
            if not (process.arrived or process.nonce or process.durable.is_due(local_us)):
                break
            death = fate.death(name, now_us)
            if death is not None and death.loss is Loss.SUPERVISOR:
                self._double(index, death)
                death = None
            if death is not None and death.point is Point.BEFORE_COMMIT:
                process.durable.endpoint.observers.clear()  # nobody will ever know of this round
                known = self.events, self._digest.copy()
                self._handle(process, local_us)
                self.events, self._digest = known
                self._die(index, death)
                return
            lost = process.store.copy() if death and death.loss is Loss.LAST_COMMIT else None
            try:
                taken, is_all = self._handle(process, local_us)
                process.done_with(taken)
            except AssertionError:
                if not self._is_fenced(process):
                    raise
                self.counts["a fenced process failed"] += 1  # it hears answers to its successor
                process.up, process.ended = False, True
                return
            rows = process.commit()
            if self._stops(process):
                return
            if death is not None and death.point is Point.AFTER_COMMIT:
                self._die(index, death)
                return
            if rows:
                self._publish(process, rows)
            if death is not None:
                self._die(index, death, lost)
                return
            pause_us = fate.pause_us(name, now_us)
            if pause_us:
                self.counts["paused"] += 1
                process.ready_us = now_us + pause_us
                self._push(Micros(process.ready_us), TIMER, index, 0)
                return
            if is_all:
                break
        self._wake(index)

    def _is_fenced(self, process: Process) -> bool:
        """Tell whether all the others follow a later life, in another process (P20)."""
        epoch = process.durable.endpoint.lives.node_epoch
        for index in self._by_name[process.name]:
            other = self._processes[index].durable.endpoint.lives
            if other.node_epoch > epoch and not other.unsynced and not other.stopped:
                return True
        return False

    def _stops(self, process: Process) -> bool:
        """Tell whether the node may not go on (P60)."""
        endpoint = process.durable.endpoint
        if endpoint.lives.stopped:
            self.counts["stopped"] += 1
            self.stopped[process.name] = endpoint.lives.stopped
            process.up, process.ended = False, True
            return True
        if process.restored and not process.nonce and not endpoint.lives.unsynced:
            self.counts["amnesia, rebuilt" if process.rebuilt else "restored"] += 1
            process.restored = process.rebuilt = False
        return False

    def _handle(self, process: Process, local_us: Micros) -> tuple[int, bool]:
        """Handle a commit's worth of events.

        Return how many of them were records, and whether nothing is left to handle now.
        """
        durable, taken = process.durable, 0
        now_us = max(local_us, durable.at_us)
        if process.nonce:
            durable.restart(now_us, process.nonce)
            self._note(process, now_us, encode_event(Restarted(process.nonce)))
            process.nonce = b""
            under_way = any(outbox.unacked for outbox in durable.endpoint.outboxes.values())
            rotated = durable.rotate(now_us)
            if rotated is not None:
                self.counts["rotated"] += 1
                self.counts["rotated with frames in flight"] += under_way
                self._note(process, now_us, rotated.public_key)
        for _ in range(process.batch):
            timer = durable.next_timer()
            if timer is not None and timer[0] <= now_us:
                durable.fire(now_us, timer[2])
                self._note(process, now_us, encode_event(TimerFired(timer[2])))
            elif taken < len(process.arrived):
                self._take(process, process.arrived[taken], now_us)
                taken += 1
            else:
                return taken, True
        return taken, False

    def _take(self, process: Process, parcel: Parcel, now_us: Micros) -> None:
        route, durable = parcel.route, process.durable
        try:
            sealed, link = process.verifier.open_linked(parcel.data, route.sender)
            frame = durable.read(sealed, parcel.data, route)
            durable.admit(frame, link)
            if type(frame.message) is KeyRotated:
                process.verifier.learn(frame, frame.message)
        except FrameRefused as error:
            self.counts[f"refused: {_kind(error)}"] += 1
            durable.refuse(parcel.data, {"why": str(error)[:100]})
            if isinstance(error, FramePoisoned):
                durable.poison(now_us, error.event, link)
            return
        if durable.is_repeat(route, frame):
            return
        durable.take(now_us, frame, parcel.data, link)
        said = sealed.frame
        if type(frame.message) is KeyRotated:  # but for the proof, as any signature
            said = frame.message.public_key
        self._note(process, now_us, said)

    def _note(self, process: Process, now_us: Micros, data: bytes) -> None:
        self.events += 1
        head = f"{process.name}/{self.now_us}/{now_us}/{len(data)}/".encode()
        self._digest.update(head + data)

    def _publish(self, process: Process, rows: Iterable[Row]) -> None:
        for row in rows:
            process.published = row.number
            route = self._routes.get(row.topic)
            if route is None:
                self.counts["dead letters"] += 1
                continue
            self.put(self.wire.carry(route, row.seq, row.data, self.now_us))

    def _die(self, index: int, death: Death, lost: MemoryStore | None = None) -> None:
        """Lose what is in memory. What the store gives is what everybody may see meanwhile.

        `lost` is the store without what the disk has only said to have.
        """
        process = self._processes[index]
        self.counts[f"died {death.point}"] += 1
        before = process.durable
        before.endpoint.observers.clear()
        if death.loss is Loss.BACKUP:
            lost = process.backup
        if death.loss is Loss.AMNESIA and process.has_chain and self._is_alone(process):
            self.counts["amnesia"] += 1
            process.rebuild(self.fate.local_us(process.name, self.now_us))
            lost, death = process.store, death._replace(rewound=0)
        elif lost is not None:
            self.counts[f"lost {death.loss}"] += 1
            process.go_back_to(lost)
            death = death._replace(rewound=0)  # it reads again from further back
        if death.rotated:
            process.add_key()
        if death.again:  # a recovery writes nothing, so often is no more than once
            self.counts["died in recovery"] += death.again
            process.fold()
        process.durable = process.fold()
        if death.point is not Point.BEFORE_COMMIT and lost is None:
            self._compare(process, before)
        process.up = False
        process.published = process.store.published
        process.birth += 1
        if death.truncated:
            kept = [parcel for parcel in process.arrived if parcel.route.ordered]
            self.counts["truncated"] += len(process.arrived) - len(kept)
            process.arrived = deque(kept)
        if death.rewound:
            again = list(process.history)[-death.rewound :]
            self.counts["rewound"] += len(again)
            process.arrived.extendleft(reversed(again))
        self._born(process.durable.endpoint, process.restored or not self._is_alone(process))
        self._push(Micros(self.now_us + death.down_us), BIRTH, index, process.birth)

    def _is_alone(self, process: Process) -> bool:
        return len(self._by_name[process.name]) == 1

    def _double(self, index: int, death: Death) -> None:
        """Let a second process of a node start, for somebody has taken the first one for dead."""
        self.counts["doubled"] += 1
        process = self._processes[index]
        twin = process.twin(len(self._by_name[process.name]))
        self._born(twin.durable.endpoint, True)
        self._by_name[process.name].append(len(self._processes))
        self._processes.append(twin)
        for at_us, kind, receiver, _, what in sorted(self._queue):
            if kind == DELIVERY and receiver == index:
                self._push(at_us, kind, len(self._processes) - 1, what)
        due_us = Micros(self.now_us + death.down_us)
        self._push(due_us, BIRTH, len(self._processes) - 1, twin.birth)

    def _compare(self, process: Process, before: Durable) -> None:
        """A journal gives the state that its process had (P88)."""
        expected, found = before.fingerprint(), process.durable.fingerprint()
        if expected != found:
            place = process.durable.place
            raise ReplayDiverged(place, self.now_us, process.name, expected=expected, found=found)

    def _rise(self, index: int) -> None:
        """Go on: what is not certain to have left leaves first, as the same bytes (P90)."""
        process = self._processes[index]
        process.up, process.ready_us = True, self.now_us
        process.conceive()
        self._publish(process, process.durable.unpublished())
        process.woken_us = NEVER_US


def _kind(error: FrameRefused) -> str:
    """Return what a refusal is about, in few words."""
    return str(error).split(",")[0][:40]
