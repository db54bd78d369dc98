"""Runs a world to its end: check, measure, log, and always leave a readable log behind."""

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Protocol

import msgspec

from lab.checkers import Checker
from lab.measures import Measures
from lab.result import Story
from lab.scenario import Scenario
from lab.world import World, build
from messaging.codec import encode_record
from messaging.drivers.replay import replay
from messaging.errors import InputRefused, InvariantViolated, LogTorn, ReplayDiverged
from messaging.log import Digest, End, LogReader, LogWriter
from messaging.node import Event
from messaging.record import Record
from messaging.units import MARKET, TRADERS, Micros, NodeId

COMPLETE, INTERRUPTED, VIOLATED = "complete", "interrupted", "violated"
SCENARIO = "scenario.msgpack"
PROGRESS_EVENTS = 2_000

Progress = Callable[[int, int], None]  # takes virtual time reached [us] and events so far
Stop = Callable[[], bool]


def never() -> bool:
    """Return False."""
    return False


class Outcome(msgspec.Struct, frozen=True):
    """How a run ended: its story, and the finding if an invariant did not hold."""

    story: Story
    finding: InvariantViolated | None = None
    event: int = 0  # the event it was found at, from 1


class Driver(Protocol):
    """What brings the events: the virtual driver, or the journals of a live stack."""

    failed: tuple[Micros, NodeId, Event] | None

    def run(self) -> Iterator[Record]:
        """Yield a record for each event."""
        ...


def run(
    world: World,
    *,
    driver: Driver | None = None,
    checks: bool = True,
    log: Path | None = None,
    progress: Progress | None = None,
    stop: Stop = never,
) -> Outcome:
    """Run a world until its time is up, an invariant breaks, or `stop` says so.

    Without a `driver`, in virtual time.
    `stop` is asked between events, so that a log ends with a whole record.

    Raises:
        InputRefused: the log cannot be written, or amounts pass 63 bits.
    """
    measures = Measures(world)
    checker = None
    if checks:
        checker = Checker(
            world.hub, world.spokes, world.endpoints, world.deposits, liars=world.liars
        )
    driver = driver or world.driver()
    if log is None:
        return _run(driver, measures, checker, None, progress, stop)
    attachments = {SCENARIO: msgspec.msgpack.encode(world.scenario)}
    with LogWriter(log, attachments) as writer:
        return _run(driver, measures, checker, writer, progress, stop)


def _run(
    driver: Driver,
    measures: Measures,
    checker: Checker | None,
    writer: LogWriter | None,
    progress: Progress | None,
    stop: Stop,
) -> Outcome:
    digest, outside = Digest(), Digest()
    status, finding, now_us, events = COMPLETE, None, 0, 0
    started_s = time.perf_counter()
    try:
        for record in driver.run():
            data = encode_record(record)
            digest.add(data)
            if record.node == MARKET or record.node == TRADERS:
                outside.add(data)
            if writer is not None:
                writer.write(record, data)
            measures.see(record)
            now_us, events = record.at_us, events + 1
            if progress is not None and events % PROGRESS_EVENTS == 0:
                progress(now_us, events)
            if stop():
                status = INTERRUPTED
                break
        if checker is not None:
            checker.sweep()
    except InvariantViolated as error:
        status, finding = VIOLATED, error
    except AssertionError as error:  # the nodes' own checks; as good a finding as ours
        status, finding = VIOLATED, InvariantViolated(f"assertion in {_place(error)}", str(error))
    except OverflowError as error:  # a sum that passes 63 bits: too large a scenario
        if writer is not None:
            writer.finish(End(f"stopped: {error}", events, digest.hex()))
        expected = "amounts that fit into 63 bits"
        raise InputRefused("scenario", expected=expected, found=str(error)) from None
    if driver.failed is not None:
        now_us = driver.failed[0]
    if writer is not None:
        writer.finish(End(status, events, digest.hex()))
    story = measures.story(
        status=status,
        digest=digest.hex(),
        outside_digest=outside.hex(),
        events=events,
        now_us=now_us,
        wall_s=time.perf_counter() - started_s,
        checked=checker.checked if checker else 0,
    )
    return Outcome(story, finding, events + 1)


def _scenario(path: Path, attachments: Mapping[str, bytes]) -> Scenario:
    try:
        return msgspec.msgpack.decode(attachments[SCENARIO], type=Scenario)
    except (KeyError, ValueError) as error:
        raise LogTorn(str(path), 0, f"expected the scenario inside, found {error!r}") from None


def _place(error: AssertionError) -> str:
    """Name the file and line that an assertion stands in."""
    trace = error.__traceback__
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    path = Path(trace.tb_frame.f_code.co_filename)
    return f"{path.parent.name}/{path.name}:{trace.tb_lineno}"


class Replayed(msgspec.Struct, frozen=True):
    """What a replay has shown."""

    scenario: str
    seed: int
    status: str
    records: int
    virtual_s: float
    digest: str
    matches: bool


def replay_log(path: Path, progress: Progress | None = None) -> Replayed:
    """Feed a log to fresh nodes; they must do the same again, to the byte.

    Raises:
        InputRefused: no such log.
        LogTorn: it is damaged or cut off; the sound part has been replayed.
        ReplayDiverged: a node did something else, at the record named.
    """
    reader, digest = LogReader(path), Digest()
    records = iter(reader)
    first = next(records, None)
    scenario = _scenario(path, reader.attachments)
    world = build(scenario)
    now_us = 0
    if first is not None:
        for record in replay(world.endpoints, chain([first], records)):
            digest.add(encode_record(record))
            now_us = record.at_us
            if progress is not None and digest.records % PROGRESS_EVENTS == 0:
                progress(now_us, digest.records)
    assert reader.end is not None
    matches = reader.end.digest == digest.hex()
    if not matches:
        raise ReplayDiverged(
            digest.records, now_us, "log", expected=reader.end.digest, found=digest.hex()
        )
    return Replayed(
        scenario.title,
        scenario.seed,
        reader.end.status,
        digest.records,
        now_us / 1e6,
        digest.hex(),
        matches,
    )
