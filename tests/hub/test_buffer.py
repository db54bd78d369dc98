import math
from statistics import NormalDist

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.margin.buffer import (
    AssetRisk,
    Buffer,
    FlatBuffer,
    NoBuffer,
    QuantileBuffer,
    SqrtTimeBuffer,
    range_ppm,
)
from messaging.units import USD, YEAR_S, Asset, Ppm

AGES_S = (12, 60, 180, 900, 3_600, 6 * 3_600)


def risk(r0: float, jump: float, volatility: float, z: float = 3.09) -> AssetRisk:
    return AssetRisk(
        asset=Asset("BTC"),
        initial_margin_ppm=Ppm(200_000),
        maintenance_margin_ppm=Ppm(round(r0 * 10_000)),
        stress_volatility_ppm=Ppm(round(volatility * 1e6)),
        jump_ppm=Ppm(round(jump * 10_000)),
        quantile_z=z,
        depth_usd6_per_s=250_000 * USD,
        participation_ppm=Ppm(100_000),
    )


BTC, BTC_SCAN = risk(6.5, 3, 2.5), risk(15, 3, 2.5)
SOL, SOL_SCAN = risk(10, 5, 3.5), risk(20, 5, 3.5)
ASSETS = (BTC, BTC_SCAN, SOL, SOL_SCAN)
BUFFERS: tuple[Buffer, ...] = (
    SqrtTimeBuffer(),
    NoBuffer(),
    FlatBuffer(Ppm(20_000)),
    QuantileBuffer(),
)

ages = st.floats(0, 1e7)


@pytest.mark.parametrize("asset", ASSETS)
def test_at_age_zero_the_range_is_r0_exactly(asset: AssetRisk) -> None:
    assert range_ppm(SqrtTimeBuffer(), asset, 0.0) == asset.maintenance_margin_ppm


@pytest.mark.parametrize(
    ("asset", "percent"),
    [
        (BTC, (6.53, 6.66, 6.96, 8.41, 11.97, 23.52)),
        (BTC_SCAN, (15.01, 15.05, 15.14, 15.69, 17.56, 26.51)),
        (SOL, (10.04, 10.22, 10.63, 12.64, 17.59, 33.74)),
        (SOL_SCAN, (20.01, 20.07, 20.22, 21.07, 23.94, 37.04)),
    ],
)
def test_the_ranges_are_those_of_the_table(asset: AssetRisk, percent: tuple[float, ...]) -> None:
    """Table of the risk model's section on latency, to the decimals printed there."""
    asset = msgspec.structs.replace(asset, quantile_z=NormalDist().inv_cdf(0.999))
    buffer = SqrtTimeBuffer()
    found = [buffer.range_fraction(asset, float(age_s), math.sqrt) * 100 for age_s in AGES_S]

    assert [round(value, 2) for value in found] == list(percent)


@pytest.mark.parametrize(
    ("asset", "tau0_s"), [(BTC, 647), (BTC_SCAN, 7_609), (SOL, 674), (SOL_SCAN, 6_066)]
)
def test_variances_add_so_three_times_tau0_doubles_what_grows(
    asset: AssetRisk, tau0_s: int
) -> None:
    jump_ppm = asset.jump_ppm
    grown_ppm = range_ppm(SqrtTimeBuffer(), asset, 3.0 * tau0_s) - jump_ppm

    assert grown_ppm == pytest.approx(2 * (asset.maintenance_margin_ppm - jump_ppm), rel=1e-3)


@given(st.sampled_from(BUFFERS), st.sampled_from(ASSETS), ages, ages)
def test_a_greater_age_never_needs_less(
    buffer: Buffer, asset: AssetRisk, one_s: float, other_s: float
) -> None:
    younger_s, older_s = sorted((one_s, other_s))

    assert range_ppm(buffer, asset, younger_s) <= range_ppm(buffer, asset, older_s)


@given(st.sampled_from(BUFFERS), st.sampled_from(ASSETS), ages)
def test_the_whole_ratio_is_rounded_up_against_the_trader(
    buffer: Buffer, asset: AssetRisk, age_s: float
) -> None:
    exact_ppm = buffer.range_fraction(asset, age_s, math.sqrt) * 1e6

    assert exact_ppm - 2e-6 <= range_ppm(buffer, asset, age_s) < exact_ppm + 1 + 1e-6


@given(st.sampled_from(ASSETS), ages)
def test_without_a_buffer_age_does_not_count_and_a_flat_one_adds_a_constant(
    asset: AssetRisk, age_s: float
) -> None:
    r0_ppm = asset.maintenance_margin_ppm

    assert range_ppm(NoBuffer(), asset, age_s) == r0_ppm
    assert range_ppm(FlatBuffer(Ppm(20_000)), asset, age_s) == r0_ppm + 20_000


@given(st.floats(1, 1e6), st.floats(0.1, 5), st.floats(0, 6))
def test_the_range_grows_with_volatility_and_jump(
    age_s: float, volatility: float, jump: float
) -> None:
    buffer = SqrtTimeBuffer()
    here = range_ppm(buffer, risk(6.5, jump, volatility), age_s)

    assert range_ppm(buffer, risk(6.5, jump, volatility * 1.1), age_s) >= here


@given(ages, st.floats(0.1, 20))
def test_a_measured_volatility_counts_where_it_is_above_stress(age_s: float, factor: float) -> None:
    """R = jump + z max(stress, measured) sqrt(tau0 + tau), tau0 by stress alone (rule V7)."""
    for asset in ASSETS:
        stress_ppm = asset.stress_volatility_ppm
        measured = msgspec.structs.replace(asset, volatility_ppm=round(factor * stress_ppm))
        before, after = (
            SqrtTimeBuffer().range_fraction(one, age_s, math.sqrt) - asset.jump_ppm / 1e6
            for one in (asset, measured)
        )
        assert after == pytest.approx(before * max(1.0, factor), rel=1e-5)


@pytest.mark.parametrize("buffer", BUFFERS)
def test_arrays_and_numbers_get_the_same_range(buffer: Buffer) -> None:
    found = buffer.range_fraction(BTC, np.array(AGES_S, dtype=np.float64), np.sqrt)

    assert found.tolist() == [buffer.range_fraction(BTC, float(a), math.sqrt) for a in AGES_S]


def test_a_year_has_365_days() -> None:
    asset = risk(6.5, 0, 2.5)
    year_ppm = range_ppm(SqrtTimeBuffer(), asset, float(YEAR_S))

    assert year_ppm == math.ceil(math.hypot(0.065, 3.09 * 2.5) * 1e6)


@given(st.sampled_from(BUFFERS), st.sampled_from(ASSETS), ages, ages, st.floats(0, 1))
def test_a_range_is_concave_in_age(
    buffer: Buffer, asset: AssetRisk, one_s: float, other_s: float, part: float
) -> None:
    """Rule M7 rests on it."""
    between_s = part * one_s + (1 - part) * other_s
    one, other, between = (
        buffer.range_fraction(asset, age_s, math.sqrt) for age_s in (one_s, other_s, between_s)
    )

    assert between >= part * one + (1 - part) * other - 1e-9
