"""The benchmarks run, tiny; how fast is not a test's business."""

import pytest

from benchmarks import pingpong, scenario


@pytest.mark.parametrize("name", pingpong.ENGINES)
def test_every_engine_plays(name: str) -> None:
    assert pingpong.ENGINES[name](500) > 0


def test_a_scenario_ends_with_the_same_digest_with_and_without_checks() -> None:
    with_checks, without = (
        scenario.rate(2.0, 20, checks=checks, digest=True)[1] for checks in (True, False)
    )
    assert with_checks == without != ""
    assert scenario.rate(2.0, 20, checks=False, digest=False)[0] > 0
