"""Breadth-first search of every state the model can reach: a verdict, or a shortest way to harm.

A state is one whole number of 60 bits: three of 20 for the hub and the two spokes, given out in
order of first sight. The steps of a part, or of the hub with one spoke, are worked out once and
kept as differences between numbers. So a level of the search is sums over sorted arrays.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from tests.model import world as model
from tests.model.rules import Rules
from tests.model.world import Hub, Spoke, World

WIDTH = 20
MASK = (1 << WIDTH) - 1
HUB = 1 << 2 * WIDTH
STATES_MAX = 60_000_000

Part = TypeVar("Part", Hub, Spoke)
Found = TypeVar("Found")
Level = npt.NDArray[np.int64]
Table = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Verdict:
    """What a search has found.

    Attributes:
        broken: what is wrong in the last state of `steps`, or None if every state is sound.
        states: all reachable ones if sound, else all within len(steps) steps.
        transitions: steps worked out from those states; if not sound, without the last level.
        steps: a shortest way to a broken state, one label per step.
    """

    broken: str | None
    states: int
    transitions: int
    steps: tuple[str, ...]


class SearchTooLargeError(Exception):
    """More than `states_max` states: there is no verdict. The bounds are too wide."""


class Numbers(Generic[Part]):
    """Numbers for the states of a part, from 0 in order of first sight, at most 2^20.

    Args:
        measure: two whole numbers to keep about each state of the part.
    """

    def __init__(self, measure: Callable[[Part], tuple[int, int]]) -> None:
        self.parts: list[Part] = []
        self._measures: list[tuple[int, int]] = []
        self._numbers: dict[Part, int] = {}
        self._measure = measure

    def of(self, part: Part) -> int:
        number = self._numbers.setdefault(part, len(self.parts))
        if number == len(self.parts):
            assert number <= MASK, "expected at most 2^20 states of a part"
            self.parts.append(part)
            self._measures.append(self._measure(part))
        return number

    def measures(self) -> tuple[Table, Table]:
        """Return the two measures as tables by number."""
        table = np.array(self._measures, dtype=np.int64)
        return table[:, 0], table[:, 1]


class Kept(dict[int, Found]):
    """A function of a number that is worked out once for each."""

    def __init__(self, function: Callable[[int], Found]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, key: int) -> Found:
        self[key] = found = self._function(key)
        return found


class Space:
    """The states of one model as numbers, and the steps between them as differences."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.hubs: Numbers[Hub] = Numbers(lambda hub: (hub.free, model.books_add_up(rules, hub)))
        self.spokes: tuple[Numbers[Spoke], Numbers[Spoke]] = (
            Numbers(lambda spoke: (spoke.used, model.in_hand(rules, spoke))),
            Numbers(lambda spoke: (spoke.used, model.in_hand(rules, spoke))),
        )
        self._alone = Kept(self._hub_changes)
        self._with = (
            Kept(lambda pair: self._changes(0, pair)),
            Kept(lambda pair: self._changes(1, pair)),
        )

    def number(self, world: World) -> int:
        left, right = (
            numbers.of(spoke) for numbers, spoke in zip(self.spokes, world.spokes, strict=True)
        )
        return self.hubs.of(world.hub) * HUB + (left << WIDTH) + right

    def world(self, number: int) -> World:
        left, right = number >> WIDTH & MASK, number & MASK
        spokes = (self.spokes[0].parts[left], self.spokes[1].parts[right])
        return World(self.hubs.parts[number // HUB], spokes)

    def after(self, level: Level) -> tuple[Level, Level]:
        """Return each step out of a level, as where it starts and where it ends, in no order."""
        hubs = level >> 2 * WIDTH
        starts, ends = [], []
        for which, pairs in ((0, level >> WIDTH), (1, (hubs << WIDTH) | (level & MASK))):
            distinct, place = np.unique(pairs, return_inverse=True)
            changes = [self._with[which][pair] for pair in distinct.tolist()]
            lengths = np.fromiter(map(len, changes), np.int64, len(changes))
            flat = np.fromiter(chain.from_iterable(changes), np.int64, int(lengths.sum()))
            counts = lengths[place]
            start = np.repeat(level, counts)
            # The k-th step of a state is the k-th change of its pair.
            first_change, first_step = np.cumsum(lengths) - lengths, np.cumsum(counts) - counts
            index = np.arange(len(start)) + np.repeat(first_change[place] - first_step, counts)
            starts.append(start)
            ends.append(start + flat[index])
        if self.rules.skew_max is not None:
            ticks = [(at, end) for at in level.tolist() for end in self._tick(at)]
            starts.append(np.array([at for at, _ in ticks], dtype=np.int64))
            ends.append(np.array([end for _, end in ticks], dtype=np.int64))
        return np.concatenate(starts), np.concatenate(ends)

    def broken(self, level: Level, *, hands: bool) -> Level:
        """Return the states of a level that break an invariant; each is a sum over the parts."""
        free, sound = self.hubs.measures()
        (left_used, left), (right_used, right) = (side.measures() for side in self.spokes)
        hub, one, other = level >> 2 * WIDTH, level >> WIDTH & MASK, level & MASK
        harmed = (left_used[one] + right_used[other] > self.rules.capacity) | (sound[hub] == 0)
        if hands:
            harmed |= free[hub] + left[one] + right[other] > self.rules.capacity
        return level[harmed]

    def _hub_changes(self, hub: int) -> list[int]:
        found = model.hub_steps(self.rules, self.hubs.parts[hub])
        return [(self.hubs.of(after) - hub) * HUB for _, after in found]

    def _changes(self, which: int, pair: int) -> list[int]:
        """Steps of one spoke, and of the hub and that spoke; of the hub alone with the first."""
        hub, number = pair >> WIDTH, pair & MASK
        numbers, unit = self.spokes[which], 1 if which else 1 << WIDTH
        spoke = numbers.parts[number]
        changes = [] if which else list(self._alone[hub])
        for _, after in model.spoke_steps(self.rules, which, spoke):
            changes.append((numbers.of(after) - number) * unit)
        for _, hub_after, after in model.exchanges(self.rules, which, self.hubs.parts[hub], spoke):
            change = (numbers.of(after) - number) * unit
            changes.append(change + (self.hubs.of(hub_after) - hub) * HUB)
        return changes

    def _tick(self, at: int) -> list[int]:
        hub, spokes = self.world(at)
        if not model.hub_may_tick(self.rules, hub, spokes):
            return []
        return [at + (self.hubs.of(model.hub_tick(hub)[1]) - at // HUB) * HUB]


def search(rules: Rules, *, hands: bool, states_max: int = STATES_MAX) -> Verdict:
    """Look at every reachable state, those with fewer steps first.

    Args:
        rules: the model.
        hands: whether a value in two hands is broken already, see `world.broken`.
        states_max: how many states may be kept; one takes about 50 bytes.

    Raises:
        SearchTooLargeError: there are more states than that.
    """
    space = Space(rules)
    levels = [np.array([space.number(model.initial(rules))], dtype=np.int64)]
    seen = levels[0]
    transitions = 0
    while len(levels[-1]):
        harmed = space.broken(levels[-1], hands=hands)
        if len(harmed):
            world = space.world(int(harmed[0]))
            steps = _way_to(space, levels, int(harmed[0]))
            return Verdict(model.broken(rules, world, hands=hands), len(seen), transitions, steps)
        _, ends = space.after(levels[-1])
        transitions += len(ends)
        found = np.unique(ends)
        place = np.searchsorted(seen, found)
        place[place == len(seen)] = 0
        found = found[seen[place] != found]
        seen = np.concatenate((seen, found))
        seen.sort(kind="stable")  # two sorted runs: a merge
        levels.append(found)
        if len(seen) > states_max:
            raise SearchTooLargeError(f"expected at most {states_max:,} states, found more")
    return Verdict(None, len(seen), transitions, ())


def replay(rules: Rules, labels: Sequence[str]) -> Iterator[World]:
    """Yield the first state and the state after each step, by the model's own transitions.

    Raises:
        ValueError: a step cannot happen in the state that it is said to happen in.
    """
    world = model.initial(rules)
    yield world
    for number, wanted in enumerate(labels, start=1):
        found = [after for label, after in model.steps(rules, world) if label == wanted]
        if len(found) != 1:
            raise ValueError(f"step {number}: expected one {wanted!r}, found {len(found)}")
        world = found[0]
        yield world


def _way_to(space: Space, levels: list[Level], end: int) -> tuple[str, ...]:
    """Walk back from level to level; one step less each time is certain to exist."""
    labels: list[str] = []
    for level in reversed(levels[:-1]):
        starts, ends = space.after(level)
        before = int(starts[ends == end].min())
        wanted = space.world(end)
        found = model.steps(space.rules, space.world(before))
        labels.append(next(label for label, after in found if after == wanted))
        end = before
    return tuple(reversed(labels))
