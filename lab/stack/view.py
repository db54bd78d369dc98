"""What there is to know of a live stack, gathered from its files and its monitor."""

import time
from collections.abc import Iterable, Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import msgspec

from lab.reading import duration_us
from lab.scenario import Scenario
from lab.stack import matters
from lab.stack.plan import STATUS, Plan, State, Status, read_status
from lab.stack.prepare import BROKER
from lab.stack.register import Process, alive
from lab.stack.supervisor import Phase
from lab.world import names_of
from messaging.drivers.clock import Clock

MONITOR_S = 0.3  # to wait for the monitor's answer
SILENT_S = 5.0  # without a word of a process, after which that is worth showing


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One process.

    Attributes:
        state: by its own word if it runs, else by its supervisor's.
        restarts: how often it was started again.
        recovery_ms: from its newest start to its first new event.
        note: why it waits or was started again.
    """

    role: str
    state: str
    pid: int
    at_us: int = 0
    events: int = 0
    late: int = 0
    refused: int = 0
    restarts: int = 0
    recovery_ms: int = 0
    note: str = ""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to see.

    Attributes:
        at_us: scenario time by the wall clock, or how far the processes came.
        figures: what the monitor serves; empty if it does not.
        notes: newest lines about the stack itself.
        matters: what waits for people, a line each.
    """

    title: str
    folder: str
    broker: str
    speed: float
    at_us: int
    duration_us: int
    rows: tuple[Row, ...]
    spokes: tuple[str, ...]
    figures: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    matters: tuple[str, ...] = ()


def gather(
    folder: Path,
    plan: Plan,
    scenario: Scenario,
    processes: Iterable[Process],
    *,
    runs: bool,
    notes: tuple[str, ...] = (),
) -> View:
    """Return what there is to see of a stack now; `runs` tells whether it does."""
    rows = tuple(_row(folder, one, runs=runs) for one in processes if one.role != BROKER)
    at_us = max((row.at_us for row in rows), default=0)
    if runs:
        at_us = min(Clock(plan.epoch_ns, plan.speed).now_us(), duration_us(scenario))
    ours = any(one.role == BROKER for one in processes)
    return View(
        title=scenario.title,
        folder=str(folder),
        broker=f"{plan.bootstrap}{' (ours)' if ours else ''}",
        speed=plan.speed,
        at_us=at_us,
        duration_us=duration_us(scenario),
        rows=rows,
        spokes=names_of(scenario),
        figures=ask_monitor(plan.monitor_port) if runs else {},
        notes=notes,
        matters=tuple(_matters(folder, rows)),
    )


def _matters(folder: Path, rows: Iterable[Row]) -> Iterable[str]:
    for row in rows:
        word = read_status(folder, row.role)
        if word is not None:
            yield from matters.lines(word)


def by_their_word(folder: Path, roles: Iterable[str]) -> tuple[Process, ...]:
    """Return the processes that have told of themselves in a folder without a supervisor."""
    words = (read_status(folder, role) for role in roles)
    return tuple(
        Process(role=word.role, pid=word.pid, started="", phase=Phase.UP)
        for word in words
        if word is not None
    )


def _row(folder: Path, process: Process, *, runs: bool) -> Row:
    word = read_status(folder, process.role)
    state, note = process.phase, process.why
    if process.phase == Phase.UP:
        if not runs:
            state = "left over" if alive(process) else "gone"
        elif word is None or word.pid != process.pid:
            state, word = "starting", None
        else:
            state, note = _state(folder, word)
    return Row(
        role=process.role,
        state=state,
        pid=process.pid,
        restarts=max(0, process.starts - 1),
        note=note,
        **({} if word is None else _counts(word)),
    )


def _state(folder: Path, word: Status) -> tuple[str, str]:
    silent_s = time.time() - (folder / f"{word.role}{STATUS}").stat().st_mtime
    if silent_s > SILENT_S and word.state not in (State.COMPLETE, State.STOPPED):
        return "silent", f"no word for {silent_s:.0f} s"
    return word.state, word.note


def _counts(word: Status) -> dict[str, Any]:
    names = ("at_us", "events", "late", "refused", "recovery_ms")
    return {name: getattr(word, name) for name in names}


def ask_monitor(port: int) -> Mapping[str, Any]:
    """Return what the monitor serves; nothing if it does not answer in time."""
    asked = HTTPConnection("127.0.0.1", port, timeout=MONITOR_S)
    try:
        asked.request("GET", "/")
        return msgspec.json.decode(asked.getresponse().read(), type=dict[str, Any])
    except (OSError, HTTPException, ValueError):
        return {}
    finally:
        asked.close()
