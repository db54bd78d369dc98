"""Snapshots of a fold as bytes, tied to the code that made it (P88)."""

import pickle
import sys
from functools import cache
from hashlib import blake2b
from pathlib import Path

from messaging.fingerprint import fingerprint
from messaging.store import Snapshot

_SUM_BYTES = 16


def pack(memory: object, code: bytes) -> bytes:
    """Return a state with its checksum in front."""
    state = pickle.dumps(memory, protocol=5)
    return _sum(code, state) + state


def unpack(snapshot: Snapshot, code: bytes) -> object | None:
    """Return the state in a snapshot, or None if it is damaged or of other code."""
    if _sum(code, snapshot.state[_SUM_BYTES:]) != snapshot.state[:_SUM_BYTES]:
        return None
    try:
        memory: object = pickle.loads(snapshot.state[_SUM_BYTES:])  # our own file, its sum right
    except (pickle.UnpicklingError, AttributeError, ImportError, TypeError, ValueError, EOFError):
        return None  # of another version of what the code stands on; the journal has it all
    if snapshot.fingerprint and fingerprint(memory) != snapshot.fingerprint:
        return None
    return memory


def _sum(code: bytes, data: bytes) -> bytes:
    return blake2b(data, key=code, digest_size=_SUM_BYTES).digest()


@cache
def code_of(*modules: str) -> bytes:
    """Return a digest of the sources of these modules' packages: what a fold depends on."""
    digest = blake2b(digest_size=_SUM_BYTES)
    for package in sorted({module.partition(".")[0] for module in modules}):
        for folder in getattr(sys.modules[package], "__path__", ()):
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(path.read_bytes())
    return digest.digest()
