"""A node behind its channels: what a driver runs.

In go frames as the network brings them, out come frames and timers. The node inside sees each
message of a channel once and in order, whatever the network does.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from messaging.channel import ChannelPolicy, Inbox, Life, Outbox
from messaging.effects import Effect, Forked, Send, SetTimer
from messaging.envelope import NO_HEIGHT, Envelope
from messaging.lineage import Place
from messaging.link_control import (
    Acknowledged,
    KeyRotated,
    ResendRequested,
    ResyncAnswer,
    ResyncAsked,
    ResyncTold,
)
from messaging.messages import CHANNEL_FAMILIES, ChainReorganised, Family, Message
from messaging.node import Event, Node, Restarted, Rotated, TimerFired
from messaging.rotation import claim
from messaging.units import Micros, NodeId

Output: TypeAlias = Envelope | SetTimer
Observer: TypeAlias = Callable[[Micros, Event, Sequence[Effect]], None]

TEND = "channel"  # the endpoint's own timer; nodes name theirs otherwise

_ChannelKey: TypeAlias = tuple[NodeId, Family]


class Endpoint:
    """One node and both ends of each of its channels.

    Attributes:
        observers: called after each event that the node has handled, with its wishes.
        node_epoch: which of the node's lives this is.
        rekeyed: nodes that have gone over to another key on some channel, this one included.
        unsynced: channels whose other end has not yet said that our state is whole (P19).
        stopped: why the node may not go on, if so; it answers nothing any more.
    """

    def __init__(self, node: Node, peers: Mapping[NodeId, ChannelPolicy]) -> None:
        """Put `node` behind channels to each of `peers`, all three families each."""
        self.name = node.name
        self.node = node
        self._decide = node.handle
        self._policies = peers
        keys = [(peer, family) for peer in peers for family in CHANNEL_FAMILIES]
        self.inboxes: dict[_ChannelKey, Inbox] = {key: Inbox() for key in keys}
        self.outboxes: dict[_ChannelKey, Outbox] = {key: Outbox() for key in keys}
        self._counts: dict[_ChannelKey, int] = {}  # frames sent outside channels
        self._tend_us = min((policy.tend_us for policy in peers.values()), default=0)
        self._tending = False
        self.node_epoch = 1
        self._nonce = b""
        self._asked_us = Micros(0)
        self.rekeyed: dict[NodeId, None] = {}
        self.unsynced: dict[_ChannelKey, None] = {}
        self.stopped = ""
        self.observers: list[Observer] = []

    def __getstate__(self) -> dict[str, object]:
        """Leave out who watches: they are no part of the state."""
        return self.__dict__ | {"observers": []}

    def start(self) -> list[Output]:
        """Return the node's wishes before its first event."""
        return self._wrap(Micros(0), self.node.start())

    def handle(self, now_us: Micros, event: Event) -> list[Output]:
        """Take an event; return the frames and timers that follow from it."""
        if self.stopped:
            return []
        if self.inboxes:
            if type(event) is Envelope:
                key = (event.sender, event.family)
                inbox = self.inboxes.get(key)
                if inbox is not None:
                    return self._receive(now_us, event, key, inbox)
            elif type(event) is Restarted:
                return self._restart(now_us, event)
            elif type(event) is Rotated:
                return self._rotate(now_us, event)
            elif type(event) is TimerFired and event.name == TEND:
                return self._tend(now_us)
        effects = self._decide(now_us, event)
        if self.observers:
            self._tell(now_us, event, effects)
        return self._wrap(now_us, effects) if effects else []

    def _receive(
        self, now_us: Micros, event: Envelope, key: _ChannelKey, inbox: Inbox
    ) -> list[Output]:
        """Take a frame of a channel; the node sees what is now in order."""
        outbox = self.outboxes[key]
        if outbox.unacked:  # else there is nothing to forget
            outbox.acknowledge(Place(event.ack_epoch, event.ack_seq), now_us)
        if event.seq == 0:
            return self._link_control(now_us, event, key)
        return self._hand_on(now_us, inbox.receive(event, now_us))

    def _hand_on(self, now_us: Micros, frames: Sequence[Envelope]) -> list[Output]:
        """Let the node see frames that are in order."""
        out: list[Output] = []
        for ready in frames:
            if type(ready.message) is KeyRotated:
                self.rekeyed[ready.sender] = None
                effects: Sequence[Effect] = ()
            else:
                effects = self._decide(now_us, ready)
            if self.observers:
                self._tell(now_us, ready, effects)
            if effects:
                out += self._wrap(now_us, effects)
        if not self._tending:
            out.append(self._arm(now_us))
        return out

    def _tell(self, now_us: Micros, event: Event, effects: Sequence[Effect]) -> None:
        for observe in self.observers:
            observe(now_us, event, effects)

    def _wrap(self, now_us: Micros, effects: Sequence[Effect]) -> list[Output]:
        """Put each message of the node in an envelope; keep those of channels."""
        out: list[Output] = []
        for effect in effects:
            if type(effect) is SetTimer:
                out.append(effect)
            elif type(effect) is Forked:
                for family in CHANNEL_FAMILIES:
                    self._put(now_us, self._fork(effect, family), out)
            else:
                self._put(now_us, effect, out)
        return out

    def _fork(self, effect: Forked, family: Family) -> Send:
        """Take back what a channel has told of lost blocks; return the word that says so (P21).

        It belongs to the newest block that stands, so a deeper loss takes it back as well.
        """
        height = effect.fork_height
        word = ChainReorganised(
            fork_height=height,
            old_height=effect.old_height,
            base_epoch=self.outboxes[effect.to, family].fork(height),
        )
        return Send(effect.to, family, word, height, effect.final_height)

    def _put(self, now_us: Micros, effect: Send, out: list[Output]) -> None:
        """Give a message its number; it leaves with `out` unless its channel holds it."""
        key = (effect.to, effect.family)
        outbox = self.outboxes.get(key)
        if outbox is None:
            seq, ack_seq, chan_epoch, ack_epoch = self._counts.get(key, 0) + 1, 0, 1, 1
            self._counts[key] = seq
        else:
            inbox = self.inboxes[key]
            inbox.acked_seq = ack_seq = inbox.next_seq - 1
            seq, chan_epoch, ack_epoch = outbox.next_seq, outbox.chan_epoch, inbox.chan_epoch
        envelope = Envelope(
            self.name,
            key[0],
            key[1],
            seq,
            ack_seq,
            now_us,
            effect.height,
            effect.final_height,
            effect.message,
            self.node_epoch,
            chan_epoch,
            ack_epoch,
        )
        if outbox is None or outbox.keep(envelope, now_us):
            out.append(envelope)
        if outbox is not None and not self._tending:
            out.append(self._arm(now_us))

    def _link_control(self, now_us: Micros, event: Envelope, key: _ChannelKey) -> list[Output]:
        """Answer a frame outside the sequence; the node does not see it (P17)."""
        message = event.message
        if type(message) is ResendRequested:
            return list(self.outboxes[key].asked(message.first_seq, message.last_seq))
        if type(message) is ResyncAsked:
            answer = self._examine(event, message, key)
            told = ResyncTold(nonce=message.nonce, answer=answer)
            return [self._outside(key, now_us, told)]
        if type(message) is ResyncTold and message.nonce == self._nonce and key in self.unsynced:
            if message.answer is ResyncAnswer.ACCEPTED:
                return self._synced(now_us, key)
            self.stopped = f"{key[0]} says of {key[1]}: {message.answer}"
        return []

    def _restart(self, now_us: Micros, event: Restarted) -> list[Output]:
        """Begin a new life: ask the other end of every channel whether our state is whole (P19).

        Until it says so its channel gets no new frame, and the node hears nothing of it.
        """
        self.node_epoch += 1
        self._nonce = event.nonce
        self.unsynced = dict.fromkeys(self.outboxes)
        for key, outbox in self.outboxes.items():
            outbox.hold()
            self.inboxes[key].waits = True
        effects = self._decide(now_us, event)
        self._tell(now_us, event, effects)
        return [*self._wrap(now_us, effects), *self._ask_all(now_us), self._arm(now_us)]

    def claims(self, domain: bytes, public: bytes) -> list[bytes]:
        """Return what a new key must sign to be in force on each channel from now on (P67)."""
        return [
            claim(domain, (self.name, *key), Place(outbox.chan_epoch, outbox.next_seq), public)
            for key, outbox in self.outboxes.items()
        ]

    def _rotate(self, now_us: Micros, event: Rotated) -> list[Output]:
        """Say on every channel that all behind is under a new key (P67); the node may count it."""
        out: list[Output] = []
        words: list[Send] = []
        for (key, outbox), proof in zip(self.outboxes.items(), event.proofs, strict=True):
            word = KeyRotated(
                public_key=event.public_key, effective_seq=outbox.next_seq + 1, proof=proof
            )
            words.append(Send(*key, word))
            self._put(now_us, words[-1], out)
            outbox.rotate(event.public_key)
        self.rekeyed[self.name] = None
        effects = self._decide(now_us, event)
        self._tell(now_us, event, [*words, *effects])
        return [*out, *self._wrap(now_us, effects)]

    def _ask_all(self, now_us: Micros) -> list[Output]:
        self._asked_us = now_us
        out: list[Output] = []
        for key in self.unsynced:
            head = self.outboxes[key].head
            asked = ResyncAsked(nonce=self._nonce, head_epoch=head.chan_epoch, head_seq=head.seq)
            out.append(self._outside(key, now_us, asked))
        return out

    def _examine(self, event: Envelope, asked: ResyncAsked, key: _ChannelKey) -> ResyncAnswer:
        """Accept a new life of the other end unless it is not the newest, or has lost state (P60).

        One that has lost state is not accepted, so a copy of it that has not may go on.
        """
        inbox, outbox, head = (
            self.inboxes[key],
            self.outboxes[key],
            Place(asked.head_epoch, asked.head_seq),
        )
        known, epoch = inbox.life, event.node_epoch
        if inbox.seen > head or Place(event.ack_epoch, event.ack_seq) < outbox.acked:
            return ResyncAnswer.STATE_LOST
        if epoch < known.node_epoch or (epoch == known.node_epoch and asked.nonce != known.nonce):
            return ResyncAnswer.FENCED
        inbox.follow(Life(epoch, asked.nonce, head))
        return ResyncAnswer.ACCEPTED

    def _synced(self, now_us: Micros, key: _ChannelKey) -> list[Output]:
        """Go on with a channel whose other end knows nothing that we do not.

        Reservations wait for all channels: what one spoke holds, and what an account has lost
        anywhere, must be known before another gets anything.
        """
        del self.unsynced[key]
        out: list[Output] = list(self.outboxes[key].let_go(now_us, self.node_epoch))
        ready = [] if key[1] is Family.RESERVATION else [key]
        if not self.unsynced:
            ready += [one for one in self.inboxes if one[1] is Family.RESERVATION]
        for one in ready:
            out += self._hand_on(now_us, self.inboxes[one].go_on(now_us))
        return out

    def _tend(self, now_us: Micros) -> list[Output]:
        """Look after every channel: resend, ask for gaps, acknowledge."""
        out: list[Output] = []
        if self.unsynced:
            patience_us = min(self._policies[key[0]].resend_after_us for key in self.unsynced)
            if now_us >= self._asked_us + patience_us:
                out += self._ask_all(now_us)
        busy = bool(self.unsynced)
        for key, outbox in self.outboxes.items():
            policy, inbox = self._policies[key[0]], self.inboxes[key]
            out += outbox.overdue(now_us, policy)
            gaps = inbox.missing(now_us, policy)
            for first_seq, last_seq in gaps:
                request = ResendRequested(first_seq=first_seq, last_seq=last_seq)
                out.append(self._outside(key, now_us, request))
            if not gaps and inbox.owes_ack(now_us, policy):
                out.append(self._outside(key, now_us, Acknowledged()))
            behind = inbox.acked_seq < inbox.next_seq - 1
            busy = busy or behind or bool(outbox.unacked or inbox.parked or inbox.newer)
        self._tending = False
        if busy:
            out.append(self._arm(now_us))
        return out

    def _outside(self, key: _ChannelKey, now_us: Micros, message: Message) -> Envelope:
        """Make a frame outside the sequence; it carries the acknowledgement (P17)."""
        (to, family), inbox = key, self.inboxes[key]
        inbox.acked_seq = ack_seq = inbox.next_seq - 1
        epochs = self.node_epoch, self.outboxes[key].chan_epoch, inbox.chan_epoch
        height = NO_HEIGHT
        return Envelope(self.name, to, family, 0, ack_seq, now_us, height, height, message, *epochs)

    def _arm(self, now_us: Micros) -> SetTimer:
        self._tending = True
        return SetTimer(TEND, Micros(now_us + self._tend_us))
