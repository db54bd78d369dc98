"""What a live stack's folder shows, and what its operator may not ask for; no broker needed."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from lab.stack import prepare, register, table
from lab.stack.down import take_down
from lab.stack.link import change_link
from lab.stack.notes import Tails, for_people, notes
from lab.stack.plan import Plan, State, Status, write_plan, write_status
from lab.stack.prepare import Choices
from lab.stack.supervisor import Phase
from lab.stack.view import View, by_their_word, gather
from messaging.errors import FrameRefused, InputRefused
from messaging.messages import LinkChanged
from messaging.units import Micros, NodeId

SCENARIO = prepare.scenario_of(
    Choices(scenario=Path(__file__).parent.parent.parent / "scenarios" / "live.toml")
)
FIGURES = {
    "spokes": {
        "base": {"fills": 4321, "reserved_usd6": 1_234_567_000_000, "halt": "watchdog"},
    },
    "all": {"fills": 5432, "bad_debt_usd6": 77_000_000},
    "delays": {
        "from-base.reservation": {"count": 1, "p50_s": 1.0, "p99_s": 2.0},
        "from-base.margin-state": {"count": 9, "p50_s": 40.4, "p99_s": 79.0},
    },
    "price_age_s": {"BTC": 12.3},
    "findings": [{"rule": "W3", "text": "expected 1 usd6, found 2"}],
}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Return the plan of a stack in `tmp_path`; nothing serves at its monitor's port."""
    plan = Plan(
        deployment="x",
        bootstrap="127.0.0.1:1",
        epoch_ns=0,
        speed=60.0,
        settle_ms=1,
        monitor_port=prepare.free_port(0),
    )
    write_plan(tmp_path, plan, SCENARIO)
    return plan


def process(role: str, phase: str, *, pid: int = 0, starts: int = 1) -> register.Process:
    return register.Process(role=role, pid=pid, started="", phase=phase, starts=starts)


def text(view: View) -> str:
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        console.print(table.draw(view))
    return capture.get()


def test_a_row_is_the_process_own_word_while_it_runs(tmp_path: Path, plan: Plan) -> None:
    word = Status(role="hub", pid=7, state=State.WAITING, at_us=9, events=5, late=2, note="broker")
    write_status(tmp_path, word)

    view = gather(tmp_path, plan, SCENARIO, [process("hub", Phase.UP, pid=7)], runs=True)
    (row,) = view.rows
    assert (row.state, row.events, row.late, row.note) == ("waiting", 5, 2, "broker")
    assert view.figures == {}


def test_the_word_of_an_earlier_process_is_not_taken_for_the_new_ones(
    tmp_path: Path, plan: Plan
) -> None:
    write_status(tmp_path, Status(role="hub", pid=7, state=State.RUNNING, at_us=9, events=5))

    new = process("hub", Phase.UP, pid=8, starts=3)
    (row,) = gather(tmp_path, plan, SCENARIO, [new], runs=True).rows
    assert (row.state, row.events, row.restarts) == ("starting", 0, 2)


def test_a_process_that_says_nothing_for_long_is_silent(tmp_path: Path, plan: Plan) -> None:
    write_status(tmp_path, Status(role="hub", pid=7, state=State.RUNNING, at_us=9))
    os.utime(tmp_path / "hub.status.json", (0, 0))

    (row,) = gather(tmp_path, plan, SCENARIO, [process("hub", Phase.UP, pid=7)], runs=True).rows
    assert row.state == "silent"
    assert "no word for" in row.note


def test_without_a_supervisor_its_processes_are_gone_or_left_over(
    tmp_path: Path, plan: Plan
) -> None:
    left = msgspec.structs.replace(register.known("hub", os.getpid()), phase=Phase.UP)
    gone = process("relay", Phase.UP, pid=os.getpid())  # the id was given out again

    rows = gather(tmp_path, plan, SCENARIO, [left, gone], runs=False).rows
    assert [row.state for row in rows] == ["left over", "gone"]


def test_of_a_stack_that_something_else_has_started_there_are_the_words_of_its_processes(
    tmp_path: Path, plan: Plan
) -> None:
    def say(state: State) -> None:
        for role in ("hub", "relay"):
            write_status(tmp_path, Status(role=NodeId(role), pid=1, state=state, at_us=Micros(5)))

    def rows() -> list[tuple[str, str]]:
        roles, runs = prepare.roles_of(SCENARIO), prepare.in_use(tmp_path)
        view = gather(tmp_path, plan, SCENARIO, by_their_word(tmp_path, roles), runs=runs)
        return [(row.role, row.state) for row in view.rows]

    assert rows() == []
    say(State.RUNNING)
    assert rows() == [("hub", "running"), ("relay", "running")]
    say(State.STOPPED)  # a moment ago, so that it may be started again
    assert rows() == [("hub", "gone"), ("relay", "gone")]


def test_the_table_shows_figures_by_spoke_delays_halts_and_findings(
    tmp_path: Path, plan: Plan
) -> None:
    view = gather(tmp_path, plan, SCENARIO, [process("hub", Phase.REFUSED)], runs=True)
    assert "fills" not in text(view)
    full = msgspec.structs.replace(view, figures=FIGURES, notes=("12:00:00 hub ended",))
    drawn = text(full)

    for word in (
        SCENARIO.title,
        "refused",
        "4,321",
        "5,432",
        "$1,234,567",
        "40/79 s",
        "BTC 12 s",
        "bad debt $77",
        "HALT of base: watchdog",
        "W3: expected 1 usd6, found 2",
        "12:00:00 hub ended",
        "Ctrl-C stops everything",
    ):
        assert word in drawn
    assert "5,432 fills" in table.line(full)
    assert "hub:refused" in table.line(full)
    assert "no word of the monitor" in table.line(view)


def test_time_before_the_beginning_is_a_countdown(tmp_path: Path, plan: Plan) -> None:
    view = gather(tmp_path, plan, SCENARIO, [], runs=True)
    early = msgspec.structs.replace(view, at_us=-120_000_000)

    assert table.clock_line(early) == "scenario begins in 2 s at speed 60"


def test_notes_are_lines_for_people_and_json_for_the_log(tmp_path: Path) -> None:
    with notes(tmp_path) as said:
        said.echo = False
        for number in range(9):
            said.log.info("ended", role="hub", how=f"exit code {number}")

    written = (tmp_path / "logs" / "supervisor.jsonl").read_text().splitlines()
    assert [msgspec.json.decode(line)["how"] for line in written][-1] == "exit code 8"
    assert len(written) == 9
    assert [line[9:] for line in said.lines] == [
        f"hub ended how=exit code {number}" for number in range(3, 9)
    ]


def test_tails_show_whole_lines_once(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "hub.jsonl"
    log.parent.mkdir()
    log.write_text('{"event": "old"}\n')
    tails = Tails(tmp_path, ["hub", "relay"])
    with log.open("a") as file:
        file.write('{"event": "one", "role": "hub"}\nno json\n{"event": "tw')
        file.flush()
        assert [line.strip() for line in tails.lines()] == ["hub one", "hub: no json"]
        file.write('o"}\n')
    assert [line.strip() for line in tails.lines()] == ["two"]
    assert list(tails.lines()) == []
    assert for_people({}) == ""


@pytest.mark.parametrize(
    ("source", "target", "latency", "expected"),
    [
        ("base", "mars", "constant:1s", "expected one of the links oracle hub, base hub"),
        ("base", "optimism", "constant:1s", "expected one of the links"),
        ("base", "hub", "layerzer", "did you mean 'layerzero'"),
        ("base", "hub", "constant:minus", "latency"),
    ],
)
def test_a_link_that_cannot_be_is_refused_before_anybody_hears(
    tmp_path: Path, plan: Plan, source: str, target: str, latency: str, expected: str
) -> None:
    change = LinkChanged(source=NodeId(source), target=NodeId(target), latency=latency)

    with pytest.raises(FrameRefused, match=expected):
        change_link(tmp_path, plan, SCENARIO, change)


def test_a_stack_that_does_not_run_has_no_links_to_change(tmp_path: Path, plan: Plan) -> None:
    change = LinkChanged(source=NodeId("base"), target=NodeId("hub"), latency="constant:1s")

    with pytest.raises(InputRefused, match="expected a stack that runs"):
        change_link(tmp_path, plan, SCENARIO, change)


def test_down_ends_what_is_left_and_nothing_else(tmp_path: Path) -> None:
    """Of three that are written down, one has the folder in its command line and its start."""
    program = "import signal; signal.pause()"
    ours = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    other = subprocess.Popen([sys.executable, "-c", program])
    try:
        while not register.ours(register.known("hub", ours.pid), tmp_path):
            assert ours.poll() is None
        dead = process("up", "", pid=ours.pid)
        reused = process("relay", "", pid=other.pid)
        known = (register.known("hub", ours.pid), register.known("base", other.pid), reused)
        register.write(tmp_path, register.Register(dead, known))
        said: list[str] = []

        assert take_down(tmp_path, said.append)
        assert ours.wait() != 0
        assert other.poll() is None
        assert len(said) == 1
        assert "hub runs" in said[0]
        assert not take_down(tmp_path, said.append)
    finally:
        for one in (ours, other):
            one.kill()
            one.wait()


def test_down_of_a_folder_that_never_ran_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match="expected the folder of a live stack"):
        take_down(tmp_path, lambda line: None)
