"""What people may order a node to do where the protocol alone cannot go on (P70).

An order is a fact that several operators state, each under a key of their own: the same body under
the same id. It counts once so many have said it as its verb needs.
"""

from enum import StrEnum
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from messaging.fields import Count, Epoch, Family, NodeName, Nonce, ReservationKey


class Verb(StrEnum):
    """What is to be done."""

    RETRY = "retry"  # decode a kept frame again, after an upgrade
    NILIFY = "nilify"  # forget a kept or parked frame, so that it must come again
    CLEAR = "clear"  # take a kept frame off without carrying it out
    SKIP = "skip"  # go on behind a number that nobody can deliver any more
    WRITE_OFF = "write-off"  # end a reservation with all of it booked as used (P40)
    RELEASE_QUARANTINE = "release-quarantine"  # end one that both sides see differently (P62)
    RESUME = "resume"  # trust a halted peer again (P66)
    REBUILD = "rebuild"  # let a spoke that has lost its memory come back (P24)
    REVOKE = "revoke"  # accept nothing more that a spoke signs (P68)


class FrameNamed(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="frame"):
    """Number `seq` of the channel that `peer` sends on to the node that is ordered."""

    peer: NodeName
    family: Family
    seq: Count


class ReservationNamed(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="reservation"):
    """A reservation, by its id."""

    rid: ReservationKey


class PeerNamed(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="peer"):
    """The other end of channels of the node that is ordered."""

    peer: NodeName


class EpochNamed(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="epoch"):
    """A spoke in the epoch that it has been rebuilt in."""

    spoke: NodeName
    spoke_epoch: Epoch


Target: TypeAlias = FrameNamed | ReservationNamed | PeerNamed | EpochNamed

# What each verb is about, and how many operators it takes.
TARGETS: dict[Verb, tuple[type[Target], int]] = {
    Verb.RETRY: (FrameNamed, 1),
    Verb.NILIFY: (FrameNamed, 1),
    Verb.CLEAR: (FrameNamed, 2),
    Verb.SKIP: (FrameNamed, 2),
    Verb.WRITE_OFF: (ReservationNamed, 2),
    Verb.RELEASE_QUARANTINE: (ReservationNamed, 2),
    Verb.RESUME: (PeerNamed, 2),
    Verb.REBUILD: (EpochNamed, 2),
    Verb.REVOKE: (PeerNamed, 2),
}


class OperatorOrdered(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="operator_ordered"):
    """An operator wants this done, and says why. Operator to hub or spoke.

    Lost: given again. Repeated by the same operator, or once it is decided: nothing happens.
    """

    order_id: Nonce
    verb: Verb
    target: Target
    reason: Annotated[str, Meta(min_length=1, max_length=256)]


def brief(order: OperatorOrdered) -> str:
    """Return an order in a few words."""
    target = order.target
    if type(target) is FrameNamed:
        about = f"{target.peer} {target.family} {target.seq}"
    elif type(target) is ReservationNamed:
        about = target.rid.hex()
    elif type(target) is EpochNamed:
        about = f"{target.spoke} epoch {target.spoke_epoch:,}"
    else:
        about = target.peer  # type: ignore[union-attr]
    return f"{order.order_id.hex()} {order.verb} {about}"
