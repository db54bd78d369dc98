"""Make passwords and certificates, and give the broker its share: `credentials.py STACK BROKER`.

The service `credentials` of docker-compose.yml (profile secure), before the broker's first start.
STACK is the folder of the stack, BROKER one that only the broker's container reads as well. The
broker gets its own key and certificate, and of each password a salted hash:

ca.pem, broker.pem     as in lab.stack.secure
scram.txt              one argument of `kafka-storage.sh format --add-scram` a line; written last
"""

import os
import sys
from base64 import b64encode
from collections.abc import Sequence
from hashlib import pbkdf2_hmac
from pathlib import Path

from lab import reading
from lab.stack.acl import principals
from lab.stack.plan import PLAN
from lab.stack.secure import prepare_secure
from lab.world import names_of
from messaging.errors import InputRefused, OmnimarginError

HOSTS = ("broker", "localhost", "127.0.0.1")  # to containers; to the broker itself
ROUNDS = 8_192  # of hashing; brokers refuse fewer than 4,096
SALT_BYTES = 24
READABLE = 0o644  # the broker runs as another user


def hand_over(stack: Path, broker: Path, scenario: Path) -> None:
    """Make what a stack has not got yet, and copy the broker's share.

    Raises:
        InputRefused: the stack runs without passwords, or something cannot be read or written.
    """
    if (broker / "scram.txt").exists():
        return
    if (stack / PLAN).exists():
        expected = "a new stack (docker compose down --volumes makes room for one)"
        raise InputRefused(str(stack), expected=expected, found="one without passwords")
    names = names_of(reading.check(reading.read_file(scenario), directory=scenario.parent))
    secrets = prepare_secure(stack, principals(names), HOSTS).folder
    try:
        for name in ("ca.pem", "broker.pem"):
            _write(broker / name, (secrets / name).read_text())
        lines = [
            hashed(file.stem, file.read_text().strip())
            for file in sorted(secrets.glob("*.password"))
        ]
        _write(broker / "scram.txt", "".join(f"{line}\n" for line in lines))
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputRefused(str(broker), expected="a folder to write", found=reason) from None


def hashed(principal: str, password: str) -> str:
    """Return what tells the broker of a password without saying it."""
    salt = os.urandom(SALT_BYTES)
    salted = pbkdf2_hmac("sha512", password.encode(), salt, ROUNDS)
    return (
        f"SCRAM-SHA-512=[name={principal},iterations={ROUNDS},"
        f"salt={b64encode(salt).decode()},saltedpassword={b64encode(salted).decode()}]"
    )


def _write(path: Path, text: str) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text)
    fresh.chmod(READABLE)
    fresh.replace(path)


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    if len(arguments) != 2:
        sys.stderr.write("usage: SCENARIO=FILE credentials.py STACK BROKER\n")
        return 2
    try:
        hand_over(Path(arguments[0]), Path(arguments[1]), Path(os.environ["SCENARIO"]))
    except OmnimarginError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
