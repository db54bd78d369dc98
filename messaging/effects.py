"""What a node asks of the world. Drivers carry these out; a node never does.

These and the events are `final`, so that `type(x) is Send` tells all: for Structs it takes a
quarter of the time that `isinstance` takes to say no, and a run asks it for every message.
"""

from typing import TypeAlias, final

import msgspec

from messaging.messages import Family, Message
from messaging.units import Height, Micros, NodeId


@final
class Send(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """Deliver `message` to `to`: late, twice or never, as the network pleases.

    `height` is the block the fact belongs to, `final_height` the sender's final block; both
    are 0 where no chain is behind the fact.
    """

    to: NodeId
    family: Family
    message: Message
    height: Height = Height(0)
    final_height: Height = Height(0)


@final
class SetTimer(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """Wake this node at `at_us`. Setting a name again replaces it."""

    name: str
    at_us: Micros


@final
class Forked(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """Take back what was sent to `to` of blocks above `fork_height`, and say so (P55).

    Every channel to it goes on in a new version that begins behind the last frame that stands.
    `old_height` was the newest block, `final_height` is the sender's final one.
    """

    to: NodeId
    fork_height: Height
    old_height: Height
    final_height: Height


@final
class Refused(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """An operators' order cannot be carried out; `why` says what was expected and found (P70)."""

    why: str


@final
class Readmit(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """Let `peer` come back with nothing in its memory, in this epoch of it (P24)."""

    peer: NodeId
    spoke_epoch: int


Effect: TypeAlias = Send | SetTimer | Forked | Refused | Readmit
