"""Run a live stack in the foreground: start its processes, look after them, show, stop them all."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from lab.scenario import Scenario
from lab.stack import register
from lab.stack.notes import LOGS, Notes
from lab.stack.plan import WORLD, Plan, State, read_status
from lab.stack.prepare import BROKER
from lab.stack.signals import Waker
from lab.stack.supervisor import REFUSED, Backoff, Child, Log, Phase, Spec, Supervisor
from lab.stack.view import View, gather
from lab.world import names_of
from messaging.errors import InputRefused
from messaging.units import HUB, MONITOR, RELAY

TICK_S, SHOW_S = 0.2, 1.0
UNTIL_STOPPED = (RELAY, MONITOR)  # they have no end of their own


class Broker(Protocol):
    """A broker that is ours to look after."""

    @property
    def pid(self) -> int | None:
        """Return its process, if it runs."""
        ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a run of the stack has ended.

    Attributes:
        why: what ended it. exit_code: for the command line.
        wall_s: how long it ran.
        view: how each process ended, and the last figures before that.
    """

    why: str
    exit_code: int
    wall_s: float
    view: View


def supervisor_of(folder: Path, scenario: Scenario, log: Log) -> Supervisor:
    """Return the processes of a stack, in the order in which they stop."""

    def child(role: str) -> Child:
        def done() -> bool:
            word = read_status(folder, role)
            return word is not None and word.state is State.COMPLETE

        words = ["-m", "lab.stack.process", role, str(folder)]
        if role == MONITOR:
            words = ["-m", "lab.monitor", str(folder)]
        return Child(
            Spec(role, (sys.executable, *words), folder / LOGS / f"{role}.jsonl", done), log
        )

    stages: Sequence[Sequence[str]] = ((WORLD,), (RELAY,), names_of(scenario), (HUB,), (MONITOR,))
    return Supervisor([[child(role) for role in stage] for stage in stages])


class Live:
    """One run of a stack in the foreground."""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        scenario: Scenario,
        broker: Broker | None,
        notes: Notes,
        *,
        limit_s: float | None,
    ) -> None:
        """Take what is prepared; `broker` is None if it is not ours; stop after `limit_s`."""
        self._folder = folder
        self._plan = plan
        self._scenario = scenario
        self._broker = broker
        self._notes = notes
        self._limit_s = limit_s
        self._supervisor = supervisor_of(folder, scenario, notes.log)
        self._own = register.known("up", os.getpid())
        self._written: tuple[object, ...] = ()
        self._why = ""
        self._backoff = Backoff()
        self._broker_due_s: float | None = None
        self._broker_up_s = time.monotonic()

    def run(self, waker: Waker, show: Callable[[View], None]) -> Ending:
        """Run until time or work is over or the user asks; leave no process of ours."""
        began_s = time.monotonic()
        waker.patient = True
        try:
            view = self._loop(waker, show, began_s)
        finally:
            self._supervisor.kill()  # what an error has left
            while not self._supervisor.over:
                self._supervisor.tick(time.monotonic())
                waker.wait(TICK_S)
            waker.patient = False
        refused = any(child.phase is Phase.REFUSED for child in self._supervisor.children)
        return Ending(
            why=self._why,
            exit_code=REFUSED if refused else 0,
            wall_s=time.monotonic() - began_s,
            view=msgspec.structs.replace(self.view(), figures=view.figures, at_us=view.at_us),
        )

    def _loop(self, waker: Waker, show: Callable[[View], None], began_s: float) -> View:
        """Return the last view before the end."""
        shown_s, view = began_s, self.view()
        while not self._supervisor.over:
            now_s = time.monotonic()
            self._supervisor.tick(now_s)
            self._tend_broker(waker, now_s)
            self._end(waker, now_s - began_s, now_s)
            self._register()
            if now_s - shown_s >= SHOW_S and not self._why:
                shown_s, view = now_s, self.view()
                show(view)
            waker.wait(TICK_S)
        self._register()
        return view

    def view(self) -> View:
        """Return what there is to see."""
        lines = tuple(self._notes.lines)
        return gather(
            self._folder, self._plan, self._scenario, self._processes(), runs=True, notes=lines
        )

    def _processes(self) -> tuple[register.Process, ...]:
        found = [
            register.known(
                child.spec.role,
                child.pid or 0,
                phase=child.phase,
                starts=child.starts,
                why=child.why,
            )
            for child in self._supervisor.children
        ]
        if self._broker is not None and self._broker.pid is not None:
            found.append(register.known(BROKER, self._broker.pid, phase=Phase.UP))
        return tuple(found)

    def _end(self, waker: Waker, lasted_s: float, now_s: float) -> None:
        """Begin to stop if there is a reason to."""
        if waker.asked > 1:
            if self._why != "killed":
                self._notes.log.warning("killing", why="asked twice")
            self._why = "killed"
            self._supervisor.kill()
            return
        if self._why:
            return
        children = {child.spec.role: child.phase for child in self._supervisor.children}
        working = [role for role in children if role not in UNTIL_STOPPED]
        if waker.asked:
            self._why = "asked to stop"
        elif self._limit_s is not None and lasted_s >= self._limit_s:
            self._why = "time is up"
        elif all(children[role] in (Phase.DONE, Phase.REFUSED) for role in working):
            done = all(children[role] is Phase.DONE for role in working)
            self._why = "scenario complete" if done else "nothing left that runs"
        if self._why:
            self._notes.log.info("stopping", why=self._why)
            self._supervisor.stop(now_s)

    def _tend_broker(self, waker: Waker, now_s: float) -> None:
        """Start our broker again if it has ended."""
        if self._broker is None or self._why or self._broker.pid is not None:
            return
        if self._broker_due_s is None:
            wait_s = self._backoff.after(now_s - self._broker_up_s)
            self._broker_due_s = now_s + wait_s
            self._notes.log.warning("restart", role=BROKER, in_s=wait_s)
        elif now_s >= self._broker_due_s:
            self._broker_due_s, self._broker_up_s = None, now_s
            waker.patient = False  # it may take long
            try:
                self._broker.start()
                self._notes.log.info("started", role=BROKER, pid=self._broker.pid)
            except InputRefused as error:
                self._notes.log.error("not started", role=BROKER, why=str(error))
            except KeyboardInterrupt:
                pass  # it is counted, and ends the loop
            finally:
                waker.patient = True

    def _register(self) -> None:
        """Write down who runs, if that has changed."""
        children = self._supervisor.children
        broker_pid = self._broker.pid if self._broker is not None else None
        now = (broker_pid, *((child.phase, child.pid, child.starts) for child in children))
        if now == self._written:
            return
        self._written = now
        try:
            register.write(self._folder, register.Register(self._own, self._processes()))
        except OSError as error:  # the disk is full: to go on is worth more
            self._notes.log.error("register not written", why=error.strerror)
