"""The command line as a user meets it: in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab.shell import ROOT, omnimargin

SMALL = (
    "run",
    str(ROOT / "scenarios" / "march_2020.toml"),
    "--set=duration_h=6",
    "--set=traders.accounts=60",
    "--set=traders.open_until_h=2",
)
KEYS = {
    "scenario",
    "seed",
    "digest",
    "events",
    "virtual_s",
    "wall_s",
    "accounts",
    "spokes",
    "messages",
    "bad_debt_usd6",
    "insurance_used_usd6",
    "liquidations",
    "liquidated_accounts",
    "reservations",
    "equity_locked_ppm",
    "delay_us",
    "invariants_checked",
    "violations",
}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "lab", *words]


def refused(*words: str) -> str:
    """Return the one line that bad input gets."""
    done = omnimargin(*words, expect=2)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a complete log and its digest."""
    path = tmp_path_factory.mktemp("log") / "run.mcap"
    done = omnimargin(*SMALL, "--json", "--log", str(path))
    return path, json.loads(done.stdout)["digest"]


def test_json_is_one_object_with_all_that_was_promised() -> None:
    done = omnimargin(*SMALL, "--json")
    (line,) = done.stdout.splitlines()
    found = json.loads(line)

    assert found.keys() >= KEYS
    assert {"requested", "granted", "rejected", "released"} <= found["reservations"].keys()
    assert set(found["delay_us"]) == {
        "oracle",
        "state_report",
        "hub",
        "command",
        "inclusion",
        "unwind",
        "total",
    }
    assert found["delay_us"]["command"].keys() >= {"p50", "p99"}
    assert found["violations"] == 0


def test_a_run_names_its_report_and_log(tmp_path: Path) -> None:
    report, written = tmp_path / "r.html", tmp_path / "r.mcap"
    done = omnimargin(*SMALL, "--report", str(report), "--log", str(written))
    assert str(report) in done.stdout
    assert str(written) in done.stdout
    assert report.read_text().lower().startswith("<!doctype html>")


def test_help_teaches() -> None:
    for words, said in (
        (("--help",), "replay"),
        (("run", "--help"), "--latency"),
        (("replay", "--help"), "damaged"),
        (("latency", "--help"), "quartiles"),
    ):
        assert said in omnimargin(*words).stdout


def test_latency_lists_presets_with_quartiles_basis_and_source() -> None:
    rows = {row["name"]: row for row in json.loads(omnimargin("latency", "--json").stdout)}
    assert rows["layerzero.l2_to_l2"]["measured_quartiles_s"] == [31.0, 36.0, 46.0]
    assert rows["ibc.cosmos"]["quartiles_s"] is None
    assert all(row["basis"] and row["source"] for row in rows.values())
    assert "layerzero.l2_to_l2" in omnimargin("latency").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "nowhere.toml"), "nowhere.toml: expected a scenario file"),
        (
            (*SMALL, "--set=hub.blok_s=1"),
            "hub.blok_s: expected no such key (did you mean 'block_s'",
        ),
        ((*SMALL, "--set=hub.block_ms=1"), "hub.block_ms: expected block_s (another unit)"),
        ((*SMALL, "--latency=constant:-900s"), "latency"),
        ((*SMALL, "--latency=constant:900"), "latency"),
        ((*SMALL, "--latency=layerzer"), "did you mean 'layerzero'"),
        ((*SMALL, "--latency=ibc.cosmos"), "ibc.cosmos"),
        ((*SMALL, "--buffer=sqrt"), "--buffer: expected one of none, flat, sqrt_time, quantile"),
        ((*SMALL, "--prices=BTC=none.csv"), "none.csv"),
        ((*SMALL, "--plant=x"), "--plant"),
        ((*SMALL, "--log=/dev/null/x"), "expected a file to write"),
        ((*SMALL, "--report=/dev/null/x.html", "--set=duration_h=2"), "/dev/null/x.html"),
        (("replay", "nowhere.mcap"), "nowhere.mcap: expected a message log"),
        (("replay", str(ROOT / "README.md")), "expected a message log (MCAP)"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(words: tuple[str, ...], said: str) -> None:
    assert said in refused(*words)


def bar(hour: int, text: str = "100,110,90,105,1") -> str:
    return f"{1_583_992_800_000 + hour * 3_600_000},{text}"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([bar(0), bar(2), bar(1)], "line 4"),
        ([bar(0), bar(1, "100,nan,90,105,1")], "line 3"),
        ([bar(0), bar(1, "100,high,90,105,1")], "line 3"),
        ([bar(0), bar(1, "0,110,0,105,1")], "line 3"),
        ([bar(hour) for hour in (0, 1, 2, 5, 6, 7, 8)], "--gaps hold"),
    ],
    ids=["unsorted", "nan", "text", "zero", "gap"],
)
def test_a_bad_candle_file_is_refused_with_its_line(
    tmp_path: Path, rows: list[str], said: str
) -> None:
    file = tmp_path / "btc.csv"
    file.write_text("\n".join(["ts_ms,open,high,low,close,volume", *rows]))
    line = refused(*SMALL, f"--prices=BTC={file}", f"--prices=ETH={file}")
    assert said in line
    assert "btc.csv" in line


def test_gaps_are_held_when_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "btc.csv"
    rows = [bar(hour) for hour in (0, 1, 2, 5, 6, 7, 8)]
    file.write_text("\n".join(["ts_ms,open,high,low,close,volume", *rows]))
    omnimargin(*SMALL, f"--prices=BTC={file}", f"--prices=ETH={file}", "--gaps=hold", "--json")


def test_a_planted_fault_ends_with_code_4_and_the_line_that_reproduces_it() -> None:
    done = omnimargin(*SMALL, "--plant", "early_release", "--json", expect=4)
    finding, where, again = done.stderr.splitlines()

    assert "invariant INV7: released without final evidence" in finding
    assert "at event" in where
    assert again.startswith("omnimargin: reproduce: omnimargin run ")
    assert again.endswith("--plant early_release --json --seed 1")
    assert json.loads(done.stdout)["violations"] == 1


def test_replay_repeats_the_digest(log: tuple[Path, str]) -> None:
    path, digest = log
    assert json.loads(omnimargin("replay", str(path), "--json").stdout)["digest"] == digest
    assert digest in omnimargin("replay", str(path)).stdout


def test_replay_names_the_place_of_a_changed_byte(log: tuple[Path, str], tmp_path: Path) -> None:
    data = bytearray(log[0].read_bytes())
    data[len(data) // 2] ^= 1
    changed = tmp_path / "changed.mcap"
    changed.write_bytes(data)

    line = refused("replay", str(changed))
    assert "at byte" in line
    assert "records before it are sound" in line


def test_replay_names_the_place_where_a_log_is_cut_off(
    log: tuple[Path, str], tmp_path: Path
) -> None:
    data = log[0].read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(data[: len(data) * 2 // 3])

    line = refused("replay", str(cut))
    assert "damaged or cut off" in line
    assert "records before it are sound" in line


def start(path: Path) -> subprocess.Popen[str]:
    """Start a long run, and wait until part of its log is written."""
    words = ("run", str(ROOT / "scenarios" / "march_2020.toml"), "--log", str(path))
    process = subprocess.Popen(
        command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    for _ in range(600):
        if path.exists() and path.stat().st_size > 500_000:
            return process
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("nothing was written")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_a_log_that_says_so(tmp_path: Path, number: int) -> None:
    path = tmp_path / "run.mcap"
    process = start(path)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "interrupted at virtual time" in err
    assert "digest" in out
    replayed = json.loads(omnimargin("replay", str(path), "--json").stdout)
    assert replayed["status"] == "interrupted"
    assert replayed["digest"] in out


def test_a_killed_run_leaves_a_log_that_is_readable_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    process = start(path)
    process.kill()
    process.communicate(timeout=60)

    line = refused("replay", str(path))
    assert "damaged or cut off" in line
    assert ", 0 records" not in line
