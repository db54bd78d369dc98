"""The model's verdicts, its counterexamples step by step, and the search against a plain one."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.model import world as model
from tests.model.reservations import CASES
from tests.model.rules import Amnesia, Release, Renewals, Rules
from tests.model.search import SearchTooLargeError, replay, search

ROOT = Path(__file__).parents[2]
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if case.slow else name
    for name, case in CASES.items()
]
SMALL = {
    "all defences": Rules(reservations=2, clock_max=1),
    "reorgs": Rules(reservations=1, reorgs_max=1, clock_max=1, log_max=2),
    "skew": Rules(reservations=1, skew_max=1),
    "amnesia": Rules(reservations=1, amnesia=Amnesia.ALL_FENCED, log_max=2),
    "stale hub": Rules(reservations=1, clock_max=1, stale_hub=True, log_max=1),
    "renewals": Rules(reservations=1, renewals=Renewals.LARGEST_EXPIRY),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_case_has_its_recorded_verdict(name: str) -> None:
    """A counterexample happens step by step, and only its last state is broken."""
    case = CASES[name]
    found = case.search()

    assert (len(found.steps), found.states) == (case.steps, case.states)
    assert (found.broken is None) == (case.steps == 0)
    if case.steps:
        *before, last = replay(case.rules, found.steps)
        assert [model.broken(case.rules, world, hands=False) for world in before] == (
            [None] * case.steps
        )
        assert model.broken(case.rules, last, hands=False) == found.broken
        assert sum(spoke.used for spoke in last.spokes) > case.rules.capacity


@pytest.mark.parametrize("rules", SMALL.values(), ids=SMALL)
def test_the_search_finds_what_a_plain_one_finds(rules: Rules) -> None:
    """Numbers and differences neither lose a state nor invent one."""
    first = model.initial(rules)
    seen, waiting, transitions = {first}, [first], 0
    while waiting:
        for _, after in model.steps(rules, waiting.pop()):
            transitions += 1
            if after not in seen:
                seen.add(after)
                waiting.append(after)
    sound = all(model.broken(rules, world, hands=True) is None for world in seen)
    found = search(rules, hands=True)

    assert (found.broken is None) == sound
    if sound:
        assert (found.states, found.transitions) == (len(seen), transitions)
        assert len(seen) > 100


def test_no_two_steps_from_a_state_have_the_same_name() -> None:
    """So the names of the steps are enough to walk a counterexample again."""
    for name in ("hub-clock", "no-outbox", "stale-hub", "amnesia-grants"):
        rules = CASES[name].rules
        for world in replay(rules, CASES[name].search().steps):
            labels = [label for label, _ in model.steps(rules, world)]
            assert len(labels) == len(set(labels))


def test_a_value_is_in_two_hands_before_it_is_used_twice() -> None:
    rules = CASES["hub-clock"].rules
    early = search(rules, hands=True)

    assert early.broken is not None
    assert early.broken.startswith("in two hands")
    assert len(early.steps) < CASES["hub-clock"].steps


def test_a_step_that_cannot_happen_is_not_replayed() -> None:
    with pytest.raises(ValueError, match="step 2: expected one 'spoke 0 uses r0 and sends its use"):
        list(replay(Rules(), ["hub grants r0 until 1", "spoke 0 uses r0 and sends its use"]))


def test_a_search_that_grows_too_large_gives_no_verdict() -> None:
    with pytest.raises(SearchTooLargeError, match="expected at most 1,000 states"):
        search(Rules(), hands=True, states_max=1_000)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"skew_max": 0}, "no clock moves"),
        ({"release": Release.HUB_CLOCK_WITH_MARGIN}, "expected skew_max"),
        ({"amnesia": Amnesia.NO_EPOCH, "reorgs_max": 1}, "without reorgs"),
        ({"amnesia": Amnesia.NO_EPOCH, "sequence_numbers": False}, "with sequence numbers"),
    ],
)
def test_rules_that_do_not_go_together_are_refused(changed: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Rules(**changed)  # type: ignore[arg-type]


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.model.reservations", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_prints_a_counterexample_and_agrees() -> None:
    done = command("hub-clock", "amnesia-no-epoch")

    assert done.returncode == 0, done.stderr
    assert "hub frees r" in done.stdout
    assert done.stdout.count("=> 2 units used, 1 there") == 2
    assert done.stdout.endswith("every verdict as expected\n")


def test_the_command_lists_every_case_and_refuses_others() -> None:
    listed, wrong, slow = command("--list"), command("hub-cluck"), command("reorg")

    assert all(f"\n{name} " in listed.stdout for name in CASES)
    assert wrong.returncode == 2
    assert "found hub-cluck" in wrong.stderr
    assert slow.returncode == 2
    assert "--slow with reorg" in slow.stderr


def test_the_page_has_the_recorded_verdicts() -> None:
    page = (ROOT / "docs" / "model.md").read_text()

    for name, case in CASES.items():
        verdict = (
            f"broken | {case.states:,} | {case.steps}"
            if case.steps
            else (f"safe | {case.states:,} |")
        )
        assert f"| `{name}` | {case.says} | {verdict}" in page
