import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.messages import LiquidationDone, LiquidationEnd, LiquidationOrdered
from messaging.units import ONE, USD
from spokes.liquidation import Order, concerned_qty8, end, ending, filled, progress, slice_qty8

COMMAND = LiquidationOrdered(
    liq_id=b"l" * 16,
    account="ann",
    asset="BTC",
    target_qty8=40,
    max_qty8=60,
    state_version=3,
    price_usd6=0,
    deadline_us=100,
    margin_version=1,
)
LIVE = Order(command=COMMAND)

positions = st.integers(-(10**12), 10**12)
sizes = st.integers(0, 10**12)
budgets = st.integers(0, 10**15)
prices = st.integers(1, 10**12)


def order(target_qty8: int = 40, max_qty8: int = 60, done_qty8: int = 0, price: int = 0) -> Order:
    command = msgspec.structs.replace(
        COMMAND, target_qty8=target_qty8, max_qty8=max_qty8, price_usd6=price
    )
    return Order(command=command, filled_qty8=done_qty8)


@given(positions, sizes, sizes, st.fractions(0, 1), budgets, prices)
def test_a_slice_only_reduces_stops_at_the_bound_and_never_flips(
    position8: int, target8: int, max8: int, done: object, budget: int, price: int
) -> None:
    live = order(target8, max8, int(max8 * done))
    qty8 = slice_qty8(live, position8, price, budget)
    after8 = position8 + qty8

    assert abs(after8) <= abs(position8)
    assert after8 * position8 >= 0
    assert qty8 == 0 or abs(after8) >= target8
    assert abs(qty8) + live.filled_qty8 <= max8
    assert abs(qty8) <= max(1, budget * ONE // price)


@given(positions, sizes, prices)
def test_slices_arrive_at_the_bound_exactly(position8: int, target8: int, price: int) -> None:
    live, budget = order(target8, abs(position8)), abs(position8) * price // ONE // 7 + price
    for _ in range(9):
        qty8 = slice_qty8(live, position8, price, budget)
        live, position8 = filled(live, qty8, price), position8 + qty8

    assert abs(position8) <= target8 or live.filled_qty8 == 0
    assert live.filled_qty8 <= live.command.max_qty8


def test_at_least_one_unit_trades_however_thin_the_market() -> None:
    assert slice_qty8(LIVE, 100, 10**12, 0) == -1
    assert slice_qty8(LIVE, -100, 10**12, 0) == 1


@pytest.mark.parametrize(
    ("live", "position8", "version", "chain_us", "reason"),
    [
        (order(), 100, 2, 200, LiquidationEnd.STATE_UNKNOWN),
        (order(), 40, 3, 200, LiquidationEnd.NOTHING_TO_DO),
        (order(), -40, 3, 0, LiquidationEnd.NOTHING_TO_DO),
        (order(), 0, 3, 0, LiquidationEnd.NOTHING_TO_DO),
        (order(done_qty8=1), 40, 3, 200, LiquidationEnd.DONE),
        (order(done_qty8=60), 41, 3, 200, LiquidationEnd.MAX_QTY),
        (order(done_qty8=59), 41, 3, 100, LiquidationEnd.EXPIRED),
        (order(price=9), 41, 3, 99, None),
        (order(price=-9), -41, 9, 99, None),
        (order(price=9), -41, 3, 99, LiquidationEnd.NOTHING_TO_DO),
        (order(price=-9), 41, 3, 99, LiquidationEnd.NOTHING_TO_DO),
    ],
)
def test_a_command_ends_for_the_first_reason_that_applies(
    live: Order, position8: int, version: int, chain_us: int, reason: LiquidationEnd | None
) -> None:
    assert ending(live, position8, version, chain_us) == reason


@pytest.mark.parametrize(
    ("price", "position8", "concerned8"),
    [(0, 7, 7), (0, -7, -7), (5, 7, 7), (5, -7, 0), (-5, -7, -7), (-5, 7, 0), (5, 0, 0)],
)
def test_a_price_above_zero_is_for_longs_and_one_below_for_shorts(
    price: int, position8: int, concerned8: int
) -> None:
    assert concerned_qty8(order(price=price).command, position8) == concerned8


@given(positions, sizes, sizes, prices)
def test_at_a_price_all_of_it_is_closed_at_once_however_thin_the_market(
    position8: int, target8: int, max8: int, price: int
) -> None:
    live = order(target8, max8, price=price if position8 > 0 else -price)
    qty8 = slice_qty8(live, position8, price, 0)

    assert abs(qty8) == max(0, min(abs(position8) - target8, max8))
    assert qty8 * position8 <= 0


def test_fills_add_up_and_are_told_as_sums() -> None:
    live = filled(filled(LIVE, -ONE, 7 * USD), -ONE // 2, 6 * USD)
    told = progress(live, 12)

    assert (told.filled_qty8, told.proceeds_usd6) == (ONE * 3 // 2, 10 * USD)
    assert told.block_time_us == 12


@given(st.lists(st.tuples(st.integers(-9, 9), prices), max_size=9))
def test_what_is_filled_never_falls(fills: list[tuple[int, int]]) -> None:
    live = LIVE
    for qty8, price in fills:
        before, live = live, filled(live, qty8, price)

        assert live.filled_qty8 == before.filled_qty8 + abs(qty8)


def test_the_last_word_is_said_once() -> None:
    ended = end(order(done_qty8=5), LiquidationEnd.EXPIRED, -7, 4)

    assert ended.done == LiquidationDone(
        liq_id=COMMAND.liq_id,
        filled_qty8=5,
        position_after_qty8=-7,
        state_version=4,
        reason=LiquidationEnd.EXPIRED,
    )
    with pytest.raises(AssertionError):
        end(ended, LiquidationEnd.DONE, 0, 5)
