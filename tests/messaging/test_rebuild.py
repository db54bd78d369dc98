"""A node that knows nothing any more comes back, if it may (P24, P61)."""

from collections.abc import Sequence

import pytest

from messaging.effects import Effect, Readmit, Send
from messaging.endpoint import Endpoint
from messaging.envelope import Envelope
from messaging.lineage import Place
from messaging.link_control import RebuildAccepted
from messaging.messages import Message
from messaging.node import Event, Rebuilt, Rejoined, TimerFired
from messaging.rebuilding import ChannelRebuilt
from messaging.units import HUB, Micros
from tests.messaging.test_endpoint import POLICY, say
from tests.messaging.test_resync import EAST, FAMILY, Room, Speaker, life


class Rejoiner(Speaker):
    """Says the word that a channel begins anew with, and nothing else of its own."""

    def handle(self, now_us: int, event: Event) -> Sequence[Effect]:
        if not isinstance(event, Rejoined):
            return super().handle(now_us, event)  # type: ignore[arg-type]
        word = ChannelRebuilt(spoke_epoch=event.spoke_epoch, base_epoch=event.base_epoch)
        return [Send(event.peer, event.family, word)]


def room() -> Room:
    found = Room()
    for name in list(found.ends):
        peers = {peer: POLICY for peer, _ in found.ends[name].inboxes}
        found.ends[name] = Endpoint(Rejoiner(name), peers)
    return found


def forget(found: Room, spoke_epoch: int = 2) -> list[Envelope]:
    """Let east lose all; return what its first life says."""
    fresh = Endpoint(Rejoiner(EAST), {HUB: POLICY})
    found.ends[EAST] = fresh
    assert not found.give(fresh, Rebuilt(spoke_epoch=spoke_epoch, contract=b"", streams=()))
    return found.give(fresh, life(spoke_epoch))


def approve(found: Room, spoke_epoch: int = 2) -> None:
    node = found.ends[HUB].node
    assert isinstance(node, Speaker)
    node.to_say = [Readmit(EAST, spoke_epoch)]
    found.give(found.ends[HUB], TimerFired("approve"))


def words(heard: Sequence[Message]) -> list[Message]:
    return [one for one in heard if not isinstance(one, ChannelRebuilt)]


def test_who_was_rebuilt_waits_for_approval_and_then_goes_on_behind_what_was_heard() -> None:
    found = room()
    hub = found.ends[HUB]
    found.settle(found.say(found.ends[EAST], HUB, 1))
    lost = found.say(hub, EAST, 9)  # under way when it forgets
    found.settle(forget(found), rounds=3)
    east = found.ends[EAST]
    assert set(east.lives.lost) == set(east.inboxes)
    assert found.say(east, HUB, 2) == []

    approve(found)
    found.settle(())
    assert not east.lives.lost
    assert not east.lives.unsynced
    found.settle([*lost, *found.say(east, HUB, 3), *found.say(hub, EAST, 4)])
    assert words(found.heard(HUB)) == [say(1), say(3)]
    assert words(found.heard(EAST)) == [say(4)]
    assert hub.inboxes[EAST, FAMILY].cursor == Place(2, 3)
    assert hub.outboxes[EAST, FAMILY].taken_back == 1


def test_frames_of_the_life_that_was_lost_are_fenced() -> None:
    found = room()
    late = found.say(found.ends[EAST], HUB, 1)
    flying = forget(found)
    approve(found)
    found.settle(flying)
    found.settle(late)
    assert words(found.heard(HUB)) == []
    assert found.ends[HUB].inboxes[EAST, FAMILY].fenced == 1


def test_an_approval_of_another_epoch_lets_nobody_in() -> None:
    found = room()
    approve(found, 3)
    found.settle(forget(found, 2), rounds=5)
    assert found.ends[EAST].lives.lost


def test_an_approval_by_mistake_of_a_far_epoch_locks_nobody_out() -> None:
    found = room()
    approve(found, 22)
    approve(found, 2)
    found.settle(forget(found, 2))
    assert not found.ends[EAST].lives.lost


def test_a_second_process_of_the_epoch_stops_once_something_of_it_was_heard() -> None:
    found = room()
    approve(found)
    flying = forget(found)
    first = found.ends[EAST]
    found.settle(flying)
    second = Endpoint(Rejoiner(EAST), {HUB: POLICY})
    found.give(second, Rebuilt(spoke_epoch=2, contract=b"", streams=()))
    found.give(second, life(7))
    found.ends[EAST] = second
    found.settle(found.give(second, life(8)))
    assert "state_lost" in second.lives.stopped
    assert not first.lives.stopped


def test_a_process_that_dies_before_it_is_told_is_told_again() -> None:
    found = room()
    approve(found)
    for frame in forget(found):
        found.give(found.ends[HUB], frame)  # the answers are lost
    east = found.ends[EAST]
    found.settle(found.give(east, life(3)))
    assert not east.lives.lost
    assert not east.lives.stopped
    found.settle(found.say(east, HUB, 5))
    assert words(found.heard(HUB)) == [say(5)]


def answered_twice(found: Room) -> tuple[list[Envelope], list[Envelope]]:
    """Let the hub accept east in one life, and start again; return what each life says to it."""
    hub = found.ends[HUB]
    approve(found)
    asked = forget(found)
    first = [word for frame in asked for word in found.give(hub, frame)]
    for question in found.give(hub, life(20)):
        if question.receiver == EAST:
            assert found.give(found.ends[EAST], question) == []  # it knows nothing to answer by
    second = [word for frame in asked for word in found.give(hub, frame)]
    return first, second


@pytest.mark.parametrize("arrives", [True, False])
def test_a_hub_that_starts_again_while_its_word_is_on_the_way_is_followed(arrives: bool) -> None:
    """Whether or not anything arrives of what its later life says to who has come back already."""
    found = room()
    first, second = answered_twice(found)
    east, hub = found.ends[EAST], found.ends[HUB]
    accepted = [word for word in first if type(word.message) is RebuildAccepted]
    for word in (*accepted, *(second if arrives else ()), *accepted):
        found.give(east, word)
    assert not east.lives.lost
    found.settle([word for word in first if word not in accepted])
    assert east.inboxes[HUB, FAMILY].life.node_epoch == 2
    found.settle([*found.say(east, HUB, 3), *found.say(hub, EAST, 4)])
    found.settle([])
    assert words(found.heard(HUB)) == [say(3)]
    assert words(found.heard(EAST)) == [say(4)]


@pytest.mark.parametrize("arrived", [True, False])
def test_a_later_life_that_does_not_know_what_an_earlier_one_did_stops(arrived: bool) -> None:
    """Not of a frame that it has said, nor that it has acknowledged one."""
    found = room()
    first, second = answered_twice(found)
    east = found.ends[EAST]
    for word in first:
        found.give(east, word)
    inbox, outbox = east.inboxes[HUB, FAMILY], east.outboxes[HUB, FAMILY]
    if arrived:
        inbox.next_seq += 1
    else:
        outbox.acknowledge(outbox.head, Micros(0))
    found.settle(second)
    assert inbox.life.node_epoch == 1
    assert "state_lost" in found.ends[HUB].lives.stopped
