"""Which positions are closed: at least cost, to the target, and no further."""

from fractions import Fraction
from itertools import product

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hub.margin.buffer import SqrtTimeBuffer, range_ppm
from hub.margin.requirement import Conditions, MarginPolicy
from hub.planning import CloseOut, Holding, Leg, least_cost
from messaging.units import ONE, USD
from tests.hub.test_oracle import BTC

EXTRA_PPM = 20_000
LOTS = 4
RIGID = tuple(
    msgspec.structs.replace(BTC, asset=name, depth_usd6_per_s=10**18) for name in ("BTC", "ETH")
)
SOFT = tuple(msgspec.structs.replace(risk, depth_usd6_per_s=10**9) for risk in RIGID)
PRICES = (100 * USD, 7 * USD)
AGES_S = st.sampled_from([0.0, 60.0, 60.0, 900.0, 7_200.0])


class Book:
    """Legs on a spoke each: (asset, a quarter of the size, long, age, cost, wait)."""

    def __init__(self, risks: tuple, rows: list[tuple]) -> None:
        self.policy = MarginPolicy(assets=risks, buffer=SqrtTimeBuffer(), gain_age_max_s=600.0)
        tau_s = [[0.0, 0.0] for _ in range(4)]
        self.legs = []
        for spoke, (asset, lot_qty8, long, age_s, cost_ppm, wait_ppm) in enumerate(rows):
            tau_s[spoke][asset] = age_s
            qty8 = LOTS * lot_qty8 * (1 if long else -1)
            self.legs.append(Leg(spoke, asset, qty8, cost_ppm, wait_ppm))
        self.conditions = Conditions(
            prices_usd6=PRICES, tau_s=tau_s, gain_share_ppm=[0] * len(tau_s)
        )
        by_asset = [[leg for leg in self.legs if leg.asset == asset] for asset in (0, 1)]
        self.holdings = [
            Holding(self.policy, self.conditions, legs, EXTRA_PPM) for legs in by_asset if legs
        ]

    def plan(self, missing_usd6: int, dust_usd6: int = 0) -> list[int]:
        """Return what the plan leaves of each leg, in the order of the legs."""
        sizes = least_cost(self.holdings, missing_usd6, dust_usd6)
        left = {
            leg.spoke: size
            for holding, kept in zip(self.holdings, sizes, strict=True)
            for leg, size in zip(holding.legs, kept, strict=True)
        }
        return [left[leg.spoke] for leg in self.legs]

    def margin_usd(self, sizes: list[int] | tuple[int, ...]) -> tuple[Fraction, Fraction]:
        """Return requirement and notional in exact dollars, from rule M3 as it is written."""
        required = notional = Fraction(0)
        for asset, risk in enumerate(self.policy.assets):
            held = []
            for leg, size in zip(self.legs, sizes, strict=True):
                if leg.asset == asset and size:
                    value = Fraction(size * PRICES[asset], ONE * USD)
                    unwind_s = float(value * USD) / risk.unwind_usd6_per_s
                    age_s = self.conditions.tau_s[leg.spoke][asset] + unwind_s / 3
                    ratio = Fraction(range_ppm(self.policy.buffer, risk, age_s), 1_000_000)
                    held.append((value if leg.qty8 > 0 else -value, ratio))
            notional += sum(abs(value) for value, _ in held)
            required += max(_loss(held, 1), _loss(held, -1), Fraction(0))
        return required, notional

    def gain_usd(self, sizes: list[int] | tuple[int, ...]) -> Fraction:
        """Return how much nearer to its target the account is with these sizes."""
        whole = [abs(leg.qty8) for leg in self.legs]
        before, after = self._aim_usd(whole), self._aim_usd(sizes)
        return before - after - self.paid_usd(sizes, waits=False)

    def _aim_usd(self, sizes: list[int] | tuple[int, ...]) -> Fraction:
        required, notional = self.margin_usd(sizes)
        return required + notional * Fraction(EXTRA_PPM, 1_000_000)

    def paid_usd(self, sizes: list[int] | tuple[int, ...], *, waits: bool = True) -> Fraction:
        """Return what closing down to these sizes costs, waiting included or not."""
        return sum(
            (
                Fraction((abs(leg.qty8) - size) * PRICES[leg.asset], ONE * USD)
                * Fraction(leg.cost_ppm + waits * leg.wait_ppm, 1_000_000)
                for leg, size in zip(self.legs, sizes, strict=True)
            ),
            Fraction(0),
        )

    def cheapest(self, missing_usd: Fraction) -> tuple[Fraction, tuple[int, ...]] | None:
        """Return the best of all plans in whole lots, by trying every one; None if none will do."""
        whole = [abs(leg.qty8) for leg in self.legs]
        now, _ = self.margin_usd(whole)
        found = []
        for lots in product(range(LOTS + 1), repeat=len(self.legs)):
            sizes = tuple(size * lot // LOTS for size, lot in zip(whole, lots, strict=True))
            if self.margin_usd(sizes)[0] <= now and self.gain_usd(sizes) >= missing_usd:
                found.append((self.paid_usd(sizes), sizes))
        return min(found, default=None)


def _loss(held: list[tuple[Fraction, Fraction]], side: int) -> Fraction:
    """Return what a move against one side costs: its winners at no larger range than its losers."""
    losing = [(side * value, ratio) for value, ratio in held if side * value > 0]
    winning = [(-side * value, ratio) for value, ratio in held if side * value < 0]
    most = min((ratio for _, ratio in losing), default=Fraction(10))
    won = sum(value * min(ratio, most) for value, ratio in winning)
    return sum((value * ratio for value, ratio in losing), Fraction(0)) - won


def rows(assets: int, most: int = 4, costs: int = 30_000) -> st.SearchStrategy[list[tuple]]:
    leg = st.tuples(
        st.integers(0, assets - 1),
        st.integers(1, 40).map(lambda units: units * ONE // 10),
        st.booleans(),
        AGES_S,
        st.integers(100, costs),
        st.sampled_from([0, 0, 1_000, 20_000]),
    )
    return st.lists(leg, min_size=1, max_size=most)


shares = st.fractions(Fraction(1, 1_000), Fraction(1))


def lacking(book: Book, share: Fraction) -> int:
    """Return a share of what the account needs at most [usd6]."""
    whole = [abs(leg.qty8) for leg in book.legs]
    return max(1, int(book._aim_usd(whole) * share * USD))


def on_one_side(found: list[tuple]) -> list[tuple]:
    """Return the rows with all legs of an asset on one side."""
    return [(asset, lot, asset == 0, *rest) for asset, lot, _, *rest in found]


@settings(max_examples=40, deadline=None)
@given(rows(2).map(on_one_side), shares)
def test_no_plan_in_lots_is_cheaper_without_hedges_while_ranges_stay(
    found: list[tuple], share: Fraction
) -> None:
    dearer_at_most(Book(RIGID, found), share, Fraction(0))


@settings(max_examples=40, deadline=None)
@given(rows(2).map(on_one_side), shares)
def test_where_ranges_shrink_with_size_it_is_at_most_a_fiftieth_dearer(
    found: list[tuple], share: Fraction
) -> None:
    dearer_at_most(Book(SOFT, found), share, Fraction(1, 50))


@settings(max_examples=40, deadline=None)
@given(rows(2), shares)
def test_with_hedges_of_several_ages_it_is_at_most_a_fifth_dearer(
    found: list[tuple], share: Fraction
) -> None:
    dearer_at_most(Book(RIGID, found), share, Fraction(1, 5))


def dearer_at_most(book: Book, share: Fraction, tolerance: Fraction) -> None:
    missing_usd6 = lacking(book, share)
    best = book.cheapest(Fraction(missing_usd6 + 20, USD))
    assume(best is not None)
    assert best is not None
    paid_usd = book.paid_usd(book.plan(missing_usd6))

    assert paid_usd <= best[0] * (1 + tolerance) + Fraction(20, USD)


@pytest.mark.parametrize("risks", [RIGID, SOFT])
@settings(max_examples=40, deadline=None)
@given(rows(2, costs=120_000), shares)
def test_the_target_is_met_whenever_a_plan_meets_it(
    risks: tuple, found: list[tuple], share: Fraction
) -> None:
    book = Book(risks, found)
    missing_usd6 = lacking(book, share)
    sizes = book.plan(missing_usd6)
    if book.cheapest(Fraction(missing_usd6 + 20, USD)) is None and not any(sizes):
        return  # closing parts does not help, so all is closed

    assert book.gain_usd(sizes) * USD >= missing_usd6 - 5  # what the figures themselves round


@pytest.mark.parametrize("risks", [RIGID, SOFT])
@given(rows(2), shares)
def test_it_only_reduces_and_never_raises_the_requirement(
    risks: tuple, found: list[tuple], share: Fraction
) -> None:
    book = Book(risks, found)
    whole = [abs(leg.qty8) for leg in book.legs]
    sizes = book.plan(lacking(book, share))

    assert all(0 <= size <= before for size, before in zip(sizes, whole, strict=True))
    assert book.margin_usd(sizes)[0] <= book.margin_usd(whole)[0]


@given(rows(2), shares)
def test_no_more_is_closed_than_is_lacking(found: list[tuple], share: Fraction) -> None:
    """What is gained beyond that is what the last lots round up."""
    book = Book(RIGID, found)
    missing_usd6 = lacking(book, share)
    sizes = book.plan(missing_usd6)
    if any(sizes):
        assert book.gain_usd(sizes) * USD - missing_usd6 <= 20 + 3 * len(book.legs)


@given(rows(2), st.integers(-(10**12), 0))
def test_who_lacks_nothing_keeps_all(found: list[tuple], missing_usd6: int) -> None:
    book = Book(RIGID, found)

    assert book.plan(missing_usd6) == [abs(leg.qty8) for leg in book.legs]


def test_the_cheaper_of_two_legs_alike_goes_first_and_the_dearer_for_the_rest() -> None:
    book = Book(RIGID, [(0, ONE, True, 0.0, 9_000, 0), (0, ONE, True, 0.0, 5_000, 0)])
    small, large = book.plan(10 * USD), book.plan(60 * USD)

    assert small[0] == 4 * ONE
    assert 0 < small[1] < 4 * ONE
    assert large[1] == 0
    assert 0 < large[0] < 4 * ONE


def test_an_older_leg_goes_first_for_its_release_and_last_for_the_wait() -> None:
    """Both cost the same. The older releases more; charged for its age it comes second."""
    fresh, old = (0, ONE, True, 0.0, 9_000, 0), (0, ONE, True, 900.0, 9_000, 0)
    waiting = (*old[:5], 19_112)

    assert Book(RIGID, [fresh, old]).plan(10 * USD)[0] == 4 * ONE
    assert Book(RIGID, [fresh, waiting]).plan(10 * USD)[1] == 4 * ONE


def test_a_hedge_is_not_closed_before_what_it_hedges() -> None:
    """Long 4, short 2 at next to no cost: the short releases nothing, whatever it costs."""
    hedged = [(0, ONE, True, 0.0, 15_000, 0), (0, ONE // 2, False, 0.0, 1, 0)]
    sizes = Book(RIGID, hedged).plan(10 * USD)

    assert sizes[1] == 2 * ONE
    assert 2 * ONE <= sizes[0] < 4 * ONE


def test_a_hedge_is_not_closed_though_the_target_asks_for_less_notional() -> None:
    """A target of a tenth of notional gains by it; alone it would raise the requirement."""
    book = Book(RIGID, [(0, ONE, True, 0.0, 15_000, 0), (0, ONE // 2, False, 0.0, 1, 0)])
    holding = Holding(book.policy, book.conditions, book.legs, 100_000)
    (sizes,) = least_cost([holding], 5 * USD, 0)

    assert sizes[1] > 0
    assert book.margin_usd(sizes)[0] < book.margin_usd(holding.whole)[0]


def test_a_balanced_hedge_gives_on_both_sides() -> None:
    """What is left of the requirement is for two ages, and either leg alone would raise it."""
    hedged = [(0, ONE, True, 0.0, 9_000, 0), (0, ONE, False, 7_200.0, 9_000, 0)]
    book = Book(RIGID, hedged)
    sizes = book.plan(int(book.gain_usd([0, 0]) * USD) * 2 // 3)

    assert all(0 < size < 4 * ONE for size in sizes)


@pytest.mark.parametrize(("dust_usd6", "left"), [(199 * USD, True), (201 * USD, False)])
def test_what_would_be_left_below_dust_is_closed_too(dust_usd6: int, left: bool) -> None:
    """A dollar closed gains 7.5 cents, so that 15 dollars are 200 of 400."""
    book = Book(RIGID, [(0, ONE, True, 0.0, 10_000, 0)])
    sizes = book.plan(15 * USD, dust_usd6)

    assert sizes == ([2 * ONE] if left else [0])


def test_who_is_not_restored_by_closing_parts_is_closed_whole() -> None:
    book = Book(RIGID, [(0, ONE, True, 0.0, 90_000, 0), (1, ONE, True, 0.0, 10_000, 0)])

    assert book.plan(30 * USD) == [0, 0]


@pytest.mark.parametrize(
    ("size_usd", "cost_ppm"), [(0, 10_600), (100_000, 10_700), (300_000, 10_900), (10**9, 10_900)]
)
def test_closing_walks_the_book_as_far_as_one_slice(size_usd: int, cost_ppm: int) -> None:
    market = CloseOut(rate_ppm=10_600, depth_usd6=5_000_000 * USD, slice_usd6=300_000 * USD)

    assert market.cost_ppm(size_usd * USD) == cost_ppm
