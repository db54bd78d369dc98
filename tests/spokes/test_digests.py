"""What a spoke tells of its open reservations, and what it answers."""

import msgspec
import pytest

from messaging.codec import FRAME_BYTES_MAX, encode_frame
from messaging.digests import BucketsAsked, BucketsTold, CreditRow, DigestTold, RowsAsked, RowsTold
from messaging.envelope import Envelope
from messaging.messages import Family, ReservationRequested, Watermark
from messaging.open_rows import OpenRows
from messaging.units import HUB, INT_MAX, ONE, new_id
from spokes import digests
from tests.spokes.test_orders import POLICY, Bench, S, only

EVERY = msgspec.structs.replace(POLICY, digest_us=20 * S)


def fill(bench: Bench, count: int) -> None:
    for number in range(count):
        rid = new_id("base", 1, 1_000 + number)
        row = CreditRow(rid=rid, amount_usd6=INT_MAX // count, used_usd6=number)
        bench.state.rows.put(row)


def test_the_digest_comes_with_every_other_watermark_and_before_it() -> None:
    bench = Bench(EVERY)
    bench.run(100 * S)
    told = [one for one in bench.sent if isinstance(one.message, DigestTold | Watermark)]
    own = [one for one in told if one.family is Family.RESERVATION]
    kinds = [type(one.message).__name__ for one in own]

    assert kinds[:6] == ["DigestTold", "Watermark", "Watermark"] * 2
    assert [one.height for one in own if type(one.message) is DigestTold] == [
        1,
        21,
        41,
        61,
        81,
        101,
    ]


def test_no_digest_without_an_interval() -> None:
    bench = Bench()
    bench.run(100 * S)
    assert only([one.message for one in bench.sent], DigestTold) == []


def test_the_digest_holds_what_is_active_and_what_has_been_heard() -> None:
    bench = Bench(EVERY)
    (asked,) = only(bench.order(50 * ONE), ReservationRequested)
    expected = OpenRows()
    (told,) = only(bench.run(20 * S), DigestTold)
    assert told == expected.digest(0), "requested is not active"

    bench.grant(asked, ttl_us=30 * S)
    bench.run()
    credit = bench.state.credits[asked.rid]
    assert credit.used_usd6 > 0
    expected.put(
        CreditRow(rid=asked.rid, amount_usd6=credit.amount_usd6, used_usd6=credit.used_usd6)
    )
    assert bench.state.rows.digest(bench.state.heard_seq) == expected.digest(1)

    bench.run(40 * S)  # past its expiry
    (*_, told) = only([one.message for one in bench.sent], DigestTold)
    assert told == OpenRows().digest(1)


def test_answers_hold_for_the_moment_of_the_answer() -> None:
    bench = Bench(EVERY)
    fill(bench, 40)
    (told,) = bench.give(BucketsAsked())
    assert told == BucketsTold(at_seq_in=1, hashes=bench.state.rows.tree().bucket_hashes())

    (page,) = bench.give(RowsAsked(buckets=tuple(range(256))))
    assert (page.at_seq_in, page.page, page.pages) == (1, 1, 1)
    assert {row.used_usd6 for row in page.rows} == set(range(40))


def test_a_bucket_without_rows_is_an_answer_too() -> None:
    (page,) = Bench(EVERY).give(RowsAsked(buckets=(5, 7)))
    assert page == RowsTold(at_seq_in=1, buckets=(5, 7), page=1, pages=1, rows=())


@pytest.mark.parametrize(("count", "pages"), [(512, 1), (513, 2), (1_300, 3)])
def test_rows_come_in_pages_that_fit_a_frame(count: int, pages: int) -> None:
    bench = Bench(EVERY)
    fill(bench, count)
    told = bench.give(RowsAsked(buckets=tuple(range(256))))

    assert [(one.page, one.pages) for one in told] == [(n, pages) for n in range(1, pages + 1)]
    assert sum(len(one.rows) for one in told) == count
    for one in (*told, *bench.give(BucketsAsked())):
        frame = Envelope("base", HUB, Family.RESERVATION, INT_MAX, INT_MAX, 0, 0, 0, one)
        assert len(encode_frame(frame)) <= FRAME_BYTES_MAX


def test_buckets_that_are_too_many_are_left_for_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(digests, "PAGES_MAX", 1)
    bench = Bench(EVERY)
    fill(bench, 1_300)
    (page,) = bench.give(RowsAsked(buckets=tuple(range(256))))

    assert page.buckets == tuple(range(len(page.buckets)))
    assert 50 < len(page.buckets) < 256
    assert list(page.rows) == bench.state.rows.within(page.buckets)
