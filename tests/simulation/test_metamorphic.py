"""MR1: the same seed with every delay scaled ends with the same books (docs/determinism.md).

It holds where nothing but messages takes time to matter: links without faults, prices that stand
still, no funding, enough credit for every order, and orders that only open. What follows shows
that it holds there at any scale, that each condition is needed, and that a hub which decides by
its clock or by what came first on two channels is seen.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hub.credit
import hub.positions
from hub import ledger, reservation
from hub.state import HubState
from hub.zone import Zone
from lab import reading, running
from lab.world import build
from messaging.effects import Effect, Send
from messaging.messages import Family, RejectReason, ReservationRequested, StateReported
from messaging.units import SECOND_US, USD, Height, Micros

WAY_S = 0.2  # median way of a message at scale 1
SPOKES = ("base", "optimism", "unichain")
TRADERS = {
    "accounts": 20,
    "open_until_h": 4.0,
    "leverage_min": 0.5,
    "leverage_max": 3.0,
    "hedged_ppm": 200_000,
    "actions_per_day": 0.0,  # neither adds nor cuts
}


def books(
    seed: int, scale: float, **changed: Any
) -> tuple[dict[str, int], dict[tuple[str, str], object]]:
    """Return the hub's ledger, and what every trader holds and has paid, at the end."""
    still = {"BTC": 60_000, "ETH": 3_000}
    tables: dict[str, Any] = {
        "title": "ways of another length",
        "seed": seed,
        "duration_h": 10.0,
        "tick_s": 600.0,
        "latency": {"kind": "lognormal", "median_s": WAY_S * scale, "sigma": 0.8},
        "buffer": {"kind": "none"},
        "prices": moving(0.0, still),
        "assets": [{"name": name, "funding_ppm": 0} for name in still],
        "spokes": [{"name": name, "chain": name} for name in SPOKES],
        "reservation": {"ttl_s": 3_600.0, "patience_s": 3_600.0},
        "traders": TRADERS,
    }
    world = build(reading.check(tables | changed, directory=Path()))
    outcome = running.run(world, checks=False)  # they follow the ledger, planted or not
    assert outcome.finding is None
    state = world.hub.state
    held: dict[tuple[str, str], object] = {
        (spoke.name, name): (sorted(trader.holdings), trader.realised_usd6, trader.fees_usd6)
        for spoke in world.spokes
        for name, trader in spoke.state.traders.items()
    }
    return state.ledger.balances, held


def moving(volatility: float, prices: dict[str, int]) -> dict[str, Any]:
    assets = {
        name: {"price_usd": price_usd, "volatility_per_sqrt_year": volatility}
        for name, price_usd in prices.items()
    }
    return {"kind": "gbm", "assets": assets}


@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), exponent=st.floats(0.0, 3.3))
def test_longer_ways_end_with_the_same_books(seed: int, exponent: float) -> None:
    """From a fifth of a second to seven minutes a message, medians; the slowest take ten times."""
    balances, held = books(seed, 1.0)
    assert (balances, held) == books(seed, 10.0**exponent)
    assert len(held) > 10
    assert balances[ledger.FEES] > 0
    assert not any(usd6 for book, usd6 in balances.items() if book.startswith("reserved/"))


WITHOUT: dict[str, dict[str, Any]] = {
    "prices stand still": {"prices": moving(0.8, {"BTC": 60_000, "ETH": 3_000})},
    "orders only open": {"traders": TRADERS | {"actions_per_day": 24.0}},
    "no funding": {
        "assets": [{"name": "BTC"}, {"name": "ETH"}],
        "reporting": {"funding_h": 1.0},
    },
    "enough credit": {
        "spokes": [{"name": name, "chain": name, "zone_cap_usd": 20_000.0} for name in SPOKES]
    },
}


@pytest.mark.parametrize("condition", WITHOUT)
def test_each_condition_is_needed(condition: str) -> None:
    changed = WITHOUT[condition]
    seeds = range(8)
    assert any(books(seed, 1, **changed)[1] != books(seed, 300, **changed)[1] for seed in seeds)


def stamped(requested: Any) -> Any:
    """Refuse by the hub's clock what seems to have been asked long ago."""

    def spoiled(
        state: HubState, zone: Zone, asked: ReservationRequested, now_us: Micros
    ) -> list[Effect]:
        if now_us - zone.heard_us > 20 * SECOND_US and asked.rid not in state.reservations:
            known = reservation.reject(asked, zone.name, RejectReason.TTL_INVALID)
            state.keep_reservation(known)
            return [Send(zone.name, Family.RESERVATION, known.answer)]
        effects: list[Effect] = requested(state, zone, asked, now_us)
        return effects

    return spoiled


def first_come(reported: Any) -> Any:
    """Charge for a position whose report overtakes the use of its credit on the other channel."""

    def spoiled(state: HubState, zone: Zone, report: StateReported, height: Height) -> list[Effect]:
        name = report.account
        if any(not state.reservations[rid].used_usd6 for rid in state.open_of.get(name, ())):
            state.ledger.post(((ledger.available(name), -USD), (ledger.FEES, USD)))
        effects: list[Effect] = reported(state, zone, report, height)
        return effects

    return spoiled


@pytest.mark.parametrize(
    ("where", "name", "spoil"),
    [(hub.credit, "requested", stamped), (hub.positions, "reported", first_come)],
    ids=["by its clock", "by what came first"],
)
def test_a_hub_that_minds_the_way_is_seen(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, spoil: Callable[[Any], Any]
) -> None:
    monkeypatch.setattr(where, name, spoil(getattr(where, name)))
    assert any(books(seed, 1.0) != books(seed, 100.0) for seed in range(3))
