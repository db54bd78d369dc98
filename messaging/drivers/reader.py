"""Read topics by hand: what stands in the way, and how long a topic has been silent.

The client hands records out in rounds of many topics. If one of them cannot be taken apart, what
it had of the others is gone from its hands; so all are read again from where the caller is.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import CorruptRecordException, KafkaError, KafkaTimeoutError

SILENT_S = 5.0  # after which the broker's silence about a topic is worth a word
_WAIT_MS = 500

# What the client raises at bytes that are no records, such as a header whose name is not UTF-8.
UNREADABLE = (UnicodeDecodeError, CorruptRecordException)


class Found(NamedTuple):
    """What can be read of some topics.

    Attributes:
        records: by topic, from where it was asked for.
        skipped: by topic, what cannot be read: its offset, and where the topic goes on.
    """

    records: dict[TopicPartition, list[ConsumerRecord]]
    skipped: dict[TopicPartition, tuple[int, int]]


async def read_around(
    consumer: AIOKafkaConsumer, positions: Mapping[TopicPartition, int], most: int
) -> Found:
    """Read topics one record at a time, and step over batches that cannot be taken apart.

    Args:
        consumer: has raised one of `UNREADABLE`.
        positions: offset to read next, by topic.
        most: records of a topic to read.

    Raises:
        KafkaError: the broker refuses.
    """
    found = Found({}, {})
    for partition, offset in positions.items():
        consumer.seek(partition, offset)
    for partition, start in positions.items():
        records: list[ConsumerRecord] = []
        offset = start
        try:
            while len(records) < most and consumer.highwater(partition) != offset:
                new = await _one(consumer, partition)
                if new is None:
                    break
                records.append(new)
                offset = new.offset + 1
        except UNREADABLE:
            found.skipped[partition] = offset, await _behind(consumer, partition, offset)
        if records:
            found.records[partition] = records
    return found


async def _one(consumer: AIOKafkaConsumer, partition: TopicPartition) -> ConsumerRecord | None:
    fetched = await consumer.getmany(partition, timeout_ms=_WAIT_MS, max_records=1)
    return next(iter(fetched.get(partition, ())), None)


async def _behind(consumer: AIOKafkaConsumer, partition: TopicPartition, bad: int) -> int:
    """Return where a topic goes on behind what cannot be read; the consumer is there then."""
    offset, end = bad + 1, (await consumer.end_offsets([partition]))[partition]
    while offset < end:
        consumer.seek(partition, offset)
        try:
            new = await _one(consumer, partition)
        except UNREADABLE:
            offset += 1  # a batch is taken apart from its beginning, whatever offset is asked for
            continue
        if new is None:
            raise KafkaTimeoutError(f"{partition.topic}: expected records up to {end}, found none")
        offset = new.offset
        break
    consumer.seek(partition, offset)
    return offset


async def beginnings(
    consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, int]:
    """Return where topics begin; none if the broker does not say: they are asked for again."""
    try:
        return dict(await consumer.beginning_offsets(list(partitions)))
    except KafkaError:
        return {}


def silence(
    consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition], since_s: float, now_s: float
) -> str:
    """Return a line for people if the broker has been silent about a topic for long, or nothing.

    Args:
        consumer: reads the topics.
        partitions: topics that are read on.
        since_s: Unix time at which the reading began.
        now_s: Unix time now.
    """
    heard = {one: (consumer.last_poll_timestamp(one) or since_s * 1e3) for one in partitions}
    if not heard:
        return ""
    partition = min(heard, key=lambda one: (heard[one], one))
    silent_s = now_s - heard[partition] / 1e3
    if silent_s <= SILENT_S:
        return ""
    return f"no word from the broker on {partition.topic} for {silent_s:.0f} s"
