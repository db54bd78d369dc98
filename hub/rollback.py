"""A spoke's chain has lost blocks: what the hub takes back of what it was told (P55).

What raises counted at receipt and what lowers has waited for finality (P53), so only what is not
final is undone, and no posting is. Each channel is rolled back by its own word, in its own time.
"""

import heapq
from collections.abc import Iterable

import msgspec

from hub import credit, liquidation, positions
from hub.account import SpokeView, see
from hub.cut import row
from hub.reservation import Reservation
from hub.state import HubState
from hub.zone import Ended, Zone
from messaging.effects import Effect
from messaging.messages import ChainReorganised, Family, HaltReason
from messaging.units import Height, Micros


def reorganised(
    hub: HubState, zone: Zone, family: Family, lost: ChainReorganised, final_height: Height
) -> list[Effect]:
    """Undo what one channel has told of lost blocks; a final one halts the spoke (P56).

    `final_height` is what the word itself calls final.
    """
    effects: list[Effect] = []
    fork, final = lost.fork_height, max(zone.final_heights[family], final_height)
    if fork < final:
        effects = credit.halt(zone, HaltReason.FINALITY_VIOLATED)
        fork = final
    _turn_back(zone, family, fork)
    if family is Family.RESERVATION:
        _undo_uses(hub, zone, fork)
        _undo_closes(hub, zone, fork)
        zone.marks = type(zone.marks)(mark for mark in zone.marks if mark[0] <= fork)
        zone.old_closed = type(zone.old_closed)(one for one in zone.old_closed if one[0] <= fork)
    elif family is Family.MARGIN_STATE:
        _undo_reports(hub, zone, fork)
        _keep_commands(hub, zone, zone.ended)
    else:
        _undo_ends(hub, zone, fork)
    hub.look_due = True
    return effects


def _turn_back(zone: Zone, family: Family, fork: Height) -> None:
    """Hear the channel's last watermark anew: what a spoke tells is older again."""
    times = zone.times[family]
    while times and times[-1][0] > fork:
        times.pop()
    zone.last_time_us[family] = times[-1][1] if times else Micros(0)
    zone.heard_us = max(zone.last_time_us.values())
    if family is Family.MARGIN_STATE:
        zone.state_us = zone.last_time_us[family]


def _undo_uses(hub: HubState, zone: Zone, fork: Height) -> None:
    while zone.uses and zone.uses[-1].height > fork:
        undone = zone.uses.pop()
        known = hub.reservations[undone.rid]
        if known.open:  # else it ended against the rules: the larger use stays booked (P35)
            before = msgspec.structs.replace(
                known, used_usd6=undone.used_usd6, use_height=undone.use_height
            )
            credit.replace(hub, zone, known, before)


def _undo_closes(hub: HubState, zone: Zone, fork: Height) -> None:
    """Wait for the close of a reservation again, with all that keeps it from release."""
    lost = [rid for height, rid in zone.closes if height > fork]
    zone.closes = type(zone.closes)(close for close in zone.closes if close[0] <= fork)
    for rid in lost:
        known = hub.reservations[rid]
        if known.open and known.closed is not None and known.close_height > fork:
            _reopen(hub, zone, known)


def _reopen(hub: HubState, zone: Zone, known: Reservation) -> None:
    before = msgspec.structs.replace(known, closed=None, close_height=Height(0))
    credit.replace(hub, zone, known, before)
    if zone.speaks_of(before.spoke_epoch):
        zone.cut.rows.put(row(before))  # the spoke had heard of it, to close it
    heapq.heappush(zone.expiries, (before.expires_max_us, before.rid))


def _undo_reports(hub: HubState, zone: Zone, fork: Height) -> None:
    """Go back to each account's newest report that stands; final ones always do."""
    zone.covers = type(zone.covers)(height for height in zone.covers if height <= fork)
    places = {place: None for height, place in zone.waiting if height > fork}
    zone.waiting = type(zone.waiting)(one for one in zone.waiting if one[0] <= fork)
    for place in places:
        account = hub.accounts[place]
        view = account.views[zone.place]
        waiting = tuple(one for one in view.waiting if one[0] <= fork)
        latest = waiting[-1][1] if waiting else view.settled
        before = SpokeView(latest, view.settled, waiting)
        positions.carry(hub, zone, place, before)
        hub.keep(see(account, zone.place, before))


def _keep_commands(hub: HubState, zone: Zone, ended: Iterable[Ended]) -> None:
    """Count commands as under way again whose outcome is reported no more (rule L8)."""
    for one in ended:
        account, done = hub.accounts[one.place], one.command.done
        assert done is not None
        reported = account.views[zone.place].latest.version >= done.state_version
        if not reported and not account.closed_out:
            hub.keep(liquidation.under_way(account, one.command))


def _undo_ends(hub: HubState, zone: Zone, fork: Height) -> None:
    """Count commands as under way again whose end is lost; the spoke goes on with them."""
    while zone.ended and zone.ended[-1].height > fork:
        one = zone.ended.pop()
        command = msgspec.structs.replace(one.command, done=None)
        zone.commands[command.ordered.liq_id] = one.place
        account = hub.accounts[one.place]
        if not account.closed_out:
            hub.keep(liquidation.under_way(account, command))
