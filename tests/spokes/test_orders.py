"""Traders' orders at a spoke, through the spoke's front door."""

import heapq

import pytest

from messaging.breakers import BreakerSet, Cause, Level
from messaging.effects import Effect, Forked, Send
from messaging.envelope import Envelope
from messaging.messages import (
    CloseReason,
    ClosureAcknowledged,
    CreditUsed,
    Family,
    HaltReason,
    MarginSet,
    MarginStatus,
    MarketMoved,
    Message,
    OrderPlaced,
    RejectReason,
    ReservationClosed,
    ReservationGranted,
    ReservationRejected,
    ReservationRequested,
    RevocationRequested,
    SpokeHalted,
    StateReported,
)
from messaging.node import TimerFired
from messaging.units import HUB, ONE, SECOND_US, USD, ratio_up, value_up
from spokes.chain import Chain
from spokes.node import Spoke
from spokes.state import SpokePolicy
from spokes.venue import Market, fill_price_usd6, trade

S = SECOND_US
TTL, PATIENCE, FINAL = 100 * S, 50 * S, 5 * S
BTC = Market(
    asset="BTC",
    initial_margin_ppm=100_000,
    fee_ppm=500,
    liquidation_fee_ppm=10_000,
    half_spread_ppm=100,
    depth_usd6=5_000_000 * USD,
    unwind_usd6_per_s=25_000 * USD,
    funding_ppm=100,
)
POLICY = SpokePolicy(
    name="base",
    hub=HUB,
    chain=Chain(block_us=S, safe_after_us=0, final_after_us=FINAL),
    markets=(BTC,),
    watermark_us=10 * S,
    digest_us=0,
    funding_us=3_600 * S,
    slice_us=2 * S,
    ttl_us=TTL,
    headroom_ppm=250_000,
    dust_usd6=50 * USD,
    patience_us=PATIENCE,
)


class Bench:
    """A spoke with its timers, as a driver runs them: by time, then by number."""

    def __init__(self, policy: SpokePolicy = POLICY) -> None:
        self.spoke = Spoke(policy)
        self.state = self.spoke.state
        self.now_us = 0
        self.sent: list[Send] = []  # and not of a block that is lost
        self.forks: list[Forked] = []
        self.batches: list[list[Send]] = []  # what was sent together, in one handling
        self._timers: dict[str, int] = {}
        self._queue: list[tuple[int, int, str]] = []
        self._pushed = 0
        self._carry_out(self.spoke.start())
        self.price(100)
        self.run()  # the first watermark comes just behind the block at 1 s
        self.run(1)

    def _carry_out(self, effects: list[Effect]) -> list[Message]:
        for effect in effects:
            if isinstance(effect, Send):
                self.sent.append(effect)
            elif isinstance(effect, Forked):
                self.sent = [one for one in self.sent if one.height <= effect.fork_height]
                self.forks.append(effect)
            else:
                assert effect.at_us > self.now_us
                self._timers[effect.name] = effect.at_us
                self._pushed += 1
                heapq.heappush(self._queue, (effect.at_us, self._pushed, effect.name))
        self.batches.append([effect for effect in effects if isinstance(effect, Send)])
        return [sent.message for sent in self.batches[-1]]

    def give(self, message: Message, family: Family = Family.RESERVATION) -> list[Message]:
        frame = Envelope(HUB, "base", family, 1, 0, 0, 0, 0, message)
        return self._carry_out(self.spoke.handle(self.now_us, frame))

    def price(self, usd: float, depth_ppm: int = 1_000_000) -> None:
        self.give(MarketMoved(prices_usd6=(int(usd * USD),), depth_ppm=depth_ppm), Family.PRICE)

    def run(self, span_us: int = S) -> list[Message]:
        """Let time pass; return what has been said."""
        until_us, told = self.now_us + span_us, []
        while self._queue and self._queue[0][0] <= until_us:
            self.now_us, _, name = heapq.heappop(self._queue)
            if self._timers.get(name) == self.now_us:
                del self._timers[name]
                told += self._carry_out(self.spoke.handle(self.now_us, TimerFired(name)))
        self.now_us = until_us
        return told

    def order(self, qty8: int = 0, *, close_ppm: int = 0) -> list[Message]:
        placed = OrderPlaced(order_id=1, account="ann", asset="BTC", qty8=qty8, close_ppm=close_ppm)
        self.give(placed, Family.ORDER)
        return self.run()

    def grant(self, asked: ReservationRequested, *, ttl_us: int = TTL) -> list[Message]:
        granted = ReservationGranted(
            rid=asked.rid,
            account=asked.account,
            amount_usd6=asked.amount_usd6,
            expires_at_us=self.state.policy.chain.time_at(self.now_us) + ttl_us,
        )
        return self.give(granted)

    def hold(self, qty8: int) -> None:
        """Have a position in the books from an earlier day."""
        self.state.keep_trader(trade(self.state.trader("ann"), BTC, qty8, 100 * USD))
        self.run()

    def held(self) -> int:
        return self.state.trader("ann").holding("BTC").qty8


def only(told: list[Message], kind: type) -> list[Message]:
    return [message for message in told if isinstance(message, kind)]


def needed(qty8: int) -> int:
    price_usd6 = fill_price_usd6(BTC, 100 * USD, qty8, 1_000_000)
    return ratio_up(value_up(abs(qty8), price_usd6), 100_500)


@pytest.mark.parametrize("qty8", [100 * ONE, -100 * ONE])
def test_an_opening_asks_for_credit_and_trades_only_within_it(qty8: int) -> None:
    bench = Bench()
    (asked,) = bench.order(qty8)
    assert asked.amount_usd6 == ratio_up(needed(qty8), 1_250_000)
    assert (bench.held(), asked.ttl_us) == (0, TTL)
    assert bench.grant(asked) == []
    assert bench.held() == 0

    used, reported = bench.run()
    assert used == CreditUsed(rid=asked.rid, used_usd6=needed(qty8), block_time_us=3 * S)
    assert isinstance(reported, StateReported)
    assert bench.held() == qty8 == reported.positions[0].qty8
    assert [(sent.height, sent.final_height) for sent in bench.sent[-2:]] == [(3, 0)] * 2


def test_what_is_left_of_the_credit_is_used_before_more_is_asked() -> None:
    bench = Bench()
    (asked,) = bench.order(100 * ONE)
    bench.grant(asked)
    bench.run()
    (used,) = only(bench.order(10 * ONE), CreditUsed)

    assert used.rid == asked.rid
    assert needed(100 * ONE) < used.used_usd6 <= asked.amount_usd6
    assert len(only(bench.order(100 * ONE), ReservationRequested)) == 1


def test_what_is_hardly_worth_keeping_is_given_back() -> None:
    bench = Bench()
    (asked,) = bench.order(10 * ONE)  # asks 125 dollars, uses 100
    bench.grant(asked)
    used, closed, _ = bench.run()

    assert closed == ReservationClosed(
        rid=asked.rid, used_usd6=used.used_usd6, reason=CloseReason.DONE
    )


@pytest.mark.parametrize(
    ("close_ppm", "left"), [(250_000, 75), (1_000_000, 0), (2_000_000, 0), (0, 40)]
)
@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("barred", ["", "frozen", "called", "halted", "asset", "spoke"])
def test_reducing_needs_no_credit_and_no_leave(
    close_ppm: int, left: int, side: int, barred: str
) -> None:
    bench = Bench()
    bench.hold(side * 100 * ONE)
    bar(bench, barred)
    told = bench.order(0 if close_ppm else -side * 60 * ONE, close_ppm=close_ppm)

    assert bench.held() == side * left * ONE
    assert [type(message) for message in told] == [StateReported]


def bar(bench: Bench, how: str) -> None:
    if how == "halted":
        halted = SpokeHalted(spoke="base", reason=HaltReason.BROKEN_CLAIM)
        bench.give(halted, Family.CONTROL)
    elif how in ("asset", "spoke"):
        stop(bench, "BTC" if how == "asset" else "base", Level.REDUCE_ONLY, 1)
    elif how:
        status = MarginStatus.FROZEN if how == "frozen" else MarginStatus.REDUCE_ONLY
        told = MarginSet(account="ann", margin_version=1, status=status)
        bench.give(told, Family.MARGIN_STATE)


@pytest.mark.parametrize("barred", ["frozen", "called", "halted", "asset", "spoke"])
@pytest.mark.parametrize("when", ["before", "while it waits"])
def test_who_may_not_open_does_not_even_with_credit(barred: str, when: str) -> None:
    bench = Bench()
    if when == "before":
        bar(bench, barred)
        assert bench.order(ONE) == []
    else:
        (asked,) = bench.order(ONE)
        bar(bench, barred)
        bench.grant(asked)
        assert only(bench.run(), CreditUsed) == []

    assert (bench.held(), bench.state.refused) == (0, 1)


def stop(bench: Bench, scope: str, level: Level, version: int) -> None:
    told = BreakerSet(scope=scope, level=level, cause=Cause.CASCADE, version=version)
    bench.give(told, Family.MARGIN_STATE)


def test_the_latest_word_on_a_breaker_holds_and_no_credit_is_no_matter_of_the_spoke() -> None:
    bench = Bench()
    stop(bench, "BTC", Level.FROZEN, 2)
    stop(bench, "BTC", Level.OPEN, 1)  # overtaken
    stop(bench, "ETH", Level.OPEN, 3)
    assert bench.order(ONE) == []
    stop(bench, "BTC", Level.NO_CREDIT, 3)
    stop(bench, "BTC", Level.FROZEN, 2)  # repeated
    stop(bench, "ETH", Level.FROZEN, 4)
    assert len(only(bench.order(ONE), ReservationRequested)) == 1


@pytest.mark.parametrize("side", [1, -1])
def test_an_order_through_flat_ends_where_it_says(side: int) -> None:
    bench = Bench()
    bench.hold(side * 10 * ONE)
    told = bench.order(-side * 15 * ONE)
    assert bench.held() == 0
    for _ in range(3):
        for asked in only(told, ReservationRequested):
            bench.grant(asked)
        told = bench.run()

    assert bench.held() == -side * 5 * ONE


def test_a_late_grant_is_refused_and_the_order_asks_again_until_it_loses_patience() -> None:
    bench = Bench()
    (asked,) = bench.order(ONE)
    (closed,) = bench.grant(asked, ttl_us=0)
    assert (closed.reason, closed.used_usd6) == (CloseReason.REFUSED_LATE, 0)
    (again,) = bench.run()
    assert again.rid != asked.rid
    bench.run(PATIENCE)
    bench.grant(again, ttl_us=0)

    assert only(bench.run(), ReservationRequested) == []
    assert (bench.held(), bench.state.refused) == (0, 1)


def test_a_rejected_order_is_dropped() -> None:
    bench = Bench()
    (asked,) = bench.order(ONE)
    bench.give(ReservationRejected(rid=asked.rid, reason=RejectReason.FREE_SHORT))

    assert only(bench.run(20 * S), ReservationRequested) == []
    assert (bench.state.credits, bench.state.for_credit, bench.state.refused) == ({}, {}, 1)


def test_a_revoked_right_is_given_back_in_the_next_block_and_never_lives_again() -> None:
    bench = Bench()
    (asked,) = bench.order(100 * ONE)
    bench.grant(asked)
    bench.run()
    bench.give(RevocationRequested(rid=asked.rid))
    bench.give(RevocationRequested(rid=asked.rid))
    (closed,) = bench.run()
    assert (closed.reason, closed.used_usd6) == (CloseReason.REVOKED, needed(100 * ONE))
    for _ in range(2):
        bench.grant(asked)
        told = bench.order(ONE)
        assert [type(message) for message in only(told, CreditUsed)] == []
        bench.give(ClosureAcknowledged(rid=asked.rid))

    assert bench.held() == 100 * ONE
    assert asked.rid not in bench.state.credits


@pytest.mark.parametrize(("at_us", "traded"), [(TTL - S, True), (TTL, False)])
def test_a_right_ends_with_the_chains_own_clock(at_us: int, traded: bool) -> None:
    bench = Bench()
    (asked,) = bench.order(100 * ONE)
    bench.grant(asked)
    bench.run(at_us - S)
    told = bench.order(ONE)

    assert bool(only(told, CreditUsed)) == traded
