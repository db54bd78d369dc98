"""A scenario: what a user writes in TOML, checked, with units in every key.

Money in dollars, times in the unit that the key names, ratios in ppm (1 % = 10,000). A knob that
is left out has the default written here.
"""

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from hub.adl import Adl
from hub.liquidation import Plan
from hub.margin.buffer import BufferChoice, SqrtTimeBuffer
from hub.margin.volatility.estimate import VolatilityPolicy
from markets.feed import FaultKind
from markets.prices import PriceSource
from messaging.latency import Constant, Latency
from messaging.units import Asset
from spokes.chain import Trust

Positive: TypeAlias = Annotated[float, Meta(ge=0.001, le=1e9)]
Dollars: TypeAlias = Annotated[float, Meta(ge=1, le=1e12)]
Hours: TypeAlias = Annotated[float, Meta(ge=0.001, le=24 * 366)]
NotNegative: TypeAlias = Annotated[float, Meta(ge=0, le=1e9)]
Share: TypeAlias = Annotated[int, Meta(ge=0, le=1_000_000)]
Error: TypeAlias = Annotated[int, Meta(ge=0, le=100_000)]
Name: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,15}$")]
Ticker: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Z][A-Z0-9]{0,15}$")]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; keys that it does not know are refused."""


class RiskTable(Table, frozen=True):
    """How one asset's perpetuals are margined, in a scenario as in a book."""

    name: Ticker
    initial_margin_ppm: Annotated[int, Meta(gt=0, le=1_000_000)] = 100_000
    maintenance_margin_ppm: Annotated[int, Meta(gt=0, le=1_000_000)] = 65_000
    stress_volatility_ppm: Annotated[int, Meta(gt=0, le=100_000_000)] = 2_500_000
    jump_ppm: Share = 30_000
    quantile_z: Annotated[float, Meta(gt=0, le=10)] = 3.09
    depth_usd_per_s: Dollars = 250_000
    participation_ppm: Annotated[int, Meta(gt=0, le=1_000_000)] = 100_000


class AssetTable(RiskTable, frozen=True):
    """One perpetual: how it is margined, and how it trades on every spoke."""

    depth_usd: Dollars = 5_000_000
    half_spread_ppm: Share = 100
    fee_ppm: Share = 500
    liquidation_fee_ppm: Share = 10_000
    funding_ppm: Annotated[int, Meta(ge=-100_000, le=100_000)] = 100
    peg_usd: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    impact_ppm_per_million_usd: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0


class WindowTable(Table, frozen=True):
    """A span of the run, in hours from its start."""

    from_h: Annotated[float, Meta(ge=0, le=24 * 366)]
    until_h: Hours


class ReorgTable(Table, frozen=True):
    """At `at_h` hours from the start a chain loses its newest `depth` blocks."""

    at_h: Hours
    depth: Annotated[int, Meta(ge=1, le=64)]


class SpokeTable(Table, frozen=True):
    """One execution spoke and its chain."""

    name: Name
    chain: str
    block_s: Positive = 2.0
    safe_after_s: NotNegative = 60.0
    final_after_s: NotNegative = 900.0
    trust: Trust = Trust.FINAL
    zone_cap_usd: Dollars = 100_000_000.0
    gain_hold_s: NotNegative = 0.0
    insurance_usd: NotNegative = 0.0
    depth_share_ppm: Annotated[int, Meta(gt=0, le=10_000_000)] = 1_000_000
    fee_ppm: Share | None = None
    latency: str | Latency | None = None
    outages: tuple[WindowTable, ...] = ()
    partitions: tuple[WindowTable, ...] = ()
    reorgs: tuple[ReorgTable, ...] = ()


class HubTable(Table, frozen=True):
    """The collateral hub."""

    chain: str = "arbitrum"
    block_s: Positive = 12.0
    look_s: Positive = 60.0
    insurance_usd: NotNegative = 1_000_000.0
    clock_skew_s: NotNegative = 2.0
    gain_age_max_s: Positive = 600.0
    reservation_max_usd: Dollars = 50_000_000.0


class LiquidationTable(Table, frozen=True):
    """Margin calls and liquidation."""

    call_ppm: Annotated[int, Meta(ge=1_000_000, le=10_000_000)] = 1_150_000
    restore_ppm: Annotated[int, Meta(ge=1_000_000, le=10_000_000)] = 1_250_000
    target_extra_ppm: Share = 20_000
    cost_ppm: Share = 12_000
    dust_usd: NotNegative = 1_000.0
    command_ttl_s: Positive = 14_400.0
    insurance_share_ppm: Share = 500_000
    socialise: bool = False
    adl: Adl = Adl.NONE
    plan: Plan = Plan.PRO_RATA
    grace_s: NotNegative = 0.0
    grace_floor_ppm: Share = 800_000


class ReservationTable(Table, frozen=True):
    """Credit lines."""

    ttl_s: Positive = 7_200.0
    headroom_ppm: Annotated[int, Meta(ge=0, le=10_000_000)] = 250_000
    dust_usd: NotNegative = 50.0
    patience_s: Positive = 10_800.0
    renewals_max: Annotated[int, Meta(ge=0, le=1_000)] = 1


class ReportingTable(Table, frozen=True):
    """What spokes tell of themselves, and how channels are looked after."""

    watermark_s: Positive = 30.0
    digest_s: NotNegative = 300.0
    funding_h: Hours = 8.0
    liquidation_slice_s: Positive = 12.0
    tend_s: Positive = 60.0
    ack_after_s: NotNegative = 60.0


class FeedFaultTable(Table, frozen=True):
    """A time in which a feed is silent, stuck or bent; of one asset, or of all."""

    feed: Annotated[int, Meta(ge=0, le=8)]
    kind: FaultKind
    from_h: Annotated[float, Meta(ge=0, le=24 * 366)]
    until_h: Hours
    asset: Ticker | None = None
    factor_ppm: Annotated[int, Meta(gt=0, le=100_000_000)] = 500_000


class OracleTable(Table, frozen=True):
    """The price feeds: one of each asset, or three and more."""

    heartbeat_s: Positive = 60.0
    deviation_ppm: Annotated[int, Meta(gt=0, le=1_000_000)] = 5_000
    delay: Latency = Constant(value_s=4.0)
    feeds: Annotated[int, Meta(ge=1, le=9)] = 1
    error_ppm: Error | tuple[Error, ...] = 0
    spread_ppm: Annotated[int, Meta(gt=0, le=1_000_000)] = 20_000
    twap_s: Positive = 300.0
    twap_ppm: Annotated[int, Meta(gt=0, le=1_000_000)] = 100_000
    peg_ppm: Annotated[int, Meta(gt=0, le=1_000_000)] = 10_000
    faults: tuple[FeedFaultTable, ...] = ()


class BreakerTable(Table, frozen=True):
    """What stops credit and trading, and for how long."""

    price_age_s: Positive = 60.0
    grace_s: NotNegative = 60.0
    off_mean_ppm: Annotated[int, Meta(gt=0, le=1_000_000)] = 500_000
    volatility_times: Annotated[float, Meta(ge=1, le=1_000)] = 3.0
    won_ppm: Annotated[int, Meta(gt=0, le=1_000_000)] = 500_000
    cascade_ppm: Annotated[int, Meta(gt=0, le=10_000_000)] = 700_000
    clean_looks: Annotated[int, Meta(ge=1, le=1_000)] = 10


class ImpactTable(Table, frozen=True):
    """Fills move prices: for how long, and whether venues are one market."""

    half_life_s: NotNegative = 0.0
    coupling_ppm: Share = 1_000_000


class LinkTable(Table, frozen=True):
    """Faults of the links between hub and spokes."""

    loss_ppm: Annotated[int, Meta(ge=0, le=900_000)] = 0
    repeat_ppm: Share = 0
    reorder_ppm: Share = 0
    in_order: bool = False


class OrderTable(Table, frozen=True):
    """An order of a named account: opens a signed notional, or closes a share of its position."""

    at_h: Annotated[float, Meta(ge=0, le=24 * 366)]
    spoke: Name
    asset: Ticker
    notional_usd: Annotated[float, Meta(ge=-1e9, le=1e9)] = 0.0
    close_ppm: Share = 0


class NamedTable(Table, frozen=True):
    """An account of which every order is written down."""

    name: Name
    collateral_usd: Annotated[float, Meta(ge=1, le=1e9)]
    orders: tuple[OrderTable, ...] = ()


class TraderTable(Table, frozen=True):
    """Who trades: accounts that are drawn, and named ones after them."""

    accounts: Annotated[int, Meta(ge=1, le=100_000)] = 1_200
    collateral_usd: Dollars = 20_000.0
    collateral_sigma: Annotated[float, Meta(ge=0, le=4)] = 1.0
    leverage_min: Annotated[float, Meta(gt=0, le=100)] = 2.0
    leverage_max: Annotated[float, Meta(gt=0, le=100)] = 8.0
    long_ppm: Share = 700_000
    hedged_ppm: Share = 150_000
    positions_max: Annotated[int, Meta(ge=1, le=12)] = 3
    open_from_h: NotNegative = 0.0
    open_until_h: Hours = 3.0
    actions_per_day: Annotated[float, Meta(ge=0, le=1_000)] = 6.0
    named: tuple[NamedTable, ...] = ()


class Scenario(Table, frozen=True):
    """All of a run but its code: with the commit and `seed` it fixes every byte of the log."""

    title: str
    latency: str | Latency
    prices: PriceSource
    assets: Annotated[tuple[AssetTable, ...], Meta(min_length=1, max_length=32)]
    spokes: Annotated[tuple[SpokeTable, ...], Meta(min_length=1, max_length=32)]
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 1
    duration_h: Annotated[float, Meta(gt=0, le=24 * 366)] = 24.0
    tick_s: Positive = 4.0
    starts_at_utc: str | None = None
    buffer: BufferChoice = SqrtTimeBuffer()
    volatility: VolatilityPolicy | None = None
    breakers: BreakerTable | None = None
    impact: ImpactTable | None = None
    hub: HubTable = HubTable()
    liquidation: LiquidationTable = LiquidationTable()
    reservation: ReservationTable = ReservationTable()
    reporting: ReportingTable = ReportingTable()
    oracle: OracleTable = OracleTable()
    links: LinkTable = LinkTable()
    traders: TraderTable = TraderTable()


def assets_of(scenario: Scenario) -> tuple[Asset, ...]:
    """Return the assets in the scenario's order."""
    return tuple(Asset(table.name) for table in scenario.assets)
