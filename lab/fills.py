"""What liquidations do to positions at one spoke: they reduce, to the bound and no further (INV15).

And that nothing grows where a breaker lets nobody open (INV17).

Kept beside one process of the spoke, from what the process itself reports.
"""

from messaging.breakers import Level
from messaging.errors import InvariantViolated
from messaging.messages import StateReported
from messaging.units import ONE, AccountId, Asset, LiquidationId
from spokes.node import Spoke
from spokes.state import SpokeState


class Fills:
    """Positions as reported last, and what every command has closed."""

    def __init__(self, spoke: Spoke, *, amid: bool = False) -> None:
        """Begin with what the spoke holds and has filled now, if `amid` amid an event of it."""
        state = spoke.state
        self._spoke = spoke
        self._amid = amid and bool(state.filled)
        self._held: dict[tuple[AccountId, Asset], int] = {
            (account, asset): holding.qty8
            for account, trader in state.traders.items()
            for asset, holding in trader.holdings
        }
        self._filled: dict[LiquidationId, int] = {
            liq_id: order.filled_qty8 for liq_id, order in state.orders.items()
        }

    def reported(self, report: StateReported) -> None:
        """Note what is held; nothing has grown while a liquidation of the account goes on.

        Nor where the spoke knows that a breaker stops opening.

        Raises:
            InvariantViolated: INV15, INV17.
        """
        state, account = self._spoke.state, report.account
        now = {position.asset: position.qty8 for position in report.positions}
        live = any(state.orders[liq_id].command.account == account for liq_id in state.live)
        for market in state.policy.markets:
            key, after_qty8 = (account, market.asset), now.get(market.asset, 0)
            before_qty8 = self._held.get(key, 0)
            shrank = abs(after_qty8) <= abs(before_qty8) and after_qty8 * before_qty8 >= 0
            if live:
                what = f"{account} opens under liquidation, from {before_qty8}"
                self._hold("INV15", shrank, what, after_qty8)
            if any(_stopped(state, scope) for scope in (market.asset, state.policy.name)):
                what = f"{account} opens {market.asset} in spite of a breaker, from {before_qty8}"
                self._hold("INV17", shrank, what, after_qty8)
            self._held[key] = after_qty8

    def check(self) -> int:
        """Check what the event under way has filled; return how many checks that were.

        Raises:
            InvariantViolated: INV15.
        """
        state = self._spoke.state
        if self._amid:  # what this event has filled is what it began with
            self._amid = False
            return 0
        closed: dict[tuple[AccountId, Asset], int] = {}
        bounds: dict[tuple[AccountId, Asset], int] = {}
        for liq_id in state.filled:
            order = state.orders[liq_id]
            command = order.command
            key = (command.account, command.asset)
            filled_qty8 = order.filled_qty8 - self._filled.get(liq_id, 0)
            self._filled[liq_id] = order.filled_qty8
            closed[key] = closed.get(key, 0) + filled_qty8
            bounds[key] = min(command.target_qty8, bounds.get(key, command.target_qty8))
            what = f"{command.account}, {command.asset}"
            in_bounds = filled_qty8 > 0 and order.filled_qty8 <= command.max_qty8
            self._hold("INV15", in_bounds, f"{what}: filled beyond the command", order.filled_qty8)
            if command.price_usd6:
                at_price = order.proceeds_usd6 == order.filled_qty8 * command.price_usd6 // ONE
                self._hold("INV15", at_price, f"{what}: at another price", order.proceeds_usd6)
        for (account, asset), closed_qty8 in closed.items():
            before_qty8 = self._held.get((account, asset), 0)
            after_qty8 = state.trader(account).holding(asset).qty8
            reduced = (
                after_qty8 * before_qty8 >= 0
                and abs(after_qty8) >= min(bounds[account, asset], abs(before_qty8))
                and abs(before_qty8) - abs(after_qty8) == closed_qty8
            )
            what = f"{account}, {asset}: from {before_qty8} not to the bound"
            self._hold("INV15", reduced, what, after_qty8)
        return 2 * len(state.filled)

    def _hold(self, rule: str, holds: bool, what: str, found: int) -> None:
        if not holds:
            raise InvariantViolated(rule, f"{self._spoke.name}, {what}: found {found}")


def _stopped(state: SpokeState, scope: str) -> bool:
    """Tell whether the spoke knows that nobody opens there."""
    known = state.breakers.get(scope)
    return known is not None and known[1] >= Level.REDUCE_ONLY
