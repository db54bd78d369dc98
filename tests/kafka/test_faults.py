"""What goes wrong under a live stack: it waits, ends with one line, or asks again; nothing is lost.

Each test ends with an audit of all that the processes have written: journals fold to the states
they had, invariants hold, every channel was applied 1, 2, 3, ..., and what was sent has arrived.
"""

import contextlib
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from lab.stack.broker import Broker
from lab.stack.plan import WORLD, State
from messaging.identity import Sealed
from messaging.messages import Family
from messaging.store import PUBLISHED
from messaging.topics import DELIVERED, channel_topic, routes
from messaging.units import HUB, RELAY, NodeId
from tests.kafka import records
from tests.kafka.audit import Watched, audit
from tests.kafka.stack import BUSY, Stack, paused, scenario

pytestmark = pytest.mark.kafka

BASE = NodeId("base")
UP = channel_topic(BASE, HUB, Family.RESERVATION)  # read by the relay
ARRIVED = DELIVERED + UP  # read by the hub
ORDERS = f"order.{BASE}"
DOWN_S = float(os.environ.get("KAFKA_DOWN_S", "3"))  # how long the broker stays away
REFUSED, NO_ROOM = 2, 75
DISK_BYTES, ROOM_BYTES = 16_000_000, 50_000

_sealed = msgspec.msgpack.Decoder(Sealed)


@pytest.fixture
def prepared(broker: Broker, tmp_path: Path) -> Iterator[Stack]:
    """Yield a stack of one spoke that has not been started."""
    with Stack(tmp_path / "stack", broker.bootstrap, scenario(**BUSY)) as made:
        yield made


@pytest.fixture
def stack(prepared: Stack) -> Stack:
    """Return a stack in the middle of its business."""
    prepared.up()
    prepared.in_business()
    return prepared


def all_wait(stack: Stack) -> None:
    for role in stack.roles:
        stack.wait(lambda role=role: stack.status(role).state is State.WAITING, f"{role} to wait")
        assert stack.status(role).note
        assert not stack.said(role, level="error")


def gaps(stack: Stack, role: str) -> list[str]:
    """Return the topics in which a process has noticed a gap."""
    return [line["topic"] for line in stack.said(role, "topic_gap")]


# --- the broker -------------------------------------------------------------------------


def test_a_broker_that_is_away_is_waited_for(stack: Stack, broker: Broker) -> None:
    broker.kill()
    gone_s = time.monotonic()
    all_wait(stack)
    stack.wait(lambda: time.monotonic() > gone_s + DOWN_S, "the time to pass")
    assert all(stack.runs(role) for role in stack.roles)

    broker.start()
    stack.finish()


def test_a_broker_that_is_not_there_yet_is_waited_for(prepared: Stack, broker: Broker) -> None:
    broker.stop()
    prepared.up()
    all_wait(prepared)
    broker.start()
    prepared.in_business()
    prepared.finish()


# --- the disk ---------------------------------------------------------------------------


@pytest.fixture
def small_disk(broker: Broker, tmp_path: Path) -> Iterator[Stack]:
    """Yield a stack whose files are on a small disk of their own; its logs are not."""
    folder = tmp_path / "stack"
    folder.mkdir()
    size = f"size={DISK_BYTES}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        with Stack(folder, broker.bootstrap, scenario(**BUSY)) as made:
            yield made
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def check_published(stack: Stack) -> None:
    """All that hub and spoke have published follows from what is in their journals."""
    watched = Watched(stack.folder)
    for _ in watched.run():
        pass
    for route in routes(stack.spokes):
        if route.sender in (HUB, *stack.spokes):
            read = records.read(stack.connection, route.topic)
            found = {_sealed.decode(one.value).frame for one in read}
            assert found <= watched.sent.get(route.topic, set()), route.topic


def check_ended(stack: Stack, role: str) -> None:
    assert stack.ended(role) == NO_ROOM
    (line,) = stack.said(role, level="error")
    assert "cannot be written" in line["event"]


def test_a_full_disk_ends_processes_until_there_is_room(small_disk: Stack) -> None:
    stack = small_disk
    stack.up()
    stack.in_business()
    ballast = stack.folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4_096))
    for role in stack.roles:
        check_ended(stack, role)
    stack.start(HUB)  # which is no use yet
    assert stack.ended(HUB) == NO_ROOM
    assert not stack.tracebacks()

    ballast.unlink()
    check_published(stack)
    stack.up()
    stack.finish()


def test_a_quota_ends_the_hub_until_it_is_lifted(stack: Stack) -> None:
    sizes = [path.stat().st_size for path in stack.folder.glob(f"{HUB}.db*")]
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.prlimit(stack.pid(HUB), resource.RLIMIT_FSIZE, (max(sizes) + ROOM_BYTES, most))
    check_ended(stack, HUB)
    stack.down()
    check_published(stack)

    stack.up()
    stack.finish()


# --- cursors ----------------------------------------------------------------------------


def edit(stack: Stack, role: str, command: str, *values: object) -> None:
    database = sqlite3.connect(stack.folder / f"{role}.db")
    with database:
        assert database.execute(command, values).rowcount > 0
    database.close()


def test_cursors_that_are_rewound_apply_nothing_twice(stack: Stack) -> None:
    stack.down()
    for role in (RELAY, BASE, HUB):
        edit(stack, role, "UPDATE inbox SET next_offset = 0")
    edit(stack, WORLD, "UPDATE meta SET value = '0' WHERE name = ?", PUBLISHED)
    before = audit(stack.folder, {})
    applied = sum(before.applied.values())
    assert applied > 200

    stack.up()
    assert stack.finish().repeats >= before.repeats + applied


# --- topics -----------------------------------------------------------------------------


def make_anew(stack: Stack, *topics: str) -> None:
    records.delete(stack.connection, *topics)
    records.create(stack.connection, *topics)


def grown(stack: Stack, topic: str) -> int:
    """Wait until there is more on a topic than now; return its end."""
    before = records.end_of(stack.connection, topic)
    stack.wait(lambda: records.end_of(stack.connection, topic) > before + 5, f"more on {topic}")
    return records.end_of(stack.connection, topic)


def test_topics_that_are_made_anew_under_their_readers_are_filled_again(stack: Stack) -> None:
    make_anew(stack, UP, ARRIVED)
    stack.wait(lambda: UP in gaps(stack, RELAY), "the relay to notice")
    stack.wait(lambda: ARRIVED in gaps(stack, HUB), "the hub to notice")
    stack.finish()


def test_a_topic_that_is_gone_is_waited_for_by_its_name(stack: Stack) -> None:
    records.delete(stack.connection, ARRIVED)
    for role in (HUB, RELAY):
        stack.wait(lambda role=role: ARRIVED in stack.status(role).note, f"{role} to name it")
        assert stack.status(role).state is State.WAITING
        assert not stack.said(role, level="error")
    records.create(stack.connection, ARRIVED)
    grown(stack, ARRIVED)

    stack.stop(HUB)
    stack.stop(RELAY)
    make_anew(stack, UP, ARRIVED)
    grown(stack, UP)
    stack.up(RELAY)
    grown(stack, ARRIVED)
    stack.up(HUB)
    stack.finish()


def test_frames_that_are_truncated_away_are_asked_for_again(stack: Stack) -> None:
    assert records.truncate(stack.connection, ARRIVED, 5) == 5  # below the hub's cursor
    stack.heal()
    assert not gaps(stack, HUB)

    stack.stop(HUB)
    grown(stack, ARRIVED)
    first = records.truncate(stack.connection, ARRIVED)
    stack.up(HUB)
    stack.wait(lambda: bool(gaps(stack, HUB)), "the hub to notice")
    (gap,) = stack.said(HUB, "topic_gap")
    assert (gap["topic"], gap["found"]) == (ARRIVED, first)
    assert gap["expected"] < first

    stack.stop(RELAY)
    grown(stack, UP)
    records.truncate(stack.connection, UP)
    stack.up(RELAY)
    stack.wait(lambda: UP in gaps(stack, RELAY), "the relay to notice")
    stack.finish()


def test_orders_that_are_truncated_away_end_the_spoke(prepared: Stack) -> None:
    prepared.up(WORLD, BASE)
    prepared.wait(lambda: prepared.status(BASE).at_us > 200_000_000, "some orders")
    prepared.stop(BASE)
    grown(prepared, ORDERS)
    first = records.truncate(prepared.connection, ORDERS)
    for time_ in (1, 2):
        prepared.start(BASE)
        assert prepared.ended(BASE) == REFUSED
        lines = prepared.said(BASE, level="error")
        assert len(lines) == time_
        assert lines[-1]["event"].startswith(f"{ORDERS}: expected offset ")
        assert f"begin at {first}" in lines[-1]["event"]
    assert not prepared.tracebacks()


# --- the hub ----------------------------------------------------------------------------


def test_a_hub_that_stands_still_for_long_goes_on(stack: Stack) -> None:
    life_us = round(stack.scenario.reservation.ttl_s * 1e6)
    with paused(stack, HUB):
        until_us = stack.now_us() + 2 * life_us
        stack.wait(lambda: stack.now_us() > until_us, "grants to expire")

    code, said = stack.second(HUB)
    assert (code, len(said)) == (REFUSED, 1)
    assert "expected a file that no other process writes, found one in use" in said[0]
    stack.finish()


def test_a_hub_that_is_killed_again_and_again_goes_on(stack: Stack) -> None:
    dice = random.Random(1)
    for _ in range(6):
        stack.kill(HUB)
        known = len(stack.said(HUB, "started"))
        stack.start(HUB)
        if dice.random() < 0.7:  # else it is killed somewhere in its start
            stack.wait(lambda known=known: len(stack.said(HUB, "started")) > known, "a start")
        time.sleep(dice.uniform(0, 0.3))
    stack.kill(HUB)
    stack.up(HUB)
    stack.finish()


def test_a_hub_on_an_old_backup_ends_and_on_its_own_file_goes_on(stack: Stack) -> None:
    """What it has granted since the backup, the spokes know (P60, P98)."""
    file, backup, own = (stack.folder / name for name in ("hub.db", "hub.backup", "hub.own"))
    stack.stop(HUB)
    shutil.copy(file, backup)
    stack.start(HUB)
    stack.go_on(600)
    stack.stop(HUB)
    shutil.move(file, own)
    shutil.copy(backup, file)
    stack.start(HUB)
    assert stack.ended(HUB) == REFUSED
    (line,) = stack.said(HUB, level="error")
    # A channel on which it has said nothing since sees another life, no loss; any may answer first.
    assert line["event"].endswith(("state_lost", "fenced"))

    shutil.move(own, file)
    stack.up(HUB)
    stack.go_on(300)
    assert not stack.tracebacks()


def test_a_hub_without_its_file_ends(stack: Stack) -> None:
    stack.stop(HUB)
    (stack.folder / "hub.db").unlink()
    stack.start(HUB)
    assert stack.ended(HUB) == REFUSED
    (line,) = stack.said(HUB, level="error")
    assert "state_lost" in line["event"]
