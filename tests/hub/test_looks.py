"""A hub that looks at few accounts does what one does that looks at all of them."""

import random
from collections import Counter

import msgspec
import pytest

from benchmarks.looks import AllBook, OurBook
from hub.liquidation import LiquidationPolicy
from hub.margin.book import Book
from hub.margin.buffer import SqrtTimeBuffer
from hub.margin.requirement import MarginPolicy
from hub.node import Hub
from hub.state import HubPolicy
from hub.zone import ZonePolicy
from messaging.effects import Effect, Send
from messaging.envelope import Envelope
from messaging.messages import (
    ChainReorganised,
    Family,
    LiquidationDone,
    LiquidationEnd,
    LiquidationOrdered,
    MarginSet,
    Message,
    Position,
    PricePublished,
    StateReported,
    Watermark,
)
from messaging.node import Event, TimerFired
from messaging.units import HUB, SECOND_US, USD, NodeId
from tests.hub.test_oracle import BTC

SPOKES = ("base", "sol")
ETH = msgspec.structs.replace(BTC, asset="ETH", maintenance_margin_ppm=80_000, jump_ppm=40_000)
PRICES = {"BTC": 50_000.0, "ETH": 2_000.0}
POLICY = HubPolicy(
    name=HUB,
    block_us=12 * SECOND_US,
    look_us=60 * SECOND_US,
    margin=MarginPolicy(assets=(BTC, ETH), buffer=SqrtTimeBuffer(), gain_age_max_s=600.0),
    liquidation=LiquidationPolicy(
        call_ppm=1_150_000,
        restore_ppm=1_250_000,
        target_extra_ppm=20_000,
        cost_ppm=12_000,
        dust_usd6=100 * USD,
        command_ttl_us=60 * SECOND_US,
        insurance_share_ppm=500_000,
    ),
    zones=tuple(
        ZonePolicy(
            name=name,
            cap_usd6=10**9 * USD,
            command_us=40 * SECOND_US,
            overdue_after_us=10**12,
            renewals_max=0,
        )
        for name in SPOKES
    ),
    clock_skew_us=2 * SECOND_US,
    amount_max_usd6=10**6 * USD,
    ttl_max_us=10**9,
    insurance_usd6=10**6 * USD,
)


def rebooked(hub: Hub, kind: type[Book], cash_usd6: list[int]) -> Hub:
    state, levels = hub.state, POLICY.liquidation
    state.book = kind(
        POLICY.margin,
        state.places,
        len(SPOKES),
        len(cash_usd6),
        call_ppm=levels.call_ppm,
        restore_ppm=levels.restore_ppm,
    )
    for place, cash in enumerate(cash_usd6):
        state.book.set_cash(place, cash)
    return hub


class Walk:
    """Random events for two hubs, made from what the first one has ordered."""

    def __init__(self, seed: int, accounts: int) -> None:
        self.dice = random.Random(seed)
        self.names = [f"t{place}" for place in range(accounts)]
        cash = [self.dice.randint(300, 20_000) * USD for _ in self.names]
        deposits = list(zip(self.names, cash, strict=True))
        self.ours = rebooked(Hub(POLICY, deposits), OurBook, cash)
        self.all = rebooked(Hub(POLICY, deposits), AllBook, cash)
        self.now_us = 0
        self.prices = dict(PRICES)
        self.heights = dict.fromkeys(SPOKES, 0)
        self.final = dict.fromkeys(SPOKES, 0)
        self.version: Counter[tuple[str, str]] = Counter()
        self.orders: list[tuple[NodeId, LiquidationOrdered]] = []
        self.seen: Counter[str] = Counter()

    def tell(self, event: Event) -> None:
        effects = self.ours.handle(self.now_us, event)
        assert effects == self.all.handle(self.now_us, event)
        for effect in effects:
            self.note(effect)

    def note(self, effect: Effect) -> None:
        if type(effect) is not Send:
            return
        if type(effect.message) is LiquidationOrdered:
            self.orders.append((effect.to, effect.message))
            self.seen["ordered"] += 1
        elif type(effect.message) is MarginSet:
            self.seen[effect.message.status] += 1

    def send(self, spoke: str, family: Family, message: Message) -> None:
        height, final = self.heights[spoke], self.final[spoke]
        self.tell(Envelope(spoke, HUB, family, 1, 0, 0, height, final, message))

    def price(self) -> None:
        rough = self.dice.choice((0.0005, 0.003, 0.003, 0.02, 0.1))
        for asset in self.dice.sample(sorted(self.prices), self.dice.randint(1, 2)):
            pull = 0.02 * (PRICES[asset] / self.prices[asset] - 1.0)
            self.prices[asset] *= max(0.7, 1.0 + self.dice.gauss(pull, rough))
            price_usd6 = round(self.prices[asset] * USD)
            told = PricePublished(asset=asset, price_usd6=price_usd6, observed_us=self.now_us)
            self.tell(Envelope("oracle", HUB, Family.PRICE, 1, 0, 0, 0, 0, told))

    def mark(self, spoke: str) -> None:
        mark = Watermark(spoke_time_us=self.now_us, open_count=0)
        self.send(spoke, self.dice.choice((Family.MARGIN_STATE, Family.LIQUIDATION)), mark)

    def report(self, spoke: str, name: str, held: tuple[Position, ...]) -> None:
        place = self.ours.state.place_of[name]
        before = self.ours.state.accounts[place].views[SPOKES.index(spoke)].latest
        self.version[spoke, name] += 1
        loss = self.dice.randint(-300, 300) * USD
        state = StateReported(
            account=name,
            version=self.version[spoke, name],
            block_time_us=self.now_us,
            positions=held,
            realised_usd6=before.realised_usd6 + loss,
            fees_usd6=before.fees_usd6,
            liquidation_fees_usd6=before.liquidation_fees_usd6,
        )
        self.send(spoke, Family.MARGIN_STATE, state)

    def trade(self, spoke: str) -> None:
        held = []
        for asset in self.dice.sample(sorted(self.prices), self.dice.randint(0, 2)):
            value_usd = self.dice.choice((-1, 1)) * self.dice.uniform(500, 60_000)
            qty8 = round(value_usd / self.prices[asset] * 1e8)
            cost = round(value_usd * self.dice.uniform(0.97, 1.03) * USD)
            held.append(Position(asset=asset, qty8=qty8, cost_usd6=cost))
        self.report(spoke, self.dice.choice(self.names), tuple(held))

    def end(self) -> None:
        """Let a command come to its end; the report of it comes before, after, or not at all."""
        if not self.orders:
            return
        spoke, order = self.orders.pop(self.dice.randrange(len(self.orders)))
        place = self.ours.state.place_of[order.account]
        view = self.ours.state.accounts[place].views[SPOKES.index(spoke)].latest
        held = tuple(
            one
            if one.asset != order.asset or abs(one.qty8) <= order.target_qty8
            else msgspec.structs.replace(
                one,
                qty8=order.target_qty8 * (1 if one.qty8 > 0 else -1),
                cost_usd6=one.cost_usd6 * order.target_qty8 // abs(one.qty8),
            )
            for one in view.positions
        )
        done = LiquidationDone(
            liq_id=order.liq_id,
            filled_qty8=order.max_qty8,
            position_after_qty8=order.target_qty8,
            state_version=self.version[spoke, order.account] + 1,
            reason=LiquidationEnd.DONE,
        )
        first = self.dice.random() < 0.5
        if first:
            self.send(spoke, Family.LIQUIDATION, done)
        self.report(spoke, order.account, held)
        if not first:
            self.send(spoke, Family.LIQUIDATION, done)

    def reorganise(self, spoke: str) -> None:
        fork = max(self.final[spoke], self.heights[spoke] - self.dice.randint(1, 5))
        family = self.dice.choice((Family.MARGIN_STATE, Family.LIQUIDATION))
        lost = ChainReorganised(fork_height=fork, old_height=self.heights[spoke], base_epoch=1)
        self.heights[spoke] = fork
        self.send(spoke, family, lost)

    def step(self) -> None:
        patience_s = self.dice.choice((1, 3, 12, 12, 12, 30, 200))
        self.now_us += self.dice.randint(0, patience_s * SECOND_US)
        spoke = self.dice.choice(SPOKES)
        self.heights[spoke] += self.dice.randint(0, 2)
        self.final[spoke] = max(self.final[spoke], self.heights[spoke] - self.dice.randint(2, 9))
        for chance, do in (
            (0.5, self.price),
            (0.4, lambda: self.mark(spoke)),
            (0.2, lambda: self.trade(spoke)),
            (0.3, self.end),
            (0.03, lambda: self.reorganise(spoke)),
        ):
            if self.dice.random() < chance:
                do()
        self.tell(TimerFired("block"))


@pytest.mark.parametrize("seed", range(12))
def test_few_are_looked_at_and_the_same_is_done(seed: int) -> None:
    """Every call, restore and order, in every event, is that of a hub that looks at all."""
    walk = Walk(seed, accounts=25)
    for asset, price_usd in PRICES.items():
        told = PricePublished(asset=asset, price_usd6=round(price_usd * USD), observed_us=0)
        walk.tell(Envelope("oracle", HUB, Family.PRICE, 1, 0, 0, 0, 0, told))
    for spoke in SPOKES * 15:
        walk.trade(spoke)
    for _ in range(400):
        walk.step()

    book = walk.ours.state.book
    assert isinstance(book, OurBook)
    assert book.looked_at < 400 * len(walk.names) / 2
    assert all(walk.seen[what] > 5 for what in ("ordered", "open", "reduce_only")), walk.seen
