"""Whole runs in which chains lose blocks, with every check on."""

from random import Random
from typing import Any

import pytest

from hub.node import Hub
from lab.checkers import Checker
from lab.world import build
from messaging.units import HUB
from tests.simulation.small import scenario


def lossy(seed: int, loss_ppm: int) -> Any:
    """Return an hour of trade on two chains that lose blocks forty times each."""
    dice = Random(seed)
    spokes = [
        {
            "name": name,
            "chain": name,
            "block_s": 12.0,
            "final_after_s": 180.0,
            "reorgs": [
                {"at_h": at_h, "depth": dice.randint(1, 6)}
                for at_h in sorted(dice.uniform(0.05, 1.1) for _ in range(40))
            ],
        }
        for name in ("base", "optimism")
    ]
    return scenario(
        duration_h=1.2,
        seed=seed,
        tick_s=30.0,
        starts_at_utc="2020-03-12T10:18:00Z",
        prices={"start_hours": 4.3},
        traders={
            "accounts": 14,
            "open_until_h": 0.6,
            "leverage_min": 6.0,
            "actions_per_day": 900.0,
        },
        spokes=spokes,
        links={"loss_ppm": loss_ppm, "repeat_ppm": loss_ppm // 2, "reorder_ppm": loss_ppm // 2},
        latency="constant:5s",
        reporting={
            "tend_s": 10.0,
            "ack_after_s": 10.0,
            "watermark_s": 12.0,
            "digest_s": 36.0,
            "funding_h": 0.1,
        },
        hub={"look_s": 60.0},
    )


@pytest.mark.parametrize(("seed", "loss_ppm"), [(1, 0), (2, 100_000), (5, 300_000)])
def test_every_check_holds_while_chains_lose_blocks(seed: int, loss_ppm: int) -> None:
    world = build(lossy(seed, loss_ppm))
    names = {HUB, *(spoke.name for spoke in world.spokes)}
    ends = tuple(one for one in world.endpoints if one.name in names)
    checker = Checker(world.hub, world.spokes, ends, world.deposits)
    for _ in world.driver().run():
        pass
    checker.sweep()

    hub = next(one for one in ends if isinstance(one.node, Hub))
    assert all(inbox.chan_epoch == 41 for inbox in hub.inboxes.values())
    assert sum(inbox.dead for inbox in hub.inboxes.values()) > 0 or not loss_ppm
    assert all(zone.halted is None and zone.cut.compared > 80 for zone in world.hub.state.zones)
