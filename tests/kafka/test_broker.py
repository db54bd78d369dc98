"""The broker that we start, on the real thing: what it keeps, and what its topics are like."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from lab.stack import java
from lab.stack.broker import Broker, answers, find
from lab.stack.topics import SETTINGS, administrator, create_topics, topic_names
from messaging.drivers import client
from messaging.drivers.client import Connection
from messaging.errors import InputRefused
from messaging.topics import routes
from messaging.units import NodeId
from tests.kafka.conftest import LIMIT_S, MakeTopic

SPOKES = (NodeId("alpha"), NodeId("beta"))
EXTRA = ("monitor-alpha-table",)
TIED = Path(java.__file__).with_name("tied.py")


async def publish(connection: Connection, topic: str, values: list[bytes]) -> None:
    producer = client.producer(connection)
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)
    finally:
        await producer.stop()


async def read(connection: Connection, topic: str) -> list[bytes]:
    """Return all that stands on a topic."""
    consumer, partition = client.consumer(connection), TopicPartition(topic, 0)
    await consumer.start()
    try:
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        values: list[bytes] = []
        while await consumer.position(partition) < end:
            fetched = await consumer.getmany(partition, timeout_ms=1_000)
            values += [record.value for record in fetched.get(partition, ())]
        return values
    finally:
        await consumer.stop()


def wait_until(true: Callable[[], bool]) -> None:
    until_s = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < until_s, "it has not happened"
        time.sleep(0.02)


@pytest.mark.kafka
async def test_what_was_acknowledged_outlives_a_kill(
    broker: Broker, connection: Connection, make_topic: MakeTopic
) -> None:
    topic, values = await make_topic(), [b"%d" % number for number in range(100)]
    await publish(connection, topic, values)
    pid = broker.pid
    broker.kill()
    assert broker.pid is None
    assert not answers(connection.bootstrap)

    broker.start()
    assert broker.pid not in (None, pid)
    assert broker.bootstrap == connection.bootstrap
    await publish(connection, topic, [b"after"])
    assert await read(connection, topic) == [*values, b"after"]


@pytest.mark.kafka
def test_a_frozen_broker_does_not_answer_until_it_goes_on(broker: Broker) -> None:
    broker.pause()
    try:
        assert not answers(broker.bootstrap)
    finally:
        broker.resume()
    wait_until(lambda: answers(broker.bootstrap))


@pytest.mark.kafka
def test_interrupts_of_our_terminal_do_not_reach_the_broker(broker: Broker) -> None:
    assert broker.pid is not None
    assert os.getsid(broker.pid) == broker.pid


@pytest.mark.kafka
def test_the_broker_is_on_loopback_only(broker: Broker) -> None:
    own = next(iter({info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}), "")
    settings = (broker.folder / "server.properties").read_text()
    listeners = [line for line in settings.splitlines() if "listeners=" in line and "://" in line]
    assert len(listeners) == 2
    assert all(
        part.startswith("127.0.0.1:") for line in listeners for part in line.split("://")[1:]
    )
    if own and not own.startswith("127.") and ":" not in own:
        port = broker.bootstrap.rpartition(":")[2]
        assert not answers(f"{own}:{port}")


@pytest.mark.kafka
def test_a_second_broker_in_the_same_folder_is_refused(broker: Broker) -> None:
    second = Broker(broker.folder)
    with pytest.raises(InputRefused, match=r"found another that answers at 127\.0\.0\.1:"):
        second.start()
    assert second.pid is None
    assert answers(broker.bootstrap)


@pytest.mark.kafka
def test_a_broker_that_dies_says_why_in_one_line(broker: Broker) -> None:
    broker.stop()
    assert broker.pid is None
    host, _, port = broker.bootstrap.rpartition(":")
    with socket.create_server((host, int(port))):
        with pytest.raises(InputRefused, match=r"exit code 1 .*Address already in use") as refused:
            broker.start()
        assert "\n" not in str(refused.value)
        assert broker.pid is None

    broker.start()
    assert answers(broker.bootstrap)


@pytest.mark.kafka
async def test_topics_have_one_partition_and_the_settings(connection: Connection) -> None:
    await create_topics(connection, SPOKES, extra=EXTRA, fresh=True)
    names = [*topic_names(SPOKES), *EXTRA]
    async with administrator(connection) as admin:
        described = {topic["topic"]: topic for topic in await admin.describe_topics(names)}
        asked = [ConfigResource(ConfigResourceType.TOPIC, name, SETTINGS) for name in names]
        answers_ = await admin.describe_configs(asked)
    found = {
        name: {entry[0]: entry[1] for entry in entries}
        for answer in answers_
        for _, _, _, name, entries in answer.resources
    }
    assert {len(described[name]["partitions"]) for name in names} == {1}
    for name in topic_names(SPOKES):
        assert found[name] == {
            "cleanup.policy": "delete",
            "retention.ms": "604800000",
            "max.message.bytes": "65536",
            "compression.type": "uncompressed",
        }
    assert found[EXTRA[0]]["cleanup.policy"] == "compact"


def test_every_route_has_its_topics_and_every_node_its_dead_letters() -> None:
    names = topic_names(SPOKES)
    assert len(names) == len({*names})
    assert {*names} == {
        *(route.topic for route in routes(SPOKES)),
        *(route.read_from for route in routes(SPOKES)),
        *("dlq.hub", "dlq.alpha", "dlq.beta", "dlq.relay"),
    }


@pytest.mark.kafka
async def test_topics_that_exist_are_refused_kept_or_made_anew(
    connection: Connection, make_topic: MakeTopic
) -> None:
    other, ours = await make_topic(), "from-alpha.reservation"
    await create_topics(connection, SPOKES[:1], fresh=True)
    await publish(connection, other, [b"theirs"])
    await publish(connection, ours, [b"ours"])

    with pytest.raises(InputRefused, match=r"--fresh to delete them, found topic \S+$"):
        await create_topics(connection, SPOKES)
    assert await read(connection, ours) == [b"ours"]

    await create_topics(connection, SPOKES, keep=True)
    assert await read(connection, ours) == [b"ours"]
    assert await read(connection, "from-beta.reservation") == []

    await create_topics(connection, SPOKES, fresh=True)
    assert await read(connection, ours) == []
    assert await read(connection, other) == [b"theirs"]


async def test_topics_of_a_broker_that_is_not_there_are_refused(free_port: int) -> None:
    with pytest.raises(InputRefused, match="expected a broker to set up"):
        await create_topics(Connection(f"127.0.0.1:{free_port}"), SPOKES)


@pytest.mark.kafka
def test_a_broker_that_is_named_comes_first(broker: Broker, free_port: int) -> None:
    ours, nobody = broker.bootstrap, f"127.0.0.1:{free_port}"
    assert find(ours, {"KAFKA_BOOTSTRAP": nobody}) == ours
    assert find(None, {"KAFKA_BOOTSTRAP": ours}) == ours
    assert find(f"{nobody},{ours}", {}) == f"{nobody},{ours}"


@pytest.mark.parametrize("given", ["", "localhost", "localhost:", "http://localhost:9092", "a:1,"])
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(InputRefused, match="--bootstrap: expected HOST:PORT"):
        find(given, {})


def test_a_named_broker_that_does_not_answer_is_refused(free_port: int) -> None:
    with pytest.raises(InputRefused, match=rf"KAFKA_BOOTSTRAP.*none at 127.0.0.1:{free_port}"):
        find(None, {"KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port}"})


def test_a_server_that_is_no_broker_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            link, _ = server.accept()
            with link:
                link.recv(1_024)
                link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        port = server.getsockname()[1]
        with pytest.raises(InputRefused, match="expected a broker that answers"):
            find(f"127.0.0.1:{port}", {})
        thread.join(LIMIT_S)


@pytest.fixture
def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_without_java_one_line_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match=r"expected Java 17 or newer .*no such program"):
        java.find_java({"PATH": str(tmp_path)})
    with pytest.raises(InputRefused, match=r"expected Java 17 or newer .*no such program"):
        java.find_java({"PATH": os.environ["PATH"], "JAVA_HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "21-ea" 2023-09-19', 21),
        ('java version "1.8.0_402"', 8),
        ("The operation couldn't be completed. Unable to locate a Java Runtime.", None),
    ],
)
def test_versions_of_java_are_understood(told: str, version: int | None) -> None:
    assert java.version_of(told) == version


def test_without_maven_one_line_says_what_to_install(tmp_path: Path) -> None:
    environment = {"OMNIMARGIN_CACHE": str(tmp_path / "cache"), "PATH": str(tmp_path)}
    with pytest.raises(InputRefused, match=r"mvn: expected Maven.*\(install maven\)"):
        java.find_jars(print, environment)
    assert not (tmp_path / "cache" / f"kafka-{java.KAFKA}").exists()


@pytest.mark.kafka
def test_two_at_once_fetch_once(kafka: None, tmp_path: Path) -> None:
    environment, told = {**os.environ, "OMNIMARGIN_CACHE": str(tmp_path)}, []
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: java.find_jars(told.append, environment), range(2)))
    assert folders == [tmp_path / f"kafka-{java.KAFKA}"] * 2
    assert told == [f"fetching Apache Kafka {java.KAFKA} with Maven, this once"]
    assert {path.name for path in tmp_path.iterdir()} == {
        folders[0].name,
        f"{folders[0].name}.lock",
    }
    assert len([*folders[0].glob("*.jar")]) > 30


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie processes")
def test_what_is_tied_dies_with_its_parent() -> None:
    tied = [sys.executable, str(TIED), "{}", "sleep", "1000"]
    program = (
        "import os, subprocess, sys\n"
        f"command = [word.format(os.getpid()) for word in {tied!r}]\n"
        "print(subprocess.Popen(command, start_new_session=True).pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_until(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
    try:
        parent.send_signal(signal.SIGKILL)
        parent.communicate(timeout=LIMIT_S)
        wait_until(lambda: _ended(child))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def _ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
