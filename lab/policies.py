"""The knobs of every node, from the scenario's tables."""

from hub.breakers import BreakerPolicy
from hub.liquidation import LiquidationPolicy
from hub.margin.buffer import AssetRisk, QuantileBuffer
from hub.margin.delay import Delay, delay
from hub.margin.requirement import MarginPolicy
from hub.margin.volatility.estimate import VolatilityPolicy
from hub.oracle import OraclePolicy
from hub.planning import CloseOut
from hub.state import HubPolicy
from hub.zone import ZonePolicy
from lab.amounts import hours, micros, usd6
from lab.chains import chain_of
from lab.scenario import AssetTable, RiskTable, Scenario, SpokeTable, assets_of
from lab.ways import QUANTILE, SLACK_US, Lane, channel_policy
from markets.feed import FeedFault, FeedPolicy
from markets.impact import ImpactPolicy, mean_share
from markets.traders import Intent, TraderPolicy
from messaging.atoms import atoms, in_line
from messaging.latency import Latency, quantile_us
from messaging.units import HUB, MARKET, USD, YEAR_S, Asset, Micros, NodeId, Ppm, Usd6, ratio_down
from spokes import venue
from spokes.state import SpokePolicy

# A frame in order waits for those before it, about ten when a command leaves in a storm of
# others: 0.999**10 = 0.99. Measured: docs/latency.md, "Waiting in order".
IN_LINE, QUANTILE_IN_ORDER = 10, 0.999


def hub_policy(scenario: Scenario, lanes: tuple[Lane, ...]) -> HubPolicy:
    """Return the hub's knobs."""
    hub, liquidation = scenario.hub, scenario.liquidation
    lateness_us = quantile_us(scenario.oracle.delay, QUANTILE)
    zones = tuple(
        _zone_policy(scenario, spoke, one)
        for spoke, one in zip(scenario.spokes, lanes, strict=True)
    )
    return HubPolicy(
        name=HUB,
        block_us=micros(hub.block_s),
        look_us=micros(hub.look_s),
        margin=MarginPolicy(
            assets=tuple(risk_of(table) for table in scenario.assets),
            buffer=scenario.buffer,
            gain_age_max_s=hub.gain_age_max_s,
        ),
        liquidation=LiquidationPolicy(
            call_ppm=Ppm(liquidation.call_ppm),
            restore_ppm=Ppm(liquidation.restore_ppm),
            target_extra_ppm=Ppm(liquidation.target_extra_ppm),
            cost_ppm=Ppm(liquidation.cost_ppm),
            dust_usd6=usd6(liquidation.dust_usd),
            command_ttl_us=micros(liquidation.command_ttl_s),
            insurance_share_ppm=Ppm(liquidation.insurance_share_ppm),
            socialise=liquidation.socialise,
            adl=liquidation.adl,
            plan=liquidation.plan,
            grace_us=micros(liquidation.grace_s),
            grace_floor_ppm=Ppm(liquidation.grace_floor_ppm),
        ),
        zones=zones,
        clock_skew_us=micros(hub.clock_skew_s),
        amount_max_usd6=usd6(hub.reservation_max_usd),
        ttl_max_us=micros(scenario.reservation.ttl_s),
        insurance_usd6=usd6(hub.insurance_usd),
        volatility=scenario.volatility,
        oracle=oracle_policy(scenario, lateness_us),
        breakers=breaker_policy(scenario, lateness_us),
    )


def _zone_policy(scenario: Scenario, spoke: SpokeTable, one: Lane) -> ZonePolicy:
    """Assume of a spoke what its lane does in all but one case of a hundred."""
    down_us = quantile_us(one.down, QUANTILE_IN_ORDER)
    whole = isinstance(scenario.buffer, QuantileBuffer)
    up_us = quantile_us(one.up, QUANTILE_IN_ORDER)
    execution_us = micros(spoke.block_s) + micros(scenario.reporting.liquidation_slice_s)
    # A release by watermark needs the expiry to be final and the next mark to say so; where
    # messages are lost, the mark and what is before it may have to be asked for, twice.
    mark_us = max(micros(scenario.reporting.watermark_s), micros(spoke.block_s))
    silence_us = SLACK_US + 2 * max(up_us, down_us) + micros(spoke.final_after_s)
    silence_us += 3 * mark_us + micros(spoke.block_s)
    if scenario.links.loss_ppm:
        channel = channel_policy(scenario, one.up, one.down)
        silence_us += 2 * (channel.gap_after_us + channel.tend_us + 2 * up_us)
    return ZonePolicy(
        name=NodeId(spoke.name),
        cap_usd6=usd6(spoke.zone_cap_usd),
        command_us=Micros(execution_us if whole else down_us + execution_us),
        overdue_after_us=Micros(silence_us),
        renewals_max=scenario.reservation.renewals_max,
        hold_us=micros(spoke.gain_hold_s),
        delays=_delays(scenario, one.down) if whole else (),
        insurance_usd6=usd6(spoke.insurance_usd),
        close_outs=tuple(_close_out(scenario, spoke, table) for table in scenario.assets),
    )


def _close_out(scenario: Scenario, spoke: SpokeTable, table: AssetTable) -> CloseOut:
    """Return what closing costs at a venue whose depth is what it is as a rule."""
    market = _market(spoke, table)
    slice_usd6 = market.unwind_usd6_per_s * micros(scenario.reporting.liquidation_slice_s)
    return CloseOut(
        rate_ppm=Ppm(market.fee_ppm + market.liquidation_fee_ppm + market.half_spread_ppm),
        depth_usd6=market.depth_usd6,
        slice_usd6=slice_usd6 // 1_000_000,
    )


def _delays(scenario: Scenario, down: Latency) -> tuple[Delay, ...]:
    """Return what a command's random way is worth in age, for each asset (rule M8)."""
    law = in_line(atoms(down), IN_LINE)
    found = []
    for risk in map(risk_of, scenario.assets):
        _, _, tau0 = risk.terms
        found.append(delay(tau0 * YEAR_S, risk.quantile_z, law))
    return tuple(found)


def risk_of(table: RiskTable) -> AssetRisk:
    """Return how an asset is margined."""
    return AssetRisk(
        asset=Asset(table.name),
        initial_margin_ppm=Ppm(table.initial_margin_ppm),
        maintenance_margin_ppm=Ppm(table.maintenance_margin_ppm),
        stress_volatility_ppm=Ppm(table.stress_volatility_ppm),
        jump_ppm=Ppm(table.jump_ppm),
        quantile_z=table.quantile_z,
        depth_usd6_per_s=usd6(table.depth_usd_per_s),
        participation_ppm=Ppm(table.participation_ppm),
    )


def spoke_policy(scenario: Scenario, spoke: SpokeTable) -> SpokePolicy:
    """Return one spoke's knobs."""
    reservation, reporting = scenario.reservation, scenario.reporting
    return SpokePolicy(
        name=NodeId(spoke.name),
        hub=HUB,
        chain=chain_of(spoke),
        markets=tuple(_market(spoke, table) for table in scenario.assets),
        watermark_us=micros(reporting.watermark_s),
        digest_us=micros(reporting.digest_s),
        funding_us=hours(reporting.funding_h),
        slice_us=micros(reporting.liquidation_slice_s),
        ttl_us=micros(reservation.ttl_s),
        headroom_ppm=Ppm(reservation.headroom_ppm),
        dust_usd6=usd6(reservation.dust_usd),
        patience_us=micros(reservation.patience_s),
        market=None if impact_policy(scenario) is None else MARKET,
    )


def _market(spoke: SpokeTable, table: AssetTable) -> venue.Market:
    return venue.Market(
        asset=Asset(table.name),
        initial_margin_ppm=Ppm(table.initial_margin_ppm),
        fee_ppm=Ppm(table.fee_ppm if spoke.fee_ppm is None else spoke.fee_ppm),
        liquidation_fee_ppm=Ppm(table.liquidation_fee_ppm),
        half_spread_ppm=Ppm(table.half_spread_ppm),
        depth_usd6=Usd6(max(1, ratio_down(usd6(table.depth_usd), spoke.depth_share_ppm))),
        unwind_usd6_per_s=int(usd6(table.depth_usd_per_s) * table.participation_ppm // 1_000_000),
        funding_ppm=Ppm(table.funding_ppm),
    )


def oracle_policy(scenario: Scenario, lateness_us: Micros) -> OraclePolicy | None:
    """Return when several feeds are believed; None if there is one of each asset.

    A print is fresh until the next one is overdue by a heartbeat and the way to the hub.
    """
    oracle = scenario.oracle
    if oracle.feeds == 1:
        return None
    return OraclePolicy(
        feeds=oracle.feeds,
        fresh_us=Micros(2 * micros(oracle.heartbeat_s) + lateness_us),
        spread_ppm=Ppm(oracle.spread_ppm),
        twap_us=micros(oracle.twap_s),
        twap_ppm=Ppm(oracle.twap_ppm),
        pegs_usd6=tuple(usd6(table.peg_usd) for table in scenario.assets),
        peg_ppm=Ppm(oracle.peg_ppm),
    )


def breaker_policy(scenario: Scenario, lateness_us: Micros) -> BreakerPolicy | None:
    """Return when credit and trading stop; None without the table.

    A price that stands still is printed anew each heartbeat, and its age says nothing until then.
    """
    table, oracle = scenario.breakers, scenario.oracle
    if table is None:
        return None
    sound_us = micros(oracle.heartbeat_s) + lateness_us + micros(scenario.tick_s)
    impact = impact_policy(scenario)
    seen = 1.0 if impact is None else mean_share(impact, len(scenario.spokes))
    return BreakerPolicy(
        price_age_us=Micros(max(micros(table.price_age_s), sound_us)),
        stuck_us=Micros(sound_us + micros(table.grace_s)),
        off_mean_ppm=Ppm(table.off_mean_ppm),
        mean_us=micros(oracle.twap_s),
        volatility_times=table.volatility_times,
        volatility_floor=(scenario.volatility or VolatilityPolicy()).floor,
        won_ppm=Ppm(table.won_ppm),
        cascade_ppm=Ppm(table.cascade_ppm),
        impacts_per_usd=tuple(
            seen * one.impact_ppm_per_million_usd / 1e12 for one in scenario.assets
        ),
        looks=table.clean_looks,
    )


def impact_policy(scenario: Scenario) -> ImpactPolicy | None:
    """Return how fills move prices; None without the table, or if nothing in it does (C1)."""
    table = scenario.impact
    if table is None:
        return None
    policy = ImpactPolicy(
        lasting_per_usd=tuple(one.impact_ppm_per_million_usd / 1e12 for one in scenario.assets),
        walk_per_usd=tuple(0.01 / one.depth_usd for one in scenario.assets),
        half_life_us=micros(table.half_life_s),
        coupling_ppm=Ppm(table.coupling_ppm),
        depth_shares_ppm=tuple(Ppm(one.depth_share_ppm) for one in scenario.spokes),
    )
    return policy if policy.half_life_us or any(policy.lasting_per_usd) else None


def feed_policies(scenario: Scenario) -> tuple[FeedPolicy, ...]:
    """Return the policy of each feed for each asset, feed by feed."""
    oracle, errors = scenario.oracle, scenario.oracle.error_ppm
    tells_depth = impact_policy(scenario) is not None
    errors_ppm = errors if isinstance(errors, tuple) else (errors,) * oracle.feeds
    return tuple(
        FeedPolicy(
            asset=asset,
            heartbeat_us=micros(oracle.heartbeat_s),
            deviation_ppm=Ppm(oracle.deviation_ppm),
            feed=feed,
            error_ppm=Ppm(errors_ppm[feed]),
            seed=scenario.seed,
            faults=tuple(
                FeedFault(
                    kind=fault.kind,
                    from_us=hours(fault.from_h),
                    until_us=hours(fault.until_h),
                    factor_ppm=Ppm(fault.factor_ppm),
                )
                for fault in oracle.faults
                if fault.feed == feed and fault.asset in (None, asset)
            ),
            tells_depth=tells_depth,
        )
        for feed in range(oracle.feeds)
        for asset in assets_of(scenario)
    )


def trader_policy(scenario: Scenario) -> TraderPolicy:
    """Return who trades."""
    table = scenario.traders
    return TraderPolicy(
        accounts=table.accounts,
        collateral_usd6=usd6(table.collateral_usd),
        collateral_sigma=table.collateral_sigma,
        leverage_min=table.leverage_min,
        leverage_max=table.leverage_max,
        long_ppm=Ppm(table.long_ppm),
        hedged_ppm=Ppm(table.hedged_ppm),
        positions_max=table.positions_max,
        open_from_us=hours(table.open_from_h),
        open_until_us=hours(table.open_until_h),
        actions_per_day=table.actions_per_day,
    )


def named_intents(scenario: Scenario) -> list[Intent]:
    """Return the orders of named accounts, who are numbered behind all others."""
    spokes = [spoke.name for spoke in scenario.spokes]
    names = assets_of(scenario)
    return [
        Intent(
            at_us=hours(order.at_h),
            account=number,
            spoke=spokes.index(order.spoke),
            asset=names.index(order.asset),
            notional_usd6=round(order.notional_usd * USD),
            close_ppm=order.close_ppm,
        )
        for number, named in enumerate(scenario.traders.named, scenario.traders.accounts)
        for order in named.orders
    ]
