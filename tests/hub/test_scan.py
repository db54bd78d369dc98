"""Margin of books with options: what holds of every book, and the rules written out again."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.margin.buffer import SqrtTimeBuffer, range_ppm
from hub.margin.options.black import CALL, PUT
from hub.margin.requirement import Conditions, MarginPolicy, Reported, assess
from hub.margin.scan.account import Holding, Standing, isolated, required, stand
from hub.margin.scan.grid import GRIDS, Grid, Scenario, VolatilityShock, span
from hub.margin.scan.legs import Leg, Market, OptionRisk, ScanPolicy, Series
from hub.margin.scan.requirement import Requirement, size_usd6
from hub.margin.scan.table import Column, RiskTable, risk_arrays
from messaging.units import ONE, USD
from tests.hub.test_oracle import BTC
from tests.hub.test_requirement import SOL, state

FULL, DAY_US = 1_000_000, 86_400 * 1_000_000
SPOKES = 3
RATE = OptionRisk(rate_ppm=40_000)
POLICY = ScanPolicy(
    margin=MarginPolicy(assets=(BTC, SOL), buffer=SqrtTimeBuffer(), gain_age_max_s=600.0),
    options=(RATE, OptionRisk(range_ppm=200_000)),
    grid=GRIDS["span16"],
    shock=VolatilityShock(),
)
NAMES = ("BTC", "SOL")


def market(
    *,
    prices: Sequence[int] = (60_000 * USD, 150 * USD),
    ages_s: Sequence[float] = (30.0, 90.0, 600.0),
    confidence_ppm: Sequence[int] = (FULL, FULL),
    share: int = FULL,
) -> Market:
    conditions = Conditions(
        prices_usd6=prices,
        tau_s=tuple((age_s, age_s + 7.0) for age_s in ages_s),
        gain_share_ppm=(share,) * SPOKES,
    )
    return Market(conditions, confidence_ppm)


MARKET = market()


def perpetual(qty: float, *, spoke: int = 0, place: int = 0, cost_usd6: int = 0) -> Leg:
    return Leg(spoke=spoke, place=place, qty8=round(qty * ONE), cost_usd6=cost_usd6)


def option(
    sign: int,
    strike_usd: float,
    qty: float,
    *,
    days: float = 30.0,
    volatility_ppm: int = 600_000,
    spoke: int = 0,
    place: int = 0,
    cost_usd6: int = 0,
) -> Leg:
    series = Series(
        sign=sign,
        strike_usd6=round(strike_usd * USD),
        left_us=round(days * DAY_US),
        volatility_ppm=volatility_ppm,
    )
    qty8 = round(qty * ONE)
    return Leg(spoke=spoke, place=place, qty8=qty8, cost_usd6=cost_usd6, series=series)


def one(*legs: Leg, policy: ScanPolicy = POLICY, known: Market = MARKET) -> Requirement:
    (found,) = required(policy, known, legs, legs)
    return found


def with_grid(*scenarios: Scenario) -> ScanPolicy:
    return msgspec.structs.replace(POLICY, grid=Grid("own", scenarios))


def holding(legs: Sequence[Leg], cash_usd6: int = 0) -> Holding:
    return Holding(cash_usd6=cash_usd6, unsettled_usd6=(0,) * SPOKES, legs=tuple(legs))


quantities = st.integers(-50 * ONE, 50 * ONE).filter(bool)
perpetuals = st.builds(
    Leg,
    spoke=st.integers(0, SPOKES - 1),
    place=st.integers(0, 1),
    qty8=quantities,
    cost_usd6=st.integers(-(10**12), 10**12),
)


@st.composite
def options(draw: st.DrawFn) -> Leg:
    place = draw(st.integers(0, 1))
    return option(
        draw(st.sampled_from([CALL, PUT])),
        draw(st.sampled_from([0.7, 0.9, 1.0, 1.1, 1.4])) * (60_000, 150)[place],
        draw(quantities) / ONE,
        days=draw(st.sampled_from([0.0, 0.5, 7.0, 30.0, 200.0])),
        volatility_ppm=600_000,
        spoke=draw(st.integers(0, SPOKES - 1)),
        place=place,
        cost_usd6=draw(st.integers(-(10**12), 10**12)),
    )


def distinct(legs: list[Leg]) -> list[Leg]:
    """Return the legs, no contract twice on a spoke."""
    kinds = {(leg.spoke, leg.place, leg.series): leg for leg in legs}
    return list(kinds.values())


books = st.lists(st.one_of(perpetuals, options()), min_size=1, max_size=9).map(distinct)
ages = st.lists(st.floats(0.0, 1e5), min_size=SPOKES, max_size=SPOKES)


# --- linear books ----------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(perpetuals, max_size=6).map(distinct),
    ages,
    st.lists(st.integers(1, 10**12), min_size=2, max_size=2),
    st.integers(-(10**12), 10**12),
    st.integers(0, FULL),
)
def test_a_book_of_perpetuals_stands_as_by_the_linear_rules_to_the_millionth(
    legs: list[Leg], ages_s: list[float], prices: list[int], cash_usd6: int, share: int
) -> None:
    """Rules M1 to M5 are what is left of the scan without options."""
    known = market(prices=prices, ages_s=ages_s, share=share)
    found = stand(POLICY, known, holding(legs, cash_usd6))
    states = [
        state(*((NAMES[leg.place], leg.qty8, leg.cost_usd6) for leg in legs if leg.spoke == spoke))
        for spoke in range(SPOKES)
    ]
    reports = [Reported(each, each) for each in states]
    linear = assess(POLICY.margin, POLICY.margin.index(), known.conditions, cash_usd6, reports)

    assert found.equity_usd6 == found.equity_initial_usd6 == linear.equity_usd6
    assert found.maintenance_usd6 == linear.maintenance_usd6
    assert found.initial_usd6 == linear.initial_usd6


def test_one_option_moves_all_of_an_underlying_to_the_wider_range() -> None:
    alone, beside = one(perpetual(1.0)), one(perpetual(1.0), option(CALL, 90_000, 0.01, spoke=1))

    assert alone.linear
    assert not beside.linear
    assert beside.perpetual_usd6 == 1_800 * USD
    assert beside.maintenance_usd6 > 2 * alone.maintenance_usd6


# --- the rules, written out again --------------------------------------------------------------


def plainly(leg: Leg, price_usd: float, days_on: float, factor: float, rate: float) -> float:
    """Return what a leg is worth [USD], from the normal distribution of the standard library."""
    units = leg.qty8 / ONE
    if leg.series is None:
        return units * price_usd
    strike, years = leg.series.strike_usd6 / 1e6, max(0.0, leg.series.left_days - days_on) / 365
    sd = leg.series.volatility_ppm / 1e6 * factor * math.sqrt(years)
    owed = strike * math.exp(-rate * years)
    if sd == 0.0:
        return units * max(0.0, leg.series.sign * (price_usd - owed))
    phi, d1 = NormalDist().cdf, math.log(price_usd / owed) / sd + sd / 2
    sign = leg.series.sign
    return units * sign * (price_usd * phi(sign * d1) - owed * phi(sign * (d1 - sd)))


def by_hand(
    legs: list[Leg], known: Market, rows: Sequence[tuple[float, int, float]]
) -> list[float]:
    """Return scan, MM, IM and basis of a book on BTC [USD], as docs/options.md has them.

    `rows` are move in ranges, way of volatility, share that counts.
    """
    price, rate = known.conditions.prices_usd6[0] / 1e6, 0.04
    outcomes = []
    expiries = sorted({leg.series.left_days for leg in legs if leg.series})
    for move, way, share in rows:
        pnl = 0.0
        for days in (None, *expiries):
            value = before = 0.0
            for leg in legs:
                if (leg.series.left_days if leg.series else None) != days:
                    continue
                size = abs(leg.qty8) / ONE * price
                tau_s = known.conditions.tau_s[leg.spoke][0] + size / 25_000 / 3
                wide = msgspec.structs.replace(BTC, maintenance_margin_ppm=150_000)
                reach = range_ppm(SqrtTimeBuffer(), wide, tau_s) / 1e6
                factor = 1.0
                if way and days is not None:
                    power = 0.3 if days <= 30 else 0.13
                    up = (30 / max(days, 1)) ** power
                    factor = 1 + 0.6 * up if way > 0 else max(0.0, 1 - 0.3 * up)
                there = price * (1 + move * reach)
                value += plainly(leg, there, tau_s / 86_400, factor, rate)
                before += plainly(leg, price, 0.0, 1.0, rate)
            if days is not None and value > 0:
                value *= 0.95 * math.exp(-days / 365 * (rate + 0.12))
            pnl += value - before
        outcomes.append(pnl * share)
    basis = 0.0
    for days in expiries:
        here = [leg for leg in legs if leg.series and leg.series.left_days == days]
        moved = [
            sum(
                plainly(leg, price * up, 0.0, 1.0, rate) - plainly(leg, price, 0.0, 1.0, rate)
                for leg in here
            )
            for up in (1.05, 0.95)
        ]
        basis += min(0.0, *moved) * (1 + 1.2 * days / 365)
    scan = max(0.0, -min(*outcomes, basis))
    net: dict[object, float] = {}
    for leg in legs:
        kind = leg.series and (leg.series.sign, leg.series.strike_usd6, leg.series.left_us)
        net[kind] = net.get(kind, 0.0) + leg.qty8 / ONE
    beside = 0.03 * price * abs(net.pop(None, 0.0))
    beside += 0.02 * price * sum(max(0.0, -units) for units in net.values())
    return [scan, scan + beside, 1.25 * scan + beside, basis]


SIXTEEN = [
    *((thirds / 3, way, 1.0) for thirds in (0, 1, -1, 2, -2, 3, -3) for way in (1, -1)),
    (2.0, 0, 0.35),
    (-2.0, 0, 0.35),
]
WIDE = [(4 / 3, 1, 1.0), (-4 / 3, 1, 1.0)]
TWENTY_THREE = [(t / 3, way, 1.0) for t in range(-3, 4) for way in (1, 0, -1)] + WIDE


@settings(max_examples=150, deadline=None)
@given(books, ages, st.sampled_from([("span16", SIXTEEN), ("pmrm", TWENTY_THREE)]))
def test_requirements_are_those_of_the_rules_written_out_again(
    legs: list[Leg], ages_s: list[float], grid: tuple[str, list[tuple[float, int, float]]]
) -> None:
    """Within what thirds of a range, as whole millionths, do to a book of this size."""
    legs = [leg for leg in legs if leg.place == 0]
    if not any(leg.series for leg in legs):
        return
    known = market(ages_s=ages_s)
    policy = msgspec.structs.replace(POLICY, grid=GRIDS[grid[0]])
    found, plain = one(*legs, policy=policy, known=known), by_hand(legs, known, grid[1])
    room = 1e-3 + 1e-6 * sum(size_usd6(leg, 60_000 * USD) for leg in legs) / 1e6

    assert found.scan_usd6 / 1e6 == pytest.approx(plain[0], abs=room, rel=1e-9)
    assert found.maintenance_usd6 / 1e6 == pytest.approx(plain[1], abs=room, rel=1e-9)
    assert found.initial_usd6 / 1e6 == pytest.approx(plain[2], abs=2 * room, rel=1e-9)
    assert found.basis_usd6 / 1e6 == pytest.approx(plain[3], abs=room, rel=1e-9)


def test_the_example_of_the_document() -> None:
    """Long perpetual on one spoke, covered by a short call on another."""
    known = market(ages_s=(136.0, 195.0, 0.0))
    legs = [perpetual(1.0), option(CALL, 66_000, -1.0, spoke=1)]
    found, plain = one(*legs, known=known), by_hand(legs, known, SIXTEEN)

    assert found.maintenance_usd6 / 1e6 == pytest.approx(plain[1], abs=0.1)
    text = (Path(__file__).parent.parent.parent / "docs" / "options.md").read_text()
    for usd6 in (found.scan_usd6, found.maintenance_usd6, found.initial_usd6):
        assert f" {usd6 / 1e6:,.2f}\n" in text
    assert found.worst == 12  # the thirteenth: one range down, volatility up


def test_two_expiries_that_hedge_each_other_still_pay_for_their_basis() -> None:
    """Far in the money: like futures, 5 % of 60,000 each, and what a straddle gains is no help."""
    bought, sold = option(CALL, 6_000, 1.0), option(CALL, 6_000, -1.0, days=200.0)
    straddle = [option(sign, 60_000, 1.0, days=1.0) for sign in (CALL, PUT)]
    found, more = one(bought, sold), one(bought, sold, *straddle)
    years = 30 / 365, 200 / 365

    assert found.worst is None
    assert found.scan_usd6 == -found.basis_usd6
    assert found.basis_usd6 / 1e6 == pytest.approx(-3_000 * (2 + 1.2 * sum(years)), rel=1e-6)
    assert more.basis_usd6 == pytest.approx(found.basis_usd6, abs=1)


# --- laws ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(books, ages)
def test_spokes_together_never_require_more_than_alone(
    legs: list[Leg], ages_s: list[float]
) -> None:
    known, book = market(ages_s=ages_s, confidence_ppm=(FULL, 400_000)), holding(legs)
    whole, alone = stand(POLICY, known, book), isolated(POLICY, known, book)

    assert whole.maintenance_usd6 <= sum(each.maintenance_usd6 for each in alone) + 1
    assert whole.initial_usd6 <= sum(each.initial_usd6 for each in alone) + 1
    assert whole.recognised_usd6 == tuple(each.recognised_usd6 for each in alone)


def test_a_hedge_across_spokes_is_worth_more_together() -> None:
    book = holding([option(CALL, 60_000, -1.0), option(CALL, 60_000, 1.0, spoke=1)])
    whole, alone = stand(POLICY, MARKET, book), isolated(POLICY, MARKET, book)

    assert 0 < whole.maintenance_usd6 < alone[0].maintenance_usd6 / 4
    assert alone[2].needed_usd6 == 0


def test_a_spoke_alone_needs_its_initial_margin_and_what_it_has_lost() -> None:
    legs = [perpetual(1.0, cost_usd6=61_000 * USD)]
    legs.append(perpetual(-1.0, spoke=1, cost_usd6=-61_000 * USD))
    lost, won, idle = isolated(POLICY, MARKET, holding(legs))

    assert lost.needed_usd6 == lost.initial_usd6 + 1_000 * USD
    assert won.needed_usd6 == won.initial_usd6 - 1_000 * USD
    assert idle.needed_usd6 == 0


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.builds(perpetual, st.floats(0.01, 9.0)),
            st.builds(
                option,
                st.just(CALL),
                st.floats(30_000, 90_000),
                st.floats(0.01, 9.0),
                days=st.floats(0.0, 300.0),
                spoke=st.integers(0, SPOKES - 1),
            ),
        ),
        min_size=1,
        max_size=5,
    ),
    st.floats(0.0, 1e5),
    st.floats(0.0, 1e5),
)
def test_age_never_lowers_what_a_book_requires_that_only_a_fall_can_hurt(
    legs: list[Leg], age_s: float, more_s: float
) -> None:
    young, old = (
        one(*legs, known=market(ages_s=(each,) * SPOKES)) for each in (age_s, age_s + more_s)
    )

    assert old.maintenance_usd6 >= young.maintenance_usd6 - 1
    assert old.initial_usd6 >= young.initial_usd6 - 1


@settings(deadline=None)
@given(
    st.sampled_from([CALL, PUT]),
    st.floats(40_000, 90_000),
    st.floats(3.0, 300.0),
    st.floats(0.0, 1e5),
    st.floats(60.0, 1e5),
)
def test_age_makes_a_short_option_dearer(
    sign: int, strike_usd: float, days: float, age_s: float, more_s: float
) -> None:
    """Three days and more: the range outgrows what the seller earns by waiting."""
    leg = option(sign, strike_usd, -1.0, days=days)
    young, old = (
        one(leg, known=market(ages_s=(each,) * SPOKES)) for each in (age_s, age_s + more_s)
    )

    assert old.maintenance_usd6 > young.maintenance_usd6


@settings(deadline=None)
@given(books, st.integers(2, 9))
def test_a_book_several_times_as_large_requires_as_many_times_as_much_and_more(
    legs: list[Leg], times: int
) -> None:
    """More, for it takes longer to close, unless waiting is what its hedges need."""
    slow = tuple(
        msgspec.structs.replace(risk, depth_usd6_per_s=10**24) for risk in POLICY.margin.assets
    )
    deep = msgspec.structs.replace(
        POLICY, margin=msgspec.structs.replace(POLICY.margin, assets=slow)
    )
    larger = [msgspec.structs.replace(leg, qty8=times * leg.qty8) for leg in legs]
    found, grown = (sum_of(deep, each) for each in (legs, larger))

    assert grown == pytest.approx(times * found, abs=20.0 * times, rel=1e-9)


def sum_of(policy: ScanPolicy, legs: Sequence[Leg]) -> int:
    return stand(policy, MARKET, holding(legs)).maintenance_usd6


def test_a_bought_option_can_lose_no_more_than_it_is_worth_and_its_discount() -> None:
    found = one(option(CALL, 60_000, 1.0, days=7.0))
    worth = stand(POLICY, MARKET, holding([option(CALL, 60_000, 1.0, days=7.0)]))

    assert 0.9 * worth.equity_usd6 < found.scan_usd6 <= worth.equity_usd6 + 1
    assert found.naked_usd6 == 0


def test_nothing_is_expected_of_a_scenario_but_time_and_discount() -> None:
    """What stays: 95 %, and 12 % a year less; a short option pays for neither."""
    policy = with_grid(Scenario(move_ppm=0))
    policy = msgspec.structs.replace(policy, options=(OptionRisk(basis_ppm=0),) * 2)
    known = market(ages_s=(0.0,) * SPOKES)
    legs = option(CALL, 60_000, 1e-6, days=365.0), option(CALL, 60_000, -1e-6, days=365.0)
    bought, sold = (one(leg, policy=policy, known=known) for leg in legs)
    worth = stand(policy, known, holding(legs[:1])).equity_usd6

    assert bought.scan_usd6 == pytest.approx(worth * (1 - 0.95 * math.exp(-0.12)), abs=2)
    assert sold.scan_usd6 <= 1


def test_an_option_that_expires_in_between_is_worth_what_is_inside() -> None:
    policy = with_grid(Scenario(move_ppm=FULL, volatility=1))
    known = market(ages_s=(3_600.0,) * SPOKES)
    sold = one(option(CALL, 60_000, -1e-4, days=0.001), policy=policy, known=known)
    wide = msgspec.structs.replace(BTC, maintenance_margin_ppm=150_000)
    inside_usd = 6.0 * range_ppm(SqrtTimeBuffer(), wide, 3_600.0 + 6 / 75_000) / 1e6

    assert sold.scan_usd6 / 1e6 < inside_usd
    assert sold.scan_usd6 / 1e6 == pytest.approx(inside_usd, abs=0.03)


def test_doubt_about_the_price_is_initial_margin_only_and_in_linear_books_too() -> None:
    for legs in ([perpetual(1.0)], [perpetual(1.0), option(PUT, 50_000, -1.0)]):
        sure, doubted, just = (
            one(*legs, known=market(confidence_ppm=(confidence, FULL)))
            for confidence in (FULL, 540_000, 550_000)
        )
        assert doubted.maintenance_usd6 == sure.maintenance_usd6 == just.maintenance_usd6
        assert doubted.initial_usd6 - sure.initial_usd6 == 0.46 * 60_000 * USD * len(legs)
        assert just.initial_usd6 == sure.initial_usd6


def test_naked_is_what_is_sold_on_balance_of_one_contract() -> None:
    sold, covered = option(CALL, 70_000, -2.0), option(CALL, 70_000, 0.5, spoke=2)
    other = option(CALL, 75_000, 2.0, spoke=2)

    assert one(sold).naked_usd6 == 2_400 * USD
    assert one(sold, covered).naked_usd6 == 1_800 * USD
    assert one(sold, other).naked_usd6 == 2_400 * USD


# --- grids -------------------------------------------------------------------------------------


def test_spans_sixteen_are_in_spans_order() -> None:
    rows = [(row.move_ppm, row.volatility, row.share_ppm) for row in GRIDS["span16"].scenarios]

    assert rows == [(round(move * FULL), way, round(share * FULL)) for move, way, share in SIXTEEN]
    assert [row.share_ppm for row in GRIDS["span16x3"].scenarios[-2:]] == [330_000] * 2
    assert [row.move_ppm for row in GRIDS["span16x3"].scenarios[-2:]] == [3 * FULL, -3 * FULL]
    assert {(row.move_ppm, row.volatility, row.share_ppm) for row in GRIDS["pmrm"].scenarios} == {
        (round(move * FULL), way, FULL) for move, way, _ in TWENTY_THREE
    }
    assert len(GRIDS["pmrm"].scenarios) == len(TWENTY_THREE) == 23


@pytest.mark.parametrize(
    ("days", "up", "down"),
    [(30, 1.6, 0.7), (1, 2.6645, 0.16774), (0, 2.6645, 0.16774), (120, 1.50106, 0.74947)],
)
def test_volatilities_move_more_the_nearer_the_expiry(days: float, up: float, down: float) -> None:
    shock = VolatilityShock()

    assert shock.factor(1, days) == pytest.approx(up, rel=1e-4)
    assert shock.factor(-1, days) == pytest.approx(down, rel=1e-4)
    assert shock.factor(0, days) == 1.0
    assert VolatilityShock(down_ppm=900_000).factor(-1, 1.0) == 0.0


def test_what_counts_of_the_extremes_is_a_knob() -> None:
    """A call far out of the money is hurt by them alone."""
    leg, known = option(CALL, 78_000, -1.0, days=2.0), market(ages_s=(0.0,) * SPOKES)
    scans = [
        one(
            leg,
            policy=msgspec.structs.replace(
                POLICY, grid=span("own", extreme_ppm=extreme, share_ppm=share)
            ),
            known=known,
        )
        for extreme, share in ((2 * FULL, 350_000), (3 * FULL, 330_000), (3 * FULL, FULL))
    ]

    assert [found.worst for found in scans] == [14, 14, 14]
    assert scans[0].scan_usd6 < scans[1].scan_usd6
    assert scans[2].scan_usd6 == pytest.approx(scans[1].scan_usd6 / 0.33, rel=1e-6)


# --- all accounts at once ----------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.lists(books, min_size=1, max_size=6),
    ages,
    st.sampled_from(sorted(GRIDS)),
    st.integers(0, FULL),
)
def test_the_table_of_all_accounts_says_of_each_what_it_must_hold(
    accounts: list[list[Leg]], ages_s: list[float], grid: str, confidence: int
) -> None:
    policy = msgspec.structs.replace(POLICY, grid=GRIDS[grid])
    check_table(policy, market(ages_s=ages_s, confidence_ppm=(confidence, FULL)), accounts)


def test_the_table_keeps_one_expirys_gain_from_anothers_loss_of_basis() -> None:
    legs = [option(CALL, 6_000, 1.0), option(CALL, 6_000, -1.0, days=200.0)]
    legs += [option(sign, 60_000, 1.0, days=1.0) for sign in (CALL, PUT)]

    assert one(*legs).worst is None
    check_table(POLICY, MARKET, [legs, legs[:2]])


def check_table(policy: ScanPolicy, known: Market, accounts: list[list[Leg]]) -> None:
    """Compare within the rounding of the whole numbers; each leg has its unwind, so its column."""
    legs = [(account, leg) for account, book in enumerate(accounts) for leg in book]
    columns = [Column(leg.spoke, leg.place, leg.series, unwind_s(leg, known)) for _, leg in legs]
    table = RiskTable(
        policy,
        columns,
        len(accounts) + 1,
        account=np.array([account for account, _ in legs]),
        column=np.arange(len(legs)),
        units=np.array([leg.qty8 / ONE for _, leg in legs]),
    )
    found = table.remargin(risk_arrays(policy, known, columns))

    for account, book in enumerate([*accounts, []]):
        exact: Standing = stand(policy, known, holding(book))
        gross = sum(size_usd6(leg, known.conditions.prices_usd6[leg.place]) for leg in book)
        room = (10 + 1e-9 * gross) / 1e6
        assert found.maintenance[account] == pytest.approx(exact.maintenance_usd6 / 1e6, abs=room)
        assert found.initial[account] == pytest.approx(exact.initial_usd6 / 1e6, abs=2 * room)


def unwind_s(leg: Leg, known: Market) -> float:
    risk = POLICY.margin.assets[leg.place]
    return size_usd6(leg, known.conditions.prices_usd6[leg.place]) / risk.unwind_usd6_per_s
