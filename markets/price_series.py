"""A series of prices at irregular times: from `time,price` lines, or the closes of candles."""

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from markets.candles import (
    BARS_MAX,
    SECONDS,
    Candles,
    Gaps,
    lines_of,
    load,
    price_usd6_of,
    stamp_ms_of,
    utc,
)
from messaging.errors import InputRefused
from messaging.units import Asset, Usd6

HEADERS = ("time,price", "ts_ms,price")


class PriceSeries(NamedTuple):
    """Prices of one asset, at rising times: milliseconds since 1970 UTC."""

    times_ms: tuple[int, ...]
    prices_usd6: tuple[Usd6, ...]


def read(path: Path, *, gaps: Gaps) -> PriceSeries:
    """Return the prices of a file: `time,price` with that header, or what `candles.load` knows.

    Raises:
        InputRefused: the file cannot be read, or a line is no price or not after the one before.
    """
    lines = lines_of(path)
    if lines[0].strip().lower() not in HEADERS:
        bars = _candles(path, gaps)
        ends_ms = tuple(time_ms + bars.step_ms for time_ms in bars.times_ms)
        return PriceSeries(ends_ms, bars.close_usd6)
    if len(lines) - 1 > BARS_MAX:
        raise InputRefused(path.name, expected=f"at most {BARS_MAX:,} prices", found=len(lines) - 1)
    rows = [_row(f"{path.name} line {n}", line) for n, line in enumerate(lines[1:], start=2)]
    if rows and rows[0][0] in SECONDS:
        where = f"{path.name} line 2"
        raise InputRefused(where, expected="a time in ms or us since 1970", found=rows[0][0])
    for number, (before, after) in enumerate(pairwise(rows), start=3):
        if after[0] <= before[0]:
            where, expected = f"{path.name} line {number}", f"a time after {utc(before[0])}"
            raise InputRefused(where, expected=expected, found=utc(after[0]))
    return PriceSeries(tuple(row[0] for row in rows), tuple(row[1] for row in rows))


def _candles(path: Path, gaps: Gaps) -> Candles:
    try:
        return load(path, Asset(path.stem), gaps=gaps)
    except InputRefused as error:
        if error.where != f"{path.name} line 1":
            raise
        expected = f"the header {HEADERS[0]}, {error.expected}"
        raise InputRefused(error.where, expected=expected, found=error.found) from None


def _row(where: str, line: str) -> tuple[int, Usd6]:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != 2:
        raise InputRefused(where, expected="2 columns", found=len(fields))
    return stamp_ms_of(where, fields[0]), price_usd6_of(where, "price", fields[1])
