"""Breakers: a ladder that rises at once and falls late, and never stops a liquidation."""

import math
from collections.abc import Sequence
from fractions import Fraction

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hub.breakers import LEVEL_OF, AssetSeen, Breaker, BreakerPolicy, looked, of_asset, of_zone
from hub.liquidation import LiquidationPolicy, keep_share
from hub.margin.requirement import Conditions, Reported, assess
from hub.node import Hub
from hub.oracle import OraclePolicy
from hub.reservation import State
from lab import reading, running
from lab.result import Tripped
from lab.theory import cascade
from lab.world import World, build
from messaging.breakers import BreakerSet, Cause, Level
from messaging.effects import Effect, Send
from messaging.messages import (
    CloseReason,
    Family,
    LiquidationOrdered,
    MarginStatus,
    Message,
    RejectReason,
    ReservationClosed,
    ReservationGranted,
    ReservationRejected,
    RevocationRequested,
)
from messaging.node import Event
from messaging.units import HUB, ONE, SECOND_US, USD, Micros
from tests.hub import test_book as book
from tests.hub.test_book import Bounds
from tests.hub.test_feeds import agree, says
from tests.hub.test_oracle import ANN, BASE, CASH, SOL, Desk, ask, key, reports
from tests.hub.test_rebuild import rejoin
from tests.simulation.small import MARCH_2020, scenario

S, LOOKS = SECOND_US, 3
POLICY = BreakerPolicy(
    price_age_us=Micros(60 * S),
    stuck_us=Micros(120 * S),
    off_mean_ppm=500_000,
    mean_us=Micros(300 * S),
    volatility_times=3.0,
    volatility_floor=0.4,
    won_ppm=500_000,
    cascade_ppm=700_000,
    impacts_per_usd=(0.0,),
    looks=LOOKS,
)
SIZES = LiquidationPolicy(
    call_ppm=1_150_000,
    restore_ppm=1_250_000,
    target_extra_ppm=20_000,
    cost_ppm=12_000,
    dust_usd6=0,
    command_ttl_us=1_000,
    insurance_share_ppm=500_000,
)
CALM = AssetSeen(age_us=0, off_mean_ppm=0, doubted=False, fast=0.2, slow=0.2, cascade_ppm=0)

causes = st.lists(st.sampled_from(list(Cause)), min_size=1, max_size=40)
sights = st.builds(
    AssetSeen,
    st.sampled_from([0, 60 * S, 60 * S + 1, 120 * S, 120 * S + 1]),
    st.sampled_from([0, 500_000, 500_001]),
    st.booleans(),
    st.floats(0, 20),
    st.floats(0, 2),
    st.sampled_from([0, 700_000, 700_001]),
)


# --- the ladder -------------------------------------------------------------------------


@given(causes, st.integers(1, 12))
def test_the_level_is_the_highest_of_the_last_looks_and_each_change_has_a_version(
    called: list[Cause], looks: int
) -> None:
    policy = msgspec.structs.replace(POLICY, looks=looks)
    breaker, changes = Breaker(), 0
    for number, cause in enumerate(called):
        before = breaker.level
        breaker = looked(policy, breaker, cause)
        window = called[max(0, number + 1 - looks) : number + 1]
        changes += breaker.level != before
        assert breaker.level == max(LEVEL_OF[one] for one in window) >= LEVEL_OF[cause]
        assert LEVEL_OF[breaker.cause] == breaker.level
        assert breaker.cause in [*window, Cause.CLEAR]
        assert breaker.version == changes
        if breaker.level < before:
            assert all(LEVEL_OF[one] < before for one in window)
            assert len(window) == looks


@given(causes, causes, st.integers(1, 12))
def test_more_causes_never_lower_a_level(
    called: list[Cause], more: list[Cause], looks: int
) -> None:
    policy = msgspec.structs.replace(POLICY, looks=looks)
    one = other = Breaker()
    for cause, added in zip(called, more, strict=False):
        one = looked(policy, one, cause)
        other = looked(policy, other, max(cause, added, key=lambda each: LEVEL_OF[each]))
        assert other.level >= one.level


@given(sights, sights)
def test_worse_sights_never_call_for_less(one: AssetSeen, other: AssetSeen) -> None:
    worse = AssetSeen(*map(max, zip(one, other, strict=True)))._replace(
        slow=min(one.slow, other.slow)
    )
    assert LEVEL_OF[of_asset(POLICY, worse)] >= LEVEL_OF[of_asset(POLICY, one)]


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({}, Cause.CLEAR),
        ({"age_us": 60 * S}, Cause.CLEAR),
        ({"age_us": 60 * S + 1}, Cause.PRICE_OLD),
        ({"age_us": 120 * S + 1}, Cause.FEED_STUCK),
        ({"doubted": True}, Cause.PRICE_DOUBTED),
        ({"fast": 9 * 0.2 + 0.01, "slow": 0.2}, Cause.VOLATILITY),
        ({"fast": 9 * 0.2, "slow": 0.2}, Cause.CLEAR),
        ({"fast": 9 * 0.16, "slow": 0.01}, Cause.CLEAR),  # the floor is 40 % a year
        ({"cascade_ppm": 700_001, "fast": 9.0}, Cause.CASCADE),
        ({"off_mean_ppm": 500_000}, Cause.CLEAR),
        ({"off_mean_ppm": 500_001, "cascade_ppm": 700_001}, Cause.OFF_MEAN),
    ],
)
def test_the_gravest_cause_is_named_at_the_edge(changed: dict[str, object], cause: Cause) -> None:
    assert of_asset(POLICY, CALM._replace(**changed)) is cause  # type: ignore[arg-type]


def test_a_zone_is_stopped_by_what_was_won_there() -> None:
    assert of_zone(POLICY, 500, 1_000) is Cause.CLEAR
    assert of_zone(POLICY, 501, 1_000) is Cause.ZONE_WON


# --- the hub ----------------------------------------------------------------------------


def desk(*, oracle: OraclePolicy | None = None, renewals_max: int = 0, **changed: object) -> Desk:
    """Return a hub with breakers; its blocks come when the test says."""
    one = Desk(priced=False, renewals_max=renewals_max)
    before = one.hub.state.policy
    zones = tuple(msgspec.structs.replace(zone, overdue_after_us=10**12) for zone in before.zones)
    policy = msgspec.structs.replace(
        before,
        zones=zones,
        oracle=oracle,
        breakers=msgspec.structs.replace(POLICY, **changed),  # type: ignore[arg-type]
    )
    one.hub = Hub(policy, [(ANN, CASH), ("bob", 100 * CASH)])
    return one


def level(one: Desk, scope: str = "BTC") -> Level:
    return one.hub.state.breakers[scope].level


def answer(one: Desk, number: int, *, spoke: str = BASE) -> object:
    (found,) = one.tell(ask(number, 10 * USD), spoke=spoke)
    if isinstance(found, ReservationRejected):
        return found.reason
    assert isinstance(found, ReservationGranted)
    return None


def set_(told: Sequence[Message]) -> list[tuple[str, Level, Cause, int]]:
    return [
        (one.scope, one.level, one.cause, one.version)
        for one in told
        if isinstance(one, BreakerSet)
    ]


def test_an_old_price_stops_credit_then_trading_and_a_fresh_one_opens_late() -> None:
    one = desk()
    one.price(100 * USD)
    assert set_(one.block(S)) == []
    assert answer(one, 1) is None

    old = [("BTC", Level.NO_CREDIT, Cause.PRICE_OLD, 1)] * 2  # to each spoke
    told = one.block(61 * S)
    assert set_(told) == old
    assert answer(one, 2) is RejectReason.BREAKER
    assert not any(isinstance(each, RevocationRequested) for each in told)

    stuck = one.block(121 * S)
    assert set_(stuck) == [("BTC", Level.FROZEN, Cause.FEED_STUCK, 2)] * 2
    assert RevocationRequested(rid=key(1)) in stuck
    assert set_(one.block(122 * S)) == []
    assert not any(isinstance(each, RevocationRequested) for each in one.block(123 * S))

    one.price(100 * USD)
    for clean in range(1, LOOKS):
        assert set_(one.block((123 + clean) * S)) == []
        assert answer(one, 10 + clean) is RejectReason.BREAKER
    assert set_(one.block(130 * S)) == [("BTC", Level.OPEN, Cause.CLEAR, 3)] * 2
    assert answer(one, 20) is None


def test_what_was_asked_back_is_not_asked_for_again_between_reduce_only_and_frozen() -> None:
    one = desk()
    one.price(100 * USD)
    one.block(S)
    assert answer(one, 1) is None
    assert RevocationRequested(rid=key(1)) in one.block(121 * S)

    one.price(100 * USD)
    state = one.hub.state
    state.estimates[0] = state.estimates[0]._replace(fast=100.0)
    told = [each for clean in range(LOOKS) for each in one.block((122 + clean) * S)]
    told += one.block(250 * S)  # the price is stuck once more
    assert set_(told) == [
        *[("BTC", Level.REDUCE_ONLY, Cause.VOLATILITY, 2)] * 2,
        *[("BTC", Level.FROZEN, Cause.FEED_STUCK, 3)] * 2,
    ]
    assert not any(isinstance(each, RevocationRequested) for each in told)


def test_a_price_that_leaves_its_mean_freezes_and_liquidates_all_the_same() -> None:
    one = desk()
    one.price(100 * USD)
    one.report(reports(1, qty8=50 * ONE, cost_usd6=5_000 * USD))
    assert answer(one, 1) is None
    one.block(300 * S)
    one.now_us = 300 * S + 1
    one.price(45 * USD)
    told = one.block(301 * S)

    assert (level(one), one.hub.state.breakers["BTC"].cause) == (Level.FROZEN, Cause.OFF_MEAN)
    (ordered,) = [each for each in told if isinstance(each, LiquidationOrdered)]
    assert (ordered.account, ordered.target_qty8) == (ANN, 0)
    assert one.account().status == "frozen"


def test_credit_is_renewed_no_more_and_asked_back_only_of_whom_it_concerns() -> None:
    """A zone's breaker concerns that spoke alone; money comes free only with the close."""
    one = desk(renewals_max=5)
    one.price(100 * USD)
    one.block(S)
    assert answer(one, 1) is None
    assert answer(one, 2, spoke=SOL) is None
    zone = one.hub.state.zone_of[BASE]
    zone.won_usd6 = zone.policy.cap_usd6 // 2 + 1
    told = one.block(S + 20)

    assert set_(told) == [(BASE, Level.REDUCE_ONLY, Cause.ZONE_WON, 1)]
    assert [each for each in told if isinstance(each, RevocationRequested)] == [
        RevocationRequested(rid=key(1))
    ]
    assert answer(one, 3) is RejectReason.BREAKER
    assert answer(one, 4, spoke=SOL) is None
    renewed = [type(each).__name__ for each in one.block(S + 60)]
    assert renewed == ["ReservationRenewed"]  # the other spoke's
    assert one.state_of(1) is State.HELD
    assert one.reserved() == 30 * USD

    closed = ReservationClosed(rid=key(1), used_usd6=0, reason=CloseReason.REVOKED)
    one.tell(closed, height=9, final=9)
    assert one.reserved() == 20 * USD


def test_doubt_is_held_for_a_while_when_it_is_over() -> None:
    oracle = OraclePolicy(
        feeds=3,
        fresh_us=Micros(200 * S),
        spread_ppm=20_000,
        twap_us=Micros(300 * S),
        twap_ppm=100_000,
        pegs_usd6=(0,),
        peg_ppm=10_000,
    )
    one = desk(oracle=oracle)
    agree(one, 100.0)
    one.block(S)
    assert answer(one, 1) is None
    says(one, 0, 50.0)
    assert set_(one.block(2 * S)) == [("BTC", Level.NO_CREDIT, Cause.PRICE_DOUBTED, 1)] * 2
    one.now_us += 1
    says(one, 0, 100.0)
    assert answer(one, 2) is RejectReason.BREAKER
    for second in range(3, 3 + LOOKS):
        one.block(second * S)
    assert answer(one, 3) is None


def test_a_rebuilt_spoke_is_told_again_of_what_concerns_it() -> None:
    one = desk()
    one.price(100 * USD)
    zone = one.hub.state.zone_of[SOL]
    zone.won_usd6 = zone.policy.cap_usd6
    one.block(121 * S)
    assert set_(rejoin(one, Family.MARGIN_STATE)) == [("BTC", Level.FROZEN, Cause.FEED_STUCK, 1)]
    assert set_(rejoin(one, Family.RESERVATION)) == []


def test_without_the_table_nothing_is_looked_at() -> None:
    one = Desk(priced=False)
    one.price(100 * USD)
    one.block(10**9)
    assert one.hub.state.breakers == {}
    assert one.hub.state.estimates == {}
    assert not one.hub.state.used[0]._prices


# --- cascades ---------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.69, 0.8, 0.95, 1.0, 1.2])
def test_the_ratio_that_the_book_shows_is_impact_times_density(ratio: float) -> None:
    assert cascade.fall(ratio, 60.0).measured_ratio == pytest.approx(ratio, rel=0.01)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.69])
def test_below_its_limit_the_breaker_lets_all_in(ratio: float) -> None:
    found = cascade.fall(ratio, 100.0)
    assert found.stopped_at is None
    assert (found.guarded_drop_usd, found.guarded_liquidated) == (found.drop_usd, found.liquidated)


@pytest.mark.parametrize("ratio", [0.8, 0.95, 1.0, 1.2, 2.0])
def test_above_its_limit_the_breaker_keeps_the_book_at_it(ratio: float) -> None:
    found = cascade.fall(ratio, 60.0)
    assert found.stopped_at is not None
    kept = ratio * found.stopped_at / found.accounts
    assert kept == pytest.approx(0.7, abs=0.05)
    assert found.guarded_drop_usd == pytest.approx(60 / (1 - kept), rel=0.15)
    assert found.guarded_drop_usd < found.drop_usd
    assert found.guarded_liquidated < found.stopped_at / 2


def sold_qty8(
    conditions: Conditions,
    asset: int,
    move: float,
    held: Sequence[tuple[list[Reported], Bounds, int]],
) -> Fraction:
    """Return what L5 sells of an asset on balance, account by account in whole numbers."""
    prices = list(conditions.prices_usd6)
    prices[asset] = round(prices[asset] * (1 + move))
    moved, sold = msgspec.structs.replace(conditions, prices_usd6=prices), Fraction(0)
    for found, bounds, cash_usd6 in held:
        standing = assess(book.POLICY, book.PLACES, moved, cash_usd6, found, bounds)
        off_usd6 = standing.equity_usd6 - standing.maintenance_usd6
        if not standing.notional_usd6:
            continue
        assume(abs(off_usd6) > 10 + standing.notional_usd6 // 10**6)
        if off_usd6 > 0:
            continue
        stays, of = keep_share(SIZES, standing, 0)
        for spoke, one in enumerate(found):
            for position in one.state.positions:
                if book.PLACES[position.asset] == asset:
                    most = bounds.get((spoke, asset), abs(position.qty8))
                    qty8 = max(-most, min(most, position.qty8))
                    sold += qty8 * Fraction(of - stays, of)
    return sold


@settings(max_examples=100, deadline=None)
@given(
    st.lists(book.accounts(), min_size=1, max_size=4),
    book.conditions_known,
    st.sampled_from([0, 1]),
    st.floats(0.0013, 0.02) | st.floats(-0.02, -0.0013),
)
def test_the_pressure_on_a_price_is_what_the_rule_of_sizes_would_sell(
    drawn: list[tuple[list[Reported], Bounds]],
    conditions: Conditions,
    asset: int,
    off: float,
) -> None:
    """Longs and shorts, partly closed already, with cash around the trigger; one closed out."""
    ours, held = book.new_book(len(drawn) + 1), []
    for place, (found, bounds) in enumerate([*drawn, drawn[0]]):
        poor = assess(book.POLICY, book.PLACES, conditions, 0, found, bounds)
        cash_usd6 = poor.maintenance_usd6 - poor.equity_usd6 + round(off * poor.notional_usd6)
        ours.enter([ours.row(place, spoke, one, bounds) for spoke, one in enumerate(found)])
        ours.set_cash(place, cash_usd6)
        ours.set_code(place, MarginStatus.FROZEN, busy=bool(bounds), done=place == len(drawn))
        held.append((found, bounds, cash_usd6))
    low, here, high = (sold_qty8(conditions, asset, move, held[:-1]) for move in (-0.01, 0, 0.01))
    each = conditions.prices_usd6[asset] / USD / ONE
    into_fall, into_rise = float(low - here) / -math.log(0.99), float(here - high) / math.log(1.01)
    expected = max(0.0, into_fall, into_rise) * each
    sizes = [
        abs(position.qty8)
        for found, _ in drawn
        for one in found
        for position in one.state.positions
        if book.PLACES[position.asset] == asset
    ]
    hair = 5e-3 * each * sum(sizes) + 1.0  # ranges are rounded to whole millionths, and h is 1 %

    pressure = ours.pressures(conditions, SIZES.target_extra_ppm, SIZES.cost_ppm)[asset]
    assert pressure == pytest.approx(expected, rel=1e-4, abs=hair)


# --- runs -------------------------------------------------------------------------------


def late() -> World:
    """Return a world that goes under: half an hour late, no buffer, and crowded."""
    assets = [
        table | {"impact_ppm_per_million_usd": 20_000.0}
        for table in reading.read_file(MARCH_2020)["assets"]
    ]
    return build(
        scenario(
            assets=assets,
            breakers={},
            latency="constant:1800s",
            buffer={"kind": "none"},
            traders={
                "accounts": 150,
                "open_until_h": 5.0,
                "leverage_min": 6.0,
                "leverage_max": 9.0,
            },
        )
    )


def test_credit_stops_before_insolvency_and_liquidation_goes_on() -> None:
    world = late()
    state, ledger = world.hub.state, world.hub.state.ledger
    tripped_us: list[int] = []
    ordered = spoiled = 0

    def after(now_us: Micros, event: Event, effects: Sequence[Effect]) -> None:
        nonlocal ordered, spoiled
        stopped = any(breaker.level for breaker in state.breakers.values())
        if stopped:
            tripped_us.append(now_us)
            ordered += sum(
                isinstance(effect, Send) and isinstance(effect.message, LiquidationOrdered)
                for effect in effects
            )
        if ledger.bad_debt_usd6 and not spoiled:
            spoiled = now_us

    (endpoint,) = (one for one in world.endpoints if one.name == HUB)
    endpoint.observers.append(after)
    outcome = running.run(world)
    result = outcome.story.result

    assert outcome.finding is None
    assert result.breakers is not None
    assert result.breakers.rises == {"cascade": 1}
    assert result.breakers.highest == Level.REDUCE_ONLY
    assert result.reservations.reject_reasons["breaker"] > 10
    assert tripped_us[0] < spoiled
    assert ordered > 10


def test_a_sound_market_trips_nothing_and_only_a_table_changes_the_log() -> None:
    """March 2020 at its true pace, on sound feeds: what is not said changes no byte."""
    without, looked_at = (
        running.run(build(scenario(**tables))).story.result for tables in ({}, {"breakers": {}})
    )
    assert without.breakers is None
    assert looked_at.breakers == Tripped({}, {}, 0)
    assert looked_at.digest == without.digest
