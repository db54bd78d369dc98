"""A node's store without a disk: what `messaging.store.Store` keeps, for as long as we run."""

from collections.abc import Iterator, Mapping, Sequence

from messaging.store import Entry, Row, Snapshot


class MemoryStore:
    """Journal, cursors, outbox and snapshot in memory; a commit is all or nothing.

    Attributes:
        published, last_number: as of `Store`.
        journal: every event, in order.
        cursors: where to read on, by stream.
    """

    def __init__(self) -> None:
        self.published = 0
        self.last_number = 0
        self.journal: list[Entry] = []
        self.cursors: dict[str, int] = {}
        self._outbox: dict[int, Row] = {}
        self._snapshot: Snapshot | None = None

    def commit(
        self,
        entries: Sequence[Entry] = (),
        cursors: Mapping[str, int] | None = None,
        rows: Sequence[Row] = (),
        published: int | None = None,
    ) -> None:
        """Keep events, cursors, records to publish and what has been published."""
        self.journal += entries
        if cursors:
            self.cursors |= cursors
        if rows:
            self._outbox |= {row.number: row for row in rows}
            self.last_number = rows[-1].number
        if published is not None:
            self.published = max(self.published, published)

    def copy(self) -> "MemoryStore":
        """Return a store with the same in it (P98)."""
        other = MemoryStore()
        other.published, other.last_number = self.published, self.last_number
        other.journal, other.cursors = list(self.journal), dict(self.cursors)
        other._outbox, other._snapshot = dict(self._outbox), self._snapshot
        return other

    def keep(self, snapshot: Snapshot) -> None:
        """Replace the snapshot."""
        self._snapshot = snapshot

    def forget(self, oldest: Mapping[str, int]) -> None:
        """Drop records that are published and below `oldest` of their topic."""
        self._outbox = {
            number: row
            for number, row in self._outbox.items()
            if number > self.published or row.seq >= oldest.get(row.topic, 2**63 - 1)
        }

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Yield the journal behind a place."""
        yield from self.journal[after:]

    def rows(self) -> Iterator[Row]:
        """Yield the records kept in the outbox, oldest first."""
        yield from self._outbox.values()

    def snapshot(self) -> Snapshot | None:
        """Return the snapshot, if there is one."""
        return self._snapshot
