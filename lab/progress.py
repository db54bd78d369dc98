"""A progress bar on stderr, only where a person looks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lab.running import Progress as Tick
from messaging.units import HOUR_US


@contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """Yield what to call with how many of `total` are done, and a note."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, note: None
        return
    columns = (
        TextColumn(what),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}  {task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total, note="")
        yield lambda done, note: progress.update(task, completed=done, note=note)


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
