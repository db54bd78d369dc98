"""A price path: what every source of prices delivers, and the steps they share."""

import math
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from messaging.dice import Dice
from messaging.errors import InputRefused
from messaging.units import SECOND_US, USD, YEAR_S, Asset, Micros, Ppm, Usd6

NORMAL_PPM = 1_000_000  # market depth on an ordinary day
PRICE_USD_MIN = 1e-6
PRICE_USD_MAX = 1e9  # as Usd6 below 2^53, so that float64 holds every price exactly
ROWS_MAX = 2_000_000
YEAR_US = YEAR_S * SECOND_US

Floats = NDArray[np.float64]
Times = NDArray[np.int64]


class PricePath(msgspec.Struct, frozen=True, kw_only=True):
    """Prices and market depth over time. A row holds until the next; the last holds on.

    Attributes:
        assets: the columns.
        times_us: offsets from the start of the scenario, strictly increasing, first 0.
        prices_usd6: a row for each time, in it a price for each asset, all > 0.
        depth_ppm: for each time, the depth of the market; 1,000,000 is normal.
        label: a short name for tables and file names.
        stylised: whether this follows a historic event without being its record.
        source: where the prices come from, for the report.
    """

    assets: tuple[Asset, ...]
    times_us: tuple[Micros, ...]
    prices_usd6: tuple[tuple[Usd6, ...], ...]
    depth_ppm: tuple[Ppm, ...]
    label: str
    stylised: bool
    source: str

    def __post_init__(self) -> None:
        rows = len(self.times_us)
        if not (rows == len(self.prices_usd6) == len(self.depth_ppm) > 0):
            raise ValueError("expected as many prices and depths as times, and at least one")
        if self.times_us[0] != 0:
            raise ValueError(f"expected times_us to start at 0, found {self.times_us[0]}")
        if any(after <= before for before, after in pairwise(self.times_us)):
            raise ValueError("expected times_us strictly increasing")
        if any(len(row) != len(self.assets) or min(row) <= 0 for row in self.prices_usd6):
            raise ValueError("expected a price > 0 for each asset in every row")
        if min(self.depth_ppm) <= 0:
            raise ValueError("expected depth_ppm > 0")


def require(found: float, name: str, low: float, high: float) -> None:
    """Check that a number lies in [low, high]; NaN does not.

    Raises:
        ValueError: it does not; msgspec adds the place in the file.
    """
    if not low <= found <= high:
        raise ValueError(f"expected {name} from {low:g} to {high:g}, found {found}")


def ticks_us(duration_us: int, tick_us: int) -> Times:
    """Return 0, tick, 2 ticks, ... up to `duration_us` [us].

    Raises:
        InputRefused: more than `ROWS_MAX` rows.
    """
    assert duration_us >= 0
    assert tick_us > 0
    rows = duration_us // tick_us + 1
    if rows > ROWS_MAX:
        raise InputRefused("prices", expected=f"at most {ROWS_MAX:,} ticks", found=f"{rows:,}")
    return np.arange(rows, dtype=np.int64) * tick_us


def normals(seed: int, stream: str, count: int) -> Floats:
    """Return the first `count` standard normal draws of a stream, by inversion."""
    # A uniform of exactly 0 would become minus infinity.
    return np.asarray(ndtri(np.maximum(Dice(seed, stream).first(count), 2.0**-54)))


def correlated_normals(seed: int, asset: Asset, count: int, correlation: float) -> Floats:
    """Return standard normal draws, correlated with those of every other asset.

    z = sqrt(rho) * common + sqrt(1 - rho) * own: an asset more moves no other's numbers.
    """
    common = normals(seed, "price", count)
    own = normals(seed, f"price/{asset}", count)
    return math.sqrt(correlation) * common + math.sqrt(1.0 - correlation) * own


def to_usd6(asset: Asset, log_price_usd: Floats) -> list[Usd6]:
    """Return prices in whole millionths of a dollar, rounded half to even.

    Raises:
        InputRefused: a price outside `PRICE_USD_MIN` to `PRICE_USD_MAX`.
    """
    low, high = float(log_price_usd.min()), float(log_price_usd.max())
    if not np.log(PRICE_USD_MIN) <= low <= high <= np.log(PRICE_USD_MAX):
        raise InputRefused(
            "prices",
            expected=f"{asset} to stay within {PRICE_USD_MIN:f} and {PRICE_USD_MAX:,.0f} USD",
            found=f"its log between {low:.3f} and {high:.3f}: too much volatility, drift or jumps",
        )
    return [Usd6(int(price)) for price in np.rint(np.exp(log_price_usd) * USD).tolist()]


def join(
    times_us: Times,
    columns: dict[Asset, list[Usd6]],
    *,
    depth_ppm: list[Ppm] | None = None,
    label: str,
    stylised: bool,
    source: str,
) -> PricePath:
    """Return the path made of one column of prices for each asset."""
    return PricePath(
        assets=tuple(columns),
        times_us=tuple(times_us.tolist()),
        prices_usd6=tuple(zip(*columns.values(), strict=True)),
        depth_ppm=tuple(depth_ppm or [Ppm(NORMAL_PPM)] * len(times_us)),
        label=label,
        stylised=stylised,
        source=source,
    )
