"""The monitor of a live stack: `python -m lab.monitor FOLDER`.

Stops cleanly on SIGTERM, or when the pipe at its standard input closes; exit code 0. 1: the
Faust worker has ended, a restart helps. 2: bad input, a restart would not help.
"""

import asyncio
import logging
import signal
import stat
import sys
import threading
from os import fstat
from pathlib import Path

import structlog
import uvloop

from lab.monitor.service import Monitor
from lab.stack.plan import read_plan
from lab.stack.process import set_up_logs
from messaging.errors import OmnimarginError
from messaging.units import MONITOR

AGAIN_S = 30.0  # a client that finds no broker says so ten times a second
ALIKE = 40  # characters in which lines of one kind are alike

log = structlog.get_logger()


class _UntilClosed(asyncio.Protocol):
    """Stops the process when whoever started it is gone."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    def connection_lost(self, error: Exception | None) -> None:
        self._stop.set()


class _ToStructlog(logging.Handler):
    """Hands what Faust and the Kafka client log to our one format, each line now and then."""

    def __init__(self) -> None:
        super().__init__()
        self._said_s: dict[tuple[str, str], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage().split("\n")[0]
        kind = (record.name, line[:ALIKE])
        if record.created - self._said_s.get(kind, 0.0) > AGAIN_S:
            self._said_s[kind] = record.created
            log.log(record.levelno, line, logger=record.name, role=MONITOR)


async def serve(folder: Path) -> None:
    """Run the monitor of a folder until it is told to stop.

    Raises:
        OmnimarginError: by the fault, see the module.
    """
    plan, scenario = read_plan(folder)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if stat.S_ISFIFO(fstat(sys.stdin.fileno()).st_mode):
        await loop.connect_read_pipe(lambda: _UntilClosed(stop), sys.stdin)
    await Monitor(folder, plan, scenario).run(stop)


def main(folder: Path) -> int:
    """Run the monitor of a folder; return the exit code."""
    set_up_logs()
    structlog.contextvars.bind_contextvars(role=MONITOR)
    logging.basicConfig(level=logging.WARNING, handlers=[_ToStructlog()])
    threading.excepthook = lambda died: log.warning(f"Faust's thread ended: {died.exc_value!r}")
    try:
        uvloop.run(serve(folder))
    except OmnimarginError as error:
        log.error(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m lab.monitor FOLDER")
    sys.exit(main(Path(sys.argv[1])))
