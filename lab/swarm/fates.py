"""What befalls processes: they die, stand still, and have clocks of their own.

Faults F4, F5, F7 and F11 of docs/swarm.md.
"""

from collections.abc import Sequence
from math import log

from lab.swarm.draws import Draws
from lab.swarm.options import FAULTS, SKEW_S, Options
from lab.swarm.reached import Struck
from messaging.drivers.process import Death, Loss, Point
from messaging.units import HUB, SECOND_US, Micros, NodeId

REWOUND = 100
ROTATIONS_MAX = 8  # of a process: each costs the reader a resend, and everything must be heard
_POINTS = tuple(Point)


class Fates:
    """One stream of draws for each process and question.

    Attributes:
        healed: nobody dies, stands still, or loses time any more.
    """

    def __init__(self, options: Options, names: tuple[NodeId, ...], struck: Struck) -> None:
        self._struck = struck
        self._faults = options.faults
        self._pause = options.faults.get("pause", 0.0)
        self._safety_us = options.safety_s * SECOND_US
        self._down_us = options.ttl_s * SECOND_US
        self._deaths = {name: Draws(options.seed, f"death/{name}") for name in names}
        self._pauses = {name: Draws(options.seed, f"pause/{name}") for name in names}
        self._losses = {name: Draws(options.seed, f"loss/{name}") for name in names}
        self._rounds = dict.fromkeys(names, 0)
        self._due = dict.fromkeys(names, 0)
        self._rotations = {name: Draws(options.seed, f"rotation/{name}") for name in names}
        self._rotates = dict.fromkeys(names, 0)
        self._amnesias = {name: Draws(options.seed, f"amnesia/{name}") for name in names}
        self._forgets = dict.fromkeys(names, 0)
        self._ahead = {name: self._jumps(options, name) for name in names}
        self.healed = False
        self._hub_lost = self._forgotten = False
        self._doubled: set[NodeId] = set()  # the checks cannot follow a third process of a node
        for name in names:
            self._draw_due(name)
            self._draw_rotation(name)
            self._draw_amnesia(name)

    def _jumps(self, options: Options, name: NodeId) -> list[tuple[int, int]]:
        """Return (from when, how far ahead [us]) of a clock; it is right at the beginning."""
        strength = options.faults.get("skew", 0.0)
        if not strength or name != HUB:
            return []  # a spoke's clock is its chain's
        draws = Draws(options.seed, f"skew/{name}")
        jumps = []
        for _ in range(1 + int(4 * strength)):
            at_us = int(draws.uniform(0.0, self._safety_us))
            jumps.append((at_us, int(draws.uniform(-1.0, 1.0) * strength * SKEW_S * SECOND_US)))
        return sorted(jumps)

    def _draw_due(self, name: NodeId) -> None:
        """Draw in how many rounds the process dies next."""
        strength = self._faults.get("death", 0.0)
        if strength:
            mean = 600.0 - 500.0 * strength
            rounds = 1 + int(-log(1.0 - self._deaths[name].next()[0]) * mean)
            self._due[name] = self._rounds[name] + rounds

    def _draw_rotation(self, name: NodeId) -> None:
        """Draw in how many rounds somebody gives the process a new key, and starts it again."""
        strength = self._faults.get("rotation", 0.0) or self._faults.get("leaked", 0.0)
        if strength and self._rotations[name].count < 2 * ROTATIONS_MAX:
            mean = 250.0 - 200.0 * strength
            if not self._rounds[name]:
                mean /= 5  # the first one early, so that much is behind it
            rounds = 1 + int(-log(1.0 - self._rotations[name].next()[0]) * mean)
            self._rotates[name] = self._rounds[name] + rounds

    def _draw_amnesia(self, name: NodeId) -> None:
        """Draw in how many rounds a spoke loses all but its chain, whether or not others die."""
        strength = self._faults.get("amnesia", 0.0)
        if strength and name != HUB:
            mean = 400.0 - 350.0 * strength
            rounds = 1 + int(-log(1.0 - self._amnesias[name].next()[0]) * mean)
            self._forgets[name] = self._rounds[name] + rounds

    def jumps(self) -> list[Micros]:
        """Return when some clock jumps."""
        return [Micros(at_us) for ahead in self._ahead.values() for at_us, _ in ahead]

    def death(self, name: NodeId, now_us: Micros) -> Death | None:
        """See `messaging.drivers.mortal.Fate`."""
        if self.healed:
            return None
        self._rounds[name] += 1
        if self._rounds[name] == self._rotates[name]:
            return self._rotation(name)
        if self._rounds[name] == self._forgets[name] and not self._hub_lost:
            return self._amnesia(name)
        if not self._due[name] or self._rounds[name] < self._due[name]:
            return None
        draws = self._deaths[name].next()
        self._draw_due(name)
        if draws[1] < 0.5 * self._faults.get("crash_loop", 0.0):
            self._due[name] = self._rounds[name] + 1  # again with its next round
        self._struck(FAULTS["death"])
        truncated = draws[6] < 0.5 * self._faults.get("truncate", 0.0)
        if truncated or "rewind" in self._faults:
            self._struck(FAULTS["rewind"])
        down_us = -log(1.0 - draws[2]) * 0.2 * self._down_us
        if draws[3] < 0.1:
            down_us += self._down_us * 2  # longer than any grant lives
        return Death(
            point=_POINTS[int(len(_POINTS) * draws[4])],
            down_us=int(down_us),
            again=int(3 * draws[5]),
            truncated=truncated,
            rewound=int(REWOUND * draws[7]) if "rewind" in self._faults else 0,
            loss=self._loss(name),
        )

    def _rotation(self, name: NodeId) -> Death:
        """Draw how a process is stopped to be given a new key; often it dies again at once."""
        draws = self._rotations[name].next()
        self._draw_rotation(name)
        self._struck(FAULTS["rotation"])
        if self._due[name] and draws[0] < 0.5:
            self._due[name] = self._rounds[name] + 1 + int(4 * draws[1])
        return Death(
            point=_POINTS[int(len(_POINTS) * draws[2])],
            down_us=int(-log(1.0 - draws[3]) * 2.0 * SECOND_US),
            again=int(2 * draws[4]),
            rotated=True,
        )

    def _amnesia(self, name: NodeId) -> Death:
        """Draw how a spoke loses all but its chain.

        Either the hub loses something or spokes lose all: who approves of a spoke that comes back
        has seen that the hub's own state is whole (P24).
        """
        draws = self._amnesias[name].next()
        self._draw_amnesia(name)
        self._struck(FAULTS["amnesia"])
        self._forgotten = True
        return Death(
            point=_POINTS[int(len(_POINTS) * draws[0])],
            down_us=int(-log(1.0 - draws[1]) * 0.2 * self._down_us),
            again=int(2 * draws[2]),
            loss=Loss.AMNESIA,
        )

    def _loss(self, name: NodeId) -> Loss:
        """Draw what a disk or somebody's backup does to a node's store, rarely."""
        draws = self._losses[name].next()
        if name == HUB and self._forgotten:
            return Loss.NOTHING
        loss = self._drawn_loss(name, draws)
        self._hub_lost = self._hub_lost or (name == HUB and loss is not Loss.NOTHING)
        return loss

    def _drawn_loss(self, name: NodeId, draws: Sequence[float]) -> Loss:
        share = 0.6 if name == HUB else 0.2  # more depends on it
        if draws[0] < share * self._faults.get("backup", 0.0):
            self._struck(FAULTS["backup"])
            return Loss.BACKUP
        if draws[1] < share * self._faults.get("lost_commit", 0.0):
            self._struck(FAULTS["lost_commit"])
            return Loss.LAST_COMMIT
        if draws[2] < share * self._faults.get("twin", 0.0) and name not in self._doubled:
            self._doubled.add(name)
            return Loss.SUPERVISOR
        return Loss.NOTHING

    def pause_us(self, name: NodeId, now_us: Micros) -> int:
        """See `messaging.drivers.mortal.Fate`."""
        strength = self._pause
        if not strength or self.healed:
            return 0
        draws = self._pauses[name].next()
        if draws[0] >= 0.02 * strength:
            return 0
        self._struck(FAULTS["pause"])
        long = self._down_us * 1.5 if draws[1] < 0.05 else 2.0 * SECOND_US
        return int(-log(1.0 - draws[2]) * long)

    def local_us(self, name: NodeId, now_us: Micros) -> Micros:
        """See `messaging.drivers.mortal.Fate`."""
        ahead = self._ahead[name]
        if not ahead or self.healed:
            return now_us
        ahead_us = 0
        for at_us, found_us in ahead:
            if at_us <= now_us:
                ahead_us = found_us
        return Micros(max(0, now_us + ahead_us))

    def global_us(self, name: NodeId, local_us: Micros, now_us: Micros) -> Micros:
        """See `messaging.drivers.mortal.Fate`."""
        if not self._ahead[name] or self.healed:
            return local_us
        due_us = now_us + max(0, local_us - self.local_us(name, now_us))
        for at_us, _ in self._ahead[name]:
            if now_us < at_us < due_us:
                return Micros(at_us)  # the clock jumps before: look again then
        return Micros(due_us)
