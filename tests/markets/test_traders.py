"""Traders want what their own dice say, and nothing that messages do changes it."""

import msgspec
import pytest

from markets.traders import (
    Intent,
    TraderPolicy,
    Traders,
    account_name,
    collateral_usd6,
    plan,
)
from messaging.effects import Send, SetTimer
from messaging.envelope import Envelope
from messaging.messages import Family, MarketMoved, OrderPlaced
from messaging.node import TimerFired
from messaging.units import HOUR_US, ONE, USD, Asset, Micros, NodeId, Ppm, Usd6

POLICY = TraderPolicy(
    accounts=200,
    collateral_usd6=Usd6(20_000 * USD),
    collateral_sigma=1.0,
    leverage_min=2.0,
    leverage_max=8.0,
    long_ppm=Ppm(700_000),
    hedged_ppm=Ppm(150_000),
    positions_max=3,
    open_from_us=Micros(HOUR_US),
    open_until_us=Micros(3 * HOUR_US),
    actions_per_day=6.0,
)
DAY_US = Micros(24 * HOUR_US)


def planned(policy: TraderPolicy = POLICY, seed: int = 1) -> list[Intent]:
    return plan(policy, seed, spokes=3, assets=2, duration_us=DAY_US)


def test_plans_are_in_order_inside_the_run_and_start_with_an_opening() -> None:
    intents = planned()
    assert intents == sorted(intents)
    first: dict[tuple[int, int, int], Intent] = {}
    for one in intents:
        assert HOUR_US <= one.at_us < DAY_US
        assert (one.notional_usd6 == 0) != (one.close_ppm == 0)
        first.setdefault((one.account, one.spoke, one.asset), one)
    assert all(one.notional_usd6 and one.at_us < 3 * HOUR_US for one in first.values())


def test_opening_notional_is_leverage_times_collateral() -> None:
    quiet = msgspec.structs.replace(POLICY, actions_per_day=0.0)
    total = dict.fromkeys(range(POLICY.accounts), 0)
    for one in planned(quiet):
        total[one.account] += abs(one.notional_usd6)
    for number, usd6 in total.items():
        leverage = usd6 / collateral_usd6(POLICY, 1, number)
        assert 2.0 - 1e-6 <= leverage <= 8.0 + 1e-6


def test_shares_come_out_as_asked_for() -> None:
    many = msgspec.structs.replace(POLICY, accounts=2_000, positions_max=1, actions_per_day=6.0)
    intents = planned(many)
    opening: dict[int, Intent] = {}
    for one in intents:
        opening.setdefault(one.account, one)
    longs = sum(one.notional_usd6 > 0 for one in opening.values())
    actions = (len(intents) - 2_000) / 2_000  # over the 22 hours that are left on average

    assert longs == pytest.approx(1_400, abs=5 * 20.5)
    assert actions == pytest.approx(6.0 * 22 / 24, rel=0.05)


def test_one_more_account_changes_nobody_elses_plan() -> None:
    more = msgspec.structs.replace(POLICY, accounts=201)
    assert [one for one in planned(more) if one.account < 200] == planned()
    assert planned(seed=2) != planned()


def test_collateral_is_lognormal_around_its_median() -> None:
    found = sorted(collateral_usd6(POLICY, 1, number) for number in range(1_000))
    assert found[500] == pytest.approx(20_000 * USD, rel=0.15)
    assert found[841] / found[500] == pytest.approx(2.718, rel=0.25)
    fixed = msgspec.structs.replace(POLICY, collateral_sigma=0.0)
    assert collateral_usd6(fixed, 1, 7) == 20_000 * USD


def test_orders_go_out_on_time_at_the_price_of_the_hour() -> None:
    intents = [
        Intent(Micros(0), 0, 0, 0, 5_000 * USD, 0),
        Intent(Micros(10), 1, 1, 1, -300 * USD, 0),
        Intent(Micros(10), 0, 0, 0, 0, 250_000),
    ]
    spokes = [NodeId("base"), NodeId("optimism")]
    node = Traders(NodeId("traders"), intents, spokes, [Asset("BTC"), Asset("ETH")])
    moved = MarketMoved(prices_usd6=(Usd6(10_000 * USD), Usd6(200 * USD)), depth_ppm=Ppm(1_000_000))
    assert list(node.start()) == [SetTimer("next", Micros(1))]  # behind the first prices
    name = NodeId("market")
    node.handle(Micros(0), Envelope(name, node.name, Family.PRICE, 1, 0, Micros(0), 0, 0, moved))

    first, timer = node.handle(Micros(1), TimerFired("next"))
    assert timer == SetTimer("next", Micros(10))
    assert first == Send(
        spokes[0],
        Family.ORDER,
        OrderPlaced(
            order_id=0, account=account_name(0), asset=Asset("BTC"), qty8=ONE // 2, close_ppm=0
        ),
    )
    second, third = node.handle(Micros(10), TimerFired("next"))
    assert isinstance(second, Send)
    assert isinstance(third, Send)
    assert (second.to, second.message.qty8) == (spokes[1], -3 * ONE // 2)  # type: ignore[union-attr]
    assert (third.message.qty8, third.message.close_ppm) == (0, 250_000)  # type: ignore[union-attr]
