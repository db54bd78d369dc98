"""What the hub should know of one spoke's blocks that are not final: a fold of its canonical log.

Frames that a reorganisation takes back are found by their numbers and cut off, in code of its own;
the hub finds what to undo by heights. The two must agree (INV14).
"""

from collections import defaultdict, deque
from typing import NamedTuple

from hub.state import HubState
from hub.zone import Zone
from messaging.envelope import Envelope
from messaging.errors import InvariantViolated
from messaging.link_control import KeyRotated
from messaging.messages import (
    ChainReorganised,
    CreditUsed,
    Family,
    ReservationClosed,
    StateReported,
    Watermark,
)
from messaging.rebuilding import ChannelRebuilt
from messaging.units import AccountId, Height, Micros, ReservationId


class _Line(NamedTuple):
    seq: int
    height: Height
    message: object


class _Facts:
    """A fold of frames: use and close by reservation, newest report by account, newest time."""

    def __init__(self) -> None:
        self.used_usd6: dict[ReservationId, int] = {}
        self.closed: dict[ReservationId, None] = {}
        self.reports: dict[AccountId, StateReported] = {}
        self.time_us = Micros(0)

    def add(self, message: object) -> None:
        """Add a frame's word, behind all before it."""
        match message:
            case CreditUsed(rid=rid, used_usd6=usd6):
                self.used_usd6[rid] = max(usd6, self.used_usd6.get(rid, 0))
            case ReservationClosed(rid=rid, used_usd6=usd6):
                self.used_usd6[rid] = max(usd6, self.used_usd6.get(rid, 0))
                self.closed[rid] = None
            case StateReported(account=account):
                self.reports[account] = message
            case Watermark(spoke_time_us=time_us):
                self.time_us = time_us


class Overlay:
    """The log of one spoke, per channel: what is final folded, the rest line by line."""

    def __init__(self) -> None:
        self._final: defaultdict[Family, _Facts] = defaultdict(_Facts)
        self._soft: defaultdict[Family, deque[_Line]] = defaultdict(deque)
        # Numbers up to here are never taken back: of what they told only heights tell (P61, P67).
        self._kept_seq: dict[Family, int] = {}

    def hear(self, frame: Envelope) -> bool:
        """Take in a frame in order; tell whether it took others back."""
        soft, message = self._soft[frame.family], frame.message
        if type(message) is KeyRotated:
            self._kept_seq[frame.family] = frame.seq
            return False
        lost = isinstance(message, ChainReorganised | ChannelRebuilt)
        if isinstance(message, ChainReorganised):
            self._settle(frame)  # what the word itself calls final is not lost (P56)
        while lost and soft and soft[-1].seq >= frame.seq:
            soft.pop()
        if isinstance(message, ChannelRebuilt):
            self._kept_seq[frame.family] = frame.seq - 1
            soft.clear()
        elif isinstance(message, ChainReorganised):
            self._leave_out(frame.family, message.fork_height)
        soft.append(_Line(frame.seq, frame.height, frame.message))
        self._settle(frame)
        return lost

    def _settle(self, frame: Envelope) -> None:
        """Fold what is final now."""
        final, soft = self._final[frame.family], self._soft[frame.family]
        while soft and soft[0].height <= frame.final_height:
            final.add(soft.popleft().message)

    def _leave_out(self, family: Family, fork_height: Height) -> None:
        """Cut off what numbers that are kept have told of lost blocks."""
        kept_seq, soft = self._kept_seq.get(family, 0), self._soft[family]
        stand = [line for line in soft if line.seq > kept_seq or line.height <= fork_height]
        soft.clear()
        soft.extend(stand)

    def check(self, hub: HubState, zone: Zone, family: Family) -> None:
        """Compare the hub's view of one channel with the log.

        Raises:
            InvariantViolated: INV14.
        """
        found, final = _Facts(), self._final[family]
        found.used_usd6, found.closed = dict(final.used_usd6), dict(final.closed)
        found.reports, found.time_us = dict(final.reports), final.time_us
        for line in self._soft[family]:
            found.add(line.message)
        where = f"{zone.name}/{family}"
        self._need(where, "time", zone.last_time_us.get(family, 0), found.time_us)
        if family is Family.RESERVATION:
            for known in hub.reservations.values():
                if known.spoke == zone.name and known.open:
                    rid, used_usd6 = known.rid, found.used_usd6.get(known.rid, 0)
                    self._need(where, f"used of {rid.hex()}", known.used_usd6, used_usd6)
                    closed = known.closed is not None
                    self._need(where, f"close of {rid.hex()}", closed, rid in found.closed)
        elif family is Family.MARGIN_STATE:
            for account in hub.accounts:
                latest = account.views[zone.place].latest
                told = found.reports.get(account.id)
                same = latest == told if told is not None else latest.version == 0
                self._need(where, f"report of {account.id}", same, True)

    def _need(self, where: str, what: str, found: object, expected: object) -> None:
        if found != expected:
            finding = f"{where}: {what} after a reorganisation: expected {expected}, found {found}"
            raise InvariantViolated("INV14", finding)
