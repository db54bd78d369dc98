"""All accounts in arrays: finds the few that need a decision, without a look at most of them.

Floats are fast and nearly right. So the book only proposes: whoever is within a hair of a
threshold is proposed too, and `hub.margin.requirement.assess` decides in whole numbers.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hub.margin.boxes import MOST, SECONDS, Boxes
from hub.margin.requirement import Conditions, MarginPolicy, Reported, gain_cap_usd6
from messaging.messages import MarginStatus
from messaging.units import ONE, Asset, Ppm, Qty8

Floats = NDArray[np.float64]
HAIR_USD6 = 1_000.0  # a tenth of a cent, far above what float64 loses on any real account
PROBE = 0.01  # share of a price by which it is moved to see who would go with it (B6)
CHUNK = 4_096  # accounts in one pass, so that its arrays stay in the processor's cache
NOW_S = 1e-9  # stands for an age of zero where one divides by it

OPEN, CALLED, FROZEN, BUSY, DONE = range(5)
_CODES = {
    MarginStatus.OPEN: OPEN,
    MarginStatus.REDUCE_ONLY: CALLED,
    MarginStatus.FROZEN: FROZEN,
}


class Row(NamedTuple):
    """What the book holds of one account on one spoke, as `Book.row` makes it."""

    spoke: int
    place: int
    figures: list[float]


class Standings(NamedTuple):
    """All accounts at once [usd6], each array of shape (accounts,).

    Requirements and gross notional count positions as liquidations under way bound them.
    """

    equity: Floats
    maintenance: Floats
    initial: Floats
    gross: Floats


class Pass(NamedTuple):
    """How some accounts stand, and what that is made of [usd6, s].

    By account: equity, maintenance, gross notional, gains that count before their share is taken.
    By asset and account: scans, and whether legs are on both sides. By asset, spoke and account:
    size of legs as reported, and as bounded; unwind, age, and range as a ratio of the latter.
    """

    equity: Floats
    maintenance: Floats
    gross: Floats
    exposure: Floats
    gains: Floats
    scans: Floats
    hedged: NDArray[np.bool_]
    size: Floats
    unwind_s: Floats
    tau_s: Floats
    ratio: Floats


class Book:
    """Positions of every account in one table: (figure, spoke, account).

    The figures are the quantities of all assets, the quantities as liquidations under way bound
    them, the cost of all positions, and the P&L not settled yet.

    Each account stands in one of the `Boxes`, or in none: the widest in which nothing can make
    it a proposal (rule M7). One that has changed stands in none.
    """

    def __init__(
        self,
        policy: MarginPolicy,
        places: Mapping[Asset, int],
        spokes: int,
        accounts: int,
        *,
        call_ppm: Ppm,
        restore_ppm: Ppm,
    ) -> None:
        assets = len(policy.assets)
        self._places = places
        self._assets = assets
        self._table = np.zeros((2 * assets + 2, spokes, accounts))
        self._cash_usd6 = np.zeros(accounts)
        self._code = np.zeros(accounts, dtype=np.int8)
        risks = policy.assets
        self._caps_usd6 = _by_asset(gain_cap_usd6(policy, asset) for asset in range(assets))
        self._unwinds_usd6_per_s = _by_asset(risk.unwind_usd6_per_s for risk in risks)
        self._call, self._restore = call_ppm / 1e6, restore_ppm / 1e6
        self._highest = max(1.0, self._call, self._restore)
        self._boxes = Boxes(assets, spokes, policy.gain_age_max_s)
        self._box = np.zeros(accounts, dtype=np.int8)
        self.margin_by(policy)

    @property
    def _bounded(self) -> Floats:
        return self._table[self._assets : 2 * self._assets]

    def margin_by(self, policy: MarginPolicy) -> None:
        """Margin by a policy that differs in volatility alone; what boxes say is of the old one."""
        self._policy = policy
        self._youngest = _by_asset(
            policy.buffer.range_fraction(risk, 0.0, math.sqrt) for risk in policy.assets
        )
        self._box[:] = 0

    def set_cash(self, place: int, cash_usd6: int) -> None:
        """Note an account's cash."""
        self._cash_usd6[place] = cash_usd6
        self._box[place] = 0

    def set_code(self, place: int, status: MarginStatus, *, busy: bool, done: bool) -> None:
        """Note what an account may do.

        A `busy` one has liquidations under way, and is proposed only if they are not enough; a
        `done` one is closed out, and is never proposed again.
        """
        self._code[place] = DONE if done else BUSY if busy else _CODES[status]
        self._box[place] = 0

    def row(
        self, place: int, spoke: int, report: Reported, bounds: Mapping[tuple[int, int], Qty8]
    ) -> Row:
        """Return one spoke's latest report on an account as a row of the book."""
        figures = [0.0] * (2 * self._assets + 2)
        cost_usd6 = 0
        for position in report.state.positions:
            asset, qty8 = self._places[position.asset], position.qty8
            figures[asset] = figures[self._assets + asset] = qty8
            if bounds:
                bound_qty8 = bounds.get((spoke, asset), abs(qty8))
                figures[self._assets + asset] = max(-bound_qty8, min(bound_qty8, qty8))
            cost_usd6 += position.cost_usd6
        figures[-2] = cost_usd6
        figures[-1] = report.unsettled_usd6
        return Row(spoke, place, figures)

    def enter(self, rows: Sequence[Row]) -> None:
        """Replace rows, all at once."""
        if rows:
            spokes, places, figures = zip(*rows, strict=True)
            self._table[:, spokes, places] = np.array(figures, dtype=np.float64).T
            self._box[list(places)] = 0

    def standings(self, conditions: Conditions) -> Standings:
        """Return how every account stands."""
        accounts = len(self._cash_usd6)
        found = np.empty((4, accounts))
        ratios = [
            risk.initial_margin_ppm / risk.maintenance_margin_ppm for risk in self._policy.assets
        ]
        for start in range(0, accounts, CHUNK):
            some = np.arange(start, min(start + CHUNK, accounts))
            one = self._stand(conditions, some)
            found[0, some], found[1, some] = one.equity, one.maintenance
            found[2, some], found[3, some] = np.dot(ratios, one.scans), one.gross
        return Standings(*found)

    def _stand(
        self,
        conditions: Conditions,
        places: NDArray[np.intp],
        prices_usd6: NDArray[np.int64] | None = None,
    ) -> Pass:
        """Return how some accounts stand, each at prices of its own if there are any.

        `prices_usd6` has shape (assets, accounts).
        """
        assets, table = self._assets, self._table.take(places, axis=2)
        if prices_usd6 is None:
            prices_usd6 = np.array(conditions.prices_usd6)[:, None]
        prices = prices_usd6[:, None, :] / ONE
        quantities = table[:assets]
        values = quantities * prices
        pnl = table[-1] - table[-2]
        for value in values:
            pnl += value
        caps = ((quantities != 0.0) * self._caps_usd6).sum(axis=0)
        gains = np.minimum(np.maximum(pnl, 0.0), caps)
        share = np.array(conditions.gain_share_ppm)[:, None] / 1e6
        recognised = np.minimum(pnl, 0.0) + gains * share

        charges = table[assets : 2 * assets] * prices
        size = np.abs(charges)
        unwind_s = size / (3.0 * self._unwinds_usd6_per_s)
        tau_s = unwind_s + np.array(conditions.tau_s).T[:, :, None]
        ratio = np.empty_like(tau_s)
        for asset, risk in enumerate(self._policy.assets):
            ratio[asset] = self._policy.buffer.range_fraction(risk, tau_s[asset], np.sqrt)
        charges *= ratio
        scans = np.abs(charges.sum(axis=1))
        hedged = (charges.max(axis=1) > 0.0) & (charges.min(axis=1) < 0.0)
        if hedged.any():
            asset_of, place_of = hedged.nonzero()
            scans[hedged] = _hedged(charges[asset_of, :, place_of], ratio[asset_of, :, place_of])
        return Pass(
            equity=self._cash_usd6[places] + recognised.sum(axis=0),
            maintenance=scans.sum(axis=0),
            gross=size.sum(axis=(0, 1)),
            exposure=np.abs(values),
            gains=gains.sum(axis=0),
            scans=scans,
            hedged=hedged,
            size=size,
            unwind_s=unwind_s,
            tau_s=tau_s,
            ratio=ratio,
        )

    def pressures(
        self, conditions: Conditions, target_extra_ppm: Ppm, cost_ppm: Ppm
    ) -> list[float]:
        """Return what liquidations add to a move of each asset's price (B6).

        That is what they would sell into a fall, or buy into a rise, whichever is more, at today's
        price and for each unit of log price [USD]; sizes by L5, dust left aside.
        """
        holders = np.flatnonzero(self._bounded.any(axis=(0, 1)) & (self._code != DONE))
        if not len(holders):
            return [0.0] * self._assets
        now_usd6 = np.array(conditions.prices_usd6)
        moves_usd6 = np.tile(now_usd6, (1 + 2 * self._assets, 1))
        for asset, price_usd6 in enumerate(conditions.prices_usd6):
            moves_usd6[1 + asset, asset] = round(price_usd6 * (1.0 - PROBE))
            moves_usd6[1 + self._assets + asset, asset] = round(price_usd6 * (1.0 + PROBE))
        sold = np.zeros((len(moves_usd6), self._assets))
        for start in range(0, len(holders), CHUNK // len(moves_usd6)):
            some = holders[start : start + CHUNK // len(moves_usd6)]
            sold += self._sold_qty8(
                conditions, some, moves_usd6, target_extra_ppm / 1e6, cost_ppm / 1e6
            )
        found = []
        for asset, price_usd6 in enumerate(conditions.prices_usd6):
            low, now, high = sold[[1 + asset, 0, 1 + self._assets + asset], asset].tolist()
            into_fall = (low - now) / -math.log1p(-PROBE)
            into_rise = (now - high) / math.log1p(PROBE)
            found.append(max(0.0, into_fall, into_rise) * (price_usd6 / 1e6 / ONE))
        return found

    def _sold_qty8(
        self,
        conditions: Conditions,
        some: NDArray[np.intp],
        moves_usd6: NDArray[np.int64],
        extra: float,
        cost: float,
    ) -> Floats:
        """Return how much of each asset some accounts' liquidations would sell, by L5.

        At each of `moves_usd6`, prices of all assets; as these of shape (moves, assets).
        """
        moves = len(moves_usd6)
        prices_usd6 = np.repeat(moves_usd6.T, len(some), axis=1)
        found = self._stand(conditions, np.tile(some, moves), prices_usd6)
        equity, cost_usd6 = found.equity, cost * found.gross
        below = equity < found.maintenance
        closed = below.astype(np.float64)
        aim_usd6 = found.maintenance + extra * found.gross
        part = below & (equity > cost_usd6)
        np.divide(aim_usd6 - equity, aim_usd6 - cost_usd6, out=closed, where=part)
        held_qty8 = self._bounded[:, :, some].sum(axis=1)
        sold: Floats = (closed.reshape(moves, 1, -1) * held_qty8).sum(axis=2)
        return sold

    def proposed(self, conditions: Conditions) -> list[int]:
        """Return the places of accounts whose status may have to change, in order.

        Complete: an account that `assess` would call, liquidate or restore is among them. Only
        those are looked at that stand in no box or in one that the conditions have left (M7).
        """
        needs, left = self._boxes.follow(conditions)
        if not self._policy.buffer.concave:
            left = len(needs)
        places = np.flatnonzero(self._box <= left)
        found: list[int] = []
        for start in range(0, len(places), CHUNK):
            some = places[start : start + CHUNK]
            slack, reach = self._reach(self._stand(conditions, some), self._code[some])
            self._box[some] = np.searchsorted(needs, reach, side="right")
            found += some[slack < 0.0].tolist()
        return found

    def _reach(self, found: Pass, code: NDArray[np.int8]) -> tuple[Floats, Floats]:
        """Return what accounts have left before they are proposed [usd6], and how far it lasts.

        The reach is a distance of conditions as `Boxes` measures it (rule M7).
        """
        equity, maintenance, gross = found.equity, found.maintenance, found.gross
        # The chord from age zero: a concave range is nowhere steeper in reach of this age.
        slope = (found.ratio - self._youngest) / np.maximum(found.tau_s, NOW_S)
        slope *= (found.unwind_s + SECONDS) * (1.0 + MOST)
        slope += found.ratio
        if found.hedged.any():  # what one leg wins may go with the range of another
            asset_of, place_of = found.hedged.nonzero()
            steepest = slope[asset_of, :, place_of].max(axis=1, keepdims=True)
            slope[asset_of, :, place_of] = steepest
        slope *= found.size * (self._highest + 1e-9)
        slope += found.exposure

        # Ratios are rounded up to whole millionths of each leg; the hair covers that as well.
        rounding = gross * (1e-6 * self._highest)
        hair = HAIR_USD6 + rounding + maintenance * 1e-9
        rate = slope.sum(axis=(0, 1)) + rounding + found.gains * self._boxes.share_unit
        level = np.where(code == OPEN, self._call, 1.0)
        idle = (gross == 0.0) & (equity >= 0.0)  # requires nothing: only a debt counts
        slack = equity - np.where(idle, HAIR_USD6 * (rate > 0.0), maintenance * level + hair)
        if code.any():
            restored = np.where(code == CALLED, maintenance * self._restore - hair - equity, np.inf)
            slack = np.minimum(slack, restored)
            slack[code == FROZEN] = -1.0
            slack[code == DONE] = np.inf
        still = np.where(slack < 0.0, 0.0, np.inf)
        return slack, np.divide(slack, rate, out=still, where=rate > 0.0)


def _by_asset(figures: Iterable[float]) -> Floats:
    """Return an array of shape (assets, 1, 1), to go with spokes and accounts."""
    return np.array([float(figure) for figure in figures])[:, None, None]


def _hedged(charges: Floats, ratio: Floats) -> Floats:
    """Return the scans of legs on both sides, by row; see `fall_and_rise` (rule M3)."""
    costs = []
    for side in (1.0, -1.0):
        losing, winning = np.maximum(side * charges, 0.0), np.maximum(-side * charges, 0.0)
        least = np.where(losing > 0.0, ratio, np.inf).min(axis=1, keepdims=True)
        costs.append(losing.sum(axis=1) - (winning * np.minimum(least / ratio, 1.0)).sum(axis=1))
    found: Floats = np.maximum(*costs)
    return found
