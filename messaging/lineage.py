"""Versions of a channel: a reorganisation takes frames back and goes on in a new one (P21)."""

from typing import NamedTuple

FORKS_MAX = 256  # remembered; all below the oldest was final long ago


class Place(NamedTuple):
    """Where a frame stands in its channel: later versions are behind all of earlier ones."""

    chan_epoch: int
    seq: int


NOWHERE = Place(0, 0)  # of what knows no place; versions count from 1


class Lineage:
    """Which version each frame of a channel belongs to, by number, as the channel stands now.

    Versions that were taken back whole are not in it.
    """

    __slots__ = ("_starts",)

    def __init__(self) -> None:
        self._starts = [Place(1, 0)]  # each version's first number; both rise

    def epoch_of(self, seq: int) -> int:
        """Return the version of frame `seq`."""
        for chan_epoch, first_seq in reversed(self._starts):
            if first_seq <= seq:
                return chan_epoch
        return self._starts[0].chan_epoch

    def fork(self, start: Place) -> None:
        """Begin a version: from its first number on, nothing earlier stands."""
        starts = self._starts
        while starts and starts[-1].seq >= start.seq:
            starts.pop()
        starts.append(start)
        if len(starts) > FORKS_MAX:
            del starts[0]

    def pass_through(self, place: Place) -> None:
        """Know of a frame that it stands, whatever was known before."""
        if self.epoch_of(place.seq) != place.chan_epoch:
            self.fork(place)

    def common_seq(self, place: Place) -> int:
        """Return the last number up to which a row that ends at `place` is this one."""
        later = [seq for chan_epoch, seq in self._starts if chan_epoch > place.chan_epoch]
        return min(place.seq, later[0] - 1) if later else place.seq
