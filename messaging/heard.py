"""What a node has heard of whom: numbers of streams, links of channels, and who counts no more.

Part of the fold of a durable node. Rules of docs/protocol.md: P16 (repeats), P64 (evidence), P66
(resuming), P67 and P68 (keys).
"""

from messaging.envelope import Envelope
from messaging.errors import FrameRefused, InputLost
from messaging.identity import Link
from messaging.inbox import Inbox
from messaging.lineage import Place
from messaging.messages import CHANNEL_FAMILIES
from messaging.node import Poisoned, Stream
from messaging.rotation import FIRST_KEY
from messaging.topics import Route, channel_topic, topic_of
from messaging.units import NodeId
from messaging.witness import Witness, place_of


class Heard:
    """All that has come in, as far as what comes next is judged by it.

    Attributes:
        accused: peers that have contradicted themselves, and that the node knows of.
        revoked: peers of which no key counts.
    """

    def __init__(self) -> None:
        self.accused: dict[NodeId, None] = {}
        self.revoked: dict[NodeId, None] = {}
        self._numbers: dict[str, int] = {}
        self._witnesses: dict[str, Witness] = {}

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Return how far each topic that is no channel has been read."""
        return tuple(Stream(topic, seq) for topic, seq in sorted(self._numbers.items()))

    def go_on_from(self, streams: tuple[Stream, ...]) -> None:
        """Take streams as read so far."""
        self._numbers.update((one.topic, one.seq) for one in streams)

    def is_repeat(self, route: Route, frame: Envelope) -> bool:
        """Tell whether a frame that comes over Kafka alone, so in order, was handled (P16).

        Raises:
            InputLost: there is a gap before it, and nobody will send again what was there.
        """
        if not route.ordered:
            return False
        expected = self._numbers.get(route.topic, 0) + 1
        if frame.seq > expected:
            found = f"{frame.seq}: those between are lost"
            raise InputLost(f"{route.topic}: expected number {expected}, found {found}")
        return frame.seq < expected

    def admit(self, frame: Envelope | Poisoned, link: Link, inbox: Inbox | None) -> None:
        """Refuse an authentic frame under a key that does not count where it stands (P67, P68).

        Raises:
            FrameRefused: another key is in force there, or is not known to be yet.
        """
        sender = frame.sender if type(frame) is Envelope else frame.peer
        if sender in self.revoked:
            raise FrameRefused(f"expected a key of {sender} that counts, found it revoked")
        if inbox is None:
            expected = FIRST_KEY
        else:
            place = Place(frame.chan_epoch, frame.seq)
            expected = inbox.keys.at(place) if frame.seq else inbox.keys.newest
        if link.key != expected:
            old = link.key == FIRST_KEY or (inbox is not None and link.key in inbox.keys.later)
            wanted = "no old key" if old else "a key in force"
            raise FrameRefused(f"expected {wanted}, found another at number {frame.seq}")

    def contradicts(self, frame: Envelope, link: Link, inbox: Inbox | None) -> int | None:
        """Return the journal's place of a frame that cannot stand with this one, if there is one.

        `inbox` is where the frame goes.
        """
        witness = self._witnesses.get(topic_of(frame))
        if witness is None or not _binds(inbox, frame):
            return None
        assert inbox is not None
        # No fold asks this, so nothing of it may be kept.
        return witness.under(inbox.keys).contradicts(frame, link)

    def note(self, frame: Envelope, link: Link | None, inbox: Inbox | None, place: int) -> None:
        """Remember what a stream has said: its last number, or for a channel its links.

        `place` is the frame's in the journal.
        """
        topic = topic_of(frame)
        if frame.family not in CHANNEL_FAMILIES:
            self._numbers[topic] = max(frame.seq, self._numbers.get(topic, 0))
        elif link is not None and _binds(inbox, frame):
            assert inbox is not None
            witness = self._witnesses.get(topic) or Witness()
            self._witnesses[topic] = witness = witness.under(inbox.keys)
            witness.note(frame, link, place)

    def trust_again(self, name: NodeId, peer: NodeId) -> None:
        """Forget what a peer of `name` has contradicted itself in, and go on from here (P66)."""
        self.accused.pop(peer, None)
        for family in CHANNEL_FAMILIES:
            self._witnesses.pop(channel_topic(peer, name, family), None)


def _binds(inbox: Inbox | None, frame: Envelope) -> bool:
    """Tell whether a frame is its sender's word: numbered, of the life we follow.

    What an old key has signed may be a thief's: it is no word that anybody is held to.
    """
    if inbox is None or frame.seq == 0 or not inbox.believes(frame):
        return False
    said = inbox.keys.said
    return said is None or place_of(frame) > said
