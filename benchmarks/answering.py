"""How long the hub takes to answer at a steady load, against a bare echo of the same records.

Frames to the hub go onto its topics when they are due, the clock so fast that about `rate` come in
a second. An answer counts from just before the record is sent that lets it be given to when it is
read back from the broker: once with the hub, once with a loop that only copies requests.
"""

import asyncio
import time
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.throughput import (
    ANSWER,
    BARE,
    REQUEST,
    Kinds,
    Load,
    hub_node,
    load_of,
    make_topics,
    rids,
)
from lab import world
from lab.scenario import Scenario
from lab.stack.process import collect_rarely
from messaging.codec import decode_frame
from messaging.drivers import client
from messaging.drivers.client import Connection
from messaging.drivers.clock import Clock
from messaging.identity import Sealed
from messaging.key_files import write_keys
from messaging.store import Store
from messaging.units import HUB, ORACLE

LEAD_S = 5.0  # for the other process to be up
AFTER_S = 2.0

_sealed = msgspec.msgpack.Decoder(Sealed)


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds from a request to its answer: median and 99th percentile, of how many."""

    p50_ms: float
    p99_ms: float
    answers: int
    messages_per_s: int


class _Wait(NamedTuple):
    """What is waited for: on which topics, which messages, and which ids each record lets come."""

    topics: list[str]
    kinds: Kinds
    lets: list[tuple[bytes, ...]]


def measure(
    scenario: Scenario, folder: Path, connection: Connection, *, rate: int, seconds: float
) -> tuple[Latency, Latency]:
    """Return the latency through the hub, and of a bare echo, on a broker of their own."""
    write_keys(folder, (HUB, *world.names_of(scenario), ORACLE))
    load, _ = load_of(scenario, folder)
    speed = rate * load[-1].at_us / 1e6 / len(load)
    uvloop.run(make_topics(scenario, connection))
    found = []
    for target in (_hub, _echo):
        clock = Clock(time.time_ns() + int(LEAD_S * 1e9), speed)
        arguments = (scenario, folder, connection, clock, seconds)
        child = get_context("spawn").Process(target=target, args=arguments)
        child.start()
        names = world.names_of(scenario)
        if target is _echo:
            wait = _Wait([BARE], REQUEST, [one.asks for one in load])
        else:
            topics = [f"to-{name}.reservation" for name in names]
            wait = _Wait(topics, ANSWER, [one.lets for one in load])
        found.append(uvloop.run(_ask(load, connection, clock, wait, seconds)))
        child.join()
    return found[0], found[1]


def _hub(
    scenario: Scenario, folder: Path, connection: Connection, clock: Clock, seconds: float
) -> None:
    async def run() -> None:
        with Store(folder / "answering.db", {"role": HUB}) as store:
            node = hub_node(scenario, folder, store, connection, clock, settle_us=None)
            collect_rarely()
            await node.run(_stop_after(clock, seconds), lambda: None)

    uvloop.run(run())


def _echo(
    scenario: Scenario, folder: Path, connection: Connection, clock: Clock, seconds: float
) -> None:
    async def run() -> None:
        consumer, producer = client.consumer(connection), client.producer(connection)
        await consumer.start()
        await producer.start()
        topics = [f"delivered.from-{name}.reservation" for name in world.names_of(scenario)]
        await _at_the_end(consumer, topics)
        stop = _stop_after(clock, seconds)
        while not stop.is_set():
            fetched = await consumer.getmany(timeout_ms=20)
            for record in (record for records in fetched.values() for record in records):
                await producer.send(BARE, record.value, partition=0)
        await consumer.stop()
        await producer.stop()

    uvloop.run(run())


def _stop_after(clock: Clock, seconds: float) -> asyncio.Event:
    stop = asyncio.Event()
    wait_s = clock.seconds_until(0) + seconds + AFTER_S
    asyncio.get_running_loop().call_later(wait_s, stop.set)
    return stop


async def _at_the_end(consumer: AIOKafkaConsumer, topics: list[str]) -> None:
    partitions = [TopicPartition(topic, 0) for topic in topics]
    consumer.assign(partitions)
    for partition, offset in (await consumer.end_offsets(partitions)).items():
        consumer.seek(partition, offset)


async def _ask(
    load: Load, connection: Connection, clock: Clock, wait: _Wait, seconds: float
) -> Latency:
    """Send what is due, read answers, and match them by id."""
    asked: dict[bytes, float] = {}
    took_ms: list[float] = []
    sent = 0
    consumer, producer = client.consumer(connection), client.producer(connection)
    await consumer.start()
    await producer.start()
    await _at_the_end(consumer, wait.topics)

    async def read() -> None:
        while True:
            fetched = await consumer.getmany(timeout_ms=20)
            now_s = time.perf_counter()
            for record in (record for records in fetched.values() for record in records):
                frame = decode_frame(_sealed.decode(record.value).frame)
                for rid in rids((frame,), wait.kinds):
                    began_s = asked.pop(rid, None)
                    if began_s is not None:
                        took_ms.append((now_s - began_s) * 1e3)

    reading = asyncio.create_task(read())
    for one, lets in zip(load, wait.lets, strict=True):
        wait_s = clock.seconds_until(one.at_us)
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        if -clock.seconds_until(0) > seconds:
            break
        asked |= dict.fromkeys(lets, time.perf_counter())
        await producer.send(one.topic, one.data, partition=0, headers=list(one.headers))
        sent += 1
    await asyncio.sleep(AFTER_S / 2)
    reading.cancel()
    await consumer.stop()
    await producer.stop()
    took_ms.sort()
    assert took_ms, "expected answers, found none"
    return Latency(
        p50_ms=round(took_ms[len(took_ms) // 2], 2),
        p99_ms=round(took_ms[len(took_ms) * 99 // 100], 2),
        answers=len(took_ms),
        messages_per_s=round(sent / seconds),
    )
