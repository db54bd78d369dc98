"""A spoke as a node: what does an event mean, and what happens in a block?"""

from collections.abc import Sequence

from messaging.breakers import BreakerSet
from messaging.digests import BucketsAsked, RowsAsked
from messaging.effects import Effect, Refused, Send, SetTimer
from messaging.envelope import Envelope
from messaging.messages import (
    CHANNEL_FAMILIES,
    CloseReason,
    ClosureAcknowledged,
    Family,
    LiquidationAcknowledged,
    LiquidationOrdered,
    MarginSet,
    MarketMoved,
    OrderPlaced,
    ReservationGranted,
    ReservationRejected,
    ReservationRenewed,
    RevocationRequested,
    SpokeHalted,
    SpokeResumed,
    Watermark,
)
from messaging.node import (
    Approved,
    Contradicted,
    Event,
    PassedOver,
    Rebuilt,
    Rejoined,
    Restarted,
    Rotated,
    TimerFired,
)
from messaging.operator_orders import PeerNamed, Verb
from messaging.rebuilding import ChannelRebuilt
from messaging.units import Micros
from spokes import closing, contract, digests, funding, orders, reservation, rollback
from spokes.state import SpokePolicy, SpokeState, Waiting
from spokes.undo import Told

BLOCK, SLICE, MARK, FUNDING, REORG = "block", "slice", "mark", "funding", "reorg"


class Spoke:
    """One chain: its venue, its half of the protocol, its reports."""

    def __init__(self, policy: SpokePolicy) -> None:
        self.name = policy.name
        self.state = SpokeState(policy)
        self._policy = policy
        self._block_set = False
        self._slice_set = False

    def start(self) -> Sequence[Effect]:
        """See `messaging.node.Node.start`."""
        timers = [self._mark_timer(Micros(1)), self._timer(FUNDING, self._policy.funding_us)]
        return timers + self._reorg_timer()

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        """See `messaging.node.Node.handle`."""
        self.state.changed_rids.clear()
        self.state.filled.clear()
        if self.state.undo is not None:
            chain = self._policy.chain
            self.state.undo.begin(chain.height_at(now_us), chain.trusted_height_at(now_us))
        if type(event) is TimerFired:
            return self._fired(now_us, event.name)
        if type(event) is Restarted:
            self.state.life += 1
            return ()
        if type(event) is Rebuilt:
            contract.restore(self.state, event, now_us)
            funding_timer = self._timer(FUNDING, Micros(now_us + self._policy.funding_us))
            slices = self._want_slice(Micros(now_us + 1))
            mark_timer = self._mark_timer(Micros(now_us + 1))
            return [mark_timer, funding_timer, *slices, *self._reorg_timer()]
        if type(event) is Rejoined:
            effects = contract.rejoined(self.state, event, now_us)
            return effects + (self._want_block(now_us) if self.state.pool else [])
        if type(event) is Contradicted:
            self.state.doubts = True  # who has granted twice may have granted anything
            return ()
        if type(event) is PassedOver:
            if event.family is Family.RESERVATION:
                self.state.heard_seq = event.seq
            return ()
        if type(event) is Approved:
            return self._resumed(event)
        if type(event) is Rotated:
            return ()
        assert type(event) is Envelope
        message = event.message
        if type(message) is MarketMoved:
            self.state.prices_usd6 = message.prices_usd6
            self.state.depth_ppm = message.depth_ppm
            return ()
        if type(message) is OrderPlaced:
            self.state.pool.append(Waiting(message, now_us))
            return self._want_block(now_us)
        return self._from_hub(now_us, event)

    def _from_hub(self, now_us: Micros, event: Envelope) -> list[Effect]:
        """Take in a message of the hub; whatever needs a block waits for the next one."""
        spoke, chain_us = self.state, self._policy.chain.time_at(now_us)
        if event.family is Family.RESERVATION:
            spoke.heard_seq = event.seq
        match event.message:
            case MarginSet() as told:
                if told.margin_version > spoke.status.get(told.account, (0, None))[0]:
                    spoke.status[told.account] = (told.margin_version, told.status)
            case BreakerSet() as told:
                if told.version > spoke.breakers.get(told.scope, (0, None))[0]:
                    spoke.breakers[told.scope] = (told.version, told.level)
            case ReservationGranted() as grant:
                return self._granted(now_us, grant, chain_us)
            case ReservationRejected(rid=rid):
                if spoke.for_credit.pop(rid, None) is not None:
                    spoke.refused += 1
                    spoke.forget_credit(rid)  # an id that got a no is never used again (P38)
            case ReservationRenewed(rid=rid) as renewal:
                if rid in spoke.credits:
                    renewed = reservation.renewed(spoke.credits[rid], renewal, chain_us)
                    spoke.keep_credit(reservation.Outcome(renewed), now_us)
            case RevocationRequested(rid=rid):
                spoke.revoked.append(rid)
                return self._want_block(now_us)
            case ClosureAcknowledged(rid=rid):
                # The grant came before this on the same channel, so it cannot come again (P47).
                spoke.forget_credit(rid)
            case LiquidationOrdered() as command:
                refused = closing.ordered(spoke, command, now_us)
                return refused + self._want_slice(Micros(now_us + 1))
            case LiquidationAcknowledged(liq_id=liq_id):
                if liq_id not in spoke.live:
                    spoke.orders.pop(liq_id, None)
            case BucketsAsked():
                return [digests.buckets(spoke, now_us)]
            case RowsAsked(buckets=buckets):
                return digests.rows(spoke, buckets, now_us)
            case ChannelRebuilt():
                pass  # the channel is known to begin anew
            case SpokeHalted():
                spoke.halted = True
            case SpokeResumed():
                spoke.halted = False
            case _:
                raise AssertionError(f"{event!r} is not for {self.name}")
        return []

    def _resumed(self, approved: Approved) -> list[Effect]:
        """Trust the hub again; all else that operators may order is for the hub (P66, P70)."""
        order = approved.order
        if order.verb is not Verb.RESUME:
            return [
                Refused(f"expected an order for a spoke, found {order.verb}, which is the hub's")
            ]
        assert type(order.target) is PeerNamed
        if order.target.peer != self._policy.hub or not self.state.doubts:
            return [Refused(f"expected a peer that is not trusted, found {order.target.peer}")]
        self.state.doubts = False
        return []

    def _granted(self, now_us: Micros, grant: ReservationGranted, chain_us: Micros) -> list[Effect]:
        """Hold a right, and let the order that waits for it into the next block."""
        spoke = self.state
        known = spoke.credits.get(grant.rid)
        if known is None or grant.spoke_epoch != spoke.spoke_epoch:
            return []  # long closed and forgotten (P50), or of no use for ever (P45)
        outcome = reservation.granted(known, grant, chain_us)
        effects = spoke.keep_credit(outcome, now_us)
        if outcome.word is not None:
            spoke.note(Told(outcome.word))  # refused when it came, whatever blocks are lost
        waiting = spoke.for_credit.pop(grant.rid, None)
        if waiting is None:
            return effects
        spoke.pool.append(waiting)
        return effects + self._want_block(now_us)

    def _fired(self, now_us: Micros, name: str) -> list[Effect]:
        """Do what the block at `now_us` brings; facts leave with the block they are in."""
        spoke = self.state
        if name == BLOCK:
            self._block_set = False
            effects = self._block(now_us)
        elif name == SLICE:
            self._slice_set = False
            effects = closing.trade(spoke, now_us)
            effects += self._want_slice(Micros(now_us + self._policy.slice_us))
        elif name == FUNDING:
            funding.pay(spoke)
            effects = [self._timer(FUNDING, Micros(now_us + self._policy.funding_us))]
        elif name == REORG:
            return self._reorganised(now_us) + spoke.tell_market()
        else:
            assert name == MARK
            effects = contract.settle(spoke, now_us)
            effects += orders.expire(spoke, now_us) + closing.finish(spoke, now_us)
            effects += spoke.reports(now_us) + digests.told(spoke, now_us) + self._marks(now_us)
            block_us = self._policy.chain.time_at(now_us)
            effects.append(self._mark_timer(Micros(block_us + self._policy.watermark_us)))
        return effects + spoke.reports(now_us) + spoke.tell_market()

    def _reorganised(self, now_us: Micros) -> list[Effect]:
        """Lose blocks, then do what their orders and commands ask for in blocks to come."""
        spoke = self.state
        reorg = self._policy.chain.reorgs[spoke.reorgs]
        spoke.reorgs += 1
        effects = rollback.reorganised(spoke, reorg.depth, now_us)
        if spoke.pool or spoke.revoked:
            effects += self._want_block(now_us)
        return [*effects, *self._want_slice(Micros(now_us + 1)), *self._reorg_timer()]

    def _block(self, now_us: Micros) -> list[Effect]:
        """Give back what was asked back, then carry orders out, oldest first."""
        spoke = self.state
        effects: list[Effect] = []
        for rid in spoke.revoked:
            effects += orders.close(spoke, rid, CloseReason.REVOKED, now_us)
        spoke.revoked.clear()
        pool, spoke.pool = spoke.pool, []
        for waiting in pool:
            effects += orders.execute(spoke, waiting, now_us)
        return effects

    def _marks(self, now_us: Micros) -> list[Effect]:
        """Say on every channel that everything up to this block has been told (P51)."""
        chain, spoke = self._policy.chain, self.state
        open_counts = (len(spoke.traders), spoke.active_count, len(spoke.live))
        return [
            Send(
                self._policy.hub,
                family,
                Watermark(spoke_time_us=chain.time_at(now_us), open_count=count),
                chain.height_at(now_us),
                chain.trusted_height_at(now_us),
            )
            for family, count in zip(CHANNEL_FAMILIES, open_counts, strict=True)
        ]

    def _want_block(self, now_us: Micros) -> list[Effect]:
        if self._block_set:
            return []
        self._block_set = True
        return [self._timer(BLOCK, Micros(now_us + 1))]

    def _want_slice(self, due_us: Micros) -> list[Effect]:
        """Trade liquidations in the first block at or after `due_us`, if any are live."""
        if self._slice_set or not self.state.live:
            return []
        self._slice_set = True
        return [self._timer(SLICE, due_us)]

    def _reorg_timer(self) -> list[SetTimer]:
        """Wake when the next reorganisation comes, if there is one; blocks do not wait for it."""
        left = self._policy.chain.reorgs[self.state.reorgs :]
        return [SetTimer(REORG, left[0].at_us)] if left else []

    def _timer(self, name: str, due_us: Micros) -> SetTimer:
        """Wake in the first block at or after `due_us`."""
        return SetTimer(name, self._policy.chain.next_block_us(Micros(due_us - 1)))

    def _mark_timer(self, due_us: Micros) -> SetTimer:
        """Wake just behind that block, for a watermark follows all that it covers (P51)."""
        return SetTimer(MARK, Micros(self._timer(MARK, due_us).at_us + 1))
