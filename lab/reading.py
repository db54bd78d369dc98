"""Reads scenarios: TOML and overrides in, a checked `Scenario` out.

What is refused says which key, what was expected, what was found. Here is what is not well formed;
what cannot be meant is in `lab/sense.py`.
"""

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from hub.margin.buffer import BufferChoice
from lab import sense
from lab.scenario import Scenario, assets_of
from markets import prices
from markets.candle_path import CandleSource
from messaging.errors import InputRefused, nearest
from messaging.units import HOUR_US, Micros

T = TypeVar("T")

_PATH = re.compile(r" - at `\$?(.*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_UNIT = re.compile(r"_(us|ms|s|m|min|h|d|days?|usd6?|bps?|pct|percent|ppm)$")
BUFFERS = tuple(str(kind.__struct_config__.tag) for kind in get_args(BufferChoice))


def read_file(path: Path, what: str = "a scenario") -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises:
        InputRefused: no such file, or not TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputRefused(str(path), expected=f"{what} file", found=reason) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputRefused(str(path), expected="TOML", found=str(error)) from None


def override(tables: dict[str, Any], assignment: str) -> None:
    """Carry out one `--set key=value`; steps of the key go by name or number.

    `hub.block_s=6`, `spokes.base.zone_cap_usd=1e6`, `assets.0.depth_usd=2e6`.

    Raises:
        InputRefused: no `=`, or a step that leads nowhere.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise InputRefused("--set", expected="KEY=VALUE", found=repr(assignment))
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *steps, last = key.split(".")
    here: Any = tables
    for step in steps:
        here = _enter(here, step, key)
    if isinstance(here, list):
        here[_index(here, last, key)] = value
    else:
        here[last] = value


def _enter(here: Any, step: str, key: str) -> Any:
    if isinstance(here, list):
        return here[_index(here, step, key)]
    found = here.setdefault(step, {})
    if not isinstance(found, dict | list):
        raise InputRefused(f"--set {key}", expected=f"a table at {step!r}", found=repr(found))
    return found


def _index(here: list[Any], step: str, key: str) -> int:
    names = [str(entry.get("name")) if isinstance(entry, dict) else "" for entry in here]
    if step in names:
        return names.index(step)
    if step.isdigit() and int(step) < len(here):
        return int(step)
    expected = f"one of {', '.join(names)}, or a number below {len(here)}"
    raise InputRefused(f"--set {key}", expected=expected, found=f"{step!r}{nearest(step, names)}")


def use_buffer(tables: dict[str, Any], name: str) -> None:
    """Carry out `--buffer NAME`; a buffer keeps its knobs if the file has that one."""
    if name not in BUFFERS:
        expected = f"one of {', '.join(BUFFERS)}"
        raise InputRefused("--buffer", expected=expected, found=f"{name!r}{nearest(name, BUFFERS)}")
    before = tables.get("buffer")
    if not (isinstance(before, dict) and before.get("kind") == name):
        tables["buffer"] = {"kind": name}


def use_prices(tables: dict[str, Any], files: Iterable[str], gaps: str) -> None:
    """Carry out `--prices ASSET=FILE ...` and `--gaps`: recorded candles replace the source."""
    by_asset: dict[str, str] = {}
    for text in files:
        asset, equals, name = text.partition("=")
        if not equals or not name:
            raise InputRefused("--prices", expected="ASSET=FILE", found=repr(text))
        if asset in by_asset:
            raise InputRefused("--prices", expected=f"{asset} once", found="it twice")
        by_asset[asset] = str(Path(name).absolute())
    if by_asset:
        tables["prices"] = {"kind": "candles", "files": by_asset, "gaps": gaps}
    elif isinstance(tables.get("prices"), dict) and tables["prices"].get("kind") == "candles":
        tables["prices"].setdefault("gaps", gaps)


def check(tables: Mapping[str, Any], *, directory: Path) -> Scenario:
    """Return the scenario that the tables describe, price files read in.

    Raises:
        InputRefused: key, what was expected, what was found.
    """
    scenario = convert(tables, Scenario)
    sense.check(scenario)
    return _with_prices(scenario, directory)


def convert(tables: Mapping[str, Any], kind: type[T]) -> T:
    """Return tables as the Struct that they describe, which may still not make sense.

    Raises:
        InputRefused: key, what was expected, what was found.
    """
    _check_finite(tables, "")
    _check_keys(tables, kind, "")
    try:
        return msgspec.convert(dict(tables), kind)
    except msgspec.ValidationError as error:
        raise _refusal(tables, str(error)) from None


def duration_us(scenario: Scenario) -> Micros:
    """Return how long the run lasts."""
    return Micros(round(scenario.duration_h * HOUR_US))


def _with_prices(scenario: Scenario, directory: Path) -> Scenario:
    source = scenario.prices
    if isinstance(source, CandleSource) and not source.candles:
        unknown = sorted(set(source.files) - set(assets_of(scenario)))
        if unknown:
            names = ", ".join(assets_of(scenario))
            raise InputRefused(
                "prices.files", expected=f"assets of the scenario ({names})", found=unknown[0]
            )
        if scenario.starts_at_utc is not None and source.start_ms is None:
            source = msgspec.structs.replace(source, start_ms=start_ms(scenario.starts_at_utc))
    resolved = prices.resolve(
        source, assets_of(scenario), directory=directory, duration_us=duration_us(scenario)
    )
    return msgspec.structs.replace(scenario, prices=resolved)


def start_ms(text: str) -> int:
    """Return a time as `starts_at_utc` has it, in milliseconds since 1970.

    Raises:
        InputRefused: it is none.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        expected = "a time such as 2020-03-12T06:00:00Z"
        raise InputRefused("starts_at_utc", expected=expected, found=repr(text)) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000)


def _check_finite(value: Any, key: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise InputRefused(key, expected="a finite number", found=value)
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _check_finite(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_finite(inner, f"{key}[{index}]")


def _check_keys(value: Any, kind: Any, key: str) -> None:
    """Refuse a key that no table has, naming the nearest; a wrong unit is said to be one.

    So is a value that a key with few values does not have.
    """
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        values = [str(one) for one in kind]
        if value not in values:
            found = f"{value!r}{nearest(value, values) if isinstance(value, str) else ''}"
            raise InputRefused(key, expected=f"one of {', '.join(values)}", found=found)
        return
    options = _struct_options(kind)
    if isinstance(value, list):
        for index, inner in enumerate(value):
            for option in options:
                _check_keys(inner, option, f"{key}[{index}]")
        return
    if not isinstance(value, Mapping):
        return
    if get_origin(kind) is dict:  # keys of the user's own, such as assets
        for name, inner in value.items():
            _check_keys(inner, get_args(kind)[1], f"{key}.{name}")
        return
    struct = _choose(value, options)
    if struct is None:
        return  # a wrong type or tag: msgspec says so with the key
    kinds = _kinds_of(struct)
    tag_field = struct.__struct_config__.tag_field
    for name, inner in value.items():
        here = f"{key}.{name}" if key else str(name)
        if name == tag_field:
            continue
        if name not in kinds:
            raise InputRefused(here, expected=_expected_key(str(name), kinds), found="it")
        _check_keys(inner, kinds[name], here)


@cache
def _kinds_of(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the type of each key of a table."""
    hints = get_type_hints(struct)
    return {field.encode_name: hints[field.name] for field in msgspec.structs.fields(struct)}


def _expected_key(name: str, known: Iterable[str]) -> str:
    stem = _UNIT.sub("", name)
    same = sorted(key for key in known if _UNIT.sub("", key) == stem)
    if same:
        return f"{same[0]} (another unit)"
    return f"no such key{nearest(name, known)}"


def _struct_options(kind: Any) -> list[Any]:
    """Return the Structs that a field's type may hold, at any depth of unions and lists."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [kind]
    return [
        option for argument in getattr(kind, "__args__", ()) for option in _struct_options(argument)
    ]


def _choose(value: Mapping[str, Any], options: list[Any]) -> Any:
    """Return the Struct that a table is meant to be: the only one, or the one with its tag."""
    if len(options) == 1:
        return options[0]
    for option in options:
        config = option.__struct_config__
        if config.tag_field is not None and value.get(config.tag_field) == config.tag:
            return option
    return None


def _refusal(tables: Mapping[str, Any], text: str) -> InputRefused:
    """Turn msgspec's word into key, expected, found."""
    match = _PATH.search(text)
    key = match.group(1).lstrip(".") if match else ""
    expected = text[: match.start()] if match else text
    expected = expected.replace("`", "").removeprefix("Expected ").removeprefix("expected ")
    expected, _, _ = expected.partition(", got ")
    expected, _, found = expected.partition(", found ")
    return InputRefused(
        key or "the file",
        expected=expected,
        found=found or _at(tables, match),
    )


def _at(tables: Any, match: re.Match[str] | None) -> str:
    here = tables
    if match is not None:
        for name, index in _STEP.findall(match.group(1)):
            try:
                here = here[name] if name else here[int(index)]
            except (KeyError, IndexError, TypeError, ValueError):
                return "nothing"
    return repr(here) if not isinstance(here, Mapping) else f"a table with {', '.join(here)}"
