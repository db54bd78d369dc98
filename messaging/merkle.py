"""A Merkle tree over rows, so that two nodes find where they differ with few bytes. Pure.

Rows are spread over 256 buckets by the first byte of SHA-256(key); the tree stands on the
buckets. Each kind of hash begins with a byte of its own and says where the key ends, so that a
row cannot be passed off as a bucket, a bucket as a node, or one row as another. 256 is 16 x 16:
every node has 16 children, so none is padded and none is counted twice. An XOR or a sum of row
hashes would do for accidents only, for other rows with the same sum can be made on purpose.
"""

from collections.abc import Sequence
from hashlib import sha256

BUCKETS = 256
WIDTH = 16  # children of a node: two levels of them, which are hashed faster than eight of pairs
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


def node_hash(children: Sequence[bytes]) -> bytes:
    """Return the hash of a node over all its children; there are always 16."""
    return sha256(_NODE + b"".join(children)).digest()


_EMPTY = bucket_hash(())
_EMPTY_MIDDLE = node_hash([_EMPTY] * WIDTH)
_EMPTY_ROOT = node_hash([_EMPTY_MIDDLE] * WIDTH)


class Tree:
    """Rows by key, and the hashes over them; hashes are made anew only where rows changed."""

    __slots__ = ("_buckets", "_hashes", "_middle", "_root", "_stale")

    def __init__(self) -> None:
        self._buckets: dict[int, dict[bytes, bytes]] = {}  # those with rows
        self._hashes = [_EMPTY] * BUCKETS
        self._middle = [_EMPTY_MIDDLE] * WIDTH
        self._root = _EMPTY_ROOT
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
        return self._root

    def bucket_hashes(self) -> tuple[bytes, ...]:
        """Return the hash of each bucket."""
        self._refresh()
        return tuple(self._hashes)

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
        if not self._stale:
            return
        for bucket in self._stale:
            rows = self._buckets.get(bucket, {})
            ordered = sorted(rows.items()) if len(rows) > 1 else rows.items()
            self._hashes[bucket] = bucket_hash([row_hash(*row) for row in ordered])
        for place in {bucket // WIDTH for bucket in self._stale}:
            self._middle[place] = node_hash(self._hashes[WIDTH * place : WIDTH * (place + 1)])
        self._root = node_hash(self._middle)
        self._stale.clear()
