"""The composition root: scenario in, nodes and links out. The only module that makes them."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

from hub.node import Hub
from lab import policies, reading, ways
from lab.amounts import micros, usd6
from lab.scenario import Scenario, assets_of
from lab.ways import Lane
from markets import prices, traders
from markets.feed import Feed, FeedPolicy
from markets.market import Market, MovedMarket
from markets.price_path import PricePath
from markets.traders import Traders
from messaging.drivers.virtual import VirtualDriver
from messaging.endpoint import Endpoint
from messaging.errors import InputRefused
from messaging.network import LinkKey, LinkPolicy, Network
from messaging.units import HUB, MARKET, ONE, ORACLE, TRADERS, USD, AccountId, NodeId, Usd6
from spokes.node import Spoke
from spokes.state import SpokePolicy

Maker: TypeAlias = Callable[[SpokePolicy], Spoke]
_NodeT = TypeVar("_NodeT", Hub, Spoke)
FeedMaker: TypeAlias = Callable[[NodeId, NodeId, Sequence[FeedPolicy]], Feed]
NOBODY: Mapping[NodeId, Maker] = {}


class World(NamedTuple):
    """Everything a run needs, ready to start.

    Attributes:
        liars: spokes that need not keep to the rules; the checks trust none of their words.
    """

    scenario: Scenario
    hub: Hub
    spokes: tuple[Spoke, ...]
    endpoints: tuple[Endpoint, ...]
    network: Network
    path: PricePath
    deposits: tuple[tuple[AccountId, Usd6], ...]
    lanes: tuple[Lane, ...]
    liars: frozenset[NodeId] = frozenset()

    def driver(self) -> VirtualDriver:
        """Return a driver for the whole run."""
        until_us = reading.duration_us(self.scenario)
        return VirtualDriver(self.endpoints, self.network, until_us=until_us)


def build(
    scenario: Scenario, liars: Mapping[NodeId, Maker] = NOBODY, feed: FeedMaker = Feed
) -> World:
    """Make the nodes of a scenario and the links between them.

    Args:
        scenario: what to build.
        liars: what to put in the place of the spoke of that name.
        feed: what makes the oracle.

    Raises:
        InputRefused: no such latency preset, or prices that cannot be had.
    """
    lanes = lanes_of(scenario)
    path = path_of(scenario)
    deposits = deposits_of(scenario)
    _check_sizes(scenario, path, max(usd6 for _, usd6 in deposits))
    outside, links = outside_of(scenario, path, feed), ways.links(scenario, lanes)
    return assemble(scenario, outside, links, path, deposits, liars)


def assemble(
    scenario: Scenario,
    outside: tuple[Endpoint, ...],
    links: Mapping[LinkKey, LinkPolicy],
    path: PricePath,
    deposits: tuple[tuple[AccountId, Usd6], ...],
    liars: Mapping[NodeId, Maker],
) -> World:
    """Put hub and spokes of a scenario into a world outside of the caller's."""
    lanes = lanes_of(scenario)
    hub = hub_of(scenario, lanes, deposits)
    spokes = tuple(
        spoke_of(scenario, lanes, place, liars.get(name, Spoke))
        for place, name in enumerate(names_of(scenario))
    )
    return World(
        scenario,
        _node(hub, Hub),
        tuple(_node(spoke, Spoke) for spoke in spokes),
        (*outside, *spokes, hub),
        Network(scenario.seed, links),
        path,
        deposits,
        lanes,
        frozenset(liars),
    )


def _node(endpoint: Endpoint, kind: type[_NodeT]) -> _NodeT:
    assert isinstance(endpoint.node, kind)
    return endpoint.node


def names_of(scenario: Scenario) -> tuple[NodeId, ...]:
    """Return the spokes."""
    return tuple(NodeId(spoke.name) for spoke in scenario.spokes)


def lanes_of(scenario: Scenario) -> tuple[Lane, ...]:
    """Return the ways between hub and spokes.

    Raises:
        InputRefused: no such latency preset, or lifetimes too short for it.
    """
    lanes = tuple(ways.lane(scenario, spoke) for spoke in scenario.spokes)
    for spoke, one in zip(scenario.spokes, lanes, strict=True):
        ways.check_lifetimes(scenario, spoke, one)
    return lanes


def path_of(scenario: Scenario) -> PricePath:
    """Return the prices.

    Raises:
        InputRefused: they cannot be had.
    """
    return prices.path(
        scenario.prices,
        assets_of(scenario),
        duration_us=reading.duration_us(scenario),
        tick_us=micros(scenario.tick_s),
        seed=scenario.seed,
    )


def deposits_of(scenario: Scenario) -> tuple[tuple[AccountId, Usd6], ...]:
    """Return what each account brings: those that are drawn, then those that are named."""
    policy = policies.trader_policy(scenario)
    brought_usd6 = [
        traders.collateral_usd6(policy, scenario.seed, number) for number in range(policy.accounts)
    ]
    brought_usd6 += [usd6(one.collateral_usd) for one in scenario.traders.named]
    return tuple(
        (traders.account_name(number), amount) for number, amount in enumerate(brought_usd6)
    )


def hub_of(
    scenario: Scenario, lanes: tuple[Lane, ...], deposits: tuple[tuple[AccountId, Usd6], ...]
) -> Endpoint:
    """Return the hub behind its channels."""
    peers = {
        name: ways.channel_policy(scenario, one.up, one.down)
        for name, one in zip(names_of(scenario), lanes, strict=True)
    }
    return Endpoint(Hub(policies.hub_policy(scenario, lanes), deposits), peers)


def spoke_of(
    scenario: Scenario,
    lanes: tuple[Lane, ...],
    place: int,
    make: Maker = Spoke,
) -> Endpoint:
    """Return one spoke behind its channels."""
    policy = ways.channel_policy(scenario, lanes[place].up, lanes[place].down)
    spoke = make(policies.spoke_policy(scenario, scenario.spokes[place]))
    return Endpoint(spoke, {HUB: policy})


def outside_of(scenario: Scenario, path: PricePath, feed: FeedMaker = Feed) -> tuple[Endpoint, ...]:
    """Return the world outside: market, oracle, traders, whom nobody tells anything."""
    names, assets = names_of(scenario), assets_of(scenario)
    intents = traders.plan(
        policies.trader_policy(scenario),
        scenario.seed,
        spokes=len(names),
        assets=len(assets),
        duration_us=reading.duration_us(scenario),
    )
    intents += policies.named_intents(scenario)
    return (
        Endpoint(_market(scenario, path, names), {}),
        Endpoint(feed(ORACLE, HUB, policies.feed_policies(scenario)), {}),
        Endpoint(Traders(TRADERS, sorted(intents), names, assets), {}),
    )


def _market(scenario: Scenario, path: PricePath, names: tuple[NodeId, ...]) -> Market:
    """Return the market. Traders size their orders by the path, whatever fills do (C4)."""
    policy = policies.impact_policy(scenario)
    if policy is None:
        return Market(MARKET, path, (ORACLE, TRADERS, *names))
    return MovedMarket(MARKET, path, policy, feeds=(ORACLE,), unmoved=(TRADERS,), venues=names)


def _check_sizes(scenario: Scenario, path: PricePath, largest_usd6: int) -> None:
    """Refuse positions that no message could carry.

    Raises:
        InputRefused: collateral and leverage, or written orders, pass 62 bits at the lowest price.
    """
    lowest_usd6 = min(min(row) for row in path.prices_usd6)
    written = [
        sum(abs(order.notional_usd) for order in one.orders) for one in scenario.traders.named
    ]
    value_usd6 = max(largest_usd6 * scenario.traders.leverage_max, max(written, default=0.0) * USD)
    if value_usd6 * ONE / lowest_usd6 > 2**62 or value_usd6 > 2**52:
        expected = (
            "collateral * leverage_max, and orders of each named account, below $4 billion and "
            "4.6e10 units of every asset"
        )
        found = f"${value_usd6 / USD:,.0f} at a lowest price of ${lowest_usd6 / USD:,g}"
        raise InputRefused("traders", expected=expected, found=found)
