"""A node goes over to a new key: which frames count under which, whatever the network does."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.monitor.books import Books
from lab.monitor.reader import Reader
from lab.stack.journals import endpoint_of
from messaging.codec import decode_frame, encode_frame
from messaging.drivers.intake import Stream
from messaging.durable import Durable
from messaging.effects import Effect, Send
from messaging.endpoint import Endpoint
from messaging.envelope import NO_HEIGHT, Envelope
from messaging.errors import FrameRefused, InputRefused
from messaging.identity import NO_DIGEST, Link, Opened, Retired, Sealed, Signer, Verifier
from messaging.key_files import add_key, read_later_signers, read_signer, write_keys
from messaging.lineage import Place
from messaging.link_control import KeyRotated
from messaging.memory import MemoryStore
from messaging.messages import CHANNEL_FAMILIES, Family, HaltReason, OrderPlaced, Watermark
from messaging.node import Contradicted, Event
from messaging.operator_orders import OperatorOrdered, PeerNamed, Verb
from messaging.outbox import Outbox
from messaging.store import Row
from messaging.topics import channel_topic, routes, topic_of
from messaging.units import (
    HUB,
    OPERATORS,
    TRADERS,
    AccountId,
    Asset,
    Height,
    Micros,
    NodeId,
    Ppm,
    Qty8,
)
from messaging.witness import proof
from tests.lab.test_monitor_books import TERMS
from tests.messaging.seals import DOMAIN
from tests.messaging.test_durable import small
from tests.messaging.test_endpoint import BASE, POLICY
from tests.messaging.test_intake import STILL, record

OLD, NEW, HUB_OLD, HUB_NEW = (Signer(DOMAIN, bytes([n]) * 32) for n in range(4))
THIEF = OLD
PUBLIC = {BASE: OLD.public, HUB: HUB_OLD.public}
FAMILY = Family.RESERVATION
TOPIC = channel_topic(BASE, HUB, FAMILY)
sealed_of = msgspec.msgpack.Decoder(Sealed).decode


def mark(number: int) -> Watermark:
    return Watermark(spoke_time_us=Micros(number), open_count=0)


class Speaker:
    """Says a watermark for each order, and remembers those it hears."""

    def __init__(self, name: NodeId, to: NodeId) -> None:
        self.name = name
        self.to = to
        self.heard: list[int] = []

    def start(self) -> Sequence[Effect]:
        return ()

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        if isinstance(event, Envelope) and isinstance(event.message, Watermark):
            self.heard.append(event.message.spoke_time_us)
        if isinstance(event, Envelope) and isinstance(event.message, OrderPlaced):
            return (Send(self.to, FAMILY, mark(event.message.order_id)),)
        return ()


class Node:
    """A durable node with a network of its own hand."""

    def __init__(self, name: NodeId, to: NodeId, signer: Signer) -> None:
        self.name, self.to, self.signer = name, to, signer
        self.later: list[Signer] = []
        self.store = MemoryStore()
        self.now_us = Micros(0)
        self.lives = self.said = 0
        self.sent: list[Row] = []
        self.start()

    def start(self) -> None:
        endpoint = Endpoint(Speaker(self.name, self.to), {self.to: POLICY})
        self.durable = Durable(endpoint, self.store, self.signer, later=self.later)
        known = self.durable.later_keys()
        self.verifier = Verifier(DOMAIN, PUBLIC).knowing(known)

    def restart(self) -> None:
        self.start()
        self.lives += 1
        self.durable.restart(self.tick(), bytes(7) + bytes([self.lives]))
        self.durable.rotate(self.now_us)
        self.commit()

    def tick(self, by_us: int = 1) -> Micros:
        self.now_us = Micros(self.now_us + by_us)
        return self.now_us

    def say(self, number: int) -> None:
        """Let the node say a number: as a trader's order, so that it is in the journal."""
        order = OrderPlaced(
            order_id=number,
            account=AccountId("a"),
            asset=Asset("BTC"),
            qty8=Qty8(1),
            close_ppm=Ppm(0),
        )
        heights = (Height(0), Height(0))
        self.said += 1
        names = (TRADERS, self.name, Family.ORDER)
        frame = Envelope(*names, self.said, 0, Micros(0), *heights, order)
        data, digest = OLD.seal(encode_frame(frame), NO_DIGEST)
        self.durable.take(self.tick(), frame, data, Link(NO_DIGEST, digest))
        self.commit()

    def wait(self) -> None:
        """Let all timers fire that are due within a minute."""
        until_us = self.now_us + 200_000
        while (timer := self.durable.next_timer()) is not None and timer[0] <= until_us:
            self.now_us = Micros(max(self.now_us, timer[0]))
            self.durable.fire(self.now_us, timer[2])
            self.commit()

    def commit(self) -> None:
        self.sent += self.durable.commit({}, 0)

    def leave(self) -> list[bytes]:
        """Return what has left, in order."""
        rows, self.sent = self.sent, []
        return [row.data for row in rows if not row.topic.startswith("dlq")]

    def hear(self, data: bytes) -> str:
        """Take bytes as the drivers do; return why they are refused, if they are."""
        try:
            sealed, link = self.verifier.open_linked(data, self.to)
            frame = decode_frame(sealed.frame)
            self.durable.admit(frame, link)
            if type(frame.message) is KeyRotated:
                self.verifier.learn(frame, frame.message)
        except FrameRefused as error:
            return str(error)
        self.durable.take(self.tick(), frame, data, link)
        self.commit()
        return ""

    @property
    def heard(self) -> list[int]:
        node = self.durable.endpoint.node
        assert isinstance(node, Speaker)
        return node.heard


class Pair:
    """A spoke and a hub."""

    def __init__(self) -> None:
        self.base, self.hub = Node(BASE, HUB, OLD), Node(HUB, BASE, HUB_OLD)

    def talk(self, rounds: int = 6) -> None:
        """Let all arrive, and what follows from it, for some rounds of patience."""
        for _ in range(rounds):
            for one, other in ((self.base, self.hub), (self.hub, self.base)):
                for data in one.leave():
                    other.hear(data)
            self.base.wait()
            self.hub.wait()

    def rotated(self) -> None:
        """Give the spoke a new key; let the hub agree to its new life, and hear no more."""
        self.base.later.append(NEW)
        self.base.restart()
        for data in self.base.leave():
            self.hub.hear(data)
        for data in self.hub.leave():
            self.base.hear(data)


def forged(data: bytes, signer: Signer, number: int) -> bytes:
    """Return a frame of the same place with another word, under some key."""
    sealed = sealed_of(data)
    frame = decode_frame(sealed.frame)
    worse = msgspec.structs.replace(frame, message=mark(number))
    return signer.seal(encode_frame(worse), sealed.before)[0]


def in_row(frames: Sequence[bytes]) -> list[bytes]:
    """Return those of one channel that have a number, in its order."""
    rows = [(decode_frame(sealed_of(data).frame), data) for data in frames]
    found = {frame.seq: data for frame, data in rows if frame.seq and topic_of(frame) == TOPIC}
    return [found[seq] for seq in sorted(found)]


# --- what counts ------------------------------------------------------------------------


def test_below_the_frame_only_the_old_key_counts_and_behind_it_only_the_new_one() -> None:
    pair = Pair()
    pair.base.say(1)
    pair.talk(2)
    pair.rotated()
    pair.base.say(2)
    row = in_row(pair.base.leave())
    assert [sealed_of(data).key for data in row] == [
        sealed_of(OLD.seal(b"", NO_DIGEST)[0]).key,
        sealed_of(NEW.seal(b"", NO_DIGEST)[0]).key,
    ]
    turn, behind = row

    assert "expected the key of base" in pair.hub.hear(behind)  # not known yet: it comes again
    assert not pair.hub.hear(turn)
    assert "expected no old key" in pair.hub.hear(forged(behind, THIEF, 666))
    assert not pair.hub.hear(behind)
    assert pair.hub.heard == [1, 2]


def test_what_came_under_the_old_key_ahead_of_the_new_one_never_counts() -> None:
    pair = Pair()
    pair.rotated()
    for number in (1, 2):
        pair.base.say(number)
    turn, one, two = in_row(pair.base.leave())

    assert not pair.hub.hear(forged(two, THIEF, 666))  # who has the only key known is the node
    assert not pair.hub.hear(turn)
    assert not pair.hub.hear(one)
    assert pair.hub.heard == [1]
    assert not pair.hub.hear(two)
    assert pair.hub.heard == [1, 2]
    assert not pair.hub.durable._memory.heard.accused  # the thief has convicted nobody


def test_an_old_key_begins_no_version_and_convicts_nobody() -> None:
    pair = Pair()
    pair.base.say(1)
    first = in_row(pair.base.leave())[0]
    pair.hub.hear(first)
    pair.rotated()
    pair.talk()

    frame = decode_frame(sealed_of(first).frame)
    later = msgspec.structs.replace(frame, chan_epoch=2)
    assert "no old key" in pair.hub.hear(THIEF.seal(encode_frame(later), NO_DIGEST)[0])
    assert not pair.hub.hear(forged(first, THIEF, 666))  # a repeat, for all that it says
    assert pair.hub.heard == [1]
    assert not pair.hub.durable._memory.heard.accused


def test_frames_outside_the_row_follow_the_newest_key_that_the_other_end_knows() -> None:
    pair = Pair()
    pair.rotated()
    pair.talk()
    for number in range(3):
        pair.base.say(number)
    pair.talk()
    assert pair.hub.heard == [0, 1, 2]
    outbox = pair.base.durable.endpoint.outboxes[HUB, FAMILY]
    assert outbox.keys_at(Place(1, 0)) == [NEW.public]
    assert not outbox.unacked


def test_new_keys_on_both_sides_at_once_come_into_force_though_no_word_of_it_comes_back() -> None:
    pair = Pair()
    pair.base.later.append(NEW)
    pair.hub.later.append(HUB_NEW)
    pair.base.restart()
    pair.hub.restart()
    for _ in range(4):  # both agree to the other's life and hear of its key; all else is lost
        for one, other in ((pair.base, pair.hub), (pair.hub, pair.base)):
            for data in one.leave():
                if decode_frame(sealed_of(data).frame).ack_seq == 0:
                    other.hear(data)
        pair.base.wait()
        pair.hub.wait()
    for node in (pair.base, pair.hub):
        node.restart()
        node.leave()
    pair.talk(20)
    for node in (pair.base, pair.hub):
        assert not node.durable.endpoint.lives.unsynced
        assert not any(one.unacked for one in node.durable.endpoint.outboxes.values())


# --- proofs -----------------------------------------------------------------------------


def turn_of(public: bytes, proof_: bytes, effective_seq: int = 2) -> bytes:
    word = KeyRotated(public_key=public, effective_seq=effective_seq, proof=proof_)
    frame = Envelope(BASE, HUB, FAMILY, 1, 0, Micros(0), Height(0), Height(0), word)
    return OLD.seal(encode_frame(frame), NO_DIGEST)[0]


@pytest.mark.parametrize("spoilt", ["key", "family", "epoch", "seq", "domain", "effective"])
def test_a_proof_is_for_one_place_of_one_channel_of_one_deployment(spoilt: str) -> None:
    hub = Node(HUB, BASE, HUB_OLD)
    endpoint = Endpoint(Speaker(BASE, HUB), {HUB: POLICY})
    outbox = endpoint.outboxes[HUB, FAMILY]
    outbox.chan_epoch += spoilt == "epoch"
    outbox.next_seq += spoilt == "seq"
    domain = bytes(16) if spoilt == "domain" else DOMAIN
    wrong = CHANNEL_FAMILIES.index(FAMILY) - (spoilt == "family")
    signature = NEW.vouch(endpoint.claims(domain, NEW.public)[wrong])
    public = HUB_NEW.public if spoilt == "key" else NEW.public
    said = hub.hear(turn_of(public, signature, 3 if spoilt == "effective" else 2))
    assert "expected effective number" in said or "expected a proof by the new key" in said
    assert hub.durable.endpoint.inboxes[BASE, FAMILY].next_seq == 1


def test_an_old_key_vouches_for_nothing_under_a_new_one() -> None:
    """A link under a stolen key would else bring in frames that the new key has never signed."""
    verifier = Verifier(DOMAIN, PUBLIC).knowing([(BASE, NEW.public)])
    sealed, digest = NEW.seal(b"forged", NO_DIGEST)
    unsigned = msgspec.msgpack.encode(
        msgspec.structs.replace(sealed_of(sealed), signature=bytes(64))
    )
    stolen, _ = THIEF.seal(b"next", digest)
    vouched: dict[bytes, bytes] = {}

    for row in ([unsigned, stolen], [stolen, unsigned]):
        found = [isinstance(one, Opened) for one in verifier.open_row(row, BASE, {})]
        assert found == [data is stolen for data in row]
    verifier.open_row([stolen], BASE, vouched)
    assert isinstance(verifier.open_row([unsigned], BASE, vouched)[0], FrameRefused)


def test_a_later_key_is_one_nodes_alone() -> None:
    verifier = Verifier(DOMAIN, PUBLIC).knowing([(BASE, NEW.public)])
    sealed, _ = NEW.seal(b"said", NO_DIGEST)

    assert isinstance(verifier.open_row([sealed], BASE, {})[0], Opened)
    assert isinstance(verifier.open_row([sealed], HUB, {})[0], FrameRefused)


def test_two_frames_of_one_place_convict_under_the_key_in_force_there_alone() -> None:
    pair = Pair()
    pair.rotated()
    pair.base.say(1)
    turn, behind = in_row(pair.base.leave())
    pair.hub.hear(turn)
    keys = pair.hub.durable.endpoint.inboxes[BASE, FAMILY].keys
    verifier = pair.hub.verifier
    lie, stolen = forged(behind, NEW, 2), forged(behind, THIEF, 3)

    assert "two frames" in proof(Contradicted(BASE, behind, lie), verifier, keys)
    for first, second in ((behind, stolen), (stolen, forged(behind, THIEF, 4))):
        with pytest.raises(FrameRefused, match="expected the key in force"):
            proof(Contradicted(BASE, first, second), verifier, keys)
    pair.hub.hear(behind)
    pair.hub.hear(lie)
    assert pair.hub.durable._memory.heard.accused == {BASE: None}


# --- crashes ----------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(said=st.integers(0, 4), kept=st.booleans(), again=st.booleans())
def test_a_crash_ends_before_the_change_or_behind_it(said: int, kept: bool, again: bool) -> None:
    """Key stored and nothing committed: the old key is in force; committed: the new one is."""
    pair = Pair()
    for number in range(said):
        pair.base.say(number)
    pair.base.later.append(NEW)
    before = pair.base.store.copy()
    pair.base.restart()
    expected = pair.base.durable.fingerprint()
    if not kept:
        pair.base.store = before
        pair.base.sent.clear()  # nothing leaves before its commit
        pair.base.start()
        assert not pair.base.durable.endpoint.rekeyed
        pair.base.restart()
    else:
        pair.base.start()
        assert pair.base.durable.fingerprint() == expected
    if again:
        pair.base.restart()
    keys = pair.base.durable.endpoint.outboxes[HUB, FAMILY].keys
    assert keys.later == [NEW.public]  # once, however often it dies
    pair.talk(10)
    pair.base.say(99)
    pair.talk()
    assert pair.hub.heard[-1] == 99


def test_the_old_private_key_may_go_once_all_is_acknowledged_and_the_new_one_never() -> None:
    pair = Pair()
    pair.base.say(1)
    pair.rotated()
    pair.talk()
    expected = pair.base.durable.fingerprint()

    pair.base.signer = Retired(DOMAIN, OLD.public)
    pair.base.start()
    assert pair.base.durable.fingerprint() == expected
    pair.base.restart()
    pair.talk()
    pair.base.say(2)
    pair.talk()
    assert pair.hub.heard == [1, 2]

    pair.base.signer, pair.base.later = OLD, []
    with pytest.raises(InputRefused, match="expected its private half"):
        pair.base.restart()


def test_no_reorganisation_takes_a_new_key_back() -> None:
    outbox = Outbox()

    def tell(height: int) -> None:
        word = mark(0)
        where = (outbox.next_seq, 0, Micros(0), Height(height), Height(0))
        outbox.keep(Envelope(BASE, HUB, FAMILY, *where, word), Micros(0))

    for height in (1, 2, 3, 0):
        tell(height)
    outbox.rotate(NEW.public)
    tell(4)
    outbox.fork(Height(1))
    assert (outbox.chan_epoch, outbox.next_seq) == (2, 5)
    assert list(outbox.unacked) == [1, 2, 3, 4]
    assert outbox.keys.at(Place(2, 5)) == NEW.public


# --- revocation -------------------------------------------------------------------------


def test_a_revoked_key_halts_the_spoke_and_is_heard_no_more_also_after_a_restart() -> None:
    store = MemoryStore()
    signer = Signer(DOMAIN, bytes(32))
    hub = Durable(endpoint_of(small(), HUB), store, signer)
    order = OperatorOrdered(
        order_id=bytes(8), verb=Verb.REVOKE, target=PeerNamed(peer=BASE), reason="a test"
    )
    for operator in OPERATORS[:2]:
        assert not hub.endpoint.orders.ended, "one is not enough"
        head = (operator, HUB, Family.CONTROL, 0, 0, Micros(5), NO_HEIGHT, NO_HEIGHT)
        data, digest = OLD.seal(encode_frame(Envelope(*head, order)), NO_DIGEST)
        hub.take(Micros(5), Envelope(*head, order), data, Link(NO_DIGEST, digest))
    rows = hub.commit({}, 0)
    halts = [decode_frame(sealed_of(row.data).frame).message for row in rows]
    assert [getattr(one, "reason", None) for one in halts] == [HaltReason.KEY_REVOKED]

    route = next(one for one in routes((BASE,)) if one.topic == TOPIC)
    frame = Envelope(*route[1:4], 1, 0, *[Micros(0)] * 3, mark(1))  # type: ignore[call-arg, arg-type, misc]
    _, link = Verifier(DOMAIN, {BASE: OLD.public}).open_linked(
        OLD.seal(encode_frame(frame), NO_DIGEST)[0], BASE
    )
    for durable in (hub, Durable(endpoint_of(small(), HUB), store, signer)):
        with pytest.raises(FrameRefused, match="found it revoked"):
            durable.admit(frame, link)
        zone = durable.endpoint.node.state.zone_of[BASE]  # type: ignore[attr-defined]
        assert zone.halted is HaltReason.KEY_REVOKED


# --- files ------------------------------------------------------------------------------


def test_new_keys_lie_beside_the_old_one_for_their_owner_only(tmp_path: Path) -> None:
    write_keys(tmp_path, [BASE])
    assert read_later_signers(tmp_path, BASE, DOMAIN) == []
    paths = [add_key(tmp_path, BASE) for _ in range(2)]
    assert [path.name for path in paths] == ["base.key.2", "base.key.3"]
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}
    later = read_later_signers(tmp_path, BASE, DOMAIN)
    first = read_signer(tmp_path, BASE, DOMAIN)
    assert len({first.public, *(one.public for one in later)}) == 3

    (tmp_path / "base.key").unlink()
    gone = read_signer(tmp_path, BASE, DOMAIN)
    assert gone.public == first.public
    with pytest.raises(InputRefused, match="expected its private half"):
        gone.seal(b"", NO_DIGEST)
    with pytest.raises(InputRefused, match="expected keys of moon"):
        add_key(tmp_path, NodeId("moon"))
    paths[0].chmod(0o644)
    with pytest.raises(InputRefused, match="expected mode 0600"):
        read_later_signers(tmp_path, BASE, DOMAIN)


# --- readers of many --------------------------------------------------------------------


def rotating_row() -> list[bytes]:
    """Return a channel's row: a number, the change of keys, two numbers more."""
    pair = Pair()
    pair.base.say(1)
    row = in_row(pair.base.leave())
    pair.hub.hear(row[0])
    pair.rotated()
    pair.base.say(2)
    pair.base.say(3)
    return row + [data for data in in_row(pair.base.leave()) if data not in row]


def test_frames_fetched_with_the_change_of_keys_before_them_are_known_at_once() -> None:
    row = rotating_row()
    assert len(row) == 4
    route = next(one for one in routes((BASE,)) if one.topic == TOPIC)
    records = [record(route, offset, data) for offset, data in enumerate(row)]
    stream, verifier = Stream(route, 0), Verifier(DOMAIN, PUBLIC)

    found = list(stream.check(records, verifier, 0, STILL))

    assert [one.frame is not None for one in found] == [True] * 4
    assert [one.link.key for one in found if one.link] == [b"", b"", NEW.public, NEW.public]
    unknown = list(Stream(route, 0).check(records[2:], Verifier(DOMAIN, PUBLIC), 0, STILL))
    assert [one.frame for one in unknown] == [None, None]


def test_the_monitor_reads_on_under_the_new_key() -> None:
    reader = Reader(Books(TERMS), Verifier(DOMAIN, PUBLIC))
    reader.read(TOPIC, [(place, data, ()) for place, data in enumerate(rotating_row())])
    assert (reader.frames, dict(reader.refused), reader.books.refused) == (4, {}, 0)
