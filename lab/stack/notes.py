"""Lines about a live stack: as JSON to a log, and for people."""

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import msgspec
import structlog

from lab.stack.supervisor import Log

LOGS = "logs"
SHOWN = 6  # lines kept to be shown

_line = msgspec.json.Decoder(dict[str, object])


class Notes:
    """Lines about the stack: as JSON to its log, for people to be shown.

    Attributes:
        lines: the newest.
        echo: whether they go to stderr at once.
    """

    def __init__(self, file: TextIO) -> None:
        self.lines: deque[str] = deque(maxlen=SHOWN)
        self.echo = True
        self.log: Log = structlog.wrap_logger(
            None,
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                self._keep,
            ],
        )
        self._file = file

    def _keep(
        self, logger: object, level: str, event: structlog.typing.EventDict
    ) -> structlog.typing.ProcessorReturnValue:
        self.say(for_people(event))
        with suppress(OSError):  # the disk is full: it was shown, and the stack goes on
            self._file.write(msgspec.json.encode(event).decode() + "\n")
        raise structlog.DropEvent

    def say(self, line: str) -> None:
        """Show a line."""
        self.lines.append(line)
        if self.echo:
            sys.stderr.write(line + "\n")


def for_people(event: Mapping[str, object]) -> str:
    """Return one line for an event of a log."""
    rest = dict(event)
    at, what, role = rest.pop("timestamp", ""), rest.pop("event", ""), rest.pop("role", "")
    rest.pop("level", None)
    words = " ".join(f"{key}={value}" for key, value in rest.items())
    return f"{str(at)[11:19]} {role} {what} {words}".rstrip()


@contextmanager
def notes(folder: Path) -> Iterator[Notes]:
    """Yield what to tell of a stack."""
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    with (folder / LOGS / "supervisor.jsonl").open("a", buffering=1) as file:
        yield Notes(file)


class Tails:
    """What processes add to their logs from now on."""

    def __init__(self, folder: Path, roles: Iterable[str]) -> None:
        self._read = {folder / LOGS / f"{role}.jsonl": 0 for role in roles}
        for path in self._read:
            self._read[path] = path.stat().st_size if path.exists() else 0

    def lines(self) -> Iterator[str]:
        """Yield what has been added since the last call, for people."""
        for path, offset in self._read.items():
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(offset)
                *whole, _ = file.read().split(b"\n")
            self._read[path] = offset + sum(len(line) + 1 for line in whole)
            for line in whole:
                try:
                    yield for_people(_line.decode(line))
                except ValueError:
                    yield f"{path.stem}: {line.decode(errors='replace')}"
