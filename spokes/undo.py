"""What a reorganisation of the chain would undo, oldest first (P55).

Only facts of blocks are here. What came from the hub was received, and stays so.
"""

from collections import deque
from typing import TypeAlias

import msgspec

from messaging.messages import CloseReason, Family, Message, OrderPlaced
from messaging.units import AccountId, Asset, Height, Micros, ReservationId, Usd6
from spokes.liquidation import Order
from spokes.venue import Trader


class TraderWas(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """An account before it changed; None if it had never traded here."""

    account: AccountId
    before: Trader | None


class CreditWas(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """An active reservation before it was used, or closed for a reason."""

    rid: ReservationId
    used_usd6: Usd6
    reason: CloseReason | None


class CommandWas(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """A live liquidation before a fill or its end."""

    before: Order


class Traded(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """An order, or the part of it that was carried out at once."""

    order: OrderPlaced
    placed_us: Micros


class Funded(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """A funding payment of everybody."""


class Bought(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """What a trade has bought on the venue, or sold if below zero (C1)."""

    asset: Asset
    qty8: int


class Told(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """A word that has to be said again, for no block that is lost was its cause."""

    message: Message


class Retold(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """All that the contract knows, told on one channel, for the memory was lost (P61)."""

    family: Family


Fact: TypeAlias = TraderWas | CreditWas | CommandWas | Traded | Bought | Funded | Told | Retold


class Undo:
    """Facts of the blocks that may still be lost.

    Attributes:
        facts: each with its block, oldest first.
    """

    __slots__ = ("_height", "facts")

    def __init__(self) -> None:
        self.facts: deque[tuple[Height, Fact]] = deque()
        self._height = Height(0)

    def begin(self, height: Height, final_height: Height) -> None:
        """Go on to the newest block; what is final is never undone."""
        self._height = height
        while self.facts and self.facts[0][0] <= final_height:
            self.facts.popleft()

    def note(self, fact: Fact) -> None:
        """Add a fact of the newest block."""
        self.facts.append((self._height, fact))

    def lose(self, fork_height: Height) -> list[Fact]:
        """Take out the facts of blocks above a height, the newest first."""
        lost = []
        while self.facts and self.facts[-1][0] > fork_height:
            lost.append(self.facts.pop()[1])
        return lost
