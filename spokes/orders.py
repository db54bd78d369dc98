"""Traders' orders at a spoke: reduce freely, open only within reserved credit."""

import heapq

import msgspec

from messaging.breakers import Level
from messaging.effects import Effect
from messaging.messages import CloseReason, MarginStatus, ReservationRequested
from messaging.units import AccountId, Asset, Micros, Qty8, ReservationId, Usd6, ratio_up, value_up
from spokes import reservation, venue
from spokes.reservation import Credit
from spokes.state import SpokeState, Waiting
from spokes.undo import CreditWas, Traded
from spokes.venue import Market


def execute(spoke: SpokeState, waiting: Waiting, now_us: Micros) -> list[Effect]:
    """Carry out an order in the block at `now_us`, or ask for the credit it needs."""
    order = waiting.order
    market = spoke.policy.markets[spoke.places[order.asset]]
    held_qty8 = spoke.trader(order.account).holding(order.asset).qty8
    wanted_qty8 = order.qty8
    if order.close_ppm:
        wanted_qty8 = Qty8(-(held_qty8 * order.close_ppm // 1_000_000))
    reducing_qty8 = 0
    if held_qty8 * wanted_qty8 < 0:
        reducing_qty8 = max(-abs(held_qty8), min(abs(held_qty8), wanted_qty8))
        _trade(spoke, waiting, market, reducing_qty8, _price(spoke, market, reducing_qty8))
    opening_qty8 = 0 if order.close_ppm else wanted_qty8 - reducing_qty8
    if opening_qty8 == 0:
        return []
    if not may_open(spoke, order.account, order.asset):
        spoke.refused += 1
        return []
    rest = msgspec.structs.replace(order, qty8=opening_qty8)
    return _open(spoke, Waiting(rest, waiting.placed_us), market, opening_qty8, now_us)


def may_open(spoke: SpokeState, account: AccountId, asset: Asset) -> bool:
    """Tell whether the hub lets the account raise its risk in the asset here (P66, P79, B5)."""
    if spoke.halted or spoke.doubts:
        return False
    for scope in (asset, spoke.policy.name):
        if spoke.breakers.get(scope, (0, Level.OPEN))[1] >= Level.REDUCE_ONLY:
            return False
    if spoke.status.get(account, (0, MarginStatus.OPEN))[1] != MarginStatus.OPEN:
        return False
    return all(spoke.orders[liq_id].command.account != account for liq_id in spoke.live)


def _open(
    spoke: SpokeState, waiting: Waiting, market: Market, qty8: int, now_us: Micros
) -> list[Effect]:
    """Open within a reservation that has room, else ask for one and wait."""
    order = waiting.order
    price_usd6 = _price(spoke, market, qty8)
    needed_usd6 = _credit_needed(market, qty8, price_usd6)
    chain_us = spoke.policy.chain.time_at(now_us)
    for rid in spoke.credits_of.get(order.account, ()):
        credit = spoke.credits[rid]
        if reservation.usable(credit, needed_usd6, chain_us):
            return _use(spoke, credit, needed_usd6, waiting, market, qty8, price_usd6, now_us)
    if now_us >= waiting.placed_us + spoke.policy.patience_us:
        spoke.refused += 1
        return []
    rid = spoke.next_reservation_id()
    asked_usd6 = ratio_up(needed_usd6, 1_000_000 + spoke.policy.headroom_ppm)
    request = ReservationRequested(
        rid=rid,
        account=order.account,
        amount_usd6=Usd6(asked_usd6),
        ttl_us=spoke.policy.ttl_us,
    )
    spoke.keep_credit(reservation.Outcome(Credit(rid=rid, account=order.account)), now_us)
    spoke.for_credit[rid] = waiting
    return [spoke.tell_ever(request, now_us)]


def _use(
    spoke: SpokeState,
    credit: Credit,
    amount_usd6: int,
    waiting: Waiting,
    market: Market,
    qty8: int,
    price_usd6: Usd6,
    now_us: Micros,
) -> list[Effect]:
    """Check, use and trade in one block (P46); give back what is hardly worth keeping."""
    outcome = reservation.use(credit, amount_usd6, spoke.policy.chain.time_at(now_us))
    spoke.note(CreditWas(credit.rid, credit.used_usd6, None))
    _trade(spoke, waiting, market, qty8, price_usd6)
    effects = spoke.keep_credit(outcome, now_us)
    if outcome.credit.left_usd6 < spoke.policy.dust_usd6:
        effects += close(spoke, credit.rid, CloseReason.DONE, now_us)
    return effects


def close(
    spoke: SpokeState, rid: ReservationId, reason: CloseReason, now_us: Micros
) -> list[Effect]:
    """Give a reservation back for good (P48). Unknown and closed ones are left alone."""
    credit = spoke.credits.get(rid)
    if credit is None or credit.state is not reservation.State.ACTIVE:
        return []
    spoke.note(CreditWas(rid, credit.used_usd6, reason))
    return spoke.keep_credit(reservation.close(credit, reason), now_us)


def expire(spoke: SpokeState, now_us: Micros) -> list[Effect]:
    """Close every right that has reached its expiry, before a watermark says so (P51)."""
    chain_us = spoke.policy.chain.time_at(now_us)
    effects: list[Effect] = []
    while spoke.expiries and spoke.expiries[0][0] <= chain_us:
        _, rid = heapq.heappop(spoke.expiries)
        credit = spoke.credits.get(rid)
        if credit is not None and credit.expires_at_us <= chain_us:
            effects += close(spoke, rid, CloseReason.EXPIRED, now_us)
    return effects


def _price(spoke: SpokeState, market: Market, qty8: int) -> Usd6:
    middle_usd6 = spoke.prices_usd6[spoke.places[market.asset]]
    return venue.fill_price_usd6(market, middle_usd6, qty8, spoke.depth_ppm)


def _credit_needed(market: Market, qty8: int, price_usd6: Usd6) -> int:
    """Return initial margin and fee of an opening fill [usd6], rounded up."""
    value_usd6 = value_up(abs(qty8), price_usd6)
    return ratio_up(value_usd6, market.initial_margin_ppm + market.fee_ppm)


def _trade(
    spoke: SpokeState, waiting: Waiting, market: Market, qty8: int, price_usd6: Usd6
) -> None:
    """Trade all of an order that closes a share, or this part of one for a quantity."""
    order = waiting.order
    if not order.close_ppm:
        order = msgspec.structs.replace(order, qty8=Qty8(qty8))
    spoke.note(Traded(order, waiting.placed_us))
    spoke.keep_trader(venue.trade(spoke.trader(order.account), market, qty8, price_usd6))
    spoke.bought(market.asset, qty8)
