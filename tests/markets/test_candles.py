"""Reading candles: both layouts, every refusal with its line, and gaps."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from markets import candles
from markets.candles import KLINE, PLAIN, Candles
from messaging.errors import InputRefused
from messaging.units import Asset

BTC = Asset("BTC")
START_MS = 1_583_992_800_000  # 2020-03-12 06:00 UTC
MINUTE_MS = 60_000
ROWS = [("100", "110", "95", "105"), ("105", "106", "101.5", "102"), ("103", "104", "99", "104")]


def plain(rows: Sequence[tuple[str, ...]], times_ms: list[int] | None = None) -> str:
    """Return the text of a file in the plain layout, a bar a minute."""
    times_ms = times_ms or [START_MS + MINUTE_MS * index for index in range(len(rows))]
    lines = [f"{t},{','.join(row)},1.5" for t, row in zip(times_ms, rows, strict=True)]
    return "\n".join([PLAIN, *lines]) + "\n"


def kline(rows: Sequence[tuple[str, ...]], *, to_stamp: int = 1) -> str:
    """Return the same bars in the exchange's layout, stamps times `to_stamp`."""
    times = [(START_MS + MINUTE_MS * index) * to_stamp for index in range(len(rows))]
    return "".join(
        f"{t},{','.join(row)},1.5,{t + MINUTE_MS * to_stamp - 1},150.1,7,0.5,50.2,0\n"
        for t, row in zip(times, rows, strict=True)
    )


def written(folder: Path, text: str, name: str = "btc.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_both_layouts_and_both_stamps_give_the_same_candles(tmp_path: Path) -> None:
    texts = [plain(ROWS), kline(ROWS), kline(ROWS, to_stamp=1_000), KLINE + "\n" + kline(ROWS)]
    texts += ["\ufeff" + plain(ROWS).replace("\n", "\r\n")]

    loaded = [candles.load(written(tmp_path, text), BTC) for text in texts]

    assert all(other == loaded[0] for other in loaded)
    assert loaded[0].step_ms == MINUTE_MS
    assert loaded[0].times_ms[0] == START_MS
    assert loaded[0].low_usd6 == (95_000_000, 101_500_000, 99_000_000)
    assert loaded[0].end_ms == START_MS + 3 * MINUTE_MS


def test_candles_survive_the_wire(tmp_path: Path) -> None:
    loaded = candles.load(written(tmp_path, plain(ROWS)), BTC)

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(loaded), type=Candles) == loaded


@pytest.mark.parametrize("column", ["open_usd6", "low_usd6", "times_ms"])
def test_candles_that_contradict_themselves_are_not_decoded(tmp_path: Path, column: str) -> None:
    fields = msgspec.to_builtins(candles.load(written(tmp_path, plain(ROWS)), BTC))
    fields[column] = [10**12, *fields[column][1:]]

    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(fields, Candles)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (("100", "110", "95"), "expected 6 columns, found 5"),
        (("100", "110", "95", "105", "7"), "expected 6 columns, found 7"),
        (("abc", "110", "95", "105"), "expected a number for open, found 'abc'"),
        (("", "110", "95", "105"), "expected a number for open, found ''"),
        (("1_00", "110", "95", "105"), "expected a number for open, found '1_00'"),
        (("١٠٠", "110", "95", "105"), "expected a number for open, found"),
        (("100", "nan", "95", "105"), "expected a number for high, found 'nan'"),
        (("100", "110", "-inf", "105"), "expected a number for low, found '-inf'"),
        (("100", "110", "95", "0"), "expected close > 0 and at most 1,000,000,000 USD, found 0"),
        (("100", "110", "-95", "105"), "expected low > 0"),
        (("100", "1e999999999", "95", "105"), "expected high > 0 and at most"),
        (("100", "110", "0.0000004", "105"), "expected low of at least 0.000001 USD"),
        (("100", "110", "101", "105"), "expected low <= open and close, found low 101"),
        (("100", "104", "95", "105"), "expected high >= open and close, found high 104"),
    ],
)
def test_an_unsound_row_is_refused_by_its_line(
    tmp_path: Path, row: tuple[str, ...], says: str
) -> None:
    path = written(tmp_path, plain([ROWS[0], row, ROWS[2]]))

    with pytest.raises(InputRefused) as caught:
        candles.load(path, BTC)

    assert caught.value.where == "btc.csv line 3"
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "where", "says"),
    [
        ([], "btc.csv", "expected candles, found an empty file"),
        (["  ", ""], "btc.csv", "found an empty file"),
        ([PLAIN], "btc.csv", "expected at least 2 candles, found 0"),
        ([PLAIN, "0,1,1,1,1,1"], "btc.csv", "expected at least 2 candles, found 1"),
        (["date,open,close"], "btc.csv line 1", "found 'date,open,close'"),
        (["0,1,1,1,1,1", "60000,1,1,1,1,1"], "btc.csv line 1", "12 columns of an exchange"),
        ([PLAIN, "0,1,1,1,1,1", "", "60000,1,1,1,1,1"], "btc.csv line 3", "found 1"),
        ([PLAIN, "0,1,1,1,1,x"], "btc.csv line 2", "expected a number for volume"),
        ([PLAIN, "0,1,1,1,1,-1"], "btc.csv line 2", "expected volume >= 0"),
        ([PLAIN, "1e3,1,1,1,1,1"], "btc.csv line 2", "expected a time in ms or us since 1970"),
        ([PLAIN, "1583020800,1,1,1,1,1"], "btc.csv line 2", "expected a time in ms or us"),
        ([PLAIN, "1583020800000001,1,1,1,1,1"], "btc.csv line 2", "expected a bar that starts"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused(
    tmp_path: Path, lines: list[str], where: str, says: str
) -> None:
    with pytest.raises(InputRefused) as caught:
        candles.load(written(tmp_path, "\n".join(lines)), BTC)

    assert caught.value.where == where
    assert says in str(caught.value)


def test_what_is_no_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00\x01")

    with pytest.raises(InputRefused, match=r"none\.csv: expected a file .* found no file"):
        candles.load(tmp_path / "none.csv", BTC)
    with pytest.raises(InputRefused, match="found a folder or device"):
        candles.load(tmp_path, BTC)
    with pytest.raises(InputRefused, match=r"bytes\.csv: expected UTF-8 text"):
        candles.load(tmp_path / "bytes.csv", BTC)


@pytest.mark.parametrize(
    ("minutes", "line", "says"),
    [
        ([0, 2, 1, 3], 4, "a time after 2020-03-12 06:02:00 UTC, found 2020-03-12 06:01:00 UTC"),
        ([0, 1, 1, 2], 4, "a time after 2020-03-12 06:01:00 UTC, found the same again"),
        ([0, 1, 2, 2.5], 5, "expected candles 60 s apart, as most are, found 2020-03-12 06:02:30"),
        ([0, 1, 2, 5, 6], 5, "2 missing from 2020-03-12 06:03:00 UTC; the option --gaps hold"),
        ([0, 2, 3, 4, 6], 3, "1 missing from 2020-03-12 06:01:00 UTC, and 1 more gaps;"),
    ],
)
def test_times_out_of_step_are_refused(
    tmp_path: Path, minutes: list[float], line: int, says: str
) -> None:
    times_ms = [START_MS + round(minute * MINUTE_MS) for minute in minutes]
    path = written(tmp_path, plain([ROWS[0]] * len(minutes), times_ms))

    with pytest.raises(InputRefused) as caught:
        candles.load(path, BTC)

    assert caught.value.where == f"btc.csv line {line}"
    assert says in str(caught.value)


def test_held_gaps_are_flat_at_the_close_before(tmp_path: Path) -> None:
    times_ms = [START_MS + minute * MINUTE_MS for minute in (0, 1, 4)]
    path = written(tmp_path, plain(ROWS, times_ms))

    held = candles.load(path, BTC, gaps="hold")

    assert held.held_ms == (START_MS + 2 * MINUTE_MS, START_MS + 3 * MINUTE_MS)
    assert len(held.times_ms) == 5
    for column in (held.open_usd6, held.high_usd6, held.low_usd6, held.close_usd6):
        assert column[2:4] == (102_000_000, 102_000_000)


def test_a_gap_too_long_to_hold_is_refused(tmp_path: Path) -> None:
    times_ms = [0, 1, 2, 10**12]
    path = written(tmp_path, plain([ROWS[0]] * 4, times_ms))

    with pytest.raises(InputRefused, match="expected at most 2,000,000 candles"):
        candles.load(path, BTC, gaps="hold")
