"""A live stack whose processes a test starts, kills and stops by itself.

The processes are those of `omnimargin up`, with a pipe at their standard input, without a
supervisor: a test sees every exit code. It waits for what status files and logs say, with a limit.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import msgspec

from lab import reading, world
from lab.scenario import Scenario
from lab.stack.outside import border_driver
from lab.stack.plan import KEYS, WORLD, Plan, State, Status, read_status, write_plan
from lab.stack.prepare import nodes_of
from lab.stack.topics import create_topics
from messaging.drivers.client import Connection
from messaging.drivers.clock import Clock
from messaging.key_files import write_keys
from messaging.messages import ReservationGranted
from messaging.store import PUBLISHED
from messaging.topics import topic_of
from messaging.units import HUB, RELAY, Micros
from tests.kafka.audit import Audit, Heard, audit, busy, rows, said

LIMIT_S = 120.0  # to wait for what must happen; a busy machine needs it, nothing is measured by it
POLL_S = 0.02
ROOT = Path(__file__).parents[2]
MARCH_2020 = ROOT / "scenarios" / "march_2020.toml"
BUSY: dict[
    str, Any
] = {  # a lane of two seconds, and patience to match: what is lost is soon asked for
    "latency": "constant:2s",
    "duration_h": 18.0,
    "prices": {"start_hours": 4.4},  # the steep fall, so that there is something to liquidate
    "traders": {
        "accounts": 40,
        "open_until_h": 0.05,
        "actions_per_day": 200.0,
        "leverage_min": 6.0,
        "leverage_max": 7.0,
    },
    "reporting": {"tend_s": 10.0, "ack_after_s": 10.0, "watermark_s": 10.0},
    "reservation": {"ttl_s": 300.0, "patience_s": 600.0},
}


def scenario(spokes: int = 1, **changed: Any) -> Scenario:
    """Return march_2020 with that many of its spokes, tables in `changed` replaced in part."""
    tables = reading.read_file(MARCH_2020)
    tables["spokes"] = tables["spokes"][:spokes]
    for name, value in changed.items():
        before = tables.get(name)
        tables[name] = before | value if isinstance(before, dict) else value
    return reading.check(tables, directory=MARCH_2020.parent)


class Stack:
    """One deployment on a broker that other tests use too: it makes all topics anew.

    Attributes:
        folder: plan, keys, journals.
        roles: all processes, in the order in which they stop.
    """

    def __init__(
        self,
        folder: Path,
        bootstrap: str,
        scenario: Scenario,
        *,
        speed: float = 160.0,
        settle_ms: int = 120,
        lead_s: float = 1.0,
    ) -> None:
        """Make topics, keys and plan; scenario time begins in `lead_s`."""
        self.folder = folder
        self.logs = folder.with_name(f"{folder.name}-logs")  # a disk of its own may be full
        self.scenario = scenario
        self.spokes = world.names_of(scenario)
        self.roles = (WORLD, RELAY, *self.spokes, HUB)
        self.connection = Connection(bootstrap)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir()
        asyncio.run(create_topics(self.connection, self.spokes, fresh=True))
        write_keys(folder / KEYS, nodes_of(scenario))
        self.plan = Plan(
            deployment=folder.name,
            bootstrap=bootstrap,
            epoch_ns=time.time_ns() + round(lead_s * 1e9),
            speed=speed,
            settle_ms=settle_ms,
            monitor_port=0,
        )
        write_plan(folder, self.plan, scenario)
        self.clock = Clock(self.plan.epoch_ns, speed)

    # --- processes --------------------------------------------------------------------

    def start(self, *roles: str, where: Sequence[str] = ()) -> None:
        """Start processes, all of them if none is named; `where` are words before the command."""
        for role in roles or self.roles:
            assert not self.runs(role), f"{role} runs already"
            with self._log(role).open("ab") as log:
                self._children[role] = subprocess.Popen(
                    [*where, sys.executable, "-m", "lab.stack.process", role, str(self.folder)],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                )

    def second(self, role: str) -> tuple[int, list[str]]:
        """Run a process that runs already once more; return its exit code and what it has said."""
        assert self.runs(role)
        command = [sys.executable, "-m", "lab.stack.process", role, str(self.folder)]
        done = subprocess.run(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
        return done.returncode, (done.stdout + done.stderr).decode().splitlines()

    def up(self, *roles: str) -> None:
        """Start processes, and wait until each has told of itself."""
        self.start(*roles)
        self.told(*roles)

    def told(self, *roles: str) -> None:
        """Wait until the processes that run now have told of themselves."""
        for role in roles or self.roles:
            self.wait(lambda role=role: self._told(role), f"{role} to start")

    def _told(self, role: str) -> bool:
        assert self.runs(role), f"{role} has ended: {self.text(role)[-2_000:]}"
        status = read_status(self.folder, role)
        return status is not None and status.pid == self._children[role].pid

    def runs(self, role: str) -> bool:
        """Tell whether a process runs."""
        return role in self._children and self._children[role].poll() is None

    def pid(self, role: str) -> int:
        """Return a process's id."""
        return self._children[role].pid

    def signal(self, role: str, number: signal.Signals) -> None:
        """Send a signal to a process."""
        self._children[role].send_signal(number)

    def kill(self, role: str) -> None:
        """End a process as a crash would."""
        self._children[role].kill()
        self._children[role].wait()

    def ended(self, role: str) -> int:
        """Wait for the end of a process; return its exit code."""
        return self._children[role].wait(LIMIT_S)

    def stop(self, role: str) -> None:
        """End a process cleanly, by closing its pipe."""
        pipe = self._children[role].stdin
        assert pipe is not None
        pipe.close()
        assert self.ended(role) == 0, self.text(role)[-2_000:]

    def down(self) -> None:
        """Stop all that run, in order; each must end cleanly."""
        for role in self.roles:
            if self.runs(role):
                self.stop(role)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for child in self._children.values():
            if child.poll() is None:
                child.kill()
                child.wait()
            if child.stdin is not None:
                child.stdin.close()

    # --- what they say ----------------------------------------------------------------

    def status(self, role: str) -> Status:
        """Return a process's last word on itself."""
        status = read_status(self.folder, role)
        assert status is not None, f"{role} has said nothing"
        return status

    def _log(self, role: str) -> Path:
        return self.logs / f"{role}.jsonl"

    def text(self, role: str) -> str:
        """Return all that the processes of a role have logged."""
        path = self._log(role)
        return path.read_text(errors="replace") if path.exists() else ""

    def said(self, role: str, event: str = "", level: str = "") -> list[dict[str, Any]]:
        """Return a role's log lines of one kind; what the Kafka client prints is no such line."""
        lines = []
        for line in self.text(role).splitlines():
            if not line.startswith("{"):
                continue
            found = msgspec.json.decode(line.encode(), type=dict[str, Any])
            if event in (found["event"], "") and level in (found["level"], ""):
                lines.append(found)
        return lines

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until something holds; say what there is if it does not."""
        until_s = time.monotonic() + LIMIT_S
        while not holds():
            if time.monotonic() > until_s:
                words = [str(read_status(self.folder, role)) for role in self.roles]
                raise AssertionError(f"expected {what} within {LIMIT_S:.0f} s\n" + "\n".join(words))
            time.sleep(POLL_S)

    # --- scenario time ----------------------------------------------------------------

    def now_us(self) -> Micros:
        """Return the scenario time now."""
        return self.clock.now_us()

    def reach(self, at_us: int) -> None:
        """Wait until hub and spokes have handled all up to a scenario time."""
        for role in (*self.spokes, HUB):
            self.wait(lambda role=role: self._reached(role, at_us), f"{role} at {at_us:,} us")

    def _reached(self, role: str, at_us: int) -> bool:
        assert self.runs(role), f"{role} has ended: {self.text(role)[-2_000:]}"
        status = self.status(role)
        return status.state is not State.WAITING and status.at_us >= at_us

    # --- what must have arrived ---------------------------------------------------------

    def go_on(self, scenario_s: float) -> Micros:
        """Let hub and spokes live on for a while; return the scenario time before that."""
        now_us = self.now_us()
        self.reach(now_us + round(scenario_s * 1e6))
        return now_us

    def said_so_far(self) -> dict[str, int]:
        """Return the newest number of each row that may not have a hole, by topic."""
        found = said(self.folder, (*self.spokes, HUB))
        query = "SELECT value FROM meta WHERE name = ?"
        left = sum(
            int(str(value)) for (value,) in rows(self.folder / f"{WORLD}.db", query, PUBLISHED)
        )
        driver, border = border_driver(self.scenario, reading.duration_us(self.scenario))
        for _ in driver.run():
            for frame in border.left[:left]:
                if frame.receiver != HUB:  # prices for the hub may be lost: the next one says more
                    found[topic_of(frame)] = frame.seq
            left -= len(border.left)
            border.left.clear()
            if left <= 0:
                break
        return found

    def in_business(self) -> None:
        """Wait until there is enough going on to disturb."""
        self.reach(300_000_000)
        self.wait(lambda: self.status(RELAY).events > 100, "frames to be carried")
        self.wait(self._lends, "credit to be granted")  # late after a slow start

    def _lends(self) -> bool:
        query = "SELECT 1 FROM journal WHERE instr(event, ?) LIMIT 1"
        word = ReservationGranted.__struct_config__.tag.encode()
        return all(rows(self.folder / f"{spoke}.db", query, word) for spoke in self.spokes)

    def heal(self) -> dict[str, int]:
        """Wait until all that has been said by now is in its reader's journal; return it."""
        wanted, heard = self.said_so_far(), Heard(self.folder, (*self.spokes, HUB))
        self.wait(lambda: not heard.missing(wanted), f"all of {wanted} to arrive")
        return wanted

    def tracebacks(self) -> list[str]:
        """Return the ends of logs in which something unforeseen is."""
        logs = [self.text(role) for role in self.roles]
        return [log[-4_000:] for log in logs if "Traceback" in log]

    def finish(self) -> Audit:
        """Wait until all that was lost is made good, stop the stack, look at everything."""
        wanted = self.heal()
        self.down()
        assert not self.tracebacks()
        found = audit(self.folder, wanted)
        busy(found)
        return found


@contextmanager
def paused(stack: Stack, role: str) -> Iterator[None]:
    """Freeze a process for as long as the block takes."""
    stack.signal(role, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(stack.pid(role), signal.SIGCONT)
