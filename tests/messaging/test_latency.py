import math
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messaging.dice import Dice
from messaging.errors import InputRefused
from messaging.latency import (
    DRAW_MAX_S,
    GRID,
    TIME_MAX_S,
    Constant,
    Empirical,
    Exponential,
    Floats,
    Held,
    Latency,
    Lognormal,
    Mixture,
    Part,
    Quartiles,
    Shifted,
    Uniform,
    describe,
    parse,
    quantile_us,
    scaled,
)

NORMAL = Lognormal(median_s=36, sigma=0.293)
ONE_SECOND = Constant(value_s=1)
STEPS = Empirical(table=((0, 2), (0.5, 4), (0.5, 10), (1, 20)))
BATCHED = Mixture(parts=(Part(weight=3, body=ONE_SECOND), Part(weight=1, body=Constant(value_s=9))))
HELD = Held(body=ONE_SECOND, probability=0.25, hold_max_s=8)

times = st.floats(0, 1e5)
units = st.floats(0, 1, exclude_max=True)


@st.composite
def uniforms(draw: st.DrawFn) -> Uniform:
    low_s, high_s = sorted((draw(times), draw(times)))
    return Uniform(low_s=low_s, high_s=high_s)


@st.composite
def quartiles(draw: st.DrawFn) -> Quartiles:
    median_s = draw(st.floats(0.1, 1e4))
    below, above = draw(st.floats(0.3, 1)), draw(st.floats(1, 3))
    return Quartiles(q1_s=median_s * below, q2_s=median_s, q3_s=median_s * above)


@st.composite
def floored(draw: st.DrawFn) -> Quartiles:
    """Draw quartiles that have an exact fit on a floor."""
    floor_s, median_s = draw(st.floats(1e-3, 1e4)), draw(st.floats(1e-2, 1e4))
    ratio = draw(st.floats(1.01, 3.5))
    q1_s, q3_s = floor_s + median_s / ratio, floor_s + median_s * ratio
    return Quartiles(q1_s=q1_s, q2_s=floor_s + median_s, q3_s=q3_s, floor=True)


@st.composite
def tables(draw: st.DrawFn) -> Empirical:
    values_s = sorted(draw(st.lists(times, min_size=2, max_size=6)))
    inner = draw(st.lists(st.floats(0, 1), min_size=len(values_s) - 2, max_size=len(values_s) - 2))
    return Empirical(table=tuple(zip([0, *sorted(inner), 1], values_s, strict=True)))


def nested(bodies: st.SearchStrategy[Latency]) -> st.SearchStrategy[Latency]:
    parts = st.builds(Part, weight=st.floats(1e-3, 1e3), body=bodies)
    return st.one_of(
        st.builds(Shifted, floor_s=times, body=bodies),
        st.builds(Mixture, parts=st.lists(parts, min_size=1, max_size=3).map(tuple)),
        st.builds(Held, body=bodies, probability=st.floats(0, 1), hold_max_s=st.floats(1e-6, 1e5)),
    )


latencies: st.SearchStrategy[Latency] = st.recursive(
    st.one_of(
        st.builds(Constant, value_s=times),
        uniforms(),
        st.builds(Exponential, mean_s=times),
        st.builds(Lognormal, median_s=st.floats(1e-6, 1e5), sigma=st.floats(0, 1.5)),
        quartiles(),
        floored(),
        tables(),
    ),
    nested,
    max_leaves=4,
)


def cloud() -> tuple[Floats, Floats]:
    """Return u and v of 200,000 independent draws."""
    return Dice(7, "u").first(200_000), Dice(7, "v").first(200_000)


def mean_s(latency: Latency) -> float:
    return float(latency.sample_us(*cloud()).mean()) / 1e6


@given(latency=latencies, us=st.lists(units, min_size=2, max_size=20), v=units)
def test_a_higher_u_never_draws_less(latency: Latency, us: list[float], v: float) -> None:
    u = np.sort(np.array([0.0, *us, 1 - 2.0**-53]))

    drawn_us = latency.sample_us(u, np.full(u.shape, v))

    assert drawn_us.dtype == np.int64
    assert drawn_us[0] >= 0
    assert (np.diff(drawn_us) >= 0).all()


@given(latency=latencies)
def test_a_draw_depends_on_its_own_two_numbers_only(latency: Latency) -> None:
    u, v = Dice(1, "u").first(50), Dice(1, "v").first(50)

    together = latency.sample_us(u, v)

    alone = [int(latency.sample_us(u[n : n + 1], v[n : n + 1])[0]) for n in range(50)]
    assert together.tolist() == alone
    assert latency.sample_us(u.reshape(5, 10), v.reshape(5, 10)).ravel().tolist() == alone


@given(one=latencies, other=latencies)
def test_two_distributions_on_the_same_numbers_rise_together(one: Latency, other: Latency) -> None:
    u, v = Dice(2, "u").first(64), np.full(64, 0.3)

    first, second = one.sample_us(u, v), other.sample_us(u, v)

    order = np.lexsort((second, first))
    assert (np.diff(second[order]) >= 0).all()


@given(latency=latencies)
def test_every_latency_survives_the_wire_and_a_table(latency: Latency) -> None:
    raw = msgspec.msgpack.encode(latency)

    assert msgspec.msgpack.decode(raw, type=Latency) == latency
    assert msgspec.convert(msgspec.msgpack.decode(raw), Latency) == latency
    assert describe(latency)


@given(latency=latencies, factor=st.floats(0.1, 10))
def test_scaling_multiplies_every_draw(latency: Latency, factor: float) -> None:
    u, v = Dice(3, "u").first(64), Dice(3, "v").first(64)

    drawn_us = scaled(latency, factor).sample_us(u, v)

    expected_us = latency.sample_us(u, v) * factor
    assert np.allclose(drawn_us, expected_us, rtol=1e-9, atol=1 + factor)


@given(latency=floored())
def test_the_fit_on_a_floor_meets_all_three_quartiles(latency: Quartiles) -> None:
    for q, value_s in ((0.25, latency.q1_s), (0.5, latency.q2_s), (0.75, latency.q3_s)):
        assert quantile_us(latency, q) == pytest.approx(value_s * 1e6, rel=1e-9, abs=1)


def test_the_fit_on_a_floor_agrees_with_figures_worked_by_hand() -> None:
    fitted = Quartiles(q1_s=31, q2_s=36, q3_s=46, floor=True).fitted()

    assert isinstance(fitted, Shifted)
    assert fitted.floor_s == pytest.approx(26)
    assert isinstance(fitted.body, Lognormal)
    assert fitted.body.median_s == pytest.approx(10)
    assert fitted.body.sigma == pytest.approx(math.log(2) / 0.6745, rel=1e-4)


def test_the_two_fits_to_the_same_quartiles_have_different_tails() -> None:
    """The 99th percentiles of Stargate's arbitrum -> base: 71 s plain, 135 s on a floor."""
    plain = Quartiles(q1_s=31, q2_s=36, q3_s=46)

    assert quantile_us(plain, 0.99) == pytest.approx(71e6, rel=0.01)
    assert quantile_us(msgspec.structs.replace(plain, floor=True), 0.99) == pytest.approx(
        135e6, rel=0.02
    )


@given(median_s=st.floats(0.1, 1e4), spread=st.floats(1, 3))
def test_symmetric_quartiles_are_met(median_s: float, spread: float) -> None:
    q1_s, q3_s = median_s / spread, median_s * spread
    latency = Quartiles(q1_s=q1_s, q2_s=median_s, q3_s=q3_s)

    for q, value_s in ((0.25, q1_s), (0.5, median_s), (0.75, q3_s)):
        assert quantile_us(latency, q) == pytest.approx(value_s * 1e6, rel=0.01, abs=1)


@given(latency=quartiles())
def test_skewed_quartiles_keep_the_median_and_the_ratio(latency: Quartiles) -> None:
    q1_us, q2_us, q3_us = (quantile_us(latency, q) for q in (0.25, 0.5, 0.75))

    assert q2_us == pytest.approx(latency.q2_s * 1e6, abs=1)
    assert q3_us / q1_us == pytest.approx(latency.q3_s / latency.q1_s, rel=1e-3)


@pytest.mark.parametrize(
    ("latency", "expected"),
    [
        (BATCHED, 0.75 * 1 + 0.25 * 9),
        (HELD, 1 + 0.25 * 4),
        (Held(body=ONE_SECOND, probability=0, hold_max_s=8), 1),
        (Held(body=ONE_SECOND, probability=1, hold_max_s=8), 5),
        (Held(body=BATCHED, probability=0.5, hold_max_s=4), 3 + 1),
        (Held(body=HELD, probability=0.5, hold_max_s=4), 2 + 1),
        (Shifted(floor_s=3, body=HELD), 5),
        (Mixture(parts=(Part(weight=1, body=HELD), Part(weight=3, body=BATCHED))), 0.5 + 2.25),
        (NORMAL, 36 * math.exp(0.293**2 / 2)),
        (STEPS, 0.5 * 3 + 0.5 * 15),
        (Uniform(low_s=768, high_s=1152), 960),
    ],
)
def test_the_mean_of_draws_is_the_analytic_mean(latency: Latency, expected: float) -> None:
    assert mean_s(latency) == pytest.approx(expected, rel=0.01)


def test_how_long_a_message_is_held_says_nothing_about_its_body() -> None:
    """The hold and the choice within the body share one number, v."""
    latency = Held(body=BATCHED, probability=0.9, hold_max_s=1e-3)
    u, v = cloud()

    drawn_us = latency.sample_us(u, v)

    body_us = np.where(drawn_us < 9_000_000, 1_000_000, 9_000_000)
    held = drawn_us > body_us
    assert abs(np.corrcoef(body_us[held], (drawn_us - body_us)[held])[0, 1]) < 0.01
    assert (body_us[held] == 9_000_000).mean() == pytest.approx(0.25, abs=0.01)


def test_a_hold_is_above_zero_and_reaches_its_limit() -> None:
    v = np.array([0.0, 0.125, np.nextafter(0.25, 0), 0.25, 1 - 2.0**-53])

    drawn_us = HELD.sample_us(np.full(5, 0.5), v)

    assert drawn_us.tolist() == [9_000_000, 5_000_000, 1_000_000, 1_000_000, 1_000_000]


def test_a_table_is_straight_between_rows_and_jumps_where_a_quantile_stands_twice() -> None:
    u = np.array([0, 0.25, np.nextafter(0.5, 0), 0.5, 0.75, 1 - 2.0**-53])

    drawn_us = STEPS.sample_us(u, np.zeros(6))

    assert drawn_us.tolist() == [
        2_000_000,
        3_000_000,
        4_000_000,
        10_000_000,
        15_000_000,
        20_000_000,
    ]


def test_quantiles_of_closed_forms_are_exact() -> None:
    assert quantile_us(Uniform(low_s=768, high_s=1152), 0.25) == 864_000_000
    assert quantile_us(Uniform(low_s=768, high_s=1152), 1) == 1_152_000_000
    assert quantile_us(Shifted(floor_s=10, body=NORMAL), 0.5) == 46_000_000
    assert quantile_us(STEPS, 0.25) == 3_000_000
    assert quantile_us(ONE_SECOND, 0) == 1_000_000
    assert quantile_us(Constant(value_s=1.9e-6), 0.5) == 2


def test_quantiles_of_choices_come_from_a_grid() -> None:
    assert quantile_us(BATCHED, 0.74) == 1_000_000
    assert quantile_us(BATCHED, 0.76) == 9_000_000
    assert quantile_us(Shifted(floor_s=1, body=HELD), 0.875) == pytest.approx(6e6, rel=1e-3)
    rare = Held(body=NORMAL, probability=0.01, hold_max_s=86_400)
    assert quantile_us(rare, 0.999) == pytest.approx(0.9 * 86_400e6, rel=0.01)


@settings(max_examples=20, deadline=None)
@given(latency=nested(st.builds(Constant, value_s=times)), q=st.floats(0.001, 0.999))
def test_a_quantile_splits_independent_draws_in_its_ratio(latency: Latency, q: float) -> None:
    drawn_us = latency.sample_us(*cloud())
    slack = 0.006 + 2 / GRID

    assert (drawn_us <= quantile_us(latency, min(q + slack, 1))).mean() >= q
    assert (drawn_us < quantile_us(latency, max(q - slack, 0))).mean() <= q


def test_tables_of_every_kind_convert_with_whole_numbers_too() -> None:
    body = {"kind": "constant", "value_s": 5}
    for table in (
        body,
        {"kind": "uniform", "low_s": 1, "high_s": 2.5},
        {"kind": "exponential", "mean_s": 900},
        {"kind": "lognormal", "median_s": 36, "sigma": 0},
        {"kind": "quartiles", "q1_s": 31, "q2_s": 36, "q3_s": 46, "floor": True},
        {"kind": "shifted", "floor_s": 1, "body": body},
        {"kind": "empirical", "table": [[0, 1], [0.5, 2], [1, 10]]},
        {"kind": "mixture", "parts": [{"weight": 1, "body": body}, {"weight": 2, "body": body}]},
        {"kind": "held", "body": body, "probability": 0.01, "hold_max_s": 86_400},
    ):
        latency: Latency = msgspec.convert(table, Latency)
        assert msgspec.convert(msgspec.to_builtins(latency), Latency) == latency
        assert type(latency).__struct_config__.tag == table["kind"]
        assert quantile_us(latency, 0.5) > 0


def refuse(table: object) -> str:
    with pytest.raises(msgspec.ValidationError) as refusal:
        msgspec.convert(table, Latency)
    return str(refusal.value)


@pytest.mark.parametrize("value", [-1, -1e-9, math.nan, math.inf, -math.inf, TIME_MAX_S * 1.01])
def test_a_time_below_zero_unknown_or_endless_is_refused(value: float) -> None:
    body = {"kind": "constant", "value_s": 1}
    for key, table in {
        "value_s": {"kind": "constant", "value_s": value},
        "low_s": {"kind": "uniform", "low_s": value, "high_s": 1},
        "high_s": {"kind": "uniform", "low_s": 0, "high_s": value},
        "mean_s": {"kind": "exponential", "mean_s": value},
        "median_s": {"kind": "lognormal", "median_s": value, "sigma": 0.1},
        "q2_s": {"kind": "quartiles", "q1_s": 1, "q2_s": value, "q3_s": 3},
        "floor_s": {"kind": "shifted", "floor_s": value, "body": body},
        "hold_max_s": {"kind": "held", "body": body, "probability": 0.1, "hold_max_s": value},
        "table": {"kind": "empirical", "table": [[0, value], [0.5, value], [1, value]]},
        "weight": {"kind": "mixture", "parts": [{"weight": value, "body": body}]},
    }.items():
        said = refuse(table)
        assert said.startswith("expected ")
        assert key in said
        assert ", found " in said


BODY = {"kind": "constant", "value_s": 1}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"kind": "uniform", "low_s": 2, "high_s": 1}, "high_s >= low_s = 2, found 1"),
        ({"kind": "lognormal", "median_s": 0, "sigma": 1}, "median_s > 0, found 0"),
        ({"kind": "lognormal", "median_s": 1, "sigma": -0.1}, "sigma from 0 to 3.332"),
        ({"kind": "lognormal", "median_s": 1, "sigma": math.nan}, "sigma from 0"),
        ({"kind": "lognormal", "median_s": 1, "sigma": 3.4}, "sigma from 0 to 3.332"),
        ({"kind": "quartiles", "q1_s": 2, "q2_s": 1, "q3_s": 3}, "q1_s <= q2_s <= q3_s, found 2,"),
        ({"kind": "quartiles", "q1_s": 0, "q2_s": 1, "q3_s": 3}, "0 < q1_s"),
        ({"kind": "held", "body": BODY, "probability": 1.1, "hold_max_s": 1}, "probability"),
        ({"kind": "held", "body": BODY, "probability": -0.1, "hold_max_s": 1}, "probability"),
        ({"kind": "held", "body": BODY, "probability": math.nan, "hold_max_s": 1}, "probability"),
        ({"kind": "held", "body": BODY, "probability": 0.1, "hold_max_s": 0}, "hold_max_s > 0"),
        ({"kind": "mixture", "parts": []}, "one or more parts"),
        ({"kind": "mixture", "parts": [{"weight": 0, "body": BODY}]}, "0 < weight"),
        ({"kind": "empirical", "table": []}, "table from quantile 0 to quantile 1"),
        ({"kind": "empirical", "table": [[0, 1]]}, "table from quantile 0 to quantile 1"),
        ({"kind": "empirical", "table": [[0.1, 1], [1, 2]]}, "table from quantile 0"),
        ({"kind": "empirical", "table": [[0, 1], [0.9, 2]]}, "table from quantile 0"),
        ({"kind": "empirical", "table": [[0, 2], [1, 1]]}, "table rows that never fall"),
        ({"kind": "empirical", "table": [[0, 1], [0.6, 2], [0.5, 3], [1, 4]]}, "never fall"),
        ({"kind": "empirical", "table": [[0, 1], [0.5, math.nan], [1, 4]]}, "never fall"),
        ({"kind": "constant", "value_s": 1, "jitter_s": 1}, "jitter_s"),
        ({"kind": "constant", "value_s": "1"}, "float"),
        ({"kind": "normal", "mean_s": 1}, "normal"),
        ({"value_s": 1}, "kind"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(table: object, said: str) -> None:
    assert said in refuse(table)


@pytest.mark.parametrize(
    ("quartiles_s", "said"),
    [
        ((69, 70, 76), "found 6 / 1"),  # one second of resolution makes sigma 2.7
        ((951, 1042, 1125), "found 83 / 91"),  # no right tail
        ((10, 20, 30), "found 10 / 10"),
        ((5, 5, 6), "found 1 / 0"),
        ((5, 10, 16), "leave a floor >= 0 s, found -20"),
    ],
)
def test_a_floor_is_refused_where_its_fit_means_nothing(
    quartiles_s: tuple[float, float, float], said: str
) -> None:
    q1_s, q2_s, q3_s = quartiles_s
    Quartiles(q1_s=q1_s, q2_s=q2_s, q3_s=q3_s)

    with pytest.raises(ValueError, match=said):
        Quartiles(q1_s=q1_s, q2_s=q2_s, q3_s=q3_s, floor=True)


@pytest.mark.parametrize("factor", [0, -1, math.nan, math.inf, 1e300])
def test_a_factor_that_leaves_no_latency_is_refused(factor: float) -> None:
    for latency in (NORMAL, ONE_SECOND, STEPS):
        with pytest.raises(ValueError, match=r"^expected .*, found "):
            scaled(latency, factor)


def test_the_longest_draw_fits() -> None:
    sigma_max = math.log(DRAW_MAX_S / TIME_MAX_S) / 8.3
    longest = Lognormal(median_s=TIME_MAX_S, sigma=sigma_max)
    latency = Shifted(floor_s=TIME_MAX_S, body=longest)

    drawn_us = latency.sample_us(np.array([1 - 2.0**-53]), np.zeros(1))

    assert 0.9 * DRAW_MAX_S * 1e6 < drawn_us[0] < 1.1 * DRAW_MAX_S * 1e6


@pytest.mark.parametrize(
    ("text", "latency"),
    [
        ("constant:900s", Constant(value_s=900)),
        ("constant:15m", Constant(value_s=900)),
        ("constant:0.25h", Constant(value_s=900)),
        ("constant:900ms", Constant(value_s=0.9)),
        ("constant:0s", Constant(value_s=0)),
        ("uniform:768s,1152s", Uniform(low_s=768, high_s=1152)),
        ("exponential:900s", Exponential(mean_s=900)),
        ("uniform: 100us, 1s", Uniform(low_s=0.0001, high_s=1)),
        ("lognormal:36s,0.293", NORMAL),
        ("quartiles:31s,36s,46s", Quartiles(q1_s=31, q2_s=36, q3_s=46)),
    ],
)
def test_a_literal_spells_a_latency(text: str, latency: Latency) -> None:
    assert parse(text) == latency


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("constant:900", "value >= 0 with a unit (us, ms, s, m, h), as 900s, found '900'"),
        ("constant:-5s", "value >= 0 with a unit (us, ms, s, m, h), as 900s, found '-5s'"),
        ("constant:5 days", "found '5 days'"),
        ("constant:", "found ''"),
        ("constant:1s,2s", "found 'constant:1s,2s'"),
        ("constant:٣s", "found '٣s'"),
        ("uniform:2s,1s", "expected high_s >= low_s = 2, found 1"),
        ("lognormal:36s,0.3s", "sigma >= 0 without a unit, found '0.3s'"),
        ("lognormal:0s,0.3", "expected median_s > 0, found 0"),
        ("quartiles:2s,1s,3s", "found 2, 1, 3"),
        (f"constant:{'9' * 400}s", "expected value_s from 0 to 1e+09 s, found inf"),
        ("mixture:1s", "expected constant:value_s or uniform:low_s,high_s or"),
        (":", "found ':'"),
        ("", "found ''"),
    ],
)
def test_a_literal_that_makes_no_sense_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputRefused) as refusal:
        parse(text)

    assert said in str(refusal.value)


def test_an_exponential_has_its_mean_and_forgets_how_long_it_has_waited() -> None:
    drawn_s = Exponential(mean_s=900).draw_s(*cloud())

    assert drawn_s.mean() == pytest.approx(900, rel=0.01)
    assert (drawn_s > 1_800).mean() == pytest.approx(math.exp(-2), rel=0.02)
    assert (drawn_s[drawn_s > 900] - 900).mean() == pytest.approx(900, rel=0.02)


def test_descriptions_name_the_numbers() -> None:
    assert describe(ONE_SECOND) == "1 s"
    assert describe(NORMAL) == "lognormal, median 36 s, sigma 0.293"
    assert describe(Shifted(floor_s=2, body=NORMAL)) == f"2 s + {describe(NORMAL)}"
    assert describe(BATCHED) == "0.75 of (1 s), 0.25 of (9 s)"
    assert describe(HELD) == "(1 s), share 0.25 held up to 8 s more"
    assert describe(STEPS) == "table of 4 rows, 2 to 20 s"
    assert "sigma 0.293" in describe(Quartiles(q1_s=31, q2_s=36, q3_s=46))
    assert describe(Exponential(mean_s=900)) == "exponential, mean 900 s"
    assert describe(Uniform(low_s=768, high_s=1152)) == "uniform 768 to 1,152 s"


def test_quantiles_never_fall() -> None:
    for latency in (NORMAL, STEPS, BATCHED, HELD):
        found_us = [quantile_us(latency, q) for q in np.linspace(0, 1, 21)]
        assert all(before <= after for before, after in pairwise(found_us))
