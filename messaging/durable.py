"""The durable node: an endpoint whose every input is on disk before anyone hears of its output.

State is the fold of the journal (P88). What it sends is sealed once, kept until acknowledged,
and sent again as the same bytes (P14). Rules P64 and P87 to P97 of docs/protocol.md.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from messaging.chain import Chain
from messaging.codec import encode_event, encode_frame
from messaging.effects import SetTimer
from messaging.endpoint import Endpoint, Output
from messaging.envelope import Envelope
from messaging.errors import FrameRefused, InputRefused
from messaging.fingerprint import fingerprint
from messaging.headers import DELIVERY, ORDER, TIMER, TRACE, trace_of
from messaging.heard import Heard
from messaging.identity import NO_DIGEST, Link, Retired, Signer, read_entry, read_sealed
from messaging.inbox import Inbox
from messaging.lineage import Place
from messaging.messages import CHANNEL_FAMILIES
from messaging.node import (
    Contradicted,
    Event,
    Poisoned,
    Rebuilt,
    Restarted,
    Rotated,
    Stream,
    TimerFired,
)
from messaging.operator_orders import OperatorOrdered, PeerNamed, Verb
from messaging.poison import FramePoisoned, Reader, read_frame
from messaging.rebuilding import ChannelRebuilt
from messaging.rotation import FIRST_KEY
from messaging.snapshots import code_of, pack, unpack
from messaging.store import Entry, Headers, Row, Snapshot, Storage
from messaging.topics import Route, channel_topic, dead_letters, topic_of
from messaging.units import Micros, NodeId


class _Memory(msgspec.Struct):
    """All that the fold makes."""

    endpoint: Endpoint
    place: int = 0
    at_us: Micros = Micros(0)
    timers: dict[str, tuple[Micros, int]] = msgspec.field(default_factory=dict)
    chains: dict[str, Chain] = msgspec.field(default_factory=dict)
    heard: Heard = msgspec.field(default_factory=Heard)
    frames: int = 0  # ever sent, repeats included
    timers_set: int = 0


class Durable:
    """One endpoint, its file and its signature.

    Attributes:
        endpoint: as it is now.
        folded: how many events of the journal were handled again at the start.
        snapshot_place: behind which event the newest snapshot is; 0 if there is none.
        read: returns the frame in a seal, or raises why it cannot be taken.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        store: Storage,
        signer: Signer,
        *,
        later: Sequence[Signer] = (),
        read: Reader = read_frame,
    ) -> None:
        """Fold the journal: afterwards the endpoint is where it was.

        `signer` has the node's first key, `later` those that it has got since, the newest last.

        Raises:
            FrameRefused: the journal holds events that this version does not know.
        """
        self.read = read
        self._store = store
        self._signers = {FIRST_KEY: signer} | {one.public: one for one in later}
        self._due: list[tuple[Micros, int, str]] = []
        self._entries: list[Entry] = []
        self._rows: list[Row] = []
        self._sealed = {(row.topic, row.seq): row.data for row in store.rows() if row.seq}
        self._number = store.last_number
        self._folding = True
        self._code = code_of(type(endpoint.node).__module__, __name__)
        snapshot = store.snapshot()
        memory = None if snapshot is None else unpack(snapshot, self._code)
        if isinstance(memory, _Memory):
            self._memory = memory
            self._due = [(at_us, n, name) for name, (at_us, n) in memory.timers.items()]
            heapq.heapify(self._due)
        else:
            self._memory = _Memory(endpoint)
            effects = endpoint.start()
            assert all(type(effect) is SetTimer for effect in effects), "a start only sets timers"
            self._carry(effects, TIMER)
        self.endpoint = self._memory.endpoint
        before = self.snapshot_place = self._memory.place
        for entry in store.entries(before):
            event, link = read_entry(entry.event)
            self._memory.place = entry.place
            self._handle(Micros(entry.at_us), event, link)
        self.folded = self._memory.place - before
        self._folding = False

    @property
    def at_us(self) -> Micros:
        """Return the time of the newest event."""
        return self._memory.at_us

    @property
    def place(self) -> int:
        """Return how many events have been handled in all."""
        return self._memory.place

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Return how far each topic that is no channel has been read."""
        return self._memory.heard.streams

    @property
    def waiting(self) -> int:
        """Return how many events wait for a commit."""
        return len(self._entries)

    def is_repeat(self, route: Route, frame: Envelope) -> bool:
        """Tell whether a frame that comes over Kafka alone, so in order, was handled (P16).

        Raises:
            InputLost: there is a gap before it, and nobody will send again what was there.
        """
        return self._memory.heard.is_repeat(route, frame)

    def next_timer(self) -> tuple[Micros, int, str] | None:
        """Return the timer that is due first: when, the how-manieth it was set, its name."""
        due, timers = self._due, self._memory.timers
        while due:
            first = due[0]
            known = timers.get(first[2])
            if known is not None and known[1] == first[1]:
                return first
            heapq.heappop(due)  # set again since, or fired
        return None

    def is_due(self, now_us: Micros) -> bool:
        """Tell whether a timer is due."""
        timer = self.next_timer()
        return timer is not None and timer[0] <= now_us

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

    def later_keys(self) -> Iterable[tuple[NodeId, bytes]]:
        """Yield the public keys that peers have gone over to."""
        for (peer, _), inbox in self.endpoint.inboxes.items():
            for public in inbox.later_keys():
                yield peer, public

    def admit(self, frame: Envelope | Poisoned, link: Link) -> None:
        """Refuse an authentic frame under a key that does not count where it stands (P67, P68).

        Raises:
            FrameRefused: another key is in force there, or is not known to be yet.
        """
        endpoint, heard = self._memory.endpoint, self._memory.heard
        sender = frame.sender if type(frame) is Envelope else frame.peer
        if link.key == FIRST_KEY and sender not in endpoint.rekeyed and not heard.revoked:
            return  # most frames
        heard.admit(frame, link, endpoint.inboxes.get((sender, frame.family)))

    def rebuild(self, now_us: Micros, event: Rebuilt) -> None:
        """Begin the journal of a node whose memory is lost; no life begins with it (P61)."""
        assert not self.place, "expected an empty journal"
        self._journal(now_us, encode_event(event))
        self._handle(now_us, event, None)

    def take(self, now_us: Micros, frame: Envelope, data: bytes, link: Link) -> None:
        """Handle an authentic frame, or accuse its sender if it contradicts an earlier one.

        `data` is the frame as it came, sealed. It is in the journal with the next commit.
        """
        place = self._memory.heard.contradicts(frame, link, self._inbox_of(frame))
        if place is not None:
            self._accuse(now_us, frame.sender, place, data)
            return
        self._journal(now_us, data)
        self._handle(now_us, frame, link)
        if type(frame.message) is OperatorOrdered and self.endpoint.again is not None:
            self._take_again(now_us, self.endpoint.again)

    def poison(self, now_us: Micros, event: Poisoned, link: Link) -> None:
        """Keep an authentic frame that cannot be read; its channel stops there (P69)."""
        try:
            self.admit(event, link)
        except FrameRefused:
            return  # under a key that does not count there
        self._keep_poison(now_us, event)

    def _keep_poison(self, now_us: Micros, event: Poisoned) -> None:
        inbox = self.endpoint.inboxes.get((event.peer, event.family))
        if inbox is None or Place(event.chan_epoch, event.seq) in inbox.poison:
            return
        self._journal(now_us, encode_event(event))
        self._handle(now_us, event, None)

    def _take_again(self, now_us: Micros, kept: Poisoned) -> None:
        """Receive a kept frame once more, as what this version makes of it (P70).

        What comes of it is an event of its own, so a fold by a later version does the same.
        """
        route = Route(
            channel_topic(kept.peer, self.endpoint.name, kept.family),
            kept.peer,
            self.endpoint.name,
            kept.family,
            True,
        )
        sealed = read_sealed(kept.data)
        try:
            frame = self.read(sealed, kept.data, route)
        except FramePoisoned as poison:
            self._keep_poison(now_us, poison.event)
        else:
            self.take(now_us, frame, kept.data, sealed.link())

    def _accuse(self, now_us: Micros, peer: NodeId, place: int, data: bytes) -> None:
        """Tell the node, once, with both frames: they are evidence (P64)."""
        if peer in self._memory.heard.accused:
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
        return rows

    def snapshot(self, found: str) -> None:
        """Write the state, with its hash if that is known, and drop what is acknowledged.

        Raises:
            StoreFailed: it cannot be written.
        """
        self.keep(Snapshot(self._memory.place, found, self.packed()))
        self.forget()

    def packed(self) -> bytes:
        """Return the state as bytes, for a snapshot."""
        assert not self._entries, "a snapshot is of what is committed"
        return pack(self._memory, self._code)

    def keep(self, snapshot: Snapshot) -> None:
        """Write a snapshot of the state as it is, or was since the last one.

        Raises:
            StoreFailed: it cannot be written.
        """
        self._store.keep(snapshot)
        self.snapshot_place = snapshot.place

    def fingerprint(self) -> str:
        """Return a hash of all that the fold of the journal has made."""
        return fingerprint(self._memory)

    def forget(self) -> None:
        """Drop what is published and acknowledged, on disk and in memory.

        Raises:
            StoreFailed: it cannot be written.
        """
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
        if type(event) is Rebuilt:
            memory.timers.clear()  # set for a beginning that was long ago
            memory.heard.go_on_from(event.streams)
        elif type(event) is Contradicted:
            memory.heard.accused[event.peer] = None
        elif type(event) is Envelope:
            memory.heard.note(event, link, self._inbox_of(event), memory.place)
        self._carry(memory.endpoint.handle(now_us, event), DELIVERY)
        if type(event) is Envelope and type(event.message) is OperatorOrdered:
            order = memory.endpoint.done
            if order is not None and type(order.target) is PeerNamed:
                if order.verb is Verb.REVOKE:
                    memory.heard.revoked[order.target.peer] = None
                else:
                    memory.heard.trust_again(memory.endpoint.name, order.target.peer)

    def _inbox_of(self, frame: Envelope) -> Inbox | None:
        return self._memory.endpoint.inboxes.get((frame.sender, frame.family))

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
        linked = seq and type(frame.message) is not ChannelRebuilt
        before = chain.before(seq) if linked else NO_DIGEST
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
