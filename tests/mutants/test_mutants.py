"""Swarm and game are not blind: the quickest mutants die here, with `-m slow` all of them."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from tests.hub import test_operators as skips
from tests.hub import test_rebuild as rebuilt
from tests.mutants.mutants import GAMES, MUTANTS, STORIES, SWARM_ONLY, applied, hunt, play
from tests.swarm.machine import Game

ROOT = Path(__file__).parents[2]
# Of each family of rules one at least that seeds or games find within a dozen.
QUICK_SEEDS = ("X1", "X3", "X6", "X8", "X13", "X18b", "X22", "X35c")
QUICK_GAMES = ("X4", "X5", "X14", "X16", "X20", "X33", "X34")


@pytest.mark.parametrize("name", QUICK_SEEDS)
def test_the_swarm_finds_it(name: str) -> None:
    assert hunt(MUTANTS[name], seeds=12, minutes=3.0) is not None


@pytest.mark.parametrize("name", QUICK_GAMES)
def test_a_game_finds_it(name: str) -> None:
    assert play(MUTANTS[name], 60, GAMES.get(name, Game)) is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MUTANTS if name not in STORIES])
def test_swarm_and_game_find_all(name: str) -> None:
    assert hunt(MUTANTS[name], seeds=600, minutes=3.0) is not None
    if name not in SWARM_ONLY:
        assert play(MUTANTS[name], 400, GAMES.get(name, Game)) is not None


TOLD = {
    "X10": rebuilt.test_a_watermark_of_another_epoch_releases_nothing,
    "X18": skips.test_nothing_is_freed_behind_a_number_that_was_passed_over_until_a_digest_agrees,
}


@pytest.mark.parametrize("name", STORIES)
def test_what_neither_can_show_dies_in_a_story(name: str) -> None:
    assert Path(inspect.getfile(TOLD[name])) == ROOT / STORIES[name]
    with applied(MUTANTS[name]), pytest.raises(AssertionError):
        TOLD[name]()


def test_the_table_has_every_mutant_and_who_can_find_it() -> None:
    section = (ROOT / "docs" / "swarm.md").read_text().split("## 6 ")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if re.match(r"\| X\d", line)
    ]
    assert [row[:2] for row in rows] == [
        [f"{name} {mutant.about}", mutant.rule] for name, mutant in MUTANTS.items()
    ]
    for name, (_, _, seeds, games, found) in zip(MUTANTS, rows, strict=True):
        assert (seeds != "-") == (name not in STORIES), name
        assert (games != "-") == (name not in STORIES and name not in SWARM_ONLY), name
        assert found == f"`{STORIES[name]}`" if name in STORIES else found, name
    by_seed, by_game = (
        [int(row[at].strip(">†")) for row in rows if row[at] not in "-?"] for at in (2, 3)
    )
    medians = f"Median {median(by_seed):g} seeds and {median(by_game):g} games"
    assert f"{medians}, worst {max(by_seed)} and {max(by_game)};" in section


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_gone_afterwards(name: str) -> None:
    mutant = MUTANTS[name]
    sound = getattr(mutant.where, mutant.name)
    with applied(mutant):
        assert getattr(mutant.where, mutant.name) is not sound
    assert getattr(mutant.where, mutant.name) is sound


def test_the_script_lists_what_there_is_and_refuses_what_there_is_not() -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tests.mutants.mutants", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    listed = run("--list")
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(MUTANTS)
    refused = run("X99")
    assert refused.returncode == 2
    assert "found X99" in refused.stderr
