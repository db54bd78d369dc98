"""Every invariant is checked where the documentation says so, and its check sees a violation."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from lab.swarm.keyed import Seals, impostor_of
from lab.swarm.options import draw
from lab.swarm.trial import STRANGER, Trial
from messaging.codec import decode_frame
from messaging.errors import InvariantViolated
from messaging.identity import NO_DIGEST, Sealed, Signer
from messaging.lineage import Place
from tests.swarm.planted import MINUTES, MISSING, PLANTED, RULES, found

ROOT = Path(__file__).parents[2]
ALL_PLANTED = [(rule, name) for rule, planted in PLANTED.items() for name in planted]


def rows() -> Iterator[tuple[str, list[tuple[str, str]], list[str]]]:
    """Yield (rule, [(file, function)], planted) of the table in docs/invariants.md."""
    text = (ROOT / "docs" / "invariants.md").read_text()
    table = text.split("## Where, and how we know")[1].split("\n## ")[0]
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.fullmatch(r"INV\d+|E\d", cells[0]):
            places = re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", cells[1])
            functions = [(path, name) for path, names in places for name in _quoted(names)]
            yield cells[0], functions, _quoted(cells[2])


def _quoted(text: str) -> list[str]:
    return re.findall("`([^`]+)`", text)


def function_source(path: str, name: str) -> str:
    text = (ROOT / path).read_text()
    (node,) = [
        one
        for one in ast.walk(ast.parse(text))
        if isinstance(one, ast.FunctionDef) and one.name == name
    ]
    return ast.get_source_segment(text, node) or ""


def test_every_rule_is_planted_or_named_as_missing() -> None:
    assert set(PLANTED) | set(MISSING) == set(RULES)
    assert not set(PLANTED) & set(MISSING)
    assert all(PLANTED.values())


def test_the_table_says_what_is_planted_and_what_is_missing() -> None:
    assert {rule: planted for rule, _, planted in rows() if planted} == {
        rule: list(planted) for rule, planted in PLANTED.items()
    }
    assert {rule for rule, functions, planted in rows() if not functions and not planted} == set(
        MISSING
    )


def test_the_functions_in_the_table_check_these_rules() -> None:
    for rule, functions, _ in rows():
        for path, name in functions:
            source = function_source(path, name)
            assert f'"{rule}' in source, f"{path}: {name} does not name {rule}"


def test_no_check_is_missing_from_the_table() -> None:
    named = {(rule, path, name) for rule, functions, _ in rows() for path, name in functions}
    for path in sorted((ROOT / "lab").rglob("*.py")):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                source = ast.get_source_segment(text, node) or ""
                for rule in re.findall(r'f?"((?:INV\d+|E\d)\b)', source):
                    where = (rule, str(path.relative_to(ROOT)), node.name)
                    assert where in named, f"not in the table: {where}"


@pytest.mark.parametrize(("rule", "name"), ALL_PLANTED)
def test_a_planted_violation_is_found_by_its_own_check(rule: str, name: str) -> None:
    text = found(name, PLANTED[rule][name])
    assert text.split(":")[0] == rule, text


class Harmed:
    """What an audited world has published, and one frame of it, the fifth of its topic."""

    def __init__(self) -> None:
        trial = Trial(msgspec.structs.replace(draw(1, MINUTES), audited=True, faults={}))
        assert trial.run().finding is None
        assert trial._published is not None
        self.trial, self.published = trial, trial._published
        self.key = next(key for key in self.published.frames if key[1].seq == 5)
        self.sealed = msgspec.msgpack.decode(self.published.frames[self.key], type=Sealed)
        self.sender = decode_frame(self.sealed.frame).sender

    def put(self, frame: bytes, before: bytes, signer: Signer) -> None:
        self.published.frames[self.key] = signer.seal(frame, before)[0]

    def check(self) -> None:
        self.trial._check_published()


@pytest.fixture
def harmed() -> Harmed:
    return Harmed()


def test_another_frame_than_the_journal_gives_is_found(harmed: Harmed) -> None:
    before = harmed.published.frames[harmed.key[0], Place(1, 4)]
    harmed.published.frames[harmed.key] = before
    with pytest.raises(InvariantViolated, match=r"^INV10.*the journal gives another or none"):
        harmed.check()


def test_two_frames_under_one_number_are_found(harmed: Harmed) -> None:
    (route,) = [one for one in harmed.trial._routes if one.topic == harmed.key[0]]
    signer = harmed.trial._signers[harmed.sender]
    harmed.published._note(route, harmed.published.frames[harmed.key])
    other = signer.seal(harmed.sealed.frame, NO_DIGEST)[0]
    with pytest.raises(InvariantViolated, match=r"^INV12.*two frames under one number"):
        harmed.published._note(route, other)


def test_a_frame_that_does_not_link_is_found(harmed: Harmed) -> None:
    harmed.put(harmed.sealed.frame, NO_DIGEST, harmed.trial._signers[harmed.sender])
    with pytest.raises(InvariantViolated, match=r"^INV12.*does not link"):
        harmed.check()


def test_a_seal_of_somebody_else_is_found(harmed: Harmed) -> None:
    impostor = impostor_of(STRANGER, harmed.sender, Seals.KEYED)
    harmed.put(harmed.sealed.frame, harmed.sealed.before, impostor)
    with pytest.raises(InvariantViolated, match=r"^INV16.*expected a signature"):
        harmed.check()
