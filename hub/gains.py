"""Gains that are final and do not count yet: for a while, or beyond what a zone may win.

A spoke's word is all the hub has of a gain, and credit everywhere may rest on it. Rule L9 of
docs/margin.md, P2 of docs/protocol.md. Losses always count at once.
"""

from hub import ledger
from hub.account import Account
from hub.state import HubState
from hub.zone import Held, Zone
from messaging.units import Micros


def book(
    hub: HubState,
    zone: Zone,
    account: Account,
    *,
    realised_usd6: int,
    cash_before_usd6: int,
    now_us: Micros,
) -> None:
    """Follow a posting of realised P&L: hold back what of a gain may not count yet.

    A loss makes room for others' gains, as far as the loser had the cash: what he did not have,
    nobody brought.

    Args:
        hub: whose ledger has the posting already.
        zone: where the P&L comes from.
        account: whose it is.
        realised_usd6: what the posting added; negative for a loss.
        cash_before_usd6: the account's cash before it.
        now_us: hub time.
    """
    if realised_usd6 <= 0:
        zone.won_usd6 -= min(-realised_usd6, max(0, cash_before_usd6))
        return
    room_usd6 = max(0, zone.policy.cap_usd6 - zone.won_usd6)
    at_once = zone.policy.hold_us == 0 and not zone.held
    counts_usd6 = min(realised_usd6, room_usd6) if at_once else 0
    zone.won_usd6 += counts_usd6
    waits_usd6 = realised_usd6 - counts_usd6
    if waits_usd6:
        hub.ledger.hold(zone.name, account.id, waits_usd6)
        due_us = Micros(now_us + zone.policy.hold_us)
        zone.held.append(Held(due_us, account.place, waits_usd6))
        zone.held_usd6 += waits_usd6


def tend(hub: HubState, zone: Zone, now_us: Micros) -> None:
    """Let gains count that have waited long enough, oldest first, as far as there is room.

    The hub's clock may make a gain wait, never count before it is final. Nothing of a halted
    spoke comes through, nor while a frame of it was passed over (P66, P71).
    """
    while zone.held and zone.held[0].due_us <= now_us and zone.may_free:
        due_us, place, waits_usd6 = zone.held.popleft()
        counts_usd6 = min(waits_usd6, max(0, zone.policy.cap_usd6 - zone.won_usd6))
        if counts_usd6 < waits_usd6:
            zone.held.appendleft(Held(due_us, place, waits_usd6 - counts_usd6))
        if counts_usd6 == 0:
            return
        account = hub.accounts[place]
        hub.ledger.post(ledger.hold(zone.name, account.id, -counts_usd6))
        zone.won_usd6 += counts_usd6
        zone.held_usd6 -= counts_usd6
        hub.changed[place] = None
        hub.book.set_cash(place, hub.ledger.cash_usd6(account.id))
        hub.look_due = True
