"""What has been said on each channel and how far it has been heard, kept beside the nodes.

The checks follow every word from the one who said it to the one who takes it in: numbers 1 to n,
each once (INV12), and nothing that its sender has not said just so (INV16).
"""

from collections import deque
from collections.abc import Sequence

from messaging.effects import Effect, Send
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

    def say(self, sender: NodeId, effects: Sequence[Effect]) -> None:
        """Note what a node wishes to be told to others, in order."""
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
        if frame.seq != number:
            found = f"expected {number:,}, applied {frame.seq:,}"
            raise InvariantViolated("INV12", f"{'/'.join(key)}: {found}")
        self._last[key] = number
        said = self._under_way.get(key)
        if not said:
            found = f"{'/'.join(key)} {number:,}: applied, and nobody has said it"
            raise InvariantViolated("INV16", found)
        word = said.popleft()
        same = word.message is frame.message or word.message == frame.message
        if not same or word.height != frame.height or word.final_height != frame.final_height:
            found = f"expected {word.message}, applied {frame.message}"
            raise InvariantViolated("INV16", f"{'/'.join(key)} {number:,}: {found}")
