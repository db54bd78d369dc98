"""Who may do what at a broker that asks who is there, tried out on the real thing."""

import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.fetch import FetchRequest

from lab.stack.acl import Grant, Kind, Verb, acl, in_force, principals, put_in_force
from lab.stack.broker import answers
from lab.stack.secure import SETUP, prepare_secure
from lab.stack.topics import administrator, topic_names
from messaging.drivers import client
from messaging.drivers.client import TOPIC_BYTES_MAX, Connection
from messaging.errors import InputRefused
from messaging.units import OPERATORS, NodeId
from tests.kafka.conftest import SPOKES, SecureStack

EVERYBODY = principals(SPOKES)
MEGABYTE = 1_000_000
DOCS = Path(__file__).parent.parent.parent / "docs" / "kafka.md"


@asynccontextmanager
async def producer_of(connection: Connection) -> AsyncIterator[AIOKafkaProducer]:
    """Yield a producer that sends whatever size."""
    largest = 2 * MEGABYTE
    settings = client.settings(connection)
    producer = AIOKafkaProducer(**settings, max_request_size=largest, max_batch_size=largest)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def writable(connection: Connection, topics: Iterable[str]) -> set[str]:
    """Return the topics that a principal can write to, by writing to each."""
    found = set()
    async with producer_of(connection) as producer:
        for topic in topics:
            try:
                await producer.send_and_wait(topic, b"tried", b"key", partition=0)
                found.add(topic)
            except TopicAuthorizationFailedError:
                continue
    return found


async def readable(connection: Connection, topics: Iterable[str]) -> set[str]:
    """Return the topics that a principal can read, by asking for the first record of each.

    Asks as the client library does, but for all at once: its consumer waits for ever for a topic
    that it may not see.
    """
    link = AIOKafkaClient(**client.settings(connection))
    await link.bootstrap()
    try:
        places = [(topic, [(0, 0, TOPIC_BYTES_MAX)]) for topic in topics]
        request = FetchRequest(0, 0, 64 * TOPIC_BYTES_MAX, 0, places)
        answer = await link.send(link.get_random_node(), request)
    finally:
        await link.close()
    found = set()
    for topic, ((_, code, *_, data),) in answer.topics:
        assert (code, bool(data)) in ((0, True), (TopicAuthorizationFailedError.errno, False))
        if code == 0:
            found.add(topic)
    return found


def granted(principal: str, verb: Verb, topics: Iterable[str]) -> set[str]:
    """Return the topics for which the table says yes."""
    return {
        topic
        for topic in topics
        for grant in acl(SPOKES)
        if (grant.principal, grant.verb, grant.kind) == (principal, verb, Kind.TOPIC)
        and (topic.startswith(grant.name) if grant.prefix else topic == grant.name)
    }


@pytest.mark.kafka
async def test_the_broker_grants_what_the_table_says(secure_broker: SecureStack) -> None:
    assert await in_force(secure_broker.connection(SETUP)) == {*acl(SPOKES)}


@pytest.mark.kafka
@pytest.mark.parametrize("principal", EVERYBODY)
async def test_everybody_reads_and_writes_what_the_table_says_and_nothing_else(
    secure_broker: SecureStack, principal: str
) -> None:
    topics = [*topic_names(SPOKES), "monitor-table"]
    assert await writable(secure_broker.connection(SETUP), topics) == {*topics}

    connection = secure_broker.connection(principal)
    assert await writable(connection, topics) == granted(principal, Verb.WRITE, topics)
    assert await readable(connection, topics) == granted(principal, Verb.READ, topics)


def test_a_spoke_reads_what_was_delivered_to_it_and_nothing_of_another() -> None:
    assert granted("spoke-base", Verb.READ, topic_names(SPOKES)) == {
        "delivered.to-base.margin-state",
        "delivered.to-base.reservation",
        "delivered.to-base.liquidation",
        "market.base",
        "order.base",
        *(f"ctl.{operator}.base" for operator in OPERATORS),
    }
    assert granted("spoke-base", Verb.WRITE, topic_names(SPOKES)) == {
        "from-base.margin-state",
        "from-base.reservation",
        "from-base.liquidation",
        "dlq.base",
    }


def test_only_the_relay_writes_what_is_delivered() -> None:
    grants = acl(SPOKES)
    writers = {
        grant.principal
        for grant in grants
        if grant.verb is Verb.WRITE and grant.name.startswith("delivered.")
    }
    assert writers == {"relay"}


def test_every_topic_has_one_writer() -> None:
    writers: dict[str, set[str]] = {}
    for grant in acl(SPOKES):
        if grant.verb is Verb.WRITE:
            writers.setdefault(grant.name, set()).add(grant.principal)
    assert {len(found) for found in writers.values()} == {1}
    assert writers["from-base.reservation"] == {"spoke-base"}
    assert writers["to-base.reservation"] == {"hub"}
    assert writers["ctl.halt"] == {"monitor"}
    assert writers["ctl.relay"] == {"operator"}
    assert writers["order.base"] == writers["market.base"] == writers["price.oracle"] == {"world"}


@pytest.mark.kafka
@pytest.mark.parametrize("principal", EVERYBODY)
async def test_nobody_but_the_one_who_sets_up_makes_or_deletes_topics(
    secure_broker: SecureStack, principal: str
) -> None:
    async with administrator(secure_broker.connection(principal)) as admin:
        made = await admin.create_topics([NewTopic("another", 1, 1)])
        deleted = await admin.delete_topics(["from-base.reservation"])
    refused = TopicAuthorizationFailedError.errno
    assert [code for _, code, _ in made.topic_errors] == [refused]
    assert [code for _, code in deleted.topic_error_codes] == [refused]


@pytest.mark.kafka
async def test_nobody_but_the_one_who_sets_up_grants_anything(secure_broker: SecureStack) -> None:
    everything = Grant("operator", Verb.WRITE, "from-base.reservation")
    refused = ClusterAuthorizationFailedError.__name__
    with pytest.raises(InputRefused, match=refused):
        await put_in_force(secure_broker.connection("operator"), [everything])
    assert everything not in await in_force(secure_broker.connection(SETUP))


@pytest.mark.kafka
async def test_the_group_is_the_monitors(secure_broker: SecureStack) -> None:
    partition = TopicPartition("ctl.halt", 0)

    async def commit(principal: str) -> None:
        settings = client.settings(secure_broker.connection(principal))
        consumer = AIOKafkaConsumer(**settings, group_id="monitor", enable_auto_commit=False)
        try:
            await consumer.start()
            consumer.assign([partition])
            await consumer.commit({partition: 0})
        finally:
            await consumer.stop()

    await commit("monitor")
    with pytest.raises(GroupAuthorizationFailedError):
        await commit("hub")


@pytest.mark.kafka
async def test_wrong_passwords_and_strangers_are_not_let_in(
    secure_broker: SecureStack, tmp_path: Path
) -> None:
    ca_file = str(secure_broker.secure.ca_file)
    (tmp_path / "password").write_text("guessed")
    relays = str(secure_broker.secure.folder / "relay.password")
    for username, password_file in (
        ("hub", str(tmp_path / "password")),
        ("hub", relays),
        ("stranger", relays),
    ):
        bootstrap = secure_broker.broker.bootstrap
        wrong = Connection(bootstrap, username, password_file, ca_file)
        with pytest.raises(InputRefused, match="expected a broker to set up"):
            async with administrator(wrong) as admin:
                await admin.list_topics()
    async with administrator(secure_broker.connection("hub")) as admin:
        assert "ctl.halt" in await admin.list_topics()


@pytest.mark.kafka
def test_nothing_is_said_without_tls_or_a_certificate(
    secure_broker: SecureStack, tmp_path: Path
) -> None:
    broker, ca_file = secure_broker.broker, secure_broker.secure.ca_file
    settings = (broker.folder / "server.properties").read_text()
    controller = re.search(r"^listeners=.*CONTROLLER://(\S+)$", settings, re.M)
    assert controller is not None
    assert answers(broker.bootstrap, ca_file)
    assert not answers(broker.bootstrap)
    assert not answers(controller[1])
    assert not answers(controller[1], ca_file), "the controller's clients need a certificate"

    host, _, port = broker.bootstrap.rpartition(":")
    strict = ssl.create_default_context(cafile=ca_file)
    strict.verify_flags |= ssl.VERIFY_X509_STRICT  # which newer Pythons do by themselves
    with (
        socket.create_connection((host, int(port))) as link,
        strict.wrap_socket(link, server_hostname="localhost") as secured,
    ):
        assert secured.version() == "TLSv1.3"

    another = prepare_secure(tmp_path, [])
    assert not answers(broker.bootstrap, another.ca_file)


@pytest.mark.kafka
async def test_a_large_message_is_refused_by_the_broker(secure_broker: SecureStack) -> None:
    async with producer_of(secure_broker.connection("spoke-base")) as producer:
        topic = "from-base.margin-state"
        await producer.send_and_wait(topic, bytes(TOPIC_BYTES_MAX - 1_024), partition=0)
        for size in (TOPIC_BYTES_MAX, MEGABYTE):
            with pytest.raises(MessageSizeTooLargeError):
                await producer.send_and_wait(topic, bytes(size), partition=0)


def test_secrets_are_for_their_owner_and_stay(tmp_path: Path) -> None:
    secure = prepare_secure(tmp_path, EVERYBODY)
    files = {path.name: path.read_bytes() for path in secure.folder.iterdir()}
    modes = {path.stat().st_mode & 0o777 for path in secure.folder.iterdir()}
    assert {*files} == {
        "ca.pem",
        "broker.pem",
        *(f"{name}.password" for name in (*EVERYBODY, SETUP)),
    }
    assert modes == {0o600}
    assert len({*files.values()}) == len(files)

    assert prepare_secure(tmp_path, EVERYBODY) == secure
    assert {path.name: path.read_bytes() for path in secure.folder.iterdir()} == files
    with pytest.raises(InputRefused, match=r"spoke-new\.password: expected a password, found none"):
        prepare_secure(tmp_path, [*EVERYBODY, "spoke-new"])


def test_the_table_in_the_docs_is_the_one_in_the_code() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+(?:<s>)?)` \| (.*?) \| (.*?) \|$", DOCS.read_text(), re.M)
    documented = {
        (principal, verb, name)
        for principal, reads, writes in rows
        for verb, cell in ((Verb.READ, reads), (Verb.WRITE, writes))
        for name in re.findall(r"`([^`]+)`", cell)
    }
    grants = acl([NodeId("<s>")])
    every = set(topic_names([NodeId("<s>")]))
    for principal in ("monitor", "operator"):
        documented |= {(principal, Verb.READ, name) for name in every}
    assert documented == {
        (grant.principal, grant.verb, grant.name + ("*" if grant.prefix else ""))
        for grant in grants
    }
