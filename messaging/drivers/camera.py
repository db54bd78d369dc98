"""Snapshots of a node by a child process: the node goes on meanwhile (P88).

A forked child has the state as it was, all of it, at the cost of copying page tables; pickling
the state takes twenty times as long, and a node may not stand still for that.
"""

import gc
import os
import signal
import tempfile
from typing import IO, NamedTuple

import structlog

from messaging.durable import Durable
from messaging.store import Snapshot

SNAPSHOT_EVENTS = 25_000  # a second to fold, at most

log = structlog.get_logger()


class _Child(NamedTuple):
    """A process that writes the state behind `place` to a file that has no name."""

    pid: int
    place: int
    file: IO[bytes]


class Camera:
    """Keeps a snapshot every so many events; use it as a context manager."""

    def __init__(self, durable: Durable, events: int = SNAPSHOT_EVENTS) -> None:
        self._durable = durable
        self._events = events
        self._newest = durable.snapshot_place  # of those that were begun
        self._child: _Child | None = None

    def tend(self) -> None:
        """Begin a snapshot if it is time, between commits; keep the one that is ready.

        Raises:
            StoreFailed: it cannot be kept.
        """
        if self._child is not None:
            pid, status = os.waitpid(self._child.pid, os.WNOHANG)
            if pid:
                self._end(self._child, os.waitstatus_to_exitcode(status))
        elif self._durable.place - self._newest >= self._events:
            self._newest = self._durable.place
            try:
                self._child = _begin(self._durable)
            except OSError as error:  # no room for a process or a file; the journal has it all
                log.warning("no_snapshot", place=self._newest, why=error.strerror)

    def _end(self, child: _Child, code: int) -> None:
        self._child = None
        with child.file:
            if code == 0:
                child.file.seek(0)
                self._durable.keep(Snapshot(child.place, "", child.file.read()))
            else:  # no room for it, or killed
                log.warning("no_snapshot", place=child.place, why=f"its process ended with {code}")

    def __enter__(self) -> "Camera":
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End the child; what it has not finished is lost, and not missed."""
        if self._child is not None:
            os.kill(self._child.pid, signal.SIGKILL)
            os.waitpid(self._child.pid, 0)
            self._child.file.close()


def _begin(durable: Durable) -> _Child:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the child runs
    pid = os.fork()
    if pid:
        return _Child(pid, durable.place, file)
    code = 1
    try:
        gc.disable()  # a look at every object would copy every page
        # Neither the lock of the node's file nor its connections may outlive it in here.
        os.closerange(0, file.fileno())
        os.closerange(file.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        file.write(durable.packed())
        file.flush()
        code = 0
    finally:
        os._exit(code)
