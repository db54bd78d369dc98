"""The commands of operators: orders to nodes of a running stack, signed by who gives them (P70)."""

import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from lab.scenario import Scenario
from lab.stack import folders
from lab.stack.link import say
from lab.stack.options import Folder
from lab.stack.plan import Ended, Plan, Waits, read_plan, read_status
from lab.stack.prepare import in_use
from lab.world import names_of
from messaging.errors import InputRefused, OrderRefused, nearest
from messaging.messages import CHANNEL_FAMILIES, Family
from messaging.operator_orders import (
    TARGETS,
    EpochNamed,
    FrameNamed,
    OperatorOrdered,
    PeerNamed,
    ReservationNamed,
    Target,
    Verb,
    brief,
)
from messaging.rebuilding import LIVES
from messaging.units import HUB, INT_MAX, OPERATORS, NodeId, ReservationId

WORD_S = 20.0  # to wait for the node's word on an order
POLL_S = 0.2
ID_BYTES, RID_BYTES, REASON_MAX = 8, 16, 256
EPOCH_MAX = 2**32 // LIVES  # a life has a number below 2^32

_EPILOG = """\b
A frame that is signed and cannot be read stops its channel; so does a gap that nobody fills.
'omnimargin status' shows what is stopped, halted, or waits for a second operator.
\b
  omnimargin operate retry hub base reservation 17 --as operator-1 --reason "upgraded"
  omnimargin operate skip hub base reservation 17 --as operator-1 --reason "topic truncated"
  omnimargin operate approve 3f2a --as operator-2
  omnimargin operate write-off 66749c... --as operator-1 --reason "base is gone for good"
"""
app = typer.Typer(
    help="Give an order as an operator; some take two.", epilog=_EPILOG, no_args_is_help=True
)

Node = Annotated[str, typer.Argument(help="Who is to act: hub or a spoke.")]
Peer = Annotated[str, typer.Argument(help="Who sends on the channel: a spoke, or hub.")]
Channel = Annotated[str, typer.Argument(help="margin-state, reservation or liquidation.")]
Seq = Annotated[int, typer.Argument(help="The frame's number.")]
Spoke = Annotated[str, typer.Argument(help="The spoke it is about.")]
Rid = Annotated[str, typer.Argument(help="The reservation's id, 32 hex digits.")]
Giver = Annotated[str, typer.Option("--as", help=f"Who gives it: {', '.join(OPERATORS)}.")]
Reason = Annotated[str, typer.Option(help="Why; it is signed with the order.")]


@app.command("retry")
def retry(
    node: Node, peer: Peer, family: Channel, seq: Seq, giver: Giver, reason: Reason,
    folder: Folder = None,
) -> None:  # fmt: skip
    """Decode a kept frame again, after an upgrade. One operator."""
    _frame(Verb.RETRY, node, (peer, family, seq), giver, reason, folder)


@app.command("nilify")
def nilify(
    node: Node, peer: Peer, family: Channel, seq: Seq, giver: Giver, reason: Reason,
    folder: Folder = None,
) -> None:  # fmt: skip
    """Forget a kept or parked frame, so that it must come again. One operator."""
    _frame(Verb.NILIFY, node, (peer, family, seq), giver, reason, folder)


@app.command("clear")
def clear(
    node: Node, peer: Peer, family: Channel, seq: Seq, giver: Giver, reason: Reason,
    folder: Folder = None,
) -> None:  # fmt: skip
    """Take the kept frame that a channel stands at off, without carrying it out. Two operators.

    Of a spoke's channel: the hub frees nothing there until a digest shows that nothing is missing.
    """
    _frame(Verb.CLEAR, node, (peer, family, seq), giver, reason, folder)


@app.command("skip")
def skip(
    node: Node, peer: Peer, family: Channel, seq: Seq, giver: Giver, reason: Reason,
    folder: Folder = None,
) -> None:  # fmt: skip
    """Go on behind a number that nobody can deliver any more. Two operators.

    Freezes as 'clear' does. Only the next number, and only with frames behind it.
    """
    _frame(Verb.SKIP, node, (peer, family, seq), giver, reason, folder)


@app.command("write-off")
def write_off(rid: Rid, giver: Giver, reason: Reason, folder: Folder = None) -> None:
    """End a reservation with all of it booked as used; none is ever free again. Two operators."""
    _reservation(Verb.WRITE_OFF, rid, giver, reason, folder)


@app.command("release-quarantine")
def release_quarantine(rid: Rid, giver: Giver, reason: Reason, folder: Folder = None) -> None:
    """Release a reservation in quarantine that its spoke holds no more. Two operators."""
    _reservation(Verb.RELEASE_QUARANTINE, rid, giver, reason, folder)


@app.command("resume")
def resume(
    peer: Annotated[str, typer.Argument(help="Who is to be trusted again.")],
    giver: Giver,
    reason: Reason,
    at: Annotated[str, typer.Option(help="Who is to trust it; a spoke with 'hub' as PEER.")] = HUB,
    folder: Folder = None,
) -> None:
    """End a HALT: a spoke may get credit again, and is told so. Two operators."""
    where, plan, scenario = _stack(folder)
    _check_channel(scenario, at, peer)
    target = PeerNamed(peer=NodeId(peer))
    _give(where, plan, NodeId(at), _order(Verb.RESUME, target, reason), giver)


@app.command("rebuild")
def rebuild(
    spoke: Spoke,
    epoch: Annotated[int, typer.Argument(help="The epoch that its chain is in since.")],
    giver: Giver,
    reason: Reason,
    folder: Folder = None,
) -> None:
    """Let a spoke that has lost its file come back in a later epoch. Two operators.

    Approves that the hub answers it; nothing is rebuilt by this. Who gives it has seen that the
    hub's own state is whole, for the spoke cannot say so.
    """
    where, plan, scenario = _stack(folder)
    _check_channel(scenario, HUB, spoke)
    if not 2 <= epoch <= EPOCH_MAX:
        expected = f"a number from 2 to {EPOCH_MAX:,}"
        raise InputRefused("EPOCH", expected=expected, found=f"{epoch:,}")
    target = EpochNamed(spoke=NodeId(spoke), spoke_epoch=epoch)
    _give(where, plan, HUB, _order(Verb.REBUILD, target, reason), giver)


@app.command("revoke")
def revoke(spoke: Spoke, giver: Giver, reason: Reason, folder: Folder = None) -> None:
    """Let no key of a spoke count any more at the hub, and halt the spoke. Two operators.

    For good: 'resume' ends the HALT, and no frame of the spoke is heard all the same.
    """
    where, plan, scenario = _stack(folder)
    _check_channel(scenario, HUB, spoke)
    target = PeerNamed(peer=NodeId(spoke))
    _give(where, plan, HUB, _order(Verb.REVOKE, target, reason), giver)


@app.command("approve")
def approve(
    order_id: Annotated[str, typer.Argument(help="Its id, or how that begins.")],
    giver: Giver,
    folder: Folder = None,
) -> None:
    """Give an order that another operator has given and that waits: the same, under your key."""
    where, plan, scenario = _stack(folder)
    _check_giver(giver)
    found = [
        (node, waits.order)
        for node, waits in _waiting(where, scenario)
        if waits.order.order_id.hex().startswith(order_id.lower())
    ]
    if len(found) != 1:
        known = [waits.order.order_id.hex() for _, waits in _waiting(where, scenario)]
        expected = f"the id of an order that waits ({', '.join(known) or 'none does'})"
        raise InputRefused("ORDER_ID", expected=expected, found=repr(order_id))
    node, order = found[0]
    _give(where, plan, node, order, giver)


def _frame(
    verb: Verb,
    node: str,
    named: tuple[str, str, int],
    giver: str,
    reason: str,
    folder: Path | None,
) -> None:
    where, plan, scenario = _stack(folder)
    peer, family, seq = named
    _check_channel(scenario, node, peer)
    if family not in CHANNEL_FAMILIES:
        expected = f"one of {', '.join(CHANNEL_FAMILIES)}"
        raise InputRefused("FAMILY", expected=expected, found=f"{family!r}{_near(family)}")
    if not 1 <= seq <= INT_MAX:
        raise InputRefused("SEQ", expected="a number from 1 on", found=f"{seq:,}")
    target = FrameNamed(peer=NodeId(peer), family=Family(family), seq=seq)
    _give(where, plan, NodeId(node), _order(verb, target, reason), giver)


def _near(family: str) -> str:
    return nearest(family, [known.value for known in CHANNEL_FAMILIES])


def _reservation(verb: Verb, rid: str, giver: str, reason: str, folder: Path | None) -> None:
    where, plan, _ = _stack(folder)
    try:
        data = bytes.fromhex(rid)
    except ValueError:
        data = b""
    if len(data) != RID_BYTES:
        raise InputRefused("RID", expected=f"{2 * RID_BYTES} hex digits", found=repr(rid))
    target = ReservationNamed(rid=ReservationId(data))
    _give(where, plan, HUB, _order(verb, target, reason), giver)


def _stack(folder: Path | None) -> tuple[Path, Plan, Scenario]:
    where = folders.chosen(folder)
    return where, *read_plan(where)


def _check_channel(scenario: Scenario, node: str, peer: str) -> None:
    """Refuse ends that no channel has.

    Raises:
        InputRefused: they are not the hub and a spoke, either way.
    """
    names = names_of(scenario)
    if node not in (HUB, *names):
        expected = f"one of {', '.join((HUB, *names))}"
        raise InputRefused("NODE", expected=expected, found=f"{node!r}")
    peers = names if node == HUB else (HUB,)
    if peer not in peers:
        raise InputRefused("PEER", expected=f"one of {', '.join(peers)}", found=f"{peer!r}")


def _check_giver(giver: str) -> None:
    if giver not in OPERATORS:
        expected = f"one of {', '.join(OPERATORS)}"
        raise InputRefused("--as", expected=expected, found=f"{giver!r}")


def _order(verb: Verb, target: Target, reason: str) -> OperatorOrdered:
    if not 1 <= len(reason.strip()) <= REASON_MAX:
        found = f"{len(reason):,}"
        raise InputRefused("--reason", expected=f"1 to {REASON_MAX} characters", found=found)
    order_id = secrets.token_bytes(ID_BYTES)
    return OperatorOrdered(order_id=order_id, verb=verb, target=target, reason=reason.strip())


def _give(folder: Path, plan: Plan, node: NodeId, order: OperatorOrdered, giver: str) -> None:
    """Give an order, and say what comes of it.

    Raises:
        InputRefused: nobody is there to give it to.
        OrderRefused: the node does not carry it out.
    """
    _check_giver(giver)
    if not in_use(folder):
        raise InputRefused(str(folder), expected="a stack that runs", found="one that does not")
    say(folder, plan, NodeId(giver), node, order)
    sys.stdout.write(f"order {brief(order)}: given to {node} as {giver}\n")
    until_s = time.monotonic() + WORD_S
    while time.monotonic() < until_s:
        word = _word(folder, node, order, giver)
        if isinstance(word, Waits):
            left = TARGETS[order.verb][1] - len(word.operators)
            again = f"omnimargin operate approve {order.order_id.hex()} --as NAME"
            sys.stdout.write(f"it waits for {left} more: {again}\n")
            return
        if isinstance(word, Ended):
            if word.why:
                raise OrderRefused(f"order {order.order_id.hex()}: {word.why}")
            sys.stdout.write(f"done, as ordered by {', '.join(word.operators)}\n")
            return
        time.sleep(POLL_S)
    sys.stdout.write(f"no word of {node} yet: omnimargin status\n")


def _word(folder: Path, node: NodeId, order: OperatorOrdered, giver: str) -> Waits | Ended | None:
    """Return what a node says of an order since this operator has given it, if anything."""
    status = read_status(folder, node)
    if status is None:
        return None
    words: list[Waits | Ended] = [*status.matters.ended, *status.matters.waiting]
    mine = [word for word in words if word.order == order and giver in word.operators]
    return mine[0] if mine else None


def _waiting(folder: Path, scenario: Scenario) -> Iterator[tuple[NodeId, Waits]]:
    for node in (HUB, *names_of(scenario)):
        status = read_status(folder, node)
        for waits in status.matters.waiting if status is not None else ():
            yield node, waits
