"""Planted faults: small, realistic defects that the checks must find. A documented test hook.

Each replaces one function of the hub or the spokes for the time of a run; nothing of this is
reachable without asking for it by name.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

import hub.credit
import hub.ledger
import hub.positions
import hub.reservation
import spokes.liquidation
import spokes.reservation
from hub.state import HubState
from hub.zone import Zone
from messaging.errors import InputRefused, nearest
from messaging.units import Height, Micros, ReservationId, Usd6
from spokes.state import SpokeState


class Plant(NamedTuple):
    """A function to replace, by module and name, and what makes the faulty one of it."""

    module: Any
    name: str
    spoil: Callable[[Any], Any]


def _hub_clock(tend: Any) -> Any:
    """Free a reservation when the hub's own clock passes its expiry (P39 broken)."""

    def spoiled(state: HubState, zone: Zone, now_us: Micros) -> Any:
        for _, rid in [entry for entry in zone.expiries if entry[0] <= now_us]:
            known = state.reservations[rid]
            if known.open:
                hub.credit.end(state, zone, known, "the hub's clock")
        return tend(state, zone, now_us)

    return spoiled


def _early_release(close: Any) -> Any:
    """Release at a close that is not final yet (P36 broken)."""

    def spoiled(*given: Any) -> Any:
        after = close(*given)
        if isinstance(after, hub.reservation.Evidence) or not after.open:
            return after
        return hub.reservation.release(after, "a close, final or not")

    return spoiled


def _free_grant(reserve: Any) -> Any:
    """Grant without setting the cash aside (P30 broken)."""

    def spoiled(account: Any, amount_usd6: int) -> Any:
        return reserve(account, 0)

    return spoiled


def _mint(settle: Any) -> Any:
    """Round a settlement in the trader's favour, money from nowhere."""

    def spoiled(*given: Any, **named: Any) -> Any:
        (book, change_usd6), *rest = settle(*given, **named)
        return ((book, change_usd6 + 1), *rest)

    return spoiled


def _overuse(_: Any) -> Any:
    """Use a grant beyond its amount (P46 broken)."""

    def usable(credit: spokes.reservation.Credit, amount_usd6: int, chain_us: int) -> bool:
        return credit.state is spokes.reservation.State.ACTIVE

    return usable


def _added_use(use: Any) -> Any:
    """Add reported uses up, though they are cumulative (P34 broken)."""

    def spoiled(known: Any, used: Any, height: Any) -> Any:
        total_usd6 = known.used_usd6 + used.used_usd6
        return use(known, msgspec.structs.replace(used, used_usd6=total_usd6), height)

    return spoiled


def _early_carry(carry: Any) -> Any:
    """Hand used credit over before any report of the position is final (P54 broken)."""

    def spoiled(state: HubState, zone: Zone) -> None:
        zone.covered = Height(2**62)
        carry(state, zone)

    return spoiled


def _soft_settle(finalise: Any) -> Any:
    """Book reports that a block may still undo (P53 broken)."""

    def spoiled(view: Any, final_height: int) -> Any:
        return finalise(view, 2**62)

    return spoiled


def _open_handed(_: Any) -> Any:
    """Grant against cash alone, whatever the positions need (M6 broken)."""

    def free_usd6(state: HubState, account: Any, conditions: Any) -> int:
        cash_usd6 = state.ledger.cash_usd6(account.id)
        return cash_usd6 - state.ledger.reserved_usd6(account.id)

    return free_usd6


def _double_payment(write_off: Any) -> Any:
    """Let the insurance fund pay its part of a shortfall twice (L10 broken)."""

    def spoiled(account: Any, shortfall_usd6: int, paid_usd6: Any) -> Any:
        again_usd6 = sum(usd6 for book, usd6 in paid_usd6 if book == hub.ledger.INSURANCE)
        posting = write_off(account, shortfall_usd6, paid_usd6)
        twice = ((hub.ledger.INSURANCE, -again_usd6), (hub.ledger.DEFICIT, again_usd6))
        return (*posting, *twice)

    return spoiled


def _double_write_off(write_off: Any) -> Any:
    """Write a shortfall off twice (L4 broken)."""

    def spoiled(account: Any, shortfall_usd6: int, paid_usd6: Any) -> Any:
        return write_off(account, 2 * shortfall_usd6, paid_usd6)

    return spoiled


def _oversell(_: Any) -> Any:
    """Liquidate the whole position, whatever the bound (P76, P77 broken)."""

    def slice_qty8(order: Any, position_qty8: int, price_usd6: int, budget_usd6: int) -> int:
        return -position_qty8

    return slice_qty8


def spoiled_row(rid: ReservationId) -> bool:
    """Tell whether the spokes' rows below go wrong: those of one reservation in four."""
    return rid[0] < 64


def _row_understated(enter: Any) -> Any:
    """Tell the hub's digest of no use, whatever has been used (P59)."""

    def spoiled(state: SpokeState, credit: spokes.reservation.Credit) -> None:
        hidden = spoiled_row(credit.rid)
        enter(state, msgspec.structs.replace(credit, used_usd6=Usd6(0)) if hidden else credit)

    return spoiled


def _row_missing(enter: Any) -> Any:
    """Lose a reservation on the way to the hub's digest (P59)."""

    def spoiled(state: SpokeState, credit: spokes.reservation.Credit) -> None:
        if not spoiled_row(credit.rid):
            enter(state, credit)

    return spoiled


def _row_extra(enter: Any) -> Any:
    """Go on telling of a reservation that is closed (P59)."""

    def spoiled(state: SpokeState, credit: spokes.reservation.Credit) -> None:
        closed = credit.state is spokes.reservation.State.CLOSED
        if not (closed and spoiled_row(credit.rid)):
            enter(state, credit)

    return spoiled


PLANTS: Mapping[str, Plant] = {
    "added_use": Plant(hub.reservation, "use", _added_use),
    "double_payment": Plant(hub.ledger, "write_off", _double_payment),
    "double_write_off": Plant(hub.ledger, "write_off", _double_write_off),
    "early_carry": Plant(hub.credit, "carry", _early_carry),
    "early_release": Plant(hub.reservation, "close", _early_release),
    "free_grant": Plant(hub.ledger, "reserve", _free_grant),
    "hub_clock": Plant(hub.credit, "tend", _hub_clock),
    "mint": Plant(hub.ledger, "settle", _mint),
    "open_handed": Plant(HubState, "free_usd6", _open_handed),
    "oversell": Plant(spokes.liquidation, "slice_qty8", _oversell),
    "overuse": Plant(spokes.reservation, "usable", _overuse),
    "row_extra": Plant(SpokeState, "enter", _row_extra),
    "row_missing": Plant(SpokeState, "enter", _row_missing),
    "row_understated": Plant(SpokeState, "enter", _row_understated),
    "soft_settle": Plant(hub.positions, "finalise", _soft_settle),
}


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Put a fault in for the time of the block; none if `name` is None.

    Raises:
        InputRefused: no such fault.
    """
    if name is None:
        yield
        return
    plant = PLANTS.get(name)
    if plant is None:
        expected = f"one of {', '.join(PLANTS)}"
        raise InputRefused("--plant", expected=expected, found=f"{name!r}{nearest(name, PLANTS)}")
    sound = getattr(plant.module, plant.name)
    setattr(plant.module, plant.name, plant.spoil(sound))
    try:
        yield
    finally:
        setattr(plant.module, plant.name, sound)
