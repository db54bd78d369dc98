"""Bring a stack up and take it down again: `omnimargin up` from its options to its ending."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.live import Live as Screen

from lab.scenario import Scenario
from lab.stack import folders, prepare, register, table
from lab.stack.acl import principals
from lab.stack.broker import Broker, find
from lab.stack.down import end_left
from lab.stack.live import Ending, Live
from lab.stack.notes import Notes, Tails, notes
from lab.stack.plan import SECRETS
from lab.stack.prepare import BROKER, Choices
from lab.stack.register import held
from lab.stack.secure import Secure, prepare_secure
from lab.stack.signals import Waker
from lab.stack.view import View
from lab.world import names_of
from messaging.errors import InputRefused

LINE_S = 10.0  # between lines where no table can be drawn

Show = Callable[[View], None]


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked of the run, beside what is run.

    Attributes:
        folder: where to keep it; None for a new one.
        bootstrap: a broker that runs. own_broker: start one, whatever there is.
        fresh: delete what folder and topics hold.
        limit_s: wall time to stop after.
        quiet: no table. verbose: show what the processes log.
    """

    folder: Path | None = None
    bootstrap: str | None = None
    own_broker: bool = False
    fresh: bool = False
    limit_s: float | None = None
    quiet: bool = False
    verbose: bool = False


def bring_up(choices: Choices, wishes: Wishes) -> Ending:
    """Run a stack until its end, and leave nothing running.

    Raises:
        InputRefused: something that the user gave cannot be used.
    """
    where = folders.fresh() if wishes.folder is None else wishes.folder.resolve()
    scenario = prepare.decide(where, choices, fresh=wishes.fresh)
    screen = sys.stderr.isatty() and not wishes.quiet
    with held(where), Waker() as waker:
        end_left(where, _say)
        if wishes.fresh:
            prepare.wipe(where)
        register.write(where, register.Register(register.known("up", os.getpid())))
        secure = _secrets(where, scenario, wanted=choices.secure)
        bootstrap = _theirs(where, wishes, secure)
        with notes(where) as said, _ours(where, secure, bootstrap, said) as own:
            if own is not None:
                bootstrap = own.bootstrap
            assert bootstrap is not None
            plan = prepare.write(where, scenario, choices, bootstrap, fresh=wishes.fresh)
            folders.mark_latest(where)
            live = Live(where, plan, scenario, own, said, limit_s=wishes.limit_s)
            tails = Tails(where, prepare.roles_of(scenario)) if wishes.verbose else None
            with _shown(said, tails, screen=screen) as show:
                return live.run(waker, show)


def _secrets(folder: Path, scenario: Scenario, *, wanted: bool) -> Secure | None:
    """Return what a broker that asks for passwords needs, if the stack has one."""
    if not wanted and not (folder / SECRETS).exists():
        return None
    return prepare_secure(folder, principals(names_of(scenario)))


def _theirs(folder: Path, wishes: Wishes, secure: Secure | None) -> str | None:
    """Return the broker to use that is not ours; None to start one."""
    if wishes.own_broker and wishes.bootstrap is not None:
        expected, found = "either this or --own-broker", "both"
        raise InputRefused("--bootstrap", expected=expected, found=found)
    if wishes.own_broker or (wishes.bootstrap is None and (folder / BROKER).exists()):
        return None
    return find(wishes.bootstrap, os.environ, None if secure is None else secure.ca_file)


@contextmanager
def _ours(
    folder: Path, secure: Secure | None, theirs: str | None, said: Notes
) -> Iterator[Broker | None]:
    """Yield a broker of our own until the end, or None if there is another."""
    if theirs is not None:
        yield None
        return
    broker = Broker(folder / BROKER, secure, said.say)
    try:
        broker.start()
        said.log.info("started", role=BROKER, pid=broker.pid, at=broker.bootstrap)
        yield broker
    finally:
        try:
            broker.stop()
        except KeyboardInterrupt:
            broker.kill()


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


@contextmanager
def _shown(said: Notes, tails: Tails | None, *, screen: bool) -> Iterator[Show]:
    """Yield what to call with each view: a table on a terminal, else a line now and then."""

    def say_new() -> None:
        for line in tails.lines() if tails is not None else ():
            said.say(line)

    if not screen:
        told_s = time.monotonic()

        def tell(view: View) -> None:
            nonlocal told_s
            say_new()
            if time.monotonic() - told_s >= LINE_S:
                told_s = time.monotonic()
                sys.stderr.write(table.line(view) + "\n")

        yield tell
        return
    console = Console(stderr=True, highlight=False)
    said.echo = False
    with Screen(console=console, auto_refresh=False, transient=True) as live:

        def draw(view: View) -> None:
            say_new()
            live.update(table.draw(view), refresh=True)

        yield draw
    said.echo = True
