"""Keep processes running: start, start again after a while, stop in order, leave none behind.

Knows nothing of what the processes do. Nothing waits in here: whoever owns a supervisor calls
`tick` when a child has ended (SIGCHLD) and from time to time, with a clock that only goes
forward. Contract of a process: SIGTERM or the end of its standard input means stop cleanly. Exit
code 0 when done, 2 when a restart would not help, anything else to be started again.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec
import structlog

FIRST_S, MOST_S = 0.2, 10.0  # to wait before a restart: the first time, and ever
HEALTHY_S = 30.0  # a process that lived so long starts again from the first wait
STOP_S = 10.0  # to stop cleanly in, before SIGKILL
STAGE_S = 3.0  # after which the next stage is told to stop, whether this one has ended or not
REFUSED = 2
_TAIL_BYTES = 8_192

Log: TypeAlias = structlog.typing.FilteringBoundLogger


class Phase(StrEnum):
    """Where a child is."""

    UP = "up"
    WAITING = "restarting"  # will be started again
    DONE = "done"  # ended by itself, its work finished
    REFUSED = "refused"  # ended by itself; a restart would not help
    STOPPED = "stopped"


OVER = (Phase.DONE, Phase.REFUSED, Phase.STOPPED)


class Spec(NamedTuple):
    """What to run.

    Attributes:
        role: names the process.
        command: program and arguments.
        log: file that its output is added to.
        done: tells, after exit code 0, whether it had finished; else it is started again.
    """

    role: str
    command: Sequence[str]
    log: Path
    done: Callable[[], bool] = lambda: True


class Backoff:
    """How long to wait before starting again what keeps ending."""

    def __init__(self) -> None:
        self._next_s = FIRST_S

    def after(self, lived_s: float) -> float:
        """Return the wait after a process that lived so long; it doubles until one lives."""
        if lived_s >= HEALTHY_S:
            self._next_s = FIRST_S
        wait_s = self._next_s
        self._next_s = min(MOST_S, 2 * wait_s)
        return wait_s


class Child:
    """One process that is kept running.

    Attributes:
        phase: where it is.
        starts: how often it was started.
        why: how it ended last, for people.
    """

    def __init__(self, spec: Spec, log: Log) -> None:
        self.spec = spec
        self.phase = Phase.WAITING
        self.starts = 0
        self.why = ""
        self._log = log.bind(role=spec.role)
        self._backoff = Backoff()
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._due_s = 0.0  # when to start it, or to kill it
        self._stopping = self._killed = False

    @property
    def pid(self) -> int | None:
        """Return the process id, if there is a process."""
        return self._process.pid if self._process is not None else None

    def tick(self, now_s: float) -> None:
        """Notice its end, start it if that is due, kill it if it does not stop."""
        if self._process is not None:
            code = self._process.poll()
            if code is not None:
                self._ended(code, now_s)
            elif self._stopping and now_s >= self._due_s and not self._killed:
                self._log.warning("killed", why=f"has not stopped within {STOP_S:g} s")
                self.kill()
        elif self.phase is Phase.WAITING and now_s >= self._due_s:
            self._start(now_s)

    def stop(self, now_s: float) -> None:
        """Tell it to stop; it is not started again."""
        if self._stopping:
            return
        self._stopping, self._due_s = True, now_s + STOP_S
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
        elif self.phase is Phase.WAITING:
            self.phase = Phase.STOPPED

    def kill(self) -> None:
        """Kill it and whatever it has started; it is not started again."""
        self._stopping = self._killed = True
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
        elif self.phase is Phase.WAITING:
            self.phase = Phase.STOPPED

    def _start(self, now_s: float) -> None:
        self._started_s = now_s
        try:
            with self.spec.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self.spec.command,
                    stdin=subprocess.PIPE,  # its other end closes with us, however we end
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:  # no memory, no disk: may pass
            self._wait(now_s, f"cannot be started: {error.strerror}")
            return
        self.phase = Phase.UP
        self.starts += 1
        self._log.info("started", pid=self._process.pid, starts=self.starts)

    def _ended(self, code: int, now_s: float) -> None:
        process, self._process = self._process, None
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()
        lived_s = now_s - self._started_s
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._log.info("ended", how=how, lived_s=round(lived_s, 1))
        if self._stopping:
            self.phase = Phase.STOPPED
            self.why = "" if code in (0, -signal.SIGTERM) else how
        elif code == 0 and self.spec.done():
            self.phase = Phase.DONE
        elif code == REFUSED:
            self.phase, self.why = Phase.REFUSED, last_word(self.spec.log)
            self._log.error("refused", why=self.why)
        else:
            self._wait(now_s, f"{how}: {last_word(self.spec.log)}" if code > 0 else how)

    def _wait(self, now_s: float, why: str) -> None:
        wait_s = self._backoff.after(now_s - self._started_s)
        self.phase, self.why, self._due_s = Phase.WAITING, why, now_s + wait_s
        self._log.warning("restart", in_s=wait_s, why=why)


class Supervisor:
    """All processes of a stack, and the order in which they stop."""

    def __init__(self, stages: Iterable[Iterable[Child]]) -> None:
        """Take children in stages: those of a later one are told to stop later."""
        self._stages = [list(stage) for stage in stages]
        self._stage = -1  # that has been told to stop; -1 for none
        self._told_s = 0.0

    @property
    def children(self) -> list[Child]:
        """Return all children, in the order of their stages."""
        return [child for stage in self._stages for child in stage]

    @property
    def over(self) -> bool:
        """Tell whether no process is left and none will be started."""
        return all(child.phase in OVER for child in self.children)

    def tick(self, now_s: float) -> None:
        """Do what is due."""
        for child in self.children:
            child.tick(now_s)
        if 0 <= self._stage < len(self._stages) - 1:
            stopped = all(child.phase in OVER for child in self._stages[self._stage])
            if stopped or now_s >= self._told_s + STAGE_S:
                self._tell(self._stage + 1, now_s)

    def stop(self, now_s: float) -> None:
        """Begin to stop everything; goes on with `tick` until `over`."""
        if self._stage < 0:
            self._tell(0, now_s)

    def kill(self) -> None:
        """Kill everything at once; `tick` until `over`."""
        self._stage = len(self._stages)
        for child in self.children:
            child.kill()

    def _tell(self, stage: int, now_s: float) -> None:
        self._stage, self._told_s = stage, now_s
        for child in self._stages[stage]:
            child.stop(now_s)


def last_word(log: Path) -> str:
    """Return why a process has ended: the `event` of its log's last line, or the line."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    last = next((line for line in reversed(lines) if line.strip()), "")
    try:
        return str(msgspec.json.decode(last.encode(), type=dict[str, object])["event"])
    except (ValueError, KeyError):
        return last.strip()
