"""What has been said on each channel and how far it has been heard, kept beside the nodes.

The checks follow every word from the one who said it to the one who takes it in: numbers 1 to n,
each once (INV12), and nothing that its sender has not said just so (INV16). A node that is put back
to an older state, or runs twice, may forget and say otherwise what nobody has heard (P60): of its
words the checks demand from then on that some process of it keeps them in its outbox.
"""

from collections import deque
from collections.abc import Sequence

from messaging.effects import Effect, Send
from messaging.endpoint import Endpoint
from messaging.envelope import Envelope
from messaging.errors import InvariantViolated
from messaging.messages import CHANNEL_FAMILIES, Family
from messaging.units import NodeId


class Words:
    """Every channel between hub and spokes."""

    def __init__(self) -> None:
        # (from, to, family) -> what has been said and not been heard, oldest first
        self._under_way: dict[tuple[NodeId, NodeId, Family], deque[Send]] = {}
        self._last: dict[tuple[NodeId, NodeId, Family], int] = {}
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
                key = (sender, effect.to, effect.family)
                said = self._under_way.get(key)
                if said is None:
                    said = self._under_way[key] = deque()
                said.append(effect)

    def hear(self, node: NodeId, frame: Envelope) -> None:
        """Follow a frame that a node has taken in.

        Raises:
            InvariantViolated: INV12 or INV16.
        """
        key = (frame.sender, node, frame.family)
        number = self._last.get(key, 0) + 1
        if frame.seq != number and node not in self._put_back:
            found = f"expected {number:,}, applied {frame.seq:,}"
            raise InvariantViolated("INV12", f"{'/'.join(key)}: {found}")
        self._last[key] = frame.seq
        if frame.sender in self._put_back or node in self._put_back:
            self._find(key, frame)
            return
        said = self._under_way.get(key)
        if not said:
            found = f"{'/'.join(key)} {number:,}: applied, and nobody has said it"
            raise InvariantViolated("INV16", found)
        word = said.popleft()
        if not _same(word, frame):
            found = f"expected {word.message}, applied {frame.message}"
            raise InvariantViolated("INV16", f"{'/'.join(key)} {number:,}: {found}")

    def _find(self, key: tuple[NodeId, NodeId, Family], frame: Envelope) -> None:
        """Find a word in an outbox of its sender."""
        for endpoint in self._processes[frame.sender]:
            outbox = endpoint.outboxes[key[1:]]
            word = outbox.unacked.get(frame.seq)
            if word is not None and _same(word, frame):
                return
            if key[1] in self._put_back and frame.seq <= outbox.acked.seq:
                return  # another process of the receiver has taken it in, and said so
        found = f"{'/'.join(key)} {frame.seq:,}: applied, and in no outbox of its sender"
        raise InvariantViolated("INV16", found)


def _same(word: Send | Envelope, frame: Envelope) -> bool:
    return (
        (word.message is frame.message or word.message == frame.message)
        and word.height == frame.height
        and word.final_height == frame.final_height
    )
