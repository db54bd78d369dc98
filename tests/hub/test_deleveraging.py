"""A bankrupt account and those who take the other side, through the hub's front door."""

from typing import Any

import msgspec
import pytest

from hub import deleveraging
from hub.adl import Adl, Winner
from hub.margin.buffer import SqrtTimeBuffer
from hub.node import Hub
from messaging.messages import (
    ChainReorganised,
    Family,
    HaltReason,
    LiquidationDone,
    LiquidationEnd,
    LiquidationOrdered,
    MarginStatus,
    Message,
)
from messaging.units import ONE, USD
from tests.hub.test_oracle import ANN, BASE, CASH, SOL, Desk, reports

PRICE = 88 * USD  # 85 * (1 + 300 / 8,500)


def fallen(
    adl: Adl = Adl.PRO_RATA, *, sizes: tuple[int, int] = (80, 120), usd: int = 85, **more: Any
) -> Desk:
    """Return a desk on which ann lacks 500 and the funds have 200; bob and cat are short."""
    policy: dict[str, Any] = {"insurance_usd6": 150 * USD, "fund_usd6": 50 * USD} | more
    desk = Desk(**{"adl": adl, "more": ("cat",), "cap_usd6": 10**15} | policy)
    desk.price(100 * USD)
    hold(desk, ANN, 100)
    for name, size in zip(("bob", "cat"), sizes, strict=True):
        if size:
            hold(desk, name, -size)
    desk.now_us = 10
    desk.price(usd * USD)
    return desk


def hold(desk: Desk, account: str, units: int, *, version: int = 1, spoke: str = BASE) -> None:
    state = reports(version, qty8=units * ONE, cost_usd6=units * 100 * USD, account=account)
    desk.report(state, spoke=spoke, at=5, final=5)


def orders(told: list[Message]) -> dict[str, LiquidationOrdered]:
    return {one.account: one for one in told if isinstance(one, LiquidationOrdered)}


def end(
    desk: Desk, order: LiquidationOrdered, filled: int, *, final: bool = True, at: int = 6
) -> None:
    """Let a spoke report and say that a command has closed so many units, and how it ended."""
    account = desk.hub.state.accounts[desk.hub.state.place_of[order.account]]
    before = account.views[0].latest
    (held,) = before.positions
    left = held.qty8 - (filled * ONE if held.qty8 > 0 else -filled * ONE)
    gain_usd6 = filled * (order.price_usd6 + (-100 * USD if held.qty8 > 0 else 100 * USD))
    state = reports(
        before.version + 1,
        qty8=left,
        cost_usd6=left // ONE * 100 * USD,
        realised_usd6=before.realised_usd6 + gain_usd6,
        account=order.account,
    )
    height = at if final else 4
    desk.report(state, at=at, final=height)
    done = LiquidationDone(
        liq_id=order.liq_id,
        filled_qty8=filled * ONE,
        position_after_qty8=left,
        state_version=before.version + 1,
        reason=LiquidationEnd.DONE if filled else LiquidationEnd.NOTHING_TO_DO,
    )
    desk.tell(done, height=at, final=height, family=Family.LIQUIDATION)


def test_the_bankrupt_is_closed_at_its_price_and_others_exactly_against_it() -> None:
    desk = fallen()
    (order,) = orders(desk.block(12)).values()
    assert (order.account, order.price_usd6) == (ANN, PRICE)
    assert (order.target_qty8, order.max_qty8) == (0, 100 * ONE)
    end(desk, order, 100)
    books = desk.hub.state.ledger

    assert books.bad_debt_usd6 == 200 * USD == books.funds_used_usd6 + books.insurance_used_usd6
    others = orders(desk.block(24))
    assert {name: (one.price_usd6, one.max_qty8 // ONE) for name, one in others.items()} == {
        "bob": (-PRICE, 40),
        "cat": (-PRICE, 60),
    }
    for one in others.values():
        end(desk, one, one.max_qty8 // ONE, at=7)
    assert orders(desk.block(36)) == {}
    won = [books.cash_usd6(name) - 100 * CASH for name in ("bob", "cat")]
    assert won == [40 * 12 * USD, 60 * 12 * USD]
    assert sum(books.balances.values()) == 0


@pytest.mark.parametrize(
    "changed", [{"adl": Adl.NONE}, {"insurance_usd6": 450 * USD}], ids=["off", "funds suffice"]
)
def test_without_need_the_market_closes_it(changed: dict[str, Any]) -> None:
    (order,) = orders(fallen(**changed).block(12)).values()

    assert (order.account, order.price_usd6, order.target_qty8) == (ANN, 0, 0)


def test_what_nobody_can_take_over_is_for_the_market() -> None:
    told = fallen(sizes=(30, 0)).block(12)
    ordered = [one for one in told if isinstance(one, LiquidationOrdered)]

    assert [(one.price_usd6, one.target_qty8 // ONE) for one in ordered] == [(PRICE, 70), (0, 0)]


def test_a_position_that_the_market_is_closing_is_taken_over_once() -> None:
    desk = fallen(usd=91)  # only short of its margin
    (market,) = orders(desk.block(12)).values()
    desk.now_us = 13
    desk.price(85 * USD)
    told = [one for one in desk.block(24) if isinstance(one, LiquidationOrdered)]
    assert [(one.price_usd6, one.max_qty8 // ONE) for one in told] == [(PRICE, 100)]
    assert market.price_usd6 == 0
    (order,) = told
    end(desk, order, 70)  # the market was there for 30

    others = orders(desk.block(36))
    assert sum(one.max_qty8 for name, one in others.items() if name != ANN) == 70 * ONE


def test_a_late_command_at_a_price_is_not_given_again_and_counts_as_done() -> None:
    desk = fallen()
    (order,) = orders(desk.block(12)).values()
    desk.now_us = 13
    desk.price(70 * USD)
    state = desk.hub.state
    state.ledger.post((("insurance", -150 * USD), ("vault", 150 * USD)))
    assert orders(desk.block(24)) == {}
    missing_usd6, _ = deleveraging.shortfall(state, desk.account(), state.conditions(24))

    assert (order.price_usd6, missing_usd6) == (PRICE, 200 * USD)


def test_the_funds_are_promised_first_to_who_has_nothing_left_to_close() -> None:
    desk = fallen(usd=100, more=("cat", "dan"))
    debt = reports(1, realised_usd6=-100 * CASH - 200 * USD, account="dan")
    desk.report(debt, at=9, final=5)
    assert orders(desk.block(12)) == {}
    desk.now_us = 13
    desk.price(85 * USD)
    (order,) = orders(desk.block(24)).values()

    assert (order.account, order.price_usd6) == (ANN, 90 * USD)  # 85 * (1 + 500 / 8,500)


def test_a_halted_spoke_takes_no_part() -> None:
    desk = fallen()
    desk.hub.state.zones[0].halted = HaltReason.WATCHDOG
    (order,) = orders(desk.block(12)).values()

    assert order.price_usd6 == 0
    assert winners(desk.hub, PRICE) == []


def test_nothing_is_claimed_before_the_end_is_final() -> None:
    desk = fallen()
    (order,) = orders(desk.block(12)).values()
    end(desk, order, 100, final=False)
    assert orders(desk.block(24)) == {}
    lost = ChainReorganised(fork_height=5, old_height=9, base_epoch=1)
    for family in (Family.MARGIN_STATE, Family.LIQUIDATION):
        desk.tell(lost, height=9, final=4, family=family)
    assert orders(desk.block(36)) == {}, "the command is under way again"
    end(desk, order, 60, at=10)

    others = orders(desk.block(48))
    assert sum(one.max_qty8 for name, one in others.items() if name != ANN) == 60 * ONE


def test_what_a_winner_had_closed_already_is_claimed_of_the_others() -> None:
    desk = fallen()
    (order,) = orders(desk.block(12)).values()
    end(desk, order, 100)
    others = orders(desk.block(24))
    end(desk, others["bob"], 10, at=7)
    again = orders(desk.block(36))

    assert sum(one.max_qty8 for one in again.values()) == 30 * ONE
    assert "cat" not in again, "it has a command under way"
    assert {one.price_usd6 for one in again.values()} == {-PRICE}


def test_a_queue_takes_the_highest_rank_whole() -> None:
    desk = fallen(Adl.QUEUE)
    (order,) = orders(desk.block(12)).values()
    end(desk, order, 100)
    others = orders(desk.block(24))

    assert {name: one.max_qty8 // ONE for name, one in others.items()} == {"cat": 120}
    end(desk, others["cat"], 120, at=7)
    assert orders(desk.block(36)) == {}


def hedged() -> Desk:
    """Return a desk on which bob is short on one spoke and long on another, with little cash."""
    desk = Desk(adl=Adl.PRO_RATA, cap_usd6=10**15)
    desk.price(100 * USD)
    hold(desk, "bob", -100)
    hold(desk, "bob", 100, spoke=SOL)
    books = desk.hub.state.ledger
    books.post((("vault", 100 * CASH - CASH), ("available/bob", CASH - 100 * CASH)))
    desk.now_us = 10
    desk.price(85 * USD)
    return desk


def test_a_winner_stays_sound_at_the_volatility_in_use() -> None:
    """Margin follows it (V7), so what a winner may close does."""
    desk, price = hedged(), 98 * USD
    state = desk.hub.state
    state.margin = msgspec.structs.replace(state.margin, buffer=SqrtTimeBuffer())
    (calm,) = winners(desk.hub, price)
    wild = [msgspec.structs.replace(one, volatility_ppm=10**7) for one in state.margin.assets]
    state.margin = msgspec.structs.replace(state.margin, assets=tuple(wild))
    (found,) = winners(desk.hub, price)

    assert found.most_qty8 < calm.most_qty8
    assert found.maintenance_usd6 > calm.maintenance_usd6


def test_a_hedged_winner_is_closed_as_far_as_he_stays_sound() -> None:
    """Closing one leg of a hedge costs money and raises the requirement."""
    desk, price = hedged(), 98 * USD
    (most,) = [one.most_qty8 for one in winners(desk.hub, price)]
    need_usd6 = most * 85 * 65_000 // ONE + most * (price - 85 * USD) // ONE

    assert 0 < most < 100 * ONE
    assert CASH - 2 * USD < need_usd6 <= CASH


def winners(hub: Hub, price: int) -> list[Winner]:
    return deleveraging._winners(hub.state, hub.state.conditions(10), 0, False, price)


def test_who_is_frozen_is_asked_for_nothing() -> None:
    desk = fallen()
    place = desk.hub.state.place_of["cat"]
    frozen = msgspec.structs.replace(desk.hub.state.accounts[place], status=MarginStatus.FROZEN)
    desk.hub.state.keep(frozen)

    assert [one.place for one in winners(desk.hub, PRICE)] == [desk.hub.state.place_of["bob"]]
