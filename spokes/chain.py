"""A chain's clock: when blocks come, and how far behind the newest one safe and final are.

Blocks stand at whole multiples of the block time, except while the chain halts. So a height is
a function of time, and a node needs a timer only when it has something for the next block.
"""

from enum import StrEnum

import msgspec

from messaging.units import Height, Micros


class Trust(StrEnum):
    """Which blocks a spoke vouches for as final in its frames: a choice of the bridge."""

    SAFE = "safe"
    FINAL = "final"
    BRIDGE = "bridge"  # delivers only what is final, so a frame vouches for its own block


class Halt(msgspec.Struct, frozen=True, kw_only=True):
    """No block stands in `[from_us, until_us)`."""

    from_us: Micros
    until_us: Micros


class Reorg(msgspec.Struct, frozen=True, kw_only=True):
    """At `at_us` the newest `depth` blocks are replaced by as many others."""

    at_us: Micros
    depth: int


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """A chain's parameters.

    Attributes:
        block_us: time between blocks.
        safe_after_us: age at which a block is safe.
        final_after_us: age at which a block is final.
        trust: what counts as final in the spoke's frames.
        halts: when no blocks come; in order, not overlapping.
        reorgs: when blocks are lost that nobody vouches for as final; in order.
    """

    block_us: Micros
    safe_after_us: Micros
    final_after_us: Micros
    trust: Trust = Trust.FINAL
    halts: tuple[Halt, ...] = ()
    reorgs: tuple[Reorg, ...] = ()

    def height_at(self, now_us: int) -> Height:
        """Return the height of the newest block at `now_us`; 0 before the first."""
        if now_us < 0:
            return Height(0)
        block_us = self.block_us
        height = now_us // block_us
        for halt in self.halts:
            if halt.from_us > now_us:
                break
            before = max(0, (halt.from_us - 1) // block_us)
            height -= (min(halt.until_us - 1, now_us) // block_us) - before
        return Height(height)

    def time_at(self, now_us: Micros) -> Micros:
        """Return the time of the newest block at `now_us`."""
        at_us = now_us - now_us % self.block_us
        for halt in reversed(self.halts):
            if halt.from_us <= at_us < halt.until_us:
                at_us = (halt.from_us - 1) - (halt.from_us - 1) % self.block_us
        return Micros(max(0, at_us))

    def next_block_us(self, now_us: Micros) -> Micros:
        """Return the time of the first block after `now_us`."""
        at_us = now_us - now_us % self.block_us + self.block_us
        for halt in self.halts:
            if halt.from_us <= at_us < halt.until_us:
                at_us = -(-halt.until_us // self.block_us) * self.block_us
        return Micros(at_us)

    def safe_height_at(self, now_us: Micros) -> Height:
        """Return the newest safe block."""
        return self.height_at(now_us - self.safe_after_us)

    def final_height_at(self, now_us: Micros) -> Height:
        """Return the newest final block."""
        return self.height_at(now_us - self.final_after_us)

    def trusted_height_at(self, now_us: Micros) -> Height:
        """Return the newest block that frames vouch for as final (P52)."""
        if self.trust is Trust.BRIDGE:
            return self.height_at(now_us)
        if self.trust is Trust.SAFE:
            return self.safe_height_at(now_us)
        return self.final_height_at(now_us)
