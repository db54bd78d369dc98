"""Liquidations at a spoke, through the spoke's front door."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messaging.messages import (
    Family,
    LiquidationAcknowledged,
    LiquidationDone,
    LiquidationEnd,
    LiquidationFilled,
    LiquidationOrdered,
    Message,
    ReservationRequested,
    StateReported,
)
from messaging.units import ONE, USD
from tests.spokes.test_orders import Bench, S, only

BIG = 2_000 * ONE  # 200,000 dollars: four slices of 50,000


def command(
    target_qty8: int = 0,
    *,
    number: int = 1,
    max_qty8: int = 10**12,
    version: int = 1,
    price_usd6: int = 0,
    deadline_us: int = 1_000 * S,
) -> LiquidationOrdered:
    return LiquidationOrdered(
        liq_id=number.to_bytes(16, "big"),
        account="ann",
        asset="BTC",
        target_qty8=target_qty8,
        max_qty8=max_qty8,
        state_version=version,
        price_usd6=price_usd6,
        deadline_us=deadline_us,
        margin_version=1,
    )


def holding(qty8: int = BIG) -> Bench:
    bench = Bench()
    bench.hold(qty8)
    bench.run(10 * S)
    return bench


def send(bench: Bench, *commands: LiquidationOrdered) -> list[Message]:
    return [told for one in commands for told in bench.give(one, Family.LIQUIDATION)]


def ends(told: list[Message]) -> list[tuple[LiquidationEnd, int, int]]:
    done = only(told, LiquidationDone)
    return [(one.reason, one.filled_qty8, one.position_after_qty8) for one in done]


@pytest.mark.parametrize("side", [1, -1])
def test_a_position_comes_down_slice_by_slice_to_the_target_and_no_further(side: int) -> None:
    bench = holding(side * BIG)
    send(bench, command(700 * ONE))
    sizes = []
    for _ in range(5):
        bench.run(2 * S)
        sizes.append(bench.held() * side // ONE)

    assert sizes == [1_500, 1_000, 700, 700, 700]
    assert ends([sent.message for sent in bench.sent]) == [
        (LiquidationEnd.DONE, 1_300 * ONE, side * 700 * ONE)
    ]


def test_the_last_word_names_the_report_that_contains_the_outcome() -> None:
    bench = holding()
    send(bench, command())
    told = bench.run(20 * S)
    (done,) = only(told, LiquidationDone)
    flat = [report.version for report in only(told, StateReported) if not report.positions]

    assert done.state_version == flat[0]
    fills = [fill.filled_qty8 // ONE for fill in only(told, LiquidationFilled)]
    assert fills == sorted(fills)
    assert set(fills) == {500, 1_000, 1_500}


def test_thin_depth_makes_slices_smaller() -> None:
    bench = holding()
    bench.price(100, depth_ppm=100_000)
    send(bench, command())
    bench.run(S)

    assert bench.held() == BIG - 50 * ONE


def test_a_liquidation_pays_its_fee() -> None:
    bench = holding()
    send(bench, command())
    (report,) = only(bench.run(S), StateReported)

    assert report.liquidation_fees_usd6 == pytest.approx(500 * USD, rel=0.01)


@pytest.mark.parametrize(
    ("order", "reason", "filled"),
    [
        (command(max_qty8=600 * ONE), LiquidationEnd.MAX_QTY, 600),
        (command(price_usd6=101 * USD), LiquidationEnd.DONE, 2_000),
        (command(price_usd6=1, max_qty8=600 * ONE), LiquidationEnd.MAX_QTY, 600),
        (command(price_usd6=-101 * USD), LiquidationEnd.NOTHING_TO_DO, 0),
        (command(price_usd6=101 * USD, version=2), LiquidationEnd.STATE_UNKNOWN, 0),
        (command(version=2), LiquidationEnd.STATE_UNKNOWN, 0),
        (command(BIG), LiquidationEnd.NOTHING_TO_DO, 0),
        (command(BIG + 1), LiquidationEnd.NOTHING_TO_DO, 0),
    ],
)
def test_a_command_says_why_it_ended_and_what_it_left(
    order: LiquidationOrdered, reason: LiquidationEnd, filled: int
) -> None:
    bench = holding()
    send(bench, order)
    told = bench.run(30 * S)

    assert ends(told) == [(reason, filled * ONE, BIG - filled * ONE)]
    assert bench.held() == BIG - filled * ONE
    assert send(bench, order) == only(told, LiquidationDone)


@pytest.mark.parametrize(("deadline_s", "filled"), [(5, 0), (12, 0), (13, 0), (14, 500)])
def test_nothing_is_traded_at_or_after_the_deadline(deadline_s: int, filled: int) -> None:
    bench = holding()
    send(bench, command(deadline_us=deadline_s * S))

    assert ends(bench.run(20 * S)) == [(LiquidationEnd.EXPIRED, filled * ONE, BIG - filled * ONE)]


@pytest.mark.parametrize("side", [1, -1])
def test_a_command_at_a_price_closes_whole_at_once_at_that_price_without_fees(side: int) -> None:
    bench = holding(side * BIG)
    before = bench.state.trader("ann")
    bench.price(60, depth_ppm=1)
    send(bench, command(700 * ONE, price_usd6=side * 93 * USD))
    told = bench.run(S)
    after = bench.state.trader("ann")

    assert ends(told) == [(LiquidationEnd.DONE, 1_300 * ONE, side * 700 * ONE)]
    assert after.realised_usd6 - before.realised_usd6 == -side * 7 * 1_300 * USD
    assert (after.fees_usd6, after.liquidation_fees_usd6) == (before.fees_usd6, 0)


def test_a_command_at_a_price_takes_what_the_market_has_not_yet_closed() -> None:
    bench = holding()
    send(bench, command(number=1))
    bench.run(S)
    send(bench, command(number=2, price_usd6=120 * USD))
    told = bench.run(3 * S)

    assert bench.held() == 0
    assert {(one.liq_id[-1], one.filled_qty8) for one in only(told, LiquidationDone)} == {
        (1, 500 * ONE),
        (2, 1_500 * ONE),
    }


def test_who_has_turned_to_the_other_side_is_left_alone() -> None:
    bench = holding()
    send(bench, command(price_usd6=-80 * USD))
    told = bench.run(3 * S)

    assert (bench.held(), ends(told)) == (BIG, [(LiquidationEnd.NOTHING_TO_DO, 0, BIG)])


def test_the_same_command_again_does_nothing_more() -> None:
    bench = holding()
    order = command(1_000 * ONE)
    assert send(bench, order, order) == []
    bench.run(20 * S)
    (done,) = only([sent.message for sent in bench.sent], LiquidationDone)

    assert send(bench, order, order) == [done, done]
    bench.run(20 * S)
    assert bench.held() == 1_000 * ONE


@pytest.mark.parametrize("span_us", [0, 20 * S])
def test_another_body_under_a_known_id_is_refused_and_has_no_effect(span_us: int) -> None:
    bench = holding()
    send(bench, command(1_000 * ONE))
    bench.run(span_us)
    told = send(bench, command(0))
    bench.run(20 * S)

    assert [reason for reason, _, _ in ends(told)] == [LiquidationEnd.EXISTS_DIFFERENT]
    assert bench.held() == 1_000 * ONE


def test_an_account_in_liquidation_may_not_open_until_the_last_word() -> None:
    bench = holding()
    send(bench, command(700 * ONE))
    assert only(bench.order(ONE), ReservationRequested) == []
    bench.run(10 * S)

    assert len(only(bench.order(ONE), ReservationRequested)) == 1


def test_an_acknowledged_command_is_forgotten_but_never_a_live_one() -> None:
    bench = holding()
    known = LiquidationAcknowledged(liq_id=command().liq_id)
    send(bench, command())
    bench.give(known, Family.LIQUIDATION)
    assert len(bench.state.orders) == 1
    bench.run(30 * S)
    bench.give(known, Family.LIQUIDATION)

    assert (bench.held(), bench.state.orders) == (0, {})


def test_what_the_trader_closes_himself_is_not_sold_twice() -> None:
    bench = holding()
    send(bench, command(1_000 * ONE))
    told = bench.order(close_ppm=600_000) + bench.run(10 * S)

    assert bench.held() == 600 * ONE  # a slice of 500, then 60 % of the rest
    assert ends(told) == [(LiquidationEnd.DONE, 500 * ONE, 600 * ONE)]


@pytest.mark.parametrize("first_is_deeper", [True, False])
def test_two_commands_share_slices_and_end_at_the_smallest_target(first_is_deeper: bool) -> None:
    bench = holding()
    both = [command(1_200 * ONE, number=1), command(300 * ONE, number=2)]
    send(bench, *(reversed(both) if first_is_deeper else both))
    bench.run(S)
    assert bench.held() == 1_500 * ONE
    bench.run(30 * S)
    told = only([sent.message for sent in bench.sent], LiquidationDone)
    done = {one.liq_id[-1]: (one.reason, one.filled_qty8) for one in told}

    assert bench.held() == 300 * ONE
    assert done == {
        1: (LiquidationEnd.NOTHING_TO_DO, 0),
        2: (LiquidationEnd.DONE, 1_700 * ONE),
    }


bodies = st.tuples(
    st.integers(0, 2_500),
    st.integers(0, 2_500),
    st.integers(0, 60),
    st.integers(0, 3),
    st.sampled_from([0, 0, 90, -90]),
)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([1, -1]),
    st.lists(bodies, min_size=1, max_size=4),
    st.lists(st.integers(0, 4), max_size=6),
)
def test_commands_only_reduce_never_beyond_the_smallest_target_or_their_sum(
    side: int, drawn: list[tuple[int, int, int, int, int]], repeats: list[int]
) -> None:
    """Each command ends once, and the fills of all add up to what is gone."""
    bench = holding(side * BIG)
    commands = [
        command(
            t * ONE,
            number=n,
            max_qty8=m * ONE,
            deadline_us=(12 + d) * S,
            version=v,
            price_usd6=p * USD,
        )
        for n, (t, m, d, v, p) in enumerate(drawn, start=1)
    ]
    for one in commands:
        send(bench, one)
        bench.run(S)
    for number in repeats:
        send(bench, commands[number % len(commands)])
        before8 = bench.held()
        bench.run(3 * S)
        assert 0 <= bench.held() * side <= before8 * side
    bench.run(200 * S)
    done = {
        sent.message.liq_id: sent.message
        for sent in bench.sent
        if isinstance(sent.message, LiquidationDone)
    }

    assert len(done) == len(commands)
    assert sum(one.filled_qty8 for one in done.values()) == BIG - bench.held() * side
    assert all(done[one.liq_id].filled_qty8 <= one.max_qty8 for one in commands)
    assert bench.held() * side >= min(BIG, *(one.target_qty8 for one in commands))
    live = [one for one in commands if one.state_version <= 1]
    assert live or bench.held() == side * BIG


def test_the_order_of_words_is_a_function_of_the_input_alone() -> None:
    runs = []
    for _ in range(2):
        bench = holding()
        send(bench, command(700 * ONE), msgspec.structs.replace(command(), liq_id=b"z" * 16))
        bench.run(60 * S)
        runs.append(bench.sent)

    assert runs[0] == runs[1]
