"""One process of the live stack: `python -m lab.stack.process ROLE FOLDER`.

ROLE is `world`, `relay`, `hub` or a spoke's name; FOLDER is what `omnimargin prepare` or `up`
has made. Stops cleanly on SIGTERM, or when the pipe at its standard input closes; exit code 0,
also when the scenario's time is up. 2: bad input, a restart would not help. 75: the disk.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import stat
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import structlog
import uvloop

from lab import reading, ways, world
from lab.scenario import Scenario
from lab.stack.journals import endpoint_of
from lab.stack.matters import matters_of
from lab.stack.outside import Outside
from lab.stack.plan import (
    KEYS,
    STATUS,
    WORLD,
    Matters,
    Plan,
    State,
    Status,
    principal_of,
    read_plan,
    write_status,
)
from messaging.drivers.clock import Clock
from messaging.drivers.kafka import KafkaNode
from messaging.drivers.relay import Bridges, Relay
from messaging.durable import Durable
from messaging.errors import OmnimarginError
from messaging.key_files import read_later_signers, read_signer, read_verifier
from messaging.store import Store
from messaging.topics import routes
from messaging.units import (
    HUB,
    MARKET,
    MONITOR,
    OPERATORS,
    ORACLE,
    RELAY,
    TRADERS,
    Micros,
    NodeId,
)

TELL_S = 0.5
log = structlog.get_logger()


class Runs(Protocol):
    """What a process runs."""

    async def run(self, stop: asyncio.Event, tell: Callable[[], None]) -> None:
        """Run until `stop` is set or nothing is left to do."""
        ...

    @property
    def at_us(self) -> Micros:
        """Return the scenario time reached."""
        ...

    @property
    def events(self) -> int:
        """Return how many events have been handled."""
        ...

    @property
    def late(self) -> int: ...

    @property
    def refused(self) -> int: ...

    @property
    def note(self) -> str: ...

    @property
    def complete(self) -> bool: ...


def node(folder: Path, plan: Plan, scenario: Scenario, store: Store, name: NodeId) -> KafkaNode:
    """Return the hub or a spoke on Kafka, its journal folded.

    Raises:
        InputRefused: no such spoke, no key, or a scenario that cannot be.
    """
    names = world.names_of(scenario)
    endpoint = endpoint_of(scenario, name)
    keys = folder / KEYS
    later = read_later_signers(keys, name, plan.domain)
    durable = Durable(endpoint, store, read_signer(keys, name, plan.domain), later=later)
    settle_us = None if plan.settle_ms < 0 else Micros(int(plan.settle_ms * 1_000 * plan.speed))
    people = (*reversed(OPERATORS), MONITOR)  # before the others, in whatever order
    everyone = (*people, MARKET, ORACLE, TRADERS, *names, HUB)
    ranks = {who: rank for rank, who in enumerate(everyone, start=-len(people))}
    return KafkaNode(
        durable,
        store,
        routes(names),
        connection=plan.connection(folder, principal_of(name)),
        verifier=read_verifier(keys, plan.domain).knowing(durable.later_keys()),
        ranks=ranks,
        clock=Clock(plan.epoch_ns, plan.speed),
        until_us=reading.duration_us(scenario),
        settle_us=settle_us,
        nonce=os.urandom(8) if durable.place or (folder / f"{name}{STATUS}").exists() else b"",
    )


def relay(folder: Path, plan: Plan, scenario: Scenario, store: Store) -> Relay:
    """Return the relay, with the scenario's links."""
    links = ways.links(scenario, world.lanes_of(scenario))
    return Relay(
        store,
        routes(world.names_of(scenario)),
        Bridges(scenario.seed, links),
        connection=plan.connection(folder, RELAY),
        verifier=read_verifier(folder / KEYS, plan.domain),
        clock=Clock(plan.epoch_ns, plan.speed),
        resolve=lambda change: ways.changed(scenario, links, change),
    )


def outside(folder: Path, plan: Plan, scenario: Scenario, store: Store) -> Outside:
    """Return the world outside."""
    signers = {
        name: read_signer(folder / KEYS, name, plan.domain) for name in (MARKET, ORACLE, TRADERS)
    }
    clock = Clock(plan.epoch_ns, plan.speed)
    return Outside(scenario, store, signers, plan.connection(folder, WORLD), clock)


class Teller:
    """Writes a process's word on itself, not too often."""

    def __init__(
        self, folder: Path, role: NodeId, started_ns: int, matters: Callable[[], Matters]
    ) -> None:
        self._folder = folder
        self._matters = matters
        self._role = role
        self._started_ns = started_ns
        self._told_s = 0.0
        self._recovery_ms = 0

    def tell(self, runs: Runs, *, state: State | None = None) -> None:
        """Write it if the last word is old, or the state is given."""
        now_s = time.monotonic()
        if self._recovery_ms == 0:
            self._recovery_ms = max(1, (time.time_ns() - self._started_ns) // 1_000_000)
        elif state is None and now_s - self._told_s < TELL_S:
            return
        self._told_s = now_s
        if state is None:
            state = State.WAITING if runs.note else State.RUNNING
        status = Status(
            role=self._role,
            pid=os.getpid(),
            state=state,
            at_us=runs.at_us,
            events=runs.events,
            late=runs.late,
            refused=runs.refused,
            recovery_ms=self._recovery_ms,
            note=runs.note,
            matters=self._matters(),
        )
        try:
            write_status(self._folder, status)
        except OSError as error:  # a full disk is for the store to notice, where it matters
            log.warning("status_not_written", why=error.strerror)


async def _serve(runs: Runs, teller: Teller) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        await loop.connect_read_pipe(lambda: _UntilClosed(stop), sys.stdin)
    await runs.run(stop, lambda: teller.tell(runs))
    teller.tell(runs, state=State.COMPLETE if runs.complete else State.STOPPED)


class _UntilClosed(asyncio.Protocol):
    """Stops the process when whoever started it is gone."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    def connection_lost(self, error: Exception | None) -> None:
        self._stop.set()


def run(role: NodeId, folder: Path, started_ns: int) -> None:
    """Run one process to its end.

    Raises:
        OmnimarginError: by the fault, see the module.
    """
    plan, scenario = read_plan(folder)
    identity = {"role": role, "deployment": plan.deployment}
    with Store(folder / f"{role}.db", identity) as store:
        runs: Runs
        if role == WORLD:
            runs = outside(folder, plan, scenario, store)
        elif role == RELAY:
            runs = relay(folder, plan, scenario, store)
        else:
            runs = node(folder, plan, scenario, store, role)
        collect_rarely()
        log.info("started", at_us=runs.at_us, events=runs.events)
        teller = Teller(folder, role, started_ns, lambda: _matters(runs))
        served: Awaitable[None] = _serve(runs, teller)
        uvloop.run(served)  # type: ignore[arg-type]


def _matters(runs: Runs) -> Matters:
    return matters_of(runs.endpoint) if isinstance(runs, KafkaNode) else Matters()


def collect_rarely() -> None:
    """Spare the state from the garbage collector: little of it is ever in a cycle.

    By default a twelfth of a busy hub's time goes into looking at all of it again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def main() -> int:
    """Run the command line; return the exit code."""
    started_ns = time.time_ns()
    set_up_logs()
    # What the Kafka client says of a broker that is away is in our notes; its bugs are not.
    handler = logging.StreamHandler()
    handler.addFilter(lambda record: record.exc_info is not None)
    logging.basicConfig(handlers=[handler])
    if len(sys.argv) != 3:
        log.error("expected ROLE FOLDER", found=sys.argv[1:])
        return 2
    role, folder = NodeId(sys.argv[1]), Path(sys.argv[2])
    structlog.contextvars.bind_contextvars(role=role)
    try:
        run(role, folder, started_ns)
    except OmnimarginError as error:
        log.error(str(error))
        return error.exit_code
    return 0


class _Lines:
    """Standard error without a buffer: a log on a full disk loses lines and ends nothing."""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(2, text.encode(errors="replace"))

    def flush(self) -> None:
        pass


def set_up_logs() -> None:
    """Log one JSON object a line to standard error."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(_Lines()),  # type: ignore[arg-type]
    )


if __name__ == "__main__":
    sys.exit(main())
