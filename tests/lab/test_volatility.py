"""`omnimargin volatility`: what it says of prices whose making is known, and what it refuses."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.volatility.compare import REACTIVE, Comparison, Row, _rise, compare
from markets.price_series import PriceSeries, read
from messaging.units import YEAR_S
from tests.hub.test_volatility import normals
from tests.lab.shell import omnimargin

MINUTE_MS = 60_000
START_MS = 1_600_000_000_000


def series(volatility: list[float]) -> PriceSeries:
    """Return a price a minute, whose true volatility is as given before each."""
    spread = np.array(volatility) * np.sqrt(60.0 / YEAR_S)
    logs = np.concatenate(([0.0], np.cumsum(spread * normals(len(volatility), "minutes"))))
    prices = tuple(int(price) for price in np.round(5e10 * np.exp(logs)))
    return PriceSeries(tuple(START_MS + MINUTE_MS * n for n in range(len(prices))), prices)


def judged(volatility: list[float], names: tuple[str, ...] = ("ewma", "slow")) -> Comparison:
    return compare("x", series(volatility), names, horizon_s=3_600.0, z=2.0, stress=2.5)


def row(found: Comparison, name: str) -> Row:
    return next(one for one in found.rows if one.name == name)


def test_of_steady_prices_moves_are_covered_as_often_as_normal_ones() -> None:
    found = judged([0.8] * 20_000)

    slow = row(found, "slow")
    assert slow.coverage == pytest.approx(found.nominal, abs=0.015)
    assert slow.qlike == pytest.approx(1 / 60, rel=0.25)  # of 60 squared returns in an hour
    assert slow.margin_mean > 1.2 * row(found, REACTIVE).margin_mean  # a quarter is stress


def test_when_calm_ends_the_margin_that_was_ahead_rises_less_and_is_broken_less() -> None:
    found = judged([0.3] * 6_000 + [3.0] * 4_000)

    ahead, after = row(found, "ewma"), row(found, REACTIVE)
    assert ahead.breaches < after.breaches
    assert ahead.margin_rise < after.margin_rise
    assert ahead.margin_mean > after.margin_mean


@given(st.lists(st.tuples(st.integers(1, 60_000), st.floats(0, 10)), min_size=1, max_size=40))
def test_the_largest_rise_is_that_of_all_pairs_within_a_day(steps: list[tuple[int, float]]) -> None:
    times_s = np.cumsum([float(gap) for gap, _ in steps])
    margins = np.array([found for _, found in steps])
    rises = [
        margins[later] - margins[one]
        for later in range(len(steps))
        for one in range(later + 1)
        if times_s[later] - times_s[one] <= 86_400.0
    ]
    assert _rise(times_s, margins) == pytest.approx(max(rises))


def lines_file(folder: Path, rows: list[str], head: str = "time,price") -> Path:
    path = folder / "prices.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def test_the_command_reads_times_and_prices_and_candles_alike(tmp_path: Path) -> None:
    known = series([0.8] * 6_000)
    rows = [f"{time},{price / 1e6:.6f}" for time, price in zip(*known, strict=True)]
    path = lines_file(tmp_path, rows)
    assert read(path, gaps="refuse") == known

    said = omnimargin("volatility", str(path), "--json", "--forecasters", "fast,har").stdout
    found = msgspec.json.decode(said, type=Comparison)
    assert [one.name for one in found.rows] == ["fast", "har", REACTIVE]
    assert found.prices == 6_001
    shown = omnimargin("volatility", str(path)).stdout
    assert "har" in shown
    assert "breaches" in shown

    bars = [
        f"{time - MINUTE_MS},{p / 1e6},{p / 1e6},{p / 1e6},{p / 1e6},1"
        for time, p in zip(*known, strict=True)
    ]
    assert (
        read(lines_file(tmp_path, bars, "ts_ms,open,high,low,close,volume"), gaps="refuse") == known
    )


GOOD = [f"{START_MS + MINUTE_MS * n},100.{n % 10}" for n in range(300)]


def test_a_file_of_neither_kind_is_told_of_both(tmp_path: Path) -> None:
    found = omnimargin("volatility", str(lines_file(tmp_path, GOOD, "when,what")), expect=2).stderr
    assert "prices.csv line 1: expected the header time,price, the header ts_ms,open" in found


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (GOOD, ["--forecasters", "ewna"], "--forecasters: expected some of ewma,fast,slow,har"),
        (GOOD, ["--forecasters", "har,har"], "--forecasters: expected each once"),
        (GOOD, ["--horizon", "1x"], "--horizon: expected a time up to 30d"),
        (GOOD, ["--horizon", "1s"], "--horizon: expected at least 60s"),
        (GOOD, ["--z", "nan"], "--z: expected 0.1 to 10, found nan"),
        (GOOD, ["--stress", "0"], "--stress: expected 0.01 to 100"),
        (GOOD, ["--gaps", "fill"], "--gaps: expected refuse or hold"),
        (GOOD, [], "prices.csv: expected prices for 30 horizons of 3600 s"),
        ([], [], "prices.csv: expected at least 2 prices, found 0"),
        ([GOOD[1], GOOD[0]], [], "prices.csv line 3: expected a time after"),
        ([GOOD[0], f"{START_MS + 1},-5"], [], "prices.csv line 3: expected price > 0"),
        ([GOOD[0], f"{START_MS + 1},5,6"], [], "prices.csv line 3: expected 2 columns, found 3"),
        (["1600000000,5"], [], "prices.csv line 2: expected a time in ms or us since 1970"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, rows: list[str], options: list[str], said: str
) -> None:
    path = lines_file(tmp_path, rows)
    found = omnimargin("volatility", str(path), *options, expect=2).stderr

    assert found.startswith(f"omnimargin: {said}")
    assert found.count("\n") == 1
