"""The lives of a node and of its peers: who may go on with a channel, and from where.

Rules of docs/protocol.md: P19 (lives), P24 and P61 (a rebuilt spoke), P60 (lost state). Frames are
made elsewhere: what is to be said, and what follows from it, is returned.
"""

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from msgspec.structs import replace

from messaging.channel import Life
from messaging.envelope import Envelope
from messaging.inbox import Inbox
from messaging.lineage import NOWHERE, Place
from messaging.link_control import RebuildAccepted, ResyncAnswer, ResyncAsked, ResyncTold
from messaging.messages import Family
from messaging.node import Rejoined
from messaging.outbox import Outbox
from messaging.rebuilding import last_life_before, spoke_epoch_of
from messaging.units import NodeId

ChannelKey: TypeAlias = tuple[NodeId, Family]


class Step(NamedTuple):
    """What follows from a frame about lives, in this order.

    Attributes:
        answer: to be said to the other end, outside the row.
        rejoined: to be seen by the node: the channel begins anew.
        synced: the other end knows nothing of the channel that we do not.
    """

    answer: ResyncTold | RebuildAccepted | None = None
    rejoined: Rejoined | None = None
    synced: bool = False


class Lives:
    """Which life of a node this is, and which channels have accepted it.

    Attributes:
        node_epoch: which of the node's lives this is.
        unsynced: channels whose other end has not yet said that our state is whole (P19).
        lost: those of them of which we know nothing, for this node was rebuilt (P61).
        readmitted: peers that may come back in an epoch that they were rebuilt in (P24).
        stopped: why the node may not go on, if so; it answers nothing any more.
    """

    def __init__(self) -> None:
        self.node_epoch = 1
        self.unsynced: dict[ChannelKey, None] = {}
        self.lost: dict[ChannelKey, None] = {}
        self.readmitted: dict[tuple[NodeId, int], None] = {}
        self.stopped = ""
        self._nonce = b""
        self._newest: dict[ChannelKey, tuple[int, bytes]] = {}  # life that each has accepted
        self._since: dict[ChannelKey, tuple[int, bytes]] = {}  # the same, before this life
        self._accepted: dict[ChannelKey, RebuildAccepted] = {}

    def begin(self, nonce: bytes, keys: Iterable[ChannelKey]) -> None:
        """Begin a new life, of which no channel has heard."""
        self.node_epoch += 1
        self._nonce = nonce
        self._since = dict(self._newest)
        self.unsynced = dict.fromkeys(keys)

    def begin_rebuilt(self, spoke_epoch: int, keys: Iterable[ChannelKey]) -> None:
        """Stand before the first life of an epoch, with nothing known of any channel."""
        self.node_epoch = last_life_before(spoke_epoch)
        self.lost = dict.fromkeys(keys)

    def readmit(self, peer: NodeId, spoke_epoch: int) -> None:
        """Let a rebuilt peer come back in an epoch, for people have said that it may (P24)."""
        self.readmitted[peer, spoke_epoch] = None

    @property
    def is_known_by_question(self) -> bool:
        """Tell whether the other ends follow this life because it has asked them to."""
        return self._nonce != b""

    def question(self, key: ChannelKey, outbox: Outbox) -> ResyncAsked:
        """Return what the other end of a channel is asked about this life."""
        head = NOWHERE if key in self.lost else outbox.head
        since_epoch, since_nonce = self._since.get(key, (1, bytes(8)))
        return ResyncAsked(
            nonce=self._nonce,
            head_epoch=head.chan_epoch,
            head_seq=head.seq,
            since_epoch=since_epoch,
            since_nonce=since_nonce,
        )

    def asked(
        self, event: Envelope, asked: ResyncAsked, key: ChannelKey, inbox: Inbox, outbox: Outbox
    ) -> Step:
        """Judge a new life of the other end."""
        if key in self.lost:
            return Step()  # it cannot say of anybody's state that it is whole
        if not asked.head_epoch:
            return self._take_back(event.node_epoch, asked.nonce, key, inbox, outbox)
        return _told(asked.nonce, examine(event, asked, inbox, outbox))

    def told(self, told: ResyncTold, key: ChannelKey) -> Step:
        """Go on with a channel whose other end accepts this life, or stop for good."""
        if told.nonce != self._nonce or key not in self.unsynced:
            return Step()
        if told.answer is ResyncAnswer.ACCEPTED:
            return Step(synced=True)
        self.stopped = f"{key[0]} says of {key[1]}: {told.answer}"
        return Step()

    def _take_back(
        self, node_epoch: int, nonce: bytes, key: ChannelKey, inbox: Inbox, outbox: Outbox
    ) -> Step:
        """Readmit a rebuilt peer to this channel, if people have said that it may (P24, P61).

        It is told the same places until something of its epoch has been heard; then who does not
        know them has lost what it was told. Whether our own state is whole it says once it has
        come back, as ever.
        """
        life, spoke_epoch = inbox.life, spoke_epoch_of(node_epoch)
        if _is_another(inbox, node_epoch, nonce):
            return _told(nonce, ResyncAnswer.FENCED)
        if spoke_epoch == spoke_epoch_of(life.node_epoch):
            known = self._accepted[key]
            news = inbox.seen > Place(known.heard_epoch, known.heard_seq)
            if news or outbox.acked > Place(known.said_epoch, known.said_seq):
                return _told(nonce, ResyncAnswer.STATE_LOST)
            inbox.follow(Life(node_epoch, nonce, life.head))
            head_epoch, head_seq = outbox.head
            self._accepted[key] = replace(
                known, nonce=nonce, head_epoch=head_epoch, head_seq=head_seq
            )
            return Step(self._accepted[key])
        if (key[0], spoke_epoch) not in self.readmitted:
            return Step()  # it asks again
        heard, said = inbox.cursor, outbox.begin_anew()
        accepted = self._accepted[key] = RebuildAccepted(
            nonce=nonce,
            heard_epoch=heard.chan_epoch,
            heard_seq=heard.seq,
            chan_epoch=inbox.begin_anew(Life(node_epoch, nonce, heard)),
            said_epoch=said.chan_epoch,
            said_seq=said.seq,
            head_epoch=said.chan_epoch,
            head_seq=said.seq,
        )
        rejoined = Rejoined(*key, spoke_epoch, *said, heard.seq)
        return Step(accepted, rejoined)

    def come_back(
        self, event: Envelope, told: RebuildAccepted, key: ChannelKey, inbox: Inbox, outbox: Outbox
    ) -> Step:
        """Go on with a channel from what its other end knows of it (P61)."""
        if told.nonce != self._nonce or key not in self.lost:
            return Step()
        life = Life(event.node_epoch, b"", Place(told.head_epoch, told.head_seq))
        heard = Place(told.heard_epoch, told.heard_seq)
        said = Place(told.said_epoch, told.said_seq)
        outbox.go_to(heard, told.chan_epoch)
        inbox.go_to(said, life)
        del self.lost[key]
        rejoined = Rejoined(*key, spoke_epoch_of(self.node_epoch), *heard, said.seq)
        return Step(rejoined=rejoined, synced=True)

    def go_on(self, key: ChannelKey, keys: Iterable[ChannelKey]) -> list[ChannelKey]:
        """Note that a channel has accepted this life; return those of `keys` that are handed on.

        Reservations wait for all channels: what one spoke holds, and what an account has lost
        anywhere, must be known before another gets anything.
        """
        del self.unsynced[key]
        self._newest[key] = self.node_epoch, self._nonce
        ready = [] if key[1] is Family.RESERVATION else [key]
        if not self.unsynced:
            ready += [one for one in keys if one[1] is Family.RESERVATION]
        return ready


def examine(event: Envelope, asked: ResyncAsked, inbox: Inbox, outbox: Outbox) -> ResyncAnswer:
    """Accept a new life of the other end unless it is not the newest, or has lost state (P60).

    One that has lost state is not accepted, so a copy of it that has not may go on.
    """
    epoch = event.node_epoch
    head = Place(asked.head_epoch, asked.head_seq)
    others = inbox.between(asked.since_epoch, epoch)
    common = min([head, *(other.head for other in others)])
    if inbox.seen > common or Place(event.ack_epoch, event.ack_seq) < outbox.acked:
        return ResyncAnswer.STATE_LOST
    since_another = inbox.knows_another(asked.since_epoch, asked.since_nonce)
    if since_another or _is_another(inbox, epoch, asked.nonce):
        return ResyncAnswer.FENCED
    inbox.end(others)
    inbox.follow(Life(epoch, asked.nonce, head))
    return ResyncAnswer.ACCEPTED


def _told(nonce: bytes, answer: ResyncAnswer) -> Step:
    return Step(ResyncTold(nonce=nonce, answer=answer))


def _is_another(inbox: Inbox, node_epoch: int, nonce: bytes) -> bool:
    """Tell whether a life is not the newest that was accepted, nor a later one (P60)."""
    return node_epoch < inbox.life.node_epoch or inbox.knows_another(node_epoch, nonce)
