"""The spoke's half of a reservation: hold a right, use it, give it up for good. Pure functions.

Rules P43 to P51 of docs/protocol.md. The spoke's chain is the only clock that may end a right.
"""

from enum import StrEnum
from typing import NamedTuple, TypeAlias

import msgspec

from messaging.messages import (
    CloseReason,
    CreditUsed,
    ReservationClosed,
    ReservationGranted,
    ReservationRenewed,
)
from messaging.units import AccountId, Micros, ReservationId, Usd6

Word: TypeAlias = CreditUsed | ReservationClosed


class State(StrEnum):
    """Where a reservation stands at the spoke; one that is forgotten has no state."""

    REQUESTED = "requested"
    ACTIVE = "active"
    CLOSED = "closed"  # the tombstone: it never opens again (P50)


class Credit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One credit line as the spoke sees it."""

    rid: ReservationId
    account: AccountId
    state: State = State.REQUESTED
    amount_usd6: Usd6 = Usd6(0)
    used_usd6: Usd6 = Usd6(0)
    expires_at_us: Micros = Micros(0)
    grant_version: int = 0
    spoke_epoch: int = 1

    @property
    def left_usd6(self) -> int:
        """Return what may still be used."""
        return self.amount_usd6 - self.used_usd6 if self.state is State.ACTIVE else 0


class Outcome(NamedTuple):
    """The reservation afterwards, and what the hub must hear."""

    credit: Credit
    word: Word | None = None


def granted(credit: Credit, grant: ReservationGranted, chain_us: Micros) -> Outcome:
    """Take a grant in: a right, or a refusal because it came too late (P43, P44, P50)."""
    if credit.state is not State.REQUESTED:
        return Outcome(credit)
    known = msgspec.structs.replace(
        credit,
        amount_usd6=grant.amount_usd6,
        expires_at_us=grant.expires_at_us,
        grant_version=grant.grant_version,
        spoke_epoch=grant.spoke_epoch,
    )
    if chain_us >= grant.expires_at_us:
        return close(known, CloseReason.REFUSED_LATE)
    return Outcome(msgspec.structs.replace(known, state=State.ACTIVE))


def renewed(credit: Credit, renewal: ReservationRenewed, chain_us: Micros) -> Credit:
    """Take a later expiry, while the current one has not come (P49, P50)."""
    fresh = renewal.grant_version > credit.grant_version and chain_us < credit.expires_at_us
    if credit.state is not State.ACTIVE or not fresh:
        return credit
    return msgspec.structs.replace(
        credit,
        expires_at_us=max(credit.expires_at_us, renewal.expires_at_us),
        grant_version=renewal.grant_version,
    )


def usable(credit: Credit, amount_usd6: int, chain_us: Micros) -> bool:
    """Tell whether `amount_usd6` more may be used in a block at `chain_us` (P46)."""
    return chain_us < credit.expires_at_us and 0 < amount_usd6 <= credit.left_usd6


def use(credit: Credit, amount_usd6: int, chain_us: Micros) -> Outcome:
    """Use some of it; checked and done in one block (P46)."""
    assert usable(credit, amount_usd6, chain_us)
    after = msgspec.structs.replace(credit, used_usd6=Usd6(credit.used_usd6 + amount_usd6))
    word = CreditUsed(rid=credit.rid, used_usd6=after.used_usd6, block_time_us=chain_us)
    return Outcome(after, word)


def close(credit: Credit, reason: CloseReason) -> Outcome:
    """Give the right up, and say so (P48). Closing twice says nothing more."""
    if credit.state is State.CLOSED:
        return Outcome(credit)
    word = ReservationClosed(rid=credit.rid, used_usd6=credit.used_usd6, reason=reason)
    return Outcome(msgspec.structs.replace(credit, state=State.CLOSED), word)
