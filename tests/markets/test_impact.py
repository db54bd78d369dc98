"""What fills do to prices: the decision, and the market that takes it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from markets.impact import (
    NONE,
    PRICE_USD6_MAX,
    Displacement,
    ImpactPolicy,
    at_venue_e12,
    decayed,
    displaced_usd6,
    mean_share,
    pushed,
)
from markets.market import MovedMarket
from markets.price_path import join
from messaging.effects import Send
from messaging.envelope import Envelope
from messaging.messages import Family, MarketMoved
from messaging.node import TimerFired
from messaging.units import MARKET, ONE, ORACLE, SECOND_US, TRADERS, USD, Asset, NodeId
from messaging.venues import VenueTraded

BASE, OPTIMISM, UNICHAIN = VENUES = tuple(map(NodeId, ("base", "optimism", "unichain")))
NORMAL, S = 1_000_000, SECOND_US


def policy(
    *, lasting: float = 1e-9, walk: float = 3e-9, half_life_s: int = 0, coupling_ppm: int = 400_000
) -> ImpactPolicy:
    return ImpactPolicy(
        lasting_per_usd=(lasting, 0.0),
        walk_per_usd=(walk, 0.0),
        half_life_us=half_life_s * S,
        coupling_ppm=coupling_ppm,
        depth_shares_ppm=(NORMAL, NORMAL, NORMAL // 4),
    )


class Bench:
    """A market of BTC at $100 and ETH at $10 on three venues, by hand."""

    def __init__(self, made: ImpactPolicy, *, depth_ppm: int = NORMAL) -> None:
        times = np.arange(0, 1_000, 100, dtype=np.int64) * S
        columns = {Asset("BTC"): [100 * USD] * 10, Asset("ETH"): [10 * USD] * 10}
        depth = [depth_ppm] * 10
        path = join(times, columns, depth_ppm=depth, label="", stylised=False, source="")
        unmoved = (TRADERS,)
        self.node = MovedMarket(MARKET, path, made, feeds=(ORACLE,), unmoved=unmoved, venues=VENUES)
        self.told: dict[NodeId, tuple[int, ...]] = {}
        self._take(self.node.start())

    def _take(self, effects: object) -> set[NodeId]:
        heard = set()
        for effect in effects:
            if isinstance(effect, Send):
                assert isinstance(effect.message, MarketMoved)
                self.told[effect.to] = effect.message.prices_usd6
                heard.add(effect.to)
        return heard

    def trade(self, venue: NodeId, *bought_usd: float, at_s: int = 1) -> set[NodeId]:
        """Buy for so many dollars of each asset at the venue's price; return who was told."""
        prices = self.told[venue]
        qty8 = [round(usd * USD * ONE / p) for usd, p in zip(bought_usd, prices, strict=True)]
        frame = Envelope(
            venue, MARKET, Family.PRICE, 1, 0, 0, 0, 0, VenueTraded(bought_qty8=tuple(qty8))
        )
        return self._take(self.node.handle(at_s * S, frame))

    def tick(self, at_s: int) -> set[NodeId]:
        return self._take(self.node.handle(at_s * S, TimerFired("tick")))

    def move(self, venue: NodeId) -> float:
        return math.log(self.told[venue][0] / (100 * USD))


def test_a_sale_lowers_and_a_purchase_raises_prices_by_the_same_share() -> None:
    down, up = Bench(policy()), Bench(policy())
    down.trade(BASE, -5e6, 0.0)
    up.trade(BASE, 5e6, 0.0)
    assert down.move(BASE) == pytest.approx(-0.005, rel=1e-4)
    assert up.move(BASE) == pytest.approx(0.005, rel=1e-4)
    assert down.told[BASE][1] == 10 * USD


@pytest.mark.parametrize("coupling_ppm", [0, 250_000, 1_000_000])
def test_other_venues_follow_by_the_coupling_and_feeds_see_the_average(coupling_ppm: int) -> None:
    made = policy(coupling_ppm=coupling_ppm)
    bench = Bench(made)
    heard = bench.trade(BASE, -5e6, 0.0)
    assert bench.move(OPTIMISM) == bench.move(UNICHAIN)
    assert bench.move(OPTIMISM) == pytest.approx(-0.005 * coupling_ppm / 1e6, abs=1e-6)
    assert bench.told[ORACLE][0] == sum(bench.told[venue][0] for venue in VENUES) // 3
    assert bench.move(ORACLE) == pytest.approx(-0.005 * mean_share(made, 3), rel=1e-2)
    assert bench.told[TRADERS] == (100 * USD, 10 * USD)
    assert heard == {BASE, ORACLE} | ({OPTIMISM, UNICHAIN} if coupling_ppm else set())


def test_fills_of_several_venues_add_up() -> None:
    bench = Bench(policy(coupling_ppm=500_000))
    bench.trade(BASE, -4e6, 0.0)
    bench.trade(OPTIMISM, -2e6, 0.0)
    assert bench.move(BASE) == pytest.approx(-0.005, abs=2e-5)
    assert bench.move(OPTIMISM) == pytest.approx(-0.004, abs=2e-5)
    assert bench.move(UNICHAIN) == pytest.approx(-0.003, abs=2e-5)


def test_a_thin_market_moves_more() -> None:
    bench = Bench(policy(), depth_ppm=20_000)
    bench.trade(BASE, -1e6, 0.0)
    assert bench.move(BASE) == pytest.approx(-0.05, rel=1e-3)


def test_the_walk_up_the_book_halves_each_half_life_and_the_rest_stays() -> None:
    bench = Bench(policy(half_life_s=100))
    bench.trade(BASE, -5e6, 0.0, at_s=0)
    assert bench.move(BASE) == pytest.approx(-0.015, rel=1e-4)
    for at_s, passing in ((100, 0.005), (200, 0.0025), (300, 0.00125)):
        assert bench.tick(at_s) == {ORACLE, TRADERS, *VENUES}
        assert bench.move(BASE) == pytest.approx(-0.005 - passing, rel=1e-4)


def test_time_between_fills_counts_as_between_ticks() -> None:
    bench = Bench(policy(half_life_s=100))
    bench.trade(BASE, -5e6, 0.0, at_s=0)
    bench.trade(OPTIMISM, 0.0, 1.0, at_s=50)
    bench.tick(100)
    assert bench.move(BASE) == pytest.approx(-0.01, rel=1e-4)


def test_with_a_half_life_of_nothing_only_what_lasts_is_seen() -> None:
    bench = Bench(policy(half_life_s=0))
    bench.trade(BASE, -5e6, 0.0)
    assert bench.move(BASE) == pytest.approx(-0.005, rel=1e-4)


def test_an_impact_beyond_the_walk_lasts_whole() -> None:
    after = pushed(policy(lasting=5e-9, half_life_s=9), 0, 0, NONE, -1e6, NORMAL)
    assert after == Displacement(-5_000_000_000, 0)


def test_a_thin_book_is_walked_up_further_and_comes_back_to_the_same() -> None:
    made = policy(lasting=1e-9, walk=3e-9, half_life_s=9)
    deep, thin = (pushed(made, 0, venue, NONE, 1e6, NORMAL) for venue in (0, 2))
    assert deep == Displacement(1_000_000_000, 2_000_000_000)
    assert thin == Displacement(1_000_000_000, 11_000_000_000)


def test_fills_that_move_no_price_are_answered_with_nothing() -> None:
    bench = Bench(policy(lasting=1e-30))
    assert bench.trade(BASE, -5e6, 5e6) == set()


fills = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.floats(-1e18, 1e18),
        st.integers(1, 2_000_000),
        st.integers(0, 10**9),
    ),
    max_size=20,
)


@given(
    fills=fills,
    price_usd6=st.integers(1, PRICE_USD6_MAX),
    impact=st.floats(0.0, 1.0),
    walk=st.floats(0.0, 0.01),
    coupling_ppm=st.integers(0, 1_000_000),
    half_life_s=st.integers(0, 10**6),
)
def test_prices_stay_what_messages_can_carry(
    fills: list[tuple[int, float, int, int]],
    price_usd6: int,
    impact: float,
    walk: float,
    coupling_ppm: int,
    half_life_s: int,
) -> None:
    made = policy(lasting=impact, walk=walk, half_life_s=half_life_s, coupling_ppm=coupling_ppm)
    own = [NONE] * 3
    for venue, usd, depth_ppm, passed_us in fills:
        own = [decayed(made, one, passed_us) for one in own]
        own[venue] = pushed(made, 0, venue, own[venue], usd, depth_ppm)
    for venue in range(3):
        moved = displaced_usd6(price_usd6, at_venue_e12(made, own, venue))
        assert 1 <= moved <= PRICE_USD6_MAX
        # A millionth is what rounding may take, or the limit.
        assert price_usd6 / 10 - 1 <= moved <= price_usd6 * 10 + 1


@given(
    usd=st.floats(-1e6, 1e6),
    depth_ppm=st.integers(1_000, NORMAL),
    coupling_ppm=st.integers(0, 1_000_000),
)
def test_what_is_taken_back_leaves_nothing(usd: float, depth_ppm: int, coupling_ppm: int) -> None:
    made = policy(coupling_ppm=coupling_ppm)
    back = pushed(made, 0, 0, pushed(made, 0, 0, NONE, usd, depth_ppm), -usd, depth_ppm)
    assert back == NONE


def test_one_shared_market_has_one_price() -> None:
    made = policy(coupling_ppm=1_000_000)
    own = [Displacement(123, 456_789), Displacement(-98_765, 4), Displacement(7, 0)]
    assert len({at_venue_e12(made, own, venue) for venue in range(3)}) == 1


@pytest.mark.parametrize("price_usd6", [1, 4, PRICE_USD6_MAX])
def test_the_cheapest_and_the_dearest_price_stay_prices(price_usd6: int) -> None:
    made = policy(lasting=1e-6)
    for usd in (-1e12, 1e12):
        own = [pushed(made, 0, 0, NONE, usd, NORMAL)]
        moved = displaced_usd6(price_usd6, at_venue_e12(made, own, 0))
        assert 1 <= moved <= PRICE_USD6_MAX
        assert (moved - price_usd6) * usd >= 0
