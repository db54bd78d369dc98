"""Recorded candles in the place of an event's stylised path, where a folder has them."""

from collections.abc import Sequence
from pathlib import Path

from lab import reading
from lab.events import plan
from lab.events.ways import Tables
from markets.candles import is_whole, lines_of, stamp_ms_of, utc
from messaging.errors import InputRefused

HOUR_MS = 3_600_000


def with_candles(
    folder: Path, names: Sequence[str], accounts: int | None
) -> tuple[dict[str, Tables], list[str]]:
    """Return the scenarios of events with candles for every asset, and names of those without.

    Of an asset X the first file counts, by name, that begins with `xusd`, ends with `.csv`, and
    covers the scenario's time. Nothing asked for by name is left out.

    Raises:
        InputRefused: no such folder, a file in it that is none of candles, or none for an event.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing there"
        raise InputRefused("--prices", expected=f"a folder at {folder}", found=found)
    scenarios, without, lacking = {}, [], ""
    for name in plan.named(names):
        scenario = plan.tables(name, accounts)
        start_ms = reading.start_ms(scenario["starts_at_utc"])
        end_ms = start_ms + round(scenario["duration_h"] * HOUR_MS)
        files = {
            asset["name"]: _covering(folder, asset["name"], start_ms, end_ms)
            for asset in scenario["assets"]
        }
        none = [asset for asset, file in files.items() if file is None]
        if none:
            without.append(name)
            lacking = lacking or (
                f"candles of {', '.join(none)} from {utc(start_ms)} to {utc(end_ms)} for {name}"
            )
            continue
        source = {
            "kind": "candles",
            "files": {asset: str(file) for asset, file in files.items()},
            "gaps": "hold",
        }
        title = f"{scenario['title']}, recorded candles"
        scenarios[name] = {**scenario, "title": title, "prices": source}
    if without and (names or not scenarios):
        raise InputRefused(f"--prices {folder}", expected=lacking, found="no file that has them")
    return scenarios, without


def _covering(folder: Path, asset: str, start_ms: int, end_ms: int) -> Path | None:
    for file in sorted(folder.glob(f"{asset.lower()}usd*.csv")):
        rows = [line.split(",")[0].strip() for line in lines_of(file)]
        rows = rows[not is_whole(rows[0]) :]
        if len(rows) < 2:
            raise InputRefused(file.name, expected="at least 2 candles", found=len(rows))
        first_ms, before_ms, last_ms = (
            stamp_ms_of(file.name, row) for row in (rows[0], rows[-2], rows[-1])
        )
        if first_ms <= start_ms and end_ms <= 2 * last_ms - before_ms:
            return file.absolute()
    return None
