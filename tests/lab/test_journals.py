import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree

import pytest
from msgspec.structs import replace

from lab import running, world
from lab.scenario import Scenario
from lab.stack.journals import Journals, endpoint_of, verify
from lab.stack.plan import KEYS, Plan, write_plan
from lab.stack.rotate import rotate
from messaging.codec import encode_event
from messaging.durable import Durable
from messaging.envelope import Envelope
from messaging.errors import FrameRefused, InputRefused, OmnimarginError, ReplayDiverged
from messaging.identity import read_entry
from messaging.key_files import read_later_signers, read_signer, write_keys
from messaging.messages import MarketMoved, PricePublished
from messaging.node import TimerFired
from messaging.record import Record
from messaging.store import Entry, Store
from messaging.units import HUB, NodeId, Usd6
from tests.messaging.seals import Seals
from tests.messaging.test_durable import small

BASE = NodeId("base")
PLAN = Plan(
    deployment="journals",
    bootstrap="127.0.0.1:1",
    epoch_ns=0,
    speed=1.0,
    settle_ms=0,
    monitor_port=1,
)


def write_stack(folder: Path, scenario: Scenario, records: list[Record]) -> None:
    """Leave what a stack leaves whose nodes saw this, its nodes stopped cleanly."""
    names = (*world.names_of(scenario), HUB)
    seals = Seals(records)
    write_plan(folder, PLAN, scenario)
    write_keys(folder / KEYS, names)
    for name in names:
        identity = {"role": name, "deployment": PLAN.deployment}
        with Store(folder / f"{name}.db", identity) as store:
            signer = read_signer(folder / KEYS, name, PLAN.domain)
            durable = Durable(endpoint_of(scenario, name), store, signer)
            for record in records:
                if record.node != name:
                    continue
                if isinstance(record.event, TimerFired):
                    durable.fire(record.at_us, record.event.name)
                else:
                    assert isinstance(record.event, Envelope)
                    durable.take(record.at_us, record.event, *seals.of(record.event))
            durable.commit({}, 0)
            durable.snapshot(durable.fingerprint())


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return list(world.build(small()).driver().run())


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, records: list[Record]) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    write_stack(folder, small(), records)
    return folder


@pytest.fixture
def stack(tmp_path: Path, stopped: Path) -> Path:
    return copytree(stopped, tmp_path / "stack")


def change_event(path: Path, change: Callable[[bytes], bytes], word: bytes = b"") -> None:
    """Change the last event of a journal that has this word in it."""
    with sqlite3.connect(path) as database:
        query = "SELECT place, event FROM journal WHERE instr(event, ?) ORDER BY place DESC LIMIT 1"
        ((place, event),) = database.execute(query, (word,)).fetchall()
        changed = change(event)
        assert changed != event
        database.execute("UPDATE journal SET event = ? WHERE place = ?", (changed, place))


def run(folder: Path) -> Iterator[Record]:
    return Journals(folder).run()


# --- together ---------------------------------------------------------------------------


def test_journals_together_are_the_run_in_virtual_time_byte_for_byte(
    stack: Path, records: list[Record]
) -> None:
    expected = running.run(world.build(small())).story
    journals = Journals(stack)

    outcome = running.run(journals.world, driver=journals)

    assert outcome.finding is None
    assert outcome.story.result.digest == expected.result.digest
    assert outcome.story.result.outside_digest == expected.result.outside_digest
    assert outcome.story.result.events == len(records)
    assert outcome.story.result.invariants_checked > 0


def test_a_run_that_was_stopped_early_is_the_first_part_of_it(
    tmp_path: Path, records: list[Record]
) -> None:
    last_us = records[len(records) // 2].at_us
    whole = [record for record in records if record.at_us <= last_us]
    write_stack(tmp_path, small(), whole)

    assert list(run(tmp_path)) == whole


def test_a_stack_that_has_done_nothing_has_an_empty_log(tmp_path: Path) -> None:
    write_stack(tmp_path, small(), [])
    assert all(record.at_us == 0 for record in run(tmp_path))
    assert verify(tmp_path) == {BASE: 0, NodeId("optimism"): 0, HUB: 0}


def test_the_event_at_which_a_node_fails_is_known(stack: Path) -> None:
    change_event(
        stack / "base.db", lambda _: encode_event(TimerFired("no such timer")), b"TimerFired"
    )
    journals = Journals(stack)
    with pytest.raises(AssertionError):
        list(journals.run())
    assert journals.failed is not None
    assert journals.failed[1:] == (BASE, TimerFired("no such timer"))


# --- one by one -------------------------------------------------------------------------


def test_each_journal_folds_to_what_its_node_was(stack: Path, records: list[Record]) -> None:
    counts = {
        name: sum(record.node == name for record in records)
        for name in (BASE, NodeId("optimism"), HUB)
    }
    assert verify(stack) == counts
    assert verify(stack) == counts  # looking changes nothing


def test_of_a_node_that_was_killed_two_folds_are_compared(stack: Path) -> None:
    counts = verify(stack)
    with sqlite3.connect(stack / "hub.db") as database:
        database.execute("DELETE FROM snapshot")
    with sqlite3.connect(stack / "base.db") as database:
        database.execute("UPDATE snapshot SET fingerprint = ''")
    assert verify(stack) == counts


def dearer(data: bytes) -> bytes:
    """Return the event with the price of one asset a millionth of a dollar higher."""
    event, _ = read_entry(data)
    assert isinstance(event, Envelope)
    match event.message:
        case PricePublished(price_usd6=price_usd6) as printed:
            return encode_event(
                replace(event, message=replace(printed, price_usd6=Usd6(price_usd6 + 1)))
            )
        case MarketMoved(prices_usd6=(first, *rest)) as moved:
            prices_usd6 = (Usd6(first + 1), *rest)
            return encode_event(replace(event, message=replace(moved, prices_usd6=prices_usd6)))
    raise AssertionError(f"expected a price, found {event}")


@pytest.mark.parametrize("name", [BASE, HUB])
def test_an_event_that_is_not_the_one_there_was_is_found(
    stack: Path, records: list[Record], name: NodeId
) -> None:
    change_event(
        stack / f"{name}.db", dearer, word=b"price_published" if name == HUB else b"market_moved"
    )

    with pytest.raises(ReplayDiverged, match=f"node {name}"):
        verify(stack)
    assert list(run(stack)) != records


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("DELETE FROM journal WHERE place = (SELECT max(place) FROM journal)", ReplayDiverged),
        ("UPDATE journal SET at_us = at_us + 1 WHERE place = (SELECT max(place) FROM journal)",
         ReplayDiverged),
        ("UPDATE snapshot SET fingerprint = lower(hex(zeroblob(16)))", ReplayDiverged),
        ("UPDATE journal SET event = x'c1' WHERE place = 5", FrameRefused),
        ("UPDATE meta SET value = 'base' WHERE name = 'role'", InputRefused),
    ],
)  # fmt: skip
def test_a_journal_that_is_not_whole_is_found_in_one_line(
    stack: Path, change: str, error: type[OmnimarginError]
) -> None:
    with sqlite3.connect(stack / "hub.db") as database:
        database.execute(change)
    with pytest.raises(error) as found:
        verify(stack)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(("name", "error"), [("block", None), ("later", FrameRefused)])
def test_what_came_after_the_last_snapshot_is_folded_too(
    stack: Path, name: str, error: type[OmnimarginError] | None
) -> None:
    with Store(stack / "hub.db", {"role": HUB, "deployment": PLAN.deployment}) as store:
        snapshot = store.snapshot()
        assert snapshot is not None
        (last,) = store.entries(snapshot.place - 1)
        store.commit([Entry(snapshot.place + 1, last.at_us, encode_event(TimerFired(name)))])
    if error is None:
        assert verify(stack)[HUB] == snapshot.place + 1
    else:
        with pytest.raises(error, match="expected a timer that is set, found later"):
            verify(stack)


# --- whose folder -----------------------------------------------------------------------


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InputRefused) as refused:
        call()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_running_stack_is_not_verified(stack: Path) -> None:
    with Store(stack / "hub.db", {"role": HUB, "deployment": PLAN.deployment}):
        assert refusal(lambda: verify(stack)).endswith("no other process writes, found one in use")
        assert len(list(run(stack))) > 1_000  # but may be read


def test_a_folder_of_no_stack_is_refused(tmp_path: Path) -> None:
    assert "expected the folder of a live stack" in refusal(lambda: Journals(tmp_path))
    assert "expected the folder of a live stack" in refusal(lambda: verify(tmp_path))
    write_plan(tmp_path, PLAN, small())
    assert refusal(lambda: Journals(tmp_path)) == (
        f"{tmp_path}: expected a journal of base, found none"
    )


def test_a_journal_that_is_no_database_is_refused(stack: Path) -> None:
    (stack / "hub.db").write_bytes(b"text" * 2_000)
    for left in stack.glob("hub.db-*"):
        left.unlink()
    assert f"{stack}/hub.db: expected a journal" in refusal(lambda: list(run(stack)))


def test_there_are_only_the_nodes_of_the_scenario() -> None:
    assert endpoint_of(small(), BASE).name == BASE
    assert endpoint_of(small(), HUB).name == HUB
    said = refusal(lambda: endpoint_of(small(), NodeId("moon")))
    assert said == "role: expected one of base, optimism, hub, found moon"


def test_a_stack_whose_nodes_have_changed_keys_still_gives_its_states_and_its_log(
    stack: Path, tmp_path: Path
) -> None:
    for name in (HUB, NodeId("base")):
        path, stopped = rotate(stack, name)
        assert (path.name, stopped) == (f"{name}.key.2", False)
        identity = {"role": name, "deployment": PLAN.deployment}
        with Store(stack / f"{name}.db", identity) as store:
            keys = stack / KEYS
            signer = read_signer(keys, name, PLAN.domain)
            later = read_later_signers(keys, name, PLAN.domain)
            durable = Durable(endpoint_of(small(), name), store, signer, later=later)
            durable.restart(durable.at_us, bytes(8))
            assert durable.rotate(durable.at_us) is not None
            assert durable.rotate(durable.at_us) is None
            durable.commit({}, 0)
            durable.snapshot(durable.fingerprint())
        path = stack / KEYS / f"{name}.key"
        path.unlink()  # a fold never signs
    verify(stack)
    journals = Journals(stack)
    outcome = running.run(journals.world, driver=journals, log=tmp_path / "rotated.mcap")
    assert outcome.finding is None

    said = refusal(lambda: rotate(stack, NodeId("oracle")))
    assert said == "node: expected one of hub, base, optimism, found oracle"
