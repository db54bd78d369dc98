"""What a peer has said in its channel, remembered: does a frame contradict it (P26, P64)?

All frames here are authentic, whether applied, parked or repeated. So two that cannot both stand
in one channel are the peer's own doing, in whatever order they come.
"""

from messaging.codec import decode_frame
from messaging.envelope import Envelope
from messaging.errors import FrameRefused
from messaging.identity import Link, Verifier
from messaging.node import Contradicted

REMEMBERED_MAX = 2_048  # frames of a channel: all that can be parked, and as many behind them


class Witness:
    """The newest frames of one channel, by number: digest before, own digest, journal's place."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[int, tuple[bytes, bytes, int]] = {}  # plain, for every snapshot has it

    def contradicts(self, frame: Envelope, link: Link) -> int | None:
        """Return the journal's place of a frame that cannot stand with this one, if there is one.

        That is another frame of the same number, or a neighbour that links to another one.
        """
        seen, seq = self._seen, frame.seq
        same = seen.get(seq)
        if same is not None:
            return None if same[1] == link.digest else same[2]
        before, after = seen.get(seq - 1), seen.get(seq + 1)
        if before is not None and before[1] != link.before:
            return before[2]
        if after is not None and after[0] != link.digest:
            return after[2]
        return None

    def note(self, frame: Envelope, link: Link, place: int) -> None:
        """Remember a frame that contradicts none."""
        seen = self._seen
        if frame.seq in seen:
            return
        seen[frame.seq] = (link.before, link.digest, place)
        if len(seen) > REMEMBERED_MAX:
            del seen[next(iter(seen))]


def proof(found: Contradicted, verifier: Verifier) -> str:
    """Return what two frames prove, from their bytes and public keys alone (P64).

    Raises:
        FrameRefused: they prove nothing: not signed by the peer, or they can both stand.
    """
    one, other = (verifier.open(data, found.peer) for data in (found.first, found.second))
    first, second = decode_frame(one.frame), decode_frame(other.frame)
    channels = [(f.sender, f.receiver, f.family) for f in (first, second)]
    if channels[0] != channels[1]:
        raise FrameRefused(f"expected frames of one channel, found {channels[0]}, {channels[1]}")
    where = "/".join(channels[0])
    if first.seq == second.seq:
        if one.digest() == other.digest():
            raise FrameRefused("expected two frames, found the same frame twice")
        return f"{where}: two frames have number {first.seq}"
    if first.seq > second.seq:
        first, second, one, other = second, first, other, one
    if second.seq != first.seq + 1:
        raise FrameRefused(f"expected neighbours, found numbers {first.seq} and {second.seq}")
    if other.before == one.digest():
        raise FrameRefused(f"number {second.seq} follows number {first.seq}, as it should")
    return f"{where}: number {second.seq} follows another number {first.seq} than there was"
