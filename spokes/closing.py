"""Liquidations at a spoke: take commands in, trade them slice by slice, report."""

from messaging.effects import Effect
from messaging.messages import LiquidationDone, LiquidationEnd, LiquidationOrdered
from messaging.units import LiquidationId, Micros, Qty8, Usd6
from spokes import liquidation, venue
from spokes.liquidation import Order
from spokes.state import SpokeState
from spokes.undo import CommandWas
from spokes.venue import Fees


def ordered(spoke: SpokeState, command: LiquidationOrdered, now_us: Micros) -> list[Effect]:
    """Take a command in: live until it ends (P79), once (P78); another body is refused.

    So is one of another epoch that is not known here (P61).
    """
    known = spoke.orders.get(command.liq_id)
    if known is not None:
        if known.command == command:
            return [] if known.done is None else [spoke.tell(known.done, now_us)]
        return _refused(spoke, command, LiquidationEnd.EXISTS_DIFFERENT, now_us)
    if command.spoke_epoch != spoke.spoke_epoch:
        return _refused(spoke, command, LiquidationEnd.OTHER_EPOCH, now_us)
    spoke.orders[command.liq_id] = Order(command=command)
    spoke.live[command.liq_id] = None
    return []


def _refused(
    spoke: SpokeState, command: LiquidationOrdered, reason: LiquidationEnd, now_us: Micros
) -> list[Effect]:
    refused = LiquidationDone(
        liq_id=command.liq_id,
        filled_qty8=Qty8(0),
        position_after_qty8=Qty8(0),
        state_version=0,
        reason=reason,
    )
    return [spoke.tell_ever(refused, now_us)]


def trade(spoke: SpokeState, now_us: Micros) -> list[Effect]:
    """Trade a slice for every live command, then end those that are over.

    Those with a price come first, each for itself (P84). All others of one position share its
    slice; each fill is booked to the one with the smallest target (P80).
    """
    chain_us = spoke.policy.chain.time_at(now_us)
    priced = [liq_id for liq_id in spoke.live if spoke.orders[liq_id].command.price_usd6]
    for liq_id in priced + _smallest_targets(spoke):
        _fill(spoke, liq_id, chain_us)
    return finish(spoke, now_us)


def finish(spoke: SpokeState, now_us: Micros) -> list[Effect]:
    """End the commands that are over, report how far the others are (P82, P83)."""
    effects: list[Effect] = []
    chain_us = spoke.policy.chain.time_at(now_us)
    for liq_id in list(spoke.live):
        order = spoke.orders[liq_id]
        account, asset = order.command.account, order.command.asset
        position_qty8 = spoke.trader(account).holding(asset).qty8
        version = spoke.version_after_block(account)
        reason = liquidation.ending(order, position_qty8, version, chain_us)
        if reason is not None:
            ended = liquidation.end(order, reason, position_qty8, version)
            assert ended.done is not None
            spoke.note(CommandWas(order))
            spoke.orders[liq_id] = ended
            del spoke.live[liq_id]
            effects.append(spoke.tell(ended.done, now_us))
        elif order.filled_qty8:
            effects.append(spoke.tell(liquidation.progress(order, chain_us), now_us))
    return effects


def _smallest_targets(spoke: SpokeState) -> list[LiquidationId]:
    """Return the live command that rules each position on the market, oldest position first."""
    ruling: dict[tuple[str, str], LiquidationId] = {}
    for liq_id in spoke.live:
        command = spoke.orders[liq_id].command
        if command.price_usd6:
            continue
        key = (command.account, command.asset)
        before = ruling.get(key)
        if before is None or command.target_qty8 < spoke.orders[before].command.target_qty8:
            ruling[key] = liq_id
    return list(ruling.values())


def _slice(spoke: SpokeState, order: Order) -> tuple[int, Usd6]:
    """Return the signed quantity of the next slice, and the price it would trade at."""
    command, policy = order.command, spoke.policy
    place = spoke.places[command.asset]
    market, middle_usd6 = policy.markets[place], spoke.prices_usd6[place]
    budget_usd6 = int(market.unwind_usd6_per_s * policy.slice_us / 1e6 * spoke.depth_ppm / 1e6)
    position_qty8 = spoke.trader(command.account).holding(command.asset).qty8
    qty8 = liquidation.slice_qty8(order, position_qty8, middle_usd6, budget_usd6)
    if command.price_usd6:
        return qty8, Usd6(abs(command.price_usd6))
    return qty8, venue.fill_price_usd6(market, middle_usd6, qty8, spoke.depth_ppm)


def _fill(spoke: SpokeState, liq_id: LiquidationId, chain_us: Micros) -> None:
    """Trade one slice of a command, as much as depth allows."""
    order = spoke.orders[liq_id]
    command = order.command
    market = spoke.policy.markets[spoke.places[command.asset]]
    trader = spoke.trader(command.account)
    if command.state_version > trader.version or chain_us >= command.deadline_us:
        return  # it ends without a fill
    qty8, price_usd6 = _slice(spoke, order)
    if qty8 == 0:
        return
    fees = Fees.NONE if command.price_usd6 else Fees.LIQUIDATION
    spoke.note(CommandWas(order))
    spoke.keep_trader(venue.trade(trader, market, qty8, price_usd6, fees))
    if not command.price_usd6:  # off the market it moves no price
        spoke.bought(command.asset, qty8)
    spoke.orders[liq_id] = liquidation.filled(order, qty8, price_usd6)
    spoke.filled[liq_id] = None
