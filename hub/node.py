"""The hub as a node: which decision does an event need?"""

from collections.abc import Sequence

from hub import breaking, credit, digests, gains, operators, positions, rebuild, rollback, watch
from hub.state import HubPolicy, HubState
from hub.zone import Zone
from messaging.digests import BucketsTold, DigestTold, RowsTold
from messaging.effects import Effect, Send, SetTimer
from messaging.envelope import Envelope
from messaging.messages import (
    ChainReorganised,
    CreditUsed,
    Family,
    HaltOrdered,
    HaltReason,
    LiquidationDone,
    LiquidationFilled,
    PricePublished,
    ReservationClosed,
    ReservationRequested,
    StateReported,
    Watermark,
)
from messaging.node import (
    Approved,
    Contradicted,
    Event,
    PassedOver,
    Rejoined,
    Restarted,
    Rotated,
    TimerFired,
)
from messaging.rebuilding import ChannelRebuilt, OldEpochsClosed
from messaging.units import AccountId, Micros, Usd6

BLOCK = "block"


class Hub:
    """Holds the collateral, reserves credit, watches margins, liquidates."""

    def __init__(self, policy: HubPolicy, deposits: Sequence[tuple[AccountId, Usd6]]) -> None:
        """Open an account for each (id, collateral)."""
        self.name = policy.name
        self.state = HubState(policy, deposits)
        self._block_us = policy.block_us

    def start(self) -> Sequence[Effect]:
        """See `messaging.node.Node.start`."""
        return (SetTimer(BLOCK, self._block_us),)

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        """See `messaging.node.Node.handle`."""
        effects = self._handle(now_us, event)
        for effect in effects:
            if type(effect) is Send and effect.family is Family.RESERVATION:
                cut = self.state.zone_of[effect.to].cut
                cut.left(effect.message, self.state.reservations)
        return effects

    def _handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        hub = self.state
        hub.changed.clear()
        hub.changed_rids.clear()
        if type(event) is TimerFired:
            assert event.name == BLOCK
            effects: list[Effect] = [SetTimer(BLOCK, Micros(now_us + self._block_us))]
            for zone in hub.zones:
                effects += credit.tend(hub, zone, now_us)
                gains.tend(hub, zone, now_us)
            effects += breaking.look(hub, now_us)
            effects += watch.look(hub, now_us)
            positions.socialise(hub)
            return effects

        if type(event) is Restarted:
            hub.life += 1
            return ()
        if type(event) is Rotated:
            for zone in hub.zones:
                zone.cut.sent_seq += 1
            return ()
        if type(event) is Contradicted:
            return credit.halt(hub.zone_of[event.peer], HaltReason.EQUIVOCATED)
        if type(event) is PassedOver:
            hub.zone_of[event.peer].frozen[event.family] = None  # it may have been a use (P71)
            return ()
        if type(event) is Approved:
            return operators.carry_out(hub, event)
        if type(event) is Rejoined:
            return rebuild.rejoined(hub, hub.zone_of[event.peer], event)
        assert type(event) is Envelope
        message = event.message
        if type(message) is PricePublished:
            hub.hear_price(message, now_us)
            return ()
        if type(message) is HaltOrdered:
            return self._halted(event, message)
        zone = hub.zone_of[event.sender]
        effects = self._decide(zone, event, now_us)
        return effects + self._advance(zone, event, now_us)

    def _halted(self, event: Envelope, order: HaltOrdered) -> list[Effect]:
        """Stop the spokes named; only people resume them, and then an old order is none (P66)."""
        effects: list[Effect] = []
        said = (event.seq, event.sent_us)
        if said in self.state.halts:
            return effects
        self.state.halts[said] = None
        for name in order.spokes:
            zone = self.state.zone_of.get(name)
            if zone is not None:
                effects += credit.halt(zone, HaltReason.WATCHDOG)
        return effects

    def _decide(self, zone: Zone, event: Envelope, now_us: Micros) -> list[Effect]:
        """Let the room that the message is for decide."""
        hub, height = self.state, event.height
        match event.message:
            case Watermark() as mark:
                return self._marked(zone, event, mark)
            case StateReported() as state:
                return positions.reported(hub, zone, state, height)
            case ReservationRequested() as asked:
                return credit.requested(hub, zone, asked, now_us)
            case CreditUsed() as report:
                return credit.used(hub, zone, report, height)
            case ReservationClosed() as report:
                return credit.closed(hub, zone, report, height)
            case DigestTold() as digest:
                return digests.told(hub, zone, digest)
            case BucketsTold() as answer:
                return digests.buckets_told(hub, zone, answer, event.seq)
            case RowsTold() as answer:
                return digests.rows_told(hub, zone, answer, event.seq, height)
            case ChainReorganised() as lost:
                return rollback.reorganised(hub, zone, event.family, lost, event.final_height)
            case ChannelRebuilt() as word:
                return rebuild.told(hub, zone, event.family, word)
            case OldEpochsClosed() as word:
                return rebuild.closed(zone, word, height)
            case LiquidationFilled() as fill:
                return positions.filled(hub, zone, fill.liq_id, fill.filled_qty8)
            case LiquidationDone() as ended:
                return positions.done(hub, zone, ended, height)
        raise AssertionError(f"{event!r} is not for {self.name}")

    def _marked(self, zone: Zone, event: Envelope, mark: Watermark) -> list[Effect]:
        """Note a watermark for what its channel claims; time on a chain never falls (P64)."""
        if mark.spoke_time_us < zone.last_time_us.get(event.family, 0):
            return credit.halt(zone, HaltReason.TIME_REGRESSED)
        zone.last_time_us[event.family] = mark.spoke_time_us
        zone.times[event.family].append((event.height, mark.spoke_time_us))
        zone.heard_us = max(zone.heard_us, mark.spoke_time_us)
        if event.family is Family.RESERVATION:
            credit.marked(zone, mark, event.height)
        elif event.family is Family.MARGIN_STATE:
            positions.covered(zone, mark, event.height)
        return []

    def _advance(self, zone: Zone, event: Envelope, now_us: Micros) -> list[Effect]:
        """Do what the channel's newest final block allows (P52)."""
        family = event.family
        if event.final_height > zone.final_heights[family]:
            zone.final_heights[family] = event.final_height
        times = zone.times[family]
        while len(times) > 1 and times[1][0] <= event.final_height:
            times.popleft()
        if family is Family.RESERVATION:
            effects = credit.advance(self.state, zone)
            rebuild.release(self.state, zone)
            return effects
        if family is Family.MARGIN_STATE:
            positions.advance(self.state, zone, now_us)
        if zone.ended:
            positions.settle_ends(self.state, zone)
        return []
