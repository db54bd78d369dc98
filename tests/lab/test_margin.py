"""The command `omnimargin margin`: what it prints, and what it refuses."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from hub.margin.scan.account import stand
from lab.margin.book import read, read_grid
from lab.margin.command import _EXAMPLES
from lab.margin.sheet import compute
from tests.lab.shell import ROOT, omnimargin

BOOK = ROOT / "books" / "two_spokes.toml"
TEXT = BOOK.read_text()


def refused(*words: str) -> str:
    done = omnimargin("margin", *words, expect=2)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("omnimargin: ").rstrip()


def changed(tmp_path: Path, old: str, new: str) -> str:
    assert old in TEXT
    path = tmp_path / "book.toml"
    path.write_text(TEXT.replace(old, new, 1))
    return str(path)


def test_the_page_and_json_say_the_same() -> None:
    page = omnimargin("margin", str(BOOK), "--mode", "both").stdout
    told = json.loads(omnimargin("margin", str(BOOK), "--mode", "both", "--json").stdout)

    ann, bob = told["accounts"]
    for account in (ann, bob):
        standing = account["standing"]
        for key in ("equity_usd6", "equity_initial_usd6", "maintenance_usd6", "initial_usd6"):
            assert f"{standing[key] / 1e6:,.2f}" in page
    assert (ann["sound"], ann["may_open"], bob["sound"]) == (True, False, True)
    assert told["worst"] == [[13, 11], [12]]
    assert page.count("<- worst") == 3
    assert re.search(r"^    13   -1\.0000 R      up .* -8,589\.11  <- worst$", page, re.M)
    assert bob["greeks"][0]["beyond"] == ["theta"]
    assert "beyond: theta" in page
    assert told["hedges"] == [
        {"underlying": "BTC", "qty8": 0},
        {"underlying": "SOL", "qty8": 3_333_333_334},
    ]
    assert "hedge SOL   to a delta of 10,000 or less: buy 33.33333334" in page


@pytest.mark.parametrize("grid", ["span16", "span16x3", "pmrm", str(ROOT / "books" / "grid.toml")])
def test_there_is_a_row_for_each_scenario_of_any_grid(grid: str) -> None:
    told = json.loads(omnimargin("margin", str(BOOK), "--grid", grid, "--json").stdout)
    counts = {"span16": 16, "span16x3": 16, "pmrm": 23}

    for account in told["accounts"]:
        assert account["alone"] is None
        for requirement in account["standing"]["requirements"]:
            assert len(requirement["pnl_usd6"]) == counts.get(grid, 7) == len(told["scenarios"])


def test_together_less_is_required_than_spoke_by_spoke() -> None:
    page = omnimargin("margin", str(BOOK), "--mode", "isolated").stdout
    sheet = compute(read(BOOK, "span16"), alone=True)

    assert "together" not in page
    assert "worst" not in page
    for account in sheet.accounts:
        assert account.alone is not None
        alone_usd6 = sum(one.maintenance_usd6 for one in account.alone)
        assert account.standing.maintenance_usd6 < alone_usd6
        assert f"{alone_usd6 / 1e6:,.2f}" in page


def test_the_greeks_of_all_are_the_sum_of_accounts_and_of_spokes() -> None:
    sheet = compute(read(BOOK, "span16"), alone=False)

    for one in sheet.system:
        for groups in (sheet.accounts, sheet.by_spoke):
            parts = [each for group in groups for each in group.greeks]
            deltas = [
                each.exposure.delta_usd6 for each in parts if each.underlying == one.underlying
            ]
            assert one.exposure.delta_usd6 == pytest.approx(sum(deltas), abs=len(deltas))
    assert [spoke.greeks[0].beyond for spoke in sheet.by_spoke] == [("delta",), (), ()]


@pytest.mark.parametrize(("cash_usd", "may_open"), [(12_300, False), (12_600, True)])
def test_who_may_open_is_asked_of_collateral_at_its_lower_value(
    tmp_path: Path, cash_usd: int, may_open: bool
) -> None:
    path = changed(tmp_path, "cash_usd = 12_000", f"cash_usd = {cash_usd}")
    ann = compute(read(Path(path), "span16"), alone=False).accounts[0]

    assert ann.standing.equity_usd6 > ann.standing.initial_usd6
    assert ann.may_open is may_open


def test_a_moment_may_have_an_offset_and_an_option_may_expire_now(tmp_path: Path) -> None:
    path = changed(
        tmp_path, "now_utc = 2026-03-01T08:00:00Z", "now_utc = 2026-03-06T09:00:00+01:00"
    )
    book = read(Path(path), "span16")
    legs = book.holdings[1].legs

    assert [leg.series.left_us for leg in legs if leg.series][:2] == [0, 0]
    assert stand(book.policy, book.market, book.holdings[1]).maintenance_usd6 > 0


def test_ages_add_up_as_they_do_for_the_hub() -> None:
    """Price, state, skew and command: rule M4; the share of a gain by state and skew: M2."""
    conditions = read(BOOK, "span16").market.conditions

    assert conditions.tau_s[0] == (20 + 40 + 2 + 73, 5 + 40 + 2 + 73)
    assert conditions.tau_s[2][1] == 5 + 400 + 2 + 73
    assert conditions.gain_share_ppm == (930_000, 830_000, 330_000)


def test_the_example_of_the_help_is_a_book(tmp_path: Path) -> None:
    example = _EXAMPLES[_EXAMPLES.index("title") :]
    text = re.sub(
        "^  ", "", example[: example.index("\\b" if "\\b" in example else "\b")], flags=re.M
    )
    path = tmp_path / "book.toml"
    path.write_text(text)

    assert "\n  MM " in omnimargin("margin", str(path)).stdout


BAD: list[tuple[str, str, str]] = [
    (
        "maintenance_margin_ppm = 100_000",
        "maintenance_margin_ppm = 200_000",
        "underlyings[1].maintenance_margin_ppm: expected less than initial_margin_ppm = 200000, "
        "found 200000",
    ),
    (
        "jump_ppm = 50_000",
        "jump_ppm = 100_000",
        "underlyings[1].jump_ppm: expected less than maintenance_margin_ppm = 100000, found 100000",
    ),
    (
        "scan_range_ppm = 200_000",
        "scan_range_ppm = 50_000",
        "underlyings[1].jump_ppm: expected less than scan_range_ppm = 50000, found 50000",
    ),
    (
        "depth_usd_per_s = 60_000",
        "depth_usd_per_s = 0",
        "underlyings[1].depth_usd_per_s: expected float >= 1.0, found 0",
    ),
    (
        "expires_utc = 2026-03-06T08:00:00Z, vol",
        "expires_utc = 2026-02-06T08:00:00Z, vol",
        "underlyings[0].expiries[0].expires_utc: expected now_utc = 2026-03-01T08:00:00+00:00 or "
        "later, found 2026-02-06T08:00:00+00:00",
    ),
    (
        "expires_utc = 2026-03-27T08:00:00Z, quantity",
        "expires_utc = 2026-03-28T08:00:00Z, quantity",
        "accounts[0].positions[1].expires_utc: expected an expiry of BTC (",
    ),
    (
        "{ expires_utc = 2026-03-27T08",
        "{ expires_utc = 2026-03-06T08",
        "underlyings[0].expiries[1].expires_utc: expected each expiry once, found 2026-03-06T08:00",
    ),
    ("strike_usd = 66_000, ", "", "accounts[0].positions[1].strike_usd: expected that of the call"),
    (
        'kind = "perpetual", quantity = 1',
        'kind = "perpetual", strike_usd = 1, quantity = 1',
        "accounts[0].positions[0].strike_usd: expected none of a perpetual, found it",
    ),
    ("quantity = -100", "quantity = 1e-9", "accounts[0].positions[2].quantity: expected 1e-8 or"),
    ("price_usd = 60_000", "price_usd = nan", "underlyings[0].price_usd: expected a finite number"),
    ("price_usd = 150", "price_usd = 0", "underlyings[1].price_usd: expected float >= 1e-06"),
    (
        'spoke = "unichain"',
        'spoke = "unichian"',
        "accounts[0].positions[2].spoke: expected one of base, optimism, unichain, found "
        "'unichian' (did you mean 'unichain'?)",
    ),
    (
        'name = "SOL"',
        'name = "BTC"',
        "underlyings[1].name: expected each name once, found 'BTC' ag",
    ),
    (
        "pegged = true",
        'follows = "ETH"',
        "collateral[1].follows: expected one of BTC, SOL, found 'E",
    ),
    ("{ ETH = 2 }", "{ WETH = 2 }", "accounts[0].collateral: expected one of ETH, USDC, found 'WE"),
    (
        "initial_haircut_ppm = 40_000",
        "initial_haircut_ppm = 10_000",
        "collateral[1].initial_haircut_ppm: expected at least maintenance_haircut_ppm = 20000",
    ),
    (
        "volatility_ppm = 600_000 }",
        "volatility_ppm = -1 }",
        "underlyings[0].expiries[1].volatility_ppm: expected int >= 0, found -1",
    ),
    (
        "state_age_s = 40\n",
        "state_age_h = 40\n",
        "spokes[0].state_age_h: expected state_age_s (ano",
    ),
    ("now_utc = 2026-03-01T08:00:00Z", "now_utc = 2026-03-01T08:00:00", "now_utc: expected "),
    (
        "hedge_band_usd = 10_000",
        "hedge_band_usd = -1",
        "limits.hedge_band_usd: expected float >= 0",
    ),
    ("rate_ppm = 40_000", "rate_ppm = 0.04", "underlyings[0].rate_ppm: expected int, found 0.04"),
]


@pytest.mark.parametrize(("old", "new", "said"), BAD, ids=[said for _, _, said in BAD])
def test_what_cannot_be_meant_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert refused(changed(tmp_path, old, new)).startswith(said)


def test_other_words_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text('name = "none"\nscenarios = []\n')

    assert refused(str(BOOK), "--grid", "span61").startswith(
        "--grid: expected span16, span16x3, pmrm, or a .toml file, found 'span61' (did you mean"
    )
    assert refused(str(BOOK), "--mode", "crossed").startswith("--mode: expected one of cross, is")
    assert refused(str(BOOK), "--grid", str(grid)).startswith("scenarios: expected ")
    assert refused("books/none.toml") == (
        "books/none.toml: expected a book file, found No such file or directory"
    )
    assert refused(str(BOOK), "--grid", "none.toml").startswith("none.toml: expected a grid file")
    assert "expected TOML" in refused("README.md")


def test_the_shipped_grid_says_what_it_means() -> None:
    grid, shock = read_grid(str(ROOT / "books" / "grid.toml"))
    tables: dict[str, Any] = tomllib.loads((ROOT / "books" / "grid.toml").read_text())

    assert [one.move_ppm for one in grid.scenarios] == [
        row["move_ppm"] for row in tables["scenarios"]
    ]
    assert [one.volatility for one in grid.scenarios] == [1, -1, 0, 0, 1, 1, 1]
    assert shock.up_ppm == 500_000
