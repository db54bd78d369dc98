"""Whether a stopped stack has lost anything, applied anything twice, or believed a stranger."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lab import running
from lab.result import Result
from lab.stack import journals
from lab.world import build
from messaging.codec import encode_frame
from messaging.effects import Effect
from messaging.endpoint import Endpoint, Output
from messaging.envelope import Envelope
from messaging.identity import read_entry
from messaging.messages import CHANNEL_FAMILIES, Family
from messaging.node import Event
from messaging.record import Record
from messaging.topics import topic_of
from messaging.units import Micros, NodeId


class Audit(NamedTuple):
    """What was found.

    Attributes:
        result: of the run that the journals tell.
        applied: how many messages of each channel were applied.
        repeats: how many came once more.
    """

    result: Result
    applied: dict[str, int]
    repeats: int


class Heard:
    """What nodes have in their journals, by topic, while they run or afterwards."""

    def __init__(self, folder: Path, nodes: Sequence[NodeId]) -> None:
        self._places = {folder / f"{node}.db": 0 for node in nodes}
        self._numbers: dict[str, set[int]] = {}

    def look(self) -> None:
        """Read what has come since the last look."""
        for path, place in self._places.items():
            query = "SELECT place, event FROM journal WHERE place > ? ORDER BY place"
            for place_, data in rows(path, query, place):
                self._places[path] = place_
                event, _ = read_entry(data)
                if type(event) is Envelope and event.seq:
                    self._numbers.setdefault(topic_of(event), set()).add(event.seq)

    def missing(self, wanted: Mapping[str, int]) -> dict[str, int]:
        """Return how many of the numbers 1 to `wanted` are missing, for topics that miss any."""
        self.look()
        short = {
            topic: last - len({seq for seq in self._numbers.get(topic, ()) if seq <= last})
            for topic, last in wanted.items()
        }
        return {topic: count for topic, count in short.items() if count}


def said(folder: Path, nodes: Sequence[NodeId]) -> dict[str, int]:
    """Return the newest number that nodes have put into each channel, as far as they keep it."""
    query = "SELECT topic, max(seq) FROM outbox WHERE seq > 0 GROUP BY topic"
    return dict(row for node in nodes for row in rows(folder / f"{node}.db", query))


def rows(path: Path, query: str, *values: object) -> list[Any]:
    """Ask a node's file, which the node may be writing to."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return database.execute(query, values).fetchall()
    finally:
        database.close()


class Watched:
    """The journals as a driver that notes what is sent and what is handled.

    Attributes:
        sent, handled: by topic, the bytes of frames that nodes have sent, and have handled.
    """

    def __init__(self, folder: Path) -> None:
        self._journals = journals.Journals(folder)
        self.world = self._journals.world
        self.nodes = self._journals.nodes
        self.sent: dict[str, set[bytes]] = {}
        self.handled: dict[str, set[bytes]] = {}
        self.failed: tuple[Micros, NodeId, Event] | None = None

    def run(self) -> Iterator[Record]:
        for endpoint in build(self._journals.scenario).endpoints:
            self._note(endpoint.start())  # what is said before the first event is in no record
        try:
            for record in self._journals.run():
                self._note(record.effects)
                event = record.event
                if type(event) is Envelope and record.node in self.nodes:
                    self.handled.setdefault(topic_of(event), set()).add(encode_frame(event))
                yield record
        finally:
            self.failed = self._journals.failed

    def _note(self, effects: Sequence[Output]) -> None:
        for effect in effects:
            if type(effect) is Envelope:
                self.sent.setdefault(topic_of(effect), set()).add(encode_frame(effect))


def audit(folder: Path, wanted: Mapping[str, int], *, log: Path | None = None) -> Audit:
    """Look at everything; of each topic in `wanted`, 1 to that number must have been handled.

    The journals must fold to the state that each process had, all invariants must hold, each
    channel must have been applied 1, 2, 3, ..., and nothing handled that its sender has not sent.
    """
    journals.verify(folder)
    watched = Watched(folder)
    applied = {endpoint.name: _watch(endpoint) for endpoint in watched.world.endpoints}
    outcome = running.run(watched.world, driver=watched, log=log)
    assert outcome.finding is None, str(outcome.finding)
    for topic, frames in watched.handled.items():
        strange = frames - watched.sent.get(topic, set())
        assert not strange, f"{topic}: {len(strange)} frames handled that nobody has sent"
    counts, repeats = {}, 0
    for endpoint in watched.world.endpoints:
        for (peer, family), inbox in endpoint.inboxes.items():
            name = f"{peer}/{endpoint.name}/{family}"
            numbers = applied[endpoint.name].get((peer, family), [])
            counts[name] = len(numbers)
            repeats += inbox.repeats
            assert numbers == list(range(1, inbox.next_seq)), f"{name}: not 1, 2, 3, ... once each"
    assert Heard(folder, watched.nodes).missing(wanted) == {}
    return Audit(outcome.story.result, counts, repeats)


def _watch(endpoint: Endpoint) -> dict[tuple[NodeId, Family], list[int]]:
    """Note the numbers that a node is shown, by channel."""
    seen: dict[tuple[NodeId, Family], list[int]] = {}

    def note(now_us: Micros, event: Event, effects: Sequence[Effect]) -> None:
        if type(event) is Envelope and event.family in CHANNEL_FAMILIES:
            seen.setdefault((event.sender, event.family), []).append(event.seq)

    endpoint.observers.append(note)
    return seen


def busy(found: Audit) -> None:
    """Refuse to draw conclusions from a stack in which nothing happened."""
    assert found.result.reservations.granted > 0
    assert found.result.invariants_checked > 0
    for family in (Family.MARGIN_STATE, Family.RESERVATION):
        assert sum(count for name, count in found.applied.items() if name.endswith(family)) > 0
