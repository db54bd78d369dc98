"""Processes and the broker are killed at random; nothing is lost, nothing is done twice."""

from pathlib import Path

import pytest

from benchmarks import chaos

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("kafka")]


def test_a_stack_outlives_its_processes(tmp_path: Path) -> None:
    report = chaos.run(10, 3, tmp_path / "stack")

    assert sum(report.killed.values()) == 10
    assert report.grants > 0
    assert report.invariants_checked > 1_000
