"""What has been said on each channel and how far it has been heard, kept beside the nodes.

The checks follow every word from the one who said it to the one who takes it in: numbers 1 to n,
each once (INV12), nothing of a version of the channel that is over (INV13), and nothing that its
sender has not said just so (INV16). A node that is put back
to an older state, or runs twice, may forget and say otherwise what nobody has heard (P60): of its
words the checks demand from then on that some process of it keeps them in its outbox.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from messaging.effects import Effect, Forked, Send
from messaging.endpoint import Endpoint
from messaging.envelope import Envelope
from messaging.errors import InvariantViolated
from messaging.lineage import Place
from messaging.link_control import KeyRotated
from messaging.messages import CHANNEL_FAMILIES, ChainReorganised, Family, Message
from messaging.node import PassedOver
from messaging.rebuilding import ChannelRebuilt
from messaging.units import Height, NodeId
from messaging.witness import place_of

_Key: TypeAlias = tuple[NodeId, NodeId, Family]  # from, to, about what


class _Row:
    """What has been said on one channel and not been heard, and where both ends are."""

    __slots__ = ("heard", "said", "soft", "under_way")

    def __init__(self) -> None:
        self.said = self.heard = Place(1, 0)
        self.under_way: dict[Place, Send] = {}
        self.soft: deque[tuple[int, Height]] = deque()  # said of blocks that may be lost

    def say(self, word: Send) -> None:
        self.said = Place(self.said.chan_epoch, self.said.seq + 1)
        self.under_way[self.said] = word
        if type(word.message) is KeyRotated:  # what is behind it is never taken back (P67)
            self.soft.clear()
        if word.height > word.final_height:
            self.soft.append((self.said.seq, word.height))
        while self.soft and self.soft[0][1] <= word.final_height:
            self.soft.popleft()

    def fork(self, fork_height: Height) -> None:
        """Go back to the first word of a lost block; what is under way may still be heard."""
        epoch, newest = self.said
        first = next((seq for seq, height in self.soft if height > fork_height), newest + 1)
        self.soft = deque(word for word in self.soft if word[0] < first)
        self.said = Place(epoch + 1, first - 1)

    def follows(self, frame: Envelope) -> bool:
        """Tell whether a frame may be heard now."""
        epoch, seq, heard = frame.chan_epoch, frame.seq, self.heard
        if epoch == heard.chan_epoch:
            return seq == heard.seq + 1
        return epoch > heard.chan_epoch and seq <= heard.seq + 1 and _begins(frame)

    def take(self, place: Place) -> Send | None:
        self.heard = place
        word = self.under_way.pop(place, None)
        for old in [old for old in self.under_way if old.chan_epoch < place.chan_epoch]:
            del self.under_way[old]
        return word


def _begins(frame: Envelope) -> bool:
    return type(frame.message) in (ChainReorganised, ChannelRebuilt)


class Words:
    """Every channel between hub and spokes."""

    def __init__(self) -> None:
        self._rows: defaultdict[_Key, _Row] = defaultdict(_Row)
        self._processes: dict[NodeId, list[Endpoint]] = {}
        self._put_back: set[NodeId] = set()

    def watch(self, endpoint: Endpoint, *, restored: bool) -> None:
        """Note one more process of a node: in place of the one before, unless one is put back."""
        name = endpoint.name
        if restored:
            self._put_back.add(name)
        if name in self._put_back:
            self._processes[name].append(endpoint)
        else:
            self._processes[name] = [endpoint]

    def say(self, sender: NodeId, effects: Sequence[Effect]) -> None:
        """Note what a node wishes to be told to others, in order."""
        if sender in self._put_back:
            return
        for effect in effects:
            if type(effect) is Send and effect.family in CHANNEL_FAMILIES:
                self._rows[sender, effect.to, effect.family].say(effect)
            elif type(effect) is Forked:
                self._fork(sender, effect)

    def _fork(self, sender: NodeId, fork: Forked) -> None:
        """Take back what was said of lost blocks, and expect the word that says so."""
        for family in CHANNEL_FAMILIES:
            row = self._rows[sender, fork.to, family]
            row.fork(fork.fork_height)
            word = ChainReorganised(
                fork_height=fork.fork_height,
                old_height=fork.old_height,
                base_epoch=1,
            )
            row.say(Send(fork.to, family, word, fork.fork_height, fork.final_height))

    def hear(self, node: NodeId, frame: Envelope) -> None:
        """Follow a frame that a node has taken in.

        Raises:
            InvariantViolated: INV12, INV13 or INV16.
        """
        key = (frame.sender, node, frame.family)
        row = self._rows[key]
        if node not in self._put_back and not row.follows(frame):
            rule = "INV13" if frame.chan_epoch < row.heard.chan_epoch else "INV12"
            found = f"applied {tuple(place_of(frame))} behind {tuple(row.heard)}"
            raise InvariantViolated(rule, f"{'/'.join(key)}: {found}")
        word = row.take(place_of(frame))
        if word is not None and _same(word, frame):
            return
        if frame.sender in self._put_back or node in self._put_back:
            self._find(key, frame)
            return
        found = "applied, and nobody has said it"
        if word is not None:
            found = f"expected {word.message}, applied {frame.message}"
        raise InvariantViolated("INV16", f"{'/'.join(key)} {frame.seq:,}: {found}")

    def pass_over(self, node: NodeId, event: PassedOver) -> None:
        """Follow a number that people let a node pass over (P70)."""
        row = self._rows[event.peer, node, event.family]
        row.take(Place(row.heard.chan_epoch, event.seq))

    def _find(self, key: _Key, frame: Envelope) -> None:
        """Find a word in an outbox of its sender, if no lost block has taken it out again."""
        for endpoint in self._processes[frame.sender]:
            outbox = endpoint.outboxes[key[1:]]
            if outbox.lineage.common_seq(place_of(frame)) < frame.seq:
                return
            word = outbox.unacked.get(frame.seq)
            if word is not None and _same(word, frame):
                return
            if outbox.lineage.epoch_of(frame.seq) > frame.chan_epoch:
                return  # taken back since: no outbox has it any more
            if key[1] in self._put_back and place_of(frame) <= outbox.acked:
                return  # another process of the receiver has taken it in, and said so
        found = f"{'/'.join(key)} {frame.seq:,}: applied, and in no outbox of its sender"
        raise InvariantViolated("INV16", found)


def _same(word: Send | Envelope, frame: Envelope) -> bool:
    return (
        (word.message == frame.message or _content(word) == _content(frame))
        and word.height == frame.height
        and word.final_height == frame.final_height
    )


def _content(word: Send | Envelope) -> Message:
    """Return the message; which version a channel goes back to, only its outbox knows."""
    message = word.message
    if type(message) is ChainReorganised:
        return msgspec.structs.replace(message, base_epoch=1)
    return message
