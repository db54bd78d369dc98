"""Many seeds side by side: what they found, what they reached, and how to see it again."""

import gc
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from hashlib import blake2b
from multiprocessing import get_context
from time import perf_counter

import msgspec

from lab.swarm.options import Lie, Options, draw
from lab.swarm.reached import GROUPS, STATES
from lab.swarm.trial import Trial, Verdict
from messaging.messages import CHANNEL_FAMILIES

CHUNK = 25
COLLECTED = 5  # seeds between two collections
FINDINGS_MAX = 10


class Summary(msgspec.Struct, kw_only=True):
    """What a campaign has shown.

    Attributes:
        digest: of all seeds' digests, in order.
        missing: what was never reached and should have been.
    """

    seeds: int = 0
    events: int = 0
    virtual_h: float = 0.0
    checked: int = 0
    wall_s: float = 0.0
    jobs: int = 1
    digest: str = ""
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    missing: tuple[str, ...] = ()
    findings: list[Verdict] = msgspec.field(default_factory=list)


# What every campaign of more than `REACHED_SEEDS` seeds must have reached at least once.
REACHED_SEEDS = 1_000
REQUIRED = (
    *("loss", "repeat", "tail", "clog", "capacity"),  # F1
    *("cut", "one_way", "isolate", "jam", "swizzle"),  # F2
    *("old", "broken", "stray"),  # F3
    *("rewound", "truncated", "outage"),  # F4
    *("died before commit", "died after commit", "died after publish before mark"),  # F5
    *("died in recovery", "paused", "published again"),
    *("reorg", "reorg before the frames below"),  # F8
    *("outlier", "stale"),  # F9
    *("forge", "said two things", "SpokeHalted: equivocated"),  # F10
    *("leaked", "refused: expected no old key"),
    *("poison then retry", "WRITE_OFF", "skip, releases frozen", "resumed"),  # F11
    *("rotated with frames in flight", "refused: expected a key in force"),
    *("lost last commit", "lost backup", "doubled", "restored", "stopped"),  # F5, F6
    *("ReservationGranted", "ReservationRenewed", "RevocationRequested", "CreditUsed"),
    *("ReservationGranted when closed", "ReservationRenewed when closed", "asked again"),
    *("ReservationClosed: done", "ReservationClosed: revoked", "ReservationClosed: expired"),
    *("ReservationClosed: refused_late", "LiquidationOrdered at a price"),
    *("ReservationRejected: zone_cap", "ReservationRejected: free_short"),
    *("ReservationRejected: spoke_overdue", "ReservationRejected: account_restricted"),
    *("ReservationRejected: price_unknown", "ReservationRejected: price_doubted"),
    *("released by close", "released by watermark", "released after overdue"),
    "released partly used",
    *("asked for a gap", "sent again", "parked buffer full", "dead letters"),
    *("refused: expected a sealed frame", "refused: expected a frame of this deployment"),
    *("refused: expected a signature of hub", "refused: expected the key of hub"),
    *("LiquidationOrdered", "LiquidationDone: done", "LiquidationDone: expired"),
    "LiquidationDone: nothing_to_do",
    *("MarginSet: reduce_only", "MarginSet: frozen", "MarginSet: open"),
    "grace",
    *("BreakerSet: price_old", "BreakerSet: feed_stuck", "BreakerSet: off_mean"),
    *("BreakerSet: cascade", "BreakerSet: zone_won", "BreakerSet: clear"),
    "ReservationRejected: breaker",
    "DigestTold",
    *(f"lied: {lie}" for lie in Lie),  # F10
    *("SpokeHalted: finality_violated", "SpokeHalted: used_after_close"),
    *("rows differ: missing, quarantine", "rows differ: unequal, raise"),
    *("rows differ: unequal, hub_stands", "rows differ: extra, hub_stands"),
    *("ReservationRejected: account_unknown", "ReservationRejected: amount_invalid"),
    *("ReservationRejected: ttl_invalid", "ReservationRejected: exists_different"),
    *("ReservationRejected: halted", "ReservationRenewed lost"),
    *(f"reorg heard on {family}" for family in CHANNEL_FAMILIES),
    "close after release by watermark agrees",
    *("gain held", "held gain freed", "stopped: state_lost"),
    *("amnesia", "amnesia, rebuilt", "hub frames taken back", "grant of another epoch"),  # F6
    *("ReservationClosed: rebuilt", "released by rebuilt word"),
    *("delivered again", "told in either order", "frames derived anew"),  # INV8, INV9, INV10
)


# And what is so rare that only one of more than `RARE_SEEDS` must.
RARE_SEEDS = 5_000
RARE = (
    *(f"{group} while {state}" for group in GROUPS for state in STATES),
    *("SpokeHalted: used_late", "SpokeHalted: broken_claim", "SpokeHalted: unknown_reservation"),
    *("equivocated: two frames under a number", "equivocated: a head that does not link"),
    *("two commands on one position", "rows differ: unequal, quarantine"),
    *("gain held by the cap", "stopped: fenced"),
)


def run_seeds(seeds: Iterable[int], minutes: float) -> list[Verdict]:
    """Run some seeds, one after the other.

    Nothing that a seed makes outlives it, so what goes in circles is collected between seeds.
    """
    verdicts = []
    on = gc.isenabled()
    gc.disable()
    try:
        for seed in seeds:
            verdicts.append(Trial(draw(seed, minutes)).run())
            if len(verdicts) % COLLECTED == 0:
                gc.collect()
    finally:
        if on:
            gc.enable()
    return verdicts


def run(
    first: int, last: int, minutes: float, jobs: int, progress: Callable[[Summary], None]
) -> Summary:
    """Run the seeds from `first` to `last`, both included; stop after some findings."""
    began_s, summary, counts = perf_counter(), Summary(jobs=jobs), Counter[str]()
    digests: list[str] = []
    with closing(_verdicts(first, last, minutes, jobs)) as found:
        for verdicts in found:
            for verdict in verdicts:
                summary.seeds += 1
                summary.events += verdict.events
                summary.virtual_h += verdict.virtual_s / 3_600
                summary.checked += verdict.checked
                counts.update(verdict.counts)
                digests.append(verdict.digest)
                if verdict.finding is not None:
                    summary.findings.append(verdict)
            summary.wall_s = perf_counter() - began_s
            progress(summary)
            if len(summary.findings) >= FINDINGS_MAX:
                break
    summary.counts = dict(sorted(counts.items()))
    summary.digest = _digest(digests)
    if summary.seeds >= REACHED_SEEDS:
        wanted = REQUIRED + RARE * (summary.seeds >= RARE_SEEDS)
        summary.missing = tuple(name for name in wanted if not counts[name])
    return summary


def _verdicts(
    first: int, last: int, minutes: float, jobs: int
) -> Generator[list[Verdict], None, None]:
    """Yield verdicts in order of their seeds."""
    chunks = [range(at, min(at + CHUNK, last + 1)) for at in range(first, last + 1, CHUNK)]
    if jobs == 1:
        for chunk in chunks:
            yield run_seeds(chunk, minutes)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        under_way = [pool.submit(run_seeds, chunk, minutes) for chunk in chunks]
        try:
            for future in under_way:
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def shrink(options: Options, rule: str) -> Options:
    """Return smaller options that still break the same rule."""
    smaller = True
    while smaller:
        smaller = False
        for candidate in _smaller(options):
            finding = Trial(candidate).run().finding
            if finding is not None and finding.text.startswith(rule):
                options, smaller = candidate, True
                break
    return options


def _smaller(options: Options) -> Iterator[Options]:
    """Yield what to try next, the boldest first."""
    replace = msgspec.structs.replace
    names = list(options.faults)
    for count in (len(names) // 2, 1):
        for start in range(0, len(names), max(1, count)):
            gone = names[start : start + max(1, count)]
            yield replace(
                options,
                faults={name: how for name, how in options.faults.items() if name not in gone},
            )
    for name, least in (("spokes", 1), ("accounts", 1), ("assets", 1), ("renewals_max", 0)):
        found = getattr(options, name)
        if found > least:
            yield replace(options, **{name: found - 1})
    if options.batch > 1:
        yield replace(options, batch=1)
    if options.safety_s > 30:
        yield replace(options, safety_s=options.safety_s / 2)


def _digest(digests: Iterable[str]) -> str:
    return blake2b("".join(digests).encode(), digest_size=16).hexdigest()
