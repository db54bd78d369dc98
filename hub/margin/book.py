"""All accounts in arrays: finds the few that need a decision, without a look at most of them.

Floats are fast and nearly right. So the book only proposes: whoever is within a hair of a
threshold is proposed too, and `hub.margin.requirement.assess` decides in whole numbers.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hub.margin.boxes import MOST, SECONDS, Boxes
from hub.margin.requirement import Conditions, MarginPolicy, Reported, gain_cap_usd6
from messaging.messages import MarginStatus
from messaging.units import ONE, Asset, Ppm, Qty8

Floats = NDArray[np.float64]
Places = NDArray[np.intp] | slice
HAIR_USD6 = 1_000.0  # a tenth of a cent, far above what float64 loses on any real account
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


class _Leg(NamedTuple):
    """What one asset adds to requirements, each array of shape (spokes, accounts)."""

    size: Floats
    unwind_s: Floats
    tau_s: Floats
    ratio: Floats


class _Pass(NamedTuple):
    """Standings, and what they are made of: by spoke what counts of gains, and by asset legs."""

    standings: Standings
    exposure: Floats
    gains: Floats
    legs: list[_Leg]


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
        self._policy = policy
        self._places = places
        self._assets = assets
        self._table = np.zeros((2 * assets + 2, spokes, accounts))
        self._cash_usd6 = np.zeros(accounts)
        self._code = np.zeros(accounts, dtype=np.int8)
        self._caps_usd6 = [float(gain_cap_usd6(policy, asset)) for asset in range(assets)]
        self._youngest = [policy.buffer.range_fraction(risk, 0.0, math.sqrt) for risk in policy.assets]
        self._call, self._restore = call_ppm / 1e6, restore_ppm / 1e6
        self._boxes = Boxes(assets, spokes, policy.gain_age_max_s)
        self._box = np.zeros(accounts, dtype=np.int8)

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
        for start in range(0, accounts, CHUNK):
            some = slice(start, start + CHUNK)
            found[:, some] = self._stand(conditions, some).standings
        return Standings(*found)

    def _stand(self, conditions: Conditions, places: Places) -> _Pass:
        """Return how some accounts stand."""
        assets, table = self._assets, self._table[:, :, places]
        pnl = table[-1] - table[-2]
        caps, exposure = np.zeros((2, *pnl.shape))
        maintenance, initial, gross = np.zeros((3, pnl.shape[1]))
        ages_s = np.array(conditions.tau_s)
        legs = []
        for asset, risk in enumerate(self._policy.assets):
            price = conditions.prices_usd6[asset] / ONE
            qty8 = table[asset]
            value = qty8 * price
            pnl += value
            exposure += np.abs(value)
            caps += (qty8 != 0.0) * self._caps_usd6[asset]

            value = table[assets + asset] * price
            size = np.abs(value)
            gross += size.sum(axis=0)
            unwind_s = size / (3.0 * risk.unwind_usd6_per_s)
            tau_s = unwind_s + ages_s[:, asset, None]
            ratio = self._policy.buffer.range_fraction(risk, tau_s, np.sqrt)
            legs.append(_Leg(size, unwind_s, tau_s, ratio))
            value *= ratio
            scan = np.abs(value.sum(axis=0))
            maintenance += scan
            initial += scan * (risk.initial_margin_ppm / risk.maintenance_margin_ppm)

        share = np.array(conditions.gain_share_ppm)[:, None] / 1e6
        gains = np.minimum(np.maximum(pnl, 0.0), caps)
        recognised = np.minimum(pnl, 0.0) + gains * share
        equity = self._cash_usd6[places] + recognised.sum(axis=0)
        return _Pass(Standings(equity, maintenance, initial, gross), exposure, gains, legs)

    def proposed(self, conditions: Conditions) -> list[int]:
        """Return the places of accounts whose status may have to change, in order.

        Complete: an account that `assess` would call, liquidate or restore is among them. Only
        those are looked at that stand in no box or in one that the conditions have left (M7).
        """
        needs, left = self._boxes.follow(conditions)
        places = np.flatnonzero(self._box <= left)
        found: list[int] = []
        for start in range(0, len(places), CHUNK):
            some = places[start : start + CHUNK]
            slack, reach = self._reach(self._stand(conditions, some), self._code[some])
            self._box[some] = np.searchsorted(needs, reach, side="right")
            found += some[slack < 0.0].tolist()
        return found

    def _reach(self, found: _Pass, code: NDArray[np.int8]) -> tuple[Floats, Floats]:
        """Return what accounts have left before they are proposed [usd6], and how far it lasts.

        The reach is a distance of conditions as `Boxes` measures it (rule M7).
        """
        equity, maintenance, _, gross = found.standings
        moves = found.exposure.sum(axis=0) + found.gains.sum(axis=0) * self._boxes.share_unit
        swing = np.zeros_like(equity)
        for leg, youngest in zip(found.legs, self._youngest, strict=True):
            # The chord from age zero: a concave range is nowhere steeper in reach of this age.
            slope = (leg.ratio - youngest) / np.maximum(leg.tau_s, NOW_S)
            slope *= (1.0 + MOST) * (SECONDS + leg.unwind_s)
            swing += (leg.size * (leg.ratio + slope)).sum(axis=0)

        # Ratios are rounded up to whole millionths of each leg; the hair covers that as well.
        rounding = gross * (1e-6 * self._restore)
        hair = HAIR_USD6 + rounding + maintenance * 1e-9
        level = np.where(code == OPEN, self._call, 1.0)
        idle = (gross == 0.0) & (equity >= 0.0)  # requires nothing: only a debt counts
        slack = equity - np.where(idle, HAIR_USD6 * (moves > 0.0), maintenance * level + hair)
        slack[code == FROZEN] = -1.0
        called = code == CALLED
        if called.any():
            restored = maintenance * self._restore - hair - equity
            slack[called] = np.minimum(slack, restored)[called]
        slack[code == DONE] = np.inf
        rate = moves + rounding + swing * (np.maximum(level, self._restore) + 1e-9)
        still = np.where(slack < 0.0, 0.0, np.inf)
        return slack, np.divide(slack, rate, out=still, where=rate > 0.0)
