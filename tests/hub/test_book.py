"""The book proposes whoever the exact assessment would act upon."""

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hub.margin.book import Book
from hub.margin.boxes import WIDTHS
from hub.margin.buffer import SqrtTimeBuffer
from hub.margin.requirement import Assessment, Conditions, MarginPolicy, Reported, assess
from messaging.messages import MarginStatus, Position, StateReported
from messaging.units import ONE, USD, ratio_up
from tests.hub.test_oracle import BTC

CALL, RESTORE = 1_150_000, 1_250_000
SOL = msgspec.structs.replace(BTC, asset="SOL", maintenance_margin_ppm=100_000, jump_ppm=50_000)
POLICY = MarginPolicy(assets=(BTC, SOL), buffer=SqrtTimeBuffer(), gain_age_max_s=600.0)
PLACES = POLICY.index()

Bounds = dict[tuple[int, int], int]


def state(held: dict[str, int], costs: dict[str, int], realised_usd6: int = 0) -> StateReported:
    return StateReported(
        account="ann",
        version=1,
        block_time_us=0,
        positions=tuple(
            Position(asset=asset, qty8=qty8, cost_usd6=costs.get(asset, 0))
            for asset, qty8 in held.items()
        ),
        realised_usd6=realised_usd6,
        fees_usd6=0,
        liquidation_fees_usd6=0,
    )


EMPTY = state({}, {})

ages = st.floats(0, 1e5)
sizes = st.integers(1, 10**11)
conditions_known = st.builds(
    Conditions,
    prices_usd6=st.tuples(*[st.integers(1_000, 10**11)] * 2),
    tau_s=st.tuples(*[st.tuples(ages, ages)] * 2),
    gain_share_ppm=st.tuples(*[st.integers(0, 1_000_000)] * 2),
)
costs = st.dictionaries(st.sampled_from(["BTC", "SOL"]), st.integers(-(10**14), 10**14))


@st.composite
def paths(draw: st.DrawFn) -> list[Conditions]:
    """Draw conditions one after the other, some a little and some far from those before."""
    path = [draw(conditions_known)]
    for _ in range(draw(st.integers(0, 3))):
        share = draw(st.sampled_from([0.001, 0.01, 0.05, 0.2]))
        moves = st.floats(-share, share)
        before = path[-1]
        path.append(
            Conditions(
                prices_usd6=[
                    max(1_000, round(price * (1.0 + draw(moves)))) for price in before.prices_usd6
                ],
                tau_s=[
                    [max(0.0, age_s + 6_000 * draw(moves)) for age_s in ages_s]
                    for ages_s in before.tau_s
                ],
                gain_share_ppm=[
                    min(1_000_000, max(0, part + round(10_000_000 * draw(moves))))
                    for part in before.gain_share_ppm
                ],
            )
        )
    return path


@st.composite
def states(draw: st.DrawFn, signs: dict[str, int]) -> StateReported:
    held = {asset: draw(sizes) * sign for asset, sign in signs.items() if draw(st.booleans())}
    return state(held, draw(costs), draw(st.integers(-(10**12), 10**12)))


@st.composite
def accounts(draw: st.DrawFn) -> tuple[list[Reported], Bounds]:
    """Draw an account over two spokes, of which one may hedge the other."""
    reports = []
    for _ in range(2):
        signs = {asset: draw(st.sampled_from([-1, 1])) for asset in ("BTC", "SOL")}
        reports.append(Reported(draw(states(signs)), EMPTY))
    places = st.tuples(st.integers(0, 1), st.integers(0, 1))
    return reports, draw(st.dictionaries(places, sizes | st.just(0), max_size=2))


def new_book(accounts: int) -> Book:
    return Book(POLICY, PLACES, spokes=2, accounts=accounts, call_ppm=CALL, restore_ppm=RESTORE)


def booked(reports: list[Reported], bounds: Bounds, cash_usd6: int, status: MarginStatus) -> Book:
    book = new_book(1)
    book.enter([book.row(0, spoke, report, bounds) for spoke, report in enumerate(reports)])
    book.set_cash(0, cash_usd6)
    book.set_code(0, status, busy=bool(bounds), done=False)
    return book


def called_for(standing: Assessment, status: MarginStatus, busy: bool) -> bool:
    """Tell whether an account's standing calls for a decision, in whole numbers."""
    equity, maintenance = standing.equity_usd6, standing.maintenance_usd6
    if equity < maintenance:
        return True
    if busy:
        return False
    if status is MarginStatus.OPEN:
        return equity < ratio_up(maintenance, CALL)
    return equity >= ratio_up(maintenance, RESTORE)


@settings(max_examples=300, deadline=None)
@given(
    accounts(),
    paths(),
    st.sampled_from([0, 1_000_000, CALL, RESTORE]),
    st.integers(-3, 3) | st.integers(-(10**13), 10**13),
    st.sampled_from(MarginStatus),
)
def test_whoever_must_be_acted_upon_is_proposed_wherever_conditions_come_from(
    account: tuple[list[Reported], Bounds],
    path: list[Conditions],
    threshold_ppm: int,
    off_usd6: int,
    status: MarginStatus,
) -> None:
    """Cash is chosen so that the account ends a hair from a threshold, or anywhere."""
    reports, bounds = account
    conditions = path[-1]
    poor = assess(POLICY, PLACES, conditions, 0, reports, bounds)
    assume(poor.maintenance_usd6)
    aim_usd6 = ratio_up(poor.maintenance_usd6, threshold_ppm)
    cash_usd6 = aim_usd6 - poor.equity_usd6 + off_usd6
    standing = assess(POLICY, PLACES, conditions, cash_usd6, reports, bounds)
    book = booked(reports, bounds, cash_usd6, status)

    for earlier in path[:-1]:
        book.proposed(earlier)
    proposed = book.proposed(conditions)
    assert proposed == [0] or not called_for(standing, status, bool(bounds))


@settings(max_examples=100, deadline=None)
@given(accounts(), conditions_known, st.integers(-(10**13), 10**13))
def test_the_books_standings_are_the_exact_ones_to_a_millionth(
    account: tuple[list[Reported], Bounds], conditions: Conditions, cash_usd6: int
) -> None:
    """To a millionth of what is held: ranges are rounded up to whole millionths of it."""
    reports, bounds = account
    standing = assess(POLICY, PLACES, conditions, cash_usd6, reports, bounds)
    whole = assess(POLICY, PLACES, conditions, cash_usd6, reports)
    book = booked(reports, bounds, cash_usd6, MarginStatus.OPEN)
    equity, maintenance = (float(figures[0]) for figures in book.standings(conditions)[:2])

    gross = whole.notional_usd6 + abs(cash_usd6) + 10**6
    assert equity == pytest.approx(standing.equity_usd6, abs=1e-6 * gross + 8)
    assert maintenance == pytest.approx(
        standing.maintenance_usd6, abs=1e-6 * standing.notional_usd6 + 8
    )


@pytest.mark.parametrize("status", [MarginStatus.OPEN, MarginStatus.REDUCE_ONLY])
def test_an_account_in_debt_and_without_positions_is_proposed(status: MarginStatus) -> None:
    conditions = Conditions(prices_usd6=(USD, USD), tau_s=((0.0, 0.0),) * 2, gain_share_ppm=(0, 0))
    book = booked([Reported(EMPTY, EMPTY)] * 2, {}, -5 * USD, status)

    assert book.proposed(conditions) == [0]


def test_a_large_hedge_a_hair_below_its_requirement_is_proposed() -> None:
    legs = [Reported(state({"BTC": sign * 10**12}, {}), EMPTY) for sign in (1, -1)]
    missed = []
    for age_s in range(1, 40):
        conditions = Conditions(
            prices_usd6=(100 * USD, USD),
            tau_s=((float(age_s),) * 2, (0.5, 0.5)),
            gain_share_ppm=(1_000_000, 1_000_000),
        )
        poor = assess(POLICY, PLACES, conditions, 0, legs)
        cash_usd6 = poor.maintenance_usd6 - poor.equity_usd6 - 1
        book = booked(legs, {}, cash_usd6, MarginStatus.REDUCE_ONLY)
        if not book.proposed(conditions):
            missed.append(age_s)

    assert missed == []


def test_an_account_that_is_done_is_never_proposed() -> None:
    conditions = Conditions(prices_usd6=(USD, USD), tau_s=((0.0, 0.0),) * 2, gain_share_ppm=(0, 0))
    book = booked([Reported(state({"BTC": ONE}, {}), EMPTY)] * 2, {}, -5 * USD, MarginStatus.OPEN)
    assert book.proposed(conditions) == [0]
    book.set_code(0, MarginStatus.FROZEN, busy=False, done=True)

    assert book.proposed(conditions) == []


def test_each_account_stands_on_its_own_and_a_new_row_replaces_the_old() -> None:
    conditions = Conditions(prices_usd6=(USD, USD), tau_s=((0.0, 0.0),) * 2, gain_share_ppm=(0, 0))
    book = new_book(3)
    held = Reported(state({"BTC": 7 * ONE}, {}), EMPTY)
    book.enter([book.row(1, 0, Reported(state({"SOL": ONE}, {}), EMPTY), {})])
    book.enter([book.row(1, 0, held, {}), book.row(2, 1, held, {})])
    book.set_cash(2, 5 * USD)
    equity, maintenance = book.standings(conditions)[:2]

    assert equity.tolist() == [0.0, 0.0, 5e6]
    assert maintenance[0] == 0
    assert maintenance[1] == maintenance[2] == pytest.approx(7e6 * 0.065, rel=1e-4)
    assert equity.dtype == np.float64


def corner(width: float, side: int) -> tuple[Conditions, Conditions]:
    """Return conditions, and the worst within a box about them for a long (-1) or a short (1)."""
    age_s = 100.0 + 6_000 * width
    return (
        Conditions(
            prices_usd6=(100 * USD, USD), tau_s=((100.0,) * 2,) * 2, gain_share_ppm=(900_000,) * 2
        ),
        Conditions(
            prices_usd6=(round(100 * USD * (1 + side * width)), USD),
            tau_s=((age_s,) * 2,) * 2,
            gain_share_ppm=(max(0, 900_000 - round(10_000_000 * width)),) * 2,
        ),
    )


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("width", [0.002499, 0.009999, 0.03999, 0.08])
@pytest.mark.parametrize("gain_usd", [0, 300])
@pytest.mark.parametrize("part", [0.7, 0.85, 0.999])
def test_an_account_is_looked_at_before_its_reach_ends(
    side: int, width: float, gain_usd: int, part: float
) -> None:
    """It crosses its threshold in the worst corner, or at a part of the way there."""
    start, end = corner(width, side)[0], corner(width * part, side)[1]
    qty8 = -side * 100 * ONE
    cost_usd6 = -side * 10_000 * USD - gain_usd * USD
    reports = [Reported(state({"BTC": qty8}, {"BTC": cost_usd6}), EMPTY), Reported(EMPTY, EMPTY)]
    poor = assess(POLICY, PLACES, end, 0, reports)
    cash_usd6 = ratio_up(poor.maintenance_usd6, CALL) - poor.equity_usd6 - 1
    book = booked(reports, {}, cash_usd6, MarginStatus.OPEN)

    assert book.proposed(start) == []
    assert book.proposed(end) == [0]


def test_an_account_that_has_changed_is_looked_at_though_nothing_else_has() -> None:
    conditions = corner(0.01, 1)[0]
    held = Reported(state({"BTC": ONE}, {"BTC": 100 * USD}), EMPTY)
    larger = Reported(state({"BTC": 200 * ONE}, {"BTC": 20_000 * USD}), EMPTY)
    changes: list[Callable[[Book], None]] = [
        lambda book: book.set_cash(0, USD),
        lambda book: book.set_code(0, MarginStatus.REDUCE_ONLY, busy=False, done=False),
        lambda book: book.enter([book.row(0, 0, larger, {})]),
    ]
    for change in changes:
        book = booked([held, Reported(EMPTY, EMPTY)], {}, 1_000 * USD, MarginStatus.OPEN)
        assert book.proposed(conditions) == []
        change(book)

        assert book.proposed(conditions) == [0]


def crossing(at: Conditions) -> Book:
    """Return a book whose long account is just below its call level at these conditions."""
    held = [Reported(state({"BTC": 100 * ONE}, {"BTC": 10**16}), EMPTY), Reported(EMPTY, EMPTY)]
    poor = assess(POLICY, PLACES, at, 0, held)
    cash_usd6 = ratio_up(poor.maintenance_usd6, CALL) - poor.equity_usd6 - 1
    return booked(held, {}, cash_usd6, MarginStatus.OPEN)


@pytest.mark.parametrize("age_s", [130.0, 400.0, 1_500.0, 20_000.0])
def test_age_alone_brings_an_account_back_to_a_look(age_s: float) -> None:
    young = Conditions(
        prices_usd6=(100 * USD, USD), tau_s=((100.0,) * 2,) * 2, gain_share_ppm=(0, 0)
    )
    old = msgspec.structs.replace(young, tau_s=((age_s,) * 2,) * 2)
    book = crossing(old)

    assert book.proposed(young) == []
    assert book.proposed(old) == [0]


@pytest.mark.parametrize("width", WIDTHS[:3].tolist())
def test_an_account_that_changes_away_from_a_boxs_middle_is_looked_at_in_time(width: float) -> None:
    """From one end of the box to the other is twice its width."""
    middle, end = corner(0.7 * width, -1)
    start = msgspec.structs.replace(middle, prices_usd6=(round(100 * USD * (1 + 0.7 * width)), USD))
    book = crossing(end)
    book.proposed(middle)
    book.set_code(0, MarginStatus.OPEN, busy=False, done=False)

    assert book.proposed(start) == []
    assert book.proposed(end) == [0]
