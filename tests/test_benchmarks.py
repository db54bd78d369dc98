"""The benchmarks run, tiny; how fast is not a test's business."""

import pytest

from benchmarks import cost, fuzz, looks, options, pingpong, remargin, scenario


@pytest.mark.parametrize("name", pingpong.ENGINES)
def test_every_engine_plays(name: str) -> None:
    assert pingpong.ENGINES[name](500) > 0


def test_a_scenario_ends_with_the_same_digest_with_and_without_checks() -> None:
    with_checks, without = (
        scenario.rate(2.0, 20, checks=checks, digest=True)[1] for checks in (True, False)
    )
    assert with_checks == without != ""
    assert scenario.rate(2.0, 20, checks=False, digest=False)[0] > 0


def test_only_one_error_comes_out_of_the_decoder() -> None:
    one, again = fuzz.fuzz(3_000, 7), fuzz.fuzz(3_000, 7)
    assert one.digest == again.digest
    assert sum(one.refused.values()) + one.opened + one.decoded == 3_000
    assert one.decoded > 0


def test_checks_and_signatures_cost_time_and_nothing_else() -> None:
    report = cost.measure(0, 1, rounds=1, minutes=0.5)
    assert len(report.ways) == len(cost.WAYS) == 6
    assert all(way.per_s > 0 for way in report.ways)
    assert report.ways[-1].slowdown == 1.0
    assert report.events > 500


def test_looks_at_few_accounts_do_what_looks_at_all_do() -> None:
    report, again = (looks.measure(400, 12, 1) for _ in range(2))
    assert report.digest == again.digest
    assert report.looked_at < 200
    assert report.told > 0


def test_options_are_quoted_as_by_the_formula() -> None:
    report = options.measure(200, 3, 1)
    assert report.apart < 1e-12
    assert report.ratio > 0


def test_all_accounts_are_margined_anew_as_by_the_whole_numbers() -> None:
    report = remargin.measure(300, 9, 3, 1)
    assert report.legs > 1_000
    assert report.apart_usd < remargin.APART_USD
    assert report.ratio > 0
