"""The nine stress events: which scenario, which ways, which claims."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lab import reading
from lab.events import along, claims, judges
from lab.events.claims import DRY, LATE, LOWER, MOVED, ONE_FEED, SEEDS, THIN, UNPEGGED, Claim, Found
from lab.events.ways import NO_BUFFER, WAYS, Job, Tables, Way, changed
from messaging.errors import InputRefused, nearest

FOLDER = Path(__file__).parent.parent.parent / "scenarios"

Judge = Callable[[Found], list[Claim]]


class StressTest(NamedTuple):
    """One event.

    Attributes:
        ways: beside those of every event.
        hidden: ways that only claims need, as other seeds are.
        judges: what must be shown.
    """

    title: str
    judges: Sequence[Judge]
    ways: Mapping[str, Way] = {}
    hidden: Mapping[str, Way] = {}


# Twenty times the quartiles of `layerzero.l2_to_l2`.
_SLOW = 'latency={ kind = "quartiles", q1_s = 620, q2_s = 720, q3_s = 920, floor = true }'


def _other_seeds(name: str, way: Way) -> dict[str, Way]:
    return {
        claims.seeded(name, seed): way._replace(sets=(*way.sets, f"seed={seed}")) for seed in SEEDS
    }


_LATE = Way(buffer="none", sets=(_SLOW,))

# What a fill has moved the price by passes in minutes; a fifth of it lasts in E7, all in E9.
_MOVED = ("impact.half_life_s=120",)

EVENTS = {
    "march_2020": StressTest(
        "E1  12-13 March 2020, Black Thursday",
        (judges.march_2020,),
        ways={
            THIN: Way(sets=("assets.BTC.depth_usd=10", "assets.ETH.depth_usd=10")),
            LATE: _LATE,
        },
        hidden=_other_seeds(NO_BUFFER, WAYS[NO_BUFFER]) | _other_seeds(LATE, _LATE),
    ),
    "may_2021": StressTest("E2  19 May 2021", (judges.may_2021,)),
    "luna_2022": StressTest("E3  LUNA, May 2022", (judges.luna_2022, along.luna_2022)),
    "steth_2022": StressTest("E4  stETH, June 2022", (along.steth_2022,)),
    "ftx_2022": StressTest("E5  FTX, November 2022", (judges.ftx_2022, along.ftx_2022)),
    "mango_2022": StressTest(
        "E6  Mango, 11 October 2022",
        (judges.mango_2022,),
        ways={LOWER: Way(sets=("prices.event=mango_2022_low",))},
    ),
    "crv_2022": StressTest(
        "E7  CRV, November 2022",
        (judges.crv_2022,),
        ways={MOVED: Way(sets=(*_MOVED, "assets.CRV.impact_ppm_per_million_usd=2_000"))},
    ),
    "usdc_2023": StressTest(
        "E8  USDC, March 2023",
        (judges.usdc_2023, along.usdc_2023),
        ways={UNPEGGED: Way(breakers=False, sets=("oracle.peg_ppm=1_000_000",))},
    ),
    "october_2025": StressTest(
        "E9  10 October 2025",
        (judges.october_2025,),
        ways={
            ONE_FEED: Way(sets=("oracle.feeds=1", "oracle.faults.0.feed=0")),
            DRY: Way(sets=("liquidation.adl=queue",)),
            MOVED: Way(sets=(*_MOVED, "traders.named=[]")),
        },
    ),
}


def named(names: Sequence[str]) -> list[str]:
    """Return the events asked for, all if none is.

    Raises:
        InputRefused: there is none of that name, or it is there twice.
    """
    for place, name in enumerate(names):
        if name not in EVENTS:
            expected = f"one of {', '.join(EVENTS)}"
            found = f"{name!r}{nearest(name, EVENTS)}"
            raise InputRefused("NAME", expected=expected, found=found)
        if name in names[:place]:
            raise InputRefused("NAME", expected="each event once", found=f"{name!r} again")
    return list(names or EVENTS)


def tables(name: str, accounts: int | None = None) -> Tables:
    """Return the tables of an event's scenario; `accounts` beside the named ones."""
    read = reading.read_file(FOLDER / f"event_{name}.toml")
    if accounts is not None:
        read["traders"]["accounts"] = accounts
    return read


def ways_of(name: str) -> dict[str, Way]:
    """Return every way that an event is run."""
    return {**WAYS, **EVENTS[name].ways, **EVENTS[name].hidden}


def jobs(name: str, scenario: Tables, *, checks: bool) -> list[Job]:
    """Return an event's runs."""
    return [Job(name, way, changed(scenario, how), checks) for way, how in ways_of(name).items()]


def judge(name: str, found: Found) -> list[Claim]:
    """Return what an event has shown of what it must show."""
    return [claim for judging in EVENTS[name].judges for claim in judging(found)]
