from hypothesis import given
from hypothesis import strategies as st

from spokes.chain import Chain, Halt, Trust

END = 400


@st.composite
def chains(draw: st.DrawFn, earliest_us: int = 1) -> Chain:
    """Draw a chain with up to three halts, in order and not overlapping."""
    edges = sorted(draw(st.sets(st.integers(earliest_us, 300), max_size=6)))
    halts = tuple(
        Halt(from_us=start, until_us=stop)
        for start, stop in zip(edges[::2], edges[1::2], strict=False)
    )
    return Chain(
        block_us=draw(st.integers(1, 40)),
        safe_after_us=draw(st.integers(0, 50)),
        final_after_us=draw(st.integers(50, 200)),
        trust=draw(st.sampled_from(Trust)),
        halts=halts,
    )


def blocks(chain: Chain) -> list[int]:
    """Count the blocks one by one: at multiples of the block time, but for the halts."""
    return [
        at_us
        for at_us in range(chain.block_us, 2 * END, chain.block_us)
        if not any(halt.from_us <= at_us < halt.until_us for halt in chain.halts)
    ]


times = st.integers(0, END)


@given(chains(), times)
def test_height_and_time_are_those_of_the_newest_block(chain: Chain, now_us: int) -> None:
    so_far = [at_us for at_us in blocks(chain) if at_us <= now_us]

    assert chain.height_at(now_us) == len(so_far)
    assert chain.time_at(now_us) == (so_far[-1] if so_far else 0)


@given(chains(), times)
def test_the_next_block_is_the_first_one_after_now(chain: Chain, now_us: int) -> None:
    assert chain.next_block_us(now_us) == min(at for at in blocks(chain) if at > now_us)


@given(chains(), times)
def test_blocks_are_safe_and_final_at_their_age(chain: Chain, now_us: int) -> None:
    stood = blocks(chain)
    safe = sum(at + chain.safe_after_us <= now_us for at in stood)
    final = sum(at + chain.final_after_us <= now_us for at in stood)

    assert chain.safe_height_at(now_us) == safe
    assert chain.final_height_at(now_us) == final
    vouched = {Trust.SAFE: safe, Trust.FINAL: final, Trust.BRIDGE: chain.height_at(now_us)}
    assert chain.trusted_height_at(now_us) == vouched[chain.trust]
    assert final <= safe <= chain.height_at(now_us)


@given(chains(), times, times)
def test_heights_never_fall(chain: Chain, one_us: int, other_us: int) -> None:
    early_us, late_us = sorted((one_us, other_us))

    assert chain.height_at(early_us) <= chain.height_at(late_us)
    assert chain.trusted_height_at(early_us) <= chain.trusted_height_at(late_us)
    assert chain.time_at(early_us) <= chain.time_at(late_us)


@given(st.integers(1, 300), st.integers(1, 40), times)
def test_a_chain_that_starts_halted_has_no_height_below_zero(
    until_us: int, block_us: int, now_us: int
) -> None:
    chain = Chain(
        block_us=block_us,
        safe_after_us=0,
        final_after_us=0,
        halts=(Halt(from_us=0, until_us=until_us),),
    )

    assert chain.height_at(now_us) == sum(at_us <= now_us for at_us in blocks(chain))
