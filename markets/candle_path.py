"""Prices along recorded candles.

Inside a bar the path goes open, the extreme nearer to the open (the low, if both are as
near), the other extreme, close, at 0, 1/3, 2/3 and the end of the bar, straight in between.
At the end of a bar the next open wins, where it differs from the close. Rows are at the
ticks and at every turning point, so that no extreme is missed.
"""

from pathlib import Path

import msgspec
import numpy as np

from markets.candles import Candles, Gaps, load, utc
from markets.price_path import Floats, PricePath, Times, join, ticks_us
from messaging.errors import InputRefused, nearest
from messaging.units import Asset, Usd6

MS_US = 1_000


class CandleSource(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="candles",
):
    """Recorded candles: a file for each asset, or, once resolved, the candles themselves.

    Attributes:
        files: paths, relative to the scenario file.
        gaps: what to do about missing bars, see `candles.load`.
        start_ms: where the window starts, milliseconds since 1970 UTC; absent, the first
            stamp that all files share.
        candles: filled in by `resolve`, so that a message log needs no file beside it.
    """

    files: dict[Asset, str]
    gaps: Gaps = "refuse"
    start_ms: int | None = None
    candles: tuple[Candles, ...] = ()


def resolve(
    source: CandleSource, assets: tuple[Asset, ...], *, directory: Path, duration_us: int
) -> CandleSource:
    """Return the source with the candles of the window in it, and `start_ms` set.

    Raises:
        InputRefused: an asset without a file, a file that `candles.load` refuses, files
            without a common stamp, or one that does not cover the window.
    """
    if source.candles:
        return source
    loaded = []
    for asset in assets:
        if asset not in source.files:
            raise InputRefused(
                "prices.files",
                expected=f"a file for {asset}",
                found=f"only {', '.join(sorted(source.files))}{nearest(asset, source.files)}",
            )
        loaded.append(load(directory / source.files[asset], asset, gaps=source.gaps))
    start_ms = _first_shared(loaded) if source.start_ms is None else source.start_ms
    for candles in loaded:
        _check_covers(candles, start_ms, duration_us)
    return msgspec.structs.replace(
        source,
        start_ms=start_ms,
        candles=tuple(_trim(candles, start_ms, duration_us) for candles in loaded),
    )


def path(
    source: CandleSource, assets: tuple[Asset, ...], *, duration_us: int, tick_us: int
) -> PricePath:
    """Return the path along the candles of a resolved source.

    Raises:
        InputRefused: an asset without candles, candles that do not cover the window, or
            too many rows.
    """
    assert source.start_ms is not None, "resolve the source first"
    by_asset = {candles.asset: candles for candles in source.candles}
    for asset in assets:
        if asset not in by_asset:
            raise InputRefused(
                "prices.candles", expected=f"candles of {asset}", found=", ".join(by_asset)
            )
        _check_covers(by_asset[asset], source.start_ms, duration_us)

    ticks = ticks_us(duration_us, tick_us)
    turns = [_turns_us(by_asset[asset], source.start_ms) for asset in assets]
    times_us = np.unique(np.concatenate((ticks, *turns)))
    times_us = times_us[(times_us >= 0) & (times_us <= duration_us)]
    columns = {asset: _prices(by_asset[asset], source.start_ms, times_us) for asset in assets}
    return join(
        times_us,
        columns,
        label="candles",
        stylised=False,
        source=_describe([by_asset[asset] for asset in assets], source.start_ms),
    )


def _first_shared(loaded: list[Candles]) -> int:
    shared = set(loaded[0].times_ms).intersection(*(candles.times_ms for candles in loaded[1:]))
    if not shared:
        spans = "; ".join(_span(candles) for candles in loaded)
        raise InputRefused("prices.files", expected="a time that all files share", found=spans)
    return min(shared)


def _span(candles: Candles) -> str:
    return f"{candles.name}: {utc(candles.times_ms[0])} to {utc(candles.end_ms)}"


def _check_covers(candles: Candles, start_ms: int, duration_us: int) -> None:
    end_ms = start_ms - (-duration_us // MS_US)
    if start_ms < candles.times_ms[0] or end_ms > candles.end_ms:
        raise InputRefused(
            candles.name,
            expected=f"candles from {utc(start_ms)} to {utc(end_ms)}, the window of the scenario",
            found=f"{utc(candles.times_ms[0])} to {utc(candles.end_ms)}",
        )


def _trim(candles: Candles, start_ms: int, duration_us: int) -> Candles:
    """Return the bars that the window touches, its two ends included."""
    end_ms = start_ms - (-duration_us // MS_US)
    first = (start_ms - candles.times_ms[0]) // candles.step_ms
    last = (end_ms - candles.times_ms[0]) // candles.step_ms
    # A window may start where the file ends, if it has no length.
    part = slice(min(first, len(candles.times_ms) - 1), last + 1)
    times_ms = candles.times_ms[part]
    return msgspec.structs.replace(
        candles,
        times_ms=times_ms,
        held_ms=tuple(stamp for stamp in candles.held_ms if times_ms[0] <= stamp <= times_ms[-1]),
        open_usd6=candles.open_usd6[part],
        high_usd6=candles.high_usd6[part],
        low_usd6=candles.low_usd6[part],
        close_usd6=candles.close_usd6[part],
    )


def _offsets_us(candles: Candles) -> Times:
    """Return where in a bar the path turns, and where the bar ends [us]."""
    step_us = candles.step_ms * MS_US
    return np.array([0, step_us // 3, 2 * step_us // 3, step_us], dtype=np.int64)


def _turns_us(candles: Candles, start_ms: int) -> Times:
    """Return every turning point, as offsets from the start of the scenario [us]."""
    bars_us = (np.array(candles.times_ms, dtype=np.int64) - start_ms) * MS_US
    return (bars_us[:, None] + _offsets_us(candles)[None, :]).ravel()


def _prices(candles: Candles, start_ms: int, times_us: Times) -> list[Usd6]:
    """Return the price at each time, rounded half to even."""
    # Whole prices below 2^53: float64 holds them exactly.
    open_, high, low, close = (
        np.array(column, dtype=np.float64)
        for column in (
            candles.open_usd6,
            candles.high_usd6,
            candles.low_usd6,
            candles.close_usd6,
        )
    )
    low_first = open_ - low <= high - open_
    nearer, farther = np.where(low_first, low, high), np.where(low_first, high, low)
    knots: Floats = np.stack((open_, nearer, farther, close))  # shape (4, bars)

    since_us = times_us + (start_ms - candles.times_ms[0]) * MS_US
    bar = np.minimum(since_us // (candles.step_ms * MS_US), len(open_) - 1)
    within_us = since_us - bar * (candles.step_ms * MS_US)
    offsets_us = _offsets_us(candles)
    leg = np.clip(np.searchsorted(offsets_us, within_us, side="right") - 1, 0, 2)
    share = (within_us - offsets_us[leg]) / (offsets_us[leg + 1] - offsets_us[leg])
    before, after = knots[leg, bar], knots[leg + 1, bar]
    price = np.clip(np.rint(before + (after - before) * share), low[bar], high[bar])
    return [Usd6(int(value)) for value in price.tolist()]


def _describe(used: list[Candles], start_ms: int) -> str:
    files = ", ".join(
        f"{candles.asset} from {candles.name} ({candles.step_ms / 1_000:g} s bars"
        + (f", {len(candles.held_ms):,} missing bars held)" if candles.held_ms else ")")
        for candles in used
    )
    return f"recorded candles from {utc(start_ms)}: {files}; inside a bar the path is ours"
