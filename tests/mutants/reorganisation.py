"""Defects where a chain has lost blocks: at the hub, at the spoke, and on the channel between."""

from collections.abc import Mapping
from typing import Any

import hub.rollback
import spokes.rollback
from hub.state import HubState
from hub.zone import Zone
from messaging.envelope import Envelope
from messaging.inbox import Inbox
from messaging.messages import Family
from messaging.units import Height, Micros
from spokes.undo import CreditWas
from tests.mutants.mutant import Mutant


def _nothing_undone(_: Any) -> Any:
    return lambda state, zone, fork: None


def _stays_closed(take_back: Any) -> Any:
    """Undo uses, but leave a right closed whose close is lost."""

    def spoiled(spoke: Any, fact: Any, now_us: Micros) -> None:
        if not (type(fact) is CreditWas and fact.reason is not None):
            take_back(spoke, fact, now_us)

    return spoiled


def _says_nothing_again(_: Any) -> Any:
    return lambda spoke, fact, now_us: []


def _below_finality(reorganised: Any) -> Any:
    """Undo whatever a spoke takes back, though it had called that final."""

    def spoiled(state: HubState, zone: Zone, family: Family, lost: Any, final_height: Any) -> Any:
        zone.final_heights[family] = Height(0)
        return reorganised(state, zone, family, lost, Height(0))

    return spoiled


def _earlier_version(elsewhere: Any) -> Any:
    """Take the next number for the next frame, of whatever version of the channel it is."""

    def spoiled(self: Inbox, frame: Envelope, now_us: Micros) -> Any:
        if frame.chan_epoch < self.chan_epoch and frame.seq == self.next_seq:
            self.next_seq += 1
            return [frame]
        return elsewhere(self, frame, now_us)

    return spoiled


MUTANTS: Mapping[str, Mutant] = {
    "X30": Mutant("P55", "the hub keeps uses of lost blocks", hub.rollback, "_undo_uses",
                  _nothing_undone),
    "X30b": Mutant("P55", "the hub keeps closes of lost blocks", hub.rollback, "_undo_closes",
                   _nothing_undone),
    "X31": Mutant("P55", "a right stays closed, its close lost", spokes.rollback, "_take_back",
                  _stays_closed),
    "X31b": Mutant("P55", "a spoke says nothing again", spokes.rollback, "_say_again",
                   _says_nothing_again),
    "X32": Mutant("P21", "frames of an earlier version count", Inbox, "_of_another_version",
                  _earlier_version),
    "X33": Mutant("P56", "what was final is undone", hub.rollback, "reorganised",
                  _below_finality),
}  # fmt: skip
