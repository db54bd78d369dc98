"""What operators may order the hub to do about credit and about spokes (P24, P40, P62, P66, P68).

Each order comes here once, given by as many as it takes (P70). One that cannot be carried out
changes nothing and says what was expected and found.
"""

from hub import credit, rebuild
from hub.reservation import Reservation
from hub.state import HubState
from hub.zone import Zone
from messaging.effects import Effect, Refused, Send
from messaging.messages import ClosureAcknowledged, Family, HaltReason, SpokeResumed
from messaging.node import Approved
from messaging.operator_orders import EpochNamed, PeerNamed, ReservationNamed, Verb
from messaging.units import NodeId, ReservationId


def carry_out(hub: HubState, approved: Approved) -> list[Effect]:
    """Do what operators have ordered, or say why not."""
    order, target = approved.order, approved.order.target
    if type(target) is EpochNamed:
        return rebuild.approve(hub, target.spoke, target.spoke_epoch)
    if type(target) is PeerNamed:
        return _about(hub, order.verb, target.peer)
    assert type(target) is ReservationNamed
    known = hub.reservations.get(ReservationId(target.rid))
    if known is None or not known.open:
        found = "none" if known is None else f"a {known.state} one"
        return [Refused(f"expected a reservation that is held or overdue, found {found}")]
    zone = hub.zone_of[known.spoke]
    by = f"operators {', '.join(approved.operators)}: {order.reason}"
    if order.verb is Verb.WRITE_OFF:
        credit.write_off(hub, zone, known, by)
    else:
        assert order.verb is Verb.RELEASE_QUARANTINE
        why = _not_releasable(zone, known)
        if why:
            return [Refused(why)]
        credit.end(hub, zone, known, f"final watermark at {zone.final_us} us, and {by}")
    final_height = zone.final_heights[Family.RESERVATION]
    if known.closed is None or known.close_height > final_height:
        return []
    # A close that became final in quarantine is acknowledged with nothing else.
    return [Send(zone.name, Family.RESERVATION, ClosureAcknowledged(rid=known.rid))]


def _not_releasable(zone: Zone, known: Reservation) -> str:
    """Return why a reservation cannot be let out of quarantine, or nothing.

    People decide whose books are right. That the spoke uses it no more takes its own word all
    the same: it does not tell of it any more, and its final time is past the expiry (P37).
    """
    line = zone.cut.quarantine.get(known.rid)
    if line is None:
        return "expected a reservation in quarantine, found one that is not"
    if zone.halted is not None:
        return f"expected a spoke that is trusted, found {zone.name} halted: {zone.halted}"
    if line.spoke is not None:
        return f"expected a reservation that {zone.name} does not hold, found it active there"
    if zone.final_us < known.expires_max_us:
        expected = f"a final time past the expiry, {known.expires_max_us:,} us"
        return f"expected {expected}, found {zone.final_us:,} us: it may still be used"
    return ""


def _about(hub: HubState, verb: Verb, name: NodeId) -> list[Effect]:
    zone = hub.zone_of.get(name)
    if zone is None:
        return [Refused(f"expected one of {', '.join(hub.zone_of)}, found {name}")]
    if verb is Verb.REVOKE:
        return credit.halt(zone, HaltReason.KEY_REVOKED)
    assert verb is Verb.RESUME
    return _resume(zone)


def _resume(zone: Zone) -> list[Effect]:
    """Trust a halted spoke again, and tell it so.

    It also ends a freeze that no digest can: there is none of reports and liquidations (P71).
    """
    beyond = [family for family in zone.frozen if family is not Family.RESERVATION]
    if zone.halted is None and not beyond:
        return [Refused(f"expected a spoke that is halted, found {zone.name} trusted")]
    for family in beyond:
        del zone.frozen[family]
    if zone.halted is None:
        return []
    zone.halted = None
    return [Send(zone.name, Family.RESERVATION, SpokeResumed(spoke=zone.name))]
