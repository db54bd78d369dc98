"""Reorganisations at every event of a run: does the hub know afterwards what it should?

    python -m benchmarks.reorgs [--hours H] [--stride N]

A run is recorded. Then, behind each of its events, a spoke loses 1 to 6 blocks; the hub's ledger
and views must be those of a hub that never saw what these blocks held. Then the frames are
told again, and the hub must be where it would be had nothing been lost.
"""

import argparse
import pickle
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hub.ledger import available, reserved
from hub.node import Hub
from hub.state import HubState
from hub.zone import Zone
from lab import reading
from lab.world import build
from messaging.effects import Effect
from messaging.envelope import Envelope
from messaging.messages import (
    CHANNEL_FAMILIES,
    ChainReorganised,
    CreditUsed,
    Family,
    LiquidationDone,
    ReservationClosed,
    ReservationRequested,
    StateReported,
)
from messaging.node import Event, TimerFired
from messaging.units import HUB, INT_MAX, Height, Micros, NodeId, ReservationId

DEPTHS = range(1, 7)
BLOCK_S, FINAL_S = 12.0, 180.0
KINDS = (StateReported, CreditUsed, ReservationClosed, ReservationRequested, LiquidationDone)


class Heard(NamedTuple):
    """One event of the hub, frames in the order of their channels."""

    at_us: Micros
    event: Event


class Result(NamedTuple):
    """What was tried.

    Attributes:
        events: of the recorded run, at the hub.
        reorgs: how many reorganisations there were.
        deeper, apart: left out, for a block was final, or for the two hubs had meanwhile
            answered another spoke otherwise, one knowing of the lost blocks.
        lost: by kind of message, how many frames were taken back in all.
        wall_s: how long it took.
    """

    events: int
    reorgs: int
    deeper: int
    apart: int
    lost: dict[str, int]
    wall_s: float


def recorded(hours: float, seed: int) -> tuple[bytes, list[Heard]]:
    """Return a hub as it starts, and all it hears in a run with fills, closes, liquidations."""
    tables: dict[str, Any] = {
        "title": "reorganisations",
        "seed": seed,
        "duration_h": hours,
        "tick_s": 30.0,
        "latency": "constant:5s",
        "prices": {
            "kind": "gbm",
            "assets": {"BTC": {"price_usd": 60_000, "volatility_per_sqrt_year": 60.0}},
        },
        "assets": [{"name": "BTC"}],
        "spokes": [
            {"name": name, "chain": "base", "block_s": BLOCK_S, "final_after_s": FINAL_S}
            for name in ("one", "two")
        ],
        "reporting": {"watermark_s": BLOCK_S, "digest_s": 36.0, "funding_h": 0.1},
        "reservation": {"ttl_s": 600.0, "patience_s": 600.0},
        "traders": {
            "accounts": 10,
            "open_until_h": hours / 2,
            "actions_per_day": 900.0,
            "leverage_min": 7.0,
        },
    }
    world = build(reading.check(tables, directory=Path()))
    start = pickle.dumps(world.hub, protocol=5)
    heard: list[Heard] = []

    def note(now_us: Micros, event: Event, effects: Sequence[Effect]) -> None:
        heard.append(Heard(now_us, event))

    endpoint = next(one for one in world.endpoints if one.name == HUB)
    endpoint.observers.append(note)
    for _ in world.driver().run():
        pass
    return start, heard


def try_all(hours: float, seed: int = 1, stride: int = 1) -> Result:
    """Try every depth behind every `stride`-th event from a spoke.

    Raises:
        AssertionError: the hub differs from one that never saw the lost frames.
    """
    began_s = time.perf_counter()
    start, heard = recorded(hours, seed)
    hub: Hub = pickle.loads(start)
    before: list[bytes] = []  # the hub before each event
    lost = dict.fromkeys((kind.__name__ for kind in KINDS), 0)
    reorgs = deeper = apart = 0
    for place, (at_us, event) in enumerate(heard):
        before.append(pickle.dumps(hub, protocol=5))
        if place >= 2_000:
            before[place - 2_000] = b""  # far older than six blocks
        hub.handle(at_us, event)
        if type(event) is not Envelope or not event.height or place % stride:
            continue
        for depth in DEPTHS:
            fork = Height(event.height - depth)
            if fork < event.final_height:
                deeper += 1
                continue
            frames = _one(before, heard[: place + 1], event.sender, fork)
            reorgs += frames is not None
            apart += frames is None
            for frame in frames or ():
                kind = type(frame.message).__name__
                if kind in lost:
                    lost[kind] += 1
    return Result(len(heard), reorgs, deeper, apart, lost, time.perf_counter() - began_s)


def _one(
    before: Sequence[bytes], heard: Sequence[Heard], spoke: NodeId, fork: Height
) -> list[Envelope] | None:
    """Lose the blocks above `fork`; return the frames that told of them, None if left out."""
    first = len(heard)
    while first and not _is_older(heard[first - 1].event, spoke, fork):
        first -= 1
    recent = [one for one in heard[first:] if type(one.event) is not TimerFired]
    start = before[min(first, len(before) - 1)]
    saw, never, lucky = (pickle.loads(start) for _ in range(3))  # lucky: where nothing is lost
    known = set(saw.state.reservations)
    frames = []
    for at_us, event in recent:
        saw.handle(at_us, event)
        lucky.handle(at_us, event)
        if type(event) is Envelope and event.sender == spoke and event.height > fork:
            frames.append(event)
            never.handle(at_us, _hollow(event))
        else:
            never.handle(at_us, event)
    now_us = heard[-1].at_us
    for hub, height in ((saw, fork), (never, fork), (lucky, Height(INT_MAX))):
        for family in CHANNEL_FAMILIES:
            hub.handle(now_us, _word(spoke, family, height, Height(0)))
    asked = dict.fromkeys(rid for rid in saw.state.reservations if rid not in known)
    if any(_answered(saw, rid) != _answered(never, rid) for rid in asked if _answered(never, rid)):
        return None  # another spoke was refused or granted by what the lost blocks told: two pasts
    assert view(saw.state, asked) == view(never.state, asked)
    for frame in frames:  # told again, of new blocks
        saw.handle(now_us, frame)
    assert view(saw.state, {}) == view(lucky.state, {})
    return frames


def _answered(hub: Hub, rid: ReservationId) -> type | None:
    known = hub.state.reservations.get(rid)
    return None if known is None else type(known.answer)


def _word(spoke: NodeId, family: Family, fork: Height, final: Height) -> Envelope:
    word = ChainReorganised(fork_height=fork, old_height=fork, base_epoch=1)
    return Envelope(spoke, HUB, family, 1, 0, Micros(0), fork, final, word)


def _hollow(frame: Envelope) -> Envelope:
    """Return a frame that tells as much of finality and nothing else: that is never lost."""
    return _word(frame.sender, frame.family, Height(INT_MAX), frame.final_height)


def _is_older(event: Event, spoke: NodeId, fork: Height) -> bool:
    """Tell whether all before this event is older than the fork, on every channel.

    Channels have no order between them, so some blocks are allowed for.
    """
    if type(event) is not Envelope or event.sender != spoke:
        return False
    return event.family is Family.LIQUIDATION and event.height <= fork - 3


def view(hub: HubState, left_out: dict[ReservationId, None]) -> object:
    """Return all that a hub has of what spokes have told, and its ledger.

    `left_out` are reservations asked for meanwhile: the two hubs may have decided otherwise,
    for one knew of the lost blocks. What is held is held until the spoke, which asks again, has
    used it or lets it go.
    """
    balances = dict(hub.ledger.balances)
    for rid in left_out:
        known = hub.reservations.get(rid)
        if known is None:
            continue
        balances[available(known.account)] += known.encumbered_usd6
        balances[reserved(known.account)] -= known.encumbered_usd6
    reservations = {
        rid: (one.state, one.used_usd6, one.use_height, one.closed, one.close_height, one.carried)
        for rid, one in hub.reservations.items()
        if rid not in left_out
    }
    commands = [
        {command.ordered.liq_id: command.done for command in account.commands}
        for account in hub.accounts
    ]
    views = [account.views for account in hub.accounts]
    zones = [_zone_view(hub, zone, left_out) for zone in hub.zones]
    return balances, reservations, commands, views, zones


def _zone_view(hub: HubState, zone: Zone, left_out: dict[ReservationId, None]) -> object:
    extra_usd6 = sum(
        hub.reservations[rid].encumbered_usd6
        for rid in left_out
        if rid in hub.reservations and hub.reservations[rid].spoke == zone.name
    )
    return (
        zone.encumbered_usd6 - extra_usd6,
        zone.carried_usd6,
        [zone.carried_of.get(account.place, 0) for account in hub.accounts],
        [zone.last_time_us.get(family, 0) for family in CHANNEL_FAMILIES],
        (zone.heard_us, zone.state_us, zone.final_us, zone.covered),
        (zone.marks, zone.closes, zone.covers, zone.waiting, zone.uses, zone.ended, zone.held),
        (sorted(zone.uncarried), zone.commands, zone.won_usd6, zone.halted),
    )


def main() -> None:
    """Print what was tried."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    result = try_all(args.hours, args.seed, args.stride)
    print(
        f"{result.events:,} events at the hub, {result.reorgs:,} reorganisations of 1 to 6 blocks"
    )
    print(f"left out: {result.deeper:,} of final blocks, {result.apart:,} with two pasts")
    print(f"differences: 0; {result.wall_s:.1f} s")
    print("taken back: " + ", ".join(f"{kind} {count:,}" for kind, count in result.lost.items()))


if __name__ == "__main__":
    main()
