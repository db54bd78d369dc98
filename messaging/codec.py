"""Frames and records to MessagePack bytes and back.

A frame is one MessagePack array: version, the envelope's fields, and the message as a map of
its fields with its name under `type`. Any MessagePack tool reads it. Rules P72, P73 of
docs/protocol.md.
"""

from typing import TypeVar

import msgspec

from messaging.envelope import Envelope
from messaging.errors import FrameRefused
from messaging.node import Event
from messaging.record import Record

FRAME_BYTES_MAX = 61_440
EVENT_BYTES_MAX = 16 * 1_048_576  # of our own journal: a rebuilt one begins with a contract
RECORD_BYTES_MAX = 64 * 1_048_576

_encoder = msgspec.msgpack.Encoder()
_frames = msgspec.msgpack.Decoder(Envelope)
_records = msgspec.msgpack.Decoder(Record)
_events: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)
_T = TypeVar("_T")


def encode_frame(envelope: Envelope) -> bytes:
    """Return the bytes that go on the wire.

    Raises:
        FrameRefused: the frame is larger than any receiver would accept.
    """
    data = _encoder.encode(envelope)
    if len(data) > FRAME_BYTES_MAX:
        raise FrameRefused(f"expected at most {FRAME_BYTES_MAX:,} bytes, found {len(data):,}")
    return data


def decode_frame(data: bytes) -> Envelope:
    """Return the frame that `data` is, to the byte.

    Raises:
        FrameRefused: too long, not MessagePack, not a frame of this version, a field unknown,
            missing, repeated, out of bounds or out of order, or anything behind the frame.
    """
    return _decode(_frames, data, FRAME_BYTES_MAX)


def encode_event(event: Event) -> bytes:
    """Return the bytes of an event; those of a frame are the frame's own."""
    return _encoder.encode(event)


def decode_event(data: bytes) -> Event:
    """Return the event that `data` is, to the byte.

    Raises:
        FrameRefused: as `decode_frame`.
    """
    return _decode(_events, data, EVENT_BYTES_MAX)


def encode_record(record: Record) -> bytes:
    """Return the bytes that go into the log and its digest."""
    return _encoder.encode(record)


def decode_record(data: bytes) -> Record:
    """Return the record that `data` is, to the byte.

    Raises:
        FrameRefused: as `decode_frame`.
    """
    return _decode(_records, data, RECORD_BYTES_MAX)


def _decode(decoder: msgspec.msgpack.Decoder[_T], data: bytes, bytes_max: int) -> _T:
    if len(data) > bytes_max:
        raise FrameRefused(f"expected at most {bytes_max:,} bytes, found {len(data):,}")
    try:
        value = decoder.decode(data)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise FrameRefused(f"expected a frame, found {error}") from None
    # One value, one encoding: refuses repeated keys, other field orders, long integer forms.
    if _encoder.encode(value) != data:
        raise FrameRefused("expected the canonical encoding, found another one of the same value")
    return value
