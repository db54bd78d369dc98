"""Defects in how a spoke comes back that has lost all but its chain."""

from collections.abc import Mapping
from typing import Any

import msgspec

import hub.rebuild
import spokes.contract
import spokes.reservation
from hub.zone import Zone
from messaging.units import Height, Micros
from spokes.state import SpokeState
from tests.mutants.mutant import Mutant


def _no_new_epoch(restore: Any) -> Any:
    """Let every right of the contract go on, as if its epoch had not changed."""

    def spoiled(spoke: SpokeState, event: Any, now_us: Micros) -> None:
        restore(spoke, event, now_us)
        before = msgspec.msgpack.decode(event.contract, type=spokes.contract.Contract)
        for credit in before.credits:
            spoke.keep_credit(spokes.reservation.Outcome(credit), now_us)

    return spoiled


def _of_any_epoch(speaks_of: Any) -> Any:
    """Let a watermark release what an earlier epoch was granted."""
    return lambda zone, spoke_epoch: True


def _early_word(closed: Any) -> Any:
    """Release what never reached the contract before that is final."""
    return lambda zone, word, height: closed(zone, word, Height(0))


def _same_ids(begin_epoch: Any) -> Any:
    """Count requests from the beginning again."""

    def spoiled(self: SpokeState, spoke_epoch: int, height: Height) -> None:
        begin_epoch(self, spoke_epoch, height)
        self.life = 0

    return spoiled


MUTANTS: Mapping[str, Mutant] = {
    "X9": Mutant("P22", "amnesia without a new epoch", spokes.contract, "restore", _no_new_epoch),
    "X10": Mutant("P22", "a watermark of another epoch", Zone, "speaks_of", _of_any_epoch),
    "X10b": Mutant("P61", "free at a soft rebuilt word", hub.rebuild, "closed", _early_word),
    "X10c": Mutant("P61", "ids of an earlier epoch again", SpokeState, "begin_epoch", _same_ids),
}
