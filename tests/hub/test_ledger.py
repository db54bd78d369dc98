import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.ledger import (
    DEFICIT,
    FEES,
    INSURANCE,
    VAULT,
    Ledger,
    Posting,
    clearing,
    deposit,
    endow,
    fund,
    reserve,
    settle,
    socialise,
    write_off,
)
from messaging.messages import Family, Message, ReservationGranted, SpokeHalted, Watermark
from messaging.units import USD, AccountId, NodeId, Usd6
from tests.hub.test_oracle import CASH, Desk, ask, closes, uses

ANN, BASE = AccountId("ann"), NodeId("base")

amounts = st.integers(0, 10**15)
signed = st.integers(-(10**15), 10**15)
shares = st.integers(0, 1_000_000)


@st.composite
def settlements(draw: st.DrawFn) -> Posting:
    return settle(
        ANN,
        BASE,
        realised_usd6=draw(signed),
        fees_usd6=draw(amounts),
        liquidation_fees_usd6=draw(amounts),
        insurance_share_ppm=draw(shares),
    )


postings = st.one_of(
    st.builds(deposit, st.just(ANN), amounts),
    st.builds(endow, amounts),
    st.builds(reserve, st.just(ANN), signed),
    settlements(),
    st.builds(
        lambda shortfall_usd6, share: write_off(
            ANN, Usd6(shortfall_usd6), [(INSURANCE, int(shortfall_usd6 * share))]
        ),
        amounts.map(lambda a: a + 1),
        st.fractions(0, 1),
    ),
    st.builds(lambda usd6: socialise([(ANN, usd6)]), amounts),
)


def opened(cash_usd6: int = 0) -> Ledger:
    ledger = empty()
    ledger.post(deposit(ANN, cash_usd6))
    return ledger


def empty() -> Ledger:
    ledger = Ledger()
    ledger.open_account(ANN)
    ledger.open_spoke(BASE)
    return ledger


def test_a_posting_on_a_book_that_is_not_open_is_refused() -> None:
    with pytest.raises(KeyError):
        empty().post(deposit("bob", 1))


@given(st.lists(postings, max_size=20))
def test_every_posting_adds_up_to_zero_and_so_do_all_balances(booked: list[Posting]) -> None:
    ledger = empty()
    for posting in booked:
        assert sum(change for _, change in posting) == 0
        ledger.post(posting)

        assert sum(ledger.balances.values()) == 0
    assert ledger.postings == len(booked)


def test_a_posting_that_makes_money_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="adds up to 1"):
        Ledger().post(((VAULT, -1), (INSURANCE, 2)))


@given(amounts, st.lists(signed, max_size=10))
def test_reserving_moves_cash_and_changes_none(cash_usd6: int, moves: list[int]) -> None:
    ledger = opened(cash_usd6)
    for amount_usd6 in moves:
        ledger.post(reserve(ANN, amount_usd6))

    assert ledger.cash_usd6(ANN) == cash_usd6
    assert ledger.reserved_usd6(ANN) == sum(moves)
    assert ledger.cash_usd6(ANN) - ledger.reserved_usd6(ANN) == cash_usd6 - sum(moves)


@given(signed, amounts, amounts, shares)
def test_settling_moves_money_between_the_trader_and_the_rest(
    realised: int, fees: int, liquidation_fees: int, share_ppm: int
) -> None:
    ledger = opened()
    ledger.post(
        settle(
            ANN,
            BASE,
            realised_usd6=realised,
            fees_usd6=fees,
            liquidation_fees_usd6=liquidation_fees,
            insurance_share_ppm=share_ppm,
        )
    )
    insured = ledger.balances[INSURANCE]

    assert ledger.cash_usd6(ANN) == realised - fees - liquidation_fees
    assert ledger.balances[clearing(BASE)] == -realised
    assert ledger.balances[FEES] + insured == fees + liquidation_fees
    assert 0 <= liquidation_fees * share_ppm - insured * 1_000_000 < 1_000_000


def test_a_spoke_without_a_fund_has_no_book_for_it() -> None:
    ledger = empty()
    ledger.endow_spoke(BASE, 0)

    assert fund(BASE) not in ledger.balances
    assert (ledger.fund_usd6(BASE), ledger.postings) == (0, 0)


@given(st.integers(1, 10**15), st.fractions(0, 1), st.fractions(0, 1))
def test_a_write_off_takes_from_each_fund_what_it_pays_and_the_rest_is_deficit(
    shortfall_usd6: int, of_spoke: object, of_rest: object
) -> None:
    ledger = opened(-shortfall_usd6)
    ledger.endow_spoke(BASE, 10**15)
    ledger.post(endow(10**15))
    first_usd6 = int(shortfall_usd6 * of_spoke)
    then_usd6 = int((shortfall_usd6 - first_usd6) * of_rest)
    paid = [(fund(BASE), first_usd6), (INSURANCE, then_usd6)]
    ledger.post(write_off(ANN, Usd6(shortfall_usd6), paid))

    assert ledger.fund_usd6(BASE) == 10**15 - first_usd6
    assert ledger.balances[INSURANCE] == 10**15 - then_usd6
    assert ledger.balances[DEFICIT] == first_usd6 + then_usd6 - shortfall_usd6
    assert ledger.cash_usd6(ANN) == 0


@pytest.mark.parametrize(("shortfall_usd6", "paid_usd6"), [(0, 0), (10, 11)])
def test_there_is_no_write_off_without_a_shortfall_or_of_more(
    shortfall_usd6: int, paid_usd6: int
) -> None:
    with pytest.raises(AssertionError):
        write_off(ANN, Usd6(shortfall_usd6), [(INSURANCE, paid_usd6)])


def test_what_an_account_is_let_off_adds_up() -> None:
    ledger = Ledger()
    ledger.forgive(ANN, 3)
    ledger.forgive(ANN, 4)

    assert ledger.forgiven_usd6 == {ANN: 7}


class Honest:
    """A spoke that keeps its word; its chain has a block each microsecond, final 5 later."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.time_us = 0
        self.rights: dict[int, list[int]] = {}  # number -> [amount, used, expiry]
        self.said: list[Message] = []
        self.asked = 0

    def say(self, message: Message, family: Family = Family.RESERVATION) -> None:
        if not isinstance(message, Watermark):
            self.said.append(message)
        at, final = self.time_us, max(0, self.time_us - 5)
        for told in self.desk.tell(message, height=at, final=final, family=family):
            assert not isinstance(told, SpokeHalted)
            if isinstance(told, ReservationGranted):
                number = int.from_bytes(told.rid, "big")
                fresh = number not in self.rights and self.said[-1] == ask(number, told.amount_usd6)
                if fresh and number == self.asked:
                    self.rights[number] = [told.amount_usd6, 0, told.expires_at_us]

    def close(self, number: int) -> None:
        right = self.rights[number]
        if right[0] >= 0:
            right[0] = -1
            self.say(closes(number, right[1]))

    def act(self, what: str, number: int, amount: int) -> None:
        right = self.rights.get(number)
        if what == "ask":
            self.asked += 1
            self.say(ask(self.asked, amount * USD))
        elif what == "use" and right and right[0] >= 0 and self.time_us < right[2]:
            right[1] = min(right[0], right[1] + amount * USD)
            self.say(uses(number, right[1], self.time_us))
        elif what == "close" and right:
            self.close(number)
        elif what == "repeat" and self.said:
            self.say(self.said[amount % len(self.said)])
        elif what == "wait":
            self.time_us += amount // 10
            self.desk.block(self.desk.now_us + amount // 10)
        elif what == "mark":
            for due in [n for n, right in self.rights.items() if right[2] <= self.time_us]:
                self.close(due)
            for family in (Family.RESERVATION, Family.MARGIN_STATE):
                self.say(Watermark(spoke_time_us=self.time_us, open_count=0), family)


acts = st.tuples(
    st.sampled_from(["ask", "use", "close", "repeat", "wait", "mark"]),
    st.integers(1, 6),
    st.integers(1, 400),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(acts, max_size=60))
def test_what_is_reserved_is_what_honest_spokes_may_hold_and_all_of_it_comes_back(
    script: list[tuple[str, int, int]],
) -> None:
    """Conservation, exclusivity, and an end to every reservation (P1, P3)."""
    desk = Desk()
    spoke, state = Honest(desk), desk.hub.state
    for what, number, amount in script:
        spoke.act(what, number, amount)
        held = sum(known.encumbered_usd6 for known in state.reservations.values())
        usable = sum(
            right[0] for right in spoke.rights.values() if right[0] > 0 and spoke.time_us < right[2]
        )

        assert desk.reserved() == held == state.zone_of[BASE].encumbered_usd6
        assert usable <= held <= CASH
        assert sum(state.ledger.balances.values()) == 0
    for wait in (2_000, 100):
        spoke.act("wait", 0, wait)
        spoke.act("mark", 0, 0)
    spoke.act("mark", 0, 0)

    assert desk.reserved() == 0
    assert desk.free() == CASH
    assert not any(known.open for known in state.reservations.values())
