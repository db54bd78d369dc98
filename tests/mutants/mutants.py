"""Small, realistic defects, each of which must be found, by the swarm and by the game.

    python -m tests.mutants.mutants [NAME...] [--seeds 400] [--games 400] [--minutes 3] [--list]

Each breaks one rule of docs/protocol.md for the time of a run. A mutant that survives means a
blind test, not a good mutant. Exit code 1 if one survives either; 0 seeds or games leave them out.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from io import StringIO
from statistics import median
from typing import Any, NamedTuple

import msgspec
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

import hub.credit
import hub.node
import hub.reservation
import spokes.node
import spokes.reservation
from hub.state import HubState
from hub.zone import Zone
from lab import plants
from lab.swarm.options import draw
from lab.swarm.trial import Trial
from messaging import lives
from messaging.approvals import Approvals
from messaging.drivers.mortal import MortalDriver
from messaging.durable import Durable
from messaging.envelope import Envelope
from messaging.errors import FrameRefused, OmnimarginError
from messaging.identity import read_entry
from messaging.inbox import Inbox
from messaging.link_control import ResyncAnswer
from messaging.lives import Lives
from messaging.memory import MemoryStore
from messaging.messages import Watermark
from messaging.outbox import Outbox
from messaging.units import Micros
from tests.mutants import gains, rebuild, reconciliation, reorganisation
from tests.mutants.mutant import Mutant
from tests.swarm.games import DeepGame, DigestGame, ForgetfulGame, ReorgGame, RestoredGame
from tests.swarm.machine import Game


def _skewed_clock(tend: Any) -> Any:
    def spoiled(state: HubState, zone: Zone, now_us: Micros) -> Any:
        margin_us = state.policy.clock_skew_us
        for expires_us, rid in list(zone.expiries):
            known = state.reservations[rid]
            if expires_us + margin_us <= now_us and known.open:
                hub.credit.end(state, zone, known, "the hub's clock and a margin")
        return tend(state, zone, now_us)

    return spoiled


def _no_gaps(receive: Any) -> Any:
    def spoiled(self: Inbox, envelope: Envelope, now_us: Micros) -> list[Envelope]:
        if envelope.seq > self.next_seq:
            self.next_seq = envelope.seq
        return list(receive(self, envelope, now_us))

    return spoiled


def _trusting(examine: Any) -> Any:
    """Accept every life, whatever it has forgotten."""

    def spoiled(event: Any, asked: Any, inbox: Any, outbox: Any) -> ResyncAnswer:
        examine(event, asked, inbox, outbox)
        return ResyncAnswer.ACCEPTED

    return spoiled


def _unfenced(believes: Any) -> Any:
    return lambda self, envelope: True


def _hasty(go_on: Any) -> Any:
    """Go on with reservations as soon as one channel is known to be whole."""

    def spoiled(self: Lives, key: Any, keys: Any) -> Any:
        unsynced, self.unsynced = self.unsynced, {key: None}
        try:
            return go_on(self, key, keys)
        finally:
            self.unsynced = {one: None for one in unsynced if one != key}

    return spoiled


def _old_key(admit: Any) -> Any:
    """Take what any key has signed that was ever in force."""

    def spoiled(self: Durable, frame: Envelope, link: Any) -> None:
        try:
            admit(self, frame, link)
        except FrameRefused as error:
            if "no old key" not in str(error):
                raise

    return spoiled


def _keeps_parked(rotate: Any) -> Any:
    """Go on to trust what waited when a new key came into force."""

    def spoiled(self: Inbox, word: Any) -> None:
        parked, since_us, newer = dict(self.parked), dict(self._parked_us), dict(self.newer)
        rotate(self, word)
        self.parked, self._parked_us, self.newer = parked, since_us, newer

    return spoiled


def _taken_back(rotate: Any) -> Any:
    """Let a reorganisation take back the frame that brought a new key into force."""

    def spoiled(self: Outbox, public: bytes) -> None:
        soft = list(self._soft)
        rotate(self, public)
        self._soft.extend(soft)

    return spoiled


def _by_arrival(receive: Any) -> Any:
    """Number frames as they come, as offsets of a topic do."""

    def spoiled(self: Inbox, envelope: Envelope, now_us: Micros) -> list[Envelope]:
        numbered = msgspec.structs.replace(envelope, seq=self.next_seq)
        return list(receive(self, numbered, now_us))

    return spoiled


def _no_repeats(receive: Any) -> Any:
    def spoiled(self: Inbox, envelope: Envelope, now_us: Micros) -> list[Envelope]:
        found = list(receive(self, envelope, now_us))
        return found or ([envelope] if 0 < envelope.seq < self.next_seq else [])

    return spoiled


def _no_outbox(commit: Any) -> Any:
    """Keep what is to be sent in memory only."""

    def spoiled(self: Any, entries: Any, cursors: Any, rows: Any, published: Any) -> None:
        commit(self, entries, cursors, (), published)
        self.last_number += len(rows)

    return spoiled


def _forgets(keep: Any) -> Any:
    """Never send again, neither unasked nor asked: what is lost stays lost."""

    def spoiled(self: Outbox, *given: Any) -> list[Envelope]:
        return []

    return spoiled


def _no_tombstone(granted: Any) -> Any:
    def spoiled(self: Any, now_us: Micros, grant: Any, chain_us: Micros) -> Any:
        known = self.state.credits.get(grant.rid)
        if known is None or known.state is spokes.reservation.State.CLOSED:
            fresh = spokes.reservation.Credit(rid=grant.rid, account=grant.account)
            self.state.credits[grant.rid] = fresh
        return granted(self, now_us, grant, chain_us)

    return spoiled


def _late_grant(granted: Any) -> Any:
    return lambda credit, grant, chain_us: granted(credit, grant, 0)


def _late_use(usable: Any) -> Any:
    return lambda credit, amount_usd6, chain_us: usable(credit, amount_usd6, 0)


def _first_expiry(renew: Any) -> Any:
    def spoiled(known: Any, expires_at_us: int) -> Any:
        after, renewed = renew(known, expires_at_us)
        return msgspec.structs.replace(after, expires_max_us=known.expires_max_us), renewed

    return spoiled


def _unsticky(repeat: Any) -> Any:
    def spoiled(hub_state: Any, zone: Any, asked: Any, now_us: int) -> Any:
        known = hub_state.reservations.get(asked.rid)
        if known is not None and known.state is hub.reservation.State.REJECTED:
            del hub_state.reservations[asked.rid]
        return repeat(hub_state, zone, asked, now_us)

    return spoiled


def _soft_mark(advance: Any) -> Any:
    def spoiled(state: HubState, zone: Zone) -> Any:
        for family in zone.final_heights:
            zone.final_heights[family] = 2**61  # type: ignore[assignment]
        return advance(state, zone)

    return spoiled


def _unjournalled_timer(journal: Any) -> Any:
    def spoiled(self: Durable, now_us: Micros, data: bytes) -> None:
        if isinstance(read_entry(data)[0], Envelope):
            journal(self, now_us, data)

    return spoiled


def _early_mark(marks: Any) -> Any:
    """Say the next watermark now, before the uses that it covers."""

    def spoiled(self: Any, now_us: Micros) -> Any:
        return [
            msgspec.structs.replace(one, message=_later(one.message, self._policy.watermark_us))
            for one in marks(self, now_us)
        ]

    return spoiled


def _later(mark: Any, by_us: int) -> Watermark:
    return msgspec.structs.replace(mark, spoke_time_us=Micros(mark.spoke_time_us + by_us))


def _publish_first(die: Any) -> Any:
    """Publish before the commit: what a death then takes back has been heard."""

    def spoiled(self: Any, process: Any, local_us: Micros) -> Any:
        handled = die(self, process, local_us)
        rows, process.durable._rows = list(process.durable._rows), []
        self._publish(process, rows)
        return handled

    return spoiled


def _unfrozen(handle: Any) -> Any:
    """Go on releasing behind a frame that was passed over."""

    def spoiled(self: Any, now_us: Micros, event: Any) -> Any:
        effects = handle(self, now_us, event)
        for zone in self.state.zones:
            zone.frozen.clear()
        return effects

    return spoiled


def _freeing(write_off: Any) -> Any:
    """Write off what is known as used, and free the rest."""
    return hub.reservation.release


def _alone(take: Any) -> Any:
    """Carry an order out as soon as one operator has given it."""

    def spoiled(self: Approvals, order: Any, operator: Any, now_us: Micros) -> Any:
        operators = take(self, order, operator, now_us)
        if operators is None and self.waiting.pop(order.order_id, None) is not None:
            self.decided[order.order_id] = order
            return (operator,)
        return operators

    return spoiled


def _reads_on(keep: Any) -> Any:
    """Leave a frame out that cannot be read, and go on behind it."""

    def spoiled(self: Inbox, event: Any, now_us: Micros) -> bool:
        if event.seq == self.next_seq and event.chan_epoch == self.chan_epoch:
            self.next_seq += 1
        return False

    return spoiled


def _plant(name: str, rule: str, about: str) -> Mutant:
    plant = plants.PLANTS[name]
    return Mutant(rule, about, plant.module, plant.name, plant.spoil)


MUTANTS: Mapping[str, Mutant] = {
    "X1": _plant("hub_clock", "P39", "free on the hub's clock"),
    "X2": Mutant("P39", "free on the hub's clock with a margin", hub.credit, "tend", _skewed_clock),
    "X3": Mutant("P26", "no gap detection", Inbox, "receive", _no_gaps),
    "X3b": Mutant("P26", "repeats reach the node", Inbox, "receive", _no_repeats),
    "X4": Mutant("P87", "the outbox is not in the commit", MemoryStore, "commit", _no_outbox),
    "X4b": Mutant("P87", "publish before the commit", MortalDriver, "_handle", _publish_first),
    "X4c": Mutant("P58", "never send again unasked", Outbox, "overdue", _forgets),
    "X5": Mutant("P50", "no tombstone", spokes.node.Spoke, "_granted", _no_tombstone),
    "X5b": Mutant("P44", "take a late grant", spokes.reservation, "granted", _late_grant),
    "X5c": Mutant("P46", "use after expiry", spokes.reservation, "usable", _late_use),
    "X6": Mutant("P53", "soft evidence frees", hub.credit, "advance", _soft_mark),
    "X7": Mutant("P60", "a hub may go on from an older state", lives, "examine", _trusting),
    "X7b": Mutant("P19", "reservations before all have answered", Lives, "go_on", _hasty),
    "X8": Mutant("P37", "renewals judged on the first expiry", hub.reservation, "renew",
                 _first_expiry),
    **rebuild.MUTANTS,
    "X11": _plant("added_use", "P34", "uses added up"),
    "X12": Mutant("P38", "rejection is not sticky", hub.credit, "requested", _unsticky),
    "X13": _plant("early_release", "P36", "release before finality"),
    "X14": Mutant("P92", "timer not in the journal", Durable, "_journal", _unjournalled_timer),
    "X16": Mutant("P8", "frames numbered by their arrival", Inbox, "receive", _by_arrival),
    "X18": Mutant("P71", "releases not frozen after a skip", hub.node.Hub, "_handle", _unfrozen),
    "X18b": Mutant("P40", "a write-off frees what is not used", hub.reservation, "write_off",
                   _freeing),
    "X18c": Mutant("P70", "one operator is enough", Approvals, "take", _alone),
    "X18d": Mutant("P69", "poison is left out", Inbox, "keep_poison", _reads_on),
    "X19": Mutant("P20", "frames of an earlier life count", Inbox, "believes", _unfenced),
    "X20": Mutant("P67", "an old key counts on after a new one", Durable, "admit", _old_key),
    "X20b": Mutant("P67", "what waited for a new key counts", Inbox, "_rotate", _keeps_parked),
    "X20c": Mutant("P67", "a reorganisation takes a key back", Outbox, "rotate", _taken_back),
    "X21": _plant("oversell", "P75", "sell all, whatever the bound"),
    "X22": Mutant("P51", "watermark before what it covers", spokes.node.Spoke, "_marks",
                  _early_mark),
    **reorganisation.MUTANTS,
    **reconciliation.MUTANTS,
    **gains.MUTANTS,
}  # fmt: skip


# A game hides X4c: its spokes ask again all the time, and its marks never end. It has no operators,
# and no keys that change on chains that lose blocks.
SWARM_ONLY = frozenset({"X4c", "X18b", "X18c", "X18d", "X20c"})
# What neither can show dies in a story. X18 takes a use and the close behind it, both skipped. What
# X10 would release is told of with the first final watermark of the new epoch, so nobody can tell.
STORIES: Mapping[str, str] = {
    "X10": "tests/hub/test_rebuild.py",
    "X18": "tests/hub/test_operators.py",
}
# Only such a game can tell.
GAMES: Mapping[str, type[Game]] = {
    **dict.fromkeys([*reorganisation.MUTANTS, *gains.MUTANTS], ReorgGame),
    "X7b": RestoredGame,
    "X33": DeepGame,
    **dict.fromkeys(rebuild.MUTANTS, ForgetfulGame),
    **dict.fromkeys(reconciliation.MUTANTS, DigestGame),
}


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """Put a defect in for the time of the block, wherever its function is known by name."""
    sound = getattr(mutant.where, mutant.name)
    spoiled = mutant.spoil(sound)
    with ExitStack() as stack:
        for module in {mutant.where, *_importers(sound)}:
            stack.callback(setattr, module, mutant.name, sound)
            setattr(module, mutant.name, spoiled)
        yield


def _importers(function: Any) -> list[Any]:
    """Return the modules of ours that have imported a function by its name."""
    name = getattr(function, "__name__", "")
    return [
        module
        for path, module in list(sys.modules.items())
        if path.split(".")[0] in ("hub", "spokes", "messaging")
        and getattr(module, name, None) is function
    ]


class Kill(NamedTuple):
    """How many seeds or games it took to find a mutant, and what was found."""

    tries: int
    text: str


def hunt(mutant: Mutant, seeds: int, minutes: float) -> Kill | None:
    """Run seeds until one finds the mutant."""
    with applied(mutant):
        for seed in range(seeds):
            finding = Trial(draw(seed, minutes)).run().finding
            if finding is not None:
                return Kill(seed + 1, finding.text)
    return None


def play(mutant: Mutant, games: int, game: type[Game] = Game) -> Kill | None:
    """Play games until one is won against the mutant."""
    played = 0

    class Counted(game):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            nonlocal played
            played += 1
            super().__init__()

    rules = settings(
        max_examples=games,
        stateful_step_count=60,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    with applied(mutant), redirect_stdout(StringIO()):
        try:
            run_state_machine_as_test(Counted, settings=rules)  # type: ignore[no-untyped-call]
        except (OmnimarginError, AssertionError, LookupError) as error:
            return Kill(played, str(error))
    return None


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.mutants", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--seeds", type=int, default=400, help="of the swarm, at most")
    parser.add_argument("--games", type=int, default=400, help="of Hypothesis, at most")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--list", action="store_true", help="say what there is, run nothing")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in MUTANTS]
    if unknown:
        parser.error(f"expected some of {', '.join(MUTANTS)}, found {unknown[0]}")
    survivors = 0
    tries: dict[str, list[int]] = {"seeds": [], "games": []}
    for name in given.names or MUTANTS:
        mutant = MUTANTS[name]
        line = f"{name:4} {mutant.rule:4} {mutant.about[:40]:40}"
        if given.list:
            sys.stdout.write(line + "\n")
            continue
        if name in STORIES:
            sys.stdout.write(f"{line}  {STORIES[name]}\n")
            continue
        kills = {}
        if given.seeds:
            kills["seeds"] = hunt(mutant, given.seeds, given.minutes)
        if given.games and name not in SWARM_ONLY:
            kills["games"] = play(mutant, given.games, GAMES.get(name, Game))
        for what, kill in kills.items():
            survivors += kill is None
            line += f"  SURVIVES {what}" if kill is None else f" {kill.tries:4} {what}"
            tries[what] += [kill.tries] if kill else []
        texts = [kill.text.split(":")[0][:30] for kill in kills.values() if kill]
        sys.stdout.write(f"{line}  {', '.join(dict.fromkeys(texts))}\n")
        sys.stdout.flush()
    for what, counts in tries.items():
        if counts:
            sys.stdout.write(f"{what}: median {median(counts):g}, worst {max(counts)}\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
