"""The composition root: scenario in, nodes and links out. The only module that makes them."""

from collections.abc import Mapping
from typing import NamedTuple

from hub.liquidation import LiquidationPolicy
from hub.margin.buffer import AssetRisk, Buffer, FlatBuffer, NoBuffer, SqrtTimeBuffer
from hub.margin.requirement import MarginPolicy
from hub.node import Hub
from hub.state import HubPolicy
from hub.zone import ZonePolicy
from lab import reading
from lab.scenario import AssetTable, BufferFlat, BufferNone, Scenario, SpokeTable, WindowTable
from markets import prices, traders
from markets.feed import Feed, FeedPolicy
from markets.market import Market
from markets.price_path import PricePath
from markets.traders import TraderPolicy, Traders
from messaging import presets
from messaging.channel import ChannelPolicy
from messaging.drivers.virtual import VirtualDriver
from messaging.endpoint import Endpoint
from messaging.errors import InputRefused
from messaging.latency import Constant, Latency, quantile_us
from messaging.network import LinkKey, LinkPolicy, Network, Window, WindowKind
from messaging.units import (
    HOUR_US,
    HUB,
    ONE,
    SECOND_US,
    USD,
    AccountId,
    Asset,
    Micros,
    NodeId,
    Ppm,
    Usd6,
)
from spokes import chain, venue
from spokes.node import Spoke
from spokes.state import SpokePolicy

MARKET, ORACLE, TRADERS = NodeId("market"), NodeId("oracle"), NodeId("traders")
AT_ONCE = LinkPolicy(latency=Constant(value_s=0.0))
QUANTILE = 0.99
# A frame in order waits for those before it, about ten when a command leaves in a storm of
# others: 0.999**10 = 0.99. Measured: docs/latency.md, "Waiting in order".
QUANTILE_IN_ORDER = 0.999
SLACK_US = 2 * SECOND_US


class Lane(NamedTuple):
    """The way between the hub and one spoke: by name, and as distributions."""

    up_name: str
    up: Latency  # spoke to hub
    down_name: str
    down: Latency  # hub to spoke


class World(NamedTuple):
    """Everything a run needs, ready to start."""

    scenario: Scenario
    hub: Hub
    spokes: tuple[Spoke, ...]
    endpoints: tuple[Endpoint, ...]
    network: Network
    path: PricePath
    deposits: tuple[tuple[AccountId, Usd6], ...]
    lanes: tuple[Lane, ...]

    def driver(self) -> VirtualDriver:
        """Return a driver for the whole run."""
        until_us = reading.duration_us(self.scenario)
        return VirtualDriver(self.endpoints, self.network, until_us=until_us)


def build(scenario: Scenario) -> World:
    """Make the nodes of a scenario and the links between them.

    Raises:
        InputRefused: no such latency preset, or prices that cannot be had.
    """
    assets, duration_us = reading.assets(scenario), reading.duration_us(scenario)
    names = tuple(NodeId(spoke.name) for spoke in scenario.spokes)
    lanes = tuple(lane(scenario, spoke) for spoke in scenario.spokes)
    for spoke, one in zip(scenario.spokes, lanes, strict=True):
        _check_lifetimes(scenario, spoke, one)
    path = prices.path(
        scenario.prices,
        assets,
        duration_us=duration_us,
        tick_us=_micros(scenario.tick_s),
        seed=scenario.seed,
    )
    policy = trader_policy(scenario)
    deposits = tuple(
        (traders.account_name(number), traders.collateral_usd6(policy, scenario.seed, number))
        for number in range(policy.accounts)
    )
    _check_sizes(scenario, path, max(usd6 for _, usd6 in deposits))
    intents = traders.plan(
        policy, scenario.seed, spokes=len(names), assets=len(assets), duration_us=duration_us
    )
    hub = Hub(hub_policy(scenario, lanes), deposits)
    spokes = tuple(Spoke(spoke_policy(scenario, spoke)) for spoke in scenario.spokes)
    up = {
        name: _channel_policy(scenario, one.up, one.down)
        for name, one in zip(names, lanes, strict=True)
    }
    endpoints = (
        Endpoint(Market(MARKET, path, (ORACLE, TRADERS, *names)), {}),
        Endpoint(Feed(ORACLE, HUB, feed_policies(scenario)), {}),
        Endpoint(Traders(TRADERS, intents, names, assets), {}),
        *(Endpoint(spoke, {HUB: up[spoke.name]}) for spoke in spokes),
        Endpoint(hub, up),
    )
    network = Network(scenario.seed, links(scenario, lanes))
    return World(scenario, hub, spokes, endpoints, network, path, deposits, lanes)


def _check_lifetimes(scenario: Scenario, spoke: SpokeTable, one: Lane) -> None:
    """Refuse lifetimes that end before a message can have come and gone.

    An expiry counts from the newest spoke time that the hub has heard, so a grant is one way up
    old when it is made. With a shorter life nothing would ever be used, nor liquidated.

    Raises:
        InputRefused: the knob, and what the lane needs.
    """
    way_us = quantile_us(one.up, 0.5) + quantile_us(one.down, 0.5)
    needed_s = (way_us / SECOND_US) + scenario.reporting.watermark_s + spoke.block_s
    for key, found_s in (
        ("reservation.ttl_s", scenario.reservation.ttl_s),
        ("liquidation.command_ttl_s", scenario.liquidation.command_ttl_s),
    ):
        if found_s <= needed_s:
            expected = f"more than {needed_s:,.0f} s, a way to {spoke.name} and back"
            raise InputRefused(key, expected=expected, found=f"{found_s:,g}")


def _check_sizes(scenario: Scenario, path: PricePath, largest_usd6: int) -> None:
    """Refuse positions that no message could carry.

    Raises:
        InputRefused: collateral, leverage and the lowest price together pass 62 bits.
    """
    lowest_usd6 = min(min(row) for row in path.prices_usd6)
    size_qty8 = largest_usd6 * scenario.traders.leverage_max * ONE / lowest_usd6
    if size_qty8 > 2**62 or largest_usd6 * scenario.traders.leverage_max > 2**52:
        expected = "collateral * leverage_max below $4 billion and 4.6e10 units of every asset"
        found = f"${largest_usd6 / USD:,.0f} at a lowest price of ${lowest_usd6 / USD:,g}"
        raise InputRefused("traders", expected=expected, found=found)


def lane(scenario: Scenario, spoke: SpokeTable) -> Lane:
    """Return the two directions between hub and spoke; each is a channel of its own.

    Raises:
        InputRefused: no such preset, or none for this lane.
    """
    choice = scenario.latency if spoke.latency is None else spoke.latency
    if not isinstance(choice, str):
        return Lane("scenario", choice, "scenario", choice)
    up_name, up = presets.for_lane(choice, spoke.chain, scenario.hub.chain)
    down_name, down = presets.for_lane(choice, scenario.hub.chain, spoke.chain)
    return Lane(up_name, up, down_name, down)


def links(scenario: Scenario, lanes: tuple[Lane, ...]) -> dict[LinkKey, LinkPolicy]:
    """Return every link. Those inside one chain take no time; those between chains do."""
    found: dict[LinkKey, LinkPolicy] = {
        (MARKET, ORACLE): AT_ONCE,
        (MARKET, TRADERS): AT_ONCE,
        (ORACLE, HUB): LinkPolicy(latency=scenario.oracle.delay),
    }
    faults = scenario.links
    for spoke, one in zip(scenario.spokes, lanes, strict=True):
        name = NodeId(spoke.name)
        found[MARKET, name] = found[TRADERS, name] = AT_ONCE
        windows = (
            *_windows(spoke.outages, WindowKind.HOLD),
            *_windows(spoke.partitions, WindowKind.DROP),
        )
        for key, latency in (((name, HUB), one.up), ((HUB, name), one.down)):
            found[key] = LinkPolicy(
                latency=latency,
                loss_ppm=Ppm(faults.loss_ppm),
                repeat_ppm=Ppm(faults.repeat_ppm),
                reorder_ppm=Ppm(faults.reorder_ppm),
                in_order=faults.in_order,
                windows=windows,
            )
    return found


def _windows(tables: tuple[WindowTable, ...], kind: WindowKind) -> tuple[Window, ...]:
    return tuple(
        Window(from_us=_hours(table.from_h), until_us=_hours(table.until_h), kind=kind)
        for table in tables
    )


def _channel_policy(scenario: Scenario, one: Latency, other: Latency) -> ChannelPolicy:
    """Wait for what is normal before asking again: two round trips in a hundredth's worst case."""
    slowest_us = max(quantile_us(one, QUANTILE), quantile_us(other, QUANTILE))
    reporting = scenario.reporting
    ack_us = _micros(reporting.ack_after_s)
    tend_us = _micros(reporting.tend_s)
    round_trip_us = 2 * slowest_us + ack_us + tend_us
    return ChannelPolicy(
        tend_us=tend_us,
        ack_after_us=ack_us,
        gap_after_us=Micros(2 * slowest_us + SLACK_US),
        resend_after_us=Micros(2 * round_trip_us),
    )


def buffer(scenario: Scenario) -> Buffer:
    """Return the buffer policy that the scenario names."""
    choice = scenario.buffer
    if isinstance(choice, BufferNone):
        return NoBuffer()
    if isinstance(choice, BufferFlat):
        return FlatBuffer(Ppm(choice.extra_ppm))
    return SqrtTimeBuffer()


def hub_policy(scenario: Scenario, lanes: tuple[Lane, ...]) -> HubPolicy:
    """Return the hub's knobs."""
    hub, liquidation = scenario.hub, scenario.liquidation
    zones = tuple(
        _zone_policy(scenario, spoke, one)
        for spoke, one in zip(scenario.spokes, lanes, strict=True)
    )
    return HubPolicy(
        name=HUB,
        block_us=_micros(hub.block_s),
        look_us=_micros(hub.look_s),
        margin=MarginPolicy(
            assets=tuple(_risk(table) for table in scenario.assets),
            buffer=buffer(scenario),
            gain_age_max_s=hub.gain_age_max_s,
        ),
        liquidation=LiquidationPolicy(
            call_ppm=Ppm(liquidation.call_ppm),
            restore_ppm=Ppm(liquidation.restore_ppm),
            target_extra_ppm=Ppm(liquidation.target_extra_ppm),
            cost_ppm=Ppm(liquidation.cost_ppm),
            dust_usd6=_usd6(liquidation.dust_usd),
            command_ttl_us=_micros(liquidation.command_ttl_s),
            insurance_share_ppm=Ppm(liquidation.insurance_share_ppm),
        ),
        zones=zones,
        clock_skew_us=_micros(hub.clock_skew_s),
        amount_max_usd6=_usd6(hub.reservation_max_usd),
        ttl_max_us=_micros(scenario.reservation.ttl_s),
        insurance_usd6=_usd6(hub.insurance_usd),
    )


def _zone_policy(scenario: Scenario, spoke: SpokeTable, one: Lane) -> ZonePolicy:
    """Assume of a spoke what its lane does in all but one case of a hundred."""
    down_us = quantile_us(one.down, QUANTILE_IN_ORDER)
    up_us = quantile_us(one.up, QUANTILE_IN_ORDER)
    execution_us = _micros(spoke.block_s) + _micros(scenario.reporting.liquidation_slice_s)
    # A release by watermark needs the expiry to be final and the next mark to say so; where
    # messages are lost, the mark and what is before it may have to be asked for, twice.
    mark_us = max(_micros(scenario.reporting.watermark_s), _micros(spoke.block_s))
    silence_us = SLACK_US + 2 * max(up_us, down_us) + _micros(spoke.final_after_s)
    silence_us += 3 * mark_us + _micros(spoke.block_s)
    if scenario.links.loss_ppm:
        channel = _channel_policy(scenario, one.up, one.down)
        silence_us += 2 * (channel.gap_after_us + channel.tend_us + 2 * up_us)
    return ZonePolicy(
        name=NodeId(spoke.name),
        cap_usd6=_usd6(spoke.zone_cap_usd),
        command_us=Micros(down_us + execution_us),
        overdue_after_us=Micros(silence_us),
        renewals_max=scenario.reservation.renewals_max,
    )


def _risk(table: AssetTable) -> AssetRisk:
    return AssetRisk(
        asset=Asset(table.name),
        initial_margin_ppm=Ppm(table.initial_margin_ppm),
        maintenance_margin_ppm=Ppm(table.maintenance_margin_ppm),
        stress_volatility_ppm=Ppm(table.stress_volatility_ppm),
        jump_ppm=Ppm(table.jump_ppm),
        quantile_z=table.quantile_z,
        depth_usd6_per_s=_usd6(table.depth_usd_per_s),
        participation_ppm=Ppm(table.participation_ppm),
    )


def spoke_policy(scenario: Scenario, spoke: SpokeTable) -> SpokePolicy:
    """Return one spoke's knobs."""
    reservation, reporting = scenario.reservation, scenario.reporting
    return SpokePolicy(
        name=NodeId(spoke.name),
        hub=HUB,
        chain=chain.Chain(
            block_us=_micros(spoke.block_s),
            safe_after_us=_micros(spoke.safe_after_s),
            final_after_us=_micros(spoke.final_after_s),
            trust=spoke.trust,
            halts=tuple(
                chain.Halt(from_us=_hours(window.from_h), until_us=_hours(window.until_h))
                for window in spoke.outages
            ),
        ),
        markets=tuple(_market(table) for table in scenario.assets),
        watermark_us=_micros(reporting.watermark_s),
        funding_us=_hours(reporting.funding_h),
        slice_us=_micros(reporting.liquidation_slice_s),
        ttl_us=_micros(reservation.ttl_s),
        headroom_ppm=Ppm(reservation.headroom_ppm),
        dust_usd6=_usd6(reservation.dust_usd),
        patience_us=_micros(reservation.patience_s),
    )


def _market(table: AssetTable) -> venue.Market:
    return venue.Market(
        asset=Asset(table.name),
        initial_margin_ppm=Ppm(table.initial_margin_ppm),
        fee_ppm=Ppm(table.fee_ppm),
        liquidation_fee_ppm=Ppm(table.liquidation_fee_ppm),
        half_spread_ppm=Ppm(table.half_spread_ppm),
        depth_usd6=_usd6(table.depth_usd),
        unwind_usd6_per_s=int(_usd6(table.depth_usd_per_s) * table.participation_ppm // 1_000_000),
        funding_ppm=Ppm(table.funding_ppm),
    )


def feed_policies(scenario: Scenario) -> tuple[FeedPolicy, ...]:
    """Return the oracle's policy for each asset."""
    oracle = scenario.oracle
    return tuple(
        FeedPolicy(
            asset=asset,
            heartbeat_us=_micros(oracle.heartbeat_s),
            deviation_ppm=Ppm(oracle.deviation_ppm),
        )
        for asset in reading.assets(scenario)
    )


def trader_policy(scenario: Scenario) -> TraderPolicy:
    """Return who trades."""
    table = scenario.traders
    return TraderPolicy(
        accounts=table.accounts,
        collateral_usd6=_usd6(table.collateral_usd),
        collateral_sigma=table.collateral_sigma,
        leverage_min=table.leverage_min,
        leverage_max=table.leverage_max,
        long_ppm=Ppm(table.long_ppm),
        hedged_ppm=Ppm(table.hedged_ppm),
        positions_max=table.positions_max,
        open_from_us=_hours(table.open_from_h),
        open_until_us=_hours(table.open_until_h),
        actions_per_day=table.actions_per_day,
    )


def names(world: World) -> Mapping[NodeId, Spoke]:
    """Return the spokes by name."""
    return {spoke.name: spoke for spoke in world.spokes}


def _micros(seconds: float) -> Micros:
    return Micros(max(1, round(seconds * SECOND_US)) if seconds else 0)


def _hours(hours: float) -> Micros:
    return Micros(max(1, round(hours * HOUR_US)) if hours else 0)


def _usd6(usd: float) -> Usd6:
    return Usd6(max(1, round(usd * USD)) if usd else 0)
