"""Grids of scenarios: how far prices move, which way volatility goes, what of a loss counts.

A move is a share of the range R(tau) that a leg is margined at, so that a grid is as wide as what
is not known is old (rule O4 of docs/options.md).
"""

import math

import msgspec

from messaging.units import Ppm

WHOLE, THIRD = 1_000_000, 1_000_000 / 3


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a grid.

    Attributes:
        move_ppm: of the price, in ranges R(tau): 1,000,000 is one range up.
        volatility: +1 up, -1 down, 0 as it is.
        share_ppm: what of the P&L counts.
    """

    move_ppm: int
    volatility: int = 0
    share_ppm: Ppm = Ppm(WHOLE)


class Grid(msgspec.Struct, frozen=True):
    """Scenarios, in the order in which they are numbered."""

    name: str
    scenarios: tuple[Scenario, ...]


class VolatilityShock(msgspec.Struct, frozen=True, kw_only=True):
    """How much implied volatilities move: more, the less time is left (rule O5).

        factor = 1 + up * (30 / max(days, 1))^p, or max(0, 1 - down * (30 / max(days, 1))^p)

    Attributes:
        up_ppm, down_ppm: of volatility, at 30 days.
        near, far: p up to 30 days and beyond.
    """

    up_ppm: Ppm = Ppm(600_000)
    down_ppm: Ppm = Ppm(300_000)
    near: float = 0.30
    far: float = 0.13

    def reach(self, days: float) -> float:
        """Return by how much more volatilities at this expiry move than at 30 days."""
        return math.pow(30.0 / max(days, 1.0), self.near if days <= 30.0 else self.far)

    def factor(self, way: int, days: float) -> float:
        """Return what a volatility is multiplied by; `way` as in `Scenario.volatility`."""
        if not way:
            return 1.0
        size = (self.up_ppm if way > 0 else self.down_ppm) / 1e6
        return max(0.0, 1.0 + way * size * self.reach(days))


def span(name: str, *, extreme_ppm: int, share_ppm: int) -> Grid:
    """Return SPAN's sixteen: none to three thirds of the range, each with both volatilities.

    The last two are the extremes, of which only a share counts.
    """
    moves = [0]
    for thirds in (1, 2, 3):
        moves += [round(thirds * THIRD), -round(thirds * THIRD)]
    rows = [Scenario(move_ppm=move, volatility=way) for move in moves for way in (1, -1)]
    share = Ppm(share_ppm)
    rows += [Scenario(move_ppm=move, share_ppm=share) for move in (extreme_ppm, -extreme_ppm)]
    return Grid(name, tuple(rows))


def pmrm() -> Grid:
    """Return 23: up to a range in seven steps with three volatilities, and 4/3 of it, both ways."""
    rows = [Scenario(move_ppm=round(4 * THIRD), volatility=1)]
    for thirds in (3, 2, 1, 0, -1, -2, -3):
        move = round(thirds * THIRD)
        rows += [Scenario(move_ppm=move, volatility=way) for way in (1, 0, -1)]
    rows.append(Scenario(move_ppm=-round(4 * THIRD), volatility=1))
    return Grid("pmrm", tuple(rows))


GRIDS = {
    grid.name: grid
    for grid in (
        span("span16", extreme_ppm=2 * WHOLE, share_ppm=350_000),
        span("span16x3", extreme_ppm=3 * WHOLE, share_ppm=330_000),
        pmrm(),
    )
}
