"""Draws by name and number: each answer depends on (seed, what is asked, how-manieth) alone.

Like `messaging.dice`, for worlds so small that a block of a thousand draws would be wasted.
"""

from collections.abc import Sequence
from hashlib import blake2b
from struct import Struct
from typing import TypeVar

_T = TypeVar("_T")
_WHOLE = 2.0**-64
_unpack = Struct("<8Q").unpack


class Draws:
    """One named stream of rows of eight uniform numbers in [0, 1)."""

    __slots__ = ("_key", "count")

    def __init__(self, seed: int, name: str) -> None:
        self._key = blake2b(f"{seed}/{name}".encode(), digest_size=32).digest()
        self.count = 0

    def row(self, number: int) -> tuple[float, ...]:
        """Return row `number`, eight draws."""
        a, b, c, d, e, f, g, h = _unpack(
            blake2b(number.to_bytes(8), key=self._key, digest_size=64).digest()
        )
        # Written out: it runs for every frame.
        return (
            a * _WHOLE, b * _WHOLE, c * _WHOLE, d * _WHOLE,
            e * _WHOLE, f * _WHOLE, g * _WHOLE, h * _WHOLE,
        )  # fmt: skip

    def next(self) -> tuple[float, ...]:
        """Return the row behind the last one."""
        self.count += 1
        return self.row(self.count)

    def uniform(self, low: float, high: float) -> float:
        """Return a draw between two bounds."""
        return low + (high - low) * self.next()[0]

    def log_uniform(self, low: float, high: float) -> float:
        """Return a draw between two positive bounds, each order of magnitude as likely."""
        return float(low * (high / low) ** self.next()[0])

    def whole(self, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`, both included."""
        return low + int((high - low + 1) * self.next()[0])

    def choice(self, values: Sequence[_T]) -> _T:
        """Return one of some values."""
        return values[int(len(values) * self.next()[0])]

    def chance(self, probability: float) -> bool:
        """Tell whether something of this probability happens."""
        return self.next()[0] < probability
