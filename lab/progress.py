"""A progress bar on stderr, only where a person looks."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lab.running import Progress as Tick
from messaging.units import HOUR_US


@contextmanager
def bar(total_us: int | None) -> Iterator[Tick | None]:
    """Yield what to call with (virtual time, events); nothing if stderr is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("virtual time", total=total_us, note="")

        def tick(now_us: int, events: int) -> None:
            note = f"{now_us / HOUR_US:6.2f} h  {events:>10,} events"
            progress.update(task, completed=now_us, note=note)

        yield tick
