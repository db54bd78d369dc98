"""One channel's row of frames, as its sender writes it: each number once, none left out (W1)."""

from hashlib import sha256

from messaging.codec import encode_frame
from messaging.envelope import Envelope

REMEMBERED_MAX = 4_096  # frames of which a repeat is compared with the first
PARKED_MAX = 1_024


class Row:
    """The cursor of one channel.

    Attributes:
        next_seq: number of the next frame; 0 if any will do, for some before it are lost.
        whole: whether every frame from the first on has been seen.
        repeats: frames seen again.
    """

    __slots__ = ("_digests", "_parked", "next_seq", "repeats", "whole")

    def __init__(self) -> None:
        self.next_seq = 1
        self.whole = True
        self.repeats = 0
        self._digests: dict[int, bytes] = {}
        self._parked: dict[int, Envelope] = {}

    @property
    def begun(self) -> bool:
        """Tell whether any frame has been seen."""
        return bool(self._digests)

    def cut(self) -> None:
        """Go on behind a part of the topic that is gone."""
        self.whole = False
        self.next_seq = 0
        self._parked.clear()

    def take(self, frame: Envelope) -> tuple[list[Envelope], bool]:
        """Return the frames that are now in order, and whether a twin of this one was there."""
        seq, digest = frame.seq, sha256(encode_frame(frame)).digest()[:16]
        known = self._digests.setdefault(seq, digest)
        if len(self._digests) > REMEMBERED_MAX:
            del self._digests[next(iter(self._digests))]
        if known != digest:
            return [], True
        if self.next_seq == 0:
            self.next_seq = seq
        if seq != self.next_seq:
            if seq < self.next_seq or seq in self._parked:
                self.repeats += 1
            elif len(self._parked) < PARKED_MAX:
                self._parked[seq] = frame
            return [], False
        ready = [frame]
        self.next_seq += 1
        while self.next_seq in self._parked:
            ready.append(self._parked.pop(self.next_seq))
            self.next_seq += 1
        return ready, False
