"""What both ends of a channel share: their patience, and the lives of the other end.

The ends are `messaging/outbox.py` and `messaging/inbox.py` (P5).
"""

from typing import NamedTuple

import msgspec

from messaging.lineage import Place
from messaging.units import Micros

RESENT_MAX = 100  # frames sent again at a time, and gaps asked for


class Life(NamedTuple):
    """One life of the other end, and the last frame that it knows its earlier lives to have put."""

    node_epoch: int
    nonce: bytes
    head: Place


FIRST_LIFE = Life(1, b"", Place(1, 0))


class ChannelPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How patient the two ends are.

    Attributes:
        tend_us: how often a node looks after its channels while there is something to do.
        ack_after_us: age of an unacknowledged arrival before a bare acknowledgement is sent.
        gap_after_us: age of a gap before its frames are asked for.
        resend_after_us: silence after which unacknowledged frames are sent again.
    """

    tend_us: Micros
    ack_after_us: Micros
    gap_after_us: Micros
    resend_after_us: Micros
