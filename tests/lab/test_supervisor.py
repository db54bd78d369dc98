"""The supervisor with real processes: small programs written here, in Python, not ours."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from lab.stack import register
from lab.stack.supervisor import (
    FIRST_S,
    HEALTHY_S,
    MOST_S,
    STAGE_S,
    STOP_S,
    Backoff,
    Child,
    Phase,
    Spec,
    Supervisor,
    last_word,
)

ROOT = Path(__file__).parent.parent.parent
LIMIT_S = 30.0  # to wait for what must happen; not what is measured

# Stops cleanly on SIGTERM and at the end of its standard input, as our processes do.
GOOD = """
import os, signal, sys
def stop(*_):
    open(sys.argv[1] + "/order", "a").write(sys.argv[2] + "\\n")
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
open(sys.argv[1] + "/" + sys.argv[2] + ".up", "w").write(str(os.getpid()))
sys.stdin.read()
stop()
"""
# Stops when it is told to, but not before there is a file `go`.
SLOW = """
import os, signal, sys, time
def stop(*_):
    open(sys.argv[1] + "/told", "w").write("x")
    while not os.path.exists(sys.argv[1] + "/go"):
        time.sleep(0.01)
    open(sys.argv[1] + "/order", "a").write(sys.argv[2] + "\\n")
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
open(sys.argv[1] + "/" + sys.argv[2] + ".up", "w").write(str(os.getpid()))
while True:
    signal.pause()
"""
STUBBORN = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1] + "/" + sys.argv[2] + ".up", "w").write(str(os.getpid()))
while True:
    signal.pause()
"""
TWICE = """
import os, sys
marks = sys.argv[1] + "/" + sys.argv[2] + ".marks"
open(marks, "a").write("x")
if len(open(marks).read()) < 3:
    print('{"event": "not yet", "level": "error"}', file=sys.stderr)
    sys.exit(1)
open(sys.argv[1] + "/" + sys.argv[2] + ".up", "w").write(str(os.getpid()))
sys.stdin.read()
"""
BAD_INPUT = """
import sys
print('{"event": "started"}', file=sys.stderr)
print('{"event": "plan.json: expected a plan, found none", "level": "error"}', file=sys.stderr)
sys.exit(2)
"""
FINISHED = "import sys; sys.exit(0)"
PARENT = """
import os, subprocess, sys
kid = subprocess.Popen(["sleep", "600"])
open(sys.argv[1] + "/kid", "w").write(str(kid.pid))
open(sys.argv[1] + "/" + sys.argv[2] + ".up", "w").write(str(os.getpid()))
kid.wait()
"""


class Stage:
    """A supervisor over test programs, with the children's own clock turned by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[dict[str, object]] = []
        self.now_s = 0.0
        self.supervisor = Supervisor([])

    def child(self, role: str, program: str, done: Callable[[], bool] = lambda: True) -> Child:
        command = [sys.executable, "-c", program, str(self.folder), role]
        log = structlog.wrap_logger(None, processors=[self._note])
        return Child(Spec(role, command, self.folder / f"{role}.jsonl", done), log)

    def _note(self, logger: object, level: str, event: structlog.typing.EventDict) -> str:
        self.events.append(dict(event))
        raise structlog.DropEvent

    def run(self, *stages: list[Child]) -> None:
        self.supervisor = Supervisor(stages)
        self.supervisor.tick(self.now_s)

    def tick_until(self, what: Callable[[], bool], *, step_s: float = 0.0) -> None:
        """Tick until something holds; `step_s` is how far the clock goes on each time."""
        until_s = time.monotonic() + LIMIT_S
        while not what():
            assert time.monotonic() < until_s, self.events
            self.now_s += step_s
            self.supervisor.tick(self.now_s)
            time.sleep(0.005)

    def up(self, *roles: str) -> bool:
        return all(written(self.folder / f"{role}.up") for role in roles)

    def said(self, event: str, key: str) -> list[object]:
        return [one[key] for one in self.events if one["event"] == event]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    one = Stage(tmp_path)
    yield one
    one.supervisor.kill()
    one.tick_until(lambda: one.supervisor.over)


def written(path: Path) -> bool:
    """Tell whether a file is there with all that is written to it at once."""
    return path.exists() and path.read_text() != ""


def exists(pid: int) -> bool:
    return register.known("", pid).started != ""


def wait_for(what: Callable[[], bool]) -> None:
    until_s = time.monotonic() + LIMIT_S
    while not what():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_waits_double_up_to_a_limit_and_begin_again_after_health() -> None:
    backoff = Backoff()

    waits = [backoff.after(1.0) for _ in range(9)]
    assert waits[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert waits[-1] == MOST_S
    assert backoff.after(HEALTHY_S) == FIRST_S


def test_a_process_that_fails_twice_is_started_three_times(stage: Stage) -> None:
    child = stage.child("shaky", TWICE)
    stage.run([child])

    stage.tick_until(lambda: child.phase is Phase.WAITING)
    assert child.why == "exit code 1: not yet"
    for _ in range(20):
        stage.supervisor.tick(stage.now_s)  # the wait is not over: nothing starts
    assert child.starts == 1
    stage.tick_until(lambda: stage.up("shaky"), step_s=0.01)
    assert child.starts == 3
    assert child.phase is Phase.UP
    assert stage.said("restart", "in_s") == [FIRST_S, 2 * FIRST_S]


def test_a_killed_process_is_started_again_and_its_end_named(stage: Stage) -> None:
    child = stage.child("good", GOOD)
    stage.run([child])
    stage.tick_until(lambda: stage.up("good"))
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)

    stage.tick_until(lambda: child.starts == 2, step_s=0.01)
    assert stage.said("ended", "how") == ["signal SIGKILL"]


def test_bad_input_is_not_tried_again_and_its_reason_kept(stage: Stage) -> None:
    child = stage.child("wrong", BAD_INPUT)
    stage.run([child])

    stage.tick_until(lambda: stage.supervisor.over)
    assert child.phase is Phase.REFUSED
    assert child.why == "plan.json: expected a plan, found none"
    stage.now_s += 1_000
    stage.supervisor.tick(stage.now_s)
    assert child.starts == 1


def test_an_end_by_itself_counts_only_if_the_work_is_done(stage: Stage) -> None:
    done = stage.child("done", FINISHED)
    undone = stage.child("undone", FINISHED, lambda: False)
    stage.run([done, undone])

    stage.tick_until(lambda: undone.starts > 1, step_s=0.01)
    assert done.phase is Phase.DONE
    assert done.starts == 1


def test_stages_stop_one_after_the_other(stage: Stage) -> None:
    roles = ["world", "relay", "hub"]
    stage.run(*([stage.child(role, GOOD)] for role in roles))
    stage.tick_until(lambda: stage.up(*roles))

    stage.supervisor.stop(stage.now_s)
    stage.tick_until(lambda: stage.supervisor.over)
    assert (stage.folder / "order").read_text().split() == roles
    assert [child.phase for child in stage.supervisor.children] == [Phase.STOPPED] * 3


def test_a_stage_is_not_told_to_stop_while_the_one_before_it_stops(stage: Stage) -> None:
    slow, good = stage.child("slow", SLOW), stage.child("good", GOOD)
    stage.run([slow], [good])
    stage.tick_until(lambda: stage.up("slow", "good"))

    stage.supervisor.stop(stage.now_s)
    stage.tick_until(lambda: written(stage.folder / "told"))
    ticks = iter(range(100))  # time enough for a wrong word to arrive
    stage.tick_until(lambda: next(ticks) == 99)
    (stage.folder / "go").write_text("")
    stage.tick_until(lambda: stage.supervisor.over)
    assert (stage.folder / "order").read_text().split() == ["slow", "good"]


def test_one_that_does_not_stop_is_killed_and_does_not_hold_up_the_others(stage: Stage) -> None:
    stubborn, good = stage.child("stubborn", STUBBORN), stage.child("good", GOOD)
    stage.run([stubborn], [good])
    stage.tick_until(lambda: stage.up("stubborn", "good"))

    stage.supervisor.stop(stage.now_s)
    stage.supervisor.tick(stage.now_s + STAGE_S - 0.1)
    assert not (stage.folder / "order").exists()
    stage.now_s += STAGE_S
    stage.tick_until(lambda: good.phase is Phase.STOPPED)
    assert stubborn.phase is Phase.UP
    stage.now_s += STOP_S
    stage.tick_until(lambda: stage.supervisor.over)
    assert stage.said("killed", "role") == ["stubborn"]


def test_a_stop_while_waiting_for_a_restart_starts_nothing(stage: Stage) -> None:
    child = stage.child("shaky", TWICE)
    stage.run([child])
    stage.tick_until(lambda: child.phase is Phase.WAITING)

    stage.supervisor.stop(stage.now_s)
    stage.now_s += 1_000
    stage.supervisor.tick(stage.now_s)
    assert child.phase is Phase.STOPPED
    assert child.starts == 1


def test_kill_leaves_neither_a_process_nor_what_it_started(stage: Stage) -> None:
    parent, stubborn = stage.child("parent", PARENT), stage.child("stubborn", STUBBORN)
    stage.run([parent], [stubborn])
    stage.tick_until(lambda: stage.up("parent", "stubborn"))
    pids = [int((stage.folder / name).read_text()) for name in ("kid", "parent.up", "stubborn.up")]
    assert all(exists(pid) for pid in pids)

    stage.supervisor.kill()
    stage.tick_until(lambda: stage.supervisor.over)
    wait_for(lambda: not any(exists(pid) for pid in pids))


def test_a_program_that_cannot_be_started_is_tried_again(stage: Stage) -> None:
    log = stage.folder / "none.jsonl"
    child = Child(
        Spec("none", ["/nowhere/at/all"], log), structlog.wrap_logger(None, [stage._note])
    )
    stage.run([child])

    assert child.phase is Phase.WAITING
    assert "No such file" in child.why


def test_no_child_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    """Kill -9 leaves no time to stop anything: the pipe at the child's standard input does it."""
    program = f"""
import sys, time
from pathlib import Path
import structlog
from lab.stack.supervisor import Child, Spec, Supervisor
folder = Path({str(tmp_path)!r})
command = [sys.executable, "-c", {GOOD!r}, str(folder), "good"]
Supervisor([[Child(Spec("good", command, folder / "log"), structlog.get_logger())]]).tick(0.0)
time.sleep(600)
"""
    owner = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: written(tmp_path / "good.up"))
        pid = int((tmp_path / "good.up").read_text())
        assert exists(pid)
    finally:
        owner.kill()
        owner.wait()

    wait_for(lambda: not exists(pid))
    assert (tmp_path / "order").read_text() == "good\n"


def test_the_last_word_of_a_log_is_its_event_or_its_line(tmp_path: Path) -> None:
    log = tmp_path / "x.jsonl"
    log.write_text("")
    assert last_word(log) == ""
    log.write_text(json.dumps({"event": "one"}) + "\n" + json.dumps({"event": "two"}) + "\n\n")
    assert last_word(log) == "two"
    log.write_text("Traceback ...\nAssertionError: expected 1, found 2\n")
    assert last_word(log) == "AssertionError: expected 1, found 2"


def test_a_process_is_known_by_its_start_too(tmp_path: Path) -> None:
    """A pid that the system has given out again names another process."""
    program = "import signal; signal.pause()"
    sleeper = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    try:
        wait_for(lambda: register.ours(register.known("x", sleeper.pid), tmp_path))
        found = register.known("x", sleeper.pid)
        other = register.Process(role="x", pid=sleeper.pid, started="1")

        assert register.alive(found)
        assert not register.alive(other)
        assert not register.ours(found, tmp_path / "elsewhere")
        assert register.end(other, signal.SIGKILL, 0.0)
        assert register.alive(found)
    finally:
        sleeper.kill()
        sleeper.wait()
    assert register.end(found, signal.SIGTERM, 0.0)


def test_a_process_that_has_ended_is_not_alive_before_its_parent_has_noticed() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)

    assert not exists(ended.pid)
    ended.wait()
