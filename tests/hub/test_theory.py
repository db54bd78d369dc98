"""Closed forms against independent numerics: integrals, plain Monte Carlo, limits, identities."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from hub.margin.buffer import AssetRisk, SqrtTimeBuffer
from hub.margin.theory import curvature, expected, moments, passage, sizes, walk
from hub.margin.theory.expected import Delay, in_years
from hub.margin.theory.moments import Loss, loss
from hub.margin.theory.motion import LONG, SHORT, Floats, Jumps, Motion, Position
from hub.margin.theory.walk import Prints
from messaging.units import Asset, Ppm

SIDES = (LONG, SHORT)
TAU = in_years(900)
GAP = in_years(60)
DRIFTING = Motion(sigma=0.8, drift=60.0)
JUMPING = Motion(sigma=0.8, drift=5.0, jumps=Jumps(rate=4_000, mean=-0.005, sd=0.01))
PATHS = 400_000


def position(side: int = LONG, maintenance: float = 0.005, fee: float = 0.001) -> Position:
    return Position(side=side, leverage=5.0, maintenance=maintenance, fee=fee)


def at_touch(held: Position, motion: Motion, years: float) -> Loss:
    return expected.at_touch(held, motion, Delay(years)).loss


def near(found: Loss, drawn: Floats) -> None:
    """Check P, E and E2 against bad debts drawn, within four and a half standard errors."""
    for exact, values in zip(found, (drawn > 0, drawn, drawn**2), strict=True):
        error = float(np.std(values)) / math.sqrt(len(drawn))
        assert abs(float(np.mean(values)) - exact) < 4.5 * error


def bad_debts(held: Position, logs: Floats) -> Floats:
    """Return the bad debt of fills at ln(S / S_m) = `logs`, a share of notional at S_m."""
    side = held.side
    fill = (1 - side * held.fee) * np.exp(logs)
    return np.maximum(0.0, side * (1 - side * held.maintenance - fill))


def moved(motion: Motion, years: Floats, dice: np.random.Generator) -> Floats:
    """Return log returns over `years`, one for each; E[exp] grows with the drift alone."""
    jumps, count = motion.jumps, dice.poisson(motion.jumps.rate * years)
    mean_jump = math.exp(jumps.mean + jumps.sd**2 / 2) - 1
    nu = motion.drift - motion.sigma**2 / 2 - jumps.rate * mean_jump
    sizes = jumps.mean * count + jumps.sd * np.sqrt(count) * dice.standard_normal(years.shape)
    diffused = motion.sigma * np.sqrt(years) * dice.standard_normal(years.shape)
    return np.asarray(nu * years + diffused + sizes)


def integral(of: Callable[[float], float], low: float, high: float) -> float:
    return float(quad(of, low, high, limit=400, epsabs=1e-14, epsrel=1e-12)[0])


# --- T1 ---------------------------------------------------------------------------------


@given(
    side=st.sampled_from(SIDES),
    leverage=st.floats(1.5, 50),
    share=st.floats(0.01, 0.95),
    fee=st.floats(0, 0.1),
)
def test_equity_is_maintenance_at_the_trigger_and_nothing_at_bankruptcy(
    side: int, leverage: float, share: float, fee: float
) -> None:
    held = Position(side=side, leverage=leverage, maintenance=share / leverage, fee=fee)
    opened = 10_000.0

    def equity(price: float) -> float:
        return opened / leverage + side * (price - opened)

    trigger = held.trigger(opened)
    assert equity(held.bankruptcy(opened)) == pytest.approx(0, abs=1e-8)
    assert equity(trigger) == pytest.approx(held.maintenance * trigger, abs=1e-8)
    filled = trigger * (1 - side * fee)
    assert held.edge == pytest.approx(math.log(filled / held.bankruptcy(opened)), abs=1e-12)


def test_leverage_changes_nothing_once_the_trigger_is_reached() -> None:
    delay = Delay(TAU, TAU)
    for side in SIDES:
        found = {
            expected.expected(
                Position(side=side, leverage=leverage, maintenance=0.005, fee=0.001),
                JUMPING,
                Prints(GAP, False, 20),
                delay,
            )
            for leverage in (3.0, 20.0)
        }
        assert len(found) == 1


# --- T2 to T4 ---------------------------------------------------------------------------


@pytest.mark.parametrize("distance", [-0.01, 0.01])
@pytest.mark.parametrize("drift", [-60.0, 0.0, 60.0])
def test_first_passage_is_what_the_bridge_finds_between_sparse_prints(
    distance: float, drift: float
) -> None:
    motion, dice = Motion(sigma=0.8, drift=drift), np.random.default_rng(1)
    steps, years = 4, in_years(3_600)
    missed, before = np.ones(PATHS), np.full(PATHS, abs(distance))
    for _ in range(steps):
        move = moved(motion, np.full(PATHS, years / steps), dice)
        after = before - math.copysign(1, distance) * move
        passed = np.exp(
            -2 * np.maximum(0, before) * np.maximum(0, after) / (0.8**2 * years / steps)
        )
        missed *= np.where((before > 0) & (after > 0), 1 - passed, 0)
        before = after
    error = float(np.std(missed)) / math.sqrt(PATHS)

    assert abs(1 - passage.touched(motion, distance, years) - missed.mean()) < 4.5 * error


def test_the_bridge_is_the_share_of_paths_that_come_by_reflection() -> None:
    x, y, variance = 0.0010, 0.0006, 0.64 * GAP

    def density(move: float) -> float:
        return math.exp(-(move**2) / (2 * variance))

    # Those that touched and ended at y are as many as those that ended at -y.
    found = passage.touched_between(0.8, x, y, GAP)
    assert found == pytest.approx(density(x + y) / density(x - y), rel=1e-9)
    assert 0.3 < found < 0.4
    assert passage.touched_between(0.8, 0.0, y, GAP) == 1.0


def test_without_drift_first_passage_is_twice_the_end() -> None:
    motion = Motion(sigma=0.8, drift=0.32)

    assert motion.nu == pytest.approx(0)
    at_end = 0.5 * math.erfc(0.01 / (0.8 * math.sqrt(TAU)) / math.sqrt(2))
    assert passage.touched(motion, -0.01, TAU) == pytest.approx(2 * at_end)
    assert passage.touched(motion, 0.0, TAU) == 1.0


def test_mean_overshoot_from_afar_is_that_of_broadie_glasserman_and_kou() -> None:
    motion = Motion(sigma=0.8, drift=0.32)
    found = walk.overshoot(motion, LONG, Prints(GAP, False, 3_000, start=12.0), per_step=16)
    mean = float(found.distance @ found.weight / found.weight.sum())

    assert mean == pytest.approx(passage.overshoot(0.8, GAP), rel=0.005)


def test_the_correction_is_close_where_prints_are_dense() -> None:
    prints, delay = Prints(in_years(5), False, 400, start=6.0), Delay(TAU)
    for side in SIDES:
        exact = expected.expected(position(side), DRIFTING, prints, delay).loss
        about = expected.corrected(position(side), DRIFTING, prints, delay)
        assert about.p == pytest.approx(exact.p, rel=0.03)
        assert about.e == pytest.approx(exact.e, rel=0.03)


# --- T5, T6 -----------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("fee", [0.0, 0.001, 0.008])
def test_fixed_latency_is_the_integral_over_the_normal_law(side: int, fee: float) -> None:
    held, mean = position(side, fee=fee), (60.0 - 0.32) * TAU
    sd = DRIFTING.sigma * math.sqrt(TAU)
    edge = -held.edge

    def weighed(power: int) -> float:
        def of(z: float) -> float:
            bad = float(bad_debts(held, np.array(mean + sd * z)))
            return bad**power * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

        cut = (edge - mean) / sd
        return integral(of, *((-12, cut) if side == LONG else (cut, 12)))

    found = at_touch(held, DRIFTING, TAU)
    for power, value in enumerate(found):
        assert value == pytest.approx(weighed(power), rel=1e-7)
    assert found.shortfall == pytest.approx(found.e / found.p)


def test_a_short_loses_more_than_a_long_at_equal_margin() -> None:
    for fee in (0.0, 0.002):
        of_long, of_short = (
            at_touch(position(side, fee=fee), Motion(sigma=0.8), TAU).e for side in SIDES
        )
        assert of_short > of_long > 0


@given(
    b=st.floats(-0.05, 0.05),
    mean=st.floats(-0.02, 0.02),
    sd=st.floats(0.001, 0.1),
    power=st.sampled_from(moments.POWERS),
)
def test_long_and_short_are_mirror_images_and_add_up_to_all(
    b: float, mean: float, sd: float, power: int
) -> None:
    """Put-call parity: either is in bad debt, at every level, so together they have all of it."""

    def of(side: int, b: float, mean: float) -> float:
        return float(moments.normal(side, np.array(b), np.array(mean), np.array(sd**2), power))

    whole = math.exp(power * mean + (power * sd) ** 2 / 2)
    assert of(LONG, b, mean) + of(SHORT, b, mean) == pytest.approx(whole, rel=1e-12)
    if power == 0:
        assert of(LONG, b, mean) == pytest.approx(of(SHORT, -b, -mean), rel=1e-12)


def test_without_volatility_a_fee_alone_decides() -> None:
    still = Motion(sigma=1e-6)
    for side in SIDES:
        assert at_touch(position(side, fee=0.004), still, TAU)[:2] == (0.0, 0.0)
        p, e, _ = at_touch(position(side, fee=0.006), still, TAU)
        assert (p, e) == (1.0, pytest.approx(0.001, rel=1e-6))


def test_more_of_what_hurts_hurts_more() -> None:
    for side in SIDES:
        base = at_touch(position(side), Motion(sigma=0.8), TAU)
        against = Motion(sigma=0.8, drift=-side * 60.0)
        for worse in (
            at_touch(position(side, fee=0.002), Motion(sigma=0.8), TAU),
            at_touch(position(side, maintenance=0.004), Motion(sigma=0.8), TAU),
            at_touch(position(side), Motion(sigma=0.9), TAU),
            at_touch(position(side), Motion(sigma=0.8), 2 * TAU),
            at_touch(position(side), against, TAU),
        ):
            assert worse.p > base.p
            assert worse.e > base.e


@given(
    side=st.sampled_from(SIDES),
    fee=st.floats(0, 0.05),
    drift=st.floats(-50, 50),
    sigma=st.floats(0.1, 3),
    seconds=st.floats(1, 86_400),
    chance=st.floats(1e-5, 0.5),
)
def test_required_maintenance_put_back_gives_its_chance(
    side: int, fee: float, drift: float, sigma: float, seconds: float, chance: float
) -> None:
    motion, years = Motion(sigma=sigma, drift=drift), in_years(seconds)
    margin = sizes.maintenance_for(motion, side, fee, years, chance)
    held = Position(side=side, leverage=1.01, maintenance=margin, fee=fee)

    assert abs(at_touch(held, motion, years).p - chance) < 1e-9


def test_required_maintenance_is_about_fee_and_quantile() -> None:
    z_sd = 3.0902 * 0.8 * math.sqrt(TAU)
    for side in SIDES:
        found = sizes.maintenance_for(Motion(sigma=0.8), side, 0.001, TAU, 0.001)
        assert found == pytest.approx(0.001 + z_sd, rel=0.02)


def test_only_the_sum_of_the_delays_matters() -> None:
    dice = np.random.default_rng(2)
    held = position()
    split = moved(JUMPING, np.full(PATHS, TAU / 3), dice)
    split += moved(JUMPING, np.full(PATHS, 2 * TAU / 3), dice)

    near(at_touch(held, JUMPING, TAU), bad_debts(held, split))


# --- T7, T8 -----------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("b", [-0.004, 0.0, 0.004])
@pytest.mark.parametrize("power", moments.POWERS)
def test_exponential_latency_is_fixed_latency_averaged(side: int, b: float, power: int) -> None:
    per_year = 1 / TAU
    laplace = moments.rates(DRIFTING.sigma, DRIFTING.nu, per_year)

    def of(root: float) -> float:
        years = np.array(TAU * root**2)
        fixed = moments.merton(side, np.array(b), DRIFTING, years, power)
        return float(fixed) * 2 * root * math.exp(-(root**2))

    exact = moments.exponential(side, b, laplace, power)
    assert exact == pytest.approx(integral(of, 1e-9, 7), rel=1e-6)


def test_an_exponential_law_has_mass_one_and_the_growth_of_its_motion() -> None:
    laplace = moments.rates(DRIFTING.sigma, DRIFTING.nu, 1 / TAU)
    for power in moments.POWERS:
        both = sum(moments.exponential(side, 0.002, laplace, power) for side in SIDES)
        assert both == pytest.approx(1 / (1 - TAU * DRIFTING.growth(power)), rel=1e-10)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("mean", [0.0, TAU])
def test_poisson_prints_overshoot_without_memory(side: int, mean: float) -> None:
    """By plain simulation of the prints; neither start nor patience matters."""
    held, dice, count = position(side), np.random.default_rng(3), PATHS // 4
    distance, fallen = np.full(count, 0.0007), np.full(count, np.nan)
    for _ in range(60):
        waiting = np.isnan(fallen)
        gaps = dice.exponential(GAP, waiting.sum())
        distance[waiting] += side * moved(DRIFTING, gaps, dice)
        fallen[waiting & (distance < 0)] = distance[waiting & (distance < 0)]
    fallen = fallen[~np.isnan(fallen)]
    tau = TAU / 3 + (dice.exponential(mean, len(fallen)) if mean else np.zeros(len(fallen)))
    prints, delay = Prints(GAP, True, 60), Delay(TAU / 3, mean)

    near(
        expected.expected(held, DRIFTING, prints, delay).loss,
        bad_debts(held, side * fallen + moved(DRIFTING, tau, dice)),
    )


@pytest.mark.parametrize("side", SIDES)
def test_poisson_prints_by_recursion_give_the_closed_form(side: int) -> None:
    """Two ways to the same figure, one of which knows nothing of exponential overshoots."""
    held, prints, delay = position(side), Prints(GAP, True, 40), Delay(TAU)
    closed = expected.expected(held, DRIFTING, prints, delay).loss
    errors = []
    for per_step in (8, 16):
        beyond = walk.overshoot(DRIFTING, side, prints, per_step=per_step)
        m0, m1, m2 = expected._averaged(held, DRIFTING, beyond, delay)
        errors.append(abs(loss(held, (m0, m1, m2)).p / closed.p - 1))

    assert errors[1] < 5e-4
    assert errors[1] == pytest.approx(errors[0] / 4, rel=0.1)  # the trapezoidal rule


@pytest.mark.parametrize("side", SIDES)
def test_the_recursion_converges_as_the_trapezoidal_rule_does(side: int) -> None:
    prints = Prints(GAP, False, 20)
    means = []
    for per_step in (8, 16, 32):
        beyond = walk.overshoot(DRIFTING, side, prints, per_step=per_step)
        means.append(float(beyond.distance @ beyond.weight))

    assert (means[0] - means[1]) / (means[1] - means[2]) == pytest.approx(4, rel=0.05)


def test_dense_poisson_prints_are_a_continuous_oracle() -> None:
    for side in SIDES:
        held, delay = position(side), Delay(TAU)
        dense = expected.expected(held, DRIFTING, Prints(in_years(1e-4), True, 1), delay).loss
        assert dense.p == pytest.approx(at_touch(held, DRIFTING, TAU).p, rel=3e-3)


# --- T9, T10 ----------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
def test_jumps_during_the_latency(side: int) -> None:
    held, dice = position(side), np.random.default_rng(4)

    near(
        at_touch(held, JUMPING, TAU),
        bad_debts(held, moved(JUMPING, np.full(PATHS, TAU), dice)),
    )


def test_jumps_are_compensated_and_none_is_none() -> None:
    weights, means, variances = JUMPING.mixture(np.array(TAU))

    assert weights.sum() == pytest.approx(1, abs=1e-9)
    grown = (weights * np.exp(means + variances / 2)).sum()
    assert grown == pytest.approx(math.exp(JUMPING.drift * TAU), rel=1e-9)
    assert math.exp(JUMPING.growth(1.0) * TAU) == pytest.approx(grown, rel=1e-9)
    nothing = Motion(sigma=0.8, jumps=Jumps(rate=4_000, mean=0.0, sd=0.0))
    assert at_touch(position(), nothing, TAU) == pytest.approx(
        at_touch(position(), Motion(sigma=0.8), TAU), rel=1e-9
    )


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("mean", [0.0, TAU])
@pytest.mark.parametrize("sd", [0.0, 0.01])
def test_any_combination_is_what_plain_simulation_gives(
    side: int, random: bool, mean: float, sd: float
) -> None:
    motion = Motion(sigma=0.8, drift=5.0, jumps=Jumps(rate=20_000, mean=-0.002, sd=sd))
    held, dice, count = position(side), np.random.default_rng(5), PATHS // 8
    prints, delay = Prints(GAP, random, 25, start=1.0), Delay(TAU / 3, mean)
    distance, fallen = np.full(count, 0.8 * math.sqrt(GAP)), np.full(count, np.nan)
    for _ in range(prints.waited):
        waiting = np.isnan(fallen)
        gaps = dice.exponential(GAP, waiting.sum()) if random else np.full(waiting.sum(), GAP)
        distance[waiting] += side * moved(motion, gaps, dice)
        fallen[waiting & (distance < 0)] = distance[waiting & (distance < 0)]
    fallen = fallen[~np.isnan(fallen)]
    chance = float(walk.overshoot(motion, side, prints, per_step=32).weight.sum())
    error = math.sqrt(chance * (1 - chance) / count)

    assert abs(len(fallen) / count - chance) < 4.5 * error
    tau = TAU / 3 + (dice.exponential(mean, len(fallen)) if mean else np.zeros(len(fallen)))
    near(
        expected.expected(held, motion, prints, delay).loss,
        bad_debts(held, side * fallen + moved(motion, tau, dice)),
    )


def test_latency_nodes_integrate_moments_of_the_latency() -> None:
    years, chances = expected.latencies(Delay(2.0, 3.0))

    assert chances.sum() == pytest.approx(1)
    assert chances @ years == pytest.approx(5.0)
    assert chances @ (years - 2.0) ** 2 == pytest.approx(18.0)


def test_bad_debt_without_a_variance_is_refused_of_shorts_only() -> None:
    wild, prints = Motion(sigma=20.0), Prints(GAP, False, 2)
    long_wait = Delay(0.0, in_years(86_400))

    assert expected.finite(wild, LONG, prints, long_wait)
    assert not expected.finite(wild, SHORT, prints, long_wait)
    with pytest.raises(ValueError, match="variance"):
        expected.expected(position(SHORT), wild, prints, long_wait)


# --- T11, T12 ---------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [-3.0, 0.0, 3.0])
@pytest.mark.parametrize("delta", [-2.0, 0.0, 2.0])
@pytest.mark.parametrize("level", [-0.5, 0.5, 2.0])
def test_delta_gamma_loss_is_what_draws_give(gamma: float, delta: float, level: float) -> None:
    x = np.random.default_rng(6).standard_normal(PATHS) * 1.5
    lost = (-0.2 + delta * x + gamma * x**2 / 2 < -level).mean()
    exact = curvature.loss_beyond(-0.2, delta, gamma, 1.5, level)

    assert abs(lost - exact) <= 4.5 * math.sqrt(exact * (1 - exact) / PATHS)


def test_cumulants_are_those_of_draws() -> None:
    dice = np.random.default_rng(7)
    covariance = np.array([[1.0, 0.3], [0.3, 0.5]])
    delta, gamma = np.array([1.0, -0.5]), np.array([[-0.2, 0.1], [0.1, 0.15]])
    x = dice.multivariate_normal(np.zeros(2), covariance, 2_000_000)
    pnl = 0.1 + x @ delta + np.einsum("ni,ij,nj->n", x, gamma, x) / 2
    off = pnl - pnl.mean()
    variance = float((off**2).mean())
    found = curvature.cumulants(0.1, delta, gamma, covariance)

    assert found.mean == pytest.approx(float(pnl.mean()), abs=0.004)
    assert found.variance == pytest.approx(variance, rel=0.005)
    assert found.third == pytest.approx(float((off**3).mean()), rel=0.05)
    assert found.fourth == pytest.approx(float((off**4).mean()) - 3 * variance**2, rel=0.1)
    assert curvature.quantile(found, 0.01) == pytest.approx(float(np.quantile(pnl, 0.01)), rel=0.02)


def test_pure_gamma_has_the_skewness_and_kurtosis_of_a_square() -> None:
    one = np.ones((1, 1))
    found = curvature.cumulants(0.0, np.zeros(1), one, one)

    assert found.skew == pytest.approx(math.sqrt(8))
    assert found.excess == pytest.approx(12)


def test_a_quantile_without_curvature_is_the_normal_one() -> None:
    found = curvature.cumulants(1.0, np.array([2.0]), np.zeros((1, 1)), np.array([[4.0]]))

    assert curvature.quantile(found, 0.001) == pytest.approx(1 - 4 * 3.090232, rel=1e-6)


# --- T13 to T15, M5 ---------------------------------------------------------------------


@given(
    equity=st.floats(0.001, 0.2),
    target=st.floats(0.02, 0.5),
    cost=st.floats(0, 0.019),
)
def test_a_partial_close_restores_the_target(equity: float, target: float, cost: float) -> None:
    share = sizes.close_share(1.0, equity, target, cost)

    assert 0 <= share <= 1
    if 0 < share < 1:
        assert equity - share * cost == pytest.approx(target * (1 - share), rel=1e-9)
    else:
        assert (share == 0) == (equity >= target)


def test_a_target_that_closing_cannot_reach_is_refused() -> None:
    with pytest.raises(ValueError, match="target > cost"):
        sizes.close_share(1.0, 0.01, 0.02, 0.02)


@given(shock=st.floats(0.1, 1_000), impact=st.floats(0, 1), density=st.floats(0, 0.99))
def test_a_cascade_is_its_own_sum(shock: float, impact: float, density: float) -> None:
    ratio = sizes.reproduction(impact, density)
    drop = sizes.final_drop(shock, ratio)

    assert drop == pytest.approx(shock + impact * density * drop, rel=1e-9)
    assert sizes.final_drop(shock, 1.0) == math.inf


def test_a_steady_sale_has_a_third_of_the_variance() -> None:
    steps = 200
    dice = np.random.default_rng(8)
    walked = np.cumsum(dice.standard_normal((20_000, steps)) * math.sqrt(TAU / steps), axis=1)
    averages = 0.8 * walked.mean(axis=1)

    assert sizes.unwind_variance(0.8, TAU) == pytest.approx(float(averages.var()), rel=0.04)


def test_the_buffers_range_pays_for_the_latency_it_is_charged_for() -> None:
    """M5 at stress volatility: no latency up to six hours makes bad debt likelier than 1e-4."""
    risk = AssetRisk(
        asset=Asset("BTC"),
        initial_margin_ppm=Ppm(100_000),
        maintenance_margin_ppm=Ppm(65_000),
        stress_volatility_ppm=Ppm(2_500_000),
        jump_ppm=Ppm(30_000),
        quantile_z=3.09,
        depth_usd6_per_s=1,
        participation_ppm=Ppm(1),
    )
    for seconds in (12.0, 60.0, 180.0, 900.0, 3_600.0, 21_600.0):
        margin = SqrtTimeBuffer().range_fraction(risk, seconds, math.sqrt)
        held = position(maintenance=margin, fee=0.01)
        assert at_touch(held, Motion(sigma=2.5), in_years(seconds)).p < 1e-4
