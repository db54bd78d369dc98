"""What checks and signatures cost: events per second of the same swarm seeds, run every way.

    python -m benchmarks.cost [--seeds 0..29] [--rounds 3] [--minutes 4] [--json]

With and without checks (invariants and counters), with real signatures (Ed25519), with the stub of
the swarm, and with signatures that nobody looks at. Every round runs all ways back to back, one
after the other in turn, and times the processor. All ways must handle the same events: one digest.
Faults that only a signature stops, `broken` and `forge`, are left out for all.
"""

import argparse
import sys
import time
from itertools import product
from statistics import median

import msgspec

from lab.swarm.keyed import Seals
from lab.swarm.options import Options, draw
from lab.swarm.trial import Trial
from messaging.fingerprint import fingerprint

STOPPED = ("broken", "forge")  # what only a signature stops


class Way(msgspec.Struct, frozen=True):
    """One way to run the seeds."""

    checks: bool
    seals: Seals


WAYS = tuple(Way(checks, seals) for seals, checks in product(Seals, (True, False)))


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """How fast one way is.

    Attributes:
        per_s: events per second of processor time, median over the rounds.
        slowdown: time over that of the way without checks and signatures, median of the rounds.
    """

    checks: bool
    seals: Seals
    per_s: float
    slowdown: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All ways, which handled the same events.

    Attributes:
        events: of one way in one round. digest: of what they were, in any way.
    """

    seeds: str
    rounds: int
    events: int
    digest: str
    ways: tuple[Cost, ...]


def world(seed: int, minutes: float) -> Options:
    """Return what a seed runs, without what only a signature stops and without an audit."""
    drawn = draw(seed, minutes)
    faults = {name: how for name, how in drawn.faults.items() if name not in STOPPED}
    return msgspec.structs.replace(drawn, faults=faults, audited=False)


def once(way: Way, worlds: list[Options]) -> tuple[float, int, str]:
    """Run all worlds one way; return seconds of processor time, events, and their digest."""
    events, digests, spent_s = 0, [], 0.0
    for options in worlds:
        trial = Trial(options, checks=way.checks, seals=way.seals)
        began_s = time.process_time()
        verdict = trial.run()
        spent_s += time.process_time() - began_s
        assert verdict.finding is None, f"seed {options.seed}: {verdict.finding}"
        events += verdict.events
        digests.append(verdict.digest)
    return spent_s, events, fingerprint(digests)


def measure(first: int, last: int, *, rounds: int, minutes: float) -> Report:
    """Run the seeds from `first` to `last`, both included, every way in every round."""
    worlds = [world(seed, minutes) for seed in range(first, last + 1)]
    once(WAYS[-1], worlds[:1])  # what is loaded and filled once
    spent_s: dict[Way, list[float]] = {way: [] for way in WAYS}
    found = set()
    for number in range(rounds):
        for way in WAYS if number % 2 == 0 else WAYS[::-1]:
            took_s, events, digest = once(way, worlds)
            spent_s[way].append(took_s)
            found.add((events, digest))
    assert len(found) == 1, f"expected the same events every way, found {sorted(found)}"
    ((events, digest),) = found
    least = spent_s[WAYS[-1]]
    costs = tuple(
        Cost(
            checks=way.checks,
            seals=way.seals,
            per_s=events / median(took),
            slowdown=median(one / other for one, other in zip(took, least, strict=True)),
        )
        for way, took in spent_s.items()
    )
    return Report(seeds=f"{first}..{last}", rounds=rounds, events=events, digest=digest, ways=costs)


def main() -> None:
    """Print what every way costs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="0..29", metavar="A..B", help="both included")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=4.0, help="with faults and load")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    first, _, last = given.seeds.partition("..")
    if not (first.isdecimal() and (last or first).isdecimal() and int(first) <= int(last or first)):
        parser.error(f"expected --seeds A..B with A <= B, found {given.seeds}")
    report = measure(int(first), int(last or first), rounds=given.rounds, minutes=given.minutes)
    if given.json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
        return
    print(f"swarm seeds {report.seeds}, {report.events:,} events, median of {report.rounds}")
    print(f"  {'checks':8}{'signatures':12}{'events/s':>10}{'times as long':>16}")
    for cost in report.ways:
        checks = "on" if cost.checks else "off"
        print(f"  {checks:8}{cost.seals:12}{cost.per_s:>10,.0f}{cost.slowdown:>16.2f}")
    print(f"digest {report.digest}, the same for all {len(report.ways)}")


if __name__ == "__main__":
    main()
