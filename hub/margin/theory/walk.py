"""How far the print that triggers lies beyond the trigger: a recursion, print by print (T10).

Prints make a random walk of the log distance to the trigger. Its density, cut off where it has
triggered, is carried from print to print on a lattice; what falls beyond is the overshoot.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import log_ndtr

from hub.margin.theory.moments import Rates, rates
from hub.margin.theory.motion import Floats, Motion, jumps_max

PER_STEP, PER_STEP_MIN = 32, 8  # lattice points in the standard deviation of a step
POINTS_MAX = 2**17
RARE = 1e-7  # chance that is left out
DEVIATIONS = 8.0


class Overshoot(NamedTuple):
    """Log distance beyond the trigger at the triggering print, as weights on points.

    Attributes:
        distance: >= 0, shape (points,).
        weight: its sum is the chance to trigger within the prints counted.
    """

    distance: Floats
    weight: Floats


class Prints(NamedTuple):
    """When the price is seen: `gap_years` apart, on average if `random` (Poisson), else exactly.

    Attributes:
        waited: how many prints are waited for.
        start: log distance from the trigger at the time of no print yet, in sigma * sqrt(gap).
    """

    gap_years: float
    random: bool
    waited: int
    start: float = 1.0


def resolution(motion: Motion, prints: Prints) -> int:
    """Return how many lattice points a step can have.

    Raises:
        ValueError: jumps are so large beside a step that no lattice holds both.
    """
    steps = sum(_reach(motion, prints)) / (motion.sigma * math.sqrt(prints.gap_years))
    per_step = PER_STEP
    while per_step > PER_STEP_MIN and steps * per_step > POINTS_MAX:
        per_step //= 2
    if steps * per_step > 2 * POINTS_MAX:
        most = 2 * POINTS_MAX / per_step
        raise ValueError(f"expected jumps of at most {most:,.0f} steps, found {steps:,.0f}")
    return per_step


def overshoot(motion: Motion, side: int, prints: Prints, *, per_step: int) -> Overshoot:
    """Return the overshoot of the first print beyond the trigger.

    The trapezoidal rule: errors fall with the square of `per_step`.
    """
    far_up, far_down = _reach(motion, prints)
    spacing = motion.sigma * math.sqrt(prints.gap_years) / per_step
    first = round(prints.start * per_step)
    points = max(first, math.ceil(far_up / spacing)) + 1
    beyond = math.ceil(far_down / spacing) + 1
    span = points + beyond
    place = np.arange(-span, span + 1)
    size = next_fast_len(2 * span + 1, real=True)
    wrapped = np.zeros(size)
    # The lattice of the kernel, with distance 0 first and negative ones at the end.
    wrapped[place] = spacing * _kernel(motion, side, prints, spacing, place, size)
    spectrum = rfft(wrapped)

    inside = np.ones(size)
    inside[0], inside[points:] = 0.5, 0.0  # the trapezoid ends at the trigger
    here = np.zeros(size)
    here[first] = 1.0
    visits = here.copy()
    for _ in range(prints.waited - 1):
        here = irfft(spectrum * rfft(here), size) * inside
        visits += here
    fallen = irfft(spectrum * rfft(visits), size)
    back = -np.arange(beyond)
    weight = np.maximum(fallen[back], 0.0)
    weight[0] *= 0.5
    return Overshoot(np.arange(float(beyond)) * spacing, weight)


def _reach(motion: Motion, prints: Prints) -> tuple[float, float]:
    """Return how far the walk may go away from the trigger and come back, and how far beyond it.

    What jumps away needs another jump to come back, so the last jump does not count there.
    """
    step = motion.sigma * math.sqrt(prints.gap_years)
    jumps, years = motion.jumps, prints.waited * prints.gap_years
    tall = 3.0 if prints.random else 1.0  # an exponential step has a longer tail
    most = jumps_max(jumps.rate * years, RARE)
    away, jumped = (
        count * abs(jumps.mean) + 6 * math.sqrt(count) * jumps.sd
        for count in (max(0, most - 1), most)
    )
    drifted = abs(motion.nu) * years
    up = DEVIATIONS * step * math.sqrt(prints.waited) + tall * DEVIATIONS * step
    down = DEVIATIONS * tall * step + abs(motion.nu) * prints.gap_years * DEVIATIONS
    return up + away + drifted, down + jumped


def _kernel(
    motion: Motion, side: int, prints: Prints, spacing: float, place: NDArray[np.intp], size: int
) -> Floats:
    """Return the density of one step of the distance, at `place` times `spacing`."""
    move: Floats = side * spacing * place.astype(np.float64)
    if not prints.random:
        weights, means, variances = motion.mixture(np.array([prints.gap_years]))
        density = np.zeros(move.shape)
        for weight, mean, variance in zip(weights[:, 0], means[:, 0], variances[:, 0], strict=True):
            scaled = (move - mean) ** 2 / (2 * variance)
            density += weight * np.exp(-scaled) / math.sqrt(2 * math.pi * variance)
        return density
    # Between events, prints and jumps, the time is exponential; an event is a print with
    # chance q. A step is one such stretch, and as many jumps with a stretch each as come first.
    per_year = 1 / prints.gap_years + motion.jumps.rate
    q = 1 / (prints.gap_years * per_year)
    laplace = rates(motion.sigma, motion.nu, per_year)
    stretch = _stretch(laplace, move)
    if motion.jumps.rate == 0.0:
        return stretch
    ring = np.zeros(size)
    ring[place] = spacing * stretch
    first = rfft(ring)
    ring[place] = spacing * _jump_and_stretch(motion, laplace, move)
    more = rfft(ring)
    whole = irfft(q * first / (1 - (1 - q) * more), size)
    return np.asarray(whole[place]) / spacing


def _stretch(laplace: Rates, move: Floats) -> Floats:
    falling = np.where(move < 0, laplace.down * move, -laplace.up * move)
    return laplace.peak * np.exp(falling)


def _jump_and_stretch(motion: Motion, laplace: Rates, move: Floats) -> Floats:
    """Return the density of a jump and the stretch after it: normal plus two-sided exponential."""
    mean, sd = motion.jumps.mean, motion.jumps.sd
    away = move - mean
    if sd == 0.0:
        return _stretch(laplace, away)
    up, down = laplace.up, laplace.down
    above = -up * away + (up * sd) ** 2 / 2 + log_ndtr(away / sd - up * sd)
    below = down * away + (down * sd) ** 2 / 2 + log_ndtr(-away / sd - down * sd)
    return np.asarray(laplace.peak * (np.exp(above) + np.exp(below)))
