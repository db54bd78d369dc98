"""The hub's look at its accounts, once a block: call, liquidate, restore.

The book proposes, `assess` decides. Rules L5 to L7, L12 to L16 of docs/margin.md.
"""

import msgspec

from hub import commands, credit, deleveraging, positions, sizing
from hub.account import Account
from hub.deleveraging import Means
from hub.margin.requirement import Assessment, Conditions
from hub.state import HubState
from messaging.effects import Effect, Send
from messaging.messages import Family, MarginSet, MarginStatus
from messaging.units import Micros, ratio_up


def look(hub: HubState, now_us: Micros) -> list[Effect]:
    """Return what the accounts' standings at this block call for, if a look is due."""
    if not hub.is_look_due(now_us):
        return []
    conditions = hub.conditions(now_us)
    if not all(conditions.prices_usd6):
        return []  # no credit is granted before the first prices
    hub.look_due, hub.looked_us = False, now_us
    hub.bring_book_up()
    effects: list[Effect] = []
    places = hub.book.proposed(conditions)
    means = deleveraging.means(hub, places, conditions)
    for place in places:
        effects += _judge(hub, hub.accounts[place], conditions, means, now_us)
    return effects + deleveraging.match(hub, conditions)


def _judge(
    hub: HubState, account: Account, conditions: Conditions, means: Means, now_us: Micros
) -> list[Effect]:
    """Call, liquidate or restore one account, as its exact standing demands (rule L6)."""
    standing = hub.assess_latest(account, conditions)
    status = _status(hub, account, standing, now_us)
    effects: list[Effect] = []
    if status is not account.status:
        effects += _set_status(hub, account, status)
    _keep_grace(hub, hub.accounts[account.place], standing, now_us)
    account = hub.accounts[account.place]
    if status is MarginStatus.FROZEN and standing.equity_usd6 < standing.maintenance_usd6:
        closed = deleveraging.close_bankrupt(hub, account, conditions, means)
        if closed:
            effects += closed
            account = hub.accounts[account.place]
            standing = hub.assess_latest(account, conditions)
        if standing.notional_usd6:
            reductions = sizing.reductions(hub, account, standing, conditions)
            effects += commands.give(hub, account, reductions)
        else:
            positions.close_out(hub, account)
    return effects


def _status(hub: HubState, account: Account, standing: Assessment, now_us: Micros) -> MarginStatus:
    """Return what the account may do, given its standing (rules L6, L16)."""
    policy = hub.policy.liquidation
    equity_usd6, maintenance_usd6 = standing.equity_usd6, standing.maintenance_usd6
    if equity_usd6 < maintenance_usd6:
        in_time = now_us < _grace_until_us(hub, account, now_us)
        waits = in_time and equity_usd6 >= ratio_up(maintenance_usd6, policy.grace_floor_ppm)
        return MarginStatus.REDUCE_ONLY if waits else MarginStatus.FROZEN
    if account.commands:
        return account.status
    was_open = account.status is MarginStatus.OPEN
    level_ppm = policy.call_ppm if was_open else policy.restore_ppm
    sound = equity_usd6 >= ratio_up(maintenance_usd6, level_ppm)
    return MarginStatus.OPEN if sound else MarginStatus.REDUCE_ONLY


def _grace_until_us(hub: HubState, account: Account, now_us: Micros) -> int:
    """Return until when a liquidation may wait, if the account is below maintenance now."""
    known_us = account.grace_until_us
    return now_us + hub.policy.liquidation.grace_us if known_us is None else known_us


def _keep_grace(hub: HubState, account: Account, standing: Assessment, now_us: Micros) -> None:
    """Note when grace ends: once, and forgotten when the account may open again (L16).

    With a liquidation it has ended.
    """
    until_us = account.grace_until_us
    if account.status is MarginStatus.OPEN:
        until_us = None
    elif standing.equity_usd6 < standing.maintenance_usd6:
        until_us = Micros(_grace_until_us(hub, account, now_us))
        if account.status is MarginStatus.FROZEN:
            until_us = min(until_us, now_us)
    if until_us != account.grace_until_us:
        hub.keep(msgspec.structs.replace(account, grace_until_us=until_us))


def _set_status(hub: HubState, account: Account, status: MarginStatus) -> list[Effect]:
    """Change what the account may do; spokes hear of it when opening is allowed or is not.

    Between a call and a liquidation nothing changes for them. Unused credit is asked back.
    """
    after = msgspec.structs.replace(
        account, status=status, margin_version=account.margin_version + 1
    )
    hub.keep(after)
    if MarginStatus.OPEN not in (account.status, status):
        return []
    told = MarginSet(account=account.id, margin_version=after.margin_version, status=status)
    effects: list[Effect] = [Send(zone.name, Family.MARGIN_STATE, told) for zone in hub.zones]
    if account.status is MarginStatus.OPEN:
        effects += credit.revoke_all(hub, account.id)
    return effects
