"""A book for `omnimargin margin`: what a user writes in TOML, with units in every key.

Money in dollars, times in the unit that the key names, ratios in ppm (1 % = 10,000). A knob that
is left out has the default written here.
"""

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, field

from hub.margin.buffer import FlatBuffer, NoBuffer, SqrtTimeBuffer
from lab.scenario import (
    Dollars,
    Name,
    NotNegative,
    Positive,
    RiskTable,
    Share,
    Table,
    Ticker,
)

Moment: TypeAlias = Annotated[datetime, Meta(tz=True)]
Money: TypeAlias = Annotated[float, Meta(ge=-1e12, le=1e12)]
Age: TypeAlias = Annotated[float, Meta(ge=0, le=86_400 * 366)]
Price: TypeAlias = Annotated[float, Meta(ge=0.000001, le=1e9)]
Volatility: TypeAlias = Annotated[int, Meta(ge=0, le=100_000_000)]
Several: TypeAlias = Annotated[int, Meta(ge=1_000_000, le=10_000_000)]


class ExpiryTable(Table, frozen=True):
    """A moment at which options are settled, and the volatility that prices imply till then."""

    expires_utc: Moment
    volatility_ppm: Volatility


class UnderlyingTable(RiskTable, frozen=True, kw_only=True):
    """What perpetuals and options are on: its price, and how books on it are margined."""

    price_usd: Price
    price_age_s: Age = 0.0
    confidence_ppm: Share = 1_000_000
    scan_range_ppm: Annotated[int, Meta(gt=0, le=1_000_000)] = 150_000
    initial_factor_ppm: Several = 1_250_000
    naked_ppm: Share = 20_000
    perpetual_ppm: Share = 30_000
    basis_ppm: Annotated[int, Meta(ge=0, lt=1_000_000)] = 50_000
    kept_ppm: Share = 950_000
    discount_ppm: Share = 120_000
    rate_ppm: Annotated[int, Meta(ge=-100_000, le=1_000_000)] = 0
    expiries: tuple[ExpiryTable, ...] = ()


class SpokeRow(Table, frozen=True):
    """A spoke: how old what it has said is, and how long a command to it takes."""

    name: Name
    state_age_s: Age = 0.0
    command_s: Age = 0.0


class CollateralTable(Table, frozen=True, kw_only=True):
    """An asset that is taken as collateral."""

    name: Ticker
    price_usd: Price
    price_age_s: Age = 0.0
    maintenance_haircut_ppm: Share
    initial_haircut_ppm: Share
    volatility_ppm: Volatility = 2_500_000
    quantile_z: Annotated[float, Meta(gt=0, le=10)] = 3.09
    depth_usd_per_s: Dollars = 250_000
    participation_ppm: Annotated[int, Meta(gt=0, le=1_000_000)] = 100_000
    volume_usd_per_day: Dollars = 1_000_000_000
    impact_ppm: Share = 200_000
    cap_usd: Dollars = 10_000_000
    pegged: bool = False
    depeg_factor: Annotated[int, Meta(ge=0, le=100)] = 4
    price_age_max_s: Age = 3_600.0
    follows: Ticker | None = None
    ratio_ppm: Share = 80_000


class PositionTable(Table, frozen=True):
    """One position; an option names its strike and its expiry."""

    spoke: Name
    underlying: Ticker
    kind: Literal["perpetual", "call", "put"]
    quantity: Annotated[float, Meta(ge=-1e9, le=1e9)]
    cost_usd: Money
    strike_usd: Price | None = None
    expires_utc: Moment | None = None


class AccountTable(Table, frozen=True):
    """One trader: dollars, other collateral, what spokes have not settled yet, positions."""

    name: Name
    cash_usd: Money = 0.0
    collateral: dict[str, NotNegative] = field(default_factory=dict)
    unsettled_usd: dict[str, Money] = field(default_factory=dict)
    positions: tuple[PositionTable, ...] = ()


class GreekLimits(Table, frozen=True):
    """The most that Greeks may be on one underlying, without sign; left out, any size."""

    delta_usd: NotNegative | None = None
    gamma_usd: NotNegative | None = None
    vega_usd: NotNegative | None = None
    theta_usd: NotNegative | None = None


class LimitsTable(Table, frozen=True):
    """Limits for each account, for all accounts on each spoke, and for all on all spokes.

    The hedge brings the delta of all accounts inside the band.
    """

    account: GreekLimits = GreekLimits()
    spoke: GreekLimits = GreekLimits()
    system: GreekLimits = GreekLimits()
    hedge_band_usd: NotNegative = 0.0


class BookTable(Table, frozen=True, kw_only=True):
    """The whole file."""

    title: str
    now_utc: Moment
    # `quantile` is for lanes, and a book has none.
    buffer: NoBuffer | FlatBuffer | SqrtTimeBuffer = SqrtTimeBuffer()
    gain_age_max_s: Positive = 600.0
    clock_skew_s: Age = 2.0
    underlyings: Annotated[tuple[UnderlyingTable, ...], Meta(min_length=1, max_length=100)]
    spokes: Annotated[tuple[SpokeRow, ...], Meta(min_length=1, max_length=100)]
    accounts: Annotated[tuple[AccountTable, ...], Meta(min_length=1, max_length=10_000)]
    collateral: tuple[CollateralTable, ...] = ()
    limits: LimitsTable = LimitsTable()


class ScenarioTable(Table, frozen=True):
    """A row of a grid; the move is in ranges R(tau)."""

    move_ppm: Annotated[int, Meta(ge=-10_000_000, le=10_000_000)]
    volatility: Literal["up", "down", "unchanged"] = "unchanged"
    share_ppm: Annotated[int, Meta(gt=0, le=1_000_000)] = 1_000_000


class ShockTable(Table, frozen=True):
    """How far volatilities move at 30 days, and the powers of 30 / days for other expiries."""

    up_ppm: Annotated[int, Meta(ge=0, le=10_000_000)] = 600_000
    down_ppm: Share = 300_000
    near: Annotated[float, Meta(ge=0, le=1)] = 0.30
    far: Annotated[float, Meta(ge=0, le=1)] = 0.13


class GridTable(Table, frozen=True, kw_only=True):
    """A file for --grid."""

    name: str
    shock: ShockTable = ShockTable()
    scenarios: Annotated[tuple[ScenarioTable, ...], Meta(min_length=1, max_length=1_000)]
