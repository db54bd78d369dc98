"""The log of one seed, for whoever looks into a finding: a JSON line for each event of a node."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from messaging.effects import Effect
from messaging.errors import InputRefused
from messaging.node import Event
from messaging.units import SECOND_US, Micros, NodeId


class Tale:
    """Writes what each node took in and wished, as it happens; ids in hexadecimal digits.

    A line has `at_s` (virtual time), `us` (the node's own clock), `node`, `event` and `effects`. An
    event that a process died in front of its commit with is not there, for nobody knows of it.
    """

    def __init__(self, path: Path) -> None:
        """Begin a file, in place of one that is there.

        Raises:
            InputRefused: it cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb")
        except OSError as error:
            found = error.strerror or str(error)
            raise InputRefused(str(path), expected="a file to write", found=found) from None

    def close(self) -> None:
        """End the file."""
        self._file.close()

    def tell(
        self, at_us: Micros, node: NodeId, now_us: Micros, event: Event, effects: Sequence[Effect]
    ) -> None:
        """Write one line."""
        line = {
            "at_s": at_us / SECOND_US,
            "us": now_us,
            "node": node,
            "event": _plain(event),
            "effects": _plain(effects),
        }
        self._file.write(msgspec.json.encode(line) + b"\n")


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
