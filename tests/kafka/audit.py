"""Whether a stopped stack has lost anything, applied anything twice, or believed a stranger."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lab import running
from lab.result import Result
from lab.stack import journals
from lab.world import build
from messaging.codec import encode_frame
from messaging.effects import Effect
from messaging.endpoint import Endpoint, Output
from messaging.envelope import Envelope
from messaging.messages import CHANNEL_FAMILIES, Family
from messaging.node import Event
from messaging.record import Record
from messaging.topics import topic_of
from messaging.units import MARKET, Micros, NodeId


class Audit(NamedTuple):
    """What was found.

    Attributes:
        result: of the run that the journals tell.
        frames: the bytes of all frames that nodes have sent, by topic, oldest first.
        applied: how many messages of each channel were applied.
        repeats: how many came once more.
    """

    result: Result
    frames: dict[str, list[bytes]]
    applied: dict[str, int]
    repeats: int


class Watched:
    """The journals as a driver that notes what is sent and what is handled.

    Attributes:
        sent: by topic, each frame's bytes and when it was sent.
        handled: by topic, the bytes of frames that nodes have handled.
    """

    def __init__(self, folder: Path) -> None:
        self._journals = journals.Journals(folder)
        self.world = self._journals.world
        self.nodes = self._journals.nodes
        self.sent: dict[str, dict[bytes, Micros]] = {}
        self.handled: dict[str, set[bytes]] = {}

    @property
    def failed(self) -> tuple[Micros, NodeId, Event] | None:
        return self._journals.failed

    def run(self) -> Iterator[Record]:
        for endpoint in build(self._journals.scenario).endpoints:
            self._note(endpoint.start())  # what is said before the first event is in no record
        for record in self._journals.run():
            self._note(record.effects)
            event = record.event
            if type(event) is Envelope and record.node in self.nodes:
                self.handled.setdefault(topic_of(event), set()).add(encode_frame(event))
            yield record

    def _note(self, effects: Sequence[Output]) -> None:
        for effect in effects:
            if type(effect) is Envelope:
                sent = self.sent.setdefault(topic_of(effect), {})
                sent.setdefault(encode_frame(effect), effect.sent_us)


def audit(folder: Path, *, settled_us: int, log: Path | None = None) -> Audit:
    """Look at everything; whatever was sent up to `settled_us` must have been applied.

    The journals must fold to the state that each process had, all invariants must hold, each
    channel must have been applied 1, 2, 3, ..., and nothing handled that its sender has not sent.
    """
    journals.verify(folder)
    watched = Watched(folder)
    applied = {endpoint.name: _watch(endpoint) for endpoint in watched.world.endpoints}
    outcome = running.run(watched.world, driver=watched, log=log)
    assert outcome.finding is None, str(outcome.finding)
    for topic, frames in watched.handled.items():
        strange = frames - {*watched.sent.get(topic, ())}
        assert not strange, f"{topic}: {len(strange)} frames handled that nobody has sent"
    counts, repeats = {}, 0
    for endpoint in watched.world.endpoints:
        for (peer, family), inbox in endpoint.inboxes.items():
            name = f"{peer}/{endpoint.name}/{family}"
            rows = applied[endpoint.name].get((peer, family), [])
            counts[name] = len(rows)
            repeats += inbox.repeats
            assert rows == list(range(1, inbox.next_seq)), f"{name}: not 1, 2, 3, ... once each"
    _check_nothing_missing(watched, settled_us)
    frames_sent = {topic: [*frames] for topic, frames in watched.sent.items()}
    return Audit(outcome.story.result, frames_sent, counts, repeats)


def _watch(endpoint: Endpoint) -> dict[tuple[NodeId, Family], list[int]]:
    """Note the numbers that a node is shown, by channel."""
    seen: dict[tuple[NodeId, Family], list[int]] = {}

    def note(now_us: Micros, event: Event, effects: Sequence[Effect]) -> None:
        if type(event) is Envelope and event.family in CHANNEL_FAMILIES:
            seen.setdefault((event.sender, event.family), []).append(event.seq)

    endpoint.observers.append(note)
    return seen


def _check_nothing_missing(watched: Watched, settled_us: int) -> None:
    """Whatever may not be lost and was sent by then has been applied: orders, moves, channels."""
    inboxes = {
        endpoint.name: endpoint.inboxes
        for endpoint in watched.world.endpoints
        if endpoint.name in watched.nodes
    }
    for endpoint in watched.world.endpoints:
        for (peer, family), outbox in endpoint.outboxes.items():
            cursor = inboxes[peer][endpoint.name, family].next_seq
            old = [
                seq
                for seq, frame in outbox.unacked.items()
                if seq >= cursor and frame.sent_us <= settled_us
            ]
            name = f"{endpoint.name}/{peer}/{family}"
            assert not old, f"{name}: {len(old)} sent by {settled_us:,} us and not applied"
    for topic in (f"{what}.{node}" for what in (MARKET, "order") for node in watched.nodes):
        old_frames = {
            data for data, at_us in watched.sent.get(topic, {}).items() if at_us <= settled_us
        }
        missing = old_frames - watched.handled.get(topic, set())
        assert not missing, f"{topic}: {len(missing)} frames were never handled"


def busy(found: Audit) -> None:
    """Refuse to draw conclusions from a stack in which nothing happened."""
    assert found.result.reservations.granted > 0
    assert found.result.invariants_checked > 0
    for family in (Family.MARGIN_STATE, Family.RESERVATION):
        assert sum(count for name, count in found.applied.items() if name.endswith(family)) > 0
