"""What stands on topics, and doing to topics what should not happen to them."""

import asyncio
from collections.abc import Iterable
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.admin import NewTopic, RecordsToDelete

from lab.stack.topics import SETTINGS, administrator
from messaging.drivers import client
from messaging.drivers.client import Connection

POLL_S = 0.02


def read(connection: Connection, topic: str) -> list[ConsumerRecord]:
    """Return all records of a topic."""
    return asyncio.run(_read(connection, topic))


async def _read(connection: Connection, topic: str) -> list[ConsumerRecord]:
    consumer, partition = client.consumer(connection), TopicPartition(topic, 0)
    await consumer.start()
    try:
        consumer.assign([partition])
        first = (await consumer.beginning_offsets([partition]))[partition]
        end = (await consumer.end_offsets([partition]))[partition]
        consumer.seek(partition, first)
        found: list[ConsumerRecord] = []
        while await consumer.position(partition) < end:
            fetched = await consumer.getmany(partition, timeout_ms=1_000)
            found += fetched.get(partition, ())
        return found
    finally:
        await consumer.stop()


def end_of(connection: Connection, topic: str) -> int:
    """Return the offset that a topic's next record will have."""
    return asyncio.run(_end_of(connection, topic))


async def _end_of(connection: Connection, topic: str) -> int:
    consumer, partition = client.consumer(connection), TopicPartition(topic, 0)
    await consumer.start()
    try:
        return int((await consumer.end_offsets([partition]))[partition])
    finally:
        await consumer.stop()


def truncate(connection: Connection, topic: str, offset: int = -1) -> int:
    """Drop all records below an offset, as retention would, or all there are; return the first."""

    async def drop() -> int:
        partition = TopicPartition(topic, 0)
        async with administrator(connection) as admin:
            below = RecordsToDelete(before_offset=offset)
            return int((await admin.delete_records({partition: below}))[partition])

    return asyncio.run(drop())


def delete(connection: Connection, *topics: str) -> None:
    """Delete topics, and wait until they are gone."""

    async def drop() -> None:
        async with administrator(connection) as admin:
            answer = await admin.delete_topics(list(topics))
            assert {code for _, code in answer.topic_error_codes} == {0}
            while not {*topics}.isdisjoint(await admin.list_topics()):
                await asyncio.sleep(POLL_S)

    asyncio.run(drop())


def create(connection: Connection, *topics: str) -> None:
    """Make topics with the settings of a stack's."""

    async def make() -> None:
        async with administrator(connection) as admin:
            wanted = [NewTopic(topic, 1, 1, topic_configs=SETTINGS) for topic in topics]
            answer = await admin.create_topics(wanted)
            assert {code for _, code, _ in answer.topic_errors} == {0}

    asyncio.run(make())


def write(connection: Connection, topic: str, rows: Iterable[tuple[bytes, Any]]) -> list[int]:
    """Write records, each its data and its headers, one after the other; return their offsets."""

    async def send() -> list[int]:
        producer = client.producer(connection)
        await producer.start()
        try:
            return [
                (await producer.send_and_wait(topic, data, partition=0, headers=headers)).offset
                for data, headers in rows
            ]
        finally:
            await producer.stop()

    return asyncio.run(send())
