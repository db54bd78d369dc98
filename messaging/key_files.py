"""Private and public keys as files of a folder: `<node>.key` and `<node>.pub` (P67).

A later key of a node lies beside its first, as `<node>.key.2`, `<node>.key.3`, ...
"""

import os
from collections.abc import Iterable
from pathlib import Path

from nacl.bindings import crypto_sign_seed_keypair

from messaging.errors import InputRefused
from messaging.identity import Retired, Signer, Verifier
from messaging.units import NodeId

SEED_BYTES = 32


def write_keys(folder: Path, nodes: Iterable[NodeId]) -> None:
    """Make a key pair for each node: `<node>.key`, for its owner only, and `<node>.pub`."""
    folder.mkdir(parents=True, exist_ok=True)
    for node in nodes:
        seed = os.urandom(SEED_BYTES)
        path = folder / f"{node}.key"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(seed)
        public, _ = crypto_sign_seed_keypair(seed)
        (folder / f"{node}.pub").write_text(public.hex() + "\n")


def add_key(folder: Path, node: NodeId) -> Path:
    """Put a new private key beside those that a node has; it goes over to it as it next starts.

    The file is whole or not there: `<node>.key.2`, `<node>.key.3`, ...

    Raises:
        InputRefused: no such node, or it cannot be written.
    """
    if not (folder / f"{node}.pub").exists():
        raise InputRefused(str(folder), expected=f"keys of {node}", found="none")
    number = max(_later_numbers(folder, node), default=1) + 1
    path = folder / f"{node}.key.{number}"
    try:
        _write_seed(folder / f"{node}.key.new", os.urandom(SEED_BYTES))
        (folder / f"{node}.key.new").rename(path)
        _sync(folder)  # what is said of a key must not outlive it
    except OSError as error:
        found = error.strerror or str(error)
        raise InputRefused(str(path), expected="a file to write", found=found) from None
    return path


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _write_seed(path: Path, seed: bytes) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(seed)
        file.flush()
        os.fsync(file.fileno())


def read_signer(folder: Path, node: NodeId, domain: bytes) -> Signer:
    """Return the signer of a node's first key; one that signs no more if only later ones are left.

    Raises:
        InputRefused: no key, or others may read it.
    """
    path = folder / f"{node}.key"
    if not path.exists() and _later_numbers(folder, node):
        return Retired(domain, _read_public(folder / f"{node}.pub"))
    return Signer(domain, _read_seed(path))


def read_later_signers(folder: Path, node: NodeId, domain: bytes) -> list[Signer]:
    """Return the signers of the keys that a node has got since, the newest last (P67).

    Raises:
        InputRefused: as `read_signer`.
    """
    numbers = sorted(_later_numbers(folder, node))
    return [Signer(domain, _read_seed(folder / f"{node}.key.{number}")) for number in numbers]


def _later_numbers(folder: Path, node: NodeId) -> list[int]:
    found = (path.suffix[1:] for path in folder.glob(f"{node}.key.*"))
    return [int(number) for number in found if number.isdigit()]


def _read_seed(path: Path) -> bytes:
    try:
        mode, seed = path.stat().st_mode & 0o777, path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputRefused(str(path), expected="a private key", found=reason) from None
    if mode & 0o077:
        raise InputRefused(str(path), expected="mode 0600", found=f"{mode:04o}")
    if len(seed) != SEED_BYTES:
        raise InputRefused(str(path), expected=f"{SEED_BYTES} bytes", found=len(seed))
    return seed


def read_verifier(folder: Path, domain: bytes) -> Verifier:
    """Return the public keys in a folder: of each node the first.

    Raises:
        InputRefused: one of them is no key.
    """
    public = {NodeId(path.stem): _read_public(path) for path in sorted(folder.glob("*.pub"))}
    return Verifier(domain, public)


def _read_public(path: Path) -> bytes:
    try:
        key = bytes.fromhex(path.read_text())
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputRefused(str(path), expected="a public key", found=reason) from None
    except ValueError:
        key = b""
    if len(key) != 32:
        raise InputRefused(str(path), expected="64 hex digits", found="something else")
    return key
