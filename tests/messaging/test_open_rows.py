"""Rows that come and go leave what a fresh count would find."""

from hypothesis import given
from hypothesis import strategies as st

from messaging.digests import CreditRow
from messaging.merkle import BUCKETS
from messaging.open_rows import OpenRows

ids = st.integers(0, 9).map(lambda number: bytes([number]) * 16)
figures = st.tuples(st.integers(0, 3), st.integers(0, 3))


@given(st.lists(st.tuples(ids, st.none() | figures, st.booleans()), max_size=60))
def test_sums_root_and_rows_are_those_of_a_fresh_count(
    steps: list[tuple[bytes, tuple[int, int] | None, bool]],
) -> None:
    """Whether a digest was made in between or not."""
    rows, expected = OpenRows(), dict[bytes, CreditRow]()
    for rid, figure, told in steps:
        if figure is None:
            rows.drop(rid)
            expected.pop(rid, None)
        else:
            expected[rid] = CreditRow(rid=rid, amount_usd6=figure[0], used_usd6=figure[1])
            rows.put(expected[rid])
        if told:
            rows.digest(7)

    fresh = OpenRows()
    for row in expected.values():
        fresh.put(row)
    found = rows.digest(7)
    assert found == fresh.digest(7)
    assert found.open_count == len(rows) == len(expected)
    assert found.sum_amount_usd6 == sum(row.amount_usd6 for row in expected.values())
    assert found.sum_used_usd6 == sum(row.used_usd6 for row in expected.values())
    inside = rows.within(range(BUCKETS))
    assert sorted(row.rid for row in inside) == sorted(expected)
    assert all(expected[row.rid] == row and row.rid in rows for row in inside)


def test_every_figure_of_a_row_is_in_the_root() -> None:
    roots = set()
    for amount_usd6, used_usd6 in ((1, 2), (2, 1), (1, 3), (3, 2)):
        rows = OpenRows()
        rows.put(CreditRow(rid=b"a" * 16, amount_usd6=amount_usd6, used_usd6=used_usd6))
        roots.add(rows.digest(0).root)
    assert len(roots) == 4


def test_buckets_that_there_are_not_have_no_rows() -> None:
    assert OpenRows().within((256, 10_000)) == []
