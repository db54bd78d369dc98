"""A Merkle tree over rows, so that two nodes find where they differ with few bytes. Pure.

Rows are spread over 256 buckets by the first byte of SHA-256(key); the tree stands on the
buckets. Each kind of hash begins with a byte of its own and says where the key ends, so that a
row cannot be passed off as a bucket, a bucket as a node, or one row as another. 256 is a power
of two: no node is without a sister, and none is counted twice. An XOR or a sum of row hashes
would do for accidents only, for other rows with the same sum can be made on purpose.
"""

from collections.abc import Sequence
from hashlib import sha256

BUCKETS = 256
HASH_BYTES = 32
_ROW, _BUCKET, _NODE = b"\x00", b"\x01", b"\x02"


def bucket_of(key: bytes) -> int:
    """Return the bucket that a row belongs to."""
    return sha256(key).digest()[0]


def row_hash(key: bytes, row: bytes) -> bytes:
    """Return the hash of one row."""
    return sha256(_ROW + len(key).to_bytes(4, "big") + key + row).digest()


def bucket_hash(row_hashes: Sequence[bytes]) -> bytes:
    """Return the hash of a bucket; its rows stand in order of their keys."""
    return sha256(_BUCKET + b"".join(row_hashes)).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node over its two."""
    return sha256(_NODE + left + right).digest()


def _bare() -> tuple[bytes, ...]:
    """Return the nodes of a tree without rows, the root at 1, the children of n at 2n, 2n+1."""
    nodes = [b""] * BUCKETS + [bucket_hash(())] * BUCKETS
    for place in range(BUCKETS - 1, 0, -1):
        nodes[place] = node_hash(nodes[2 * place], nodes[2 * place + 1])
    return tuple(nodes)


_BARE = _bare()


class Tree:
    """Rows by key, and the hashes over them; hashes are made anew only where rows changed."""

    __slots__ = ("_buckets", "_nodes", "_stale")

    def __init__(self) -> None:
        self._buckets: dict[int, dict[bytes, bytes]] = {}  # those with rows
        self._nodes = list(_BARE)
        self._stale: dict[int, None] = {}  # buckets that have changed since the last root

    def set(self, key: bytes, row: bytes) -> None:
        """Put a row in, or another one in its place."""
        bucket = bucket_of(key)
        self._buckets.setdefault(bucket, {})[key] = row
        self._stale[bucket] = None

    def remove(self, key: bytes) -> None:
        """Take a row out; a key that is not there is left alone."""
        bucket = bucket_of(key)
        rows = self._buckets.get(bucket)
        if rows is None or rows.pop(key, None) is None:
            return
        if not rows:
            del self._buckets[bucket]
        self._stale[bucket] = None

    def root(self) -> bytes:
        """Return the hash that stands for all rows: equal if and only if they are."""
        self._refresh()
        return self._nodes[1]

    def bucket_hashes(self) -> tuple[bytes, ...]:
        """Return the hash of each bucket."""
        self._refresh()
        return tuple(self._nodes[BUCKETS:])

    def buckets_that_differ(self, others: Sequence[bytes]) -> list[int]:
        """Return the buckets in which another tree, of which we know `others`, has other rows."""
        ours = self.bucket_hashes()
        return [
            bucket
            for bucket, (mine, theirs) in enumerate(zip(ours, others, strict=True))
            if mine != theirs
        ]

    def rows(self, bucket: int) -> list[tuple[bytes, bytes]]:
        """Return the (key, row) of one bucket, in order of their keys."""
        return sorted(self._buckets.get(bucket, {}).items())

    def _refresh(self) -> None:
        nodes = self._nodes
        places = set()
        for bucket in self._stale:
            nodes[BUCKETS + bucket] = bucket_hash([row_hash(*row) for row in self.rows(bucket)])
            places.add((BUCKETS + bucket) // 2)
        self._stale.clear()
        while places and 0 not in places:
            for place in places:
                nodes[place] = node_hash(nodes[2 * place], nodes[2 * place + 1])
            places = {place // 2 for place in places}
