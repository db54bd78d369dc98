import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.envelope import Envelope
from messaging.link_control import Acknowledged
from messaging.messages import CHANNEL_FAMILIES, Family
from messaging.topics import DELIVERED, Route, dead_letters, routes, topic_of
from messaging.units import (
    HUB,
    MARKET,
    MONITOR,
    OPERATOR,
    OPERATORS,
    ORACLE,
    RELAY,
    TRADERS,
    Height,
    Micros,
    NodeId,
)

OURS = (HUB, MARKET, ORACLE, TRADERS, RELAY, MONITOR, OPERATOR, *OPERATORS)
LEGAL = re.compile(r"[a-z0-9.-]{1,249}")
BASE = NodeId("base")

names = st.from_regex(r"[a-z][a-z0-9-]{0,15}", fullmatch=True).map(NodeId)
spokes = st.lists(names.filter(lambda name: name not in OURS), max_size=5, unique=True)


def frame(route: Route) -> Envelope:
    return Envelope(
        route.sender,
        route.receiver,
        route.family,
        1,
        0,
        Micros(0),
        Height(0),
        Height(0),
        Acknowledged(),
    )


@given(spokes)
def test_each_topic_has_one_writer_one_reader_and_one_kind_of_frame(chosen: list[NodeId]) -> None:
    found = routes(chosen)

    everything = [dead_letters(node) for node in (HUB, RELAY, *chosen)]
    for route in found:
        everything += {route.topic, route.read_from}
        assert topic_of(frame(route)) == route.topic
        assert route.sender != route.receiver
    assert Counter(everything).most_common(1)[0][1] == 1
    assert len({route[1:4] for route in found}) == len(found)
    assert all(LEGAL.fullmatch(topic) for topic in everything)


@given(spokes)
def test_every_channel_has_a_topic_and_what_leaves_a_chain_goes_through_the_relay(
    chosen: list[NodeId],
) -> None:
    found = {route[1:4]: route for route in routes(chosen)}

    channels = {
        (one, other, family)
        for spoke in chosen
        for one, other in ((spoke, HUB), (HUB, spoke))
        for family in CHANNEL_FAMILIES
    }
    relayed = {key for key, route in found.items() if route.relayed}
    assert relayed == channels | {(ORACLE, HUB, Family.PRICE)}
    local = {(MARKET, spoke, Family.PRICE) for spoke in chosen}
    local |= {(TRADERS, spoke, Family.ORDER) for spoke in chosen}
    control = {(MONITOR, HUB, Family.CONTROL), (OPERATOR, RELAY, Family.CONTROL)}
    control |= {(one, node, Family.CONTROL) for one in OPERATORS for node in (HUB, *chosen)}
    assert set(found) == relayed | local | control
    for route in found.values():
        assert route.read_from == (DELIVERED if route.relayed else "") + route.topic


def test_no_prefix_of_one_spoke_is_a_prefix_of_another() -> None:
    """A rule on `from-eth.` must let nobody write for `eth2` (P7)."""
    chosen = [NodeId(name) for name in ("eth", "eth2", "eth-2", "e", "from-eth", "to-eth")]
    for spoke in chosen:
        for prefix, end in (("from-", 1), ("to-", 2)):
            mine = [one for one in routes(chosen) if one.topic.startswith(f"{prefix}{spoke}.")]
            assert {route[end] for route in mine} == {spoke}
            assert {route.family for route in mine} == {*CHANNEL_FAMILIES}


@pytest.mark.parametrize(
    ("topic", "read_from", "sender", "receiver", "family"),
    [
        ("from-base.reservation", "delivered.from-base.reservation", BASE, HUB, "reservation"),
        ("to-base.liquidation", "delivered.to-base.liquidation", HUB, BASE, "liquidation"),
        ("price.oracle", "delivered.price.oracle", ORACLE, HUB, "price"),
        ("market.base", "market.base", MARKET, BASE, "price"),
        ("order.base", "order.base", TRADERS, BASE, "order"),
        ("ctl.halt", "ctl.halt", MONITOR, HUB, "control"),
        ("ctl.relay", "ctl.relay", OPERATOR, RELAY, "control"),
        ("ctl.operator-1.hub", "ctl.operator-1.hub", OPERATORS[0], HUB, "control"),
        ("ctl.operator-2.base", "ctl.operator-2.base", OPERATORS[1], BASE, "control"),
    ],
)
def test_topics_are_named_as_access_rules_and_people_know_them(
    topic: str, read_from: str, sender: NodeId, receiver: NodeId, family: str
) -> None:
    (route,) = (one for one in routes([BASE]) if one.topic == topic)

    assert route[1:4] == (sender, receiver, family)
    assert route.read_from == read_from
    assert dead_letters(HUB) == "dlq.hub"
