"""Defects in how long a final gain waits before it counts."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import hub.gains
import hub.rollback
from hub.state import HubState
from hub.zone import Held, Zone
from messaging.units import Micros
from tests.mutants.mutant import Mutant


def _due(zone: Zone) -> None:
    zone.held = deque(Held(Micros(0), place, usd6) for _, place, usd6 in zone.held)


def _not_after_restart(tend: Any) -> Any:
    """Count time from the start of the process: what waits is due in every later life."""

    def spoiled(state: HubState, zone: Zone, now_us: Micros) -> None:
        if state.life > 1:
            _due(zone)
        tend(state, zone, now_us)

    return spoiled


def _not_after_reorganisation(reorganised: Any) -> Any:
    """Forget with the lost blocks how long the gains of a spoke wait."""

    def spoiled(state: HubState, zone: Zone, *given: Any) -> Any:
        _due(zone)
        return reorganised(state, zone, *given)

    return spoiled


def _twice(tend: Any) -> Any:
    """Leave a gain in the row when it counts, once."""

    def spoiled(state: HubState, zone: Zone, now_us: Micros) -> None:
        before = zone.held[0] if zone.held else None
        tend(state, zone, now_us)
        if before is not None and before.due_us and before not in zone.held:
            zone.held.appendleft(before._replace(due_us=Micros(0)))

    return spoiled


MUTANTS: Mapping[str, Mutant] = {
    "X35": Mutant("L9", "a restart ends all holds", hub.gains, "tend", _not_after_restart),
    "X35b": Mutant("L9", "a reorganisation ends holds", hub.rollback, "reorganised",
                   _not_after_reorganisation),
    "X35c": Mutant("L9", "a held gain counts twice", hub.gains, "tend", _twice),
}  # fmt: skip
