"""A real Apache Kafka in a folder of its own, on loopback; and which broker to use.

server.properties    written at the first start; its ports stay
data/                topics and metadata of one process, broker and controller in one
broker.log           warnings, and why it ended
"""

import contextlib
import os
import re
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from lab.stack import java
from lab.stack.secure import Secure
from messaging.errors import InputRefused

HOST = "127.0.0.1"
DEFAULT = f"{HOST}:9092"
START_S, STOP_S = 60.0, 15.0
ASK_S = 2.0  # to wait for an answer
POLL_S = 0.02
PORTS = range(20_000, 30_000)  # below those that systems give to clients, who may take them
LOG_TAIL_BYTES = 65_536

# Without the second compiler a start takes less, and minutes of load no more (docs/kafka.md, 6).
_FLAGS = (
    "-Xms256m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
)
_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={host}:{controller_port}
listeners={listener}://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners={listener}://{host}:{port},CONTROLLER://{host}:{controller_port}
controller.listener.names=CONTROLLER
inter.broker.listener.name={listener}
log.dirs=data
auto.create.topics.enable=false
unclean.leader.election.enable=false
num.partitions=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
log.cleaner.dedupe.buffer.size=8388608
socket.request.max.bytes=4194304
"""
_OPEN = "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n"


class Broker:
    """Apache Kafka as a child process.

    It dies with the thread that has called `start`, at the latest; Ctrl-C does not reach it.

    Attributes:
        folder: where everything of it is.
        log: what it says.
    """

    def __init__(
        self,
        folder: Path,
        secure: Secure | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Take a folder, which may hold what an earlier broker left; nothing starts yet.

        Args:
            folder: may not exist yet.
            secure: asks clients for SCRAM over TLS; None lets everybody in.
            tell: told, for people, of what takes long.
        """
        self.folder = folder.absolute()
        self.log = self.folder / "broker.log"
        self._secure = secure
        self._ca_file = None if secure is None else secure.ca_file
        self._tell = tell
        self._properties = self.folder / "server.properties"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """Return HOST:PORT for clients; there is one from the first start on."""
        listener = re.search(r"^listeners=\w+://([^,]+),", self._properties.read_text(), re.M)
        assert listener is not None, f"{self._properties} is not ours"
        return listener[1]

    @property
    def pid(self) -> int | None:
        """Return its process id, if it runs."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers; the first time, make its data and choose ports.

        Raises:
            InputRefused: Java or Maven is missing, or the broker ends or does not answer.
        """
        if self.pid is not None:
            return
        program = java.find_java()
        command = [program, *_FLAGS, "-cp", f"{java.find_jars(self._tell)}/*"]
        if not self._properties.exists():
            self._prepare(command)
        if answers(self.bootstrap, self._ca_file):  # it would pass for ours
            raise self._refused(f"another that answers at {self.bootstrap}")
        began = self.log.stat().st_size if self.log.exists() else 0
        tied = [sys.executable, "-I", "-S", str(Path(__file__).with_name("tied.py"))]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*tied, str(os.getpid()), *command, "kafka.Kafka", str(self._properties)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
            )
        try:
            self._wait(began)
        except BaseException:  # a signal too: nobody else knows of it yet
            self.kill()
            raise

    def stop(self) -> None:
        """End it cleanly if it does so in time, else by force."""
        if self._process is None:
            return
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)  # a paused one would not notice
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as a crash would; its data stay."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing is answered."""
        assert self._process is not None, "not started"
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen one go on."""
        assert self._process is not None, "not started"
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _prepare(self, command: list[str]) -> None:
        """Make data folder and settings; the settings last, for they say that all is there."""
        data = self.folder / "data"
        try:
            data.mkdir(parents=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputRefused(str(data), expected="a new folder", found=reason) from None
        port, controller_port = _free_ports()
        listener = "PLAINTEXT" if self._secure is None else "SASL_SSL"
        settings = _SETTINGS.format(
            host=HOST, port=port, controller_port=controller_port, listener=listener
        )
        settings += _OPEN if self._secure is None else self._secure.settings(self.folder)
        fresh = self._properties.with_name(self._properties.name + ".new")
        fresh.write_text(settings)
        first, *rest = uuid.uuid4().bytes
        # With its highest bit set an id may begin with "-", which reads as another option.
        cluster = urlsafe_b64encode(bytes([first & 0x7F, *rest])).decode().rstrip("=")
        words = ["format", "--standalone", "-t", cluster, "-c", str(fresh)]
        with contextlib.ExitStack() as stack:
            if self._secure is not None:
                words.append(f"@{stack.enter_context(self._secure.credentials())}")
            done = subprocess.run(
                [*command, "kafka.tools.StorageTool", *words],
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
            )
        if done.returncode:
            raise self._refused(_reason(done.stdout + done.stderr))
        fresh.replace(self._properties)

    def _wait(self, began: int) -> None:
        """Wait until it answers; `began` is where its words in the log begin."""
        assert self._process is not None
        until_s, bootstrap = time.monotonic() + START_S, self.bootstrap
        while not answers(bootstrap, self._ca_file):
            if self._process.poll() is not None:
                code, why = self._process.returncode, self._last_word(began)
                raise self._refused(f"exit code {code} ({self.log}) {why}".rstrip())
            if time.monotonic() > until_s:
                raise self._refused(f"no answer within {START_S:.0f} s ({self.log})")
            time.sleep(POLL_S)

    def _refused(self, found: str) -> InputRefused:
        return InputRefused("broker", expected="one that starts", found=found)

    def _last_word(self, began: int) -> str:
        with self.log.open("rb") as file:
            file.seek(max(began, self.log.stat().st_size - LOG_TAIL_BYTES))
            return _reason(file.read().decode(errors="replace"))


def find(
    option: str | None, environment: Mapping[str, str], ca_file: Path | None = None
) -> str | None:
    """Return the broker to use, HOST:PORT; None to start one.

    The one asked for, else that of `$KAFKA_BOOTSTRAP`, else the default if it answers.

    Args:
        option: of the command line.
        environment: of this process.
        ca_file: PEM of who signs its certificate, if it speaks TLS.

    Raises:
        InputRefused: one was named and does not answer.
    """
    given, where = option, "--bootstrap"
    if given is None:
        given, where = environment.get("KAFKA_BOOTSTRAP") or None, "KAFKA_BOOTSTRAP"
    if given is None:
        return DEFAULT if answers(DEFAULT, ca_file) else None
    servers = given.split(",")
    if not all(_ADDRESS.fullmatch(server) for server in servers):
        raise InputRefused(where, expected="HOST:PORT[,HOST:PORT...]", found=repr(given))
    if not any(answers(server, ca_file) for server in servers):
        raise InputRefused(where, expected="a broker that answers", found=f"none at {given}")
    return given


_ADDRESS = re.compile(r"[A-Za-z0-9._-]+:[0-9]{1,5}|\[[0-9A-Fa-f:.]+\]:[0-9]{1,5}")

# The question which requests a broker knows: key 18, version 0, number 1, client "up".
_QUESTION = bytes.fromhex("0000000c 0012 0000 00000001 0002 7570")
_ANSWER_NUMBER = bytes.fromhex("00000001")


def answers(server: str, ca_file: Path | None = None) -> bool:
    """Tell whether a Kafka broker answers at HOST:PORT; over TLS if `ca_file` is given."""
    host, _, port = server.rpartition(":")
    host = host.strip("[]")
    try:
        with contextlib.ExitStack() as stack:
            link: socket.socket = stack.enter_context(
                socket.create_connection((host, int(port)), ASK_S)
            )
            if ca_file is not None:
                context = ssl.create_default_context(cafile=ca_file)
                link = stack.enter_context(context.wrap_socket(link, server_hostname=host))
            link.sendall(_QUESTION)
            # Length, the question's number, error code 0.
            head = stack.enter_context(link.makefile("rb")).read(10)
            return head[4:] == _ANSWER_NUMBER + bytes(2)
    except (OSError, OverflowError):
        return False


def _free_ports() -> tuple[int, int]:
    """Return two ports of loopback that are free now."""
    found: list[int] = []
    while len(found) < 2:
        port = secrets.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found[0], found[1]


def _reason(said: str) -> str:
    """Return the last line that says what is wrong, leaving stack traces out."""
    lines = [line.strip() for line in said.splitlines() if line[:1].strip()]
    wrong = [line for line in lines if "Exception" in line or "Error" in line or "ERROR" in line]
    return (wrong or lines or [""])[-1]
