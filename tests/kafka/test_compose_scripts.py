"""The scripts of docker-compose.yml, run here in the order and with the files that it gives them.

What is not of the image: its folder of Kafka's own commands, made here of the same classes.
"""

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from lab.stack import java, tied
from lab.stack.acl import acl, in_force
from lab.stack.broker import PORTS as CHOSEN_FROM
from lab.stack.broker import answers
from lab.stack.plan import read_plan
from lab.stack.secure import SETUP
from lab.stack.topics import administrator, topic_names
from lab.world import names_of
from messaging.drivers.client import Connection
from messaging.errors import InputRefused
from messaging.units import HUB
from tests.kafka.conftest import LIMIT_S

ROOT = Path(__file__).parent.parent.parent
COMMANDS = {"kafka-storage.sh": "kafka.tools.StorageTool", "kafka-server-start.sh": "kafka.Kafka"}
JAVA = "-Xms256m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"
PORTS = (9093, 9094, 19092)  # in deploy/broker/server.properties

pytestmark = pytest.mark.kafka


class Containers(NamedTuple):
    """Folders that stand for volumes, and what runs on them."""

    folder: Path
    port: int

    @property
    def stack(self) -> Path:
        """Return what is mounted at /stack."""
        return self.folder / "stack"

    @property
    def address(self) -> str:
        """Return HOST:PORT of the broker."""
        return f"localhost:{self.port}"

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a one-shot service to its end."""
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "STACK": str(self.stack),
            "BOOTSTRAP": self.address,
            "SCENARIO": "scenarios/live.toml",
            "SPEED": "60",
            "LEAD_S": "30",
        }
        return subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )

    def credentials(self) -> subprocess.CompletedProcess[str]:
        """Run the service of that name."""
        script = self.folder / "deploy" / "credentials.py"
        return self.run(sys.executable, script, self.stack, self.folder / "given")

    def setup(self) -> subprocess.CompletedProcess[str]:
        """Run the service of that name."""
        return self.run("sh", self.folder / "deploy" / "setup.sh")

    @contextmanager
    def broker(self) -> Iterator[None]:
        """Run the service of that name until left."""
        script = self.folder / "deploy" / "broker" / "start.sh"
        environment = {
            **os.environ,
            "KAFKA_HOME": str(self.folder / "kafka"),
            "GIVEN": str(self.folder / "given"),
            "DATA": str(self.folder / "data"),
        }
        said = self.folder / "broker.log"
        with said.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, tied.__file__, str(os.getpid()), "bash", script],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait(process, said)
            yield
        finally:
            process.terminate()
            process.wait(LIMIT_S)

    def _wait(self, process: subprocess.Popen[bytes], said: Path) -> None:
        authority = self.folder / "given" / "ca.pem"
        until_s = time.monotonic() + 2 * LIMIT_S
        while not answers(self.address, authority if authority.exists() else None):
            assert process.poll() is None, said.read_text()[-2_000:]
            assert time.monotonic() < until_s, said.read_text()[-2_000:]
            time.sleep(0.05)


@pytest.fixture
def containers(kafka: None, tmp_path: Path) -> Containers:
    """Return empty volumes, and the files of deploy/ on ports that are free here."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    (tmp_path / "given").mkdir()
    (tmp_path / "stack").mkdir()
    ports = {str(port): str(free) for port, free in zip(PORTS, free_ports(), strict=True)}
    for path in (tmp_path / "deploy" / "broker").glob("*.properties"):
        text = path.read_text().replace("CLIENTS://:", "CLIENTS://localhost:")
        text = text.replace("CLIENTS://broker:", "CLIENTS://localhost:")
        text = text.replace("=/broker/", f"={tmp_path}/given/")
        for port, free in ports.items():
            text = text.replace(f":{port}", f":{free}")
        path.write_text(text)
    (tmp_path / "kafka" / "bin").mkdir(parents=True)
    jars = java.find_jars(lambda line: None)
    for name, started in COMMANDS.items():
        command = tmp_path / "kafka" / "bin" / name
        command.write_text(
            f"#!/bin/sh\nexec {java.find_java()} {JAVA} -cp '{jars}/*' {started} \"$@\"\n"
        )
        command.chmod(0o755)
    return Containers(tmp_path, int(ports["19092"]))


def free_ports() -> list[int]:
    """Return a port for each of `PORTS`."""
    found: list[int] = []
    while len(found) < len(PORTS):
        port = random.choice(CHOSEN_FROM)
        with socket.socket() as probe:
            if port not in found and probe.connect_ex(("127.0.0.1", port)):
                found.append(port)
    return found


async def topics_seen(connection: Connection) -> set[str]:
    async with administrator(connection) as admin:
        return set(await admin.list_topics())


async def test_without_a_profile_everybody_beside_the_broker_gets_in(
    containers: Containers,
) -> None:
    with containers.broker():
        done = containers.setup()
        assert done.returncode == 0, done.stderr
        plan, scenario = read_plan(containers.stack)
        seen = await topics_seen(Connection(containers.address))

    assert not plan.secure
    assert set(topic_names(names_of(scenario))) <= seen

    # What was made without passwords does not get some later, half of it open.
    refused = containers.credentials()
    assert refused.returncode == 2
    assert "expected a new stack" in refused.stderr
    assert not list((containers.folder / "given").iterdir())


async def test_with_profile_secure_a_password_is_needed_before_and_after_a_restart(
    containers: Containers,
) -> None:
    done = containers.credentials()
    assert done.returncode == 0, done.stderr
    with containers.broker():
        done = containers.setup()
        assert done.returncode == 0, done.stderr
        plan, scenario = read_plan(containers.stack)
        names = names_of(scenario)

        assert plan.secure
        assert not answers(containers.address), "it talks without TLS"
        assert await in_force(plan.connection(containers.stack, SETUP)) == set(acl(names))

    assert containers.credentials().returncode == 0, "Compose runs it again with each up"
    with containers.broker():
        hub = plan.connection(containers.stack, HUB)
        assert {"from-base.reservation", "to-base.reservation"} - await topics_seen(hub) == {
            "from-base.reservation"  # the hub reads what the relay delivers of it
        }
        (containers.stack / "secrets" / "hub.password").write_text("another\n")
        with pytest.raises(InputRefused):
            await topics_seen(hub)


def test_the_broker_is_told_hashes_not_passwords(containers: Containers) -> None:
    assert containers.credentials().returncode == 0
    passwords = list((containers.stack / "secrets").glob("*.password"))
    told = (containers.folder / "given" / "scram.txt").read_text()

    assert len(passwords) == len(told.splitlines())
    assert not any(path.read_text().strip() in told for path in passwords)
    assert {path.stat().st_mode & 0o777 for path in passwords} == {0o600}
    readable = {path.stat().st_mode & 0o777 for path in (containers.folder / "given").iterdir()}
    assert readable == {0o644}, "the broker's container has another user"
