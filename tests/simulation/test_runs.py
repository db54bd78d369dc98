"""Whole runs: money is conserved, invariants hold, faults are found, stories come out right."""

from typing import Any

import pytest

from hub.reservation import State
from lab import plants, running
from lab.result import Result
from lab.world import World, build
from messaging.errors import InputRefused
from tests.simulation.small import scenario


def result(**changed: Any) -> Result:
    outcome = running.run(build(scenario(**changed)))
    assert outcome.finding is None, outcome.finding
    return outcome.story.result


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "links",
    [
        {},
        {"loss_ppm": 100_000},
        {"repeat_ppm": 300_000, "reorder_ppm": 200_000},
        {"loss_ppm": 300_000, "repeat_ppm": 200_000, "reorder_ppm": 200_000},
    ],
    ids=["clean", "lossy", "repeating", "all"],
)
@pytest.mark.parametrize("latency", ["layerzero", "constant:900s"])
def test_invariants_hold_whatever_the_links_do(
    seed: int, links: dict[str, int], latency: str
) -> None:
    found = result(
        seed=seed, links=links, latency=latency, traders={"accounts": 60, "open_until_h": 1.0}
    )
    assert found.violations == 0
    assert found.invariants_checked > 5_000
    assert found.reservations.granted > 0


def test_invariants_hold_through_outage_and_partition() -> None:
    spokes = scenario().spokes
    tables = [
        {"name": spokes[0].name, "chain": "base", "outages": [{"from_h": 3.5, "until_h": 5.0}]},
        {"name": spokes[1].name, "chain": "base", "partitions": [{"from_h": 2.0, "until_h": 4.0}]},
    ]
    found = result(spokes=tables)
    assert found.liquidations > 0


def drained(**changed: Any) -> World:
    """Run with traders that fall silent, long enough for every credit line to end."""
    traders = {"accounts": 80, "open_until_h": 1.0, "actions_per_day": 0.0}
    world = build(
        scenario(duration_h=10.0, traders=traders, reservation={"ttl_s": 3_600}, **changed)
    )
    assert running.run(world).finding is None
    return world


@pytest.mark.parametrize("links", [{}, {"loss_ppm": 200_000, "repeat_ppm": 200_000}])
def test_every_reservation_ends_once_trading_stops(links: dict[str, int]) -> None:
    """Liveness: nothing stays locked, nothing is overdue, channels run empty."""
    world = drained(links=links)
    hub = world.hub.state

    ended = (State.RELEASED, State.SETTLED, State.REJECTED)
    assert {known.state for known in hub.reservations.values()} <= set(ended)
    assert all(known.encumbered_usd6 == 0 for known in hub.reservations.values())
    assert not any(zone.overdue for zone in hub.zones)
    assert all(not spoke.state.credits for spoke in world.spokes)
    assert all(not spoke.state.orders for spoke in world.spokes)


def test_hub_and_spokes_agree_once_all_is_quiet() -> None:
    """What the ledger has settled is what the venues have booked, to the millionth."""
    world = drained()
    for spoke in world.spokes:
        place = world.hub.state.zone_of[spoke.name].place
        for account in world.hub.state.accounts:
            trader = spoke.state.trader(account.id)
            settled = account.views[place].settled
            assert settled.realised_usd6 == trader.realised_usd6
            assert settled.fees_usd6 == trader.fees_usd6
            held = {position.asset: position.qty8 for position in settled.positions}
            assert held == {asset: holding.qty8 for asset, holding in trader.holdings}


def test_latency_costs_bad_debt_and_buffers_buy_it_back() -> None:
    none, flat, weighted = (
        result(latency="constant:900s", buffer={"kind": kind})
        for kind in ("none", "flat", "sqrt_time")
    )
    fast = result(latency="layerzero", buffer={"kind": "none"})

    assert fast.bad_debt_usd6 < none.bad_debt_usd6
    assert weighted.bad_debt_usd6 < flat.bad_debt_usd6 < none.bad_debt_usd6
    assert none.bad_debt_usd6 == none.insurance_used_usd6 + none.uncovered_usd6


def test_a_liquidations_delay_is_the_sum_of_its_hops() -> None:
    story = running.run(build(scenario(latency="cctp_v1"))).story
    assert story.liquidations
    for one in story.liquidations:
        parts = ("oracle", "hub", "command", "inclusion", "unwind")
        assert one.hops["total"] == sum(one.hops[part] for part in parts)
        assert min(one.hops.values()) >= 0
        assert one.hops["oracle"] == 4_000_000


@pytest.mark.parametrize("name", plants.PLANTS)
def test_every_planted_fault_is_found(name: str) -> None:
    with plants.planted(name):
        outcome = running.run(build(scenario(latency="cctp_v1")))
    assert outcome.finding is not None
    assert outcome.finding.exit_code == 4
    assert outcome.story.result.violations == 1
    assert running.run(build(scenario(duration_h=3.0))).finding is None, "not taken out again"


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(InputRefused, match="did you mean 'hub_clock'"), plants.planted("hubclock"):
        pass


def test_a_zone_cap_bounds_what_a_spoke_may_hold() -> None:
    spokes = [{"name": "base", "chain": "base", "zone_cap_usd": 20_000.0}]
    world = build(scenario(spokes=spokes, duration_h=3.0))
    outcome = running.run(world)

    assert outcome.story.result.reservations.reject_reasons["zone_cap"] > 0
    reserved = [sample.reserved_usd6[0] for sample in outcome.story.samples]
    assert 0 < max(reserved) <= 20_000 * 10**6


def test_held_gains_keep_the_books_whole_and_come_through_in_the_end() -> None:
    """A hold as long as the run holds most gains; one of a minute hardly any at its end."""
    left_usd6 = []
    for hold_s in (60.0, 21_600.0):
        spokes = [{"name": "base", "chain": "base", "gain_hold_s": hold_s}]
        world = build(scenario(spokes=spokes, duration_h=5.0))
        assert running.run(world).finding is None
        left_usd6.append(world.hub.state.zones[0].held_usd6)

    assert 0 <= left_usd6[0] < left_usd6[1] // 10


@pytest.mark.parametrize("loss_ppm", [10_000, 50_000])
def test_channels_keep_up_with_losses_that_come_faster_than_round_trips(loss_ppm: int) -> None:
    """The hub's view stays about as old as one lost message makes it, however long the run."""
    traders = {"accounts": 20, "open_until_h": 2.0}
    links = {"loss_ppm": loss_ppm}
    world = build(scenario(latency="constant:600s", links=links, traders=traders, duration_h=16.0))
    story = running.run(world).story
    hub = next(endpoint for endpoint in world.endpoints if endpoint.name == "hub")

    late = [max(sample.state_age_us) for sample in story.samples if sample.at_us > 6 * 3.6e9]
    assert max(late) < 2.5 * 3.6e9
    assert max(len(inbox.parked) for inbox in hub.inboxes.values()) < 300
    assert "spoke_overdue" not in story.result.reservations.reject_reasons


def test_slow_blocks_raise_no_false_alarm() -> None:
    spokes = [{"name": "base", "chain": "base", "block_s": 600.0}]
    world = build(scenario(spokes=spokes, duration_h=8.0))
    found = running.run(world)

    assert found.finding is None
    assert "spoke_overdue" not in found.story.result.reservations.reject_reasons
    assert not any(known.state is State.OVERDUE for known in world.hub.state.reservations.values())


def test_a_block_that_is_final_at_once_raises_no_false_alarm() -> None:
    spokes = [
        {
            "name": "base",
            "chain": "base",
            "block_s": 12.0,
            "safe_after_s": 0.0,
            "final_after_s": 0.0,
            "partitions": [{"from_h": 1.0, "until_h": 2.0}],
        }
    ]
    for seed in range(3):
        changed = {"seed": seed, "latency": "constant:1s", "reservation": {"ttl_s": 120.0}}
        result(spokes=spokes, duration_h=4.0, **changed)


def test_open_shortfall_is_what_the_spokes_own_books_say() -> None:
    """Stopped in the middle of the fall, before the hub has heard and written off."""
    found = result(latency="constant:1800s", duration_h=5.0, buffer={"kind": "none"})
    assert found.open_shortfall_usd6 > 0
