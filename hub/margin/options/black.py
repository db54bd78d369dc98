"""Black's formula of 1976 for European options, with its Greeks, over arrays (rules O1, O2).

Nothing here is rounded: what is money is made whole by `hub.margin.scan`.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Floats = NDArray[np.float64]

CALL, PUT = 1, -1
# Standard deviation of the log price from here down is none: what is left is certain.
CERTAIN = float(np.finfo(np.float64).eps)
_DENSITY = 1.0 / math.sqrt(2.0 * math.pi)


class Quotes(NamedTuple):
    """What one unit of each option is worth, and its Greeks, all arrays of one shape.

    Attributes:
        price: [USD].
        delta: by the spot price [units of the base asset].
        gamma: delta by the spot price [1/USD].
        vega: by the volatility [USD for 1.00 of it].
        theta: by time going on [USD a year].
    """

    price: Floats
    delta: Floats
    gamma: Floats
    vega: Floats
    theta: Floats


class Options(NamedTuple):
    """What determines prices: arrays that go together; `spot` has the shape of the result.

    Attributes:
        sign: `CALL` or `PUT`, as floats.
        spot: [USD], > 0.
        strike: [USD], > 0.
        left: time to expiry [years], >= 0.
        volatility: implied, for a square root of a year, >= 0.
        rate: interest a year; the forward is spot * exp(rate * left).
    """

    sign: Floats
    spot: Floats
    strike: Floats
    left: Floats
    volatility: Floats
    rate: Floats | float


class _Parts(NamedTuple):
    root: Floats
    sd: Floats
    d1: Floats
    share1: Floats
    share2: Floats
    owed: Floats


def _parts(options: Options) -> _Parts:
    """Return what price and Greeks have in common.

        d1 = ln(F / K) / sd + sd / 2,   sd = volatility * sqrt(left),   F = spot * exp(rate * left)

    `share1` is Phi(sign d1), `share2` Phi(sign (d1 - sd)), `owed` the discounted strike. With sd of
    `CERTAIN` or less the shares are 1 in the money, 0 out of it and 1/2 at it.
    """
    sign, spot, strike, left, volatility, rate = options
    root = np.sqrt(left)
    spread = volatility * root
    sd = np.maximum(spread, CERTAIN)
    growth = rate * left
    d1 = np.divide(spot, strike)
    np.log(d1, out=d1)
    d1 = d1 + growth
    d1 /= sd
    d1 += 0.5 * spread
    share2 = d1 - spread
    share2 *= sign
    ndtr(share2, out=share2)
    share1 = sign * d1
    ndtr(share1, out=share1)
    owed = strike * np.exp(-growth)
    return _Parts(root, sd, d1, share1, share2, owed)


def prices(options: Options) -> Floats:
    """Return prices [USD], none below zero (rule O1)."""
    return _prices(options, _parts(options))


def _prices(options: Options, parts: _Parts) -> Floats:
    price = options.spot * parts.share1
    price -= parts.owed * parts.share2
    price *= options.sign
    return np.maximum(price, 0.0, out=price)


def quotes(options: Options) -> Quotes:
    """Return prices and Greeks (rules O1, O2).

    At expiry, or without volatility, gamma is 0 also at the money, where it has no value; an option
    that expires now has no theta.
    """
    sign, spot, _, left, volatility, rate = options
    parts = _parts(options)
    price = _prices(options, parts)
    vega = np.square(parts.d1)
    vega *= -0.5
    np.exp(vega, out=vega)
    vega *= spot
    vega *= _DENSITY  # spot * phi(d1)
    gamma = vega / parts.sd
    theta = gamma * volatility
    theta *= volatility
    theta *= -0.5
    gamma /= np.square(spot)
    vega *= parts.root
    carry = parts.owed * parts.share2
    carry *= sign
    carry *= rate
    theta -= carry
    certain = np.broadcast_to(parts.sd <= CERTAIN, gamma.shape)
    if certain.any():
        gamma[certain] = 0.0
        theta[certain] = -carry[certain]
        theta[np.broadcast_to(left, theta.shape) == 0.0] = 0.0
    delta = parts.share1
    delta *= sign
    return Quotes(price, delta, gamma, vega, theta)
