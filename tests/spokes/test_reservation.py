import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messaging.messages import (
    CloseReason,
    CreditUsed,
    Family,
    Message,
    ReservationClosed,
    ReservationGranted,
    ReservationRenewed,
    ReservationRequested,
    RevocationRequested,
)
from messaging.units import ONE
from spokes.reservation import Credit, Outcome, State, close, granted, renewed, usable, use
from tests.spokes.test_orders import TTL, Bench, S, only

RID, AMOUNT, EXPIRY = b"r" * 16, 1_000, 100
ASKED = Credit(rid=RID, account="ann")
GRANT = ReservationGranted(rid=RID, account="ann", amount_usd6=AMOUNT, expires_at_us=EXPIRY)
ACTIVE = granted(ASKED, GRANT, 50).credit
TOMB = close(ACTIVE, CloseReason.DONE).credit


def renewal(expires_at_us: int = 200, version: int = 2) -> ReservationRenewed:
    return ReservationRenewed(rid=RID, expires_at_us=expires_at_us, grant_version=version)


def test_a_grant_in_time_is_a_right() -> None:
    outcome = granted(ASKED, GRANT, EXPIRY - 1)

    assert outcome.word is None
    assert (outcome.credit.state, outcome.credit.left_usd6) == (State.ACTIVE, AMOUNT)


@pytest.mark.parametrize("chain_us", [EXPIRY, EXPIRY + 1])
def test_a_late_grant_is_refused_and_closed_for_good(chain_us: int) -> None:
    outcome = granted(ASKED, GRANT, chain_us)

    assert outcome.word == ReservationClosed(rid=RID, used_usd6=0, reason=CloseReason.REFUSED_LATE)
    assert outcome.credit.state is State.CLOSED
    assert granted(outcome.credit, GRANT, 0) == Outcome(outcome.credit)


def test_a_repeated_grant_changes_nothing_of_a_right() -> None:
    used = use(ACTIVE, 400, 60).credit

    assert granted(used, GRANT, 70) == Outcome(used)
    assert granted(used, GRANT, EXPIRY) == Outcome(used)


def test_a_tombstone_never_lives_again() -> None:
    assert granted(TOMB, GRANT, 0) == Outcome(TOMB)
    assert renewed(TOMB, renewal(), 0) is TOMB
    assert not usable(TOMB, 1, 0)
    assert TOMB.left_usd6 == 0


@pytest.mark.parametrize(
    ("chain_us", "version", "expires_at_us"),
    [(99, 2, 200), (100, 2, 100), (101, 2, 100), (99, 1, 100), (99, 0, 100)],
)
def test_a_renewal_counts_only_before_the_expiry_and_only_if_newer(
    chain_us: int, version: int, expires_at_us: int
) -> None:
    assert renewed(ACTIVE, renewal(version=version), chain_us).expires_at_us == expires_at_us


def test_a_renewal_never_shortens_a_right() -> None:
    assert renewed(ACTIVE, renewal(expires_at_us=60), 50).expires_at_us == EXPIRY


@pytest.mark.parametrize("credit", [ASKED, TOMB])
def test_only_a_right_is_renewed(credit: Credit) -> None:
    assert renewed(credit, renewal(), 0) is credit


@pytest.mark.parametrize(
    ("amount_usd6", "chain_us", "fine"),
    [
        (AMOUNT, EXPIRY - 1, True),
        (AMOUNT + 1, EXPIRY - 1, False),
        (AMOUNT, EXPIRY, False),
        (0, 0, False),
        (-1, 0, False),
    ],
)
def test_use_stops_at_the_amount_and_before_the_expiry(
    amount_usd6: int, chain_us: int, fine: bool
) -> None:
    assert usable(ACTIVE, amount_usd6, chain_us) == fine
    if not fine:
        with pytest.raises(AssertionError):
            use(ACTIVE, amount_usd6, chain_us)


steps = st.one_of(
    st.tuples(st.just("use"), st.integers(-5, 600)),
    st.tuples(st.just("close"), st.sampled_from(CloseReason)),
    st.tuples(st.just("renew"), st.integers(0, 300)),
    st.tuples(st.just("grant"), st.just(0)),
    st.tuples(st.just("wait"), st.integers(0, 60)),
)


@given(st.lists(steps, max_size=25))
def test_whatever_comes_use_stays_within_amount_and_time_and_one_close_is_said(
    script: list[tuple[str, int]],
) -> None:
    credit, chain_us, words, version = ASKED, 0, [], 1
    for what, figure in script:
        before, outcome = credit, Outcome(credit)
        if what == "wait":
            chain_us += figure
        elif what == "grant":
            outcome = granted(credit, GRANT, chain_us)
        elif what == "renew":
            version += 1
            outcome = Outcome(renewed(credit, renewal(figure, version), chain_us))
        elif what == "close" and credit.state is not State.REQUESTED:
            outcome = close(credit, figure)
        elif what == "use" and usable(credit, figure, chain_us):
            assert chain_us < credit.expires_at_us
            outcome = use(credit, figure, chain_us)
        credit = outcome.credit
        if outcome.word is not None:
            words.append(outcome.word)

        assert 0 <= before.used_usd6 <= credit.used_usd6 <= credit.amount_usd6
        assert credit.expires_at_us >= before.expires_at_us
        assert before.state is not State.CLOSED or credit is before
    used = [word.used_usd6 for word in words if isinstance(word, CreditUsed)]
    closed = [word for word in words if isinstance(word, ReservationClosed)]

    assert used == sorted(set(used))
    assert len(closed) == (credit.state is State.CLOSED)
    assert all(word is words[-1] and word.used_usd6 == max([0, *used]) for word in closed)


acts = st.tuples(
    st.sampled_from(["order", "cut", "grant", "repeat", "revoke", "wait"]), st.integers(-60, 60)
)


@settings(max_examples=100, deadline=None)
@given(st.lists(acts, max_size=30))
def test_no_right_is_used_beyond_its_amount_or_time_whatever_is_repeated(
    script: list[tuple[str, int]],
) -> None:
    bench, asked, granted = Bench(), [], {}
    for what, figure in script:
        told: list[Message] = []
        if what == "order" and figure:
            told = bench.order(figure * ONE)
        elif what == "cut":
            told = bench.order(close_ppm=abs(figure) * 10_000 + 1)
        elif what in ("grant", "repeat") and asked:
            one = asked[figure % len(asked)]
            granted.setdefault(one.rid, (one.amount_usd6, bench.now_us + TTL))
            told = bench.grant(one, ttl_us=granted[one.rid][1] - bench.now_us)
        elif what == "revoke" and asked:
            told = bench.give(RevocationRequested(rid=asked[figure % len(asked)].rid))
        elif what == "wait":
            told = bench.run(abs(figure) * S)
        asked += only(told, ReservationRequested)
    words = [sent.message for sent in bench.sent if sent.family is Family.RESERVATION]
    closed: set[bytes] = set()
    for word in words:
        if isinstance(word, CreditUsed):
            amount_usd6, expires_us = granted[word.rid]
            assert word.rid not in closed
            assert 0 < word.used_usd6 <= amount_usd6
            assert word.block_time_us < expires_us
        elif isinstance(word, ReservationClosed):
            assert word.rid not in closed
            closed.add(word.rid)
    assert closed == {c.rid for c in bench.state.credits.values() if c.state is State.CLOSED}
