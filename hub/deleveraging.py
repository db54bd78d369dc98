"""Auto-deleveraging at the hub: close the bankrupt at a price, then others against them.

First the bankrupt account's positions are closed at their bankruptcy price; what was closed is
claimed of positions on the other side once the spoke's word on it is final, and claimed again of
others as far as those had closed meanwhile. The price stays, so lateness costs nobody. Rules
L12 to L14 of docs/margin.md.
"""

from collections.abc import Callable, Iterator, Sequence

import msgspec

from hub import adl, commands, waterfall
from hub.account import Account, Command
from hub.adl import Adl, Claim, Winner
from hub.liquidation import Reduction
from hub.margin.buffer import range_ppm
from hub.margin.requirement import Conditions
from hub.state import HubState
from hub.waterfall import Funds
from messaging.effects import Effect
from messaging.messages import MarginStatus, Position
from messaging.units import LiquidationId, Qty8, Usd6, ratio_up, value_down, value_up


class Means:
    """What there still is for the shortfalls that one look finds.

    Attributes:
        funds: what they would have left after the accounts looked at so far.
        rooms: by asset and side of the bankrupt, the quantity that others may close.
    """

    __slots__ = ("funds", "rooms")

    def __init__(self, funds: Funds) -> None:
        self.funds = funds
        self.rooms: dict[tuple[int, bool], int] = {}

    def promise(self, missing_usd6: int, losses_usd6: list[int]) -> int:
        """Set aside what the funds pay of a shortfall; return what they do not [usd6]."""
        paid = waterfall.pay(max(0, missing_usd6), losses_usd6, self.funds)
        self.funds = waterfall.after(self.funds, paid)
        return paid.rest


def means(hub: HubState, places: Sequence[int], conditions: Conditions) -> Means:
    """Return what there is for the accounts of a look.

    What those lack that have nothing left to close is promised to them first.
    """
    found = Means(hub.funds())
    for place in places if hub.policy.liquidation.adl is not Adl.NONE else ():
        account = hub.accounts[place]
        frozen = account.status is MarginStatus.FROZEN and not account.closed_out
        if frozen and not _left(hub, account):
            found.promise(*shortfall(hub, account, conditions))
    return found


def close_bankrupt(
    hub: HubState, account: Account, conditions: Conditions, means: Means
) -> list[Effect]:
    """Close an account at its bankruptcy price if the funds cannot pay for it (rule L12).

    As far as there are positions to close against. A position that a command at a price is under
    way for is left to that; one that the market is closing is not, for what is left of it is
    closed only once (P75).
    """
    if hub.policy.liquidation.adl is Adl.NONE:
        return []
    left = _left(hub, account)
    rest_usd6 = means.promise(*shortfall(hub, account, conditions)) if left else 0
    prices = conditions.prices_usd6
    notional_usd6 = sum(value_up(abs(held.qty8), prices[asset]) for _, asset, held in left)
    missing_usd6 = min(rest_usd6, notional_usd6)
    reductions = []
    for spoke, asset, held in left if missing_usd6 else ():
        long, size_qty8 = held.qty8 > 0, Qty8(abs(held.qty8))
        price_usd6 = adl.bankruptcy_price_usd6(
            prices[asset], long=long, missing_usd6=missing_usd6, notional=notional_usd6
        )
        room_qty8 = _room_qty8(hub, conditions, means, asset, long, price_usd6)
        closes_qty8 = min(size_qty8, room_qty8)
        means.rooms[asset, long] = room_qty8 - closes_qty8
        if closes_qty8:
            version = account.views[spoke].latest.version
            target_qty8 = Qty8(size_qty8 - closes_qty8)
            signed_usd6 = Usd6(price_usd6 if long else -price_usd6)
            reductions.append(Reduction(spoke, asset, size_qty8, target_qty8, version, signed_usd6))
    effects = commands.give(hub, account, reductions)
    given = hub.accounts[account.place].commands[len(account.commands) :]
    for command in given:
        ordered = command.ordered
        hub.claims[ordered.liq_id] = Claim(
            spoke=command.spoke,
            asset=command.asset,
            long=ordered.price_usd6 > 0,
            price_usd6=Usd6(abs(ordered.price_usd6)),
            owed_qty8=ordered.max_qty8,
        )
    return effects


def match(hub: HubState, conditions: Conditions) -> list[Effect]:
    """Close positions on the other side against what is claimed finally (rules L13, L14)."""
    effects: list[Effect] = []
    policy = hub.policy.liquidation
    due = [(liq_id, one) for liq_id, one in hub.claims.items() if one.final and one.owed_qty8]
    for liq_id, claim in due:
        price_usd6 = Usd6(-claim.price_usd6 if claim.long else claim.price_usd6)
        winners = _winners(hub, conditions, claim.asset, not claim.long, claim.price_usd6)
        owed_qty8 = claim.owed_qty8
        for winner, qty8 in adl.choose(policy.adl, claim.spoke, owed_qty8, winners):
            part_qty8 = Qty8(min(qty8, owed_qty8))
            owed_qty8 -= part_qty8
            account = hub.accounts[winner.place]
            reduction = Reduction(
                winner.spoke,
                claim.asset,
                Qty8(winner.size_qty8),
                Qty8(winner.size_qty8 - qty8),
                account.views[winner.spoke].latest.version,
                price_usd6,
                liq_id,
                part_qty8,
            )
            effects += commands.give(hub, account, [reduction])
        hub.claims[liq_id] = msgspec.structs.replace(claim, owed_qty8=owed_qty8)
    return effects


def settle(hub: HubState, command: Command) -> None:
    """Note the final end of a command at a price: what is claimed now, or claimed again (L13)."""
    done, ordered = command.done, command.ordered
    if not ordered.price_usd6 or done is None:
        return
    if command.claim is None:
        claim, owed_qty8 = hub.claims[ordered.liq_id], int(done.filled_qty8)
    else:
        claim = hub.claims[command.claim]
        owed_qty8 = claim.owed_qty8 + max(0, command.claimed_qty8 - done.filled_qty8)
    liq_id: LiquidationId = command.claim or ordered.liq_id
    hub.claims[liq_id] = msgspec.structs.replace(claim, owed_qty8=owed_qty8, final=True)
    hub.look_due = True


def shortfall(hub: HubState, account: Account, conditions: Conditions) -> tuple[int, list[int]]:
    """Return what an account lacks [usd6], below zero if nothing; and its losses by spoke.

    By the newest reports, with gains in full however old or held, and without liquidation fees,
    for they are waived where something is missing (L3). Commands at a price under way count.
    """
    equity_usd6 = hub.ledger.cash_usd6(account.id) + hub.held_usd6(account.id)
    equity_usd6 += priced_gain_usd6(hub, account, conditions)
    losses_usd6 = []
    for view in account.views:
        newest, settled = view.latest, view.settled
        open_usd6 = sum(
            value_down(held.qty8, conditions.prices_usd6[hub.places[held.asset]]) - held.cost_usd6
            for held in newest.positions
        )
        won_usd6 = newest.realised_usd6 - newest.fees_usd6 + open_usd6
        equity_usd6 += won_usd6 - settled.realised_usd6 + settled.fees_usd6
        losses_usd6.append(max(0, -won_usd6))
    return -equity_usd6, losses_usd6


def priced_gain_usd6(hub: HubState, account: Account, conditions: Conditions) -> int:
    """Return what commands at a price under way bring more than the prices in use [usd6]."""
    gain_usd6 = 0
    for spoke, asset, held in _positions(hub, account):
        for command in account.commands:
            ordered = command.ordered
            if ordered.price_usd6 and (command.spoke, command.asset) == (spoke, asset):
                qty8 = min(ordered.max_qty8, abs(held.qty8) - ordered.target_qty8)
                if command.done is not None:
                    qty8 = command.done.filled_qty8
                gain_usd6 += _gain_usd6(qty8, ordered.price_usd6, conditions.prices_usd6[asset])
    return gain_usd6


def _gain_usd6(qty8: int, price_usd6: int, mark_usd6: int) -> int:
    """Return what closing at a signed price brings more than at the mark, rounded down."""
    return value_down(max(0, qty8), price_usd6 - (mark_usd6 if price_usd6 > 0 else -mark_usd6))


def _positions(hub: HubState, account: Account) -> Iterator[tuple[int, int, Position]]:
    for spoke, view in enumerate(account.views):
        for held in view.latest.positions:
            yield spoke, hub.places[held.asset], held


def _left(hub: HubState, account: Account) -> list[tuple[int, int, Position]]:
    """Return the positions that may still be closed at a price."""
    priced = {(one.spoke, one.asset) for one in account.commands if one.ordered.price_usd6}
    return [
        (spoke, asset, held)
        for spoke, asset, held in _positions(hub, account)
        if (spoke, asset) not in priced and hub.zones[spoke].may_free
    ]


def _room_qty8(
    hub: HubState, conditions: Conditions, means: Means, asset: int, long: bool, price_usd6: Usd6
) -> int:
    """Return what others may close against one side of an asset, less what is claimed already.

    Counted once a look, at the first price asked for.
    """
    if (asset, long) not in means.rooms:
        most_qty8 = sum(
            one.most_qty8 for one in _winners(hub, conditions, asset, not long, price_usd6)
        )
        claimed_qty8 = sum(
            one.owed_qty8 for one in hub.claims.values() if (one.asset, one.long) == (asset, long)
        )
        means.rooms[asset, long] = max(0, most_qty8 - claimed_qty8)
    return means.rooms[asset, long]


def _winners(
    hub: HubState, conditions: Conditions, asset: int, long: bool, price_usd6: Usd6
) -> list[Winner]:
    """Return the positions on one side of an asset that may be closed at a price (rule L14).

    One of an account, the largest; none with a command under way, of an account that is frozen,
    or on a spoke whose word counts for little.
    """
    found = []
    for account in hub.accounts:
        if account.status is MarginStatus.FROZEN or account.closed_out:
            continue
        busy = {(one.spoke, one.asset) for one in account.commands}
        held = [
            (abs(one.qty8), -spoke, one)
            for spoke, place, one in _positions(hub, account)
            if place == asset
            and (one.qty8 > 0) is long
            and (spoke, asset) not in busy
            and hub.zones[spoke].may_free
        ]
        if held:
            _, spoke, position = max(held, key=lambda one: one[:2])
            found.append(
                _winner(hub, conditions, account, -spoke, asset, position, int(price_usd6))
            )
    return found


def _winner(
    hub: HubState,
    conditions: Conditions,
    account: Account,
    spoke: int,
    asset: int,
    held: Position,
    price_usd6: int,
) -> Winner:
    """Return a position with what of it may be closed so that its holder stays sound (L14)."""
    mark_usd6, risk = conditions.prices_usd6[asset], hub.margin.assets[asset]
    size_qty8 = abs(held.qty8)
    signed_usd6 = price_usd6 if held.qty8 > 0 else -price_usd6
    equity_usd6 = hub.assess_latest(account, conditions).equity_usd6
    equity_usd6 += priced_gain_usd6(hub, account, conditions)

    def sound(qty8: int) -> bool:
        bound = {(spoke, asset): Qty8(size_qty8 - qty8)}
        standing = hub.assess_latest(account, conditions, bound)
        left_usd6 = equity_usd6 + _gain_usd6(qty8, signed_usd6, mark_usd6)
        return left_usd6 >= standing.maintenance_usd6

    most_qty8 = _most(sound, size_qty8)
    value_usd6 = value_up(size_qty8, mark_usd6)
    range_usd6 = range_ppm(hub.margin.buffer, risk, conditions.tau_s[spoke][asset])
    pnl_usd6 = value_down(held.qty8, mark_usd6) - held.cost_usd6
    return Winner(
        account.place,
        spoke,
        size_qty8,
        most_qty8,
        ratio_up(value_usd6, range_usd6),
        adl.rank(pnl_usd6, held.cost_usd6, value_usd6, equity_usd6),
    )


def _most(sound: Callable[[int], bool], size_qty8: int) -> int:
    """Return the largest quantity up to `size_qty8` that is sound, 0 if none is.

    Margin is convex in what is closed and its price linear, so the sound ones are in one row.
    """
    if not sound(0):
        return 0
    if sound(size_qty8):
        return size_qty8
    low_qty8, high_qty8 = 0, size_qty8
    while high_qty8 - low_qty8 > 1:
        middle_qty8 = (low_qty8 + high_qty8) // 2
        if sound(middle_qty8):
            low_qty8 = middle_qty8
        else:
            high_qty8 = middle_qty8
    return low_qty8
