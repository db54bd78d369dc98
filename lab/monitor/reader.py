"""Records of topics to the books: opens seals, counts what fails."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import structlog

from lab.monitor.books import Books
from messaging.codec import decode_frame
from messaging.envelope import Envelope
from messaging.errors import FrameRefused
from messaging.identity import Verifier
from messaging.link_control import KeyRotated
from messaging.topics import DELIVERED, dead_letters, routes
from messaging.units import HUB, RELAY, NodeId

AT = "at_us"  # header of a delivery: its scenario time
REFUSALS_LOGGED_MAX = 100

log = structlog.get_logger()


Headers: TypeAlias = Iterable[tuple[str, bytes]]


class Reader:
    """Feeds the books.

    Attributes:
        next_offsets: by topic, the offset to be read next.
        frames: records read in all. refused: by topic, those that are no frame of the stack.
        dead_letters: by node, frames that it has refused.
    """

    def __init__(self, books: Books, verifier: Verifier) -> None:
        self.books = books
        self.frames = 0
        self.refused: Counter[str] = Counter()
        self.dead_letters: Counter[str] = Counter()
        self._verifier = verifier
        self._senders: dict[str, NodeId] = {}
        for route in routes(books.spokes):
            self._senders[route.topic] = route.sender
            if route.relayed:
                self._senders[route.read_from] = route.sender
        self._vouched: dict[str, dict[bytes, bytes]] = {}
        self._dead = {dead_letters(node): node for node in (HUB, *books.spokes, RELAY)}
        self.next_offsets = dict.fromkeys(self.topics(), 0)

    def topics(self) -> list[str]:
        """Return the topics to read: all but the prices inside chains and the operator's."""
        channels = [topic for topic in self.books.topics() if self._wanted(topic)]
        return [*channels, *self._dead]

    def _wanted(self, topic: str) -> bool:
        return topic.startswith((DELIVERED, "from-", "to-", "order."))

    def read(self, topic: str, row: Sequence[tuple[int, bytes, Headers]]) -> None:
        """Take in consecutive records of one topic: offset, value and headers of each."""
        fresh = [one for one in row if self._fresh(topic, one[0])]
        if not fresh:
            return
        vouched = self._vouched.setdefault(topic, {})
        values = [value for _, value, _ in fresh]
        sender = self._senders[topic]
        opened = self._verifier.open_row(values, sender, vouched)
        for number, (offset, _, headers) in enumerate(fresh, start=1):
            found = opened[number - 1]
            try:
                if isinstance(found, FrameRefused):
                    raise found
                frame = decode_frame(found.sealed.frame)
                if type(frame.message) is KeyRotated:  # those behind it are under a key unknown
                    self._verifier.learn(frame, frame.message)
                    opened[number:] = self._verifier.open_row(values[number:], sender, vouched)
                self._feed(topic, frame, headers)
            except FrameRefused as error:
                self._refuse(topic, offset, error)

    def _fresh(self, topic: str, offset: int) -> bool:
        """Move a topic's cursor; tell whether there is a frame to look at."""
        expected = self.next_offsets[topic]
        if offset < expected:
            return False  # read again after the client has lost its place
        if offset > expected:
            log.warning("topic_gap", topic=topic, expected=expected, found=offset)
            self.books.cut(topic)
        self.next_offsets[topic] = offset + 1
        self.frames += 1
        if topic in self._dead:
            self.dead_letters[self._dead[topic]] += 1
            return False
        return True

    def _refuse(self, topic: str, offset: int, error: FrameRefused) -> None:
        self.refused[topic] += 1
        if self.refused.total() <= REFUSALS_LOGGED_MAX:
            log.warning("refused", topic=topic, offset=offset, why=str(error))

    def _feed(self, topic: str, frame: Envelope, headers: Headers) -> None:
        if topic.startswith(DELIVERED):
            self.books.feed(topic, frame, arrival_us(headers, frame))
        else:
            self.books.feed(topic, frame)


def arrival_us(headers: Headers, frame: Envelope) -> int:
    """Return the scenario time at which a frame was delivered."""
    at = dict(headers).get(AT, b"")
    return int(at) if at.isdigit() and len(at) < 20 else frame.sent_us
