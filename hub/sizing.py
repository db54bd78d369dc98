"""What to close of one account: every position its share (L5), or those that cost least (L15)."""

from typing import NamedTuple

from hub import liquidation, planning
from hub.account import Account
from hub.liquidation import Plan, Reduction
from hub.margin.requirement import Assessment, Conditions, charged
from hub.planning import LEGS_MAX, Holding, Leg
from hub.state import HubState
from messaging.units import Ppm, Qty8, ratio_up, value_up


class _Open(NamedTuple):
    """A position: what commands under way leave of it, and what they will still close."""

    spoke: int
    asset: int
    left_qty8: int  # signed
    pending_qty8: int


def reductions(
    hub: HubState, account: Account, standing: Assessment, conditions: Conditions
) -> list[Reduction]:
    """Return what is still missing to bring the account back to its target margin."""
    policy, held = hub.policy.liquidation, _held(hub, account)
    if policy.plan is Plan.LEAST_COST:
        targets = _cheapest(hub, held, standing, conditions)
        if targets is not None:
            return liquidation.reductions(policy, account, hub.places, targets)
    pending_usd6 = sum(
        value_up(one.pending_qty8, conditions.prices_usd6[one.asset]) for one in held
    )
    cost_usd6 = ratio_up(pending_usd6, policy.cost_ppm)
    return liquidation.plan(policy, account, standing, hub.places, cost_usd6)


def _held(hub: HubState, account: Account) -> list[_Open]:
    sizes, found = liquidation.sizes(account, hub.places), []
    for spoke, view in enumerate(account.views):
        for position in view.latest.positions:
            asset, qty8 = hub.places[position.asset], position.qty8
            size_qty8 = sizes[spoke, asset]
            left_qty8 = size_qty8 if qty8 > 0 else -size_qty8
            found.append(_Open(spoke, asset, left_qty8, abs(qty8) - size_qty8))
    return found


def _cheapest(
    hub: HubState, held: list[_Open], standing: Assessment, conditions: Conditions
) -> dict[tuple[int, int], Qty8] | None:
    """Return sizes by (spoke, asset) as L15 has them.

    None where it is not known what closing costs, or there are too many legs to try them all.
    """
    policy, pending_usd6 = hub.policy.liquidation, 0
    legs: dict[int, list[Leg]] = {}
    for one in held:
        leg = _leg(hub, one, conditions)
        if leg is None:
            return None
        closing_usd6 = value_up(one.pending_qty8, conditions.prices_usd6[one.asset])
        pending_usd6 += ratio_up(closing_usd6, leg.cost_ppm)
        if one.left_qty8:
            legs.setdefault(one.asset, []).append(leg)
    if any(len(of_asset) > LEGS_MAX for of_asset in legs.values()):
        return None
    holdings = [
        Holding(hub.margin, conditions, of_asset, policy.target_extra_ppm)
        for of_asset in legs.values()
    ]
    aim_usd6 = sum(holding.aim_usd6 for holding in holdings)
    missing_usd6 = aim_usd6 - standing.equity_usd6 + pending_usd6
    kept = planning.least_cost(holdings, missing_usd6, policy.dust_usd6)
    targets = {(one.spoke, one.asset): Qty8(0) for one in held}
    for holding, sizes in zip(holdings, kept, strict=True):
        for leg, size_qty8 in zip(holding.legs, sizes, strict=True):
            targets[leg.spoke, leg.asset] = Qty8(size_qty8)
    return targets


def _leg(hub: HubState, one: _Open, conditions: Conditions) -> Leg | None:
    """Return a position with what closing it costs, if that is known.

    Waiting is charged at what margin asks for its age: the range beyond that of age zero (M5).
    """
    known = hub.zones[one.spoke].policy.close_outs
    if not known:
        return None
    size_usd6, ratio = charged(
        hub.margin, conditions, one.spoke, one.asset, abs(one.left_qty8) + one.pending_qty8
    )
    wait_ppm = Ppm(ratio - hub.margin.assets[one.asset].maintenance_margin_ppm)
    cost_ppm = known[one.asset].cost_ppm(size_usd6)
    return Leg(one.spoke, one.asset, one.left_qty8, cost_ppm, wait_ppm)
