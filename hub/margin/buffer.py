"""Time-weighted buffers: how the price range to survive grows with what the hub does not know.

A buffer is a policy: asset and age in, range out. It is written once for floats and arrays
alike, which is why the square root is handed in.
"""

import math
from collections.abc import Callable
from typing import Annotated, ClassVar, TypeAlias, TypeVar

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from messaging.units import YEAR_S, Asset, Ppm

T = TypeVar("T", float, NDArray[np.float64])
Sqrt = Callable[[T], T]


class AssetRisk(msgspec.Struct, frozen=True, kw_only=True):
    """How one asset's perpetuals are margined. Source: docs/margin.md, rules M3 and M5.

    Attributes:
        initial_margin_ppm: share of notional needed to open, at age zero.
        maintenance_margin_ppm: share of notional needed to stay, at age zero (R0).
        stress_volatility_ppm: annualised volatility that ages are charged at (2.5 = 2,500,000).
        jump_ppm: part of R0 that covers jumps, which do not grow with age.
        quantile_z: normal quantile of the price move to survive (3.09 = 99.9 %).
        depth_usd6_per_s: volume the market absorbs in a second [usd6/s].
        participation_ppm: share of that volume a liquidation may be.
        volatility_ppm: volatility that ages are charged at while it is above that of stress
            (rule V7).
    """

    asset: Asset
    initial_margin_ppm: Ppm
    maintenance_margin_ppm: Ppm
    stress_volatility_ppm: Ppm
    jump_ppm: Ppm
    quantile_z: float
    depth_usd6_per_s: int
    participation_ppm: Ppm
    volatility_ppm: Ppm = Ppm(0)

    @property
    def terms(self) -> tuple[float, float, float]:
        """Return jump, z * sigma at the volatility in use, and tau0 [years] (rules M5, V7).

        tau0 is the close-out time that R0 already pays for at stress volatility.
        """
        stress_ppm, used_ppm = self.stress_volatility_ppm, self.volatility_ppm
        jump = self.jump_ppm / 1e6
        z_stress = self.quantile_z * (stress_ppm / 1e6)
        tau0 = ((self.maintenance_margin_ppm / 1e6 - jump) / z_stress) ** 2
        if used_ppm <= stress_ppm:
            return jump, z_stress, tau0
        return jump, self.quantile_z * (used_ppm / 1e6), tau0

    @property
    def unwind_usd6_per_s(self) -> float:
        """Return how fast a position may be closed [usd6/s]."""
        return self.depth_usd6_per_s * self.participation_ppm / 1e6


class Buffer(msgspec.Struct, frozen=True, tag_field="kind", forbid_unknown_fields=True):
    """A policy for the price range that maintenance margin must cover; its fields are its knobs.

    Attributes:
        concave: it never falls with age and is concave in it. Rule M7 rests on that; where it
            does not hold, the hub looks at every account each time.
    """

    concave: ClassVar[bool] = True

    def range_fraction(self, risk: AssetRisk, tau_s: T, sqrt: Sqrt[T]) -> T:
        """Return the range as a fraction of notional, for an age of `tau_s` seconds."""
        raise NotImplementedError


class NoBuffer(Buffer, frozen=True, tag="none"):
    """R0 at any age: margin as if messages took no time."""

    def range_fraction(self, risk: AssetRisk, tau_s: T, sqrt: Sqrt[T]) -> T:
        """See `Buffer.range_fraction`."""
        return risk.maintenance_margin_ppm / 1e6 + 0.0 * tau_s


class FlatBuffer(Buffer, frozen=True, tag="flat"):
    """R0 plus a constant, whatever the age."""

    extra_ppm: Annotated[Ppm, Meta(ge=0, le=1_000_000)] = Ppm(20_000)

    def range_fraction(self, risk: AssetRisk, tau_s: T, sqrt: Sqrt[T]) -> T:
        """See `Buffer.range_fraction`."""
        return (risk.maintenance_margin_ppm + self.extra_ppm) / 1e6 + 0.0 * tau_s


class SqrtTimeBuffer(Buffer, frozen=True, tag="sqrt_time"):
    """Variances add: the range grows with the square root of age (rule M5).

        R(tau) = jump + z * sigma * sqrt(tau0 + tau)
        tau0   = ((R0 - jump) / (z * sigma_stress))^2          so that R(0) = R0 under stress

    sigma is that of stress, or a higher one that is measured (rule V7).
    [fraction of notional], tau and tau0 in years of 365 days.
    """

    def range_fraction(self, risk: AssetRisk, tau_s: T, sqrt: Sqrt[T]) -> T:
        """See `Buffer.range_fraction`."""
        jump, z_sigma, tau0 = risk.terms
        return jump + z_sigma * sqrt(tau0 + tau_s / YEAR_S)


class QuantileBuffer(SqrtTimeBuffer, frozen=True, tag="quantile"):
    """The same range at another age: that which is as dangerous as the lane's random delay (M8).

    The delay's law is in the zone's `hub.margin.delay.Delay`, one table for each asset.
    """


# What a scenario may name, by tag. A policy of your own: docs/policies.md.
BufferChoice: TypeAlias = NoBuffer | FlatBuffer | SqrtTimeBuffer | QuantileBuffer


def range_ppm(buffer: Buffer, risk: AssetRisk, tau_s: float) -> Ppm:
    """Return the range as a whole ratio, rounded up against the trader, R0 at the least."""
    # A hair below a whole ratio is that ratio: R(0) must be R0 and not one millionth more.
    ratio = math.ceil(buffer.range_fraction(risk, tau_s, math.sqrt) * 1e6 - 1e-6)
    return Ppm(max(ratio, risk.maintenance_margin_ppm))
