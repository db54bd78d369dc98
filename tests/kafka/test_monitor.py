"""The monitor as a process on a real broker: silent on honest frames, HALT on planted money."""

import asyncio
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lab.monitor.tables import CHANGELOGS
from lab.scenario import assets_of
from lab.stack.broker import Broker
from lab.stack.plan import KEYS, State, Status, read_status, write_plan
from lab.stack.prepare import free_port
from lab.stack.topics import create_topics
from lab.world import deposits_of
from messaging.codec import decode_frame, encode_frame
from messaging.envelope import NO_HEIGHT, Envelope
from messaging.identity import NO_DIGEST
from messaging.key_files import read_signer, read_verifier
from messaging.messages import (
    CHANNEL_FAMILIES,
    CreditUsed,
    Family,
    HaltOrdered,
    HaltReason,
    Message,
    RejectReason,
    ReservationGranted,
    ReservationRejected,
    ReservationRequested,
    SpokeHalted,
)
from messaging.topics import HALT_TOPIC
from messaging.units import HUB, MONITOR, RELAY, USD, Micros, NodeId, ReservationId, Usd6
from tests.kafka import records
from tests.kafka.stack import BUSY, LIMIT_S, ROOT, Stack, paused, scenario

pytestmark = pytest.mark.kafka

# As busy as BUSY, but patient: a machine that is slow for a second makes no storm of resends.
CALM = {name: BUSY[name] for name in ("duration_h", "prices", "traders")}
CALM["latency"] = "constant:20s"
BASE = NodeId("base")
HALTED = RejectReason.HALTED
UP, DOWN = f"from-{BASE}.reservation", f"to-{BASE}.reservation"


class Watcher:
    """The monitor of a stack, as a child with a pipe at its standard input."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.process: subprocess.Popen[bytes] | None = None
        self.log = stack.folder / "monitor.log"
        plan = msgspec.structs.replace(stack.plan, monitor_port=free_port(0))
        self.port = plan.monitor_port
        stack.plan = plan
        write_plan(stack.folder, plan, stack.scenario)
        topics = create_topics(stack.connection, stack.spokes, extra=CHANGELOGS, keep=True)
        asyncio.run(topics)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lab.monitor", str(self.stack.folder)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )

    def up(self) -> None:
        """Start it, and wait until it has read all there is."""
        self.start()
        self.wait(lambda: self.status().state is State.RUNNING, "it to run")

    def status(self) -> Status:
        assert self.process is not None
        status = read_status(self.stack.folder, MONITOR)
        if status is None or status.pid != self.process.pid:
            none = Micros(0)
            return Status(role=MONITOR, pid=self.process.pid, state=State.WAITING, at_us=none)
        return status

    def get(self, path: str = "/") -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return bytes(answer.read())

    def figures(self) -> dict[str, Any]:
        return dict(json.loads(self.get()))

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, holds: Callable[[], object], what: str, *, alive: bool = True) -> None:
        """Wait until something holds."""
        assert self.process is not None
        until_s = time.monotonic() + LIMIT_S
        while not holds():
            ended = alive and self.process.poll() is not None
            if ended or time.monotonic() > until_s:
                raise AssertionError(f"expected {what}: {self.status()}\n{self.said()[-3_000:]}")
            time.sleep(0.02)

    def end(self, how: signal.Signals | None = None) -> int:
        """Close its pipe, or send a signal; return the exit code."""
        assert self.process is not None
        assert self.process.stdin is not None
        if how is None:
            self.process.stdin.close()
        else:
            self.process.send_signal(how)
        return self.process.wait(LIMIT_S)

    def clean_up(self) -> None:
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            if self.process.stdin is not None:
                self.process.stdin.close()

    # --- topics -------------------------------------------------------------------------

    def write(
        self, topic: str, sender: NodeId, receiver: NodeId, *messages: Message, first: int = 1
    ) -> float:
        """Write frames as their sender would, the next in its row; return when [s]."""
        verifier = read_verifier(self.stack.folder / KEYS, self.stack.plan.domain)
        signer = read_signer(self.stack.folder / KEYS, sender, self.stack.plan.domain)
        seq, before = first - 1, NO_DIGEST
        for record in records.read(self.stack.connection, topic):
            sealed = verifier.open(record.value, sender)
            frame = decode_frame(sealed.frame)
            if frame.seq > seq:
                seq, before = frame.seq, sealed.digest()
        rows = []
        for message in messages:
            seq += 1
            now_us = Micros(max(0, self.stack.now_us()))
            family = Family.RESERVATION
            frame = Envelope(
                sender, receiver, family, seq, 0, now_us, NO_HEIGHT, NO_HEIGHT, message
            )
            data, before = signer.seal(encode_frame(frame), before)
            rows.append((data, []))
        offset = records.write(self.stack.connection, topic, rows)[0]
        planted = records.read(self.stack.connection, topic)
        return next(one.timestamp for one in planted if one.offset == offset) / 1e3

    def opened(self, value: bytes, sender: NodeId) -> Envelope:
        verifier = read_verifier(self.stack.folder / KEYS, self.stack.plan.domain)
        return decode_frame(verifier.open(value, sender).frame)

    def halts(self) -> list[tuple[float, Envelope, HaltOrdered]]:
        """Return all HALTs, each with when it was written [s]; seals and numbers are right."""
        verifier = read_verifier(self.stack.folder / KEYS, self.stack.plan.domain)
        found, before = [], NO_DIGEST
        for record in records.read(self.stack.connection, HALT_TOPIC):
            sealed = verifier.open(record.value, MONITOR)
            frame = decode_frame(sealed.frame)
            assert isinstance(frame.message, HaltOrdered)
            assert (frame.sender, frame.receiver, frame.family) == (MONITOR, HUB, Family.CONTROL)
            assert (frame.seq, sealed.before) == (len(found) + 1, before)
            before = sealed.digest()
            found.append((record.timestamp / 1e3, frame, frame.message))
        return found


@pytest.fixture
def quiet(broker: Broker, tmp_path: Path) -> Iterator[Watcher]:
    """Yield the monitor of a stack in which nobody speaks but the test."""
    with Stack(tmp_path / "quiet", broker.bootstrap, scenario(2)) as stack:
        watcher = Watcher(stack)
        try:
            yield watcher
        finally:
            watcher.clean_up()


@pytest.fixture
def busy(broker: Broker, tmp_path: Path) -> Iterator[Watcher]:
    """Yield the monitor of a stack in the middle of its business."""
    with Stack(tmp_path / "busy", broker.bootstrap, scenario(2, **CALM), speed=60.0) as stack:
        watcher = Watcher(stack)
        stack.up()
        try:
            yield watcher
        finally:
            watcher.clean_up()


def use(rid: bytes, usd: int) -> CreditUsed:
    return CreditUsed(rid=ReservationId(rid), used_usd6=Usd6(usd * USD), block_time_us=Micros(0))


def test_a_live_stack_is_not_accused_and_its_figures_are_served(busy: Watcher) -> None:
    stack = busy.stack
    stack.reach(200_000_000)
    busy.up()
    stack.go_on(600.0)
    stack.kill(HUB)  # what crashes, repeats itself; that is no crime either
    stack.kill(BASE)
    stack.up(HUB, BASE)
    stack.go_on(300.0)
    found = busy.figures()

    assert found["findings"] == []
    assert busy.halts() == []
    assert found["refused"] == {}
    ways = {f"from-{spoke}.{family}" for spoke in stack.spokes for family in CHANNEL_FAMILIES}
    for spoke in stack.spokes:
        one = found["spokes"][spoke]
        assert one["orders"] > 0
        assert one["fills"] > 0
        assert one["requested"] >= one["granted"] > 0
        assert 0 <= one["used_usd6"] <= one["reserved_usd6"] <= one["exposure_usd6"]
        assert not one["blind"]
        assert not one["halted_by_hub"]
    busy.wait(lambda: set(busy.figures()["delays"]) >= ways, "delays of every channel")
    # The lanes take 20 seconds of the scenario, and more for what was sent again.
    assert all(one["p50_s"] >= 20 for way, one in busy.figures()["delays"].items() if way in ways)
    assert set(found["price_age_s"]) == set(assets_of(stack.scenario))
    metrics = busy.get("/metrics").decode()
    assert 'omnimargin_reserved_usd{spoke="base"}' in metrics
    assert 'omnimargin_delay_seconds{quantile="0.99",way="from-base.margin-state"}' in metrics
    assert busy.get("/health").startswith(b"running")
    assert busy.end() == 0
    stack.down()


def test_a_planted_grant_halts_every_spoke_at_the_hub(busy: Watcher) -> None:
    """Somebody with the hub's key grants 10 million to an account that has less."""
    stack = busy.stack
    stack.reach(200_000_000)
    busy.up()
    gift = ReservationGranted(
        rid=ReservationId(b"a gift for t0001"),
        account=deposits_of(stack.scenario)[0][0],
        amount_usd6=Usd6(10_000_000 * USD),
        expires_at_us=Micros(10**12),
    )

    def asked() -> int:
        sent = records.read(stack.connection, "from-optimism.reservation")
        frames = [busy.opened(record.value, NodeId("optimism")) for record in sent]
        return sum(isinstance(frame.message, ReservationRequested) for frame in frames)

    def stopped() -> bool:
        return len(stack.status(HUB).matters.halted) == len(stack.spokes)

    with paused(stack, RELAY):
        with paused(stack, HUB):  # else it might use the next number first; the same, under W1
            before = asked()
            written_s = busy.write(DOWN, HUB, BASE, gift)
            busy.wait(busy.halts, "a HALT")
            stack.wait(lambda: asked() > before, "a request that the hub has yet to hear")
        stack.wait(stopped, "the hub to halt all")
    halted_s, _, halt = busy.halts()[0]

    assert set(halt.spokes) == set(stack.spokes)
    assert halt.finding.startswith(("W8: ", "W12: "))
    print(f"HALT {halted_s - written_s:.3f} s after the planted grant")  # noqa: T201

    def said_by_hub() -> list[Envelope]:
        return [
            frame
            for spoke in stack.spokes
            for record in records.read(stack.connection, f"to-{spoke}.reservation")
            if (frame := busy.opened(record.value, HUB)).seq
        ]

    def refuses() -> bool:
        said = [frame.message for frame in said_by_hub()]
        return any(isinstance(one, ReservationRejected) and one.reason is HALTED for one in said)

    stack.wait(refuses, "the hub to refuse credit")
    stack.go_on(300.0)
    stack.down()
    said = said_by_hub()
    told = {frame.receiver: frame for frame in said if isinstance(frame.message, SpokeHalted)}
    assert set(told) == set(stack.spokes)
    answers = set[RejectReason]()
    for spoke, frame in told.items():
        assert isinstance(frame.message, SpokeHalted)
        assert frame.message.reason is HaltReason.WATCHDOG
        after = [one for one in said if one.receiver == spoke and one.seq > frame.seq]
        answers |= {
            one.message.reason for one in after if isinstance(one.message, ReservationRejected)
        }
        assert not any(isinstance(one.message, ReservationGranted) for one in after)
    assert answers == {HALTED}  # base may ask no more: its hub has said two things


def test_a_planted_use_halts_its_spoke(quiet: Watcher) -> None:
    quiet.up()
    assert quiet.halts() == []
    written_s = quiet.write(UP, BASE, HUB, use(b"never granted   ", 1))
    quiet.wait(quiet.halts, "a HALT")
    halted_s, _, halt = quiet.halts()[0]

    assert halt.spokes == (BASE,)
    assert halt.finding.startswith("W3: ")
    print(f"HALT {halted_s - written_s:.3f} s after the planted use")  # noqa: T201
    assert quiet.figures()["spokes"][BASE]["halt"] == halt.finding
    assert quiet.figures()["spokes"]["optimism"]["halt"] == ""
    assert "omnimargin_findings 1.0" in quiet.get("/metrics").decode()


def test_a_monitor_that_was_killed_finds_again_and_does_not_repeat_itself(quiet: Watcher) -> None:
    quiet.up()
    quiet.write(UP, BASE, HUB, use(b"never granted   ", 1))
    quiet.wait(quiet.halts, "a HALT")
    quiet.end(signal.SIGKILL)
    quiet.up()
    quiet.wait(lambda: quiet.figures()["findings"], "the finding again")
    assert len(quiet.halts()) == 1

    quiet.write("from-optimism.reservation", NodeId("optimism"), HUB, use(b"nor this one    ", 1))
    quiet.wait(lambda: len(quiet.halts()) > 1, "a second HALT")
    assert [halt.spokes for _, _, halt in quiet.halts()] == [(BASE,), ("optimism",)]


def test_what_was_planted_while_it_was_down_is_found(quiet: Watcher) -> None:
    quiet.write(UP, BASE, HUB, use(b"never granted   ", 1))
    quiet.up()
    quiet.wait(quiet.halts, "a HALT")


def test_garbage_is_counted_and_does_no_harm(quiet: Watcher) -> None:
    quiet.up()
    signer = read_signer(quiet.stack.folder / KEYS, NodeId("optimism"), quiet.stack.plan.domain)
    frame = Envelope(
        BASE, HUB, Family.RESERVATION, 1, 0, Micros(0), NO_HEIGHT, NO_HEIGHT, use(b"x" * 16, 1)
    )
    forged, _ = signer.seal(encode_frame(frame), NO_DIGEST)
    rows = [(data, []) for data in (b"", b"garbage", forged, forged[:-1], b"\0" * 60_000)]
    for topic in (UP, f"delivered.{UP}", f"order.{BASE}"):
        records.write(quiet.stack.connection, topic, rows)
    quiet.wait(lambda: quiet.status().refused == 3 * len(rows), "all of it to be refused")

    assert quiet.figures()["refused"] == dict.fromkeys(
        (UP, f"delivered.{UP}", f"order.{BASE}"), len(rows)
    )
    assert quiet.figures()["findings"] == []
    assert quiet.end() == 0
    assert quiet.halts() == []
    assert "Traceback" not in quiet.said()


def test_a_topic_that_has_lost_its_beginning_blinds_for_its_spoke_only(quiet: Watcher) -> None:
    quiet.write(UP, BASE, HUB, use(b"one             ", 1), use(b"two             ", 1))
    records.truncate(quiet.stack.connection, UP, 1)
    quiet.up()
    quiet.write("from-optimism.reservation", NodeId("optimism"), HUB, use(b"never granted   ", 1))
    quiet.wait(quiet.halts, "a HALT")

    assert [halt.spokes for _, _, halt in quiet.halts()] == [("optimism",)]
    assert quiet.figures()["spokes"][BASE]["blind"]


def test_it_waits_for_the_broker_and_goes_on(quiet: Watcher, broker: Broker) -> None:
    broker.stop()
    quiet.start()
    quiet.wait(lambda: "broker" in quiet.status().note, "it to wait")
    with pytest.raises(urllib.error.HTTPError) as refused:
        quiet.get("/health")
    assert refused.value.code == 503
    broker.start()
    quiet.wait(lambda: quiet.status().state is State.RUNNING, "it to run")

    broker.kill()
    quiet.wait(lambda: quiet.status().state is State.WAITING, "it to wait again")
    broker.start()
    quiet.write(UP, BASE, HUB, use(b"never granted   ", 1))
    quiet.wait(quiet.halts, "a HALT")

    broker.kill()
    quiet.wait(lambda: quiet.status().state is State.WAITING, "it to wait once more")
    assert quiet.end(signal.SIGTERM) == 0
    assert "Traceback" not in quiet.said()
    broker.start()


def test_it_stops_while_it_waits(quiet: Watcher, broker: Broker) -> None:
    broker.stop()
    quiet.start()
    quiet.wait(lambda: "broker" in quiet.status().note, "it to wait")
    assert quiet.end() == 0
    broker.start()
    quiet.start()
    quiet.wait(lambda: quiet.status().state is State.RUNNING, "it to run")
    assert quiet.end(signal.SIGTERM) == 0
    assert quiet.status().state is State.STOPPED


def test_a_topic_made_anew_ends_it_and_blinds_the_next_for_that_spoke(quiet: Watcher) -> None:
    optimism, connection = NodeId("optimism"), quiet.stack.connection
    asked = ReservationRequested(
        rid=ReservationId(b"one             "),
        account=deposits_of(quiet.stack.scenario)[0][0],
        amount_usd6=Usd6(1),
        ttl_us=Micros(1),
    )
    quiet.write(UP, BASE, HUB, asked, asked, asked)
    quiet.up()
    records.delete(connection, UP)
    records.create(connection, UP)
    assert quiet.process is not None
    assert quiet.process.wait(LIMIT_S) == 1
    last = quiet.said().splitlines()[-1]
    end, read = f"expected {UP} to end at 3 at least, found 0", f"expected offset 3 of {UP}, found"
    assert end in last or read in last  # whichever asks first

    quiet.up()
    quiet.write(UP, BASE, HUB, use(b"never granted   ", 1), first=4)
    quiet.write("from-optimism.reservation", optimism, HUB, use(b"never granted   ", 1))
    quiet.wait(quiet.halts, "a HALT")
    assert [halt.spokes for _, _, halt in quiet.halts()] == [(optimism,)]
    assert quiet.figures()["spokes"][BASE]["blind"]


def test_a_port_that_is_taken_is_refused_in_one_line(quiet: Watcher) -> None:
    quiet.up()
    third = subprocess.run(
        [sys.executable, "-m", "lab.monitor", str(quiet.stack.folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert third.returncode == 2
    assert "expected a free port" in third.stderr.splitlines()[-1]
