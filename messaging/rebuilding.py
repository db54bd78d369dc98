"""What is said when a spoke has lost its memory and is rebuilt from its chain (P24, P61)."""

import msgspec

from messaging.fields import Epoch

LIVES = 2**20  # of one epoch of a spoke: more than anybody starts


def spoke_epoch_of(node_epoch: int) -> int:
    """Return the epoch of a node that a life belongs to: 1 until it was rebuilt."""
    return 1 + node_epoch // LIVES


def last_life_before(spoke_epoch: int) -> int:
    """Return the number below those of the lives of an epoch."""
    return (spoke_epoch - 1) * LIVES


class ChannelRebuilt(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="channel_rebuilt"):
    """A spoke has lost its memory, and this channel begins anew behind what was heard (P61).

    Either way, on each family: the first frame of a new version, whose seal links to none.
    `base_epoch` is the version of the frame before. From the spoke: nothing that was told counts
    unless it is final, for nobody remembers which blocks were lost since. All that has to be said
    in spite of the loss follows.
    """

    spoke_epoch: Epoch
    base_epoch: Epoch


class OldEpochsClosed(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="old_epochs_closed"):
    """All reservations of epochs before `spoke_epoch` that the contract knows are closed (P61).

    Spoke to hub, behind these closes. Every other of those epochs never reached the contract,
    and cannot any more. Lost: what was granted to them stays locked.
    """

    spoke_epoch: Epoch
