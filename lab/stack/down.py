"""Stop the stack of a folder from outside: ask its supervisor; without one, end what it left."""

import signal
from collections.abc import Callable
from pathlib import Path

from lab.stack import register
from messaging.errors import InputRefused, OmnimarginError

PATIENCE_S = 45.0  # the supervisor stops its processes, kills what does not, stops the broker
KILL_S = 10.0


class StillRunning(OmnimarginError):
    """A process that does not end when told to."""


def take_down(folder: Path, say: Callable[[str], None]) -> bool:
    """Stop everything that runs in a folder; tell whether anything did.

    Raises:
        InputRefused: no stack was ever started in the folder.
        StillRunning: the supervisor does not end.
    """
    found = register.read(folder)
    if found is None:
        raise InputRefused(str(folder), expected="the folder of a live stack", found="none")
    if register.alive(found.supervisor):
        if not register.end(found.supervisor, signal.SIGTERM, PATIENCE_S):
            raise StillRunning(
                f"expected process {found.supervisor.pid} to stop within {PATIENCE_S:g} s, "
                "found it running; see its terminal, or press Ctrl-C there twice"
            )
        say(f"stopped {folder}")
        return True
    return end_left(folder, say)


def end_left(folder: Path, say: Callable[[str], None]) -> bool:
    """End what a supervisor that is gone has left; tell whether there was anything."""
    found = register.read(folder)
    processes = found.processes if found is not None else ()
    left = [process for process in processes if register.ours(process, folder)]
    for process in left:
        say(f"the supervisor is gone, but {process.role} runs (process {process.pid}): ending it")
        if not register.end(process, signal.SIGTERM, KILL_S):
            register.end(process, signal.SIGKILL, KILL_S)
    return bool(left)
