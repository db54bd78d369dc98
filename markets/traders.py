"""Who trades: accounts that open, add, cut and close with leverage on several spokes.

Everything a trader will want is drawn before the run, account by account, from its own dice; at
its hour only the price decides the quantity. So orders are the same whatever messages do.
"""

from collections.abc import Sequence
from itertools import chain, count
from typing import NamedTuple

import msgspec
from scipy.special import ndtri

from messaging.dice import Dice
from messaging.effects import Effect, Send, SetTimer
from messaging.envelope import Envelope
from messaging.messages import Family, MarketMoved, OrderPlaced
from messaging.node import Event
from messaging.units import (
    HOUR_US,
    ONE,
    USD,
    AccountId,
    Asset,
    Micros,
    NodeId,
    Ppm,
    Qty8,
    Usd6,
)

NEXT = "next"


class TraderPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Who the traders are.

    Attributes:
        accounts: how many.
        collateral_usd6: median collateral; sigma of its logarithm in `collateral_sigma`.
        leverage_min, leverage_max: total notional over collateral, drawn evenly between.
        long_ppm: share of accounts that are long.
        hedged_ppm: chance that a further position goes the other way.
        positions_max: most positions of one account, over all spokes and assets.
        open_from_us, open_until_us: when first positions are opened.
        actions_per_day: adds, cuts and closes of each position, on average.
    """

    accounts: int
    collateral_usd6: Usd6
    collateral_sigma: float
    leverage_min: float
    leverage_max: float
    long_ppm: Ppm
    hedged_ppm: Ppm
    positions_max: int
    open_from_us: Micros
    open_until_us: Micros
    actions_per_day: float


class Intent(NamedTuple):
    """One thing a trader will want: a signed notional to open, or a share to close."""

    at_us: Micros
    account: int
    spoke: int
    asset: int
    notional_usd6: int
    close_ppm: int


def account_name(number: int) -> AccountId:
    """Return the id of trader `number`."""
    return AccountId(f"t{number:05}")


def collateral_usd6(policy: TraderPolicy, seed: int, number: int) -> Usd6:
    """Return what trader `number` brings, at least one dollar."""
    u = max(float(Dice(seed, f"trader/{number}/collateral").block(0)[0]), 2.0**-53)
    factor = float(pow(2.718281828459045, policy.collateral_sigma * float(ndtri(u))))
    return Usd6(max(USD, round(policy.collateral_usd6 * factor)))


def plan(
    policy: TraderPolicy, seed: int, *, spokes: int, assets: int, duration_us: Micros
) -> list[Intent]:
    """Return all that all traders will want, in order of time."""
    intents = [
        intent
        for number in range(policy.accounts)
        for intent in _plan_one(policy, seed, number, spokes, assets, duration_us)
    ]
    return sorted(intents)


def _plan_one(
    policy: TraderPolicy, seed: int, number: int, spokes: int, assets: int, duration_us: Micros
) -> list[Intent]:
    stream = Dice(seed, f"trader/{number}/plan")
    dice = chain.from_iterable(stream.block(block).tolist() for block in count())

    def draw() -> float:
        return float(next(dice))

    def between(low: float, high: float) -> float:
        return low + (high - low) * draw()

    long = draw() * 1e6 < policy.long_ppm
    leverage = between(policy.leverage_min, policy.leverage_max)
    positions = 1 + int(draw() * policy.positions_max)
    total_usd6 = collateral_usd6(policy, seed, number) * leverage
    intents = []
    for index in range(positions):
        spoke, asset = int(draw() * spokes), int(draw() * assets)
        against = index > 0 and draw() * 1e6 < policy.hedged_ppm
        side = 1 if long != against else -1
        size_usd6 = side * round(total_usd6 / positions)
        opened_us = Micros(round(between(policy.open_from_us, policy.open_until_us)))
        intents.append(Intent(opened_us, number, spoke, asset, size_usd6, 0))
        expected = policy.actions_per_day * max(0, duration_us - opened_us) / (24 * HOUR_US)
        for _ in range(int(expected + draw())):
            at_us = Micros(round(between(opened_us, duration_us)))
            kind, share = draw(), draw()
            if kind < 0.45:  # adds a part of what it first opened
                more_usd6 = round(size_usd6 * (0.1 + 0.4 * share))
                intents.append(Intent(at_us, number, spoke, asset, more_usd6, 0))
            elif kind < 0.85:  # cuts
                cut_ppm = round((0.1 + 0.4 * share) * 1e6)
                intents.append(Intent(at_us, number, spoke, asset, 0, cut_ppm))
            else:
                intents.append(Intent(at_us, number, spoke, asset, 0, 1_000_000))
    return intents


class Traders:
    """All traders as one node; each order goes to the spoke it is meant for."""

    def __init__(
        self,
        name: NodeId,
        intents: Sequence[Intent],
        spokes: Sequence[NodeId],
        assets: Sequence[Asset],
    ) -> None:
        """Place `intents`, which are in order of time, on `spokes`."""
        self.name = name
        self._intents = intents
        self._spokes = spokes
        self._assets = assets
        self._next = 0
        self._prices_usd6: Sequence[Usd6] = ()

    def start(self) -> Sequence[Effect]:
        """See `messaging.node.Node.start`."""
        return self._wake()

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        """See `messaging.node.Node.handle`."""
        if type(event) is Envelope:
            assert isinstance(event.message, MarketMoved)
            self._prices_usd6 = event.message.prices_usd6
            return ()
        effects: list[Effect] = []
        while self._next < len(self._intents) and self._intents[self._next].at_us <= now_us:
            effects.append(self._place(self._next))
            self._next += 1
        effects += self._wake()
        return effects

    def _place(self, order_id: int) -> Send:
        intent = self._intents[order_id]
        price_usd6 = self._prices_usd6[intent.asset]
        qty8 = intent.notional_usd6 * ONE // price_usd6
        if not intent.close_ppm and qty8 == 0:
            qty8 = 1
        placed = OrderPlaced(
            order_id=order_id,
            account=account_name(intent.account),
            asset=self._assets[intent.asset],
            qty8=Qty8(qty8),
            close_ppm=Ppm(intent.close_ppm),
        )
        return Send(self._spokes[intent.spoke], Family.ORDER, placed)

    def _wake(self) -> list[SetTimer]:
        if self._next == len(self._intents):
            return []
        # Not before the first prices are known, which come at time 0.
        return [SetTimer(NEXT, Micros(max(1, self._intents[self._next].at_us)))]
