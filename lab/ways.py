"""The ways between hub and spokes: scenario in, latencies, links and channel patience out."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from lab.amounts import hours, micros
from lab.scenario import Scenario, SpokeTable, WindowTable
from messaging import presets
from messaging.channel import ChannelPolicy
from messaging.errors import FrameRefused, InputRefused
from messaging.latency import Constant, Latency, quantile_us
from messaging.messages import LinkChanged
from messaging.network import LinkKey, LinkPolicy, Window, WindowKind
from messaging.units import HUB, MARKET, ORACLE, SECOND_US, TRADERS, Micros, NodeId, Ppm

AT_ONCE = LinkPolicy(latency=Constant(value_s=0.0))
QUANTILE = 0.99
SLACK_US = 2 * SECOND_US


class Lane(NamedTuple):
    """The way between the hub and one spoke: by name, and as distributions."""

    up_name: str
    up: Latency  # spoke to hub
    down_name: str
    down: Latency  # hub to spoke


def lane(scenario: Scenario, spoke: SpokeTable) -> Lane:
    """Return the two directions between hub and spoke; each is a channel of its own.

    Raises:
        InputRefused: no such preset, or none for this lane.
    """
    choice = scenario.latency if spoke.latency is None else spoke.latency
    if not isinstance(choice, str):
        return Lane("scenario", choice, "scenario", choice)
    up_name, up = presets.for_lane(choice, spoke.chain, scenario.hub.chain)
    down_name, down = presets.for_lane(choice, scenario.hub.chain, spoke.chain)
    return Lane(up_name, up, down_name, down)


def check_lifetimes(scenario: Scenario, spoke: SpokeTable, one: Lane) -> None:
    """Refuse lifetimes that end before a message can have come and gone.

    An expiry counts from the newest spoke time that the hub has heard, so a grant is one way up
    old when it is made. With a shorter life nothing would ever be used, nor liquidated.

    Raises:
        InputRefused: the knob, and what the lane needs.
    """
    way_us = quantile_us(one.up, 0.5) + quantile_us(one.down, 0.5)
    needed_s = (way_us / SECOND_US) + scenario.reporting.watermark_s + spoke.block_s
    for key, found_s in (
        ("reservation.ttl_s", scenario.reservation.ttl_s),
        ("liquidation.command_ttl_s", scenario.liquidation.command_ttl_s),
    ):
        if found_s <= needed_s:
            expected = f"more than {needed_s:,.0f} s, a way to {spoke.name} and back"
            raise InputRefused(key, expected=expected, found=f"{found_s:,g}")


def links(scenario: Scenario, lanes: tuple[Lane, ...]) -> dict[LinkKey, LinkPolicy]:
    """Return every link. Those inside one chain take no time; those between chains do."""
    found: dict[LinkKey, LinkPolicy] = {
        (MARKET, ORACLE): AT_ONCE,
        (MARKET, TRADERS): AT_ONCE,
        (ORACLE, HUB): LinkPolicy(latency=scenario.oracle.delay),
    }
    faults = scenario.links
    for spoke, one in zip(scenario.spokes, lanes, strict=True):
        name = NodeId(spoke.name)
        found[MARKET, name] = found[name, MARKET] = found[TRADERS, name] = AT_ONCE
        windows = (
            *_windows(spoke.outages, WindowKind.HOLD),
            *_windows(spoke.partitions, WindowKind.DROP),
        )
        for key, latency in (((name, HUB), one.up), ((HUB, name), one.down)):
            found[key] = LinkPolicy(
                latency=latency,
                loss_ppm=Ppm(faults.loss_ppm),
                repeat_ppm=Ppm(faults.repeat_ppm),
                reorder_ppm=Ppm(faults.reorder_ppm),
                in_order=faults.in_order,
                windows=windows,
            )
    return found


def _windows(tables: tuple[WindowTable, ...], kind: WindowKind) -> tuple[Window, ...]:
    return tuple(
        Window(from_us=hours(table.from_h), until_us=hours(table.until_h), kind=kind)
        for table in tables
    )


def channel_policy(scenario: Scenario, one: Latency, other: Latency) -> ChannelPolicy:
    """Wait for what is normal before asking again: two round trips in a hundredth's worst case."""
    slowest_us = max(quantile_us(one, QUANTILE), quantile_us(other, QUANTILE))
    reporting = scenario.reporting
    ack_us = micros(reporting.ack_after_s)
    tend_us = micros(reporting.tend_s)
    round_trip_us = 2 * slowest_us + ack_us + tend_us
    return ChannelPolicy(
        tend_us=tend_us,
        ack_after_us=ack_us,
        gap_after_us=Micros(2 * slowest_us + SLACK_US),
        resend_after_us=Micros(2 * round_trip_us),
    )


def changed(
    scenario: Scenario, known: Mapping[LinkKey, LinkPolicy], change: LinkChanged
) -> LinkPolicy:
    """Return a link's policy as an operator wants it; its outages stay.

    Raises:
        FrameRefused: no such link, or no such latency.
    """
    key = (change.source, change.target)
    if key not in known or HUB not in key:
        links = ", ".join(" ".join(link) for link in known if HUB in link)
        raise FrameRefused(f"expected one of the links {links}, found {' '.join(key)}")
    chains = {spoke.name: spoke.chain for spoke in scenario.spokes} | {HUB: scenario.hub.chain}
    source, target = (chains.get(name, "") for name in key)
    try:
        _, latency = presets.for_lane(change.latency, source, target)
    except InputRefused as error:
        raise FrameRefused(str(error)) from None
    return msgspec.structs.replace(
        known[key],
        latency=latency,
        loss_ppm=Ppm(change.loss_ppm),
        repeat_ppm=Ppm(change.repeat_ppm),
        reorder_ppm=Ppm(change.reorder_ppm),
    )
