"""Delays, as counts in classes a tenth of a decade wide, and the hops of a liquidation."""

from collections import deque
from math import ceil, log10

from lab.monitor.commands import Command
from messaging.units import Asset, NodeId

CLASSES_PER_DECADE = 10
ARRIVALS_MAX = 512  # deliveries remembered to say what the hub knew when it decided
HOPS = ("oracle", "state_report", "hub", "command", "inclusion", "unwind", "total")


class Spread:
    """How often delays of each length came.

    Attributes:
        count: how many. sum_us: their sum.
        classes: class -> how many; class n ends at 10 ** (n / 10) microseconds.
    """

    __slots__ = ("classes", "count", "sum_us")

    def __init__(self) -> None:
        self.count = 0
        self.sum_us = 0
        self.classes: dict[int, int] = {}

    def add(self, delay_us: int) -> None:
        """Count one delay."""
        place = ceil(log10(delay_us) * CLASSES_PER_DECADE) if delay_us > 1 else 0
        self.classes[place] = self.classes.get(place, 0) + 1
        self.count += 1
        self.sum_us += max(0, delay_us)

    def merge(self, other: "Spread") -> None:
        """Count all that another one has counted."""
        self.count += other.count
        self.sum_us += other.sum_us
        for place, count in other.classes.items():
            self.classes[place] = self.classes.get(place, 0) + count

    def quantile_s(self, share: float) -> float:
        """Return the end of the class that the quantile is in [s]; 0 if there are none."""
        left = share * self.count
        for place in sorted(self.classes):
            left -= self.classes[place]
            if left <= 0:
                return float(f"{10 ** (place / CLASSES_PER_DECADE) / 1e6:.3g}")
        return 0.0


class Knowledge:
    """What had been delivered to the hub by when: prints and spokes' states.

    Attributes:
        observed_us: by asset, age base of the newest print delivered.
        state_us: by spoke, chain time of the newest `margin-state` watermark delivered.
    """

    def __init__(self) -> None:
        self.observed_us: dict[Asset, int] = {}
        self.state_us: dict[NodeId, int] = {}
        self._prints: dict[Asset, deque[tuple[int, int]]] = {}
        self._states: dict[NodeId, deque[tuple[int, int]]] = {}

    def printed(self, asset: Asset, observed_us: int, at_us: int) -> None:
        """Note a print that reached the hub."""
        self.observed_us[asset] = max(observed_us, self.observed_us.get(asset, 0))
        self._prints.setdefault(asset, deque(maxlen=ARRIVALS_MAX)).append((at_us, observed_us))

    def stated(self, spoke: NodeId, time_us: int, at_us: int) -> None:
        """Note a `margin-state` watermark that reached the hub."""
        self.state_us[spoke] = max(time_us, self.state_us.get(spoke, 0))
        self._states.setdefault(spoke, deque(maxlen=ARRIVALS_MAX)).append((at_us, time_us))

    def hops_us(self, command: Command) -> dict[str, int]:
        """Return what each part of an ended liquidation's delay took; as in docs/latency.md."""
        assert command.ordered is not None
        at_us = command.ordered_us
        received_us, observed_us = _newest(self._prints.get(command.ordered.asset), at_us)
        _, state_us = _newest(self._states.get(command.spoke), at_us)
        first_us = max(command.first_us, command.arrived_us)
        hops_us = {
            "oracle": received_us - observed_us,
            "state_report": max(0, at_us - state_us),
            "hub": at_us - received_us,
            "command": command.arrived_us - at_us,
            "inclusion": first_us - command.arrived_us,
            "unwind": max(0, command.done_us - first_us),
        }
        hops_us["total"] = sum(hops_us.values()) - hops_us["state_report"]
        return hops_us


def _newest(arrivals: deque[tuple[int, int]] | None, at_us: int) -> tuple[int, int]:
    """Return the arrival before `at_us` whose content is the newest; (at, at) if there is none.

    At one instant timers fire first, so what comes in the hub's block is not known to it.
    """
    known = [one for one in arrivals or () if one[0] < at_us]
    return max(known, key=lambda one: one[1], default=(at_us, at_us))
