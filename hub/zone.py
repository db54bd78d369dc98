"""One spoke as the hub sees it: how exposed, how far heard, how far final, whether trusted."""

from collections import deque
from typing import NamedTuple

import msgspec

from hub.account import Command
from hub.cut import Cut
from hub.margin.delay import Delay
from hub.planning import CloseOut
from messaging.messages import Family, HaltReason
from messaging.units import Height, LiquidationId, Micros, NodeId, ReservationId, Usd6


class Held(NamedTuple):
    """A final gain that does not count yet: from when it may, whose, and how much (rule L9)."""

    due_us: Micros
    place: int
    amount_usd6: int


class Use(NamedTuple):
    """A use told of a block that is not final: what the reservation was before it."""

    height: Height
    rid: ReservationId
    used_usd6: Usd6
    use_height: Height


class Ended(NamedTuple):
    """The end of a command, as long as a reorganisation may undo it or the report of it."""

    height: Height
    place: int  # of the account
    command: Command


class ZonePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub assumes of one spoke.

    Attributes:
        name: the spoke.
        cap_usd6: most that may be reserved or carried by positions there at once, and most
            that traders may have won there on balance (P2).
        command_us: 99th percentile of the delay from command to execution, waiting in order
            and for a block included (rule M4); where there are `delays`, without the way there.
        overdue_after_us: hub time after a grant's expiry at which silence is overdue (P39).
        renewals_max: how often a reservation is renewed.
        hold_us: hub time for which a final gain from there does not count yet (rule L9).
        delays: per asset, what the random way there is worth in age (rule M8); may be none.
        insurance_usd6: what the spoke's own fund starts with (rule L10); 0 for none.
        close_outs: per asset, what closing there costs (rule L15); may be none.
    """

    name: NodeId
    cap_usd6: Usd6
    command_us: Micros
    overdue_after_us: Micros
    renewals_max: int
    hold_us: Micros = Micros(0)
    delays: tuple[Delay, ...] = ()
    insurance_usd6: Usd6 = Usd6(0)
    close_outs: tuple[CloseOut, ...] = ()


class Zone:
    """The hub's running view of one spoke.

    Attributes:
        policy: what is assumed.
        place: position in the scenario's order of spokes.
        encumbered_usd6: sum of what reservations there take out of free credit.
        carried_usd6: initial margin, at age zero, of the positions reported there.
        carried_of: the same by place of the account.
        heard_us: newest chain time heard.
        state_us: chain time up to which every change of state has been reported.
        final_heights: per family, the newest final block heard in order (P52).
        marks: watermarks of `reservation` whose block is not final yet: (height, chain time).
        final_us: largest chain time of a final watermark of `reservation` (P37).
        covers: heights of `margin-state` watermarks that are not final yet.
        covered: largest height up to which final reports are complete (P54).
        expiries: (expiry, id) of grants and renewals, a heap.
        closes: (height, id) of closes that are not final yet.
        uncarried: (height of last use, id) of settled reservations, a heap.
        overdue_at: (hub time, id), a heap; overdue: those that are.
        renew_at: (hub time, id), oldest first.
        waiting: (height, account place) of reports that are not final yet.
        commands: live liquidation commands there -> place of the account.
        last_time_us: per family, the chain time of the last watermark.
        times: per family, (height, chain time) of watermarks from the last final one on.
        uses, ended: what a reorganisation may have to undo, oldest first (P55).
        won_usd6: what traders have won there on balance, as far as it counts; compared with
            the cap (P2).
        held: gains that wait, oldest first; held_usd6: their sum (rule L9).
        cut: what of its reservations both sides can compare (P59).
        epochs: per family, the spoke's epoch that holds on the channel (P22).
        old_closed: (height, epoch) of words that all before the epoch is closed, not final yet.
        halted: why the spoke is not trusted any more, if so (P65, P66).
        frozen: families of which a frame was passed over; nothing is freed meanwhile (P71).
    """

    def __init__(self, policy: ZonePolicy, place: int) -> None:
        self.policy = policy
        self.name = policy.name
        self.place = place
        self.encumbered_usd6 = 0
        self.carried_usd6 = 0
        self.carried_of: dict[int, int] = {}
        self.heard_us = Micros(0)
        self.state_us = Micros(0)
        self.final_heights: dict[Family, Height] = dict.fromkeys(
            (Family.MARGIN_STATE, Family.RESERVATION, Family.LIQUIDATION), Height(0)
        )
        self.marks: deque[tuple[Height, Micros]] = deque()
        self.final_us = Micros(-1)
        self.covers: deque[Height] = deque()
        self.covered = Height(-1)
        self.expiries: list[tuple[Micros, ReservationId]] = []
        self.closes: deque[tuple[Height, ReservationId]] = deque()
        self.uncarried: list[tuple[Height, ReservationId]] = []
        self.overdue_at: list[tuple[Micros, ReservationId]] = []
        self.overdue: dict[ReservationId, None] = {}
        self.renew_at: deque[tuple[Micros, ReservationId]] = deque()
        self.waiting: deque[tuple[Height, int]] = deque()
        self.commands: dict[LiquidationId, int] = {}
        self.last_time_us: dict[Family, Micros] = {}
        self.times: dict[Family, deque[tuple[Height, Micros]]] = {
            family: deque() for family in self.final_heights
        }
        self.uses: deque[Use] = deque()
        self.ended: deque[Ended] = deque()
        self.won_usd6 = 0
        self.held: deque[Held] = deque()
        self.held_usd6 = 0
        self.cut = Cut()
        self.epochs: dict[Family, int] = dict.fromkeys(self.final_heights, 1)
        self.old_closed: deque[tuple[Height, int]] = deque()
        self.halted: HaltReason | None = None
        self.frozen: dict[Family, None] = {}

    @property
    def may_free(self) -> bool:
        """Tell whether its word may free anything (P66, P71)."""
        return self.halted is None and not self.frozen

    def speaks_of(self, spoke_epoch: int) -> bool:
        """Tell whether what the spoke claims of its reservations is of those of an epoch (P22)."""
        return spoke_epoch == self.epochs[Family.RESERVATION]

    @property
    def exposure_usd6(self) -> int:
        """Return what the zone cap is compared with (P2)."""
        return self.encumbered_usd6 + self.carried_usd6
