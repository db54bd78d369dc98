"""How much to close, where; and what an ended account costs. Pure functions.

Rules L5 to L8 and L15 of docs/margin.md for sizes, P75 to P83 of docs/protocol.md for commands.
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from hub.account import Account, Command
from hub.adl import Adl
from hub.margin.requirement import Assessment
from messaging.messages import LiquidationDone, StateReported
from messaging.units import Asset, LiquidationId, Micros, Ppm, Qty8, Usd6, ratio_up


class Plan(StrEnum):
    """Which positions give how much."""

    PRO_RATA = "pro_rata"  # every one the same share (rule L5)
    LEAST_COST = "least_cost"  # those whose closing costs least for what it releases (rule L15)


class LiquidationPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How the hub liquidates.

    Attributes:
        call_ppm: margin call when equity < maintenance * this.
        restore_ppm: the call ends when equity >= maintenance * this.
        target_extra_ppm: a partial close aims at maintenance + this share of notional.
        cost_ppm: expected cost of closing, fee and slippage, as a share of what is closed.
        dust_usd6: a remaining notional below this is closed as well.
        command_ttl_us: deadline of a command, after the newest spoke time heard.
        insurance_share_ppm: share of the liquidation fee that the insurance fund gets.
        socialise: what no fund pays is taken from all accounts' cash (rule L11).
        adl: whose positions are closed against those of a bankrupt account (rule L12).
        commands_max: most commands under way on one position; the last closes it whole.
        plan: which positions are closed.
        grace_us: how long a liquidation waits from the first look below maintenance (rule L16).
        grace_floor_ppm: but not below this share of maintenance.
    """

    call_ppm: Ppm
    restore_ppm: Ppm
    target_extra_ppm: Ppm
    cost_ppm: Ppm
    dust_usd6: Usd6
    command_ttl_us: Micros
    insurance_share_ppm: Ppm
    socialise: bool = False
    adl: Adl = Adl.NONE
    commands_max: int = 8
    plan: Plan = Plan.PRO_RATA
    grace_us: Micros = Micros(0)
    grace_floor_ppm: Ppm = Ppm(800_000)


class Reduction(msgspec.Struct, frozen=True):
    """Bring one position down to at most `target_qty8`; with a price, off the market (P84).

    `claim` and `claimed_qty8` as in `Command`.
    """

    spoke: int
    asset: int
    reported_qty8: Qty8  # its size as reported; commands under way may bring it down meanwhile
    target_qty8: Qty8
    state_version: int
    price_usd6: Usd6 = Usd6(0)  # signed as in `LiquidationOrdered`
    claim: LiquidationId | None = None
    claimed_qty8: Qty8 = Qty8(0)


def keep_share(
    policy: LiquidationPolicy, standing: Assessment, cost_pending_usd6: int
) -> tuple[int, int]:
    """Return the share of notional that may stay, as a fraction (numerator, denominator).

    Closing the share phi restores the target margin exactly (rule L5):

        phi = (M + b*N - E) / (M + b*N - f*N)        what stays is 1 - phi

    M maintenance, b `target_extra`, N gross notional, E equity [usd6], f `cost`. Nothing stays
    if E <= f*N: what is left would not pay for a second try.
    """
    equity_usd6 = standing.equity_usd6 - cost_pending_usd6
    cost_usd6 = ratio_up(standing.notional_usd6, policy.cost_ppm)
    aim_usd6 = standing.maintenance_usd6 + ratio_up(standing.notional_usd6, policy.target_extra_ppm)
    assert aim_usd6 > cost_usd6, "checked when the scenario was read: target_extra > cost"
    return min(max(0, equity_usd6 - cost_usd6), aim_usd6 - cost_usd6), aim_usd6 - cost_usd6


def plan(
    policy: LiquidationPolicy,
    account: Account,
    standing: Assessment,
    places: Mapping[Asset, int],
    cost_pending_usd6: int,
) -> list[Reduction]:
    """Return reductions that bring the account back to its target margin (rules L5, L7).

    Every position gives the same share; commands under way count as executed, so that nothing
    is closed twice. Empty if they are enough.
    """
    stays, of = keep_share(policy, standing, cost_pending_usd6)
    if stays == of:
        return []
    if standing.notional_usd6 * stays // of < policy.dust_usd6:
        stays = 0
    targets = {key: Qty8(size * stays // of) for key, size in sizes(account, places).items()}
    return reductions(policy, account, places, targets)


def sizes(account: Account, places: Mapping[Asset, int]) -> dict[tuple[int, int], Qty8]:
    """Return the size of every position by (spoke, asset), commands under way executed (L7)."""
    bounds, found = account.bounds(), {}
    for spoke, view in enumerate(account.views):
        for position in view.latest.positions:
            key, reported_qty8 = (spoke, places[position.asset]), Qty8(abs(position.qty8))
            found[key] = min(reported_qty8, bounds.get(key, reported_qty8))
    return found


def reductions(
    policy: LiquidationPolicy,
    account: Account,
    places: Mapping[Asset, int],
    targets: Mapping[tuple[int, int], Qty8],
) -> list[Reduction]:
    """Return what brings positions down to targets, by (spoke, asset); none that is no smaller.

    Where the most commands are under way the position is closed whole.
    """
    before, found = sizes(account, places), []
    for spoke, view in enumerate(account.views):
        for position in view.latest.positions:
            asset = places[position.asset]
            target_qty8 = targets[spoke, asset]
            if target_qty8 >= before[spoke, asset]:
                continue
            pending = sum(c.spoke == spoke and c.asset == asset for c in account.commands)
            if pending >= policy.commands_max - 1:
                target_qty8 = Qty8(0)
            reported_qty8 = Qty8(abs(position.qty8))
            found.append(Reduction(spoke, asset, reported_qty8, target_qty8, view.latest.version))
    return found


def end(account: Account, done: LiquidationDone) -> Account:
    """Note the spoke's last word on a command (P83); a repeat changes nothing."""
    commands = tuple(
        msgspec.structs.replace(command, done=done)
        if command.ordered.liq_id == done.liq_id and command.done is None
        else command
        for command in account.commands
    )
    return sweep(msgspec.structs.replace(account, commands=commands))


def under_way(account: Account, command: Command) -> Account:
    """Count a command as under way again: its end, or the report of it, is lost (P55)."""
    liq_id = command.ordered.liq_id
    others = tuple(one for one in account.commands if one.ordered.liq_id != liq_id)
    return msgspec.structs.replace(account, commands=(*others, command))


def sweep(account: Account) -> Account:
    """Drop commands that are over: ended, and their outcome reported (rule L8).

    Reports and last words travel on two channels, which have no order between them (P9).
    """
    left = tuple(
        command
        for command in account.commands
        if command.done is None
        or account.views[command.spoke].latest.version < command.done.state_version
    )
    if len(left) == len(account.commands):
        return account
    return msgspec.structs.replace(account, commands=left)


def added(settled: StateReported, before: StateReported, cash_usd6: int) -> tuple[int, int, int]:
    """Return what a final report adds: realised P&L, fees, liquidation fee [usd6] (rule L3).

    A liquidation fee is waived as far as it would leave the account with less than nothing.
    """
    realised_usd6 = settled.realised_usd6 - before.realised_usd6
    fees_usd6 = settled.fees_usd6 - before.fees_usd6
    asked_usd6 = settled.liquidation_fees_usd6 - before.liquidation_fees_usd6
    left_usd6 = max(0, cash_usd6 + realised_usd6 - fees_usd6)
    return realised_usd6, fees_usd6, min(asked_usd6, left_usd6)
