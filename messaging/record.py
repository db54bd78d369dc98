"""What a node saw and did, in order. All truth about a run is in its records."""

import msgspec

from messaging.endpoint import Output
from messaging.node import Event
from messaging.units import Micros, NodeId


class Record(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One event and what the node and its channels did about it."""

    at_us: Micros
    node: NodeId
    event: Event
    effects: list[Output]
