"""A process of the simulator: one durable node, its store, and how it may end.

It loses its memory when it dies and keeps its store, or what an old backup has of it.
"""

from collections import deque
from collections.abc import Callable
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple

from messaging.durable import Durable
from messaging.endpoint import Endpoint
from messaging.identity import Signer, Verifier
from messaging.memory import MemoryStore
from messaging.node import Node, Rebuilt
from messaging.poison import Reader, read_frame
from messaging.rebuilding import spoke_epoch_of
from messaging.store import Row
from messaging.topics import Route
from messaging.units import Micros

NEVER_US = Micros(2**62)
REWOUND_MAX = 200


class Point(StrEnum):
    """When a process dies."""

    BEFORE_COMMIT = "before commit"
    AFTER_COMMIT = "after commit"
    AFTER_PUBLISH = "after publish before mark"


class Loss(StrEnum):
    """What a process does not find again in its store (F6)."""

    NOTHING = "nothing"
    LAST_COMMIT = "last commit"  # the disk said it was there
    BACKUP = "backup"  # all since its last start: somebody has put a copy back
    AMNESIA = "amnesia"  # all of it; a spoke's chain is still there
    SUPERVISOR = "supervisor"  # nothing, but it does not die: a second one starts beside it (F5)


class Death(NamedTuple):
    """How a process dies.

    Attributes:
        point: when in its round. down_us: for how long.
        again: how often it dies while it recovers.
        truncated: what the broker had for it is gone, but for what comes over the broker alone.
        rewound: how many records that it has committed come again.
        loss: what is gone from its store.
        rotated: when it starts again, it finds a new key.
    """

    point: Point
    down_us: int
    again: int = 0
    truncated: bool = False
    rewound: int = 0
    loss: Loss = Loss.NOTHING
    rotated: bool = False


class Parcel(NamedTuple):
    """Bytes on their way to the reader of a route."""

    at_us: Micros
    route: Route
    data: bytes


class Process:
    """One node, its store, and what the broker has for it.

    Attributes:
        durable: the node as it is, also while the process is down: what its store gives.
        up: whether it runs.
        arrived: what the broker has for it and it has not committed.
        history: the newest of what it has committed.
        kept: all of it that comes over the broker alone, which the broker still has.
        ready_us: until then it does nothing. woken_us: when it is looked after next.
        number: of the processes of its node, from 0. birth: how often it has died.
        nonce: of a life that has not begun yet; empty if it has.
        backup: its store as it was at its last start.
        restored: it goes on from an older store or none, and nobody has agreed to that yet.
        rebuilt: that is so because it has lost all (P61).
        ended: it may not go on.
        outlived: reads what no loss takes; None if there is nothing.
    """

    def __init__(
        self,
        make: Callable[[], Endpoint],
        signer: Signer,
        verifier: Verifier,
        *,
        batch: int,
        snapshot_events: int,
        read: Reader = read_frame,
        new_key: Callable[[int], Signer] | None = None,
        outlives: Callable[[Node], bytes] | None = None,
    ) -> None:
        """Put a node into it.

        `batch` is the most events of one commit; `read` is how it reads frames; `new_key` makes
        the node's keys 2, 3, ...; `outlives` returns what the node's chain keeps of it.
        """
        self.outlived = outlives
        self._make = make
        self._signer = signer
        self._snapshot_events = snapshot_events
        self._read = read
        self._new_key = new_key
        self._later: list[Signer] = []
        self._configured = self.verifier = verifier
        self.batch = batch
        self.store = MemoryStore()
        self.arrived: deque[Parcel] = deque()
        self.history: deque[Parcel] = deque(maxlen=REWOUND_MAX)
        self.kept: list[Parcel] = []
        self.up = True
        self.ready_us = 0
        self.woken_us = NEVER_US
        self.published = 0
        self.number = self.birth = 0
        self.nonce = b""
        self.backup = self.store.copy()
        self.restored = self.rebuilt = False
        self.ended = False
        self.durable = self.fold()
        self.name = self.durable.endpoint.name

    def done_with(self, count: int) -> None:
        """Note that the first records of what the broker has are committed."""
        for _ in range(count):
            parcel = self.arrived.popleft()
            self.history.append(parcel)
            if parcel.route.ordered:
                self.kept.append(parcel)

    def go_back_to(self, store: MemoryStore) -> None:
        """Find an older store, and in front of it what the broker has kept since."""
        self.store, self.restored, self.rebuilt = store, True, False
        self.arrived.extendleft(reversed(self.kept))
        self.kept.clear()
        self.history.clear()

    @property
    def has_chain(self) -> bool:
        """Tell whether there is a chain, and the store says what is on it.

        A chain does not go back with a store that is put back, and others may have heard of it.
        """
        return self.outlived is not None and (self.rebuilt or not self.restored)

    def rebuild(self, now_us: Micros) -> None:
        """Lose the store; begin a new one with what of the last commit has outlived it (P61)."""
        assert self.outlived is not None, "only a spoke has a chain"
        last = self.fold()
        event = Rebuilt(
            spoke_epoch=spoke_epoch_of(last.endpoint.lives.node_epoch) + 1,
            contract=self.outlived(last.endpoint.node),
            streams=last.streams,
        )
        self.store, self.restored, self.rebuilt = MemoryStore(), True, True
        self.history.clear()
        fresh = self.fold()
        fresh.rebuild(max(now_us, last.at_us), event)
        fresh.commit({}, 0)

    def conceive(self) -> None:
        """Let a life of its own begin with the next round (P95)."""
        life = f"{self.name}/{self.number}/{self.birth}"
        self.nonce = blake2b(life.encode(), digest_size=8).digest()
        self.backup = self.store.copy()

    def twin(self, number: int) -> "Process":
        """Return one more process of the same node, with a store that says the same."""
        other = Process(
            self._make,
            self._signer,
            self._configured,
            batch=self.batch,
            snapshot_events=self._snapshot_events,
            read=self._read,
            new_key=self._new_key,
            outlives=self.outlived,
        )
        other._later = self._later  # the files are the same
        other.number = number
        other.store, other.restored = self.store.copy(), True
        other.arrived, other.kept = self.arrived.copy(), self.kept.copy()
        other.up = False
        other.durable = other.fold()
        other.published = other.store.published
        return other

    def add_key(self) -> None:
        """Put a new key beside those there are."""
        assert self._new_key is not None
        self._later.append(self._new_key(len(self._later) + 2))

    def commit(self) -> list[Row]:
        """Commit what has been handled, and keep a snapshot if it is time; return the records."""
        durable = self.durable
        rows = durable.commit({}, self.published)
        if durable.place - durable.snapshot_place >= self._snapshot_events:
            durable.snapshot("")
        return rows

    def fold(self) -> Durable:
        """Return the node as a new process finds it."""
        durable = Durable(
            self._make(),
            self.store,
            self._signer,
            later=self._later,
            read=self._read,
        )
        self.verifier = self._configured.knowing(durable.later_keys())
        return durable
