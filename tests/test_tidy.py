"""Properties of the source itself, for what no linter we use can say."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("hub", "spokes", "messaging", "markets", "lab", "benchmarks")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TEXTS = sorted(
    path
    for pattern in (
        "*.md",
        "*.toml",
        "Makefile",
        "docs/**/*.md",
        "scenarios/*.toml",
        "books/*.toml",
        ".ci/*",
    )
    for path in ROOT.glob(pattern)
)
FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 500
VAGUE = ("util", "utils", "helper", "helpers", "common", "manager", "managers", "base", "misc")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_is_tidy(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MODULE_LINES_MAX
    assert not re.search("FIXME|TODO|XXX", text), "left over: finish it before merging"
    assert path.stem not in VAGUE, "a name that says nothing"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name}: {lines} lines"
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            assert caught not in ("Exception", "everything"), "catch what you expect"


@pytest.mark.parametrize("path", [*SOURCES, *TEXTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_the_product_stands_alone(path: Path) -> None:
    """No path of somebody's machine, no folder beside the repository, no registry's host."""
    text = path.read_text()
    for word in ("../shared", "/work/", "/home/", "/root/", "pypi." + "org", "pythonhosted"):
        assert word not in text


def test_rules_that_code_cites_stand_in_the_docs() -> None:
    """P1, L1, M1, O1, T1, V1, K1, B1, C1 and INV1 are not just words."""
    docs = {
        "P": (ROOT / "docs" / "protocol.md").read_text(),
        "L": (ROOT / "docs" / "margin.md").read_text(),
        "M": (ROOT / "docs" / "margin.md").read_text(),
        "O": (ROOT / "docs" / "options.md").read_text(),
        "T": (ROOT / "docs" / "theory.md").read_text(),
        "V": (ROOT / "docs" / "volatility.md").read_text(),
        "K": (ROOT / "docs" / "oracle.md").read_text(),
        "B": (ROOT / "docs" / "breakers.md").read_text(),
        "C": (ROOT / "docs" / "impact.md").read_text(),
        "INV": (ROOT / "docs" / "invariants.md").read_text(),
    }
    missing = set()
    for path in SOURCES:
        for letter, number in re.findall(r"\b(P|L|M|O|T|V|K|B|C|INV)(\d+)\b", path.read_text()):
            if not re.search(rf"\b{letter}{number}\b", docs[letter]):
                missing.add(f"{letter}{number} in {path.relative_to(ROOT)}")
    assert not missing
