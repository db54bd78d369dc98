"""What the hub makes of spokes that lie: a halt with its reason, or a loss within the cap (P2)."""

from functools import partial
from pathlib import Path

import pytest

from hub.ledger import clearing
from lab import reading, running
from lab.liars import Afterthought, Bent, Claim, Denier, Forger, Withholder
from lab.running import Outcome
from lab.world import FeedMaker, Maker, World, build
from markets.feed import Feed
from markets.traders import account_name
from messaging.messages import CloseReason, HaltReason, RejectReason
from messaging.units import HOUR_US, SECOND_US, USD

LIAR, HONEST = "base", "optimism"
CAP_USD = 60_000
MINUTE_US = 60 * SECOND_US


def world_with(
    make: Maker | None = None,
    *,
    feed: FeedMaker = Feed,
    digest_s: float = 0.0,
    dust_usd: float = 50.0,
) -> World:
    spokes = [
        {"name": name, "chain": name, "final_after_s": 60.0, "zone_cap_usd": CAP_USD}
        for name in (LIAR, HONEST)
    ]
    tables = {
        "title": "a liar among two",
        "duration_h": 3.0,
        "latency": {"kind": "constant", "value_s": 5.0},
        "prices": {
            "kind": "gbm",
            "assets": {"ETH": {"price_usd": 3_000.0, "volatility_per_sqrt_year": 0.5}},
        },
        "assets": [{"name": "ETH"}],
        "spokes": spokes,
        "reporting": {"digest_s": digest_s},
        "reservation": {
            "ttl_s": 600.0,
            "patience_s": 600.0,
            "renewals_max": 0,
            "dust_usd": dust_usd,
        },
        "liquidation": {"command_ttl_s": 600.0},
        "traders": {"accounts": 12, "open_until_h": 1.0, "actions_per_day": 200.0},
    }
    return build(reading.check(tables, directory=Path()), {LIAR: make} if make else {}, feed)


def run(world: World) -> Outcome:
    """Run it; nothing that is checked may break, for only the liar is excused."""
    outcome = running.run(world)
    assert outcome.finding is None
    return outcome


def halted(world: World) -> tuple[HaltReason | None, HaltReason | None]:
    zones = world.hub.state.zone_of
    return zones[LIAR].halted, zones[HONEST].halted


def test_without_a_lie_nobody_is_halted() -> None:
    world = world_with()
    run(world)

    assert halted(world) == (None, None)


@pytest.mark.parametrize(
    ("reason", "after_s", "found"),
    [
        (CloseReason.DONE, 1, HaltReason.USED_AFTER_CLOSE),
        (CloseReason.DONE, 600, HaltReason.USED_AFTER_CLOSE),
        (CloseReason.EXPIRED, 1, HaltReason.USED_LATE),  # before a final watermark
        (CloseReason.EXPIRED, 600, HaltReason.BROKEN_CLAIM),  # which says there is no such use
    ],
)
def test_a_use_of_what_was_given_up_halts_the_spoke(
    reason: CloseReason, after_s: int, found: HaltReason
) -> None:
    make = partial(Afterthought, reason=reason, after_us=after_s * SECOND_US)
    world = world_with(make, dust_usd=1_000.0 if reason is CloseReason.DONE else 50.0)
    run(world)

    assert halted(world) == (found, None)


def test_what_a_liar_is_caught_at_counts_as_used() -> None:
    """The larger figure is booked, and nothing is released from then on (P35, P65)."""
    make = partial(Afterthought, reason=CloseReason.EXPIRED, after_us=SECOND_US)
    world = world_with(make)
    run(world)
    state = world.hub.state
    caught = [known for known in state.reservations.values() if known.spoke == LIAR and known.open]

    assert any(known.used_usd6 == known.amount_usd6 for known in caught)
    assert state.zone_of[LIAR].encumbered_usd6 >= sum(known.amount_usd6 for known in caught)


def test_a_spoke_that_tells_nothing_keeps_what_it_holds_and_gets_no_more() -> None:
    """The hub cannot know that it withholds; silence frees nothing, and ends its credit (P39)."""
    since_us = HOUR_US // 2
    world = world_with(partial(Withholder, since_us=since_us))
    run(world)
    zone = world.hub.state.zone_of[LIAR]
    asked = [known for known in world.hub.state.reservations.values() if known.spoke == LIAR]
    answers = [getattr(known.answer, "reason", None) for known in asked]

    assert halted(world) == (None, None)
    assert zone.overdue
    assert answers[-1] is RejectReason.SPOKE_OVERDUE
    assert 0 < zone.exposure_usd6 <= CAP_USD * USD
    assert zone.state_us <= since_us + 10 * SECOND_US  # its age only grows, and margins with it


def test_a_spoke_that_denies_every_use_costs_the_hub_nothing() -> None:
    """Not to be found without digests (P2); what it denies, its own side has paid."""
    world = world_with(Denier)
    run(world)
    state = world.hub.state
    used_usd6 = sum(
        abs(held.cost_usd6)
        for trader in world.spokes[0].state.traders.values()
        for _, held in trader.holdings
    )

    assert used_usd6 > 0
    assert halted(world) == (None, None)
    assert state.ledger.balances[clearing(LIAR)] == 0
    assert state.zone_of[LIAR].exposure_usd6 <= CAP_USD * USD


def test_digests_find_a_denial_that_forgets_them() -> None:
    world = world_with(Denier, digest_s=60.0)
    run(world)

    assert world.hub.state.zone_of[LIAR].cut.unequal > 0


def test_forged_gains_count_up_to_the_cap_and_no_further() -> None:
    name = account_name(0)
    claims = [Claim(minute * MINUTE_US, name, 50_000 * USD) for minute in (30, 40, 50)]
    world = world_with(partial(Forger, claims=claims))
    run(world)
    ledger, zone = world.hub.state.ledger, world.hub.state.zone_of[LIAR]

    assert halted(world) == (None, None)  # a consistent lie is not found (P2)
    assert -ledger.balances[clearing(LIAR)] - zone.held_usd6 <= CAP_USD * USD
    assert ledger.held_usd6(LIAR, name) > 0


def bent(factor_ppm: int | None) -> World:
    """Return a world whose oracle lies for the second of three hours."""
    return world_with(
        feed=partial(Bent, from_us=HOUR_US, until_us=2 * HOUR_US, factor_ppm=factor_ppm)
    )


@pytest.mark.parametrize("factor_ppm", [None, 500_000, 900_000, 1_100_000, 2_000_000])
def test_a_lying_oracle_breaks_no_book_and_makes_no_credit(factor_ppm: int | None) -> None:
    """Credit is capped by cash, whatever a print says (M6); every grant is checked (INV1)."""
    world = bent(factor_ppm)
    outcome = run(world)
    state = world.hub.state

    assert halted(world) == (None, None)  # a price is an input: nothing contradicts it
    assert outcome.story.result.reservations.granted > 0
    for account in state.accounts:
        cash_usd6 = state.ledger.cash_usd6(account.id)
        assert state.free_usd6(account, state.conditions(3 * HOUR_US)) <= cash_usd6


def test_a_print_cut_in_half_liquidates_who_is_sound() -> None:
    """What a manipulated price does cost; nothing here stands against it."""
    honest, cut = world_with(), bent(500_000)

    assert run(cut).story.result.liquidations > run(honest).story.result.liquidations
