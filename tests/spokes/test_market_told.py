"""What a spoke tells the market of its trades."""

import msgspec
import pytest

from messaging.messages import Family, ReservationRequested
from messaging.units import MARKET, ONE, USD, Micros
from messaging.venues import VenueTraded
from spokes.chain import Chain, Reorg
from spokes.venue import trade
from tests.spokes.test_closing import command
from tests.spokes.test_orders import BTC, POLICY, Bench, S, only

TELLING = msgspec.structs.replace(POLICY, market=MARKET)


def told(bench: Bench) -> list[int]:
    """Return how much was bought, message by message."""
    found = []
    for sent in [one for batch in bench.batches for one in batch]:
        if isinstance(sent.message, VenueTraded):
            assert (sent.to, sent.family, sent.height) == (MARKET, Family.PRICE, 0)
            (qty8,) = sent.message.bought_qty8
            found.append(qty8)
    return found


def opened(bench: Bench, qty8: int) -> None:
    (asked,) = only(bench.order(qty8), ReservationRequested)
    bench.grant(asked)
    bench.run()


@pytest.mark.parametrize("side", [1, -1])
def test_orders_that_open_and_close_are_told_with_their_sign(side: int) -> None:
    bench = Bench(TELLING)
    opened(bench, side * 100 * ONE)
    bench.order(close_ppm=250_000)
    assert told(bench) == [side * 100 * ONE, -side * 25 * ONE]


def test_a_block_is_told_as_one_balance_and_not_at_all_if_that_is_nothing() -> None:
    bench = Bench(TELLING)
    bench.state.keep_trader(trade(bench.state.trader("ann"), BTC, 100 * ONE, 100 * USD))
    bench.run()
    bench.spoke.state.bought("BTC", 40 * ONE)
    bench.order(close_ppm=500_000)
    assert told(bench) == [-10 * ONE]
    bench.spoke.state.bought("BTC", 25 * ONE)
    bench.order(close_ppm=500_000)
    bench.run(5 * S)
    assert told(bench) == [-10 * ONE]


@pytest.mark.parametrize("side", [1, -1])
def test_every_slice_of_a_liquidation_is_told(side: int) -> None:
    bench = Bench(TELLING)
    bench.hold(side * 1_200 * ONE)
    bench.give(command(), Family.LIQUIDATION)
    bench.run(20 * S)
    assert bench.held() == 0
    assert told(bench) == [-side * 500 * ONE, -side * 500 * ONE, -side * 200 * ONE]


def test_what_closes_off_the_market_is_not_told() -> None:
    bench = Bench(TELLING)
    bench.hold(1_200 * ONE)
    bench.give(command(price_usd6=93 * USD), Family.LIQUIDATION)
    bench.run(20 * S)
    assert bench.held() == 0
    assert told(bench) == []


def test_nobody_is_told_where_fills_move_nothing() -> None:
    bench = Bench()
    opened(bench, 100 * ONE)
    assert told(bench) == []
    assert not bench.state.bought_qty8


def test_what_lost_blocks_had_bought_is_taken_back_and_told_again_when_bought_again() -> None:
    chain = Chain(
        block_us=Micros(S),
        safe_after_us=Micros(0),
        final_after_us=Micros(60 * S),
        reorgs=(Reorg(at_us=Micros(5 * S + 7), depth=4),),
    )
    bench = Bench(msgspec.structs.replace(TELLING, chain=chain))
    opened(bench, 100 * ONE)
    bench.run(5 * S + 7 - bench.now_us)
    assert told(bench) == [100 * ONE, -100 * ONE]
    bench.run(3 * S)
    assert bench.held() == 100 * ONE
    assert told(bench) == [100 * ONE, -100 * ONE, 100 * ONE]
