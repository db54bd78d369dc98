"""Whole runs in which liquidations are planned at least cost and wait for the trader."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hub.liquidation
import hub.watch
from lab import running
from lab.result import Result
from lab.world import World, build
from messaging.messages import MarginStatus
from tests.mutants.mutant import Mutant
from tests.mutants.mutants import applied
from tests.simulation.small import scenario

SPOKES = [
    {"name": "base", "chain": "base", "fee_ppm": 200},
    {"name": "optimism", "chain": "optimism", "depth_share_ppm": 300_000},
    {"name": "unichain", "chain": "unichain", "fee_ppm": 1_500, "latency": "constant:300s"},
]


def world(plan: str = "least_cost", grace_s: float = 120.0) -> World:
    return build(
        scenario(
            liquidation={"plan": plan, "grace_s": grace_s},
            spokes=SPOKES,
            traders={"leverage_min": 5.0},
        )
    )


@pytest.fixture(scope="module")
def results() -> dict[tuple[str, float], Result]:
    found = {}
    for key in (("pro_rata", 0.0), ("pro_rata", 120.0), ("least_cost", 0.0)):
        outcome = running.run(world(*key))
        assert outcome.finding is None, outcome.finding
        found[key] = outcome.story.result
    return found


def test_prices_and_orders_are_the_same_whatever_the_plan(results: dict[Any, Result]) -> None:
    assert len({one.outside_digest for one in results.values()}) == 1
    assert len({one.digest for one in results.values()}) == 3


def test_a_plan_gives_fewer_commands(results: dict[Any, Result]) -> None:
    cheap, shares = results["least_cost", 0.0], results["pro_rata", 0.0]

    assert 0 < cheap.liquidations < shares.liquidations


def test_with_grace_fewer_accounts_are_liquidated(results: dict[Any, Result]) -> None:
    at_once, later = results["pro_rata", 0.0], results["pro_rata", 120.0]

    assert 0 < later.liquidated_accounts <= at_once.liquidated_accounts
    assert later.liquidations < at_once.liquidations


def test_what_waits_replays(tmp_path: Path) -> None:
    outcome = running.run(world(), log=tmp_path / "run.mcap")
    replayed = running.replay_log(tmp_path / "run.mcap")

    assert outcome.finding is None, outcome.finding
    assert replayed.matches


def _never_ends(_: Any) -> Any:
    return lambda state, account, now_us: 2**62


def _begins_with_each_look(_: Any) -> Any:
    return lambda state, account, now_us: now_us + state.policy.liquidation.grace_us


def _without_a_floor(status: Any) -> Any:
    """Wait to the deadline, however little equity is left."""

    def spoiled(state: Any, account: Any, standing: Any, now_us: int) -> MarginStatus:
        found = status(state, account, standing, now_us)
        fresh = account.status is not MarginStatus.FROZEN and found is MarginStatus.FROZEN
        waits = fresh and now_us < hub.watch._grace_until_us(state, account, now_us)
        return MarginStatus.REDUCE_ONLY if waits else found

    return spoiled


def _again_and_again(_: Any) -> Any:
    """Forget the deadline whenever the account is above maintenance, restored or not."""

    def spoiled(state: Any, account: Any, standing: Any, now_us: int) -> None:
        until_us = None
        if standing.equity_usd6 < standing.maintenance_usd6:
            until_us = hub.watch._grace_until_us(state, account, now_us)
        state.keep(hub.watch.msgspec.structs.replace(account, grace_until_us=until_us))

    return spoiled


PLANTED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "grace never ends": ("_grace_until_us", _never_ends),
    "grace begins with each look": ("_grace_until_us", _begins_with_each_look),
    "there is no floor": ("_status", _without_a_floor),
    "there is another grace before the account is restored": ("_keep_grace", _again_and_again),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_by_its_own_law(name: str) -> None:
    function, spoil = PLANTED[name]
    with applied(Mutant("L16", name, hub.watch, function, spoil)):
        finding = running.run(world()).finding

    assert finding is not None
    assert str(finding).startswith("GRACE:"), finding
