"""Several feeds of an asset: no minority moves the price, and doubt stops credit alone."""

from bisect import bisect_right

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.node import Hub
from hub.oracle import Doubt, OraclePolicy, Print, Said, Used, agreed, weight_ppm
from lab import reading, running
from lab.policies import feed_policies
from lab.result import Result
from lab.world import World, build
from messaging.envelope import Envelope
from messaging.errors import InputRefused
from messaging.messages import (
    Family,
    LiquidationOrdered,
    PricePublished,
    RejectReason,
    ReservationGranted,
    ReservationRejected,
)
from messaging.units import HOUR_US, HUB, ONE, SECOND_US, USD, Micros
from tests.hub.test_oracle import ANN, CASH, Desk, ask, reports
from tests.simulation.small import MARCH_2020, scenario

S, FRESH_US, NOW_US = SECOND_US, 124 * SECOND_US, 10**12
POLICY = OraclePolicy(
    feeds=3,
    fresh_us=FRESH_US,
    spread_ppm=20_000,
    twap_us=300 * S,
    twap_ppm=100_000,
    pegs_usd6=(0,),
    peg_ppm=10_000,
)


def said(price_usd6: int, observed_us: int, error_ppm: int = 0) -> Said:
    return Said(Print(price_usd6=price_usd6, observed_us=observed_us), error_ppm)


honest = st.builds(
    said, st.integers(10**6, 10**12), st.integers(NOW_US - FRESH_US, NOW_US), st.integers(0, 10**6)
)
anything = st.builds(
    said,
    st.integers(1, 2**62),
    st.integers(0, NOW_US) | st.integers(NOW_US - FRESH_US, NOW_US + 10**12),
    st.integers(0, 2**62),
)


@given(st.sampled_from([3, 4, 5, 7, 9]), st.data())
def test_no_minority_moves_price_or_time_out_of_what_the_others_say(
    feeds: int, data: st.DataObject
) -> None:
    policy = msgspec.structs.replace(POLICY, feeds=feeds)
    wrong = (feeds - 1) // 2
    others = data.draw(st.lists(honest, min_size=feeds - wrong, max_size=feeds - wrong))
    liars = data.draw(st.lists(anything, max_size=wrong))
    price_usd6, observed_us = agreed(policy, data.draw(st.permutations([*others, *liars])), NOW_US)

    prices = [one.print.price_usd6 for one in others]
    times = [one.print.observed_us for one in others]
    assert min(prices) <= price_usd6 <= max(prices)
    assert min(times) <= observed_us <= max(times)


@given(anything, anything)
def test_an_older_print_and_a_larger_error_weigh_less(one: Said, other: Said) -> None:
    older = min(one.print.observed_us, other.print.observed_us)
    worse = Said(
        msgspec.structs.replace(one.print, observed_us=older), max(one.error_ppm, other.error_ppm)
    )
    assert 750_000 <= weight_ppm(POLICY, worse, NOW_US) <= weight_ppm(POLICY, one, NOW_US)
    assert weight_ppm(POLICY, one, NOW_US) <= 1_000_000


def test_weight_decides_between_feeds_that_are_right() -> None:
    """Four feeds: of two old and low and two young and high, the median is a young one's."""
    policy = msgspec.structs.replace(POLICY, feeds=4)
    low = [said(99, NOW_US - FRESH_US), said(99, NOW_US - FRESH_US)]
    high = [said(101, NOW_US), said(101, NOW_US)]

    assert agreed(policy, low + high, NOW_US)[0] == 101
    assert (
        agreed(policy, [said(99, NOW_US)] * 2 + [said(101, NOW_US - FRESH_US)] * 2, NOW_US)[0] == 99
    )


def test_of_stale_feeds_all_count_and_of_some_fresh_ones_only_those() -> None:
    old = NOW_US - FRESH_US - 1
    assert agreed(POLICY, [said(1, old), said(2, old - 5), said(3, old)], NOW_US) == (2, old)
    assert agreed(POLICY, [said(1, old), said(2, old), said(3, NOW_US)], NOW_US) == (3, NOW_US)


@given(
    st.lists(st.tuples(st.integers(1, 200 * S), st.integers(1, 10**10)), min_size=1, max_size=20),
    st.integers(0, 400 * S),
)
def test_the_mean_price_is_that_of_the_last_minutes(
    steps: list[tuple[int, int]], after_us: int
) -> None:
    """By adding up second by second what was in use, from a path in whole seconds."""
    used, told, now_us = [], Used(), 0
    for gap_us, price_usd6 in steps:
        now_us += gap_us // S * S + S
        used.append((Micros(now_us), price_usd6))
        told.note(Micros(300 * S), price_usd6, Micros(now_us))
    now_us += after_us // S * S
    seconds = [
        next(price for since, price in reversed(used) if since <= at)
        for at in range(max(now_us - 300 * S, used[0][0]), now_us, S)
    ]
    expected = sum(seconds) // len(seconds) if seconds else used[-1][1]

    assert told.mean_usd6(Micros(300 * S), Micros(now_us)) == expected


def desk(**changed: object) -> Desk:
    one = Desk(priced=False)
    oracle = msgspec.structs.replace(POLICY, **changed)
    before = one.hub.state.policy
    zones = tuple(msgspec.structs.replace(zone, overdue_after_us=10**12) for zone in before.zones)
    policy = msgspec.structs.replace(before, oracle=oracle, zones=zones)
    one.hub = Hub(policy, [(ANN, CASH)])
    return one


def says(one: Desk, feed: int, usd: float, *, error_ppm: int = 0, depth_ppm: int = 0) -> None:
    message = PricePublished(
        asset="BTC",
        price_usd6=round(usd * USD),
        observed_us=one.now_us,
        feed=feed,
        error_ppm=error_ppm,
        depth_ppm=depth_ppm,
    )
    one.hub.handle(one.now_us, Envelope("oracle", HUB, Family.PRICE, 1, 0, 0, 0, 0, message))


def price(one: Desk) -> int:
    return one.hub.state.prints[0].price_usd6


def answer(one: Desk, number: int) -> object:
    """Return why credit is refused, or that it is not."""
    (found,) = one.tell(ask(number))
    if isinstance(found, ReservationRejected):
        return found.reason
    assert isinstance(found, ReservationGranted)
    return None


def doubts(one: Desk) -> set[Doubt]:
    state = one.hub.state
    assert state.policy.oracle is not None
    return state.feeds[0].doubts(state.policy.oracle, 0, state.prints[0], one.now_us)


def test_there_is_a_price_when_most_feeds_have_said_one() -> None:
    one = desk()
    says(one, 0, 1.0)
    assert price(one) == 0
    assert answer(one, 1) is RejectReason.PRICE_UNKNOWN

    says(one, 0, 2.0)
    says(one, 7, 500.0)  # there is no such feed
    assert price(one) == 0
    says(one, 1, 100.0)
    says(one, 2, 100.0)
    assert price(one) == 100 * USD


def agree(one: Desk, usd: float, feeds: tuple[int, ...] = (0, 1, 2)) -> None:
    for feed in feeds:
        says(one, feed, usd)


def test_a_bent_feed_stops_credit_and_liquidates_nobody() -> None:
    one = desk()
    one.report(reports(1, qty8=50 * ONE, cost_usd6=5_000 * USD))
    agree(one, 100.0)
    assert answer(one, 1) is None

    one.now_us += 10 * S
    says(one, 0, 50.0)
    assert price(one) == 100 * USD
    assert doubts(one) == {Doubt.SPREAD}
    assert answer(one, 2) is RejectReason.PRICE_DOUBTED
    assert not any(isinstance(told, LiquidationOrdered) for told in one.block(one.now_us))

    one.now_us += 10 * S
    says(one, 0, 100.0)
    assert answer(one, 3) is None


def test_a_stuck_feed_stops_credit_and_no_liquidation() -> None:
    one = desk()
    one.report(reports(1, qty8=100 * ONE, cost_usd6=10_000 * USD))
    agree(one, 100.0)
    for usd in (98.0, 96.0, 94.0):
        one.now_us += 60 * S
        says(one, 0, 100.0)
        agree(one, usd, (1, 2))
    assert price(one) == 94 * USD
    assert answer(one, 1) is RejectReason.PRICE_DOUBTED
    assert any(isinstance(told, LiquidationOrdered) for told in one.block(one.now_us))


def test_feeds_that_fall_silent_stop_credit_and_the_last_ones_price_stays() -> None:
    one = desk()
    agree(one, 100.0)
    one.now_us += 100 * S
    says(one, 2, 101.0)
    assert doubts(one) == set()
    one.now_us += 30 * S
    says(one, 2, 100.5)
    assert doubts(one) == {Doubt.FEW}
    assert price(one) == 100_500_000


def test_a_feed_that_admits_a_large_error_is_a_spread() -> None:
    one = desk()
    agree(one, 100.0, (0, 1))
    says(one, 2, 100.5, error_ppm=16_000)

    assert doubts(one) == {Doubt.SPREAD}


def test_a_price_that_runs_away_stops_credit_until_its_mean_has_come_up() -> None:
    one = desk()
    agree(one, 100.0)
    one.now_us += 60 * S
    agree(one, 115.0)
    assert doubts(one) == {Doubt.RUNAWAY}
    one.now_us += 100 * S
    agree(one, 115.0)
    assert doubts(one) == set()


def test_the_mean_knows_the_price_that_was_in_use_when_its_span_began() -> None:
    one = desk()
    for now_s, usd in ((0, 100.0), (290, 120.0), (320, 120.0)):
        one.now_us = now_s * S
        agree(one, usd)
    assert doubts(one) == {Doubt.RUNAWAY}


def test_one_feed_off_the_peg_stops_credit_and_most_of_them_move_the_price() -> None:
    one = desk(pegs_usd6=(USD,))
    agree(one, 1.0)
    assert doubts(one) == set()
    one.now_us += 10 * S
    says(one, 0, 0.985)
    assert doubts(one) == {Doubt.OFF_PEG}
    assert price(one) == USD
    says(one, 1, 0.985)
    assert price(one) == 985_000
    one.report(reports(1, qty8=10_000 * ONE, cost_usd6=11_000 * USD))
    assert any(isinstance(told, LiquidationOrdered) for told in one.block(one.now_us))


CALM = {
    "BTC": {"price_usd": 60_000, "volatility_per_sqrt_year": 0.4},
    "ETH": {"price_usd": 3_000, "volatility_per_sqrt_year": 0.4},
    "SOL": {"price_usd": 100, "volatility_per_sqrt_year": 0.4},
}


def world(feeds: int, **fault: object) -> World:
    """Return six calm hours, from half past two on with a fault."""
    tables = reading.read_file(MARCH_2020)
    tables["duration_h"] = 6.0
    tables["traders"] = {"accounts": 150, "open_until_h": 5.0}
    tables["prices"] = {"kind": "gbm", "correlation": 0.8, "assets": CALM}
    faults = [{"from_h": 2.5, "until_h": 5.0, **fault}] if fault else []
    tables["oracle"] = {"feeds": feeds, "error_ppm": 200, "faults": faults}
    return build(reading.check(tables, directory=MARCH_2020.parent))


def ran(one: World) -> Result:
    outcome = running.run(one)
    assert outcome.finding is None
    return outcome.story.result


BENT = {"feed": 1, "kind": "bent", "factor_ppm": 700_000}


def test_of_three_feeds_a_bent_one_liquidates_nobody_whom_it_would_alone() -> None:
    alone, among = ran(world(1, **(BENT | {"feed": 0}))), ran(world(3, **BENT))
    honest = ran(world(3))

    assert alone.liquidations > 20
    assert among.liquidations <= honest.liquidations + 1
    assert among.reservations.granted < honest.reservations.granted


@pytest.mark.parametrize("kind", ["silent", "stuck"])
def test_of_three_feeds_one_may_fail_and_prices_in_use_stay_true(kind: str) -> None:
    one = world(3, feed=2, kind=kind)
    far = []
    for record in one.driver().run():
        if record.at_us > 2 * HOUR_US and record.node == HUB:
            true = one.path.prices_usd6[bisect_right(one.path.times_us, record.at_us) - 1]
            used = [known.price_usd6 for known in one.hub.state.prints]
            far.append(max(abs(u / t - 1) for u, t in zip(used, true, strict=True)))
    assert len(far) > 1_000
    assert max(far) < 0.012


def test_a_run_with_three_feeds_is_the_same_again() -> None:
    assert ran(world(3, **BENT)).digest == ran(world(3, **BENT)).digest


def test_each_feed_may_have_an_error_of_its_own() -> None:
    known = scenario(oracle={"feeds": 3, "error_ppm": [0, 100, 500]})
    errors = {one.feed: one.error_ppm for one in feed_policies(known)}

    assert errors == {0: 0, 1: 100, 2: 500}


@pytest.mark.parametrize(
    ("oracle", "where"),
    [
        ({"feeds": 2}, "oracle.feeds"),
        ({"feeds": 10}, "oracle.feeds"),
        ({"feeds": 3, "error_ppm": [1, 2]}, "oracle.error_ppm: expected one number, or one for"),
        ({"feeds": 3, "error_ppm": [1, 2, -3]}, "oracle.error_ppm"),
        ({"feeds": 3, "faults": [BENT | {"feed": 3, "from_h": 0, "until_h": 1}]}, "faults.0..feed"),
        ({"feeds": 3, "faults": [BENT | {"from_h": 2, "until_h": 1}]}, "faults.0..until_h"),
        ({"faults": [BENT | {"feed": 0, "from_h": 0, "until_h": 1, "asset": "DOGE"}]}, "asset"),
        ({"faults": [{"feed": 0, "kind": "bend", "from_h": 0, "until_h": 1}]}, "kind"),
    ],
)
def test_an_oracle_that_makes_no_sense_is_refused(oracle: dict[str, object], where: str) -> None:
    with pytest.raises(InputRefused, match=where):
        scenario(oracle=oracle)


@pytest.mark.parametrize("lie_ppm", [1, 1_000_000])
def test_one_feed_alone_does_not_say_how_deep_the_market_is(lie_ppm: int) -> None:
    one = desk()
    for feed, depth_ppm in enumerate((20_000, lie_ppm, 20_000)):
        says(one, feed, 100, depth_ppm=depth_ppm)
    assert one.hub.state.prints[0].depth_ppm == 20_000
