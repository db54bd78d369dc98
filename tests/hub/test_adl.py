"""Bankruptcy price and choice of the other side: laws of the pure functions."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.adl import Adl, Winner, bankruptcy_price_usd6, choose, pro_rata, queue, rank
from messaging.units import ONE, USD

sizes = st.integers(1, 10**13)


@st.composite
def winners(draw: st.DrawFn) -> list[Winner]:
    found = []
    for place in range(draw(st.integers(0, 6))):
        size_qty8 = draw(sizes)
        found.append(
            Winner(
                place,
                draw(st.integers(0, 2)),
                size_qty8,
                draw(st.sampled_from([size_qty8, draw(st.integers(0, size_qty8))])),
                draw(st.integers(0, 10**12)),
                Fraction(draw(st.integers(-50, 50))),
            )
        )
    return found


@given(
    st.booleans(),
    st.integers(1, 10**12),
    st.lists(st.integers(1, 10**11), min_size=1, max_size=4),
    st.fractions(0, 1),
)
def test_positions_at_the_bankruptcy_price_end_with_nothing_missing(
    long: bool, mark_usd6: int, held: list[int], share: object
) -> None:
    """Nor with more than a millionth of a dollar a unit, and two a position, for rounding."""
    notional = sum(-(-qty8 * mark_usd6 // ONE) for qty8 in held)
    missing = int(notional * share)
    price_usd6 = bankruptcy_price_usd6(
        mark_usd6, long=long, missing_usd6=missing, notional=notional
    )
    better = sum(qty8 * abs(price_usd6 - mark_usd6) // ONE for qty8 in held)

    assert price_usd6 >= 1
    assert (price_usd6 >= mark_usd6) if long else (price_usd6 <= max(1, mark_usd6))
    if price_usd6 > 1:
        assert missing - 2 * len(held) <= better <= missing + sum(held) // ONE + len(held)


@given(sizes, winners())
def test_pro_rata_gives_exactly_what_is_owed_and_nobody_more_than_he_may(
    owed: int, some: list[Winner]
) -> None:
    given_ = pro_rata(owed, some)

    assert sum(qty8 for _, qty8 in given_) == min(owed, sum(one.most_qty8 for one in some))
    assert all(0 < qty8 <= one.most_qty8 for one, qty8 in given_)


@given(st.integers(1, 10**9), st.lists(st.integers(1, 10**9), min_size=1, max_size=6))
def test_pro_rata_goes_by_maintenance_margin(owed: int, margins: list[int]) -> None:
    some = [Winner(n, 0, 10**12, 10**12, one, Fraction(0)) for n, one in enumerate(margins)]
    got = {one.place: qty8 for one, qty8 in pro_rata(owed, some)}

    for place, margin in enumerate(margins):
        assert abs(got.get(place, 0) - Fraction(owed * margin, sum(margins))) < 1


@given(sizes, winners())
def test_a_queue_closes_whole_positions_and_overshoots_by_less_than_the_last(
    owed: int, some: list[Winner]
) -> None:
    given_ = queue(owed, some)
    closed = sum(qty8 for _, qty8 in given_)

    assert all(qty8 == one.most_qty8 for one, qty8 in given_)
    assert closed >= min(owed, sum(one.most_qty8 for one in some))
    if given_:
        assert closed - given_[-1][1] < owed
        ranks = [one.rank for one, _ in given_]
        assert ranks == sorted(ranks, reverse=True)
        left_out = [one for one in some if one.most_qty8 and one not in [w for w, _ in given_]]
        assert all(one.rank <= ranks[-1] for one in left_out)


@pytest.mark.parametrize("adl", [Adl.PRO_RATA, Adl.QUEUE])
@given(owed=sizes, some=winners(), spoke=st.integers(0, 2))
def test_positions_on_the_same_spoke_come_first(
    adl: Adl, owed: int, some: list[Winner], spoke: int
) -> None:
    closed = dict(choose(adl, spoke, owed, some))
    if any(one.spoke != spoke for one in closed):
        near = [one for one in some if one.spoke == spoke]
        assert sum(one.most_qty8 for one in near) < owed
        assert all(closed.get(one, 0) == one.most_qty8 for one in near)


def test_profit_ranks_by_leverage_and_loss_against_it() -> None:
    def of(pnl: int, equity: int) -> Fraction:
        return rank(pnl * USD, 100 * USD, 100 * USD, equity * USD)

    assert of(10, 20) == Fraction(1, 10) * 5
    assert of(-10, 20) == -Fraction(1, 10) / 5
    assert of(10, 20) > of(10, 50) > of(0, 50) > of(-10, 20) > of(-10, 50)
