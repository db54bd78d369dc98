"""A whole scenario, with and without checks: events per second, and the digest it ends with."""

import time
from pathlib import Path

from lab import reading, running
from lab.world import build

MARCH_2020 = Path(__file__).parent.parent / "scenarios" / "march_2020.toml"


def rate(hours: float, accounts: int, *, checks: bool, digest: bool) -> tuple[float, str]:
    """Return events per second of the first `hours`, and the digest if one is made.

    Without a digest nothing but the simulation runs: driver, channels, links, nodes.
    """
    tables = reading.read_file(MARCH_2020)
    tables["duration_h"] = hours
    tables["traders"] = {"accounts": accounts, "open_until_h": min(3.0, hours)}
    world = build(reading.check(tables, directory=MARCH_2020.parent))
    if digest:
        result = running.run(world, checks=checks).story.result
        return result.events / result.wall_s, result.digest
    events = 0
    started_s = time.perf_counter()
    for _ in world.driver().run():
        events += 1
    return events / (time.perf_counter() - started_s), ""
