from collections.abc import Sequence
from operator import itemgetter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.drivers.virtual import EventsExhausted, VirtualDriver
from messaging.effects import Effect, Send, SetTimer
from messaging.endpoint import Endpoint
from messaging.envelope import Envelope
from messaging.latency import Uniform
from messaging.messages import Family, MarketMoved, PricePublished
from messaging.network import LinkPolicy, Network
from messaging.node import Event, TimerFired
from messaging.record import Record
from messaging.units import Asset, Micros, NodeId, Ppm, Usd6

ANN, BOB, EVE = NodeId("ann"), NodeId("bob"), NodeId("eve")
NAMES = (EVE, ANN, BOB)  # the order of nodes is that of the list, not of the alphabet
FOREVER_US = Micros(10**12)


def tell(to: NodeId, at_us: int, mark: int = 0) -> Send:
    """Wish for a message that `Direct` brings at `at_us`."""
    message = PricePublished(asset=Asset("BTC"), price_usd6=Usd6(mark), observed_us=Micros(at_us))
    return Send(to, Family.PRICE, message)


def wake(name: str, at_us: int) -> SetTimer:
    return SetTimer(name, Micros(at_us))


class Scripted:
    """Wishes for what its script says: at the start, and once for each event after that."""

    def __init__(self, name: NodeId, *script: Sequence[Effect]) -> None:
        self.name = name
        self.script = iter(script)

    def start(self) -> Sequence[Effect]:
        return next(self.script, ())

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        return next(self.script, ())


class Restless:
    """Answers each message with another one; sets a timer for each one too."""

    def __init__(self, name: NodeId, peer: NodeId) -> None:
        self.name = name
        self.peer = peer

    def start(self) -> Sequence[Effect]:
        moved = MarketMoved(prices_usd6=(Usd6(1),), depth_ppm=Ppm(1))
        return (Send(self.peer, Family.ORDER, moved), SetTimer("once", Micros(5_000)))

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        if isinstance(event, TimerFired):
            return ()
        answer = Send(self.peer, Family.ORDER, event.message)
        return (answer, SetTimer("once", Micros(now_us + 5_000)))


class Direct:
    """A network that brings each frame at the time written in it, as often as told."""

    def __init__(self, copies: int = 1) -> None:
        self.copies = copies

    def arrivals(self, envelope: Envelope, now_us: Micros) -> Sequence[Micros]:
        assert isinstance(envelope.message, PricePublished)
        return [envelope.message.observed_us] * self.copies


def driver(
    *nodes: Scripted, until_us: Micros = FOREVER_US, events_max: int = 1_000, copies: int = 1
) -> VirtualDriver:
    ends = [Endpoint(node, {}) for node in nodes]
    return VirtualDriver(ends, Direct(copies), until_us=until_us, events_max=events_max)


def told(record: Record) -> tuple[int, str, object]:
    """Shorten a record to its time, its node, and its timer's name or its message's mark."""
    event = record.event
    if isinstance(event, TimerFired):
        return record.at_us, record.node, event.name
    assert isinstance(event.message, PricePublished)
    return record.at_us, record.node, event.message.price_usd6


# --- order ------------------------------------------------------------------------------


def test_ties_go_to_timers_then_to_the_first_node_then_to_the_first_wish() -> None:
    found = driver(
        Scripted(EVE, [tell(BOB, 7, 1), tell(EVE, 7, 2), wake("late", 7), wake("again", 7)]),
        Scripted(ANN),
        Scripted(BOB, [tell(BOB, 7, 3), tell(EVE, 7, 4), wake("early", 7), tell(ANN, 6, 5)]),
    ).run()

    assert [told(record) for record in found] == [
        (6, "ann", 5),
        (7, "eve", "late"),
        (7, "eve", "again"),
        (7, "bob", "early"),
        (7, "eve", 2),
        (7, "eve", 4),
        (7, "bob", 1),
        (7, "bob", 3),
    ]


wishes = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([None, 0, 1, 2])),  # when; to whom, or a timer
    max_size=12,
)


@given(st.tuples(wishes, wishes, wishes))
def test_events_come_by_time_then_kind_then_node_then_wish(
    scripts: tuple[list[tuple[int, int | None]], ...],
) -> None:
    nodes: list[Scripted] = []
    expected: list[tuple[int, int, int, object]] = []
    for source, script in enumerate(scripts):
        effects: list[Effect] = []
        for number, (at_us, to) in enumerate(script):
            mark = 100 * source + number
            if to is None:
                effects.append(wake(str(mark), at_us))
                expected.append((at_us, 0, source, str(mark)))
            else:
                effects.append(tell(NAMES[to], at_us, mark))
                expected.append((at_us, 1, to, mark))
        nodes.append(Scripted(NAMES[source], effects))
    expected.sort(key=itemgetter(0, 1, 2))  # stable: what was wished first stays first

    found = [told(record) for record in driver(*nodes).run()]

    assert found == [(at_us, NAMES[node], what) for at_us, _, node, what in expected]


def test_an_event_made_now_waits_behind_those_that_were_there() -> None:
    node = Scripted(ANN, [wake("a", 5), tell(ANN, 5, 1)], [wake("b", 5), tell(ANN, 5, 2)])

    assert [told(record)[2] for record in driver(node).run()] == ["a", "b", 1, 2]


# --- timers -----------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=20))
def test_a_timer_set_again_fires_once_at_its_last_time(wished: list[tuple[str, int]]) -> None:
    nodes = [Scripted(name, [wake(*one) for one in wished]) for name in (ANN, BOB)]

    found = sorted(told(record) for record in driver(*nodes).run())

    last = dict(wished)
    assert found == sorted((at, name, what) for what, at in last.items() for name in (ANN, BOB))


@pytest.mark.parametrize(("again_us", "expected"), [(15, [10, 15]), (20, [10, 20]), (90, [10, 90])])
def test_a_timer_set_again_by_an_event_fires_at_its_new_time_only(
    again_us: int, expected: list[int]
) -> None:
    node = Scripted(ANN, [wake("a", 20), wake("b", 10)], [wake("a", again_us)])

    assert [record.at_us for record in driver(node).run()] == expected


def test_a_timer_may_be_set_again_as_it_fires() -> None:
    node = Scripted(ANN, *([wake("a", at_us)] for at_us in (10, 10, 30)))

    assert [record.at_us for record in driver(node).run()] == [10, 10, 30]


def test_a_timer_for_the_past_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="timer a set for the past"):
        list(driver(Scripted(ANN, [wake("b", 5)], [wake("a", 4)])).run())


# --- the end ----------------------------------------------------------------------------


def test_the_last_moment_belongs_to_the_run_and_the_next_does_not() -> None:
    node = Scripted(ANN, [wake("a", 50), tell(ANN, 50), wake("b", 51), tell(ANN, 51)])

    found = [told(record) for record in driver(node, until_us=Micros(50)).run()]

    assert found == [(50, "ann", "a"), (50, "ann", 0)]


def test_events_up_to_the_limit_pass_and_one_more_does_not() -> None:
    script = [[wake("a", at_us)] for at_us in range(1, 6)]

    assert len(list(driver(Scripted(ANN, *script), events_max=5).run())) == 5
    found: list[Record] = []
    with pytest.raises(EventsExhausted, match="at most 4 events"):
        found.extend(driver(Scripted(ANN, *script), events_max=4).run())
    assert len(found) == 4


def test_a_timer_that_was_set_again_does_not_count_as_an_event() -> None:
    node = Scripted(ANN, [wake("a", at_us) for at_us in range(1, 6)])

    assert len(list(driver(node, events_max=1).run())) == 1


@pytest.mark.parametrize("copies", [0, 1, 2, 3])
def test_a_frame_arrives_as_often_as_the_network_says(copies: int) -> None:
    node = Scripted(ANN, [tell(ANN, 3, 1), tell(ANN, 3, 2)])

    found = [told(record)[2] for record in driver(node, copies=copies).run()]

    assert found == [1] * copies + [2] * copies


# --- records ----------------------------------------------------------------------------


def test_a_record_holds_what_the_node_did() -> None:
    first = driver(Scripted(ANN, [wake("a", 5)], [tell(BOB, 9), wake("b", 8)]), Scripted(BOB)).run()

    record = next(first)
    assert (record.at_us, record.node, record.event) == (5, ANN, TimerFired("a"))
    sent, timer = record.effects
    assert isinstance(sent, Envelope)
    assert (sent.sender, sent.receiver, sent.seq, sent.sent_us) == (ANN, BOB, 1, 5)
    assert timer == wake("b", 8)


def test_what_was_under_way_when_a_node_failed_is_there_to_see() -> None:
    class Failing(Scripted):
        def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
            raise AssertionError("a bug")

    run = driver(Failing(ANN, [wake("a", 5)]))
    assert run.failed is None

    with pytest.raises(AssertionError, match="a bug"):
        list(run.run())
    assert run.failed == (5, ANN, TimerFired("a"))


def restless(seed: int) -> list[Record]:
    link = LinkPolicy(
        latency=Uniform(low_s=0.001, high_s=0.009), repeat_ppm=Ppm(30_000), reorder_ppm=Ppm(100_000)
    )
    ends = [Endpoint(Restless(ANN, BOB), {}), Endpoint(Restless(BOB, ANN), {})]
    net = Network(seed, {(ANN, BOB): link, (BOB, ANN): link})
    return list(VirtualDriver(ends, net, until_us=Micros(500_000)).run())


def test_a_run_is_the_same_again_and_another_seed_is_another_run() -> None:
    one = restless(1)

    assert len(one) > 100
    assert msgspec.msgpack.encode(restless(1)) == msgspec.msgpack.encode(one)
    assert restless(2) != one
