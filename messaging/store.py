"""One node's file: journal, cursors, outbox and snapshots in SQLite, written as one.

Rules P87 (one transaction), P89 (synchronous=FULL), P93 (a failed commit ends the process) and
P94 (one process a file) of docs/protocol.md.
"""

import fcntl
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, Self, TypeAlias

from messaging.errors import InputRefused, StoreFailed

SCHEMA = "1"
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS journal (
    place INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, event BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS inbox (
    topic TEXT PRIMARY KEY, next_offset INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY, topic TEXT NOT NULL, seq INTEGER NOT NULL, headers BLOB NOT NULL,
    data BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS outbox_row ON outbox (topic, seq);
CREATE TABLE IF NOT EXISTS snapshot (
    place INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL, state BLOB NOT NULL);
"""
PUBLISHED = "published"

Headers: TypeAlias = tuple[tuple[str, bytes], ...]


class Entry(NamedTuple):
    """One input event: its place in the journal, from 1, when it was handled, and its bytes."""

    place: int
    at_us: int
    event: bytes


class Row(NamedTuple):
    """One record to publish; `number` counts from 1, `seq` is 0 outside a row of frames."""

    number: int
    topic: str
    seq: int
    headers: bytes
    data: bytes


class Snapshot(NamedTuple):
    """State behind the event at `place`, and what it must hash to, if that is known."""

    place: int
    fingerprint: str
    state: bytes


class Storage(Protocol):
    """What a durable node needs of what keeps its journal."""

    published: int
    last_number: int

    def commit(
        self,
        entries: Sequence[Entry] = (),
        cursors: Mapping[str, int] | None = None,
        rows: Sequence[Row] = (),
        published: int | None = None,
    ) -> None: ...

    def keep(self, snapshot: Snapshot) -> None: ...

    def forget(self, oldest: Mapping[str, int]) -> None: ...

    def entries(self, after: int = 0) -> Iterator[Entry]: ...

    def rows(self) -> Iterator[Row]: ...

    def snapshot(self) -> Snapshot | None: ...


class Store:
    """The file of one process; use it as a context manager."""

    def __init__(self, path: Path, identity: Mapping[str, str]) -> None:
        """Open a file, or make it; `identity` (node, deployment, ...) must be as it was.

        Raises:
            InputRefused: another process has it, or it belongs to another node.
            StoreFailed: it cannot be read or written.
        """
        self._path = path
        self._lock = self._take_lock()
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._set_up()
            self._identify({"schema": SCHEMA, **identity})
            row = self._db.execute("SELECT value FROM meta WHERE name = ?", (PUBLISHED,)).fetchone()
            self.published = int(row[0]) if row else 0
            (last,) = self._db.execute("SELECT max(number) FROM outbox").fetchone()
            self.last_number = max(self.published, last or 0)
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def _take_lock(self) -> IO[bytes]:
        # A lock beside the file and not SQLite's own, so that others may read while we write.
        path = self._path.with_name(self._path.name + ".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.open("wb")
        except OSError as error:
            raise StoreFailed(f"{path}: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            expected = "a file that no other process writes"
            raise InputRefused(str(self._path), expected=expected, found="one in use") from None
        return lock

    def _set_up(self) -> None:
        for pragma, value in (("journal_mode", "wal"), ("synchronous", 2)):
            self._db.execute(f"PRAGMA {pragma} = {value}")
            (found,) = self._db.execute(f"PRAGMA {pragma}").fetchone()
            if found != value:
                raise StoreFailed(f"{self._path}: expected {pragma} {value}, found {found}")
        self._db.executescript(_TABLES)

    def _identify(self, identity: Mapping[str, str]) -> None:
        known = dict(self._db.execute("SELECT name, value FROM meta"))
        for name, value in identity.items():
            found = known.get(name)
            if found is None:
                self._db.execute("INSERT INTO meta VALUES (?, ?)", (name, value))
            elif found != value:
                where = f"{self._path}: {name}"
                raise InputRefused(where, expected=value, found=found)

    def commit(
        self,
        entries: Sequence[Entry] = (),
        cursors: Mapping[str, int] | None = None,
        rows: Sequence[Row] = (),
        published: int | None = None,
    ) -> None:
        """Write events, cursors, records to publish and what has been published, all or none.

        Raises:
            StoreFailed: nothing of it is written, and memory is ahead of the disk.
        """
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            if entries:
                db.executemany("INSERT INTO journal VALUES (?, ?, ?)", entries)
            if cursors:
                db.executemany("INSERT OR REPLACE INTO inbox VALUES (?, ?)", cursors.items())
            if rows:
                db.executemany("INSERT INTO outbox VALUES (?, ?, ?, ?, ?)", rows)
            if published is not None and published > self.published:
                db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (PUBLISHED, str(published)))
                self.published = published
            db.execute("COMMIT")
        except sqlite3.Error as error:
            db.close()  # memory is ahead of the disk: nothing may be written any more
            raise self._failed(error) from None

    def keep(self, snapshot: Snapshot) -> None:
        """Replace the snapshot.

        Raises:
            StoreFailed: it cannot be written.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM snapshot")
            self._db.execute("INSERT INTO snapshot VALUES (?, ?, ?)", snapshot)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def forget(self, oldest: Mapping[str, int]) -> None:
        """Drop records that are published and not needed again: those below `oldest` of a topic.

        Of a topic that is not in `oldest`, all that are published go.

        Raises:
            StoreFailed: it cannot be written.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for (topic,) in self._db.execute("SELECT DISTINCT topic FROM outbox").fetchall():
                below = oldest.get(topic, 2**63 - 1)
                self._db.execute(
                    "DELETE FROM outbox WHERE topic = ? AND seq < ? AND number <= ?",
                    (topic, below, self.published),
                )
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Yield the journal behind a place."""
        query = "SELECT place, at_us, event FROM journal WHERE place > ? ORDER BY place"
        yield from map(Entry._make, self._read(query, after))

    def cursors(self) -> dict[str, int]:
        """Return the offset to read next, by topic."""
        return dict(self._read("SELECT topic, next_offset FROM inbox"))

    def rows(self) -> Iterator[Row]:
        """Yield the records kept in the outbox, oldest first."""
        query = "SELECT number, topic, seq, headers, data FROM outbox ORDER BY number"
        yield from map(Row._make, self._read(query))

    def snapshot(self) -> Snapshot | None:
        """Return the snapshot, if there is one."""
        found = next(self._read("SELECT place, fingerprint, state FROM snapshot"), None)
        return Snapshot(*found) if found else None

    def _read(self, query: str, *words: int) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._db.execute(query, words)
        except sqlite3.Error as error:
            raise StoreFailed(f"{self._path}: cannot be read ({error})") from None

    def _failed(self, error: sqlite3.Error) -> StoreFailed:
        return StoreFailed(f"{self._path}: cannot be written ({error}); nothing is published")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._db.close()
        self._lock.close()
