"""The spoke as a node: blocks, watermarks, and the order in which facts leave."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messaging.effects import Effect, Refused
from messaging.envelope import Envelope
from messaging.messages import (
    CloseReason,
    CreditUsed,
    Family,
    HaltReason,
    LiquidationDone,
    LiquidationFilled,
    MarginSet,
    MarginStatus,
    Message,
    ReservationClosed,
    ReservationRenewed,
    ReservationRequested,
    SpokeHalted,
    SpokeResumed,
    StateReported,
    Watermark,
)
from messaging.node import Approved, Contradicted
from messaging.operator_orders import (
    OperatorOrdered,
    PeerNamed,
    ReservationNamed,
    Target,
    Verb,
)
from messaging.units import HUB, ONE, OPERATORS, USD
from spokes.chain import Halt
from spokes.orders import may_open
from tests.spokes.test_closing import command
from tests.spokes.test_orders import POLICY, TTL, Bench, S, only

FAMILIES = [Family.MARGIN_STATE, Family.RESERVATION, Family.LIQUIDATION]


def active() -> tuple[Bench, ReservationRequested]:
    """Return a spoke at 3 s with a right that is used in part and expires at 17 s."""
    bench = Bench()
    (asked,) = bench.order(100 * ONE)
    bench.grant(asked, ttl_us=15 * S)
    bench.run()
    return bench, asked


def marked(bench: Bench, family: Family = Family.RESERVATION) -> list[Message]:
    """Let time pass until the next watermark; return the family's messages sent with it."""
    seen = len(bench.batches)
    while True:
        bench.run()
        for batch in bench.batches[seen:]:
            if any(isinstance(one.message, Watermark) for one in batch):
                return [one.message for one in batch if one.family is family]


def test_every_channel_gets_its_watermark_with_the_chains_time_and_heights() -> None:
    bench = Bench()
    marked(bench)
    sent = bench.sent[-3:]
    seconds = sent[0].height

    assert [one.family for one in sent] == FAMILIES
    assert {one.message.spoke_time_us for one in sent} == {seconds * S}
    assert {(one.height, one.final_height) for one in sent} == {(seconds, seconds - 5)}


def test_watermarks_and_funding_keep_their_intervals() -> None:
    bench = Bench()
    bench.hold(ONE)
    bench.run(2 * 3_600 * S)
    marks = {one.height for one in bench.sent if isinstance(one.message, Watermark)}
    reports = [one.height for one in bench.sent if isinstance(one.message, StateReported)]

    assert marks == set(range(1, 2 * 3_600 + 2, 10))
    assert reports[1:] == [3_600, 7_200]


def test_a_close_at_expiry_leaves_before_the_watermark_that_covers_it() -> None:
    bench, asked = active()
    assert only(marked(bench), ReservationClosed) == []
    closed, mark = marked(bench)

    assert (closed.rid, closed.reason) == (asked.rid, CloseReason.EXPIRED)
    assert mark.spoke_time_us >= 17 * S
    assert only(marked(bench), ReservationClosed) == []


@pytest.mark.parametrize("now_us", [10 * S, 17 * S - 1, 17 * S])
def test_a_renewed_right_lives_on_unless_the_renewal_comes_too_late(now_us: int) -> None:
    bench, asked = active()
    bench.run(now_us - bench.now_us)
    bench.give(ReservationRenewed(rid=asked.rid, expires_at_us=60 * S, grant_version=2))
    bench.run(30 * S)
    closed = only([one.message for one in bench.sent], ReservationClosed)

    assert len(closed) == (0 if now_us < 17 * S else 1)
    bench.run(30 * S)
    assert len(only([one.message for one in bench.sent], ReservationClosed)) == 1


def test_a_renewal_of_what_is_unknown_does_nothing() -> None:
    renewal = ReservationRenewed(rid=b"x" * 16, expires_at_us=TTL, grant_version=2)

    assert Bench().give(renewal) == []


@pytest.mark.parametrize(
    ("versions", "status"),
    [((1, 2), MarginStatus.OPEN), ((2, 1), MarginStatus.FROZEN), ((1, 1), MarginStatus.FROZEN)],
)
def test_the_highest_margin_version_rules(versions: tuple[int, int], status: MarginStatus) -> None:
    bench = Bench()
    for version, told in zip(versions, (MarginStatus.FROZEN, MarginStatus.OPEN), strict=True):
        set_ = MarginSet(account="ann", margin_version=version, status=told)
        bench.give(set_, Family.MARGIN_STATE)

    assert bench.state.status["ann"][1] is status


def test_every_change_is_reported_with_the_next_version_in_its_own_block() -> None:
    bench, _ = active()
    bench.order(close_ppm=500_000)
    bench.run(3_600 * S)
    reports = [one for one in bench.sent if isinstance(one.message, StateReported)]

    assert [one.message.version for one in reports] == [1, 2, 3]
    assert [one.height for one in reports[:2]] == [3, 4]
    assert all(one.message.block_time_us == one.height * S for one in reports)


def test_funding_is_paid_on_what_is_held() -> None:
    bench = Bench()
    bench.hold(50 * ONE)
    bench.run(3_660 * S)

    assert bench.state.trader("ann").realised_usd6 == -USD // 2


def test_while_the_chain_halts_nothing_happens_and_time_stands_still() -> None:
    halt = Halt(from_us=5 * S, until_us=40 * S)
    chain = msgspec.structs.replace(POLICY.chain, halts=(halt,))
    bench = Bench(msgspec.structs.replace(POLICY, chain=chain))
    bench.run(6 * S)
    before = len(bench.sent)
    assert bench.order(ONE) == []
    bench.run(30 * S)
    assert len(bench.sent) == before
    told = bench.run(4 * S)

    assert len(only(told, ReservationRequested)) == 1
    assert {one.height for one in bench.sent[before:]} <= {5, 6}


def test_words_between_blocks_belong_to_the_newest_block() -> None:
    bench = Bench()
    (asked,) = bench.order(ONE)
    bench.run(S // 2)
    bench.grant(asked, ttl_us=-S)

    assert isinstance(bench.sent[-1].message, ReservationClosed)
    assert bench.sent[-1].height == 2


steps = st.tuples(
    st.sampled_from(["order", "cut", "grant", "command", "renew", "wait", "funding"]),
    st.integers(1, 60),
)


def lived(script: list[tuple[str, int]]) -> tuple[Bench, dict[bytes, int], dict[bytes, int]]:
    """Live through a script; return largest expiry of each right, and each deadline."""
    bench, expiries, deadlines = Bench(), {}, {}
    asked: list[ReservationRequested] = []
    for number, (what, figure) in enumerate(script):
        told = []
        if what == "order":
            told = bench.order(figure * ONE)
        elif what == "cut":
            told = bench.order(close_ppm=figure * 10_000)
        elif what == "grant" and asked:
            one = asked.pop()
            expiries[one.rid] = bench.now_us + figure * S
            told = bench.grant(one, ttl_us=figure * S)
        elif what == "renew" and expiries:
            rid = list(expiries)[figure % len(expiries)]
            expiries[rid] += figure * S
            renewal = ReservationRenewed(
                rid=rid, expires_at_us=expiries[rid], grant_version=2 + number
            )
            told = bench.give(renewal)
        elif what == "command":
            order = command(number=number, version=0, deadline_us=bench.now_us + 9 * S)
            deadlines[order.liq_id] = order.deadline_us
            bench.give(order, Family.LIQUIDATION)
        elif what == "wait":
            told = bench.run(figure * S // 2)
        asked += only(told, ReservationRequested)
    bench.run(300 * S)
    return bench, expiries, deadlines


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, max_size=25))
def test_no_watermark_is_ever_contradicted(script: list[tuple[str, int]]) -> None:
    """No use of what had expired by then, no fill of what was due, no time that falls."""
    bench, expiries, deadlines = lived(script)
    heard = dict.fromkeys(FAMILIES, -1)
    filled: dict[bytes, int] = {}
    for sent in bench.sent:
        message = sent.message
        if isinstance(message, Watermark):
            assert message.spoke_time_us >= heard[sent.family]
            heard[sent.family] = message.spoke_time_us
        elif isinstance(message, CreditUsed):
            assert expiries[message.rid] > heard[Family.RESERVATION]
        elif isinstance(message, LiquidationFilled | LiquidationDone):
            if message.filled_qty8 > filled.get(message.liq_id, 0):
                assert deadlines[message.liq_id] > heard[Family.LIQUIDATION]
            filled[message.liq_id] = message.filled_qty8
    closed = [one.message.rid for one in bench.sent if isinstance(one.message, ReservationClosed)]

    assert sorted(closed) == sorted(expiries)


@pytest.mark.parametrize("family", [Family.RESERVATION, Family.MARGIN_STATE])
def test_a_watermark_comes_after_all_that_its_block_has_done(family: Family) -> None:
    for wait_s in range(15):
        bench, covered = Bench(), -1
        (asked,) = bench.order(100 * ONE)
        bench.run(wait_s * S)
        bench.grant(asked)
        bench.run()
        assert bench.held() == 100 * ONE
        for sent in bench.sent:
            if sent.family is family and isinstance(sent.message, Watermark):
                covered = sent.height
            elif sent.family is family:
                assert sent.height > covered


def test_a_spoke_that_is_resumed_opens_again_unless_it_doubts_the_hub() -> None:
    bench = Bench()
    spoke = bench.spoke
    frame = (HUB, spoke.name, Family.RESERVATION, 1, 0, 0, 0, 0)
    halted = SpokeHalted(spoke=spoke.name, reason=HaltReason.WATCHDOG)
    spoke.handle(bench.now_us, Envelope(*frame, halted))
    assert not may_open(spoke.state, "ann", "BTC")
    spoke.handle(bench.now_us, Contradicted(HUB, b"", b""))
    spoke.handle(bench.now_us, Envelope(*frame, SpokeResumed(spoke=spoke.name)))
    assert not may_open(spoke.state, "ann", "BTC")

    def order(verb: Verb, target: Target) -> list[Effect]:
        given = OperatorOrdered(order_id=bytes(8), verb=verb, target=target, reason="a test")
        return list(spoke.handle(bench.now_us, Approved(given, OPERATORS[:2])))

    (refused,) = order(Verb.WRITE_OFF, ReservationNamed(rid=bytes(16)))
    assert isinstance(refused, Refused)
    (refused,) = order(Verb.REVOKE, PeerNamed(peer=HUB))
    assert isinstance(refused, Refused)
    assert refused.why.endswith("found revoke, which is the hub's")
    assert order(Verb.RESUME, PeerNamed(peer=HUB)) == []
    assert may_open(spoke.state, "ann", "BTC")
    (refused,) = order(Verb.RESUME, PeerNamed(peer=HUB))
    assert isinstance(refused, Refused)
