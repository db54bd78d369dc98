"""Swarm and game are not blind: the quickest mutants die here, all of them by the script."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub import test_operators as stories
from tests.mutants.mutants import MUTANTS, STORY_ONLY, applied, hunt, play

ROOT = Path(__file__).parents[2]
QUICK = ("X1", "X3", "X5b", "X6", "X8", "X13")  # found within ten seeds or games


@pytest.mark.parametrize("name", QUICK)
def test_swarm_and_game_find_it(name: str) -> None:
    assert hunt(MUTANTS[name], seeds=15, minutes=3.0) is not None
    assert play(MUTANTS[name], games=60) is not None


def test_what_is_too_rare_for_both_dies_in_a_story() -> None:
    assert {"X18"} == STORY_ONLY
    story = stories.test_nothing_is_freed_behind_a_number_that_was_passed_over_until_a_digest_agrees
    with applied(MUTANTS["X18"]), pytest.raises(AssertionError):
        story()


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
