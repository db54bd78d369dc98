"""The open reservations of one spoke as one side sees them, ready to be compared (P59). Pure."""

from collections.abc import Iterable

from messaging.digests import CreditRow, DigestTold
from messaging.merkle import BUCKETS, Tree
from messaging.units import ReservationId, Usd6


class OpenRows:
    """Rows by id; their sums and the tree over them are brought up when asked for.

    So a reservation that comes and goes between two digests costs no hash.
    """

    __slots__ = ("_changed", "_entered", "_rows", "_sum_amount_usd6", "_sum_used_usd6", "_tree")

    def __init__(self) -> None:
        self._rows: dict[ReservationId, CreditRow] = {}
        self._changed: dict[ReservationId, None] = {}  # since the tree was brought up last
        self._entered: dict[ReservationId, CreditRow] = {}  # what the tree and the sums hold
        self._tree = Tree()
        self._sum_amount_usd6 = 0
        self._sum_used_usd6 = 0

    def __contains__(self, rid: ReservationId) -> bool:
        return rid in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, row: CreditRow) -> None:
        """Put a row in, or another one in its place."""
        self._rows[row.rid] = row
        self._changed[row.rid] = None

    def drop(self, rid: ReservationId) -> None:
        """Take a row out; an id that is not there is left alone."""
        if self._rows.pop(rid, None) is None:
            return
        if rid in self._entered:
            self._changed[rid] = None
        else:
            self._changed.pop(rid, None)

    def tree(self) -> Tree:
        """Return the tree over all rows."""
        for rid in self._changed:
            before, after = self._entered.pop(rid, None), self._rows.get(rid)
            if before is not None:
                self._sum_amount_usd6 -= before.amount_usd6
                self._sum_used_usd6 -= before.used_usd6
            if after is not None:
                self._entered[rid] = after
                self._sum_amount_usd6 += after.amount_usd6
                self._sum_used_usd6 += after.used_usd6
            if after is None:
                self._tree.remove(rid)
            elif after != before:
                self._tree.set(rid, _leaf(after))
        self._changed.clear()
        return self._tree

    def digest(self, at_seq_in: int) -> DigestTold:
        """Return all rows in one hash, with their sums."""
        tree = self.tree()
        return DigestTold(
            at_seq_in=at_seq_in,
            open_count=len(self._rows),
            sum_amount_usd6=Usd6(self._sum_amount_usd6),
            sum_used_usd6=Usd6(self._sum_used_usd6),
            root=tree.root(),
        )

    def within(self, buckets: Iterable[int]) -> list[CreditRow]:
        """Return the rows of some buckets; there are 256."""
        tree = self.tree()
        keys = [key for at in buckets if at < BUCKETS for key, _ in tree.rows(at)]
        return [self._rows[ReservationId(key)] for key in keys]


def _leaf(row: CreditRow) -> bytes:
    """Return what a row's hash is over, beside its id."""
    return row.amount_usd6.to_bytes(8, "big") + row.used_usd6.to_bytes(8, "big")
