"""Hub and spokes compare views: equal in honest runs, and a defect is named to the row."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from hub.reconciliation import Finding, Line, Remedy
from hub.reservation import State
from hub.zone import Zone
from lab import plants, running
from lab.world import World, build
from messaging.digests import DigestTold
from messaging.effects import Effect
from messaging.envelope import Envelope
from messaging.merkle import bucket_of
from messaging.node import Event
from messaging.units import Micros, ReservationId
from tests.simulation.small import scenario

OFTEN = {"digest_s": 10.0, "watermark_s": 10.0}


def world(**changed: Any) -> World:
    traders = {"accounts": 60, "open_until_h": 1.0}
    return build(scenario(traders=traders, reporting=OFTEN, **changed))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "links",
    [
        {},
        {"loss_ppm": 100_000},
        {"repeat_ppm": 300_000, "reorder_ppm": 200_000},
        {"loss_ppm": 200_000, "repeat_ppm": 200_000, "reorder_ppm": 200_000},
    ],
    ids=["clean", "lossy", "repeating", "all"],
)
@pytest.mark.parametrize("latency", ["layerzero", "constant:300s"])
def test_honest_views_never_differ_whatever_the_links_do(
    seed: int, links: dict[str, int], latency: str
) -> None:
    one = world(seed=seed, links=links, latency=latency, duration_h=3.0)
    assert running.run(one).finding is None
    endpoints = {endpoint.name: endpoint for endpoint in one.endpoints}
    for zone in one.hub.state.zones:
        cut = zone.cut
        assert cut.compared > 300
        assert (cut.unequal, cut.incomparable, len(cut.reports)) == (0, 0, 0)
        assert cut.sent_seq == endpoints["hub"].outboxes[zone.name, "reservation"].next_seq - 1


def test_without_digests_nothing_is_compared() -> None:
    quiet = build(scenario(duration_h=2.0, reporting={"digest_s": 0}))
    assert running.run(quiet).finding is None
    assert all(zone.cut.compared == 0 for zone in quiet.hub.state.zones)
    assert all(zone.cut.unheard for zone in quiet.hub.state.zones)


def test_digests_keep_their_interval() -> None:
    for digest_s, times in ((30.0, 240), (60.0, 120), (300.0, 24)):
        one = build(scenario(duration_h=2.0, reporting={"digest_s": digest_s}))
        assert running.run(one).finding is None
        for zone in one.hub.state.zones:
            assert abs(zone.cut.compared - times) <= 2


def watch(one: World, look: Callable[[Zone, bool], None]) -> None:
    """Run without checks; show each zone that has compared, and whether it has reported."""
    (hub,) = (endpoint for endpoint in one.endpoints if endpoint.name == "hub")
    last: dict[str, object] = {}

    def after(now_us: Micros, event: Event, effects: Sequence[Effect]) -> None:
        if not isinstance(event, Envelope) or event.sender not in one.hub.state.zone_of:
            return
        zone = one.hub.state.zone_of[event.sender]
        report = zone.cut.reports[-1] if zone.cut.reports else None
        fresh = report is not last.get(zone.name)
        last[zone.name] = report
        if fresh or isinstance(event.message, DigestTold):
            look(zone, fresh)

    hub.observers.append(after)
    for _ in one.driver().run():
        pass


def differences(zone: Zone) -> list[Line]:
    lines = zone.cut.reports[-1].lines
    return [line for line in lines if line.finding is not Finding.UNHEARD]


@pytest.mark.parametrize(
    ("plant", "finding"),
    [("row_missing", Finding.MISSING), ("row_understated", Finding.UNEQUAL)],
)
def test_a_row_that_hides_something_is_named_and_kept_from_release(
    plant: str, finding: Finding
) -> None:
    """Exactly the rows in question, of all in their buckets; each that lives long enough."""
    one = world(latency="layerzero", duration_h=4.0)
    reservations, named = one.hub.state.reservations, set[ReservationId]()
    lived: dict[ReservationId, int] = {}

    def wrong(zone: Zone, rid: ReservationId) -> bool:
        used = reservations[rid].used_usd6 > 0 or plant == "row_missing"
        return rid in zone.cut.rows and plants.spoiled_row(rid) and used

    def look(zone: Zone, reported: bool) -> None:
        expected = {rid for rid in reservations if wrong(zone, rid)}
        if not reported:
            lived.update({rid: lived.get(rid, 0) + 1 for rid in expected})
            return
        lines = differences(zone)
        buckets = {bucket_of(line.rid) for line in lines}
        assert {line.rid for line in lines} == {r for r in expected if bucket_of(r) in buckets}
        assert {line.finding for line in lines} <= {finding}
        assert {line.remedy for line in lines} <= {Remedy.QUARANTINE}
        named.update(line.rid for line in lines)

    with plants.planted(plant):
        watch(one, look)

    assert len(named) > 5
    assert named >= {rid for rid, digests in lived.items() if digests > 60}
    assert named == {rid for zone in one.hub.state.zones for rid in zone.cut.quarantine}
    assert {reservations[rid].state for rid in named} <= {State.HELD, State.OVERDUE}


def test_a_row_too_many_is_named_and_the_hub_stands() -> None:
    one = world(latency="layerzero", duration_h=4.0)
    reservations, named = one.hub.state.reservations, set[ReservationId]()

    def look(zone: Zone, reported: bool) -> None:
        if reported:
            lines = differences(zone)
            assert all(plants.spoiled_row(line.rid) for line in lines)
            assert all(reservations[line.rid].closed for line in lines)
            assert {line.finding for line in lines} <= {Finding.EXTRA}
            assert {line.remedy for line in lines} <= {Remedy.HUB_STANDS}
            named.update(line.rid for line in lines)

    with plants.planted("row_extra"):
        watch(one, look)

    closed = {known.rid for known in reservations.values() if known.closed is not None}
    spoiled = {rid for rid in closed if plants.spoiled_row(rid)}
    final = {rid for rid in spoiled if not reservations[rid].open}  # closed some time ago
    assert len(named) > 5
    assert final <= named <= spoiled
    assert not any(zone.cut.quarantine for zone in one.hub.state.zones)
