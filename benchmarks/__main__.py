"""Run the benchmarks: `python -m benchmarks [--events N] [--hours H] [--repeats R]`."""

import argparse
from statistics import median

from benchmarks import pingpong, scenario


def main() -> None:
    """Print medians of rounds run side by side, and ratios from the same rounds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("--events", type=int, default=300_000, help="messages of a ping-pong")
    parser.add_argument("--hours", type=float, default=24.0, help="virtual hours of march_2020")
    parser.add_argument("--accounts", type=int, default=1_200, help="its accounts")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; every round runs all")
    given = parser.parse_args()

    rates: dict[str, list[float]] = {name: [] for name in pingpong.ENGINES}
    for _ in range(given.repeats):
        for name, engine in pingpong.ENGINES.items():
            rates[name].append(engine(given.events))
    print(f"ping-pong, {given.events:,} messages, median of {given.repeats}")
    ours = median(rates["omnimargin"])
    for name, found in rates.items():
        print(f"  {name:16} {median(found):>12,.0f} /s   omnimargin is {ours / median(found):.2f}x")

    kinds = {
        "simulation alone": {"checks": False, "digest": False},
        "digest, measures": {"checks": False, "digest": True},
        "and checks": {"checks": True, "digest": True},
    }
    whole: dict[str, list[float]] = {name: [] for name in kinds}
    digests = set()
    for _ in range(given.repeats):
        for name, kind in kinds.items():
            found_rate, digest = scenario.rate(given.hours, given.accounts, **kind)
            whole[name].append(found_rate)
            digests.add(digest)
    print(f"march_2020, {given.accounts:,} accounts, {given.hours:g} h, median of {given.repeats}")
    for name, found in whole.items():
        print(f"  {name:16} {median(found):>12,.0f} events/s")
    print(f"digest {' '.join(sorted(digests - {''}))}")


if __name__ == "__main__":
    main()
