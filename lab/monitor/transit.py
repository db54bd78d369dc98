"""What is on its way: sent by one side, not yet delivered to the other.

The topic of the sender and the topic of deliveries have no order between them, so a delivery
may be read first.
"""

from messaging.envelope import Envelope
from messaging.messages import CreditUsed, ReservationGranted
from messaging.units import NodeId, ReservationId

PARKED_MAX = 4_096


class _Delivered:
    """What its receiver has of a channel: all below `next_seq`, and what waits behind a gap."""

    __slots__ = ("next_seq", "parked")

    def __init__(self) -> None:
        self.next_seq = 1
        self.parked: dict[int, Envelope] = {}

    def add(self, frame: Envelope) -> list[Envelope]:
        if frame.seq >= self.next_seq:
            self.parked[frame.seq] = frame
        if len(self.parked) > PARKED_MAX:
            self.next_seq = min(self.parked)  # part of the topic is gone
        ready = []
        while self.next_seq in self.parked:
            ready.append(self.parked.pop(self.next_seq))
            self.next_seq += 1
        return ready

    def __contains__(self, seq: int) -> bool:
        return seq < self.next_seq or seq in self.parked


class Transit:
    """Value and frames under way, by topic.

    Attributes:
        usd6: by topic, credit granted, or newly used, in frames not delivered yet.
    """

    def __init__(self, topics: tuple[str, ...]) -> None:
        self.usd6 = dict.fromkeys(topics, 0)
        self._under_way: dict[str, dict[int, int]] = {topic: {} for topic in topics}
        self._delivered = {topic: _Delivered() for topic in topics}
        self._used_usd6: dict[tuple[NodeId, ReservationId], int] = {}

    def frames(self, topic: str) -> int:
        """Return how many frames of a topic are under way."""
        return len(self._under_way[topic])

    def sent(self, topic: str, frame: Envelope) -> None:
        """Note a frame of a channel, in order."""
        value_usd6 = self._value_usd6(frame)
        if frame.seq not in self._delivered[topic]:
            self._under_way[topic][frame.seq] = value_usd6
            self.usd6[topic] += value_usd6

    def delivered(self, topic: str, frame: Envelope) -> list[Envelope]:
        """Note a delivery of what was written to `topic`; return what the receiver now handles."""
        self.usd6[topic] -= self._under_way[topic].pop(frame.seq, 0)
        return self._delivered[topic].add(frame)

    def _value_usd6(self, frame: Envelope) -> int:
        match frame.message:
            case ReservationGranted(amount_usd6=amount_usd6):
                return amount_usd6
            case CreditUsed(rid=rid, used_usd6=used_usd6):
                before_usd6 = self._used_usd6.get((frame.sender, rid), 0)
                self._used_usd6[frame.sender, rid] = used_usd6
                return max(0, used_usd6 - before_usd6)
        return 0
