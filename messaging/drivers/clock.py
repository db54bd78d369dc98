"""Scenario time from the wall clock: the same in every process of a live stack."""

import time

import msgspec

from messaging.units import Micros


class Clock(msgspec.Struct, frozen=True):
    """Scenario time 0 stands at `epoch_ns`; `speed` scenario seconds pass in a second."""

    epoch_ns: int
    speed: float

    def now_us(self) -> Micros:
        """Return the scenario time now; negative before it begins."""
        return self.at_us(time.time_ns())

    def at_us(self, wall_ns: int) -> Micros:
        """Return the scenario time at a wall clock time."""
        return Micros(int((wall_ns - self.epoch_ns) * self.speed) // 1_000)

    def seconds_until(self, at_us: int) -> float:
        """Return the wall clock seconds from now until a scenario time; negative if past."""
        return (at_us - self.now_us()) / self.speed / 1e6
