"""What a live stack has done, from the journals of its nodes, in the order of virtual time.

Each journal is the order in which its node handled events; between nodes the sort is that of the
virtual driver, so a live run in which nothing came late gives the log of the same run in
virtual time, byte for byte.
"""

import sqlite3
from collections.abc import Iterator
from heapq import merge
from pathlib import Path
from tempfile import TemporaryDirectory

from lab import world
from lab.reading import duration_us
from lab.scenario import Scenario
from lab.stack.outside import border_driver
from lab.stack.plan import KEYS, Plan, read_plan
from lab.world import World, build
from messaging.durable import Durable
from messaging.endpoint import Endpoint
from messaging.errors import InputRefused, ReplayDiverged
from messaging.headers import DELIVERY, TIMER
from messaging.identity import read_entry
from messaging.key_files import read_later_signers, read_signer
from messaging.node import Event, TimerFired
from messaging.record import Record
from messaging.store import Store
from messaging.units import HUB, Micros, NodeId

_Key = tuple[Micros, int, int]


class Journals:
    """The journals in a stack's folder, to be run like a driver.

    Attributes:
        failed: the event that a node has raised at, if one has.
    """

    def __init__(self, folder: Path) -> None:
        """Open a stopped stack's folder.

        Raises:
            InputRefused: no such stack, or a node without a journal.
        """
        self.folder = folder
        self.plan, self.scenario = read_plan(folder)
        self.world: World = build(self.scenario)
        self.nodes = (*world.names_of(self.scenario), HUB)
        for name in self.nodes:
            if not (folder / f"{name}.db").exists():
                raise InputRefused(str(folder), expected=f"a journal of {name}", found="none")
        self.failed: tuple[Micros, NodeId, Event] | None = None

    def run(self) -> Iterator[Record]:
        """Yield a record for each event, with what its node does about it."""
        by_name = {endpoint.name: endpoint for endpoint in self.world.endpoints}
        for endpoint in by_name.values():
            endpoint.start()
        last_us = max((self._last_us(name) for name in self.nodes), default=Micros(0))
        streams = [self._outside(last_us)]
        streams += [self._journal(place, name) for place, name in enumerate(self.nodes, start=3)]
        for (now_us, _, _), name, event in merge(*streams, key=lambda one: one[0]):
            try:
                effects = by_name[name].handle(now_us, event)
            except BaseException:
                self.failed = (now_us, name, event)
                raise
            yield Record(now_us, name, event, effects)

    def _outside(self, until_us: Micros) -> Iterator[tuple[_Key, NodeId, Event]]:
        """Yield what market, oracle and traders did, which is known from the scenario alone."""
        driver, _ = border_driver(self.scenario, min(until_us, duration_us(self.scenario)))
        places = {endpoint.name: place for place, endpoint in enumerate(self.world.endpoints)}
        for record in driver.run():
            yield _key(record.at_us, record.event, places[record.node]), record.node, record.event

    def _journal(self, place: int, name: NodeId) -> Iterator[tuple[_Key, NodeId, Event]]:
        for at_us, data in self._rows(name, "SELECT at_us, event FROM journal ORDER BY place"):
            event, _ = read_entry(data)
            yield _key(Micros(at_us), event, place), name, event

    def _last_us(self, name: NodeId) -> Micros:
        found, _ = next(self._rows(name, "SELECT coalesce(max(at_us), 0), x'' FROM journal"))
        return Micros(found)

    def _rows(self, name: NodeId, query: str) -> Iterator[tuple[int, bytes]]:
        path = self.folder / f"{name}.db"
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            yield from database.execute(query)
        except sqlite3.Error as error:
            raise InputRefused(str(path), expected="a journal", found=str(error)) from None
        finally:
            database.close()


def _key(at_us: Micros, event: Event, place: int) -> _Key:
    return at_us, TIMER if type(event) is TimerFired else DELIVERY, place


def verify(folder: Path) -> dict[NodeId, int]:
    """Fold each node's journal from its beginning; return how many events each has.

    Raises:
        InputRefused: the stack is running, or a journal is missing.
        ReplayDiverged: the fold differs from the state that the live process had (P88).
    """
    plan, scenario = read_plan(folder)
    return {
        name: _verify(folder, plan, scenario, name) for name in (*world.names_of(scenario), HUB)
    }


def _verify(folder: Path, plan: Plan, scenario: Scenario, name: NodeId) -> int:
    signer = read_signer(folder / KEYS, name, plan.domain)
    later = read_later_signers(folder / KEYS, name, plan.domain)
    identity = {"role": name, "deployment": plan.deployment}
    with Store(folder / f"{name}.db", identity) as store, TemporaryDirectory() as scratch:
        live = Durable(
            endpoint_of(scenario, name), store, signer, later=later
        )  # as a new process would be
        entries, snapshot = list(store.entries()), store.snapshot()
        lives = [(live.place, live.fingerprint())]
        if snapshot is not None and snapshot.fingerprint:
            lives.insert(0, (snapshot.place, snapshot.fingerprint))
        for place, expected in dict.fromkeys(lives):
            with Store(Path(scratch) / f"{place}.db", identity) as again:
                again.commit([entry for entry in entries if entry.place <= place])
                fold = Durable(endpoint_of(scenario, name), again, signer, later=later)
            found = fold.fingerprint()
            if (fold.place, found) != (place, expected):
                raise ReplayDiverged(place, fold.at_us, name, expected=expected, found=found)
        return live.place


def endpoint_of(scenario: Scenario, name: NodeId) -> Endpoint:
    """Return the hub's or a spoke's endpoint, new.

    Raises:
        InputRefused: no such node.
    """
    lanes, names = world.lanes_of(scenario), world.names_of(scenario)
    if name == HUB:
        return world.hub_of(scenario, lanes, world.deposits_of(scenario))
    if name not in names:
        expected = f"one of {', '.join((*names, HUB))}"
        raise InputRefused("role", expected=expected, found=name)
    return world.spoke_of(scenario, lanes, names.index(name))
