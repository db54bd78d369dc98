"""How much margin, how much to close, how far prices cascade (rules T6, T13 to T15)."""

import math

from scipy.special import ndtri

from hub.margin.theory.motion import Motion


def maintenance_for(motion: Motion, side: int, fee: float, years: float, chance: float) -> float:
    """Return the maintenance margin at which a trigger makes bad debt with `chance` (rule T6).

    A share of notional, for a fixed latency of `years` after the price touches the trigger,
    without jumps. It may be negative where a chance is large.
    """
    assert motion.jumps.rate == 0.0
    z = -float(ndtri(chance))
    exponent = motion.nu * years - side * z * motion.sigma * math.sqrt(years)
    return side * (1 - (1 - side * fee) * math.exp(exponent))


def close_share(notional: float, equity: float, target: float, cost: float) -> float:
    """Return the share of notional to close so that equity is `target` of the rest (rule T13).

        phi = (m_t N - E) / (N (m_t - f)); 1 where what is left would not pay for closing it

    `notional` and `equity` in USD; `target` the margin to reach, a share of notional; `cost` of
    closing, a share of what is closed.

    Raises:
        ValueError: `target` is not above `cost`, so closing frees no margin.
    """
    if target <= cost:
        raise ValueError(f"expected target > cost = {cost:g}, found {target:g}")
    if equity <= cost * notional:
        return 1.0
    return min(1.0, max(0.0, (target * notional - equity) / (notional * (target - cost))))


def reproduction(impact: float, density: float) -> float:
    """Return R: what a dollar of falling price makes it fall further (rule T14).

    Args:
        impact: dollars that one unit sold moves the price.
        density: units liquidated for each dollar that the price falls.
    """
    return impact * density


def final_drop(shock: float, ratio: float) -> float:
    """Return how far the price falls in all after a `shock` [USD]: shock / (1 - R) (rule T14).

    Infinite for a ratio of 1 or more.
    """
    return shock / (1 - ratio) if ratio < 1 else math.inf


def unwind_variance(sigma: float, years: float) -> float:
    """Return the variance of the average log price of a steady sale over `years` (rule T15)."""
    return sigma**2 * years / 3
