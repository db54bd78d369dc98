"""A stress event several ways: with each defence, without one of them, without any."""

import copy
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from lab import reading, running
from lab.events.seen import Seen
from lab.events.watch import Watch
from lab.world import build

FULL = "as shipped"
NO_BUFFER, NO_BREAKERS, NO_CAPS = "no buffer", "no breakers", "no zone caps"
QUANTILE, BARE = "quantile buffer", "none of the three"
NO_CAP_USD = 1e12

Tables = dict[str, Any]


class Way(NamedTuple):
    """How a scenario is changed.

    Attributes:
        buffer: another kind of buffer. breakers, caps: whether to keep them.
        sets: assignments as of `omnimargin run --set`.
    """

    buffer: str | None = None
    breakers: bool = True
    caps: bool = True
    sets: tuple[str, ...] = ()


# The rows of the table, of every event.
WAYS = {
    FULL: Way(),
    QUANTILE: Way(buffer="quantile"),
    NO_BUFFER: Way(buffer="none"),
    NO_BREAKERS: Way(breakers=False),
    NO_CAPS: Way(caps=False),
    BARE: Way(buffer="none", breakers=False, caps=False),
}


class Job(NamedTuple):
    """One run: of which event, which way, and the scenario's tables."""

    event: str
    way: str
    tables: Tables
    checks: bool


def changed(tables: Tables, way: Way) -> Tables:
    """Return the tables of a scenario, changed."""
    tables = copy.deepcopy(tables)
    if way.buffer is not None:
        reading.use_buffer(tables, way.buffer)
    if not way.breakers:
        tables.pop("breakers", None)
    if not way.caps:
        for spoke in tables["spokes"]:
            spoke["zone_cap_usd"] = NO_CAP_USD
    for assignment in way.sets:
        reading.override(tables, assignment)
    return tables


def carry_out(job: Job) -> Seen:
    """Run one way of an event.

    Raises:
        InputRefused: the scenario does not make sense.
        InvariantViolated: a check has failed.
    """
    world = build(reading.check(job.tables, directory=Path()))
    watch = Watch(world)
    outcome = running.run(world, checks=job.checks)
    if outcome.finding is not None:
        raise outcome.finding
    return watch.seen(outcome.story)


def carry_out_all(
    jobs: Sequence[Job], processes: int, progress: Callable[[int, str], None]
) -> list[Seen]:
    """Run jobs side by side; what they find does not depend on how many."""
    found: list[Seen] = []
    with closing(_found(jobs, processes)) as coming:
        for job, seen in zip(jobs, coming, strict=True):
            found.append(seen)
            progress(len(found), f"{job.event}, {job.way}")
    return found


def _found(jobs: Sequence[Job], processes: int) -> Generator[Seen, None, None]:
    if processes == 1:
        yield from map(carry_out, jobs)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        under_way = [pool.submit(carry_out, job) for job in jobs]
        try:
            for future in under_way:
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
