"""A peer that says two things at one place of a channel is found, whatever comes first."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.node import Hub
from lab.stack.journals import endpoint_of
from messaging.codec import encode_frame
from messaging.durable import Durable
from messaging.envelope import NO_HEIGHT, Envelope
from messaging.errors import FrameRefused
from messaging.fingerprint import fingerprint
from messaging.heard import Heard
from messaging.identity import NO_DIGEST, Link, Signer, Verifier, read_entry
from messaging.inbox import Inbox
from messaging.lineage import Place
from messaging.memory import MemoryStore
from messaging.messages import Family, HaltReason, SpokeHalted, Watermark
from messaging.node import Contradicted, TimerFired
from messaging.units import HUB, Micros, NodeId
from messaging.witness import REMEMBERED_MAX, Witness, proof
from spokes.node import Spoke
from tests.messaging.seals import DOMAIN, SIGNER
from tests.messaging.test_durable import small

BASE = NodeId("base")
VERIFIER = Verifier(DOMAIN, {BASE: SIGNER.public})


def frame(seq: int, time_us: int) -> Envelope:
    mark = Watermark(spoke_time_us=Micros(time_us), open_count=0)
    head = (BASE, HUB, Family.RESERVATION)
    return Envelope(*head, seq, 0, Micros(time_us), NO_HEIGHT, NO_HEIGHT, mark)


def chain(
    times_us: list[int], first: int = 1, before: bytes = NO_DIGEST
) -> list[tuple[Envelope, bytes, Link]]:
    """Return sealed frames that link up."""
    found = []
    for seq, time_us in enumerate(times_us, start=first):
        one = frame(seq, time_us)
        data, digest = SIGNER.seal(encode_frame(one), before)
        found.append((one, data, Link(before, digest)))
        before = digest
    return found


HONEST = chain([1, 2, 3, 4])
OTHER = chain([7, 8], first=3, before=HONEST[1][2].digest)  # another third and fourth frame


def test_a_fork_is_found_in_every_order_of_arrival() -> None:
    for order in permutations(range(6)):
        kept_of_a_fork(order)


def kept_of_a_fork(order: tuple[int, ...]) -> None:
    """Show both branches to a witness; what it keeps is one chain, and what not is proved."""
    witness, refused = Witness(), []
    frames = [*HONEST, *OTHER]
    for place in order:
        one, data, link = frames[place]
        other = witness.contradicts(one, link)
        if other is None:
            witness.note(one, link, place)
        else:
            refused.append(place)
            assert proof(Contradicted(BASE, frames[other][1], data), VERIFIER)
    assert refused
    kept = [frames[place] for place in order if place not in refused]
    seqs = sorted(one.seq for one, _, _ in kept)
    assert len(seqs) == len(set(seqs))
    for (one, _, link), (after, _, next_link) in zip(
        ordered := sorted(kept, key=lambda found: found[0].seq), ordered[1:], strict=False
    ):
        assert after.seq != one.seq + 1 or next_link.before == link.digest


@given(st.permutations(range(8)), st.lists(st.integers(0, 7), max_size=8))
def test_an_honest_peer_contradicts_nothing(order: list[int], again: list[int]) -> None:
    witness, frames = Witness(), chain(list(range(8)))
    for place in [*order, *again]:
        one, _, link = frames[place]
        assert witness.contradicts(one, link) is None
        witness.note(one, link, place)


def test_whether_a_frame_contradicts_others_is_asked_without_a_trace() -> None:
    """A fold does not ask, so what it makes must not depend on it (INV11)."""
    inbox, heard = Inbox(), Heard()
    for place, (one, _, link) in enumerate(HONEST, start=1):
        heard.note(one, link, inbox, place)
    inbox.keys.rotate(Place(1, 2), bytes(32))
    before = fingerprint(heard)
    for one, _, link in (OTHER[0], HONEST[3]):
        heard.contradicts(one, link, inbox)
    assert fingerprint(heard) == before


def test_a_witness_remembers_the_newest() -> None:
    witness = Witness()
    frames = chain(list(range(REMEMBERED_MAX + 10)))
    for place, (one, _, link) in enumerate(frames):
        witness.note(one, link, place)
    forked = Link(NO_DIGEST, bytes(32))
    assert witness.contradicts(frames[5][0], forked) is None
    assert witness.contradicts(frames[-5][0], forked) == len(frames) - 5


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (HONEST[0][1], HONEST[0][1], "the same frame"),
        (HONEST[0][1], HONEST[1][1], "follows"),
        (HONEST[0][1], HONEST[2][1], "neighbours"),
        (HONEST[0][1], HONEST[1][1][:-1] + b"x", "signature"),
        (b"", HONEST[0][1], "sealed frame"),
    ],
)
def test_what_proves_nothing_is_refused(first: bytes, second: bytes, said: str) -> None:
    with pytest.raises(FrameRefused, match=said):
        proof(Contradicted(BASE, first, second), VERIFIER)


def node(name: NodeId, store: MemoryStore) -> Durable:
    return Durable(endpoint_of(small(), name), store, Signer(bytes(16), bytes(32)))


@pytest.mark.parametrize("committed", [True, False])
def test_the_hub_halts_a_spoke_that_says_two_things_and_keeps_both(committed: bool) -> None:
    store = MemoryStore()
    hub = node(HUB, store)
    for at, (one, data, link) in enumerate(HONEST, start=1):
        hub.take(Micros(at), one, data, link)
    if committed:
        hub.commit({}, 0)
    for at, (one, data, link) in enumerate(OTHER, start=8):
        hub.take(Micros(at), one, data, link)
    rows = hub.commit({}, 0)

    core = hub.endpoint.node
    assert isinstance(core, Hub)
    assert core.state.zone_of[BASE].halted is HaltReason.EQUIVOCATED
    told = [one.decode(errors="ignore") for one in (row.data for row in rows)]
    assert any(SpokeHalted.__struct_config__.tag in line for line in told)  # type: ignore[operator]
    events = [read_entry(entry.event)[0] for entry in store.entries()]
    assert [event for event in events if not isinstance(event, Envelope | TimerFired)] == [
        Contradicted(BASE, HONEST[2][1], OTHER[0][1])
    ]
    assert node(HUB, store).fingerprint() == hub.fingerprint()


def test_a_spoke_opens_nothing_for_a_hub_that_says_two_things() -> None:
    store = MemoryStore()
    spoke = node(BASE, store)
    spoke.endpoint.handle(Micros(1), Contradicted(HUB, b"one", b"another"))
    core = spoke.endpoint.node
    assert isinstance(core, Spoke)
    assert core.state.doubts
