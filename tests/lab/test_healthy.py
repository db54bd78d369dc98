"""The health check believes a fresh word of a process that runs, and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.stack import healthy
from lab.stack.plan import State, Status, write_status
from messaging.units import HUB, Micros

NOW_S = 1_000_000.0


def tell(folder: Path, state: State, age_s: float) -> None:
    write_status(folder, Status(role=HUB, pid=1, state=state, at_us=Micros(0)))
    os.utime(folder / f"{HUB}.status.json", (NOW_S - age_s, NOW_S - age_s))


@pytest.mark.parametrize("state", State)
def test_a_fresh_word_is_believed_if_it_says_that_the_process_runs(
    tmp_path: Path, state: State
) -> None:
    tell(tmp_path, state, 0.5)

    found = healthy.trouble(HUB, tmp_path, NOW_S)

    assert (found == "") == (state in (State.RUNNING, State.COMPLETE))
    assert found == "" or found == f"hub: expected running or complete, found {state}"


@pytest.mark.parametrize(("age_s", "well"), [(0, True), (4.9, True), (5.1, False), (1e5, False)])
def test_an_old_word_is_not_believed(tmp_path: Path, age_s: float, well: bool) -> None:
    tell(tmp_path, State.RUNNING, age_s)

    assert (healthy.trouble(HUB, tmp_path, NOW_S) == "") == well


def test_who_is_done_need_not_say_so_again(tmp_path: Path) -> None:
    tell(tmp_path, State.COMPLETE, 1e5)

    assert healthy.trouble(HUB, tmp_path, NOW_S) == ""


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '{"state": ["running"]}'])
def test_something_else_in_the_file_is_not_believed(tmp_path: Path, text: str) -> None:
    (tmp_path / "hub.status.json").write_text(text)

    assert healthy.trouble(HUB, tmp_path, (tmp_path / "hub.status.json").stat().st_mtime)


def test_the_exit_code_says_it_too(tmp_path: Path) -> None:
    def check(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lab.stack.healthy", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    write_status(tmp_path, Status(role=HUB, pid=1, state=State.RUNNING, at_us=Micros(0)))
    os.utime(tmp_path / "hub.status.json", (2e9, 2e9))  # however long this test takes

    well, unwell, wrong = check("hub", str(tmp_path)), check("base", str(tmp_path)), check("hub")

    assert (well.returncode, well.stderr) == (0, "")
    assert unwell.returncode == 1
    assert unwell.stderr == "base: expected a word of it, found No such file or directory\n"
    assert wrong.returncode == 2


def test_it_imports_nothing_of_ours() -> None:
    """It runs every two seconds in each container: a fiftieth of a second, not a whole one."""
    script = (
        "import sys, lab.stack.healthy\n"
        "own = {'lab', 'lab.stack', 'lab.stack.healthy'}\n"
        "print([name for name in sys.modules if name.split('.')[0] in "
        "('lab', 'hub', 'spokes', 'markets', 'messaging', 'msgspec', 'numpy') and name not in own])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
