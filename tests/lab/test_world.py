"""What is well formed and cannot work is refused before the run, with the knob to turn."""

from pathlib import Path
from typing import Any

import pytest

from lab import reading, running
from lab.policies import named_intents
from lab.world import build, deposits_of
from messaging.errors import InputRefused
from messaging.units import HOUR_US
from tests.lab.test_reading import tables


def made(**changed: Any) -> None:
    build(reading.check(tables(**changed), directory=Path()))


def refusal(**changed: Any) -> str:
    with pytest.raises(InputRefused) as caught:
        made(**changed)
    return str(caught.value)


def test_a_credit_line_that_ends_before_it_can_arrive_is_refused() -> None:
    said = refusal(latency="constant:3600s", duration_h=24.0)
    assert said.startswith("reservation.ttl_s: expected more than 7,232 s, a way to base and back")
    made(latency="constant:3600s", duration_h=24.0, reservation={"ttl_s": 14_400})


def test_a_command_that_ends_before_it_can_arrive_is_refused() -> None:
    said = refusal(latency="constant:900s", liquidation={"command_ttl_s": 60})
    assert said.startswith("liquidation.command_ttl_s: expected more than 1,832 s")


@pytest.mark.parametrize("price_usd", [1e-5, 1e-4])
def test_amounts_that_no_message_could_carry_are_refused(price_usd: float) -> None:
    prices = {
        "kind": "gbm",
        "assets": {"BTC": {"price_usd": price_usd, "volatility_per_sqrt_year": 0.5}},
    }
    traders = {"accounts": 3, "open_until_h": 2.0, "collateral_usd": 1e9}
    says = "traders: expected collateral * leverage_max, and orders of each named account, below"
    assert says in refusal(prices=prices, traders=traders)


def test_many_positions_and_many_actions_are_only_more_orders() -> None:
    traders = {"accounts": 5, "open_until_h": 2.0, "positions_max": 12, "actions_per_day": 500}
    made(traders=traders)


@pytest.mark.parametrize(
    "changed",
    [
        {"reporting": {"funding_h": 1e-11}},
        {"assets": [{"name": "BTC", "depth_usd_per_s": 1e-7}]},
        {"hub": {"block_s": 1e-9}},
    ],
)
def test_what_rounds_to_nothing_is_refused(changed: dict[str, Any]) -> None:
    assert "expected float >=" in refusal(**changed)


def test_a_lane_that_a_family_lacks_is_refused() -> None:
    spokes = [{"name": "mainnet", "chain": "ethereum"}]
    assert "cctp_v1" in refusal(latency="cctp_v1", spokes=spokes)


def test_named_accounts_stand_behind_the_others_with_orders_of_their_own() -> None:
    order = {"at_h": 1.0, "spoke": "base", "asset": "BTC"}
    orders = [order | {"notional_usd": -5e5}, order | {"at_h": 2.0, "close_ppm": 250_000}]
    named = [{"name": "whale", "collateral_usd": 1e6, "orders": orders}]
    few = {"accounts": 2, "open_until_h": 2.0, "actions_per_day": 0}
    drawn, both = (
        reading.check(tables(traders=traders), directory=Path())
        for traders in (few, few | {"named": named})
    )

    assert deposits_of(both) == (*deposits_of(drawn), ("t00002", 10**12))
    assert [
        (intent.at_us, intent.account, intent.notional_usd6, intent.close_ppm)
        for intent in named_intents(both)
    ] == [(HOUR_US, 2, -5 * 10**11, 0), (2 * HOUR_US, 2, 0, 250_000)]
    result = running.run(build(both)).story.result
    assert result.orders == running.run(build(drawn)).story.result.orders + 2


def test_written_orders_that_no_message_could_carry_are_refused() -> None:
    order = {"at_h": 1.0, "spoke": "base", "asset": "BTC", "notional_usd": 1e9}
    named = [{"name": "whale", "collateral_usd": 1.0, "orders": [order] * 5}]
    assert "and orders of each named account" in refusal(traders={"accounts": 1, "named": named})
