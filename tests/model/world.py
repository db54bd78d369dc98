"""The reservation protocol as a transition system: one hub, two spokes, every message ever sent.

A message that was sent stays readable for ever, so a step may ignore it (loss, delay), read it
again (repetition) or read another first (reordering). Clocks move on their own. A state is three
parts that meet only in `exchanges`: the hub, and each spoke with the messages to and from it.
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from tests.model.rules import Amnesia, Release, Renewals, Rules

SPOKES = 2
NONE = "none"
HELD, FREED, SETTLED = "held", "freed", "settled"  # a reservation at the hub
ACTIVE, USED, CLOSED = "active", "used", "closed"  # a right at its spoke
USE, CLOSE, WATERMARK = "use", "close", "watermark"  # messages to the hub

T = TypeVar("T")


class Grant(NamedTuple):
    """A grant or renewal: usable before `expires` on the spoke's clock, in its life `epoch`."""

    expires: int
    epoch: int


class Entry(NamedTuple):
    """A message of a spoke. `about` is a reservation, or the time of a watermark."""

    kind: str
    about: int
    epoch: int


class Right(NamedTuple):
    """What a spoke knows of a reservation; `expires` is 0 unless it is active."""

    state: str
    expires: int


class Block(NamedTuple):
    """The part of a spoke that a reorg brings back."""

    clock: int
    rights: tuple[Right, ...]
    used: int
    watermark: int
    log_length: int


class Spoke(NamedTuple):
    """A spoke. Tuples about reservations hold its own ones, in order."""

    clock: int
    sent: tuple[tuple[Grant, ...], ...]  # to it
    rights: tuple[Right, ...]
    used: int  # truth, remembered by nobody: units used here, lost lives included
    log: tuple[Entry, ...]  # sent by it
    watermark: int  # the last one it sent
    epoch: int
    final: Block
    reorgs: int


class Hub(NamedTuple):
    """The hub. `states` and `grants` go by reservation; `read` and what follows by spoke."""

    clock: int
    states: tuple[str, ...]
    free: int
    grants: tuple[tuple[Grant, ...], ...]  # what it knows to have sent
    read: tuple[int, ...]  # how many messages it has taken, if they are numbered
    watermarks: tuple[int, ...]
    watermark_epochs: tuple[int, ...]
    saved: "Hub | None"


class World(NamedTuple):
    hub: Hub
    spokes: tuple[Spoke, ...]


Step = tuple[str, World]


def initial(rules: Rules) -> World:
    """Return the state in which nothing has been sent and every clock shows 0."""
    zeros = (0,) * SPOKES
    states, grants = (NONE,) * rules.reservations, ((),) * rules.reservations
    hub = Hub(0, states, rules.capacity, grants, zeros, zeros, zeros, None)
    spokes = []
    for number in range(SPOKES):
        count = len(range(number, rules.reservations, SPOKES))
        rights = (Right(NONE, 0),) * count
        spokes.append(
            Spoke(0, ((),) * count, rights, 0, (), 0, 0, Block(0, rights, 0, 0, 0), reorgs=0)
        )
    return World(hub, tuple(spokes))


def steps(rules: Rules, world: World) -> Iterator[Step]:
    """Yield each thing that can happen next and the state after it."""
    hub, spokes = world
    for label, after in hub_steps(rules, hub):
        yield label, World(after, spokes)
    if rules.skew_max is not None and hub_may_tick(rules, hub, spokes):
        yield hub_tick(hub)[0], World(hub_tick(hub)[1], spokes)
    for number, spoke in enumerate(spokes):
        for label, changed in spoke_steps(rules, number, spoke):
            yield label, World(hub, put(spokes, number, changed))
        for label, after, changed in exchanges(rules, number, hub, spoke):
            yield label, World(after, put(spokes, number, changed))


def broken(rules: Rules, world: World, *, hands: bool) -> str | None:
    """Return what is wrong with a state in one sentence, or None.

    Args:
        rules: supplies the capacity.
        world: the state.
        hands: whether a value in two hands, not yet used twice, is wrong already.
    """
    hub, spokes = world
    used = sum(spoke.used for spoke in spokes)
    if used > rules.capacity:
        return f"{used} units used, {rules.capacity} there"
    if not books_add_up(rules, hub):
        return f"hub's books: {hub.free} free and {hub.states} do not make {rules.capacity}"
    claimed = hub.free + sum(in_hand(rules, spoke) for spoke in spokes)
    if hands and claimed > rules.capacity:
        return f"in two hands: {hub.free} free at the hub, {claimed - hub.free} at the spokes"
    return None


def books_add_up(rules: Rules, hub: Hub) -> bool:
    """Free + held + settled = capacity, as the hub sees it."""
    return hub.free + hub.states.count(HELD) + hub.states.count(SETTLED) == rules.capacity


def in_hand(rules: Rules, spoke: Spoke) -> int:
    """Return how many units a spoke has used, or may use by what was already sent to it."""
    live = (ACTIVE, NONE) if rules.tombstones else (ACTIVE, NONE, CLOSED)
    usable = 0
    for right, sent in zip(spoke.rights, spoke.sent, strict=True):
        last = max((grant.expires for grant in accepted(rules, spoke, sent)), default=0)
        usable += right.state in live and spoke.clock < max(last, right.expires)
    return spoke.used + usable


def accepted(rules: Rules, spoke: Spoke, sent: tuple[Grant, ...]) -> list[Grant]:
    """Return the grants that are not fenced off by the spoke's epoch."""
    return [grant for grant in sent if not rules.epoch_in_grants or grant.epoch == spoke.epoch]


# The hub by itself


def hub_steps(rules: Rules, hub: Hub) -> Iterator[tuple[str, Hub]]:
    """Yield what the hub does without anybody."""
    if rules.skew_max is None and hub.clock < rules.clock_max:
        yield hub_tick(hub)
    for r, state in enumerate(hub.states):
        if state == HELD and may_free(rules, hub, r):
            seen = f"its time {hub.clock}, watermark {hub.watermarks[r % SPOKES]}"
            yield f"hub frees r{r} by its rule ({seen})", free(hub, r)
    if rules.stale_hub and hub.saved is None:
        yield "hub saves its state", hub._replace(saved=hub)
    if hub.saved is not None:
        yield "hub goes on from the saved state", hub.saved._replace(clock=hub.clock)


def hub_tick(hub: Hub) -> tuple[str, Hub]:
    return f"hub's clock shows {hub.clock + 1}", hub._replace(clock=hub.clock + 1)


def hub_may_tick(rules: Rules, hub: Hub, spokes: tuple[Spoke, ...]) -> bool:
    skew_max = rules.clock_max if rules.skew_max is None else rules.skew_max
    slowest = min(spoke.clock for spoke in spokes)
    return hub.clock < min(rules.clock_max, slowest + skew_max)


def may_free(rules: Rules, hub: Hub, r: int) -> bool:
    """Decide by the release rule under test, closes aside."""
    grants = hub.grants[r]
    expires = max(grant.expires for grant in grants)
    if rules.renewals is Renewals.FIRST_EXPIRY:
        expires = grants[0].expires
    match rules.release:
        case Release.CLOSE_ONLY:
            return False
        case Release.HUB_CLOCK:
            return hub.clock >= expires
        case Release.HUB_CLOCK_WITH_MARGIN:
            assert rules.skew_max is not None
            return hub.clock > expires + rules.skew_max
        case Release.WATERMARK:
            epoch = hub.watermark_epochs[r % SPOKES]
            fenced = rules.amnesia is Amnesia.ALL_FENCED and epoch != grants[0].epoch
            return hub.watermarks[r % SPOKES] >= expires and not fenced


def free(hub: Hub, r: int) -> Hub:
    return hub._replace(states=put(hub.states, r, FREED), free=hub.free + 1)


# A spoke by itself


def spoke_steps(rules: Rules, number: int, spoke: Spoke) -> Iterator[tuple[str, Spoke]]:
    """Yield what a spoke does with its clock and the grants that were sent to it."""
    now, room = spoke.clock, len(spoke.log) < rules.log_max
    if rules.skew_max is None and now < rules.clock_max:
        yield spoke_tick(number, spoke)
    if now > spoke.watermark and room:
        marked = spoke._replace(watermark=now)
        yield f"spoke {number} sends watermark {now}", say(marked, WATERMARK, now)
    for index, right in enumerate(spoke.rights):
        yield from right_steps(rules, number, spoke, index, right)
    if rules.reorgs_max:
        height = Block(now, spoke.rights, spoke.used, spoke.watermark, len(spoke.log))
        if height != spoke.final:
            yield f"spoke {number} finalises what it has done", spoke._replace(final=height)
        if spoke.reorgs < rules.reorgs_max:
            yield f"spoke {number} reorganises to its final state", reorganised(rules, spoke)


def spoke_tick(number: int, spoke: Spoke) -> tuple[str, Spoke]:
    return f"spoke {number}'s clock shows {spoke.clock + 1}", spoke._replace(clock=spoke.clock + 1)


def right_steps(
    rules: Rules, number: int, spoke: Spoke, index: int, right: Right
) -> Iterator[tuple[str, Spoke]]:
    """Yield what a spoke does about one reservation."""
    r, now, room = number + SPOKES * index, spoke.clock, len(spoke.log) < rules.log_max
    grants = accepted(rules, spoke, spoke.sent[index])
    openable = right.state == NONE or (right.state == CLOSED and not rules.tombstones)
    for expires in sorted({grant.expires for grant in grants}):
        opened = with_right(spoke, index, Right(ACTIVE, expires))
        if openable and now < expires:
            yield f"spoke {number} accepts r{r} until {expires}", opened
        if right.state == ACTIVE and max(right.expires, now) < expires:
            yield f"spoke {number} prolongs r{r} until {expires}", opened

    closed = say(with_right(spoke, index, Right(CLOSED, 0)), CLOSE, r)
    late = grants and all(now >= grant.expires for grant in grants)
    if right.state == NONE and late and room and rules.renewals is Renewals.NONE:
        yield f"spoke {number} refuses r{r} as late and sends its close", closed
    if right.state != ACTIVE:
        return
    if room:
        yield f"spoke {number} closes r{r} unused and sends its close", closed
    if now < right.expires:
        used = with_right(spoke, index, Right(USED, 0))._replace(used=spoke.used + 1)
        if room:
            yield f"spoke {number} uses r{r} and sends its use", say(used, USE, r)
        if not rules.outbox:
            yield f"spoke {number} uses r{r} and crashes before it sends", used


def reorganised(rules: Rules, spoke: Spoke) -> Spoke:
    """Return a spoke as of its final block. What it sent later is withdrawn if nobody took it."""
    block = spoke.final
    return spoke._replace(
        clock=block.clock,
        rights=block.rights,
        used=block.used,
        watermark=block.watermark,
        log=spoke.log[: block.log_length] if rules.finality else spoke.log,
        reorgs=spoke.reorgs + 1,
    )


def say(spoke: Spoke, kind: str, about: int) -> Spoke:
    return spoke._replace(log=(*spoke.log, Entry(kind, about, spoke.epoch)))


def with_right(spoke: Spoke, index: int, right: Right) -> Spoke:
    return spoke._replace(rights=put(spoke.rights, index, right))


# The hub and a spoke


def exchanges(
    rules: Rules, number: int, hub: Hub, spoke: Spoke
) -> Iterator[tuple[str, Hub, Spoke]]:
    """Yield each step that reads or changes both the hub and one spoke."""
    for index, sent in enumerate(spoke.sent):
        yield from grants(rules, number, hub, spoke, index, sent)

    length = spoke.final.log_length if rules.reorgs_max and rules.finality else len(spoke.log)
    next_read = hub.read[number]
    for place in (
        range(next_read, min(next_read + 1, length)) if rules.sequence_numbers else (range(length))
    ):
        entry = spoke.log[place]
        taken = heard(hub, number, entry)
        if rules.sequence_numbers:
            taken = taken._replace(read=put(hub.read, number, place + 1))
        name = entry.about if entry.kind == WATERMARK else f"of r{entry.about}"
        yield f"hub takes message {place + 1} of spoke {number}: {entry.kind} {name}", taken, spoke

    if rules.skew_max is not None and spoke.clock < min(
        rules.clock_max, hub.clock + rules.skew_max
    ):
        label, later = spoke_tick(number, spoke)
        yield label, hub, later
    if rules.amnesia is not Amnesia.NONE and spoke.epoch == 0:
        yield (
            f"spoke {number} loses its state and what the hub has not taken",
            hub,
            forgetful(spoke, next_read),
        )


def grants(
    rules: Rules, number: int, hub: Hub, spoke: Spoke, index: int, sent: tuple[Grant, ...]
) -> Iterator[tuple[str, Hub, Spoke]]:
    """Yield the grant and the renewal that the hub may send for one reservation."""
    r = number + SPOKES * index
    if hub.states[r] == NONE and hub.free > 0:
        grant = Grant(hub.clock + rules.lifetime, spoke.epoch if rules.epoch_in_grants else 0)
        debited = hub._replace(states=put(hub.states, r, HELD), free=hub.free - 1)
        word = "grants"
    elif rules.renewals is not Renewals.NONE and hub.states[r] == HELD and len(hub.grants[r]) == 1:
        grant = hub.grants[r][0]._replace(expires=hub.grants[r][0].expires + 1)
        debited = hub
        word = "renews"
    else:
        return
    after = debited._replace(grants=put(hub.grants, r, (*hub.grants[r], grant)))
    known = spoke.sent if grant in sent else put(spoke.sent, index, (*sent, grant))
    yield f"hub {word} r{r} until {grant.expires}", after, spoke._replace(sent=known)


def heard(hub: Hub, number: int, entry: Entry) -> Hub:
    """Return the hub after it has taken one message of a spoke."""
    if entry.kind == WATERMARK:
        if entry.about <= hub.watermarks[number]:
            return hub
        return hub._replace(
            watermarks=put(hub.watermarks, number, entry.about),
            watermark_epochs=put(hub.watermark_epochs, number, entry.epoch),
        )
    if hub.states[entry.about] != HELD:
        return hub
    if entry.kind == CLOSE:
        return free(hub, entry.about)
    return hub._replace(states=put(hub.states, entry.about, SETTLED))


def forgetful(spoke: Spoke, taken: int) -> Spoke:
    """Return a spoke in its next life: it knows the time, and what it used stays used."""
    return spoke._replace(
        rights=(Right(NONE, 0),) * len(spoke.rights),
        log=spoke.log[:taken],
        watermark=0,
        epoch=spoke.epoch + 1,
    )


def put(values: tuple[T, ...], index: int, value: T) -> tuple[T, ...]:
    return (*values[:index], value, *values[index + 1 :])
