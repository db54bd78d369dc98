"""All accounts in arrays: finds the few that need a decision, in one pass.

Floats are fast and nearly right. So the book only proposes: whoever is within a hair of a
threshold is proposed too, and `hub.margin.requirement.assess` decides in whole numbers.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hub.margin.requirement import Conditions, MarginPolicy, Reported, gain_cap_usd6
from messaging.messages import MarginStatus
from messaging.units import ONE, Asset, Qty8

Floats = NDArray[np.float64]
HAIR_USD6 = 1_000.0  # a tenth of a cent, far above what float64 loses on any real account

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


class Book:
    """Positions of every account in one table: (figure, spoke, account).

    The figures are the quantities of all assets, the quantities as liquidations under way bound
    them, the cost of all positions, and the P&L not settled yet.
    """

    def __init__(
        self, policy: MarginPolicy, places: Mapping[Asset, int], spokes: int, accounts: int
    ) -> None:
        assets = len(policy.assets)
        self._policy = policy
        self._places = places
        self._assets = assets
        self._table = np.zeros((2 * assets + 2, spokes, accounts))
        self._cash_usd6 = np.zeros(accounts)
        self._code = np.zeros(accounts, dtype=np.int8)
        self._caps_usd6 = [float(gain_cap_usd6(policy, asset)) for asset in range(assets)]

    def set_cash(self, place: int, cash_usd6: int) -> None:
        """Note an account's cash."""
        self._cash_usd6[place] = cash_usd6

    def set_code(self, place: int, status: MarginStatus, *, busy: bool, done: bool) -> None:
        """Note what an account may do.

        A `busy` one has liquidations under way, and is proposed only if they are not enough; a
        `done` one is closed out, and is never proposed again.
        """
        self._code[place] = DONE if done else BUSY if busy else _CODES[status]

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

    def standings(self, conditions: Conditions) -> Standings:
        """Return how every account stands."""
        assets = self._assets
        pnl = self._table[-1] - self._table[-2]
        caps = np.zeros_like(pnl)
        maintenance, initial, gross = np.zeros((3, pnl.shape[1]))
        for asset, risk in enumerate(self._policy.assets):
            price = conditions.prices_usd6[asset] / ONE
            qty8 = self._table[asset]
            pnl += qty8 * price
            caps += (qty8 != 0.0) * self._caps_usd6[asset]

            value = self._table[assets + asset] * price
            tau_s = np.abs(value)
            gross += tau_s.sum(axis=0)
            tau_s /= 3.0 * risk.unwind_usd6_per_s
            tau_s += np.array([row[asset] for row in conditions.tau_s])[:, None]
            value *= self._policy.buffer.range_fraction(risk, tau_s, np.sqrt)
            scan = np.abs(value.sum(axis=0))
            maintenance += scan
            initial += scan * (risk.initial_margin_ppm / risk.maintenance_margin_ppm)

        share = np.array(conditions.gain_share_ppm)[:, None] / 1e6
        recognised = np.where(pnl > 0.0, np.minimum(pnl, caps) * share, pnl)
        equity = self._cash_usd6 + recognised.sum(axis=0)
        return Standings(equity, maintenance, initial, gross)

    def proposed(self, conditions: Conditions, *, call_ppm: int, restore_ppm: int) -> list[int]:
        """Return the places of accounts whose status may have to change, in order.

        Complete: an account that `assess` would call, liquidate or restore is among them.
        """
        equity, maintenance, _, gross = self.standings(conditions)
        # Ratios are rounded up to whole millionths of each leg; the hair covers that as well.
        hair = HAIR_USD6 + gross * (1e-6 * restore_ppm / 1e6) + maintenance * 1e-9
        code = self._code
        at_risk = (maintenance > 0.0) | (equity < 0.0)
        low = (equity < maintenance + hair) & at_risk
        called = (equity < maintenance * (call_ppm / 1e6) + hair) & at_risk
        restored = equity > maintenance * (restore_ppm / 1e6) - hair
        wanted = (called & (code == OPEN)) | (low & (code != DONE))
        wanted |= (restored & (code == CALLED)) | (code == FROZEN)
        return np.flatnonzero(wanted).tolist()
