import os
import pickle
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, Self

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.scenario import Scenario
from lab.stack.journals import endpoint_of
from lab.world import build
from messaging.codec import encode_frame
from messaging.durable import Durable
from messaging.envelope import Envelope
from messaging.errors import FrameRefused, InputLost, StoreFailed
from messaging.headers import DELIVERY, TIMER, Order, read_order, trace_of
from messaging.identity import NO_DIGEST, Signer, Verifier, domain_of
from messaging.link_control import Acknowledged
from messaging.messages import CHANNEL_FAMILIES, Family, LiquidationDone, LiquidationOrdered
from messaging.node import TimerFired
from messaging.record import Record
from messaging.snapshots import code_of
from messaging.store import Entry, Headers, Row, Snapshot, Store
from messaging.topics import channel_topic, routes, topic_of
from messaging.units import HUB, Height, Micros, NodeId
from tests.messaging.seals import Seals
from tests.simulation.small import scenario

ROOT = Path(__file__).parent.parent.parent
BASE = NodeId("base")
DOMAIN = domain_of("test", "durable", HUB)
SIGNERS = {HUB: Signer(DOMAIN, bytes(32)), BASE: Signer(DOMAIN, b"\1" * 32)}
VERIFIER = Verifier(DOMAIN, {name: signer.public for name, signer in SIGNERS.items()})
TOPIC = "a topic"
ROUTES = {route.topic: route for route in routes((BASE,))}


@cache
def small() -> Scenario:
    """Return an hour of a fall: liquidations over links that lose, repeat and reorder."""
    return scenario(
        duration_h=1.2,
        seed=2,
        tick_s=30.0,
        starts_at_utc="2020-03-12T10:18:00Z",
        prices={"start_hours": 4.3},
        traders={"accounts": 14, "open_until_h": 0.1, "leverage_min": 6.0},
        spokes=[{"name": "base", "chain": "base"}, {"name": "optimism", "chain": "optimism"}],
        links={"loss_ppm": 100_000, "repeat_ppm": 50_000, "reorder_ppm": 50_000},
        latency="constant:5s",
        reporting={"tend_s": 10.0, "ack_after_s": 10.0},
        hub={"look_s": 600.0},
    )


@cache
def everything() -> list[Record]:
    return list(build(small()).driver().run())


@cache
def seals() -> Seals:
    return Seals(everything())


@cache
def seen_by(name: NodeId) -> list[Record]:
    """Return what a node saw and did in virtual time."""
    return [record for record in everything() if record.node == name]


class Said(NamedTuple):
    """One frame as virtual time has it: where it stands, and whether it was sent before."""

    topic: str
    seq: int
    again: bool
    frame: bytes
    headers: dict[str, bytes]


@cache
def said_by(name: NodeId) -> list[list[Said]]:
    """Return the frames that each event of a node makes."""
    found: list[list[Said]] = []
    sent: set[tuple[str, int]] = set()
    count = 0
    for record in seen_by(name):
        found.append([])
        for frame in record.effects:
            if not isinstance(frame, Envelope):
                continue
            count += 1
            cause = TIMER if isinstance(record.event, TimerFired) else DELIVERY
            headers = {"order": f"{record.at_us}.{cause}.{count}".encode()}
            if hasattr(frame.message, "liq_id"):
                headers["traceparent"] = trace_of(frame)
            topic = channel_topic(name, frame.receiver, frame.family)
            again = frame.seq > 0 and (topic, frame.seq) in sent
            sent.add((topic, frame.seq))
            found[-1].append(Said(topic, frame.seq, again, encode_frame(frame), headers))
    return found


class Life:
    """A node on its file, shown what the same node saw in virtual time.

    Attributes:
        given: all rows that commits have returned, in order.
        marked: how many of them are marked as published.
    """

    def __init__(self, name: NodeId, path: Path, snapshot_events: int = 10_000) -> None:
        self.name, self.path = name, path
        self.snapshot_events = snapshot_events
        self.given: list[Row] = []
        self.marked = 0
        self.start()

    def start(self) -> None:
        self.store = Store(self.path, {"role": self.name})
        self.durable = Durable(
            endpoint_of(small(), self.name),
            self.store,
            SIGNERS[self.name],
        )

    def live(self, count: int) -> None:
        """Show the next events; each timer must be due when virtual time had it due."""
        durable = self.durable
        for record in seen_by(self.name)[durable.place : durable.place + count]:
            timer = durable.next_timer()
            if isinstance(record.event, TimerFired):
                assert timer is not None
                assert (timer[0], timer[2]) == (record.at_us, record.event.name)
                durable.fire(record.at_us, record.event.name)
            else:
                assert timer is None or timer[0] >= record.at_us
                assert isinstance(record.event, Envelope)
                durable.take(record.at_us, record.event, *seals().of(record.event))

    def commit(self, mark: int = 0) -> list[Row]:
        """Commit with the cursor of the last event; mark so many more rows as published."""
        self.marked = min(self.marked + mark, len(self.given))
        rows = self.durable.commit({TOPIC: self.durable.place}, self.marked)
        if self.durable.place - self.durable.snapshot_place >= self.snapshot_events:
            self.durable.snapshot("")
        self.given += rows
        return rows

    def stop(self) -> None:
        """End the process as a kill does: what is in memory is gone."""
        self.store.__exit__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def decoded(headers: bytes) -> dict[str, bytes]:
    return dict(msgspec.msgpack.decode(headers, type=Headers))


def check_rows(name: NodeId, rows: list[Row], count: int) -> None:
    """Insist that rows are what virtual time has for the first `count` events, sealed once."""
    expected = [said for event in said_by(name)[:count] for said in event]
    assert [row.number for row in rows] == list(range(1, len(expected) + 1))
    newest: dict[str, bytes] = {}
    bytes_of: dict[tuple[str, int], bytes] = {}
    for row, said in zip(rows, expected, strict=True):
        assert (row.topic, decoded(row.headers)) == (said.topic, said.headers)
        assert row.seq == (0 if said.again else said.seq)
        if said.again:
            assert row.data == bytes_of[said.topic, said.seq]
            continue
        sealed = VERIFIER.open(row.data, name)
        assert sealed.frame == said.frame
        assert sealed.before == (newest.get(row.topic, NO_DIGEST) if row.seq else NO_DIGEST)
        if row.seq:
            assert (row.topic, row.seq) not in bytes_of
            newest[row.topic] = sealed.digest()
            bytes_of[row.topic, row.seq] = row.data


# --- as in virtual time -----------------------------------------------------------------


@pytest.mark.parametrize("name", [HUB, BASE])
def test_a_durable_node_says_what_it_says_in_virtual_time_to_the_byte(
    tmp_path: Path, name: NodeId
) -> None:
    with Life(name, tmp_path / "node.db") as life:
        for count in (0, 1, 7, 500, 10**6):
            life.live(count)
            life.commit()

        assert life.durable.place == len(seen_by(name))
        assert life.durable.at_us == seen_by(name)[-1].at_us
        check_rows(name, life.given, life.durable.place)
    every = [said for event in said_by(name) for said in event]
    assert any(said.again for said in every)
    assert any(said.seq == 0 for said in every)
    assert any("traceparent" in said.headers for said in every)


def test_what_is_sent_vouches_for_all_before_it_in_any_order(tmp_path: Path) -> None:
    with Life(HUB, tmp_path / "node.db") as life:
        life.live(600)
        rows = life.commit()
    for topic in {row.topic for row in rows}:
        sent = [row.data for row in rows if row.topic == topic]
        found = VERIFIER.open_row(sent[::-1], HUB, {})
        assert found == [VERIFIER.open_linked(data, HUB) for data in sent[::-1]]


def test_one_liquidation_is_one_trace_wherever_it_is_told() -> None:
    traces: dict[bytes, set[bytes]] = {}
    spans = set()
    for name in (HUB, BASE):
        for record in seen_by(name):
            for frame in record.effects:
                if isinstance(frame, Envelope) and hasattr(frame.message, "liq_id"):
                    found = re.fullmatch(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-01", trace_of(frame))
                    assert found is not None
                    traces.setdefault(frame.message.liq_id, set()).add(found[1])
                    spans.add((frame.sender, frame.family, frame.seq, found[2]))
    assert all(len(one) == 1 for one in traces.values())
    assert len({span[3] for span in spans}) == len({span[:3] for span in spans})
    kinds = {type(frame.message) for frame in frames_of(HUB) + frames_of(BASE)}
    assert kinds >= {LiquidationOrdered, LiquidationDone}


def frames_of(name: NodeId) -> list[Envelope]:
    return [one for record in seen_by(name) for one in record.effects if isinstance(one, Envelope)]


# --- stopping anywhere ------------------------------------------------------------------


class Then(StrEnum):
    """What happens after some events."""

    COMMIT = "commit"
    STOP = "stop"  # what is not committed is gone
    SNAPSHOT = "snapshot"
    QUICK_SNAPSHOT = "quick snapshot"  # without a hash of it
    STOP_WITHOUT_SNAPSHOT = "stop, snapshot damaged"


def damage(path: Path) -> None:
    """Change a byte in the middle of the snapshot, if there is one."""
    with sqlite3.connect(path) as database:
        for (state,) in database.execute("SELECT state FROM snapshot").fetchall():
            middle = len(state) // 2
            damaged = state[:middle] + bytes([state[middle] ^ 1]) + state[middle + 1 :]
            database.execute("UPDATE snapshot SET state = ?", (damaged,))


plans = st.lists(
    st.tuples(st.integers(0, 120), st.sampled_from(Then), st.integers(0, 150)), max_size=14
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.sampled_from([HUB, BASE]), plan=plans)
def test_wherever_it_stops_a_node_goes_on_as_if_it_had_not(
    tmp_path_factory: pytest.TempPathFactory, name: NodeId, plan: list[tuple[int, Then, int]]
) -> None:
    path = tmp_path_factory.mktemp("node") / "node.db"
    with Life(name, path) as life:
        committed, known = 0, life.durable.fingerprint()
        cursors: dict[str, int] = {}
        for count, then, mark in [*plan, (40, Then.COMMIT, 0), (0, Then.STOP, 0)]:
            life.live(count)
            if then in (Then.STOP, Then.STOP_WITHOUT_SNAPSHOT):
                life.stop()
                if then is Then.STOP_WITHOUT_SNAPSHOT:
                    damage(path)
                life.start()
                assert (life.durable.place, life.durable.fingerprint()) == (committed, known)
                assert life.durable.unpublished() == life.given[life.marked :]
                assert life.store.cursors() == cursors
                continue
            life.commit(mark)
            committed, known = life.durable.place, life.durable.fingerprint()
            cursors = {TOPIC: committed}
            if then is Then.SNAPSHOT:
                life.durable.snapshot(known)
            elif then is Then.QUICK_SNAPSHOT:
                life.durable.snapshot("")
        check_rows(name, life.given, committed)


def test_every_prefix_of_a_journal_folds_to_the_state_that_was_and_gives_the_same_rows(
    tmp_path: Path,
) -> None:
    with Life(HUB, tmp_path / "node.db") as life:
        for place in range(1, 121):
            life.live(1)
            life.commit()
            with sqlite3.connect(f"file:{life.path}?mode=ro", uri=True) as reader:
                *_, entry = map(Entry._make, reader.execute("SELECT * FROM journal"))
                kept = [Row._make(row) for row in reader.execute("SELECT * FROM outbox")]
                assert dict(reader.execute("SELECT * FROM inbox")) == {TOPIC: place}
            assert kept == life.given
            with Store(tmp_path / "fold.db", {}) as store:
                store.commit([entry])
                fold = Durable(endpoint_of(small(), HUB), store, SIGNERS[HUB])
                assert (fold.place, fold.folded) == (place, place)
                assert fold.fingerprint() == life.durable.fingerprint()
                assert fold.next_timer() == life.durable.next_timer()
        check_rows(HUB, life.given, 120)
    assert len(life.given) > 30


PRINT_FOLD = """
import sys
from pathlib import Path
from messaging.durable import Durable
from messaging.store import Store
from tests.messaging.test_durable import BASE, SIGNERS, endpoint_of, small
with Store(Path(sys.argv[1]), {"role": BASE}) as store:
    print(Durable(endpoint_of(small(), BASE), store, SIGNERS[BASE]).fingerprint())
"""


def test_another_process_with_another_hash_seed_folds_to_the_same_state(tmp_path: Path) -> None:
    with Life(BASE, tmp_path / "node.db") as life:
        life.live(700)
        life.commit()
        expected = life.durable.fingerprint()
    out = subprocess.run(
        [sys.executable, "-c", PRINT_FOLD, str(life.path)],
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == expected


# --- snapshots --------------------------------------------------------------------------


class Gone(msgspec.Struct):
    """What another version of the code kept, and this one does not know."""

    colour: str = ""


def summed(state: bytes) -> bytes:
    code = code_of("hub.node", "messaging.durable")  # whose sum would be right
    return blake2b(state, key=code, digest_size=16).digest() + state


def another_value(state: bytes) -> bytes:
    """Let an enum of the state have a value that this version does not know."""
    known, unknown = b"\x8c\x0breservation", b"\x8c\x0bremittances"  # as pickle writes a text
    assert known in state
    return summed(state[16:].replace(known, unknown))


UNUSABLE: dict[str, Callable[[Snapshot], Snapshot]] = {
    "cut off": lambda one: one._replace(state=one.state[:-1]),
    "nothing": lambda one: one._replace(state=b""),
    "another sum": lambda one: one._replace(state=bytes(16) + one.state[16:]),
    "another hash": lambda one: one._replace(fingerprint=one.fingerprint[::-1]),
    "no pickle": lambda one: one._replace(state=summed(b"text")),
    "an empty pickle": lambda one: one._replace(state=summed(b"")),
    "of other code": lambda one: one._replace(
        state=blake2b(one.state[16:], key=code_of("messaging"), digest_size=16).digest()
        + one.state[16:]
    ),
    "of something else": lambda one: one._replace(state=summed(pickle.dumps(Gone()))),
    "of a class that is gone": lambda one: one._replace(
        state=summed(one.state[16:].replace(b"_Memory", b"_Gone__"))
    ),
    "of a module that is gone": lambda one: one._replace(
        state=summed(one.state[16:].replace(b"hub.ledger", b"hub.legder"))
    ),
    "of a value that is gone": lambda one: one._replace(state=another_value(one.state)),
}


@pytest.mark.parametrize("change", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_snapshot_that_cannot_be_used_costs_nothing_but_time(
    tmp_path: Path, change: Callable[[Snapshot], Snapshot]
) -> None:
    with Life(HUB, tmp_path / "node.db") as life:
        life.live(400)
        life.commit()
        life.commit(mark=10**6)
        expected = life.durable.fingerprint()
        life.durable.snapshot(expected)
        before = life.store.snapshot()
        assert before is not None
        assert change(before) != before
        life.store.keep(change(before))
        life.stop()

        life.start()

        assert life.durable.folded == 400
        assert life.durable.fingerprint() == expected
        life.live(400)
        life.commit()
        check_rows(HUB, life.given, 800)


def test_a_snapshot_that_is_sound_saves_the_fold_and_its_state_is_all_there(
    tmp_path: Path,
) -> None:
    with Life(HUB, tmp_path / "node.db") as life:
        life.live(400)
        life.commit()
        life.durable.snapshot(life.durable.fingerprint())
        life.live(50)
        life.commit()
        expected = life.durable.fingerprint()
        life.stop()
        # Nothing before the snapshot is read, so none of it need be there.
        with sqlite3.connect(life.path) as database:
            database.execute("DELETE FROM journal WHERE place <= 400")

        life.start()

        assert (life.durable.place, life.durable.folded) == (450, 50)
        assert life.durable.fingerprint() == expected


def test_snapshots_drop_what_is_published_and_acknowledged(
    tmp_path: Path,
) -> None:
    places = []
    with Life(HUB, tmp_path / "node.db", snapshot_events=200) as life:
        while life.durable.place < 1_000:
            life.live(30)
            life.commit(mark=25)
            found = life.store.snapshot()
            if found is not None and found.place not in places:
                places.append(found.place)
                unacked = {
                    (channel_topic(HUB, *key), seq)
                    for key, outbox in life.durable.endpoint.outboxes.items()
                    for seq in outbox.unacked
                }
                kept = list(life.store.rows())
                assert all(
                    row.number > life.marked or (row.topic, row.seq) in unacked for row in kept
                )
                assert unacked <= {(row.topic, row.seq) for row in kept}
                assert kept == [row for row in life.given if row in kept]
        assert places == [210, 420, 630, 840]
        assert len(kept) < len(life.given) / 2
        life.stop()
        life.start()
        assert life.durable.folded == life.durable.place - 840
        life.live(10**6)
        life.commit()
        check_rows(HUB, life.given, life.durable.place)


def test_a_snapshot_is_of_what_is_committed_only(tmp_path: Path) -> None:
    with Life(HUB, tmp_path / "node.db") as life:
        life.live(1)
        assert life.durable.waiting == 1
        with pytest.raises(AssertionError, match="a snapshot is of what is committed"):
            life.durable.snapshot("")


# --- what may leave, and what may not ---------------------------------------------------


def test_nothing_may_leave_before_its_commit_nor_ever_if_that_fails(tmp_path: Path) -> None:
    with Life(HUB, tmp_path / "node.db") as life:
        life.live(200)
        life.commit()
        life.live(400)
        assert life.durable.unpublished() == life.given
        (pages,) = life.store._db.execute("PRAGMA page_count").fetchone()
        life.store._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreFailed):
            life.commit()
        life.stop()

        life.start()

        assert life.durable.place == 200
        assert life.durable.unpublished() == life.given
        life.live(400)
        life.commit()
        check_rows(HUB, life.given, 600)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=20), st.booleans()), max_size=8))
def test_dead_letters_have_numbers_of_their_own_and_disturb_no_other(
    tmp_path_factory: pytest.TempPathFactory, plan: list[tuple[int, bytes, bool]]
) -> None:
    with Life(BASE, tmp_path_factory.mktemp("node") / "node.db") as life:
        refused = []
        for count, data, stops in plan:
            life.live(count)
            life.durable.refuse(data, {"why": "not ours", "offset": "7"})
            if stops:
                life.commit()
                refused.append(data)
                life.stop()
                life.start()
            else:  # what was refused and not committed is refused again, for it is read again
                life.stop()
                life.start()
        life.live(100)
        life.commit()
        letters = [row for row in life.given if row.topic == "dlq.base"]
        assert [(row.seq, row.data) for row in letters] == [(0, data) for data in refused]
        assert all(decoded(row.headers) == {"why": b"not ours", "offset": b"7"} for row in letters)
        assert [row.number for row in life.given] == list(range(1, len(life.given) + 1))
        others = [row for row in life.given if row.topic != "dlq.base"]
        check_rows(
            BASE,
            [row._replace(number=number) for number, row in enumerate(others, start=1)],
            life.durable.place,
        )


def test_what_has_been_heard_outside_channels_is_remembered(tmp_path: Path) -> None:
    """Orders and prices come with a count, by which a repeat is known (P16)."""
    counts: dict[str, Envelope] = {}
    with Life(BASE, tmp_path / "node.db") as life:
        for place, record in enumerate(seen_by(BASE)[:400], start=1):
            life.live(1)
            event = record.event
            if isinstance(event, Envelope) and event.family not in CHANNEL_FAMILIES:
                counts[topic_of(event)] = event
            if place % 100 == 0:
                life.commit()
                if place == 200:
                    life.durable.snapshot("")
                life.stop()
                life.start()
            for topic, last in counts.items():
                assert life.durable.is_repeat(ROUTES[topic], last)
                after = msgspec.structs.replace(last, seq=last.seq + 1)
                assert not life.durable.is_repeat(ROUTES[topic], after)
                with pytest.raises(InputLost, match=f"expected number {last.seq + 1}, found"):
                    life.durable.is_repeat(
                        ROUTES[topic], msgspec.structs.replace(after, seq=last.seq + 2)
                    )
    assert set(counts) == {"order.base", "market.base"}


def test_time_never_goes_back(tmp_path: Path) -> None:
    with Life(HUB, tmp_path / "node.db") as life:
        life.live(100)
        timer = life.durable.next_timer()
        assert timer is not None
        with pytest.raises(AssertionError, match="expected time to go on from"):
            life.durable.fire(Micros(life.durable.at_us - 1), timer[2])


@pytest.mark.parametrize("event", [b"", b"garbage", msgspec.msgpack.encode(["frame.9", 1])])
def test_a_journal_of_another_version_is_refused_in_one_line(tmp_path: Path, event: bytes) -> None:
    with Store(tmp_path / "node.db", {}) as store:
        store.commit([Entry(1, 0, event)])
        with pytest.raises(FrameRefused) as refused:
            Durable(endpoint_of(small(), HUB), store, SIGNERS[HUB])
        assert "\n" not in str(refused.value)


# --- headers ----------------------------------------------------------------------------

FRAME = Envelope(
    BASE, HUB, Family.RESERVATION, 1, 0, Micros(77), Height(0), Height(0), Acknowledged()
)
numbers = st.integers(0, 2**62)


@given(left_us=numbers, cause=st.sampled_from([TIMER, DELIVERY]), number=numbers)
def test_an_order_is_read_as_it_was_written(left_us: int, cause: int, number: int) -> None:
    header = f"{left_us}.{cause}.{number}".encode()
    assert read_order({"order": header, "other": b"x"}, FRAME) == (left_us, cause, number)


junk = st.one_of(
    st.binary(max_size=20).filter(lambda header: header.count(b".") != 2),
    st.sampled_from([b"", b"5.1", b"5.1.1.1", b"1e3.1.1", b"x.1.1", b"1..1", b"\xff.1.1"]),
    st.integers(5_000, 9_000).map(lambda size: b"9" * size + b".1.1"),
)


@given(junk)
def test_a_header_that_is_none_of_ours_leaves_a_frame_its_own_time(header: bytes) -> None:
    """No seal covers headers: whoever writes to the topic chooses them."""
    assert read_order({"order": header}, FRAME) == Order(Micros(77), DELIVERY, 0)
    assert read_order({}, FRAME) == Order(Micros(77), DELIVERY, 0)
