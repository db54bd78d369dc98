"""Lives of a node: what one that starts again may say, and which goes on of two (P19, P20, P60)."""

import pickle
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from messaging.effects import Effect, Send
from messaging.endpoint import TEND, Endpoint
from messaging.envelope import Envelope
from messaging.lineage import Place
from messaging.link_control import ResyncAnswer, ResyncAsked, ResyncTold
from messaging.messages import CHANNEL_FAMILIES, Family, Message
from messaging.node import Event, Restarted, TimerFired
from messaging.units import HUB, Micros, NodeId
from messaging.witness import place_of
from tests.messaging.test_endpoint import POLICY, say

EAST, WEST = NodeId("east"), NodeId("west")
FAMILY = Family.RESERVATION


class Speaker:
    """Says what it is told to say, and remembers what it hears."""

    def __init__(self, name: NodeId) -> None:
        self.name = name
        self.to_say: list[Effect] = []
        self.heard: list[Message] = []

    def start(self) -> Sequence[Effect]:
        return ()

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        if isinstance(event, Envelope):
            self.heard.append(event.message)
        said, self.to_say = self.to_say, []
        return said


class Room:
    """A hub and two spokes, the frames between them, and a hand that moves them."""

    def __init__(self) -> None:
        spokes = {EAST: POLICY, WEST: POLICY}
        self.ends = {HUB: Endpoint(Speaker(HUB), spokes)}
        self.ends |= {name: Endpoint(Speaker(name), {HUB: POLICY}) for name in spokes}
        self.flying: list[Envelope] = []
        self.now_us = Micros(0)

    def give(self, end: Endpoint, event: Event) -> list[Envelope]:
        """Show an endpoint an event; return the frames that leave."""
        self.now_us = Micros(self.now_us + 1)
        return [one for one in end.handle(self.now_us, event) if isinstance(one, Envelope)]

    def say(
        self, end: Endpoint, to: NodeId, number: int, family: Family = FAMILY
    ) -> list[Envelope]:
        """Let a node say a number."""
        node = end.node
        assert isinstance(node, Speaker)
        node.to_say = [Send(to, family, say(number))]
        return self.give(end, TimerFired("say"))

    def settle(self, flying: Sequence[Envelope], *, rounds: int = 60) -> None:
        """Deliver all, and what comes of it, until everybody is quiet."""
        queue = list(flying)
        for _ in range(rounds):
            while queue:
                frame = queue.pop(0)
                queue += self.give(self.ends[frame.receiver], frame)
            self.now_us = Micros(self.now_us + POLICY.resend_after_us)
            for end in self.ends.values():
                queue += self.give(end, TimerFired(TEND))

    def heard(self, name: NodeId) -> list[Message]:
        node = self.ends[name].node
        assert isinstance(node, Speaker)
        return node.heard

    def copy(self, name: NodeId) -> Endpoint:
        """Return what a backup of now would give."""
        return pickle.loads(pickle.dumps(self.ends[name]))  # type: ignore[no-any-return]


def life(number: int) -> Restarted:
    return Restarted(number.to_bytes(8))


def asked(frames: Sequence[Envelope]) -> list[Envelope]:
    return [frame for frame in frames if isinstance(frame.message, ResyncAsked)]


def test_a_node_that_starts_again_asks_on_each_channel_and_says_nothing_new_before() -> None:
    room = Room()
    hub = room.ends[HUB]
    room.settle(room.say(hub, EAST, 1))
    left = room.give(hub, life(1))

    assert {(one.receiver, one.family) for one in asked(left)} == set(hub.outboxes)
    assert room.say(hub, EAST, 2) == []
    assert room.heard(EAST) == [say(1)]
    room.settle(left)
    assert room.heard(EAST) == [say(1), say(2)]
    assert not hub.lives.unsynced


def test_reservations_wait_for_every_channel_and_the_rest_for_its_own() -> None:
    room = Room()
    hub, east = room.ends[HUB], room.ends[EAST]
    left = room.give(hub, life(1))
    to_east = [frame for frame in left if frame.receiver == EAST]
    for frame in to_east:
        for answer in room.give(east, frame):
            room.give(hub, answer)
    for family in CHANNEL_FAMILIES:
        for frame in room.say(east, HUB, 5, family):
            room.give(hub, frame)
    assert room.heard(HUB) == [say(5), say(5)]  # margin-state and liquidation

    room.settle([frame for frame in left if frame.receiver == WEST])
    assert room.heard(HUB) == [say(5)] * 3


def test_a_copy_that_has_forgotten_what_it_said_stops_and_the_other_goes_on() -> None:
    room = Room()
    hub, old = room.ends[HUB], room.copy(HUB)
    room.settle(room.say(hub, EAST, 1))
    room.ends[HUB] = old
    room.settle(room.give(old, life(1)))
    assert "state_lost" in old.lives.stopped
    assert room.say(old, WEST, 9) == []

    room.ends[HUB] = hub
    room.settle(room.say(hub, EAST, 2))
    assert room.heard(EAST) == [say(1), say(2)]


def test_a_copy_that_has_forgotten_what_it_acknowledged_stops() -> None:
    """Its peer has dropped the frame and could never say it again."""
    room = Room()
    old = room.copy(HUB)
    room.settle(room.say(room.ends[EAST], HUB, 1))
    assert not room.ends[EAST].outboxes[HUB, FAMILY].unacked
    room.ends[HUB] = old
    room.settle(room.give(old, life(1)))
    assert "state_lost" in old.lives.stopped


def test_a_copy_that_has_forgotten_what_there_was_no_room_for_stops() -> None:
    """It has arrived: another frame under its number would be taken for a lie."""
    room = Room()
    hub, inbox = room.ends[HUB], room.ends[EAST].inboxes[HUB, FAMILY]
    inbox.parked_max = 1
    room.say(hub, EAST, 1)  # lost, so what comes behind it has to wait
    for frame in room.say(hub, EAST, 2):
        room.give(room.ends[EAST], frame)
    old = room.copy(HUB)
    for frame in room.say(hub, EAST, 3):
        room.give(room.ends[EAST], frame)
    assert list(inbox.parked) == [2]
    room.ends[HUB] = old
    room.settle(room.give(old, life(1)))
    assert "state_lost" in old.lives.stopped
    room.ends[HUB] = hub
    room.settle(room.say(hub, EAST, 4))
    assert room.heard(EAST) == [say(1), say(2), say(3), say(4)]


def test_what_an_earlier_life_said_and_nobody_knows_of_is_fenced() -> None:
    room = Room()
    hub, old = room.ends[HUB], room.copy(HUB)
    (late,) = room.say(hub, EAST, 1)
    room.ends[HUB] = old
    room.settle(room.give(old, life(1)))
    assert not old.lives.stopped

    room.settle([late])
    assert room.heard(EAST) == []
    assert room.ends[EAST].inboxes[HUB, FAMILY].fenced == 1
    room.settle(room.say(old, EAST, 2))
    assert room.heard(EAST) == [say(2)]


def _accept(room: Room, end: Endpoint, number: int) -> None:
    """Let a copy of the hub begin a life, and everybody accept it."""
    room.ends[HUB] = end
    room.settle(room.give(end, life(number)), rounds=2)
    assert not end.lives.unsynced


def test_what_a_backup_said_counts_no_more_once_the_original_is_accepted() -> None:
    """It bears a number that the original has used before, for something else."""
    room = Room()
    hub, backup = room.ends[HUB], room.copy(HUB)
    (first,) = room.say(hub, EAST, 1)
    _accept(room, backup, 1)
    (other,) = room.say(backup, EAST, 2)
    room.give(hub, life(2))  # nobody hears of it: it is as old as the backup's
    _accept(room, hub, 3)
    assert place_of(other) == place_of(first)

    fenced = room.ends[EAST].inboxes[HUB, FAMILY].fenced
    room.settle([other])
    assert room.ends[EAST].inboxes[HUB, FAMILY].fenced == fenced + 1
    assert room.heard(EAST) == [say(1)]
    room.settle(room.say(hub, EAST, 3))
    assert room.heard(EAST) == [say(1), say(3)]


def test_two_lives_of_one_number_are_not_taken_for_each_other() -> None:
    """The spokes have accepted the original's, and forgotten it; then they accept the backup's."""
    room = Room()
    hub, backup = room.ends[HUB], room.copy(HUB)
    forgetful = {name: room.copy(name) for name in (EAST, WEST)}
    _accept(room, hub, 1)
    room.ends |= forgetful
    _accept(room, backup, 2)
    room.ends[HUB] = hub
    room.settle(room.give(hub, life(3)))
    assert "fenced" in hub.lives.stopped
    room.ends[HUB] = backup
    room.settle(room.say(backup, EAST, 2))
    assert room.heard(EAST) == [say(2)]


def test_an_original_stops_once_something_of_its_backup_was_heard() -> None:
    room = Room()
    hub, backup = room.ends[HUB], room.copy(HUB)
    room.say(hub, EAST, 1)
    _accept(room, backup, 1)
    room.settle(room.say(backup, EAST, 2))
    room.give(hub, life(2))
    room.ends[HUB] = hub
    room.settle(room.give(hub, life(3)))
    assert "state_lost" in hub.lives.stopped
    room.ends[HUB] = backup
    room.settle(room.say(backup, EAST, 3))
    assert room.heard(EAST) == [say(2), say(3)]


def test_a_known_frame_of_an_earlier_life_is_taken_when_it_comes_again() -> None:
    room = Room()
    hub = room.ends[HUB]
    lost = room.say(hub, EAST, 1)
    assert lost
    room.settle(room.give(hub, life(1)))
    assert room.heard(EAST) == [say(1)]


def test_of_two_lives_with_one_number_the_first_to_ask_goes_on() -> None:
    room = Room()
    one, other = room.ends[HUB], room.copy(HUB)
    first, second = room.give(one, life(1)), room.give(other, life(2))
    room.settle(first)
    for frame in second:
        for answer in room.give(room.ends[frame.receiver], frame):
            assert isinstance(answer.message, ResyncTold)
            assert answer.message.answer is ResyncAnswer.FENCED
            room.give(other, answer)
    assert "fenced" in other.lives.stopped
    assert not one.lives.stopped


def test_held_frames_leave_as_frames_of_the_newest_life() -> None:
    room = Room()
    hub = room.ends[HUB]
    room.give(hub, life(1))  # nobody hears of it
    room.say(hub, EAST, 1)
    room.settle(room.give(hub, life(2)))
    assert room.heard(EAST) == [say(1)]
    assert room.ends[EAST].inboxes[HUB, FAMILY].life.node_epoch == 3


def test_frames_of_a_life_that_nobody_has_accepted_wait() -> None:
    room = Room()
    hub, liar = room.ends[HUB], room.copy(HUB)
    liar.lives.node_epoch = 7
    (early,) = room.say(liar, EAST, 1)
    room.give(room.ends[EAST], early)
    inbox = room.ends[EAST].inboxes[HUB, FAMILY]
    assert (inbox.early, inbox.cursor) == (1, Place(1, 0))
    room.settle(room.say(hub, EAST, 2))
    assert room.heard(EAST) == [say(2)]


def test_an_acknowledgement_of_what_was_never_let_go_is_not_believed() -> None:
    room = Room()
    hub, twin = room.ends[HUB], room.copy(HUB)
    twin_said = room.say(twin, EAST, 1)
    room.give(hub, life(1))
    room.say(hub, EAST, 2)
    for frame in twin_said:
        room.give(room.ends[EAST], frame)
    (answer,) = room.say(room.ends[EAST], HUB, 3)
    room.give(hub, answer)
    assert list(hub.outboxes[EAST, FAMILY].unacked) == [1]


def test_what_a_fenced_life_has_heard_is_said_again_to_the_one_that_goes_on() -> None:
    room = Room()
    hub, twin, spoke = room.ends[HUB], room.copy(HUB), room.ends[EAST]
    (word,) = room.say(spoke, HUB, 1)
    room.give(twin, word)
    (late,) = room.say(twin, EAST, 2)
    room.settle(room.give(hub, life(1)), rounds=1)
    room.give(spoke, late)
    assert late.ack_seq == 1
    assert list(spoke.outboxes[HUB, FAMILY].unacked) == [1]
    room.settle([])
    assert room.heard(HUB) == [say(1)]


def test_a_node_that_has_forgotten_whom_it_accepted_is_asked_again() -> None:
    """The answer had left when the commit was lost."""
    room = Room()
    spoke = room.ends[EAST]
    asks = room.give(spoke, life(1))
    forgetful = room.copy(HUB)
    for ask in asks:
        for answer in room.give(room.ends[HUB], ask):
            if answer.receiver == EAST:
                room.give(spoke, answer)
    assert not spoke.lives.unsynced

    room.ends[HUB] = forgetful
    room.settle(room.give(forgetful, life(2)))
    room.settle(room.say(spoke, HUB, 7))
    assert room.heard(HUB) == [say(7)]
    assert not forgetful.lives.unsynced


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["say", "restart", "deliver", "again", "drop", "tend"]),
            st.sampled_from([HUB, EAST, WEST]),
            st.integers(0, 50),
        ),
        max_size=60,
    )
)
def test_whatever_happens_to_frames_and_lives_all_is_heard_once_in_order(
    steps: list[tuple[str, NodeId, int]],
) -> None:
    room, flying, lives = Room(), list[Envelope](), 0
    said: dict[tuple[NodeId, NodeId], int] = {}
    for what, name, place in steps:
        end = room.ends[name]
        if what == "say":
            to = (EAST, WEST)[place % 2] if name == HUB else HUB
            said[name, to] = said.get((name, to), 0) + 1
            flying += room.say(end, to, said[name, to])
        elif what == "restart":
            lives += 1
            flying += room.give(end, life(lives))
        elif what == "tend":
            room.now_us = Micros(room.now_us + 20_000)
            flying += room.give(end, TimerFired(TEND))
        elif flying:
            frame = flying[place % len(flying)]
            if what != "again":
                flying.remove(frame)
            if what != "drop":
                flying += room.give(room.ends[frame.receiver], frame)
    room.settle(flying)

    assert not any(end.lives.stopped or end.lives.unsynced for end in room.ends.values())
    for (name, to), count in said.items():
        inbox = room.ends[to].inboxes[name, FAMILY]
        assert inbox.cursor == Place(1, count)
    for spoke in (EAST, WEST):
        assert room.heard(spoke) == [say(n + 1) for n in range(said.get((HUB, spoke), 0))]
