"""The spoke's half of a liquidation: bring a position down to a bound, and say how far.

Pure functions. Rules P75 to P84 of docs/protocol.md.
"""

import msgspec

from messaging.messages import (
    LiquidationDone,
    LiquidationEnd,
    LiquidationFilled,
    LiquidationOrdered,
)
from messaging.units import ONE, Micros, Qty8, Usd6


class Order(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A command, what it has done, and its last word once it has one.

    Attributes:
        command: as it came; a repeat must equal it (P78).
        filled_qty8: closed for it so far (P77).
        proceeds_usd6: signed value of that: positive for sales.
        done: the last word; never taken back.
    """

    command: LiquidationOrdered
    filled_qty8: int = 0
    proceeds_usd6: int = 0
    done: LiquidationDone | None = None


def concerned_qty8(command: LiquidationOrdered, position_qty8: int) -> int:
    """Return what of a position a command is about: all, or nothing if its price is for another.

    A price above zero is for longs, one below for shorts (P84).
    """
    return position_qty8 if command.price_usd6 * position_qty8 >= 0 else 0


def slice_qty8(order: Order, position_qty8: int, price_usd6: Usd6, budget_usd6: int) -> int:
    """Return the signed quantity to trade now: toward the bound, never across it (P76, P77).

    Args:
        order: a live command.
        position_qty8: the position as it is now.
        price_usd6: price that the budget is counted at.
        budget_usd6: value that depth allows in this slice; at least one unit is traded. A
            command with a price needs no depth.
    """
    command = order.command
    over_qty8 = abs(concerned_qty8(command, position_qty8)) - command.target_qty8
    left_qty8 = command.max_qty8 - order.filled_qty8
    allowed_qty8 = max(1, budget_usd6 * ONE // price_usd6)
    if command.price_usd6:
        allowed_qty8 = left_qty8
    qty8 = max(0, min(over_qty8, left_qty8, allowed_qty8))
    return -qty8 if position_qty8 > 0 else qty8


def ending(
    order: Order, position_qty8: int, state_version: int, chain_us: Micros
) -> LiquidationEnd | None:
    """Return why the command ends now, or None while it goes on (P82, P83)."""
    command = order.command
    if command.state_version > state_version:
        return LiquidationEnd.STATE_UNKNOWN
    if abs(concerned_qty8(command, position_qty8)) <= command.target_qty8:
        return LiquidationEnd.DONE if order.filled_qty8 else LiquidationEnd.NOTHING_TO_DO
    if order.filled_qty8 >= command.max_qty8:
        return LiquidationEnd.MAX_QTY
    if chain_us >= command.deadline_us:
        return LiquidationEnd.EXPIRED
    return None


def filled(order: Order, qty8: int, price_usd6: Usd6) -> Order:
    """Return the order after a fill of `qty8` (signed) at `price_usd6`."""
    return msgspec.structs.replace(
        order,
        filled_qty8=order.filled_qty8 + abs(qty8),
        proceeds_usd6=order.proceeds_usd6 + (-qty8 * price_usd6 // ONE),
    )


def progress(order: Order, chain_us: Micros) -> LiquidationFilled:
    """Return the report of what has been done so far."""
    return LiquidationFilled(
        liq_id=order.command.liq_id,
        filled_qty8=Qty8(order.filled_qty8),
        proceeds_usd6=Usd6(order.proceeds_usd6),
        block_time_us=chain_us,
    )


def end(order: Order, reason: LiquidationEnd, position_qty8: int, state_version: int) -> Order:
    """Return the order with its last word.

    Args:
        order: a live command.
        reason: why it ends.
        position_qty8: the position it leaves, signed.
        state_version: the report that first contains the outcome.
    """
    assert order.done is None
    done = LiquidationDone(
        liq_id=order.command.liq_id,
        filled_qty8=Qty8(order.filled_qty8),
        position_after_qty8=Qty8(position_qty8),
        state_version=state_version,
        reason=reason,
    )
    return msgspec.structs.replace(order, done=done)
