"""Recorded candles: reading them from a file, with every doubt refused by line number.

Two layouts are known: `ts_ms,open,high,low,close,volume` with that header, and the 12
columns of an exchange's kline dump, with or without its header. Stamps are the start of a
bar, in milliseconds, or in microseconds as newer dumps have them.
"""

from collections import Counter
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from markets.price_path import PRICE_USD_MAX
from messaging.errors import InputRefused
from messaging.units import Asset, Usd6

Gaps = Literal["refuse", "hold"]
Bar = tuple[int, Usd6, Usd6, Usd6, Usd6]  # stamp [ms], open, high, low, close

PLAIN = "ts_ms,open,high,low,close,volume"
KLINE = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore"
)
BARS_MAX = 2_000_000
MICROS_FROM = 10**14  # a larger stamp is in microseconds: in milliseconds it were the year 5138
SECONDS = range(10**9, 10**11)  # a first stamp in here is in seconds: 2001 and later


class Candles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bars of one asset, at a fixed step, without gaps.

    Attributes:
        name: the file they came from.
        step_ms: the length of a bar.
        times_ms: the start of each bar, milliseconds since 1970 UTC.
        held_ms: which of the bars stand in for missing ones, flat at the close before.
    """

    asset: Asset
    name: str
    step_ms: int
    times_ms: tuple[int, ...]
    open_usd6: tuple[Usd6, ...]
    high_usd6: tuple[Usd6, ...]
    low_usd6: tuple[Usd6, ...]
    close_usd6: tuple[Usd6, ...]
    held_ms: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        columns = (self.open_usd6, self.high_usd6, self.low_usd6, self.close_usd6)
        if not self.times_ms or any(len(column) != len(self.times_ms) for column in columns):
            raise ValueError("expected as many prices as times, and at least one")
        if self.step_ms <= 0:
            raise ValueError(f"expected step_ms > 0, found {self.step_ms}")
        if any(after - before != self.step_ms for before, after in pairwise(self.times_ms)):
            raise ValueError(f"expected times_ms {self.step_ms} apart")
        for open_, high, low, close in zip(*columns, strict=True):
            if not 0 < low <= min(open_, close) <= max(open_, close) <= high:
                raise ValueError("expected 0 < low <= open, close <= high")

    @property
    def end_ms(self) -> int:
        """Return the end of the last bar."""
        return self.times_ms[-1] + self.step_ms


def utc(stamp_ms: int) -> str:
    """Return a stamp as text, with no more digits than it needs."""
    text = str(np.datetime64(stamp_ms, "ms")).replace("T", " ")
    return f"{text.removesuffix('.000')} UTC"


def load(path: Path, asset: Asset, *, gaps: Gaps = "refuse") -> Candles:
    """Read a file of candles.

    Args:
        path: the file.
        asset: what it holds the price of.
        gaps: what to do about missing bars; `hold` makes them flat at the close before.

    Raises:
        InputRefused: the file cannot be read, or something in it is not a sound candle,
            out of order, or missing; `where` is the file's name and the line.
    """
    lines = lines_of(path)
    first, columns = _layout(path.name, lines[0])
    bars: list[Bar] = []
    for number, line in enumerate(lines[first:], start=first + 1):
        where = f"{path.name} line {number}"
        bar = _bar(where, line, columns)
        if not bars and bar[0] in SECONDS:
            raise InputRefused(where, expected="a time in ms or us since 1970", found=bar[0])
        if bars and bar[0] <= bars[-1][0]:
            what = "the same again" if bar[0] == bars[-1][0] else utc(bar[0])
            raise InputRefused(where, expected=f"a time after {utc(bars[-1][0])}", found=what)
        bars.append(bar)
    if len(bars) < 2:
        raise InputRefused(path.name, expected="at least 2 candles", found=len(bars))

    step_ms = _step_ms(bars)
    _check_spacing(path.name, first, bars, step_ms, gaps)
    whole = _fill(bars, step_ms)
    times_ms, opens, highs, lows, closes = zip(*whole, strict=True)
    return Candles(
        asset=asset,
        name=path.name,
        step_ms=step_ms,
        times_ms=times_ms,
        open_usd6=opens,
        high_usd6=highs,
        low_usd6=lows,
        close_usd6=closes,
        held_ms=tuple(sorted(set(times_ms) - {bar[0] for bar in bars})),
    )


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file of prices; refuse what is none, or empty."""
    if not path.exists():
        raise InputRefused(path.name, expected=f"a file of candles at {path}", found="no file")
    if not path.is_file():
        raise InputRefused(path.name, expected="a file of candles", found="a folder or device")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputRefused(path.name, expected="UTF-8 text", found="other bytes") from None
    except OSError as error:
        raise InputRefused(path.name, expected="a readable file", found=error.strerror) from None
    if not text.strip():
        raise InputRefused(path.name, expected="candles", found="an empty file")
    return text.rstrip().split("\n")


def _layout(name: str, line: str) -> tuple[int, int]:
    """Return the index of the first line of data and the number of columns."""
    header = line.strip().lower()
    if header in (PLAIN, KLINE):
        return 1, header.count(",") + 1
    columns = KLINE.count(",") + 1
    if is_whole(header.split(",")[0].strip()) and header.count(",") + 1 == columns:
        return 0, columns
    raise InputRefused(
        f"{name} line 1",
        expected=f"the header {PLAIN}, or the {columns} columns of an exchange's kline dump",
        found=repr(line.strip()[:80]),
    )


def is_whole(text: str) -> bool:
    """Tell whether a field is a whole number that fits a stamp."""
    return text.isascii() and text.isdigit() and len(text) <= 18


def _bar(where: str, line: str, columns: int) -> Bar:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != columns:
        raise InputRefused(where, expected=f"{columns} columns", found=len(fields))
    stamp_ms = stamp_ms_of(where, fields[0])
    open_, high, low, close = (
        price_usd6_of(where, name, text)
        for name, text in zip(("open", "high", "low", "close"), fields[1:5], strict=True)
    )
    if _number(where, "volume", fields[5]) < 0:
        raise InputRefused(where, expected="volume >= 0", found=fields[5])
    if low > min(open_, close):
        raise InputRefused(
            where, expected="low <= open and close", found=f"low {fields[3]} of {line.strip()!r}"
        )
    if high < max(open_, close):
        raise InputRefused(
            where, expected="high >= open and close", found=f"high {fields[2]} of {line.strip()!r}"
        )
    return stamp_ms, open_, high, low, close


def stamp_ms_of(where: str, text: str) -> int:
    """Return a time in milliseconds since 1970, from one in ms or us."""
    if not is_whole(text):
        raise InputRefused(where, expected="a time in ms or us since 1970", found=repr(text))
    stamp = int(text)
    if stamp < MICROS_FROM:
        return stamp
    if stamp % 1_000:
        raise InputRefused(where, expected="a bar that starts on a whole ms", found=f"{text} us")
    return stamp // 1_000


def _number(where: str, name: str, text: str) -> Decimal:
    try:
        # Decimal takes underscores and digits of other scripts; a price file has neither.
        number = Decimal(text) if text.isascii() and "_" not in text else Decimal("nan")
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite():
        raise InputRefused(where, expected=f"a number for {name}", found=repr(text))
    return number


def price_usd6_of(where: str, name: str, text: str) -> Usd6:
    """Return a price, rounded half to even."""
    number = _number(where, name, text)
    if not 0 < number <= Decimal(PRICE_USD_MAX):
        raise InputRefused(
            where, expected=f"{name} > 0 and at most {PRICE_USD_MAX:,.0f} USD", found=text
        )
    price_usd6 = round(number.scaleb(6))
    if price_usd6 == 0:
        raise InputRefused(where, expected=f"{name} of at least 0.000001 USD", found=text)
    return Usd6(price_usd6)


def _step_ms(bars: list[Bar]) -> int:
    """Return the most common distance of two stamps; of equals, the smallest."""
    counts = Counter(after[0] - before[0] for before, after in pairwise(bars))
    return min(counts, key=lambda step_ms: (-counts[step_ms], step_ms))


def _check_spacing(name: str, first: int, bars: list[Bar], step_ms: int, gaps: Gaps) -> None:
    """Refuse what is off the grid, then the first gap if gaps are refused."""
    missing = [(after[0] - before[0]) // step_ms - 1 for before, after in pairwise(bars)]
    for index, bar in enumerate(bars):
        if (bar[0] - bars[0][0]) % step_ms:
            raise InputRefused(
                f"{name} line {first + index + 1}",
                expected=f"candles {step_ms / 1_000:g} s apart, as most are",
                found=utc(bar[0]),
            )
    total = len(bars) + sum(missing)
    if total > BARS_MAX:
        raise InputRefused(name, expected=f"at most {BARS_MAX:,} candles", found=f"{total:,}")
    if gaps == "hold" or not any(missing):
        return
    index = next(index for index, count in enumerate(missing) if count)
    more = sum(count > 0 for count in missing) - 1
    raise InputRefused(
        f"{name} line {first + index + 2}",
        expected=f"candles {step_ms / 1_000:g} s apart without gaps",
        found=f"{missing[index]:,} missing from {utc(bars[index][0] + step_ms)}"
        + (f", and {more:,} more gaps" if more else "")
        + "; the option --gaps hold freezes the price there, as an exchange halt does",
    )


def _fill(bars: list[Bar], step_ms: int) -> list[Bar]:
    """Return the bars with missing ones flat at the close before."""
    whole = [bars[0]]
    for bar in bars[1:]:
        close = whole[-1][4]
        for stamp_ms in range(whole[-1][0] + step_ms, bar[0], step_ms):
            whole.append((stamp_ms, close, close, close, close))  # noqa: PERF401
        whole.append(bar)
    return whole
