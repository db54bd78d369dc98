"""Both ends of a gap-free channel: number, keep until acknowledged; order, drop repeats, park gaps.

Rules of docs/protocol.md: P5 (a channel), P14 (a resend is the stored frame), P16 (replay
protection is the cursor), P18 (acknowledgements only steer), P26 (sequence rule), P58 (resends).
"""

import msgspec

from messaging.envelope import Envelope
from messaging.units import Micros

PARKED_MAX = 1_024  # frames a receiver keeps behind a gap
RESENT_MAX = 100  # frames sent again at a time
RESEND_GROWTH = 1.5
RESEND_GROWTH_MAX = 16.0


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
    """The sending end: frames not yet acknowledged, oldest first."""

    __slots__ = ("_growth", "_progress_us", "next_seq", "resent_max", "unacked")

    def __init__(self) -> None:
        self.resent_max = RESENT_MAX
        self.next_seq = 1
        self.unacked: dict[int, Envelope] = {}
        self._progress_us = Micros(0)
        self._growth = 1.0

    def keep(self, envelope: Envelope, now_us: Micros) -> None:
        """Store a frame that is about to leave; it has number `next_seq`."""
        if not self.unacked:
            self._progress_us = now_us
        self.unacked[envelope.seq] = envelope
        self.next_seq += 1

    def acknowledge(self, ack_seq: int, now_us: Micros) -> None:
        """Forget all frames up to `ack_seq`. An old acknowledgement does nothing."""
        unacked = self.unacked
        if not unacked:
            return
        oldest = next(iter(unacked))
        if oldest > ack_seq:
            return
        for seq in range(oldest, min(ack_seq, self.next_seq - 1) + 1):
            del unacked[seq]
        self._progress_us = now_us
        self._growth = 1.0

    def asked(self, first_seq: int, last_seq: int) -> list[Envelope]:
        """Return the stored frames of a range, at most `resent_max`."""
        last_seq = min(last_seq, first_seq + self.resent_max - 1)
        return [self.unacked[seq] for seq in range(first_seq, last_seq + 1) if seq in self.unacked]

    def overdue(self, now_us: Micros, policy: ChannelPolicy) -> list[Envelope]:
        """Return frames to send again unasked, if nothing was acknowledged for too long."""
        if not self.unacked or now_us < self._progress_us + policy.resend_after_us * self._growth:
            return []
        self._progress_us = now_us
        self._growth = min(self._growth * RESEND_GROWTH, RESEND_GROWTH_MAX)
        return [self.unacked[seq] for seq in sorted(self.unacked)[: self.resent_max]]


class Inbox:
    """The receiving end: the cursor, and what waits behind a gap."""

    __slots__ = (
        "_parked_us",
        "acked_seq",
        "arrived_us",
        "next_seq",
        "parked",
        "parked_max",
        "repeats",
    )

    def __init__(self) -> None:
        self.parked_max = PARKED_MAX
        self.next_seq = 1
        self.parked: dict[int, Envelope] = {}
        self.acked_seq = 0  # the cursor that the other end has been told
        self.arrived_us = Micros(0)  # when the oldest unacknowledged frame arrived
        self.repeats = 0
        self._parked_us: dict[int, Micros] = {}  # when each began to wait, or was asked for last

    def receive(self, envelope: Envelope, now_us: Micros) -> list[Envelope]:
        """Return the frames that are now in order, oldest first; none for a repeat or a gap."""
        seq = envelope.seq
        if seq != self.next_seq:
            if seq < self.next_seq:
                # The other end has not heard that it arrived, so it is owed the word again.
                self.repeats += 1
                if self.acked_seq == self.next_seq - 1:
                    self.arrived_us = now_us
                self.acked_seq = min(self.acked_seq, seq - 1)
            elif seq in self.parked:
                self.repeats += 1
            elif len(self.parked) < self.parked_max:
                self.parked[seq] = envelope
                self._parked_us[seq] = now_us
            return []
        if self.acked_seq == seq - 1:
            self.arrived_us = now_us
        self.next_seq = seq + 1
        if not self.parked:
            return [envelope]
        ready = [envelope]
        while self.next_seq in self.parked:
            ready.append(self.parked.pop(self.next_seq))
            del self._parked_us[self.next_seq]
            self.next_seq += 1
        return ready

    def missing(self, now_us: Micros, policy: ChannelPolicy) -> list[tuple[int, int]]:
        """Return the gaps that are old enough to ask for, each as (first, last) seq.

        All of them at once, each by its own age: one at a time would fall behind for ever where
        losses come faster than round trips.
        """
        gaps: list[tuple[int, int]] = []
        expected = self.next_seq
        for seq in sorted(self.parked):
            old = now_us >= self._parked_us[seq] + policy.gap_after_us
            if seq > expected and old and len(gaps) < RESENT_MAX:
                self._parked_us[seq] = now_us  # ask again only after as long again
                gaps.append((expected, seq - 1))
            expected = seq + 1
        return gaps

    def owes_ack(self, now_us: Micros, policy: ChannelPolicy) -> bool:
        """Tell whether arrivals have waited long enough for a bare acknowledgement."""
        return (
            self.acked_seq < self.next_seq - 1 and now_us >= self.arrived_us + policy.ack_after_us
        )
