"""One trader over all spokes, as the hub knows him. Immutable."""

import msgspec

from messaging.messages import LiquidationDone, LiquidationOrdered, MarginStatus, StateReported
from messaging.units import AccountId, Height, LiquidationId, Micros, Qty8, Usd6


def nothing(account: AccountId) -> StateReported:
    """Return the report of an account that has done nothing yet."""
    return StateReported(
        account=account,
        version=0,
        block_time_us=Micros(0),
        positions=(),
        realised_usd6=Usd6(0),
        fees_usd6=Usd6(0),
        liquidation_fees_usd6=Usd6(0),
    )


class SpokeView(msgspec.Struct, frozen=True, gc=False):
    """What one spoke has said about the account.

    Attributes:
        latest: the newest report, which later blocks may still undo.
        settled: the newest final report; the ledger has booked it.
        waiting: reports newer than `settled`, oldest first, each with its block.
    """

    latest: StateReported
    settled: StateReported
    waiting: tuple[tuple[Height, StateReported], ...] = ()


class Command(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A liquidation under way.

    Attributes:
        ordered: the command.
        spoke: place of the spoke in the scenario's order.
        asset: place of the asset in the scenario's order.
        done: the spoke's last word on it; it is over once the report named there has come.
        claim: the command at a price of a bankrupt account that this one takes the other side
            of (L14), and `claimed_qty8` of it.
    """

    ordered: LiquidationOrdered
    spoke: int
    asset: int
    done: LiquidationDone | None = None
    claim: LiquidationId | None = None
    claimed_qty8: Qty8 = Qty8(0)


class Account(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A trader's standing.

    Attributes:
        place: position in the hub's arrays.
        views: one for each spoke, in the scenario's order.
        status: what the account may do.
        margin_version: counts the changes of status, for spokes to order them.
        commands: liquidations under way.
        liquidations: how many commands there have been.
        grace_until_us: until when a liquidation may wait; None if the account has not been below
            maintenance since it was last allowed to open (rule L16).
        closed_out: a shortfall has been written off; the account trades no more.
    """

    id: AccountId
    place: int
    views: tuple[SpokeView, ...]
    status: MarginStatus = MarginStatus.OPEN
    margin_version: int = 0
    commands: tuple[Command, ...] = ()
    liquidations: int = 0
    grace_until_us: Micros | None = None
    closed_out: bool = False

    @property
    def flat(self) -> bool:
        """Tell whether every report, final or not, is without positions."""
        return all(
            not view.latest.positions and not view.settled.positions and not view.waiting
            for view in self.views
        )

    def bounds(self) -> dict[tuple[int, int], Qty8]:
        """Return the smallest size that commands under way leave, by (spoke, asset) (P80)."""
        bounds: dict[tuple[int, int], Qty8] = {}
        for command in self.commands:
            key = (command.spoke, command.asset)
            target_qty8 = command.ordered.target_qty8
            bounds[key] = min(target_qty8, bounds.get(key, target_qty8))
        return bounds


def see(account: Account, spoke: int, view: SpokeView) -> Account:
    """Return the account with one spoke's view replaced."""
    views = (*account.views[:spoke], view, *account.views[spoke + 1 :])
    return msgspec.structs.replace(account, views=views)


def report(view: SpokeView, state: StateReported, height: Height) -> SpokeView:
    """Take a report in; the highest version wins (section 6.2 of the rules)."""
    if state.version <= view.latest.version:
        return view
    return SpokeView(state, view.settled, (*view.waiting, (height, state)))


def finalise(view: SpokeView, final_height: Height) -> SpokeView:
    """Let the newest report that is now final become the settled one (P52, P53)."""
    count = sum(height <= final_height for height, _ in view.waiting)
    if count == 0:
        return view
    return SpokeView(view.latest, view.waiting[count - 1][1], view.waiting[count:])
