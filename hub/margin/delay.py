"""What a random delay is worth: the certain age at which a loss is as likely. Rule M8.

With F = tau0 + the age looked for, b = tau0 + the age known, X the delay, z the quantile:

    E[ Phi(-z sqrt(F / (b + X))) ] = Phi(-z)

The range of M5 at that age is exceeded, over all delays, as seldom as R0 is at age zero.
"""

from bisect import bisect_right

import msgspec
import numpy as np
from scipy.special import ndtr

from messaging.atoms import Atoms

NODES = 129
AGE_MAX_S = 1e7  # beyond it the worth grows as it does before it
HALVINGS = 26


class Delay(msgspec.Struct, frozen=True, kw_only=True):
    """A table of that, made once, for one lane and one asset.

    Attributes:
        tau0_s: close-out time that R0 pays for.
        ages_s: known ages, rising from 0. worths_s: tau0 and what each of them is worth with the
            delay to come, rounded up.
    """

    tau0_s: float
    ages_s: tuple[float, ...]
    worths_s: tuple[float, ...]

    def worth_s(self, age_s: float) -> float:
        """Return the certain age that stands for a known age and the delay to come [s].

        Straight between nodes, so it never falls.
        """
        after = min(bisect_right(self.ages_s, age_s), len(self.ages_s) - 1)
        low_s, high_s = self.worths_s[after - 1], self.worths_s[after]
        start_s, end_s = self.ages_s[after - 1], self.ages_s[after]
        share = (age_s - start_s) / (end_s - start_s)
        return low_s + share * (high_s - low_s) - self.tau0_s


def delay(tau0_s: float, quantile_z: float, law: Atoms) -> Delay:
    """Return the table for an asset's tau0 and z, and the law of the delay."""
    unit_s = max(1.0, tau0_s + float(law.delays_s[0]))
    ages_s = unit_s * np.expm1(np.linspace(0.0, np.log1p(AGE_MAX_S / unit_s), NODES))
    spans_s = tau0_s + ages_s[:, None] + law.delays_s
    low, high = np.log(spans_s[:, 0]), np.log(spans_s[:, -1])
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        chances = ndtr(-quantile_z * np.sqrt(np.exp(middle)[:, None] / spans_s)) @ law.shares
        short = chances > ndtr(-quantile_z)
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    worths_s = np.exp(high)
    # Half of the nodes would fall short by so much in the middle; all of them, by less.
    coarse_s = np.interp(ages_s, ages_s[::2], worths_s[::2])
    worths_s *= max(1.0, float(np.max(worths_s / coarse_s)))
    return Delay(
        tau0_s=tau0_s,
        ages_s=tuple(ages_s.tolist()),
        worths_s=tuple(np.maximum.accumulate(worths_s).tolist()),
    )
