"""What auto-deleveraging has done in a run, in numbers. Watches and never touches."""

from collections import Counter
from typing import NamedTuple

from hub.state import HubState
from lab.result import Deleveraging
from messaging.messages import LiquidationDone, LiquidationOrdered
from messaging.units import AccountId, LiquidationId, value_up


class Taken(NamedTuple):
    """A bankrupt account's position, closed at a price: how much better than the mark then."""

    price_usd6: int
    better_usd6: int


class Takings:
    """Collects while a run goes on; a command whose end is undone counts as it ends at last."""

    def __init__(self, hub: HubState) -> None:
        self._hub = hub
        self._taken: dict[LiquidationId, Taken] = {}
        self._claims: dict[LiquidationId, tuple[LiquidationId, AccountId]] = {}
        self._filled: dict[LiquidationId, int] = {}

    def ordered(self, command: LiquidationOrdered) -> None:
        """Note a command at a price as it leaves the hub."""
        hub, liq_id = self._hub, command.liq_id
        account = hub.accounts[hub.place_of[command.account]]
        (known,) = [one for one in account.commands if one.ordered.liq_id == liq_id]
        if known.claim is None:
            mark_usd6 = hub.prints[known.asset].price_usd6
            price_usd6 = abs(command.price_usd6)
            self._taken[liq_id] = Taken(price_usd6, abs(price_usd6 - mark_usd6))
        else:
            self._claims[liq_id] = (known.claim, command.account)

    def ended(self, done: LiquidationDone) -> None:
        """Note how much a command at a price has closed."""
        self._filled[done.liq_id] = done.filled_qty8

    def result(self) -> Deleveraging:
        """Return the sums of the run."""
        others: Counter[LiquidationId] = Counter()
        accounts: set[AccountId] = set()
        for liq_id, (claim, account) in self._claims.items():
            qty8 = self._filled.get(liq_id, 0)
            others[claim] += qty8
            if qty8:
                accounts.add(account)
        closed_usd6 = given_up_usd6 = overshoot_usd6 = unmatched_usd6 = 0
        for liq_id, taken in self._taken.items():
            own_qty8, other_qty8 = self._filled.get(liq_id, 0), others[liq_id]
            closed_usd6 += value_up(other_qty8, taken.price_usd6)
            given_up_usd6 += value_up(other_qty8, taken.better_usd6)
            overshoot_usd6 += value_up(max(0, other_qty8 - own_qty8), taken.better_usd6)
            unmatched_usd6 += value_up(max(0, own_qty8 - other_qty8), taken.better_usd6)
        return Deleveraging(
            commands=len(self._taken) + len(self._claims),
            accounts=len(accounts),
            closed_usd6=closed_usd6,
            given_up_usd6=given_up_usd6,
            overshoot_usd6=overshoot_usd6,
            unmatched_usd6=unmatched_usd6,
        )
