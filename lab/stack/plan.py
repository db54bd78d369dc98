"""What all processes of one live stack share, and what each says of itself: files in its folder.

plan.json            this, written once      scenario.msgpack    the scenario
keys/                ed25519, 0600           secrets/            passwords, CA (secure only)
<role>.db            a node's journal        <role>.status.json  how it is doing
logs/<role>.jsonl    structured logs         broker/             the broker's own folder
"""

from enum import StrEnum
from pathlib import Path

import msgspec

from lab.scenario import Scenario
from messaging.drivers.client import Connection
from messaging.errors import InputRefused
from messaging.identity import domain_of
from messaging.operator_orders import OperatorOrdered
from messaging.units import HUB, OPERATORS, Micros, NodeId

PLAN = "plan.json"
SCENARIO = "scenario.msgpack"
KEYS = "keys"
SECRETS = "secrets"
STATUS = ".status.json"
WORLD = "world"  # the process of market, oracle and traders


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One live stack.

    Attributes:
        deployment: names it; frames of another one are refused.
        bootstrap: the broker, HOST:PORT.
        epoch_ns: wall clock at scenario time 0.
        speed: scenario seconds in one second of wall clock.
        settle_ms: how long a node waits for messages that are due before an event is handled;
            -1 to take all as they come.
        monitor_port: where the monitor serves, on loopback.
        secure: whether the broker asks for SCRAM over TLS.
    """

    deployment: str
    bootstrap: str
    epoch_ns: int
    speed: float
    settle_ms: int
    monitor_port: int
    secure: bool = False

    @property
    def domain(self) -> bytes:
        """Return what binds seals to this deployment."""
        return domain_of("local", self.deployment, HUB)

    def connection(self, folder: Path, principal: str) -> Connection:
        """Return how `principal` connects to the broker."""
        if not self.secure:
            return Connection(self.bootstrap)
        secrets = folder / SECRETS
        return Connection(
            self.bootstrap,
            username=principal,
            password_file=str(secrets / f"{principal}.password"),
            ca_file=str(secrets / "ca.pem"),
        )


def principal_of(role: str) -> str:
    """Name the broker's principal of a process: spoke-base for base, else its role."""
    ours = (HUB, WORLD, "relay", "monitor", "operator", *OPERATORS)
    return role if role in ours else f"spoke-{role}"


class State(StrEnum):
    """What a process is doing."""

    RECOVERING = "recovering"
    RUNNING = "running"
    WAITING = "waiting"  # for the broker
    COMPLETE = "complete"  # the scenario's time is up
    STOPPED = "stopped"


class Waits(msgspec.Struct, frozen=True):
    """An order that more operators must give, and who has given it."""

    order: OperatorOrdered
    operators: tuple[str, ...]


class Ended(msgspec.Struct, frozen=True):
    """An order that a node has decided; `why` says why it was refused, empty if it was not."""

    order: OperatorOrdered
    operators: tuple[str, ...]
    why: str


class Matters(msgspec.Struct, frozen=True, kw_only=True):
    """What at a node is for people (P69, P70).

    Attributes:
        stopped: channels that stand at a frame which cannot be read.
        halted: who is not trusted, or frees nothing, and why.
        waiting, ended: orders of operators; of those that are decided the newest.
    """

    stopped: tuple[str, ...] = ()
    halted: tuple[str, ...] = ()
    waiting: tuple[Waits, ...] = ()
    ended: tuple[Ended, ...] = ()


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What a process says of itself, about once a second.

    Attributes:
        at_us: scenario time it has reached.
        events: handled in all, or carried.
        late: events that came after their time had been passed.
        refused: frames sent to the dead letters.
        recovery_ms: from start of the process to its first new event.
        note: one line for people, such as why it waits.
        matters: what waits for people.
    """

    role: NodeId
    pid: int
    state: State
    at_us: Micros
    events: int = 0
    late: int = 0
    refused: int = 0
    recovery_ms: int = 0
    note: str = ""
    matters: Matters = Matters()


def write_plan(folder: Path, plan: Plan, scenario: Scenario) -> None:
    """Write what the processes read at their start."""
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / SCENARIO, msgspec.msgpack.encode(scenario))
    _replace(folder / PLAN, msgspec.json.format(msgspec.json.encode(plan)))


def read_plan(folder: Path) -> tuple[Plan, Scenario]:
    """Return the plan in a folder.

    Raises:
        InputRefused: there is none.
    """
    try:
        plan = msgspec.json.decode((folder / PLAN).read_bytes(), type=Plan)
        scenario = msgspec.msgpack.decode((folder / SCENARIO).read_bytes(), type=Scenario)
    except (OSError, ValueError) as error:
        found = f"no {PLAN}" if isinstance(error, FileNotFoundError) else str(error)
        raise InputRefused(
            str(folder), expected="the folder of a live stack", found=found
        ) from None
    return plan, scenario


def write_status(folder: Path, status: Status) -> None:
    """Replace a process's word on itself."""
    _replace(folder / f"{status.role}{STATUS}", msgspec.json.encode(status))


def read_status(folder: Path, role: str) -> Status | None:
    """Return a process's last word on itself, if there is one."""
    try:
        return msgspec.json.decode((folder / f"{role}{STATUS}").read_bytes(), type=Status)
    except (OSError, ValueError):
        return None


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees all of it or none."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(data)
    fresh.replace(path)
