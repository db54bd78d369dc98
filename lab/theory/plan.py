"""One position, one oracle, one lane: what the command's words mean, checked."""

import math
import re
from typing import NamedTuple

import msgspec

from hub.margin.theory import expected, walk
from hub.margin.theory.expected import Delay
from hub.margin.theory.motion import LONG, NO_JUMPS, SHORT, Jumps, Motion, Position
from hub.margin.theory.walk import Prints
from messaging.errors import InputRefused
from messaging.latency import Constant, Exponential, Latency

PRINTS = 100  # that a path is waited for; what has not triggered by then does not count
SIDES = {"long": LONG, "short": SHORT}
CONTINUOUS = "continuous"
DAY_S, PATHS_MAX = 86_400.0, 1_000_000
BLOCKS_MAX = 4_000  # of the hub in one delay, for each of which it wakes up

_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0}


class Oracle(NamedTuple):
    """When prints come: every `gap_s`, on average if `random`; 0 for at any time."""

    gap_s: float
    random: bool


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is simulated and computed; shares are whole millionths, as the nodes have them.

    Attributes:
        sigma, drift: of the price, a year.
        jumps: a year, mean and deviation of the log jump.
        latency: `fixed:TIME` or `exp:TIME`: from the hub's command to the fill.
        age: from a print to its arrival at the hub.
        oracle: `poisson:TIME`, `every:TIME` or `continuous`.
        maintenance, fee, leverage, side: of the position.
        paths: worlds to run; seed: of all their dice.
    """

    sigma: float = 0.8
    drift: float = 0.0
    jumps: str = "none"
    latency: str = "fixed:900s"
    age: str = "0s"
    oracle: str = "poisson:60s"
    maintenance: float = 0.005
    fee: float = 0.001
    side: str = "long"
    leverage: float = 5.0
    paths: int = 2_000
    seed: int = 1


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A plan, understood.

    Attributes:
        half_spread_ppm: of the venue, which takes one millionth more for any size (T10).
    """

    plan: Plan
    position: Position
    motion: Motion
    oracle: Oracle
    age_s: float
    latency: Latency
    half_spread_ppm: int
    maintenance_ppm: int

    @property
    def delay(self) -> Delay:
        """Return what passes between a print and the fill."""
        if isinstance(self.latency, Exponential):
            return Delay(expected.in_years(self.age_s), expected.in_years(self.latency.mean_s))
        assert isinstance(self.latency, Constant)
        return Delay(expected.in_years(self.age_s + self.latency.value_s))

    @property
    def prints(self) -> Prints | None:
        """Return when the price is seen; None if at any time."""
        if not self.oracle.gap_s:
            return None
        return Prints(expected.in_years(self.oracle.gap_s), self.oracle.random, PRINTS)


def understand(plan: Plan) -> Case:
    """Return what a plan's words mean.

    Raises:
        InputRefused: the option, what was expected, what was found.
    """
    for option, found, low, high in (
        ("--sigma", plan.sigma, 0.001, 20.0),
        ("--drift", plan.drift, -100.0, 100.0),
        ("--maintenance", plan.maintenance, 0.0001, 0.5),
        ("--fee", plan.fee, 0.0, 0.2),
        ("--leverage", plan.leverage, 1.1, 1_000.0),
    ):
        if not low <= found <= high:  # a NaN is not
            raise InputRefused(option, expected=f"{low:g} to {high:g}", found=f"{found:g}")
    _whole("--paths", plan.paths, 1, PATHS_MAX)
    _whole("--seed", plan.seed, 0, 2**31 - 1)
    if plan.side not in SIDES:
        raise InputRefused("--side", expected=" or ".join(SIDES), found=repr(plan.side))
    maintenance_ppm, fee_ppm = round(plan.maintenance * 1e6), round(plan.fee * 1e6)
    if maintenance_ppm + 2 > 1e6 / plan.leverage:
        most = f"less than {1 / plan.leverage:g}, the initial margin at leverage {plan.leverage:g}"
        raise InputRefused("--maintenance", expected=most, found=f"{plan.maintenance:g}")
    half_spread_ppm = max(0, fee_ppm - 1)
    case = Case(
        plan=plan,
        position=Position(
            side=SIDES[plan.side],
            leverage=plan.leverage,
            maintenance=maintenance_ppm / 1e6,
            fee=(half_spread_ppm + 1) / 1e6,
        ),
        motion=Motion(sigma=plan.sigma, drift=plan.drift, jumps=_jumps(plan.jumps)),
        oracle=_oracle(plan.oracle),
        age_s=_seconds("--age", plan.age, 0.0),
        latency=_latency(plan.latency),
        half_spread_ppm=half_spread_ppm,
        maintenance_ppm=maintenance_ppm,
    )
    return _sensible(case)


def _sensible(case: Case) -> Case:
    """Refuse what is well formed and cannot be simulated or has no answer."""
    delay_s = (case.delay.fixed_years + case.delay.mean_years) * 365 * DAY_S
    gap_s, prints = case.oracle.gap_s, case.prints
    if gap_s and delay_s / gap_s > BLOCKS_MAX / 4:
        least = f"{delay_s / BLOCKS_MAX * 4:g}s or more between prints at this delay"
        raise InputRefused("--oracle", expected=least, found=repr(case.plan.oracle))
    spread = case.motion.sigma * math.sqrt(expected.in_years(max(gap_s * PRINTS, delay_s)))
    if spread > 1.0:
        most = "sigma * sqrt(time) of at most 1 over the delay and over 100 prints"
        raise InputRefused("--sigma", expected=most, found=f"{spread:.3g}")
    at_touch = Prints(1.0, False, 1)
    if not expected.finite(case.motion, case.position.side, prints or at_touch, case.delay):
        text = "times so short that a short's bad debt has a variance"
        raise InputRefused("--latency", expected=text, found="one that has none")
    if prints is not None and case.motion.jumps.rate:
        try:
            walk.resolution(case.motion, prints)
        except ValueError as error:
            expected_text, _, found = str(error).removeprefix("expected ").partition(", found ")
            raise InputRefused("--jumps", expected=expected_text, found=found) from None
    return case


def _whole(option: str, found: int, low: int, high: int) -> None:
    if not low <= found <= high:
        raise InputRefused(option, expected=f"{low:,} to {high:,}", found=f"{found:,}")


def _seconds(option: str, text: str, least_s: float) -> float:
    spelled = _SPAN.fullmatch(text)
    found_s = float(spelled[1]) * _UNIT_S[spelled[2]] if spelled else math.nan
    if not least_s <= found_s <= DAY_S:
        span = f"a time from {least_s:g}s to {DAY_S / 3_600:g}h, as 900s"
        raise InputRefused(option, expected=span, found=repr(text))
    return found_s


def _latency(text: str) -> Latency:
    kind, _, span = text.partition(":")
    if kind == "fixed":
        return Constant(value_s=_seconds("--latency", span, 0.0))
    if kind == "exp":
        return Exponential(mean_s=_seconds("--latency", span, 0.001))
    raise InputRefused(
        "--latency", expected="fixed:TIME or exp:TIME, as exp:900s", found=repr(text)
    )


def _oracle(text: str) -> Oracle:
    kind, _, span = text.partition(":")
    if text == CONTINUOUS:
        return Oracle(0.0, random=False)
    if kind in ("poisson", "every"):
        return Oracle(_seconds("--oracle", span, 0.1), random=kind == "poisson")
    form = "poisson:TIME, every:TIME or continuous, as poisson:60s"
    raise InputRefused("--oracle", expected=form, found=repr(text))


def _jumps(text: str) -> Jumps:
    if text == "none":
        return NO_JUMPS
    form = "none or RATE,MEAN,SD: 0 to 20000 a year, -1 to 1, 0 to 1"
    try:
        rate, mean, sd = (float(word) for word in text.split(","))
    except ValueError:
        raise InputRefused("--jumps", expected=form, found=repr(text)) from None
    if not (0 <= rate <= 20_000 and -1 <= mean <= 1 and 0 <= sd <= 1):
        raise InputRefused("--jumps", expected=form, found=repr(text))
    return Jumps(rate=rate, mean=mean, sd=sd)
