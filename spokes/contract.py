"""What of a spoke is on its chain, and outlives the process beside it (P61).

Positions, rights and commands are the contract's, so a spoke that has lost its memory begins
anew from them in a new epoch: what was granted in an earlier one cannot be used any more (P22).
Lost is what only the process knew: channels, orders that wait, requests without an answer.
"""

import msgspec

from messaging.breakers import Level
from messaging.effects import Effect, Send
from messaging.messages import (
    CloseReason,
    Family,
    MarginStatus,
    Message,
    ReservationClosed,
)
from messaging.node import Rebuilt, Rejoined
from messaging.rebuilding import ChannelRebuilt, OldEpochsClosed
from messaging.units import AccountId, Height, Micros, Ppm, Usd6
from spokes import liquidation
from spokes.liquidation import Order
from spokes.reservation import Credit, Outcome, State
from spokes.state import SpokeState
from spokes.undo import Fact, Retold, Told
from spokes.venue import Trader


class Contract(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The state of a spoke's chain.

    Attributes:
        spoke_epoch: of all rights that may be used.
        credits: rights, and tombstones of those that were given up.
        orders: commands taken, ended ones too, until the hub has acknowledged their end.
        status: what each account may do, and the version that said so.
        breakers: how far an asset or the spoke is stopped, and the version that said so.
        facts: what lost blocks would undo, oldest first, each with its block.
        reorgs: how often blocks have been lost.
    """

    spoke_epoch: int
    traders: tuple[Trader, ...]
    credits: tuple[Credit, ...]
    orders: tuple[Order, ...]
    status: tuple[tuple[AccountId, int, MarginStatus], ...]
    prices_usd6: tuple[Usd6, ...]
    depth_ppm: Ppm
    halted: bool
    facts: tuple[tuple[Height, Fact], ...]
    reorgs: int
    breakers: tuple[tuple[str, int, Level], ...] = ()


_decoder = msgspec.msgpack.Decoder(Contract)


def read(spoke: SpokeState) -> bytes:
    """Return what anybody can read from the chain."""
    undo = spoke.undo.facts if spoke.undo is not None else ()
    contract = Contract(
        spoke_epoch=spoke.spoke_epoch,
        traders=tuple(spoke.traders.values()),
        credits=tuple(
            credit for credit in spoke.credits.values() if credit.state is not State.REQUESTED
        ),
        orders=tuple(spoke.orders.values()),
        status=tuple((account, *status) for account, status in spoke.status.items()),
        prices_usd6=tuple(spoke.prices_usd6),
        depth_ppm=spoke.depth_ppm,
        halted=spoke.halted,
        facts=tuple(one for one in undo if not isinstance(one[1], Told | Retold)),
        reorgs=spoke.reorgs,
        breakers=tuple((scope, *stopped) for scope, stopped in spoke.breakers.items()),
    )
    return msgspec.msgpack.encode(contract)


def restore(spoke: SpokeState, event: Rebuilt, now_us: Micros) -> None:
    """Begin anew from the chain, in a new epoch: no right of an earlier one is left (P22)."""
    contract = _decoder.decode(event.contract)
    assert event.spoke_epoch == contract.spoke_epoch + 1, "expected the chain's next epoch"
    spoke.traders = {trader.id: trader for trader in contract.traders}
    spoke.orders = {order.command.liq_id: order for order in contract.orders}
    spoke.live = {liq_id: None for liq_id, order in spoke.orders.items() if order.done is None}
    spoke.status = {account: (version, status) for account, version, status in contract.status}
    spoke.breakers = {scope: (version, level) for scope, version, level in contract.breakers}
    spoke.prices_usd6, spoke.depth_ppm = contract.prices_usd6, contract.depth_ppm
    spoke.halted, spoke.reorgs = contract.halted, contract.reorgs
    if spoke.undo is not None:
        spoke.undo.facts.extend(contract.facts)
    spoke.begin_epoch(event.spoke_epoch, spoke.policy.chain.height_at(now_us))
    for credit in contract.credits:
        closed = msgspec.structs.replace(credit, state=State.CLOSED)
        spoke.keep_credit(Outcome(closed), now_us)


def rejoined(spoke: SpokeState, event: Rejoined, now_us: Micros) -> list[Effect]:
    """Begin a channel to the hub anew: say so, then all that may not have been heard."""
    chain = spoke.policy.chain
    final = chain.trusted_height_at(now_us)  # of no block that may be lost
    word = ChannelRebuilt(spoke_epoch=spoke.spoke_epoch, base_epoch=event.base_epoch)
    effects: list[Effect] = [Send(spoke.policy.hub, event.family, word, final, final)]
    if event.family is Family.RESERVATION:
        spoke.heard_seq = event.heard_seq
        spoke.owes_closes = True
        _ask_anew(spoke)
        return effects + settle(spoke, now_us)
    return effects + tell_again(spoke, event.family, now_us)


def _ask_anew(spoke: SpokeState) -> None:
    """Put orders back whose requests nobody has heard; they ask under another id."""
    for rid, waiting in spoke.for_credit.items():
        spoke.forget_credit(rid)
        spoke.pool.append(waiting)
    spoke.for_credit.clear()


def settle(spoke: SpokeState, now_us: Micros) -> list[Effect]:
    """Tell how much of earlier epochs was used, once their end is final (P23)."""
    if not spoke.owes_closes or spoke.policy.chain.trusted_height_at(now_us) < spoke.epoch_height:
        return []
    spoke.owes_closes = False
    return tell_again(spoke, Family.RESERVATION, now_us)


def tell_again(spoke: SpokeState, family: Family, now_us: Micros) -> list[Effect]:
    """Tell all that the contract knows; if the block is lost it is told once more."""
    spoke.note(Retold(family))
    if family is Family.MARGIN_STATE:
        spoke.touched.update(dict.fromkeys(spoke.traders))
        return spoke.reports(now_us)
    if family is Family.LIQUIDATION:
        chain_us = spoke.policy.chain.time_at(now_us)
        return [
            spoke.tell(order.done or liquidation.progress(order, chain_us), now_us)
            for order in spoke.orders.values()
        ]
    words: list[Message] = [
        ReservationClosed(rid=one.rid, used_usd6=one.used_usd6, reason=CloseReason.REBUILT)
        for one in spoke.credits.values()
        if one.state is State.CLOSED and one.spoke_epoch < spoke.spoke_epoch
    ]
    words.append(OldEpochsClosed(spoke_epoch=spoke.spoke_epoch))
    return [spoke.tell(word, now_us) for word in words]
