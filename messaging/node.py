"""The one shape that hub, spokes, markets and every driver agree on."""

from collections.abc import Sequence
from typing import Annotated, Protocol, TypeAlias, final

import msgspec
from msgspec import Meta

from messaging.effects import Effect
from messaging.envelope import Envelope
from messaging.fields import Count, Epoch, Family, NodeName, Nonce, PublicKey, Signature
from messaging.operator_orders import OperatorOrdered
from messaging.units import Micros, NodeId


@final
class TimerFired(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """A timer the node has set."""

    name: str


@final
class Restarted(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """The node's process has started again; `nonce` is drawn for this life alone (P95)."""

    nonce: Nonce


class Stream(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """How far a topic that is no channel has been read."""

    topic: Annotated[str, Meta(max_length=128)]
    seq: Count


@final
class Rebuilt(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """The node's memory is lost, and begins anew with what has outlived it (P61).

    The first event of a journal.

    Attributes:
        spoke_epoch: the new one, on chain from this block on.
        contract: what can be read from the chain.
        streams: how far it has read what reaches the node in order from its own chain.
    """

    spoke_epoch: Epoch
    contract: bytes
    streams: tuple[Stream, ...]


@final
class Rejoined(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """A channel begins anew, for the spoke at one end of it was rebuilt (P61).

    From the endpoint, in the course of another event, at both ends. The first word that the node
    says on it must be `ChannelRebuilt`.

    Attributes:
        peer, family: the channel.
        spoke_epoch: of the spoke, from now on.
        base_epoch, base_seq: the frame that our next one follows.
        heard_seq: the last frame of the peer that counts.
    """

    peer: NodeName
    family: Family
    spoke_epoch: Epoch
    base_epoch: Epoch
    base_seq: Count
    heard_seq: Count


@final
class Contradicted(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """A peer has signed two frames that cannot both stand in its channel (P64).

    Attributes:
        peer: who has.
        first, second: the frames as they came, sealed: anybody with the public key can check.
    """

    peer: NodeName
    first: bytes
    second: bytes


@final
class Poisoned(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """A peer has signed a frame that cannot be decoded or breaks its schema (P69).

    Attributes:
        peer, family, seq, node_epoch, chan_epoch: its place, as it says.
        data: the frame as it came, sealed.
        why: what was expected and found.
    """

    peer: NodeName
    family: Family
    seq: Count
    node_epoch: Epoch
    chan_epoch: Epoch
    data: bytes
    why: str


@final
class PassedOver(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """Operators let a channel go on behind a number that has not been carried out (P70, P71)."""

    peer: NodeName
    family: Family
    seq: Count


@final
class Approved(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """So many operators as it needs have given an order (P70)."""

    order: OperatorOrdered
    operators: tuple[NodeName, ...]


@final
class Rotated(msgspec.Struct, frozen=True, gc=False, tag=True, array_like=True):
    """The node has a new key, and goes over to it on every channel now (P67).

    Attributes:
        public_key: of the new key; the private one is in no journal.
        proofs: the new key's signatures, a channel each, in the order of the outboxes.
    """

    public_key: PublicKey
    proofs: tuple[Signature, ...]


# The last two are never in a journal: the endpoint makes them of what is.
Event: TypeAlias = (
    Envelope
    | TimerFired
    | Contradicted
    | Restarted
    | Rebuilt
    | Rejoined
    | Rotated
    | Poisoned
    | PassedOver
    | Approved
)


class Node(Protocol):
    """Anything that takes events and answers with wishes."""

    name: NodeId

    def start(self) -> Sequence[Effect]:
        """Return what the node wishes before its first event, at time 0."""
        ...

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        """Take one event, return what should happen next. No I/O, no clock, no dice.

        Everything that may change a decision is an event, timers included. A "no" is a
        message with a reason; an exception is a bug.
        """
        ...
