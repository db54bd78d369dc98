"""The log of one seed, for whoever looks into a finding: a JSON line for each event of a node."""

from collections.abc import Sequence
from typing import Any

import msgspec

from messaging.effects import Effect
from messaging.node import Event
from messaging.units import SECOND_US, Micros, NodeId


def line(
    at_us: Micros, node: NodeId, now_us: Micros, event: Event, effects: Sequence[Effect]
) -> bytes:
    """Return what a node took in and wished; ids in hexadecimal digits.

    `at_us` is virtual time, in the line `at_s`; `now_us` is the node's own clock, `us`.
    """
    found = {
        "at_s": at_us / SECOND_US,
        "us": now_us,
        "node": node,
        "event": _plain(event),
        "effects": _plain(effects),
    }
    return msgspec.json.encode(found) + b"\n"


def _plain(found: Any) -> Any:
    """Return what JSON can say of a struct, with its name, all bytes in hexadecimal digits."""
    if isinstance(found, bytes):
        return found.hex()
    if isinstance(found, msgspec.Struct):
        fields = {name: _plain(getattr(found, name)) for name in found.__struct_fields__}
        return {"is": type(found).__name__, **fields}
    if isinstance(found, tuple | list):
        return [_plain(one) for one in found]
    return found
