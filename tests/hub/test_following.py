"""A hub whose margins follow the volatility of prices (rule V7)."""

import msgspec
import pytest

from hub.margin.buffer import SqrtTimeBuffer
from hub.margin.requirement import Assessment
from hub.margin.volatility.estimate import VolatilityPolicy, margin
from hub.node import Hub
from lab import running
from lab.world import build
from messaging.errors import InputRefused
from messaging.units import ONE, SECOND_US, USD, Micros
from tests.hub import test_looks
from tests.hub.test_oracle import ANN, Desk, reports
from tests.simulation.small import scenario

FOLLOWS = VolatilityPolicy()
HOUR_S = 3_600


def desk(volatility: VolatilityPolicy | None) -> Desk:
    one = Desk(priced=False)
    policy = one.hub.state.policy
    changed = msgspec.structs.replace(
        policy,
        volatility=volatility,
        margin=msgspec.structs.replace(policy.margin, buffer=SqrtTimeBuffer()),
    )
    one.hub = Hub(changed, [(ANN, 1_000 * USD)])
    return one


def storm(one: Desk, hours: int, move: float, since_s: int = 0) -> int:
    """Print once a minute, up and down by a share; return when it is over."""
    for minute in range(60 * hours):
        one.now_us = Micros((since_s + 60 * minute) * SECOND_US)
        one.price(round(100 * USD * (1 + move * (minute % 2))))
    return since_s + hours * HOUR_S


def standing(one: Desk) -> Assessment:
    state = one.hub.state
    conditions = state.conditions(one.now_us)
    level = msgspec.structs.replace(conditions, prices_usd6=[100 * USD], tau_s=[[0.0]] * 2)
    return state.assess_latest(state.accounts[0], level)


def test_margin_rises_in_a_storm_slower_than_it_and_comes_back_in_the_calm() -> None:
    one = desk(FOLLOWS)
    one.report(reports(1, qty8=ONE, cost_usd6=100 * USD))
    over_s = storm(one, 2, 0.0)
    calm = standing(one).maintenance_usd6
    free_usd6 = one.free()
    assert calm == pytest.approx(6_500_000, rel=1e-4)
    assert one.hub.state.margin is one.hub.state.policy.margin

    over_s = storm(one, 2, 0.01, over_s)
    early = standing(one).maintenance_usd6
    over_s = storm(one, 10, 0.01, over_s)
    late = standing(one).maintenance_usd6
    assert calm <= early < late
    assert one.free() < free_usd6 - (late - calm)
    known = one.hub.state.estimates[0]
    assert known.margin == margin(FOLLOWS, max(known.fast, known.slow), 2.5)
    assert late == pytest.approx(3e6 + 3.5e6 * known.margin / 2.5, rel=0.03)

    over_s = storm(one, 24, 0.0, over_s)
    assert calm <= standing(one).maintenance_usd6 < late


def test_without_the_table_nothing_is_measured() -> None:
    one = desk(None)
    storm(one, 20, 0.01)

    assert one.hub.state.margin is one.hub.state.policy.margin
    assert one.hub.state.estimates == {}


@pytest.mark.parametrize("seed", range(4))
def test_few_are_looked_at_and_the_same_is_done_while_volatility_moves(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the calm: all that a hub does is what one does that looks at all."""
    wild = VolatilityPolicy(fast_half_life_s=60.0, ramp_per_h=100.0)
    policy = msgspec.structs.replace(test_looks.POLICY, volatility=wild)
    monkeypatch.setattr(test_looks, "POLICY", policy)
    walk = test_looks.Walk(seed, accounts=25)
    for _ in range(8):  # until both assets have a price
        walk.price()
    for spoke in test_looks.SPOKES * 15:
        walk.trade(spoke)
    used = set()
    for _ in range(300):
        walk.step()
        used.add(walk.ours.state.margin.assets[0].volatility_ppm)
    assert len(used) > 10
    assert walk.seen["ordered"] > 5


def test_a_run_that_follows_keeps_every_invariant_and_is_the_same_again() -> None:
    calm, one, other = (
        running.run(build(scenario(latency="cctp_v1", **more)))
        for more in ({}, {"volatility": {}}, {"volatility": {}})
    )
    assert one.finding is None
    assert one.story.result.digest == other.story.result.digest != calm.story.result.digest


@pytest.mark.parametrize(
    "knobs", [{"ramp_per_h": 0}, {"floor": 0.0}, {"stress_weight": 1.5}, {"half_life_s": 3}]
)
def test_knobs_that_make_no_sense_are_refused(knobs: dict[str, float]) -> None:
    with pytest.raises(InputRefused, match=f"volatility.{next(iter(knobs))}: expected"):
        scenario(volatility=knobs)
