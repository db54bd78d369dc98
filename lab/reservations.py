"""One reservation at a time: what was granted, and its past at hub and spoke (INV1, INV3 to INV7).

And what all those of an account encumber (INV2), and that none is granted in spite of a breaker
(INV17).
"""

from collections.abc import Callable, Collection, Iterable, Mapping

from hub import reservation
from hub.breakers import Breaker
from hub.reservation import Reservation
from hub.state import HubState
from lab.evidence import Evidence
from lab.standing import Standing
from lab.tally import Tally
from messaging.effects import Send
from messaging.messages import Family, ReservationGranted, ReservationRenewed
from messaging.units import HUB, AccountId, Micros, NodeId, ReservationId, Usd6
from spokes.node import Spoke
from spokes.reservation import Credit
from spokes.reservation import State as Held

IDLE = Breaker()
FINAL_STATES = (
    reservation.State.RELEASED,
    reservation.State.SETTLED,
    reservation.State.REJECTED,
)


class Reservations:
    """Every reservation as it was last seen on either side, and what was granted.

    Attributes:
        spoke_us: the time of each spoke's last event.
    """

    def __init__(
        self,
        hub: HubState,
        spokes: Mapping[NodeId, Spoke],
        accounts: Iterable[AccountId],
        evidence: Mapping[NodeId, Evidence],
        standing: Standing,
        tally: Tally,
        *,
        liars: Collection[NodeId],
        in_doubt: Callable[[NodeId], bool],
    ) -> None:
        """Begin before anything is granted; `spokes` are those followed, at any time.

        Nothing is compared with a node while it is `in_doubt` which process of it will stand.
        """
        self._hub = hub
        self._spokes = spokes
        self._evidence = evidence
        self._standing = standing
        self._tally = tally
        self._liars = liars
        self._in_doubt = in_doubt
        self._hub_seen: dict[ReservationId, Reservation] = {}
        self._spoke_seen: dict[ReservationId, Credit] = {}
        self._expires_max_us: dict[ReservationId, Micros] = {}
        self._granted_usd6: dict[ReservationId, Usd6] = {}
        self._epochs: dict[ReservationId, int] = {}
        self._encumbered_usd6: dict[AccountId, int] = dict.fromkeys(accounts, 0)
        self.spoke_us: dict[NodeId, Micros] = dict.fromkeys(spokes, Micros(0))

    def follow(self, hub: HubState) -> None:
        """Look at a hub from now on."""
        self._hub = hub

    def adopt_hub(self) -> None:
        """Take what the hub knows, which was put back to an older state, for its past."""
        hub = self._hub
        self._hub_seen = dict(hub.reservations)
        # What it has granted and lost is fenced: no spoke had heard of it, none will.
        known = hub.reservations.values()
        granted = {one.rid for one in known if one.state is not reservation.State.REJECTED}
        for rid in self._granted_usd6.keys() - granted:
            del self._granted_usd6[rid]
        for account in self._encumbered_usd6:
            self._encumbered_usd6[account] = hub.ledger.reserved_usd6(account)

    def adopt_spoke(self, spoke: Spoke) -> None:
        """Take what a spoke knows, which was put back to an older state, for its past."""
        self._spoke_seen |= spoke.state.credits

    def note_grant(self, frame: Send, now_us: Micros) -> None:
        """Remember what the hub has promised, from its own words.

        Raises:
            InvariantViolated: INV1, INV5, INV6, INV17.
        """
        message = frame.message
        if type(message) is ReservationGranted:
            rid, amount_usd6 = message.rid, message.amount_usd6
            again = rid in self._granted_usd6  # the first answer, given again (P32)
            first_usd6 = self._granted_usd6.setdefault(rid, amount_usd6)
            self._epochs.setdefault(rid, message.spoke_epoch)
            self._tally.need("INV6", amount_usd6, first_usd6, f"amount granted to {rid.hex()}")
            self._expires_max_us[rid] = max(
                message.expires_at_us, self._expires_max_us.get(rid, Micros(0))
            )
            reserved_usd6 = self._hub.ledger.reserved_usd6(message.account)
            account = self._hub.accounts[self._hub.place_of[message.account]]
            within = again or reserved_usd6 <= self._standing.capacity_usd6(
                self._hub, account, now_us
            )
            what = f"{message.account} has {reserved_usd6:,} usd6 reserved beyond its capacity"
            self._tally.hold("INV1", within, what, message.amount_usd6)
            hub = self._hub
            stops = [
                scope for scope in (frame.to, *hub.places) if hub.breakers.get(scope, IDLE).level
            ]
            self._tally.hold(
                "INV17", again or not stops, f"credit at {frame.to} in spite of", stops
            )
        elif type(message) is ReservationRenewed:
            before_us = self._expires_max_us[message.rid]
            self._tally.hold("INV5", message.expires_at_us >= before_us, "an expiry fell", message)
            self._expires_max_us[message.rid] = message.expires_at_us

    def check_changed(self, *, lost: bool) -> None:
        """Check what the hub's event has changed; `lost` if it takes blocks back.

        Raises:
            InvariantViolated: INV2 to INV7.
        """
        hub = self._hub
        self._check_encumbered()
        for rid in hub.changed_rids:
            self._check_reservation(hub.reservations[rid], lost=lost)

    def _check_encumbered(self) -> None:
        """What the ledger holds back of an account is what its reservations encumber (INV2)."""
        hub, concerned = self._hub, set()
        for rid in hub.changed_rids:
            known, seen = hub.reservations[rid], self._hub_seen.get(rid)
            if known.account in self._encumbered_usd6:
                before_usd6 = 0 if seen is None else seen.encumbered_usd6
                self._encumbered_usd6[known.account] += known.encumbered_usd6 - before_usd6
                concerned.add(known.account)
        for account in sorted(concerned):
            reserved_usd6, encumbered = hub.ledger.reserved_usd6(account), self._encumbered_usd6
            self._tally.need("INV2", reserved_usd6, encumbered[account], f"reserved of {account}")

    def _check_reservation(self, known: Reservation, *, lost: bool) -> None:
        """Check one reservation of the hub against its past, the books and its spoke."""
        rid, seen = known.rid, self._hub_seen.get(known.rid)
        self._hub_seen[rid] = known
        in_bounds = 0 <= known.used_usd6 <= known.amount_usd6 or known.spoke in self._liars
        self._tally.hold("INV5", in_bounds, "used beyond the amount", known)
        if seen is not None:
            fell = (
                (known.used_usd6 < seen.used_usd6 and not lost)  # then INV14 says to what
                or known.expires_max_us < seen.expires_max_us
                or known.grant_version < seen.grant_version
            )
            self._tally.hold("INV5", not fell, "used, expiry or version fell", known)
            left = seen.state in FINAL_STATES and known.state is not seen.state
            self._tally.hold("INV6", not left, f"left its final state {seen.state}", known)
        if known.carried and not (seen is not None and seen.carried):
            covered = self._evidence[known.spoke].covered >= known.use_height
            self._tally.hold("INV3", covered, "carried before final reports cover its use", known)
        fresh_end = seen is None or seen.open
        if known.written_off:
            whole = known.encumbered_usd6 >= known.amount_usd6
            self._tally.hold("INV7", whole, "written off, and some of it is free", known)
        elif known.state in (reservation.State.RELEASED, reservation.State.SETTLED) and fresh_end:
            self._check_release(known)
        self._check_both(known, self._spokes[known.spoke])

    def _check_release(self, known: Reservation) -> None:
        """A release rests on a final close, or a final watermark past every expiry (INV7)."""
        heard = self._evidence[known.spoke]
        height = heard.closed.get(known.rid)
        by_close = height is not None and height <= heard.final_heights[Family.RESERVATION]
        epoch = self._epochs[known.rid]
        late = heard.final_us >= self._expires_max_us[known.rid]
        by_mark = late and epoch == heard.spoke_epoch
        by_epoch = epoch < heard.ended_epoch
        found = by_close or by_mark or by_epoch
        self._tally.hold("INV7", found, "released without final evidence", known)
        quarantined = known.rid in self._hub.zone_of[known.spoke].cut.quarantine
        self._tally.hold("INV7", not quarantined, "released from quarantine", known)

    def check_credit(self, spoke: Spoke, rid: ReservationId, *, lost: bool) -> None:
        """Check one reservation of a spoke against its past and the hub; `lost` as above.

        Raises:
            InvariantViolated: INV1, INV3 to INV6.
        """
        credit = spoke.state.credits.get(rid)
        if credit is None:
            return
        seen, known = self._spoke_seen.get(rid), self._hub.reservations.get(rid)
        self._spoke_seen[rid] = credit
        if seen is not None:
            revived = seen.state is Held.CLOSED and credit.state is not Held.CLOSED
            final = known is not None and not known.open and not known.written_off
            stands = not lost or final  # what is ended at the hub was final here
            self._tally.hold(
                "INV6", not (revived and stands), "a closed reservation opened again", credit
            )
            fell = credit.used_usd6 < seen.used_usd6
            self._tally.hold("INV5", not (fell and stands), "used fell", credit)
        granted_usd6 = self._granted_usd6.get(rid, 0)
        self._tally.hold("INV1", credit.used_usd6 <= granted_usd6, "used more than granted", credit)
        if known is not None:
            self._check_both(known, spoke)
        elif not self._in_doubt(HUB):
            self._tally.hold(
                "INV4", credit.state is not Held.ACTIVE, "active, unknown to hub", credit
            )

    def _check_both(self, known: Reservation, spoke: Spoke) -> None:
        """What a spoke may still use or has used is encumbered at the hub (INV3, INV4)."""
        credit = spoke.state.credits.get(known.rid)
        if credit is None or known.spoke in self._liars:
            return
        if self._in_doubt(spoke.name) or self._in_doubt(HUB):
            return
        claim_usd6 = credit.used_usd6
        if credit.state is Held.ACTIVE:
            held = known.open or known.written_off
            self._tally.hold("INV4", held, "active at the spoke, ended at the hub", known)
            claim_usd6 = credit.amount_usd6
        elif credit.state is Held.REQUESTED and known.rid in self._granted_usd6:
            # A grant under way can still be taken, until its last expiry on the spoke's chain.
            chain_us = spoke.state.policy.chain.time_at(self.spoke_us[spoke.name])
            if chain_us < self._expires_max_us[known.rid]:
                claim_usd6 = self._granted_usd6[known.rid]
        if not known.carried:
            held = claim_usd6 <= known.encumbered_usd6
            self._tally.hold("INV3", held, f"the spoke may claim {claim_usd6}", known)
