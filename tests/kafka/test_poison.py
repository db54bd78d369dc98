"""Bytes that no honest process writes, on every topic: refused, kept as evidence, nothing applied.

What is written to a topic between chains goes through the relay, which passes on what it cannot
read; so its reader refuses it too.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from lab.stack.broker import Broker
from lab.stack.plan import KEYS
from lab.stack.topics import create_topics, topic_names
from messaging.codec import encode_frame
from messaging.drivers.client import Connection
from messaging.envelope import NO_HEIGHT, Envelope
from messaging.headers import AT, ORDER
from messaging.identity import NO_DIGEST, Sealed, Signer, domain_of
from messaging.identity import SEALED_BYTES_MAX as KEPT_MAX
from messaging.key_files import read_signer
from messaging.link_control import Acknowledged
from messaging.messages import (
    Family,
    HaltOrdered,
    LinkChanged,
    MarketMoved,
    Message,
    OrderPlaced,
    PricePublished,
)
from messaging.operator_orders import OperatorOrdered, PeerNamed, Verb
from messaging.topics import HALT_TOPIC, LINK_TOPIC, Route, dead_letters, routes
from messaging.units import (
    HUB,
    OPERATORS,
    RELAY,
    AccountId,
    Asset,
    Micros,
    NodeId,
    Ppm,
    Qty8,
    Usd6,
)
from tests.kafka import records
from tests.kafka.stack import BUSY, Stack, scenario

pytestmark = pytest.mark.kafka

BASE = NodeId("base")
ELSEWHERE = NodeId("elsewhere")
FAR = 1_000_000  # a number that no row has reached: applied, it would leave a hole
LARGEST = 65_300  # that a topic takes
MEGABYTE = 1_048_576

_sealed = msgspec.msgpack.Decoder(Sealed)


@pytest.fixture
def stack(broker: Broker, tmp_path: Path) -> Iterator[Stack]:
    """Yield a stack of one spoke in the middle of its business."""
    with Stack(tmp_path / "stack", broker.bootstrap, scenario(**BUSY)) as made:
        made.up()
        made.in_business()
        yield made


class Letter(NamedTuple):
    """What is expected in the dead letters; the offset is -1 where the relay has chosen it."""

    reader: NodeId
    topic: str
    offset: int
    data: bytes


# --- poison -----------------------------------------------------------------------------


def harmful(route: Route) -> Message:
    """Return a message that would do harm on this topic."""
    if route.topic == HALT_TOPIC:
        return HaltOrdered(spokes=(BASE,), finding="forged")
    if route.sender in OPERATORS:
        target = PeerNamed(peer=BASE)
        order_id = bytes(8)
        return OperatorOrdered(order_id=order_id, verb=Verb.RESUME, target=target, reason="forged")
    if route.topic == LINK_TOPIC:
        return LinkChanged(source=BASE, target=HUB, latency="constant:900s")
    if route.family is Family.ORDER:
        whom, what, qty8 = AccountId("t00000"), Asset("BTC"), Qty8(10**8)
        return OrderPlaced(order_id=FAR, account=whom, asset=what, qty8=qty8, close_ppm=Ppm(0))
    if route.topic.startswith("price."):
        asset, price_usd6, observed_us = Asset("BTC"), Usd6(1), Micros(10**12)
        return PricePublished(asset=asset, price_usd6=price_usd6, observed_us=observed_us)
    if route.family is Family.PRICE:
        return MarketMoved(prices_usd6=(Usd6(1), Usd6(1)), depth_ppm=Ppm(1))
    return Acknowledged()


def frame(route: Route, receiver: NodeId | None = None, seq: int = FAR) -> bytes:
    to = receiver or route.receiver
    head = route.sender, to, route.family, seq, 0, Micros(1), NO_HEIGHT, NO_HEIGHT
    return encode_frame(Envelope(*head, harmful(route)))


def poison(stack: Stack, route: Route) -> dict[str, bytes]:
    """Return bytes that must be refused on a route's topics, by what is wrong with them."""
    keys, domain, good = stack.folder / KEYS, stack.plan.domain, frame(route)
    own = read_signer(keys, route.sender, domain)
    other = read_signer(keys, BASE if route.sender == HUB else HUB, domain)
    seed = (keys / f"{route.sender}.key").read_bytes()
    strange = Signer(domain_of("another", "deployment", HUB), seed)
    sealed, _ = own.seal(good, NO_DIGEST)
    forged = msgspec.structs.replace(
        _sealed.decode(sealed), signature=_sealed.decode(other.seal(good, NO_DIGEST)[0]).signature
    )
    outside = frame(route, seq=0)  # with a number it would stop its channel for good (P69)
    unknown = outside.replace(b"\xa4type", b"\xa4kind")
    assert unknown != outside
    return {
        "nothing": b"",
        "garbage": random.Random(route.topic).randbytes(300),
        "cut off": sealed[:-20],
        "zeros": bytes(61_440),
        "the largest record": bytes(LARGEST),
        "not sealed": good,
        "another's key": other.seal(good, NO_DIGEST)[0],
        "another's signature": msgspec.msgpack.encode(forged),
        "another topic's": own.seal(frame(route, ELSEWHERE), NO_DIGEST)[0],
        "another deployment's": strange.seal(good, NO_DIGEST)[0],
        "no frame inside": own.seal(b"fact", NO_DIGEST)[0],
        "no known message inside": own.seal(unknown, NO_DIGEST)[0],
    }


HEADERS: tuple[list[tuple[str, bytes | None]], ...] = (
    [],
    [(AT, b"soon"), (ORDER, b"no order")],
    [(AT, None), (ORDER, None), ("mine", None)],
    [(AT, b"9" * 40), (ORDER, b"9" * 5_000 + b".1.1")],
    [(ORDER, b"-9000.0.1")],
)


def spread(stack: Stack) -> list[Letter]:
    """Write poison to every topic; return what the dead letters must hold of it."""
    expected = []
    for route in routes(stack.spokes):
        bad = [*poison(stack, route).values()]
        for topic in dict.fromkeys((route.read_from, route.topic)):
            headers = [[] if len(data) > 1_000 else HEADERS[n % 5] for n, data in enumerate(bad)]
            offsets = records.write(stack.connection, topic, zip(bad, headers, strict=True))
            carried = topic != route.read_from
            expected += [
                Letter(route.receiver, route.read_from, -1 if carried else offset, data[:KEPT_MAX])
                for offset, data in zip(offsets, bad, strict=True)
            ]
    return expected


def letters(stack: Stack, reader: NodeId) -> list[Letter]:
    """Return what a node has put to the dead letters."""
    found = []
    for record in records.read(stack.connection, dead_letters(reader)):
        headers = dict(record.headers)
        assert headers["why"]
        topic, offset = headers["topic"].decode(), int(headers["offset"])
        found.append(Letter(reader, topic, offset, record.value))
    return found


def check_letters(stack: Stack, expected: list[Letter]) -> None:
    """Wait until the dead letters hold what is expected, and insist that they hold no more."""
    readers, end_of = (HUB, BASE, RELAY), records.end_of
    counts = Counter(letter.reader for letter in expected)
    assert {*counts} == {*readers}
    for reader in readers:
        topic, count = dead_letters(reader), counts[reader]
        stack.wait(
            lambda topic=topic, count=count: end_of(stack.connection, topic) >= count,
            f"{count} records on {topic}",
        )
        stack.wait(
            lambda reader=reader, count=count: stack.status(reader).refused == count,
            f"{reader} to say that it has refused {count}",
        )
    found = [letter for reader in readers for letter in letters(stack, reader)]
    assert {letter for letter in expected if letter.offset >= 0} <= {*found}
    assert Counter((letter.topic, letter.data) for letter in found) == Counter(
        (letter.topic, letter.data) for letter in expected
    )


def test_poison_on_any_topic_is_kept_as_evidence_and_not_applied(stack: Stack) -> None:
    expected = spread(stack)
    check_letters(stack, expected)

    for role in (HUB, BASE, RELAY):  # none of it stands in the way of a start
        stack.stop(role)
    stack.up(RELAY, BASE, HUB)
    found = stack.finish()
    assert "halted" not in found.result.reservations.reject_reasons
    assert not stack.said(RELAY, "link_changed")
    assert len(letters(stack, RELAY)) == len([one for one in expected if one.reader == RELAY])


def test_records_that_are_repeated_with_other_headers_do_no_harm(stack: Stack) -> None:
    stack.heal()
    for route in routes(stack.spokes):
        for topic in dict.fromkeys((route.read_from, route.topic)):
            known = records.read(stack.connection, topic)[:3]
            copies = [(record.value, headers) for record in known for headers in HEADERS]
            records.write(stack.connection, topic, copies)
            assert known or route.family in (Family.LIQUIDATION, Family.CONTROL)
    found = stack.finish()
    assert found.repeats > 0
    assert not any(letters(stack, reader) for reader in (HUB, BASE, RELAY))


# --- bytes that the client cannot take apart --------------------------------------------


class NotText(str):
    """The name of a header that is not UTF-8 on the wire."""

    __slots__ = ()

    def encode(self, *args: Any, **kwargs: Any) -> bytes:
        return b"\xff\xfe"


async def write_unreadable(stack: Stack, topic: str) -> tuple[int, int]:
    """Write a batch that no client can read beyond its first record; return where, and how many."""
    producer = AIOKafkaProducer(bootstrap_servers=stack.plan.bootstrap)
    await producer.start()
    try:
        batch = producer.create_batch()
        batch._builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, 0, 60_000)
        for name in ("fine", NotText("name"), "fine"):
            batch.append(timestamp=None, key=None, value=b"garbage", headers=[(name, b"")])
        sent = await (await producer.send_batch(batch, topic, partition=0))
        return sent.offset, 3
    finally:
        await producer.stop()


def test_a_batch_that_cannot_be_taken_apart_is_stepped_over(stack: Stack) -> None:
    for route in routes(stack.spokes):
        for topic in dict.fromkeys((route.read_from, route.topic)):
            offset, count = asyncio.run(write_unreadable(stack, topic))
            after = offset + count
            if topic == route.read_from and route.receiver != RELAY:
                expected = Letter(route.receiver, topic, offset + 1, b"")
                stack.wait(
                    lambda expected=expected: expected in letters(stack, expected.reader), topic
                )
            else:
                known = {"topic": topic, "offset": offset + 1, "until": after}
                stack.wait(
                    lambda known=known: any(
                        known.items() <= line.items() for line in stack.said(RELAY, "unreadable")
                    ),
                    topic,
                )
    stack.finish()


# --- too large --------------------------------------------------------------------------


def test_a_record_of_a_megabyte_is_refused_by_the_broker(connection: Connection) -> None:
    """By the broker: the limit of this client is far beyond."""

    async def send() -> None:
        await create_topics(connection, (BASE,), fresh=True)
        most = {"max_request_size": 4 * MEGABYTE}
        producer = AIOKafkaProducer(bootstrap_servers=connection.bootstrap, **most)
        await producer.start()
        try:
            for topic in topic_names((BASE,)):
                with pytest.raises(MessageSizeTooLargeError):
                    await producer.send_and_wait(topic, bytes(MEGABYTE), partition=0)
        finally:
            await producer.stop()

    asyncio.run(send())
