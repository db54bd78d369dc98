import math
from typing import Any, get_args

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from messaging.codec import (
    FRAME_BYTES_MAX,
    decode_frame,
    decode_record,
    encode_frame,
    encode_record,
)
from messaging.effects import SetTimer
from messaging.envelope import Envelope
from messaging.errors import FrameRefused
from messaging.fields import ENTRIES_MAX
from messaging.messages import Family, MarketMoved, Message, Position, PricePublished, StateReported
from messaging.node import TimerFired
from messaging.record import Record
from messaging.units import HUB, INT_MAX, AccountId, Asset, Height, Micros, NodeId, Ppm, Qty8, Usd6

KINDS = get_args(Message)


def values(type_: inspect.Type) -> st.SearchStrategy[object]:
    """Return all values that a type lets pass, but for the longest lists and texts."""
    match type_:
        case inspect.IntType(ge=low, le=high):
            return st.integers(
                -(2**63) if low is None else low, 2**64 - 1 if high is None else high
            )
        case inspect.StrType(min_length=low, max_length=high):
            return st.text(min_size=low or 0, max_size=min(high or 20, 64))
        case inspect.BytesType(min_length=low, max_length=high):
            return st.binary(min_size=low or 0, max_size=high)
        case inspect.EnumType(cls=members):
            return st.sampled_from(list(members))
        case inspect.VarTupleType(item_type=item):
            return st.lists(values(item), max_size=4).map(tuple)
        case inspect.ListType(item_type=item):
            return st.lists(values(item), max_size=4)
        case inspect.UnionType(types=types):
            return st.one_of([values(one) for one in types])
        case inspect.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{field.name: values(field.type) for field in fields})
    raise AssertionError(f"no values for {type_}")


envelopes: st.SearchStrategy[Any] = values(inspect.type_info(Envelope))
records: st.SearchStrategy[Any] = values(inspect.type_info(Record))


def frame(message: Message, seq: int = 5) -> Envelope:
    """Return a frame whose seq, ack_seq, sent_us and heights are 5, 6, 7, 8, 9."""
    return Envelope(
        NodeId("base"),
        HUB,
        Family.PRICE,
        seq,
        6,
        Micros(7),
        Height(8),
        Height(9),
        message,
    )


PRICE = frame(PricePublished(asset=Asset("BTC"), price_usd6=Usd6(3), observed_us=Micros(4)))
GOOD = encode_frame(PRICE)


def pieces() -> list[bytes]:
    """Return the encoded fields of a good frame, its version first."""
    return [msgpack.packb(part) for part in msgpack.unpackb(GOOD)]


def refusal_of(data: bytes) -> str:
    with pytest.raises(FrameRefused) as refusal:
        decode_frame(data)
    return str(refusal.value)


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
@settings(max_examples=30)
@given(data=st.data())
def test_every_message_comes_back_as_it_went(kind: type[Message], data: st.DataObject) -> None:
    envelope: Envelope = data.draw(envelopes)
    message = data.draw(values(inspect.type_info(kind)))
    sent = msgspec.structs.replace(envelope, message=message)

    back = decode_frame(encode_frame(sent))

    assert back == sent
    assert type(back.message) is kind


@given(records)
def test_every_record_comes_back_as_it_went(record: Record) -> None:
    assert decode_record(encode_record(record)) == record


@settings(max_examples=100)
@given(envelopes)
def test_any_messagepack_tool_reads_every_frame(envelope: Envelope) -> None:
    version, *fields = msgpack.unpackb(encode_frame(envelope))
    message = fields.pop(8)

    assert version == "frame.3"
    whole = list(msgspec.structs.astuple(envelope))
    assert fields == whole[:8] + whole[9:]
    assert message.pop("type") == type(envelope.message).__struct_config__.tag
    assert list(message) == list(type(envelope.message).__struct_fields__)
    assert message == msgpack.unpackb(
        msgpack.packb(
            msgspec.to_builtins(
                {name: getattr(envelope.message, name) for name in message}, builtin_types=(bytes,)
            )
        )
    )


def test_the_wire_is_what_it_was() -> None:
    """A renamed class or field, or another order of fields, is another wire."""
    assert msgpack.unpackb(GOOD) == [
        *("frame.3", "base", "hub", "price", 5, 6, 7, 8, 9),
        {"type": "price_published", "asset": "BTC", "price_usd6": 3, "observed_us": 4},
        *(1, 1, 1),
    ]
    assert b"\x9d" + b"".join(pieces()) == GOOD


def test_the_largest_frame_that_can_be_fits() -> None:
    position = Position(
        asset=Asset("\U0001f600" * 16), qty8=Qty8(-INT_MAX), cost_usd6=Usd6(-INT_MAX)
    )
    report = StateReported(
        account=AccountId("\U0001f600" * 64),
        version=INT_MAX,
        block_time_us=Micros(INT_MAX),
        positions=(position,) * ENTRIES_MAX,
        realised_usd6=Usd6(-INT_MAX),
        fees_usd6=Usd6(INT_MAX),
        liquidation_fees_usd6=Usd6(INT_MAX),
    )

    assert decode_frame(encode_frame(frame(report))) == frame(report)


def test_a_frame_too_large_is_refused_at_both_ends() -> None:
    moved = frame(MarketMoved(prices_usd6=(Usd6(INT_MAX),) * 8_000, depth_ppm=Ppm(1)))

    with pytest.raises(FrameRefused, match="at most 61,440 bytes, found 72"):
        encode_frame(moved)
    assert "at most 61,440 bytes" in refusal_of(msgspec.msgpack.encode(moved))
    assert "at most 61,440 bytes" in refusal_of(bytes(FRAME_BYTES_MAX + 1))
    assert "at most 61,440 bytes" not in refusal_of(bytes(FRAME_BYTES_MAX))


# --- refusals ---------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    refusal_of(data)


@pytest.mark.parametrize(
    "opening", [b"\x91", b"\x81\x01", b"\xdd\x7f\xff\xff\xff", b"\xdf", b"\xc6"]
)
def test_deep_or_boundless_bytes_are_refused(opening: bytes) -> None:
    refusal_of((opening * FRAME_BYTES_MAX)[:FRAME_BYTES_MAX])


def test_depth_in_a_field_nobody_reads_is_refused_too() -> None:
    refusal_of(b"\x9e" + b"".join(pieces()) + b"\x91" * 60_000 + b"\x00")


@given(envelopes, st.data())
def test_a_cut_frame_or_one_with_more_behind_it_is_refused(
    envelope: Envelope, data: st.DataObject
) -> None:
    whole = encode_frame(envelope)

    refusal_of(whole[: data.draw(st.integers(0, len(whole) - 1))])
    refusal_of(whole + data.draw(st.binary(min_size=1, max_size=9)))
    refusal_of(whole + whole)


@settings(max_examples=150)
@given(st.one_of(envelopes, records), st.data())
def test_changed_bytes_are_refused_or_are_another_value_to_the_byte(
    value: Envelope | Record, data: st.DataObject
) -> None:
    is_frame = isinstance(value, Envelope)
    changed = bytearray(
        encode_frame(value) if isinstance(value, Envelope) else encode_record(value)
    )
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))

    try:
        found = decode_frame(bytes(changed)) if is_frame else decode_record(bytes(changed))
    except FrameRefused:
        return
    assert msgspec.msgpack.encode(found) == changed


def test_every_single_bit_counts() -> None:
    for position in range(8 * len(GOOD)):
        changed = bytearray(GOOD)
        changed[position // 8] ^= 1 << position % 8
        try:
            assert decode_frame(bytes(changed)) != PRICE
        except FrameRefused:
            continue


@pytest.mark.parametrize(
    ("index", "piece"),
    [
        (0, msgpack.packb("frame.1")),
        (0, b"\xd9\x07frame.3"),
        (1, b"\xd9\x04base"),
        (1, b"\xc4\x04base"),
        (1, b"\xa0"),
        (1, msgpack.packb("b" * 17)),
        (1, b"\xa4bas\xff"),
        (3, msgpack.packb("prices")),
        (4, b"\xcc\x05"),
        (4, b"\xcd\x00\x05"),
        (4, b"\xcf" + (5).to_bytes(8)),
        (4, b"\xd3" + (5).to_bytes(8)),
        (4, b"\xff"),
        (4, b"\xcf" + (INT_MAX + 1).to_bytes(8)),
        (4, msgpack.packb(5.0)),
        (4, msgpack.packb(math.nan)),
        (4, msgpack.packb(5.5)),
        (4, b"\xc3"),
        (4, b"\xc0"),
        (4, b"\xa15"),
        (9, b"\xc0"),
        (10, b"\x00"),
        (12, b"\xcc\x01"),
    ],
)
def test_each_value_has_one_form_and_its_bounds(index: int, piece: bytes) -> None:
    fields = pieces()
    fields[index] = piece

    refusal_of(b"\x9d" + b"".join(fields))


@pytest.mark.parametrize(
    "items",
    [
        ("type", "asset", "observed_us", "price_usd6"),
        ("asset", "type", "price_usd6", "observed_us"),
        ("type", "asset", "price_usd6"),
        ("type", "asset", "price_usd6", "observed_us", "observed_us"),
        ("type", "asset", "price_usd6", "observed_us", "unknown"),
        ("asset", "price_usd6", "observed_us"),
    ],
)
def test_the_fields_of_a_message_are_all_there_once_and_in_order(items: tuple[str, ...]) -> None:
    message = {**msgpack.unpackb(pieces()[9]), "unknown": 1}
    packed = b"".join(msgpack.packb(item) + msgpack.packb(message[item]) for item in items)

    head, tail = b"".join(pieces()[:9]), b"".join(pieces()[10:])
    refusal_of(b"\x9d" + head + bytes([0x80 + len(items)]) + packed + tail)


def test_a_frame_has_so_many_fields_under_the_shortest_head() -> None:
    body = b"".join(pieces())

    refusal_of(b"\xdc\x00\x0d" + body)
    refusal_of(b"\x9e" + body + b"\x01")
    refusal_of(b"\x9c" + b"".join(pieces()[:12]))


def test_long_forms_in_a_record_are_refused() -> None:
    record = Record(Micros(5), HUB, TimerFired("a"), [SetTimer("b", Micros(6))])
    good = encode_record(record)
    assert decode_record(good) == record

    for long in (
        good.replace(b"\x05", b"\xcc\x05", 1),
        good.replace(b"\x06", b"\xcc\x06"),
        good * 2,
    ):
        with pytest.raises(FrameRefused):
            decode_record(long)
