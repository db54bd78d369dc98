"""Links between nodes: late, lost, repeated, reordered, cut off.

Every draw depends only on (seed, channel, message number), so a link that loses more messages
leaves the delay of every other message as it was. Source: docs/determinism.md.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TypeAlias

import msgspec

from messaging.dice import BLOCK, Dice
from messaging.envelope import Envelope
from messaging.latency import Latency
from messaging.units import Micros, NodeId, Ppm

LinkKey: TypeAlias = tuple[NodeId, NodeId]  # from, to
CERTAIN = 1_000_000


class WindowKind(StrEnum):
    """What happens to a message in a window."""

    HOLD = "hold"  # it waits for the end: an outage
    DROP = "drop"  # it is lost: a partition


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A span `[from_us, until_us)` in which a link does not work."""

    from_us: Micros
    until_us: Micros
    kind: WindowKind


class LinkPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What a link does to messages.

    Attributes:
        latency: one-way delay.
        loss_ppm: share of messages lost.
        repeat_ppm: share of messages that arrive twice, the second with a delay of its own.
        reorder_ppm: share of messages held back by one more delay.
        in_order: no message arrives before one sent earlier on the same channel.
        windows: when the link is cut off.
    """

    latency: Latency
    loss_ppm: Ppm = Ppm(0)
    repeat_ppm: Ppm = Ppm(0)
    reorder_ppm: Ppm = Ppm(0)
    in_order: bool = False
    windows: tuple[Window, ...] = ()


class Network:
    """All links of a run."""

    def __init__(self, seed: int, links: Mapping[LinkKey, LinkPolicy]) -> None:
        self._seed = seed
        self._links = links
        self._lanes: dict[tuple[NodeId, NodeId, str], _Lane] = {}

    def arrivals(self, envelope: Envelope, now_us: Micros) -> Sequence[Micros]:
        """Return when copies of a frame arrive: none if it is lost, two if it is repeated."""
        key = (envelope.sender, envelope.receiver, envelope.family)
        lane = self._lanes.get(key)
        if lane is None:
            policy = self._links[envelope.sender, envelope.receiver]
            lane = self._lanes[key] = _Lane(self._seed, "/".join(key), policy)
        seq = envelope.seq
        if lane.first_seq_max < seq < lane.block_end:
            # The common case, in place: a first journey over a link without faults.
            lane.first_seq_max = seq
            return (now_us + lane.block[seq - lane.block_end],)  # type: ignore[return-value]
        return lane.arrivals(seq, now_us)


class _Lane:
    """One channel over one link.

    Attributes:
        first_seq_max: the highest number that has travelled.
        block, block_end: delays of first journeys, the last one that of message number
            `block_end - 1`; without faults a delay is all there is to draw. 0 with faults.
    """

    __slots__ = (
        "_again",
        "_first",
        "_latest_us",
        "_plain",
        "_policy",
        "block",
        "block_end",
        "first_seq_max",
    )

    def __init__(self, seed: int, name: str, policy: LinkPolicy) -> None:
        self._policy = policy
        # A frame's first journey is numbered by its seq; resends and frames outside the
        # sequence count on their own, for how many there are depends on the delays.
        self._first = _Journeys(seed, f"{name}/first", policy)
        self._again = _Journeys(seed, f"{name}/again", policy)
        self._latest_us = 0
        self.first_seq_max = 0
        faults = (policy.loss_ppm, policy.repeat_ppm, policy.reorder_ppm, policy.in_order)
        self._plain = not any(faults) and not policy.windows
        self.block: Sequence[int] = ()
        self.block_end = 0

    def arrivals(self, seq: int, now_us: Micros) -> Sequence[Micros]:
        """Return when the copies of message `seq` arrive."""
        if seq > self.first_seq_max:
            self.first_seq_max = seq
            delays_us = self._first.delays_us(seq)
            if self._plain:
                self.block, self.block_end = self._first.block, self._first.block_start + BLOCK
        else:
            delays_us = self._again.delays_us(None)
        policy = self._policy
        if not policy.windows and not policy.in_order:
            return [Micros(now_us + delay_us) for delay_us in delays_us]
        return self._through_windows(now_us, delays_us)

    def _through_windows(self, now_us: Micros, delays_us: Sequence[int]) -> list[Micros]:
        arrivals: list[Micros] = []
        for delay_us in delays_us:
            leaves_us = self._held(now_us)
            if leaves_us is None:
                continue
            at_us = self._held(Micros(leaves_us + delay_us))
            if at_us is None:
                continue
            if self._policy.in_order:
                at_us = Micros(max(at_us, self._latest_us))
                self._latest_us = at_us
            arrivals.append(at_us)
        return arrivals

    def _held(self, at_us: Micros) -> Micros | None:
        """Return when the link works again for a message at `at_us`; None if it is lost."""
        for window in self._policy.windows:
            if window.from_us <= at_us < window.until_us:
                if window.kind is WindowKind.DROP:
                    return None
                return self._held(window.until_us)
        return at_us


class _Journeys:
    """The draws of one numbered row of messages, made a block at a time."""

    __slots__ = ("_dice", "_fates", "_next", "_policy", "_spare", "block", "block_start")

    def __init__(self, seed: int, name: str, policy: LinkPolicy) -> None:
        # One stream for each question, so that an answer to one never moves another.
        asked = ["body", "choice"]
        if policy.loss_ppm or policy.repeat_ppm or policy.reorder_ppm:
            asked += ["spare-body", "spare-choice", "loss", "repeat", "order"]
        self._dice = {what: Dice(seed, f"link/{name}/{what}") for what in asked}
        self._policy = policy
        self._next = 0
        self.block: Sequence[int] = ()
        self.block_start = -BLOCK
        self._spare: list[int] = []
        self._fates: list[tuple[bool, bool, bool]] | None = None

    def delays_us(self, number: int | None) -> Sequence[int]:
        """Return the delays of message `number`'s copies; without a number, of the next one."""
        if number is None:
            number = self._next
            self._next += 1
        index = number - self.block_start
        if not 0 <= index < BLOCK:
            self._draw(number // BLOCK)
            index = number - self.block_start
        if self._fates is None:
            return (self.block[index],)
        lost, repeated, reordered = self._fates[index]
        if lost:
            return ()
        delay_us, spare_us = self.block[index], self._spare[index]
        if reordered:
            delay_us += spare_us
        return (delay_us, delay_us + spare_us) if repeated else (delay_us,)

    def _draw(self, block: int) -> None:
        policy, dice = self._policy, self._dice
        self.block_start = block * BLOCK
        sample_us = policy.latency.sample_us
        body, choice = dice["body"].block(block), dice["choice"].block(block)
        self.block = sample_us(body, choice).tolist()
        chances = (policy.loss_ppm, policy.repeat_ppm, policy.reorder_ppm)
        if not any(chances):
            return
        body, choice = dice["spare-body"].block(block), dice["spare-choice"].block(block)
        self._spare = sample_us(body, choice).tolist()
        answers = [
            (dice[what].block(block) * CERTAIN < chance).tolist()
            for what, chance in zip(("loss", "repeat", "order"), chances, strict=True)
        ]
        self._fates = list(zip(*answers, strict=True))
