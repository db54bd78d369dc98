"""Defects in what the hub makes of digests that are not its own."""

from collections.abc import Mapping
from typing import Any

import msgspec

import hub.credit
import hub.digests
from hub.reconciliation import Remedy
from hub.state import HubState
from hub.zone import Zone
from messaging.units import Height
from tests.mutants.mutant import Mutant


def _downward(follow: Any) -> Any:
    """Believe a digest that tells of less: less is used, and what is missing is released."""

    def spoiled(state: HubState, zone: Zone, buckets: set[int], lines: Any, height: Height) -> Any:
        effects = follow(state, zone, buckets, lines, height)
        for line in lines:
            if line.remedy is not Remedy.QUARANTINE:
                continue
            del zone.cut.quarantine[line.rid]
            known = state.reservations[line.rid]
            if line.spoke is None:
                hub.credit.end(state, zone, known, "a digest")
            else:
                less = msgspec.structs.replace(known, used_usd6=line.spoke.used_usd6)
                hub.credit.replace(state, zone, known, less)
        return effects

    return spoiled


def _leaky(advance: Any) -> Any:
    """Release what is in quarantine as if it were not."""

    def spoiled(state: HubState, zone: Zone) -> Any:
        kept, zone.cut.quarantine = zone.cut.quarantine, {}
        try:
            return advance(state, zone)
        finally:
            zone.cut.quarantine = kept

    return spoiled


MUTANTS: Mapping[str, Mutant] = {
    "X34": Mutant("P62", "repair follows the digest downward", hub.digests, "_follow", _downward),
    "X34b": Mutant("P62", "what is in quarantine is released", hub.credit, "advance", _leaky),
}
