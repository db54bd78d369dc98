"""A chain takes blocks back: both ends of a channel agree on what stands, whatever the network."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messaging.drivers.virtual import VirtualDriver
from messaging.durable import Durable
from messaging.effects import Effect, Forked, Send, SetTimer
from messaging.endpoint import TEND, Endpoint
from messaging.envelope import Envelope
from messaging.identity import NO_DIGEST, Link, Signer, Verifier
from messaging.inbox import Inbox
from messaging.lineage import Lineage, Place
from messaging.memory import MemoryStore
from messaging.messages import CHANNEL_FAMILIES, ChainReorganised, Family, Watermark
from messaging.node import Event, Restarted, TimerFired
from messaging.outbox import Outbox
from messaging.units import HUB, Height, Micros
from messaging.witness import Witness
from tests.messaging.seals import DOMAIN, SIGNER
from tests.messaging.test_endpoint import BASE, POLICY, Faults

TALK = "talk"
STEP_US = 3_000
FINAL_BEHIND = 6  # blocks


class Teller:
    """Tells one fact a block on each family; some blocks are lost, and facts are told anew.

    Attributes:
        depths: of the reorganisation before each block; 0 for none.
        told: what stands, by family: (height, number of the fact).
    """

    def __init__(self, depths: Sequence[int]) -> None:
        self.name = BASE
        self.depths = depths
        self.height = 0
        self.facts = 0
        self.told: list[tuple[int, int]] = []

    def start(self) -> Sequence[Effect]:
        return (SetTimer(TALK, Micros(0)),)

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        if not isinstance(event, TimerFired) or self.height == len(self.depths):
            return ()
        effects: list[Effect] = []
        depth = min(self.depths[self.height], self.height, FINAL_BEHIND)
        if depth:
            fork = self.height - depth
            self.told = [fact for fact in self.told if fact[0] <= fork]
            final = max(0, self.height - FINAL_BEHIND)
            effects.append(Forked(HUB, Height(fork), Height(self.height), Height(final)))
        self.height += 1
        effects += [self._tell(self.height) for _ in range(1 + depth)]
        effects = [one for each in effects for one in (each if isinstance(each, list) else [each])]
        return [*effects, SetTimer(TALK, Micros(now_us + STEP_US))]

    def _tell(self, height: int) -> list[Effect]:
        self.facts += 1
        self.told.append((height, self.facts))
        word = Watermark(spoke_time_us=Micros(self.facts), open_count=0)
        final = max(0, height - FINAL_BEHIND)
        return [
            Send(HUB, family, word, Height(height), Height(final)) for family in CHANNEL_FAMILIES
        ]


class Hearer:
    """Keeps what stands of what it hears, by the heights of frames alone."""

    def __init__(self) -> None:
        self.name = HUB
        self.heard: dict[Family, list[tuple[int, int]]] = {f: [] for f in CHANNEL_FAMILIES}
        self.forks = 0

    def start(self) -> Sequence[Effect]:
        return ()

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        if not isinstance(event, Envelope):
            return ()
        heard, message = self.heard[event.family], event.message
        if isinstance(message, ChainReorganised):
            self.forks += 1
            self.heard[event.family] = [one for one in heard if one[0] <= message.fork_height]
        else:
            assert isinstance(message, Watermark)
            heard.append((event.height, message.spoke_time_us))
        return ()


def ends(depths: Sequence[int]) -> tuple[Teller, Hearer, list[Endpoint]]:
    teller, hearer = Teller(depths), Hearer()
    return teller, hearer, [Endpoint(hearer, {BASE: POLICY}), Endpoint(teller, {HUB: POLICY})]


fates = st.lists(st.lists(st.integers(0, 120_000), max_size=3), max_size=150)
plans = st.lists(st.sampled_from([0, 0, 0, 1, 2, 3, 6]), min_size=1, max_size=25)


@settings(max_examples=200, deadline=None)
@given(fates=fates, depths=plans)
def test_in_the_end_both_sides_know_the_same_facts(
    fates: list[list[int]], depths: list[int]
) -> None:
    teller, hearer, both = ends(depths)
    driver = VirtualDriver(both, Faults(fates), until_us=Micros(10**15), events_max=20_000)
    list(driver.run())

    for family in CHANNEL_FAMILIES:
        assert hearer.heard[family] == teller.told
    for end in both:
        for outbox, inbox in zip(end.outboxes.values(), end.inboxes.values(), strict=True):
            assert not outbox.unacked
            assert not inbox.parked
            assert not inbox.newer


@settings(max_examples=100, deadline=None)
@given(depths=plans, stop=st.integers(0, 24), data=st.data())
def test_seals_link_along_what_stands_also_after_a_restart(
    depths: list[int], stop: int, data: st.DataObject
) -> None:
    store, frames, witness = MemoryStore(), [], Witness()
    node = Durable(ends(depths)[2][1], store, SIGNER)
    verifier = Verifier(DOMAIN, {BASE: SIGNER.public})
    for step in range(len(depths)):
        now_us = Micros(STEP_US * step)
        if step == stop:
            node = Durable(ends(depths)[2][1], store, SIGNER)
        node.fire(now_us, TALK)
        node.commit({}, 0)
    lineage: dict[str, Lineage] = {}
    digests: dict[tuple[str, Place], bytes] = {}
    for row in store.rows():
        if row.seq == 0 or not row.topic.endswith("reservation"):
            continue
        sealed = verifier.open(row.data, BASE)
        frame = msgspec.msgpack.decode(sealed.frame, type=Envelope)
        place = Place(frame.chan_epoch, frame.seq)
        known = lineage.setdefault(row.topic, Lineage())
        if isinstance(frame.message, ChainReorganised):
            assert frame.message.base_epoch == known.epoch_of(frame.seq - 1)
            known.fork(place)
        before = Place(known.epoch_of(frame.seq - 1), frame.seq - 1)
        assert sealed.before == (digests[row.topic, before] if before.seq else NO_DIGEST)
        digests[row.topic, place] = sealed.digest()
        frames.append((frame, Link(sealed.before, sealed.digest())))
    for number, (frame, link) in enumerate(data.draw(st.permutations(frames))):
        assert witness.contradicts(frame, link) is None
        witness.note(frame, link, number)


def test_a_row_sent_again_after_a_restart_is_the_one_that_stands() -> None:
    depths, store = [0, 0, 0, 0, 2, 0], MemoryStore()
    signer = Signer(DOMAIN, bytes(32))
    node = Durable(ends(depths)[2][1], store, signer)
    for step in range(6):
        node.fire(Micros(STEP_US * step), TALK)
    rows = node.commit({}, 0)
    node = Durable(ends(depths)[2][1], store, signer)
    node.fire(Micros(10**9), TEND)
    again = node.commit({}, 0)

    newest = {(row.topic, row.seq): row.data for row in rows}
    outbox = node.endpoint.outboxes[HUB, Family.RESERVATION]
    assert [row.data for row in again if row.topic.endswith("reservation")] == [
        newest["from-base.reservation", seq] for seq in outbox.unacked
    ]


def test_a_frame_of_an_earlier_version_has_no_effect() -> None:
    """The number is the next one, but the version is over (INV13)."""
    teller = Endpoint(Teller([0, 0, 0, 0, 3]), {HUB: POLICY})
    frames: list[Envelope] = []
    for step in range(5):
        out = teller.handle(Micros(step), TimerFired(TALK))
        frames += [one for one in out if isinstance(one, Envelope)]
    row = [one for one in frames if one.family is Family.RESERVATION]
    old, new = row[:4], row[4:]
    inbox = Inbox()
    for one in [*old[:3], new[0]]:
        inbox.receive(one, Micros(9))

    assert inbox.cursor == Place(2, 2)
    assert inbox.receive(old[2], Micros(9)) == []
    assert inbox.cursor == Place(2, 2)
    assert inbox.dead == 1
    assert inbox.receive(new[1], Micros(9)) == [new[1]]


def test_an_acknowledgement_of_an_earlier_version_counts_as_far_as_it_stands() -> None:
    outbox = Outbox()
    for seq in range(1, 11):
        mark = Watermark(spoke_time_us=Micros(seq), open_count=0)
        head = (BASE, HUB, Family.RESERVATION, seq, 0, Micros(0))
        outbox.keep(Envelope(*head, Height(seq), Height(max(0, seq - 8)), mark), Micros(0))
    assert outbox.fork(Height(6)) == 1
    assert (outbox.next_seq, outbox.chan_epoch, outbox.firm_seq) == (7, 2, 2)
    outbox.acknowledge(Place(1, 9), Micros(1))

    assert list(outbox.unacked) == []
    assert outbox.fork(Height(4)) == 1
    assert outbox.next_seq == 5


def test_what_a_restarted_node_holds_back_may_be_lost_before_it_leaves() -> None:
    end = Endpoint(Teller([0, 0, 0, 0, 2, 0]), {HUB: POLICY})
    for step in range(3):
        end.handle(Micros(step), TimerFired(TALK))
    end.handle(Micros(10), Restarted(b"eightbyt"))
    for step in range(3):
        out = end.handle(Micros(20 + step), TimerFired(TALK))
        assert not [one for one in out if isinstance(one, Envelope)]
    outbox = end.outboxes[HUB, Family.RESERVATION]

    assert outbox.head == Place(1, 3), "what may have left, not what is held"
    left = outbox.let_go(Micros(30), 2)
    assert [(one.chan_epoch, one.seq) for one in left] == [(2, seq) for seq in range(3, 8)]
    assert isinstance(left[0].message, ChainReorganised)


@pytest.mark.parametrize(
    ("forks", "found"),
    [
        ([(2, 5)], {4: 1, 5: 2, 9: 2}),
        ([(2, 5), (3, 7)], {4: 1, 6: 2, 7: 3}),
        ([(2, 5), (3, 3)], {2: 1, 3: 3, 9: 3}),
    ],
)
def test_a_number_belongs_to_the_last_version_that_began_at_or_below_it(
    forks: list[tuple[int, int]], found: dict[int, int]
) -> None:
    lineage = Lineage()
    for epoch, seq in forks:
        lineage.fork(Place(epoch, seq))
    assert {seq: lineage.epoch_of(seq) for seq in found} == found


def test_rows_of_other_versions_share_what_was_before_the_fork() -> None:
    lineage = Lineage()
    lineage.fork(Place(2, 5))
    lineage.fork(Place(4, 8))  # version 3 began at or behind 8, and was taken back whole
    found = [lineage.common_seq(Place(epoch, 9)) for epoch in (1, 2, 3, 4)]
    assert found == [4, 7, 7, 9]
