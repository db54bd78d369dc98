"""The chain has lost its newest blocks: go back, and let happen again what still can (P55)."""

import heapq

import msgspec

from messaging.effects import Effect, Forked
from messaging.messages import (
    CloseReason,
    LiquidationDone,
    ReservationClosed,
    ReservationRequested,
)
from messaging.units import Height, Micros
from spokes import contract, funding
from spokes.reservation import Outcome, State
from spokes.state import SpokeState, Waiting
from spokes.undo import Bought, CommandWas, CreditWas, Fact, Funded, Retold, Told, Traded, TraderWas


def reorganised(spoke: SpokeState, depth: int, now_us: Micros) -> list[Effect]:
    """Lose `depth` blocks; others of the same heights take their place.

    Return what the hub must hear, first of all that the blocks are gone. Orders carried out in
    them are back in the pool, once each; commands they ended are live.
    """
    assert spoke.undo is not None, "a chain that loses blocks keeps what they undo"
    chain, hub = spoke.policy.chain, spoke.policy.hub
    height, final = chain.height_at(now_us), chain.trusted_height_at(now_us)
    fork = Height(max(0, height - depth))
    lost = spoke.undo.lose(fork)
    if fork < spoke.epoch_height:
        spoke.epoch_height = height  # it begins again at once
    for fact in lost:
        _take_back(spoke, fact, now_us)
    orders = [Waiting(fact.order, fact.placed_us) for fact in lost if isinstance(fact, Traded)]
    spoke.pool = [*reversed(orders), *spoke.pool]
    effects: list[Effect] = [Forked(hub, fork, height, final)]
    for fact in reversed(lost):
        if isinstance(fact, Told):
            effects += _say_again(spoke, fact, now_us)
        elif isinstance(fact, Funded):
            funding.pay(spoke)
        elif isinstance(fact, Retold):
            effects += contract.tell_again(spoke, fact.family, now_us)
    return effects + spoke.reports(now_us)


def _take_back(spoke: SpokeState, fact: Fact, now_us: Micros) -> None:
    match fact:
        case TraderWas(account, None):
            del spoke.traders[account]
        case TraderWas(account, before):
            assert before is not None
            spoke.traders[account] = before
        case CreditWas():
            _reopen(spoke, fact, now_us)
        case Bought(asset, qty8):
            spoke.add_bought(asset, -qty8)
        case CommandWas(before):
            spoke.orders[before.command.liq_id] = before
            spoke.live[before.command.liq_id] = None


def _reopen(spoke: SpokeState, fact: CreditWas, now_us: Micros) -> None:
    """Hold a right as before its use or close, with what the hub has said of it since.

    If it has expired the next watermark closes it again, for it is behind that one. What was
    granted in an earlier epoch stays closed, whatever was used (P22).
    """
    known = spoke.credits[fact.rid]  # the hub lets nothing go whose close may be lost
    state = State.ACTIVE if known.spoke_epoch == spoke.spoke_epoch else State.CLOSED
    before = msgspec.structs.replace(known, state=state, used_usd6=fact.used_usd6)
    spoke.keep_credit(Outcome(before), now_us)
    if state is State.CLOSED:
        return
    heapq.heappush(spoke.expiries, (before.expires_at_us, before.rid))
    if fact.reason is CloseReason.REVOKED:
        spoke.revoked.append(fact.rid)


def _say_again(spoke: SpokeState, fact: Told, now_us: Micros) -> list[Effect]:
    """Repeat a request that has no answer, and what followed from the hub's words alone."""
    match fact.message:
        case ReservationRequested(rid=rid):
            wanted = rid in spoke.for_credit
        case ReservationClosed() | LiquidationDone():
            wanted = True
        case _:
            raise AssertionError(f"{fact.message!r} is a fact of a block")
    return [spoke.tell_ever(fact.message, now_us)] if wanted else []
