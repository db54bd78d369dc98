"""What the hub must remember of a spoke's channel to compare views at an equal cut (P59).

The channel is in order both ways. So when a message of the spoke is taken in, the hub knows
all that the spoke had said before it; and what the spoke had heard before it, it says itself,
as a number of the opposite channel. The hub leaves out what it granted after that number.
"""

from collections import deque
from collections.abc import Mapping

from hub.reconciliation import Line, Reconciliation
from hub.reservation import Reservation
from messaging.digests import BucketsAsked, CreditRow, RowsAsked
from messaging.messages import Message, ReservationGranted
from messaging.open_rows import OpenRows
from messaging.units import ReservationId

REPORTS_MAX = 16


class Cut:
    """The hub's view of one spoke's open reservations, as far as the spoke has heard.

    Attributes:
        spoke_epoch: of the reservations that are compared (P59).
        sent_seq: number of the last message to the spoke on `reservation`.
        heard_seq: the last of them that the spoke says it has applied.
        rows: open reservations, without a close, whose grant it has applied.
        unheard: the others: id -> number that the grant left under.
        asked_seq: number of the question that has no answer yet; 0 if there is none.
        asked_buckets: buckets whose rows were asked for; none while their hashes were.
        pages: what has come of that answer.
        quarantine: reservations that nothing but agreement or a person releases (P62).
        compared, unequal: digests at an equal cut, and those that were not the hub's own.
        incomparable: digests that named a cut which cannot be.
        reports: the latest findings.
    """

    def __init__(self) -> None:
        self.sent_seq = 0
        self.spoke_epoch = 1
        self.heard_seq = 0
        self.rows = OpenRows()
        self.unheard: dict[ReservationId, int] = {}
        self.asked_seq = 0
        self.asked_buckets: tuple[int, ...] = ()
        self.pages: list[tuple[CreditRow, ...]] = []
        self.quarantine: dict[ReservationId, Line] = {}
        self.compared = 0
        self.unequal = 0
        self.incomparable = 0
        self.reports: deque[Reconciliation] = deque(maxlen=REPORTS_MAX)

    def begin_anew(self, sent_seq: int, spoke_epoch: int) -> None:
        """Compare nothing that was granted so far; it ends with its epoch (P61)."""
        self.sent_seq = self.heard_seq = sent_seq
        self.rows = OpenRows()
        self.unheard.clear()
        self.asked_seq, self.asked_buckets = 0, ()
        self.pages.clear()
        self.spoke_epoch = spoke_epoch

    def note(self, known: Reservation) -> None:
        """Follow a reservation that has changed; with its close it is open no more."""
        if not known.open or known.closed is not None:
            self.rows.drop(known.rid)
            self.unheard.pop(known.rid, None)
        elif known.rid in self.rows:
            self.rows.put(row(known))

    def left(self, message: Message, reservations: Mapping[ReservationId, Reservation]) -> None:
        """Note that a message leaves to the spoke, and under which number."""
        self.sent_seq += 1
        kind = type(message)
        if kind is ReservationGranted:
            rid = message.rid  # type: ignore[union-attr]
            known = reservations[rid]
            theirs = known.spoke_epoch == self.spoke_epoch and rid not in self.rows
            if known.open and known.closed is None and theirs:
                self.unheard.setdefault(rid, self.sent_seq)
        elif kind is BucketsAsked or kind is RowsAsked:
            self.asked_seq = self.sent_seq

    def reach(self, at_seq_in: int, reservations: Mapping[ReservationId, Reservation]) -> bool:
        """Go on to a cut; tell whether there can be such a one."""
        if not self.heard_seq <= at_seq_in <= self.sent_seq:
            return False
        self.heard_seq = at_seq_in
        while self.unheard:
            rid = next(iter(self.unheard))
            if self.unheard[rid] > at_seq_in:
                break
            del self.unheard[rid]
            self.rows.put(row(reservations[rid]))
        return True


def row(known: Reservation) -> CreditRow:
    """Return what is compared of a reservation."""
    return CreditRow(rid=known.rid, amount_usd6=known.amount_usd6, used_usd6=known.used_usd6)
