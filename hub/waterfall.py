"""Who pays for a loss that an account cannot: funds of spokes, insurance, then all. Pure.

Rules L10 and L11 of docs/margin.md. Every division is exact in sum: what is left over of whole
millionths goes to the largest remainders.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Funds(NamedTuple):
    """What there is to pay with [usd6]: by spoke, in the scenario's order, and the hub's own."""

    spokes: tuple[int, ...]
    insurance: int


class Paid(NamedTuple):
    """Who pays how much of one shortfall [usd6]; `rest` is what the funds do not have."""

    spokes: tuple[int, ...]
    insurance: int
    rest: int


def apportion(amount: int, weights: Sequence[int]) -> list[int]:
    """Return shares of `amount` in proportion to weights, by largest remainder, earlier first.

    They add up to `amount`, or are all 0 if the weights are. Each is the exact share, rounded
    down or up.
    """
    total = sum(weights)
    if total == 0:
        return [0] * len(weights)
    shares = [amount * weight // total for weight in weights]
    left = amount - sum(shares)
    by_remainder = sorted(
        range(len(weights)), key=lambda place: (-(amount * weights[place] % total), place)
    )
    for place in by_remainder[:left]:
        shares[place] += 1
    return shares


def pay(shortfall_usd6: int, losses_usd6: Sequence[int], funds: Funds) -> Paid:
    """Return who pays for a shortfall: spokes' funds by where it was lost, then insurance (L10).

    Args:
        shortfall_usd6: what is missing.
        losses_usd6: by spoke, what the account has lost there; 0 where it has won.
        funds: what there is.
    """
    owed_usd6 = apportion(shortfall_usd6, losses_usd6)
    by_spoke = tuple(map(min, owed_usd6, funds.spokes))
    left_usd6 = shortfall_usd6 - sum(by_spoke)
    insurance_usd6 = min(left_usd6, funds.insurance)
    return Paid(by_spoke, insurance_usd6, left_usd6 - insurance_usd6)


def after(funds: Funds, paid: Paid) -> Funds:
    """Return what the funds have left."""
    spokes = tuple(had - gave for had, gave in zip(funds.spokes, paid.spokes, strict=True))
    return Funds(spokes, funds.insurance - paid.insurance)


def haircut(deficit_usd6: int, available_usd6: Sequence[int]) -> list[int]:
    """Return what each account gives of its available cash for a deficit (L11).

    In proportion, never more than there is; those below zero give nothing.
    """
    free_usd6 = [max(0, usd6) for usd6 in available_usd6]
    return apportion(min(deficit_usd6, sum(free_usd6)), free_usd6)
