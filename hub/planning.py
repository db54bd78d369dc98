"""Which positions to close, and how far, so that an account is back at its target at least cost.

Pure functions. Rule L15 of docs/margin.md. Sizes are whole 1e-8; all money is exact, and rounded
against the trader.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from itertools import product
from typing import NamedTuple

import msgspec

from hub.margin.requirement import Conditions, MarginPolicy, charged, dearer_usd6, fall_and_rise
from messaging.units import Ppm, Usd6, ratio_up

PERCENT_PPM = 10_000
LEGS_MAX = 6  # of one asset: 2^6 corners and 6 * 2^5 edges are looked at


class CloseOut(msgspec.Struct, frozen=True):
    """What closing an asset on a spoke costs, as far as the hub knows.

    Attributes:
        rate_ppm: taker fee, liquidation fee and half spread.
        depth_usd6: value that moves the price by 1 %.
        slice_usd6: the most that a liquidation trades at once.
    """

    rate_ppm: Ppm
    depth_usd6: Usd6
    slice_usd6: int

    def cost_ppm(self, size_usd6: int) -> Ppm:
        """Return what closing costs at the dearest slice of this size, as a share of its value."""
        walked_usd6 = min(size_usd6, self.slice_usd6)
        return Ppm(self.rate_ppm - (-walked_usd6 * PERCENT_PPM // (2 * self.depth_usd6)))


class Leg(NamedTuple):
    """A position, as commands under way leave it.

    `cost_ppm` is paid on what is closed; `wait_ppm` is not paid, and makes legs that are slow to
    close be closed later than others.
    """

    spoke: int
    asset: int
    qty8: int  # signed
    cost_ppm: int
    wait_ppm: int


class Point(NamedTuple):
    """What could be left of the legs of one asset [qty8, without sign].

    `gain_usd6`: by how much that brings the account nearer to its target, costs paid.
    `charge_usd6`: costs, and what waiting is charged.
    """

    sizes_qty8: tuple[int, ...]
    gain_usd6: int
    charge_usd6: int


class _Standing(NamedTuple):
    """The legs of one asset at some sizes: requirement, aim, and how much dearer a fall is."""

    scan_usd6: int
    aim_usd6: int
    tilt: int
    notional_usd6: int


class Holding:
    """The legs of one asset, and what becomes of the account's standing as they are closed."""

    def __init__(
        self, policy: MarginPolicy, conditions: Conditions, legs: Sequence[Leg], extra_ppm: Ppm
    ) -> None:
        self.legs = legs
        self._policy, self._conditions, self._extra_ppm = policy, conditions, extra_ppm
        self.whole = tuple(abs(leg.qty8) for leg in legs)
        self._now = self._stand(self.whole)
        self.aim_usd6 = self._now.aim_usd6

    def _stand(self, sizes_qty8: Sequence[int]) -> _Standing:
        held, notional_usd6 = [], 0
        for leg, size_qty8 in zip(self.legs, sizes_qty8, strict=True):
            size_usd6, ratio = charged(
                self._policy, self._conditions, leg.spoke, leg.asset, size_qty8
            )
            held.append((size_usd6 if leg.qty8 > 0 else -size_usd6, ratio))
            notional_usd6 += size_usd6
        fall, rise = fall_and_rise(held)
        scan_usd6 = dearer_usd6((fall, rise))
        aim_usd6 = scan_usd6 + ratio_up(notional_usd6, self._extra_ppm)
        return _Standing(scan_usd6, aim_usd6, fall - rise, notional_usd6)

    def notional_usd6(self, sizes_qty8: Sequence[int]) -> int:
        """Return what legs of these sizes are worth."""
        return self._stand(sizes_qty8).notional_usd6

    def point(self, sizes_qty8: tuple[int, ...]) -> Point:
        """Return what it means to leave so much."""
        return self._point(sizes_qty8, self._stand(sizes_qty8))

    def _point(self, sizes_qty8: tuple[int, ...], left: _Standing) -> Point:
        cost_usd6 = charge_usd6 = 0
        for leg, before_qty8, after_qty8 in zip(self.legs, self.whole, sizes_qty8, strict=True):
            closed_usd6, _ = charged(
                self._policy, self._conditions, leg.spoke, leg.asset, before_qty8 - after_qty8
            )
            cost_usd6 += ratio_up(closed_usd6, leg.cost_ppm)
            charge_usd6 += ratio_up(closed_usd6, leg.cost_ppm + leg.wait_ppm)
        return Point(sizes_qty8, self._now.aim_usd6 - left.aim_usd6 - cost_usd6, charge_usd6)

    def frontier(self) -> list[Point]:
        """Return the points that are worth their charge, from nothing closed on.

        The requirement is the dearer of a fall and a rise, each linear in what is closed as long
        as ranges stay. So what is best at any rate of exchange between gain and charge is a corner,
        every leg left or closed, or lies on an edge between two of them, where a fall and a rise
        are equally dear; and the frontier is the lower convex hull of these. None of them raises
        the requirement: a hedge is not closed before what it hedges.
        """
        return _hull(self._point(self.whole, self._now), self.candidates)

    @cached_property
    def candidates(self) -> list[Point]:
        """Return corners and crossings, of those that do not raise the requirement."""
        return [
            self._point(sizes, left)
            for sizes, left in self._corners_and_crossings()
            if left.scan_usd6 <= self._now.scan_usd6
        ]

    def _corners_and_crossings(self) -> Iterator[tuple[tuple[int, ...], _Standing]]:
        corners = {
            sizes: self._stand(sizes) for sizes in product(*((0, size) for size in self.whole))
        }
        yield from corners.items()
        for sizes, left in corners.items():
            for place, size_qty8 in enumerate(sizes):
                closed = (*sizes[:place], 0, *sizes[place + 1 :])
                if size_qty8 and left.tilt * corners[closed].tilt < 0:
                    yield from self._crossing(sizes, place, left.tilt > 0)

    def _crossing(
        self, sizes: tuple[int, ...], place: int, falls: bool
    ) -> Iterator[tuple[tuple[int, ...], _Standing]]:
        """Yield the two points of an edge between which a fall and a rise are equally dear."""
        low, high = 0, sizes[place]
        while high - low > 1:
            middle = (low + high) // 2
            tilt = self._stand((*sizes[:place], middle, *sizes[place + 1 :])).tilt
            if (tilt > 0) is falls:
                high = middle
            else:
                low = middle
        for size in (low, high):
            found = (*sizes[:place], size, *sizes[place + 1 :])
            yield found, self._stand(found)


def _hull(start: Point, points: Sequence[Point]) -> list[Point]:
    """Return the lower convex hull of charge over gain, from `start` upward."""
    hull = [start]
    ordered = sorted(points, key=lambda one: (one.gain_usd6, one.charge_usd6, one.sizes_qty8))
    for point in ordered:
        if point.gain_usd6 <= hull[-1].gain_usd6:
            continue
        while len(hull) > 1 and _rate(hull[-2], point) <= _rate(hull[-2], hull[-1]):
            hull.pop()
        hull.append(point)
    return hull


def _rate(one: Point, other: Point) -> Fraction:
    """Return what a dollar of gain is charged on the way from one point to another."""
    return Fraction(other.charge_usd6 - one.charge_usd6, other.gain_usd6 - one.gain_usd6)


def least_cost(
    holdings: Sequence[Holding], missing_usd6: int, dust_usd6: int
) -> list[tuple[int, ...]]:
    """Return the sizes that bring an account to its target at least charge, by holding.

    Aims of assets add up, and so do charges. So the steps of all frontiers are taken in the order
    of their rates until nothing is missing, the last one only as far as it must. Nothing is left
    where no plan restores the account, or what it leaves is dust.
    """
    sizes = [holding.whole for holding in holdings]
    if missing_usd6 <= 0:
        return sizes
    frontiers = [holding.frontier() for holding in holdings]
    steps = sorted(
        (_rate(frontier[number], frontier[number + 1]), place, number)
        for place, frontier in enumerate(frontiers)
        for number in range(len(frontier) - 1)
    )
    for _, place, number in steps:
        before, after = frontiers[place][number : number + 2]
        gain_usd6 = after.gain_usd6 - before.gain_usd6
        sizes[place] = after.sizes_qty8
        if missing_usd6 <= gain_usd6:
            needed_usd6 = before.gain_usd6 + missing_usd6
            sizes[place] = _last(holdings[place], before, after, needed_usd6)
        missing_usd6 -= gain_usd6
        if missing_usd6 <= 0:
            break
    left_usd6 = sum(map(Holding.notional_usd6, holdings, sizes))
    if missing_usd6 > 0 or left_usd6 < dust_usd6:
        return [(0,) * len(holding.legs) for holding in holdings]
    return sizes


def _last(holding: Holding, before: Point, after: Point, gain_usd6: int) -> tuple[int, ...]:
    """Return what gains so much at least charge, on the way from one point to another.

    Gain is at least as straight as the chord, as long as no leg that is closed whole lets another
    one's range count for hedges (M3). Where one does, the ways to all other candidates are tried.
    """
    found = _between(holding, before, after, gain_usd6)
    rounding_usd6 = 2 * len(holding.legs)
    chord_usd6 = (gain_usd6 - before.gain_usd6) * _rate(before, after) + rounding_usd6
    if found.charge_usd6 - before.charge_usd6 > chord_usd6:
        ways = [point for point in holding.candidates if point.gain_usd6 >= gain_usd6]
        tried = [_between(holding, before, point, gain_usd6) for point in ways]
        found = min((found, *tried), key=lambda one: (one.charge_usd6, one.sizes_qty8))
    return found.sizes_qty8


def _between(holding: Holding, before: Point, after: Point, gain_usd6: int) -> Point:
    """Return the first point on the way between two that gains so much, lot by lot."""
    pairs = list(zip(before.sizes_qty8, after.sizes_qty8, strict=True))
    whole = max(abs(one - other) for one, other in pairs)

    def at(part: int) -> tuple[int, ...]:
        return tuple(one + (other - one) * part // whole for one, other in pairs)

    low, high, tries = 0, whole, 0
    points = {low: before, high: after}
    while high - low > 1:
        # Gain is all but straight, so the chord is all but right; halving is for where it is not.
        tries += 1
        middle = (low + high) // 2
        if tries % 4:
            left_usd6 = points[low].gain_usd6 - gain_usd6
            span_usd6 = points[high].gain_usd6 - points[low].gain_usd6
            middle = low - left_usd6 * (high - low) // span_usd6
            middle = min(max(middle, low + 1), high - 1)
        points[middle] = holding.point(at(middle))
        if points[middle].gain_usd6 >= gain_usd6:
            high = middle
        else:
            low = middle
    return points[high]
