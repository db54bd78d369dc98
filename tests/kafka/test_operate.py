"""Operators' orders on a live stack: about a frame that cannot be read, and about a halt."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab.stack import journals
from lab.stack import operate as commands
from lab.stack.broker import Broker
from lab.stack.plan import KEYS, Matters
from lab.stack.view import by_their_word, gather
from messaging.codec import encode_frame
from messaging.envelope import NO_HEIGHT, Envelope
from messaging.errors import OrderRefused
from messaging.identity import NO_DIGEST, Signer
from messaging.key_files import read_signer
from messaging.messages import Family, HaltOrdered, Message
from messaging.operator_orders import FrameNamed, PeerNamed, Verb
from messaging.topics import DELIVERED, HALT_TOPIC
from messaging.units import HUB, MONITOR, OPERATORS, Micros, NodeId
from tests.kafka import records
from tests.kafka.stack import BUSY, Stack, scenario

pytestmark = pytest.mark.kafka

BASE = NodeId("base")
TOPIC = DELIVERED + "from-base.reservation"


@pytest.fixture
def stack(broker: Broker, tmp_path: Path) -> Iterator[Stack]:
    """Yield a stack of one spoke in the middle of its business."""
    with Stack(tmp_path / "stack", broker.bootstrap, scenario(**BUSY)) as made:
        made.up()
        made.in_business()
        yield made


def sealed(signer: Signer, sender: NodeId, family: Family, seq: int, message: Message) -> bytes:
    frame = Envelope(sender, HUB, family, seq, 0, Micros(1), NO_HEIGHT, NO_HEIGHT, message)
    return signer.seal(encode_frame(frame), NO_DIGEST)[0]


def matters(stack: Stack) -> Matters:
    return stack.status(HUB).matters


def operate(stack: Stack, *words: str, giver: NodeId, refused: bool = False) -> str:
    """Run the command; return what it says, or the line that it is refused with."""
    reason = () if words[0] == "approve" else ("--reason", "a test")
    where = ("--folder", str(stack.folder))
    done = CliRunner().invoke(commands.app, [*words, "--as", giver, *reason, *where])
    if not refused:
        assert done.exception is None, done.exception
        return done.output
    assert isinstance(done.exception, OrderRefused)
    return str(done.exception)


def test_operators_end_what_the_protocol_cannot(stack: Stack) -> None:
    one, other, _ = OPERATORS
    keys, domain = stack.folder / KEYS, stack.plan.domain
    base = read_signer(keys, BASE, domain)

    # base signs what no hub can take, far ahead of all it has said: its channel would stop there.
    far = 1_000_000
    halted = HaltOrdered(spokes=(BASE,), finding="signed by base, and no word of a spoke")
    bad = sealed(base, BASE, Family.RESERVATION, far, halted)
    records.write(stack.connection, TOPIC, [(bad, [])])
    stack.wait(lambda: matters(stack).stopped, "the hub to keep what it cannot take")
    assert matters(stack).stopped[0].startswith("base reservation 1,000,000: expected a message")
    frame = ("hub", "base", "reservation", str(far))
    said = operate(stack, "retry", *frame, giver=one, refused=True)
    assert "expected a frame that can be decoded now" in said
    assert matters(stack).stopped
    said = operate(stack, "skip", *frame, giver=one)
    assert "it waits for 1 more" in said
    order_id = said.split()[1]
    assert order_id in "".join(gather_lines(stack))
    said = operate(stack, "approve", order_id, giver=other, refused=True)
    assert "expected the next number" in said
    assert "done" in operate(stack, "nilify", *frame, giver=other)
    stack.wait(lambda: not matters(stack).stopped, "the hub to forget it")

    # The watchdog is wrong; two people say so.
    watchdog = read_signer(keys, MONITOR, domain)
    alarm = HaltOrdered(spokes=(BASE,), finding="a false alarm")
    data = sealed(watchdog, MONITOR, Family.CONTROL, 1, alarm)
    records.write(stack.connection, HALT_TOPIC, [(data, [])])
    stack.wait(lambda: "base is halted: watchdog" in matters(stack).halted, "the halt")
    order_id = operate(stack, "resume", "base", giver=one).split()[1]
    assert "base is halted: watchdog" in matters(stack).halted
    stack.stop(HUB)  # what waits is in the journal
    stack.up(HUB)
    stack.wait(lambda: bool(matters(stack).waiting), "the order to wait on")
    assert "done, as ordered by operator-1, operator-3" in operate(
        stack, "approve", order_id, giver=OPERATORS[2]
    )
    stack.wait(lambda: not matters(stack).halted, "base to be trusted")
    stack.wait(lambda: not stack.status(BASE).matters.halted, "base to know")

    targets = (FrameNamed, PeerNamed)
    decided = [ended for ended in matters(stack).ended if type(ended.order.target) in targets]
    assert [(ended.order.verb, bool(ended.why)) for ended in decided] == [
        (Verb.RETRY, True),
        (Verb.SKIP, True),
        (Verb.NILIFY, False),
        (Verb.RESUME, False),
    ]
    assert {line["order"].split()[1] for line in stack.said(HUB, "order_done")} == {
        Verb.NILIFY,
        Verb.RESUME,
    }
    stack.heal()
    stack.down()
    assert not stack.tracebacks()
    journals.verify(stack.folder)


def gather_lines(stack: Stack) -> tuple[str, ...]:
    processes = by_their_word(stack.folder, stack.roles)
    return gather(stack.folder, stack.plan, stack.scenario, processes, runs=True).matters
