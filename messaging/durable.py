"""The durable node: an endpoint whose every input is on disk before anyone hears of its output.

State is the fold of the journal (P88). What it sends is sealed once, kept until acknowledged,
and sent again as the same bytes (P14). Rules P64 and P87 to P97 of docs/protocol.md.
"""

import heapq
import pickle
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from hashlib import blake2b, sha256
from pathlib import Path
from typing import NamedTuple

import msgspec

from messaging.channel import Inbox
from messaging.codec import encode_event, encode_frame
from messaging.effects import SetTimer
from messaging.endpoint import Endpoint, Output
from messaging.envelope import Envelope
from messaging.errors import FrameRefused, InputLost, InputRefused
from messaging.fingerprint import fingerprint
from messaging.identity import NO_DIGEST, Link, Retired, Signer, read_entry
from messaging.lineage import Place
from messaging.messages import CHANNEL_FAMILIES
from messaging.node import Contradicted, Event, KeyRevoked, Restarted, Rotated, TimerFired
from messaging.rotation import FIRST_KEY
from messaging.store import Entry, Headers, Row, Snapshot, Storage
from messaging.topics import Route, channel_topic, dead_letters, topic_of
from messaging.units import Micros, NodeId
from messaging.witness import Witness, place_of

TIMER, DELIVERY = 0, 1  # what an output came of; in virtual time, timers come first
SNAPSHOT_EVENTS = 25_000  # a second to fold, at most; pickling more often costs a tenth
AT, ORDER, TRACE = "at_us", "order", "traceparent"  # headers of a record
_SUM_BYTES = 16


class Chain:
    """The newest frame of a stream, and digests for the seals of those that may follow.

    That is its own, and of a channel those back to where a reorganisation may begin anew (P21).
    """

    __slots__ = ("_digests", "newest")

    def __init__(self) -> None:
        self.newest = Place(1, 0)
        self._digests: dict[int, bytes] = {}

    def before(self, seq: int) -> bytes:
        """Return the digest that frame `seq` links to."""
        return self._digests[seq - 1] if seq > 1 else NO_DIGEST

    def add(self, place: Place, digest: bytes, firm_seq: int) -> None:
        """Note a frame; none up to `firm_seq` is ever taken back."""
        digests = self._digests
        if place.chan_epoch > self.newest.chan_epoch:
            for seq in [seq for seq in digests if seq >= place.seq]:
                del digests[seq]
        digests[place.seq] = digest
        self.newest = place
        while (oldest := next(iter(digests))) < min(firm_seq, place.seq):
            del digests[oldest]


class _Memory(msgspec.Struct):
    """All that the fold makes."""

    endpoint: Endpoint
    place: int = 0
    at_us: Micros = Micros(0)
    timers: dict[str, tuple[Micros, int]] = msgspec.field(default_factory=dict)
    chains: dict[str, Chain] = msgspec.field(default_factory=dict)
    heard: dict[str, int] = msgspec.field(default_factory=dict)
    witnesses: dict[str, Witness] = msgspec.field(default_factory=dict)
    accused: dict[NodeId, None] = msgspec.field(default_factory=dict)
    revoked: dict[NodeId, None] = msgspec.field(default_factory=dict)
    frames: int = 0  # ever sent, repeats included
    timers_set: int = 0


class Durable:
    """One endpoint, its file and its signature.

    Attributes:
        folded: how many events of the journal were handled again at the start.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        store: Storage,
        signer: Signer,
        *,
        later: Sequence[Signer] = (),
        snapshot_events: int = SNAPSHOT_EVENTS,
    ) -> None:
        """Fold the journal: afterwards the endpoint is where it was.

        `signer` has the node's first key, `later` those that it has got since, the newest last.

        Raises:
            FrameRefused: the journal holds events that this version does not know.
        """
        self._store = store
        self._signers = {FIRST_KEY: signer} | {one.public: one for one in later}
        self._snapshot_events = snapshot_events
        self._due: list[tuple[Micros, int, str]] = []
        self._entries: list[Entry] = []
        self._rows: list[Row] = []
        self._sealed = {(row.topic, row.seq): row.data for row in store.rows() if row.seq}
        self._number = store.last_number
        self._folding = True
        self._code = code_of(type(endpoint.node).__module__, __name__)
        memory = _sound(store.snapshot(), self._code)
        self._memory = memory or _Memory(endpoint)
        if memory is None:
            effects = endpoint.start()
            assert all(type(effect) is SetTimer for effect in effects), "a start only sets timers"
            self._carry(effects, TIMER)
        else:
            self._due = [(at_us, n, name) for name, (at_us, n) in memory.timers.items()]
            heapq.heapify(self._due)
        before = self._snapshot_place = self._memory.place
        for entry in store.entries(before):
            event, link = read_entry(entry.event)
            self._memory.place = entry.place
            self._handle(Micros(entry.at_us), event, link)
        self.folded = self._memory.place - before
        self._folding = False

    @property
    def endpoint(self) -> Endpoint:
        """Return the endpoint as it is now."""
        return self._memory.endpoint

    @property
    def at_us(self) -> Micros:
        """Return the time of the newest event."""
        return self._memory.at_us

    @property
    def place(self) -> int:
        """Return how many events have been handled in all."""
        return self._memory.place

    @property
    def waiting(self) -> int:
        """Return how many events wait for a commit."""
        return len(self._entries)

    def is_repeat(self, route: Route, frame: Envelope) -> bool:
        """Tell whether a frame that comes over Kafka alone, so in order, was handled (P16).

        Raises:
            InputLost: there is a gap before it, and nobody will send again what was there.
        """
        if not route.ordered:
            return False
        expected = self._memory.heard.get(route.topic, 0) + 1
        if frame.seq > expected:
            found = f"{frame.seq}: those between are lost"
            raise InputLost(f"{route.topic}: expected number {expected}, found {found}")
        return frame.seq < expected

    def next_timer(self) -> tuple[Micros, int, str] | None:
        """Return the timer that is due first: when, the how-manieth it was set, its name."""
        due, timers = self._due, self._memory.timers
        while due:
            at_us, number, name = due[0]
            if timers.get(name) == (at_us, number):
                return due[0]
            heapq.heappop(due)  # set again since, or fired
        return None

    def fire(self, now_us: Micros, name: str) -> None:
        """Let a timer fire; it is in the journal with the next commit (P92)."""
        event = TimerFired(name)
        self._journal(now_us, encode_event(event))
        self._handle(now_us, event, None)

    def restart(self, now_us: Micros, nonce: bytes) -> None:
        """Begin a new life of the node; to be done at each start but its very first (P95).

        `nonce` is 8 bytes that no other life has.
        """
        event = Restarted(nonce)
        self._journal(now_us, encode_event(event))
        self._handle(now_us, event, None)

    def rotate(self, now_us: Micros) -> Rotated | None:
        """Go over to the newest key there is, if the state knows another; to be done at a start.

        What each channel hears of it is in the same commit (P67).

        Raises:
            InputRefused: the private key that the state knows is not there.
        """
        newest = next(reversed(self._signers))
        name, outboxes = self.endpoint.name, self.endpoint.outboxes
        known = next((outbox.keys.newest for outbox in outboxes.values()), newest)
        if known not in self._signers:
            raise InputRefused(f"keys of {name}", expected="the one in force", found="others")
        if known == newest:
            return None
        signer = self._signers[newest]
        claims = self.endpoint.claims(signer.domain, signer.public)
        event = Rotated(signer.public, tuple(map(signer.vouch, claims)))
        self._journal(now_us, encode_event(event))
        self._handle(now_us, event, None)
        return event

    def revoke(self, now_us: Micros, peer: NodeId) -> None:
        """Accept nothing more that a spoke signs, under any of its keys; for the hub (P68)."""
        event = KeyRevoked(peer)
        self._journal(now_us, encode_event(event))
        self._handle(now_us, event, None)

    def later_keys(self) -> Iterable[tuple[NodeId, bytes]]:
        """Yield the public keys that peers have gone over to."""
        for (peer, _), inbox in self.endpoint.inboxes.items():
            for public in inbox.later_keys():
                yield peer, public

    def admit(self, frame: Envelope, link: Link) -> None:
        """Refuse an authentic frame under a key that does not count where it stands (P67, P68).

        Raises:
            FrameRefused: another key is in force there, or is not known to be yet.
        """
        endpoint, revoked = self._memory.endpoint, self._memory.revoked
        if link.key == FIRST_KEY and frame.sender not in endpoint.rekeyed and not revoked:
            return  # most frames
        if frame.sender in revoked:
            raise FrameRefused(f"expected a key of {frame.sender} that counts, found it revoked")
        inbox = endpoint.inboxes.get((frame.sender, frame.family))
        if inbox is None:
            expected = FIRST_KEY
        else:
            keys = inbox.keys
            expected = keys.at(place_of(frame)) if frame.seq else keys.newest
        if link.key != expected:
            old = link.key == FIRST_KEY or (inbox is not None and link.key in inbox.keys.later)
            wanted = "no old key" if old else "a key in force"
            raise FrameRefused(f"expected {wanted}, found another at number {frame.seq}")

    def take(self, now_us: Micros, frame: Envelope, data: bytes, link: Link) -> None:
        """Handle an authentic frame, or accuse its sender if it contradicts an earlier one.

        `data` is the frame as it came, sealed. It is in the journal with the next commit.
        """
        witness = self._memory.witnesses.get(topic_of(frame))
        inbox = None if witness is None else self._counting(frame)
        if witness is not None and inbox is not None:
            if frame.sender in self._memory.endpoint.rekeyed:
                witness.turn(inbox.keys)
            place = witness.contradicts(frame, link)
            if place is not None:
                self._accuse(now_us, frame.sender, place, data)
                return
        self._journal(now_us, data)
        self._handle(now_us, frame, link)

    def _accuse(self, now_us: Micros, peer: NodeId, place: int, data: bytes) -> None:
        """Tell the node, once, with both frames: they are evidence (P64)."""
        if peer in self._memory.accused:
            return
        waiting = place - (self._memory.place - len(self._entries)) - 1
        entry = self._entries[waiting] if waiting >= 0 else next(self._store.entries(place - 1))
        event = Contradicted(peer, entry.event, data)
        self._journal(now_us, encode_event(event))
        self._handle(now_us, event, None)

    def refuse(self, data: bytes, headers: Mapping[str, str]) -> None:
        """Put bytes that are no frame for us to the dead letters (P28)."""
        topic = dead_letters(self.endpoint.name)
        pairs = tuple((name, value.encode()) for name, value in headers.items())
        self._put(topic, 0, pairs, data)

    def commit(self, cursors: Mapping[str, int], published: int) -> list[Row]:
        """Write what has happened since the last commit; return what may now be published.

        Raises:
            StoreFailed: it cannot be written; the process must end.
        """
        entries, rows = self._entries, self._rows
        self._entries, self._rows = [], []
        self._store.commit(entries, cursors, rows, published)
        if self._memory.place - self._snapshot_place >= self._snapshot_events:
            self.snapshot("")  # hashing takes longer than a node may stand still
        return rows

    def snapshot(self, found: str) -> None:
        """Write the state, with its hash if that is known, and drop what is acknowledged.

        Raises:
            StoreFailed: it cannot be written.
        """
        assert not self._entries, "a snapshot is of what is committed"
        state = pickle.dumps(self._memory, protocol=5)
        self._store.keep(Snapshot(self._memory.place, found, _sum(self._code, state) + state))
        self._snapshot_place = self._memory.place
        self._forget()

    def fingerprint(self) -> str:
        """Return a hash of all that the fold of the journal has made."""
        return fingerprint(self._memory)

    def _forget(self) -> None:
        """Drop what is published and acknowledged, on disk and in memory."""
        endpoint = self._memory.endpoint
        oldest = {
            channel_topic(endpoint.name, peer, family): next(iter(outbox.unacked), outbox.next_seq)
            for (peer, family), outbox in endpoint.outboxes.items()
        }
        self._store.forget(oldest)
        for key in [key for key in self._sealed if key[1] < oldest[key[0]]]:
            del self._sealed[key]

    def unpublished(self) -> list[Row]:
        """Return the records that nobody may have heard of, oldest first (P90)."""
        return [row for row in self._store.rows() if row.number > self._store.published]

    def _journal(self, now_us: Micros, data: bytes) -> None:
        memory = self._memory
        assert now_us >= memory.at_us, f"expected time to go on from {memory.at_us}, found {now_us}"
        memory.place += 1
        self._entries.append(Entry(memory.place, now_us, data))

    def _handle(self, now_us: Micros, event: Event, link: Link | None) -> None:
        memory = self._memory
        memory.at_us = now_us
        if type(event) is TimerFired:
            if memory.timers.pop(event.name, None) is None:
                raise FrameRefused(f"expected a timer that is set, found {event.name}")
            self._carry(memory.endpoint.handle(now_us, event), TIMER)
            return
        if type(event) is Contradicted:
            memory.accused[event.peer] = None
        elif type(event) is KeyRevoked:
            memory.revoked[event.peer] = None
        elif type(event) is Envelope:
            self._hear(event, link)
        self._carry(memory.endpoint.handle(now_us, event), DELIVERY)

    def _hear(self, frame: Envelope, link: Link | None) -> None:
        """Remember what a stream has said: its last number, or for a channel its links."""
        memory, topic = self._memory, topic_of(frame)
        if frame.family not in CHANNEL_FAMILIES:
            memory.heard[topic] = max(frame.seq, memory.heard.get(topic, 0))
        elif link is not None and (inbox := self._counting(frame)) is not None:
            witness = memory.witnesses.get(topic)
            if witness is None:
                witness = memory.witnesses[topic] = Witness()
            if frame.sender in memory.endpoint.rekeyed:
                witness.turn(inbox.keys)
            witness.note(frame, link, memory.place)

    def _counting(self, frame: Envelope) -> Inbox | None:
        """Return where a frame goes if it is its sender's word: numbered, of the life we follow.

        What an old key has signed may be a thief's: it is no word that anybody is held to.
        """
        endpoint = self._memory.endpoint
        inbox = endpoint.inboxes.get((frame.sender, frame.family))
        if inbox is None or frame.seq == 0 or not inbox.believes(frame):
            return None
        if frame.sender not in endpoint.rekeyed:
            return inbox
        said = inbox.keys.said
        return inbox if said is None or place_of(frame) > said else None

    def _carry(self, effects: Sequence[Output], cause: int) -> None:
        """Set timers, and put frames into the outbox."""
        memory = self._memory
        for effect in effects:
            if type(effect) is Envelope:
                self._send(effect, cause)
            else:
                memory.timers_set += 1
                memory.timers[effect.name] = (effect.at_us, memory.timers_set)
                heapq.heappush(self._due, (effect.at_us, memory.timers_set, effect.name))

    def _send(self, frame: Envelope, cause: int) -> None:
        """Seal a new frame; find the bytes of one that was sent before (P14)."""
        memory, topic, seq = self._memory, topic_of(frame), frame.seq
        memory.frames += 1
        chain = memory.chains.get(topic)
        if chain is None:
            chain = memory.chains[topic] = Chain()
        place = Place(frame.chan_epoch, seq)
        kept = seq if frame.family in CHANNEL_FAMILIES else 0
        if kept and place <= chain.newest:
            if not self._folding:
                self._put(topic, 0, self._headers(cause, frame), self._sealed[topic, seq])
            return
        before = chain.before(seq) if seq else NO_DIGEST
        data = encode_frame(frame)
        signers = [self._signers[FIRST_KEY]]
        if frame.sender in memory.endpoint.rekeyed:
            signers = self._signers_of(frame, place)
        for signer in signers:
            if self._folding:
                digest = signer.digest(data, before)
                continue
            sealed, digest = signer.seal(data, before)
            if kept:
                self._sealed[topic, seq] = sealed  # in place of one that was taken back
            self._put(topic, kept, self._headers(cause, frame), sealed)
        if seq:
            outbox = memory.endpoint.outboxes.get((frame.receiver, frame.family))
            chain.add(place, digest, outbox.firm_seq if outbox is not None else seq)

    def _signers_of(self, frame: Envelope, place: Place) -> list[Signer]:
        """Return what signs a frame of a channel; a fold needs the name of the key alone (P67)."""
        known, outbox = self._signers, self.endpoint.outboxes[frame.receiver, frame.family]
        domain = known[FIRST_KEY].domain
        return [known.get(key) or Retired(domain, key) for key in outbox.keys_at(place)]

    def _headers(self, cause: int, frame: Envelope) -> Headers:
        """Return what travels beside a frame: its place among all frames, and its trace."""
        memory = self._memory
        order = (ORDER, f"{memory.at_us}.{cause}.{memory.frames}".encode())
        trace = trace_of(frame)
        return (order, (TRACE, trace)) if trace else (order,)

    def _put(self, topic: str, seq: int, headers: Headers, data: bytes) -> None:
        self._number += 1
        self._rows.append(Row(self._number, topic, seq, msgspec.msgpack.encode(headers), data))


def trace_of(frame: Envelope) -> bytes:
    """Return the W3C traceparent of a frame about a liquidation, whose id is the trace's."""
    liq_id = getattr(frame.message, "liq_id", None)
    if liq_id is None:
        return b""
    span = sha256(f"{frame.sender}/{frame.family}/{frame.seq}".encode()).hexdigest()[:16]
    return f"00-{liq_id.hex()}-{span}-01".encode()


def _sound(snapshot: Snapshot | None, code: bytes) -> _Memory | None:
    """Return the state in a snapshot, or None if it is damaged or of other code (P88)."""
    if snapshot is None:
        return None
    if _sum(code, snapshot.state[_SUM_BYTES:]) != snapshot.state[:_SUM_BYTES]:
        return None
    try:
        memory = pickle.loads(snapshot.state[_SUM_BYTES:])  # our own file, and its sum is right
    except (pickle.UnpicklingError, AttributeError, ImportError, TypeError, ValueError, EOFError):
        return None  # of another version of what the code stands on; the journal has it all
    if not isinstance(memory, _Memory):
        return None
    if snapshot.fingerprint and fingerprint(memory) != snapshot.fingerprint:
        return None
    return memory


def _sum(code: bytes, data: bytes) -> bytes:
    return blake2b(data, key=code, digest_size=_SUM_BYTES).digest()


@cache
def code_of(*modules: str) -> bytes:
    """Return a digest of the sources of these modules' packages: what a fold depends on."""
    digest = blake2b(digest_size=_SUM_BYTES)
    for package in sorted({module.partition(".")[0] for module in modules}):
        for folder in getattr(sys.modules[package], "__path__", ()):
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(path.read_bytes())
    return digest.digest()


class Order(NamedTuple):
    """Where a frame stands among all that its sender sent.

    Attributes:
        left_us: when it left; a resend's own time, where the frame has the first one's.
        cause: TIMER or DELIVERY.
        number: the how-manieth frame of its sender it is.
    """

    left_us: Micros
    cause: int
    number: int


def read_order(headers: Mapping[str, bytes], frame: Envelope) -> Order:
    """Return what a frame's header says; what is no header of ours, by the frame itself."""
    try:
        left_us, cause, number = map(int, headers[ORDER].split(b"."))
    except (KeyError, ValueError):
        return Order(frame.sent_us, DELIVERY, 0)
    return Order(Micros(left_us), cause, number)
