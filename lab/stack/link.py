"""Change a link while a stack runs: an operator's word to the relay, sealed (P6)."""

import asyncio
from pathlib import Path

from aiokafka.errors import KafkaError

from lab import ways, world
from lab.scenario import Scenario
from lab.stack.plan import KEYS, Plan, principal_of
from lab.stack.prepare import in_use
from messaging.codec import encode_frame
from messaging.drivers import client
from messaging.drivers.clock import Clock
from messaging.envelope import NO_HEIGHT, Envelope
from messaging.errors import InputRefused
from messaging.identity import NO_DIGEST, read_signer
from messaging.messages import Family, LinkChanged
from messaging.topics import LINK_TOPIC
from messaging.units import OPERATOR, RELAY, Micros

DEADLINE_S = 10.0


def change_link(folder: Path, plan: Plan, scenario: Scenario, change: LinkChanged) -> Micros:
    """Tell the relay that a link is different from now on; return the scenario time that is.

    Raises:
        FrameRefused: no such link, or no such latency.
        InputRefused: the stack does not run, or there is no broker.
    """
    ways.changed(scenario, ways.links(scenario, world.lanes_of(scenario)), change)
    if not in_use(folder):
        raise InputRefused(str(folder), expected="a stack that runs", found="one that does not")
    now_us = Micros(max(0, Clock(plan.epoch_ns, plan.speed).now_us()))
    frame = Envelope(OPERATOR, RELAY, Family.CONTROL, 0, 0, now_us, NO_HEIGHT, NO_HEIGHT, change)
    signer = read_signer(folder / KEYS, OPERATOR, plan.domain)
    sealed, _ = signer.seal(encode_frame(frame), NO_DIGEST)
    try:
        asyncio.run(_publish(plan.connection(folder, principal_of(OPERATOR)), sealed))
    except (KafkaError, TimeoutError, OSError) as error:
        found = str(error) or type(error).__name__
        raise InputRefused(plan.bootstrap, expected="a broker", found=found) from None
    return now_us


async def _publish(connection: client.Connection, sealed: bytes) -> None:
    producer = client.producer(connection)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await producer.start()
            await producer.send_and_wait(LINK_TOPIC, sealed, partition=0)
    finally:
        await producer.stop()
