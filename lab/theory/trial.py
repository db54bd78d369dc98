"""One path through the real nodes: a position is opened, the price nears its trigger, a loss.

Time on the hub is not quite time of the price. Each print reaches the hub a microsecond before a
block, and no two before the same block, so that the hub looks at every one at once; a command is
filled in the spoke's next block, at the price of the moment it came. The price stands still
while the clocks wait for these blocks. So between a print and its fill the price moves for
exactly its age plus the command's delay, and no correction is needed (rule T10).
"""

from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import msgspec
import numpy as np

from hub.node import Hub
from lab import reading, ways, world
from lab.scenario import Scenario
from lab.theory import paths
from lab.theory.plan import Case
from lab.world import World
from markets.feed import Feed, FeedPolicy
from markets.market import Market
from markets.price_path import PricePath, join, to_usd6
from markets.traders import Intent, Traders, account_name
from messaging.drivers.virtual import VirtualDriver
from messaging.endpoint import Endpoint
from messaging.envelope import Envelope
from messaging.messages import ClosureAcknowledged, Family
from messaging.network import LinkKey, LinkPolicy, Network
from messaging.units import (
    HUB,
    MARKET,
    ORACLE,
    SECOND_US,
    TRADERS,
    USD,
    Asset,
    Height,
    Micros,
    NodeId,
    Ppm,
    ReservationId,
    Usd6,
)

ASSET, SPOKE, VENUE = Asset("BTC"), NodeId("base"), NodeId("venue")
OPENED_USD = 10_000.0  # price at which the position is opened: prices have ten digits
ENDLESS_S = 1e9
BLOCK_US = 1_000  # of the spoke
PER_GAP = 2  # hub blocks in the mean time between Poisson prints
IDLE_BLOCKS = 16


class Ended(NamedTuple):
    """What became of one path.

    Attributes:
        triggered: whether the hub has liquidated.
        bad_debt: by the hub's books, a share of notional at the trigger price.
        events: that the nodes have handled.
    """

    triggered: bool
    bad_debt: float
    events: int


def results(case: Case) -> Iterator[Ended]:
    """Yield what becomes of every path.

    Raises:
        InputRefused: a price leaves the range that prices have.
    """
    scenario = scenario_of(case)
    for number in range(case.plan.paths):
        built, until_us = build(case, scenario, number)
        yield _run(case, built, until_us)


def _run(case: Case, built: World, until_us: Micros) -> Ended:
    driver = VirtualDriver(built.endpoints, built.network, until_us=until_us)
    events = _play(built.hub, driver)
    account = built.hub.state.accounts[0]
    if not account.liquidations:
        return Ended(False, 0.0, events)
    assert over(built.hub), "a liquidation that never ends"
    bad_usd = built.hub.state.ledger.bad_debt_usd6 / USD
    return Ended(True, bad_usd / case.position.trigger(OPENED_USD), events)


def _play(hub: Hub, driver: VirtualDriver) -> int:
    events = 0
    for record in driver.run():
        events += 1
        if record.node == HUB and over(hub):
            break
    return events


def over(hub: Hub) -> bool:
    """Tell whether the position was liquidated, its outcome settled, any shortfall written off."""
    account = hub.state.accounts[0]
    if not account.liquidations or account.commands or not account.flat:
        return False
    return account.closed_out or hub.state.ledger.cash_usd6(account.id) >= 0


def build(case: Case, scenario: Scenario, number: int) -> tuple[World, Micros]:
    """Return the world of path `number`, and when it ends."""
    seed = (case.plan.seed << 32) | number
    scenario = msgspec.structs.replace(scenario, seed=seed)
    links = _links(scenario)
    grant_us, command_us = _delays(seed, links)
    age_us = round(case.age_s * SECOND_US)
    path = paths.draw(case, seed, case.age_s + command_us / SECOND_US)

    block_us = round(scenario.hub.block_s * SECOND_US)
    looks_us = _looks(path.print_s, block_us)
    opened_us = age_us + BLOCK_US
    mark_us = max(opened_us + grant_us + 10 * BLOCK_US, looks_us[-1] // 4)
    first_us = -(-(mark_us + 10 * BLOCK_US + age_us) // block_us) * block_us
    looks_us = [first_us + look_us for look_us in looks_us]
    prints_us = [look_us - 1 - age_us for look_us in looks_us]
    fills_us = [look_us + command_us for look_us in looks_us]
    until_us = Micros(fills_us[-1] + 2 * block_us + SECOND_US)

    reporting = msgspec.structs.replace(scenario.reporting, watermark_s=mark_us / SECOND_US)
    scenario = msgspec.structs.replace(scenario, reporting=reporting)
    prints = _prices(case, OPENED_USD, prints_us, path.printed)
    # What opens pays half a spread too; from this price it opens at the other.
    before_usd = OPENED_USD / (1 + case.position.side * case.position.fee)
    fills = _prices(case, before_usd, fills_us, path.filled)
    outside = _outside(case, prints, fills, Micros(opened_us))
    collateral_usd6 = Usd6(round(OPENED_USD * USD / case.position.leverage))
    deposits = ((account_name(0), collateral_usd6),)
    return world.assemble(scenario, outside, links, fills, deposits, world.NOBODY), until_us


def _looks(print_s: np.ndarray[Any, np.dtype[np.float64]], block_us: int) -> list[int]:
    """Return at which block the hub looks at each print: the next one that is its own."""
    looks_us, before_us = [], 0
    for at_s in print_s.tolist():
        before_us = max(-(-round(at_s * SECOND_US) // block_us) * block_us, before_us + block_us)
        looks_us.append(before_us)
    return looks_us


def _delays(seed: int, links: dict[LinkKey, LinkPolicy]) -> tuple[int, int]:
    """Return how long the first grant and the first command will be under way.

    Dice are a function of seed and message number, so a network can be asked beforehand.
    """
    network, word = Network(seed, links), ClosureAcknowledged(rid=ReservationId(bytes(16)))
    zero, at_us = Height(0), Micros(0)
    grant, command = (
        network.arrivals(Envelope(HUB, SPOKE, family, 1, 0, at_us, zero, zero, word), at_us)[0]
        for family in (Family.RESERVATION, Family.LIQUIDATION)
    )
    return grant, command


def _prices(
    case: Case, opened_usd: float, times_us: list[int], logs: np.ndarray[Any, Any]
) -> PricePath:
    trigger = np.log(case.position.trigger(OPENED_USD))
    prices = to_usd6(ASSET, np.concatenate(([np.log(opened_usd)], trigger + logs)))
    times = np.array([0, *times_us], dtype=np.int64)
    return join(times, {ASSET: prices}, label="theory", stylised=False, source="simulated")


def _outside(
    case: Case, prints: PricePath, fills: PricePath, opened_us: Micros
) -> tuple[Endpoint, ...]:
    """Return the world outside. The venue's price moves for the fills alone."""
    feed = FeedPolicy(asset=ASSET, heartbeat_us=Micros(1), deviation_ppm=Ppm(1))
    one_unit_usd6 = case.position.side * fills.prices_usd6[0][0]
    opening = Intent(opened_us, 0, 0, 0, one_unit_usd6, 0)
    return (
        Endpoint(Market(MARKET, prints, (ORACLE,)), {}),
        Endpoint(Market(VENUE, fills, (SPOKE, TRADERS)), {}),
        Endpoint(Feed(ORACLE, HUB, [feed]), {}),
        Endpoint(Traders(TRADERS, [opening], (SPOKE,), (ASSET,)), {}),
    )


def _links(scenario: Scenario) -> dict[LinkKey, LinkPolicy]:
    """Return the ways: the hub's take the latency, a spoke's reports no time."""
    links = ways.links(scenario, world.lanes_of(scenario))
    at_once: dict[LinkKey, LinkPolicy] = {
        (SPOKE, HUB): ways.AT_ONCE,
        (VENUE, SPOKE): ways.AT_ONCE,
        (VENUE, TRADERS): ways.AT_ONCE,
    }
    return links | at_once


def scenario_of(case: Case) -> Scenario:
    """Return the knobs: nothing but margin, latency and the half spread costs anything.

    A liquidation closes all at once. Margin is `maintenance` at any age (buffer `none`), and
    gains hardly fade. Channels have nothing to ask again.
    """
    gap_s = case.oracle.gap_s
    block_s = gap_s / PER_GAP if case.oracle.random else gap_s
    slowest_s = case.age_s + (case.delay.fixed_years + case.delay.mean_years) * 31_536_000
    spoke = {
        "name": SPOKE,
        "chain": "base",
        "block_s": BLOCK_US / SECOND_US,
        "safe_after_s": 0.0,
        "final_after_s": 0.0,
        "trust": "bridge",
        "zone_cap_usd": 1e12,
    }
    tables: dict[str, Any] = {
        "title": "one position",
        "latency": msgspec.to_builtins(case.latency),
        "buffer": {"kind": "none"},
        "prices": {
            "kind": "gbm",
            "assets": {ASSET: {"price_usd": OPENED_USD, "volatility_per_sqrt_year": 0.0}},
        },
        "assets": [_asset(case)],
        "spokes": [spoke],
        "hub": {
            "block_s": max(0.001, block_s or slowest_s / IDLE_BLOCKS),
            "look_s": ENDLESS_S,
            "insurance_usd": 1.0,
            "clock_skew_s": 0.0,
            "gain_age_max_s": ENDLESS_S,
            "reservation_max_usd": 1e12,
        },
        "liquidation": {
            "call_ppm": 1_000_000,
            "restore_ppm": 1_000_000,
            "target_extra_ppm": 1_000_000,
            "cost_ppm": case.half_spread_ppm + 1,
            "dust_usd": ENDLESS_S,
            "command_ttl_s": ENDLESS_S,
        },
        "reservation": {
            "ttl_s": ENDLESS_S,
            "headroom_ppm": 0,
            "dust_usd": 1.0,
            "patience_s": ENDLESS_S,
            "renewals_max": 0,
        },
        "reporting": {
            "digest_s": 0.0,
            "funding_h": 24 * 366.0,
            "liquidation_slice_s": 1.0,
            "tend_s": ENDLESS_S,
            "ack_after_s": ENDLESS_S,
        },
        "oracle": {"delay": {"kind": "constant", "value_s": case.age_s}},
        "traders": {"accounts": 1},
    }
    return reading.check(tables, directory=FilePath())


def _asset(case: Case) -> dict[str, Any]:
    """Return the perpetual: one price for any size, half a spread, no fee."""
    return {
        "name": ASSET,
        "initial_margin_ppm": case.maintenance_ppm + 1,
        "maintenance_margin_ppm": case.maintenance_ppm,
        "jump_ppm": 0,
        "depth_usd": 1e12,
        "depth_usd_per_s": 1e12,
        "participation_ppm": 1_000_000,
        "half_spread_ppm": case.half_spread_ppm,
        "fee_ppm": 0,
        "liquidation_fee_ppm": 0,
        "funding_ppm": 0,
    }
