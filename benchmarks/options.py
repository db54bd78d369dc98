"""How fast options are quoted, against Black's formula written down in NumPy.

    python -m benchmarks.options [--options 10000] [--rounds 200] [--seed 1] [--json]

The formula alone does as well as NumPy lets it: each term is computed once. It has no guard for
options that expire now or have no volatility. Both run in turns, on the processor's clock.
"""

import argparse
import math
import sys
import time
from statistics import median

import msgspec
import numpy as np
from scipy.special import ndtr

from hub.margin.options.black import CALL, PUT, Options, Quotes, quotes


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over the rounds [us], and by how much the figures differ, as a share."""

    options: int
    rounds: int
    quotes_us: float
    formula_us: float
    ratio: float
    apart: float


def drawn(count: int, seed: int) -> Options:
    """Return options that are all some way from certain."""
    dice = np.random.default_rng(seed)
    return Options(
        sign=np.where(dice.random(count) < 0.5, float(CALL), float(PUT)),
        spot=dice.uniform(20_000, 80_000, count),
        strike=dice.uniform(20_000, 80_000, count),
        left=dice.uniform(1 / 365, 1.0, count),
        volatility=dice.uniform(0.3, 1.5, count),
        rate=0.04,
    )


def formula(options: Options) -> Quotes:
    """Return prices and Greeks by the formula and nothing else."""
    w, s, k, t, v, r = options
    discount, root = np.exp(-r * t), np.sqrt(t)
    sd = v * root
    d1 = np.log(s / (k * discount)) / sd + sd / 2
    owed, share1, share2 = k * discount, ndtr(w * d1), ndtr(w * (d1 - sd))
    density = s * np.exp(-d1 * d1 / 2) / math.sqrt(2 * math.pi)
    return Quotes(
        price=w * (s * share1 - owed * share2),
        delta=w * share1,
        gamma=density / (s * s * sd),
        vega=density * root,
        theta=-density * v / (2 * root) - w * r * owed * share2,
    )


def measure(count: int, rounds: int, seed: int) -> Report:
    """Quote the same options both ways, in turns."""
    options = drawn(count, seed)
    pairs = list(zip(quotes(options), formula(options), strict=True))
    apart = max(float(np.max(np.abs(ours - bare)) / np.max(np.abs(bare))) for ours, bare in pairs)
    took_us: dict[str, list[float]] = {"quotes": [], "formula": []}
    for number in range(rounds):
        ways = (quotes, formula) if number % 2 else (formula, quotes)
        for way in ways:
            began_s = time.process_time()
            way(options)
            took_us[way.__name__].append((time.process_time() - began_s) * 1e6)
    quotes_us, formula_us = median(took_us["quotes"]), median(took_us["formula"])
    return Report(
        options=count,
        rounds=rounds,
        quotes_us=quotes_us,
        formula_us=formula_us,
        ratio=quotes_us / formula_us,
        apart=apart,
    )


def main() -> None:
    """Print what quoting costs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--options", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    if given.options < 1 or given.rounds < 1:
        parser.error("expected at least 1 option and 1 round")
    report = measure(given.options, given.rounds, given.seed)
    if given.json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
        return
    print(f"{report.options:,} options, price and four Greeks, median of {report.rounds}")
    print(f"  quotes       {report.quotes_us:>10,.0f} us")
    print(f"  formula      {report.formula_us:>10,.0f} us")
    print(f"  ratio        {report.ratio:>10.2f}")
    print(f"  apart        {report.apart:>10.1e} of the largest, at most")


if __name__ == "__main__":
    main()
