"""The hub on a real Kafka: how many messages a second, and how soon it answers.

    python -m benchmarks.throughput [--hours 24] [--rate 1000] [--seconds 20]

Starts a broker. One run: a scenario's frames to the hub are put on its topics, as the relay would.
Then (a) a bare aiokafka loop reads them all and writes the same bytes to another topic, (b) the hub
reads them all: checks seals, decides, journals, commits, signs and publishes, and (a) once more.
Beside it: what of that takes how long with no disk and no broker.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec
import uvloop
from aiokafka import TopicPartition
from aiokafka.admin import NewTopic

from benchmarks.scenario import MARCH_2020
from lab import reading, world
from lab.reading import duration_us
from lab.scenario import Scenario
from lab.stack.broker import Broker
from lab.stack.process import collect_rarely
from lab.world import build
from messaging.codec import encode_frame
from messaging.drivers import client
from messaging.drivers.client import Connection
from messaging.drivers.clock import Clock
from messaging.drivers.kafka import COMMIT_EVENTS, KafkaNode
from messaging.durable import Durable
from messaging.envelope import Envelope
from messaging.headers import AT, ORDER
from messaging.identity import NO_DIGEST, domain_of, read_entry
from messaging.key_files import read_signer, read_verifier, write_keys
from messaging.memory import MemoryStore
from messaging.messages import ReservationGranted, ReservationRejected, ReservationRequested
from messaging.node import Event, TimerFired
from messaging.store import Entry, Headers, Store
from messaging.topics import routes, topic_of
from messaging.units import HUB, MONITOR, ORACLE, Micros

DOMAIN = domain_of("benchmark", "throughput", HUB)
BARE = "bare"

Kinds: TypeAlias = tuple[
    type[ReservationRequested] | type[ReservationGranted] | type[ReservationRejected], ...
]
REQUEST: Kinds = (ReservationRequested,)
ANSWER: Kinds = (ReservationGranted, ReservationRejected)


class Sent(NamedTuple):
    """One record for the hub.

    Attributes:
        asks: ids of the reservations that it asks for.
        lets: ids of those that the hub answers as soon as it has the record: what came out of
            order is answered with the frame that was missing.
    """

    at_us: Micros
    topic: str
    data: bytes
    headers: Headers
    asks: tuple[bytes, ...]
    lets: tuple[bytes, ...]


Load: TypeAlias = Sequence[Sent]


class Run(NamedTuple):
    """How long the hub took for a load, its journal then, and how many records it published."""

    took_s: float
    journal: Sequence[Entry]
    published: int


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Messages a second, and what the hub did for them.

    Attributes:
        bare_per_s: consumed and produced by a bare aiokafka loop; the better of two runs.
        deciding_per_s: through hub and channels in memory, with nothing around them.
        keeping_per_s: the same as a durable node does it, its frames linked and signed, in memory:
            what no process beside it could take off the hub's but for the signatures.
        hub_per_s: through the hub's process: checked, journalled, signed, published.
        ratio: hub over bare.
    """

    messages: int
    bare_per_s: int
    deciding_per_s: int
    keeping_per_s: int
    hub_per_s: int
    ratio: float
    hub_events: int
    hub_published: int


def load_of(scenario: Scenario, keys: Path) -> tuple[list[Sent], list[tuple[Micros, Event]]]:
    """Return what comes to the hub in virtual time, as records; and all its events."""
    signers = {
        name: read_signer(keys, name, DOMAIN) for name in (*world.names_of(scenario), ORACLE)
    }
    heads: dict[str, bytes] = {}
    sealed: dict[Envelope, bytes] = {}
    load: list[Sent] = []
    events: list[tuple[Micros, Event]] = []
    for record in build(scenario).driver().run():
        for effect in record.effects:
            if type(effect) is Envelope and effect.receiver == HUB and effect not in sealed:
                topic = topic_of(effect)
                before = heads.get(topic, NO_DIGEST) if effect.seq else NO_DIGEST
                sealed[effect], digest = signers[effect.sender].seal(encode_frame(effect), before)
                if effect.seq:
                    heads[topic] = digest
        if record.node != HUB:
            continue
        events.append((record.at_us, record.event))
        if type(record.event) is Envelope:
            frame = record.event
            headers = ((AT, b"%d" % record.at_us), (ORDER, b"%d.1.0" % frame.sent_us))
            asks, lets = rids((frame,), REQUEST), rids(record.effects, ANSWER)
            topic = f"delivered.{topic_of(frame)}"
            load.append(Sent(record.at_us, topic, sealed[frame], headers, asks, lets))
    return load, events


def rids(frames: Iterable[object], kinds: Kinds) -> tuple[bytes, ...]:
    """Return what reservations messages of some kinds are about."""
    return tuple(
        frame.message.rid
        for frame in frames
        if isinstance(frame, Envelope) and isinstance(frame.message, kinds)
    )


async def make_topics(scenario: Scenario, connection: Connection) -> None:
    """Make the hub's topics."""
    admin = client.admin(connection)
    await admin.start()
    topics = {
        topic
        for route in routes(world.names_of(scenario))
        for topic in (route.topic, route.read_from)
    }
    wanted = sorted(topics | {BARE, "dlq.hub"})
    await admin.create_topics([NewTopic(topic, 1, 1) for topic in wanted])
    await admin.close()


async def fill(load: Load, connection: Connection, clock: Clock) -> None:
    """Put all records on their topics, written when they were due."""
    producer = client.producer(connection)
    await producer.start()
    sends = []
    for one in load:
        written_ms = clock.epoch_ns // 1_000_000 + one.at_us // 1_000 + 1
        sent = await producer.send(
            one.topic, one.data, partition=0, headers=list(one.headers), timestamp_ms=written_ms
        )
        sends.append(sent)
    await asyncio.gather(*sends)
    await producer.stop()


async def bare(load: Load, connection: Connection) -> float:
    """Consume all, produce the same bytes; return the seconds it took."""
    consumer, producer = client.consumer(connection), client.producer(connection)
    await consumer.start()
    await producer.start()
    partitions = [TopicPartition(topic, 0) for topic in {one.topic for one in load}]
    consumer.assign(partitions)
    for partition in partitions:
        consumer.seek(partition, 0)
    left, sends = len(load), []
    started_s = time.perf_counter()
    while left:
        for records in (await consumer.getmany(timeout_ms=100, max_records=1_000)).values():
            left -= len(records)
            for record in records:
                sent = await producer.send(
                    BARE, record.value, partition=0, headers=list(record.headers)
                )
                sends.append(sent)
    await asyncio.gather(*sends)
    took_s = time.perf_counter() - started_s
    await consumer.stop()
    await producer.stop()
    return took_s


def hub_node(
    scenario: Scenario,
    folder: Path,
    store: Store,
    connection: Connection,
    clock: Clock,
    *,
    settle_us: Micros | None,
) -> KafkaNode:
    """Return a hub that reads its topics from the beginning."""
    names = world.names_of(scenario)
    endpoint = world.hub_of(scenario, world.lanes_of(scenario), world.deposits_of(scenario))
    return KafkaNode(
        Durable(endpoint, store, read_signer(folder, HUB, DOMAIN)),
        store,
        routes(names),
        connection=connection,
        verifier=read_verifier(folder, DOMAIN),
        ranks={who: place for place, who in enumerate((ORACLE, *names, MONITOR))},
        clock=clock,
        until_us=duration_us(scenario),
        settle_us=settle_us,
        nonce=b"",
    )


async def hub(
    scenario: Scenario, folder: Path, load: Load, connection: Connection, clock: Clock
) -> Run:
    """Let the hub read all."""
    told_s: list[float] = []  # the last time is when all was published
    with Store(folder / "hub.db", {"role": HUB}) as store:
        node = hub_node(scenario, folder, store, connection, clock, settle_us=Micros(0))
        collect_rarely()
        started_s = time.perf_counter()
        await node.run(asyncio.Event(), lambda: told_s.append(time.perf_counter()))
        assert node.taken == len(load), f"expected {len(load)} messages, found {node.taken}"
        return Run(told_s[-1] - started_s, list(store.entries()), node.published)


def decide(scenario: Scenario, events: Sequence[tuple[Micros, Event]]) -> float:
    """Return the seconds that the hub's decisions take alone, in memory."""
    endpoint = world.hub_of(scenario, world.lanes_of(scenario), world.deposits_of(scenario))
    endpoint.start()
    started_s = time.perf_counter()
    for at_us, event in events:
        endpoint.handle(at_us, event)
    return time.perf_counter() - started_s


def keep(scenario: Scenario, folder: Path, journal: Sequence[Entry]) -> float:
    """Return the seconds that a durable hub takes in memory for what is in a journal."""
    endpoint = world.hub_of(scenario, world.lanes_of(scenario), world.deposits_of(scenario))
    durable = Durable(endpoint, MemoryStore(), read_signer(folder, HUB, DOMAIN))
    inputs = [(Micros(one.at_us), one.event, *read_entry(one.event)) for one in journal]
    started_s = time.perf_counter()
    for place, (at_us, data, event, link) in enumerate(inputs):
        if type(event) is TimerFired:
            durable.fire(at_us, event.name)
        else:
            assert type(event) is Envelope
            assert link is not None
            durable.take(at_us, event, data, link)
        if place % COMMIT_EVENTS == 0:
            durable.commit({}, 0)
    return time.perf_counter() - started_s


def measure(scenario: Scenario, folder: Path, connection: Connection) -> Rates:
    """Measure all three, one after the other, on a broker of their own."""
    write_keys(folder, (HUB, *world.names_of(scenario), ORACLE))
    load, events = load_of(scenario, folder)
    past_ns = duration_us(scenario) * 1_000 + 10**12  # everything is due
    clock = Clock(time.time_ns() - past_ns, 1.0)
    uvloop.run(make_topics(scenario, connection))
    uvloop.run(fill(load, connection, clock))
    bare_s = uvloop.run(bare(load, connection))
    run = uvloop.run(hub(scenario, folder, load, connection, clock))
    bare_s = min(bare_s, uvloop.run(bare(load, connection)))
    return Rates(
        messages=len(load),
        bare_per_s=round(len(load) / bare_s),
        deciding_per_s=round(len(load) / decide(scenario, events)),
        keeping_per_s=round(len(load) / keep(scenario, folder, run.journal)),
        hub_per_s=round(len(load) / run.took_s),
        ratio=round(bare_s / run.took_s, 3),
        hub_events=len(run.journal),
        hub_published=run.published,
    )


def march_2020(hours: float) -> Scenario:
    """Return the first hours of the scenario that is measured."""
    tables = reading.read_file(MARCH_2020)
    tables["duration_h"] = hours
    return reading.check(tables, directory=MARCH_2020.parent)


def main() -> None:
    """Run the command line."""
    from benchmarks import answering

    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0, help="of march_2020, at batch load")
    parser.add_argument("--rate", type=int, default=1_000, help="messages a second, steady")
    parser.add_argument("--seconds", type=float, default=20.0, help="of steady load")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        with Broker(Path(scratch) / "one") as broker:
            rates = measure(
                march_2020(given.hours), Path(scratch) / "batch", Connection(broker.bootstrap)
            )
            sys.stdout.write(msgspec.json.encode(rates).decode() + "\n")
        with Broker(Path(scratch) / "two") as broker:
            through_hub, echoed = answering.measure(
                march_2020(given.hours),
                Path(scratch) / "steady",
                Connection(broker.bootstrap),
                rate=given.rate,
                seconds=given.seconds,
            )
    found = {"hub": through_hub, "bare echo": echoed}
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")


if __name__ == "__main__":
    main()
