"""Stress events, small: every claim holds, and fails where its defence is broken."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

import spokes.venue
from hub.margin import requirement
from hub.margin.scan.collateral import CollateralRisk
from hub.state import HubState
from lab import plants, reading
from lab.events import along, claims, plan, recorded
from lab.events.claims import DRY, LATE, LOWER, MOVED, ONE_FEED, THIN, UNPEGGED, Claim, Found, Turn
from lab.events.plan import EVENTS
from lab.events.seen import Seen
from lab.events.ways import (
    BARE,
    FULL,
    NO_BREAKERS,
    NO_BUFFER,
    NO_CAPS,
    Job,
    Way,
    carry_out,
    changed,
)
from lab.world import path_of
from markets.price_path import PricePath
from messaging.errors import InputRefused, InvariantViolated
from tests.lab.shell import omnimargin

# Which ways the claims of an event are judged by, and how it is made smaller.
QUICK = ("hub.block_s=24", "reporting.watermark_s=60")
SMALL = {
    "march_2020": ((FULL, NO_BREAKERS, NO_BUFFER, LATE, THIN), 60, ("tick_s=36", "duration_h=3.5")),
    "may_2021": ((FULL,), 40, ("tick_s=36", "duration_h=5")),
    "luna_2022": ((FULL, NO_BREAKERS), 10, (*QUICK, "tick_s=36", "duration_h=4.2")),
    "steth_2022": ((), 1, ()),
    "ftx_2022": ((FULL, BARE), 1, (*QUICK, "tick_s=120")),
    "mango_2022": ((FULL, BARE, LOWER), 10, ("tick_s=12", "duration_h=1.5")),
    "crv_2022": ((FULL, BARE, MOVED), 1, (*QUICK, "tick_s=48", "duration_h=7")),
    "usdc_2023": ((FULL, UNPEGGED), 20, (*QUICK, "tick_s=60", "duration_h=12")),
    "october_2025": ((FULL, ONE_FEED, DRY, MOVED, NO_CAPS), 100, ("tick_s=24", "duration_h=2.4")),
}


def scenario(name: str, *sets: str) -> dict[str, Any]:
    _, accounts, smaller = SMALL[name]
    return changed(plan.tables(name, accounts), Way(sets=(*smaller, *sets)))


def path(name: str) -> PricePath:
    return path_of(reading.check(scenario(name), directory=Path()))


def seen(name: str, way: str = FULL, *sets: str, checks: bool = True) -> Seen:
    how = plan.ways_of(name)[way]
    return carry_out(Job(name, way, changed(scenario(name, *sets), how), checks))


@pytest.fixture(scope="module")
def found() -> Callable[[str], Found]:
    """Return what was seen of an event; each is run once."""
    known: dict[str, Found] = {}

    def look(name: str) -> Found:
        if name not in known:
            ways = {way: seen(name, way) for way in SMALL[name][0]}
            known[name] = Found(ways, path(name))
        return known[name]

    return look


Look = Callable[[str], Found]


@pytest.fixture(autouse=True)
def _one_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "SEEDS", ())


@pytest.mark.parametrize("name", EVENTS)
def test_every_claim_holds(name: str, found: Look) -> None:
    judged = plan.judge(name, found(name))

    assert judged
    assert [claim for claim in judged if not claim.holds] == []


def broken(event: str, found: Look, ways: Mapping[str, Seen]) -> list[bool]:
    """Return which claims hold with some ways in the place of others."""
    whole = found(event)
    return [one.holds for one in plan.judge(event, Found({**whole.ways, **ways}, whole.path))]


def test_without_breakers_credit_goes_on_to_insolvency(found: Look) -> None:
    without = found("march_2020").ways[NO_BREAKERS]

    assert broken("march_2020", found, {FULL: without}) == [True, True, False, True]


def test_messages_in_time_lose_no_more(found: Look) -> None:
    soon = found("march_2020").ways[NO_BUFFER]

    assert broken("march_2020", found, {LATE: soon}) == [True, False, True, True]


def test_a_venue_without_a_floor_sells_for_nothing(
    found: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(spokes.venue, "SLIPPAGE_PPM_MAX", 1_000_000)
        thin = seen("march_2020", THIN)

    assert thin.lowest_fill_ppm is not None
    assert thin.lowest_fill_ppm < 1_000
    assert broken("march_2020", found, {THIN: thin}) == [False, True, True, True]


def test_a_shortfall_that_nobody_books_is_not_paid(found: Look) -> None:
    full = found("march_2020").ways[LATE]
    result = msgspec.structs.replace(full.result, uncovered_usd6=1)
    late = msgspec.structs.replace(full, result=result)

    assert broken("march_2020", found, {LATE: late})[3] is False


def test_a_hub_that_frees_by_its_own_clock_pins_nothing(found: Look) -> None:
    with plants.planted("hub_clock"):
        freed = seen("may_2021", checks=False)
        with pytest.raises(InvariantViolated, match="INV7"):
            seen("may_2021")

    assert broken("may_2021", found, {FULL: freed})[2] is False


def test_a_spoke_that_is_not_silent_shows_nothing_of_silence(found: Look) -> None:
    assert broken("may_2021", found, {FULL: seen("may_2021", FULL, "spokes.base.outages=[]")}) == [
        False
    ]


def test_what_is_released_twice_is_seen(found: Look) -> None:
    full = found("may_2021").ways[FULL]
    row = full.zones["base"]
    off = {**full.zones, "base": [*row[:-1], row[-1]._replace(off_usd6=-1)]}

    for twice in (
        msgspec.structs.replace(full, reopened=1),
        msgspec.structs.replace(full, zones=off),
    ):
        assert broken("may_2021", found, {FULL: twice}) == [True, True, True, False]


def test_without_breakers_a_stopped_feed_gives_credit(found: Look) -> None:
    without = found("luna_2022").ways[NO_BREAKERS]
    full = found("luna_2022").ways[FULL]
    blind = msgspec.structs.replace(without, turns=full.turns)

    assert broken("luna_2022", found, {FULL: without})[0] is False
    assert broken("luna_2022", found, {FULL: blind})[0] is False


def judged(
    judge: Callable[..., list[Claim]], event: str, risk: CollateralRisk, **changes: Any
) -> list[bool]:
    changed_risk = msgspec.structs.replace(risk, **changes)
    return [claim.holds for claim in judge(Found({}, path(event)), changed_risk)]


def test_collateral_without_its_rules_fails() -> None:
    """Each rule is taken away in turn: age (O15), ratio and haircut (O16, O9), peg (O10)."""
    assert judged(along.luna_2022, "luna_2022", along.LUNA, age_max_s=36_000.0) == [False]
    assert judged(along.steth_2022, "steth_2022", along.STETH, follows=None) == [False, True]
    assert judged(along.steth_2022, "steth_2022", along.STETH, ratio_ppm=50_000) == [False, False]
    little = {"initial_haircut_ppm": 70_000, "maintenance_haircut_ppm": 50_000}
    assert judged(along.steth_2022, "steth_2022", along.STETH, **little) == [True, False]
    assert judged(along.usdc_2023, "usdc_2023", along.USDC, depeg_factor=0) == [False, True]
    steady = {"initial_haircut_ppm": 1_000_000, "maintenance_haircut_ppm": 1_000_000}
    assert judged(along.ftx_2022, "ftx_2022", along.SOL, **steady) == [True]


def test_a_haircut_for_maintenance_that_follows_the_peg_is_a_cliff(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = along.valued

    def strict(held: Any) -> Any:
        one = plain(held)
        return msgspec.structs.replace(
            one,
            maintenance_haircut_ppm=one.initial_haircut_ppm,
            maintenance_usd6=one.initial_usd6,
        )

    monkeypatch.setattr(along, "valued", strict)
    assert judged(along.usdc_2023, "usdc_2023", along.USDC) == [True, False]


def test_collateral_that_does_not_fall_fails_no_earlier() -> None:
    """Dollars on both sides: the same book twice."""
    steady = path("ftx_2022")
    place = [str(asset) for asset in steady.assets].index("SOL")
    first = steady.prices_usd6[0][place]
    rows = tuple(
        tuple(first if at == place else price for at, price in enumerate(row))
        for row in steady.prices_usd6
    )
    flat = msgspec.structs.replace(steady, prices_usd6=rows)

    assert [one.holds for one in along.ftx_2022(Found({}, flat))] == [False]


def test_a_small_position_is_unwound_in_no_time(found: Look) -> None:
    orders = "traders.named.whale.orders"
    one = f'{orders}=[{{ at_h = 0.2, spoke = "optimism", asset = "SOL", notional_usd = 100_000 }}]'
    small = seen("ftx_2022", FULL, one)

    assert broken("ftx_2022", found, {FULL: small})[0] is False


def test_where_gains_are_cash_the_pump_is_borrowable(
    found: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules M2 and M6 taken away: what is won counts in full, and credit is equity less IM."""

    def free_usd6(hub: HubState, account: Any, conditions: Any) -> int:
        standing = hub.assess_latest(account, conditions)
        free = standing.equity_usd6 - standing.initial_usd6
        return free - hub.ledger.reserved_usd6(account.id)

    with monkeypatch.context() as patch:
        patch.setattr(requirement, "recognised_usd6", lambda policy, pnl, assets, share: pnl)
        patch.setattr(HubState, "free_usd6", free_usd6)
        robbed = seen("mango_2022", BARE, checks=False)

    assert broken("mango_2022", found, {BARE: robbed})[1] is False


def test_a_gate_that_nobody_watches_is_none(found: Look) -> None:
    without = found("mango_2022").ways[BARE]

    assert broken("mango_2022", found, {FULL: without})[-1] is False


def test_a_deep_market_feeds_no_cascade(found: Look) -> None:
    deep = seen("crv_2022", FULL, "assets.CRV.impact_ppm_per_million_usd=100")

    still = found("crv_2022").ways[FULL]

    assert broken("crv_2022", found, {FULL: deep}) == [False, True]
    assert broken("crv_2022", found, {MOVED: still}) == [True, False]


def test_a_peg_that_nobody_watches_gives_credit(found: Look) -> None:
    unwatched = found("usdc_2023").ways[UNPEGGED]

    assert broken("usdc_2023", found, {FULL: unwatched})[:2] == [False, True]


def test_a_saver_who_is_booked_in_usdc_loses(found: Look) -> None:
    full = found("usdc_2023").ways[FULL]
    rows = full.holders["saver"]
    lower = [*rows[:-1], rows[-1]._replace(cash_usd6=rows[-1].cash_usd6 * 86 // 100)]
    booked = msgspec.structs.replace(full, holders={"saver": lower})

    assert broken("usdc_2023", found, {FULL: booked})[:2] == [True, False]


def test_each_claim_of_october_has_its_own_breaker(found: Look) -> None:
    """One feed for the median, no cap for the cap, a queue for pro rata."""
    ways = found("october_2025").ways
    full = ways[FULL]

    assert broken("october_2025", found, {FULL: ways[ONE_FEED]})[0] is False
    assert broken("october_2025", found, {MOVED: full})[1] is False
    assert broken("october_2025", found, {FULL: ways[DRY], DRY: full})[2] is False
    assert broken("october_2025", found, {FULL: ways[NO_CAPS]})[3] is False


def test_a_stop_lasts_until_every_breaker_is_down() -> None:
    turns = [
        Turn(10, "BTC", 1, "price_old"),
        Turn(20, "ETH", 2, "cascade"),
        Turn(30, "BTC", 0, "clear"),
        Turn(40, "ETH", 0, "clear"),
        Turn(50, "BTC", 3, "feed_stuck"),
    ]

    assert claims.stops(turns) == [(10, 40), (50, claims.ENDLESS_US)]
    assert [claims.stopped_since(turns, at) for at in (9, 10, 35, 40, 60)] == [
        None,
        10,
        10,
        None,
        50,
    ]


def test_the_watch_leaves_no_trace() -> None:
    """A run under watch is the run of the scenario, byte for byte."""
    sets = ("duration_h=2", "traders.open_until_h=1", "prices.start_hours=67")
    words = ("run", "scenarios/event_steth_2022.toml", "--set=traders.accounts=1")
    told = json.loads(omnimargin(*words, *(f"--set={one}" for one in sets), "--json").stdout)

    assert told["digest"] == seen("steth_2022", FULL, *sets).result.digest


def test_the_command_tells_what_it_found_and_fails_with_a_claim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("events", "steth_2022", "--accounts", "2", "--jobs", "1", "--no-checks")
    short = Way(sets=("duration_h=1", "traders.open_until_h=0.5"))
    monkeypatch.setattr(plan, "WAYS", {FULL: short})
    told = json.loads(omnimargin(*words, "--json").stdout)
    page = omnimargin(*words).stdout

    (event,) = told["events"]
    assert told["holds"] is True
    assert [row["way"] for row in event["rows"]] == [FULL]
    assert event["stylised"] is True
    assert page.count("holds  ") == len(event["claims"]) == 2
    monkeypatch.setattr(along, "E_MODE_LTV_PPM", 900_000)
    assert "does not hold" in omnimargin(*words, expect=1).stdout


def candles(folder: Path, asset: str, start_ms: int, bars: int, usd: float) -> None:
    with (folder / f"{asset}usdt_1h.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("ts_ms", "open", "high", "low", "close", "volume"))
        for bar in range(bars):
            rows.writerow((start_ms + bar * 3_600_000, usd, usd, usd, usd, 1))


def test_candles_take_the_place_of_the_path_where_they_cover_it(tmp_path: Path) -> None:
    start_ms = reading.start_ms(plan.tables("may_2021")["starts_at_utc"])
    for asset, usd in (("btc", 40_000), ("eth", 2_500)):
        candles(tmp_path, asset, start_ms, 12, usd)
    scenarios, without = recorded.with_candles(tmp_path, (), 5)

    assert list(scenarios) == ["may_2021"]
    assert set(without) == set(EVENTS) - {"may_2021"}
    known = path_of(reading.check(scenarios["may_2021"], directory=Path()))
    assert not known.stylised
    assert set(known.prices_usd6) == {(40_000_000_000, 2_500_000_000)}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nope",), "NAME: expected one of march_2020, "),
        (("may_2021", "may_2021"), "NAME: expected each event once, found 'may_2021' again"),
        (("--prices", "/nowhere"), "--prices: expected a folder at /nowhere, found nothing there"),
        (("--prices", "README.md"), "--prices: expected a folder at README.md, found a file"),
    ],
)
def test_bad_input_is_one_line(words: tuple[str, ...], says: str) -> None:
    told = omnimargin("events", *words, expect=2)

    assert told.stderr.startswith(f"omnimargin: {says}")
    assert told.stderr.count("\n") == 1


def test_a_folder_without_what_is_asked_for_is_refused(tmp_path: Path) -> None:
    start_ms = reading.start_ms(plan.tables("may_2021")["starts_at_utc"])
    with pytest.raises(InputRefused, match="expected candles of BTC, ETH from 2020-03-12"):
        recorded.with_candles(tmp_path, (), None)
    candles(tmp_path, "btc", start_ms, 12, 40_000)
    candles(tmp_path, "eth", start_ms, 5, 2_500)  # ends before the event does
    with pytest.raises(InputRefused, match="expected candles of ETH from 2021-05-19"):
        recorded.with_candles(tmp_path, ("may_2021",), None)
    candles(tmp_path, "eth", start_ms, 1, 2_500)
    with pytest.raises(InputRefused, match=r"ethusdt_1h.csv: expected at least 2 candles"):
        recorded.with_candles(tmp_path, ("may_2021",), None)
