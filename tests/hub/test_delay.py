"""What a random delay is worth in age: against dice, against closed cases, and law by law."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import ndtr, ndtri

from hub.margin.delay import AGE_MAX_S, Delay, delay
from messaging.atoms import atoms, in_line
from messaging.dice import Dice
from messaging.latency import (
    Constant,
    Empirical,
    Exponential,
    Held,
    Latency,
    Lognormal,
    Mixture,
    Part,
    Uniform,
    quantile_us,
)

Z = 3.09
EPS = float(ndtr(-Z))
TAU0_S = 647.0
LAWS: tuple[Latency, ...] = (
    Constant(value_s=60),
    Uniform(low_s=10, high_s=2_000),
    Exponential(mean_s=900),
    Lognormal(median_s=101, sigma=0.923),
    Held(body=Lognormal(median_s=36, sigma=0.3), probability=0.001, hold_max_s=86_400),
    Mixture(
        parts=(
            Part(weight=199, body=Constant(value_s=40)),
            Part(weight=1, body=Exponential(mean_s=7_200)),
        )
    ),
)
ages = st.floats(0, 1e6)
laws = st.sampled_from(LAWS)
KNOWN = {(law, tau0_s): delay(tau0_s, Z, atoms(law)) for law in LAWS for tau0_s in (1.0, TAU0_S)}


def of(law: Latency, tau0_s: float = TAU0_S) -> Delay:
    return KNOWN[law, tau0_s]


def sampled(law: Latency, count: int) -> np.ndarray:
    return law.sample_us(Dice(1, "u").first(count), Dice(1, "v").first(count)) / 1e6


@pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)
@pytest.mark.parametrize("age_s", [0.0, 500.0, 20_000.0])
def test_the_loss_over_dice_is_beyond_the_range_as_seldom_as_asked_and_hardly_less(
    law: Latency, age_s: float
) -> None:
    """The delay is drawn; given it the chance is a normal's, so few draws tell much."""
    spans_s = TAU0_S + age_s + sampled(law, 1_000_000)
    chances = ndtr(-Z * np.sqrt((TAU0_S + of(law).worth_s(age_s)) / spans_s))
    error = float(np.std(chances)) / 1_000

    assert np.mean(chances) < EPS + 4 * error
    assert np.mean(chances) > 0.96 * EPS - 4 * error


@pytest.mark.parametrize("age_s", [0.0, 300.0, 5_000.0])
def test_an_exponential_delay_is_worth_what_its_integral_says(age_s: float) -> None:
    mean_s = 900.0
    root = math.sqrt(TAU0_S + of(LAWS[2]).worth_s(age_s))

    def weighed(times: float) -> float:
        span_s = TAU0_S + age_s + mean_s * times
        return math.exp(-times) * float(ndtr(-Z * root / math.sqrt(span_s)))

    assert 0.97 * EPS < quad(weighed, 0.0, 60.0, limit=200)[0] <= EPS


@given(st.floats(0, 1e5), ages, st.floats(0.1, 1e5))
@settings(max_examples=30, deadline=None)
def test_a_certain_delay_is_worth_itself(value_s: float, age_s: float, tau0_s: float) -> None:
    """So the policy is that of M5 where nothing is random."""
    found_s = delay(tau0_s, Z, atoms(Constant(value_s=value_s))).worth_s(age_s)

    assert found_s == pytest.approx(age_s + value_s, rel=1e-6, abs=1e-4)
    assert found_s >= (age_s + value_s) * (1 - 1e-12) - 1e-9


@given(laws, ages, ages)
def test_a_greater_age_is_never_worth_less(law: Latency, one_s: float, other_s: float) -> None:
    younger_s, older_s = sorted((one_s, other_s))

    assert of(law).worth_s(younger_s) <= of(law).worth_s(older_s)


@given(laws, ages | st.floats(0, 1e8))
def test_it_lies_between_the_shortest_delay_and_the_longest(law: Latency, age_s: float) -> None:
    drawn_s = sampled(law, 1_000)
    found_s = of(law).worth_s(age_s) - age_s

    assert drawn_s.min() - 1e-6 * age_s <= found_s + 1e-5
    if age_s <= AGE_MAX_S:
        assert found_s <= float(atoms(law).delays_s[-1]) * 1.001 + 1e-6 * age_s


@pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)
@pytest.mark.parametrize("tau0_s", [1.0, TAU0_S])
def test_between_nodes_it_is_rounded_up_by_little(law: Latency, tau0_s: float) -> None:
    """Against a table that has every age asked for as a node of its own."""
    table, some = of(law, tau0_s), atoms(law)
    for one_s, other_s in pairwise(table.ages_s[::16]):
        age_s = 0.7 * one_s + 0.3 * other_s
        exact_s = delay(tau0_s + age_s, Z, some).worths_s[0] - tau0_s
        assert exact_s <= table.worth_s(age_s) + 1e-6 * (tau0_s + exact_s)
        assert tau0_s + table.worth_s(age_s) < 1.002 * (tau0_s + exact_s)


def mean_s(law: Empirical) -> float:
    return sum((q - p) * (a + b) / 2 for (p, a), (q, b) in pairwise(law.table))


def test_a_fat_tail_costs_more_than_a_steady_lane_of_the_same_mean_and_99th_percentile() -> None:
    steady = Empirical(table=((0, 40), (0.98, 60), (0.99, 300), (1, 300)))
    fat = Empirical(table=((0, 10), (0.98, 20), (0.99, 300), (0.994, 300), (1, 11_800)))
    assert quantile_us(steady, 0.99) == quantile_us(fat, 0.99)
    assert mean_s(steady) == pytest.approx(mean_s(fat))

    for age_s in (0.0, 600.0, 3_600.0):
        steady_s, fat_s = (delay(TAU0_S, Z, atoms(law)).worth_s(age_s) for law in (steady, fat))
        assert fat_s - age_s > 2 * (steady_s - age_s)


@given(laws, st.floats(0.01, 0.999))
def test_atoms_are_nowhere_earlier_than_the_law_and_little_later(law: Latency, q: float) -> None:
    found, drawn_s = atoms(law), np.sort(sampled(law, 200_000))
    assert found.shares.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.all(np.diff(found.delays_s) >= 0)

    at = np.searchsorted(np.cumsum(found.shares), q)
    low, high = np.quantile(drawn_s, [max(0.0, q - 0.004), min(1.0, q + 0.026)])
    assert low * (1 - 1e-6) <= found.delays_s[at] <= high * 1.02 + 1e-6


@pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)
def test_the_last_in_line_comes_when_the_latest_has(law: Latency) -> None:
    drawn_s = sampled(law, 1_000_000).reshape(-1, 10).max(axis=1)
    found = in_line(atoms(law), 10)
    for q in (0.1, 0.5, 0.9, 0.99):
        at = np.searchsorted(np.cumsum(found.shares), q)
        low, high = np.quantile(drawn_s, [max(0.0, q - 0.01), min(1.0, q + 0.1 * (1 - q) + 0.05)])
        assert low * (1 - 1e-6) <= found.delays_s[at] <= high * 1.05


def test_atoms_of_a_hold_are_nowhere_earlier_to_the_last_digits() -> None:
    found = atoms(Held(body=Constant(value_s=1), probability=0.5, hold_max_s=100))
    later = np.cumsum(found.shares[::-1])[::-1]
    exact = np.where(found.delays_s > 1, 0.5 * (101 - found.delays_s) / 100, 0.5)
    assert np.all(later[1:] >= exact[:-1] - 1e-12)


def test_what_is_never_later_is_not_counted_later_by_its_tail() -> None:
    """Atoms of the tail keep its share to the last digits: ndtri of it is that of the law."""
    law = Lognormal(median_s=1.0, sigma=1.0)
    found = atoms(law)
    later = np.cumsum(found.shares[::-1])[::-1]
    far = found.delays_s > math.exp(4.0)
    exact = ndtr(-np.log(found.delays_s[far]))
    assert np.all(later[far] >= exact * (1 - 1e-6))
    assert np.all(later[far][:-1] * 0.95 <= exact[:-1] * 1.001)
    assert ndtri(exact[0]) < -4.0
