"""The margin-state and liquidation channels at the hub: reports, settlement, ended commands."""

import msgspec

from hub import credit, deleveraging, gains, ledger, liquidation, waterfall
from hub.account import Account, SpokeView, finalise, report, see
from hub.state import HubState
from hub.zone import Ended, Zone
from messaging.effects import Effect, Send
from messaging.messages import (
    Family,
    HaltReason,
    LiquidationAcknowledged,
    LiquidationDone,
    LiquidationEnd,
    MarginStatus,
    StateReported,
    Watermark,
)
from messaging.units import Height, LiquidationId, Micros, Qty8, Usd6, ratio_up


def reported(hub: HubState, zone: Zone, state: StateReported, height: Height) -> list[Effect]:
    """Take in a report; it counts at once, and is settled once final (P53)."""
    place = hub.place_of.get(state.account)
    if place is None or any(position.asset not in hub.places for position in state.positions):
        return credit.halt(zone, HaltReason.BROKEN_CLAIM)
    account = hub.accounts[place]
    before = account.views[zone.place]
    view = report(before, state, height)
    if view is before:
        return []
    carry(hub, zone, place, view)
    zone.waiting.append((height, place))
    hub.look_due = hub.look_due or account.status is not MarginStatus.OPEN
    hub.keep(liquidation.sweep(see(account, zone.place, view)))
    return []


def carry(hub: HubState, zone: Zone, place: int, view: SpokeView) -> None:
    """Note the margin that an account's positions carry here, for the zone cap.

    Initial margin at age zero, at cost; the larger of final and newest report, for what lowers
    it waits for finality (P53).
    """
    carried_usd6 = _margin_usd6(hub, view.latest)
    if view.settled is not view.latest:
        carried_usd6 = max(carried_usd6, _margin_usd6(hub, view.settled))
    zone.carried_usd6 += carried_usd6 - zone.carried_of.get(place, 0)
    zone.carried_of[place] = carried_usd6


def _margin_usd6(hub: HubState, state: StateReported) -> int:
    margin_usd6 = 0
    for position in state.positions:
        risk = hub.policy.margin.assets[hub.places[position.asset]]
        margin_usd6 += ratio_up(abs(position.cost_usd6), risk.initial_margin_ppm)
    return margin_usd6


def covered(zone: Zone, mark: Watermark, height: Height) -> None:
    """Note that every change up to `height` has been reported; it is the spoke's age too."""
    zone.covers.append(height)
    zone.state_us = max(zone.state_us, mark.spoke_time_us)


def advance(hub: HubState, zone: Zone, now_us: Micros) -> None:
    """Settle what has become final, then let positions carry used credit (P52 to P54).

    Not from a halted spoke, whose gains could be lies (P66), nor while a frame of it was passed
    over (P71); its losses count unsettled.
    """
    if not zone.may_free:
        return
    final_height = zone.final_heights[Family.MARGIN_STATE]
    while zone.waiting and zone.waiting[0][0] <= final_height:
        _, place = zone.waiting.popleft()
        account = hub.accounts[place]
        before = account.views[zone.place]
        view = finalise(before, final_height)
        if view is not before:
            _settle(hub, zone, account, before, view, now_us)
    credit.carry(hub, zone)


def _settle(
    hub: HubState,
    zone: Zone,
    account: Account,
    before: SpokeView,
    view: SpokeView,
    now_us: Micros,
) -> None:
    """Book what the newly final report adds, and close the account out if that ends it."""
    cash_usd6 = hub.ledger.cash_usd6(account.id)
    owned_usd6 = cash_usd6 + hub.held_usd6(account.id)  # held gains pay fees too
    realised, fees, liquidation_fees = liquidation.added(view.settled, before.settled, owned_usd6)
    asked = view.settled.liquidation_fees_usd6 - before.settled.liquidation_fees_usd6
    if asked > liquidation_fees:
        hub.ledger.forgive(account.id, asked - liquidation_fees)
    if realised or fees or liquidation_fees:
        posting = ledger.settle(
            account.id,
            zone.name,
            realised_usd6=realised,
            fees_usd6=fees,
            liquidation_fees_usd6=liquidation_fees,
            insurance_share_ppm=hub.policy.liquidation.insurance_share_ppm,
        )
        hub.ledger.post(posting)
        gains.book(
            hub, zone, account, realised_usd6=realised, cash_before_usd6=cash_usd6, now_us=now_us
        )
    carry(hub, zone, account.place, view)
    hub.changed.pop(account.place, None)  # the checks follow postings in their order
    settled = see(account, zone.place, view)
    hub.keep(settled)
    hub.book.set_cash(account.place, hub.ledger.cash_usd6(account.id))
    close_out(hub, settled)


def close_out(hub: HubState, account: Account) -> None:
    """Write a shortfall off once nothing can change it any more (rule L4).

    That is: frozen, no command under way, no reservation open, no gain held, every report final
    and without positions. Whoever is not there yet is tried again with the hub's next look.
    """
    ready = (
        account.status is MarginStatus.FROZEN
        and not account.closed_out
        and not account.commands
        and not hub.open_of.get(account.id)
        # Used credit is a position to be reported; what was written off stays for good (P40).
        and hub.ledger.reserved_usd6(account.id) == hub.written_off_usd6.get(account.id, 0)
        and not hub.held_usd6(account.id)
        and account.flat
    )
    shortfall_usd6 = -hub.ledger.cash_usd6(account.id)
    if not ready or shortfall_usd6 <= 0:
        return
    losses_usd6 = [
        max(0, view.settled.fees_usd6 - view.settled.realised_usd6) for view in account.views
    ]
    paid = waterfall.pay(shortfall_usd6, losses_usd6, hub.funds())
    by_book = [(ledger.INSURANCE, paid.insurance)]
    for zone, usd6 in zip(hub.zones, paid.spokes, strict=True):
        if usd6:
            by_book.append((ledger.fund(zone.name), usd6))
    hub.ledger.post(ledger.write_off(account.id, Usd6(shortfall_usd6), by_book))
    hub.ledger.forgive(account.id, shortfall_usd6)
    hub.ledger.bad_debt_usd6 += shortfall_usd6
    hub.ledger.funds_used_usd6 += sum(paid.spokes)
    hub.ledger.insurance_used_usd6 += paid.insurance
    hub.keep(msgspec.structs.replace(account, closed_out=True))
    hub.book.set_cash(account.place, hub.ledger.cash_usd6(account.id))


def socialise(hub: HubState) -> None:
    """Spread what no fund has paid over all available cash, once a block (rule L11)."""
    deficit_usd6 = -hub.ledger.balances[ledger.DEFICIT]
    if not (hub.policy.liquidation.socialise and deficit_usd6):
        return
    balances = hub.ledger.balances
    available_usd6 = [balances[ledger.available(account.id)] for account in hub.accounts]
    haircuts = [
        (account, usd6)
        for account, usd6 in zip(
            hub.accounts, waterfall.haircut(deficit_usd6, available_usd6), strict=True
        )
        if usd6
    ]
    if haircuts:
        hub.ledger.post(ledger.socialise([(account.id, usd6) for account, usd6 in haircuts]))
    for account, usd6 in haircuts:
        hub.ledger.haircut_usd6[account.id] = hub.ledger.haircut_usd6.get(account.id, 0) + usd6
        hub.changed[account.place] = None
        hub.book.set_cash(account.place, hub.ledger.cash_usd6(account.id))
        hub.look_due = True


def settle_ends(hub: HubState, zone: Zone) -> None:
    """Forget ended commands once neither their end nor the report of it can be undone."""
    final_height = zone.final_heights[Family.LIQUIDATION]
    while zone.ended and zone.ended[0].height <= final_height:
        _, place, command = zone.ended[0]
        settled = hub.accounts[place].views[zone.place].settled
        if command.done is not None and settled.version < command.done.state_version:
            return
        zone.ended.popleft()
        deleveraging.settle(hub, command)


def filled(hub: HubState, zone: Zone, liq_id: LiquidationId, filled_qty8: Qty8) -> list[Effect]:
    """Halt a spoke that has closed more than a command allows (P77).

    That is all a fill does; positions follow the report.
    """
    place = zone.commands.get(liq_id)
    commands = () if place is None else hub.accounts[place].commands
    for command in commands:
        if command.ordered.liq_id == liq_id and filled_qty8 > command.ordered.max_qty8:
            return credit.halt(zone, HaltReason.FILLED_TOO_MUCH)
    return []


def done(hub: HubState, zone: Zone, ended: LiquidationDone, height: Height) -> list[Effect]:
    """Note a command's end and let the spoke forget it (P83)."""
    effects = filled(hub, zone, ended.liq_id, ended.filled_qty8)
    refused = ended.reason is LiquidationEnd.EXISTS_DIFFERENT  # of another body; ours goes on
    place = None if refused else zone.commands.pop(ended.liq_id, None)
    if place is not None:
        account = hub.accounts[place]
        for command in account.commands:
            if command.ordered.liq_id == ended.liq_id:
                over = msgspec.structs.replace(command, done=ended)
                zone.ended.append(Ended(height, place, over))
        account = liquidation.end(account, ended)
        hub.keep(account)
        close_out(hub, account)
    acknowledged = LiquidationAcknowledged(liq_id=ended.liq_id)
    return [*effects, Send(zone.name, Family.LIQUIDATION, acknowledged)]
