"""Auto-deleveraging: at which price a bankrupt account ends, and who takes the other side. Pure.

Rules L12 to L14 of docs/margin.md.
"""

from collections.abc import Sequence
from enum import StrEnum
from fractions import Fraction
from typing import NamedTuple

import msgspec

from hub.waterfall import apportion
from messaging.units import Qty8, Usd6


class Adl(StrEnum):
    """Whose positions are closed against those of a bankrupt account (L14)."""

    NONE = "none"
    PRO_RATA = "pro_rata"
    QUEUE = "queue"


class Claim(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What of a bankrupt account was closed at a price, and nobody has taken over yet.

    Attributes:
        spoke, asset: places of the position.
        long: the bankrupt account's side.
        price_usd6: at which it was closed, and at which others are.
        owed_qty8: still without another side; before the end is final, what was ordered (L13).
        final: the end of the bankrupt account's command can not be undone any more.
    """

    spoke: int
    asset: int
    long: bool
    price_usd6: Usd6
    owed_qty8: int
    final: bool = False


class Winner(NamedTuple):
    """A position that may be closed against a claim.

    Attributes:
        place: of the account. spoke: of the position.
        size_qty8: of it, without sign. most_qty8: what its holder's margin allows to close.
        maintenance_usd6: maintenance margin of the position by itself.
        rank: larger is closed first in a queue.
    """

    place: int
    spoke: int
    size_qty8: int
    most_qty8: int
    maintenance_usd6: int
    rank: Fraction


def bankruptcy_price_usd6(mark_usd6: int, *, long: bool, missing_usd6: int, notional: int) -> Usd6:
    """Return the price at which positions of this notional end with nothing missing (L12).

        price = mark * (1 + side * missing / notional)                          [USD]

    Rounded in favour of the bankrupt account, so that no fund pays for the rounding, which is
    below a millionth of a dollar for each unit of the base asset; never 0 or less.
    """
    better_usd6 = -(-mark_usd6 * missing_usd6 // notional)
    return Usd6(mark_usd6 + better_usd6 if long else max(1, mark_usd6 - better_usd6))


def rank(pnl_usd6: int, cost_usd6: int, value_usd6: int, equity_usd6: int) -> Fraction:
    """Return a position's place in a queue: profit times leverage, or loss over leverage.

        rank = pnl / |cost| * lev if pnl > 0, else pnl / |cost| / lev;  lev = value / equity  [1]

    Value of the position without sign; equity of the account, which is what its value is above
    that at which the account would be bankrupt.
    """
    leverage = Fraction(max(1, value_usd6), max(1, equity_usd6))
    gain = Fraction(pnl_usd6, max(1, abs(cost_usd6)))
    return gain * leverage if pnl_usd6 > 0 else gain / leverage


def choose(
    adl: Adl, spoke: int, owed_qty8: int, winners: Sequence[Winner]
) -> list[tuple[Winner, Qty8]]:
    """Return who closes how much against a claim on a spoke; positions there come first (L14)."""
    chosen: list[tuple[Winner, Qty8]] = []
    for near in (True, False):
        some = [winner for winner in winners if (winner.spoke == spoke) is near]
        share = pro_rata if adl is Adl.PRO_RATA else queue
        found = share(owed_qty8, some)
        owed_qty8 -= min(owed_qty8, sum(qty8 for _, qty8 in found))
        chosen += found
    return chosen


def pro_rata(owed_qty8: int, winners: Sequence[Winner]) -> list[tuple[Winner, Qty8]]:
    """Share a quantity out by maintenance margin, exactly, nobody beyond what he may close.

    Who may close less than his share closes that, and the rest is shared out among the others.
    """
    closes = dict.fromkeys(range(len(winners)), 0)
    open_to = [place for place, one in enumerate(winners) if one.most_qty8]
    left_qty8 = owed_qty8
    while left_qty8 and open_to:
        weights = [max(1, winners[place].maintenance_usd6) for place in open_to]
        shares = dict(zip(open_to, apportion(left_qty8, weights), strict=True))
        full = [place for place in open_to if shares[place] >= winners[place].most_qty8]
        for place in full or open_to:
            closes[place] = winners[place].most_qty8 if full else shares[place]
            left_qty8 -= closes[place]
        open_to = [place for place in open_to if place not in full] if full else []
    return [(winners[place], Qty8(qty8)) for place, qty8 in closes.items() if qty8]


def queue(owed_qty8: int, winners: Sequence[Winner]) -> list[tuple[Winner, Qty8]]:
    """Close whole positions from the top until there is enough; the last one is too much."""
    chosen = []
    for winner in sorted(winners, key=lambda one: (-one.rank, one.place, one.spoke)):
        if owed_qty8 <= 0:
            break
        if winner.most_qty8:
            chosen.append((winner, Qty8(winner.most_qty8)))
            owed_qty8 -= winner.most_qty8
    return chosen
