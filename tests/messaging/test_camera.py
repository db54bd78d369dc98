"""Snapshots by a child: the same state, at its place; and the node lives, whatever it comes to."""

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from messaging.drivers.camera import Camera
from messaging.durable import Durable
from messaging.store import Store
from messaging.units import HUB
from tests.messaging.test_durable import Life

WAIT_S = 60.0


def until(done: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end_s = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def taken(camera: Camera, life: Life, place: int) -> bool:
    camera.tend()
    return life.durable.snapshot_place == place


def test_a_child_keeps_the_state_as_it_was_while_the_node_goes_on(tmp_path: Path) -> None:
    with Life(HUB, tmp_path / "node.db") as life, Camera(life.durable, events=300) as camera:
        life.live(299)
        life.commit()
        camera.tend()
        life.live(101)
        life.commit()
        then = life.durable.packed()
        camera.tend()  # begins
        life.live(200)
        life.commit()
        until(lambda: taken(camera, life, 400))
        found = life.store.snapshot()
        assert found is not None
        assert (found.place, found.state) == (400, then)
        expected = life.durable.fingerprint()
        life.stop()

        life.start()

        assert (life.durable.place, life.durable.folded) == (600, 200)
        assert life.durable.fingerprint() == expected


def test_the_next_one_is_taken_so_many_events_after_the_last_was_begun(tmp_path: Path) -> None:
    places = []
    with Life(HUB, tmp_path / "node.db") as life, Camera(life.durable, events=200) as camera:
        while life.durable.place < 1_000:
            life.live(30)
            life.commit()
            camera.tend()
            if life.durable.place - life.durable.snapshot_place >= 200:
                begun = life.durable.place
                until(lambda place=begun: taken(camera, life, place))  # type: ignore[misc]
                places.append(begun)
    assert places == [210, 420, 630, 840]


def hang(durable: Durable) -> bytes:
    time.sleep(WAIT_S)
    return b""


def fail(durable: Durable) -> bytes:
    raise MemoryError


def no_room() -> int:
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


@pytest.mark.parametrize(
    ("of", "name", "fault"),
    [(Durable, "packed", hang), (Durable, "packed", fail), (os, "fork", no_room)],
)
def test_a_child_that_is_killed_or_fails_or_never_was_costs_a_snapshot_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: Any, name: str, fault: Callable[..., Any]
) -> None:
    with Life(HUB, tmp_path / "node.db") as life, Camera(life.durable, events=100) as camera:
        life.live(100)
        life.commit()
        with monkeypatch.context() as patch:
            patch.setattr(of, name, fault)
            camera.tend()
        assert (camera._child is None) is (fault is no_room)
        if fault is hang:
            assert camera._child is not None
            os.kill(camera._child.pid, signal.SIGKILL)
        until(lambda: camera.tend() or camera._child is None)
        assert life.store.snapshot() is None
        life.live(100)
        life.commit()
        camera.tend()
        until(lambda: taken(camera, life, 200))


def test_a_child_holds_nothing_of_a_node_that_has_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else no other process could have the file until it is done."""
    path = tmp_path / "node.db"
    monkeypatch.setattr(Durable, "packed", hang)
    with Life(HUB, path) as life, Camera(life.durable, events=1) as camera:
        life.live(1)
        life.commit()
        camera.tend()
        assert camera._child is not None
        open_files = Path(f"/proc/{camera._child.pid}/fd")
        until(lambda: len(list(open_files.iterdir())) == 1)
        life.stop()
        with Store(path, {"role": HUB}):
            pass


def test_a_child_ends_with_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Durable, "packed", hang)
    with Life(HUB, tmp_path / "node.db") as life, Camera(life.durable, events=1) as camera:
        life.live(1)
        life.commit()
        camera.tend()
        assert camera._child is not None
        pid = camera._child.pid
    assert not Path(f"/proc/{pid}").exists()
