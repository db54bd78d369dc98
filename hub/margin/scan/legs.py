"""What the scan margins: legs of perpetuals and options, and what is known of their markets."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from hub.margin.requirement import Conditions, MarginPolicy
from hub.margin.scan.grid import Grid, VolatilityShock
from messaging.units import YEAR_S, Micros, Ppm, Qty8, Usd6

DAY_S = 86_400.0


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """A European option, settled in dollars at `left_us` from now.

    Attributes:
        sign: `black.CALL` or `black.PUT`.
        left_us: time to expiry, >= 0.
        volatility_ppm: implied, a year.
    """

    sign: int
    strike_usd6: Usd6
    left_us: Micros
    volatility_ppm: Ppm

    @property
    def contract(self) -> tuple[int, int, int]:
        """Return what legs on two spokes must share to be in the same contract."""
        return self.left_us, self.strike_usd6, self.sign

    @property
    def left_years(self) -> float:
        """Return the time to expiry [years]."""
        return self.left_us / 1e6 / YEAR_S

    @property
    def left_days(self) -> float:
        """Return the time to expiry [days]."""
        return self.left_us / 1e6 / DAY_S


class Leg(msgspec.Struct, frozen=True, kw_only=True):
    """A position of one account: a perpetual if it has no series.

    Attributes:
        spoke, place: of the spoke and of the underlying, by the order of the conditions.
        qty8: signed.
        cost_usd6: signed sum of price times quantity, premiums too; cash has not paid it yet.
    """

    spoke: int
    place: int
    qty8: Qty8
    cost_usd6: Usd6
    series: Series | None = None


class OptionRisk(msgspec.Struct, frozen=True, kw_only=True):
    """How books with options on one underlying are margined (rules O3 to O8).

    Attributes:
        range_ppm: R0, the range at age zero.
        initial_factor_ppm: what IM takes the scan times.
        naked_ppm, perpetual_ppm: of the price for a naked short option, for a perpetual.
        basis_ppm: by which each expiry's forward moves alone; it counts `basis_weight_ppm` and
            `basis_weight_year_ppm` more for each year.
        kept_ppm, discount_ppm, rate_ppm: what of an expiry's positive value counts is kept *
            exp(-years * (rate + discount)); the rate makes forwards too.
        doubt_ppm: confidence in the price below which IM takes `1 - confidence` of notional more.
    """

    range_ppm: Ppm = Ppm(150_000)
    initial_factor_ppm: Ppm = Ppm(1_250_000)
    naked_ppm: Ppm = Ppm(20_000)
    perpetual_ppm: Ppm = Ppm(30_000)
    basis_ppm: Ppm = Ppm(50_000)
    basis_weight_ppm: Ppm = Ppm(1_000_000)
    basis_weight_year_ppm: Ppm = Ppm(1_200_000)
    kept_ppm: Ppm = Ppm(950_000)
    discount_ppm: Ppm = Ppm(120_000)
    rate_ppm: Ppm = Ppm(0)
    doubt_ppm: Ppm = Ppm(550_000)


class ScanPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How a book is scanned.

    Attributes:
        margin: ratios, ages and gains, as of a book without options.
        options: one for each asset of `margin`.
    """

    margin: MarginPolicy
    options: tuple[OptionRisk, ...]
    grid: Grid
    shock: VolatilityShock


class Market(NamedTuple):
    """What the hub knows at one instant: conditions, and confidence in each price."""

    conditions: Conditions
    confidence_ppm: Sequence[Ppm]
