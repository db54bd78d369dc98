"""What the nodes say to each other, by family. Read this file first.

A message is a fact or a wish. Its docstring says who sends it to whom and what losing or
repeating it costs; rule numbers are those of docs/protocol.md. Whole numbers only, each with
its unit in its name. Tags are written out: renaming a class must not change the wire.
"""

from enum import StrEnum
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from messaging.breakers import BreakerSet
from messaging.digests import ReconcilingMessage
from messaging.fields import (
    ENTRIES_MAX,
    Account,
    Amount,
    BlockHeight,
    Count,
    Epoch,
    LiquidationKey,
    NodeName,
    Quantity,
    Ratio,
    ReservationKey,
    SignedAmount,
    SignedQuantity,
    Symbol,
    Time,
)
from messaging.fields import Family as Family
from messaging.link_control import LinkControl
from messaging.operator_orders import OperatorOrdered
from messaging.rebuilding import ChannelRebuilt, OldEpochsClosed
from messaging.units import Ppm
from messaging.venues import VenueTraded

# The families that travel on channels, gap-free; the others are outdated by the next message.
CHANNEL_FAMILIES = (Family.MARGIN_STATE, Family.RESERVATION, Family.LIQUIDATION)

# --- reservation ------------------------------------------------------------------------


class ReservationRequested(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="reservation_requested"
):
    """A spoke wants credit for an account. Spoke to hub.

    `rid` is new and stored before the first send; repeating the request gets the same answer.
    """

    rid: ReservationKey
    account: Account
    amount_usd6: Amount
    ttl_us: Time


class ReservationGranted(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="reservation_granted"
):
    """The hub has set the amount aside; the spoke may use it until `expires_at_us`. Hub to spoke.

    The expiry is time on the spoke's chain. Lost: the amount stays locked until a watermark
    passes the expiry. Repeated: a closed reservation never opens again (P50). Of another
    `spoke_epoch`: it cannot be used (P22).
    """

    rid: ReservationKey
    account: Account
    amount_usd6: Amount
    expires_at_us: Time
    grant_version: Count = 1
    spoke_epoch: Epoch = 1


class RejectReason(StrEnum):
    """Why the hub granted nothing, in falling precedence: only the first that applies (P41)."""

    EXISTS_DIFFERENT = "exists_different"
    HALTED = "halted"
    SPOKE_OVERDUE = "spoke_overdue"  # an earlier grant to that spoke is overdue (P39)
    ACCOUNT_UNKNOWN = "account_unknown"
    ACCOUNT_RESTRICTED = "account_restricted"
    AMOUNT_INVALID = "amount_invalid"
    TTL_INVALID = "ttl_invalid"
    PRICE_UNKNOWN = "price_unknown"
    PRICE_DOUBTED = "price_doubted"  # feeds differ, are missing, or run away (K4)
    BREAKER = "breaker"  # of an asset or of that spoke (B5)
    ZONE_CAP = "zone_cap"
    FREE_SHORT = "free_short"


class ReservationRejected(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="reservation_rejected"
):
    """The hub grants nothing under this id, now or ever (P38). Hub to spoke."""

    rid: ReservationKey
    reason: RejectReason


class ReservationRenewed(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="reservation_renewed"
):
    """The reservation lives longer. Hub to spoke. Lost: it ends at the earlier expiry."""

    rid: ReservationKey
    expires_at_us: Time
    grant_version: Count
    spoke_epoch: Epoch = 1


class CreditUsed(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="credit_used"):
    """So much of the reservation has been used in all. Spoke to hub.

    Cumulative, so a repeat or an overtaken one changes nothing (P34).
    """

    rid: ReservationKey
    used_usd6: Amount
    block_time_us: Time


class RevocationRequested(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="revocation_requested"
):
    """The hub would like the reservation back. Hub to spoke. Frees nothing by itself."""

    rid: ReservationKey


class CloseReason(StrEnum):
    """Why the spoke gave its right up."""

    DONE = "done"
    REVOKED = "revoked"
    EXPIRED = "expired"
    REFUSED_LATE = "refused_late"
    REBUILT = "rebuilt"  # of an earlier spoke epoch, which the contract has ended (P61)


class ReservationClosed(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="reservation_closed"
):
    """The spoke will never use the reservation again; irrevocable. Spoke to hub."""

    rid: ReservationKey
    used_usd6: Amount
    reason: CloseReason


class ClosureAcknowledged(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="closure_acknowledged"
):
    """The spoke may forget the closed reservation (P47). Hub to spoke."""

    rid: ReservationKey


class Watermark(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="watermark"):
    """Everything this channel has to say up to `spoke_time_us` came before. Spoke to hub.

    On `reservation`: no use of a grant that expires by then follows (P37). On `margin-state`:
    every change up to the envelope's height came before. On `liquidation`: no fill of a command
    whose deadline is by then follows (P82). `open_count` says how many accounts, active
    reservations or live commands there are. Lost: the next one says more.
    """

    spoke_time_us: Time
    open_count: Count


# --- all three families -----------------------------------------------------------------


class ChainReorganised(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="chain_reorganised"
):
    """Blocks above `fork_height` are gone, with all that was told of them (P55). Spoke to hub.

    The first frame of a new version of its channel: it takes the number of the first frame that
    told of a lost block. `old_height` was the newest block, for people; `base_epoch` is the
    version of the frame before. What has happened again, or still holds, follows. On each family.
    """

    fork_height: BlockHeight
    old_height: BlockHeight
    base_epoch: Epoch


# --- margin-state -----------------------------------------------------------------------


class Position(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An open perpetual position.

    `cost_usd6` is the signed sum of price times quantity over the fills that built what is
    open, so unrealised P&L = quantity * price - cost.
    """

    asset: Symbol
    qty8: SignedQuantity
    cost_usd6: SignedAmount


class StateReported(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="state_reported"):
    """All of one account on one spoke, never a difference. Spoke to hub.

    The highest `version` wins, so repeats and overtaken reports change nothing. The three sums
    count from the beginning: P&L realised by closing and by funding, venue and liquidation fees.
    """

    account: Account
    version: Count
    block_time_us: Time
    positions: Annotated[tuple[Position, ...], Meta(max_length=ENTRIES_MAX)]
    realised_usd6: SignedAmount
    fees_usd6: Amount
    liquidation_fees_usd6: Amount


class MarginStatus(StrEnum):
    """What an account may do on a spoke."""

    OPEN = "open"
    REDUCE_ONLY = "reduce_only"  # margin call: it may only bring its risk down
    FROZEN = "frozen"  # in liquidation


class MarginSet(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="margin_set"):
    """What the account may do from now on. Hub to spoke. The highest version wins."""

    account: Account
    margin_version: Count
    status: MarginStatus


# --- liquidation ------------------------------------------------------------------------


class LiquidationOrdered(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="liquidation_ordered"
):
    """Reduce the position to at most `target_qty8`: a bound, not an order (P75). Hub to spoke.

    Applies to the position as the spoke finds it, in a state at or after `state_version`.
    Repeated: nothing more happens (P78). With a `price_usd6` it closes off the market, whole and at
    exactly this price: a long at a price above zero, a short at one below (P84); 0: on the market.
    """

    liq_id: LiquidationKey
    account: Account
    asset: Symbol
    target_qty8: Quantity
    max_qty8: Quantity
    state_version: Count
    price_usd6: SignedAmount
    deadline_us: Time
    margin_version: Count
    spoke_epoch: Epoch = 1


class LiquidationFilled(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="liquidation_filled"
):
    """So much of the command has been executed in all. Spoke to hub. Cumulative (P77)."""

    liq_id: LiquidationKey
    filled_qty8: Quantity
    proceeds_usd6: SignedAmount
    block_time_us: Time


class LiquidationEnd(StrEnum):
    """How a command ended (P83)."""

    DONE = "done"
    NOTHING_TO_DO = "nothing_to_do"
    EXPIRED = "expired"
    MAX_QTY = "max_qty"
    EXISTS_DIFFERENT = "exists_different"
    STATE_UNKNOWN = "state_unknown"
    OTHER_EPOCH = "other_epoch"  # of the spoke, and unknown there (P61)


class LiquidationDone(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="liquidation_done"):
    """The command has ended; irrevocable, refusals too. Spoke to hub.

    `state_version` is the account's report that first contains the outcome.
    """

    liq_id: LiquidationKey
    filled_qty8: Quantity
    position_after_qty8: SignedQuantity
    state_version: Count
    reason: LiquidationEnd


class LiquidationAcknowledged(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="liquidation_acknowledged"
):
    """The spoke may forget the ended command. Hub to spoke."""

    liq_id: LiquidationKey


# --- price, order -----------------------------------------------------------------------


class PricePublished(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True, tag="price_published"
):
    """An oracle print. Feed to hub. The latest `observed_us` wins; a lost one is outdated soon.

    `error_ppm`: how far the feed says that it may be off. `depth_ppm`: 0 if it does not say (C6).
    """

    asset: Symbol
    price_usd6: Amount
    observed_us: Time
    feed: Count = 0
    error_ppm: Ratio = Ppm(0)
    depth_ppm: Ratio = Ppm(0)


class MarketMoved(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="market_moved"):
    """The true prices, in the scenario's order of assets. Market to venues, feeds, traders.

    `depth_ppm` scales every venue's depth: 1,000,000 is normal.
    """

    prices_usd6: Annotated[tuple[Amount, ...], Meta(max_length=ENTRIES_MAX)]
    depth_ppm: Ratio


class OrderPlaced(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="order_placed"):
    """A trader wants a trade. Trader to a spoke on the same chain.

    Either `qty8` is signed and not zero and opens or adds, or `close_ppm` is that share of
    whatever position there is and cuts or closes it.
    """

    order_id: Count
    account: Account
    asset: Symbol
    qty8: SignedQuantity
    close_ppm: Ratio


# --- control ----------------------------------------------------------------------------


class HaltReason(StrEnum):
    """What a halted spoke has done (P35, P64)."""

    USED_TOO_MUCH = "used_too_much"
    USED_AFTER_CLOSE = "used_after_close"
    USED_LATE = "used_late"
    UNKNOWN_RESERVATION = "unknown_reservation"
    TIME_REGRESSED = "time_regressed"
    BROKEN_CLAIM = "broken_claim"
    FILLED_TOO_MUCH = "filled_too_much"
    EQUIVOCATED = "equivocated"
    FINALITY_VIOLATED = "finality_violated"  # a block that it had called final is gone (P56)
    KEY_REVOKED = "key_revoked"  # nothing: its key is taken out of the configuration (P68)
    WATCHDOG = "watchdog"  # the monitor has found money that does not add up


class SpokeHalted(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="spoke_halted"):
    """No new credit and no opening on this spoke until people resume it (P66). Hub to spoke."""

    spoke: NodeName
    reason: HaltReason


class SpokeResumed(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="spoke_resumed"):
    """People trust this spoke again: what `SpokeHalted` stopped goes on (P66). Hub to spoke."""

    spoke: NodeName


class HaltOrdered(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="halt_ordered"):
    """Stop these spokes: money does not add up (P66). Monitor to hub. Repeating does no more.

    `finding` says what was expected and found, for people.
    """

    spokes: Annotated[tuple[NodeName, ...], Meta(max_length=ENTRIES_MAX)]
    finding: Annotated[str, Meta(max_length=1_024)]


class LinkChanged(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="link_changed"):
    """From now on the link `source` to `target` is like this. Operator to relay.

    Holds for frames sent at or after the envelope's `sent_us`. `latency` is written as on the
    command line: a preset, or e.g. `constant:900s`.
    """

    source: NodeName
    target: NodeName
    latency: Annotated[str, Meta(min_length=1, max_length=128)]
    loss_ppm: Ratio = Ppm(0)
    repeat_ppm: Ratio = Ppm(0)
    reorder_ppm: Ratio = Ppm(0)


ReservationMessage: TypeAlias = (
    ReservationRequested
    | ReservationGranted
    | ReservationRejected
    | ReservationRenewed
    | CreditUsed
    | RevocationRequested
    | ReservationClosed
    | ClosureAcknowledged
    | OldEpochsClosed
)
LiquidationMessage: TypeAlias = (
    LiquidationOrdered | LiquidationFilled | LiquidationDone | LiquidationAcknowledged
)
OutsideMessage: TypeAlias = PricePublished | MarketMoved | OrderPlaced | VenueTraded
Message: TypeAlias = (
    ReservationMessage
    | ReconcilingMessage
    | StateReported
    | MarginSet
    | BreakerSet
    | LiquidationMessage
    | Watermark
    | ChainReorganised
    | ChannelRebuilt
    | OutsideMessage
    | SpokeHalted
    | SpokeResumed
    | HaltOrdered
    | LinkChanged
    | OperatorOrdered
    | LinkControl
)
