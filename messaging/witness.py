"""What a peer has said in its channel, remembered: does a frame contradict it (P26, P64)?

All frames here are authentic, whether applied, parked or repeated. So two that cannot both stand
in one channel are the peer's own doing, in whatever order they come.
"""

from messaging.codec import decode_frame
from messaging.envelope import Envelope
from messaging.errors import FrameRefused
from messaging.identity import Link, Verifier
from messaging.lineage import NOWHERE, Place
from messaging.messages import ChainReorganised
from messaging.node import Contradicted
from messaging.rebuilding import ChannelRebuilt
from messaging.rotation import FIRST_KEY, Keys

REMEMBERED_MAX = 2_048  # frames of a channel: all that can be parked, and as many behind them


class Witness:
    """The newest frames of one channel, by their place in it."""

    __slots__ = ("_after", "_key", "_seen")

    def __init__(self) -> None:
        self._key = FIRST_KEY  # in force behind the newest of them
        # Plain values, for every snapshot has them: digest before, own digest, whose digest
        # that before is, place in the journal.
        self._seen: dict[int, tuple[bytes, bytes, int, int]] = {}
        self._after: dict[int, tuple[int, ...]] = {}  # frames that follow each, one a version

    def contradicts(self, frame: Envelope, link: Link) -> int | None:
        """Return the journal's place of a frame that cannot stand with this one, if there is one.

        That is another frame of the same place, or a neighbour that links to another one.
        """
        seen, key = self._seen, _key(frame.chan_epoch, frame.seq)
        same = seen.get(key)
        if same is not None:
            return None if same[1] == link.digest else same[3]
        before = seen.get(_key(*follows(frame)))
        if before is not None and before[1] != link.before:
            return before[3]
        for after in self._after.get(key, ()):
            if seen[after][0] != link.digest:
                return seen[after][3]
        return None

    def under(self, keys: Keys) -> "Witness":
        """Return what there is without what a key before the newest has signed (P67).

        But for the frame that said so. Whoever has stolen an old key must not convict its owner of
        what it signs.
        """
        if keys.newest == self._key:
            return self
        assert keys.said is not None
        last, other = _key(*keys.said), Witness()
        other._key = keys.newest
        if last in self._seen:
            other._seen = {last: self._seen[last]}
            other._after = {self._seen[last][2]: (last,)}
        return other

    def note(self, frame: Envelope, link: Link, place: int) -> None:
        """Remember a frame that contradicts none."""
        seen, after, key = self._seen, self._after, _key(frame.chan_epoch, frame.seq)
        if key in seen:
            return
        before = _key(*follows(frame))
        seen[key] = (link.before, link.digest, before, place)
        after[before] = (*after.get(before, ()), key)
        if len(seen) > REMEMBERED_MAX:
            oldest = next(iter(seen))
            before = seen.pop(oldest)[2]
            left = tuple(one for one in after.pop(before) if one != oldest)
            if left:
                after[before] = left


def _key(chan_epoch: int, seq: int) -> int:
    return chan_epoch << 64 | seq


def place_of(frame: Envelope) -> Place:
    """Return where a frame stands in its channel."""
    return Place(frame.chan_epoch, frame.seq)


def follows(frame: Envelope) -> Place:
    """Return the place of the frame that this one links to (P21); no place if to none (P61)."""
    message, epoch = frame.message, frame.chan_epoch
    if type(message) is ChannelRebuilt:
        return NOWHERE
    if type(message) is ChainReorganised:
        epoch = min(epoch, message.base_epoch)
    return Place(epoch, frame.seq - 1)


def proof(found: Contradicted, verifier: Verifier, keys: Keys | None = None) -> str:
    """Return what two frames prove, from their bytes and public keys alone (P64).

    `keys` are those of the channel if the peer has gone over to a new one there; `verifier` knows
    them as well.

    Raises:
        FrameRefused: they prove nothing: not signed by the peer, or they can both stand.
    """
    one, other = (verifier.open_linked(data, found.peer) for data in (found.first, found.second))
    first, second = decode_frame(one.sealed.frame), decode_frame(other.sealed.frame)
    for opened, frame in ((one, first), (other, second)):
        if opened.link.key != (keys or Keys()).at(place_of(frame)):
            raise FrameRefused(f"expected the key in force at number {frame.seq}, found another")
    channels = [(f.sender, f.receiver, f.family) for f in (first, second)]
    if channels[0] != channels[1]:
        raise FrameRefused(f"expected frames of one channel, found {channels[0]}, {channels[1]}")
    where = "/".join(channels[0])
    if place_of(first) == place_of(second):
        if one.link.digest == other.link.digest:
            raise FrameRefused("expected two frames, found the same frame twice")
        return f"{where}: two frames have number {first.seq}"
    if place_of(second) == follows(first):
        first, second, one, other = second, first, other, one
    if place_of(first) != follows(second):
        raise FrameRefused(f"expected neighbours, found numbers {first.seq} and {second.seq}")
    if other.link.before == one.link.digest:
        raise FrameRefused(f"number {second.seq} follows number {first.seq}, as it should")
    return f"{where}: number {second.seq} follows another number {first.seq} than there was"
