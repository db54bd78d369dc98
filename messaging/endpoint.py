"""A node behind its channels: what a driver runs.

In go frames as the network brings them, out come frames and timers. The node inside sees each
message of a channel once and in order, whatever the network does.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from messaging.approvals import Approvals
from messaging.channel import ChannelPolicy
from messaging.effects import Effect, Forked, Readmit, Refused, Send, SetTimer
from messaging.envelope import NO_HEIGHT, Envelope
from messaging.inbox import Inbox
from messaging.lineage import Place
from messaging.link_control import (
    Acknowledged,
    KeyRotated,
    RebuildAccepted,
    ResendRequested,
    ResyncAsked,
    ResyncTold,
)
from messaging.lives import ChannelKey, Lives, Step
from messaging.messages import CHANNEL_FAMILIES, ChainReorganised, Family, Message
from messaging.node import (
    Approved,
    Event,
    Node,
    PassedOver,
    Poisoned,
    Rebuilt,
    Restarted,
    Rotated,
    TimerFired,
)
from messaging.operator_orders import FrameNamed, OperatorOrdered, Verb
from messaging.outbox import Outbox
from messaging.rotation import claim
from messaging.units import Micros, NodeId

Output: TypeAlias = Envelope | SetTimer
Observer: TypeAlias = Callable[[Micros, Event, Sequence[Effect]], None]

TEND = "channel"  # the endpoint's own timer; nodes name theirs otherwise


class Endpoint:
    """One node and both ends of each of its channels.

    Attributes:
        observers: called after each event that the node has handled, with its wishes.
        lives: which of the node's lives this is, and who has accepted it (P19, P61).
        rekeyed: nodes that have gone over to another key on some channel, this one included.
        orders: what operators have ordered here (P70).
        again: a kept frame that the last order wants decoded again, if it does.
        done: the last order, if the node has carried it out.
    """

    def __init__(self, node: Node, peers: Mapping[NodeId, ChannelPolicy]) -> None:
        """Put `node` behind channels to each of `peers`, all three families each."""
        self.name = node.name
        self.node = node
        self._decide = node.handle
        self._policies = peers
        keys = [(peer, family) for peer in peers for family in CHANNEL_FAMILIES]
        self.inboxes: dict[ChannelKey, Inbox] = {key: Inbox() for key in keys}
        self.outboxes: dict[ChannelKey, Outbox] = {key: Outbox() for key in keys}
        self._counts: dict[ChannelKey, int] = {}  # frames sent outside channels
        self._tend_us = min((policy.tend_us for policy in peers.values()), default=0)
        self._tending = False
        self.lives = Lives()
        self._asked_us = Micros(0)
        self.rekeyed: dict[NodeId, None] = {}
        self.orders = Approvals()
        self.again: Poisoned | None = None
        self.done: OperatorOrdered | None = None
        self.observers: list[Observer] = []

    def __getstate__(self) -> dict[str, object]:
        """Leave out who watches: they are no part of the state."""
        return self.__dict__ | {"observers": []}

    def start(self) -> list[Output]:
        """Return the node's wishes before its first event."""
        return self._wrap(Micros(0), self.node.start())

    def handle(self, now_us: Micros, event: Event) -> list[Output]:
        """Take an event; return the frames and timers that follow from it."""
        if self.lives.stopped:
            return []
        if self.inboxes:
            if type(event) is Envelope:
                key = (event.sender, event.family)
                inbox = self.inboxes.get(key)
                if inbox is not None:
                    return self._receive(now_us, event, key, inbox)
                if type(event.message) is OperatorOrdered:
                    return self._ordered(now_us, event.message, event.sender)
            elif type(event) is Restarted:
                return self._restart(now_us, event)
            elif type(event) is Rotated:
                return self._rotate(now_us, event)
            elif type(event) is Rebuilt:
                self.lives.begin_rebuilt(event.spoke_epoch, self.outboxes)
            elif type(event) is TimerFired and event.name == TEND:
                return self._tend(now_us)
            elif type(event) is Poisoned:
                return self._poisoned(now_us, event)
        effects = self._decide(now_us, event)
        if self.observers:
            self._tell(now_us, event, effects)
        return self._wrap(now_us, effects) if effects else []

    def _receive(
        self, now_us: Micros, event: Envelope, key: ChannelKey, inbox: Inbox
    ) -> list[Output]:
        """Take a frame of a channel; the node sees what is now in order."""
        outbox = self.outboxes[key]
        # What another life than the accepted one has heard, that one need not know.
        if outbox.unacked and event.node_epoch == inbox.life.node_epoch:
            outbox.acknowledge(Place(event.ack_epoch, event.ack_seq), now_us)
        if event.seq == 0:
            return self._link_control(now_us, event, key)
        if key in self.lives.lost:
            return []
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

    def _poisoned(self, now_us: Micros, event: Poisoned) -> list[Output]:
        """Stop the channel where a frame cannot be decoded (P69)."""
        kept = self.inboxes[event.peer, event.family].keep_poison(event, now_us)
        if kept and self.again is not None and event.data == self.again.data:
            self.orders.amend(f"expected a frame that can be decoded now, found {event.why}")
        return [] if self._tending else [self._arm(now_us)]

    def _ordered(self, now_us: Micros, order: OperatorOrdered, operator: NodeId) -> list[Output]:
        """Carry an order out once enough operators have given it, or say why not (P70)."""
        self.again = self.done = None
        operators = self.orders.take(order, operator, now_us)
        if operators is None:
            return []
        if type(order.target) is FrameNamed:
            passed: list[Envelope] = []
            why = self._wrong_frame(order.verb, order.target)
            if not why:
                passed = self._free(now_us, order.verb, order.target)
            self.orders.close(order, operators, now_us, why)
            if why or order.verb in (Verb.RETRY, Verb.NILIFY):
                return []
            peer, family = order.target.peer, order.target.family
            told = self._let_node(now_us, PassedOver(peer, family, order.target.seq))
            return told + self._hand_on(now_us, passed)
        self.orders.close(order, operators, now_us, "")
        out = self._let_node(now_us, Approved(order, operators))
        if not self.orders.outcomes[-1].why:
            self.done = order
        return out

    def _wrong_frame(self, verb: Verb, target: FrameNamed) -> str:
        """Return why a verb cannot be carried out on a frame, or nothing."""
        inbox = self.inboxes.get((target.peer, target.family))
        if inbox is None:
            return f"expected a channel to {self.name}, found {target.peer} {target.family}"
        seq, where = target.seq, f"number {target.seq:,}"
        poison = [place for place in inbox.poison if place.seq == seq]
        if verb is Verb.RETRY:
            return "" if poison else f"expected a frame that is kept, found none under {where}"
        if verb is Verb.NILIFY:
            held = poison or seq in inbox.parked
            return "" if held else f"expected a frame that waits, found none under {where}"
        if inbox.waits:
            return "expected a channel that goes on, found one whose other end has not answered yet"
        if seq != inbox.next_seq:
            return f"expected the next number, {inbox.next_seq:,}, found {seq:,}"
        here = Place(inbox.chan_epoch, seq) in inbox.poison
        if verb is Verb.CLEAR:
            return "" if here else f"expected a frame that is kept, found none under {where}"
        if here:
            return f"expected {where} to be missing, found its frame: clear takes it off"
        # A number that its sender has not used yet would be lost when it is.
        behind = inbox.seen > Place(inbox.chan_epoch, seq)
        return "" if behind else f"expected frames behind {where}, found none: it may still come"

    def _free(self, now_us: Micros, verb: Verb, target: FrameNamed) -> list[Envelope]:
        """Take off what keeps a channel from going on; return the frames that follow."""
        inbox = self.inboxes[target.peer, target.family]
        if verb is Verb.CLEAR or verb is Verb.SKIP:
            return inbox.pass_over(now_us)
        forgotten = inbox.forget(target.seq)
        if verb is Verb.RETRY and type(forgotten) is Poisoned:
            self.again = forgotten
        return []

    def _let_node(self, now_us: Micros, event: Event) -> list[Output]:
        effects = self._decide(now_us, event)
        if self.observers:
            self._tell(now_us, event, effects)
        return self._wrap(now_us, effects)

    def _tell(self, now_us: Micros, event: Event, effects: Sequence[Effect]) -> None:
        for observe in self.observers:
            observe(now_us, event, effects)

    def _wrap(self, now_us: Micros, effects: Sequence[Effect]) -> list[Output]:
        """Put each message of the node in an envelope; keep those of channels."""
        out: list[Output] = []
        for effect in effects:
            if type(effect) is SetTimer:
                out.append(effect)
            elif type(effect) is Refused:
                self.orders.amend(effect.why)
            elif type(effect) is Readmit:
                self.lives.readmit(effect.peer, effect.spoke_epoch)
            elif type(effect) is Forked:
                for family in CHANNEL_FAMILIES:
                    if (effect.to, family) not in self.lives.lost:
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
        """Give a message its number; it leaves with `out` unless its channel holds it.

        On a channel of which we know nothing it has none: what counts is said once we do.
        """
        key = (effect.to, effect.family)
        if key in self.lives.lost:
            return
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
            self.lives.node_epoch,
            chan_epoch,
            ack_epoch,
        )
        if outbox is None or outbox.keep(envelope, now_us):
            out.append(envelope)
        if outbox is not None and not self._tending:
            out.append(self._arm(now_us))

    def _link_control(self, now_us: Micros, event: Envelope, key: ChannelKey) -> list[Output]:
        """Answer a frame outside the sequence; the node does not see it (P17)."""
        message = event.message
        if type(message) is ResendRequested:
            return list(self.outboxes[key].asked(message.first_seq, message.last_seq))
        lives, inbox, outbox = self.lives, self.inboxes[key], self.outboxes[key]
        if type(message) is ResyncAsked:
            known = inbox.life.nonce
            step = lives.asked(event, message, key, inbox, outbox)
            out = self._follow(now_us, key, step)
            if lives.is_known_by_question and inbox.life.nonce != known:
                # It may have forgotten that it had accepted this one: a commit of it was lost.
                out.append(self._outside(key, now_us, lives.question(key, outbox)))
            return out
        if type(message) is ResyncTold:
            return self._follow(now_us, key, lives.told(message, key))
        if type(message) is RebuildAccepted:
            return self._follow(now_us, key, lives.come_back(event, message, key, inbox, outbox))
        return []

    def _follow(self, now_us: Micros, key: ChannelKey, step: Step) -> list[Output]:
        """Do what follows from a frame about lives."""
        out: list[Output] = []
        if step.answer is not None:
            out.append(self._outside(key, now_us, step.answer))
        if step.rejoined is not None:
            out += self._let_node(now_us, step.rejoined)
        return [*out, *self._synced(now_us, key)] if step.synced else out

    def _restart(self, now_us: Micros, event: Restarted) -> list[Output]:
        """Begin a new life: ask the other end of every channel whether our state is whole (P19).

        Until it says so its channel gets no new frame, and the node hears nothing of it.
        """
        self.lives.begin(event.nonce, self.outboxes)
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
        return [
            self._outside(key, now_us, self.lives.question(key, self.outboxes[key]))
            for key in self.lives.unsynced
        ]

    def _synced(self, now_us: Micros, key: ChannelKey) -> list[Output]:
        """Go on with a channel whose other end knows nothing that we do not."""
        out: list[Output] = list(self.outboxes[key].let_go(now_us, self.lives.node_epoch))
        for one in self.lives.go_on(key, self.inboxes):
            out += self._hand_on(now_us, self.inboxes[one].go_on(now_us))
        return out

    def _tend(self, now_us: Micros) -> list[Output]:
        """Look after every channel: resend, ask for gaps, acknowledge."""
        out: list[Output] = []
        if self.lives.unsynced:
            patience_us = min(self._policies[key[0]].resend_after_us for key in self.lives.unsynced)
            if now_us >= self._asked_us + patience_us:
                out += self._ask_all(now_us)
        busy = bool(self.lives.unsynced)
        for key, outbox in self.outboxes.items():
            policy, inbox = self._policies[key[0]], self.inboxes[key]
            if outbox.unacked:
                busy = True
                out += outbox.overdue(now_us, policy)
            if key in self.lives.unsynced:
                continue
            gaps = inbox.missing(now_us, policy) if inbox.has_waiting else []
            for first_seq, last_seq in gaps:
                request = ResendRequested(first_seq=first_seq, last_seq=last_seq)
                out.append(self._outside(key, now_us, request))
            if not gaps and inbox.owes_ack(now_us, policy):
                out.append(self._outside(key, now_us, Acknowledged()))
            behind = inbox.acked_seq < inbox.next_seq - 1
            busy = busy or behind or bool(inbox.parked or inbox.newer)
        self._tending = False
        if busy:
            out.append(self._arm(now_us))
        return out

    def _outside(self, key: ChannelKey, now_us: Micros, message: Message) -> Envelope:
        """Make a frame outside the sequence; it carries the acknowledgement (P17)."""
        (to, family), inbox = key, self.inboxes[key]
        inbox.acked_seq = ack_seq = inbox.next_seq - 1
        epochs = self.lives.node_epoch, self.outboxes[key].chan_epoch, inbox.chan_epoch
        height = NO_HEIGHT
        return Envelope(self.name, to, family, 0, ack_seq, now_us, height, height, message, *epochs)

    def _arm(self, now_us: Micros) -> SetTimer:
        self._tending = True
        return SetTimer(TEND, Micros(now_us + self._tend_us))
