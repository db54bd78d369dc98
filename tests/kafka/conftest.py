"""Real brokers for tests: one that lets everybody in, one that asks who is there.

Each is started once a run, in a folder of its own, when the first test asks for it. Without Java
or Maven such tests are skipped, unless REQUIRE_KAFKA=1.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest
from aiokafka.admin import NewTopic

from lab.stack import java
from lab.stack.acl import acl, principals, put_in_force
from lab.stack.broker import Broker
from lab.stack.secure import SETUP, Secure, prepare_secure
from lab.stack.topics import SETTINGS, administrator, create_topics
from messaging.drivers.client import Connection
from messaging.errors import InputRefused
from messaging.units import NodeId

ROOT = Path(__file__).parents[2]
LIMIT_S = 30.0  # to wait for what must happen; not what is measured
SPOKES = (NodeId("base"), NodeId("base-2"))  # one name begins with the other

MakeTopic = Callable[[], Awaitable[str]]


class SecureStack(NamedTuple):
    """A broker with topics and grants of a stack with `SPOKES`."""

    broker: Broker
    secure: Secure

    def connection(self, principal: str) -> Connection:
        """Return how a principal connects."""
        return Connection(
            self.broker.bootstrap,
            username=principal,
            password_file=str(self.secure.folder / f"{principal}.password"),
            ca_file=str(self.secure.ca_file),
        )


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compile once what hundreds of processes import: it is most of what a start takes.

    Done before the first stack starts, for scenario time does not wait for its processes.
    """
    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get("PYTHONDONTWRITEBYTECODE"):
            patch.delenv("PYTHONDONTWRITEBYTECODE")
            patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("bytecode")))
        imports = "import lab.cli, lab.monitor.__main__, lab.stack.process"
        subprocess.run([sys.executable, "-c", imports], cwd=ROOT, check=True)
        yield


@pytest.fixture(scope="session")
def kafka() -> None:
    """Skip or fail if no broker can be started here."""
    try:
        java.find_java()
        java.find_jars(lambda line: print(line, file=sys.stderr))  # noqa: T201
    except InputRefused as error:
        if os.environ.get("REQUIRE_KAFKA") == "1":
            pytest.fail(f"REQUIRE_KAFKA=1, but {error}")
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def broker(kafka: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Yield a broker that lets everybody in; a test that ends it starts it again."""
    with Broker(tmp_path_factory.mktemp("broker")) as started:
        yield started


@pytest.fixture
def connection(broker: Broker) -> Connection:
    """Return how to connect to `broker`."""
    return Connection(broker.bootstrap)


@pytest.fixture
async def make_topic(connection: Connection) -> AsyncIterator[MakeTopic]:
    """Yield what makes a topic with a name of its own, with the settings of a stack's."""
    made = []
    async with administrator(connection) as admin:

        async def make() -> str:
            name = f"test-{uuid4()}"
            answer = await admin.create_topics([NewTopic(name, 1, 1, topic_configs=SETTINGS)])
            assert [code for _, code, _ in answer.topic_errors] == [0]
            made.append(name)
            return name

        yield make
        if made:
            await admin.delete_topics(made)


@pytest.fixture(scope="session")
def secure_broker(kafka: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureStack]:
    """Yield a broker that asks who is there, its topics and grants made."""
    folder = tmp_path_factory.mktemp("secure")
    secure = prepare_secure(folder, principals(SPOKES))
    with Broker(folder / "broker", secure) as started:
        stack = SecureStack(started, secure)

        async def set_up() -> None:
            await create_topics(stack.connection(SETUP), SPOKES, extra=("monitor-table",))
            await put_in_force(stack.connection(SETUP), acl(SPOKES))

        asyncio.run(set_up())
        yield stack
