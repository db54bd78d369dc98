"""What processes have published, held against their stores and journals: INV10, INV12, INV16.

A record may leave only once it is in its sender's outbox. At the end every journal is gone
through anew, by fresh nodes, and must give each frame as it was published, byte for byte; one
place in a stream never stands for two frames; each seal holds and links to the one before.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from messaging.codec import decode_frame, encode_frame
from messaging.drivers.mortal import Wire
from messaging.drivers.process import Parcel, Process
from messaging.endpoint import Endpoint
from messaging.envelope import Envelope
from messaging.errors import FrameRefused, InvariantViolated
from messaging.identity import NO_DIGEST, Sealed, Verifier, read_entry
from messaging.lineage import Place
from messaging.link_control import KeyRotated
from messaging.messages import CHANNEL_FAMILIES
from messaging.rebuilding import ChannelRebuilt
from messaging.rotation import Keys
from messaging.topics import Route, topic_of
from messaging.units import Micros, NodeId
from messaging.witness import follows, place_of

_sealed = msgspec.msgpack.Decoder(Sealed)


class Published:
    """A wire that notes what leaves, in front of the one that carries it."""

    def __init__(self, wire: Wire, processes: Sequence[Process]) -> None:
        self._wire = wire
        self._processes = {process.name: process for process in processes}
        self.frames: dict[tuple[str, Place], bytes] = {}  # as each first left

    def leave_out(self, name: NodeId) -> None:
        """Expect nothing more of a node that is put back to an older state, or runs twice."""
        self._processes.pop(name, None)
        self.frames = {key: data for key, data in self.frames.items() if _sender(data) != name}

    def carry(self, route: Route, seq: int, data: bytes, now_us: Micros) -> Iterable[Parcel]:
        """See `messaging.drivers.mortal.Wire`."""
        process = self._processes.get(route.sender)
        if process is not None:
            kept = any(row.number == process.published for row in process.store.rows())
            if not kept:
                finding = f"{route.topic} {seq}: published, and not in the outbox"
                raise InvariantViolated("INV10", finding)
            self._note(route, data)
        return self._wire.carry(route, seq, data, now_us)

    def _note(self, route: Route, data: bytes) -> None:
        frame = _frame_of(data)
        if frame.seq and self.frames.setdefault((route.topic, place_of(frame)), data) != data:
            finding = f"{route.topic} {frame.seq}: two frames under one number"
            raise InvariantViolated("INV12", finding)

    def check(self, make: Callable[[NodeId], Endpoint], verifier: Verifier) -> int:
        """Check all that was published; return how many frames that were.

        Raises:
            InvariantViolated: INV10, INV12 or INV16.
        """
        derived: dict[tuple[str, Place], bytes] = {}
        for process in self._processes.values():
            derived |= _derived(process, make(process.name))
        for (topic, place), data in self.frames.items():
            if _sealed.decode(data).frame != derived.get((topic, place)):
                finding = f"{topic} {place.seq}: published, and the journal gives another or none"
                raise InvariantViolated("INV10", finding)
        self._check_seals(verifier)
        return len(self.frames)

    def _check_seals(self, verifier: Verifier) -> None:
        verifier, keys = verifier.knowing(()), defaultdict[str, Keys](Keys)
        for (topic, place), data in sorted(self.frames.items()):
            seq, frame = place.seq, _frame_of(data)
            try:
                sealed, link = verifier.open_linked(data, frame.sender)
                if link.key != keys[topic].at(place):
                    raise FrameRefused("expected the key in force, found another")
                if type(frame.message) is KeyRotated:
                    verifier.learn(frame, frame.message)
                    keys[topic].rotate(place, frame.message.public_key)
            except FrameRefused as error:
                raise InvariantViolated("INV16", f"{topic} {seq}: {error}") from None
            if type(frame.message) is ChannelRebuilt and sealed.before == NO_DIGEST:
                continue
            before = self.frames.get((topic, follows(frame)))
            linked = NO_DIGEST if before is None else _sealed.decode(before).digest()
            if sealed.before != linked or (before is None and seq > 1):
                finding = f"{topic} {seq}: does not link to the frame before"
                raise InvariantViolated("INV12", finding)


def _frame_of(data: bytes) -> Envelope:
    return decode_frame(_sealed.decode(data).frame)


def _sender(data: bytes) -> NodeId:
    return _frame_of(data).sender


def _derived(process: Process, endpoint: Endpoint) -> Mapping[tuple[str, Place], bytes]:
    """Return the frames that a journal gives, by topic and place, each as it first left."""
    found: dict[tuple[str, Place], bytes] = {}
    endpoint.start()
    for entry in process.store.entries():
        event, _ = read_entry(entry.event)
        for output in endpoint.handle(Micros(entry.at_us), event):
            if type(output) is Envelope and output.family in CHANNEL_FAMILIES and output.seq:
                found.setdefault((topic_of(output), place_of(output)), encode_frame(output))
    return found
