"""What must hold once faults and load have ended and everything has come to rest: E1 to E5.

Rule names are those of docs/invariants.md.
"""

from collections.abc import Collection, Iterable
from typing import TypeAlias

from hub.node import Hub
from hub.reservation import State
from lab.checkers import Checker
from messaging.endpoint import Endpoint
from messaging.errors import InvariantViolated
from messaging.messages import Family
from messaging.units import HUB, SECOND_US, Micros, NodeId
from spokes.node import Spoke
from spokes.reservation import State as Held

Said: TypeAlias = dict[tuple[NodeId, NodeId, Family], int]  # (from, to, family) -> last number


SLACK_US = 60 * SECOND_US  # a block and a slice, and more


def check(
    hub: Hub,
    spokes: Iterable[Spoke],
    endpoints: Iterable[Endpoint],
    said: Said,
    now_us: Micros,
    liars: Collection[NodeId] = (),
) -> None:
    """Check a world at rest; all that had been `said` must have been heard and acknowledged.

    What concerns one of the `liars` waits for a person.

    Raises:
        InvariantViolated: E1 to E5, and what was expected and found.
    """
    state = hub.state
    by_name = {spoke.name: spoke for spoke in spokes if spoke.name not in liars}
    written_off_usd6 = dict.fromkeys(by_name, 0)
    for known in state.reservations.values():
        if known.spoke in liars:
            continue
        _need("E2", not known.open, f"{known.rid.hex()} is still {known.state} at the hub")
        credit = by_name[known.spoke].state.credits.get(known.rid)
        if known.written_off:
            written_off_usd6[known.spoke] += known.encumbered_usd6
            continue  # it stays encumbered, whatever the spoke has used (P40)
        settled = known.carried or known.state is not State.SETTLED
        _need("E4", settled, f"{known.rid.hex()}: the positions do not carry its use")
        if credit is not None:
            agrees = credit.state is Held.CLOSED and credit.used_usd6 == known.used_usd6
            what = f"{known.rid.hex()} is {known.state} at the hub, {credit.state} at the spoke"
            _need("E1", agrees, what)
    for spoke in by_name.values():
        open_here = [credit for credit in spoke.state.credits.values() if not _ended(credit.state)]
        _need("E2", not open_here, f"{len(open_here)} reservations still open at {spoke.name}")
        closed_here = len(spoke.state.credits)
        _need("E3", not closed_here, f"{closed_here} closes of {spoke.name} not acknowledged")
        for liq_id in spoke.state.live:
            due_us = spoke.state.orders[liq_id].command.deadline_us
            what = f"command {liq_id.hex()} lives at {spoke.name} beyond its deadline"
            _need("E2", due_us > now_us - SLACK_US, what)
    for zone in state.zones:
        if zone.name in liars:
            continue
        _need("E5", not zone.overdue, f"{zone.name} is overdue with {len(zone.overdue)}")
        left_usd6 = zone.encumbered_usd6 - written_off_usd6[zone.name]
        _need("E4", not left_usd6, f"{left_usd6:,} still encumbered")
    for endpoint in endpoints:
        for (peer, family), outbox in endpoint.outboxes.items():
            if endpoint.name in liars or peer in liars:
                continue
            name, last = f"{endpoint.name}/{peer}/{family}", said[endpoint.name, peer, family]
            acked = next(iter(outbox.unacked), outbox.next_seq) - 1
            _need("E3", acked >= last, f"{name}: acknowledged to {acked}, said to {last}")
        for (peer, family), inbox in endpoint.inboxes.items():
            if endpoint.name in liars or peer in liars:
                continue
            name, last = f"{peer}/{endpoint.name}/{family}", said[peer, endpoint.name, family]
            _need("E3", inbox.next_seq > last, f"{name}: heard to {inbox.next_seq - 1} of {last}")


def said(endpoints: Iterable[Endpoint]) -> Said:
    """Return the last number of each channel now; later all up to it must have been heard."""
    return {
        (endpoint.name, peer, family): outbox.next_seq - 1
        for endpoint in endpoints
        for (peer, family), outbox in endpoint.outboxes.items()
    }


def _ended(state: Held) -> bool:
    return state is Held.CLOSED


def _need(rule: str, holds: bool, what: str) -> None:
    if not holds:
        raise InvariantViolated(rule, f"at rest: {what}")


def rested(
    checker: Checker,
    endpoints: Iterable[Endpoint],
    said: Said,
    now_us: Micros,
    liars: Collection[NodeId] = (),
) -> None:
    """Check everything there is, and that all but the `liars` have come to rest.

    Raises:
        InvariantViolated: something does not hold.
    """
    checker.sweep()
    nodes = {endpoint.name: endpoint for endpoint in endpoints}
    hub = nodes[HUB].node
    assert isinstance(hub, Hub)
    spokes = [one.node for one in nodes.values() if isinstance(one.node, Spoke)]
    check(hub, spokes, nodes.values(), said, now_us, liars)
