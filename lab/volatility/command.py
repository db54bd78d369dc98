"""The command `omnimargin volatility`: forecasters compared on a file of prices."""

import re
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from hub.margin.volatility.forecasters import FORECASTERS
from lab.volatility.compare import Comparison, Row, compare
from markets import price_series
from markets.candles import Gaps
from messaging.errors import InputRefused, nearest

_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|h|d)")
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
HORIZON_MAX_S = 30 * 86_400.0
ALL = ",".join(FORECASTERS)

# \b keeps the lines as they are.
_EXAMPLES = """\b
Examples:
  omnimargin volatility btc.csv
  omnimargin volatility btc.csv --forecasters ewma,har --horizon 15m --json
"""


def add_to(parent: typer.Typer) -> None:
    """Add the command to the command line."""
    parent.command("volatility", epilog=_EXAMPLES)(volatility_command)


def volatility_command(
    file: Annotated[Path, typer.Argument(help="Candles, or lines of time,price.")],
    forecasters: Annotated[str, typer.Option(help="Which, with commas between.")] = ALL,
    horizon: Annotated[str, typer.Option(help="How far ahead, a TIME as 15m, 1h, 1d.")] = "1h",
    z: Annotated[float, typer.Option(help="Deviations that a margin covers.")] = 3.09,
    stress: Annotated[float, typer.Option(help="Stress volatility a year; 2.5 is 250 %.")] = 2.5,
    gaps: Annotated[
        str, typer.Option(help="Gaps in candles: 'refuse', or 'hold' the price as a halt does.")
    ] = "refuse",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare forecasts of volatility on recorded prices, and the margins made of them.

    QLIKE is less for a better forecast; coverage is the share of moves within z deviations. The
    last line is the margin that only follows the day before (docs/volatility.md).
    """
    found = compare(
        file.name,
        price_series.read(file, gaps=_gaps(gaps)),
        _names(forecasters),
        horizon_s=_seconds(horizon),
        z=_within("--z", z, 0.1, 10.0),
        stress=_within("--stress", stress, 0.01, 100.0),
    )
    text = msgspec.json.encode(found).decode() if json else "\n".join(lines(found))
    sys.stdout.write(text + "\n")


def lines(found: Comparison) -> list[str]:
    """Return the comparison as a table."""
    head = ("forecaster", "QLIKE", "coverage %", "margin %", "rise a day", "breaches")
    out = [
        f"{found.file}: {found.prices:,} prices, {found.judged:,} judged, horizon"
        f" {found.horizon_s:,g} s, z {found.z:g} (normal {100 * found.nominal:.2f} %)",
        f"{head[0]:<10}" + "".join(f"{word:>12}" for word in head[1:]),
    ]
    out += [_line(row) for row in found.rows]
    out.append(f"breaches of {found.stretches:,} horizons end to end")
    return out


def _line(row: Row) -> str:
    qlike = "-" if row.qlike is None else f"{row.qlike:.4f}"
    coverage = "-" if row.coverage is None else f"{100 * row.coverage:.2f}"
    return (
        f"{row.name:<10}{qlike:>12}{coverage:>12}{100 * row.margin_mean:>12.3f}"
        f"{100 * row.margin_rise:>12.3f}{row.breaches:>12,}"
    )


def _names(text: str) -> list[str]:
    names = [word.strip() for word in text.split(",")]
    for index, name in enumerate(names):
        if name not in FORECASTERS:
            found = f"{name!r}{nearest(name, FORECASTERS)}"
            raise InputRefused("--forecasters", expected=f"some of {ALL}", found=found)
        if name in names[:index]:
            raise InputRefused("--forecasters", expected="each once", found=f"{name!r} again")
    return names


def _seconds(text: str) -> float:
    spelled = _SPAN.fullmatch(text)
    found_s = float(spelled[1]) * _UNIT_S[spelled[2]] if spelled else 0.0
    if not 0.0 < found_s <= HORIZON_MAX_S:
        raise InputRefused("--horizon", expected="a time up to 30d, as 1h", found=repr(text))
    return found_s


def _within(option: str, found: float, low: float, high: float) -> float:
    if not low <= found <= high:  # a NaN is not
        raise InputRefused(option, expected=f"{low:g} to {high:g}", found=f"{found:g}")
    return found


def _gaps(text: str) -> Gaps:
    known: dict[str, Gaps] = {"refuse": "refuse", "hold": "hold"}
    if text not in known:
        raise InputRefused("--gaps", expected="refuse or hold", found=repr(text))
    return known[text]
