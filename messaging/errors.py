"""Every error this project raises, by who is at fault.

`OmnimarginError` is caught once, in `lab.cli`, which prints one line and exits with
`exit_code`. Anything else that escapes is a bug.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class OmnimarginError(Exception):
    """Root of the tree."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes as what was said, whatever `__init__` asks for."""
        return _again, (type(self), self.args), self.__dict__


class InputRefused(OmnimarginError):
    """What the user gave cannot be used. The message says what was expected and found."""

    exit_code = 2

    def __init__(self, where: str, *, expected: str, found: object) -> None:
        super().__init__(f"{where}: expected {expected}, found {found}")
        self.where = where
        self.expected = expected
        self.found = found


class FrameRefused(OmnimarginError):
    """Bytes that are no frame of ours. The sender's fault, or the wire's.

    The only error the decoder lets escape.
    """

    exit_code = 2


class OrderRefused(OmnimarginError):
    """An operator's order that its node does not carry out. Nothing is changed (P70)."""

    exit_code = 2


class LogTorn(OmnimarginError):
    """A message log that is damaged or ends early.

    Attributes:
        records: how many records before the damage are sound.
    """

    exit_code = 2

    def __init__(self, where: str, records: int, why: str) -> None:
        super().__init__(f"{where}: {why}; {records:,} records before it are sound")
        self.records = records


class StoreFailed(OmnimarginError):
    """A node's file cannot be written: disk full, or an I/O error.

    The process must end, for its memory is ahead of its disk (P93); a later start goes on.
    """

    exit_code = 75


class InputLost(OmnimarginError):
    """Messages that nobody will send again are gone, such as orders behind a truncated topic."""

    exit_code = 2


class StateLost(OmnimarginError):
    """Others know more of what this node has said than the node itself, or a later life of it.

    Going on could grant the same collateral twice (P60). A restart does not help.
    """

    exit_code = 2


class ReplayDiverged(OmnimarginError):
    """A replayed node did something else than the log says: another build, or our bug.

    Attributes:
        index: position of the first differing record, from 0.
        expected: the effects in the log.
        found: the effects this build produced.
    """

    exit_code = 3

    def __init__(
        self, index: int, at_us: int, node: str, *, expected: object, found: object
    ) -> None:
        super().__init__(
            f"record {index:,} (node {node}, virtual time {at_us / 1e6:.6f} s): "
            f"expected {expected}, found {found}"
        )
        self.index = index
        self.expected = expected
        self.found = found


class InvariantViolated(OmnimarginError):
    """Something that must always hold does not: our bug, or a planted fault.

    Attributes:
        rule: the invariant, as numbered in docs/invariants.md.
        finding: what was expected and found.
    """

    exit_code = 4

    def __init__(self, rule: str, finding: str) -> None:
        super().__init__(f"{rule}: {finding}")
        self.rule = rule
        self.finding = finding


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean X?)` for the known word most like `word`, or nothing."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _again(kind: type[OmnimarginError], args: tuple[object, ...]) -> OmnimarginError:
    error = kind.__new__(kind, *args)
    error.args = args
    return error
