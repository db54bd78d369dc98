"""What was seen of a stress event, one run: plain data, from which claims are judged."""

from typing import NamedTuple

import msgspec

from lab.result import Result


class Grant(NamedTuple):
    """Credit that the hub has granted."""

    at_us: int
    spoke: str
    account: str
    amount_usd6: int


class Refusal(NamedTuple):
    """Credit that it has refused, and why."""

    at_us: int
    spoke: str
    account: str
    reason: str


class Turn(NamedTuple):
    """A breaker whose level has changed."""

    at_us: int
    scope: str
    level: int
    cause: str


class ZoneSight(NamedTuple):
    """A spoke as the hub saw it at one moment.

    Attributes:
        age_us: of its state. gain_share_ppm: what of gains there counts.
        gains_usd6: what traders are up there, as reported. counted_usd6: what of it counts.
        expired_usd6: open credit there whose expiry has passed on the hub's clock.
        ended: reservations that were released until now.
        off_usd6: open and settled reservations added up anew, less what the zone has booked.
    """

    at_us: int
    age_us: int
    gain_share_ppm: int
    gains_usd6: int
    counted_usd6: int
    expired_usd6: int
    ended: int
    off_usd6: int


class HolderSight(NamedTuple):
    """A named account as the hub saw it at one moment.

    Attributes:
        pnl_usd6: what its positions have won or lost and is not settled, in full.
        free_usd6, reserved_usd6: credit that it may still reserve, and has reserved.
        unwind_s: a third of the time to close its largest position. rest_s: of tau, the rest.
    """

    at_us: int
    cash_usd6: int
    pnl_usd6: int
    equity_usd6: int
    maintenance_usd6: int
    notional_usd6: int
    free_usd6: int
    reserved_usd6: int
    unwind_s: float
    rest_s: float


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    Attributes:
        caps_usd6, exposure_usd6, won_usd6: by spoke, the zone cap, and the most that was held
            there, and that traders had won there on balance.
        least_cover_ppm: least that equity of all was of what maintenance of all required.
        lowest_fill_ppm: of all closed by liquidation, the lowest price, as a share of the lowest
            true price while it was closed; None if nothing was.
        liquidated_us: when each liquidation ended.
        unwinds_us: of each named account's liquidations, how long they sold, and took otherwise.
        losses: (when, bad debt until then). insolvent_us: when some account first had less than
            nothing by the hub's book, as looked at every 30 s.
        zones: by spoke. holders: by name.
        owned: name of each named account -> its id.
        used_ppm: by asset, the lowest and highest that the price in use was of its peg or of the
            true price of the moment.
        ratios_ppm: by asset, the highest reproduction number of liquidations (B6) at normal
            depth; 0 without an impact.
        reopened: reservations that were open again after their end.
    """

    result: Result
    caps_usd6: dict[str, int]
    exposure_usd6: dict[str, int]
    won_usd6: dict[str, int]
    least_cover_ppm: int
    lowest_fill_ppm: int | None
    liquidated_us: list[int]
    unwinds_us: dict[str, tuple[int, int]]
    grants: list[Grant]
    refusals: list[Refusal]
    turns: list[Turn]
    losses: list[tuple[int, int]]
    insolvent_us: int | None
    zones: dict[str, list[ZoneSight]]
    holders: dict[str, list[HolderSight]]
    owned: dict[str, str]
    used_ppm: dict[str, tuple[int, int]]
    ratios_ppm: dict[str, int]
    reopened: int

    @property
    def lost_usd6(self) -> int:
        """Return bad debt, and what is below zero at the end and not closed out."""
        return self.result.bad_debt_usd6 + self.result.open_shortfall_usd6

    @property
    def peak_usd6(self) -> int:
        """Return the most that any spoke held at once."""
        return max(self.exposure_usd6.values())
