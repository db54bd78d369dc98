"""The composition root: scenario in, nodes and links out. The only module that makes them."""

from typing import NamedTuple

from hub.node import Hub
from lab import policies, reading, ways
from lab.amounts import micros
from lab.scenario import Scenario
from lab.ways import Lane
from markets import prices, traders
from markets.feed import Feed
from markets.market import Market
from markets.price_path import PricePath
from markets.traders import Traders
from messaging.drivers.virtual import VirtualDriver
from messaging.endpoint import Endpoint
from messaging.errors import InputRefused
from messaging.network import Network
from messaging.units import HUB, MARKET, ONE, ORACLE, TRADERS, USD, AccountId, NodeId, Usd6
from spokes.node import Spoke


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
    lanes = tuple(ways.lane(scenario, spoke) for spoke in scenario.spokes)
    for spoke, one in zip(scenario.spokes, lanes, strict=True):
        ways.check_lifetimes(scenario, spoke, one)
    path = prices.path(
        scenario.prices,
        assets,
        duration_us=duration_us,
        tick_us=micros(scenario.tick_s),
        seed=scenario.seed,
    )
    policy = policies.trader_policy(scenario)
    deposits = tuple(
        (traders.account_name(number), traders.collateral_usd6(policy, scenario.seed, number))
        for number in range(policy.accounts)
    )
    _check_sizes(scenario, path, max(usd6 for _, usd6 in deposits))
    intents = traders.plan(
        policy, scenario.seed, spokes=len(names), assets=len(assets), duration_us=duration_us
    )
    hub = Hub(policies.hub_policy(scenario, lanes), deposits)
    spokes = tuple(Spoke(policies.spoke_policy(scenario, spoke)) for spoke in scenario.spokes)
    up = {
        name: ways.channel_policy(scenario, one.up, one.down)
        for name, one in zip(names, lanes, strict=True)
    }
    endpoints = (
        Endpoint(Market(MARKET, path, (ORACLE, TRADERS, *names)), {}),
        Endpoint(Feed(ORACLE, HUB, policies.feed_policies(scenario)), {}),
        Endpoint(Traders(TRADERS, intents, names, assets), {}),
        *(Endpoint(spoke, {HUB: up[spoke.name]}) for spoke in spokes),
        Endpoint(hub, up),
    )
    network = Network(scenario.seed, ways.links(scenario, lanes))
    return World(scenario, hub, spokes, endpoints, network, path, deposits, lanes)


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
