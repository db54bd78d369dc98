import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from messaging.errors import InputRefused, StoreFailed
from messaging.store import Entry, Row, Snapshot, Store

ROOT = Path(__file__).parent.parent.parent
WHO = {"role": "base", "deployment": "one"}
SAID_MAX = 10_000  # lines of a writer that never ends
TOPICS = st.sampled_from(["from-base.reservation", "from-base.liquidation", "dlq.base"])

quick = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def entry(place: int) -> Entry:
    return Entry(place, place * 10, b"event %d" % place)


def row(number: int, topic: str = "topic", seq: int = 0) -> Row:
    return Row(number, topic, seq, b"headers", b"data %d" % number)


def store_at(path: Path, who: Mapping[str, str] = WHO) -> Store:
    return Store(path, who)


def failure(call: Callable[[], object]) -> str:
    with pytest.raises(StoreFailed) as failed:
        call()
    assert "\n" not in str(failed.value)
    assert failed.value.exit_code == 75
    return str(failed.value)


def refusal(path: Path, who: Mapping[str, str] = WHO) -> str:
    """Return why a file is refused; in one line, and letting go of it again."""
    said = ""
    try:
        Store(path, who).__exit__()
    except InputRefused as error:
        said = str(error)
    assert said
    assert "\n" not in said
    return said


# --- one file ---------------------------------------------------------------------------


def test_what_is_committed_is_there_again(tmp_path: Path) -> None:
    with store_at(tmp_path / "deep" / "base.db") as store:
        assert (store.published, store.last_number, store.snapshot()) == (0, 0, None)
        store.commit([entry(1), entry(2)], {"a": 5, "b": 7}, [row(1), row(2, "x", 9)], 1)
        store.commit([entry(3)], {"a": 6})
        store.keep(Snapshot(2, "old", b"old"))
        store.keep(Snapshot(3, "hash", b"state"))

    with store_at(tmp_path / "deep" / "base.db") as store:
        assert list(store.entries()) == [entry(1), entry(2), entry(3)]
        assert list(store.entries(2)) == [entry(3)]
        assert store.cursors() == {"a": 6, "b": 7}
        assert list(store.rows()) == [row(1), row(2, "x", 9)]
        assert (store.published, store.last_number) == (1, 2)
        assert store.snapshot() == Snapshot(3, "hash", b"state")


def test_every_commit_is_synced_to_disk_and_others_may_read_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "base.db"
    with store_at(path) as store:
        assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        store.commit([entry(1)])
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as reader:
            assert reader.execute("SELECT count(*) FROM journal").fetchone() == (1,)
        store.commit([entry(2)])


@quick
@given(marks=st.lists(st.integers(0, 9), max_size=6))
def test_what_is_marked_as_published_never_becomes_unmarked(
    tmp_path_factory: pytest.TempPathFactory, marks: list[int]
) -> None:
    path = tmp_path_factory.mktemp("store") / "base.db"
    for place, mark in enumerate(marks):
        with store_at(path) as store:
            store.commit(published=mark)
            assert store.published == max(marks[: place + 1])
            store.commit()
    with store_at(path) as store:
        assert store.published == max(marks, default=0)


@quick
@given(
    kept=st.lists(st.tuples(TOPICS, st.integers(0, 9)), max_size=20),
    published=st.integers(0, 20),
    oldest=st.dictionaries(TOPICS, st.integers(1, 10)),
)
def test_only_what_is_published_and_acknowledged_is_forgotten(
    tmp_path_factory: pytest.TempPathFactory,
    kept: list[tuple[str, int]],
    published: int,
    oldest: dict[str, int],
) -> None:
    rows = [row(number, *one) for number, one in enumerate(kept, start=1)]
    path = tmp_path_factory.mktemp("store") / "base.db"
    with store_at(path) as store:
        store.commit(rows=rows, published=published)
        store.forget(oldest)

        left = [
            one
            for one in rows
            if one.number > published or (one.topic in oldest and one.seq >= oldest[one.topic])
        ]
        assert list(store.rows()) == left

    with store_at(path) as store:
        assert list(store.rows()) == left
        # A number is never given twice, even if nothing is left that has it.
        assert store.last_number == max([published, *(one.number for one in left)])


# --- all or none ------------------------------------------------------------------------

WRITER = """
import resource, sys
from pathlib import Path
from messaging.errors import StoreFailed
from messaging.store import Entry, Row, Store

path, limit = Path(sys.argv[1]), int(sys.argv[2])
store = Store(path, {"role": "base", "deployment": "one"})
place = sum(1 for _ in store.entries())
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
print("ready", flush=True)
while True:
    first, size = place + 1, 1 + place % 40
    entries = [Entry(one, one, b"e" * 400) for one in range(first, first + size)]
    rows = [Row(one, "topic", one, b"", b"r" * 400) for one in range(first, first + size)]
    try:
        store.commit(entries, {"topic": place + size, "other": place + size}, rows, place)
    except StoreFailed as error:
        print(error, flush=True)
        sys.exit(error.exit_code)
    place += size
    print(place, flush=True)
"""


def writer(path: Path, limit: int = 0) -> subprocess.Popen[str]:
    """Start a process that commits for ever, and says the last place of each commit."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(limit)],
        env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def check_whole(path: Path) -> int:
    """Insist that journal, cursors and outbox are of one commit; return its last place."""
    with store_at(path) as store:
        places = [one.place for one in store.entries()]
        last = len(places)
        assert places == list(range(1, last + 1))
        assert [one.number for one in store.rows()] == places
        assert store.cursors() == ({"topic": last, "other": last} if last else {})
        assert store.last_number == last
        assert store.published <= last
        return last


def test_a_kill_at_any_time_leaves_whole_commits_and_none_that_was_told_is_lost(
    tmp_path: Path,
) -> None:
    path, dice = tmp_path / "base.db", random.Random(7)
    told = before = 0
    for _ in range(6):
        process = writer(path)
        try:
            assert said(process) == "ready"
            for _ in range(dice.randrange(60)):
                told = int(said(process))
        finally:
            process.send_signal(signal.SIGKILL)
            rest, _ = process.communicate(timeout=30)
        lines = [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        told = max([told, *map(int, lines)])

        last = check_whole(path)
        assert last >= told
        assert last >= before
        before = last
    assert told > 100


@pytest.mark.parametrize("limit", [80_000, 300_000])
def test_a_disk_that_is_full_ends_the_process_and_keeps_what_it_had(
    tmp_path: Path, limit: int
) -> None:
    process = writer(tmp_path / "base.db", limit)
    out, _ = process.communicate(timeout=60)

    *told, last_word = out.splitlines()
    assert process.returncode == 75
    assert last_word.startswith(f"{tmp_path}/base.db: cannot be written (")
    assert last_word.endswith("); nothing is published")
    assert check_whole(tmp_path / "base.db") == int(told[-1])


def test_nothing_of_a_failed_commit_is_there_afterwards_and_a_later_start_goes_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "base.db"
    large = [Entry(place, place, bytes(5_000)) for place in range(2, 200)]
    with store_at(path) as store:
        store.commit([entry(1)], {"topic": 1}, [row(1)], 1)
        (pages,) = store._db.execute("PRAGMA page_count").fetchone()
        store._db.execute(f"PRAGMA max_page_count = {pages + 5}")

        failure(lambda: store.commit(large, {"topic": 9, "new": 9}, [row(2)], 2))
        failure(lambda: store.commit([entry(2)]))  # the process must end, so it stays failed

    with store_at(path) as store:
        assert list(store.entries()) == [entry(1)]
        assert list(store.rows()) == [row(1)]
        assert (store.cursors(), store.published, store.last_number) == ({"topic": 1}, 1, 1)
        store.commit(large, {"topic": 9})
        assert store.cursors() == {"topic": 9}


@pytest.mark.parametrize(
    "again",
    [
        lambda store: store.commit([entry(2), entry(1)], {"topic": 2}, [row(2)], 2),
        lambda store: store.commit([entry(2)], {"topic": 2}, [row(2), row(1)], 2),
    ],
)
def test_a_place_or_number_given_twice_fails_as_a_whole(
    tmp_path: Path, again: Callable[[Store], None]
) -> None:
    path = tmp_path / "base.db"
    with store_at(path) as store:
        store.commit([entry(1)], {"topic": 1}, [row(1)], 1)
        failure(lambda: again(store))
    with store_at(path) as store:
        assert (list(store.entries()), list(store.rows())) == ([entry(1)], [row(1)])
        assert (store.cursors(), store.published) == ({"topic": 1}, 1)


# --- whose file -------------------------------------------------------------------------


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "base.db"
    process = writer(path)
    try:
        assert said(process) == "ready"
        expected = f"{path}: expected a file that no other process writes, found one in use"
        assert refusal(path) == expected
        for _ in range(20):
            assert said(process).isdigit()  # the first is not disturbed
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    assert check_whole(path) > 0


def test_a_file_is_free_again_once_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "base.db"
    with store_at(path):
        assert refusal(path).endswith("found one in use")
    with store_at(path) as store:
        store.commit([entry(1)])


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ({"role": "hub", "deployment": "one"}, "role: expected hub, found base"),
        ({"role": "base", "deployment": "two"}, "deployment: expected two, found one"),
        ({**WHO, "schema": "0"}, "schema: expected 0, found 1"),
    ],
)
def test_a_file_of_another_node_or_deployment_is_refused_and_left_alone(
    tmp_path: Path, who: dict[str, str], words: str
) -> None:
    path = tmp_path / "base.db"
    with store_at(path) as store:
        store.commit([entry(1)])
    assert refusal(path, who) == f"{path}: {words}"
    with store_at(path) as store:
        assert list(store.entries()) == [entry(1)]


def test_what_is_no_file_of_ours_fails_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_bytes(b"not a database, but long enough to look like one" * 99)
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "text.db", tmp_path / "folder.db", tmp_path / "file" / "base.db"):
        assert failure(lambda path=path: store_at(path)).startswith(f"{tmp_path}/")  # type: ignore[misc]


def test_a_damaged_file_fails_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "base.db"
    with store_at(path) as store:
        store.commit([Entry(place, 0, bytes(3_000)) for place in range(1, 400)], {"topic": 1})
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(b"\x5a" * (len(data) - len(data) // 2))
    path.write_bytes(data)

    def read_all() -> None:
        with store_at(path) as store:
            list(store.entries())

    assert str(path) in failure(read_all)
