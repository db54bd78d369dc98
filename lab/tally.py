"""Single checks: each is counted, and one that does not hold is a finding."""

from hub.reservation import Reservation
from messaging.errors import InvariantViolated
from spokes.reservation import Credit


class Tally:
    """Counts checks, and stops at the first that does not hold.

    Attributes:
        made: how many checks have been made.
    """

    def __init__(self) -> None:
        self.made = 0

    def need(self, rule: str, found: int, expected: int, what: str) -> None:
        """Check that two amounts are the same [usd6].

        Raises:
            InvariantViolated: they are not.
        """
        self.made += 1
        if found != expected:
            raise InvariantViolated(rule, f"{what}: expected {expected:,}, found {found:,} usd6")

    def hold(self, rule: str, holds: bool, what: str, found: object) -> None:
        """Check that something holds.

        Raises:
            InvariantViolated: it does not.
        """
        self.made += 1
        if not holds:
            raise InvariantViolated(rule, f"{what}: found {_brief(found)}")


def _brief(found: object) -> str:
    """Say which reservation it is and where it stands."""
    if isinstance(found, Reservation | Credit):
        where = f" at {found.spoke}" if isinstance(found, Reservation) else ""
        return (
            f"{found.rid.hex()} of {found.account}{where}, {found.state}, "
            f"{found.used_usd6:,} of {found.amount_usd6:,} usd6 used"
        )
    return str(found)
