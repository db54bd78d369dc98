"""Prices as the hub takes them, and the desk that other tests talk to the hub through."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.account import Account
from hub.adl import Adl
from hub.liquidation import LiquidationPolicy, Plan
from hub.margin.buffer import AssetRisk, NoBuffer
from hub.margin.requirement import MarginPolicy
from hub.node import Hub
from hub.oracle import Print, take
from hub.planning import CloseOut
from hub.reservation import State
from hub.state import HubPolicy
from hub.zone import ZonePolicy
from messaging.effects import Send
from messaging.envelope import Envelope
from messaging.messages import (
    CloseReason,
    CreditUsed,
    Family,
    Message,
    Position,
    PricePublished,
    ReservationClosed,
    ReservationRequested,
    StateReported,
    Watermark,
)
from messaging.node import TimerFired
from messaging.units import HUB, USD, Asset, Micros, Usd6

ANN, BASE, SOL = "ann", "base", "sol"
CASH, CAP, TTL, LATE = 1_000 * USD, 5_000 * USD, 100, 1_000
BTC = AssetRisk(
    asset="BTC",
    initial_margin_ppm=100_000,
    maintenance_margin_ppm=65_000,
    stress_volatility_ppm=2_500_000,
    jump_ppm=30_000,
    quantile_z=3.09,
    depth_usd6_per_s=250_000 * USD,
    participation_ppm=100_000,
)


class Desk:
    """A hub with one account and two spokes, and short words to talk to it."""

    def __init__(
        self,
        *,
        renewals_max: int = 0,
        cap_usd6: int = CAP,
        insurance_usd6: int = 0,
        hold_us: int = 0,
        fund_usd6: int = 0,
        socialise: bool = False,
        adl: Adl = Adl.NONE,
        more: Sequence[str] = (),
        priced: bool = True,
        plan: Plan = Plan.PRO_RATA,
        grace_us: int = 0,
        rates_ppm: Sequence[int] = (),
    ) -> None:
        """`more` are accounts like bob; `rates_ppm` is what closing costs on each spoke."""
        zones = tuple(
            ZonePolicy(
                name=name,
                cap_usd6=cap_usd6,
                command_us=0,
                overdue_after_us=LATE,
                renewals_max=renewals_max,
                hold_us=hold_us,
                insurance_usd6=fund_usd6,
                close_outs=tuple(
                    CloseOut(rate, 10**15, 10**9) for rate in rates_ppm[place : place + 1]
                ),
            )
            for place, name in enumerate((BASE, SOL))
        )
        liquidation = LiquidationPolicy(
            call_ppm=1_150_000,
            restore_ppm=1_250_000,
            target_extra_ppm=20_000,
            cost_ppm=12_000,
            dust_usd6=0,
            command_ttl_us=1_000,
            insurance_share_ppm=500_000,
            socialise=socialise,
            adl=adl,
            plan=plan,
            grace_us=grace_us,
        )
        policy = HubPolicy(
            name=HUB,
            block_us=12,
            look_us=1,
            margin=MarginPolicy(assets=(BTC,), buffer=NoBuffer(), gain_age_max_s=600.0),
            liquidation=liquidation,
            zones=zones,
            clock_skew_us=0,
            amount_max_usd6=10_000 * USD,
            ttl_max_us=TTL,
            insurance_usd6=insurance_usd6,
        )
        rich = [(name, 100 * CASH) for name in ("bob", *more)]
        self.hub = Hub(policy, [(ANN, CASH), *rich])
        self.now_us = 0
        if priced:  # by an earlier print, which any other outdates
            self.hub.state.prints[0] = Print(price_usd6=100 * USD, observed_us=-1)

    def tell(
        self,
        message: Message,
        *,
        height: int = 0,
        final: int = 0,
        spoke: str = BASE,
        family: Family = Family.RESERVATION,
    ) -> list[Message]:
        frame = Envelope(spoke, HUB, family, 1, 0, 0, height, final, message)
        effects = self.hub.handle(self.now_us, frame)
        return [effect.message for effect in effects if isinstance(effect, Send)]

    def report(
        self, state: StateReported, *, spoke: str = BASE, at: int = 0, final: int = 0
    ) -> None:
        self.tell(state, height=at, final=final, spoke=spoke, family=Family.MARGIN_STATE)

    def price(self, price_usd6: int) -> None:
        print_ = PricePublished(asset="BTC", price_usd6=price_usd6, observed_us=self.now_us)
        self.hub.handle(self.now_us, Envelope("oracle", HUB, Family.PRICE, 1, 0, 0, 0, 0, print_))

    def mark(
        self, time_us: int, *, final: int, family: Family = Family.RESERVATION
    ) -> list[Message]:
        """Deliver a watermark; on these chains a block comes each microsecond."""
        mark = Watermark(spoke_time_us=time_us, open_count=0)
        return self.tell(mark, height=time_us, final=final, family=family)

    def block(self, now_us: int) -> list[Message]:
        self.now_us = now_us
        effects = self.hub.handle(now_us, TimerFired("block"))
        return [effect.message for effect in effects if isinstance(effect, Send)]

    def reserved(self) -> int:
        return self.hub.state.ledger.reserved_usd6(ANN)

    def cash(self) -> int:
        return self.hub.state.ledger.cash_usd6(ANN)

    def balance(self, book: str) -> int:
        return self.hub.state.ledger.balances[book]

    def account(self) -> Account:
        return self.hub.state.accounts[0]

    def free(self) -> int:
        state = self.hub.state
        return state.free_usd6(state.accounts[0], state.conditions(self.now_us))

    def state_of(self, number: int) -> State:
        return self.hub.state.reservations[key(number)].state


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def ask(
    number: int, amount_usd6: int = 100 * USD, *, account: str = ANN, ttl_us: int = TTL
) -> ReservationRequested:
    return ReservationRequested(
        rid=key(number), account=account, amount_usd6=amount_usd6, ttl_us=ttl_us
    )


def uses(number: int, used_usd6: int, at_us: int = 1) -> CreditUsed:
    return CreditUsed(rid=key(number), used_usd6=used_usd6, block_time_us=at_us)


def closes(number: int, used_usd6: int = 0) -> ReservationClosed:
    return ReservationClosed(rid=key(number), used_usd6=used_usd6, reason=CloseReason.DONE)


def reports(
    version: int,
    *,
    qty8: int = 0,
    cost_usd6: int = 0,
    realised_usd6: int = 0,
    fees_usd6: int = 0,
    penalty_usd6: int = 0,
    account: str = ANN,
) -> StateReported:
    held = (Position(asset="BTC", qty8=qty8, cost_usd6=cost_usd6),) if qty8 else ()
    return StateReported(
        account=account,
        version=version,
        block_time_us=0,
        positions=held,
        realised_usd6=realised_usd6,
        fees_usd6=fees_usd6,
        liquidation_fees_usd6=penalty_usd6,
    )


def printed(price_usd6: int, observed_us: int) -> PricePublished:
    return PricePublished(
        asset=Asset("BTC"), price_usd6=Usd6(price_usd6), observed_us=Micros(observed_us)
    )


@given(
    st.dictionaries(st.integers(0, 50), st.integers(1, 10**12), min_size=1, max_size=8), st.data()
)
def test_the_latest_observation_is_in_use_in_any_order_with_repeats(
    prices: dict[int, int], data: st.DataObject
) -> None:
    prints = [printed(price, at) for at, price in prices.items()]
    known = Print()
    for now_us, one in enumerate(data.draw(st.permutations(prints + prints))):
        known = take(known, one, Micros(now_us))

    assert (known.observed_us, known.price_usd6) == (max(prices), prices[max(prices)])


def test_a_print_notes_when_it_came() -> None:
    assert take(Print(), printed(7, 3), Micros(5)) == Print(
        price_usd6=Usd6(7), observed_us=Micros(3), received_us=Micros(5)
    )


@pytest.mark.parametrize("observed_us", [2, 3, 4])
def test_a_price_of_nothing_is_no_price(observed_us: int) -> None:
    known = take(Print(), printed(7, 3), Micros(5))

    assert take(known, printed(0, observed_us), Micros(6)) is known


@pytest.mark.parametrize("observed_us", [2, 3])
def test_an_overtaken_print_does_not_make_the_known_one_younger(observed_us: int) -> None:
    known = take(Print(), printed(7, 3), Micros(5))

    assert take(known, printed(8, observed_us), Micros(6)) is known
