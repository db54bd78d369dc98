"""One price path, exact in law at every time that the nodes look at it."""

import math
from typing import NamedTuple

import numpy as np

from hub.margin.theory.motion import Floats, Motion
from lab.theory.plan import PRINTS, Case
from markets.price_path import normals
from messaging.dice import Dice
from messaging.units import YEAR_S

HAIR = 1e-9  # log distance by which a continuous oracle's print is beyond the trigger


class Path(NamedTuple):
    """Prints, and what a command that each of them triggers would be filled at.

    Attributes:
        print_s: times of the prints, from the path's start.
        printed, filled: ln(S / S_m) at the prints, and as much later as a fill takes.
    """

    print_s: Floats
    printed: Floats
    filled: Floats


def draw(case: Case, seed: int, delay_s: float) -> Path:
    """Return a path that starts near the trigger, on its safe side.

    A continuous oracle's path starts just beyond the trigger, with its only print: what comes
    before the touch does not matter.
    """
    side, gap_s = case.position.side, case.oracle.gap_s
    if not gap_s:
        times_s, start = np.zeros(1), -side * HAIR
    else:
        start = side * case.motion.sigma * math.sqrt(gap_s / YEAR_S)
        times_s = gap_s * np.arange(1.0, PRINTS + 1.0)
        if case.oracle.random:
            gaps = -np.log1p(-Dice(seed, "theory/prints").first(PRINTS))
            times_s = gap_s * np.cumsum(gaps)
    both_s = np.concatenate((times_s, times_s + delay_s))
    logs = start + _moved(case.motion, seed, both_s)
    return Path(times_s, logs[: len(times_s)], logs[len(times_s) :])


def _moved(motion: Motion, seed: int, times_s: Floats) -> Floats:
    """Return the log price at each time, from 0 at time 0; times in any order."""
    order = np.argsort(times_s, kind="stable")
    years = times_s[order] / YEAR_S
    steps = np.diff(years, prepend=0.0)
    moves = motion.nu * steps
    moves += motion.sigma * np.sqrt(steps) * normals(seed, "theory/moves", len(steps))
    moved = np.empty_like(moves)
    moved[order] = np.cumsum(moves) + _jumped(motion, seed, years)
    return moved


def _jumped(motion: Motion, seed: int, years: Floats) -> Floats:
    """Return the sum of the log jumps up to each of rising times."""
    jumps = motion.jumps
    if not jumps.rate:
        return np.zeros(len(years))
    mean = jumps.rate * float(years[-1])
    count = int(mean + 20 * math.sqrt(mean) + 100)  # outlasts the path
    at = np.cumsum(-np.log1p(-Dice(seed, "theory/jumps").first(count))) / jumps.rate
    sizes = jumps.mean + jumps.sd * normals(seed, "theory/sizes", count)
    total = np.concatenate(([0.0], np.cumsum(sizes)))
    return np.asarray(total[np.searchsorted(at, years, side="right")])
