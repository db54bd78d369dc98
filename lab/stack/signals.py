"""Wait for time or a signal, whichever comes first, and count those that ask to stop."""

import os
import select
import signal
from types import FrameType
from typing import Any, Self

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Waker:
    """Takes signals over while it is entered.

    Attributes:
        asked: how many signals so far ask to stop.
        patient: while it is true they are only counted; else they raise KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.patient = False
        self._before: dict[signal.Signals, Any] = {}

    def wait(self, limit_s: float) -> None:
        """Return after `limit_s`, or at once when a signal comes or a child ends."""
        ready, _, _ = select.select([self._read], [], [], limit_s)
        if ready:
            os.read(self._read, 4_096)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self.asked += 1
            if not self.patient:
                raise KeyboardInterrupt

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in (*STOPPING, signal.SIGCHLD):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._read)
        os.close(self._write)
