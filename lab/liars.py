"""Spokes and oracles that lie: nodes with the real one inside, and something else to say.

Only the words differ, never the way they travel. What the hub makes of each: docs/incident.md.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from markets.feed import Feed, FeedPolicy
from messaging.digests import CreditRow
from messaging.effects import Effect, Send, SetTimer
from messaging.envelope import Envelope
from messaging.messages import (
    CloseReason,
    CreditUsed,
    MarketMoved,
    Message,
    ReservationClosed,
    StateReported,
    Watermark,
)
from messaging.node import Event, TimerFired
from messaging.open_rows import OpenRows
from messaging.units import (
    AccountId,
    Micros,
    NodeId,
    Ppm,
    ReservationId,
    Usd6,
    new_id,
    ratio_down,
)
from spokes.node import Spoke
from spokes.state import SpokePolicy

CLAIM, USE = "claim-", "use-"  # timers of ours; the spoke names its own otherwise


class Claim(NamedTuple):
    """A gain that nobody has made: when it is claimed, for whom, how much."""

    at_us: Micros
    account: AccountId
    amount_usd6: Usd6


class Forger(Spoke):
    """Claims gains that nobody has made, and calls them final at once (P2).

    Attributes:
        forged_usd6: what its books hold beyond the truth, by account.
    """

    def __init__(self, policy: SpokePolicy, claims: Sequence[Claim]) -> None:
        super().__init__(policy)
        self._claims = claims
        self.forged_usd6: dict[AccountId, int] = {}

    def start(self) -> Sequence[Effect]:
        """See `messaging.node.Node.start`."""
        timers = [SetTimer(f"{CLAIM}{i}", claim.at_us) for i, claim in enumerate(self._claims)]
        return (*super().start(), *timers)

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        """See `messaging.node.Node.handle`."""
        if type(event) is not TimerFired or not event.name.startswith(CLAIM):
            return super().handle(now_us, event)
        claim, spoke = self._claims[int(event.name.removeprefix(CLAIM))], self.state
        trader = spoke.trader(claim.account)
        realised_usd6 = trader.realised_usd6 + claim.amount_usd6
        spoke.keep_trader(msgspec.structs.replace(trader, realised_usd6=realised_usd6))
        known_usd6 = self.forged_usd6.get(claim.account, 0)
        self.forged_usd6[claim.account] = known_usd6 + claim.amount_usd6
        return [_final(effect) for effect in spoke.reports(now_us)]


def _final(effect: Effect) -> Effect:
    """Call the block of a fact final; a chain says itself which of its blocks are."""
    assert type(effect) is Send
    return msgspec.structs.replace(effect, final_height=effect.height)


class Afterthought(Spoke):
    """Uses rights that it has given up, or let expire, some time later, and says so."""

    def __init__(self, policy: SpokePolicy, reason: CloseReason, after_us: Micros) -> None:
        """Go on with rights that end for `reason`, `after_us` later.

        If they end by expiry it does not say that they have: the use comes late (P64). Else
        it says so and uses them all the same (P35).
        """
        super().__init__(policy)
        self._reason = reason
        self._after_us = after_us
        self._given_up: list[tuple[ReservationId, Usd6]] = []

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        """See `messaging.node.Node.handle`."""
        if type(event) is TimerFired and event.name.startswith(USE):
            rid, used_usd6 = self._given_up[int(event.name.removeprefix(USE))]
            block_us = self.state.policy.chain.time_at(now_us)
            said = CreditUsed(rid=rid, used_usd6=used_usd6, block_time_us=block_us)
            return [self.state.tell(said, now_us)]
        effects: list[Effect] = []
        for effect in super().handle(now_us, event):
            said_now = effect.message if type(effect) is Send else None
            if type(said_now) is ReservationClosed and said_now.reason is self._reason:
                effects.append(self._plan(now_us, said_now.rid))
                if self._reason is CloseReason.EXPIRED:
                    continue
            effects.append(effect)
        return effects

    def _plan(self, now_us: Micros, rid: ReservationId) -> SetTimer:
        self._given_up.append((rid, self.state.credits[rid].amount_usd6))
        return SetTimer(f"{USE}{len(self._given_up) - 1}", Micros(now_us + self._after_us))


class Withholder(Spoke):
    """Says nothing more, from some time on, of losses, positions and how far it has told all."""

    def __init__(self, policy: SpokePolicy, since_us: Micros) -> None:
        super().__init__(policy)
        self._since_us = since_us

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        """See `messaging.node.Node.handle`."""
        effects = super().handle(now_us, event)
        if now_us < self._since_us:
            return effects
        return [e for e in effects if type(e) is not Send or not _telling(e.message)]


class Denier(Spoke):
    """Denies every use: what was used it reports as unused, and it shows no positions."""

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        """See `messaging.node.Node.handle`."""
        effects: list[Effect] = []
        for effect in super().handle(now_us, event):
            if type(effect) is not Send:
                effects.append(effect)
            elif type(effect.message) is ReservationClosed:
                denied = msgspec.structs.replace(effect.message, used_usd6=Usd6(0))
                effects.append(msgspec.structs.replace(effect, message=denied))
            elif type(effect.message) not in (CreditUsed, StateReported):
                effects.append(effect)
        return effects


class FalseRows(OpenRows):
    """Open reservations as nobody holds them: four in seven are told otherwise than they are.

    Which lie is told of a reservation follows from its id, so all digests tell the same.
    """

    __slots__ = ()

    def put(self, row: CreditRow) -> None:
        """Put a row in: with half its use, larger, not at all, or one more that nobody granted."""
        match row.rid[0] % 7:
            case 0:
                row = msgspec.structs.replace(row, used_usd6=Usd6(row.used_usd6 // 2))
            case 1:
                row = msgspec.structs.replace(row, amount_usd6=Usd6(row.amount_usd6 + 1))
            case 2:
                return
            case 3:
                used_usd6 = Usd6(row.amount_usd6 if row.rid[1] % 3 == 2 else 0)  # 1 in 3 is bold
                invented = msgspec.structs.replace(row, rid=_invented(row.rid), used_usd6=used_usd6)
                super().put(invented)
        super().put(row)

    def drop(self, rid: ReservationId) -> None:
        """Take a row out, and what was invented beside it."""
        super().drop(rid)
        super().drop(_invented(rid))


def _invented(rid: ReservationId) -> ReservationId:
    return ReservationId(new_id(NodeId(rid.hex()), 0, 0))


class Misreporter(Spoke):
    """Does all that it should, and lies where it sums up: in digests, buckets and rows (P59)."""

    def __init__(self, policy: SpokePolicy) -> None:
        super().__init__(policy)
        self.state.rows = FalseRows()


class Bent(Feed):
    """Prints a wrong price, freshly dated: a share of the true one, or one that stands still."""

    def __init__(
        self,
        name: NodeId,
        hub: NodeId,
        policies: Sequence[FeedPolicy],
        *,
        from_us: Micros,
        until_us: Micros,
        factor_ppm: Ppm | None,
    ) -> None:
        """Lie from `from_us` until `until_us`; without a `factor_ppm` by the last true price."""
        super().__init__(name, hub, policies)
        self._from_us = from_us
        self._until_us = until_us
        self._factor_ppm = factor_ppm
        self._true: Sequence[Usd6] = ()

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        """See `messaging.node.Node.handle`."""
        assert isinstance(event, Envelope)
        moved = event.message
        assert isinstance(moved, MarketMoved)
        if not self._from_us <= now_us < self._until_us:
            self._true = moved.prices_usd6
            return super().handle(now_us, event)
        if self._factor_ppm is None:
            said = tuple(self._true or moved.prices_usd6)
        else:
            ratio = self._factor_ppm
            said = tuple(Usd6(max(1, ratio_down(price, ratio))) for price in moved.prices_usd6)
        bent = msgspec.structs.replace(moved, prices_usd6=said)
        return super().handle(now_us, msgspec.structs.replace(event, message=bent))


def _telling(message: Message) -> bool:
    return isinstance(message, StateReported | Watermark)
