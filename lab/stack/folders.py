"""Where live stacks keep their files: a folder for each run, and a link to the latest."""

import os
from datetime import UTC, datetime
from pathlib import Path

from messaging.errors import InputRefused

RUNS = Path("runs/live")
LATEST = "latest"


def fresh() -> Path:
    """Return a folder of its own for a run that begins now; it is not made yet."""
    stem = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    path, number = RUNS / stem, 1
    while path.exists():
        number += 1
        path = RUNS / f"{stem}-{number}"
    return path.absolute()


def mark_latest(folder: Path) -> None:
    """Let `runs/live/latest` lead to a folder."""
    RUNS.mkdir(parents=True, exist_ok=True)
    link = RUNS / f".{LATEST}.{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(folder, RUNS.absolute()))
    link.replace(RUNS / LATEST)


def chosen(folder: Path | None) -> Path:
    """Return the folder that a command is about: the one named, else the latest.

    Raises:
        InputRefused: there is none.
    """
    path = folder if folder is not None else RUNS / LATEST
    if not path.is_dir():
        expected = "the folder of a live stack (omnimargin up makes one)"
        raise InputRefused(str(path), expected=expected, found="none")
    return path.resolve()
