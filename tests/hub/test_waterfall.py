"""Who pays for a shortfall: laws of the pure steps, and stories through the hub's front door."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from hub import ledger
from hub.waterfall import Funds, after, apportion, haircut, pay
from messaging.messages import Family, LiquidationOrdered
from messaging.units import ONE, USD
from tests.hub.test_oracle import ANN, BASE, CASH, SOL, Desk, ask, reports
from tests.hub.test_positions import done

amounts = st.integers(0, 10**15)
weights = st.lists(st.integers(0, 10**12), min_size=1, max_size=8)


@given(amounts, weights)
def test_shares_add_up_and_are_exact_but_for_rounding(amount: int, by: list[int]) -> None:
    shares = apportion(amount, by)

    assert sum(shares) == (amount if any(by) else 0)
    for share, weight in zip(shares, by, strict=True):
        if any(by):
            assert abs(share - Fraction(amount * weight, sum(by))) < 1


@given(amounts, st.lists(st.tuples(amounts, amounts), min_size=1, max_size=4), amounts)
def test_every_step_pays_before_the_next_and_nobody_pays_twice(
    shortfall: int, spokes: list[tuple[int, int]], insurance: int
) -> None:
    losses, had = zip(*spokes, strict=True)
    funds = Funds(had, insurance)
    paid = pay(shortfall, losses, funds)
    left = after(funds, paid)

    assert sum(paid.spokes) + paid.insurance + paid.rest == shortfall
    assert min(*left.spokes, left.insurance) >= 0
    shares = apportion(shortfall, losses)
    assert all(got <= share for got, share in zip(paid.spokes, shares, strict=True))
    if paid.insurance:
        assert all(
            got == share or not rest
            for got, share, rest in zip(paid.spokes, shares, left.spokes, strict=True)
        )
    assert not (paid.rest and left.insurance)


@given(amounts, st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=8))
def test_a_haircut_takes_in_proportion_and_never_what_is_not_there(
    deficit: int, available: list[int]
) -> None:
    taken = haircut(deficit, available)

    assert sum(taken) == min(deficit, sum(max(0, one) for one in available))
    assert all(0 <= took <= max(0, had) for took, had in zip(taken, available, strict=True))


def ruined(**policy: int | bool) -> Desk:
    """Return a desk on which ann, 1,000 of cash, has lost 1,200 on base and 300 on sol."""
    desk = Desk(**policy)
    desk.price(100 * USD)
    for spoke, qty8 in ((BASE, 80 * ONE), (SOL, 20 * ONE)):
        cost_usd6 = 100 * USD * qty8 // ONE
        desk.report(reports(1, qty8=qty8, cost_usd6=cost_usd6), spoke=spoke, at=5, final=5)
    desk.now_us = 10
    desk.price(85 * USD)
    orders = [m for m in desk.block(12) if isinstance(m, LiquidationOrdered)]
    for spoke, lost_usd6, order in zip((BASE, SOL), (1_200 * USD, 300 * USD), orders, strict=True):
        desk.report(reports(2, realised_usd6=-lost_usd6), spoke=spoke, at=6, final=6)
        desk.tell(done(order), spoke=spoke, family=Family.LIQUIDATION)
    return desk


def test_the_fund_of_a_spoke_pays_its_share_then_insurance_then_nobody() -> None:
    desk = ruined(fund_usd6=150 * USD, insurance_usd6=200 * USD)
    books = desk.hub.state.ledger

    assert books.bad_debt_usd6 == 500 * USD  # 400 of it lost on base, 100 on sol
    assert (books.fund_usd6(BASE), books.fund_usd6(SOL)) == (0, 50 * USD)
    assert desk.balance(ledger.INSURANCE) == 0
    assert desk.balance(ledger.DEFICIT) == -50 * USD
    assert (books.funds_used_usd6, books.insurance_used_usd6) == (250 * USD, 200 * USD)
    assert sum(books.balances.values()) == 0


def test_the_rest_is_taken_from_available_cash_with_the_next_block() -> None:
    desk = ruined(socialise=True)
    books = desk.hub.state.ledger
    assert desk.balance(ledger.DEFICIT) == -500 * USD
    desk.block(24)

    assert desk.balance(ledger.DEFICIT) == 0
    assert books.haircut_usd6 == {"bob": 500 * USD}
    assert books.cash_usd6("bob") == 100 * CASH - 500 * USD
    assert books.cash_usd6(ANN) == 0


def test_a_haircut_leaves_reserved_cash_alone() -> None:
    desk = ruined(socialise=True)
    desk.tell(ask(9, 4_000 * USD, account="bob"))
    books = desk.hub.state.ledger
    books.post(ledger.deposit("bob", 4_200 * USD - 100 * CASH))  # 200 that nothing holds
    desk.block(24)

    assert books.haircut_usd6 == {"bob": 200 * USD}
    assert (books.reserved_usd6("bob"), books.cash_usd6("bob")) == (4_000 * USD, 4_000 * USD)
    assert desk.balance(ledger.DEFICIT) == -300 * USD


def test_nothing_is_socialised_unless_the_scenario_says_so() -> None:
    desk = ruined()
    desk.block(24)

    assert desk.balance(ledger.DEFICIT) == -500 * USD
    assert not desk.hub.state.ledger.haircut_usd6
