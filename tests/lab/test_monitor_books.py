"""The monitor's books: no honest run is accused, whatever the order of topics; the rest is."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from lab.measures import Measures
from lab.monitor.books import Books, Terms
from lab.monitor.delays import HOPS, Spread
from lab.monitor.reader import Reader
from lab.monitor.service import terms_of
from lab.plants import planted
from lab.world import World, build
from messaging.codec import encode_frame
from messaging.envelope import Envelope
from messaging.identity import NO_DIGEST, Signer, domain_of
from messaging.key_files import read_signer, read_verifier, write_keys
from messaging.link_control import Acknowledged, KeyRotated
from messaging.messages import (
    CHANNEL_FAMILIES,
    CloseReason,
    ClosureAcknowledged,
    CreditUsed,
    Family,
    HaltReason,
    LiquidationDone,
    LiquidationEnd,
    LiquidationFilled,
    LiquidationOrdered,
    MarginSet,
    MarginStatus,
    Message,
    Position,
    RejectReason,
    ReservationClosed,
    ReservationGranted,
    ReservationRejected,
    ReservationRenewed,
    ReservationRequested,
    SpokeHalted,
    StateReported,
    Watermark,
)
from messaging.rotation import claim_of
from messaging.topics import DELIVERED, channel_topic, routes, topic_of
from messaging.units import (
    HUB,
    USD,
    AccountId,
    Asset,
    Height,
    LiquidationId,
    Micros,
    NodeId,
    Ppm,
    Qty8,
    ReservationId,
    Usd6,
)
from tests.simulation.small import scenario

DOCS = Path(__file__).parent.parent.parent / "docs" / "monitor.md"
SECOND_US = 1_000_000


class Written(NamedTuple):
    """One frame on a topic. What one event of one node has written has one `place`."""

    place: int
    topic: str
    frame: Envelope
    at_us: int


# --- runs of the real nodes -------------------------------------------------------------


def record(world: World) -> list[Written]:
    """Run a world; return all that would stand on topics, in the order of writing."""
    ways = routes(spoke.name for spoke in world.spokes)
    relayed = {route.topic for route in ways if route.relayed}
    known = relayed | {route.topic for route in ways if route.family is Family.ORDER}
    tape: list[Written] = []
    for place, done in enumerate(world.driver().run()):
        if type(done.event) is Envelope and topic_of(done.event) in relayed:
            topic = DELIVERED + topic_of(done.event)
            tape.append(Written(place, topic, done.event, done.at_us))
        tape += [
            Written(place, topic_of(effect), effect, 0)
            for effect in done.effects
            if type(effect) is Envelope and topic_of(effect) in known
        ]
    return tape


HONEST: dict[str, dict[str, Any]] = {
    "march 2020": {},
    "a bad network": {
        "links": {"loss_ppm": 200_000, "repeat_ppm": 100_000, "reorder_ppm": 100_000}
    },
    "quarter of an hour late": {"latency": "constant:900s", "buffer": {"kind": "none"}},
    "credit to the limit": {
        "latency": "constant:30s",
        "duration_h": 4.0,
        "traders": {"leverage_min": 9, "leverage_max": 20, "actions_per_day": 60},
        "reservation": {"ttl_s": 300, "renewals_max": 4},
    },
    "chains that stop": {
        "spokes": [
            {"name": "base", "chain": "base", "outages": [{"from_h": 1, "until_h": 1.5}]},
            {
                "name": "optimism",
                "chain": "optimism",
                "partitions": [{"from_h": 1, "until_h": 2}],
                "trust": "bridge",
                "zone_cap_usd": 200_000,
            },
        ]
    },
}


@cache
def honest(name: str) -> tuple[World, list[Written]]:
    world = build(scenario(**HONEST[name]))
    return world, record(world)


def read(
    terms: Terms,
    tape: Sequence[Written],
    dice: random.Random,
    *,
    repeats: bool = False,
    hasty: bool = False,
) -> Books:
    """Feed the books topic by topic, in an order that knows nothing of what came first.

    Doubts are confirmed as the monitor does: when every topic has been read as far as it had
    been written when the newest record read so far was. `hasty`: at once.
    """
    books = Books(terms)
    rows: dict[str, list[Written]] = defaultdict(list)
    for written in tape:
        rows[written.topic].append(written)
        if repeats and dice.random() < 0.01:
            again = rows[written.topic][-dice.randrange(1, 20) :]
            rows[written.topic] += [one._replace(place=written.place) for one in again]
    at = dict.fromkeys(rows, 0)
    pace = {topic: dice.choice((3, 30, 300)) for topic in rows}
    newest_place, ends, newest = -1, dict[str, int](), 0
    left = list(rows)
    while left:
        topic = dice.choice(left)
        for _ in range(dice.randrange(1, pace[topic])):
            if at[topic] == len(rows[topic]):
                left.remove(topic)
                break
            place, _, frame, at_us = rows[topic][at[topic]]
            at[topic] += 1
            newest_place = max(place, newest_place)
            books.feed(topic, frame, at_us)
        if hasty:
            books.confirm(books.docket.newest)
        elif ends and all(at[one] >= end for one, end in ends.items()):
            books.confirm(newest)
            ends = {}
        elif not ends and books.docket.doubts:
            newest = books.docket.newest
            ends = {one: _end(row, at[one], newest_place) for one, row in rows.items()}
    books.confirm(books.docket.newest)
    return books


def _end(row: Sequence[Written], start: int, place: int) -> int:
    while start < len(row) and row[start].place <= place:
        start += 1
    return start


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("seed", range(4))
def test_an_honest_run_is_not_accused(name: str, seed: int) -> None:
    world, tape = honest(name)
    books = read(terms_of(world.scenario), tape, random.Random(seed), repeats=seed % 2 == 1)

    assert books.findings == []
    assert books.refused == 0
    assert books.docket.doubts == 0
    assert books.docket.newest > 0  # there was something to be patient about


def test_without_patience_an_honest_run_is_accused() -> None:
    """So the runs above do read effects before their causes."""
    world, tape = honest("march 2020")
    books = read(terms_of(world.scenario), tape, random.Random(1), hasty=True)
    assert {"W3", "W8"} <= {finding.rule for finding in books.findings}


@pytest.mark.parametrize("name", HONEST)
def test_figures_are_those_of_the_nodes(name: str) -> None:
    world, tape = honest(name)
    books = read(terms_of(world.scenario), tape, random.Random(5))
    hub, ledger = world.hub.state, world.hub.state.ledger
    reservations = hub.reservations.values()
    for zone in hub.zones:
        here = [one for one in reservations if one.spoke == zone.name]
        counts = books.lines.counts[zone.name]
        reserved_usd6, used_usd6, _ = books.lines.standing(zone.name)
        sent = sum(one.topic == f"to-{zone.name}.reservation" for one in tape)
        ordered = sum(
            one.topic == f"to-{zone.name}.liquidation"
            and isinstance(one.frame.message, LiquidationOrdered)
            for one in {(w.topic, w.frame.seq): w for w in tape}.values()
        )

        assert counts.granted == sum(one.state != "rejected" for one in here)
        assert counts.rejected == sum(one.state == "rejected" for one in here)
        assert 0 < counts.granted < sent
        assert books.commands.counts[zone.name].ordered == ordered
        # The hub hears of every close late, and of a spoke that is cut off very late.
        assert used_usd6 <= reserved_usd6 <= zone.encumbered_usd6
    assert books.accounts.bad_debt_usd6() >= ledger.bad_debt_usd6


def test_hops_are_those_that_the_simulator_measures() -> None:
    world = build(scenario())
    measures = Measures(world)
    tape = record(world)
    books = read(terms_of(world.scenario), tape, random.Random(2))
    found = Counter(
        tuple(books.knowledge.hops_us(command)[hop] for hop in HOPS) for command in books.ended
    )
    expected = Counter(tuple(one.hops[hop] for hop in HOPS) for one in measures.liquidations)

    assert expected.total() > 100
    assert found == expected


@pytest.mark.parametrize(
    ("plant", "rule"), [("overuse", "W4"), ("oversell", "W15"), ("free_grant", "W12")]
)
def test_a_fault_planted_in_a_node_is_found(plant: str, rule: str) -> None:
    greedy = {"leverage_min": 9, "leverage_max": 20, "actions_per_day": 60}
    world = build(scenario(latency="constant:30s", traders=greedy))
    with planted(plant):
        tape = record(world)
    books = read(terms_of(world.scenario), tape, random.Random(3))
    assert {finding.rule for finding in books.findings} == {rule}


# --- violations planted one by one -------------------------------------------------------

ANN, BOB = AccountId("ann"), AccountId("bob")
BASE, OPTIMISM = NodeId("base"), NodeId("optimism")
BTC = Asset("BTC")
TERMS = Terms(
    deposits_usd6={ANN: Usd6(1_000 * USD), BOB: Usd6(700 * USD)},
    caps_usd6={BASE: Usd6(1_200 * USD), OPTIMISM: Usd6(5_000 * USD)},
    margins_ppm={BTC: Ppm(100_000)},
)
FINAL_S = 20  # how far behind its newest block a spoke's final one is; a block a second


class Talk:
    """Writes frames as hub and spokes would; time goes on a second with each."""

    def __init__(self) -> None:
        self.tape: list[Written] = []
        self.now_s = 100
        self.numbers: Counter[str] = Counter()
        self.acks: Counter[str] = Counter()

    def _write(
        self, sender: NodeId, receiver: NodeId, family: Family, message: Message, **odd: Any
    ) -> None:
        self.now_s += 1
        topic = channel_topic(sender, receiver, family)
        back = channel_topic(receiver, sender, family)
        seq = odd.pop("seq", self.numbers[topic] + 1)
        self.numbers[topic] = max(seq, self.numbers[topic])
        height = odd.pop("height", 0 if sender == HUB else self.now_s)
        final_height = 0 if sender == HUB else max(0, self.now_s - FINAL_S)
        frame = Envelope(
            sender,
            receiver,
            family,
            seq,
            self.acks[back],
            Micros(self.now_s * SECOND_US),
            Height(height),
            Height(final_height),
            message,
        )
        self.tape.append(Written(len(self.tape), topic, frame, 0))
        delivered = Written(len(self.tape), DELIVERED + topic, frame, self.now_s * SECOND_US)
        self.tape.append(delivered)
        self.acks[topic] = self.numbers[topic]

    def hub(self, spoke: NodeId, message: Message, **odd: Any) -> None:
        self._write(HUB, spoke, odd.pop("family", family_of(message)), message, **odd)

    def spoke(self, spoke: NodeId, message: Message, **odd: Any) -> None:
        self._write(spoke, HUB, family_of(message), message, **odd)

    def mark(self, spoke: NodeId, families: Sequence[Family] = CHANNEL_FAMILIES) -> None:
        for family in families:
            message = Watermark(spoke_time_us=Micros(self.now_s * SECOND_US), open_count=0)
            self._write(spoke, HUB, family, message)

    def rotate(self, spoke: NodeId) -> None:
        for family in CHANNEL_FAMILIES:
            effective = self.numbers[channel_topic(spoke, HUB, family)] + 2
            word = KeyRotated(public_key=bytes(32), effective_seq=effective, proof=bytes(64))
            self._write(spoke, HUB, family, word, height=0)

    def time_us(self, after_s: int = 0) -> Micros:
        return Micros((self.now_s + after_s) * SECOND_US)

    # What honest nodes say, one thing at a time.

    def ask(self, spoke: NodeId, name: str, usd: int, account: AccountId = ANN) -> None:
        request = ReservationRequested(
            rid=rid(name), account=account, amount_usd6=Usd6(usd * USD), ttl_us=Micros(SECOND_US)
        )
        self.spoke(spoke, request)

    def grant(
        self, spoke: NodeId, name: str, usd: int, account: AccountId = ANN, life_s: int = 1_000
    ) -> None:
        self.hub(
            spoke,
            ReservationGranted(
                rid=rid(name),
                account=account,
                amount_usd6=Usd6(usd * USD),
                expires_at_us=self.time_us(life_s),
            ),
        )

    def lend(self, spoke: NodeId, name: str, usd: int, account: AccountId = ANN) -> None:
        self.ask(spoke, name, usd, account)
        self.grant(spoke, name, usd, account)

    def use(self, spoke: NodeId, name: str, usd: int, **odd: Any) -> None:
        block_us = odd.pop("block_time_us", self.time_us(1))
        message = CreditUsed(rid=rid(name), used_usd6=Usd6(usd * USD), block_time_us=block_us)
        self.spoke(spoke, message, **odd)

    def close(self, spoke: NodeId, name: str, usd: int) -> None:
        message = ReservationClosed(
            rid=rid(name), used_usd6=Usd6(usd * USD), reason=CloseReason.DONE
        )
        self.spoke(spoke, message)

    def report(self, spoke: NodeId, version: int, realised: int = 0, **odd: Any) -> None:
        position = Position(asset=odd.pop("asset", BTC), qty8=Qty8(10**8), cost_usd6=Usd6(USD))
        report = StateReported(
            account=odd.pop("account", ANN),
            version=version,
            block_time_us=self.time_us(1),
            positions=(position,),
            realised_usd6=Usd6(realised * USD),
            fees_usd6=Usd6(odd.pop("fees", version)),
            liquidation_fees_usd6=Usd6(0),
        )
        self.spoke(spoke, report)

    def order(self, spoke: NodeId, name: str, max_qty8: int = 100, **odd: Any) -> None:
        command = LiquidationOrdered(
            liq_id=LiquidationId(rid(name)),
            account=odd.pop("account", ANN),
            asset=BTC,
            target_qty8=Qty8(odd.pop("target", 0)),
            max_qty8=Qty8(max_qty8),
            state_version=1,
            price_usd6=Usd6(0),
            deadline_us=self.time_us(odd.pop("life_s", 1_000)),
            margin_version=1,
        )
        self.hub(spoke, command)

    def fill(self, spoke: NodeId, name: str, qty8: int) -> None:
        fill = LiquidationFilled(
            liq_id=LiquidationId(rid(name)),
            filled_qty8=Qty8(qty8),
            proceeds_usd6=Usd6(0),
            block_time_us=self.time_us(1),
        )
        self.spoke(spoke, fill)

    def done(self, spoke: NodeId, name: str, qty8: int) -> None:
        done = LiquidationDone(
            liq_id=LiquidationId(rid(name)),
            filled_qty8=Qty8(qty8),
            position_after_qty8=Qty8(0),
            state_version=2,
            reason=LiquidationEnd.DONE,
        )
        self.spoke(spoke, done)

    def set(self, spoke: NodeId, version: int, status: MarginStatus) -> None:
        self.hub(spoke, MarginSet(account=ANN, margin_version=version, status=status))


def rid(name: str) -> ReservationId:
    return ReservationId(name.encode().ljust(16, b"-"))


def family_of(message: Message) -> Family:
    if isinstance(message, StateReported | MarginSet):
        return Family.MARGIN_STATE
    if "Liquidation" in type(message).__name__:
        return Family.LIQUIDATION
    return Family.RESERVATION


def beginning() -> Talk:
    """Return a day like any other: credit used and given back, a liquidation, all of it final."""
    talk = Talk()
    for spoke in (BASE, OPTIMISM):
        talk.mark(spoke)
        talk.lend(spoke, f"one {spoke}", 300)
        talk.use(spoke, f"one {spoke}", 100)
        talk.report(spoke, 1)
        talk.use(spoke, f"one {spoke}", 250)
        talk.hub(
            spoke,
            ReservationRenewed(
                rid=rid(f"one {spoke}"), expires_at_us=talk.time_us(2_000), grant_version=2
            ),
        )
        talk.close(spoke, f"one {spoke}", 250)
        talk.set(spoke, 1, MarginStatus.FROZEN)
        talk.order(spoke, f"cut {spoke}")
        talk.fill(spoke, f"cut {spoke}", 60)
        talk.done(spoke, f"cut {spoke}", 100)
        talk.report(spoke, 2)
        talk.set(spoke, 2, MarginStatus.OPEN)
        talk.mark(spoke)
    talk.now_s += FINAL_S
    for spoke in (BASE, OPTIMISM):
        talk.rotate(spoke)
        talk.mark(spoke)
        talk.hub(spoke, ClosureAcknowledged(rid=rid(f"one {spoke}")))
        talk.lend(spoke, f"two {spoke}", 400)
    return talk


def twin(talk: Talk) -> None:
    seq = talk.numbers["from-base.reservation"]
    talk.ask(BASE, "right", 1)
    talk.spoke(BASE, CreditUsed(rid=rid("x"), used_usd6=Usd6(1), block_time_us=Micros(0)), seq=seq)


def left_out(talk: Talk) -> None:
    talk.use(BASE, "two base", 1, seq=talk.numbers["from-base.reservation"] + 3)


def time_falls(talk: Talk) -> None:
    talk.mark(BASE)
    talk.now_s -= 60
    talk.mark(BASE, [Family.LIQUIDATION])


def block_falls(talk: Talk) -> None:
    talk.use(BASE, "two base", 1, height=3)


def use_behind_mark(talk: Talk) -> None:
    talk.use(BASE, "two base", 1, block_time_us=Micros(5))


def use_of_nothing(talk: Talk) -> None:
    talk.use(BASE, "never", 1)


def close_of_nothing(talk: Talk) -> None:
    talk.close(OPTIMISM, "never", 0)


def use_of_anothers(talk: Talk) -> None:
    talk.use(BASE, "two optimism", 1)


def use_of_a_no(talk: Talk) -> None:
    talk.ask(BASE, "no", 1)
    talk.hub(BASE, ReservationRejected(rid=rid("no"), reason=RejectReason.FREE_SHORT))
    talk.use(BASE, "no", 1)


def use_too_much(talk: Talk) -> None:
    talk.use(BASE, "two base", 401)


def close_too_much(talk: Talk) -> None:
    talk.close(BASE, "two base", 401)


def use_after_close(talk: Talk) -> None:
    talk.use(BASE, "two base", 1)
    talk.close(BASE, "two base", 1)
    talk.use(BASE, "two base", 2)


def close_below_use(talk: Talk) -> None:
    talk.use(BASE, "two base", 200)
    talk.close(BASE, "two base", 199)


def two_closes(talk: Talk) -> None:
    talk.close(BASE, "two base", 5)
    talk.close(BASE, "two base", 6)


def use_too_late(talk: Talk) -> None:
    talk.now_s += 1_000
    talk.use(BASE, "two base", 1)


def use_falls(talk: Talk) -> None:
    talk.use(BASE, "two base", 100)
    talk.use(BASE, "two base", 99)


def version_falls(talk: Talk) -> None:
    talk.report(BASE, 1, fees=5)


def fees_fall(talk: Talk) -> None:
    talk.report(BASE, 3, fees=1)


def margin_version_falls(talk: Talk) -> None:
    talk.set(BASE, 1, MarginStatus.OPEN)


def fill_falls(talk: Talk) -> None:
    talk.order(BASE, "more")
    talk.fill(BASE, "more", 60)
    talk.fill(BASE, "more", 59)


def not_asked_for(talk: Talk) -> None:
    talk.grant(BASE, "gift", 1)


def more_than_asked_for(talk: Talk) -> None:
    talk.ask(BASE, "three", 1)
    talk.grant(BASE, "three", 2)


def for_another(talk: Talk) -> None:
    talk.ask(BASE, "three", 1)
    talk.grant(BASE, "three", 1, BOB)


def granted_twice(talk: Talk) -> None:
    talk.grant(BASE, "two base", 399)


def granted_after_no(talk: Talk) -> None:
    talk.ask(BASE, "no", 1)
    talk.hub(BASE, ReservationRejected(rid=rid("no"), reason=RejectReason.FREE_SHORT))
    talk.grant(BASE, "no", 1)


def rejected_after_grant(talk: Talk) -> None:
    talk.hub(BASE, ReservationRejected(rid=rid("two base"), reason=RejectReason.FREE_SHORT))


def granted_after_halt(talk: Talk) -> None:
    talk.ask(BASE, "three", 1)
    talk.hub(BASE, SpokeHalted(spoke=BASE, reason=HaltReason.WATCHDOG))
    talk.grant(BASE, "three", 1)


def renewed_nothing(talk: Talk) -> None:
    message = ReservationRenewed(
        rid=rid("never"), expires_at_us=talk.time_us(1_000), grant_version=2
    )
    talk.hub(BASE, message)


def expiry_falls(talk: Talk) -> None:
    message = ReservationRenewed(
        rid=rid("two base"), expires_at_us=talk.time_us(1), grant_version=2
    )
    talk.hub(BASE, message)


def acknowledged_nothing(talk: Talk) -> None:
    talk.hub(BASE, ClosureAcknowledged(rid=rid("two base")))


def acknowledged_early(talk: Talk) -> None:
    talk.close(BASE, "two base", 0)
    talk.hub(BASE, ClosureAcknowledged(rid=rid("two base")))


def lent_twice(talk: Talk) -> None:
    talk.lend(OPTIMISM, "three", 201)  # 400 and 400 are out already, and 1,000 are there


def lent_what_was_lost(talk: Talk) -> None:
    talk.lend(BASE, "bob", 300, BOB)
    talk.report(BASE, 1, realised=-500, account=BOB)
    talk.now_s += FINAL_S
    talk.mark(BASE)
    talk.hub(BASE, Acknowledged(), family=Family.MARGIN_STATE, seq=0)  # the report is booked
    talk.lend(OPTIMISM, "bob", 100, BOB)


def lent_to_nobody(talk: Talk) -> None:
    talk.lend(BASE, "three", 1, AccountId("nobody"))


def beyond_the_cap(talk: Talk) -> None:
    talk.lend(BASE, "bob", 650, BOB)
    talk.lend(BASE, "three", 151)


def fill_of_nothing(talk: Talk) -> None:
    talk.fill(BASE, "never", 1)


def end_of_nothing(talk: Talk) -> None:
    talk.done(BASE, "never", 1)


def fill_too_much(talk: Talk) -> None:
    talk.order(BASE, "more")
    talk.fill(BASE, "more", 101)


def fill_after_end(talk: Talk) -> None:
    talk.order(BASE, "more")
    talk.done(BASE, "more", 10)
    talk.fill(BASE, "more", 11)


def fill_too_late(talk: Talk) -> None:
    talk.order(BASE, "more", life_s=1)
    talk.now_s += 5
    talk.fill(BASE, "more", 11)


def two_ends(talk: Talk) -> None:
    talk.order(BASE, "more")
    talk.done(BASE, "more", 10)
    talk.done(BASE, "more", 11)


def two_commands(talk: Talk) -> None:
    talk.order(BASE, "more")
    talk.order(BASE, "more", target=1)


def command_for_nobody(talk: Talk) -> None:
    talk.order(BASE, "more", account=AccountId("nobody"))


def report_of_nobody(talk: Talk) -> None:
    talk.report(BASE, 1, account=AccountId("nobody"))


def report_of_a_strange_asset(talk: Talk) -> None:
    talk.report(BASE, 3, asset=Asset("DOGE"))


def lent_to_frozen(talk: Talk) -> None:
    talk.set(BASE, 3, MarginStatus.FROZEN)
    talk.lend(BASE, "three", 1)
    talk.set(BASE, 4, MarginStatus.OPEN)


EVERYONE = (BASE, OPTIMISM)
PLANTED: list[tuple[Callable[[Talk], None], str, tuple[NodeId, ...]]] = [
    (twin, "W1", (BASE,)),
    (left_out, "W1", (BASE,)),
    (time_falls, "W2", (BASE,)),
    (block_falls, "W2", (BASE,)),
    (use_behind_mark, "W2", (BASE,)),
    (use_of_nothing, "W3", (BASE,)),
    (close_of_nothing, "W3", (OPTIMISM,)),
    (use_of_anothers, "W3", (BASE,)),
    (use_of_a_no, "W3", (BASE,)),
    (use_too_much, "W4", (BASE,)),
    (close_too_much, "W4", (BASE,)),
    (use_after_close, "W5", (BASE,)),
    (close_below_use, "W5", (BASE,)),
    (two_closes, "W5", (BASE,)),
    (use_too_late, "W6", (BASE,)),
    (use_falls, "W7", (BASE,)),
    (version_falls, "W7", (BASE,)),
    (fees_fall, "W7", (BASE,)),
    (margin_version_falls, "W7", EVERYONE),
    (fill_falls, "W7", (BASE,)),
    (not_asked_for, "W8", EVERYONE),
    (more_than_asked_for, "W8", EVERYONE),
    (for_another, "W8", EVERYONE),
    (granted_twice, "W9", EVERYONE),
    (granted_after_no, "W9", EVERYONE),
    (rejected_after_grant, "W9", EVERYONE),
    (granted_after_halt, "W9", EVERYONE),
    (renewed_nothing, "W10", EVERYONE),
    (expiry_falls, "W10", EVERYONE),
    (acknowledged_nothing, "W11", EVERYONE),
    (acknowledged_early, "W11", EVERYONE),
    (lent_twice, "W12", EVERYONE),
    (lent_what_was_lost, "W12", EVERYONE),
    (lent_to_nobody, "W12", EVERYONE),
    (beyond_the_cap, "W13", EVERYONE),
    (fill_of_nothing, "W14", (BASE,)),
    (end_of_nothing, "W14", (BASE,)),
    (fill_too_much, "W15", (BASE,)),
    (fill_after_end, "W15", (BASE,)),
    (fill_too_late, "W15", (BASE,)),
    (two_ends, "W15", (BASE,)),
    (two_commands, "W16", EVERYONE),
    (command_for_nobody, "W16", EVERYONE),
    (report_of_nobody, "W17", (BASE,)),
    (report_of_a_strange_asset, "W17", (BASE,)),
    (lent_to_frozen, "W18", EVERYONE),
]


def test_the_day_before_the_plants_is_honest() -> None:
    for seed in range(30):
        books = read(TERMS, beginning().tape, random.Random(seed), repeats=True)
        assert books.findings == []


@pytest.mark.parametrize(("plant", "rule", "spokes"), PLANTED)
def test_a_violation_is_found_in_any_order(
    plant: Callable[[Talk], None], rule: str, spokes: tuple[NodeId, ...]
) -> None:
    talk = beginning()
    plant(talk)
    for seed in range(20):
        books = read(TERMS, talk.tape, random.Random(seed), repeats=True)
        found = [(finding.rule, finding.spokes) for finding in books.findings]
        assert found == [(rule, spokes)]


def test_every_rule_in_the_docs_is_planted_here() -> None:
    rules = set(re.findall(r"\*\*(W\d+)\*\*", DOCS.read_text()))
    assert rules == {rule for _, rule, _ in PLANTED}


# --- what else -----------------------------------------------------------------------------


def test_what_was_on_its_way_when_the_rest_is_gone_is_not_judged() -> None:
    """A topic cut off at the front takes its spoke out of the judgement, and no other."""
    talk = beginning()
    use_of_nothing(talk)
    close_of_nothing(talk)
    books = Books(TERMS)
    for _, topic, frame, at_us in talk.tape:
        if topic == "to-base.reservation" and frame.seq == 1:
            books.cut(topic)
            continue
        books.feed(topic, frame, at_us)
    books.confirm(books.docket.newest)

    assert [(finding.rule, finding.spokes) for finding in books.findings] == [("W3", (OPTIMISM,))]
    assert books.docket.blind == {BASE}


def test_a_finding_is_told_once() -> None:
    talk = beginning()
    for usd in (500, 501, 502):
        talk.use(BASE, "two base", usd)
    books = read(TERMS, talk.tape, random.Random(0))
    assert [finding.rule for finding in books.findings] == ["W4"]


def test_frames_that_belong_elsewhere_are_counted_and_change_nothing() -> None:
    talk = beginning()
    books = read(TERMS, talk.tape, random.Random(0))
    talk.use(BASE, "two base", 500)
    books.feed("from-optimism.reservation", talk.tape[-2].frame)
    books.feed("to-base.reservation", talk.tape[-2].frame)
    books.feed("from-nobody.reservation", talk.tape[-2].frame)
    assert books.refused == 3
    assert books.findings == []


def test_value_is_in_flight_from_sending_to_delivery_whichever_is_read_first() -> None:
    talk = Talk()
    talk.lend(BASE, "one", 300)
    talk.use(BASE, "one", 40)
    talk.use(BASE, "one", 100)
    sent = [written for written in talk.tape if not written.topic.startswith(DELIVERED)]
    late = [written for written in talk.tape if written.topic.startswith(DELIVERED)]
    granted, used = "to-base.reservation", "from-base.reservation"

    books = Books(TERMS)
    for written in sent:
        books.feed(written.topic, written.frame)
    assert (books.transit.usd6[granted], books.transit.usd6[used]) == (300 * USD, 100 * USD)
    for written in late[:-1]:
        books.feed(written.topic, written.frame, written.at_us)
    assert (books.transit.usd6[granted], books.transit.usd6[used]) == (0, 60 * USD)

    books = Books(TERMS)
    for written in late[:-1] + sent:
        books.feed(written.topic, written.frame, written.at_us)
    assert (books.transit.usd6[granted], books.transit.usd6[used]) == (0, 60 * USD)


def test_a_quantile_is_within_its_class_and_spreads_add_up() -> None:
    one, other, both = Spread(), Spread(), Spread()
    dice = random.Random(4)
    delays = sorted(round(10 ** dice.uniform(3, 9)) for _ in range(999))
    for place, delay_us in enumerate(delays):
        (one if place % 3 else other).add(delay_us)
    both.merge(one)
    both.merge(other)

    for share in (0.01, 0.5, 0.99, 1.0):
        exact_s = delays[max(0, -(-int(share * 1_000) * 999 // 1_000) - 1)] / SECOND_US
        assert exact_s * 0.99 <= both.quantile_s(share) <= exact_s * 10**0.1 * 1.01
    assert both.count == 999
    assert both.sum_us == sum(delays)
    assert Spread().quantile_s(0.5) == 0.0


def test_books_take_frames_as_they_are_encoded() -> None:
    """A repeat is compared by its bytes: another `ack_seq` makes another frame (P14)."""
    talk = beginning()
    books = read(TERMS, talk.tape, random.Random(0))
    old = talk.tape[0].frame
    books.feed(talk.tape[0].topic, old)
    assert books.findings == []
    books.feed(talk.tape[0].topic, msgspec.structs.replace(old, ack_seq=77))
    assert [finding.rule for finding in books.findings] == ["W1"]


def test_the_reader_counts_what_is_no_frame_and_blinds_behind_a_gap(tmp_path: Path) -> None:
    write_keys(tmp_path, (BASE, OPTIMISM, HUB))
    domain = domain_of("test")
    signers = {node: read_signer(tmp_path, node, domain) for node in (BASE, OPTIMISM, HUB)}
    talk = beginning()
    rows: dict[str, list[bytes]] = defaultdict(list)
    later, rotated = Signer(domain, bytes(32)), set()
    for _, topic, frame, _ in talk.tape:
        signer = later if topic in rotated else signers[frame.sender]
        word = frame.message
        if type(word) is KeyRotated:
            proof = later.vouch(claim_of(domain, frame, later.public))
            word = msgspec.structs.replace(word, public_key=later.public, proof=proof)
            rotated.add(topic)
        told = msgspec.structs.replace(frame, message=word)
        rows[topic].append(signer.seal(encode_frame(told), NO_DIGEST)[0])
    reader = Reader(Books(TERMS), read_verifier(tmp_path, domain))
    up, down = "from-base.reservation", "to-base.reservation"
    forged, _ = signers[OPTIMISM].seal(encode_frame(talk.tape[0].frame), NO_DIGEST)
    elsewhere = rows["from-base.liquidation"][0]

    reader.read(up, [(place, data, ()) for place, data in enumerate(rows[up])])
    reader.read(up, [(place, data, ()) for place, data in enumerate(rows[up])])  # once more
    read = len(rows[up])
    reader.read(up, [(read, b"no seal", ()), (read + 1, forged, ()), (read + 2, elsewhere, ())])
    reader.read("dlq.hub", [(0, b"anything", ())])

    assert reader.next_offsets[up] == read + 3
    assert reader.frames == read + 4
    assert reader.refused == {up: 2}
    assert reader.books.refused == 1
    assert reader.dead_letters == {"hub": 1}
    assert reader.books.lines.counts[BASE].requested == 2
    assert reader.books.docket.blind == set()

    reader.read(down, [(5, rows[down][1], ())])  # five records before it are gone
    assert reader.books.docket.blind == {BASE}
