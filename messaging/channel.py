"""Both ends of a gap-free channel: number, keep until acknowledged; order, drop repeats, park gaps.

Rules of docs/protocol.md: P5 (a channel), P14 (a resend is the stored frame), P16 (replay
protection is the cursor), P18 (acknowledgements only steer), P19 and P20 (lives of a node), P21
(versions of a channel), P26 (sequence rule), P58 (resends), P67 (keys).
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from messaging.envelope import Envelope
from messaging.lineage import Lineage, Place
from messaging.link_control import KeyRotated
from messaging.messages import ChainReorganised
from messaging.rotation import Keys
from messaging.units import Height, Micros

PARKED_MAX = 1_024  # frames a receiver keeps behind a gap
RESENT_MAX = 100  # frames sent again at a time
RESEND_GROWTH = 1.5
RESEND_GROWTH_MAX = 16.0


class Life(NamedTuple):
    """One life of the other end, and the last frame that it knows its earlier lives to have put."""

    node_epoch: int
    nonce: bytes
    head: Place


FIRST_LIFE = Life(1, b"", Place(1, 0))


class ChannelPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How patient the two ends are.

    Attributes:
        tend_us: how often a node looks after its channels while there is something to do.
        ack_after_us: age of an unacknowledged arrival before a bare acknowledgement is sent.
        gap_after_us: age of a gap before its frames are asked for.
        resend_after_us: silence after which unacknowledged frames are sent again.
    """

    tend_us: Micros
    ack_after_us: Micros
    gap_after_us: Micros
    resend_after_us: Micros


class Outbox:
    """The sending end: frames not yet acknowledged, oldest first.

    Attributes:
        chan_epoch: version of the channel that new frames belong to.
        held_from: frames from this number on may not leave yet; 0 if all may (P19).
        keys: ours, by the frames that they sign.
        lineage: versions of the frames that stand.
    """

    __slots__ = (
        "_growth",
        "_left",
        "_progress_us",
        "_soft",
        "acked",
        "chan_epoch",
        "held_from",
        "keys",
        "lineage",
        "next_seq",
        "resent_max",
        "unacked",
    )

    def __init__(self) -> None:
        self.resent_max = RESENT_MAX
        self.chan_epoch = 1
        self.next_seq = 1
        self.held_from = 0
        self.unacked: dict[int, Envelope] = {}
        self.acked = Place(1, 0)
        self.lineage = Lineage()
        self.keys = Keys()
        self._progress_us = Micros(0)
        self._growth = 1.0
        self._left = Place(1, 0)  # head when frames began to be held
        self._soft: deque[tuple[int, Height]] = deque()  # frames of blocks that are not final

    @property
    def head(self) -> Place:
        """Return the place of the newest frame that may have left."""
        return self._left if self.held_from else Place(self.chan_epoch, self.next_seq - 1)

    @property
    def firm_seq(self) -> int:
        """Return the newest frame that no reorganisation takes back."""
        return (self._soft[0][0] if self._soft else self.next_seq) - 1

    def keep(self, envelope: Envelope, now_us: Micros) -> bool:
        """Store a frame, which has number `next_seq`; tell whether it may leave."""
        if not self.unacked:
            self._progress_us = now_us
        self.unacked[envelope.seq] = envelope
        self.next_seq += 1
        if envelope.height > envelope.final_height:
            self._soft.append((envelope.seq, envelope.height))
        while self._soft and self._soft[0][1] <= envelope.final_height:
            self._soft.popleft()
        return not self.held_from

    def fork(self, fork_height: Height) -> int:
        """Take back the frames of blocks above a height, and go on in a new version (P21).

        Return the version of the frame that the next one will link to. What is final stays.
        """
        soft = self._soft
        first = next((seq for seq, height in soft if height > fork_height), self.next_seq)
        while soft and soft[-1][0] >= first:
            soft.pop()
        for seq in [seq for seq in self.unacked if seq >= first]:
            del self.unacked[seq]
        base_epoch = self.lineage.epoch_of(first - 1)
        self.chan_epoch += 1
        self.lineage.fork(Place(self.chan_epoch, first))
        self.next_seq = first
        if self.held_from:
            self.held_from = min(self.held_from, first)
        return base_epoch

    def rotate(self, public: bytes) -> None:
        """Let a new key sign all behind the newest frame, which says so (P67).

        A leaked key must not come back, so no reorganisation takes back a number up to here.
        """
        self.keys.rotate(Place(self.chan_epoch, self.next_seq - 1), public)
        self._soft.clear()

    def keys_at(self, place: Place) -> list[bytes]:
        """Return our key for a frame; outside the row, each that may be in force at the other end.

        One alone would not do: with new keys on both sides, and both acknowledgements lost, each
        would refuse to hear that its own key is known.
        """
        if place.seq == 0:
            return self.keys.between(self.acked, self.head)
        return [self.keys.at(place)]

    def hold(self) -> None:
        """Let no new frame leave until `let_go`; those already stored are sent again as ever."""
        if not self.held_from:
            self._left = self.head
            self.held_from = self.next_seq

    def let_go(self, now_us: Micros, node_epoch: int) -> list[Envelope]:
        """Return the frames that were held, to leave now as frames of this life."""
        first, self.held_from = self.held_from, 0
        self._progress_us = now_us
        for seq in range(first, self.next_seq):
            self.unacked[seq] = replace(self.unacked[seq], node_epoch=node_epoch)
        return [self.unacked[seq] for seq in range(first, self.next_seq)]

    def acknowledge(self, ack: Place, now_us: Micros) -> None:
        """Forget all frames up to `ack`. An old acknowledgement does nothing.

        One of an earlier version counts up to where that was left.
        """
        if ack <= self.acked or ack > self.head:
            return
        self.acked = ack
        unacked = self.unacked
        last_seq = self.lineage.common_seq(ack)
        for seq in range(next(iter(unacked), self.next_seq), last_seq + 1):
            del unacked[seq]
        self._progress_us = now_us
        self._growth = 1.0

    def asked(self, first_seq: int, last_seq: int) -> list[Envelope]:
        """Return the stored frames of a range, at most `resent_max`; from 0, the oldest."""
        first_seq = first_seq or next(iter(self.unacked), self.next_seq)
        last_seq = min(last_seq, first_seq + self.resent_max - 1)
        wanted = range(first_seq, last_seq + 1)
        return [self.unacked[seq] for seq in wanted if seq in self.unacked and self._may_leave(seq)]

    def overdue(self, now_us: Micros, policy: ChannelPolicy) -> list[Envelope]:
        """Return frames to send again unasked, if nothing was acknowledged for too long."""
        if not self.unacked or now_us < self._progress_us + policy.resend_after_us * self._growth:
            return []
        self._progress_us = now_us
        self._growth = min(self._growth * RESEND_GROWTH, RESEND_GROWTH_MAX)
        oldest = sorted(self.unacked)[: self.resent_max]
        return [self.unacked[seq] for seq in oldest if self._may_leave(seq)]

    def _may_leave(self, seq: int) -> bool:
        return not self.held_from or seq < self.held_from


class Inbox:
    """The receiving end: the cursor, and what waits behind a gap.

    Attributes:
        chan_epoch, next_seq: the cursor.
        lineage: versions of the frames up to it.
        parked: frames of the cursor's version behind a gap, by number.
        newer: frames of later versions, which it cannot go to yet.
        keys: of the other end, by the frames that they sign.
        life: of the other end, the newest that has been accepted.
        waits: nothing is handed on until `go_on`; what comes is parked.
        acked_seq: the cursor that the other end has been told.
        arrived_us: when the oldest unacknowledged frame arrived.
        fenced: frames of an earlier life than the accepted one, which it does not know of.
        early: frames of a life that has not been accepted.
        dead: frames of an earlier version, none of which has an effect any more (INV13).
    """

    __slots__ = (
        "_lives",
        "_newer_us",
        "_parked_us",
        "acked_seq",
        "arrived_us",
        "chan_epoch",
        "dead",
        "early",
        "fenced",
        "keys",
        "life",
        "lineage",
        "newer",
        "next_seq",
        "parked",
        "parked_max",
        "repeats",
        "waits",
    )

    def __init__(self) -> None:
        self.parked_max = PARKED_MAX
        self.chan_epoch = 1
        self.next_seq = 1
        self.lineage = Lineage()
        self.parked: dict[int, Envelope] = {}
        self.newer: dict[Place, Envelope] = {}
        self.acked_seq = 0
        self.arrived_us = Micros(0)
        self.repeats = 0
        self.fenced = 0
        self.early = 0
        self.dead = 0
        self.keys = Keys()
        self.life = FIRST_LIFE
        self._lives: list[Life] = []  # accepted, each with what it knows of those before it
        self.waits = False
        self._parked_us: dict[int, Micros] = {}  # when each began to wait, or was asked for last
        self._newer_us = Micros(0)  # the same, of the oldest in `newer`

    @property
    def cursor(self) -> Place:
        """Return the place of the last frame that arrived with none missing."""
        return Place(self.chan_epoch, self.next_seq - 1)

    @property
    def seen(self) -> Place:
        """Return the place of the newest frame that has arrived."""
        if self.newer:
            return max(self.newer)
        return Place(self.chan_epoch, max(self.parked, default=self.next_seq - 1))

    def receive(self, envelope: Envelope, now_us: Micros) -> list[Envelope]:
        """Return the frames that are now in order, oldest first; none for a repeat or a gap."""
        if not self.believes(envelope):
            if envelope.node_epoch > self.life.node_epoch:
                self.early += 1
            else:
                self.fenced += 1
            return []
        if envelope.chan_epoch != self.chan_epoch:
            return self._of_another_version(envelope, now_us)
        seq = envelope.seq
        if seq != self.next_seq or self.waits:
            if seq < self.next_seq:
                self._repeated(seq, now_us)
            elif seq in self.parked:
                self.repeats += 1
            else:
                self._park(envelope, now_us)
            return []
        if self.acked_seq == seq - 1:
            self.arrived_us = now_us
        self.next_seq = seq + 1
        if type(envelope.message) is KeyRotated:
            self._rotate(envelope.message)
        if not self.parked and not self.newer:
            return [envelope]
        return [envelope, *self._ready(now_us)]

    def _rotate(self, word: KeyRotated) -> None:
        """Let a new key sign all behind the cursor (P67).

        What waits is behind it and under the key before, which was right when it came.
        """
        self.keys.rotate(self.cursor, word.public_key)
        self.parked.clear()
        self._parked_us.clear()
        self.newer.clear()

    def _of_another_version(self, envelope: Envelope, now_us: Micros) -> list[Envelope]:
        """Let no earlier version have an effect (INV13); go to a later one if that can be."""
        place = Place(envelope.chan_epoch, envelope.seq)
        if place < self.cursor:
            if self.lineage.epoch_of(place.seq) == place.chan_epoch and place.seq < self.next_seq:
                self._repeated(place.seq, now_us)
            else:
                self.dead += 1
            return []
        if place in self.newer:
            self.repeats += 1
            return []
        ready = not self.waits and self._begins(envelope)
        if not ready and not self._has_room:
            return []
        if not self.newer:
            self._newer_us = now_us
        self.newer[place] = envelope
        return list(self._ready(now_us)) if ready else []

    def _repeated(self, seq: int, now_us: Micros) -> None:
        """Owe the word again: the other end has not heard that this frame arrived."""
        self.repeats += 1
        if self.acked_seq == self.next_seq - 1:
            self.arrived_us = now_us
        self.acked_seq = min(self.acked_seq, seq - 1)

    @property
    def _has_room(self) -> bool:
        return len(self.parked) + len(self.newer) < self.parked_max

    def _begins(self, envelope: Envelope) -> bool:
        """Tell whether a frame begins a version that the cursor may go to: no frame misses."""
        message, before = envelope.message, envelope.seq - 1
        return (
            type(message) is ChainReorganised
            and before < self.next_seq
            and self.lineage.epoch_of(before) == message.base_epoch
        )

    def later_keys(self) -> list[bytes]:
        """Return the public keys that have come into force, or will once a gap is filled."""
        waiting = (frame.message for frame in (*self.parked.values(), *self.newer.values()))
        return [
            *self.keys.later,
            *(word.public_key for word in waiting if type(word) is KeyRotated),
        ]

    def has(self, envelope: Envelope) -> bool:
        """Tell whether a frame has arrived, has been taken back, or waits."""
        place = Place(envelope.chan_epoch, envelope.seq)
        waits = place.chan_epoch == self.chan_epoch and place.seq in self.parked
        return place <= self.cursor or waits or place in self.newer

    def _park(self, envelope: Envelope, now_us: Micros) -> None:
        """Keep a frame until those before it come; without room, the nearest ones."""
        if not self._has_room:
            farthest = max(self.parked, default=0)
            if envelope.seq > farthest:
                return
            del self.parked[farthest], self._parked_us[farthest]
        self.parked[envelope.seq] = envelope
        self._parked_us[envelope.seq] = now_us

    def believes(self, envelope: Envelope) -> bool:
        """Tell whether a frame counts: of the accepted life, or known to it (P19, P20)."""
        epoch, newest = envelope.node_epoch, self.life.node_epoch
        if epoch >= newest:
            return epoch == newest
        place = Place(envelope.chan_epoch, envelope.seq)
        return all(place <= life.head for life in self._lives if life.node_epoch > epoch)

    def follow(self, life: Life) -> None:
        """Accept a life; what any accepted one does not know of stays dropped for ever (P20)."""
        self.life = life
        # One that knows no more than a later one drops nothing that the later one does not.
        self._lives = [one for one in self._lives if one.head < life.head] + [life]

    def _ready(self, now_us: Micros) -> Iterator[Envelope]:
        """Take out what waits and is in order now; the latest version there is goes first."""
        while True:
            begun = [place for place, frame in self.newer.items() if self._begins(frame)]
            if begun:
                yield self._go_to(max(begun), now_us)
            elif self.next_seq in self.parked:
                del self._parked_us[self.next_seq]
                self.next_seq += 1
                frame = self.parked.pop(self.next_seq - 1)
                if type(frame.message) is KeyRotated:
                    self._rotate(frame.message)
                yield frame
            else:
                return

    def _go_to(self, start: Place, now_us: Micros) -> Envelope:
        """Set the cursor to the first frame of a later version; what waited for another is dead."""
        first = self.newer.pop(start)
        self.dead += len(self.parked) + sum(place < start for place in self.newer)
        self.parked = {
            place.seq: frame
            for place, frame in self.newer.items()
            if place.chan_epoch == start.chan_epoch
        }
        self._parked_us = dict.fromkeys(self.parked, self._newer_us)
        self.newer = {
            place: frame
            for place, frame in self.newer.items()
            if place.chan_epoch > start.chan_epoch
        }
        self.lineage.fork(start)
        self.chan_epoch, self.next_seq = start.chan_epoch, start.seq + 1
        self.acked_seq = min(self.acked_seq, start.seq - 1)
        self.arrived_us = now_us
        return first

    def go_on(self, now_us: Micros) -> list[Envelope]:
        """Hand frames on again; return those that have come in order meanwhile."""
        self.waits = False
        if self.acked_seq == self.next_seq - 1:
            self.arrived_us = now_us
        return list(self._ready(now_us))

    def missing(self, now_us: Micros, policy: ChannelPolicy) -> list[tuple[int, int]]:
        """Return the gaps that are old enough to ask for, each as (first, last) seq.

        All of them at once, each by its own age: one at a time would fall behind for ever where
        losses come faster than round trips. Where a later version began, only the other end
        knows, so of what misses below it the oldest is asked for.
        """
        gaps: list[tuple[int, int]] = []
        expected = self.next_seq
        for seq in sorted(self.parked):
            old = now_us >= self._parked_us[seq] + policy.gap_after_us
            if seq > expected and old and len(gaps) < RESENT_MAX:
                self._parked_us[seq] = now_us  # ask again only after as long again
                gaps.append((expected, seq - 1))
            expected = seq + 1
        if self.newer and not self.waits and now_us >= self._newer_us + policy.gap_after_us:
            self._newer_us = now_us
            newest = max(self.newer).chan_epoch
            last = min(seq for epoch, seq in self.newer if epoch == newest) - 1
            gaps.append((0, last))
        return gaps

    def owes_ack(self, now_us: Micros, policy: ChannelPolicy) -> bool:
        """Tell whether arrivals have waited long enough for a bare acknowledgement."""
        return (
            self.acked_seq < self.next_seq - 1 and now_us >= self.arrived_us + policy.ack_after_us
        )
