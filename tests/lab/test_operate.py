"""The commands of operators as they are met on the command line, without a broker."""

import os
import time
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from lab.stack import operate
from lab.stack.matters import lines
from lab.stack.plan import (
    KEYS,
    Ended,
    Matters,
    Plan,
    State,
    Status,
    Waits,
    write_plan,
    write_status,
)
from lab.stack.prepare import nodes_of
from messaging.errors import InputRefused
from messaging.fields import Family
from messaging.key_files import write_keys
from messaging.operator_orders import FrameNamed, OperatorOrdered, Verb
from messaging.units import HUB, OPERATORS, Micros, NodeId
from tests.lab.test_cli import omnimargin, refused
from tests.messaging.test_durable import small

WHO = ("--as", OPERATORS[0], "--reason", "a test")
ORDER = OperatorOrdered(
    order_id=bytes.fromhex("3f2a000000000001"),
    verb=Verb.SKIP,
    target=FrameNamed(peer=NodeId("base"), family=Family.RESERVATION, seq=17),
    reason="topic truncated",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a stack whose processes have stopped."""
    plan = Plan(
        deployment="d",
        bootstrap="localhost:1",
        epoch_ns=time.time_ns(),
        speed=60.0,
        settle_ms=200,
        monitor_port=0,
    )
    write_plan(tmp_path, plan, small())
    write_keys(tmp_path / KEYS, nodes_of(small()))
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(operate.app, words)


def tell(folder: Path, state: State, matters: Matters) -> None:
    status = Status(role=HUB, pid=os.getpid(), state=state, at_us=Micros(0), matters=matters)
    write_status(folder, status)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("skip", "moon", "base", "reservation", "1", *WHO), "NODE: expected one of hub, base"),
        (("skip", "hub", "hub", "reservation", "1", *WHO), "PEER: expected one of base"),
        (("skip", "base", "base", "reservation", "1", *WHO), "PEER: expected one of hub"),
        (("skip", "hub", "base", "reservations", "1", *WHO), "did you mean 'reservation'?"),
        (("skip", "hub", "base", "price", "1", *WHO), "FAMILY: expected one of margin-state"),
        (("skip", "hub", "base", "reservation", "0", *WHO), "SEQ: expected a number from 1 on"),
        (("write-off", "66749c", *WHO), "RID: expected 32 hex digits"),
        (("resume", "moon", *WHO), "PEER: expected one of base"),
        (("approve", "ff", "--as", OPERATORS[1]), "expected the id of an order that waits"),
        (("approve", "ff", "--as", "bob"), "--as: expected one of operator-1, operator-2"),
        (("retry", "hub", "base", "reservation", "1", "--as", "bob", "--reason", "x"), "--as"),
        (("resume", "base", "--as", OPERATORS[0], "--reason", " "), "--reason: expected 1 to 256"),
        (("rebuild", "hub", "2", *WHO), "PEER: expected one of base"),
        (("rebuild", "base", "1", *WHO), "EPOCH: expected a number from 2 to 4,096, found 1"),
        (("rebuild", "base", "2", *WHO), "expected a stack that runs, found one that does not"),
        (("revoke", "moon", *WHO), "PEER: expected one of base"),
        (("revoke", "base", *WHO), "expected a stack that runs, found one that does not"),
        (("resume", "base", *WHO), "expected a stack that runs, found one that does not"),
    ],
)
def test_bad_input_gets_one_line(folder: Path, words: tuple[str, ...], said: str) -> None:
    found = run(*words, "--folder", str(folder)).exception
    assert isinstance(found, InputRefused)
    assert said in str(found)
    assert "\n" not in str(found)


def test_help_tells_what_each_verb_does_and_how_many_it_takes() -> None:
    text = run("--help").output
    assert all(verb in text for verb in (*Verb, "approve"))
    for verb in Verb:
        assert "operator" in run(verb, "--help").output.lower()


def test_an_order_finds_no_broker_and_says_so(folder: Path) -> None:
    tell(folder, State.RUNNING, Matters(waiting=(Waits(ORDER, OPERATORS[:1]),)))
    found = run("approve", "3f2a", "--as", OPERATORS[1], "--folder", str(folder)).exception
    assert isinstance(found, InputRefused)
    assert "localhost:1: expected a broker" in str(found)


def test_bad_input_ends_in_one_line_of_the_program_too(folder: Path) -> None:
    line = refused("operate", "resume", "moon", *WHO, "--folder", str(folder))
    assert line.startswith("omnimargin: PEER: expected one of base")


def test_status_shows_what_waits_for_people(folder: Path) -> None:
    matters = Matters(
        stopped=("base reservation 17: expected a frame",),
        halted=("base is halted: watchdog",),
        waiting=(Waits(ORDER, OPERATORS[:1]),),
        ended=(Ended(ORDER, OPERATORS[:2], "expected the next number, 18, found 17"),),
    )
    tell(folder, State.STOPPED, matters)
    shown = " ".join(omnimargin("status", "--folder", str(folder), expect=3).stdout.split())
    status = Status(role=HUB, pid=1, state=State.STOPPED, at_us=Micros(0), matters=matters)
    found = list(lines(status))
    assert found == [
        "hub: stopped at base reservation 17: expected a frame",
        "hub: base is halted: watchdog",
        "hub: order 3f2a000000000001 skip base reservation 17 waits for 1 more, "
        "given by operator-1 (topic truncated)",
        "hub: order 3f2a000000000001 skip base reservation 17 refused: "
        "expected the next number, 18, found 17",
    ]
    assert all(line in shown for line in found)
