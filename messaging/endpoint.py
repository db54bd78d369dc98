"""A node behind its channels: what a driver runs.

In go frames as the network brings them, out come frames and timers. The node inside sees each
message of a channel once and in order, whatever the network does.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from messaging.channel import ChannelPolicy, Inbox, Outbox
from messaging.effects import Effect, SetTimer
from messaging.envelope import NO_HEIGHT, Envelope
from messaging.messages import CHANNEL_FAMILIES, Acknowledged, Family, Message, ResendRequested
from messaging.node import Event, Node, TimerFired
from messaging.units import Micros, NodeId

Output: TypeAlias = Envelope | SetTimer
Observer: TypeAlias = Callable[[Micros, Event, Sequence[Effect]], None]

TEND = "channel"  # the endpoint's own timer; nodes name theirs otherwise

_ChannelKey: TypeAlias = tuple[NodeId, Family]


class Endpoint:
    """One node and both ends of each of its channels.

    Attributes:
        observers: called after each event that the node has handled, with its wishes.
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
        self.observers: list[Observer] = []

    def __getstate__(self) -> dict[str, object]:
        """Leave out who watches: they are no part of the state."""
        return self.__dict__ | {"observers": []}

    def start(self) -> list[Output]:
        """Return the node's wishes before its first event."""
        return self._wrap(Micros(0), self.node.start())

    def handle(self, now_us: Micros, event: Event) -> list[Output]:
        """Take a frame or a timer; return the frames and timers that follow from it."""
        if self.inboxes:
            if type(event) is Envelope:
                key = (event.sender, event.family)
                inbox = self.inboxes.get(key)
                if inbox is not None:
                    return self._receive(now_us, event, key, inbox)
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
        self.outboxes[key].acknowledge(event.ack_seq, now_us)
        if event.seq == 0:
            return self._link_control(event, key)
        out: list[Output] = []
        for ready in inbox.receive(event, now_us):
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
                continue
            key = (effect.to, effect.family)
            outbox = self.outboxes.get(key)
            if outbox is None:
                seq, ack_seq = self._counts.get(key, 0) + 1, 0
                self._counts[key] = seq
            else:
                inbox = self.inboxes[key]
                inbox.acked_seq = ack_seq = inbox.next_seq - 1
                seq = outbox.next_seq
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
            )
            out.append(envelope)
            if outbox is not None:
                outbox.keep(envelope, now_us)
                if not self._tending:
                    out.append(self._arm(now_us))
        return out

    def _link_control(self, event: Envelope, key: _ChannelKey) -> list[Output]:
        """Answer a frame outside the sequence; it changes nothing but what is sent again."""
        message = event.message
        if type(message) is ResendRequested:
            return list(self.outboxes[key].asked(message.first_seq, message.last_seq))
        return []

    def _tend(self, now_us: Micros) -> list[Output]:
        """Look after every channel: resend, ask for gaps, acknowledge."""
        out: list[Output] = []
        busy = False
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
            busy = busy or behind or bool(outbox.unacked or inbox.parked)
        self._tending = False
        if busy:
            out.append(self._arm(now_us))
        return out

    def _outside(self, key: _ChannelKey, now_us: Micros, message: Message) -> Envelope:
        """Make a frame outside the sequence; it carries the acknowledgement (P17)."""
        (to, family), inbox = key, self.inboxes[key]
        inbox.acked_seq = ack_seq = inbox.next_seq - 1
        return Envelope(self.name, to, family, 0, ack_seq, now_us, NO_HEIGHT, NO_HEIGHT, message)

    def _arm(self, now_us: Micros) -> SetTimer:
        self._tending = True
        return SetTimer(TEND, Micros(now_us + self._tend_us))
