"""Findings, and doubts that become findings once nothing unread can explain them.

Topics have no order between them: a use may be read before its grant. So what looks wrong and
rests on another topic is a doubt first. Whoever reads the topics notes where each one ends after
a doubt came up, reads them all up to there, and then confirms. What the sender of the doubtful
frame knew when it sent it was written before, so by then it has been read.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from messaging.units import NodeId


class Finding(msgspec.Struct, frozen=True):
    """Money that does not add up.

    Attributes:
        rule: W1 to W18 of docs/monitor.md.
        spokes: which to stop.
        subject: what it is about, such as a reservation; one finding for each rule and subject.
        text: what was expected and found.
    """

    rule: str
    spokes: tuple[NodeId, ...]
    subject: str
    text: str


class _Doubt(NamedTuple):
    number: int
    rule: str
    spoke: NodeId | None
    subject: str
    check: Callable[[], str | None]
    by_hub: bool


class Docket:
    """What has been found, and what waits to be confirmed.

    `spoke` is where it was found, None for all of them; that spoke is to blame and to be
    stopped, unless it was found `by_hub`: then all are.

    Attributes:
        findings: oldest first.
        newest: number of the newest doubt; 0 before the first.
        blind: spokes of which some word is gone, so that nothing is said about them any more.
    """

    def __init__(self, spokes: tuple[NodeId, ...]) -> None:
        self.findings: list[Finding] = []
        self.newest = 0
        self.blind: set[NodeId] = set()
        self._spokes = spokes
        self._doubts: deque[_Doubt] = deque()
        self._known: set[tuple[str, str]] = set()

    @property
    def doubts(self) -> int:
        """Return how many wait."""
        return len(self._doubts)

    def find(
        self, rule: str, spoke: NodeId | None, subject: str, text: str, *, by_hub: bool = False
    ) -> None:
        """Note a finding, once for each rule and subject."""
        if self._wanted(rule, spoke, subject):
            self._known.add((rule, subject))
            blamed = self._spokes if by_hub or spoke is None else (spoke,)
            self.findings.append(Finding(rule, blamed, subject, text))

    def doubt(
        self,
        rule: str,
        spoke: NodeId | None,
        subject: str,
        check: Callable[[], str | None],
        *,
        by_hub: bool = False,
    ) -> None:
        """Ask again later: `check` returns what is wrong, or None if it is explained.

        What `check` compares must be fixed now, and only what explains it may change.
        """
        if self._wanted(rule, spoke, subject):
            self.newest += 1
            self._doubts.append(_Doubt(self.newest, rule, spoke, subject, check, by_hub))

    def confirm(self, newest: int) -> None:
        """Settle every doubt up to a number: all that can explain it has been read."""
        while self._doubts and self._doubts[0].number <= newest:
            _, rule, spoke, subject, check, by_hub = self._doubts.popleft()
            text = check()
            if text is not None:
                self.find(rule, spoke, subject, text, by_hub=by_hub)

    def _wanted(self, rule: str, spoke: NodeId | None, subject: str) -> bool:
        unseen = not self.blind if spoke is None else spoke not in self.blind
        return unseen and (rule, subject) not in self._known
