"""One row of the table: builds its world, runs it with all checks, reads the loss off the books."""

from collections.abc import Sequence
from functools import partial

import msgspec

from hub.zone import Zone
from lab import policies, running, ways, world
from lab.amounts import usd6
from lab.incident.people import Operators, Taker
from lab.incident.plan import (
    ASSET,
    FORGER,
    LENDERS,
    MINUTE_US,
    OTHERS,
    OTHERS_USD,
    SLICES,
    START_US,
    TAKER,
    TAKER_USD,
    Defences,
    Plan,
    at_us,
    scenario_of,
)
from lab.liars import Claim, Forger
from lab.world import World
from markets.feed import Feed
from markets.market import Market
from messaging.effects import Effect, Send
from messaging.endpoint import Endpoint
from messaging.messages import CreditUsed
from messaging.node import Event
from messaging.units import (
    HUB,
    MARKET,
    ONE,
    OPERATOR,
    ORACLE,
    TRADERS,
    AccountId,
    Asset,
    Micros,
    NodeId,
    Qty8,
    Usd6,
)


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """What one combination of defences loses, by the books at the end of its run.

    Attributes:
        cap, hold, halt_min: which defences stood.
        taken_usd6: credit used at honest spokes beyond what the taker had brought.
        forged_usd6: all that the forger claimed.
        counted_usd6: what of it became cash at the hub; held_usd6: what was held instead;
            refused_usd6: what was never booked.
        last_min: minute of the last use, None if nothing was used.
        stopped_by: the defences that kept the rest, none if there is no rest.
        digest, checked: of the run: its digest, and how many checks it passed.
        finding: the invariant that did not hold, if one did not.
    """

    cap: bool
    hold: bool
    halt_min: float | None
    taken_usd6: int
    forged_usd6: int
    counted_usd6: int
    held_usd6: int
    refused_usd6: int
    last_min: float | None
    stopped_by: tuple[str, ...]
    digest: str
    checked: int
    finding: str | None = None


def lose(plan: Plan, defences: Defences) -> Loss:
    """Run one combination of defences and return what was lost."""
    built, forger = build(plan, defences)
    uses_us: list[Micros] = []
    for endpoint in built.endpoints:
        if endpoint.name in LENDERS:
            endpoint.observers.append(partial(_note_uses, uses_us))
    outcome = running.run(built)
    zone = built.hub.state.zone_of[FORGER]
    taken_usd6 = _taken_usd6(built, forger)
    forged_usd6 = sum(forger.forged_usd6.values())
    counted_usd6 = zone.won_usd6
    refused_usd6 = forged_usd6 - counted_usd6 - zone.held_usd6
    lent = counted_usd6 - taken_usd6 < plan.slice_usd6
    result = outcome.story.result
    return Loss(
        cap=defences.cap,
        hold=defences.hold,
        halt_min=defences.halt_min,
        taken_usd6=taken_usd6,
        forged_usd6=forged_usd6,
        counted_usd6=counted_usd6,
        held_usd6=zone.held_usd6,
        refused_usd6=refused_usd6,
        last_min=round((uses_us[-1] - START_US) / MINUTE_US, 1) if uses_us else None,
        stopped_by=_stopped_by(zone, defences, halted=refused_usd6 > 0 or not lent),
        digest=result.digest,
        checked=result.invariants_checked,
        finding=None if outcome.finding is None else str(outcome.finding),
    )


def _note_uses(
    uses_us: list[Micros], now_us: Micros, event: Event, effects: Sequence[Effect]
) -> None:
    if any(type(effect) is Send and type(effect.message) is CreditUsed for effect in effects):
        uses_us.append(now_us)


def _taken_usd6(built: World, forger: Forger) -> int:
    """Return what the taker has used at honest spokes beyond what is his.

        taken = used - (cash + held - forged)                                  [usd6], not below 0

    At 100 % margin what is used is paid in full: it is as gone as a loan that nobody repays.
    Once the forged claim is struck out of the books, just this is missing from them.
    """
    hub = built.hub.state
    used_usd6 = sum(
        known.used_usd6
        for known in hub.reservations.values()
        if known.account == TAKER and known.spoke in LENDERS
    )
    booked = hub.accounts[hub.place_of[TAKER]].views[hub.zone_of[FORGER].place].settled
    his_usd6 = hub.ledger.cash_usd6(TAKER) + hub.held_usd6(TAKER) - booked.realised_usd6
    bought_usd6 = sum(
        held.cost_usd6
        for spoke in built.spokes
        if spoke.name in LENDERS
        for _, held in spoke.state.trader(TAKER).holdings
    )
    assert abs(bought_usd6 - used_usd6) < ONE, "hub and lenders differ about what was used"
    assert booked.realised_usd6 <= forger.forged_usd6.get(TAKER, 0)
    return max(0, used_usd6 - his_usd6)


def _stopped_by(zone: Zone, defences: Defences, *, halted: bool) -> tuple[str, ...]:
    """Name what kept the rest: a gain whose hold had run out was kept by the cap."""
    until_us = at_us(1e6 if defences.halt_min is None else defences.halt_min)
    found = {
        "cap": any(held.due_us <= until_us for held in zone.held),
        "hold": any(held.due_us > until_us for held in zone.held),
        "halt": halted,
    }
    return tuple(name for name, kept in found.items() if kept)


def build(plan: Plan, defences: Defences) -> tuple[World, Forger]:
    """Make the nodes of one row: those of any run, and the people of the incident."""
    scenario = scenario_of(plan, defences)
    path, names = world.path_of(scenario), world.names_of(scenario)
    deposits = (
        *((AccountId(f"other-{i}"), usd6(OTHERS_USD)) for i in range(OTHERS)),
        (TAKER, usd6(TAKER_USD)),
    )
    outside = (
        Endpoint(Market(MARKET, path, (ORACLE, *names)), {}),
        Endpoint(Feed(ORACLE, HUB, policies.feed_policies(scenario)), {}),
        Endpoint(_taker(plan, path.prices_usd6[0][0]), {}),
        Endpoint(Operators(OPERATOR, HUB, _halts(plan, defences, names)), {}),
    )
    links = ways.links(scenario, world.lanes_of(scenario)) | {(OPERATOR, HUB): ways.AT_ONCE}
    claims = [Claim(when_us, TAKER, amount) for when_us, amount in plan.claims]
    liars = {FORGER: partial(Forger, claims=claims)}
    built = world.assemble(scenario, outside, links, path, deposits, liars)
    forger = built.spokes[names.index(FORGER)]
    assert isinstance(forger, Forger)
    return built, forger


def _taker(plan: Plan, price_usd6: Usd6) -> Taker:
    every_us = Micros(round(plan.draw_min * MINUTE_US / SLICES))
    return Taker(
        TRADERS,
        TAKER,
        LENDERS,
        asset=Asset(ASSET),
        qty8=Qty8(plan.slice_usd6 * ONE // price_usd6),
        from_us=Micros(START_US + every_us),
        every_us=every_us,
    )


def _halts(
    plan: Plan, defences: Defences, names: tuple[NodeId, ...]
) -> dict[Micros, tuple[NodeId, ...]]:
    if defences.halt_min is None:
        return {}
    return {at_us(defences.halt_min): (FORGER,), at_us(plan.freeze_min): names}
