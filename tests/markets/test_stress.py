"""Stress events: anchors hit exactly, noise that vanishes there, honest words about it."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from markets import stress
from markets.stress import StressSource
from markets.stress_events import EVENTS
from messaging.errors import InputRefused
from messaging.units import HOUR_US, SECOND_US, YEAR_S, Asset, Ppm, Usd6

BTC, ETH, SOL = Asset("BTC"), Asset("ETH"), Asset("SOL")
TICK_US = 60 * SECOND_US


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_hits_its_anchors_exactly_at_any_tick(name: str) -> None:
    event = EVENTS[name]
    assets = tuple(event.anchors_usd)
    for tick_us in (TICK_US, 7 * TICK_US + 1):
        path = stress.path(
            StressSource(event=name),
            assets,
            duration_us=stress.duration_us(name),
            tick_us=tick_us,
            seed=5,
        )

        rows: dict[int, tuple[Usd6, ...]] = dict(zip(path.times_us, path.prices_usd6, strict=True))
        for column, asset in enumerate(assets):
            for hours, usd in event.anchors_usd[asset]:
                assert rows[round(hours * HOUR_US)][column] == round(usd * 1e6)
        assert path.stylised
        assert "stylised path through true anchor points, not tick data" in path.source
        assert event.source in path.source


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_is_a_list_of_rising_hours_with_common_ends(name: str) -> None:
    event = EVENTS[name]
    for points in (*event.anchors_usd.values(), event.depth_ppm):
        hours = [hour for hour, _ in points]
        assert hours == sorted(set(hours))
        assert (hours[0], hours[-1]) == (0.0, event.depth_ppm[-1][0])
        assert all(value > 0 for _, value in points)


def test_march_2020_holds_both_falls_and_the_loss_of_depth() -> None:
    path = stress.path(
        StressSource(event="march_2020"),
        (BTC, ETH),
        duration_us=24 * HOUR_US,
        tick_us=10 * SECOND_US,
        seed=1,
    )
    at: dict[int, tuple[Usd6, ...]] = dict(zip(path.times_us, path.prices_usd6, strict=True))
    depth: dict[int, Ppm] = dict(zip(path.times_us, path.depth_ppm, strict=True))
    ten, eleven = at[4 * HOUR_US], at[round(4.8 * HOUR_US)]
    evening, night = at[17 * HOUR_US], at[round(20.25 * HOUR_US)]

    assert len(path.times_us) == 8_641
    assert eleven[0] / ten[0] == pytest.approx(5_690 / 7_300, rel=0.01)
    assert night[0] / evening[0] == pytest.approx(3_850 / 5_800, rel=0.02)
    assert at[0] == (7_650_000_000, 182_000_000)
    assert night == (3_800_000_000, 90_000_000)
    assert depth[0] == 1_000_000
    assert depth[round(4.8 * HOUR_US)] == 200_000
    assert depth[round(20.25 * HOUR_US)] == 100_000


def test_without_noise_the_log_price_is_straight_between_anchors() -> None:
    source = StressSource(event="march_2020", volatility_per_sqrt_year=0.0)
    path = stress.path(source, (BTC,), duration_us=HOUR_US, tick_us=HOUR_US // 2, seed=1)

    middle = math.sqrt(7_650 * 7_490)
    assert path.prices_usd6[1][0] == round(middle * 1e6)


def test_the_noise_has_the_variance_of_a_brownian_bridge() -> None:
    """Half-way between anchors an hour apart it is sigma^2 / 4 of an hour, over 400 seeds."""
    sigma = 2.0
    source = StressSource(event="march_2020", volatility_per_sqrt_year=sigma)
    logs = [
        math.log(
            stress.path(
                source, (BTC,), duration_us=HOUR_US // 2, tick_us=HOUR_US // 8, seed=seed
            ).prices_usd6[-1][0]
        )
        for seed in range(400)
    ]

    theory = sigma**2 * 3_600 / YEAR_S / 4
    assert abs(np.var(logs) / theory - 1) < 5 * math.sqrt(2 / 400)


@example(seed=1, start=24.5, ticks=30, one=BTC)  # SOL has an anchor before the next of BTC
@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 2**63),
    start=st.floats(0, 27),
    ticks=st.integers(0, 200),
    one=st.sampled_from([BTC, SOL]),
)
def test_a_shorter_window_and_fewer_assets_leave_the_rest_alone(
    seed: int, start: float, ticks: int, one: Asset
) -> None:
    source = StressSource(event="ftx_2022", start_hours=start)
    part = stress.path(source, (one,), duration_us=ticks * TICK_US, tick_us=TICK_US, seed=seed)
    whole = stress.path(source, (BTC, SOL), duration_us=20 * HOUR_US, tick_us=TICK_US, seed=seed)

    assert part.times_us == whole.times_us[: len(part.times_us)]
    assert part.depth_ppm == whole.depth_ppm[: len(part.times_us)]
    assert [row[0] for row in part.prices_usd6] == [
        row[whole.assets.index(one)] for row in whole.prices_usd6[: len(part.times_us)]
    ]


def test_the_noise_differs_by_seed_and_repeats_with_it() -> None:
    source = StressSource(event="october_2025")
    paths = [
        stress.path(source, (BTC,), duration_us=HOUR_US, tick_us=TICK_US, seed=seed)
        for seed in (1, 1, 2)
    ]

    assert paths[0] == paths[1]
    assert paths[0].prices_usd6 != paths[2].prices_usd6


@pytest.mark.parametrize(
    ("source", "asset", "hours", "says"),
    [
        (StressSource(event="march2020"), BTC, 1, "found 'march2020' (did you mean 'march_2020'?)"),
        (
            StressSource(event="march_2020"),
            SOL,
            1,
            "expected an event with SOL, found 'march_2020'",
        ),
        (StressSource(event="march_2020"), BTC, 25, "the 24 h of 'march_2020', which starts at"),
        (StressSource(event="march_2020", start_hours=20.5), BTC, 4, "found hour 20.5 to 24.5"),
    ],
)
def test_what_an_event_lacks_is_refused(
    source: StressSource, asset: Asset, hours: int, says: str
) -> None:
    with pytest.raises(InputRefused) as caught:
        stress.path(source, (asset,), duration_us=hours * HOUR_US, tick_us=TICK_US, seed=1)

    assert caught.value.where == "prices.event"
    assert says in str(caught.value)
