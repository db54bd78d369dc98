"""The receiving end of a channel: order, drop repeats, park what comes behind a gap.

Rules of docs/protocol.md: P16 (replay protection is the cursor), P19 and P20 (lives of a node), P21
(versions of a channel), P26 (sequence rule), P58 (gaps), P61 (a rebuilt peer), P67 (keys), P69 and
P70 (poison, and its end).
"""

from collections.abc import Collection, Iterator

from messaging.channel import FIRST_LIFE, RESENT_MAX, ChannelPolicy, Life
from messaging.envelope import Envelope
from messaging.lineage import NOWHERE, Lineage, Place
from messaging.link_control import KeyRotated
from messaging.messages import ChainReorganised
from messaging.node import Poisoned
from messaging.rebuilding import ChannelRebuilt
from messaging.rotation import Keys
from messaging.units import Micros

PARKED_MAX = 1_024  # frames a receiver keeps behind a gap
POISON_MAX = 16  # frames it keeps that it cannot decode


class Inbox:
    """The receiving end: the cursor, and what waits behind a gap.

    Attributes:
        chan_epoch, next_seq: the cursor.
        lineage: versions of the frames up to it.
        parked: frames of the cursor's version behind a gap, by number.
        newer: frames of later versions, which it cannot go to yet.
        poison: authentic frames that cannot be decoded; the row stops there (P69).
        keys: of the other end, by the frames that they sign.
        chan_epoch_max: the latest version that anything has come of, or that was agreed on.
        life: of the other end, the newest that has been accepted.
        waits: nothing is handed on until `go_on`; what comes is parked.
        acked_seq: the cursor that the other end has been told.
        arrived_us: when the oldest unacknowledged frame arrived.
        fenced: frames of an earlier life than the accepted one, which it does not know of.
        early: frames of a life that has not been accepted.
        dead: frames of an earlier version, none of which has an effect any more (INV13).
    """

    __slots__ = (
        "_dropped",
        "_ends",
        "_lives",
        "_newer_us",
        "_parked_us",
        "acked_seq",
        "arrived_us",
        "chan_epoch",
        "chan_epoch_max",
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
        "poison",
        "repeats",
        "waits",
    )

    def __init__(self) -> None:
        self.parked_max = PARKED_MAX
        self.chan_epoch = self.chan_epoch_max = 1
        self.next_seq = 1
        self.lineage = Lineage()
        self.parked: dict[int, Envelope] = {}
        self.newer: dict[Place, Envelope] = {}
        self.poison: dict[Place, Poisoned] = {}
        self.acked_seq = 0
        self.arrived_us = Micros(0)
        self.repeats = 0
        self.fenced = 0
        self.early = 0
        self.dead = 0
        self.keys = Keys()
        self.life = FIRST_LIFE
        self._lives: list[Life] = []  # accepted, each with what it knows of those before it
        self._ends: dict[int, Place] = {}  # lives that a later one does not come from
        self.waits = False
        self._parked_us: dict[int, Micros] = {}  # when each began to wait, or was asked for last
        self._newer_us = Micros(0)  # the same, of the oldest in `newer`
        self._dropped = NOWHERE  # newest frame that has come and is not kept

    @property
    def cursor(self) -> Place:
        """Return the place of the last frame that arrived with none missing."""
        return Place(self.chan_epoch, self.next_seq - 1)

    @property
    def seen(self) -> Place:
        """Return the place of the newest frame that has arrived, whether or not it is kept."""
        newest = Place(self.chan_epoch, max(self.parked, default=self.next_seq - 1))
        return max((newest, self._dropped, *self.newer, *self.poison))

    def receive(self, envelope: Envelope, now_us: Micros) -> list[Envelope]:
        """Return the frames that are now in order, oldest first; none for a repeat or a gap."""
        if not self.believes(envelope):
            if envelope.node_epoch > self.life.node_epoch:
                self.early += 1
            else:
                self.fenced += 1
            return []
        if self.poison and Place(envelope.chan_epoch, envelope.seq) in self.poison:
            self.repeats += 1  # whether or not it can be decoded now: that is for people
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
        self._drop_waiting()

    def _of_another_version(self, envelope: Envelope, now_us: Micros) -> list[Envelope]:
        """Let no earlier version have an effect (INV13); go to a later one if that can be."""
        place = Place(envelope.chan_epoch, envelope.seq)
        if place < self.cursor:
            if self.lineage.epoch_of(place.seq) == place.chan_epoch and place.seq < self.next_seq:
                self._repeated(place.seq, now_us)
            else:
                self.dead += 1
            return []
        self.chan_epoch_max = max(self.chan_epoch_max, place.chan_epoch)
        if place in self.newer:
            self.repeats += 1
            return []
        ready = not self.waits and self._begins(envelope)
        if not ready and not self._has_room:
            self._dropped = max(self._dropped, place)
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
    def has_waiting(self) -> bool:
        """Tell whether anything is kept behind a gap."""
        return bool(self.parked or self.newer or self.poison)

    @property
    def _has_room(self) -> bool:
        return len(self.parked) + len(self.newer) < self.parked_max

    def _begins(self, envelope: Envelope) -> bool:
        """Tell whether a frame begins a version that the cursor may go to: no frame misses."""
        message, before = envelope.message, envelope.seq - 1
        return (
            (type(message) is ChainReorganised or type(message) is ChannelRebuilt)
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
        return place <= self.cursor or waits or place in self.newer or place in self.poison

    def keep_poison(self, event: Poisoned, now_us: Micros) -> bool:
        """Keep a frame that cannot be decoded, and stop there; tell whether it is news (P69)."""
        place = Place(event.chan_epoch, event.seq)
        known = place <= self.cursor or place in self.poison or place in self.newer
        if known or not self.believes(event) or len(self.poison) >= POISON_MAX:
            return False
        self.poison[place] = event
        if place.chan_epoch == self.chan_epoch:
            self.parked.pop(place.seq, None)
            self._parked_us[place.seq] = now_us
        return True

    def forget(self, seq: int) -> Envelope | Poisoned | None:
        """Forget what waits under a number, so that it must come again; return it (P70)."""
        place = next((one for one in self.poison if one.seq == seq), None)
        if place is None and seq not in self.parked:
            return None
        self._dropped = max(self._dropped, place or Place(self.chan_epoch, seq))
        if place is None or place.chan_epoch == self.chan_epoch:
            self._parked_us.pop(seq, None)
        return self.parked.pop(seq) if place is None else self.poison.pop(place)

    def pass_over(self, now_us: Micros) -> list[Envelope]:
        """Go on behind the next number without it; return the frames that are now in order."""
        self.forget(self.next_seq)
        if self.acked_seq == self.next_seq - 1:
            self.arrived_us = now_us
        self.next_seq += 1
        return list(self._ready(now_us))

    def _park(self, envelope: Envelope, now_us: Micros) -> None:
        """Keep a frame until those before it come; without room, the nearest ones."""
        if not self._has_room:
            farthest = max(self.parked, default=0)
            self._dropped = max(self._dropped, Place(self.chan_epoch, max(farthest, envelope.seq)))
            if envelope.seq > farthest:
                return
            del self.parked[farthest], self._parked_us[farthest]
        self.parked[envelope.seq] = envelope
        self._parked_us[envelope.seq] = now_us

    def believes(self, envelope: Envelope | Poisoned) -> bool:
        """Tell whether a frame counts: of the accepted life, or known to it (P19, P20)."""
        epoch, newest = envelope.node_epoch, self.life.node_epoch
        if epoch >= newest:
            return epoch == newest
        place = Place(envelope.chan_epoch, envelope.seq)
        known = all(place <= life.head for life in self._lives if life.node_epoch > epoch)
        return known and place <= self._ends.get(epoch, place)

    def between(self, since_epoch: int, node_epoch: int) -> list[Life]:
        """Return accepted lives with numbers between two; the later does not come from them."""
        return [life for life in self._lives if since_epoch < life.node_epoch < node_epoch]

    def knows_another(self, node_epoch: int, nonce: bytes) -> bool:
        """Tell whether another life with this number has been accepted.

        Whoever was rebuilt has been told which life of the other end is accepted, not its nonce.
        """
        lives = (*self._lives, self.life)
        return any(
            life.node_epoch == node_epoch and life.nonce not in (b"", nonce) for life in lives
        )

    def end(self, lives: Collection[Life]) -> None:
        """Drop for ever what lives have put beyond what they found, for none comes from them.

        What they do not know of, but a later one does, counts again.
        """
        self._ends.update((life.node_epoch, life.head) for life in lives)
        self._lives = [life for life in self._lives if life not in lives]

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
        self.poison = {place: event for place, event in self.poison.items() if place > start}
        self._parked_us = dict.fromkeys(self._waiting(start.chan_epoch), self._newer_us)
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

    def begin_anew(self, life: Life) -> int:
        """Take what waits of a life of the other end that was lost as never said (P61).

        Return the version that it goes on in: none that anybody may have signed a frame of.
        """
        self.chan_epoch_max += 1
        self.dead += len(self.parked) + len(self.newer)
        self._drop_waiting()
        self.follow(life)
        return self.chan_epoch_max

    def _drop_waiting(self) -> None:
        self.parked.clear()
        self._parked_us.clear()
        self.newer.clear()
        self.poison.clear()
        self._dropped = NOWHERE

    def go_to(self, base: Place, life: Life) -> None:
        """Set the cursor to a frame, for what there was is lost."""
        self.begin_anew(life)
        self.chan_epoch, self.next_seq, self.acked_seq = base.chan_epoch, base.seq + 1, base.seq
        self.chan_epoch_max = base.chan_epoch
        self.lineage.pass_through(base)

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
        for seq in self._waiting(self.chan_epoch):
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

    def _waiting(self, chan_epoch: int) -> list[int]:
        """Return the numbers of a version that have come and are not in order."""
        poison = [place.seq for place in self.poison if place.chan_epoch == chan_epoch]
        return sorted((*self.parked, *poison))

    def owes_ack(self, now_us: Micros, policy: ChannelPolicy) -> bool:
        """Tell whether arrivals have waited long enough for a bare acknowledgement."""
        return (
            self.acked_seq < self.next_seq - 1 and now_us >= self.arrived_us + policy.ack_after_us
        )
