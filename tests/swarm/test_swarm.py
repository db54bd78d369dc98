"""Random worlds under random faults: few here, many with `omnimargin swarm`."""

import json
import os
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from lab import plants
from lab.cli import app
from lab.swarm import campaign
from lab.swarm.draws import Draws
from lab.swarm.options import FAULTS, KEYS, Options, draw
from lab.swarm.reached import GROUPS, STATES
from lab.swarm.trial import Trial
from messaging import durable
from messaging.drivers.process import Point
from messaging.identity import read_entry
from messaging.node import TimerFired
from messaging.units import HUB

ROOT = Path(__file__).parents[2]
MINUTES = 1.5
SEEDS = range(40)


def swarm(*words: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab", "swarm", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
    )


def everything(seed: int) -> Options:
    """Return a world with every fault on, and strongly; memory is lost, or keys change."""
    out = ("amnesia",) if seed % 8 else KEYS
    faults = {name: 0.8 for name in FAULTS if name not in out}
    return msgspec.structs.replace(draw(seed, MINUTES), faults=faults)


def test_nothing_is_found_and_every_fault_strikes() -> None:
    counts: Counter[str] = Counter()
    stolen = draw(14, 2 * MINUTES)  # a key, and used behind the next: that takes longer
    for options in (*map(everything, SEEDS), stolen):
        verdict = Trial(options).run()
        assert verdict.finding is None, (options.seed, verdict.finding)
        counts.update(verdict.counts)
    struck = {name for name in campaign.REQUIRED if name in FAULTS or name.startswith("died")}
    struck.remove("leaked")  # not where nodes are put back behind their new keys
    assert not {name for name in struck if not counts[name]}
    assert not {f"{group} while held" for group in ("F2", "F5", "F8")} - {*counts}
    assert not {f"F1 while {state}" for state in STATES} - {*counts}


def test_old_keys_are_refused_once_nodes_have_new_ones() -> None:
    counts: Counter[str] = Counter()
    for seed in range(8):
        faults = {"rotation": 0.8, "leaked": 1.0, "loss": 0.3, "reorg": 0.5}
        options = msgspec.structs.replace(draw(seed, MINUTES), faults=faults, liar=None)
        both = [
            Trial(msgspec.structs.replace(options, real_signatures=real)).run()
            for real in (False, True)[: 1 + (seed < 2)]
        ]
        assert {one.finding for one in both} == {None}
        assert len({one.digest for one in both}) == 1
        counts.update(both[0].counts)
    assert counts["leaked"] > 50
    assert counts["rotated with frames in flight"] > 10
    assert counts["refused: expected no old key"] > counts["leaked"] // 2
    assert counts["reorg"] > 10


def test_a_seed_is_the_same_in_any_process_and_whatever_its_neighbours() -> None:
    digests = []
    for hash_seed, jobs in (("0", "1"), ("77", "2")):
        done = swarm(
            "--seeds", "3..32", "--minutes", "1", "--jobs", jobs, "--json", hash_seed=hash_seed
        )
        assert done.returncode == 0, done.stderr
        digests.append(json.loads(done.stdout)["digest"])
    assert digests[0] == digests[1]


def test_real_signatures_change_nothing_but_bytes() -> None:
    options = msgspec.structs.replace(draw(5, 1.0), real_signatures=True)
    keyed = msgspec.structs.replace(options, real_signatures=False)
    found = [Trial(one).run() for one in (options, keyed)]
    assert [one.finding for one in found] == [None, None]
    assert found[0].digest == found[1].digest


def test_switching_a_fault_off_leaves_the_draws_of_the_others() -> None:
    first = [Draws(7, name).next() for name in ("loss", "death")]
    assert [Draws(7, name).next() for name in ("loss", "death")] == first
    both = Draws(7, "loss")
    assert [both.next(), both.next()] == [both.row(1), both.row(2)]
    assert all(0.0 <= one < 1.0 for one in both.row(99))


@pytest.mark.parametrize("name", ["hub_clock", "early_release", "overuse", "soft_settle"])
def test_a_planted_defect_is_found(name: str) -> None:
    with plants.planted(name):
        assert any(Trial(draw(seed, MINUTES)).run().finding for seed in range(60))


def test_a_finding_is_reproduced_and_shrinks() -> None:
    with plants.planted("free_grant"):
        options = everything(1)
        finding = Trial(options).run().finding
        assert finding is not None
        assert finding.text.startswith("INV2")
        again = Trial(options).run(finding.event + 1).finding
        assert again == finding

        smaller = campaign.shrink(options, "INV2")
        found = Trial(smaller).run().finding
    assert found is not None
    assert found.text.startswith("INV2")
    assert not smaller.faults
    assert (smaller.spokes, smaller.accounts, smaller.assets, smaller.batch) == (1, 1, 1, 1)


def test_a_finding_leaves_a_log_that_ends_with_its_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with plants.planted("free_grant"):
        ended = CliRunner().invoke(app, ["swarm", "--seeds", "1"])
    assert ended.exit_code == 4
    finding, again, log = ended.stderr.splitlines()[-3:]
    assert again.startswith("omnimargin: reproduce: omnimargin swarm --seeds 1 ")
    lines = Path(log.removeprefix("omnimargin: log: ")).read_text().splitlines()
    last = json.loads(lines[-1])
    assert last["node"] == HUB
    assert last["event"]["message"]["is"] == "ReservationRequested"
    assert [effect["message"]["is"] for effect in last["effects"]] == ["ReservationGranted"]
    assert f"{last['at_s']:,.6f} s)" in finding


def test_a_timer_that_is_not_in_the_journal_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the fold gives another state (P92)."""
    sound = durable.Durable._journal
    monkeypatch.setattr(
        durable.Durable,
        "_journal",
        lambda self, now_us, data: None if _is_timer(data) else sound(self, now_us, data),
    )
    worlds = [msgspec.structs.replace(draw(n, MINUTES), faults={"death": 1.0}) for n in range(6)]
    assert any(Trial(one).run().finding for one in worlds)


def _is_timer(data: bytes) -> bool:
    return isinstance(read_entry(data)[0], TimerFired)


def test_a_process_dies_at_each_point_and_finds_its_input_again() -> None:
    died: Counter[str] = Counter()
    for seed in range(10):
        options = msgspec.structs.replace(
            draw(seed, MINUTES), faults={"death": 1.0, "crash_loop": 1.0, "rewind": 1.0}
        )
        verdict = Trial(options).run()
        assert verdict.finding is None, (seed, verdict.finding)
        died.update(verdict.counts)
    assert all(died[f"died {point}"] for point in Point)
    assert died["rewound"]
    assert died["died in recovery"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--seeds", "9..3"], "--seeds: expected A..B with A <= B, or one, found '9..3'"),
        (["--seeds", "x"], "--seeds: expected A..B"),
        (["--seeds", "1..2", "--shrink"], "--seeds: expected one seed with these options"),
        (["--seeds", "1", "--without", "rain"], "--without: expected some of loss"),
        (["--seeds", "1", "--options", "{}"], "--options: expected drawn options"),
    ],
)
def test_bad_input_is_one_line(words: list[str], line: str) -> None:
    done = swarm(*words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"omnimargin: {line}")
    assert done.stderr.count("\n") == 1


def test_drawn_options_run_again_as_they_are_printed() -> None:
    first = swarm("--seeds", "4", "--minutes", "1", "--json")
    assert first.returncode == 0
    printed = first.stderr.splitlines()[0].removeprefix("omnimargin: options: ")
    again = swarm(*shlex.split(f"--seeds 4 --options '{printed}' --json"))
    assert json.loads(again.stdout)["digest"] == json.loads(first.stdout)["digest"]


def test_every_fault_that_can_strike_belongs_to_a_group() -> None:
    assert set(GROUPS) == set(FAULTS.values())


def test_a_campaign_fails_if_something_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "REACHED_SEEDS", 2)
    monkeypatch.setattr(campaign, "REQUIRED", ("Watermark", "a blue moon"))
    summary = campaign.run(0, 1, 1.0, 1, lambda known: None)
    assert summary.missing == ("a blue moon",)


PUT_BACK = {"death": 1.0, "backup": 0.7, "lost_commit": 0.7, "twin": 0.2}


def test_a_node_that_some_have_agreed_to_is_not_compared_with_its_former_self() -> None:
    restored = 0
    for seed in range(40, 80):
        drawn = draw(seed, 2.0)
        options = msgspec.structs.replace(drawn, faults=drawn.faults | PUT_BACK, liar=None)
        verdict = Trial(options).run()
        assert verdict.finding is None, (seed, verdict.finding)
        restored += verdict.counts.get("restored", 0)
    assert restored > 5
