"""What one spoke has told the hub, gathered from the frames themselves.

The checks judge the hub by this, and not by what the hub has made of it.
"""

from messaging.envelope import Envelope
from messaging.messages import (
    ChainReorganised,
    Family,
    ReservationClosed,
    StateReported,
    Watermark,
)
from messaging.rebuilding import ChannelRebuilt, OldEpochsClosed
from messaging.units import AccountId, Height, Micros, ReservationId


class Evidence:
    """Everything final, and everything that waits to be.

    Attributes:
        final_heights: newest final block heard, by family (P52).
        final_us: largest chain time of a final watermark of `reservation` (P37).
        covered: largest height of a final watermark of `margin-state` (P54).
        told_us: chain time of the newest watermark of `margin-state` (M4).
        closed: block of each reservation's close.
        reports: block of each report, by account and version.
        violated: the last word on lost blocks has called a final one lost (P56).
        spoke_epoch: of the spoke; `final_us` is of this one alone.
        ended_epoch: all reservations of epochs before this one have ended, finally (P61).
    """

    def __init__(self) -> None:
        self.final_heights = {
            Family.RESERVATION: Height(-1),
            Family.MARGIN_STATE: Height(-1),
            Family.LIQUIDATION: Height(-1),
        }
        self.final_us = Micros(-1)
        self.covered = Height(-1)
        self.told_us = Micros(0)
        self.closed: dict[ReservationId, Height] = {}
        self.reports: dict[tuple[AccountId, int], Height] = {}
        self.violated = False
        self.spoke_epoch = self.ended_epoch = 1
        self._ended: list[tuple[Height, int]] = []
        self._covered_us = Micros(0)
        self._marks: dict[Family, list[tuple[Height, Micros]]] = {
            family: [] for family in self.final_heights
        }

    def hear(self, frame: Envelope) -> None:
        """Take in a frame of a channel, in order."""
        message, family, height = frame.message, frame.family, frame.height
        if type(message) is Watermark:
            self._marks[family].append((height, message.spoke_time_us))
            if family is Family.MARGIN_STATE:
                self.told_us = max(self.told_us, message.spoke_time_us)
        elif type(message) is ReservationClosed:
            self.closed.setdefault(message.rid, height)
        elif type(message) is StateReported:
            self.reports.setdefault((message.account, message.version), height)
        elif type(message) is ChainReorganised:
            final = max(self.final_heights[family], frame.final_height)
            self.violated = message.fork_height < final
            self._lose(family, max(message.fork_height, final))
        elif type(message) is ChannelRebuilt:
            self.violated = False
            self._lose(family, self.final_heights[family])
            if family is Family.RESERVATION:
                self._marks[family].clear()
                self.final_us, self.spoke_epoch = Micros(-1), message.spoke_epoch
        elif type(message) is OldEpochsClosed:
            self._ended.append((height, message.spoke_epoch))
        final_height = max(self.final_heights[family], frame.final_height)
        self.final_heights[family] = final_height
        while self._ended and self._ended[0][0] <= self.final_heights[Family.RESERVATION]:
            self.ended_epoch = self._ended.pop(0)[1]
        marks = self._marks[family]
        while marks and marks[0][0] <= final_height:
            mark_height, mark_us = marks.pop(0)
            if family is Family.RESERVATION:
                self.final_us = max(self.final_us, mark_us)
            elif family is Family.MARGIN_STATE:
                self.covered = max(self.covered, mark_height)
                self._covered_us = max(self._covered_us, mark_us)

    def _lose(self, family: Family, fork: Height) -> None:
        """Forget what was told of lost blocks."""
        self._marks[family] = [mark for mark in self._marks[family] if mark[0] <= fork]
        if family is Family.RESERVATION:
            self._ended = [one for one in self._ended if one[0] <= fork]
            self.closed = {rid: at for rid, at in self.closed.items() if at <= fork}
        elif family is Family.MARGIN_STATE:
            self.reports = {key: at for key, at in self.reports.items() if at <= fork}
            left = [mark_us for _, mark_us in self._marks[family]]
            self.told_us = max([self._covered_us, *left])

    def report_is_final(self, account: AccountId, version: int) -> bool:
        """Tell whether a report was heard, and its block is final (P53); 0 is none at all."""
        if version == 0:  # a hub that was put back may know of none yet
            return True
        height = self.reports.get((account, version))
        return height is not None and height <= self.final_heights[Family.MARGIN_STATE]
