"""The hub on Kafka at batch load, against a bare consume-and-produce of the same bytes.

One broker, one run: a scenario's frames to the hub are put on its topics, as the relay would.
Then (a) a bare aiokafka loop reads them all and writes the same bytes to another topic, and
(b) the hub reads them all: checks seals, decides, journals, commits, signs and publishes.
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
from aiokafka import TopicPartition
from aiokafka.admin import NewTopic

from lab import world
from lab.reading import duration_us
from lab.scenario import Scenario
from lab.world import build
from messaging.codec import encode_frame
from messaging.drivers import client
from messaging.drivers.client import Connection
from messaging.drivers.clock import Clock
from messaging.drivers.kafka import KafkaNode
from messaging.durable import AT, ORDER, Durable
from messaging.envelope import Envelope
from messaging.identity import NO_DIGEST, domain_of, read_signer, read_verifier, write_keys
from messaging.store import Store
from messaging.topics import routes, topic_of
from messaging.units import HUB, MARKET, MONITOR, ORACLE, TRADERS, Micros

DOMAIN = domain_of("benchmark", "throughput", HUB)


class Rates(msgspec.Struct, frozen=True):
    """Messages a second, and what the hub did for them.

    Attributes:
        bare_per_s: consumed and produced by a bare aiokafka loop.
        deciding_per_s: through hub and channels in memory, with nothing around them.
        hub_per_s: through the hub's process: checked, journalled, signed, published.
        ratio: hub over bare.
    """

    messages: int
    bare_per_s: int
    deciding_per_s: int
    hub_per_s: int
    ratio: float
    hub_events: int
    hub_published: int


async def fill(
    scenario: Scenario, keys: Path, connection: Connection, clock: Clock
) -> dict[str, int]:
    """Put all frames to the hub on its topics; return how many there are, by topic."""
    names = world.names_of(scenario)
    admin, producer = client.admin(connection), client.producer(connection)
    await admin.start()
    topics = {topic for route in routes(names) for topic in (route.topic, route.read_from)}
    topics |= {"bare", "dlq.hub"}
    await admin.create_topics([NewTopic(topic, 1, 1) for topic in sorted(topics)])
    await admin.close()
    signers = {name: read_signer(keys, name, DOMAIN) for name in (*names, ORACLE)}
    heads: dict[str, bytes] = {}
    sealed: dict[tuple[str, int], bytes] = {}
    counts: dict[str, int] = {}
    await producer.start()
    sends = []
    for record in build(scenario).driver().run():
        for effect in record.effects:
            if type(effect) is Envelope and effect.receiver == HUB:
                topic = topic_of(effect)
                before = heads.get(topic, NO_DIGEST) if effect.seq else NO_DIGEST
                signer = signers[effect.sender]
                if effect.seq and (topic, effect.seq) in sealed:
                    continue
                data, digest = signer.seal(encode_frame(effect), before)
                if effect.seq:
                    heads[topic] = digest
                sealed[topic, effect.seq] = data
        event = record.event
        if record.node == HUB and type(event) is Envelope:
            topic = topic_of(event)
            target = f"delivered.{topic}"
            headers = [(AT, str(record.at_us).encode()), (ORDER, b"%d.1.0" % event.sent_us)]
            data = sealed[topic, event.seq]
            written_ms = clock.epoch_ns // 1_000_000 + record.at_us // 1_000 + 1
            sent = await producer.send(
                target, data, partition=0, headers=headers, timestamp_ms=written_ms
            )
            sends.append(sent)
            counts[target] = counts.get(target, 0) + 1
    await asyncio.gather(*sends)
    await producer.stop()
    return counts


async def bare(counts: Mapping[str, int], connection: Connection) -> float:
    """Consume all, produce the same bytes; return the seconds it took."""
    consumer, producer = client.consumer(connection), client.producer(connection)
    await consumer.start()
    await producer.start()
    partitions = [TopicPartition(topic, 0) for topic in counts]
    consumer.assign(partitions)
    for partition in partitions:
        consumer.seek(partition, 0)
    left, sends = sum(counts.values()), []
    started_s = time.perf_counter()
    while left:
        for records in (await consumer.getmany(timeout_ms=100, max_records=500)).values():
            left -= len(records)
            for record in records:
                sent = await producer.send(
                    "bare", record.value, partition=0, headers=list(record.headers)
                )
                sends.append(sent)
    await asyncio.gather(*sends)
    took_s = time.perf_counter() - started_s
    await consumer.stop()
    await producer.stop()
    return took_s


async def hub(
    scenario: Scenario,
    folder: Path,
    counts: Mapping[str, int],
    connection: Connection,
    clock: Clock,
) -> tuple[float, int, int]:
    """Let the hub read all; return seconds, events it handled, records it published."""
    names = world.names_of(scenario)
    with Store(folder / "hub.db", {"role": HUB}) as store:
        endpoint = world.hub_of(scenario, world.lanes_of(scenario), world.deposits_of(scenario))
        node = KafkaNode(
            Durable(endpoint, store, read_signer(folder, HUB, DOMAIN)),
            store,
            routes(names),
            connection=connection,
            verifier=read_verifier(folder, DOMAIN),
            ranks={who: place for place, who in enumerate((ORACLE, *names, MONITOR))},
            clock=clock,
            until_us=duration_us(scenario),
            settle_us=Micros(0),
        )
        started_s = time.perf_counter()
        await node.run(asyncio.Event(), lambda: None)
        took_s = time.perf_counter() - started_s
        assert node.taken == sum(counts.values()), f"expected all messages, found {node.taken}"
        return took_s, node.events, node.published


def decide(scenario: Scenario) -> float:
    """Return the seconds that the hub's decisions take alone, in memory."""
    events = [
        (record.at_us, record.event)
        for record in build(scenario).driver().run()
        if record.node == HUB
    ]
    endpoint = world.hub_of(scenario, world.lanes_of(scenario), world.deposits_of(scenario))
    endpoint.start()
    started_s = time.perf_counter()
    for at_us, event in events:
        endpoint.handle(at_us, event)
    return time.perf_counter() - started_s


def measure(scenario: Scenario, folder: Path, connection: Connection) -> Rates:
    """Measure both, one after the other, on topics of their own broker."""
    import uvloop

    names = world.names_of(scenario)
    write_keys(folder, (HUB, *names, MARKET, ORACLE, TRADERS))
    past_ns = duration_us(scenario) * 1_000 + 10**12  # everything is due
    clock = Clock(time.time_ns() - past_ns, 1.0)
    counts = uvloop.run(fill(scenario, folder, connection, clock))
    messages = sum(counts.values())
    bare_s = uvloop.run(bare(counts, connection))
    hub_s, events, published = uvloop.run(hub(scenario, folder, counts, connection, clock))
    return Rates(
        messages=messages,
        deciding_per_s=round(messages / decide(scenario)),
        bare_per_s=round(messages / bare_s),
        hub_per_s=round(messages / hub_s),
        ratio=round(bare_s / hub_s, 3),
        hub_events=events,
        hub_published=published,
    )
