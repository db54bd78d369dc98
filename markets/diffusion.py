"""Prices from a model: geometric Brownian motion, and Merton's with jumps.

A year has 365 days. Every step is exact in law, whatever the tick:

    GBM:     d ln S = (mu - sigma^2/2) dt + sigma dW
    Merton:  d ln S = (mu - sigma^2/2 - lambda*k) dt + sigma dW + beta*J dN
             k = E[exp(beta*J)] - 1 = exp(beta*m + beta^2*s^2/2) - 1,  J ~ N(m, s^2)

so that E[S_t] = S_0 * exp(mu*t) in both. Jumps strike all assets at once, each by its beta.
Source: Merton, Option pricing when underlying stock returns are discontinuous, 1976.
"""

import math

import msgspec
import numpy as np

from markets import correlation
from markets.correlation import Correlation
from markets.price_path import (
    PRICE_USD_MAX,
    PRICE_USD_MIN,
    ROWS_MAX,
    YEAR_US,
    Floats,
    PricePath,
    Times,
    join,
    normals,
    require,
    ticks_us,
    to_usd6,
)
from messaging.dice import Dice
from messaging.errors import InputRefused, nearest
from messaging.units import SECOND_US, Asset

DAY_US = 86_400 * SECOND_US


class ModelAsset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one asset moves. `jump_beta` matters only where there are jumps.

    Attributes:
        price_usd: the price at the start [USD].
        volatility_per_sqrt_year: of log returns; 0.8 means 80 % a year.
        drift_per_year: of the expected price.
        jump_beta: its log jump over the common log jump.
    """

    price_usd: float
    volatility_per_sqrt_year: float
    drift_per_year: float = 0.0
    jump_beta: float = 1.0

    def __post_init__(self) -> None:
        require(self.price_usd, "price_usd", PRICE_USD_MIN, PRICE_USD_MAX)
        require(self.volatility_per_sqrt_year, "volatility_per_sqrt_year", 0.0, 100.0)
        require(self.drift_per_year, "drift_per_year", -1_000.0, 1_000.0)
        require(self.jump_beta, "jump_beta", -3.0, 3.0)


class GbmSource(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="gbm",
):
    """Geometric Brownian motion.

    Attributes:
        correlation: of any two assets, 0 to 1; or of each pair "A/B", -1 to 1, 0 if left out.
    """

    assets: dict[Asset, ModelAsset]
    correlation: Correlation = 0.0

    def __post_init__(self) -> None:
        correlation.check(self.correlation, tuple(self.assets))


class MertonSource(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="merton",
):
    """Geometric Brownian motion with compensated Poisson jumps common to all assets.

    Attributes:
        jumps_per_day: the mean number of jumps.
        jump_log_mean: the mean of the common log jump; -0.1 is a fall of about 10 %.
        jump_log_deviation: its standard deviation.
    """

    assets: dict[Asset, ModelAsset]
    correlation: Correlation = 0.0
    jumps_per_day: float
    jump_log_mean: float
    jump_log_deviation: float

    def __post_init__(self) -> None:
        correlation.check(self.correlation, tuple(self.assets))
        require(self.jumps_per_day, "jumps_per_day", 0.0, 10_000.0)
        require(self.jump_log_mean, "jump_log_mean", -2.0, 2.0)
        require(self.jump_log_deviation, "jump_log_deviation", 0.0, 2.0)


def path(
    source: GbmSource | MertonSource,
    assets: tuple[Asset, ...],
    *,
    duration_us: int,
    tick_us: int,
    seed: int,
) -> PricePath:
    """Return the path of a model over `duration_us`, a row each `tick_us`.

    Raises:
        InputRefused: an asset that the source lacks, too many rows, or a price that
            leaves the range of `to_usd6`.
    """
    times_us = ticks_us(duration_us, tick_us)
    jumps = np.zeros(len(times_us))
    jumps_per_year = 0.0
    if isinstance(source, MertonSource):
        jumps = _log_jumps(source, times_us, seed)
        jumps_per_year = source.jumps_per_day * 365.0

    columns = {}
    for asset in assets:
        if asset not in source.assets:
            raise InputRefused(
                "prices.assets",
                expected=f"a table for {asset}",
                found=f"only {', '.join(sorted(source.assets))}{nearest(asset, source.assets)}",
            )
        model = source.assets[asset]
        drift = model.drift_per_year
        if isinstance(source, MertonSource):
            drift -= jumps_per_year * _mean_jump(source, model.jump_beta)
        rho, names = source.correlation, tuple(source.assets)
        noise = correlation.draw(rho, names, asset, seed, len(times_us) - 1)
        log_price = _diffuse(model, drift, times_us, noise)
        columns[asset] = to_usd6(asset, log_price + model.jump_beta * jumps)
    label = "merton" if isinstance(source, MertonSource) else "gbm"
    return join(times_us, columns, label=label, stylised=False, source=_describe(source, seed))


def _diffuse(model: ModelAsset, drift_per_year: float, times_us: Times, noise: Floats) -> Floats:
    """Return log prices without jumps, shape (times,)."""
    tick_years = np.diff(times_us) / YEAR_US
    sigma = model.volatility_per_sqrt_year
    steps = (drift_per_year - sigma**2 / 2) * tick_years
    steps += sigma * np.sqrt(tick_years) * noise
    return math.log(model.price_usd) + np.concatenate(([0.0], np.cumsum(steps)))


def _mean_jump(source: MertonSource, beta: float) -> float:
    """Return E[exp(beta*J)] - 1, the mean relative jump of one asset."""
    return math.expm1(beta * source.jump_log_mean + (beta * source.jump_log_deviation) ** 2 / 2)


def _log_jumps(source: MertonSource, times_us: Times, seed: int) -> Floats:
    """Return the sum of the common log jumps up to each time, shape (times,)."""
    if source.jumps_per_day == 0.0:
        return np.zeros(len(times_us))
    gap_us = DAY_US / source.jumps_per_day
    mean = float(times_us[-1]) / gap_us
    if mean > ROWS_MAX:
        raise InputRefused(
            "prices.jumps_per_day", expected=f"at most {ROWS_MAX:,} jumps", found=f"{mean:,.0f}"
        )
    # Twenty standard deviations more than the mean: the draws outlast the path.
    count = int(mean + 20.0 * math.sqrt(mean) + 100.0)
    at_us = np.cumsum(-np.log1p(-Dice(seed, "price-jumps").first(count)) * gap_us)
    sizes = source.jump_log_mean + source.jump_log_deviation * normals(
        seed, "price-jump-sizes", count
    )
    total = np.concatenate(([0.0], np.cumsum(sizes)))
    return total[np.searchsorted(at_us, times_us, side="right")]


def _describe(source: GbmSource | MertonSource, seed: int) -> str:
    rho = source.correlation
    said = f"{rho:g}" if not isinstance(rho, dict) else "by pair"
    text = f"simulated, seed {seed}: geometric Brownian motion, correlation {said}"
    if isinstance(source, MertonSource):
        text += (
            f", with {source.jumps_per_day:g} common jumps a day of mean log size "
            f"{source.jump_log_mean:g} and standard deviation {source.jump_log_deviation:g}"
        )
    return text
