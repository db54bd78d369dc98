"""Change a link while a stack runs: a person's word, sealed (P6)."""

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
from messaging.identity import NO_DIGEST
from messaging.key_files import read_signer
from messaging.messages import Family, LinkChanged, Message
from messaging.topics import topic_of
from messaging.units import OPERATOR, RELAY, Micros, NodeId

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
    return say(folder, plan, OPERATOR, RELAY, change)


def say(folder: Path, plan: Plan, sender: NodeId, to: NodeId, message: Message) -> Micros:
    """Seal a person's word and put it on its topic; return the scenario time that it names.

    Raises:
        InputRefused: no key of the sender, or no broker.
    """
    now_us = Micros(max(0, Clock(plan.epoch_ns, plan.speed).now_us()))
    frame = Envelope(sender, to, Family.CONTROL, 0, 0, now_us, NO_HEIGHT, NO_HEIGHT, message)
    signer = read_signer(folder / KEYS, sender, plan.domain)
    sealed, _ = signer.seal(encode_frame(frame), NO_DIGEST)
    connection = plan.connection(folder, principal_of(sender))
    try:
        asyncio.run(_publish(connection, topic_of(frame), sealed))
    except (KafkaError, TimeoutError, OSError) as error:
        found = str(error) or type(error).__name__
        raise InputRefused(plan.bootstrap, expected="a broker", found=found) from None
    return now_us


async def _publish(connection: client.Connection, topic: str, sealed: bytes) -> None:
    producer = client.producer(connection)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await producer.start()
            await producer.send_and_wait(topic, sealed, partition=0)
    finally:
        await producer.stop()
