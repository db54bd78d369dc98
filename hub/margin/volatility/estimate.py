"""The running estimate behind a margin: two averages of squared moves, and what they allow."""

import math
from typing import Annotated, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

from messaging.units import HOUR_US, SECOND_US, YEAR_S, Micros, Ppm, Usd6

DAY_S = 86_400.0
SLOW_HALF_LIFE_S = DAY_S * math.log(0.5) / math.log(0.94)  # 0.94 a day: 11.2 days
FAST_HALF_LIFE_S = 2_700.0
STEPS = 20  # steps of margin volatility from zero to stress; more of them above it

Span: TypeAlias = Annotated[float, Meta(ge=1.0, le=1e9)]
Share: TypeAlias = Annotated[float, Meta(ge=0.0, le=1.0)]


class VolatilityPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the volatility that margin is computed with follows the market (rules V1 to V3).

    Attributes:
        fast_half_life_s, slow_half_life_s: in which an observation loses half of its weight.
        floor: volatility that a forecast never falls below.
        stress_weight: share of stress variance in the variance that margin uses.
        ramp_per_h: most that the logarithm of the volatility rises in an hour.
    """

    fast_half_life_s: Span = FAST_HALF_LIFE_S
    slow_half_life_s: Span = SLOW_HALF_LIFE_S
    floor: Annotated[float, Meta(ge=0.01, le=100.0)] = 0.4
    stress_weight: Share = 0.25
    ramp_per_h: Annotated[float, Meta(gt=0.0, le=1e3)] = 0.25


class Estimate(NamedTuple):
    """What is known of one asset's volatility.

    Attributes:
        at_us, price_usd6: the latest observation.
        since_us: the first one.
        fast, slow: averages of squared log returns, per year.
        margin: volatility for margin (rule V3).
    """

    at_us: Micros
    price_usd6: Usd6
    since_us: Micros
    fast: float
    slow: float
    margin: float


def first(policy: VolatilityPolicy, at_us: Micros, price_usd6: Usd6, stress: float) -> Estimate:
    """Return what one price alone says: nothing beyond the floor."""
    calm = policy.floor**2
    return Estimate(at_us, price_usd6, at_us, calm, calm, margin(policy, calm, stress))


def observed(
    policy: VolatilityPolicy, known: Estimate, at_us: Micros, price_usd6: Usd6, stress: float
) -> Estimate:
    """Return the estimate after another price; one that is not newer changes nothing."""
    if at_us <= known.at_us:
        return known
    span_s = (at_us - known.at_us) / SECOND_US
    seen_s = (at_us - known.since_us) / SECOND_US
    squared = math.log(price_usd6 / known.price_usd6) ** 2 * YEAR_S / span_s
    fast = known.fast + gain(span_s, seen_s, policy.fast_half_life_s) * (squared - known.fast)
    slow = known.slow + gain(span_s, seen_s, policy.slow_half_life_s) * (squared - known.slow)
    wanted = margin(policy, max(fast, slow), stress)
    allowed = ramped(policy, known.margin, wanted, (at_us - known.at_us) / HOUR_US)
    return Estimate(at_us, price_usd6, known.since_us, fast, slow, allowed)


def gain(span_s: float, seen_s: float, half_life_s: float) -> float:
    """Return the weight of the latest return, `span_s` long, in an average over `seen_s` (V1).

    The weights of all returns add up to 1 from the first one on, so the average needs no start.
    """
    rate = math.log(0.5) / half_life_s
    return math.expm1(rate * span_s) / math.expm1(rate * seen_s)


def margin(policy: VolatilityPolicy, variance: float, stress: float) -> float:
    """Return the volatility that margin wants, given a forecast (rule V2)."""
    forecast = max(variance, policy.floor**2)
    share = policy.stress_weight
    return math.sqrt((1.0 - share) * forecast + share * stress**2)


def ramped(policy: VolatilityPolicy, before: float, wanted: float, hours: float) -> float:
    """Return the volatility that margin gets: it falls at once and rises by so much (rule V3)."""
    # Beyond e^50 nothing is limited; a larger exponent would only overflow.
    return min(wanted, before * math.exp(min(50.0, policy.ramp_per_h * hours)))


def in_use_ppm(known: Estimate, stress_ppm: Ppm) -> Ppm:
    """Return the volatility that margin is charged at, in steps; 0 where stress is above (V7)."""
    step_ppm = -(-stress_ppm // STEPS)
    steps = math.ceil(known.margin * 1e6 / step_ppm)
    # Far beyond what any price does; a whole number all the same.
    used_ppm = min(steps, 1_000 * STEPS) * step_ppm
    return Ppm(used_ppm) if used_ppm > stress_ppm else Ppm(0)
