"""What a node asks of the world. Drivers carry these out; a node never does."""

from typing import TypeAlias

import msgspec

from messaging.messages import Family, Message
from messaging.units import Height, Micros, NodeId


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


class SetTimer(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """Wake this node at `at_us`. Setting a name again replaces it."""

    name: str
    at_us: Micros


Effect: TypeAlias = Send | SetTimer
