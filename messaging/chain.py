"""The row of seals that a node makes: what the next one links to (P12)."""

from messaging.identity import NO_DIGEST
from messaging.lineage import Place


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
