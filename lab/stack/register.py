"""Who runs in a folder: a lock that its supervisor holds, and the processes that it has started.

A process id alone says little, for the system gives it out again: a process is known by its id
and the time it was started at, and is ended only if its command line names the folder too.
"""

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from messaging.errors import InputRefused

REGISTER, LOCK = "register.json", "up.lock"
_PROC = Path("/proc")
_POLL_S = 0.05


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One process.

    Attributes:
        started: when, as the system writes it; with `pid` it names one process for good.
        phase, starts, why: as in `lab.stack.supervisor.Child`.
    """

    role: str
    pid: int
    started: str
    phase: str = ""
    starts: int = 1
    why: str = ""


class Register(msgspec.Struct, frozen=True):
    """The supervisor of a folder, and what it has started."""

    supervisor: Process
    processes: tuple[Process, ...] = ()


class _Seen(NamedTuple):
    started: str
    words: tuple[str, ...]  # of its command line


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder, so that no second supervisor uses it.

    Raises:
        InputRefused: another one does, or it cannot be written.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = path.open("ab")
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputRefused(str(folder), expected="a folder to write to", found=reason) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            expected, found = "a folder that no stack runs in", "one in use (omnimargin down)"
            raise InputRefused(str(folder), expected=expected, found=found) from None
        yield


def known(role: str, pid: int, *, phase: str = "", starts: int = 1, why: str = "") -> Process:
    """Return a process of ours, its start time looked up; empty if it has ended already."""
    seen = _look(pid)
    started = seen.started if seen else ""
    return Process(role=role, pid=pid, started=started, phase=phase, starts=starts, why=why)


def write(folder: Path, register: Register) -> None:
    """Replace what is written in a folder; a reader sees all of it or none."""
    fresh = folder / (REGISTER + ".new")
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(register)))
    fresh.replace(folder / REGISTER)


def read(folder: Path) -> Register | None:
    """Return what is written in a folder, if anything is."""
    try:
        return msgspec.json.decode((folder / REGISTER).read_bytes(), type=Register)
    except (OSError, ValueError):
        return None


def alive(process: Process) -> bool:
    """Tell whether this very process runs."""
    seen = _look(process.pid)
    return seen is not None and seen.started == process.started


def ours(process: Process, folder: Path) -> bool:
    """Tell whether this very process runs, and its command line names the folder."""
    seen = _look(process.pid)
    return (
        seen is not None
        and seen.started == process.started
        and any(str(folder) in word for word in seen.words)
    )


def end(process: Process, number: signal.Signals, limit_s: float) -> bool:
    """Send a signal to a process and wait for its end; tell whether it came in time."""
    if not alive(process):
        return True
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return True
    until_s = time.monotonic() + limit_s
    while alive(process):
        if time.monotonic() > until_s:
            return False
        time.sleep(_POLL_S)
    return True


def _look(pid: int) -> _Seen | None:
    """Return start time and command line of a process; None if there is none, or a dead one."""
    if not (_PROC / "self" / "stat").exists():
        return _ask_ps(pid)
    try:
        # Behind the command in brackets, which may hold anything: state is field 3, start 22.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    if fields[0] in ("Z", "X"):
        return None
    return _Seen(fields[19], tuple(word.decode(errors="replace") for word in words))


def _ask_ps(pid: int) -> _Seen | None:
    """Do the same where there is no /proc."""
    asked = ("ps", "-o", "lstart=", "-o", "command=", "-p", str(pid))
    found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    return _Seen(" ".join(found[:5]), (" ".join(found[5:]),)) if len(found) > 5 else None
