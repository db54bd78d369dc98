"""Counter-based dice: draw number n of a stream depends on nothing but its seed, name and n.

So a draw more or less anywhere leaves every other stream as it was, two configurations share
their random numbers, and another process can draw the same number for the same message.
Source: docs/determinism.md.
"""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

BLOCK = 1_024  # draws made at a time; which draw is which does not depend on it


class Dice:
    """One named stream of uniform numbers in [0, 1)."""

    def __init__(self, seed: int, name: str) -> None:
        key = int.from_bytes(blake2b(f"{seed}/{name}".encode(), digest_size=16).digest())
        self._bits = np.random.Philox(key=key)
        self._block_next = 0  # the block that the generator would make without being moved

    def block(self, number: int) -> NDArray[np.float64]:
        """Return draws `number * BLOCK` to `(number + 1) * BLOCK - 1`, shape (BLOCK,)."""
        if number != self._block_next:
            # Philox makes four numbers for each step of its counter, which counts modulo 2**256.
            steps = (number - self._block_next) * (BLOCK // 4)
            self._bits.advance(steps % 2**256)
        self._block_next = number + 1
        draws: NDArray[np.float64] = (self._bits.random_raw(BLOCK) >> np.uint64(11)) * np.float64(
            2.0**-53
        )
        return draws

    def first(self, count: int) -> NDArray[np.float64]:
        """Return draws 0 to `count - 1`, shape (count,)."""
        blocks = [self.block(number) for number in range(-(-count // BLOCK))]
        return np.concatenate(blocks)[:count] if blocks else np.empty(0)
