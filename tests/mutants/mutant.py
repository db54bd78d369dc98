"""A small, realistic defect: what is replaced, by what, and the rule that this breaks."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Mutant(NamedTuple):
    """One function of the nodes, by module and name, and what makes the faulty one of it."""

    rule: str
    about: str
    where: Any
    name: str
    spoil: Callable[[Any], Any]
