"""The path along candles: order inside a bar, windows, and files that must agree."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from markets import candle_path
from markets.candle_path import CandleSource
from markets.candles import PLAIN, Candles
from messaging.errors import InputRefused
from messaging.units import SECOND_US, Asset, Usd6

BTC, ETH = Asset("BTC"), Asset("ETH")
START_MS = 1_583_992_800_000  # 2020-03-12 06:00 UTC
MINUTE_MS = 60_000
MINUTE_US = 60 * SECOND_US


def write(folder: Path, name: str, row: str, minutes: tuple[int, ...]) -> None:
    """Write a file with the same bar at each minute."""
    lines = [f"{START_MS + MINUTE_MS * minute},{row},1.5" for minute in minutes]
    (folder / name).write_text("\n".join([PLAIN, *lines]))


def make(rows: list[tuple[int, int, int, int]], *, asset: Asset = BTC, step_ms: int = 1) -> Candles:
    opens, highs, lows, closes = zip(*(map(Usd6, row) for row in rows), strict=True)
    return Candles(
        asset=asset,
        name=f"{asset}.csv",
        step_ms=step_ms,
        times_ms=tuple(START_MS + step_ms * index for index in range(len(rows))),
        open_usd6=opens,
        high_usd6=highs,
        low_usd6=lows,
        close_usd6=closes,
    )


prices = st.integers(1, 10**15)
bars = st.lists(
    st.tuples(prices, prices, prices, prices).map(
        lambda p: (p[0], max(p), min(p), p[1])  # open, high, low, close
    ),
    min_size=1,
    max_size=6,
)


def along(loaded: Candles, duration_us: int, tick_us: int) -> dict[int, Usd6]:
    source = CandleSource(files={}, start_ms=START_MS, candles=(loaded,))
    path = candle_path.path(source, (BTC,), duration_us=duration_us, tick_us=tick_us)
    return {t: row[0] for t, row in zip(path.times_us, path.prices_usd6, strict=True)}


@example(rows=[(10, 12, 8, 11)], step_ms=1, tick_us=100)  # both extremes are as near
@given(rows=bars, step_ms=st.integers(1, 4), tick_us=st.integers(100, 5_000))
def test_the_path_goes_open_extremes_close_and_never_leaves_the_bar(
    rows: list[tuple[int, int, int, int]], step_ms: int, tick_us: int
) -> None:
    step_us = step_ms * 1_000
    at = along(make(rows, step_ms=step_ms), len(rows) * step_us, tick_us)

    for index, (open_, high, low, _) in enumerate(rows):
        first, second = at[index * step_us + step_us // 3], at[index * step_us + 2 * step_us // 3]
        assert at[index * step_us] == open_
        assert (first, second) == ((low, high) if open_ - low <= high - open_ else (high, low))
        inside = range(index * step_us, (index + 1) * step_us)
        assert all(low <= price <= high for t, price in at.items() if t in inside)
    assert at[len(rows) * step_us] == rows[-1][3]
    assert set(range(0, len(rows) * step_us + 1, tick_us)) <= set(at)


def test_a_leg_is_straight_and_ends_at_the_close() -> None:
    at = along(make([(200, 320, 170, 230), (290, 300, 280, 300)], step_ms=3), 6_000, 100)

    assert [at[t] for t in (0, 500, 1_000, 1_500, 2_000, 2_500)] == [200, 185, 170, 245, 320, 275]
    assert at[2_900] == 239, "a tenth of the last leg is left, from 320 to 230"
    assert at[3_000] == 290, "the next open wins over the close"


@given(rows=bars, start_us=st.integers(0, 3), length=st.integers(0, 6_000), tick=st.just(70))
def test_the_candles_outside_the_window_make_no_difference(
    rows: list[tuple[int, int, int, int]], start_us: int, length: int, tick: int
) -> None:
    """Resolving trims to the window; the path is what it was on the whole file."""
    whole = make(rows)
    start_ms = min(start_us, len(rows))
    length = min(length, (len(rows) - start_ms) * 1_000)

    trimmed = candle_path._trim(whole, START_MS + start_ms, length)

    paths = [
        candle_path.path(
            CandleSource(files={}, start_ms=START_MS + start_ms, candles=(each,)),
            (BTC,),
            duration_us=length,
            tick_us=tick,
        )
        for each in (whole, trimmed)
    ]
    assert paths[0] == paths[1]
    assert len(trimmed.times_ms) <= length // 1_000 + 2


def test_files_of_different_steps_are_aligned(tmp_path: Path) -> None:
    write(tmp_path, "eth.csv", "10,12,9,11", tuple(range(8)))
    write(tmp_path, "btc.csv", "100,110,95,105", (2, 5, 8))
    source = CandleSource(files={BTC: "btc.csv", ETH: "eth.csv"})

    ready = candle_path.resolve(source, (ETH, BTC), directory=tmp_path, duration_us=5 * MINUTE_US)
    path = candle_path.path(ready, (ETH, BTC), duration_us=5 * MINUTE_US, tick_us=30 * SECOND_US)

    rows: dict[int, tuple[Usd6, ...]] = dict(zip(path.times_us, path.prices_usd6, strict=True))
    assert ready.start_ms == START_MS + 2 * MINUTE_MS, "the first stamp that both have"
    assert rows[0] == (10_000_000, 100_000_000)
    assert rows[MINUTE_US] == (10_000_000, 95_000_000)
    assert rows[2 * MINUTE_US] == (10_000_000, 110_000_000)
    assert not path.stylised
    assert "eth.csv (60 s bars), BTC from btc.csv (180 s bars)" in path.source
    assert candle_path.resolve(ready, (ETH,), directory=tmp_path / "gone", duration_us=0) == ready


@pytest.mark.parametrize(
    ("assets", "start_ms", "minutes", "says"),
    [
        ((Asset("BTCC"),), None, 1, "found only BTC, ETH (did you mean 'BTC'?)"),
        ((BTC,), None, 4, "to 2020-03-12 06:04:00 UTC, the window of the scenario, found 2020-03"),
        ((BTC,), START_MS - 1, 1, "btc.csv: expected candles from 2020-03-12 05:59:59.999 UTC"),
        ((BTC, ETH), None, 1, "expected a time that all files share, found btc.csv: 2020-03-12"),
    ],
)
def test_a_window_that_the_files_do_not_cover_is_refused(
    tmp_path: Path, assets: tuple[Asset, ...], start_ms: int | None, minutes: int, says: str
) -> None:
    write(tmp_path, "btc.csv", "100,110,95,105", (0, 1, 2))
    write(tmp_path, "eth.csv", "100,110,95,105", (10, 11, 12))
    files = {BTC: "btc.csv", ETH: "eth.csv"}
    source = CandleSource(files=files, start_ms=start_ms)

    with pytest.raises(InputRefused) as caught:
        candle_path.resolve(source, assets, directory=tmp_path, duration_us=minutes * MINUTE_US)

    assert says in str(caught.value)


def test_a_resolved_source_still_refuses_what_it_lacks(tmp_path: Path) -> None:
    write(tmp_path, "btc.csv", "100,110,95,105", (0, 1, 2))
    source = CandleSource(files={BTC: "btc.csv"})
    ready = candle_path.resolve(source, (BTC,), directory=tmp_path, duration_us=MINUTE_US)

    with pytest.raises(InputRefused, match="expected candles of ETH, found BTC"):
        candle_path.path(ready, (ETH,), duration_us=MINUTE_US, tick_us=SECOND_US)
    with pytest.raises(InputRefused, match="the window of the scenario"):
        candle_path.path(ready, (BTC,), duration_us=9 * MINUTE_US, tick_us=SECOND_US)
