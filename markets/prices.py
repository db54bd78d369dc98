"""Where prices come from: a model, a stress event, or recorded candles.

    [prices]                        [prices]                    [prices]
    kind = "gbm"                    kind = "stress"             kind = "candles"
    correlation = 0.8               event = "march_2020"        gaps = "hold"
    [prices.assets.BTC]                                         [prices.files]
    price_usd = 60_000                                          BTC = "btc.csv"
    volatility_per_sqrt_year = 0.6

`resolve` reads what files there are; after it, `path` needs nothing but its arguments, and
the same arguments give the same whole numbers in any process.
"""

from pathlib import Path

from markets import candle_path, diffusion, stress
from markets.candle_path import CandleSource
from markets.diffusion import GbmSource, MertonSource
from markets.price_path import PricePath
from markets.stress import StressSource
from messaging.units import Asset, Micros

__all__ = [
    "CandleSource",
    "GbmSource",
    "MertonSource",
    "PricePath",
    "PriceSource",
    "StressSource",
    "path",
    "resolve",
]

PriceSource = GbmSource | MertonSource | StressSource | CandleSource


def resolve(
    source: PriceSource, assets: tuple[Asset, ...], *, directory: Path, duration_us: Micros
) -> PriceSource:
    """Return the source with the contents of its files in it; others are returned as they are.

    Args:
        source: as the scenario has it.
        assets: which assets the scenario trades.
        directory: what file names are relative to.
        duration_us: how long the scenario lasts.

    Raises:
        InputRefused: a file is missing, unsound, or does not cover the window.
    """
    if isinstance(source, CandleSource):
        return candle_path.resolve(source, assets, directory=directory, duration_us=duration_us)
    return source


def path(
    source: PriceSource,
    assets: tuple[Asset, ...],
    *,
    duration_us: Micros,
    tick_us: Micros,
    seed: int,
) -> PricePath:
    """Return the prices of a scenario, from a resolved source.

    Args:
        source: what `resolve` returned.
        assets: which assets, in the order of the columns; at least one.
        duration_us: the last row is at this time or less than a tick before.
        tick_us: the time between rows; turning points and anchors have rows of their own.
        seed: of the dice; the streams are "price" and "price/<asset>".

    Raises:
        InputRefused: an asset or event that the source lacks, a window it does not cover,
            or a price that leaves the range we can hold.
    """
    assert assets, "expected at least one asset"
    match source:
        case GbmSource() | MertonSource():
            return diffusion.path(
                source, assets, duration_us=duration_us, tick_us=tick_us, seed=seed
            )
        case StressSource():
            return stress.path(source, assets, duration_us=duration_us, tick_us=tick_us, seed=seed)
        case CandleSource():
            return candle_path.path(source, assets, duration_us=duration_us, tick_us=tick_us)
