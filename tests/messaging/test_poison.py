"""What is signed and cannot be read stops its channel, and only people end that (P69, P70)."""

from collections.abc import Sequence

import pytest

from hub.node import Hub
from lab.stack.journals import endpoint_of
from messaging.codec import encode_frame
from messaging.durable import Durable
from messaging.envelope import NO_HEIGHT, Envelope
from messaging.errors import FrameRefused
from messaging.identity import NO_DIGEST, Link, Sealed, Signer, read_sealed
from messaging.link_control import Acknowledged, ResyncAnswer, ResyncAsked
from messaging.memory import MemoryStore
from messaging.messages import Family, MarginSet, MarginStatus, Message, Watermark
from messaging.operator_orders import FrameNamed, OperatorOrdered, Target, Verb
from messaging.poison import FramePoisoned, poison_of, read_frame
from messaging.topics import Route, order_route, routes
from messaging.units import HUB, OPERATORS, Micros, NodeId
from tests.messaging.seals import DOMAIN, SIGNER
from tests.messaging.test_durable import small

BASE = NodeId("base")
ROUTE = next(one for one in routes([BASE]) if one.topic == "from-base.reservation")
KEY = (BASE, Family.RESERVATION)


def mark(time_us: int) -> Watermark:
    return Watermark(spoke_time_us=Micros(time_us), open_count=0)


def seal(seq: int, message: Message, before: bytes = NO_DIGEST) -> tuple[bytes, bytes]:
    frame = Envelope(
        BASE, HUB, Family.RESERVATION, seq, 0, Micros(1), NO_HEIGHT, NO_HEIGHT, message
    )
    return SIGNER.seal(encode_frame(frame), before)


class Node:
    """The hub on a store, with code that cannot read some frames of base."""

    def __init__(self, unread: Sequence[int] = ()) -> None:
        self.unread = {*unread}
        self.store = MemoryStore()
        self.durable = self.fold()
        self.now = 0
        self.orders = 0
        self.sealed: list[bytes] = []
        before = NO_DIGEST
        for seq in range(1, 7):
            data, before = seal(seq, mark(seq), before)
            self.sealed.append(data)

    def fold(self) -> Durable:
        signer = Signer(DOMAIN, bytes([1] * 32))
        return Durable(endpoint_of(small(), HUB), self.store, signer, read=self.read)

    def read(self, sealed: Sealed, data: bytes, route: Route) -> Envelope:
        frame = read_frame(sealed, data, route)
        if frame.seq in self.unread:
            raise poison_of(frame, data, "expected what this code knows, found something else")
        return frame

    def hear(self, *seqs: int) -> None:
        for seq in seqs:
            self.now += 1
            data = self.sealed[seq - 1]
            sealed = read_sealed(data)
            try:
                frame = self.read(sealed, data, ROUTE)
            except FramePoisoned as poison:
                self.durable.poison(Micros(self.now), poison.event, sealed.link())
            else:
                self.durable.take(Micros(self.now), frame, data, sealed.link())

    def order(self, verb: Verb, seq: int, *givers: NodeId, family: str = "reservation") -> str:
        """Give an order; return why it was refused, "waits", or nothing."""
        target: Target = FrameNamed(peer=BASE, family=Family(family), seq=seq)
        self.orders += 1
        order = OperatorOrdered(
            order_id=self.orders.to_bytes(8), verb=verb, target=target, reason="a test"
        )
        for giver in givers or OPERATORS[:2]:
            self.now += 1
            head = (giver, HUB, Family.CONTROL, 0, 0, Micros(self.now), NO_HEIGHT, NO_HEIGHT)
            frame = Envelope(*head, order)
            data, digest = SIGNER.seal(encode_frame(frame), NO_DIGEST)
            assert read_frame(read_sealed(data), data, order_route(giver, HUB)) == frame
            self.durable.take(Micros(self.now), frame, data, Link(NO_DIGEST, digest))
        orders = self.durable.endpoint.orders
        return "waits" if order.order_id in orders.waiting else orders.outcomes[-1].why

    @property
    def next_seq(self) -> int:
        return self.durable.endpoint.inboxes[KEY].next_seq

    @property
    def kept(self) -> list[int]:
        return [place.seq for place in self.durable.endpoint.inboxes[KEY].poison]

    @property
    def frozen(self) -> bool:
        core = self.durable.endpoint.node
        assert isinstance(core, Hub)
        return bool(core.state.zone_of[BASE].frozen)

    def check_fold(self) -> None:
        """A fold gives the same state, by code of any version."""
        self.durable.commit({}, 0)
        found, unread = self.durable.fingerprint(), self.unread
        for self.unread in (set(), unread, {*range(1, 7)}):
            assert self.fold().fingerprint() == found
        self.unread = unread


def test_poison_is_kept_and_its_channel_stops_there() -> None:
    node = Node(unread=[3])
    node.hear(1, 2, 3, 4, 5, 3)

    assert (node.next_seq, node.kept) == (3, [3])
    node.unread.clear()
    node.hear(3)  # a person ends it, not a resend
    assert (node.next_seq, node.kept) == (3, [3])
    node.check_fold()


def test_a_frame_is_tried_again_when_the_code_has_learnt_to_read_it() -> None:
    node = Node(unread=[3])
    node.hear(1, 2, 3, 4, 5)

    assert "expected a frame that can be decoded now" in node.order(Verb.RETRY, 3, OPERATORS[0])
    assert (node.next_seq, node.kept) == (3, [3])
    node.unread.clear()
    assert node.order(Verb.RETRY, 3, OPERATORS[0]) == ""
    assert (node.next_seq, node.kept) == (6, [])
    assert not node.frozen, "nothing was passed over"
    node.hear(6)
    assert node.next_seq == 7
    node.check_fold()


def test_what_is_forgotten_must_come_again() -> None:
    node = Node(unread=[3])
    node.hear(1, 2, 3, 5)
    assert node.order(Verb.NILIFY, 3, OPERATORS[0]) == ""
    assert node.order(Verb.NILIFY, 5, OPERATORS[0]) == ""
    assert node.order(Verb.NILIFY, 5, OPERATORS[0]).endswith("found none under number 5")
    node.unread.clear()
    node.hear(3, 4)
    assert node.next_seq == 5
    node.hear(5)
    assert node.next_seq == 6
    node.check_fold()


@pytest.mark.parametrize("verb", [Verb.CLEAR, Verb.SKIP])
def test_two_operators_pass_a_number_over_and_freeze_releases(verb: Verb) -> None:
    node = Node(unread=[3] if verb is Verb.CLEAR else [])
    node.hear(1, 2, 4, 5, *node.unread)

    assert node.order(verb, 3, OPERATORS[0], OPERATORS[0]) == "waits"
    assert (node.next_seq, node.frozen) == (3, False)
    assert node.order(verb, 3) == ""
    assert (node.next_seq, node.frozen, node.kept) == (6, True, [])
    node.hear(3)  # too late
    assert node.next_seq == 6
    node.check_fold()


def test_what_cannot_be_passed_over_is_refused_and_changes_nothing() -> None:
    node = Node(unread=[3])
    node.hear(1, 2)
    assert "found none: it may still come" in node.order(Verb.SKIP, 3)
    node.hear(4)
    assert node.order(Verb.SKIP, 4) == "expected the next number, 3, found 4"
    assert node.order(Verb.CLEAR, 3) == "expected a frame that is kept, found none under number 3"
    node.hear(3)
    assert node.order(Verb.SKIP, 3).endswith("found its frame: clear takes it off")
    assert "expected a channel to hub" in node.order(Verb.CLEAR, 3, family="price")
    assert (node.next_seq, node.kept, node.frozen) == (3, [3], False)
    node.check_fold()


def test_a_message_that_has_no_business_in_a_channel_is_poison_and_kills_nobody() -> None:
    told = MarginSet(account="ann", margin_version=1, status=MarginStatus.OPEN)
    for message in (told, Acknowledged()):
        data, _ = seal(1, message)
        with pytest.raises(FramePoisoned) as found:
            read_frame(read_sealed(data), data, ROUTE)
        assert (found.value.event.peer, found.value.event.seq) == (BASE, 1)


def test_what_is_in_no_channel_is_refused_and_not_kept() -> None:
    garbage = SIGNER.seal(b"fact", NO_DIGEST)[0]
    outside = seal(0, mark(1))[0]
    elsewhere = seal(1, mark(1))[0]
    other = next(one for one in routes([BASE]) if one.topic == "from-base.liquidation")
    for data, route in ((garbage, ROUTE), (outside, ROUTE), (elsewhere, other)):
        with pytest.raises(FrameRefused) as found:
            read_frame(read_sealed(data), data, route)
        assert not isinstance(found.value, FramePoisoned)


def test_who_does_not_know_of_a_frame_that_is_kept_has_lost_state() -> None:
    """It may be a grant, and be tried again later (P60)."""
    for head_seq, expected in ((2, ResyncAnswer.STATE_LOST), (3, ResyncAnswer.ACCEPTED)):
        node = Node(unread=[3])
        node.hear(1, 2, 3)
        asked = ResyncAsked(
            nonce=bytes(8),
            head_epoch=1,
            head_seq=head_seq,
            since_epoch=1,
            since_nonce=bytes(8),
        )
        head = (BASE, HUB, Family.RESERVATION, 0, 0, Micros(9), NO_HEIGHT, NO_HEIGHT)
        (answer,) = node.durable.endpoint.handle(Micros(9), Envelope(*head, asked, 2))
        assert isinstance(answer, Envelope)
        assert answer.message.answer is expected  # type: ignore[union-attr]
