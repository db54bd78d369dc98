"""Simulation against formula: how many standard errors apart."""

import math
from collections.abc import Callable

import msgspec

from hub.margin.theory import expected
from hub.margin.theory.expected import Expected
from lab.theory import trial
from lab.theory.plan import Case, Plan, understand
from messaging.errors import InputRefused

Z_MAX = 4.0
HITS_MIN = 10  # bad debts, and paths without, below which a normal law does not hold
BPS = 1e4

Progress = Callable[[int, str], None]


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What was simulated and what it should have been.

    Standard errors are those that the formula implies for as many triggers.

    Attributes:
        p_sim, p_se, p_exact: chance of bad debt given the trigger.
        e_sim_bps, e_se_bps, e_exact_bps: mean bad debt given the trigger, of notional there.
        z_p, z_e: distances in standard errors.
        paths, triggered: worlds run, and those that liquidated within 100 prints.
        method: the formula.
        p_bgk, e_bgk_bps: the asymptotic ones of discrete prints (T4); None where it is not for.
        too_few: whether there are too few bad debts to tell anything from z.
        agrees: whether both distances are below 4, or there are too few.
        fee: what the venue takes, one millionth at the least.
        events: that the nodes handled.
        plan: what was asked for.
    """

    p_sim: float
    p_se: float
    p_exact: float
    e_sim_bps: float
    e_se_bps: float
    e_exact_bps: float
    z_p: float
    z_e: float
    paths: int
    triggered: int
    method: str
    p_bgk: float | None
    e_bgk_bps: float | None
    too_few: bool
    agrees: bool
    fee: float
    events: int
    plan: Plan


def exact(case: Case) -> Expected:
    """Return what the theory says."""
    prints = case.prints
    if prints is None:
        return expected.at_touch(case.position, case.motion, case.delay)
    return expected.expected(case.position, case.motion, prints, case.delay)


def compare(plan: Plan, progress: Progress) -> Compared:
    """Run a plan's paths through the nodes and compare.

    Raises:
        InputRefused: an option that cannot be used, or no path that triggers.
    """
    case = understand(plan)
    theory = exact(case)
    triggered = hits = events = 0
    lost = 0.0
    for number, ended in enumerate(trial.results(case), start=1):
        triggered += ended.triggered
        hits += ended.bad_debt > 0
        lost += ended.bad_debt
        events += ended.events
        progress(number, f"{hits:,} bad debts")
    if not triggered:
        raise InputRefused("--paths", expected="one path that triggers or more", found="none")
    p, e, e2 = theory.loss
    p_se = math.sqrt(max(0.0, p * (1 - p)) / triggered)
    e_se = math.sqrt(max(0.0, e2 - e**2) / triggered)
    z_p, z_e = _distance(hits / triggered - p, p_se), _distance(lost / triggered - e, e_se)
    too_few = min(p, 1 - p) * triggered < HITS_MIN
    return Compared(
        p_sim=hits / triggered,
        p_se=p_se,
        p_exact=p,
        e_sim_bps=BPS * lost / triggered,
        e_se_bps=BPS * e_se,
        e_exact_bps=BPS * e,
        z_p=z_p,
        z_e=z_e,
        paths=plan.paths,
        triggered=triggered,
        method=theory.method,
        **_bgk(case),
        too_few=too_few,
        agrees=too_few or (abs(z_p) < Z_MAX and abs(z_e) < Z_MAX),
        fee=case.position.fee,
        events=events,
        plan=plan,
    )


def _bgk(case: Case) -> dict[str, float | None]:
    prints = case.prints
    if prints is None or prints.random or case.motion.jumps.rate:
        return {"p_bgk": None, "e_bgk_bps": None}
    loss = expected.corrected(case.position, case.motion, prints, case.delay)
    return {"p_bgk": loss.p, "e_bgk_bps": BPS * loss.e}


def _distance(difference: float, error: float) -> float:
    """Return the difference in standard errors; where there is no error, as many of 1e-12."""
    return difference / max(error, 1e-12)
