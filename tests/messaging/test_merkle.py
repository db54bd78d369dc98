"""The tree is what a plain computation says, and what it stands for cannot be forged."""

from collections.abc import Mapping
from functools import reduce
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging import merkle
from messaging.merkle import BUCKETS, Tree

Rows = Mapping[bytes, bytes]

keys = st.binary(min_size=1, max_size=20)
rows = st.dictionaries(keys, st.binary(max_size=24), max_size=60)
few_keys = st.integers(0, 9).map(lambda number: bytes([number]))
steps = st.lists(st.tuples(few_keys, st.none() | st.binary(max_size=2)), max_size=60)


def tree_of(content: Rows) -> Tree:
    tree = Tree()
    for key, row in content.items():
        tree.set(key, row)
    return tree


def plain_root(content: Rows) -> bytes:
    """Compute the root from nothing, level by level, in words of its own."""
    level = []
    for bucket in range(256):
        inside = sorted(key for key in content if sha256(key).digest()[0] == bucket)
        hashes = b""
        for key in inside:
            size = len(key).to_bytes(4, "big")
            hashes += sha256(b"\x00" + size + key + content[key]).digest()
        level.append(sha256(b"\x01" + hashes).digest())
    while len(level) > 1:
        parts = [level[at : at + 16] for at in range(0, len(level), 16)]
        level = [sha256(b"\x02" + b"".join(part)).digest() for part in parts]
    return level[0]


@given(rows)
def test_the_root_is_what_a_plain_computation_says(content: Rows) -> None:
    assert tree_of(content).root() == plain_root(content)


@given(steps, st.data())
def test_changes_lead_where_a_fresh_tree_begins(
    taken: list[tuple[bytes, bytes | None]], data: st.DataObject
) -> None:
    """The root may be asked for between any two changes, or not."""
    tree, content = Tree(), dict[bytes, bytes]()
    for key, row in taken:
        if row is None:
            tree.remove(key)
            content.pop(key, None)
        else:
            tree.set(key, row)
            content[key] = row
        if data.draw(st.booleans()):
            assert tree.root() == plain_root(content)
    assert tree.root() == plain_root(content)


@given(rows, st.data())
def test_the_order_of_changes_does_not_matter(content: Rows, data: st.DataObject) -> None:
    shuffled = {key: content[key] for key in data.draw(st.permutations(list(content)))}
    assert tree_of(shuffled).root() == tree_of(content).root()


@given(rows, rows)
def test_exactly_the_buckets_with_other_rows_differ(ours: Rows, theirs: Rows) -> None:
    mine, other = tree_of(ours), tree_of(theirs)
    concerned = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}

    differing = mine.buckets_that_differ(other.bucket_hashes())
    assert differing == sorted({merkle.bucket_of(key) for key in concerned})
    assert (mine.root() == other.root()) == (not concerned)


def test_rows_of_a_bucket_are_sorted_and_belong_there() -> None:
    tree = tree_of({bytes([low, high]): b"x" for low in range(40) for high in range(40)})
    found = [row for bucket in range(BUCKETS) for row in tree.rows(bucket)]

    assert len(found) == 1_600
    for bucket in range(BUCKETS):
        inside = [key for key, _ in tree.rows(bucket)]
        assert inside == sorted(inside)
        assert {merkle.bucket_of(key) for key in inside} <= {bucket}


def test_one_change_costs_a_bucket_and_two_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tree_of({bytes([low, high]): b"x" for low in range(16) for high in range(16)})
    tree.root()
    made: dict[str, int] = {}
    for name in ("row_hash", "bucket_hash", "node_hash"):
        sound = getattr(merkle, name)

        def counted(*given: bytes, name: str = name, sound: object = sound) -> bytes:
            made[name] = made.get(name, 0) + 1
            assert callable(sound)
            return bytes(sound(*given))

        monkeypatch.setattr(merkle, name, counted)

    tree.set(b"\x03\x04", b"y")
    tree.root()
    tree.root()
    inside = len(tree.rows(merkle.bucket_of(b"\x03\x04")))
    assert made == {"row_hash": inside, "bucket_hash": 1, "node_hash": 2}


def xor(first: bytes, second: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(first, second, strict=True))


def xor_digest(content: Rows) -> bytes:
    """Return what a careless protocol would compare: the XOR of all row hashes."""
    return reduce(xor, (merkle.row_hash(*row) for row in content.items()), bytes(32))


def forged_rows(wanted: bytes, candidates: list[tuple[bytes, bytes]]) -> Rows:
    """Choose rows whose hashes XOR to `wanted`: linear algebra over bits, no search."""
    pivots: dict[int, tuple[int, int]] = {}  # leading bit -> (value, chosen candidates as bits)
    for number, row in enumerate(candidates):
        value, chosen = int.from_bytes(merkle.row_hash(*row), "big"), 1 << number
        while value and value.bit_length() in pivots:
            other, others = pivots[value.bit_length()]
            value, chosen = value ^ other, chosen ^ others
        if value:
            pivots[value.bit_length()] = (value, chosen)
    left, chosen = int.from_bytes(wanted, "big"), 0
    while left:
        other, others = pivots[left.bit_length()]
        left, chosen = left ^ other, chosen ^ others
    return dict(row for number, row in enumerate(candidates) if chosen >> number & 1)


def test_a_forgery_that_an_xor_of_hashes_lets_pass_has_another_root() -> None:
    """Understate one row and hide it behind rows of one's own making."""
    honest = {bytes([number]) * 16: b"amount 100, used 60" for number in range(20)}
    lie = {**honest, bytes([7]) * 16: b"amount 100, used 0"}
    spare = [(sha256(b"%d" % number).digest()[:16], b"made up") for number in range(300)]
    forged = {**lie, **forged_rows(xor(xor_digest(honest), xor_digest(lie)), spare)}

    assert forged != honest
    assert xor_digest(forged) == xor_digest(honest)
    assert tree_of(forged).root() != tree_of(honest).root()


def test_a_row_twice_does_not_cancel_itself_out() -> None:
    assert bytes(32) == xor_digest({}) == xor(*[merkle.row_hash(b"k", b"r")] * 2)
    assert tree_of({}).root() != tree_of({b"k": b"r"}).root()


def test_rows_buckets_and_nodes_are_no_stand_in_for_each_other() -> None:
    """The same bytes under another kind have another hash: no second preimage by level."""
    left, right = merkle.row_hash(b"a", b"1"), merkle.row_hash(b"b", b"2")
    assert merkle.node_hash((left, right)) != merkle.bucket_hash((left, right))
    joined = left + right
    for length in range(65):
        assert merkle.row_hash(joined[:length], joined[length:]) not in (
            merkle.node_hash((left, right)),
            merkle.bucket_hash((left, right)),
        )


def test_a_key_does_not_run_into_its_row() -> None:
    assert merkle.row_hash(b"ab", b"c") != merkle.row_hash(b"a", b"bc")
    assert tree_of({b"ab": b"c"}).root() != tree_of({b"a": b"bc"}).root()


def test_a_bucket_told_short_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        Tree().buckets_that_differ((b"",) * (BUCKETS - 1))
