"""An oracle prints when the price has moved enough, or when it has not printed for long."""

import math
import statistics

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from markets.feed import FaultKind, Feed, FeedFault, FeedPolicy, due, seen
from messaging.effects import Send
from messaging.envelope import Envelope
from messaging.messages import Family, MarketMoved, PricePublished
from messaging.units import HUB, SECOND_US, USD, Asset, Micros, NodeId, Ppm, Usd6

S = SECOND_US
BTC, ETH = Asset("BTC"), Asset("ETH")
POLICY = FeedPolicy(asset=BTC, heartbeat_us=Micros(60 * S), deviation_ppm=Ppm(5_000))
PRICE = Usd6(10_000 * USD)


@pytest.mark.parametrize(
    ("price", "after_s", "expected"),
    [
        (10_000, 59, False),
        (10_000, 60, True),
        (10_050, 1, True),
        (10_049, 1, False),
        (9_950, 1, True),
        (9_951, 1, False),
    ],
)
def test_a_print_is_due_at_the_threshold_and_at_the_heartbeat(
    price: int, after_s: int, expected: bool
) -> None:
    last = (Micros(100 * S), PRICE)
    assert due(POLICY, last, Usd6(price * USD), Micros((100 + after_s) * S)) is expected


def prints(feed: Feed, now_s: int, *prices: int) -> list[PricePublished]:
    moved = MarketMoved(prices_usd6=tuple(Usd6(p * USD) for p in prices), depth_ppm=Ppm(1))
    name = NodeId("market")
    frame = Envelope(name, feed.name, Family.PRICE, 1, 0, Micros(0), 0, 0, moved)
    effects = feed.handle(Micros(now_s * S), frame)
    assert all(type(effect) is Send and effect.to == HUB for effect in effects)
    return [effect.message for effect in effects if isinstance(effect, Send)]  # type: ignore[misc]


def test_each_asset_prints_by_its_own_policy_and_says_when_the_price_was_true() -> None:
    policies = [
        POLICY,
        FeedPolicy(asset=ETH, heartbeat_us=Micros(600 * S), deviation_ppm=Ppm(20_000)),
    ]
    feed = Feed(NodeId("oracle"), HUB, policies)

    assert [one.asset for one in prints(feed, 0, 10_000, 200)] == [BTC, ETH]
    assert prints(feed, 4, 10_010, 201) == []
    (one,) = prints(feed, 8, 10_060, 203)
    assert (one.asset, one.price_usd6, one.observed_us) == (BTC, 10_060 * USD, 8 * S)
    assert [one.asset for one in prints(feed, 12, 10_060, 204)] == [ETH]


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(9_000, 11_000)), min_size=1))
def test_the_last_print_is_never_older_or_further_off_than_the_policy_says(
    steps: list[tuple[int, int]],
) -> None:
    feed = Feed(NodeId("oracle"), HUB, [POLICY])
    now_s, last_s, last = 0, 0, prints(feed, 0, 10_000)[0].price_usd6
    for step_s, price in steps:
        now_s += step_s
        for one in prints(feed, now_s, price):
            last_s, last = now_s, one.price_usd6
        assert now_s - last_s < 60
        assert abs(price * USD - last) * 1_000_000 < 5_000 * last


def of(feed: int, *faults: FeedFault, error_ppm: int = 0) -> FeedPolicy:
    return msgspec.structs.replace(
        POLICY, feed=feed, seed=7, error_ppm=Ppm(error_ppm), faults=faults
    )


def fault(kind: FaultKind, from_s: int, until_s: int) -> FeedFault:
    return FeedFault(
        kind=kind,
        from_us=Micros(from_s * S),
        until_us=Micros(until_s * S),
        factor_ppm=Ppm(500_000),
    )


def test_each_feed_of_an_asset_prints_under_its_own_number() -> None:
    feed = Feed(NodeId("oracle"), HUB, [of(0), of(1), of(2, error_ppm=100)])
    found = prints(feed, 0, 10_000)

    assert [one.feed for one in found] == [0, 1, 2]
    assert [one.error_ppm for one in found] == [0, 0, 100]
    assert [one.price_usd6 == PRICE for one in found] == [True, True, False]


def test_a_feed_is_silent_stuck_or_bent_in_its_time_and_right_again_behind_it() -> None:
    kinds = (FaultKind.SILENT, FaultKind.STUCK, FaultKind.BENT)
    feed = Feed(
        NodeId("oracle"), HUB, [of(n, fault(kind, 60, 180)) for n, kind in enumerate(kinds)]
    )
    said = {
        now_s: {one.feed: one.price_usd6 // USD for one in prints(feed, now_s, price)}
        for now_s, price in ((0, 10_000), (60, 11_000), (120, 11_000), (180, 12_000))
    }
    assert said == {
        0: {0: 10_000, 1: 10_000, 2: 10_000},
        60: {1: 10_000, 2: 5_500},
        120: {1: 10_000, 2: 5_500},
        180: {0: 12_000, 1: 12_000, 2: 12_000},
    }


def test_errors_are_normal_of_their_size_and_hang_on_seed_feed_asset_and_time_alone() -> None:
    times_us = [Micros(4 * S * n) for n in range(4_000)]

    def errors(policy: FeedPolicy) -> list[float]:
        found = [seen(policy, None, PRICE, at_us) for at_us in times_us]
        return [math.log(price_usd6 / PRICE) for price_usd6 in found if price_usd6 is not None]

    one = of(0, error_ppm=1_000)
    first = errors(one)
    assert errors(one) == first
    assert statistics.fmean(first) == pytest.approx(0.0, abs=6e-5)
    assert statistics.pstdev(first) == pytest.approx(0.001, rel=0.05)
    others = (
        of(1, error_ppm=1_000),
        *(msgspec.structs.replace(one, **change) for change in ({"seed": 8}, {"asset": ETH})),
    )
    for other in others:
        assert abs(statistics.correlation(first, errors(other))) < 0.06


def test_one_feed_without_error_prints_as_short_as_ever() -> None:
    """The fields of several feeds are not on the wire where there is one."""
    (found,) = prints(Feed(NodeId("oracle"), HUB, [POLICY]), 0, 10_000)

    assert set(msgspec.to_builtins(found)) == {"type", "asset", "price_usd6", "observed_us"}
