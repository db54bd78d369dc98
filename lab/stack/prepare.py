"""Set a live stack up: the scenario as chosen, keys, the plan; or go on with what a folder has."""

import asyncio
import secrets
import shutil
import socket
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec

from lab import reading
from lab.monitor.tables import CHANGELOGS
from lab.scenario import Scenario
from lab.stack.acl import acl, put_in_force
from lab.stack.notes import LOGS
from lab.stack.plan import (
    KEYS,
    PLAN,
    SECRETS,
    STATUS,
    WORLD,
    Plan,
    State,
    read_plan,
    read_status,
    write_plan,
)
from lab.stack.register import LOCK, held
from lab.stack.secure import SETUP
from lab.stack.topics import create_topics
from lab.world import build, names_of
from messaging.errors import InputRefused
from messaging.key_files import write_keys
from messaging.units import (
    HUB,
    MARKET,
    MONITOR,
    OPERATOR,
    OPERATORS,
    ORACLE,
    RELAY,
    TRADERS,
    NodeId,
)

DEFAULT = Path("scenarios/live.toml")
SPEED, SPEED_MIN, SPEED_MAX = 60.0, 0.001, 100_000.0
SETTLE_MS = 200
MONITOR_PORT = 9464
BROKER = "broker"  # folder of a broker of our own
LEAD_S = 8.0  # until scenario time 0: processes import, connect and read their topics
SPOKES_MAX = 32
_NEWEST = "SELECT at_us FROM journal ORDER BY place DESC LIMIT 1"
_RUNNING_S = 10.0  # a status older than that is of a process that has ended


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for; None is as the scenario says, or as it was."""

    scenario: Path | None = None
    spokes: int | None = None
    latency: str | None = None
    buffer: str | None = None
    seed: int | None = None
    sets: Sequence[str] = ()
    speed: float | None = None
    settle_ms: int | None = None
    monitor_port: int | None = None
    lead_s: float = LEAD_S
    secure: bool = False


def scenario_of(choices: Choices) -> Scenario:
    """Return the scenario as chosen.

    Raises:
        InputRefused: it cannot be.
    """
    path = choices.scenario or DEFAULT
    tables = reading.read_file(path)
    if choices.spokes is not None:
        use_spokes(tables, choices.spokes)
    if choices.latency is not None:
        tables["latency"] = choices.latency
    if choices.buffer is not None:
        reading.use_buffer(tables, choices.buffer)
    if choices.seed is not None:
        tables["seed"] = choices.seed
    for assignment in choices.sets:
        reading.override(tables, assignment)
    scenario = reading.check(tables, directory=path.parent)
    if scenario.impact is not None:
        expected = "none in a live stack, where prices are known beforehand"
        raise InputRefused("impact", expected=expected, found="one; `omnimargin run` has it")
    build(scenario)  # refuses latencies, prices and sizes that cannot be
    return scenario


def use_spokes(tables: dict[str, Any], count: int) -> None:
    """Carry out `--spokes N`: the first N of the file; beyond those, copies named base-2, ...

    Raises:
        InputRefused: N is out of range.
    """
    if not 1 <= count <= SPOKES_MAX:
        raise InputRefused("--spokes", expected=f"1 to {SPOKES_MAX}", found=count)
    have = tables.get("spokes")
    if not isinstance(have, list) or not all(isinstance(one, dict) for one in have) or not have:
        return  # the reader says what is wrong
    tables["spokes"] = [
        dict(have[place])
        if place < len(have)
        else have[place % len(have)]
        | {"name": f"{have[place % len(have)].get('name')}-{place // len(have) + 1}"}
        for place in range(count)
    ]


def decide(folder: Path, choices: Choices, *, fresh: bool) -> Scenario:
    """Return the scenario to run in a folder: the one chosen, or the one it was prepared with.

    Nothing is written. `fresh`: what the folder has is going to be deleted.

    Raises:
        InputRefused: it cannot be, or the folder has another one.
    """
    if choices.speed is not None and not SPEED_MIN <= choices.speed <= SPEED_MAX:
        expected = f"{SPEED_MIN:g} to {SPEED_MAX:,g}"
        raise InputRefused("--speed", expected=expected, found=f"{choices.speed:g}")
    _check_folder(folder)
    if fresh or not prepared(folder):
        _port(choices, None)
        return scenario_of(choices)
    plan, scenario = read_plan(folder)
    if choices.secure and not plan.secure:
        expected = "a stack with passwords, or --fresh to delete this one"
        raise InputRefused(str(folder), expected=expected, found="one without")
    asked = (choices.spokes, choices.latency, choices.buffer, choices.seed, choices.scenario)
    if (any(one is not None for one in asked) or choices.sets) and scenario_of(choices) != scenario:
        expected = "the scenario that the folder has, or --fresh to delete it"
        raise InputRefused(str(folder), expected=expected, found="another scenario")
    return scenario


def write(
    folder: Path, scenario: Scenario, choices: Choices, bootstrap: str, *, fresh: bool
) -> Plan:
    """Make topics, keys and plan; scenario time begins, or goes on, `lead_s` from now.

    `fresh`: delete what the topics hold.

    Raises:
        InputRefused: the broker has another stack's topics, or refuses; or a port is taken.
    """
    before = read_plan(folder)[0] if prepared(folder) else None
    plan = _plan(folder, scenario, choices, bootstrap, before)
    asyncio.run(_tell_broker(folder, plan, scenario, fresh=fresh, keep=before is not None))
    if before is None:
        shutil.rmtree(folder / KEYS, ignore_errors=True)  # of a start that got no further
        write_keys(folder / KEYS, nodes_of(scenario))
    reached_us = reached(folder, scenario) if before is not None else 0
    # Never back behind what a process has seen: what is late is handled, what is early is wrong.
    begins_s = choices.lead_s if reached_us <= 0 else -reached_us / 1e6 / plan.speed
    epoch_ns = time.time_ns() + round(begins_s * 1e9)
    plan = msgspec.structs.replace(plan, epoch_ns=epoch_ns)
    write_plan(folder, plan, scenario)
    return plan


async def _tell_broker(
    folder: Path, plan: Plan, scenario: Scenario, *, fresh: bool, keep: bool
) -> None:
    """Make topics, and say who may do what with them."""
    connection, names = plan.connection(folder, SETUP), names_of(scenario)
    await create_topics(connection, names, extra=CHANGELOGS, fresh=fresh, keep=keep)
    if plan.secure:
        await put_in_force(connection, acl(names))


def _plan(
    folder: Path, scenario: Scenario, choices: Choices, bootstrap: str, before: Plan | None
) -> Plan:
    """Return the plan but for its epoch: what is asked for, else as it was, else as usual."""
    usual = before or Plan(
        deployment=f"{folder.name}-{secrets.token_hex(4)}",
        bootstrap=bootstrap,
        epoch_ns=0,
        speed=SPEED,
        settle_ms=SETTLE_MS,
        monitor_port=MONITOR_PORT,
    )
    return msgspec.structs.replace(
        usual,
        bootstrap=bootstrap,
        speed=usual.speed if choices.speed is None else choices.speed,
        settle_ms=usual.settle_ms if choices.settle_ms is None else choices.settle_ms,
        monitor_port=_port(choices, before),
        secure=choices.secure or usual.secure,
    )


def set_up(folder: Path, choices: Choices, bootstrap: str) -> tuple[Plan, Scenario]:
    """Prepare a folder for processes that something else starts; one in use stays as it is.

    Raises:
        InputRefused: something that the user gave cannot be used.
    """
    scenario = decide(folder, choices, fresh=False)
    if prepared(folder) and in_use(folder):
        return read_plan(folder)
    with held(folder):
        return write(folder, scenario, choices, bootstrap, fresh=False), scenario


def reached(folder: Path, scenario: Scenario) -> int:
    """Return the scenario time [us] that processes have reached, by their own word and journals."""
    words = (read_status(folder, role) for role in roles_of(scenario))
    times_us = [word.at_us for word in words if word is not None]
    for name in (HUB, *names_of(scenario)):
        path = folder / f"{name}.db"
        if path.exists():  # whether it is sound is for its node to say
            with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as journal:
                times_us += [at_us for (at_us,) in journal.execute(_NEWEST)]
    return max(times_us, default=0)


def in_use(folder: Path) -> bool:
    """Tell whether processes that have not ended have lately told of themselves here."""
    now_s = time.time()
    for path in folder.glob(f"*{STATUS}"):
        word = read_status(folder, path.name.removesuffix(STATUS))
        ended = word is not None and word.state in (State.STOPPED, State.COMPLETE)
        if not ended and now_s - path.stat().st_mtime < _RUNNING_S:
            return True
    return False


def prepared(folder: Path) -> bool:
    """Tell whether a folder has a plan."""
    return (folder / PLAN).exists()


def wipe(folder: Path) -> None:
    """Delete what a stack has left in its folder, but for the lock."""
    _check_folder(folder)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else.

    Raises:
        InputRefused: it does, or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputRefused(str(folder), expected="a folder", found="a file")
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    if names and not {LOCK, PLAN, BROKER, LOGS, KEYS, SECRETS} & {*names}:
        expected = "an empty folder or one of a live stack"
        raise InputRefused(str(folder), expected=expected, found=f"one with {min(names)}")


def nodes_of(scenario: Scenario) -> tuple[NodeId, ...]:
    """Return all that have a key."""
    people = (MONITOR, OPERATOR, *OPERATORS)
    return (HUB, *names_of(scenario), MARKET, ORACLE, TRADERS, *people, RELAY)


def roles_of(scenario: Scenario) -> tuple[str, ...]:
    """Return the processes, in the order of the table."""
    return (HUB, *names_of(scenario), RELAY, WORLD, MONITOR)


def _port(choices: Choices, before: Plan | None) -> int:
    usual = MONITOR_PORT if before is None else before.monitor_port
    return free_port(usual if choices.monitor_port is None else choices.monitor_port)


def free_port(wanted: int) -> int:
    """Return a port of loopback that is free now: the one wanted, or any for 0.

    Raises:
        InputRefused: it is taken, or out of range.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except (OSError, OverflowError):
            expected = "a free port, or 0 to choose one"
            raise InputRefused("--monitor-port", expected=expected, found=wanted) from None
        return int(probe.getsockname()[1])
