"""Giving liquidation commands: one for each reduction of a position (P75)."""

from collections.abc import Sequence

import msgspec

from hub.account import Account, Command
from hub.liquidation import Reduction
from hub.state import HubState
from messaging.effects import Effect, Send
from messaging.messages import Family, LiquidationOrdered
from messaging.units import Micros, Qty8


def give(hub: HubState, account: Account, reductions: Sequence[Reduction]) -> list[Effect]:
    """Order reductions of an account's positions; from now on they are under way (L7)."""
    effects: list[Effect] = []
    commands = list(account.commands)
    for reduction in reductions:
        command = _command(hub, account, reduction)
        hub.zones[reduction.spoke].commands[command.ordered.liq_id] = account.place
        commands.append(command)
        effects.append(Send(hub.zones[reduction.spoke].name, Family.LIQUIDATION, command.ordered))
    if effects:
        on_market = sum(not reduction.price_usd6 for reduction in reductions)
        hub.keep(
            msgspec.structs.replace(
                account,
                commands=tuple(commands),
                liquidations=account.liquidations + on_market,
            )
        )
    return effects


def _command(hub: HubState, account: Account, reduction: Reduction) -> Command:
    zone = hub.zones[reduction.spoke]
    ordered = LiquidationOrdered(
        liq_id=hub.next_liquidation_id(),
        account=account.id,
        asset=hub.policy.margin.assets[reduction.asset].asset,
        target_qty8=reduction.target_qty8,
        max_qty8=Qty8(reduction.reported_qty8 - reduction.target_qty8),
        state_version=reduction.state_version,
        price_usd6=reduction.price_usd6,
        deadline_us=Micros(zone.heard_us + hub.policy.liquidation.command_ttl_us),
        margin_version=account.margin_version,
        spoke_epoch=zone.epochs[Family.LIQUIDATION],
    )
    return Command(
        ordered=ordered,
        spoke=reduction.spoke,
        asset=reduction.asset,
        claim=reduction.claim,
        claimed_qty8=reduction.claimed_qty8,
    )
