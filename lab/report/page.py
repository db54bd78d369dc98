"""The report page."""

from pathlib import Path

from lab.result import Story


def write_report(story: Story, path: Path) -> None:
    """Write."""
