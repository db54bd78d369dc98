"""Whole runs in which fills move prices: the law of a cascade, and that nothing else changes."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from lab import running
from lab.result import Fall, Impact, Result
from lab.running import Outcome
from lab.world import World, build
from messaging.envelope import Envelope
from messaging.messages import OrderPlaced, PricePublished
from messaging.units import HUB
from messaging.venues import VenueTraded
from tests.simulation import cascade
from tests.simulation.cascade import ACCOUNTS, SHOCK_USD, SPACING_USD, TOP_USD, falling
from tests.simulation.small import scenario

REORGS = [{"at_h": at_h, "depth": 9} for at_h in (4.7, 4.8, 4.9, 5.0, 5.2, 5.4)]


def sound(outcome: Outcome) -> Result:
    assert outcome.finding is None, outcome.finding
    return outcome.story.result


def measured(result: Result) -> tuple[Impact, Fall]:
    assert result.impact is not None
    return result.impact, result.impact.falls["BTC"]


def fell_usd(result: Result) -> float:
    return measured(result)[1].fell_ppm / 1e6 * TOP_USD


# --- the law ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("impact_ratio", "venues", "coupling_ppm"),
    [
        (0.3, 1, 0),
        (0.5, 1, 1_000_000),
        (0.8, 1, 1_000_000),
        (0.8, 2, 1_000_000),
        (0.8, 2, 500_000),
        (0.8, 2, 0),
    ],
)
def test_a_shock_becomes_shock_over_one_minus_r(
    impact_ratio: float, venues: int, coupling_ppm: int
) -> None:
    ratio = impact_ratio * (1 + coupling_ppm / 1e6 * (venues - 1)) / venues
    made = cascade.scenario(impact_ratio, venues=venues, impact={"coupling_ppm": coupling_ppm})
    result = sound(running.run(falling(made)))
    found, fall = measured(result)

    assert fell_usd(result) == pytest.approx(SHOCK_USD / (1 - ratio), rel=0.03)
    assert result.liquidated_accounts == pytest.approx(fell_usd(result) / SPACING_USD, abs=1)
    assert found.cascades_ppm == {"BTC": pytest.approx(1e6 * ratio, rel=0.01)}
    assert fall.path_fell_ppm == pytest.approx(1e6 * SHOCK_USD / TOP_USD, abs=1)
    assert fall.endogenous_ppm == pytest.approx(1e6 * ratio, rel=0.02)
    assert found.coupling_ppm == (None if venues == 1 else pytest.approx(coupling_ppm, abs=100))


@pytest.mark.parametrize("ratio", [1.02, 1.5])
def test_beyond_one_it_runs_away(ratio: float) -> None:
    result = sound(running.run(falling(cascade.scenario(ratio))))
    assert result.liquidated_accounts == ACCOUNTS
    all_usd = ratio * SPACING_USD * ACCOUNTS
    assert fell_usd(result) == pytest.approx(SHOCK_USD + all_usd, rel=0.03)


def test_a_collapse_of_depth_takes_r_across_one() -> None:
    calm, thin = (
        sound(running.run(falling(cascade.scenario(0.03), depth_ppm=depth_ppm)))
        for depth_ppm in (1_000_000, 20_000)
    )
    assert measured(calm)[0].cascades_ppm == {"BTC": pytest.approx(0.03e6, rel=0.02)}
    assert calm.liquidated_accounts < ACCOUNTS // 10
    assert measured(thin)[0].cascades_ppm == {"BTC": pytest.approx(1.5e6, rel=0.02)}
    assert thin.liquidated_accounts == ACCOUNTS


def test_what_passes_makes_the_fall_deeper_and_comes_back() -> None:
    """With the walk up the book twice what lasts, for less than a second."""
    made = cascade.scenario(0.3)
    lasting = made.assets[0].impact_ppm_per_million_usd
    thin = msgspec.structs.replace(made.assets[0], depth_usd=0.01 / (2 * lasting / 1e12))
    falls, ends_usd6 = [], []
    for half_life_s in (0.0, 0.3):
        table = msgspec.structs.replace(made.impact, half_life_s=half_life_s)
        world = falling(msgspec.structs.replace(made, assets=(thin,), impact=table))
        result = sound(running.run(world))
        falls.append(fell_usd(result))
        ends_usd6.append(world.spokes[0].state.prices_usd6[0])
        path_usd6 = world.path.prices_usd6[-1][0]
        liquidated_usd = result.liquidated_accounts * TOP_USD
        lasts_usd6 = path_usd6 * (1 - lasting / 1e12 * liquidated_usd)
        assert ends_usd6[-1] == pytest.approx(lasts_usd6, rel=1e-5)
    assert falls[1] > 1.1 * falls[0]


# --- nothing else -----------------------------------------------------------------------


def small(impact_ppm: float, **tables: Any) -> World:
    """Return the small world with so much impact of both assets."""
    assets = [
        {"name": name, "impact_ppm_per_million_usd": impact_ppm, "depth_usd": 1e6}
        for name in ("BTC", "ETH")
    ]
    return build(scenario(assets=assets, **tables))


@pytest.fixture(scope="module")
def plain() -> Result:
    return sound(running.run(small(0.0)))


def test_a_table_that_moves_nothing_changes_no_byte(plain: Result) -> None:
    result = sound(running.run(small(0.0, impact={"coupling_ppm": 300_000})))
    assert result.digest == plain.digest
    assert result.impact is None


def test_an_impact_too_small_for_a_price_changes_no_outcome() -> None:
    """All that is said of it passes by, and nobody else does or knows anything else."""
    said = []
    for tables in ({}, {"impact": {}}):
        world = small(1e-12, **tables)
        told = [
            (record.at_us, heard(record.event))
            for record in world.driver().run()
            if record.node == HUB and isinstance(record.event, Envelope)
        ]
        said.append((told, world.hub.state.ledger.balances))
    without, with_table = said
    assert with_table == without


def heard(frame: Envelope) -> object:
    """Return a frame, of a print all but the depth that it tells."""
    if isinstance(frame.message, PricePublished):
        return msgspec.structs.replace(frame.message, depth_ppm=0)
    return frame


def test_sales_deepen_the_fall_and_orders_stay_the_same(plain: Result) -> None:
    still, displaced = (
        [
            (record.at_us, record.event.message)
            for record in world.driver().run()
            if isinstance(record.event, Envelope) and isinstance(record.event.message, OrderPlaced)
        ]
        for world in (small(5_000.0), small(5_000.0, impact={"half_life_s": 60.0}))
    )
    assert still == displaced
    moved = sound(running.run(small(5_000.0, impact={"half_life_s": 60.0})))
    assert moved.impact is not None
    assert all(fall.endogenous_ppm > 50_000 for fall in moved.impact.falls.values())
    assert moved.liquidated_accounts > plain.liquidated_accounts


def test_the_rules_hold_under_faults_and_a_log_replays(tmp_path: Path) -> None:
    world = small(
        5_000.0,
        impact={"half_life_s": 60.0, "coupling_ppm": 700_000},
        links={"loss_ppm": 200_000, "repeat_ppm": 200_000, "reorder_ppm": 200_000},
        spokes=[
            {"name": name, "chain": name, "final_after_s": 300.0, "reorgs": REORGS}
            for name in ("base", "optimism", "unichain")
        ],
        liquidation={"adl": "pro_rata", "socialise": True},
        breakers={},
    )
    log = tmp_path / "run.mcap"
    result = sound(running.run(world, log=log))
    assert result.impact is not None
    assert result.impact.coupling_ppm == pytest.approx(700_000, rel=0.02)
    assert running.replay_log(log).digest == result.digest


def test_lost_blocks_leave_prices_where_the_positions_that_stand_put_them() -> None:
    """What venues have told in all is what their accounts hold."""
    world = small(
        5_000.0,
        impact={"half_life_s": 60.0},
        spokes=[{"name": "base", "chain": "base", "final_after_s": 300.0, "reorgs": REORGS}],
    )
    told = [0, 0]
    for record in world.driver().run():
        event = record.event
        if isinstance(event, Envelope) and isinstance(event.message, VenueTraded):
            told = [sum(pair) for pair in zip(told, event.message.bought_qty8, strict=True)]
    traders = world.spokes[0].state.traders.values()
    held = [sum(one.holding(asset).qty8 for one in traders) for asset in ("BTC", "ETH")]
    assert told == held != [0, 0]
