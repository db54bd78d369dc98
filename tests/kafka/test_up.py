"""`omnimargin up` and its companions as a user meets them: real processes on a real broker."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.stack import register
from lab.stack.plan import KEYS, read_plan
from lab.stack.view import Row, gather
from messaging.codec import decode_frame
from messaging.identity import key_id, read_sealed
from messaging.key_files import read_later_signers
from messaging.messages import Family
from messaging.units import NodeId
from tests.kafka.audit import rows

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("kafka")]

ROOT = Path(__file__).parents[2]
LIMIT_S = 180.0  # to wait for what must happen on a busy machine; not what is measured
SMALL = (
    str(ROOT / "scenarios" / "live.toml"),
    "--spokes=2",
    "--set=duration_h=0.5",
    "--set=traders.accounts=20",
    "--set=traders.open_until_h=0.4",
    "--own-broker",
    "--monitor-port=0",
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave `runs/live/latest` of this checkout alone."""
    monkeypatch.chdir(tmp_path)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "lab", *words]


def omnimargin(*words: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*words), capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def processes_of(folder: Path) -> dict[int, str]:
    """Return all processes on this machine whose command line names the folder, but this one's."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended
        if str(folder) in words:
            found[int(path.parent.name)] = words
    return found


def wait_for(what: Callable[[], bool], why: Callable[[], object] = lambda: "") -> None:
    until_s = time.monotonic() + LIMIT_S
    while not what():
        assert time.monotonic() < until_s, why()
        time.sleep(0.1)


class Up:
    """A running `omnimargin up`."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.folder = folder
        self.process = process

    def row(self, role: str) -> Row:
        """Return what a process is doing, as `omnimargin status` does."""
        found = register.read(self.folder)
        plan, scenario = read_plan(self.folder)
        processes = found.processes if found is not None else ()
        view = gather(self.folder, plan, scenario, processes, runs=True)
        return next(row for row in view.rows if row.role == role)

    def runs(self, role: str) -> bool:
        """Tell whether a process runs and has told so."""
        found = register.read(self.folder)
        if found is None or all(process.role != role for process in found.processes):
            return False
        return self.row(role).state == "running"

    def pid(self, role: str) -> int:
        """Return the id of a process that runs."""
        pid = self.row(role).pid
        assert pid > 0, self.text()  # 0 would be a signal to ourselves
        return pid

    def wait_for(self, what: Callable[[], bool]) -> None:
        def both() -> bool:
            assert self.process.poll() is None, self.text()
            return what()

        wait_for(both, self.text)

    def text(self) -> str:
        return (self.folder.parent / "up.out").read_text()

    def ended(self) -> int:
        return self.process.wait(LIMIT_S)


@contextmanager
def up(folder: Path, *words: str) -> Iterator[Up]:
    """Yield a stack that comes up; afterwards nothing of it may be left, whatever has happened."""
    with (folder.parent / "up.out").open("a") as out:
        process = subprocess.Popen(
            command("up", *words, "--folder", str(folder)),
            stdout=out,
            stderr=out,
            text=True,
            start_new_session=True,
        )
    try:
        yield Up(folder, process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        wait_for(lambda: not processes_of(folder), lambda: processes_of(folder))


def test_a_scenario_runs_to_its_end_and_leaves_only_its_folder(tmp_path: Path) -> None:
    folder, log = tmp_path / "stack", tmp_path / "run.mcap"
    done = omnimargin("up", *SMALL, "--speed=200", f"--folder={folder}", "--json", f"--log={log}")

    assert processes_of(folder) == {}
    ending = json.loads(done.stdout)
    assert ending["why"] == "scenario complete"
    rows = {row["role"]: row for row in ending["view"]["rows"]}
    assert rows.keys() == {"world", "relay", "base", "optimism", "hub", "monitor"}
    for role in ("world", "base", "optimism", "hub"):
        assert rows[role]["state"] == "done"
        assert rows[role]["restarts"] == 0
        assert rows[role]["events"] > 0
    assert rows["relay"]["state"] == rows["monitor"]["state"] == "stopped"
    assert ending["view"]["figures"]["all"]["granted"] > 0
    assert "every effect the same" in omnimargin("replay", str(log)).stdout


def under_new_key(folder: Path, speaker: str, reader: str) -> set[Family]:
    """Return the channels on which a node has taken frames of another's second key (P67)."""
    keys, domain = folder / KEYS, read_plan(folder)[0].domain
    (signer,) = read_later_signers(keys, NodeId(speaker), domain)
    new = key_id(signer.public)
    journal = rows(folder / f"{reader}.db", "SELECT event FROM journal")
    taken = [read_sealed(data) for (data,) in journal if new in data]
    return {decode_frame(sealed.frame).family for sealed in taken if sealed.key == new}


def test_a_stack_is_shown_changed_rekeyed_killed_and_stopped_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    where = f"--folder={folder}"
    with up(folder, *SMALL, "--speed=10") as stack:
        stack.wait_for(lambda: stack.runs("hub") and stack.row("hub").events > 0)
        table = omnimargin("status", where).stdout
        for word in ("hub", "optimism", "running", "reserved", "liq. ordered"):
            assert word in table

        assert "in use" in omnimargin("up", where, expect=2).stderr

        said = omnimargin("link", "base", "hub", "--latency=constant:70s", where).stdout
        assert said.startswith("base hub: constant:70s from scenario time 0:0")
        stack.wait_for(lambda: "link_changed" in (folder / "logs" / "relay.jsonl").read_text())

        old = stack.pid("base")
        said = omnimargin("rotate", "base", where).stdout
        assert said == f"{folder / KEYS / 'base.key.2'}: it starts again now\n"
        stack.wait_for(lambda: stack.runs("base") and stack.pid("base") != old)
        busy = {Family.MARGIN_STATE, Family.RESERVATION}
        stack.wait_for(lambda: under_new_key(folder, "base", "hub") >= busy)

        victim = stack.pid("hub")
        os.kill(victim, signal.SIGKILL)
        stack.wait_for(lambda: stack.row("hub").restarts == 1 and stack.runs("hub"))
        assert stack.pid("hub") != victim

        assert "stopped" in omnimargin("down", where).stderr
        assert stack.ended() == 0
        assert processes_of(folder) == {}
    assert "asked to stop" in stack.text()
    assert "Traceback" not in stack.text()
    assert "nothing runs" in omnimargin("down", where).stderr
    before = json.loads(omnimargin("status", "--json", where, expect=3).stdout)
    assert not before["running"]
    with up(folder) as stack:
        before_events = next(row["events"] for row in before["rows"] if row["role"] == "hub")
        stack.wait_for(lambda: stack.runs("hub") and stack.row("hub").events > before_events)
        assert any("kafka.Kafka" in words for words in processes_of(folder).values())
        stack.process.kill()  # no chance to stop anything
        stack.ended()
        wait_for(lambda: not processes_of(folder), lambda: processes_of(folder))
    assert "journals fold to the live state" in omnimargin("record", str(folder)).stdout


def test_an_interrupt_while_the_broker_starts_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    with up(folder, *SMALL) as stack:
        stack.wait_for(
            lambda: any("kafka.Kafka" in words for words in processes_of(folder).values())
        )
        stack.process.send_signal(signal.SIGINT)

        assert stack.ended() in (130, 0)  # 0: it was faster than we were
        assert processes_of(folder) == {}
    assert "Traceback" not in stack.text()


def test_a_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    """A frozen process cannot stop cleanly; asked twice, nobody waits for it."""
    folder = tmp_path / "stack"
    with up(folder, *SMALL) as stack:
        stack.wait_for(lambda: stack.runs("hub"))
        os.kill(stack.pid("hub"), signal.SIGSTOP)
        stack.process.send_signal(signal.SIGINT)
        wait_for(lambda: "stopping" in stack.text(), stack.text)
        stack.process.send_signal(signal.SIGINT)

        assert stack.ended() == 0
        assert "killing why=asked twice" in stack.text()
        assert processes_of(folder) == {}


def test_a_broker_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    done = omnimargin(
        "up",
        *SMALL[:-2],
        "--bootstrap=127.0.0.1:1",
        f"--folder={tmp_path / 'stack'}",
        expect=2,
    )

    (line,) = done.stderr.splitlines()
    assert "--bootstrap: expected a broker that answers" in line
