"""What a model of the reservation protocol may be run with: defences as switches, and bounds."""

from dataclasses import dataclass
from enum import Enum


class Release(Enum):
    """What lets the hub free a reservation, besides the spoke's close."""

    CLOSE_ONLY = "close only"
    WATERMARK = "watermark"
    HUB_CLOCK = "hub clock"
    HUB_CLOCK_WITH_MARGIN = "hub clock with skew margin"


class Renewals(Enum):
    """Whether the hub renews, and which expiry its release rule looks at."""

    NONE = "none"
    FIRST_EXPIRY = "first expiry"
    LARGEST_EXPIRY = "largest expiry"


class Amnesia(Enum):
    """Whether a spoke may once lose its state, and what its epoch then fences."""

    NONE = "none"
    NO_EPOCH = "nothing fenced"
    GRANTS_FENCED = "grants fenced"
    ALL_FENCED = "grants and watermarks fenced"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """One model: the protocol with all defences unless one is taken away here.

    Attributes:
        release: what frees, besides a close.
        sequence_numbers: the hub takes a spoke's messages in order, each once; else any, again
            and again.
        outbox: a use and the message about it are one step; else a crash may lose the message.
        tombstones: a spoke remembers what it closed; else a repeated grant opens it again.
        finality: the hub takes only final messages, and a reorg withdraws the others; else it
            takes any, and one that it may have taken cannot be withdrawn.
        reorgs_max: how often each spoke may fall back to its final state.
        stale_hub: the hub may go on from a state older than what it has sent.
        renewals: whether grants are renewed, and how that is judged.
        amnesia: whether spokes may lose their state, and what is fenced then.
        reservations: how many, of one unit each; number r belongs to spoke r mod 2.
        capacity: units of collateral.
        lifetime: ticks from the hub's time at the grant to its expiry.
        clock_max: last tick of every clock; the first is 0.
        log_max: messages a spoke may send in all.
        skew_max: ticks that the hub's clock and a spoke's may differ by; None is any number.

    Raises:
        ValueError: the bounds leave nothing to explore, or two switches do not go together.
    """

    release: Release = Release.WATERMARK
    sequence_numbers: bool = True
    outbox: bool = True
    tombstones: bool = True
    finality: bool = True
    reorgs_max: int = 0
    stale_hub: bool = False
    renewals: Renewals = Renewals.NONE
    amnesia: Amnesia = Amnesia.NONE
    reservations: int = 3
    capacity: int = 1
    lifetime: int = 1
    clock_max: int = 2
    log_max: int = 3
    skew_max: int | None = None

    def __post_init__(self) -> None:
        if self.skew_max is not None and self.skew_max < 1:
            raise ValueError(f"expected skew_max >= 1 or no clock moves, found {self.skew_max}")
        if self.release is Release.HUB_CLOCK_WITH_MARGIN and self.skew_max is None:
            raise ValueError("expected skew_max, for the margin is derived from it, found None")
        if self.amnesia is not Amnesia.NONE and (self.reorgs_max or not self.sequence_numbers):
            raise ValueError("expected amnesia with sequence numbers and without reorgs")

    @property
    def epoch_in_grants(self) -> bool:
        """Whether a grant is good only for the life of the spoke it was made in."""
        return self.amnesia in (Amnesia.GRANTS_FENCED, Amnesia.ALL_FENCED)
