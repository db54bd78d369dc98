"""An oracle prints when the price has moved enough, or when it has not printed for long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from markets.feed import Feed, FeedPolicy, due
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
