"""What one seed of the swarm runs: a random world, and which faults befall it how often.

Everything is drawn from the seed alone, each option from a stream of its own, so that switching
one off leaves the others as they are. docs/swarm.md lists the faults by number.
"""

import math
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from hub.adl import Adl
from hub.liquidation import Plan
from lab import reading
from lab.scenario import Scenario
from lab.swarm.draws import Draws
from messaging.units import YEAR_S, NodeId

HOUR_S = 3_600.0
RESENT_MAX = 8  # frames that a node with little room sends again at a time
FAULTS = {
    "loss": "F1", "repeat": "F1", "tail": "F1", "clog": "F1", "capacity": "F1",
    "cut": "F2", "one_way": "F2", "isolate": "F2", "jam": "F2", "swizzle": "F2",
    "old": "F3", "broken": "F3", "stray": "F3",
    "rewind": "F4", "truncate": "F4", "outage": "F4",
    "death": "F5", "pause": "F5", "crash_loop": "F5",
    "twin": "F5", "lost_commit": "F6", "backup": "F6", "amnesia": "F6",
    "skew": "F7", "halt": "F8", "reorg": "F8", "outlier": "F9", "stale": "F9",
    "forge": "F10", "spam": "F10", "leaked": "F10", "operator": "F11", "rotation": "F11",
    "burst": "F12", "last_unit": "F12", "tiny": "F13", "impatient": "F13",
}  # fmt: skip
KEYS = ("rotation", "leaked")  # not with amnesia: who is rebuilt knows first keys alone
SKEW_S = 120.0  # how far a clock is off at most; timers wait that long when it is put back
HOLDS_S = (0.0, 5.0, 60.0)  # of gains
GRACES_S = (0.0, 0.0, 20.0, 120.0)  # of a margin call
CRASHES = 0.3  # share of the seeds in which prices move by a tenth or more while there is load
FUNDS_USD = (0.0, 100.0, 2_000.0)  # of a spoke
REORGS_MAX, REORG_DEPTH_MAX = 12, 24  # of one spoke; blocks of one
MARKS_LOST = 0.5  # share of the marks whose blocks are lost, at most
ALL_AT_ONCE = 10  # one seed in so many has every fault on
LONGER = 5  # times as long as others runs one seed in ten: what waits for patience is late
BREAKERS = 0.3  # share of the seeds that have them
LIARS = 0.12  # share of the seeds in which a spoke lies


class Lie(StrEnum):
    """What a spoke does that lies; lab/swarm/lies.py."""

    TWO_FRAMES = "two_frames"  # under one number
    DIGEST = "digest"  # and keeps to the rules in all else
    REORG = "reorg"  # its chain loses what was final; it keeps to the rules in all else
    SILENCE = "silence"  # about losses, positions and time
    DENIAL = "denial"  # of every use
    USE = "use"  # of what it has given up
    CLAIM = "claim"  # of gains that nobody has made


LIES = (*Lie, Lie.DIGEST)  # it lies in most ways, so it is drawn more often


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """One seed's world and faults.

    Attributes:
        faults: name of each fault that is on -> how strong, from 0 to 1.
        liar: a spoke that lies, if any does; lie: how.
        way_s: mean time that a message takes between hub and spoke.
        safety_s: how long faults and load last, scenario time.
        real_signatures: Ed25519; else signer and digest in its place.
        audited: copies of the nodes are asked about INV8 and INV9, and journals gone through anew.
    """

    seed: int
    spokes: int
    accounts: int
    assets: int
    way_s: float
    block_s: float
    final_s: float
    watermark_s: float
    ttl_s: float
    actions_per_day: float
    volatility: float
    safety_s: float
    batch: int
    snapshot_events: int
    renewals_max: int
    real_signatures: bool
    audited: bool
    faults: dict[str, float]
    liar: NodeId | None = None
    lie: Lie = Lie.TWO_FRAMES


def draw(seed: int, minutes: float) -> Options:
    """Return what a seed runs, for about so many minutes of scenario time."""

    def stream(name: str) -> Draws:
        return Draws(seed, f"option/{name}")

    everything = stream("everything").chance(1 / ALL_AT_ONCE)
    faults = {
        name: round(stream(f"strength/{name}").uniform(0.05, 1.0), 3)
        for name in FAULTS
        if everything or stream(f"on/{name}").chance(0.35)
    }
    if "amnesia" in faults and faults.keys() & set(KEYS):
        for name in ("amnesia",) if stream("memory or keys").chance(0.5) else KEYS:
            faults.pop(name, None)
    way_s = round(stream("way").log_uniform(0.05, 6.0), 3)
    block_s = stream("block").choice([0.25, 1.0, 2.0, 12.0])
    final_s = round(stream("final").log_uniform(1.0, 60.0), 1)
    busy = "burst" in faults
    return Options(
        seed=seed,
        spokes=stream("spokes").whole(1, 3),
        accounts=stream("accounts").whole(1, 5) + 4 * busy,
        assets=stream("assets").whole(1, 2),
        way_s=way_s,
        block_s=block_s,
        final_s=final_s,
        watermark_s=stream("watermark").choice([6.0, 12.0, 24.0]),
        ttl_s=round(6 * way_s + 4 * block_s + 30 + stream("ttl").log_uniform(5.0, 120.0)),
        actions_per_day=1_000.0 if busy else stream("actions").choice([100.0, 300.0, 1_000.0]),
        volatility=round(stream("volatility").log_uniform(0.5, 30.0), 2),
        safety_s=minutes * 60.0 * (LONGER if stream("length").chance(0.1) else 1),
        batch=stream("batch").choice([1, 1, 3, 20, 100]),
        snapshot_events=stream("snapshot").choice([300, 1_000, 3_000]),
        renewals_max=stream("renewals").whole(0, 2),
        real_signatures=stream("signatures").chance(0.01),
        audited=stream("audited").chance(0.02),
        faults=faults,
        liar=NodeId("spoke-0") if stream("liar").chance(LIARS) else None,
        lie=stream("lie").choice(LIES),
    )


def scenario_of(options: Options) -> Scenario:
    """Return the world of these options; it ends long after the faults have."""
    halted = options.faults.get("halt", 0.0)
    draws, losses = Draws(options.seed, "world"), Draws(options.seed, "world/adl")
    spokes: list[dict[str, Any]] = []
    for number in range(options.spokes):
        spoke: dict[str, Any] = {
            "name": f"spoke-{number}",
            "chain": "base",
            "block_s": options.block_s,
            "safe_after_s": options.final_s / 2,
            "final_after_s": options.final_s,
            "trust": draws.choice(["safe", "final", "bridge"]),
            "zone_cap_usd": round(draws.log_uniform(5e3, 1e6)),
            "gain_hold_s": Draws(options.seed, f"world/hold/{number}").choice(HOLDS_S),
            "insurance_usd": losses.choice(FUNDS_USD),
        }
        if draws.chance(halted):
            from_h = draws.uniform(0.0, options.safety_s / HOUR_S)
            until_h = draws.uniform(from_h, options.safety_s / HOUR_S) + 0.001
            spoke["outages"] = [{"from_h": from_h, "until_h": until_h}]
        elif options.faults.get("reorg"):
            spoke["reorgs"] = _reorgs(options, number, spoke)
        spokes.append(spoke)
    names = ("BTC", "ETH")[: options.assets]
    tables: dict[str, Any] = {
        "title": f"swarm seed {options.seed}",
        "seed": options.seed,
        "duration_h": (options.safety_s + healing_s(options)) / HOUR_S,
        "tick_s": max(10.0, options.safety_s / 100),
        "latency": {"kind": "constant", "value_s": options.way_s},
        "prices": _prices(options, losses, names),
        "assets": [{"name": name, **_impact(options)} for name in names],
        "spokes": spokes,
        **_breakers(options),
        "reservation": {
            "ttl_s": options.ttl_s,
            "patience_s": options.ttl_s,
            "renewals_max": options.renewals_max,
        },
        "liquidation": {
            "command_ttl_s": options.ttl_s,
            "socialise": losses.chance(0.5),
            "adl": losses.choice(list(Adl)),
            **_waiting(options),
        },
        "reporting": {
            "watermark_s": options.watermark_s,
            "funding_h": 0.25,
            "digest_s": _digest_s(options),
            "tend_s": max(2.0, options.way_s),
            "ack_after_s": max(2.0, options.way_s),
        },
        "hub": {"block_s": draws.choice([1.0, 12.0]), "look_s": 60.0, "insurance_usd": 1_000.0},
        "oracle": {
            "heartbeat_s": 60.0,
            "delay": {"kind": "constant", "value_s": 1.0},
            "feeds": Draws(options.seed, "world/feeds").choice([1, 1, 3]),
        },
        "links": {"loss_ppm": 1},  # so that patience allows for loss
        "traders": {
            "accounts": options.accounts,
            "open_from_h": 0.0,
            "open_until_h": max(0.01, options.safety_s / HOUR_S / 2),
            "actions_per_day": options.actions_per_day,
            "leverage_min": 3.0,
            "leverage_max": 9.0,
        },
    }
    return reading.check(tables, directory=Path())


def _prices(options: Options, losses: Draws, names: Sequence[str]) -> dict[str, Any]:
    """Return how prices move: in some seeds so far that accounts go bankrupt."""
    volatility = options.volatility
    if losses.chance(CRASHES):
        share = losses.uniform(0.1, 0.4)
        volatility = max(volatility, min(100.0, share / math.sqrt(options.safety_s / YEAR_S)))
    assets = {
        name: {"price_usd": price_usd, "volatility_per_sqrt_year": volatility}
        for name, price_usd in zip(names, (60_000, 3_000), strict=False)
    }
    return {"kind": "gbm", "correlation": 0.5, "assets": assets}


def _breakers(options: Options) -> dict[str, Any]:
    """Return breakers that trip easily, in some seeds (B1)."""
    draws = Draws(options.seed, "world/breakers")
    if not draws.chance(BREAKERS):
        return {}
    table = {
        "grace_s": draws.log_uniform(1.0, 60.0),
        "off_mean_ppm": draws.whole(1_000, 100_000),
        "volatility_times": draws.log_uniform(1.0, 4.0),
        "won_ppm": round(draws.log_uniform(1, 500_000)),
        "cascade_ppm": round(draws.log_uniform(100, 700_000)),
        "clean_looks": draws.choice([1, 3, 10]),
    }
    return {"breakers": table}


def _impact(options: Options) -> dict[str, float]:
    """Return what a sale would move prices by, where breakers look at it (B6)."""
    if not _breakers(options):
        return {}
    impact = Draws(options.seed, "world/impact").choice([0.0, 1_000.0, 100_000.0])
    return {"impact_ppm_per_million_usd": impact}


def _waiting(options: Options) -> dict[str, Any]:
    """Return which positions a liquidation closes, and how long it waits (L15, L16)."""
    draws = Draws(options.seed, "world/plan")
    return {
        "plan": draws.choice(list(Plan)),
        "grace_s": draws.choice(GRACES_S),
        "grace_floor_ppm": draws.choice([500_000, 800_000, 950_000]),
    }


def _digest_s(options: Options) -> float:
    """Return how often spokes tell a digest; where some lie in it or people skip, they must."""
    drawn_s = Draws(options.seed, "world/digest").choice([0.0, 15.0, 40.0])
    lied = options.liar is not None and options.lie in (Lie.DIGEST, Lie.DENIAL)
    return drawn_s or 15.0 * (lied or "operator" in options.faults)


def _reorgs(options: Options, number: int, spoke: dict[str, Any]) -> list[dict[str, Any]]:
    """Return when a spoke loses blocks, and how many: none that it vouches for as final."""
    draws = Draws(options.seed, f"world/reorg/{number}")
    soft_s = {"final": options.final_s, "safe": options.final_s / 2}.get(spoke["trust"], 0.0)
    depth_max = min(REORG_DEPTH_MAX, int(soft_s / options.block_s))
    first_s = options.final_s + 5.0
    if depth_max < 1 or first_s >= options.safety_s:
        return []
    count = draws.whole(1, 1 + round(REORGS_MAX * options.faults["reorg"]))
    times_s = sorted({draws.uniform(first_s, options.safety_s) for _ in range(count)})
    lost = {at_s: draws.whole(1, depth_max) for at_s in times_s}
    lost |= _of_marks(options, number, first_s, depth_max)
    return [{"at_h": at_s / HOUR_S, "depth": lost[at_s]} for at_s in sorted(lost)]


def _of_marks(options: Options, number: int, first_s: float, depth_max: int) -> dict[float, int]:
    """Return when how many blocks are lost whose oldest is that of a mark: rights end there."""
    draws = Draws(options.seed, f"world/reorg/{number}/marks")
    every_s = max(options.watermark_s, options.block_s)
    lost: dict[float, int] = {}
    for count in range(int(options.safety_s / every_s)):
        depth = draws.whole(1, depth_max)
        at_s = options.block_s + count * every_s + draws.uniform(depth - 1, depth) * options.block_s
        hit = draws.chance(MARKS_LOST * options.faults["reorg"])
        if hit and first_s <= at_s <= options.safety_s:
            lost[at_s] = depth
    return lost


def healing_s(options: Options) -> float:
    """Return how long after the faults everything must have come to rest, scenario time.

    A life asked for in the last moment, renewed as often as can be, its expiry final and told,
    the hub's patience, rounds of resends that had grown sixteenfold by then, and as many as a node
    with little room needs for what has piled up.
    """
    life_s = options.ttl_s * (2 + options.renewals_max) + options.final_s
    patience_s = 2 * (2 * options.way_s + 2 * max(2.0, options.way_s))
    clock_s = SKEW_S * ("skew" in options.faults)
    mark_s = options.watermark_s + 2 * options.block_s
    rounds = 17 + _piled_max(options) / RESENT_MAX * ("tiny" in options.faults)
    return life_s + 4 * mark_s + rounds * patience_s + 2 * drain_s(options) + clock_s


def _piled_max(options: Options) -> float:
    """Return how many frames of one channel may wait when the faults end: all that were said.

    Each mark comes with a digest at most; an order asks for credit, uses it and gives it back.
    """
    orders_per_s = options.accounts * options.actions_per_day / (24 * HOUR_S)
    return options.safety_s * (2 / options.watermark_s + 3 * orders_per_s)


def drain_s(options: Options) -> float:
    """Return how long anything said may take to be heard, and that to be heard of."""
    return 30 * options.way_s + 6 * max(2.0, options.way_s) + 20.0
