"""A small world for whole-run tests: the first fall of March 2020 in six hours."""

from pathlib import Path
from typing import Any

from lab import reading
from lab.scenario import Scenario

MARCH_2020 = Path(__file__).parent.parent.parent / "scenarios" / "march_2020.toml"


def scenario(**changed: Any) -> Scenario:
    """Return march_2020 cut down to 150 accounts and 6 hours, tables in `changed` replaced."""
    tables = reading.read_file(MARCH_2020)
    tables["duration_h"] = 6.0
    tables["traders"] = {"accounts": 150, "open_until_h": 2.0}
    for name, value in changed.items():
        before = tables.get(name)
        tables[name] = before | value if isinstance(before, dict) else value
    return reading.check(tables, directory=MARCH_2020.parent)
