"""Models against theory, the choice of a source, and the shape of a path."""

import hashlib
import math
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from markets import prices
from markets.correlation import check, draw
from markets.diffusion import GbmSource, MertonSource, ModelAsset
from markets.price_path import PricePath
from markets.prices import CandleSource, PriceSource, StressSource
from messaging.errors import InputRefused
from messaging.units import HOUR_US, SECOND_US, YEAR_S, Asset, Micros, Usd6

BTC, ETH, SOL = Asset("BTC"), Asset("ETH"), Asset("SOL")
DAY_US = Micros(24 * HOUR_US)
TICK_US = Micros(10 * SECOND_US)
SIGMA = 0.8
MODELS = {
    asset: ModelAsset(price_usd=usd, volatility_per_sqrt_year=SIGMA)
    for asset, usd in ((BTC, 60_000.0), (ETH, 3_000.0), (SOL, 150.0))
}
GBM = GbmSource(assets=MODELS, correlation=0.6)
MERTON = MertonSource(
    assets={
        **MODELS,
        ETH: ModelAsset(price_usd=3_000, volatility_per_sqrt_year=SIGMA, jump_beta=1.5),
    },
    correlation=0.6,
    jumps_per_day=4.0,
    jump_log_mean=-0.04,
    jump_log_deviation=0.05,
)


def build(
    source: PriceSource,
    assets: tuple[Asset, ...] = (BTC, ETH),
    duration_us: int = DAY_US,
    tick_us: int = TICK_US,
    seed: int = 1,
) -> PricePath:
    return prices.path(
        source, assets, duration_us=Micros(duration_us), tick_us=Micros(tick_us), seed=seed
    )


def log_returns(path: PricePath) -> NDArray[np.float64]:
    logs = np.asarray(np.log(np.array(path.prices_usd6, dtype=np.float64)))
    return np.asarray(np.diff(logs, axis=0))


def test_gbm_returns_have_the_stated_mean_variance_and_correlation() -> None:
    drift = 40.0  # large enough to be seen in 8,640 steps
    fast = {a: msgspec.structs.replace(m, drift_per_year=drift) for a, m in MODELS.items()}
    returns = log_returns(build(GbmSource(assets=fast, correlation=0.6), tick_us=TICK_US))
    count = len(returns)
    step_years = 10 / YEAR_S

    variance = SIGMA**2 * step_years
    mean = (drift - SIGMA**2 / 2) * step_years
    assert count == 8_640
    for column in returns.T:
        assert abs(column.var() / variance - 1) < 5 * math.sqrt(2 / count)
        assert abs(column.mean() - mean) < 5 * math.sqrt(variance / count)
    found = np.corrcoef(returns.T)[0, 1]
    assert abs(found - 0.6) < 5 * (1 - 0.6**2) / math.sqrt(count)


@pytest.mark.parametrize(("source", "days"), [(GBM, 60), (MERTON, 1)], ids=["gbm", "merton"])
def test_prices_without_drift_are_martingales(source: GbmSource | MertonSource, days: int) -> None:
    """The mean of S_T / S_0 over many seeds is 1: the compensator is right, beta included."""
    ends = np.array(
        [
            [
                price / start
                for price, start in zip(path.prices_usd6[-1], path.prices_usd6[0], strict=True)
            ]
            for path in (
                build(source, duration_us=days * DAY_US, tick_us=days * DAY_US, seed=seed)
                for seed in range(1_500)
            )
        ]
    )

    error = ends.std(axis=0) / math.sqrt(len(ends))
    assert (abs(ends.mean(axis=0) - 1) < 5 * error).all()


def test_jumps_come_at_the_stated_rate_and_size() -> None:
    """With no diffusion, what moves is jumps less a steady drift."""
    still = {BTC: ModelAsset(price_usd=100.0, volatility_per_sqrt_year=0.0)}
    source = msgspec.structs.replace(MERTON, assets=still, jumps_per_day=200.0)
    returns = log_returns(build(source, (BTC,)))[:, 0]
    steady = np.median(returns)
    jumps = returns[abs(returns - steady) > 1e-5] - steady

    assert abs(len(jumps) - 200) < 5 * math.sqrt(200)
    assert abs(jumps.mean() + 0.04) < 5 * 0.05 / math.sqrt(len(jumps))
    assert abs(jumps.std() / 0.05 - 1) < 0.3


@pytest.mark.parametrize("beta", [-1.0, 1.0, 2.5])
def test_between_jumps_the_compensator_pulls_the_price(beta: float) -> None:
    """Its rate is lambda * E[exp(beta*J) - 1], here by quadrature."""
    still = ModelAsset(price_usd=1e6, volatility_per_sqrt_year=0.0, jump_beta=beta)
    path = build(msgspec.structs.replace(MERTON, assets={BTC: still}), (BTC,))

    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    jump = np.expm1(beta * (MERTON.jump_log_mean + MERTON.jump_log_deviation * nodes))
    per_day = MERTON.jumps_per_day * (weights @ jump) / weights.sum()
    assert np.median(log_returns(path)) == pytest.approx(-per_day / 8_640, rel=1e-5)


def test_a_finer_tick_leaves_jump_times_alone() -> None:
    still = {BTC: ModelAsset(price_usd=100.0, volatility_per_sqrt_year=0.0)}
    source = msgspec.structs.replace(MERTON, assets=still)
    coarse, fine = (build(source, (BTC,), tick_us=HOUR_US // n) for n in (1, 60))

    assert coarse.prices_usd6 == fine.prices_usd6[::60]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**63), source=st.sampled_from([GBM, MERTON]))
def test_one_more_asset_or_hour_moves_no_other_number(
    seed: int, source: GbmSource | MertonSource
) -> None:
    few = build(source, (ETH,), HOUR_US, seed=seed)
    many = build(source, (SOL, ETH, BTC), 2 * HOUR_US, seed=seed)

    assert [row[0] for row in few.prices_usd6] == [
        row[1] for row in many.prices_usd6[: len(few.times_us)]
    ]


def test_another_process_gets_the_same_numbers() -> None:
    script = (
        "import hashlib, msgspec\n"
        "from markets import prices\n"
        f"source = msgspec.json.decode({msgspec.json.encode(MERTON)!r}, type=prices.PriceSource)\n"
        f"path = prices.path(source, ('BTC', 'ETH'), duration_us={DAY_US}, tick_us={TICK_US},"
        " seed=1)\n"
        "print(hashlib.blake2b(msgspec.msgpack.encode(path)).hexdigest())\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )

    here = hashlib.blake2b(msgspec.msgpack.encode(build(MERTON))).hexdigest()
    assert done.stdout.strip() == here


def test_rows_are_ticks_up_to_the_end() -> None:
    path = build(GBM, duration_us=35, tick_us=10)

    assert path.times_us == (0, 10, 20, 30)
    assert path.prices_usd6[0] == (60_000_000_000, 3_000_000_000)
    assert path.depth_ppm == (1_000_000,) * 4
    assert build(GBM, duration_us=0).times_us == (0,)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('kind = "stress"\nevent = "may_2021"', StressSource),
        ('kind = "candles"\ngaps = "hold"\n[files]\nBTC = "btc.csv"', CandleSource),
        (
            'kind = "gbm"\n[assets.BTC]\nprice_usd = 60_000\nvolatility_per_sqrt_year = 0.6',
            GbmSource,
        ),
        (
            'kind = "merton"\njumps_per_day = 2\njump_log_mean = -0.1\njump_log_deviation = 0.1\n'
            "[assets.BTC]\nprice_usd = 60_000\nvolatility_per_sqrt_year = 0.6\njump_beta = 1.2",
            MertonSource,
        ),
    ],
)
def test_a_table_becomes_its_source(text: str, kind: type) -> None:
    source = msgspec.convert(tomllib.loads(text), PriceSource)

    assert isinstance(source, kind)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(source), type=PriceSource) == source


@pytest.mark.parametrize(
    "text",
    [
        'kind = "levy"',
        'kind = "stress"\nevent = "may_2021"\nspeed = 2',
        'kind = "stress"\nevent = "may_2021"\nstart_hours = -1',
        'kind = "candles"\ngaps = "fill"\nfiles = {}',
        'kind = "gbm"\nassets = {}\ncorrelation = nan',
        'kind = "gbm"\nassets = {}\ncorrelation = -0.1',
        'kind = "gbm"\n[assets.BTC]\nprice_usd = 0\nvolatility_per_sqrt_year = 0.6',
        'kind = "gbm"\n[assets.BTC]\nprice_usd = 1\nvolatility_per_sqrt_year = inf',
        'kind = "gbm"\n[assets.BTC]\nprice_usd = 1',
        'kind = "merton"\nassets = {}\njumps_per_day = -1\njump_log_mean=0\njump_log_deviation=0',
    ],
)
def test_a_table_with_a_fault_is_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(tomllib.loads(text), PriceSource)


PAIRS = {"A/B": 0.9, "B/C": -0.6, "A/C": -0.5}


@pytest.mark.parametrize("pairs", [PAIRS, {"B/A": 0.9}, {"A/B": 1.0, "A/C": -1.0, "C/B": -1.0}])
def test_each_pair_has_its_own_correlation(pairs: dict[str, float]) -> None:
    names = (Asset("A"), Asset("B"), Asset("C"))
    check(pairs, names)
    drawn = {name: draw(pairs, names, name, 1, 40_000) for name in names}
    for one, other in ("AB", "AC", "BC"):
        rho = pairs.get(f"{one}/{other}", pairs.get(f"{other}/{one}", 0.0))
        found = np.corrcoef(drawn[Asset(one)], drawn[Asset(other)])[0, 1]
        assert found == pytest.approx(rho, abs=0.02)
    for normals in drawn.values():
        assert normals.std() == pytest.approx(1.0, abs=0.02)
    more = draw(pairs, (*names, Asset("D")), Asset("C"), 1, 10)
    assert more.tolist() == drawn[Asset("C")][:10].tolist()  # an asset more moves none of the rest


@example([1.0, 1.0, 0.0, 0.5, 0.0, 0.0])
@given(st.lists(st.floats(-1, 1).map(lambda rho: round(rho, 2)), min_size=6, max_size=6))
def test_a_matrix_is_refused_if_and_only_if_it_has_an_eigenvalue_below_zero(
    rhos: list[float],
) -> None:
    names = tuple(Asset(name) for name in "ABCD")
    pairs = dict(zip(("A/B", "A/C", "A/D", "B/C", "B/D", "C/D"), rhos, strict=True))
    matrix = np.eye(4)
    for name, rho in pairs.items():
        one, other = (names.index(Asset(part)) for part in name.split("/"))
        matrix[one, other] = matrix[other, one] = rho
    least = np.linalg.eigvalsh(matrix)[0]
    assume(abs(least) > 1e-6)
    if least > 0:
        check(pairs, names)
    else:
        with pytest.raises(ValueError, match="expected a positive semidefinite matrix"):
            check(pairs, names)


@pytest.mark.parametrize(
    "pairs", [{"A/B": 1.1}, {"A/X": 0.1}, {"A/A": 1.0}, {"A/B": 0.1, "B/A": 0.1}, {"A": 0.1}]
)
def test_a_pair_that_cannot_be_is_refused(pairs: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"expected .*, found"):
        check(pairs, (Asset("A"), Asset("B")))


def test_what_a_model_cannot_do_is_refused() -> None:
    wild = {BTC: ModelAsset(price_usd=1e-6, volatility_per_sqrt_year=100.0)}
    busy = msgspec.structs.replace(MERTON, jumps_per_day=10_000.0)

    with pytest.raises(InputRefused, match="expected a table for BTCC, found only BTC, ETH, SOL"):
        build(GBM, (Asset("BTCC"),))
    with pytest.raises(InputRefused, match="expected BTC to stay within"):
        build(GbmSource(assets=wild), (BTC,))
    with pytest.raises(InputRefused, match="expected at most 2,000,000 ticks"):
        build(GBM, tick_us=1)
    with pytest.raises(InputRefused, match="expected at most 2,000,000 jumps"):
        build(busy, duration_us=1_000 * DAY_US, tick_us=DAY_US)


def test_candles_are_resolved_once_and_then_need_no_file(tmp_path: Path) -> None:
    rows = [f"{index * 60_000},10,12,9,11,1" for index in range(5)]
    (tmp_path / "btc.csv").write_text("\n".join(["ts_ms,open,high,low,close,volume", *rows]))
    source = CandleSource(files={BTC: "btc.csv"})
    span_us = Micros(120 * SECOND_US)

    ready = prices.resolve(source, (BTC,), directory=tmp_path, duration_us=span_us)
    (tmp_path / "btc.csv").unlink()
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(ready), type=PriceSource)
    path = build(stored, (BTC,), span_us)

    assert path.prices_usd6[0] == (10_000_000,)
    assert {row[0] for row in path.prices_usd6} >= {9_000_000, 12_000_000}
    assert prices.resolve(GBM, (BTC,), directory=tmp_path, duration_us=span_us) is GBM


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("times_us", (0, 10)),
        ("times_us", (1, 10, 20)),
        ("times_us", (0, 10, 10)),
        ("prices_usd6", ((Usd6(1), Usd6(1)), (Usd6(1),), (Usd6(1), Usd6(1)))),
        ("prices_usd6", ((Usd6(1), Usd6(1)), (Usd6(1), Usd6(0)), (Usd6(1), Usd6(1)))),
        ("depth_ppm", (1, 0, 1)),
    ],
)
def test_a_malformed_path_cannot_be_made(field: str, value: object) -> None:
    path = build(GBM, duration_us=20, tick_us=10)

    with pytest.raises(ValueError, match="expected"):
        msgspec.structs.replace(path, **{field: value})
