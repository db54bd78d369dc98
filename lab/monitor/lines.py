"""Credit lines by the words of both sides: asked, granted, used, closed (W3 to W6, W8 to W13, W18).

What a line takes out of free credit at least follows from what the spoke has said: the whole
amount until a final close or a final watermark at its largest expiry, then what was used, until
final reports cover the last use (P36, P37, P54).
"""

from collections import deque
from collections.abc import Mapping
from functools import partial

import msgspec

from lab.monitor.accounts import Accounts
from lab.monitor.docket import Docket
from lab.monitor.heard import Heard
from messaging.envelope import Envelope
from messaging.messages import (
    ClosureAcknowledged,
    CreditUsed,
    Family,
    RejectReason,
    ReservationClosed,
    ReservationGranted,
    ReservationRejected,
    ReservationRenewed,
    ReservationRequested,
    SpokeHalted,
    SpokeResumed,
)
from messaging.units import AccountId, NodeId, ReservationId, Usd6

PRUNE_AT = 64


class Line(msgspec.Struct):
    """One reservation at one spoke.

    Attributes:
        granted_us: when the hub said so. expires_us: largest expiry sent, chain time.
        used_usd6: largest use reported, in block `use_height`.
    """

    spoke: NodeId
    rid: ReservationId
    asked: ReservationRequested | None = None
    granted: ReservationGranted | None = None
    granted_us: int = 0
    rejected: bool = False
    expires_us: int = 0
    version: int = 0
    used_usd6: int = 0
    use_height: int = -1
    closed: ReservationClosed | None = None
    close_height: int = 0

    @property
    def name(self) -> str:
        """Name it for people."""
        return f"{self.rid.hex()[:12]} at {self.spoke}"


class Counts(msgspec.Struct):
    """How many reservations of one spoke."""

    requested: int = 0
    granted: int = 0
    rejected: int = 0
    closed: int = 0


class Lines:
    """All credit lines.

    Attributes:
        counts: by spoke.
        caps_usd6: by spoke, the most that may be at stake there (P2).
    """

    def __init__(
        self,
        caps_usd6: Mapping[NodeId, Usd6],
        heard: Mapping[NodeId, Heard],
        accounts: Accounts,
        docket: Docket,
    ) -> None:
        self.caps_usd6 = caps_usd6
        self.counts = {spoke: Counts() for spoke in caps_usd6}
        self._heard = heard
        self._accounts = accounts
        self._docket = docket
        self._lines: dict[tuple[NodeId, ReservationId], Line] = {}
        self._of_account: dict[AccountId, list[Line]] = {}
        self._of_spoke: dict[NodeId, list[Line]] = {spoke: [] for spoke in caps_usd6}
        self._unjudged: dict[NodeId, deque[Line]] = {spoke: deque() for spoke in caps_usd6}
        self._told_us = dict.fromkeys(caps_usd6, 0)
        self._prune_at = dict.fromkeys(caps_usd6, PRUNE_AT)

    def _line(self, spoke: NodeId, rid: ReservationId) -> Line:
        line = self._lines.get((spoke, rid))
        if line is None:
            line = self._lines[spoke, rid] = Line(spoke, rid)
        return line

    # --- what a spoke says ---------------------------------------------------------------

    def from_spoke(self, spoke: NodeId, frame: Envelope) -> None:
        """Take in a frame of `from-<spoke>.reservation`, in order."""
        match frame.message:
            case ReservationRequested() as asked:
                line = self._line(spoke, asked.rid)
                if line.asked is None:
                    line.asked = asked
                    self.counts[spoke].requested += 1
            case CreditUsed() as used:
                self._used(self._line(spoke, used.rid), used, frame.height)
            case ReservationClosed() as closed:
                self._closed(self._line(spoke, closed.rid), closed, frame.height)

    def _used(self, line: Line, used: CreditUsed, height: int) -> None:
        if line.closed is not None:
            text = f"{line.name}: expected no use after the close, found {used.used_usd6:,} usd6"
            self._blame("W5", line, text)
        if used.used_usd6 < line.used_usd6:
            text = f"{line.name}: expected a use of at least {line.used_usd6:,} usd6, found "
            self._blame("W7", line, text + f"{used.used_usd6:,}")
        if used.used_usd6 > line.used_usd6:
            line.used_usd6 = used.used_usd6
            line.use_height = max(height, line.use_height)
        self._within(line, used.used_usd6)
        self._in_time(line, used.block_time_us)

    def _closed(self, line: Line, closed: ReservationClosed, height: int) -> None:
        if line.closed is None:
            self.counts[line.spoke].closed += 1
            line.closed, line.close_height = closed, height
        if closed.used_usd6 != line.closed.used_usd6 or closed.used_usd6 < line.used_usd6:
            text = f"{line.name}: expected a close at {line.used_usd6:,} usd6, found "
            self._blame("W5", line, text + f"{closed.used_usd6:,}")
        if closed.used_usd6 > line.used_usd6:
            line.used_usd6 = closed.used_usd6
            line.use_height = max(height, line.use_height)
        self._within(line, closed.used_usd6)

    def _within(self, line: Line, used_usd6: int) -> None:
        """Compare a use with the grant; one that is not here yet may still come."""
        if line.granted is None:
            self._docket.doubt("W3", line.spoke, line.name, partial(_not_granted, line))
        elif used_usd6 > line.granted.amount_usd6:
            text = f"{line.name}: expected at most {line.granted.amount_usd6:,} usd6 used, found "
            self._blame("W4", line, text + f"{used_usd6:,}")

    def _in_time(self, line: Line, block_time_us: int) -> None:
        if block_time_us >= line.expires_us:
            check = partial(_late, line, block_time_us)
            self._docket.doubt("W6", line.spoke, line.name, check)

    def _blame(self, rule: str, line: Line, text: str) -> None:
        self._docket.find(rule, line.spoke, line.name, text)

    def _accuse(self, rule: str, line: Line, text: str) -> None:
        self._docket.find(rule, line.spoke, line.name, text, by_hub=True)

    # --- what the hub says ---------------------------------------------------------------

    def from_hub(self, spoke: NodeId, frame: Envelope) -> None:
        """Take in a frame of `to-<spoke>.reservation`, in order."""
        match frame.message:
            case ReservationGranted() as grant:
                self._granted(self._line(spoke, grant.rid), grant, frame.sent_us)
            case ReservationRejected() as rejected:
                self._rejected(self._line(spoke, rejected.rid), rejected)
            case ReservationRenewed() as renewed:
                self._renewed(self._line(spoke, renewed.rid), renewed)
            case ClosureAcknowledged(rid=rid):
                line = self._line(spoke, rid)
                check = partial(self._not_final, line)
                if check() is not None:
                    self._docket.doubt("W11", spoke, line.name, check, by_hub=True)
            case SpokeHalted():
                self._heard[spoke].halted = True
            case SpokeResumed():
                self._heard[spoke].halted, self._heard[spoke].resumed = False, True

    def _granted(self, line: Line, grant: ReservationGranted, sent_us: int) -> None:
        if line.granted is not None:
            if grant != line.granted:
                text = f"{line.name}: expected {line.granted}, found another grant, {grant}"
                self._accuse("W9", line, text)
            return
        if line.rejected or self._heard[line.spoke].halted:
            why = "it was rejected" if line.rejected else "the spoke is halted"
            self._accuse("W9", line, f"{line.name}: expected no grant, for {why}")
        line.granted, line.granted_us = grant, sent_us
        line.expires_us = max(grant.expires_at_us, line.expires_us)
        line.version = grant.grant_version
        self.counts[line.spoke].granted += 1
        if _unasked(line) is not None:
            check = partial(_unasked, line)
            self._docket.doubt("W8", line.spoke, line.name, check, by_hub=True)
        self._within(line, line.used_usd6)
        if not self._accounts.known(grant.account):
            text = f"{line.name}: expected a grant to an account, found {grant.account}"
            self._accuse("W12", line, text)
            return
        self._of_account.setdefault(grant.account, []).append(line)
        self._of_spoke[line.spoke].append(line)
        self._unjudged[line.spoke].append(line)
        self.told(line.spoke, self._told_us[line.spoke])
        self._backed(grant.account)
        self._capped(line.spoke)

    def told(self, spoke: NodeId, sent_us: int) -> None:
        """Judge grants of the past, for the hub has gone on on `to-<spoke>.margin-state` (L6).

        Of two topics of the hub one may be ahead of the other, after a crash by much.
        """
        unjudged = self._unjudged[spoke]
        self._told_us[spoke] = sent_us = max(sent_us, self._told_us[spoke])
        while unjudged and unjudged[0].granted_us < sent_us:
            line = unjudged.popleft()
            assert line.granted is not None
            account = line.granted.account
            status = self._accounts.restricted(spoke, account, line.granted_us)
            if status is not None:
                text = f"{line.name}: expected no grant to {account}, which is {status}"
                self._accuse("W18", line, text)

    def _rejected(self, line: Line, rejected: ReservationRejected) -> None:
        if rejected.reason is RejectReason.EXISTS_DIFFERENT:
            return  # a no to another request under the same id
        if not line.rejected:
            self.counts[line.spoke].rejected += 1
        line.rejected = True
        if line.granted is not None:
            text = f"{line.name}: expected the grant to stand, found it rejected"
            self._accuse("W9", line, text)

    def _renewed(self, line: Line, renewed: ReservationRenewed) -> None:
        sound = renewed.grant_version > line.version and renewed.expires_at_us >= line.expires_us
        if line.granted is None or not sound:
            text = f"{line.name}: expected a later expiry of a grant, found {renewed}"
            self._accuse("W10", line, text)
        line.version = max(renewed.grant_version, line.version)
        line.expires_us = max(renewed.expires_at_us, line.expires_us)

    def _not_final(self, line: Line) -> str | None:
        final_height = self._heard[line.spoke].final_heights[Family.RESERVATION]
        if line.closed is not None and line.close_height <= final_height:
            return None
        found = "none" if line.closed is None else f"one in block {line.close_height:,}"
        return f"{line.name}: expected a final close before its acknowledgement, found {found}"

    # --- what grants add up to -----------------------------------------------------------

    def least_usd6(self, line: Line) -> int:
        """Return what a line takes out of free credit at least, by all that has been read."""
        if line.granted is None:
            return 0
        heard = self._heard[line.spoke]
        final_height = heard.final_heights[Family.RESERVATION]
        closed = line.closed is not None and line.close_height <= final_height
        if not closed and heard.final_us < line.expires_us:
            return line.granted.amount_usd6
        return line.used_usd6 if line.use_height > heard.covered else 0

    def _sum_usd6(self, lines: list[Line]) -> int:
        return sum(self.least_usd6(line) for line in lines)

    def _prune(self, lines: list[Line]) -> None:
        lines[:] = [line for line in lines if line.closed is None or self.least_usd6(line)]

    def _backed(self, account: AccountId) -> None:
        """Compare an account's grants with its cash (M6)."""
        lines = self._of_account[account]
        self._prune(lines)
        # Always a doubt: what has not been read yet may show that there was less cash.
        check = partial(self._unbacked, account, list(lines))
        self._docket.doubt("W12", None, account, check)

    def _unbacked(self, account: AccountId, lines: list[Line]) -> str | None:
        reserved_usd6 = self._sum_usd6(lines)
        at_us = max((line.granted_us for line in lines), default=0)
        cash_usd6 = self._accounts.cash_usd6_max(account, at_us)
        if reserved_usd6 <= max(0, cash_usd6):
            return None
        return f"{account}: expected {cash_usd6:,} usd6 reserved at most, found {reserved_usd6:,}"

    def _capped(self, spoke: NodeId) -> None:
        """Compare a spoke's grants with its cap (P2)."""
        lines = self._of_spoke[spoke]
        if len(lines) > self._prune_at[spoke]:
            self._prune(lines)
            self._prune_at[spoke] = max(PRUNE_AT, 2 * len(lines))
        if self._uncapped(spoke, lines) is not None:
            check = partial(self._uncapped, spoke, list(lines))
            self._docket.doubt("W13", spoke, spoke, check, by_hub=True)

    def _uncapped(self, spoke: NodeId, lines: list[Line]) -> str | None:
        found_usd6, cap_usd6 = self._sum_usd6(lines), self.caps_usd6[spoke]
        if found_usd6 <= cap_usd6:
            return None
        return f"{spoke}: expected {cap_usd6:,} usd6 granted at most, found {found_usd6:,}"

    def standing(self, spoke: NodeId) -> tuple[int, int, int]:
        """Return what is reserved and used at a spoke [usd6], and how many lines are open."""
        lines = self._of_spoke[spoke]
        self._prune(lines)
        reserved_usd6 = self._sum_usd6(lines)
        used_usd6 = sum(min(line.used_usd6, self.least_usd6(line)) for line in lines)
        return reserved_usd6, used_usd6, sum(line.closed is None for line in lines)


def _not_granted(line: Line) -> str | None:
    if line.granted is None:
        return f"{line.name}: expected a use of what was granted, found no grant"
    return None


def _late(line: Line, block_time_us: int) -> str | None:
    if line.granted is None or block_time_us < line.expires_us:
        return None
    return f"{line.name}: expected a use before {line.expires_us:,} us, found {block_time_us:,}"


def _unasked(line: Line) -> str | None:
    asked, granted = line.asked, line.granted
    if granted is None:
        return None
    found = (granted.account, granted.amount_usd6)
    if asked is not None and (asked.account, asked.amount_usd6) == found:
        return None
    return f"{line.name}: expected a grant of what was asked, {asked}, found {granted}"
