from collections.abc import Mapping
from hashlib import blake2b
from os import truncate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader

from messaging.codec import encode_record
from messaging.effects import SetTimer
from messaging.envelope import Envelope
from messaging.errors import InputRefused, LogTorn
from messaging.fields import ENTRIES_MAX
from messaging.log import CHUNK_BYTES, Digest, End, LogReader, LogWriter, topic
from messaging.messages import Family, MarketMoved, Message, PricePublished, ReservationGranted
from messaging.node import TimerFired
from messaging.record import Record
from messaging.units import (
    HUB,
    MONITOR,
    AccountId,
    Asset,
    Height,
    Micros,
    NodeId,
    Ppm,
    ReservationId,
    Usd6,
)

BASE, MARKET, ORACLE = NodeId("base"), NodeId("market"), NodeId("oracle")
ATTACHMENTS = {"scenario.toml": b"seed = 1\n", "empty": b""}


def frame(sender: NodeId, receiver: NodeId, family: Family, message: Message) -> Envelope:
    return Envelope(sender, receiver, family, 1, 0, Micros(3), Height(0), Height(0), message)


def grant(number: int) -> Record:
    message = ReservationGranted(
        rid=ReservationId(bytes([number]) * 16),
        account=AccountId("ann"),
        amount_usd6=Usd6(number * 1_000_003),
        expires_at_us=Micros(number * 77_777),
    )
    effects = [SetTimer("expiry", Micros(number * 77_777))]
    event = frame(HUB, BASE, Family.RESERVATION, message)
    return Record(Micros(number * 1_000), BASE, event, effects)  # type: ignore[arg-type]


def move(number: int) -> Record:
    prices = tuple(Usd6((1 << 40) + number) for _ in range(ENTRIES_MAX))
    message = MarketMoved(prices_usd6=prices, depth_ppm=Ppm(number))
    return Record(Micros(number), BASE, frame(MARKET, BASE, Family.ORDER, message), [])


FEW = [grant(number) for number in range(4)]
MANY = [move(number) for number in range(3 * CHUNK_BYTES // 4_500)]


def write(path: Path, records: list[Record], attachments: Mapping[str, bytes]) -> End:
    digest = Digest()
    with LogWriter(path, attachments) as writer:
        for record in records:
            data = encode_record(record)
            writer.write(record, data)
            digest.add(data)
        end = End("complete", digest.records, digest.hex())
        writer.finish(end)
    return end


def read(path: Path, sound: list[Record]) -> str:
    """Read all there is and return how it ended; what came before the end must be right."""
    found: list[Record] = []
    ending = "whole"
    try:
        found.extend(LogReader(path))
    except InputRefused:
        return "refused"
    except LogTorn as torn:
        sound, ending = sound[: torn.records], f"torn after {torn.records}"
    assert found == sound
    return ending


# --- whole logs -------------------------------------------------------------------------


@pytest.mark.parametrize("records", [[], FEW, MANY], ids=["none", "few", "many"])
def test_a_log_gives_back_all_that_was_written(tmp_path: Path, records: list[Record]) -> None:
    path = tmp_path / "made" / "for" / "it.mcap"
    end = write(path, records, ATTACHMENTS)

    reader = LogReader(path)

    assert list(reader) == records
    assert reader.end == end
    assert reader.end.records == reader.records == len(records)
    assert reader.attachments == ATTACHMENTS


def test_the_digest_in_the_log_is_that_of_its_records(tmp_path: Path) -> None:
    write(tmp_path / "log", MANY, {})
    reader = LogReader(tmp_path / "log")
    again = Digest()

    for record in reader:
        again.add(encode_record(record))

    assert reader.end is not None
    assert again.hex() == reader.end.digest
    assert len(again.hex()) == 32


def test_attachments_are_there_with_the_first_record(tmp_path: Path) -> None:
    write(tmp_path / "log", MANY, ATTACHMENTS)
    reader = LogReader(tmp_path / "log")

    assert next(iter(reader)) == MANY[0]
    assert reader.attachments == ATTACHMENTS


def test_any_mcap_tool_finds_the_records_by_channel_and_time(tmp_path: Path) -> None:
    timer = Record(Micros(7), HUB, TimerFired("watch"), [])
    write(tmp_path / "log", [*FEW, timer], {})

    with (tmp_path / "log").open("rb") as file:
        found = [
            (channel.topic, channel.message_encoding, message.log_time, message.data)
            for _, channel, message in make_reader(file).iter_messages()
        ]

    expected = [
        (topic(record), "msgpack", record.at_us * 1_000, encode_record(record))
        for record in sorted([*FEW, timer], key=lambda record: record.at_us)
    ]
    assert found == expected


@pytest.mark.parametrize(
    ("sender", "receiver", "family", "name"),
    [
        (HUB, BASE, Family.RESERVATION, "to-base.reservation"),
        (BASE, HUB, Family.MARGIN_STATE, "from-base.margin-state"),
        (BASE, HUB, Family.LIQUIDATION, "from-base.liquidation"),
        (ORACLE, HUB, Family.PRICE, "price.oracle"),
        (MARKET, BASE, Family.ORDER, "order.base"),
        (MONITOR, HUB, Family.CONTROL, "ctl.halt"),
    ],
)
def test_a_topic_is_named_after_its_channel(
    sender: NodeId, receiver: NodeId, family: Family, name: str
) -> None:
    price = PricePublished(asset=Asset("BTC"), price_usd6=Usd6(1), observed_us=Micros(0))

    assert topic(Record(Micros(0), receiver, frame(sender, receiver, family, price), [])) == name


def test_timers_have_a_topic_for_each_node() -> None:
    assert topic(Record(Micros(0), BASE, TimerFired("a"), [])) == "timer.base"


# --- the digest -------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=50), max_size=30), st.integers(1, 5_000))
def test_a_digest_is_the_hash_of_all_records_in_a_row(pieces: list[bytes], times: int) -> None:
    digest = Digest()
    for piece in pieces:
        digest.add(piece * times)
        digest.hex()  # asking changes nothing

    row = b"".join(piece * times for piece in pieces)
    assert digest.hex() == blake2b(row, digest_size=16).hexdigest()
    assert digest.records == len(pieces)


# --- damaged logs -----------------------------------------------------------------------


def test_a_log_cut_anywhere_is_torn_after_its_sound_records(tmp_path: Path) -> None:
    path, endings = tmp_path / "log", []
    write(path, MANY, ATTACHMENTS)
    size = path.stat().st_size
    for length in (*range(size - 1, size - 40, -3), *range(size - 97, 0, -97), 0):
        truncate(path, length)
        endings.append(read(path, MANY))

    assert endings[:13] == [f"torn after {len(MANY)}"] * 13
    assert len(set(endings)) > 3  # some cuts fell between chunks
    assert endings[-2:] == ["torn after 0", "refused"]


def test_one_changed_byte_anywhere_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, FEW, ATTACHMENTS)
    whole = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for position, byte in enumerate(whole):
            for other in {byte ^ 0x04, byte ^ 0xFF, byte ^ 1 << position % 8}:
                file.seek(position)
                file.write(bytes([other]))

                assert read(path, FEW) != "whole", (position, byte, other)
            file.seek(position)
            file.write(bytes([byte]))

    assert read(path, FEW) == "whole"


@settings(max_examples=100)
@given(data=st.data())
def test_some_changed_bytes_are_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed"
    write(path, FEW, ATTACHMENTS)
    damaged = bytearray(path.read_bytes())
    positions = st.integers(0, len(damaged) - 1)
    for position in data.draw(st.sets(positions, min_size=1, max_size=4)):
        damaged[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)

    assert read(path, FEW) != "whole"


@settings(max_examples=100)
@given(tail=st.binary(max_size=300))
def test_bytes_that_only_begin_like_a_log_are_torn(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "noise"
    path.write_bytes(b"\x89MCAP0\r\n" + tail)

    assert read(path, []) == "torn after 0"


def test_a_log_that_was_never_finished_is_torn(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "log", ATTACHMENTS) as writer:
        for record in MANY:
            writer.write(record, encode_record(record))

    reader = LogReader(tmp_path / "log")
    with pytest.raises(LogTorn) as torn:
        list(reader)
    assert 0 < torn.value.records < len(MANY)
    assert f"{torn.value.records:,} records before it are sound" in str(torn.value)
    assert reader.attachments == ATTACHMENTS


def test_a_last_word_that_counts_wrong_is_not_believed(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "log", {}) as writer:
        writer.write(FEW[0], encode_record(FEW[0]))
        writer.finish(End("complete", 2, ""))

    assert read(tmp_path / "log", FEW) == "torn after 1"


def test_a_record_that_is_none_of_ours_is_damage(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "log", {}) as writer:
        writer.write(FEW[0], encode_record(FEW[0]))
        writer.write(FEW[1], encode_record(FEW[1]) + b"\x00")
        writer.finish(End("complete", 2, ""))

    assert read(tmp_path / "log", FEW) == "torn after 1"


@pytest.mark.parametrize("content", [b"", b"\x89MCAP", b"time,price\n1,2\n", bytes(5_000)])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other").write_bytes(content)

    with pytest.raises(InputRefused, match="expected a message log"):
        LogReader(tmp_path / "other")


def test_no_file_or_no_place_for_one_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match="No such file"):
        LogReader(tmp_path / "none")
    with pytest.raises(InputRefused, match="Is a directory"):
        LogReader(tmp_path)
    with pytest.raises(InputRefused, match="expected a file to write"):
        LogWriter(tmp_path, {})
