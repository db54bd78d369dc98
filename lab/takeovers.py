"""Commands at a price, held against the rules when the hub gives them (ADL in docs/invariants.md).

Follows L12 to L14 of docs/margin.md in code of its own: who is closed at a price is bankrupt, and
gets no more than is missing; who takes the other side stays sound, and closes no more than the
spokes have finally said was closed.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hub.account import Account
from hub.adl import Adl
from hub.margin.requirement import Conditions, Reported, assess
from hub.state import HubState
from messaging.effects import Effect, Send
from messaging.errors import InvariantViolated
from messaging.messages import (
    LiquidationDone,
    LiquidationEnd,
    LiquidationOrdered,
    MarginStatus,
    Message,
)
from messaging.units import ONE, AccountId, LiquidationId, Micros


class Order(NamedTuple):
    """A command at a price, and whether it was to a bankrupt account."""

    command: LiquidationOrdered
    bankrupt: bool


class Takeovers:
    """All commands at a price that a hub has given, and how they ended."""

    def __init__(self, hub: HubState) -> None:
        self._hub = hub
        self._orders: dict[LiquidationId, Order] = {}
        self._filled: dict[LiquidationId, int] = {}
        self._given_usd6: dict[AccountId, int] = {}

    def follow(self, hub: HubState) -> None:
        """Look at a hub from now on; what another one has given and nobody has heard is gone."""
        self._hub = hub
        known = {liq_id for zone in hub.zones for liq_id in zone.commands} | self._filled.keys()
        self._orders = {one: order for one, order in self._orders.items() if one in known}
        self._given_usd6 = dict(hub.ledger.haircut_usd6)

    def hear(self, message: Message) -> None:
        """Note how a command at a price has ended; a later word on it is the one that stands."""
        if (
            type(message) is not LiquidationDone
            or message.reason is LiquidationEnd.EXISTS_DIFFERENT
        ):
            return
        if message.liq_id in self._orders:
            self._filled[message.liq_id] = message.filled_qty8

    def check(self, effects: Sequence[Effect], now_us: Micros) -> int:
        """Check the commands at a price that leave with an event; return how many checks.

        Raises:
            InvariantViolated: ADL.
        """
        hub = self._hub
        fresh = {
            effect.message.liq_id: effect.message
            for effect in effects
            if type(effect) is Send
            and type(effect.message) is LiquidationOrdered
            and effect.message.price_usd6
            and effect.message.liq_id not in self._orders
        }
        for account_id in dict.fromkeys(one.account for one in fresh.values()):
            account = hub.accounts[hub.place_of[account_id]]
            bankrupt = account.status is MarginStatus.FROZEN
            for liq_id, command in fresh.items():
                if command.account == account_id:
                    self._orders[liq_id] = Order(command, bankrupt)
            conditions = hub.conditions(now_us)
            if bankrupt:
                self._check_bankrupt(account, conditions)
            else:
                self._check_sound(account, conditions)
        if fresh and hub.policy.liquidation.adl is Adl.PRO_RATA:
            self._check_quantities(fresh.values())
        if hub.ledger.haircut_usd6 != self._given_usd6:
            self._given_usd6 = dict(hub.ledger.haircut_usd6)
        return len(fresh)

    def _check_bankrupt(self, account: Account, conditions: Conditions) -> None:
        """Without the commands at a price it is below zero, and with them at most at zero."""
        hub = self._hub
        equity_usd6 = self._cash_usd6(account) + hub.held_usd6(account.id)
        for view in account.views:
            for sign, told in ((1, view.latest), (-1, view.settled)):
                equity_usd6 += sign * (told.realised_usd6 - told.fees_usd6)
            for held in view.latest.positions:
                price_usd6 = conditions.prices_usd6[hub.places[held.asset]]
                equity_usd6 += held.qty8 * price_usd6 // ONE - held.cost_usd6
        better_usd6, tolerance_usd6 = self._better_usd6(account, conditions)
        what = f"{account.id} is closed at a price"
        _hold(equity_usd6 < 0, f"{what}, and not bankrupt", equity_usd6)
        rounded = equity_usd6 + better_usd6 <= tolerance_usd6
        _hold(rounded, f"{what} that leaves it something", equity_usd6 + better_usd6)

    def _check_sound(self, account: Account, conditions: Conditions) -> None:
        """It has its maintenance margin once all its commands are carried out."""
        hub = self._hub
        reports = [Reported(view.latest, view.settled) for view in account.views]
        standing = assess(
            hub.margin,
            hub.places,
            conditions,
            self._cash_usd6(account),
            reports,
            account.bounds(),
        )
        better_usd6, _ = self._better_usd6(account, conditions)
        left_usd6 = standing.equity_usd6 + better_usd6 - standing.maintenance_usd6
        open_still = not account.closed_out
        _hold(open_still, f"{account.id} takes the other side, closed out", 0)
        _hold(left_usd6 >= 0, f"{account.id} is below maintenance by its command", left_usd6)

    def _cash_usd6(self, account: Account) -> int:
        """Return cash as it was before the haircut that ends a block (L11)."""
        books = self._hub.ledger
        given_usd6 = books.haircut_usd6.get(account.id, 0) - self._given_usd6.get(account.id, 0)
        return books.cash_usd6(account.id) + given_usd6

    def _better_usd6(self, account: Account, conditions: Conditions) -> tuple[int, int]:
        """Return what commands at a price bring more than the marks, and how far it may round."""
        hub, better_usd6, tolerance_usd6 = self._hub, 0, 0
        for command in account.commands:
            ordered = command.ordered
            if not ordered.price_usd6:
                continue
            positions = account.views[command.spoke].latest.positions
            size_qty8 = sum(abs(one.qty8) for one in positions if one.asset == ordered.asset)
            closes_qty8 = min(ordered.max_qty8, max(0, size_qty8 - ordered.target_qty8))
            if command.done is not None:
                closes_qty8 = command.done.filled_qty8
            mark_usd6 = conditions.prices_usd6[hub.places[ordered.asset]]
            off_usd6 = abs(ordered.price_usd6) - mark_usd6
            side = 1 if ordered.price_usd6 > 0 else -1
            better_usd6 += closes_qty8 * side * off_usd6 // ONE
            tolerance_usd6 += closes_qty8 // ONE + 2
        return better_usd6, tolerance_usd6

    def _check_quantities(self, fresh: Iterable[LiquidationOrdered]) -> None:
        """No more is closed at a price by others than bankrupt accounts have closed (L13)."""
        others: Counter[tuple[str, int]] = Counter()
        bankrupt: Counter[tuple[str, int]] = Counter()
        for liq_id, (command, was_bankrupt) in self._orders.items():
            if was_bankrupt:
                bankrupt[command.asset, command.price_usd6] += self._filled.get(liq_id, 0)
            else:
                closes_qty8 = self._filled.get(liq_id, command.max_qty8)
                others[command.asset, -command.price_usd6] += closes_qty8
        for one in fresh:
            key = (one.asset, -one.price_usd6)
            text = f"{one.asset} at {abs(one.price_usd6):,}: {others[key]:,} closed by others"
            _hold(others[key] <= bankrupt[key], f"{text} against", bankrupt[key])


def _hold(holds: bool, what: str, found: int) -> None:
    if not holds:
        raise InvariantViolated("ADL", f"{what}: found {found:,}")
