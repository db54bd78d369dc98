"""One scenario in virtual time and on Kafka: the same log, byte for byte."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from aiokafka import TopicPartition

from lab import running, ways, world
from lab.stack.broker import Broker
from lab.stack.journals import Journals, verify
from lab.stack.plan import WORLD
from lab.world import build
from messaging.codec import decode_frame
from messaging.drivers import client
from messaging.drivers.client import Connection
from messaging.headers import AT, read_order
from messaging.identity import Sealed
from messaging.network import Network
from messaging.topics import routes
from messaging.units import HUB
from tests.kafka.stack import LIMIT_S, Stack, scenario

pytestmark = pytest.mark.kafka
SPEEDS = (60.0, 20.0)  # the second if the machine was too busy for the first


def test_a_live_run_has_the_log_of_the_same_run_in_virtual_time(
    broker: Broker, tmp_path: Path
) -> None:
    one = scenario(
        2,
        latency="constant:120s",
        duration_h=0.4,
        prices={"start_hours": 4.4},
        traders={"accounts": 60, "open_until_h": 0.1, "leverage_min": 6.0, "leverage_max": 7.0},
    )
    virtual = running.run(build(one)).story.result
    assert virtual.liquidations > 0
    assert virtual.reservations.granted > 0

    for speed in SPEEDS:
        folder = tmp_path / f"speed{speed:.0f}"
        with Stack(
            folder, broker.bootstrap, one, speed=speed, settle_ms=1_500, lead_s=10.0
        ) as stack:
            stack.start()
            for role in (*stack.spokes, HUB, WORLD):
                assert stack.ended(role) == 0
            late = sum(stack.status(role).late for role in (*stack.spokes, HUB))
            asyncio.run(_check_delays(stack))
        verify(folder)
        journals = Journals(folder)
        live = running.run(journals.world, driver=journals).story.result
        if late == 0:
            assert live.digest == virtual.digest
            assert live.liquidations == virtual.liquidations
            assert live.reservations == virtual.reservations
            return
    pytest.fail(f"{late} events came late even at speed {SPEEDS[-1]:.0f}: too busy a machine")


async def _check_delays(stack: Stack) -> None:
    """Each frame arrived when the dice of virtual time say that it does."""
    lanes = world.lanes_of(stack.scenario)
    network = Network(stack.scenario.seed, ways.links(stack.scenario, lanes))
    sealed = msgspec.msgpack.Decoder(Sealed)
    consumer = client.consumer(Connection(stack.plan.bootstrap))
    await consumer.start()
    checked = 0
    for route in routes(stack.spokes):
        if not route.relayed:
            continue
        partition = TopicPartition(route.read_from, 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        end = (await consumer.end_offsets([partition]))[partition]
        records = []
        async with asyncio.timeout(LIMIT_S):
            while len(records) < end:
                fetched = await consumer.getmany(partition, timeout_ms=500)
                records += fetched.get(partition, [])
        frames = [
            (decode_frame(sealed.decode(record.value).frame), dict(record.headers))
            for record in records
        ]
        # Draws of resends are counted in the order of sending, so they are asked for in that.
        frames.sort(key=lambda pair: read_order(pair[1], pair[0]).number)
        for frame, headers in frames:
            left_us = read_order(headers, frame).left_us
            assert int(headers[AT]) in network.arrivals(frame, left_us)
            checked += 1
    await consumer.stop()
    assert checked > 500
