"""Boxes of conditions, one in the other: how far prices and ages have moved since a look.

One distance for all of them, so that how far an account can bear it is one number (rule M7 of
docs/margin.md).
"""

import numpy as np
from numpy.typing import NDArray

from hub.margin.requirement import Conditions

WIDTHS = np.array([0.0025, 0.01, 0.04, 0.16])
MOST = 0.5  # no account's reach is used beyond this distance
SECONDS = 6_000.0  # change of an age at distance 1, as far as the whole of a price


class Boxes:
    """Boxes from narrow to wide, each about the conditions at which it was drawn.

    Conditions are at distance m from others if no price differs by more than the share m, no age
    by more than m * `SECONDS`, and no share of gains by more than that many seconds take from it.
    """

    def __init__(self, assets: int, spokes: int, gain_age_max_s: float) -> None:
        """Draw nothing: the first conditions are outside of all boxes."""
        self.share_unit = SECONDS / gain_age_max_s
        ages, shares = [SECONDS] * (assets * spokes), [self.share_unit] * spokes
        self._units = np.array([0.0] * assets + ages + shares)
        self._assets = assets
        self._lows = np.full((len(WIDTHS), len(self._units)), np.inf)
        self._highs = -self._lows

    def follow(self, conditions: Conditions) -> tuple[NDArray[np.float64], int]:
        """Draw the boxes that the conditions have left anew about them, with all within.

        Return how far each box goes from here, from narrow to wide, and how many were drawn.
        """
        ages_s = [age_s for ages_s in conditions.tau_s for age_s in ages_s]
        shares = [share_ppm / 1e6 for share_ppm in conditions.gain_share_ppm]
        here = np.array([*conditions.prices_usd6, *ages_s, *shares])
        units = self._units.copy()
        units[: self._assets] = here[: self._assets]
        outside = np.flatnonzero(((here < self._lows) | (here > self._highs)).any(axis=1))
        left = int(outside[-1]) + 1 if len(outside) else 0
        if left:
            spans = WIDTHS[:left, None] * units
            self._lows[:left] = here - spans
            self._highs[:left] = here + spans
        ends = np.maximum(self._highs - here, here - self._lows) / units
        needs = np.maximum.accumulate(ends.max(axis=1))
        needs[needs > MOST] = np.inf
        return needs, left
