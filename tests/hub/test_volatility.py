"""Estimates of volatility: against the model that made the prices, and law by law."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri

from hub.margin.volatility.estimate import (
    Estimate,
    VolatilityPolicy,
    first,
    gain,
    in_use_ppm,
    margin,
    observed,
    ramped,
)
from hub.margin.volatility.forecasters import FITTED_MIN, FORECASTERS, LAGS, Ewma, Floats, Har
from messaging.dice import Dice
from messaging.units import HOUR_US, SECOND_US, USD, YEAR_S

POLICY = VolatilityPolicy()
DAY_S, STRESS = 86_400.0, 2.5
variances = st.floats(1e-4, 1e4)


def normals(count: int, name: str) -> Floats:
    return np.asarray(ndtri(np.maximum(Dice(1, name).first(count), 2.0**-54)))


def qlike(realised: Floats, expected: Floats) -> float:
    ratio = realised / expected
    return float(np.mean(ratio - np.log(ratio) - 1.0))


@pytest.mark.parametrize(("alpha", "beta"), [(0.05, 0.94), (0.09, 0.90)])
def test_on_garch_data_the_average_is_nearly_as_good_as_the_model_that_made_them(
    alpha: float, beta: float
) -> None:
    """QLIKE against squared returns within 10 % of that of the true conditional variance."""
    count, mean = 20_000, 0.8**2 * DAY_S / YEAR_S
    shocks = normals(count, f"garch/{alpha}")
    returns, true, variance = [], [], mean
    for shock in shocks:
        true.append(variance)
        returns.append(math.sqrt(variance) * shock)
        variance = (1.0 - alpha - beta) * mean + alpha * returns[-1] ** 2 + beta * variance
    times_s = DAY_S * np.arange(count + 1.0)
    logs = np.concatenate(([0.0], np.cumsum(returns)))
    said = FORECASTERS["slow"]().variances(times_s, logs, DAY_S)

    learnt = 100
    squares = np.array(returns)[learnt:] ** 2
    ours = qlike(squares, said[learnt:-1] * DAY_S / YEAR_S)
    best = qlike(squares, np.array(true)[learnt:])
    flat = qlike(squares, np.full(len(squares), np.mean(squares)))
    assert best < ours < 1.1 * best
    assert ours < flat


@pytest.mark.parametrize("name", FORECASTERS)
def test_no_forecast_knows_what_comes_after_it(name: str) -> None:
    count, horizon_s = 2_000, 3_600.0
    times_s = np.cumsum(60.0 + 600.0 * Dice(2, "gaps").first(count))
    logs = np.cumsum(0.001 * normals(count, "past"))
    whole = FORECASTERS[name]().variances(times_s, logs, horizon_s)
    for seen in (900, 1_501, 1_999):
        other = logs.copy()
        other[seen:] += 1.0 + np.cumsum(0.1 * normals(count - seen, "future"))
        said = FORECASTERS[name]().variances(times_s, other, horizon_s)
        assert np.array_equal(said[:seen], whole[:seen], equal_nan=True)
        assert seen == 1_999 or not np.array_equal(said[seen:], whole[seen:], equal_nan=True)


@pytest.mark.parametrize("half_life_s", [2_700.0, 50_000.0])
def test_the_average_is_the_true_variance_however_irregular_the_prices(half_life_s: float) -> None:
    count, true = 200_000, 0.9**2
    spans_s = np.exp(2.0 * normals(count, "spans"))  # quartiles a quarter and four times of it
    logs = np.concatenate(
        ([0.0], np.cumsum(np.sqrt(true * spans_s / YEAR_S) * normals(count, "moves")))
    )
    times_s = np.concatenate(([0.0], np.cumsum(spans_s)))
    said = Ewma((half_life_s,)).variances(times_s, logs, 1.0)
    late = times_s > 10 * half_life_s

    weights = np.diff(times_s, append=times_s[-1])[late]
    assert np.average(said[late], weights=weights) == pytest.approx(true, rel=0.04)


@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=20), st.floats(10.0, 1e7))
def test_the_weights_of_all_returns_add_up_to_one(spans_s: list[float], half_life_s: float) -> None:
    """An older return weighs as much less as its age says, whatever lies between."""
    seen_s, weights = 0.0, []
    for span_s in spans_s:
        seen_s += span_s
        latest = gain(span_s, seen_s, half_life_s)
        weights = [weight * (1.0 - latest) for weight in weights] + [latest]
    assert sum(weights) == pytest.approx(1.0)
    ends_s = np.cumsum(spans_s)
    kept = 0.5 ** ((ends_s[-1] - ends_s) / half_life_s)
    shares = kept * -np.expm1(math.log(0.5) * np.array(spans_s) / half_life_s)
    assert weights == pytest.approx((shares / shares.sum()).tolist(), rel=1e-6, abs=1e-12)


def walk(prices_usd: list[float], gap_us: int) -> list[Estimate]:
    known = first(POLICY, 0, round(prices_usd[0] * USD), STRESS)
    found = [known]
    for number, price_usd in enumerate(prices_usd[1:], start=1):
        known = observed(POLICY, known, number * gap_us, round(price_usd * USD), STRESS)
        found.append(known)
    return found


def test_the_running_estimate_is_that_of_the_forecaster() -> None:
    prices_usd = (100.0 * np.exp(np.cumsum(0.002 * normals(500, "one")))).tolist()
    gaps_s = 1.0 + np.floor(200.0 * Dice(3, "gaps").first(499))
    times_s = np.concatenate(([0.0], np.cumsum(gaps_s)))
    known = first(POLICY, 0, round(prices_usd[0] * USD), STRESS)
    found = [known]
    for time_s, price_usd in zip(times_s[1:].tolist(), prices_usd[1:], strict=True):
        price_usd6, at_us = round(price_usd * USD), int(time_s) * SECOND_US
        known = observed(POLICY, known, at_us, price_usd6, STRESS)
        found.append(known)
    logs = np.log(np.round(np.array(prices_usd) * USD))

    for name in ("fast", "slow"):
        said = FORECASTERS[name]().variances(times_s, logs, 3_600.0)
        legs = [getattr(one, name) for one in found]
        assert legs[1:] == pytest.approx(said[1:].tolist())


@given(st.lists(st.floats(1.0, 1e4), min_size=2, max_size=30), st.integers(1, 10**11))
def test_volatility_for_margin_rises_by_the_ramp_at_most_and_never_below_its_floor(
    prices_usd: list[float], gap_us: int
) -> None:
    found = walk(prices_usd, gap_us)
    least = math.sqrt(0.75 * POLICY.floor**2 + 0.25 * STRESS**2)
    most = math.exp(min(50.0, POLICY.ramp_per_h * gap_us / HOUR_US))
    for before, after in pairwise(found):
        assert least * (1 - 1e-12) <= after.margin <= before.margin * most * (1 + 1e-12)
        assert after.margin <= margin(POLICY, max(after.fast, after.slow), STRESS)


def test_margin_follows_whichever_average_is_higher() -> None:
    """In a storm the fast one; after it the slow one, which still knows of it."""
    storm = [100.0 * (1.02 if n % 2 else 1.0) for n in range(600)]
    found = walk([100.0] * 3_000 + storm + [100.0] * 1_000, 60 * SECOND_US)
    after = found[-1]

    assert found[3_599].margin == pytest.approx(margin(POLICY, found[3_599].fast, STRESS))
    assert after.fast < 0.01 * after.slow
    assert after.margin == margin(POLICY, after.slow, STRESS)


@given(st.floats(0.1, 50), st.floats(0.1, 50), st.floats(0, 100), st.floats(0, 100))
def test_two_steps_up_allow_what_one_does_and_a_fall_is_not_held_back(
    before: float, wanted: float, one_h: float, other_h: float
) -> None:
    twice = ramped(POLICY, ramped(POLICY, before, wanted, one_h), wanted, other_h)

    assert twice == pytest.approx(ramped(POLICY, before, wanted, one_h + other_h))
    assert wanted > before or ramped(POLICY, before, wanted, one_h) == wanted


@given(variances, variances)
def test_a_quarter_of_the_variance_is_that_of_stress(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert margin(POLICY, low, STRESS) <= margin(POLICY, high, STRESS)
    assert margin(POLICY, STRESS**2, STRESS) == pytest.approx(STRESS)
    assert margin(POLICY, 4.0, STRESS) ** 2 == pytest.approx(0.75 * 4.0 + 0.25 * 6.25)
    assert margin(POLICY, 1e-9, STRESS) ** 2 == pytest.approx(0.75 * 0.16 + 0.25 * 6.25)


@given(st.integers(-5, 0), st.integers(1, 10**12))
def test_a_price_that_is_not_newer_changes_nothing(later_us: int, price_usd6: int) -> None:
    known = walk([100.0, 105.0], SECOND_US)[-1]

    assert observed(POLICY, known, known.at_us + later_us, price_usd6, STRESS) is known


def test_har_finds_the_persistence_that_made_the_data() -> None:
    """Log variance of a period is a line through its means over 1, 5 and 22 periods."""
    periods, steps, sd = 3_000, 48, 0.4
    known, shocks = [math.log(0.7**2)] * LAGS[-1], normals(periods, "log variance")
    expected = []
    for shock in shocks:
        one, five, all_ = (sum(known[-lag:]) / lag for lag in LAGS)
        expected.append(0.1 * math.log(0.7**2) + 0.4 * one + 0.3 * five + 0.2 * all_)
        known.append(expected[-1] + sd * shock)
    true = np.exp(np.array(known[LAGS[-1] :]))
    shape = np.sqrt(np.repeat(true, steps) * 60.0 / YEAR_S)
    logs = np.concatenate(([0.0], np.cumsum(shape * normals(periods * steps, "har"))))
    times_s = 60.0 * np.arange(periods * steps + 1.0)
    said = Har().variances(times_s, logs, steps * 60.0)[:-1:steps]
    best = np.exp(np.array(expected) + sd**2 / 2)

    learnt = 300
    steady = FORECASTERS["slow"]().variances(times_s, logs, steps * 60.0)[:-1:steps]
    losses = [qlike(true[learnt:], one[learnt:]) for one in (said, best, steady)]
    assert losses[1] < losses[0] < 1.15 * losses[1]
    assert losses[0] < losses[2]
    assert np.mean(true[learnt:] / said[learnt:]) == pytest.approx(1.0, abs=0.03)


def test_har_says_nothing_before_it_has_learnt_and_then_does_whatever_the_prices() -> None:
    times_s = 300.0 * np.arange(12.0 * 100 + 1)
    frozen = Har().variances(times_s, np.zeros(len(times_s)), 3_600.0)
    ended = np.arange(len(times_s)) // 12
    assert np.array_equal(np.isfinite(frozen), ended >= LAGS[-1] + FITTED_MIN)
    assert np.nanmax(frozen) == pytest.approx(1e-4)


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_what_is_in_use_is_above_stress_and_a_step_above_what_is_measured(
    one: float, other: float
) -> None:
    """By steps of a twentieth of stress, so that the hub does not look at all with each print."""
    low, high = (
        in_use_ppm(Estimate(0, 1, 0, 1.0, 1.0, sigma), 2_500_000) for sigma in sorted((one, other))
    )
    assert low <= high
    assert (high == 0) == (max(one, other) * 1e6 <= 2_500_000)
    assert high == 0 or max(one, other) * 1e6 <= high <= max(one, other) * 1e6 + 125_000
