"""The hub compares a spoke's rows with its own, through the hub's front door."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.cut import Cut
from hub.reconciliation import Finding, Line, Remedy, compare
from hub.reservation import State
from messaging.digests import BucketsAsked, BucketsTold, CreditRow, RowsAsked, RowsTold
from messaging.merkle import BUCKETS, bucket_of
from messaging.messages import HaltReason, Message, SpokeHalted
from messaging.open_rows import OpenRows
from messaging.units import USD
from tests.hub.test_oracle import SOL, TTL, Desk, ask, closes, key, uses

AMOUNT = 100 * USD


class Pair:
    """A hub, and the rows that a spoke has in its place."""

    def __init__(self, granted: int = 3) -> None:
        self.desk = Desk()
        self.rows = OpenRows()
        self.heard = 0
        for number in range(1, granted + 1):
            self.grant(number)

    def grant(self, number: int, *, heard: bool = True) -> None:
        self.desk.tell(ask(number))
        if heard:
            self.heard = self.cut.sent_seq
            self.rows.put(row(number))

    @property
    def cut(self) -> Cut:
        return self.desk.hub.state.zones[0].cut

    def digest(self) -> list[Message]:
        return self.desk.tell(self.rows.digest(self.heard))

    def buckets(self) -> list[Message]:
        hashes = self.rows.tree().bucket_hashes()
        return self.desk.tell(BucketsTold(at_seq_in=self.heard, hashes=hashes))

    def pages(self, asked: RowsAsked, size: int = 512) -> list[RowsTold]:
        rows = self.rows.within(asked.buckets)
        parts = [rows[at : at + size] for at in range(0, max(1, len(rows)), size)]
        return [
            RowsTold(
                at_seq_in=self.heard,
                buckets=asked.buckets,
                page=place,
                pages=len(parts),
                rows=tuple(part),
            )
            for place, part in enumerate(parts, start=1)
        ]

    def exchange(self, size: int = 512) -> list[Message]:
        """Let the spoke apply each question at once; return what the hub says in the end."""
        assert self.digest() == [BucketsAsked()]
        self.heard = self.cut.sent_seq
        (asked,) = self.buckets()
        assert isinstance(asked, RowsAsked)
        self.heard = self.cut.sent_seq
        told: list[Message] = []
        for page in self.pages(asked, size):
            assert told == [], "the hub waits for the last page"
            told = self.desk.tell(page)
        return told

    def lines(self) -> dict[bytes, Line]:
        return {line.rid: line for line in self.cut.reports[-1].lines}


def row(number: int, used_usd6: int = 0, amount_usd6: int = AMOUNT) -> CreditRow:
    return CreditRow(rid=key(number), amount_usd6=amount_usd6, used_usd6=used_usd6)


def test_equal_views_say_nothing() -> None:
    pair = Pair()
    pair.desk.tell(uses(2, 40 * USD))
    pair.rows.put(row(2, 40 * USD))
    pair.desk.tell(closes(3), height=9)  # held until that is final, but open on neither side
    pair.rows.drop(key(3))

    assert pair.desk.state_of(3) is State.HELD
    assert pair.digest() == []
    assert (pair.cut.compared, pair.cut.unequal) == (1, 0)


def test_what_was_granted_after_the_cut_is_left_out() -> None:
    pair = Pair()
    pair.grant(4, heard=False)
    assert pair.digest() == []

    pair.heard = pair.cut.sent_seq
    assert pair.digest() == [BucketsAsked()], "now it has heard of it, and does not hold it"


def test_a_grant_that_is_repeated_counts_under_its_first_number() -> None:
    pair = Pair(granted=1)
    pair.desk.tell(ask(1))
    assert pair.cut.sent_seq == 2
    assert pair.digest() == []


@pytest.mark.parametrize("heard", [0, 4, 2**62])
def test_a_cut_that_cannot_be_is_not_compared(heard: int) -> None:
    pair = Pair()
    assert pair.digest() == []
    pair.heard = heard

    assert pair.digest() == []
    assert (pair.cut.compared, pair.cut.incomparable, pair.cut.heard_seq) == (1, 1, 3)


@pytest.mark.parametrize("size", [512, 1])
def test_a_missing_row_is_kept_from_release(size: int) -> None:
    pair = Pair()
    pair.rows.drop(key(2))
    assert pair.exchange(size) == []

    (line,) = pair.cut.reports[-1].lines
    assert (line.rid, line.finding, line.remedy) == (key(2), Finding.MISSING, Remedy.QUARANTINE)
    assert (line.amount_difference_usd6, line.used_difference_usd6) == (-AMOUNT, 0)
    pair.desk.mark(TTL, final=TTL)
    assert [pair.desk.state_of(number) for number in (1, 2, 3)] == [
        State.RELEASED,
        State.HELD,
        State.RELEASED,
    ]
    assert pair.desk.tell(closes(2), height=TTL, final=TTL) == []
    assert pair.desk.state_of(2) is State.HELD
    assert pair.desk.reserved() == AMOUNT


@pytest.mark.parametrize("by_rows", [False, True])
def test_a_row_that_agrees_again_is_released_as_ever(by_rows: bool) -> None:
    pair = Pair()
    pair.desk.tell(uses(2, 60 * USD))
    pair.rows.put(row(2, 59 * USD))
    pair.exchange()
    assert pair.lines()[key(2)].remedy is Remedy.QUARANTINE
    pair.desk.mark(TTL, final=TTL)
    assert pair.desk.state_of(2) is State.HELD
    for released in (1, 3):
        pair.rows.drop(key(released))

    pair.rows.put(row(2, 60 * USD))
    if by_rows:  # its bucket is compared once more, for another row in it is wrong
        (same,) = [n for n in range(100, 10_000) if bucket_of(key(n)) == bucket_of(key(2))][:1]
        pair.rows.put(row(same))
        pair.exchange()
        assert pair.lines().keys() == {key(same)}
    else:
        assert pair.digest() == []
    assert not pair.cut.quarantine
    pair.desk.mark(TTL + 1, final=TTL + 1)
    assert pair.desk.state_of(2) is State.SETTLED


def test_a_higher_use_counts_at_once() -> None:
    pair = Pair()
    pair.rows.put(row(2, 70 * USD))
    assert pair.exchange() == []

    assert pair.lines()[key(2)].remedy is Remedy.RAISE
    assert pair.lines()[key(2)].used_difference_usd6 == 70 * USD
    assert pair.desk.hub.state.reservations[key(2)].used_usd6 == 70 * USD
    assert pair.digest() == []


def test_a_use_beyond_the_amount_is_evidence() -> None:
    pair = Pair()
    pair.rows.put(row(2, AMOUNT + 1))
    assert pair.exchange() == [SpokeHalted(spoke="base", reason=HaltReason.USED_TOO_MUCH)]


@pytest.mark.parametrize("amount_usd6", [AMOUNT - 1, AMOUNT + 1])
def test_the_hub_stands_on_what_it_granted(amount_usd6: int) -> None:
    pair = Pair()
    pair.rows.put(row(2, amount_usd6=amount_usd6))
    assert pair.exchange() == []

    line = pair.lines()[key(2)]
    assert (line.finding, line.remedy) == (Finding.UNEQUAL, Remedy.HUB_STANDS)
    assert line.amount_difference_usd6 == amount_usd6 - AMOUNT
    assert pair.desk.hub.state.reservations[key(2)].amount_usd6 == AMOUNT


def test_the_hub_stands_on_what_is_closed_and_on_what_it_never_granted() -> None:
    pair = Pair()
    pair.desk.tell(closes(2))
    pair.rows.put(row(77))
    pair.desk.tell(ask(78), spoke=SOL)
    pair.rows.put(row(78))
    assert pair.exchange() == []

    assert {rid: line.remedy for rid, line in pair.lines().items()} == dict.fromkeys(
        (key(2), key(77), key(78)), Remedy.HUB_STANDS
    )
    assert pair.lines()[key(2)].hub == row(2)
    assert pair.lines()[key(77)].hub is None
    assert pair.lines()[key(78)].hub is None, "another spoke's is not its own"


@pytest.mark.parametrize(
    ("number", "reason"),
    [(77, HaltReason.UNKNOWN_RESERVATION), (2, HaltReason.USED_AFTER_CLOSE)],
)
def test_use_of_what_is_not_open_is_evidence(number: int, reason: HaltReason) -> None:
    pair = Pair()
    pair.desk.tell(closes(2))
    pair.rows.drop(key(2))
    pair.rows.put(row(number, 1))
    assert pair.exchange() == [SpokeHalted(spoke="base", reason=reason)]


def test_a_report_shows_what_is_in_flight_beside_what_differs() -> None:
    pair = Pair()
    pair.rows.drop(key(2))
    assert pair.digest() == [BucketsAsked()]
    pair.heard = pair.cut.sent_seq
    (asked,) = pair.buckets()
    assert isinstance(asked, RowsAsked)
    (late,) = [n for n in range(100, 10_000) if bucket_of(key(n)) == bucket_of(key(2))][:1]
    pair.grant(late, heard=False)
    pair.desk.tell(pair.pages(asked)[0])

    report = pair.cut.reports[-1]
    assert report.differences == 1
    assert pair.lines()[key(late)].finding is Finding.UNHEARD
    assert pair.lines()[key(late)].in_flight_usd6 == AMOUNT
    assert pair.lines()[key(late)].amount_difference_usd6 == 0
    assert key(late) not in pair.cut.quarantine


def test_one_question_at_a_time_until_the_spoke_has_passed_it_over() -> None:
    pair = Pair()
    pair.rows.drop(key(2))
    assert pair.digest() == [BucketsAsked()]
    assert pair.digest() == [], "the answer may be on its way"

    pair.heard = pair.cut.sent_seq
    assert pair.digest() == [BucketsAsked()], "it has applied the question, and said nothing"


def test_answers_to_nothing_are_passed_over() -> None:
    pair = Pair()
    pair.rows.drop(key(2))
    asked = RowsAsked(buckets=tuple(range(BUCKETS)))
    assert pair.buckets() == []
    assert pair.desk.tell(pair.pages(asked)[0]) == []
    assert not pair.cut.reports
    assert not pair.cut.quarantine


def test_pages_out_of_order_are_asked_for_anew() -> None:
    pair = Pair(granted=8)
    pair.rows.drop(key(2))
    pair.digest()
    pair.heard = pair.cut.sent_seq
    pair.buckets()
    pair.heard = pair.cut.sent_seq
    pages = pair.pages(RowsAsked(buckets=tuple(range(BUCKETS))), size=1)
    assert len(pages) == 7
    for page in (pages[0], *pages[2:]):
        assert pair.desk.tell(page) == []

    assert not pair.cut.reports
    assert pair.digest() == [BucketsAsked()]


@pytest.mark.parametrize("hashes", [0, 255, 257, BUCKETS])
def test_a_digest_that_its_own_buckets_do_not_bear_out_is_reported(hashes: int) -> None:
    """A wrong root, a wrong sum, or a list of another length: there is nothing to compare."""
    pair = Pair()
    honest = pair.rows.tree().bucket_hashes()
    pair.rows.put(row(9))
    pair.digest()
    pair.heard = pair.cut.sent_seq
    told = (honest * 2)[:hashes]

    assert pair.desk.tell(BucketsTold(at_seq_in=pair.heard, hashes=told)) == []
    assert (pair.cut.reports[-1].buckets, pair.cut.reports[-1].lines) == (0, ())


rows = st.dictionaries(
    st.integers(0, 12).map(key), st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12
).map(
    lambda drawn: {
        rid: CreditRow(rid=rid, amount_usd6=amount, used_usd6=used)
        for rid, (amount, used) in drawn.items()
    }
)


@given(rows, rows, rows, rows)
def test_each_difference_has_a_line_and_no_remedy_sets_credit_free(
    ours: dict[bytes, CreditRow],
    theirs: dict[bytes, CreditRow],
    unheard: dict[bytes, CreditRow],
    ended: dict[bytes, CreditRow],
) -> None:
    """What a remedy does by itself raises use; what would lower it, or end it, waits."""
    unheard = {rid: one for rid, one in unheard.items() if rid not in ours}
    lines = compare(ours, theirs, unheard, ended)
    named = {line.rid: line for line in lines}

    assert list(named) == sorted(named)
    both = ours.keys() | theirs.keys()
    assert {r for r in both if ours.get(r) != theirs.get(r)} | (
        unheard.keys() - theirs.keys()
    ) == named.keys()
    for line in lines:
        lower = line.used_difference_usd6 < 0 or line.spoke is None
        if line.finding is Finding.UNHEARD:
            assert line.remedy is Remedy.NONE
        elif line.rid in ours and lower:
            assert line.remedy is Remedy.QUARANTINE
        assert (line.remedy is Remedy.RAISE) == (line.used_difference_usd6 > 0)
