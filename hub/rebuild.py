"""A spoke has lost its memory and is rebuilt from its chain: what the hub makes of it (P61).

Its contract is on chain and knows what was used, so nothing of the hub's books changes. But all
that was under way to it or from it is lost, and credit of earlier epochs ends: it stays
encumbered in full until the contract has said of each how much was used, or that it knows no more.
"""

from hub import breaking, credit, rollback
from hub.reservation import Reservation
from hub.state import HubState
from hub.zone import Zone
from messaging.effects import Effect, Readmit, Refused, Send
from messaging.messages import ChainReorganised, Family, MarginSet
from messaging.node import Rejoined
from messaging.rebuilding import ChannelRebuilt, OldEpochsClosed
from messaging.units import Height, Micros, NodeId


def approve(hub: HubState, spoke: NodeId, spoke_epoch: int) -> list[Effect]:
    """Let a spoke come back in a later epoch, for people have said that it may (P24)."""
    zone = hub.zone_of.get(spoke)
    if zone is None:
        return [Refused(f"expected one of {', '.join(hub.zone_of)}, found {spoke}")]
    known = max(zone.epochs.values())
    if spoke_epoch <= known:
        return [Refused(f"expected an epoch of {spoke} after {known:,}, found {spoke_epoch:,}")]
    return [Readmit(spoke, spoke_epoch)]


def rejoined(hub: HubState, zone: Zone, event: Rejoined) -> list[Effect]:
    """Begin a channel to a rebuilt spoke anew, and say again what must not be lost on it."""
    family = event.family
    zone.epochs[family] = event.spoke_epoch
    word = ChannelRebuilt(spoke_epoch=event.spoke_epoch, base_epoch=event.base_epoch)
    effects: list[Effect] = [Send(zone.name, family, word)]
    if family is Family.RESERVATION:
        # What watermarks have claimed, they have claimed of the epochs before (P22).
        zone.marks.clear()
        zone.final_us = Micros(-1)
        zone.cut.begin_anew(event.base_seq, event.spoke_epoch)
    elif family is Family.MARGIN_STATE:
        effects += _statuses(hub, zone) + _breakers(hub, zone)
    else:
        effects += _commands(hub, zone)
    return effects


def _statuses(hub: HubState, zone: Zone) -> list[Effect]:
    """Say what each account may do that ever could not do all."""
    return [
        Send(
            zone.name,
            Family.MARGIN_STATE,
            MarginSet(
                account=account.id, margin_version=account.margin_version, status=account.status
            ),
        )
        for account in hub.accounts
        if account.margin_version
    ]


def _breakers(hub: HubState, zone: Zone) -> list[Effect]:
    """Say how far trading is stopped there, where that has ever changed (B5)."""
    return [
        Send(zone.name, Family.MARGIN_STATE, breaking.said(scope, breaker))
        for scope, breaker in hub.breakers.items()
        if breaker.version and (scope == zone.name or scope not in hub.zone_of)
    ]


def _commands(hub: HubState, zone: Zone) -> list[Effect]:
    """Give commands under way again, as they were: the spoke ends those that it does not know."""
    return [
        Send(zone.name, Family.LIQUIDATION, command.ordered)
        for liq_id, place in zone.commands.items()
        for command in hub.accounts[place].commands
        if command.ordered.liq_id == liq_id
    ]


def told(hub: HubState, zone: Zone, family: Family, word: ChannelRebuilt) -> list[Effect]:
    """Take back what the channel has told of blocks that were not final (P61).

    They may have been lost before the spoke was, and the word of it with its memory.
    """
    fork = zone.final_heights[family]
    lost = ChainReorganised(fork_height=fork, old_height=fork, base_epoch=word.base_epoch)
    return rollback.reorganised(hub, zone, family, lost, fork)


def closed(zone: Zone, word: OldEpochsClosed, height: Height) -> list[Effect]:
    """Note that the contract knows no others; it frees nothing before its block is final."""
    zone.old_closed.append((height, word.spoke_epoch))
    return []


def release(hub: HubState, zone: Zone) -> None:
    """Release what never reached the contract, for it said finally what did (P61)."""
    final_height = zone.final_heights[Family.RESERVATION]
    while zone.may_free and zone.old_closed and zone.old_closed[0][0] <= final_height:
        height, spoke_epoch = zone.old_closed.popleft()
        for known in list(hub.reservations.values()):
            if _never_arrived(zone, known, spoke_epoch):
                credit.end(hub, zone, known, f"unknown to the contract at final block {height}")


def _never_arrived(zone: Zone, known: Reservation, spoke_epoch: int) -> bool:
    return (
        known.open
        and known.spoke == zone.name
        and known.spoke_epoch < spoke_epoch
        and known.closed is None
        and known.rid not in zone.cut.quarantine
    )
