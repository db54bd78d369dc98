"""Boxes of conditions, from narrow to wide: how far prices and ages have moved since a look.

One distance for all of them, so that how far an account can bear it is one number (rule M7 of
docs/margin.md).
"""

import math

import numpy as np
from numpy.typing import NDArray

from hub.margin.requirement import Conditions

WIDTHS = np.array([0.0025, 0.01, 0.04, 0.16])
MOST = 0.5  # no reach is claimed beyond this distance
SECONDS = 6_000.0  # by which an age is at distance 1
PRICE_LOG = 0.8  # by which a logarithm is: exp(0.8 m) - 1 <= m as long as m <= `MOST`


class Boxes:
    """Boxes of conditions, each about those at which it was drawn.

    The distance of two conditions is the largest of: difference of ages over `SECONDS`, that of
    logarithms of prices over `PRICE_LOG`, and that of shares of gains over what `SECONDS` take
    from a share. So no price at distance m <= `MOST` differs by more than the share m of it.
    """

    def __init__(self, assets: int, spokes: int, gain_age_max_s: float) -> None:
        """Draw nothing: the first conditions are outside of all boxes."""
        self.share_unit = SECONDS / gain_age_max_s
        self._share_unit_ppm = self.share_unit * 1e6
        self._middles = np.full((len(WIDTHS), assets + assets * spokes + spokes), np.inf)

    def follow(self, conditions: Conditions) -> tuple[NDArray[np.float64], int]:
        """Draw the boxes that the conditions have left anew about them, with all within.

        Return how far each box goes from here, from narrow to wide, and how many were drawn.
        """
        here = [math.log(price_usd6) / PRICE_LOG for price_usd6 in conditions.prices_usd6]
        here += [age_s / SECONDS for ages_s in conditions.tau_s for age_s in ages_s]
        here += [share_ppm / self._share_unit_ppm for share_ppm in conditions.gain_share_ppm]
        away = np.abs(self._middles - here).max(axis=1)
        outside = np.flatnonzero(away > WIDTHS)
        left = int(outside[-1]) + 1 if len(outside) else 0
        if left:
            self._middles[:left] = here
            away[:left] = 0.0
        needs = np.maximum.accumulate(away + WIDTHS)
        needs[needs > MOST] = np.inf
        return needs, left
