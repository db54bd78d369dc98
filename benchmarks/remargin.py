"""How long it takes to margin all accounts anew, against the bare matrix product.

    python -m benchmarks.remargin [--accounts 100000] [--legs 9] [--rounds 21] [--seed 1] [--json]

The bare product is all positions, a dense matrix (accounts, contracts), times what a unit of each
does in 16 scenarios. Margining anew is risk arrays at new prices, then MM and IM of everyone,
with minimum, discounts, basis and contingencies. In turns, on the processor's clock; beside them
the product of the positions as a sparse matrix, which is what margining starts from.
"""

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median

import msgspec
import numpy as np
from scipy.sparse import csr_array

from hub.margin.buffer import AssetRisk, SqrtTimeBuffer
from hub.margin.options.black import CALL, PUT
from hub.margin.requirement import Conditions, MarginPolicy
from hub.margin.scan.account import Holding, stand
from hub.margin.scan.grid import GRIDS, VolatilityShock
from hub.margin.scan.legs import DAY_S, Leg, Market, OptionRisk, ScanPolicy, Series
from hub.margin.scan.table import Column, Places, RiskTable, risk_arrays
from messaging.units import ONE, USD, Asset, Micros, Ppm, Qty8, Usd6

PRICES_USD = {"BTC": 60_000, "ETH": 2_500}
SPOKES, DAYS, STRIKES = 3, (1, 7, 30, 90), np.linspace(0.8, 1.2, 9)
PERPETUALS = 0.3  # share of legs
CHECKED = 50  # accounts that are margined in whole numbers too
APART_USD = 0.001


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over the rounds [ms].

    Attributes:
        contracts: on their spokes, the width of the matrix. legs: of all accounts.
        remargin_ms: of which `arrays_ms` are the risk arrays.
        product_ms: the bare product. sparse_ms: of a sparse matrix.
        ratio: of `remargin_ms` over `product_ms`.
        apart_usd: from the whole numbers of the first accounts, at most.
    """

    accounts: int
    contracts: int
    legs: int
    remargin_ms: float
    arrays_ms: float
    product_ms: float
    sparse_ms: float
    ratio: float
    apart_usd: float


def policy() -> ScanPolicy:
    """Return defaults, in a market so deep that an unwind takes no time."""
    risks = tuple(
        AssetRisk(
            asset=Asset(name),
            initial_margin_ppm=Ppm(100_000),
            maintenance_margin_ppm=Ppm(65_000),
            stress_volatility_ppm=Ppm(2_500_000),
            jump_ppm=Ppm(30_000),
            quantile_z=3.09,
            depth_usd6_per_s=10**24,
            participation_ppm=Ppm(100_000),
        )
        for name in PRICES_USD
    )
    return ScanPolicy(
        margin=MarginPolicy(assets=risks, buffer=SqrtTimeBuffer(), gain_age_max_s=600.0),
        options=(OptionRisk(),) * len(risks),
        grid=GRIDS["span16"],
        shock=VolatilityShock(),
    )


def market(move: float) -> Market:
    """Return prices that have moved, and ages of three spokes."""
    conditions = Conditions(
        prices_usd6=tuple(Usd6(round(price * (1 + move) * USD)) for price in PRICES_USD.values()),
        tau_s=tuple((age_s, age_s) for age_s in (90.0, 140.0, 400.0)),
        gain_share_ppm=(Ppm(1_000_000),) * SPOKES,
    )
    return Market(conditions, (Ppm(1_000_000),) * len(PRICES_USD))


def contracts() -> list[Column]:
    """Return perpetuals on every spoke, and each option on one of them."""
    columns = []
    for place, price_usd in enumerate(PRICES_USD.values()):
        columns += [Column(spoke, place, None, 0.0) for spoke in range(SPOKES)]
        for days in DAYS:
            for strike in STRIKES:
                for sign in (CALL, PUT):
                    series = Series(
                        sign=sign,
                        strike_usd6=Usd6(round(price_usd * float(strike) * USD)),
                        left_us=Micros(round(days * DAY_S * 1e6)),
                        volatility_ppm=Ppm(600_000),
                    )
                    columns.append(Column(len(columns) % SPOKES, place, series, 0.0))
    return columns


def positions(
    columns: list[Column], accounts: int, legs: int, seed: int
) -> tuple[Places, Places, Places]:
    """Return account, column and whole 1e-8 units of each leg: 1 to `legs` of each account."""
    dice = np.random.default_rng(seed)
    account = np.repeat(np.arange(accounts), dice.integers(1, legs + 1, accounts))
    perpetual = np.flatnonzero([one.series is None for one in columns])
    column = dice.integers(0, len(columns), len(account))
    linear = dice.random(len(account)) < PERPETUALS
    column[linear] = perpetual[dice.integers(0, len(perpetual), int(linear.sum()))]
    account, column = np.divmod(np.unique(account * len(columns) + column), len(columns))
    qty8 = np.rint(dice.standard_normal(len(account)) * ONE).astype(np.intp)
    qty8[qty8 == 0] = 1
    return account, column, qty8


def measure(accounts: int, legs: int, rounds: int, seed: int) -> Report:
    """Margin everyone anew in every round, at prices that have moved.

    Raises:
        AssertionError: some account's figures are not those of the whole numbers.
    """
    rules, columns = policy(), contracts()
    account, column, qty8 = positions(columns, accounts, legs, seed)
    units = qty8 / ONE
    table = RiskTable(rules, columns, accounts, account=account, column=column, units=units)
    sparse = csr_array((units, (account, column)), (accounts, len(columns)))
    dense = sparse.toarray()
    unit_pnl = np.ascontiguousarray(risk_arrays(rules, market(0.0), columns).pnl[: len(columns)])
    out = np.empty((accounts, unit_pnl.shape[1]))

    apart_usd = 0.0
    found = table.remargin(risk_arrays(rules, market(0.0), columns))
    for number in range(min(accounts, CHECKED)):
        some = np.flatnonzero(account == number)
        held = tuple(_leg(columns[column[one]], int(qty8[one])) for one in some)
        whole = Holding(cash_usd6=0, unsettled_usd6=(0,) * SPOKES, legs=held)
        exact = stand(rules, market(0.0), whole)
        apart_usd = max(
            apart_usd,
            abs(float(found.maintenance[number]) - exact.maintenance_usd6 / 1e6),
            abs(float(found.initial[number]) - exact.initial_usd6 / 1e6),
        )
    assert apart_usd < APART_USD, f"{apart_usd} USD apart"

    took_ms: dict[str, list[float]] = {}
    for number in range(rounds):
        moved = market(0.001 * number)
        ways: dict[str, Callable[[], object]] = {
            "arrays": lambda moved=moved: risk_arrays(rules, moved, columns),  # type: ignore[misc]
            "product": lambda: np.matmul(dense, unit_pnl, out=out),
            "remargin": lambda moved=moved: table.remargin(  # type: ignore[misc]
                risk_arrays(rules, moved, columns)
            ),
            "sparse": lambda: sparse @ unit_pnl,
        }
        for name in ways if number % 2 else reversed(ways):
            began_s = time.process_time()
            ways[name]()
            took_ms.setdefault(name, []).append((time.process_time() - began_s) * 1e3)
    medians = {name: median(took) for name, took in took_ms.items()}
    return Report(
        accounts=accounts,
        contracts=len(columns),
        legs=len(account),
        remargin_ms=medians["remargin"],
        arrays_ms=medians["arrays"],
        product_ms=medians["product"],
        sparse_ms=medians["sparse"],
        ratio=medians["remargin"] / medians["product"],
        apart_usd=apart_usd,
    )


def _leg(column: Column, qty8: int) -> Leg:
    return Leg(
        spoke=column.spoke,
        place=column.place,
        qty8=Qty8(qty8),
        cost_usd6=Usd6(0),
        series=column.series,
    )


def main() -> None:
    """Print what margining everyone anew costs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--legs", type=int, default=9, help="of an account, at most")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    if min(given.accounts, given.legs, given.rounds) < 1:
        parser.error("expected at least 1 account, 1 leg and 1 round")
    report = measure(given.accounts, given.legs, given.rounds, given.seed)
    if given.json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
        return
    shape = f"{report.contracts} contracts, {report.legs:,} legs, 16 scenarios"
    print(f"{report.accounts:,} accounts, {shape}, median of {given.rounds}")
    print(f"  margined anew   {report.remargin_ms:>8.1f} ms, risk arrays {report.arrays_ms:.1f} ms")
    print(f"  bare product    {report.product_ms:>8.1f} ms")
    print(f"  ratio           {report.ratio:>8.2f}")
    print(f"  sparse product  {report.sparse_ms:>8.1f} ms")
    print(f"  apart           {report.apart_usd:>8.6f} USD from the whole numbers, at most")


if __name__ == "__main__":
    main()
