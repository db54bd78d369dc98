"""Whole runs in which the market is too thin for the bankrupt: who pays, and what goes wrong."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

import hub.adl
import hub.deleveraging
import hub.waterfall
import spokes.closing
from hub.waterfall import Paid
from lab import running
from lab.plants import PLANTS, Plant
from lab.result import Result
from lab.running import Outcome
from lab.world import World, build
from messaging.messages import LiquidationOrdered
from messaging.record import Record
from messaging.units import Usd6
from tests.mutants.mutant import Mutant
from tests.mutants.mutants import applied
from tests.simulation.small import scenario

THIN = {"depth_usd": 50_000.0, "depth_usd_per_s": 1_500.0}
REORGS = [{"at_h": at_h, "depth": 9} for at_h in (4.7, 4.8, 4.9, 5.0, 5.2, 5.4)]


def thin(
    adl: str, *, socialise: bool = True, reorgs: bool = False, **tables: dict[str, Any]
) -> World:
    """Return a world in which depth is a hundredth of normal, with small funds."""
    return build(
        scenario(
            liquidation={"adl": adl, "socialise": socialise},
            hub={"insurance_usd": 2_000.0},
            assets=[{"name": name} | THIN for name in ("BTC", "ETH")],
            spokes=[
                {"name": name, "chain": name, "insurance_usd": 500.0, "final_after_s": 300.0}
                | ({"reorgs": REORGS} if reorgs else {})
                for name in ("base", "optimism", "unichain")
            ],
            **tables,
        )
    )


def result(outcome: Outcome) -> Result:
    assert outcome.finding is None, outcome.finding
    return outcome.story.result


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    return {adl: result(running.run(thin(adl))) for adl in ("none", "pro_rata", "queue")}


def test_bad_debt_is_paid_for_to_the_millionth(results: dict[str, Result]) -> None:
    for one in results.values():
        paid_usd6 = one.funds_used_usd6 + one.insurance_used_usd6 + one.socialised_usd6
        assert one.bad_debt_usd6 == paid_usd6 + one.uncovered_usd6
        assert one.bad_debt_usd6 > one.insurance_used_usd6 > 0
        assert one.funds_used_usd6 > 0


def test_prices_and_orders_are_the_same_whoever_pays(results: dict[str, Result]) -> None:
    assert len({one.outside_digest for one in results.values()}) == 1
    assert len({one.digest for one in results.values()}) == 3


def test_deleveraging_leaves_less_bad_debt_and_only_a_queue_overshoots(
    results: dict[str, Result],
) -> None:
    none, pro_rata, queue = (results[adl] for adl in ("none", "pro_rata", "queue"))

    assert none.deleveraging.commands == 0
    assert max(pro_rata.bad_debt_usd6, queue.bad_debt_usd6) < none.bad_debt_usd6
    assert pro_rata.deleveraging.overshoot_usd6 == 0 < queue.deleveraging.overshoot_usd6
    assert pro_rata.deleveraging.accounts > queue.deleveraging.accounts > 0
    assert pro_rata.deleveraging.given_up_usd6 > 0


@pytest.mark.parametrize("adl", ["pro_rata", "queue"])
def test_the_rules_hold_when_messages_and_blocks_are_lost(adl: str) -> None:
    links = {"loss_ppm": 200_000, "repeat_ppm": 200_000, "reorder_ppm": 200_000}
    found = result(running.run(thin(adl, reorgs=True, links=links)))

    assert found.deleveraging.accounts > 0
    assert found.deleveraging.overshoot_usd6 == 0 or adl == "queue"


def test_commands_at_a_price_are_of_two_sides_and_replay() -> None:
    world = thin("pro_rata")
    sides = set()
    driver = world.driver()

    def note(record: Record) -> None:
        for effect in record.effects:
            message = getattr(effect, "message", None)
            if isinstance(message, LiquidationOrdered) and message.price_usd6:
                sides.add(message.price_usd6 > 0)

    for record in driver.run():
        note(record)
    assert sides == {True, False}


def _greedy(choose: Any) -> Any:
    """Close twice what is owed, where there is as much."""
    return lambda adl, spoke, owed_qty8, winners: choose(adl, spoke, 2 * owed_qty8, winners)


def _unsound(choose: Any) -> Any:
    """Close whole positions, first of those whose holders need their margin."""

    def spoiled(adl: Any, spoke: int, owed_qty8: int, winners: Any) -> Any:
        weak = [(one, one.size_qty8) for one in winners if one.most_qty8 < one.size_qty8]
        return weak or choose(adl, spoke, owed_qty8, winners)

    return spoiled


def _solvent(shortfall: Any) -> Any:
    """Take who has too little margin for bankrupt."""

    def spoiled(*given: Any) -> Any:
        missing_usd6, losses_usd6 = shortfall(*given)
        return missing_usd6 + 5_000_000_000, losses_usd6

    return spoiled


def _given_back_whole(settle: Any) -> Any:
    """Claim all of a part again, though some of it was closed."""

    def spoiled(state: Any, command: Any) -> None:
        if command.claim is not None:
            nothing = msgspec.structs.replace(command.done, filled_qty8=0)
            command = msgspec.structs.replace(command, done=nothing)
        settle(state, command)

    return spoiled


def _out_of_order(_: Any) -> Any:
    """Let insurance pay before the fund of the spoke."""

    def pay(shortfall_usd6: int, losses_usd6: Any, funds: Any) -> Paid:
        insurance_usd6 = min(shortfall_usd6, funds.insurance)
        left_usd6 = shortfall_usd6 - insurance_usd6
        by_spoke = []
        for had_usd6 in funds.spokes:
            by_spoke.append(min(left_usd6, had_usd6))
            left_usd6 -= by_spoke[-1]
        return Paid(tuple(by_spoke), insurance_usd6, left_usd6)

    return pay


def _equal_parts(haircut: Any) -> Any:
    """Take the same from everybody who has anything."""
    return lambda deficit_usd6, available: haircut(
        deficit_usd6, [min(1_000_000, usd6) for usd6 in available]
    )


def _at_the_market(slice_: Any) -> Any:
    """Fill a command at a price at the market's."""

    def spoiled(spoke: Any, order: Any) -> Any:
        qty8, price_usd6 = slice_(spoke, order)
        if order.command.price_usd6:
            price_usd6 = Usd6(price_usd6 + 1)
        return qty8, price_usd6

    return spoiled


def _beyond_the_order(slice_qty8: Any) -> Any:
    """Close the whole position, whatever a command allows."""

    def spoiled(order: Any, position_qty8: int, *rest: Any) -> Any:
        if order.command.price_usd6:
            return -position_qty8
        return slice_qty8(order, position_qty8, *rest)

    return spoiled


HEDGED = {"hedged_ppm": 900_000, "leverage_min": 7.0}
PLANTED: dict[str, tuple[Any, str, Callable[[Any], Any]] | Plant] = {
    "ADL: others close more than was claimed": (hub.adl, "choose", _greedy),
    "ADL: a winner falls below maintenance": (hub.adl, "choose", _unsound),
    "ADL: a solvent account is closed": (hub.deleveraging, "shortfall", _solvent),
    "ADL: a part is claimed twice": (hub.deleveraging, "settle", _given_back_whole),
    "WATERFALL: insurance pays twice": PLANTS["double_payment"],
    "WATERFALL: insurance pays first": (hub.waterfall, "pay", _out_of_order),
    "MONEY: a haircut out of proportion": (hub.waterfall, "haircut", _equal_parts),
    "INV15: a fill at another price": (spokes.closing, "_slice", _at_the_market),
    "INV15: a fill beyond the command": (spokes.liquidation, "slice_qty8", _beyond_the_order),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_by_its_own_law(name: str) -> None:
    where, function, spoil = PLANTED[name]
    rule = name.split(":")[0]
    # Who loses a whole leg of a hedge needs more margin.
    adl, traders = ("queue", HEDGED) if spoil is _unsound else ("pro_rata", {})
    with applied(Mutant("", name, where, function, spoil)):
        # A haircut later in the same block would be what shows first.
        world = thin(adl, socialise=rule != "WATERFALL", traders=traders)
        finding = running.run(world).finding
    assert finding is not None
    assert str(finding).startswith(f"{rule}:"), finding
