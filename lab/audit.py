"""A second set of books: what every trader's cash must be, from final reports alone.

Follows the rules of docs/margin.md (L3, L4) in code of its own, one step at a time, and compares
with the hub's ledger to the millionth of a dollar.
"""

from collections import deque
from collections.abc import Mapping, Sequence

from hub.account import nothing
from hub.state import HubState
from lab.evidence import Evidence
from messaging.errors import InvariantViolated
from messaging.messages import StateReported
from messaging.units import AccountId, Micros, NodeId, Usd6


class Audit:
    """Expected cash and forgiveness of every account.

    Attributes:
        hub: whose ledger is compared; now_us: its time.
        bad_debt_usd6: shortfalls written off so far, by these books.
    """

    def __init__(
        self,
        hub: HubState,
        deposits: Sequence[tuple[AccountId, Usd6]],
        evidence: Mapping[NodeId, Evidence],
    ) -> None:
        self.hub = hub
        self._evidence = evidence
        self._cash_usd6: list[int] = [usd6 for _, usd6 in deposits]
        self._forgiven_usd6 = [0] * len(deposits)
        self._settled: list[list[StateReported]] = [
            [nothing(account)] * len(hub.zones) for account, _ in deposits
        ]
        self._closed: set[int] = set()
        self.now_us = Micros(0)
        self._young: dict[tuple[int, int], deque[tuple[Micros, int]]] = {}  # (due, gain)
        self._unseen: dict[tuple[int, int], int] = {}  # version settled when nobody looked
        self.bad_debt_usd6 = 0

    def follow(self, hub: HubState) -> None:
        """Look at a hub from now on; what it has settled before may be of any age."""
        self.hub = hub
        self._unseen = {
            (place, zone.place): view.settled.version
            for place, account in enumerate(hub.accounts)
            for zone, view in zip(hub.zones, account.views, strict=True)
        }

    def check(self, place: int) -> None:
        """Follow one account to where it is now, and compare.

        Raises:
            InvariantViolated: MONEY, HOLD, or INV7 for a report settled before it was final.
        """
        account, ledger = self.hub.accounts[place], self.hub.ledger
        for zone, view in zip(self.hub.zones, account.views, strict=True):
            if view.settled.version != self._settled[place][zone.place].version:
                if not self._evidence[zone.name].report_is_final(account.id, view.settled.version):
                    finding = f"{account.id} at {zone.name}: settled a report that is not final"
                    raise InvariantViolated("INV7", finding)
                self._settle(place, zone.place, view.settled)
        self._check_held(place)
        if account.closed_out and place not in self._closed:
            self._close(place, account.id)
        owned_usd6 = ledger.cash_usd6(account.id) + self.hub.held_usd6(account.id)
        self._need(f"cash of {account.id}", owned_usd6, self._cash_usd6[place])
        forgiven_usd6 = ledger.forgiven_usd6.get(account.id, 0)
        self._need(f"forgiven to {account.id}", forgiven_usd6, self._forgiven_usd6[place])

    def _check_held(self, place: int) -> None:
        """No gain has become cash that is younger than its zone's hold (rule L9)."""
        for (whose, where), gains in self._young.items():
            if whose != place:
                continue
            while gains and gains[0][0] <= self.now_us:
                gains.popleft()
            zone, account = self.hub.zones[where], self.hub.accounts[place].id
            young_usd6 = sum(gain_usd6 for _, gain_usd6 in gains)
            held_usd6 = self.hub.ledger.held_usd6(zone.name, account)
            if held_usd6 < young_usd6:
                what = f"{account} has {young_usd6:,} usd6 of young gains at {zone.name}"
                raise InvariantViolated("HOLD", f"{what}: found {held_usd6:,} held")

    def check_bad_debt(self) -> None:
        """Compare all shortfalls, and what of them nobody has paid.

        Raises:
            InvariantViolated: MONEY.
        """
        ledger = self.hub.ledger
        self._need("bad debt", ledger.bad_debt_usd6, self.bad_debt_usd6)
        uncovered_usd6 = ledger.bad_debt_usd6 - ledger.insurance_used_usd6
        self._need("deficit", -ledger.balances["deficit"], uncovered_usd6)

    def _settle(self, place: int, spoke: int, report: StateReported) -> None:
        """Add what a report adds: P&L and fees in full, the liquidation fee from what is left."""
        before = self._settled[place][spoke]
        self._settled[place][spoke] = report
        gain_usd6 = report.realised_usd6 - before.realised_usd6
        self._cash_usd6[place] += gain_usd6
        hold_us = self.hub.zones[spoke].policy.hold_us
        seen = self._unseen.get((place, spoke)) != report.version
        if hold_us and gain_usd6 > 0 and seen:
            due_us = Micros(self.now_us + hold_us)
            self._young.setdefault((place, spoke), deque()).append((due_us, gain_usd6))
        self._cash_usd6[place] -= report.fees_usd6 - before.fees_usd6
        asked_usd6 = report.liquidation_fees_usd6 - before.liquidation_fees_usd6
        paid_usd6 = min(asked_usd6, max(0, self._cash_usd6[place]))
        self._cash_usd6[place] -= paid_usd6
        self._forgiven_usd6[place] += asked_usd6 - paid_usd6

    def _close(self, place: int, account: AccountId) -> None:
        """Write a shortfall off, once, of an account that has nothing left anywhere."""
        self._closed.add(place)
        shortfall_usd6 = -self._cash_usd6[place]
        left_usd6 = self.hub.written_off_usd6.get(account, 0)
        reserved_usd6 = self.hub.ledger.reserved_usd6(account)
        bare = self.hub.accounts[place].flat and reserved_usd6 == left_usd6
        if shortfall_usd6 <= 0 or not bare:
            finding = f"{account}: closed out with {shortfall_usd6:,} usd6 missing, bare: {bare}"
            raise InvariantViolated("MONEY", finding)
        self._cash_usd6[place] = 0
        self._forgiven_usd6[place] += shortfall_usd6
        self.bad_debt_usd6 += shortfall_usd6

    def _need(self, what: str, found: int, expected: int) -> None:
        if found != expected:
            raise InvariantViolated("MONEY", f"{what}: expected {expected:,}, found {found:,} usd6")
