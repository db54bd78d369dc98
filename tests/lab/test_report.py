"""The report: one file that needs nothing else, whatever the story holds."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import vl_convert

from lab.report import charts
from lab.report.page import write_report
from lab.report.style import dollars, duration, edges
from lab.result import (
    Deleveraging,
    Fall,
    Impact,
    Lane,
    Liquidation,
    Quantiles,
    Reservations,
    Result,
    Sample,
    Story,
)
from messaging.errors import InputRefused

HOSTILE = "</script><script>alert('x')</script><img src=\"http://evil.test/x\"> & {{datum}}"
SPEC = re.compile(r'<script type="application/json" id="(\w+)">(.*?)</script>', re.DOTALL)
NOTHING = Reservations(requested=0, granted=0, rejected=0, released=0, reject_reasons={})
RESULT = Result(
    scenario="a fall",
    seed=7,
    status="complete",
    digest="00ff",
    outside_digest="00ff",
    prices_source="made by hand",
    stylised=False,
    buffer="none",
    lanes=[Lane("base", "layerzero.l2_to_l2", "constant:900s")],
    events=10,
    virtual_s=7_200.0,
    wall_s=0.5,
    accounts=4,
    spokes=["base", "optimism"],
    assets=["BTC", "ETH"],
    messages=3,
    messages_by_family={"liquidation": 3},
    orders=2,
    orders_refused=1,
    collateral_usd6=10_000_000_000,
    bad_debt_usd6=0,
    funds_used_usd6=0,
    insurance_used_usd6=0,
    socialised_usd6=0,
    uncovered_usd6=0,
    open_shortfall_usd6=0,
    liquidations=0,
    liquidated_accounts=0,
    closed_out_accounts=0,
    liquidated_usd6=0,
    liquidation_moved_usd6=-1_000_000,
    deleveraging=Deleveraging(0, 0, 0, 0, 0, 0),
    reservations=NOTHING,
    equity_locked_ppm=250_000,
    delay_us={},
    channel_delay_us={"from-spoke.liquidation": Quantiles(36_000_000, 60_000_000, 3)},
    invariants_checked=0,
    violations=0,
)
HOPS = {"oracle": 4, "state_report": 90, "hub": 8, "command": 900, "inclusion": 2, "unwind": 6}


def sample(at_s: int, *, bad_debt_usd: int = 0, spokes: int = 2) -> Sample:
    """Return what the system looks like at a moment; the first sample knows no price."""
    return Sample(
        at_us=at_s * 1_000_000,
        prices_usd6=[8_000_000_000 - at_s * 100_000, 200_000_000 - at_s * 1_000] if at_s else [],
        equity_usd6=9_000_000_000,
        maintenance_usd6=1_000_000_000,
        initial_usd6=2_000_000_000,
        bad_debt_usd6=bad_debt_usd * 1_000_000,
        insurance_usd6=1_000_000_000,
        locked_usd6=2_500_000_000,
        collateral_usd6=10_000_000_000,
        reserved_usd6=[500_000_000] * spokes,
        used_usd6=[100_000_000] * spokes,
        carried_usd6=[50_000_000] * spokes,
        state_age_us=[at_s * 1_000] * spokes,
    )


def liquidation(at_s: int, *, spoke: str = "base", asset: str = "BTC") -> Liquidation:
    """Return a liquidation of one unit that took 920 s."""
    hops = {hop: seconds * 1_000_000 for hop, seconds in HOPS.items()}
    hops["total"] = sum(hops.values()) - hops["state_report"]
    return Liquidation(
        at_us=at_s * 1_000_000,
        account="t1",
        spoke=spoke,
        asset=asset,
        filled_qty8=100_000_000,
        price_usd6=7_000_000_000,
        moved_usd6=-70_000_000,
        hops=hops,
    )


def story(liquidations: list[Liquidation], samples: list[Sample], /, **changes: Any) -> Story:
    """Return a story whose quantiles of delay fit its liquidations."""
    if liquidations:
        count = len(liquidations)
        changes["delay_us"] = {
            hop: Quantiles(us, us, count) for hop, us in liquidations[0].hops.items()
        }
    return Story(msgspec.structs.replace(RESULT, **changes), samples, liquidations)


HOUR = [sample(at_s, bad_debt_usd=at_s // 2_000) for at_s in range(0, 3_601, 300)]
FULL = story(
    [
        liquidation(2_000),
        liquidation(2_400, spoke="optimism"),
        liquidation(3_000, asset="ETH"),
    ],
    HOUR,
    bad_debt_usd6=1_000_000,
    liquidations=3,
)
EMPTY = story([], HOUR)


def page_of(told: Story, folder: Path) -> str:
    """Return the page that is written for a story."""
    path = folder / "r.html"
    write_report(told, path)
    return path.read_text(encoding="utf-8")


def own_part(page: str) -> str:
    """Return a page without the foreign script that draws, which is the same in all."""
    scripts = re.findall(r"<script>.*?</script>", page, re.DOTALL)
    return page.replace(max(scripts, key=len), "")


def specs_of(page: str) -> dict[str, Any]:
    """Return the specifications of a page's charts by name."""
    return {name: json.loads(text) for name, text in SPEC.findall(page)}


def rows_of(spec: Any) -> int:
    """Count the rows of data that stand anywhere in a specification."""
    if isinstance(spec, dict):
        inner = sum(rows_of(value) for value in spec.values())
        values = spec.get("values")
        return inner + (len(values) if isinstance(values, list) else 0)
    return sum(map(rows_of, spec)) if isinstance(spec, list) else 0


def test_page_is_one_file_that_asks_for_nothing(tmp_path: Path) -> None:
    """No address in our part, no element that loads, and a policy that forbids the rest."""
    page = page_of(FULL, tmp_path)

    assert "://" not in own_part(page)
    assert not re.search(r"<(link|iframe|img|object|embed)\b|<script[^>]*\bsrc", own_part(page))
    assert re.search(r'Content-Security-Policy" content="default-src \'none\'', page)
    assert list(tmp_path.iterdir()) == [tmp_path / "r.html"]


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    """Whatever a scenario says is escaped, in the page and inside JSON."""
    told = story(
        [liquidation(2_000, spoke=HOSTILE, asset=HOSTILE)],
        HOUR,
        scenario=HOSTILE,
        status=HOSTILE,
        digest=HOSTILE,
        outside_digest=HOSTILE,
        prices_source=HOSTILE,
        buffer=HOSTILE,
        lanes=[Lane(HOSTILE, HOSTILE, HOSTILE)],
        spokes=[HOSTILE, "base"],
        assets=[HOSTILE, "ETH"],
        channel_delay_us={HOSTILE: Quantiles(1, 2, 3)},
        reservations=msgspec.structs.replace(NOTHING, reject_reasons={HOSTILE: 1}),
    )
    page = page_of(told, tmp_path)

    assert "<script>alert" not in page
    assert "<img" not in own_part(page)
    assert len(re.findall("</script", page)) == len(specs_of(page)) + 2
    for spec in specs_of(page).values():
        vl_convert.vegalite_to_vega(spec)


@pytest.mark.parametrize(
    ("told", "drawn"),
    [
        (FULL, {"prices", "equity", "losses", "hops", "totals", "moves", "blind"}),
        (EMPTY, {"prices", "equity", "losses"}),
        (story([liquidation(1_000)], [sample(0)]), {"equity", "losses", "hops", "totals"}),
        (story([], [sample(0)], status="interrupted", virtual_s=0.0), {"equity", "losses"}),
    ],
    ids=["full", "no liquidation", "one sample", "interrupted at once"],
)
def test_every_chart_holds_data_and_compiles(told: Story, drawn: set[str], tmp_path: Path) -> None:
    """A chart that would have nothing to show is left out."""
    specs = specs_of(page_of(told, tmp_path))

    assert set(specs) == drawn | {"credit", "carried", "ages"}
    for spec in specs.values():
        assert rows_of(spec) > 0
        vl_convert.vegalite_to_vega(spec)


def test_what_fills_did_is_told_where_they_did_anything(tmp_path: Path) -> None:
    fall = Fall(0, 60_000_000, 200_000, 50_000, 750_000)
    found = Impact(900_000, {"BTC": 1_250_000}, {"BTC": fall})
    told = msgspec.structs.replace(FULL, result=msgspec.structs.replace(FULL.result, impact=found))
    line = "BTC fell 20.0 %, 75 % of it by fills; R at most 1.25; coupling 0.90"
    assert line in own_part(page_of(told, tmp_path))
    assert "Impact of fills" not in own_part(page_of(FULL, tmp_path))


def test_run_that_did_not_end_well_says_so(tmp_path: Path) -> None:
    """A reader must not take part of a run for the whole."""
    interrupted = page_of(story([], HOUR, status="interrupted"), tmp_path)
    violated = page_of(story([], HOUR, status="violated", stylised=True), tmp_path)

    assert "Run interrupted after 2.00 h" in interrupted
    assert "An invariant did not hold: the run stopped after 2.00 h" in violated
    assert "Prices are stylised" in violated
    assert 'class="banner' not in page_of(EMPTY, tmp_path).replace("<noscript><p class", "")


def test_story_without_samples_is_still_a_page(tmp_path: Path) -> None:
    """Nothing at all has happened: figures stand, there is no chart."""
    page = page_of(story([], []), tmp_path)

    assert "a fall" in page
    assert not specs_of(page)
    assert "No liquidation closed anything" in page


def test_same_story_gives_the_same_bytes(tmp_path: Path) -> None:
    """Nothing in the page depends on when, where or how fast it was made."""
    slower = story(FULL.liquidations, HOUR, bad_debt_usd6=1_000_000, liquidations=3, wall_s=9.0)

    assert page_of(FULL, tmp_path / "a") == page_of(slower, tmp_path / "b")


def test_many_liquidations_share_circles(tmp_path: Path) -> None:
    """The page stays light, and no dollar and no command is lost on the way."""
    places = [("base", "BTC"), ("optimism", "BTC"), ("base", "ETH")]
    many = [
        liquidation(100 + number, spoke=places[number % 3][0], asset=places[number % 3][1])
        for number in range(3_000)
    ]
    spec = specs_of(page_of(story(many, HOUR), tmp_path))["prices"]
    circles = [
        one
        for panel in spec["vconcat"]
        for layer in panel["layer"]
        if "size" in layer["encoding"]
        for one in layer["data"]["values"]
    ]

    assert 100 < len(circles) <= charts.MARKS_MAX + 3
    assert sum(one["count"] for one in circles) == 3_000
    assert sum(one["usd"] for one in circles) == 3_000 * 7_000


def test_moves_are_over_one_median_delay() -> None:
    """The price falls by 0.1 dollars a second; a delay is 920 s."""
    moved = charts.moves(FULL)["BTC"]

    assert moved[:5] == [None] * 5  # 300 s, the first price, + 920 s is later than 1,200 s
    assert moved[5] == round(100 * (7_850 / (7_850 + 92) - 1), 3)


def test_file_that_cannot_be_written_is_the_users_fault(tmp_path: Path) -> None:
    """A folder in the way is reported, not raised; missing folders are made."""
    (tmp_path / "taken").write_text("")
    write_report(EMPTY, tmp_path / "new" / "deep" / "r.html")

    assert (tmp_path / "new" / "deep" / "r.html").exists()
    for path in (tmp_path, tmp_path / "taken" / "r.html"):
        with pytest.raises(InputRefused, match="expected a file to write to"):
            write_report(EMPTY, path)


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0, "$0"),
        (-1_500, "-$1.50k"),
        (999.4, "$999"),
        (999_999, "$1.00M"),
        (1_803_630, "$1.80M"),
        (558_971, "$559k"),
        (59_519_401, "$59.5M"),
        (2e9, "$2.00B"),
    ],
)
def test_money_reads_with_three_digits(usd: float, text: str) -> None:
    """The scale changes where rounding would show a thousand of it."""
    assert dollars(round(usd * 1e6)) == text


@pytest.mark.parametrize(
    ("us", "text"),
    [(0, "0 s"), (1_500, "1.5 ms"), (70_000_000, "70.0 s"), (1_498_000_000, "25.0 min")],
)
def test_durations_choose_their_unit(us: int, text: str) -> None:
    """Number and unit never part at the end of a line."""
    assert duration(us) == text.replace(" ", "\u00a0")


@pytest.mark.parametrize("values", [[0.0], [5.0], [18.2, 29.9], [-13.0, 0.0, 30.0], [1.0, 62.0]])
def test_bins_hold_all_values(values: list[float]) -> None:
    """There is at least one bin, none is empty in width, and no value lies outside."""
    borders, _ = edges(values)

    assert all(low < high for low, high in pairwise(borders))
    assert borders[0] <= min(values)
    assert max(values) <= borders[-1]
