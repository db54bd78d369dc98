"""Liquidations by the words of both sides: ordered, filled, done (W14 to W16)."""

from collections.abc import Callable
from functools import partial

import msgspec

from lab.monitor.accounts import Accounts
from lab.monitor.docket import Docket
from messaging.envelope import Envelope
from messaging.messages import (
    LiquidationDone,
    LiquidationEnd,
    LiquidationFilled,
    LiquidationOrdered,
)
from messaging.units import LiquidationId, NodeId


class Command(msgspec.Struct):
    """One command at one spoke.

    Attributes:
        ordered_us, done_us: when hub and spoke said so.
        arrived_us: when the spoke got it. first_us, last_us: chain time of fills reported.
        filled_qty8: largest figure reported.
    """

    spoke: NodeId
    liq_id: LiquidationId
    ordered: LiquidationOrdered | None = None
    ordered_us: int = 0
    arrived_us: int = -1
    first_us: int = -1
    last_us: int = -1
    filled_qty8: int = 0
    done: LiquidationDone | None = None
    done_us: int = 0

    @property
    def name(self) -> str:
        """Name it for people."""
        return f"{self.liq_id.hex()[:12]} at {self.spoke}"

    @property
    def over(self) -> bool:
        """Tell whether all of its way is known, and something was filled."""
        filled = self.done is not None and self.done.filled_qty8 > 0
        return filled and self.ordered is not None and self.arrived_us >= 0


class Counts(msgspec.Struct):
    """How many liquidations at one spoke; filled: those with a fill."""

    ordered: int = 0
    filled: int = 0
    done: int = 0


class Commands:
    """All liquidations.

    Attributes:
        counts: by spoke.
        on_over: called with each command whose whole way is known, once.
    """

    def __init__(
        self,
        spokes: tuple[NodeId, ...],
        accounts: Accounts,
        docket: Docket,
        on_over: Callable[[Command], None],
    ) -> None:
        self.counts = {spoke: Counts() for spoke in spokes}
        self.on_over = on_over
        self._accounts = accounts
        self._docket = docket
        self._commands: dict[tuple[NodeId, LiquidationId], Command] = {}

    def _command(self, spoke: NodeId, liq_id: LiquidationId) -> Command:
        command = self._commands.get((spoke, liq_id))
        if command is None:
            command = self._commands[spoke, liq_id] = Command(spoke, liq_id)
        return command

    def from_hub(self, spoke: NodeId, frame: Envelope) -> None:
        """Take in a frame of `to-<spoke>.liquidation`, in order."""
        ordered = frame.message
        if not isinstance(ordered, LiquidationOrdered):
            return
        command = self._command(spoke, ordered.liq_id)
        if command.ordered is not None:
            if ordered != command.ordered:
                text = f"{command.name}: expected {command.ordered}, found {ordered}"
                self._docket.find("W16", spoke, command.name, text, by_hub=True)
            return
        if not self._accounts.known(ordered.account):
            text = f"{command.name}: expected an account, found {ordered.account}"
            self._docket.find("W16", spoke, command.name, text, by_hub=True)
        command.ordered, command.ordered_us = ordered, frame.sent_us
        self.counts[spoke].ordered += 1
        self._within(command, command.filled_qty8)
        self._tell(command)

    def arrived(self, spoke: NodeId, ordered: LiquidationOrdered, at_us: int) -> None:
        """Note when a command got to its spoke; the first time counts."""
        command = self._command(spoke, ordered.liq_id)
        if command.arrived_us < 0:
            command.arrived_us = at_us
            self._tell(command)

    def from_spoke(self, spoke: NodeId, frame: Envelope) -> None:
        """Take in a frame of `from-<spoke>.liquidation`, in order."""
        message = frame.message
        if isinstance(message, LiquidationFilled):
            self._filled(self._command(spoke, message.liq_id), message)
        elif isinstance(message, LiquidationDone):
            command = self._command(spoke, message.liq_id)
            if message.reason is LiquidationEnd.EXISTS_DIFFERENT:
                self._ordered(command)  # of another body under this id; the first goes on
            else:
                self._done(command, message, frame.sent_us)

    def _filled(self, command: Command, fill: LiquidationFilled) -> None:
        if command.first_us < 0:
            command.first_us = fill.block_time_us
            self.counts[command.spoke].filled += 1
        self._risen(command, fill.filled_qty8)
        if fill.filled_qty8 > command.filled_qty8:
            command.last_us = max(fill.block_time_us, command.last_us)
        if command.done is not None and fill.filled_qty8 > command.done.filled_qty8:
            text = f"{command.name}: expected no fill after {command.done}, found {fill}"
            self._blame("W15", command, text)
        self._within(command, fill.filled_qty8)
        command.filled_qty8 = max(fill.filled_qty8, command.filled_qty8)

    def _done(self, command: Command, done: LiquidationDone, sent_us: int) -> None:
        if command.done is not None:
            if done != command.done:
                text = f"{command.name}: expected {command.done}, found another end, {done}"
                self._blame("W15", command, text)
            return
        command.done, command.done_us = done, sent_us
        self.counts[command.spoke].done += 1
        if done.filled_qty8 and command.first_us < 0:
            command.first_us = sent_us
            self.counts[command.spoke].filled += 1
        self._risen(command, done.filled_qty8)
        self._within(command, done.filled_qty8)
        command.filled_qty8 = max(done.filled_qty8, command.filled_qty8)
        self._tell(command)

    def _risen(self, command: Command, filled_qty8: int) -> None:
        if filled_qty8 < command.filled_qty8:
            text = f"{command.name}: expected at least {command.filled_qty8:,} qty8 filled, found "
            self._blame("W7", command, text + f"{filled_qty8:,}")

    def _within(self, command: Command, filled_qty8: int) -> None:
        ordered = command.ordered
        if ordered is None:
            self._ordered(command)
        elif filled_qty8 > ordered.max_qty8:
            text = f"{command.name}: expected at most {ordered.max_qty8:,} qty8 filled, found "
            self._blame("W15", command, text + f"{filled_qty8:,}")
        elif command.last_us >= ordered.deadline_us:
            text = f"{command.name}: expected no fill at or past {ordered.deadline_us:,} us, found "
            self._blame("W15", command, text + f"one at {command.last_us:,}")

    def _ordered(self, command: Command) -> None:
        """Doubt a command that is not here; it may still come."""
        if command.ordered is None:
            check = partial(_not_ordered, command)
            self._docket.doubt("W14", command.spoke, command.name, check)

    def _blame(self, rule: str, command: Command, text: str) -> None:
        self._docket.find(rule, command.spoke, command.name, text)

    def _tell(self, command: Command) -> None:
        if command.over:
            self.on_over(command)


def _not_ordered(command: Command) -> str | None:
    if command.ordered is None:
        return f"{command.name}: expected a fill of what was ordered, found no command"
    return None
