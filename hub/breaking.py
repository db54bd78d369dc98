"""The hub's breakers, looked at once a block: what trips them, and whom that concerns.

Reads the hub's state and lets `hub.breakers` decide. Rules B1 to B6 of docs/breakers.md.
"""

from collections.abc import Sequence

from hub import breakers, credit
from hub.breakers import AssetSeen, Breaker, BreakerPolicy
from hub.oracle import off_ppm
from hub.state import HubState
from hub.zone import Zone
from messaging.breakers import BreakerSet, Cause, Level
from messaging.effects import Effect, Send
from messaging.messages import Family
from messaging.units import Micros


def look(hub: HubState, now_us: Micros) -> list[Effect]:
    """Look at every asset and zone; say what has changed to the spokes that it concerns.

    Not before all assets have a price, for until then there is no credit to stop.
    """
    policy = hub.policy.breakers
    if policy is None or not all(known.price_usd6 for known in hub.prints):
        return []
    effects: list[Effect] = []
    if any(policy.impacts_per_usd) and hub.is_look_due(now_us):
        _measure_cascades(hub, policy, now_us)
    for place, risk in enumerate(hub.policy.margin.assets):
        seen = _seen(hub, policy, place, now_us)
        effects += _note(hub, policy, risk.asset, breakers.of_asset(policy, seen), hub.zones)
    for zone in hub.zones:
        cause = breakers.of_zone(policy, zone.won_usd6, zone.policy.cap_usd6)
        effects += _note(hub, policy, zone.name, cause, (zone,))
    return effects


def _seen(hub: HubState, policy: BreakerPolicy, place: int, now_us: Micros) -> AssetSeen:
    known, estimate, oracle = hub.prints[place], hub.estimates[place], hub.policy.oracle
    mean_usd6 = hub.used[place].mean_usd6(policy.mean_us, now_us)
    return AssetSeen(
        age_us=max(0, now_us - known.observed_us),
        off_mean_ppm=off_ppm(known.price_usd6, mean_usd6),
        doubted=oracle is not None and bool(hub.feeds[place].doubts(oracle, place, known, now_us)),
        fast=estimate.fast,
        slow=estimate.slow,
        cascade_ppm=hub.cascade_ppm[place],
    )


def _measure_cascades(hub: HubState, policy: BreakerPolicy, now_us: Micros) -> None:
    """Note the reproduction number of each asset's liquidations (B6), in millionths."""
    hub.bring_book_up()
    conditions, sizes = hub.conditions(now_us), hub.policy.liquidation
    pressures = hub.book.pressures(conditions, sizes.target_extra_ppm, sizes.cost_ppm)
    for place, impact in enumerate(policy.impacts_per_usd):
        ratio = pressures[place] * impact / (hub.prints[place].depth_ppm / 1e6)
        hub.cascade_ppm[place] = int(1e6 * ratio)
    hub.cascades_ppm = list(map(max, hub.cascades_ppm, hub.cascade_ppm))


def _note(
    hub: HubState, policy: BreakerPolicy, scope: str, cause: Cause, zones: Sequence[Zone]
) -> list[Effect]:
    """Take in what a look calls for; on reduce-only, ask for unused credit back (B5)."""
    before = hub.breakers.get(scope, Breaker())
    hub.breakers[scope] = after = breakers.looked(policy, before, cause)
    if after.version == before.version:
        return []
    told = said(scope, after)
    effects: list[Effect] = [Send(zone.name, Family.MARGIN_STATE, told) for zone in zones]
    if before.level < Level.REDUCE_ONLY <= after.level:
        for zone in zones:
            effects += credit.revoke_all_of(hub, zone)
    return effects


def said(scope: str, breaker: Breaker) -> BreakerSet:
    """Return what a spoke is told of a breaker."""
    return BreakerSet(
        scope=scope, level=breaker.level, cause=breaker.cause, version=breaker.version
    )
