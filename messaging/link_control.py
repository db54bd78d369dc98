"""What the two ends of a channel say to each other; the nodes behind it do not see it.

All but `KeyRotated` stands outside the row, with `seq` 0 (P17): lost or repeated, it costs time
only.
"""

from enum import StrEnum
from typing import TypeAlias

import msgspec

from messaging.fields import Count, Epoch, Nonce, PublicKey, Signature


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="acknowledged"):
    """Nothing but the envelope's acknowledgement (P17). Either way, outside the sequence."""


class ResendRequested(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="resend_requested"):
    """Frames `first_seq` to `last_seq` are missing (P58). Either way, outside the sequence."""

    first_seq: Count
    last_seq: Count


class ResyncAnswer(StrEnum):
    """What a node that has started again is told on a channel (P60)."""

    ACCEPTED = "accepted"
    FENCED = "fenced"  # a later life of it has been accepted, or another of the same epoch
    STATE_LOST = "state_lost"  # it has said or acknowledged more than it remembers


class ResyncAsked(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="resync_asked"):
    """I have started again, in the life that the envelope names: is my state whole (P60)?

    Either way, outside the sequence. `nonce` is this life's own; `head_epoch` and `head_seq` are
    those of the last frame that was put on the channel; the envelope acknowledges as always.
    An epoch of 0: I was rebuilt and know nothing of this channel (P61). `since_epoch` and
    `since_nonce` name the newest of the lives before that the other end had accepted (P20).
    """

    nonce: Nonce
    head_epoch: Count
    head_seq: Count
    since_epoch: Count
    since_nonce: Nonce


class ResyncTold(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="resync_told"):
    """The answer to `ResyncAsked` with the same nonce. Either way, outside the sequence."""

    nonce: Nonce
    answer: ResyncAnswer


class KeyRotated(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="key_rotated"):
    """Behind this frame all of the channel is under a new key, and nothing else is (P67).

    Either way, in the row: sent again until acknowledged. `proof` is the new key's signature over
    what `messaging.rotation.claim` returns; the seal is under the key before.
    """

    public_key: PublicKey
    effective_seq: Count
    proof: Signature


class RebuildAccepted(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="rebuild_accepted"):
    """Come back: the answer to a rebuilt node's `ResyncAsked` with the same nonce (P61).

    Hub to spoke, outside the sequence. `heard_*` is the last frame of the spoke that counts; it
    goes on behind that in version `chan_epoch`. `said_*` is the last frame of the hub that is
    not taken back: a new version follows it. `head_*` is the last one that earlier lives of the
    hub have put.
    """

    nonce: Nonce
    heard_epoch: Epoch
    heard_seq: Count
    chan_epoch: Epoch
    said_epoch: Epoch
    said_seq: Count
    head_epoch: Epoch
    head_seq: Count


LinkControl: TypeAlias = (
    Acknowledged | ResendRequested | ResyncAsked | ResyncTold | RebuildAccepted | KeyRotated
)
