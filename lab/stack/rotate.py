"""Give a node of a live stack a new key, beside the old one; its next start finds it (P67)."""

import signal
from pathlib import Path

from lab.stack import register
from lab.stack.plan import KEYS, read_plan
from lab.world import names_of
from messaging.errors import InputRefused
from messaging.key_files import add_key
from messaging.units import HUB, NodeId

STOP_S = 10.0


def rotate(folder: Path, node: NodeId) -> tuple[Path, bool]:
    """Write the key, and stop the node's process if a supervisor here will start it again.

    Return the key's file, and whether the process was stopped. A crash in between leaves a key
    that the next start finds, whoever causes it.

    Raises:
        InputRefused: not the hub or a spoke of a stack, or the key cannot be written.
    """
    _, scenario = read_plan(folder)
    names = (HUB, *names_of(scenario))
    if node not in names:  # the keys of all others are configuration
        raise InputRefused("node", expected=f"one of {', '.join(names)}", found=node)
    path = add_key(folder / KEYS, node)
    found = register.read(folder)
    if found is None or not register.alive(found.supervisor):
        return path, False
    running = [one for one in found.processes if one.role == node and register.ours(one, folder)]
    return path, any(register.end(one, signal.SIGTERM, STOP_S) for one in running)
