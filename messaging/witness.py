"""What a peer has said in its channel, remembered: does a frame contradict it (P26, P64)?

All frames here are authentic, whether applied, parked or repeated. So two that cannot both stand
in one channel are the peer's own doing, in whatever order they come.
"""

from typing import NamedTuple

from messaging.codec import decode_frame
from messaging.envelope import Envelope
from messaging.errors import FrameRefused
from messaging.identity import Link, Verifier
from messaging.lineage import Place
from messaging.messages import ChainReorganised
from messaging.node import Contradicted

REMEMBERED_MAX = 2_048  # frames of a channel: all that can be parked, and as many behind them


class Seen(NamedTuple):
    """A frame that has been taken in: its link, the frame it follows, where the journal has it."""

    link: Link
    follows: Place
    place: int


class Witness:
    """The newest frames of one channel, by their place in it."""

    __slots__ = ("_after", "_seen")

    def __init__(self) -> None:
        self._seen: dict[Place, Seen] = {}
        self._after: dict[Place, dict[Place, None]] = {}  # which frames follow each, in versions

    def contradicts(self, frame: Envelope, link: Link) -> int | None:
        """Return the journal's place of a frame that cannot stand with this one, if there is one.

        That is another frame of the same place, or a neighbour that links to another one.
        """
        seen, place = self._seen, place_of(frame)
        same = seen.get(place)
        if same is not None:
            return None if same.link.digest == link.digest else same.place
        before = seen.get(follows(frame))
        if before is not None and before.link.digest != link.before:
            return before.place
        for after in self._after.get(place, ()):
            if seen[after].link.before != link.digest:
                return seen[after].place
        return None

    def note(self, frame: Envelope, link: Link, place: int) -> None:
        """Remember a frame that contradicts none."""
        seen, key = self._seen, place_of(frame)
        if key in seen:
            return
        before = follows(frame)
        seen[key] = Seen(link, before, place)
        self._after.setdefault(before, {})[key] = None
        if len(seen) > REMEMBERED_MAX:
            oldest = next(iter(seen))
            before = seen.pop(oldest).follows
            del self._after[before][oldest]
            if not self._after[before]:
                del self._after[before]


def place_of(frame: Envelope) -> Place:
    """Return where a frame stands in its channel."""
    return Place(frame.chan_epoch, frame.seq)


def follows(frame: Envelope) -> Place:
    """Return the place of the frame that this one links to (P21)."""
    message, epoch = frame.message, frame.chan_epoch
    if type(message) is ChainReorganised:
        epoch = min(epoch, message.base_epoch)
    return Place(epoch, frame.seq - 1)


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
    if place_of(first) == place_of(second):
        if one.digest() == other.digest():
            raise FrameRefused("expected two frames, found the same frame twice")
        return f"{where}: two frames have number {first.seq}"
    if place_of(second) == follows(first):
        first, second, one, other = second, first, other, one
    if place_of(first) != follows(second):
        raise FrameRefused(f"expected neighbours, found numbers {first.seq} and {second.seq}")
    if other.before == one.digest():
        raise FrameRefused(f"number {second.seq} follows number {first.seq}, as it should")
    return f"{where}: number {second.seq} follows another number {first.seq} than there was"
