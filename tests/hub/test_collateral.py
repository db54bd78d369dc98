"""What collateral that is not dollars counts."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.margin.scan.account import Holding, stand
from hub.margin.scan.collateral import Collateral, CollateralRisk, Valued, valued
from messaging.units import ONE, USD
from tests.hub.test_scan import MARKET, POLICY, SPOKES, perpetual

ETH = CollateralRisk(
    asset="ETH",
    maintenance_haircut_ppm=200_000,
    initial_haircut_ppm=250_000,
    volatility_ppm=2_500_000,
    quantile_z=3.09,
    depth_usd6_per_s=250_000 * USD,
    participation_ppm=100_000,
    volume_usd6=10**10 * USD,
    impact_ppm=1_000_000,
    cap_usd6=10**8 * USD,
    pegged=False,
    depeg_factor=0,
)
USDC = msgspec.structs.replace(
    ETH,
    asset="USDC",
    maintenance_haircut_ppm=20_000,
    initial_haircut_ppm=40_000,
    volatility_ppm=10_000,
    pegged=True,
    depeg_factor=4,
)
ENDLESS = msgspec.structs.replace(ETH, age_max_s=math.inf)
STETH = msgspec.structs.replace(ETH, asset="STETH", follows=1)


def held(risk: CollateralRisk, qty: float, price_usd: float, *, age_s: float = 0.0) -> Valued:
    return valued(
        Collateral(risk=risk, qty8=round(qty * ONE), price_usd6=round(price_usd * USD), age_s=age_s)
    )


def test_a_little_of_it_has_the_least_haircut() -> None:
    found = held(ETH, 1.0, 3_000)

    assert (found.maintenance_usd6, found.initial_usd6) == (2_400 * USD, 2_250 * USD)


def test_much_of_it_moves_the_market_and_takes_long_to_sell() -> None:
    """30 million at 25,000 a second are 20 minutes, and sqrt(0.003) of impact."""
    found = held(ETH, 10_000, 3_000, age_s=60.0)
    moved = 1 - math.exp(-3.09 * 2.5 * math.sqrt((60 + 1_200) / 31_536_000))
    haircut = math.ceil((moved + math.sqrt(0.003)) * 1e6)

    assert haircut < 200_000
    assert found.maintenance_haircut_ppm == 200_000
    old = held(ETH, 10_000, 3_000, age_s=36_000.0)
    moved = 1 - math.exp(-3.09 * 2.5 * math.sqrt((36_000 + 1_200) / 31_536_000))
    assert old.maintenance_haircut_ppm == math.ceil((moved + math.sqrt(0.003)) * 1e6) > 200_000
    assert old.maintenance_usd6 == 30_000_000 * (1_000_000 - old.maintenance_haircut_ppm)


@pytest.mark.parametrize(
    ("price_usd", "lost_ppm"), [(1.01, 0), (1.0, 0), (0.99, 0), (0.98, 40_000), (0.5, 960_000)]
)
def test_a_lost_peg_stops_new_credit_and_calls_nobody(price_usd: float, lost_ppm: int) -> None:
    found = held(USDC, 100.0, price_usd)

    assert found.maintenance_haircut_ppm == 20_000
    assert found.initial_haircut_ppm == min(1_000_000, 40_000 + lost_ppm)
    assert found.maintenance_usd6 == 98 * round(price_usd * USD)


def test_no_more_than_the_cap_counts() -> None:
    capped = msgspec.structs.replace(ETH, cap_usd6=60_000 * USD)
    below, at, above = (held(capped, qty, 3_000) for qty in (10, 20, 1_000))

    assert below.maintenance_usd6 * 2 == at.maintenance_usd6 == above.maintenance_usd6
    assert above.maintenance_usd6 == 48_000 * USD
    assert above.market_usd6 == 3_000_000 * USD


@given(
    st.integers(0, 10**15),
    st.integers(1, 10**11),
    st.floats(0.0, 1e6),
    st.floats(0.0, 1e6),
    st.booleans(),
)
def test_collateral_counts_less_for_credit_than_for_staying_and_less_with_age(
    qty8: int, price_usd6: int, age_s: float, more_s: float, pegged: bool
) -> None:
    risk = USDC if pegged else ETH
    young, old = (
        valued(Collateral(risk=risk, qty8=qty8, price_usd6=price_usd6, age_s=each))
        for each in (age_s, age_s + more_s)
    )

    assert 0 <= young.initial_usd6 <= young.maintenance_usd6 <= young.market_usd6
    assert old.maintenance_usd6 <= young.maintenance_usd6
    assert old.initial_usd6 <= young.initial_usd6


def test_equity_has_two_values_for_staying_and_for_opening() -> None:
    eth = Collateral(risk=ETH, qty8=ONE, price_usd6=3_000 * USD, age_s=0.0)
    account = Holding(cash_usd6=7 * USD, unsettled_usd6=(0,) * SPOKES, legs=(), collateral=(eth,))
    found = stand(POLICY, MARKET, account)

    assert (found.equity_usd6, found.equity_initial_usd6) == (2_407 * USD, 2_257 * USD)
    assert (found.maintenance_usd6, found.initial_usd6) == (0, 0)


@given(st.floats(0.0, 1e6), st.floats(1.0, 1e5))
def test_a_price_too_old_gives_no_credit_and_calls_nobody_at_once(
    age_s: float, most_s: float
) -> None:
    """Rule O15: for maintenance it keeps what its age leaves of it."""
    risk = msgspec.structs.replace(ETH, age_max_s=most_s)
    found, without = (held(each, 1.0, 3_000, age_s=age_s) for each in (risk, ENDLESS))

    assert found.initial_usd6 == (0 if age_s > most_s else without.initial_usd6)
    assert found.maintenance_usd6 == without.maintenance_usd6


@pytest.mark.parametrize("short", [0.0, 1.0, 5.0, 20.0, 100.0])
def test_collateral_that_follows_an_underlying_may_fall_against_it(short: float) -> None:
    """Rule O16, against a short in what it follows: the dearer of the range and the ratio."""
    steth = Collateral(risk=STETH, qty8=20 * ONE, price_usd6=150 * USD, age_s=0.0)
    legs = (perpetual(-short, place=1),) if short else ()
    book = Holding(cash_usd6=0, unsettled_usd6=(0,) * SPOKES, legs=legs, collateral=(steth,))
    plain = msgspec.structs.replace(book, collateral=())
    found, without = (stand(POLICY, MARKET, each) for each in (book, plain))

    if not short:
        assert found.requirements == ()
        return
    (one,), (other,) = found.requirements, without.requirements
    assert one.ratio_usd6 == -240 * USD
    assert one.scan_usd6 == max(240 * USD, other.scan_usd6)
    assert (one.worst is None) == (other.scan_usd6 < 240 * USD)
    assert found.maintenance_usd6 == one.scan_usd6
    assert one.initial_usd6 == 2 * one.scan_usd6  # IM0 / R0 of this asset
