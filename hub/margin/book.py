"""All accounts in arrays: finds the few that need a decision, in one pass.

Floats are fast and nearly right. So the book only proposes: whoever is within a hair of a
threshold is proposed too, and `hub.margin.requirement.assess` decides in whole numbers.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hub.margin.requirement import Conditions, MarginPolicy, Reported, gain_cap_usd6
from messaging.messages import MarginStatus
from messaging.units import ONE, Asset, Qty8

Floats = NDArray[np.float64]
HAIR_USD6 = 1_000.0  # a tenth of a cent, far above what float64 loses on any real account

OPEN, CALLED, FROZEN, DONE = 0, 1, 2, 3
_CODES = {
    MarginStatus.OPEN: OPEN,
    MarginStatus.REDUCE_ONLY: CALLED,
    MarginStatus.FROZEN: FROZEN,
}


class Book:
    """Positions of every account: arrays over (spoke, asset, account) and (spoke, account)."""

    def __init__(
        self, policy: MarginPolicy, places: Mapping[Asset, int], spokes: int, accounts: int
    ) -> None:
        assets = len(policy.assets)
        self._policy = policy
        self._places = places
        self._qty8 = np.zeros((spokes, assets, accounts))
        self._bounded_qty8 = np.zeros((spokes, assets, accounts))
        self._held = np.zeros((spokes, assets, accounts))
        self._cost_usd6 = np.zeros((spokes, accounts))
        self._unsettled_usd6 = np.zeros((spokes, accounts))
        self._cash_usd6 = np.zeros(accounts)
        self._code = np.zeros(accounts, dtype=np.int8)
        self._caps_usd6 = np.array(
            [float(gain_cap_usd6(policy, asset)) for asset in range(assets)]
        )[None, :, None]

    def set_cash(self, place: int, cash_usd6: int) -> None:
        """Note an account's cash."""
        self._cash_usd6[place] = cash_usd6

    def set_code(self, place: int, status: MarginStatus, done: bool) -> None:
        """Note what an account may do; `done` accounts are never proposed again."""
        self._code[place] = DONE if done else _CODES[status]

    def set_report(
        self, place: int, spoke: int, report: Reported, bounds: Mapping[tuple[int, int], Qty8]
    ) -> None:
        """Note one spoke's latest report on an account."""
        for array in (self._qty8, self._bounded_qty8, self._held):
            array[spoke, :, place] = 0.0
        cost_usd6 = 0
        for position in report.state.positions:
            asset, qty8 = self._places[position.asset], position.qty8
            self._qty8[spoke, asset, place] = qty8
            bound_qty8 = bounds.get((spoke, asset), abs(qty8))
            bounded = max(-bound_qty8, min(bound_qty8, qty8))
            self._bounded_qty8[spoke, asset, place] = bounded
            self._held[spoke, asset, place] = 1.0
            cost_usd6 += position.cost_usd6
        self._cost_usd6[spoke, place] = cost_usd6
        self._unsettled_usd6[spoke, place] = report.unsettled_usd6

    def standings(self, conditions: Conditions) -> tuple[Floats, Floats]:
        """Return equity and maintenance margin of every account [usd6], shape (accounts,)."""
        prices = np.array(conditions.prices_usd6, dtype=np.float64)[None, :, None] / ONE
        pnl = (self._qty8 * prices).sum(axis=1) - self._cost_usd6 + self._unsettled_usd6
        caps = (self._held * self._caps_usd6).sum(axis=1)
        share = np.array(conditions.gain_share_ppm)[:, None] / 1e6
        recognised = np.where(pnl > 0.0, np.minimum(pnl, caps) * share, pnl)
        equity = self._cash_usd6 + recognised.sum(axis=0)

        value = self._bounded_qty8 * prices
        charge = np.zeros(value.shape[1:])
        for asset, risk in enumerate(self._policy.assets):
            tau_s = np.array([row[asset] for row in conditions.tau_s])[:, None]
            tau_s = tau_s + np.abs(value[:, asset]) / (3.0 * risk.unwind_usd6_per_s)
            ranges = self._policy.buffer.range_fraction(risk, tau_s, np.sqrt)
            charge[asset] = (value[:, asset] * ranges).sum(axis=0)
        return equity, np.abs(charge).sum(axis=0)

    def proposed(
        self, conditions: Conditions, *, call_ppm: int, restore_ppm: int
    ) -> tuple[list[int], Floats, Floats]:
        """Return the places of accounts whose status may have to change, and all standings.

        Complete: an account that `assess` would call, liquidate or restore is among them.
        """
        equity, maintenance = self.standings(conditions)
        # Ratios are rounded up to whole millionths of notional; the hair covers that as well.
        hair = HAIR_USD6 + maintenance * 1e-4
        code = self._code
        low = equity < maintenance + hair
        called = equity < maintenance * (call_ppm / 1e6) + hair
        restored = equity > maintenance * (restore_ppm / 1e6) - hair
        at_risk = maintenance > 0.0
        wanted = np.select(
            [code == OPEN, code == CALLED, code == FROZEN],
            [called & at_risk, (low & at_risk) | restored, (low & at_risk) | restored],
            default=False,
        )
        return np.flatnonzero(wanted).tolist(), equity, maintenance
