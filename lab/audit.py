"""A second set of books: what every trader's cash must be, from final reports alone.

Follows the rules of docs/margin.md (L3, L4, L10, L11) in code of its own, one step at a time, and
compares with the hub's ledger to the millionth of a dollar.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from hub.account import nothing
from hub.state import HubState
from lab.evidence import Evidence
from messaging.errors import InvariantViolated
from messaging.messages import StateReported
from messaging.units import AccountId, Micros, NodeId, Usd6


class _Gain(NamedTuple):
    """A gain that counts for nothing before it is due, and the report it came with."""

    due_us: Micros
    gain_usd6: int
    version: int


class Audit:
    """Expected cash and forgiveness of every account, and what every fund has left.

    Attributes:
        hub: whose ledger is compared; now_us: its time.
        bad_debt_usd6: shortfalls written off so far, by these books.
        deficit_usd6: the part of it that nobody has paid.
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
        self._closed: dict[int, int] = {}  # place: shortfall written off
        self.now_us = Micros(0)
        self._young: dict[tuple[int, int], deque[_Gain]] = {}
        self._unseen: dict[tuple[int, int], int] = {}  # version settled when nobody looked
        self.bad_debt_usd6 = self.deficit_usd6 = 0
        self._haircut_usd6 = [0] * len(deposits)
        policy = hub.policy
        self._funds_usd6: list[int] = [zone.insurance_usd6 for zone in policy.zones]
        self._insurance_usd6: int = policy.insurance_usd6
        self._adopted = True

    def follow(self, hub: HubState, *, amid: bool = False) -> None:
        """Look at a hub from now on; what it has settled unseen may be of any age.

        If it takes another one's place `amid` its life, then that is whatever it has settled so
        far: two processes settle a report each in a block of its own, or it has lost some.
        """
        self.hub = hub
        self._adopted = False
        if amid:
            self._young.clear()
        self._unseen = {
            (place, zone.place): view.settled.version
            for place, account in enumerate(hub.accounts)
            for zone, view in zip(hub.zones, account.views, strict=True)
        }

    def check(self, places: Iterable[int], *, block: bool = False) -> None:
        """Follow accounts to where they are now, in this order, and compare.

        With `block`, after a block of the hub, which ends with a haircut if there is a deficit.

        Raises:
            InvariantViolated: MONEY, HOLD, or INV7 for a report settled before it was final.
        """
        if not self._adopted:
            self._adopt()
        for place in places:
            self._catch_up(place)
        if block and self.hub.policy.liquidation.socialise and self.deficit_usd6:
            self._socialise()
        for place in places:
            self._compare(place)

    def _adopt(self) -> None:
        """Take from the hub followed now what funds have paid and accounts have given so far.

        It may have gone back to before something seen, or have gone on unseen.
        """
        hub, self._adopted = self.hub, True
        for place, account in enumerate(hub.accounts):
            if place in self._closed and not account.closed_out:
                shortfall_usd6 = self._closed.pop(place)
                self._cash_usd6[place] -= shortfall_usd6
                self._forgiven_usd6[place] -= shortfall_usd6
                self.bad_debt_usd6 -= shortfall_usd6
            given_usd6 = hub.ledger.haircut_usd6.get(account.id, 0)
            self._cash_usd6[place] -= given_usd6 - self._haircut_usd6[place]
            self._haircut_usd6[place] = given_usd6
            self._catch_up(place)
        self._funds_usd6 = [hub.ledger.fund_usd6(zone.name) for zone in hub.zones]
        self._insurance_usd6 = hub.ledger.balances["insurance"]
        self.deficit_usd6 = -hub.ledger.balances["deficit"]

    def _catch_up(self, place: int) -> None:
        """Book what has become final of an account, and its close-out."""
        account = self.hub.accounts[place]
        for zone, view in zip(self.hub.zones, account.views, strict=True):
            if view.settled.version != self._settled[place][zone.place].version:
                if not self._evidence[zone.name].report_is_final(account.id, view.settled.version):
                    finding = f"{account.id} at {zone.name}: settled a report that is not final"
                    raise InvariantViolated("INV7", finding)
                self._settle(place, zone.place, view.settled)
        if account.closed_out and place not in self._closed:
            self._close(place, account.id)

    def _compare(self, place: int) -> None:
        account, ledger = self.hub.accounts[place], self.hub.ledger
        self._check_held(place)
        owned_usd6 = ledger.cash_usd6(account.id) + self.hub.held_usd6(account.id)
        self._need(f"cash of {account.id}", owned_usd6, self._cash_usd6[place])
        forgiven_usd6 = ledger.forgiven_usd6.get(account.id, 0)
        self._need(f"forgiven to {account.id}", forgiven_usd6, self._forgiven_usd6[place])

    def _check_held(self, place: int) -> None:
        """No gain has become cash that is younger than its zone's hold (rule L9)."""
        for (whose, where), gains in self._young.items():
            if whose != place:
                continue
            while gains and gains[0].due_us <= self.now_us:
                gains.popleft()
            zone, account = self.hub.zones[where], self.hub.accounts[place].id
            young_usd6 = sum(gain.gain_usd6 for gain in gains)
            held_usd6 = self.hub.ledger.held_usd6(zone.name, account)
            if held_usd6 < young_usd6:
                what = f"{account} has {young_usd6:,} usd6 of young gains at {zone.name}"
                raise InvariantViolated("HOLD", f"{what}: found {held_usd6:,} held")

    def check_bad_debt(self) -> None:
        """Compare all shortfalls, what each fund has left, and what nobody has paid.

        Raises:
            InvariantViolated: MONEY; WATERFALL, a step out of order, twice, or in part.
        """
        ledger = self.hub.ledger
        self._need("bad debt", ledger.bad_debt_usd6, self.bad_debt_usd6)
        for zone, left_usd6 in zip(self.hub.zones, self._funds_usd6, strict=True):
            found_usd6 = ledger.fund_usd6(zone.name)
            self._need(f"fund of {zone.name}", found_usd6, left_usd6, "WATERFALL")
        found_usd6 = ledger.balances["insurance"]
        self._need("insurance", found_usd6, self._insurance_usd6, "WATERFALL")
        deficit_usd6 = -ledger.balances["deficit"]
        self._need("deficit", deficit_usd6, self.deficit_usd6, "WATERFALL")
        paid_usd6 = ledger.funds_used_usd6 + ledger.insurance_used_usd6
        paid_usd6 += sum(ledger.haircut_usd6.values())
        self._need("paid for bad debt", paid_usd6, self.bad_debt_usd6 - deficit_usd6, "WATERFALL")

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
            gain = _Gain(due_us, gain_usd6, report.version)
            self._young.setdefault((place, spoke), deque()).append(gain)
        self._cash_usd6[place] -= report.fees_usd6 - before.fees_usd6
        asked_usd6 = report.liquidation_fees_usd6 - before.liquidation_fees_usd6
        paid_usd6 = min(asked_usd6, max(0, self._cash_usd6[place]))
        self._cash_usd6[place] -= paid_usd6
        self._forgiven_usd6[place] += asked_usd6 - paid_usd6
        share_ppm = self.hub.policy.liquidation.insurance_share_ppm
        self._insurance_usd6 += paid_usd6 * share_ppm // 1_000_000

    def _close(self, place: int, account: AccountId) -> None:
        """Write a shortfall off, once, of an account that has nothing left anywhere."""
        shortfall_usd6 = self._closed[place] = -self._cash_usd6[place]
        left_usd6 = self.hub.written_off_usd6.get(account, 0)
        reserved_usd6 = self.hub.ledger.reserved_usd6(account)
        bare = self.hub.accounts[place].flat and reserved_usd6 == left_usd6
        if shortfall_usd6 <= 0 or not bare:
            finding = f"{account}: closed out with {shortfall_usd6:,} usd6 missing, bare: {bare}"
            raise InvariantViolated("MONEY", finding)
        self._cash_usd6[place] = 0
        self._forgiven_usd6[place] += shortfall_usd6
        self.bad_debt_usd6 += shortfall_usd6
        self._pay(place, shortfall_usd6)

    def _pay(self, place: int, shortfall_usd6: int) -> None:
        """Let each spoke's fund pay its share, then insurance; the rest is deficit (L10)."""
        lost = [max(0, one.fees_usd6 - one.realised_usd6) for one in self._settled[place]]
        left_usd6 = shortfall_usd6
        for spoke, share_usd6 in enumerate(_shares(shortfall_usd6, lost)):
            paid_usd6 = min(share_usd6, self._funds_usd6[spoke])
            self._funds_usd6[spoke] -= paid_usd6
            left_usd6 -= paid_usd6
        paid_usd6 = min(left_usd6, self._insurance_usd6)
        self._insurance_usd6 -= paid_usd6
        self.deficit_usd6 += left_usd6 - paid_usd6

    def _socialise(self) -> None:
        """Take the deficit from what accounts have free, in proportion (L11)."""
        hub = self.hub
        free = []
        for account, cash_usd6 in zip(hub.accounts, self._cash_usd6, strict=True):
            tied_usd6 = hub.ledger.reserved_usd6(account.id) + hub.held_usd6(account.id)
            free.append(max(0, cash_usd6 - tied_usd6))
        for place, given_usd6 in enumerate(_shares(min(self.deficit_usd6, sum(free)), free)):
            self._cash_usd6[place] -= given_usd6
            self._haircut_usd6[place] += given_usd6
            self.deficit_usd6 -= given_usd6

    def _need(self, what: str, found: int, expected: int, rule: str = "MONEY") -> None:
        if found != expected:
            raise InvariantViolated(rule, f"{what}: expected {expected:,}, found {found:,} usd6")


def _shares(amount: int, weights: Sequence[int]) -> list[int]:
    """Divide by weights; one unit more to whoever is furthest below his exact share."""
    whole = sum(weights)
    if not whole:
        return [0 for _ in weights]
    exact = [Fraction(amount * weight, whole) for weight in weights]
    shares = [int(share) for share in exact]
    while sum(shares) < amount:
        short = [share - got for share, got in zip(exact, shares, strict=True)]
        shares[short.index(max(short))] += 1
    return shares
