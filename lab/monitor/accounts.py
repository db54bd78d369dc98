"""What each account owns at most and has open, from spokes' reports and the hub's receipts.

Cash at the hub is the deposit, plus what final reports have realised, less fees. Which report
the hub had booked at some time is not on the topics, but bounds are: it had booked whatever was
final among the frames that it had acknowledged by then (P18, P53).
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Mapping

import msgspec

from lab.monitor.docket import Docket
from lab.monitor.heard import Heard
from messaging.envelope import Envelope
from messaging.messages import MarginSet, MarginStatus, StateReported
from messaging.units import AccountId, Asset, Micros, NodeId, Ppm, Usd6

CANDIDATES_MAX = 64  # reports of an account on a spoke that the hub may have booked last
HISTORY_MAX = 4_096
CHANGES_MAX = 64


class _View(msgspec.Struct):
    """One account on one spoke.

    Attributes:
        latest: the newest report. settled: the newest final one.
        candidates: (number in its channel, block, realised P&L less fees), oldest first.
    """

    latest: StateReported
    settled: StateReported
    candidates: deque[tuple[int, int, int]]


class _Receipts:
    """What the hub has acknowledged of a spoke's reports, and when; and what was final by then."""

    def __init__(self) -> None:
        self._times_us: list[int] = []
        self._acked: list[int] = []
        self._seqs: list[int] = []
        self._finals: list[int] = []

    def acknowledged(self, seq: int, at_us: int) -> None:
        """Note that the hub said so at `at_us`."""
        if (not self._acked or seq > self._acked[-1]) and at_us >= (self._times_us or [0])[-1]:
            self._times_us.append(at_us)
            self._acked.append(seq)
            _bound(self._times_us, self._acked)

    def named(self, seq: int, final_height: int) -> None:
        """Note that frame `seq` of the spoke named a final block."""
        if not self._finals or final_height > self._finals[-1]:
            self._seqs.append(seq)
            self._finals.append(final_height)
            _bound(self._seqs, self._finals)

    def known(self, before_us: int) -> tuple[int, int]:
        """Return which frames the hub had handled before a time of its own, and what was final."""
        place = bisect_left(self._times_us, before_us) - 1
        seq = self._acked[place] if place >= 0 else 0
        place = bisect_right(self._seqs, seq) - 1
        return seq, self._finals[place] if place >= 0 else -1


def _bound(one: list[int], other: list[int]) -> None:
    if len(one) > HISTORY_MAX:
        del one[: HISTORY_MAX // 2], other[: HISTORY_MAX // 2]


class Accounts:
    """All accounts.

    Attributes:
        carried_usd6: by spoke, initial margin at cost of the positions reported there: the
            larger of newest and final report (P2).
        fills: by spoke, reports that charged a fee.
    """

    def __init__(
        self,
        deposits: Mapping[AccountId, Usd6],
        margins_ppm: Mapping[Asset, Ppm],
        heard: Mapping[NodeId, Heard],
        docket: Docket,
    ) -> None:
        """`margins_ppm` is the initial margin of each asset at age zero."""
        self._deposits = deposits
        self._margins_ppm = margins_ppm
        self._heard = heard
        self._docket = docket
        self._views: dict[AccountId, dict[NodeId, _View]] = {}
        self._receipts = {spoke: _Receipts() for spoke in heard}
        self._waiting: dict[NodeId, deque[tuple[int, AccountId, StateReported]]] = {
            spoke: deque() for spoke in heard
        }
        self._cash_usd6: dict[AccountId, int] = {}  # in the order read; the hub's may differ
        self._statuses: dict[tuple[NodeId, AccountId], list[tuple[int, int, MarginStatus]]] = {}
        self.carried_usd6 = dict.fromkeys(heard, 0)
        self.fills = dict.fromkeys(heard, 0)

    def known(self, account: AccountId) -> bool:
        """Tell whether there is such an account."""
        return account in self._deposits

    def acknowledged(self, spoke: NodeId, frame: Envelope) -> None:
        """Note what the hub says that it has, in a frame of `to-<spoke>.margin-state`."""
        self._receipts[spoke].acknowledged(frame.ack_seq, frame.sent_us)

    def set(self, spoke: NodeId, told: MarginSet, sent_us: int) -> None:
        """Take in what an account may do at a spoke, in order (L6)."""
        changes = self._statuses.setdefault((spoke, told.account), [])
        before = changes[-1][1] if changes else -1
        if told.margin_version <= before:
            subject = f"{told.account} at {spoke}"
            text = f"{subject}: expected a margin version above {before}, found {told}"
            self._docket.find("W7", spoke, subject, text, by_hub=True)
        changes.append((sent_us, told.margin_version, told.status))
        if len(changes) > CHANGES_MAX:
            del changes[0]

    def restricted(self, spoke: NodeId, account: AccountId, at_us: int) -> MarginStatus | None:
        """Return what kept an account from credit at a time of the hub; None if nothing did."""
        changes = self._statuses.get((spoke, account), ())
        if any(sent_us == at_us for sent_us, _, _ in changes):
            return None  # set just before or just after: that cannot be told
        before = [status for sent_us, _, status in changes if sent_us < at_us]
        return None if not before or before[-1] is MarginStatus.OPEN else before[-1]

    def reported(self, spoke: NodeId, frame: Envelope) -> None:
        """Take in a frame of `from-<spoke>.margin-state`, in order."""
        self._receipts[spoke].named(frame.seq, frame.final_height)
        if isinstance(frame.message, StateReported):
            self._report(spoke, frame, frame.message)
        waiting, final_height = self._waiting[spoke], frame.final_height
        while waiting and waiting[0][0] <= final_height:
            _, account, report = waiting.popleft()
            self._settle(spoke, account, report)

    def _report(self, spoke: NodeId, frame: Envelope, report: StateReported) -> None:
        subject = f"{report.account} at {spoke}"
        strange = [p.asset for p in report.positions if p.asset not in self._margins_ppm]
        if strange or not self.known(report.account):
            found = strange[0] if strange else report.account
            text = f"{subject}: expected an account and assets that exist, found {found}"
            self._docket.find("W17", spoke, subject, text)
            return
        view = self._views.setdefault(report.account, {}).get(spoke)
        if view is None:
            nothing = _nothing(report.account)
            view = _View(nothing, nothing, deque([(0, -1, 0)]))
            self._views[report.account][spoke] = view
        before = view.latest
        for what, was, now in (
            ("version", before.version + 1, report.version),
            ("fees", before.fees_usd6, report.fees_usd6),
            ("liquidation fees", before.liquidation_fees_usd6, report.liquidation_fees_usd6),
        ):
            if now < was:
                text = f"{subject}: expected {what} of at least {was:,}, found {now:,}"
                self._docket.find("W7", spoke, f"{subject} {what}", text)
        if report.version <= before.version:
            return
        self.fills[spoke] += report.fees_usd6 > before.fees_usd6
        carried_usd6 = self._carried(view)
        view.latest = report
        self.carried_usd6[spoke] += self._carried(view) - carried_usd6
        self._waiting[spoke].append((frame.height, report.account, report))
        net_usd6 = report.realised_usd6 - report.fees_usd6
        view.candidates.append((frame.seq, frame.height, net_usd6))
        if len(view.candidates) > CANDIDATES_MAX:
            # One for two, the later in time and the larger in money: the bound only rises.
            (_, _, one), (seq, height, other) = view.candidates.popleft(), view.candidates.popleft()
            view.candidates.appendleft((seq, height, max(one, other)))

    def _settle(self, spoke: NodeId, account: AccountId, report: StateReported) -> None:
        """Book a final report as the hub does, liquidation fee last (L3)."""
        view = self._views[account][spoke]
        before, carried_usd6 = view.settled, self._carried(view)
        view.settled = report
        self.carried_usd6[spoke] += self._carried(view) - carried_usd6
        cash_usd6 = self._cash_usd6.get(account, self._deposits[account])
        cash_usd6 += report.realised_usd6 - before.realised_usd6
        cash_usd6 -= report.fees_usd6 - before.fees_usd6
        asked_usd6 = report.liquidation_fees_usd6 - before.liquidation_fees_usd6
        self._cash_usd6[account] = cash_usd6 - min(asked_usd6, max(0, cash_usd6))

    def _carried(self, view: _View) -> int:
        newest_usd6 = self._margin_usd6(view.latest)
        if view.latest is view.settled:
            return newest_usd6
        return max(newest_usd6, self._margin_usd6(view.settled))

    def _margin_usd6(self, report: StateReported) -> int:
        return sum(
            -(-abs(position.cost_usd6) * self._margins_ppm[position.asset] // 1_000_000)
            for position in report.positions
        )

    def cash_usd6_max(self, account: AccountId, at_us: int) -> int:
        """Return the most that the hub can have booked as cash before a time of its own [usd6].

        Liquidation fees are left out, for they may have been waived (L3).
        """
        total_usd6 = int(self._deposits.get(account, 0))
        for spoke, view in self._views.get(account, {}).items():
            # From a spoke that it has stopped, the hub books nothing any more (P66).
            known = (0, -1) if self._heard[spoke].halted else self._receipts[spoke].known(at_us)
            best_usd6: int | None = None
            for seq, height, net_usd6 in reversed(view.candidates):
                best_usd6 = net_usd6 if best_usd6 is None else max(best_usd6, net_usd6)
                if seq <= known[0] and height <= known[1]:
                    break
            total_usd6 += best_usd6 or 0
        return total_usd6

    def bad_debt_usd6(self) -> int:
        """Return what accounts lack that have nothing left anywhere (L4).

        By final reports in the order read here; a waived liquidation fee depends on the hub's.
        """
        return -sum(
            cash_usd6
            for account, cash_usd6 in self._cash_usd6.items()
            if cash_usd6 < 0
            and all(
                view.latest is view.settled and not view.latest.positions
                for view in self._views[account].values()
            )
        )

    def positions(self, spoke: NodeId) -> int:
        """Return how many positions are open by the newest reports."""
        return sum(
            len(views[spoke].latest.positions) for views in self._views.values() if spoke in views
        )


def _nothing(account: AccountId) -> StateReported:
    zero = Usd6(0)
    return StateReported(
        account=account,
        version=0,
        block_time_us=Micros(0),
        positions=(),
        realised_usd6=zero,
        fees_usd6=zero,
        liquidation_fees_usd6=zero,
    )
