"""What options are worth now and in the scenarios: float64, by series or by leg (rules O4, O5)."""

import math
from collections.abc import Sequence

import numpy as np

from hub.margin.options.black import Floats, Options, Quotes, prices, quotes
from hub.margin.scan.grid import Grid, VolatilityShock
from hub.margin.scan.legs import OptionRisk, Series
from messaging.units import YEAR_S, Usd6

LOWEST = 1e-6  # of the price: where a fall of more than all of it ends


def _options(
    series: Sequence[Series], spot: Floats, left: Floats, factor: Floats, risk: OptionRisk
) -> Options:
    """Return options at prices, times left and volatility factors, each (series, scenarios)."""
    return Options(
        sign=np.array([float(one.sign) for one in series])[:, None],
        spot=spot,
        strike=np.array([one.strike_usd6 / 1e6 for one in series])[:, None],
        left=left,
        volatility=np.array([one.volatility_ppm / 1e6 for one in series])[:, None] * factor,
        rate=risk.rate_ppm / 1e6,
    )


def _left(series: Sequence[Series]) -> Floats:
    return np.array([one.left_years for one in series])[:, None]


def quoted(risk: OptionRisk, price_usd6: Usd6, series: Sequence[Series]) -> Quotes:
    """Return what each series is worth now, and its Greeks, all of shape (series, 1)."""
    spot = np.full((len(series), 1), price_usd6 / 1e6)
    return quotes(_options(series, spot, _left(series), np.ones((1, 1)), risk))


def shocked(
    grid: Grid,
    shock: VolatilityShock,
    risk: OptionRisk,
    price_usd6: Usd6,
    series: Sequence[Series],
    ranges: Sequence[float],
    tau_s: Sequence[float],
) -> Floats:
    """Return each series' price in each scenario [USD], at its own range, `tau_s` from now.

    Shape (series, scenarios).
    """
    moves = np.array([one.move_ppm / 1e6 for one in grid.scenarios])
    spot = np.maximum(1.0 + np.outer(ranges, moves), LOWEST) * (price_usd6 / 1e6)
    factor = [
        [shock.factor(one.volatility, option.left_days) for one in grid.scenarios]
        for option in series
    ]
    left = np.maximum(_left(series) - np.array(tau_s)[:, None] / YEAR_S, 0.0)
    return prices(_options(series, spot, left, np.array(factor), risk))


def based(risk: OptionRisk, price_usd6: Usd6, series: Sequence[Series]) -> Floats:
    """Return each series' price now with its forward up and down [USD], shape (series, 2)."""
    moves = np.array([[1.0 + risk.basis_ppm / 1e6, 1.0 - risk.basis_ppm / 1e6]])
    spot = np.repeat(moves * (price_usd6 / 1e6), len(series), axis=0)
    return prices(_options(series, spot, _left(series), np.ones((1, 1)), risk))


def share_kept(risk: OptionRisk, left_years: float) -> float:
    """Return what of an expiry's positive value in a scenario counts (rule O6)."""
    years = risk.rate_ppm / 1e6 + risk.discount_ppm / 1e6
    return min(1.0, risk.kept_ppm / 1e6 * math.exp(-left_years * years))


def basis_weight(risk: OptionRisk, left_years: float) -> float:
    """Return what an expiry's loss from its forward alone is taken times (rule O7)."""
    return risk.basis_weight_ppm / 1e6 + risk.basis_weight_year_ppm / 1e6 * left_years
