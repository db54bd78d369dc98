"""Kill processes of a live stack at random and see what is left of it.

    python -m benchmarks.chaos --kills 100 [--seed 1]

Starts `omnimargin up`, then kills (SIGKILL) or stops for longer than a grant lives (SIGSTOP) hub,
spokes, relay and broker, again and again. Afterwards every journal must fold to the state its
process had, every invariant must hold, and each channel must have been applied 1, 2, 3, ..., each
number once, up to what was under way at the end.
"""

import argparse
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from statistics import quantiles
from typing import Any

import msgspec

from lab import running
from lab.stack import journals, register
from lab.stack.plan import State, read_status
from messaging.endpoint import Endpoint
from messaging.envelope import Envelope
from messaging.messages import CHANNEL_FAMILIES

ROOT = Path(__file__).parents[1]
TTL_S = 180.0  # a grant's life, scenario time; on the wall clock, nine seconds
SPEED = 20.0
PAUSE_S = 12.0
SETTLE_S = TTL_S + 60.0  # what is said before the end is settled or expired
VICTIMS = {"hub": 4, "base": 2, "optimism": 2, "unichain": 2, "relay": 2, "broker": 1}
_PATIENCE_S = 60.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, and what came of it.

    Attributes:
        killed, paused: how often, by process.
        recovery_ms: of the hub, from start of the new process to its first round: p50, p99.
        events: by node. channels: (applied, sent) by channel. late: events after their time.
    """

    killed: dict[str, int]
    paused: dict[str, int]
    recovery_ms: tuple[int, int]
    events: dict[str, int]
    channels: dict[str, tuple[int, int]]
    late: int
    grants: int
    liquidations: int
    invariants_checked: int
    digest: str


class Stack:
    """A stack in a process of its own."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        settings = (f"reservation.ttl_s={TTL_S}", "traders.actions_per_day=400")
        words = ["up", "--folder", str(folder), "--speed", str(SPEED), "--for", f"{seconds:.0f}s"]
        words += ["--monitor-port", "0"]
        words += [word for setting in settings for word in ("--set", setting)]
        self._log = (folder.parent / "up.txt").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lab", *words],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    def pid(self, role: str) -> int | None:
        """Return a role's process, if it runs now."""
        try:
            found = register.read(self.folder)
        except (OSError, ValueError):
            return None
        for one in found.processes if found else ():
            if one.role == role and one.started and one.phase == "up":
                return one.pid
        return None

    def wait(self, role: str, other_than: int = 0) -> int:
        """Return a role's new process once it runs and has told of itself."""
        until_s = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until_s:
            pid = self.pid(role)
            if pid is not None and pid != other_than:
                status = read_status(self.folder, role) if role != "broker" else None
                if role == "broker" or (status is not None and status.pid == pid):
                    return pid
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"expected {role} to come back within {_PATIENCE_S:.0f} s")

    def end(self) -> None:
        """Stop it, and wait until it has."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self._log.close()
        last = Path(self._log.name).read_text().splitlines()[-3:]
        assert code == 0, f"expected exit code 0, found {code}: {last}"


def run(kills: int, seed: int, folder: Path) -> Report:
    """Kill `kills` times, let the stack settle, stop it, and look at everything."""
    dice = random.Random(seed)
    stack = Stack(folder, 3_600)
    killed: Counter[str] = Counter()
    paused: Counter[str] = Counter()
    recovered: dict[int, int] = {}  # the hub's processes, and how long each took
    try:
        for role in VICTIMS:
            stack.wait(role)
        _until(lambda: _events(folder, "hub") > 200)
        while killed.total() < kills:
            time.sleep(dice.uniform(0.05, 1.0))
            hub = read_status(folder, "hub")
            if hub is not None and hub.pid not in recovered:
                recovered[hub.pid] = hub.recovery_ms
            role = dice.choices(list(VICTIMS), list(VICTIMS.values()))[0]
            pid = stack.pid(role)
            if pid is None:
                continue  # still down from the last time
            with suppress(ProcessLookupError):  # it went down since
                if dice.random() < 0.04 and role != "broker":
                    os.kill(pid, signal.SIGSTOP)
                    time.sleep(PAUSE_S)
                    os.kill(pid, signal.SIGCONT)
                    paused[role] += 1
                else:
                    os.kill(pid, signal.SIGKILL)
                    killed[role] += 1
        for role in VICTIMS:
            stack.wait(role)
        _settle(folder)
    finally:
        stack.end()
    return _look(folder, killed, paused, list(recovered.values()))


def _events(folder: Path, role: str) -> int:
    status = read_status(folder, role)
    return status.events if status else 0


def _until(holds: Any) -> None:
    until_s = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < until_s, "expected the stack to go on"
        time.sleep(0.1)


def _settle(folder: Path) -> None:
    """Wait until hub and spokes are at the present, and then for some more of their life."""
    hub_us = max(read_status(folder, role).at_us for role in ("hub", "base"))  # type: ignore[union-attr]

    def present() -> bool:
        found = [read_status(folder, role) for role in ("hub", "base", "optimism", "unichain")]
        return all(
            one is not None and one.state is State.RUNNING and one.at_us > hub_us + SETTLE_S * 1e6
            for one in found
        )

    _until(present)


def _look(
    folder: Path, killed: Counter[str], paused: Counter[str], recovery_ms: list[int]
) -> Report:
    events = journals.verify(folder)
    recorded = journals.Journals(folder)
    seen = {endpoint.name: _watch(endpoint) for endpoint in recorded.world.endpoints}
    outcome = running.run(recorded.world, driver=recorded, log=folder / "stack.mcap")
    assert outcome.finding is None, str(outcome.finding)
    replayed = running.replay_log(folder / "stack.mcap")
    result = outcome.story.result
    assert replayed.digest == result.digest
    channels = {}
    for endpoint in recorded.world.endpoints:
        for (peer, family), inbox in endpoint.inboxes.items():
            name = f"{peer}/{endpoint.name}/{family}"
            applied = seen[endpoint.name].get(name, [])
            expected = list(range(1, inbox.next_seq))
            assert applied == expected, f"{name}: expected 1 to {len(expected)}, each once"
            sender = next(one for one in recorded.world.endpoints if one.name == peer)
            channels[name] = (len(applied), sender.outboxes[endpoint.name, family].next_seq - 1)
    late = sum(status.late for name in events if (status := read_status(folder, name)) is not None)
    _check_outboxes(folder, list(events))
    p50, p99 = (0, 0)
    if len(recovery_ms) > 1:
        cuts = quantiles(recovery_ms, n=100, method="inclusive")
        p50, p99 = round(cuts[49]), round(cuts[98])
    return Report(
        killed=dict(killed),
        paused=dict(paused),
        recovery_ms=(p50, p99),
        events={str(name): count for name, count in events.items()},
        channels=channels,
        late=late,
        grants=result.reservations.granted,
        liquidations=result.liquidations,
        invariants_checked=result.invariants_checked,
        digest=result.digest,
    )


def _watch(endpoint: Endpoint) -> dict[str, list[int]]:
    """Note the numbers that a node is shown, by channel."""
    seen: dict[str, list[int]] = {}

    def note(now_us: int, event: object, effects: object) -> None:
        if type(event) is Envelope and event.family in CHANNEL_FAMILIES:
            name = f"{event.sender}/{endpoint.name}/{event.family}"
            seen.setdefault(name, []).append(event.seq)

    endpoint.observers.append(note)
    return seen


def _check_outboxes(folder: Path, names: list[str]) -> None:
    """Nothing waits to be published for ever: a clean stop leaves at most what was under way."""
    for name in names:
        database = sqlite3.connect(f"file:{folder / f'{name}.db'}?mode=ro", uri=True)
        (journal,) = database.execute("SELECT count(*) FROM journal").fetchone()
        (last,) = database.execute("SELECT max(place) FROM journal").fetchone()
        database.close()
        assert journal == last, f"{name}: expected {last} events in the journal, found {journal}"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        report = run(given.kills, given.seed, Path(scratch) / "stack")
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(report)).decode() + "\n")


if __name__ == "__main__":
    main()
