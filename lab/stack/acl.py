"""Who may read and write what at the broker: the table, and how to put it in force.

It says at the broker what seals say at the reader: who sends, who receives. All else is denied,
for the broker lets nobody do what no grant allows.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import for_code
from aiokafka.protocol.admin import CreateAclsRequest_v1, DescribeAclsRequest
from aiokafka.protocol.api import Request

from lab.stack.plan import WORLD, principal_of
from lab.stack.topics import DEADLINE_S, POLL_S, refused, topic_names
from messaging.drivers import client
from messaging.drivers.client import Connection
from messaging.topics import dead_letters, routes
from messaging.units import HUB, MARKET, MONITOR, OPERATOR, ORACLE, RELAY, TRADERS, NodeId

MONITOR_GROUP = MONITOR
MONITOR_TOPICS = f"{MONITOR}-"  # how the names of its tables' topics begin


class Verb(StrEnum):
    """What may be done; both let see that the topic is there."""

    READ = "read"
    WRITE = "write"


class Kind(StrEnum):
    """What it may be done to."""

    TOPIC = "topic"
    GROUP = "group"


class Grant(NamedTuple):
    """One thing that one principal may do.

    Attributes:
        prefix: whether it holds for every name that begins with `name`.
    """

    principal: str
    verb: Verb
    name: str
    kind: Kind = Kind.TOPIC
    prefix: bool = False


def acl(spokes: Iterable[NodeId]) -> tuple[Grant, ...]:
    """Return all that anybody may do in a stack with these spokes."""
    spokes = tuple(spokes)
    found: list[Grant] = []
    for route in routes(spokes):
        found.append(Grant(writer_of(route.sender), Verb.WRITE, route.topic))
        found.append(Grant(principal_of(route.receiver), Verb.READ, route.read_from))
        if route.relayed:
            found.append(Grant(RELAY, Verb.READ, route.topic))
            found.append(Grant(RELAY, Verb.WRITE, route.read_from))
    found += [
        Grant(principal_of(node), Verb.WRITE, dead_letters(node)) for node in (HUB, *spokes, RELAY)
    ]
    for name in topic_names(spokes):
        found += [Grant(who, Verb.READ, name) for who in (MONITOR, OPERATOR)]
    for verb in Verb:
        found.append(Grant(MONITOR, verb, MONITOR_TOPICS, prefix=True))
    found.append(Grant(MONITOR, Verb.READ, MONITOR_GROUP, Kind.GROUP))
    return tuple(dict.fromkeys(found))


def writer_of(node: NodeId) -> str:
    """Name the principal that a sender of frames writes as."""
    return WORLD if node in (MARKET, ORACLE, TRADERS) else principal_of(node)


def principals(spokes: Iterable[NodeId]) -> tuple[str, ...]:
    """Return everybody who may do something."""
    return tuple(dict.fromkeys(grant.principal for grant in acl(spokes)))


async def put_in_force(connection: Connection, grants: Iterable[Grant]) -> None:
    """Tell the broker what is granted, and wait until it acts so; what it knew before stays.

    Args:
        connection: as one who may do so.
        grants: such as `acl` returns.

    Raises:
        InputRefused: the broker refuses, or is not there.
    """
    wanted = tuple(grants)
    async with _asked(connection) as ask:
        answer = await ask(_CreateAll(wanted))
        for code, why in answer.creation_responses:
            _raise(code, why)
        while not (await _in_force(ask)).issuperset(wanted):
            await asyncio.sleep(POLL_S)


async def in_force(connection: Connection) -> frozenset[Grant]:
    """Return what the broker grants.

    Raises:
        InputRefused: the broker refuses, or is not there.
    """
    async with _asked(connection) as ask:
        return await _in_force(ask)


# Numbers of the protocol.
_VERBS = {Verb.READ: 3, Verb.WRITE: 4}
_KINDS = {Kind.TOPIC: 2, Kind.GROUP: 3}
_LITERAL, _PREFIXED = 3, 4
_ANY, _ALLOW = 1, 3
_USER, _ANY_HOST = "User:", "*"

Ask: TypeAlias = Callable[[Request], Awaitable[Any]]


@asynccontextmanager
async def _asked(connection: Connection) -> AsyncIterator[Ask]:
    """Yield a way to ask a broker for what the library's admin client has no method for."""
    link = AIOKafkaClient(**client.settings(connection))

    async def ask(request: Request) -> Any:
        return await link.send(link.get_random_node(), request)

    with refused(connection):
        try:
            async with asyncio.timeout(DEADLINE_S):
                await link.bootstrap()
                yield ask
        finally:
            await link.close()


async def _in_force(ask: Ask) -> frozenset[Grant]:
    answer = await ask(DescribeAclsRequest(_ANY, None, _ANY, None, None, _ANY, _ANY))
    _raise(answer.error_code, answer.error_message)
    verbs = {number: verb for verb, number in _VERBS.items()}
    kinds = {number: kind for kind, number in _KINDS.items()}
    return frozenset(
        Grant(who.removeprefix(_USER), verbs[verb], name, kinds[kind], pattern == _PREFIXED)
        for kind, name, pattern, acls in answer.resources
        for who, _, verb, permission in acls
        if (permission, kind in kinds, verb in verbs) == (_ALLOW, True, True)
    )


def _raise(code: int, why: str | None) -> None:
    if code:
        raise for_code(code)(why)


class _CreateAll(Request[CreateAclsRequest_v1]):  # type: ignore[misc]
    """All grants in one request: the library's own takes one, and each waits for a commit."""

    API_KEY = CreateAclsRequest_v1.API_KEY

    def __init__(self, grants: tuple[Grant, ...]) -> None:
        self._grants = grants

    def build(self, request_struct_class: type[CreateAclsRequest_v1]) -> CreateAclsRequest_v1:
        return request_struct_class([_creation(grant) for grant in self._grants])


def _creation(grant: Grant) -> tuple[int, str, int, str, str, int, int]:
    """Return the fields of one grant in the protocol."""
    return (
        _KINDS[grant.kind],
        grant.name,
        _PREFIXED if grant.prefix else _LITERAL,
        _USER + grant.principal,
        _ANY_HOST,
        _VERBS[grant.verb],
        _ALLOW,
    )
