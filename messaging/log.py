"""The message log: an MCAP file with every record of a run, and a running digest of them.

MCAP keeps records in checked, compressed chunks, so a torn file can be read up to the tear, and
any MCAP tool can look into ours: one topic for each channel, MessagePack inside.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeAlias

import msgspec
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Attachment, Chunk, Footer, McapRecord, MessageIndex, Metadata
from mcap.stream_reader import CRCValidationError, StreamReader, get_chunk_data_stream
from mcap.writer import Writer
from zstandard import ZstdError

from messaging.codec import decode_record
from messaging.envelope import Envelope
from messaging.errors import FrameRefused, InputRefused, LogTorn
from messaging.node import TimerFired
from messaging.record import Record
from messaging.topics import topic_of

PROFILE = "omnimargin"
END = "end"
SUMS = "attachments"
CHUNK_BYTES = 256 * 1024
RECORD_BYTES_MAX = 256 * 1024 * 1024
FLUSH_RECORDS = 2_000
DIGEST_BYTES = 16
_PIECE_BYTES = 1 << 16

_HEAD = struct.Struct("<BQ")  # of every MCAP record: opcode, length
_MESSAGE = struct.Struct("<HIQQ")  # of a message: channel, sequence, log time, publish time
_Index: TypeAlias = dict[int, list[tuple[int, int]]]  # per channel: (log time, offset in chunk)

# What a damaged file makes the MCAP reader and zstd raise; both say no more than that.
_DAMAGE = (
    McapError,
    CRCValidationError,
    ZstdError,
    KeyError,
    ValueError,
    OverflowError,
    struct.error,
    EOFError,
    MemoryError,
)
# The data section ends with a record of four bytes, its checksum; nothing covers its head.
_DATA_END = b"\x0f" + (4).to_bytes(8, "little")


class Digest:
    """A running hash of records, in order; equal digests mean equal runs."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=DIGEST_BYTES)
        self._pieces: list[bytes] = []
        self._size = 0
        self.records = 0

    def add(self, data: bytes) -> None:
        """Take one encoded record in."""
        # MessagePack is self-delimiting, so the plain concatenation is unambiguous.
        self._pieces.append(data)
        self._size += len(data)
        self.records += 1
        if self._size > _PIECE_BYTES:
            self._drain()

    def hex(self) -> str:
        """Return the digest of all records so far."""
        self._drain()
        return self._hash.hexdigest()

    def _drain(self) -> None:
        self._hash.update(b"".join(self._pieces))
        self._pieces.clear()
        self._size = 0


def _sum(data: bytes) -> str:
    return blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


class End(msgspec.Struct, frozen=True):
    """The last word of a log that was closed in order.

    Attributes:
        status: `complete`, or why the run stopped early.
        records: how many there are.
        digest: of all of them.
    """

    status: str
    records: int
    digest: str


def topic(record: Record) -> str:
    """Name the topic of a record: that of its frame, or the node's own events."""
    event = record.event
    if isinstance(event, Envelope):
        return topic_of(event)
    return f"{'timer' if isinstance(event, TimerFired) else 'event'}.{record.node}"


def new_file(path: Path) -> BinaryIO:
    """Return a file to write, its folder made; one that is there ends.

    Raises:
        InputRefused: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputRefused(str(path), expected="a file to write", found=reason) from None


class LogWriter:
    """Writes a log; use it as a context manager, and call `finish` when the run is over."""

    def __init__(self, path: Path, attachments: Mapping[str, bytes]) -> None:
        """Start a log with what a replay needs besides the records.

        Raises:
            InputRefused: the file cannot be written.
        """
        self._file = new_file(path)
        self._writer = Writer(self._file, chunk_size=CHUNK_BYTES, enable_data_crcs=True)
        self._writer.start(profile=PROFILE)
        for name, data in attachments.items():
            self._writer.add_attachment(0, 0, name, "application/octet-stream", data)
        # MCAP's own checksum of an attachment is only compared at the end of the file.
        self._writer.add_metadata(SUMS, {name: _sum(data) for name, data in attachments.items()})
        self._schema = self._writer.register_schema("record", "", b"")
        self._channels: dict[str, int] = {}
        self._count = 0
        self._file.flush()

    def write(self, record: Record, data: bytes) -> None:
        """Append a record; `data` is its encoding."""
        name = topic(record)
        channel = self._channels.get(name)
        if channel is None:
            channel = self._writer.register_channel(name, "msgpack", self._schema)
            self._channels[name] = channel
        event = record.event
        sent_us = event.sent_us if isinstance(event, Envelope) else record.at_us
        self._writer.add_message(
            channel, record.at_us * 1_000, data, sent_us * 1_000, self._count % 2**32
        )
        self._count += 1
        if self._count % FLUSH_RECORDS == 0:
            self._file.flush()

    def finish(self, end: End) -> None:
        """Close the log in order."""
        # The last word comes behind the last record.
        self._writer.flush()  # type: ignore[no-untyped-call]
        words = {"status": end.status, "records": str(end.records), "digest": end.digest}
        self._writer.add_metadata(END, words)
        self._writer.finish()  # type: ignore[no-untyped-call]
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def _open_chunk(chunk: Chunk) -> tuple[list[bytes], _Index]:
    """Return the messages of a chunk, and where each stands, as the index behind it says too."""
    stream, length = get_chunk_data_stream(chunk, validate_crc=True)
    data = stream.read(length)
    messages: list[bytes] = []
    index: _Index = {}
    offset = 0
    while offset < length:
        opcode, size = _HEAD.unpack_from(data, offset)
        start = offset + _HEAD.size
        if opcode == Opcode.MESSAGE:
            channel, _, log_time, _ = _MESSAGE.unpack_from(data, start)
            index.setdefault(channel, []).append((log_time, offset))
            messages.append(data[start + _MESSAGE.size : start + size])
        offset = start + size
    return messages, index


class LogReader:
    """Reads a log, as far as it is sound.

    Attributes:
        attachments: what the writer was given; complete once the first record is read.
        end: the last word, once it is read.
        records: how many records have been read.
    """

    def __init__(self, path: Path) -> None:
        """Open a log.

        Raises:
            InputRefused: no such file, or not an MCAP file of ours.
        """
        try:
            self._file: BinaryIO = path.open("rb")
            head = self._file.read(8)
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputRefused(str(path), expected="a message log", found=reason) from None
        if head != b"\x89MCAP0\r\n":
            self._file.close()
            expected = "a message log (MCAP)"
            raise InputRefused(str(path), expected=expected, found=f"first bytes {head!r}")
        self._file.seek(0)
        self._path = path
        self.attachments: dict[str, bytes] = {}
        self.end: End | None = None
        self.records = 0
        self._last_us = 0

    def __iter__(self) -> Iterator[Record]:
        """Yield the records, oldest first.

        Raises:
            LogTorn: at the first damage, or where the file ends without its last word.
        """
        with self._file:
            yield from self._read()

    def _read(self) -> Iterator[Record]:
        reader = StreamReader(
            self._file,
            record_size_limit=RECORD_BYTES_MAX,
            emit_chunks=True,
            validate_crcs=True,
        )
        parts: Iterator[McapRecord] = reader.records
        index: _Index = {}
        while True:
            offset = self._file.tell()
            try:
                part = next(parts, None)
                inside: list[bytes] = []
                if isinstance(part, Chunk):
                    inside, index = _open_chunk(part)
                elif isinstance(part, MessageIndex) and index.get(part.channel_id) != part.records:
                    raise ValueError("an index does not match its chunk")
                if isinstance(part, Metadata) and part.name == END:
                    words = part.metadata
                    self.end = End(words["status"], int(words["records"]), words["digest"])
                elif isinstance(part, Metadata) and part.name == SUMS:
                    self._check_attachments(part.metadata)
            except _DAMAGE as error:
                raise self._torn(offset, error) from None
            if part is None:
                break
            if isinstance(part, Attachment):
                self.attachments[part.name] = part.data
            elif isinstance(part, Footer):
                self._check_summary(part)
            for data in inside:
                yield self._record(data, offset)
        if self.end is None or self.end.records != self.records:
            raise self._torn(self._file.tell(), "the end of the log is missing")

    def _record(self, data: bytes, offset: int) -> Record:
        try:
            record = decode_record(data)
        except FrameRefused as error:
            raise self._torn(offset, error) from None
        self.records += 1
        self._last_us = record.at_us
        return record

    def _check_attachments(self, sums: Mapping[str, str]) -> None:
        if {name: _sum(data) for name, data in self.attachments.items()} != sums:
            raise ValueError("an attachment does not match its checksum")

    def _check_summary(self, footer: Footer) -> None:
        """Check the part behind the data, which the MCAP reader leaves unchecked."""
        here = self._file.tell()
        if not len(_DATA_END) + 4 <= footer.summary_start < here:
            raise self._torn(here, "the summary is missing")
        self._file.seek(footer.summary_start - 4 - len(_DATA_END))
        if self._file.read(len(_DATA_END)) != _DATA_END:
            raise self._torn(footer.summary_start, "the end of the data is not marked")
        self._file.seek(footer.summary_start)
        # The checksum covers the footer too, up to the checksum itself.
        length = here - 4 - footer.summary_start
        summary = self._file.read(max(0, length))
        self._file.seek(here)
        if zlib.crc32(summary) != footer.summary_crc:
            raise self._torn(footer.summary_start, "the summary does not match its checksum")

    def _torn(self, offset: int, why: object) -> LogTorn:
        text = str(why) or type(why).__name__
        where = f"{self._path}, at byte {offset:,}, virtual time {self._last_us / 1e6:.6f} s"
        return LogTorn(where, self.records, f"damaged or cut off ({text})")
