"""The sending end of a channel: number frames, and keep them until they are acknowledged.

Rules of docs/protocol.md: P14 (a resend is the stored frame), P18 (acknowledgements only steer),
P19 (lives of a node), P21 (versions of a channel), P58 (resends), P61 (a rebuilt peer), P67 (keys).
"""

from collections import deque

from msgspec.structs import replace

from messaging.channel import RESENT_MAX, ChannelPolicy
from messaging.envelope import Envelope
from messaging.lineage import Lineage, Place
from messaging.rotation import Keys
from messaging.units import Height, Micros

RESEND_GROWTH = 1.5
RESEND_GROWTH_MAX = 16.0


class Outbox:
    """The sending end: frames not yet acknowledged, oldest first.

    Attributes:
        chan_epoch: version of the channel that new frames belong to.
        held_from: frames from this number on may not leave yet; 0 if all may (P19).
        keys: ours, by the frames that they sign.
        lineage: versions of the frames that stand.
        taken_back: frames that the receiver was not told again when it was rebuilt last (P61).
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
        "taken_back",
        "unacked",
    )

    def __init__(self) -> None:
        self.resent_max = RESENT_MAX
        self.taken_back = 0
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

    def begin_anew(self) -> Place:
        """Take back all that is not acknowledged, for the other end was rebuilt (P61).

        Return the place of the frame that the first one of the new version follows.
        """
        base = self.head
        self.go_to(base, self.chan_epoch + 1)
        return base

    def go_to(self, base: Place, chan_epoch: int) -> None:
        """Go on behind a frame in a new version."""
        self.taken_back = len(self.unacked)
        self.unacked.clear()
        self._soft.clear()
        self._growth = 1.0
        self.chan_epoch, self.next_seq = chan_epoch, base.seq + 1
        self.lineage.pass_through(base)
        self.lineage.fork(Place(chan_epoch, self.next_seq))
        if self.held_from:
            self._left, self.held_from = base, self.next_seq

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
