import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.dice import BLOCK, Dice

FAR = 10**12

seeds = st.integers(0, 2**64)
names = st.text(max_size=20)
block_numbers = st.one_of(st.integers(0, 8), st.integers(0, FAR))


@given(seed=seeds, name=names, numbers=st.lists(block_numbers, min_size=1, max_size=4))
def test_a_block_is_the_same_whatever_was_drawn_before(
    seed: int, name: str, numbers: list[int]
) -> None:
    dice = Dice(seed, name)

    for number in numbers:
        assert np.array_equal(dice.block(number), Dice(seed, name).block(number))


@given(seed=seeds, name=names, data=st.data())
def test_blocks_out_of_order_are_the_blocks_in_order(
    seed: int, name: str, data: st.DataObject
) -> None:
    in_order, out_of_order = Dice(seed, name), Dice(seed, name)
    expected = [in_order.block(number) for number in range(6)]

    for number in data.draw(st.permutations(range(6))):
        assert np.array_equal(out_of_order.block(number), expected[number])


@given(seed=seeds, count=st.integers(0, 4 * BLOCK), drawn=st.lists(block_numbers, max_size=2))
def test_the_first_draws_are_the_blocks_in_a_row(seed: int, count: int, drawn: list[int]) -> None:
    dice = Dice(seed, "a")
    for number in drawn:
        dice.block(number)
    row = np.concatenate([dice.block(number) for number in range(4)])

    first = dice.first(count)

    assert first.shape == (count,)
    assert np.array_equal(first, row[:count])


def test_no_draw_stands_in_two_blocks() -> None:
    draws = Dice(1, "a").first(16 * BLOCK)

    assert len(np.unique(draws)) == len(draws)


@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, BLOCK + 1])
def test_as_many_draws_come_as_asked_for(count: int) -> None:
    assert len(Dice(1, "a").first(count)) == count


@given(one=st.tuples(seeds, names), other=st.tuples(seeds, names))
def test_streams_of_other_seeds_or_names_share_nothing(
    one: tuple[int, str], other: tuple[int, str]
) -> None:
    shared = np.intersect1d(Dice(*one).block(0), Dice(*other).block(0))

    assert len(shared) == (BLOCK if one == other else 0)


def test_draws_are_uniform_and_never_one() -> None:
    draws = Dice(7, "a").first(100_000)

    assert draws.min() >= 0
    assert draws.max() < 1
    shares = np.histogram(draws, bins=10, range=(0, 1))[0] / len(draws)
    assert np.abs(shares - 0.1).max() < 4 * (0.09 / len(draws)) ** 0.5


def test_draws_stay_what_they_were_when_logs_were_written() -> None:
    """Runs of one seed must agree across machines and versions, so a few draws are written out."""
    dice = Dice(1, "link/hub/base/reservation/first/body")

    assert dice.block(0)[:2].tolist() == [0.6456436117666001, 0.09220293756889353]
    block, index = divmod(256_255, BLOCK)
    assert dice.block(block)[index] == 0.8440510156985378
