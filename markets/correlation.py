"""How the noise of assets moves together: one correlation of every pair, or one of each.

With one of each the normals are z = L x, L the lower factor of the matrix (Cholesky), x draws of
each asset's own. In plain floats and in the order of the file, so they are the same everywhere.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TypeAlias

import numpy as np

from markets.price_path import Floats, correlated_normals, normals, require
from messaging.units import Asset

Correlation: TypeAlias = float | dict[str, float]
HAIR = 1e-9  # as near to zero as a sum of products of written decimals comes


def check(correlation: Correlation, assets: Sequence[Asset]) -> None:
    """Refuse what no assets can have: a number from 0 to 1, or of each pair "A/B" from -1 to 1.

    Raises:
        ValueError: it cannot be; msgspec adds the place in the file.
    """
    if not isinstance(correlation, dict):
        require(correlation, "correlation", 0.0, 1.0)
        return
    pairs = {frozenset(pair): "/".join(pair) for pair in combinations(assets, 2)}
    seen = set()
    for name, rho in correlation.items():
        pair = frozenset(name.split("/"))
        if pair not in pairs or pair in seen:
            expected = (
                f"pairs of assets, each once ({', '.join(pairs.values()) or 'there are none'})"
            )
            raise ValueError(f"expected {expected}, found {name!r}")
        seen.add(pair)
        require(rho, f"correlation of {name}", -1.0, 1.0)
    _factor(correlation, assets)


def draw(
    correlation: Correlation, assets: Sequence[Asset], asset: Asset, seed: int, count: int
) -> Floats:
    """Return standard normal draws of one asset, correlated with those of the others."""
    if not isinstance(correlation, dict):
        return correlated_normals(seed, asset, count, correlation)
    found = np.zeros(count)
    for other, weight in zip(assets, _factor(correlation, assets)[asset], strict=False):
        if weight:
            found += weight * normals(seed, f"price/{other}", count)
    return found


def _factor(correlation: Mapping[str, float], assets: Sequence[Asset]) -> dict[Asset, list[float]]:
    """Return the row of each asset in the lower factor; pairs that are not named have 0.

    Raises:
        ValueError: the matrix is not positive semidefinite.
    """
    rho = {frozenset(name.split("/")): value for name, value in correlation.items()}
    rows: dict[Asset, list[float]] = {}
    for asset in assets:
        row: list[float] = []
        for place, (other, above) in enumerate(rows.items()):
            left = rho.get(frozenset((asset, other)), 0.0)
            left -= sum(one * two for one, two in zip(row, above, strict=False))
            _need(above[place] > 0.0 or abs(left) <= HAIR, asset)
            row.append(left / above[place] if above[place] else 0.0)
        rest = 1.0 - sum(weight * weight for weight in row)
        _need(rest >= -HAIR, asset)
        rows[asset] = [*row, math.sqrt(rest) if rest > HAIR else 0.0]
    return rows


def _need(holds: bool, asset: Asset) -> None:
    if not holds:
        expected = "a positive semidefinite matrix of correlations"
        raise ValueError(f"expected {expected}, found none that {asset} can have with the others")
