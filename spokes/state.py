"""Everything a spoke knows; the only mutable state there is."""

import heapq
from collections.abc import Sequence

import msgspec

from messaging.breakers import Level
from messaging.digests import BucketsTold, CreditRow, DigestTold, RowsTold
from messaging.effects import Effect, Send
from messaging.messages import (
    CreditUsed,
    Family,
    LiquidationDone,
    LiquidationFilled,
    MarginStatus,
    Message,
    OrderPlaced,
    ReservationClosed,
    ReservationRequested,
    StateReported,
)
from messaging.open_rows import OpenRows
from messaging.rebuilding import OldEpochsClosed, last_life_before
from messaging.units import (
    AccountId,
    Asset,
    Height,
    LiquidationId,
    Micros,
    NodeId,
    Ppm,
    Qty8,
    ReservationId,
    Usd6,
    new_id,
)
from messaging.venues import VenueTraded
from spokes.chain import Chain
from spokes.liquidation import Order
from spokes.reservation import Credit, Outcome, State
from spokes.undo import Bought, Fact, Told, TraderWas, Undo
from spokes.venue import Market, Trader, report

FAMILY_OF: dict[type, Family] = {
    BucketsTold: Family.RESERVATION,
    CreditUsed: Family.RESERVATION,
    DigestTold: Family.RESERVATION,
    OldEpochsClosed: Family.RESERVATION,
    ReservationClosed: Family.RESERVATION,
    ReservationRequested: Family.RESERVATION,
    RowsTold: Family.RESERVATION,
    StateReported: Family.MARGIN_STATE,
    LiquidationFilled: Family.LIQUIDATION,
    LiquidationDone: Family.LIQUIDATION,
}


class SpokePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A spoke's knobs.

    Attributes:
        name: the spoke's node id.
        hub: who grants credit.
        chain: its blocks.
        markets: what trades here, in the scenario's order of assets.
        watermark_us: how often every channel says how far it has told everything.
        digest_us: how often a digest of what is open goes with it; 0 for never (P59).
        funding_us: how often funding is paid.
        slice_us: how often a liquidation trades.
        ttl_us: lifetime asked for a reservation.
        headroom_ppm: credit asked beyond what an order needs, for price moves and for more.
        dust_usd6: what is left of a reservation below this is given back.
        patience_us: how long an order waits for credit.
        market: who is told what is traded here; None if nobody is (C1).
    """

    name: NodeId
    hub: NodeId
    chain: Chain
    markets: tuple[Market, ...]
    watermark_us: Micros
    digest_us: Micros
    funding_us: Micros
    slice_us: Micros
    ttl_us: Micros
    headroom_ppm: Ppm
    dust_usd6: Usd6
    patience_us: Micros
    market: NodeId | None = None


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """An order that is on this chain and not yet done."""

    order: OrderPlaced
    placed_us: Micros


class SpokeState:
    """Traders, reservations, liquidations, prices.

    Attributes:
        traders: accounts that have ever traded here.
        credits: reservations not yet forgotten; credits_of: the active ones of an account;
            active_count: all active ones.
        rows: the active ones as the hub is told them; heard_seq: the last message on
            `reservation` that has been applied; digest_us: chain time of the next digest.
        expiries: (expiry, id) of active ones, a heap; a renewal adds a later entry.
        pool: orders for the next block, oldest first.
        for_credit: the order that waits for a reservation.
        revoked: reservations to give back in the next block.
        orders: liquidations not yet forgotten; live: those still going on.
        status: what the hub lets an account do, with the version that said so; breakers: how far
            it has stopped an asset or this spoke, likewise (B5).
        touched: accounts to report in this block.
        prices_usd6, depth_ppm: the venue's market, from the scenario's first tick on.
        halted: the hub has stopped this spoke. doubts: the hub has contradicted itself.
        life: how often the node has started; ids_made: reservations asked for, ever.
        changed_rids: reservations that the event under way has changed.
        filled: liquidations that it has traded for.
        bought_qty8: by asset, what it has bought on the venue and the market is not told (C1).
        refused: orders that found no credit or were not allowed, for figures only.
        undo: what lost blocks would undo; None on a chain that loses none.
        reorgs: how often blocks have been lost.
        spoke_epoch: of the rights that may be used (P22); epoch_height: the block it began in.
        owes_closes: what was used of earlier epochs has not been told yet.
    """

    def __init__(self, policy: SpokePolicy) -> None:
        self.policy = policy
        self.places: dict[Asset, int] = {m.asset: i for i, m in enumerate(policy.markets)}
        self.traders: dict[AccountId, Trader] = {}
        self.credits: dict[ReservationId, Credit] = {}
        self.credits_of: dict[AccountId, dict[ReservationId, None]] = {}
        self.active_count = 0
        self.rows = OpenRows()
        self.heard_seq = 0
        self.digest_us = Micros(0)
        self.expiries: list[tuple[Micros, ReservationId]] = []
        self.pool: list[Waiting] = []
        self.for_credit: dict[ReservationId, Waiting] = {}
        self.revoked: list[ReservationId] = []
        self.orders: dict[LiquidationId, Order] = {}
        self.live: dict[LiquidationId, None] = {}
        self.status: dict[AccountId, tuple[int, MarginStatus]] = {}
        self.breakers: dict[str, tuple[int, Level]] = {}
        self.touched: dict[AccountId, None] = {}
        self.prices_usd6: Sequence[Usd6] = ()
        self.depth_ppm = Ppm(1_000_000)
        self.halted = self.doubts = False
        self.life = 1
        self.ids_made = 0
        self.changed_rids: dict[ReservationId, None] = {}
        self.filled: dict[LiquidationId, None] = {}
        self.bought_qty8: dict[Asset, int] = {}
        self.refused = 0
        self.undo = Undo() if policy.chain.reorgs else None
        self.reorgs = 0
        self.spoke_epoch = 1
        self.epoch_height = Height(0)
        self.owes_closes = False

    def trader(self, account: AccountId) -> Trader:
        """Return an account here, new if need be."""
        known = self.traders.get(account)
        return Trader(id=account) if known is None else known

    def next_reservation_id(self) -> ReservationId:
        """Return an id that has never been used (section 6 of the rules)."""
        self.ids_made += 1
        return ReservationId(new_id(self.policy.name, self.life, self.ids_made))

    def note(self, fact: Fact) -> None:
        """Remember a fact of the newest block, which may be lost (P55)."""
        if self.undo is not None:
            self.undo.note(fact)

    def keep_trader(self, trader: Trader) -> None:
        """Replace an account here; it will be reported with this block."""
        self.note(TraderWas(trader.id, self.traders.get(trader.id)))
        self.traders[trader.id] = trader
        self.touched[trader.id] = None

    def bought(self, asset: Asset, qty8: int) -> None:
        """Note what a trade has bought on the venue, or sold if below zero (C1)."""
        if self.policy.market is not None:
            self.note(Bought(asset, qty8))
            self.add_bought(asset, qty8)

    def add_bought(self, asset: Asset, qty8: int) -> None:
        """Add to what the market will be told of this event."""
        self.bought_qty8[asset] = self.bought_qty8.get(asset, 0) + qty8

    def tell_market(self) -> list[Effect]:
        """Tell the market what was bought on balance, if anything was (C1)."""
        if self.policy.market is None or not self.bought_qty8:
            return []
        bought_qty8 = tuple(Qty8(self.bought_qty8.pop(asset, 0)) for asset in self.places)
        traded = VenueTraded(bought_qty8=bought_qty8)
        return [Send(self.policy.market, Family.PRICE, traded)] if any(bought_qty8) else []

    def keep_credit(self, outcome: Outcome, now_us: Micros) -> list[Effect]:
        """Replace a reservation, and send the word it owes the hub."""
        credit = outcome.credit
        before = self.credits.get(credit.rid)
        self.credits[credit.rid] = credit
        self.changed_rids[credit.rid] = None
        was_active = before is not None and before.state is State.ACTIVE
        self.active_count += (credit.state is State.ACTIVE) - was_active
        if credit.state is State.ACTIVE:
            self.credits_of.setdefault(credit.account, {})[credit.rid] = None
            if before is None or before.expires_at_us != credit.expires_at_us:
                heapq.heappush(self.expiries, (credit.expires_at_us, credit.rid))
        elif credit.state is State.CLOSED:
            self.credits_of.get(credit.account, {}).pop(credit.rid, None)
        self.enter(credit)
        return [] if outcome.word is None else [self.tell(outcome.word, now_us)]

    def enter(self, credit: Credit) -> None:
        """Keep the rows that the hub compares up to date (P59)."""
        if credit.state is State.ACTIVE:
            row = CreditRow(
                rid=credit.rid, amount_usd6=credit.amount_usd6, used_usd6=credit.used_usd6
            )
            self.rows.put(row)
        elif credit.state is State.CLOSED:
            self.rows.drop(credit.rid)

    def begin_epoch(self, spoke_epoch: int, height: Height) -> None:
        """Use nothing any more that was granted before (P22); no id comes again."""
        self.spoke_epoch, self.life = spoke_epoch, last_life_before(spoke_epoch)
        self.epoch_height = height

    def forget_credit(self, rid: ReservationId) -> None:
        """Drop a reservation that can have no effect any more; unknown ones are left alone."""
        credit = self.credits.pop(rid, None)
        assert credit is None or credit.state is not State.ACTIVE

    def version_after_block(self, account: AccountId) -> int:
        """Return the number of the report that contains this block."""
        return self.trader(account).version + (account in self.touched)

    def tell(self, message: Message, now_us: Micros) -> Send:
        """Address a fact of the newest block to the hub."""
        return Send(
            self.policy.hub,
            FAMILY_OF[type(message)],
            message,
            self.policy.chain.height_at(now_us),
            self.policy.chain.trusted_height_at(now_us),
        )

    def tell_ever(self, message: Message, now_us: Micros) -> Effect:
        """Address a word to the hub that holds whatever blocks are lost: it is said again then."""
        self.note(Told(message))
        return self.tell(message, now_us)

    def reports(self, now_us: Micros) -> list[Effect]:
        """Report every account that this block has touched."""
        effects: list[Effect] = []
        chain_us = self.policy.chain.time_at(now_us)
        for account in self.touched:
            self.traders[account], state = report(self.traders[account], chain_us)
            effects.append(self.tell(state, now_us))
        self.touched.clear()
        return effects
