"""How every process of ours talks to Kafka: settings that must hold, written once.

Source of each: docs/kafka.md, section Settings.
"""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError

from messaging.errors import InputRefused

TOPIC_BYTES_MAX = 65_536  # a sealed frame, and the record batch around it
FETCH_BYTES_MAX = 262_144
FETCH_WAIT_MS = 50  # how often an idle topic is heard of
REQUEST_MS = 10_000


class Connection(msgspec.Struct, frozen=True):
    """Where the broker is, and who we are there.

    Attributes:
        bootstrap: HOST:PORT.
        username: SASL user; empty for a broker without authentication.
        password_file: file with the password.
        ca_file: PEM of the authority that signed the broker's certificate.
    """

    bootstrap: str
    username: str = ""
    password_file: str = ""
    ca_file: str = ""


def settings(connection: Connection) -> dict[str, Any]:
    """Return what consumer, producer and admin client have in common.

    Raises:
        InputRefused: a file of the connection cannot be read.
    """
    common: dict[str, Any] = {
        "bootstrap_servers": connection.bootstrap,
        "request_timeout_ms": REQUEST_MS,
        "retry_backoff_ms": 100,
    }
    if not connection.username:
        return common
    try:
        password = Path(connection.password_file).read_text().strip()
        context = ssl.create_default_context(cafile=connection.ca_file)
    except OSError as error:
        reason = error.strerror or str(error)
        where = f"{connection.password_file} or {connection.ca_file}"
        raise InputRefused(where, expected="a readable file", found=reason) from None
    return common | {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": connection.username,
        "sasl_plain_password": password,
        "ssl_context": context,
    }


def consumer(connection: Connection) -> AIOKafkaConsumer:
    """Return a consumer to be assigned by hand; offsets live with the state (P96)."""
    return AIOKafkaConsumer(
        **settings(connection),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_uncommitted",
        max_partition_fetch_bytes=FETCH_BYTES_MAX,
        fetch_max_wait_ms=FETCH_WAIT_MS,
        check_crcs=True,
    )


def producer(connection: Connection) -> AIOKafkaProducer:
    """Return a producer whose acknowledged records are durable at the broker (P97)."""
    return AIOKafkaProducer(
        **settings(connection),
        enable_idempotence=True,
        acks="all",
        linger_ms=0,
        max_request_size=TOPIC_BYTES_MAX * 16,
        max_batch_size=TOPIC_BYTES_MAX - 1_024,
        compression_type=None,
    )


def admin(connection: Connection) -> AIOKafkaAdminClient:
    """Return a client that makes and describes topics."""
    return AIOKafkaAdminClient(**settings(connection))


async def started(
    consumer: AIOKafkaConsumer, stop: asyncio.Event, tell: Callable[[], None]
) -> bool:
    """Start a consumer once the broker is there; tell whether it was before `stop` was set."""
    while not stop.is_set():
        try:
            await consumer.start()
            return True
        except KafkaConnectionError:
            tell()
            await asyncio.sleep(0.5)
    return False


async def stop(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer, whatever it is at.

    One whose fetch waits for its next try ends its own `stop` with CancelledError, before it has
    closed its connections (aio-libs/aiokafka#647).
    """
    stopping = asyncio.create_task(consumer.stop())
    await asyncio.wait([stopping])
    if stopping.cancelled():
        await consumer._client.close()
    else:
        stopping.result()
