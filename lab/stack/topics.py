"""Make the topics of a live stack."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, for_code

from messaging.drivers import client
from messaging.drivers.client import TOPIC_BYTES_MAX, Connection
from messaging.errors import InputRefused
from messaging.topics import DELIVERED, dead_letters, routes
from messaging.units import HUB, RELAY, NodeId

RETENTION_MS = 7 * 86_400_000
DEADLINE_S = 30.0
POLL_S = 0.05
REPLICAS, IN_SYNC = 3, 2  # where there is more than one broker
SETTINGS = {
    "cleanup.policy": "delete",
    "retention.ms": str(RETENTION_MS),
    "max.message.bytes": str(TOPIC_BYTES_MAX),
    "compression.type": "uncompressed",
}
# A table's topic holds the newest value of each key.
TABLE_SETTINGS = SETTINGS | {"cleanup.policy": "compact"}


def topic_names(spokes: Iterable[NodeId]) -> tuple[str, ...]:
    """Return every topic of a stack with these spokes, the dead letters too."""
    spokes, names = tuple(spokes), []
    for route in routes(spokes):
        names += [route.topic, DELIVERED + route.topic] if route.relayed else [route.topic]
    names += [dead_letters(node) for node in (HUB, *spokes, RELAY)]
    return tuple(names)


async def create_topics(
    connection: Connection,
    spokes: Iterable[NodeId],
    *,
    extra: Iterable[str] = (),
    fresh: bool = False,
    keep: bool = False,
) -> None:
    """Make all topics of a stack, one partition each, and wait until they can be used.

    Args:
        connection: as one who may make topics.
        spokes: their names.
        extra: topics of tables, which keep the newest value of each key.
        fresh: delete those of ours that exist, with what is in them.
        keep: use those that exist as they are.

    Raises:
        InputRefused: one exists and neither is asked for; or the broker refuses, or is not there.
    """
    wanted = dict.fromkeys(topic_names(spokes), SETTINGS) | dict.fromkeys(extra, TABLE_SETTINGS)
    async with administrator(connection) as admin:
        have = [name for name in wanted if name in await admin.list_topics()]
        if have and fresh:
            await _delete(admin, have)
        elif have and not keep:
            expected = "a broker without topics of a stack, or --fresh to delete them"
            raise InputRefused(connection.bootstrap, expected=expected, found=f"topic {have[0]}")
        elif have:
            wanted = {name: wanted[name] for name in wanted if name not in have}
        if wanted:
            await _create(admin, wanted)
        await _until_ready(admin, wanted)


@asynccontextmanager
async def administrator(connection: Connection) -> AsyncIterator[AIOKafkaAdminClient]:
    """Yield an admin client.

    Raises:
        InputRefused: the broker is not there, or refuses what is asked within.
    """
    with refused(connection):
        admin = client.admin(connection)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await admin.start()
                yield admin
        finally:
            await admin.close()


@contextmanager
def refused(connection: Connection) -> Iterator[None]:
    """Turn what Kafka raises within into InputRefused."""
    try:
        yield
    except (KafkaError, TimeoutError, OSError) as error:
        where, found = connection.bootstrap, str(error) or type(error).__name__
        raise InputRefused(where, expected="a broker to set up", found=found) from None


async def _create(admin: AIOKafkaAdminClient, wanted: Mapping[str, Mapping[str, str]]) -> None:
    brokers = len((await admin.describe_cluster())["brokers"])
    copies = 1 if brokers == 1 else REPLICAS
    safe = {} if brokers == 1 else {"min.insync.replicas": str(IN_SYNC)}
    topics = [
        NewTopic(
            name, num_partitions=1, replication_factor=copies, topic_configs=dict(chosen) | safe
        )
        for name, chosen in wanted.items()
    ]
    answer = await admin.create_topics(topics)
    _raise_errors([(topic, code, why or "") for topic, code, why in answer.topic_errors])


async def _delete(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    answer = await admin.delete_topics(names)
    _raise_errors([(topic, code, "") for topic, code in answer.topic_error_codes])
    while not {*names}.isdisjoint(await admin.list_topics()):
        await asyncio.sleep(POLL_S)


async def _until_ready(admin: AIOKafkaAdminClient, names: Iterable[str]) -> None:
    """Wait until each topic has a leader."""
    missing = [*names]
    while missing:
        ready = {
            topic["topic"]
            for topic in await admin.describe_topics(missing)
            if topic["partitions"] and all(one["leader"] >= 0 for one in topic["partitions"])
        }
        missing = [name for name in missing if name not in ready]
        if missing:
            await asyncio.sleep(POLL_S)


def _raise_errors(answers: Iterable[tuple[str, int, str]]) -> None:
    for topic, code, why in answers:
        if code:
            raise for_code(code)(f"{topic}: {why or for_code(code).__name__}")
