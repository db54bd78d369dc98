"""A book of evenly spaced thresholds through all real nodes, and a price that is made to fall.

Each account is long one unit on one of the venues, and one rich account is short as many, opened
in the same block, so that opening moves no price. Nothing but the fall and what it brings about
does: no fee, no spread, no slippage, and hardly any latency.
"""

from pathlib import Path
from typing import Any

import numpy as np

from lab import reading, ways, world
from lab.policies import feed_policies, impact_policy
from lab.scenario import Scenario
from lab.world import World
from markets.feed import Feed
from markets.market import MovedMarket
from markets.price_path import PricePath, join
from markets.traders import Intent, Traders, account_name
from messaging.endpoint import Endpoint
from messaging.units import HUB, MARKET, ORACLE, TRADERS, USD, Asset, Micros, NodeId, Ppm, Usd6

BTC = Asset("BTC")
TOP_USD, SPACING_USD, SHOCK_USD, ACCOUNTS = 10_000.0, 0.2, 10.0, 600
MAINTENANCE_PPM = 50_000
OPEN_US, SHOCK_US = Micros(1_000_000), Micros(5_000_000)
LONG_S, MUCH_USD = 1e6, 1e9


def scenario(ratio: float, *, venues: int = 1, **changed: Any) -> Scenario:
    """Return the knobs for a reproduction number on one market of all venues.

    R = impact S^2 / spacing, for a unit sold moves the price by impact * S^2 dollars (B6).
    """
    name = [f"venue-{number}" for number in range(venues)]
    per_million = ratio * SPACING_USD / TOP_USD**2 * 1e12
    asset = {
        "name": BTC,
        "initial_margin_ppm": MAINTENANCE_PPM + 1,
        "maintenance_margin_ppm": MAINTENANCE_PPM,
        "jump_ppm": 0,
        "depth_usd": 1e12,
        "depth_usd_per_s": 1e12,
        "participation_ppm": 1_000_000,
        "half_spread_ppm": 0,
        "fee_ppm": 0,
        "liquidation_fee_ppm": 0,
        "funding_ppm": 0,
        "impact_ppm_per_million_usd": per_million,
    }
    tables: dict[str, Any] = {
        "title": "evenly spaced thresholds",
        "duration_h": 30 / 3_600,
        "latency": {"kind": "constant", "value_s": 0.001},
        "buffer": {"kind": "none"},
        "prices": {
            "kind": "gbm",
            "assets": {BTC: {"price_usd": TOP_USD, "volatility_per_sqrt_year": 0.0}},
        },
        "assets": [asset],
        "spokes": [
            {
                "name": one,
                "chain": "base",
                "block_s": 0.05,
                "safe_after_s": 0.0,
                "final_after_s": 0.0,
                "trust": "bridge",
                "zone_cap_usd": 1e12,
            }
            for one in name
        ],
        "hub": {
            "block_s": 0.1,
            "look_s": LONG_S,
            "gain_age_max_s": LONG_S,
            "reservation_max_usd": 1e12,
        },
        "liquidation": {  # all of a position goes: what is left would not pay for more
            "call_ppm": 1_000_000,
            "restore_ppm": 1_000_000,
            "target_extra_ppm": 1_000_000,
            "cost_ppm": MAINTENANCE_PPM + 1,
            "command_ttl_s": LONG_S,
        },
        "reservation": {"ttl_s": LONG_S, "headroom_ppm": 0, "dust_usd": 1.0, "patience_s": LONG_S},
        "reporting": {
            "watermark_s": 10.0,
            "digest_s": 0.0,
            "funding_h": 24.0,
            "liquidation_slice_s": 0.05,
        },
        "oracle": {"delay": {"kind": "constant", "value_s": 0.001}, "deviation_ppm": 1},
        "traders": {"accounts": 1, "open_until_h": 0.001},
        "breakers": {"volatility_times": 1_000.0},
        "impact": {},
    }
    for key, value in changed.items():
        tables[key] = tables.get(key, {}) | value
    return reading.check(tables, directory=Path())


def falling(made: Scenario, *, depth_ppm: int = 1_000_000) -> World:
    """Return the world; the path falls by the shock in one step, depth goes with it."""
    times = np.arange(0, reading.duration_us(made) + 1, SHOCK_US // 5, dtype=np.int64)
    fallen = times >= SHOCK_US
    prices = [Usd6(round((TOP_USD - fall) * USD)) for fall in fallen * SHOCK_USD]
    depth = [Ppm(depth_ppm if late else 1_000_000) for late in fallen.tolist()]
    path = join(times, {BTC: prices}, depth_ppm=depth, label="", stylised=False, source="step")
    names = world.names_of(made)
    deposits = [
        (account_name(place), _cash_usd6(TOP_USD - SPACING_USD * (place + 0.5)))
        for place in range(ACCOUNTS)
    ]
    deposits += [
        (account_name(ACCOUNTS + place), Usd6(round(MUCH_USD * USD))) for place in range(len(names))
    ]
    links = ways.links(made, world.lanes_of(made))
    return world.assemble(
        made, _outside(made, path, names), links, path, tuple(deposits), world.NOBODY
    )


def _cash_usd6(trigger_usd: float) -> Usd6:
    """Return what lets one unit long come to maintenance at a price (T1)."""
    return Usd6(round((TOP_USD - (1 - MAINTENANCE_PPM / 1e6) * trigger_usd) * USD))


def _outside(made: Scenario, path: PricePath, names: tuple[NodeId, ...]) -> tuple[Endpoint, ...]:
    policy = impact_policy(made)
    assert policy is not None
    unit_usd6, venues = round(TOP_USD * USD), len(names)
    intents = [
        Intent(OPEN_US, place, place % venues, 0, unit_usd6, 0) for place in range(ACCOUNTS)
    ] + [
        Intent(OPEN_US, ACCOUNTS + place, place, 0, -unit_usd6 * (ACCOUNTS // venues), 0)
        for place in range(venues)
    ]
    market = MovedMarket(MARKET, path, policy, feeds=(ORACLE,), unmoved=(TRADERS,), venues=names)
    return (
        Endpoint(market, {}),
        Endpoint(Feed(ORACLE, HUB, feed_policies(made)), {}),
        Endpoint(Traders(TRADERS, intents, names, (BTC,)), {}),
    )
