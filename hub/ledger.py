"""Double-entry books in whole millionths of a dollar.

Every posting adds up to zero, so every balance does (rule L1 of docs/margin.md). What the hub
owns is negative (`vault`, `deficit`), what it owes is positive. A trader's cash is
`available + reserved`: reserving credit moves it from one to the other, settling moves it
between traders and the rest.
"""

from collections.abc import Sequence
from typing import TypeAlias

from messaging.units import AccountId, NodeId, Usd6

Posting: TypeAlias = Sequence[tuple[str, int]]  # (book, change in usd6) pairs that add up to zero

VAULT = "vault"  # collateral the hub holds, negative
FEES = "fees"  # venue fees, and the liquidators' share of liquidation fees
INSURANCE = "insurance"  # insurance fund
DEFICIT = "deficit"  # bad debt that nobody has covered, negative


def available(account: AccountId) -> str:
    """Name the book of a trader's cash that no reservation holds."""
    return "available/" + account


def reserved(account: AccountId) -> str:
    """Name the book of a trader's cash that reservations hold."""
    return "reserved/" + account


def held(spoke: NodeId, account: AccountId) -> str:
    """Name the book of a trader's gains on a spoke that do not count yet (rule L9)."""
    return f"held/{spoke}/{account}"


def fund(spoke: NodeId) -> str:
    """Name the book of the fund that pays first for what is lost on a spoke (rule L10)."""
    return "fund/" + spoke


def clearing(spoke: NodeId) -> str:
    """Name the book of what the other side of a spoke's trades has won; negative if lost."""
    return "clearing/" + spoke


class Ledger:
    """All balances, in usd6.

    Attributes:
        balances: book -> balance; their sum is zero.
        postings: how many postings have been made.
        bad_debt_usd6: all shortfalls of closed accounts so far (rule L4).
        funds_used_usd6, insurance_used_usd6: the parts of it that spokes' funds and the hub's
            insurance have paid (L10).
        haircut_usd6: per account, what it has given for the rest (L11).
        forgiven_usd6: per account, shortfall written off and liquidation fees waived.
    """

    __slots__ = (
        "bad_debt_usd6",
        "balances",
        "forgiven_usd6",
        "funds_used_usd6",
        "haircut_usd6",
        "insurance_used_usd6",
        "postings",
    )

    def __init__(self) -> None:
        self.balances: dict[str, int] = {VAULT: 0, FEES: 0, INSURANCE: 0, DEFICIT: 0}
        self.postings = 0
        self.bad_debt_usd6 = 0
        self.funds_used_usd6 = 0
        self.insurance_used_usd6 = 0
        self.haircut_usd6: dict[AccountId, int] = {}
        self.forgiven_usd6: dict[AccountId, int] = {}

    def open_account(self, account: AccountId) -> None:
        """Open a trader's books."""
        self.balances[available(account)] = self.balances[reserved(account)] = 0

    def open_spoke(self, spoke: NodeId) -> None:
        """Open a spoke's book."""
        self.balances[clearing(spoke)] = 0

    def endow_spoke(self, spoke: NodeId, amount_usd6: int) -> None:
        """Open a spoke's fund, if there is to be one."""
        if amount_usd6:
            self.balances[fund(spoke)] = 0
            self.post(endow(amount_usd6, fund(spoke)))

    def fund_usd6(self, spoke: NodeId) -> int:
        """Return what a spoke's fund has."""
        return self.balances.get(fund(spoke), 0)

    def post(self, posting: Posting) -> None:
        """Book a posting on books that exist; one that adds up to zero, or it is our mistake."""
        total_usd6 = 0
        balances = self.balances
        for book, change_usd6 in posting:
            balances[book] += change_usd6
            total_usd6 += change_usd6
        assert total_usd6 == 0, f"posting {posting} adds up to {total_usd6}, not to 0"
        self.postings += 1

    def hold(self, spoke: NodeId, account: AccountId, amount_usd6: int) -> None:
        """Set a gain aside, on a book that is opened with the first (rule L9)."""
        self.balances.setdefault(held(spoke, account), 0)
        self.post(hold(spoke, account, amount_usd6))

    def forgive(self, account: AccountId, amount_usd6: int) -> None:
        """Note what an account has been let off (rules L3, L4)."""
        self.forgiven_usd6[account] = self.forgiven_usd6.get(account, 0) + amount_usd6

    def reserved_usd6(self, account: AccountId) -> int:
        """Return a trader's cash that reservations hold."""
        return self.balances[reserved(account)]

    def cash_usd6(self, account: AccountId) -> int:
        """Return a trader's collateral, settled P&L and fees included, without held gains."""
        return self.balances[available(account)] + self.balances[reserved(account)]

    def held_usd6(self, spoke: NodeId, account: AccountId) -> int:
        """Return a trader's gains on a spoke that do not count yet."""
        return self.balances.get(held(spoke, account), 0)


def deposit(account: AccountId, amount_usd6: int) -> Posting:
    """Collateral comes in."""
    return ((VAULT, -amount_usd6), (available(account), amount_usd6))


def endow(amount_usd6: int, book: str = INSURANCE) -> Posting:
    """Money for a fund comes in."""
    return ((VAULT, -amount_usd6), (book, amount_usd6))


def reserve(account: AccountId, amount_usd6: int) -> Posting:
    """Set cash aside (P30); a negative amount lets it go (P36)."""
    return ((available(account), -amount_usd6), (reserved(account), amount_usd6))


def hold(spoke: NodeId, account: AccountId, amount_usd6: int) -> Posting:
    """Set a gain aside (rule L9); a negative amount lets it count."""
    return ((available(account), -amount_usd6), (held(spoke, account), amount_usd6))


def settle(
    account: AccountId,
    spoke: NodeId,
    *,
    realised_usd6: int,
    fees_usd6: int,
    liquidation_fees_usd6: int,
    insurance_share_ppm: int,
) -> Posting:
    """Book what a final report added to a trader's sums (rule L3)."""
    insured_usd6 = liquidation_fees_usd6 * insurance_share_ppm // 1_000_000
    return (
        (available(account), realised_usd6 - fees_usd6 - liquidation_fees_usd6),
        (clearing(spoke), -realised_usd6),
        (FEES, fees_usd6 + liquidation_fees_usd6 - insured_usd6),
        (INSURANCE, insured_usd6),
    )


def write_off(
    account: AccountId, shortfall_usd6: Usd6, paid_usd6: Sequence[tuple[str, int]]
) -> Posting:
    """Bring a closed account back to zero: funds pay what they do, deficit the rest (rule L4)."""
    rest_usd6 = shortfall_usd6 - sum(usd6 for _, usd6 in paid_usd6)
    assert shortfall_usd6 > 0
    assert rest_usd6 >= 0
    return (
        (available(account), shortfall_usd6),
        *((book, -usd6) for book, usd6 in paid_usd6),
        (DEFICIT, -rest_usd6),
    )


def socialise(haircuts_usd6: Sequence[tuple[AccountId, int]]) -> Posting:
    """Take a part of the deficit from accounts (rule L11)."""
    total_usd6 = sum(usd6 for _, usd6 in haircuts_usd6)
    return (
        (DEFICIT, total_usd6),
        *((available(account), -usd6) for account, usd6 in haircuts_usd6),
    )
