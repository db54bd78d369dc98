"""Whatever a user gives is either a scenario or one clear line."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from lab import reading
from lab.scenario import Scenario
from messaging.errors import InputRefused

ROOT = Path(__file__).parent.parent.parent
SCENARIOS = sorted((ROOT / "scenarios").glob("*.toml"))


def tables(**changed: Any) -> dict[str, Any]:
    """Return a small scenario's tables."""
    return {
        "title": "small",
        "latency": "layerzero",
        "duration_h": 4.0,
        "prices": {
            "kind": "gbm",
            "assets": {"BTC": {"price_usd": 60_000, "volatility_per_sqrt_year": 0.5}},
        },
        "assets": [{"name": "BTC"}],
        "spokes": [{"name": "base", "chain": "base"}],
    } | changed


def whale(**order: Any) -> dict[str, Any]:
    """Return them with a named account of one order."""
    named = [{"name": "whale", "collateral_usd": 1e6, "orders": [order]}]
    return tables(traders={"named": named})


def refusal(given: dict[str, Any]) -> str:
    with pytest.raises(InputRefused) as caught:
        reading.check(given, directory=Path())
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.exit_code == 2
    return text


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_shipped_scenarios_are_sound(path: Path) -> None:
    reading.check(reading.read_file(path), directory=path.parent)


def test_the_template_shows_every_knob_at_its_default() -> None:
    given = reading.read_file(ROOT / "scenarios" / "template.toml")
    full = reading.check(given, directory=Path())
    needed = ("title", "latency", "prices")
    bare = {name: given[name] for name in needed} | {
        "assets": [{"name": "BTC"}],
        "spokes": [{"name": "base", "chain": "base"}],
    }

    assert full == reading.check(bare, directory=Path())
    text = (ROOT / "scenarios" / "template.toml").read_text()
    for name in knobs(Scenario):
        assert name in text, f"{name} is not in the template"


def knobs(struct: Any) -> set[str]:
    """Return the names of all fields of a Struct and of the tables inside it."""
    found = set()
    for field in msgspec.structs.fields(struct):
        found.add(field.encode_name)
        for inner in reading._struct_options(field.type):
            if inner.__module__ == Scenario.__module__:
                found |= knobs(inner)
    return found


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (tables(hubb={}), "hubb: expected no such key (did you mean 'hub'?), found it"),
        (tables(hub={"block_ms": 12}), "hub.block_ms: expected block_s (another unit), found it"),
        (tables(hub={"block_s": "soon"}), "hub.block_s: expected float, found 'soon'"),
        (tables(hub={"block_s": -1}), "hub.block_s: expected float >= 0.001, found -1"),
        (tables(hub={"block_s": float("nan")}), "hub.block_s: expected a finite number, found nan"),
        (tables(hub=3), "hub: expected object, found 3"),
        (tables(buffer={"kind": "sqrt"}), "buffer"),
        (tables(latency={"kind": "constant", "value_s": -900}), "latency"),
        (tables(seed=-1), "seed: expected int >= 0, found -1"),
        (tables(spokes=[]), "spokes: expected array of length >= 1, found []"),
        (
            tables(spokes=[{"name": "base", "chain": "base"}] * 2),
            "spokes[1].name: expected each name once, found 'base' again",
        ),
        (
            tables(spokes=[{"name": "hub", "chain": "base"}]),
            "spokes[0].name: expected a name of its own, found 'hub'",
        ),
        (tables(spokes=[{"name": "Base", "chain": "base"}]), "spokes[0].name"),
        (
            tables(assets=[{"name": "BTC", "maintenance_margin_ppm": 200_000}]),
            "assets[0].maintenance_margin_ppm: expected less than initial_margin_ppm = 100000",
        ),
        (
            tables(liquidation={"cost_ppm": 90_000}),
            "liquidation.cost_ppm: expected less than target_extra_ppm = 20000, found 90000",
        ),
        (
            tables(traders={"leverage_min": 5, "leverage_max": 2}),
            "traders.leverage_max: expected at least 5.0, found 2.0",
        ),
        (tables(traders={"open_until_h": 9}), "traders.open_until_h: expected at most 4.0"),
        (
            whale(at_h=1, spoke="bass", asset="BTC", notional_usd=1e6),
            "traders.named[0].orders[0].spoke: expected one of base, found 'bass'",
        ),
        (
            whale(at_h=1, spoke="base", asset="ETH", notional_usd=1e6),
            "traders.named[0].orders[0].asset: expected one of BTC, found 'ETH'",
        ),
        (
            whale(at_h=5, spoke="base", asset="BTC", notional_usd=1e6),
            "traders.named[0].orders[0].at_h: expected at most 4.0, found 5.0",
        ),
        (
            whale(at_h=1, spoke="base", asset="BTC"),
            "traders.named[0].orders[0]: expected notional_usd or close_ppm, found neither",
        ),
        (
            whale(at_h=1, spoke="base", asset="BTC", notional_usd=1, close_ppm=1),
            "traders.named[0].orders[0]: expected notional_usd or close_ppm, found both",
        ),
        (
            tables(
                prices={
                    "kind": "gbm",
                    "assets": {"BTC": {"price_usd": 0, "volatility_per_sqrt_year": 0.5}},
                }
            ),
            "price_usd",
        ),
        (
            tables(
                spokes=[
                    {
                        "name": "base",
                        "chain": "base",
                        "outages": [{"from_h": 2.0, "until_h": 1.0}],
                    }
                ]
            ),
            "spokes[0].outages[0].until_h: expected more than from_h = 2.0, found 1.0",
        ),
        (
            tables(
                spokes=[
                    {
                        "name": "base",
                        "chain": "base",
                        "block_s": 12.0,
                        "final_after_s": 60.0,
                        "reorgs": [{"at_h": 1.0, "depth": 6}],
                    }
                ]
            ),
            "spokes[0].reorgs[0].depth: expected at most 5, the blocks that are not final then",
        ),
    ],
)
def test_a_bad_table_gets_key_expected_found(given: dict[str, Any], said: str) -> None:
    assert said in refusal(given)


def test_an_override_goes_by_name_or_number() -> None:
    given = tables()
    for assignment in (
        "hub.block_s=6",
        "spokes.base.block_s=1",
        "assets.0.fee_ppm=7",
        'latency="ccip"',
        "title=plain words",
    ):
        reading.override(given, assignment)
    found = reading.check(given, directory=Path())

    assert (found.hub.block_s, found.spokes[0].block_s, found.assets[0].fee_ppm) == (6, 1, 7)
    assert (found.latency, found.title) == ("ccip", "plain words")


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("hub.block_s", "--set: expected KEY=VALUE, found 'hub.block_s'"),
        ("spokes.bass.block_s=1", "did you mean 'base'?"),
        ("title.x=1", "expected a table at 'title', found 'small'"),
    ],
)
def test_an_override_that_leads_nowhere_is_refused(assignment: str, said: str) -> None:
    with pytest.raises(InputRefused, match=said.replace("?", r"\?").replace("[", r"\[")):
        reading.override(tables(), assignment)


def test_a_buffer_is_chosen_by_name_and_a_flat_one_keeps_its_size() -> None:
    given = tables(buffer={"kind": "flat", "extra_ppm": 7})
    reading.use_buffer(given, "flat")
    assert given["buffer"]["extra_ppm"] == 7
    reading.use_buffer(given, "none")
    assert given["buffer"] == {"kind": "none"}
    with pytest.raises(InputRefused, match="did you mean 'sqrt_time'"):
        reading.use_buffer(given, "sqrt_tim")


def test_recorded_prices_start_where_the_scenario_says(tmp_path: Path) -> None:
    start_ms = 1_583_992_800_000  # 2020-03-12T06:00Z
    rows = [f"{start_ms + hour * 3_600_000},10,11,9,10,1" for hour in range(-2, 6)]
    file = tmp_path / "btc.csv"
    file.write_text("\n".join(["ts_ms,open,high,low,close,volume", *rows]))
    given = tables(starts_at_utc="2020-03-12T06:00:00Z")
    reading.use_prices(given, [f"BTC={file}"], "refuse")

    found = reading.check(given, directory=Path())
    assert found.prices.start_ms == start_ms  # type: ignore[union-attr]

    given["starts_at_utc"] = "Thursday"
    assert "starts_at_utc: expected a time such as" in refusal(given)
    given["prices"]["files"]["ETH"] = str(file)
    assert "expected assets of the scenario (BTC), found ETH" in refusal(given)


@pytest.mark.parametrize(
    ("files", "said"),
    [(["BTC"], "ASSET=FILE"), (["BTC=a", "BTC=b"], "BTC once"), (["BTC=nowhere.csv"], "nowhere")],
)
def test_price_files_are_named_by_asset_and_must_be_there(files: list[str], said: str) -> None:
    with pytest.raises(InputRefused, match=said):
        check_with(files)


def check_with(files: list[str]) -> Scenario:
    given = tables()
    reading.use_prices(given, files, "refuse")
    return reading.check(given, directory=Path())


@pytest.mark.parametrize("content", [b"title = ", b"\xff\xfe", None])
def test_a_file_that_is_no_scenario_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "s.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputRefused, match="expected"):
        reading.read_file(path)
