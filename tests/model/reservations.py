"""The cases of the reservation model, and a command that checks them.

python -m tests.model.reservations --help
"""

import argparse
import sys
import time
from dataclasses import dataclass

from tests.model.rules import Amnesia, Release, Renewals, Rules
from tests.model.search import Verdict, search

ABOUT = """Check the reservation protocol by looking at every state that a small one can reach.

One hub with 1 unit of collateral, 2 spokes, 2 or 3 reservations of 1 unit. Any message may be
lost, repeated, overtaken or late; no two clocks agree. Each case takes one defence away, or none:
the cases without it show what it is for, with a shortest way to spend the same unit twice."""

MORE = """examples:
  python -m tests.model.reservations                    all cases but the slow ones
  python -m tests.model.reservations hub-clock          one case, with its counterexample
  python -m tests.model.reservations --list             what there is, without checking it
  python -m tests.model.reservations reorg --slow       a slow case; without a name, all

columns:
  verdict   safe: no reachable state breaks an invariant within the bounds of the case
            broken: one does; the steps that lead to it follow below the table
  states    safe: all reachable ones; broken: all within that many steps
  steps     length of a shortest counterexample

exit code: 0 every verdict is the expected one, 1 one is not, 2 wrong usage
more: docs/model.md"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model with its recorded verdict.

    Attributes:
        says: what the case is, in a few words.
        rules: the model.
        states: number of states a search keeps, see `Verdict`.
        steps: length of a shortest counterexample; 0 means safe.
        slow: more than about 10 seconds.
    """

    says: str
    rules: Rules
    states: int
    steps: int = 0
    slow: bool = False

    @property
    def hands(self) -> bool:
        """Safe cases hold all invariants; broken ones go on until a unit has been used twice."""
        return not self.steps

    def search(self) -> Verdict:
        return search(self.rules, hands=self.hands)

    def agrees(self, found: Verdict) -> bool:
        return (len(found.steps), found.states) == (self.steps, self.states) and (
            found.broken is None
        ) == (not self.steps)


CASES = {
    "close-only": Case(
        says="only a close frees",
        rules=Rules(release=Release.CLOSE_ONLY),
        states=199_074,
    ),
    "watermark": Case(
        says="a watermark frees too; all defences",
        rules=Rules(),
        states=450_141,
    ),
    "watermark-two": Case(
        says="the same, 2 reservations",
        rules=Rules(reservations=2),
        states=65_204,
    ),
    "watermark-long": Case(
        says="the same, lifetime 2, 5 clock values",
        rules=Rules(lifetime=2, clock_max=4),
        states=43_884_356,
        slow=True,
    ),
    "reorg": Case(
        says="all defences, 1 reorg per spoke",
        rules=Rules(reorgs_max=1),
        states=16_137_056,
        slow=True,
    ),
    "close-only-unnumbered": Case(
        says="only a close frees, no sequence numbers",
        rules=Rules(release=Release.CLOSE_ONLY, sequence_numbers=False),
        states=324_936,
    ),
    "renewal": Case(
        says="renewals, judged on the largest expiry",
        rules=Rules(renewals=Renewals.LARGEST_EXPIRY, reservations=2),
        states=226_704,
    ),
    "amnesia": Case(
        says="amnesia, epoch fences grants and watermarks",
        rules=Rules(amnesia=Amnesia.ALL_FENCED, reservations=2),
        states=1_102_607,
        slow=True,
    ),
    "hub-clock": Case(
        says="the hub's clock frees",
        rules=Rules(release=Release.HUB_CLOCK),
        states=9_087,
        steps=8,
    ),
    "hub-clock-margin": Case(
        says="the hub's clock frees, after a skew margin",
        rules=Rules(release=Release.HUB_CLOCK_WITH_MARGIN, skew_max=1, clock_max=4, reservations=2),
        states=77_095,
        steps=14,
    ),
    "unnumbered": Case(
        says="no sequence numbers",
        rules=Rules(sequence_numbers=False),
        states=23_063,
        steps=10,
    ),
    "no-outbox": Case(
        says="no outbox",
        rules=Rules(outbox=False),
        states=22_097,
        steps=10,
    ),
    "no-tombstone": Case(
        says="no tombstones",
        rules=Rules(tombstones=False),
        states=14_840,
        steps=9,
    ),
    "no-tombstone-close-only": Case(
        says="no tombstones, only a close frees",
        rules=Rules(release=Release.CLOSE_ONLY, tombstones=False),
        states=13_455,
        steps=9,
    ),
    "soft-evidence": Case(
        says="soft evidence counts, 1 reorg",
        rules=Rules(finality=False, reorgs_max=1),
        states=438_249,
        steps=10,
    ),
    "soft-evidence-close-only": Case(
        says="soft evidence counts, only a close frees",
        rules=Rules(release=Release.CLOSE_ONLY, finality=False, reorgs_max=1),
        states=413_188,
        steps=10,
    ),
    "stale-hub": Case(
        says="the hub goes on from a stale state",
        rules=Rules(stale_hub=True),
        states=27_910,
        steps=8,
    ),
    "stale-hub-close-only": Case(
        says="the same, only a close frees",
        rules=Rules(release=Release.CLOSE_ONLY, stale_hub=True),
        states=26_636,
        steps=8,
    ),
    "renewal-first": Case(
        says="renewals, judged on the first expiry",
        rules=Rules(renewals=Renewals.FIRST_EXPIRY, reservations=2, clock_max=3),
        states=63_230,
        steps=11,
    ),
    "amnesia-no-epoch": Case(
        says="amnesia, no epoch",
        rules=Rules(amnesia=Amnesia.NO_EPOCH, reservations=2),
        states=2_547,
        steps=6,
    ),
    "amnesia-grants": Case(
        says="amnesia, epoch fences grants only",
        rules=Rules(amnesia=Amnesia.GRANTS_FENCED, reservations=2),
        states=75_657,
        steps=11,
    ),
}
ROW = "{:25} {:44} {:8} {:>11} {:>6}"


def main() -> int:
    """Print a table of verdicts as they are found, then the counterexamples."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.model.reservations",
        description=ABOUT,
        epilog=MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("case", nargs="*", help="names of cases; none: all but the slow ones")
    parser.add_argument("--list", action="store_true", help="print recorded verdicts, check none")
    parser.add_argument("--slow", action="store_true", help="slow cases too: minutes, 5 GB")
    given = parser.parse_args()
    unknown = sorted(set(given.case) - set(CASES))
    if unknown:
        parser.error(f"expected names from --list, found {', '.join(unknown)}")
    slow = given.slow or given.list
    names = given.case or [name for name, case in CASES.items() if slow or not case.slow]
    refused = [name for name in names if CASES[name].slow and not slow]
    if refused:
        parser.error(f"expected --slow with {', '.join(refused)}: minutes and gigabytes")

    show(ROW.format("case", "what", "verdict", "states", "steps") + "  seconds" * (not given.list))
    if given.list:
        for name in names:
            case = CASES[name]
            show(row(name, case.says, case.steps, case.states) + "  slow" * case.slow)
        return 0
    return 1 if check(names) else 0


def check(names: list[str]) -> int:
    """Search the cases, print what comes out, and return how many are not as recorded."""
    wrong = 0
    found: dict[str, Verdict] = {}
    for name in names:
        case, began_s = CASES[name], time.perf_counter()
        verdict = found[name] = case.search()
        line = row(name, case.says, len(verdict.steps), verdict.states)
        agrees = case.agrees(verdict)
        wrong += not agrees
        expected = f"  expected {case.steps} steps, {case.states:,} states" * (not agrees)
        show(f"{line} {time.perf_counter() - began_s:8.1f}{expected}")
    for name, verdict in found.items():
        if verdict.broken:
            show(f"\n{name}: {CASES[name].says}")
            for number, step in enumerate(verdict.steps, start=1):
                show(f"  {number:2} {step}")
            show(f"  => {verdict.broken}")
    show("\nevery verdict as expected" if not wrong else f"\n{wrong} not as expected")
    return wrong


def row(name: str, says: str, steps: int, states: int) -> str:
    return ROW.format(name, says, "broken" if steps else "safe", f"{states:,}", steps or "")


def show(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
