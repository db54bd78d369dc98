"""What one spoke has vouched for on its three channels, from its frames alone (W2)."""

from collections import deque

from lab.monitor.docket import Docket
from messaging.envelope import Envelope
from messaging.link_control import KeyRotated
from messaging.messages import (
    CHANNEL_FAMILIES,
    CreditUsed,
    Family,
    LiquidationFilled,
    StateReported,
    Watermark,
)
from messaging.units import NodeId


class Heard:
    """How far a spoke's chain has come, and how far its word is final.

    Attributes:
        final_heights: largest final block named, by family.
        final_us: largest chain time of a `reservation` watermark in a final block.
        covered: largest block of a `margin-state` watermark that is final.
        halted: the hub has said that it stopped the spoke.
        resumed: it has said that people resumed it, and nobody has taken note yet.
    """

    def __init__(self, spoke: NodeId, docket: Docket) -> None:
        self.spoke = spoke
        self.final_heights = dict.fromkeys(CHANNEL_FAMILIES, -1)
        self.final_us = -1
        self.covered = -1
        self.halted = self.resumed = False
        self._docket = docket
        self._heights = dict.fromkeys(CHANNEL_FAMILIES, 0)
        self._marked_us = dict.fromkeys(CHANNEL_FAMILIES, 0)
        self._marks: deque[tuple[int, int]] = deque()  # (height, chain time), not final yet
        self._covers: deque[int] = deque()

    def hear(self, frame: Envelope) -> None:
        """Take in a frame of the spoke, in order; a `KeyRotated` is of no block (P67)."""
        family, height, message = frame.family, frame.height, frame.message
        if type(message) is KeyRotated:
            return
        if height < self._heights[family]:
            self._fell(family, "block", self._heights[family], height)
        self._heights[family] = max(height, self._heights[family])
        match message:
            case Watermark(spoke_time_us=time_us):
                self._at(family, time_us)
                self._marked_us[family] = max(time_us, self._marked_us[family])
                if family is Family.RESERVATION:
                    self._marks.append((height, time_us))
                elif family is Family.MARGIN_STATE:
                    self._covers.append(height)
            case CreditUsed() | StateReported() | LiquidationFilled():
                self._at(family, message.block_time_us)
        final_height = max(frame.final_height, self.final_heights[family])
        self.final_heights[family] = final_height
        if family is Family.RESERVATION:
            while self._marks and self._marks[0][0] <= final_height:
                self.final_us = max(self.final_us, self._marks.popleft()[1])
        elif family is Family.MARGIN_STATE:
            while self._covers and self._covers[0] <= final_height:
                self.covered = max(self.covered, self._covers.popleft())

    def _at(self, family: Family, time_us: int) -> None:
        if time_us < self._marked_us[family]:
            self._fell(family, "chain time", self._marked_us[family], time_us)

    def _fell(self, family: Family, what: str, expected: int, found: int) -> None:
        subject = f"{self.spoke}/{family}"
        text = f"{subject}: expected a {what} of at least {expected:,}, found {found:,}"
        self._docket.find("W2", self.spoke, subject, text)
