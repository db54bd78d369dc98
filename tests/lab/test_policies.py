"""Buffers as a scenario names them, and the one that docs/policies.md adds."""

import math
import random
import re
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from hub.margin import buffer as buffers
from hub.margin.buffer import AssetRisk, Buffer, Sqrt, T
from lab import reading, running
from lab.policies import hub_policy
from lab.world import build, lanes_of
from messaging.units import SECOND_US
from tests.hub import test_buffer, test_looks
from tests.simulation.small import scenario

PAGE = Path(__file__).parent.parent.parent / "docs" / "policies.md"
HELD = {
    "kind": "held",
    "body": {"kind": "constant", "value_s": 30.0},
    "probability": 0.0005,
    "hold_max_s": 20_000.0,
}


def on_the_page() -> dict[str, Any]:
    """Return the module of buffers as it is with the code of the page in it."""
    names = dict(vars(buffers))
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, names)
    return names


def test_the_buffer_of_the_page_is_named_by_a_table_and_keeps_the_laws() -> None:
    names = on_the_page()
    found = msgspec.convert({"kind": "linear", "minute_ppm": 2_000}, names["BufferChoice"])
    assert found == names["LinearBuffer"](2_000)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"kind": "linear", "hour_ppm": 1}, names["BufferChoice"])

    assert found.range_fraction(test_buffer.BTC, 120.0, math.sqrt) == pytest.approx(0.069)
    test_buffer.test_arrays_and_numbers_get_the_same_range(found)
    dice = random.Random(1)
    for _ in range(100):
        one_s, other_s = dice.uniform(0, 1e6), dice.uniform(0, 1e6)
        for law in (
            test_buffer.test_a_greater_age_never_needs_less,
            test_buffer.test_a_range_is_concave_in_age,
        ):
            given = (found, test_buffer.SOL, one_s, other_s, dice.random())
            inner = law.hypothesis.inner_test
            inner(*given[: inner.__code__.co_argcount])


def test_a_world_runs_on_the_buffer_of_the_page() -> None:
    """Its margins grow with age: what is slow needs more, so credit is shorter."""
    linear = on_the_page()["LinearBuffer"]
    wanted = scenario(duration_h=3.0, latency="cctp_v1")
    results = [
        running.run(build(msgspec.structs.replace(wanted, buffer=linear(minute_ppm)))).story.result
        for minute_ppm in (0, 5_000)
    ]
    none = running.run(build(msgspec.structs.replace(wanted, buffer=buffers.NoBuffer())))
    assert results[0].digest == none.story.result.digest
    assert results[0].digest != results[1].digest


class Steps(Buffer, frozen=True, tag="steps"):
    """R0, and much more every minute and a half: neither smooth nor concave."""

    concave: ClassVar[bool] = False

    def range_fraction(self, risk: AssetRisk, tau_s: T, sqrt: Sqrt[T]) -> T:
        return risk.maintenance_margin_ppm / 1e6 + 0.05 * (tau_s // 90.0)


def test_under_a_buffer_that_is_not_concave_nobody_is_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hub does what one does that looks at all, as under the others."""
    margin = msgspec.structs.replace(test_looks.POLICY.margin, buffer=Steps())
    policy = msgspec.structs.replace(test_looks.POLICY, margin=margin)
    monkeypatch.setattr(test_looks, "POLICY", policy)
    walk = test_looks.Walk(3, accounts=25)
    for _ in range(8):  # until both assets have a price
        walk.price()
    for spoke in test_looks.SPOKES * 15:
        walk.trade(spoke)
    for _ in range(300):
        walk.step()
    assert walk.seen["ordered"] > 5


def test_a_scenario_names_the_quantile_and_a_tail_costs() -> None:
    steady, held = (
        scenario(latency=latency, buffer={"kind": "quantile"}, duration_h=3.0)
        for latency in ("constant:40s", HELD)
    )
    ages = []
    for one in (steady, held):
        policy = hub_policy(one, lanes_of(one))
        zone = policy.zones[0]
        assert len(zone.delays) == len(one.assets)
        ages.append(zone.delays[0].worth_s(0.0))
    assert ages[0] == pytest.approx(40.0, rel=1e-5)
    assert ages[1] > 5 * ages[0]


def test_where_delays_are_certain_the_quantile_is_the_square_root_of_time() -> None:
    """The same ages to a microsecond; so the same margins, but for their last millionth."""
    wanted = scenario(latency="constant:900s", duration_h=3.0)
    hubs = [
        build(msgspec.structs.replace(wanted, buffer=kind())).hub.state
        for kind in (buffers.SqrtTimeBuffer, buffers.QuantileBuffer)
    ]
    one, other = (hub.conditions(700 * SECOND_US).tau_s for hub in hubs)
    for before, after in zip(one, other, strict=True):
        assert after == pytest.approx(before, rel=1e-5)


def test_a_run_under_the_quantile_buffer_keeps_every_invariant_and_is_named() -> None:
    outcome = running.run(build(scenario(latency="layerzero", buffer={"kind": "quantile"})))
    assert outcome.finding is None
    assert outcome.story.result.buffer == "quantile"
    assert outcome.story.result.liquidations
    assert "quantile" in reading.BUFFERS
