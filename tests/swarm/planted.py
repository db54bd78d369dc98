"""One real violation of each rule of docs/invariants.md, in a running world.

INV1 to INV18 are planted by replacing one function for the time of some swarm seeds; E1 to E5 by
harming a world that has come to rest. What the checks then say must name the rule.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

import hub.credit
import hub.state
import spokes.closing
from hub.margin import requirement
from hub.state import HubState
from hub.zone import Zone
from lab.plants import PLANTS
from lab.swarm.keyed import KeyedVerifier
from lab.swarm.options import FAULTS, draw
from lab.swarm.trial import Trial
from messaging.breakers import Level
from messaging.errors import InvariantViolated
from messaging.messages import CreditUsed
from messaging.units import AccountId, Height, Micros, Ppm, value_up
from spokes.state import SpokeState
from tests.mutants.mutants import MUTANTS, Mutant, applied
from tests.swarm.resting import BROKEN, World

# What no seed can break yet, for the simulator does not have it. Not a list of exceptions: what
# comes to exist goes from here into `PLANTED`.
MISSING: Mapping[str, str] = {}
RULES = (*(f"INV{number}" for number in range(1, 19)), *(f"E{number}" for number in range(1, 6)))
MINUTES = 2.0
SEEDS = 60
ALL = dict.fromkeys(FAULTS, 0.8)


class Planted(NamedTuple):
    """What is wrong, and where it strikes.

    Attributes:
        mutant: the function that is replaced; None if a world at rest is harmed instead.
        faults: what else befalls the world; None for what each seed draws.
        seed: the first one; before, another check may see what follows from it first.
    """

    mutant: Mutant | None = None
    faults: Mapping[str, float] | None = None
    audited: bool = False
    seed: int = 0


def _plant(name: str) -> Planted:
    plant = PLANTS[name]
    return Planted(Mutant("", name, plant.module, plant.name, plant.spoil))


def _young_print(take: Any) -> Any:
    """Take a repeated print for a new one."""

    def spoiled(known: Any, published: Any, now_us: Micros) -> Any:
        return msgspec.structs.replace(take(known, published, now_us), received_us=now_us)

    return spoiled


def _use_behind_close(used: Any) -> Any:
    """Book a use at the block of the newest close that waits, if one does."""

    def spoiled(state: Any, zone: Zone, report: CreditUsed, height: Height) -> Any:
        waiting = [close_height + 1 for close_height, _ in zone.closes]
        return used(state, zone, report, Height(max((height, *waiting))))

    return spoiled


def _grows(finish: Any) -> Any:
    """Let a position grow while it is liquidated."""

    def spoiled(state: SpokeState, now_us: Micros) -> Any:
        for liq_id in state.live:
            _double(state, state.orders[liq_id].command.account)
        return finish(state, now_us)

    return spoiled


def _opened_on(finish: Any) -> Any:
    """Let positions grow while a breaker lets nobody open."""

    def spoiled(state: SpokeState, now_us: Micros) -> Any:
        if any(level >= Level.REDUCE_ONLY for _, level in state.breakers.values()):
            for account in list(state.traders):
                _double(state, account)
        return finish(state, now_us)

    return spoiled


def _double(state: SpokeState, account: AccountId) -> None:
    trader = state.trader(account)
    twice = tuple(
        (asset, held._replace(qty8=2 * held.qty8, cost_usd6=2 * held.cost_usd6))
        for asset, held in trader.holdings
    )
    state.keep_trader(msgspec.structs.replace(trader, holdings=twice))


def _nodded_through(_: Any) -> Any:
    """Look at the key that a frame names, and not at its signature."""
    return lambda self, opened, sender: None


def _granted_on(_: Any) -> Any:
    """Grant credit whatever breakers say."""
    return lambda self, zone: False


def _valued_up(_: Any) -> Any:
    """Round what positions are worth in the trader's favour."""
    return value_up


def _charged_down(fall_and_rise: Any) -> Any:
    """Round what positions require in the trader's favour."""

    def spoiled(legs: Any) -> Any:
        return tuple(cost // 1_000_000 * 1_000_000 for cost in fall_and_rise(legs))

    return spoiled


def _fresh_gain(conditions: Any) -> Any:
    """Count gains in full, however old the report of them."""

    def spoiled(state: Any, now_us: Micros) -> Any:
        found = conditions(state, now_us)
        whole = [Ppm(1_000_000)] * len(found.gain_share_ppm)
        return msgspec.structs.replace(found, gain_share_ppm=whole)

    return spoiled


def _young_state(conditions: Any) -> Any:
    """Take what a spoke has told for its state of now."""

    def spoiled(state: Any, now_us: Micros) -> Any:
        told_us = [zone.state_us for zone in state.zones]
        for zone in state.zones:
            zone.state_us = now_us
        found = conditions(state, now_us)
        for zone, state_us in zip(state.zones, told_us, strict=True):
            zone.state_us = state_us
        return found

    return spoiled


def _new(where: Any, name: str, spoil: Any) -> Mutant:
    return Mutant("", spoil.__name__[1:], where, name, spoil)


PLANTED: Mapping[str, Mapping[str, Planted]] = {
    "INV1": {"overuse": _plant("overuse"), "open_handed": _plant("open_handed")},
    "INV2": {"free_grant": _plant("free_grant")},
    "INV3": {"early_carry": _plant("early_carry")},
    "INV4": {"X5b": Planted(MUTANTS["X5b"]), "X22": Planted(MUTANTS["X22"])},
    "INV5": {"added_use": _plant("added_use"), "X5": Planted(MUTANTS["X5"], ALL)},
    "INV6": {"X12": Planted(MUTANTS["X12"], ALL)},
    "INV7": {"hub_clock": _plant("hub_clock"), "soft_settle": _plant("soft_settle")},
    "INV8": {"young_print": Planted(_new(hub.state, "take", _young_print), audited=True)},
    "INV9": {
        "use_behind_close": Planted(_new(hub.credit, "used", _use_behind_close), audited=True)
    },
    "INV10": {
        "X4": Planted(MUTANTS["X4"], audited=True),
        "X4b": Planted(MUTANTS["X4b"], audited=True),
    },
    "INV11": {"X14": Planted(MUTANTS["X14"], ALL)},
    "INV12": {"X3": Planted(MUTANTS["X3"]), "X3b": Planted(MUTANTS["X3b"])},
    "INV13": {"X32": Planted(MUTANTS["X32"], {"reorg": 1.0, "tail": 1.0})},
    "INV14": {
        "X30": Planted(MUTANTS["X30"], {"reorg": 1.0}),
        "X30b": Planted(MUTANTS["X30b"], {"reorg": 1.0}),
    },
    "INV15": {
        "oversell": _plant("oversell"),
        "grows": Planted(_new(spokes.closing, "finish", _grows)),
    },
    "INV16": {
        "nodded_through": Planted(
            _new(KeyedVerifier, "_verify", _nodded_through), {"forge": 1.0}, seed=1
        )
    },
    "INV17": {
        "granted_on": Planted(_new(HubState, "credit_stopped", _granted_on)),
        "opened_on": Planted(_new(spokes.closing, "finish", _opened_on)),
    },
    "INV18": {
        "valued_up": Planted(_new(requirement, "value_down", _valued_up)),
        "charged_down": Planted(_new(requirement, "fall_and_rise", _charged_down)),
        "fresh_gain": Planted(_new(HubState, "conditions", _fresh_gain)),
        "young_state": Planted(_new(HubState, "conditions", _young_state)),
    },
    **{
        rule: {name: Planted() for name, (broken, _) in BROKEN.items() if broken == rule}
        for rule in RULES[18:]
    },
}


def found(name: str, planted: Planted) -> str:
    """Return what the checks say first; nothing if they are blind to it."""
    if planted.mutant is None:
        world = World()
        BROKEN[name][1](world)
        try:
            world.check()
        except InvariantViolated as error:
            return str(error)
        return ""
    with applied(planted.mutant):
        for seed in range(planted.seed, planted.seed + SEEDS):
            drawn = draw(seed, MINUTES)
            faults = drawn.faults if planted.faults is None else dict(planted.faults)
            options = msgspec.structs.replace(drawn, faults=faults, audited=planted.audited)
            finding = Trial(options).run().finding
            if finding is not None:
                return finding.text
    return ""
