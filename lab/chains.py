"""A spoke's chain as its table has it."""

from lab.amounts import hours, micros
from lab.scenario import SpokeTable
from spokes.chain import Chain, Halt, Reorg


def chain_of(spoke: SpokeTable) -> Chain:
    """Return a spoke's blocks: when they come, when they are final, which are lost."""
    return Chain(
        block_us=micros(spoke.block_s),
        safe_after_us=micros(spoke.safe_after_s),
        final_after_us=micros(spoke.final_after_s),
        trust=spoke.trust,
        halts=tuple(
            Halt(from_us=hours(window.from_h), until_us=hours(window.until_h))
            for window in spoke.outages
        ),
        reorgs=tuple(Reorg(at_us=hours(reorg.at_h), depth=reorg.depth) for reorg in spoke.reorgs),
    )


def depth_max(spoke: SpokeTable, number: int) -> int:
    """Return how many blocks a spoke's `number`th reorganisation may take: none called final."""
    chain = chain_of(spoke)
    at_us = chain.reorgs[number].at_us
    return chain.height_at(at_us) - chain.trusted_height_at(at_us)
