"""One seed, one run, to the byte; and two settings share their random numbers."""

import os
import subprocess
import sys
from pathlib import Path

from lab import running
from lab.world import build
from messaging.envelope import Envelope
from messaging.messages import MarketMoved, OrderPlaced
from messaging.record import Record
from tests.simulation.small import scenario

ROOT = Path(__file__).parent.parent.parent
PRINT_DIGEST = (
    "from lab import running; from lab.world import build;"
    "from tests.simulation.small import scenario;"
    "print(running.run(build(scenario(seed=5))).story.result.digest)"
)


def test_digest_does_not_depend_on_process_or_hash_seed() -> None:
    expected = running.run(build(scenario(seed=5))).story.result.digest
    for hash_seed in ("1", "2"):
        out = subprocess.run(
            [sys.executable, "-c", PRINT_DIGEST],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert out.stdout.strip() == expected


def test_another_seed_is_another_run() -> None:
    first, second = (running.run(build(scenario(seed=seed))).story.result for seed in (1, 2))
    assert first.digest != second.digest


def test_checks_and_log_change_nothing(tmp_path: Path) -> None:
    plain = running.run(build(scenario()), checks=False).story.result
    full = running.run(build(scenario()), checks=True, log=tmp_path / "run.mcap").story.result
    assert plain.digest == full.digest
    assert plain.invariants_checked == 0 < full.invariants_checked


def outside_world(records: list[Record]) -> list[tuple[int, str, object]]:
    """Return what comes from outside the protocol: prices and orders."""
    return [
        (record.at_us, record.node, record.event.message)
        for record in records
        if isinstance(record.event, Envelope)
        and isinstance(record.event.message, MarketMoved | OrderPlaced)
    ]


def test_latency_leaves_prices_and_orders_as_they_are() -> None:
    fast, slow = (
        list(build(scenario(latency=latency)).driver().run())
        for latency in ("layerzero", "cctp_v1")
    )
    assert outside_world(fast) == outside_world(slow)
    assert fast != slow


def test_the_outside_digest_shows_what_two_runs_share() -> None:
    fast, slow, other = (
        running.run(build(scenario(**changed))).story.result
        for changed in ({}, {"latency": "cctp_v1", "buffer": {"kind": "none"}}, {"seed": 2})
    )
    assert fast.digest != slow.digest
    assert fast.outside_digest == slow.outside_digest != other.outside_digest


def test_faults_of_links_leave_the_delays_of_other_messages_as_they_are() -> None:
    """A message that arrives in both runs at its first try takes as long in both."""
    clean, lossy = (
        first_journeys(list(build(scenario(links={"loss_ppm": loss})).driver().run()))
        for loss in (0, 50_000)
    )
    shared = clean.keys() & lossy.keys()
    assert len(shared) > 0.8 * len(clean)
    same = sum(clean[key] == lossy[key] for key in shared)
    assert same == len(shared)


def first_journeys(records: list[Record]) -> dict[tuple[str, str, str, int], int]:
    """Return the delay of each numbered frame's first copy, by channel and number.

    Only of frames that were sent once: a resent one keeps the time of its first sending.
    """
    sent: dict[tuple[str, str, str, int], int] = {}
    delays: dict[tuple[str, str, str, int], int] = {}
    for record in records:
        for effect in record.effects:
            if isinstance(effect, Envelope) and effect.seq:
                key = (effect.sender, effect.receiver, effect.family, effect.seq)
                sent[key] = sent.get(key, 0) + 1
        event = record.event
        if isinstance(event, Envelope) and event.seq:
            key = (event.sender, event.receiver, event.family, event.seq)
            delays.setdefault(key, record.at_us - event.sent_us)
    return {key: delay_us for key, delay_us in delays.items() if sent.get(key) == 1}
