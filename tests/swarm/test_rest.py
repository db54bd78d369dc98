"""What must hold at rest: each rule is broken by hand, once."""

import msgspec
import pytest

from hub.node import Hub
from lab.swarm.options import draw
from lab.swarm.trial import Trial
from messaging.errors import InvariantViolated
from spokes.node import Spoke
from tests.swarm.resting import BROKEN, World


@pytest.fixture
def world() -> World:
    return World()


def test_an_honest_world_comes_to_rest(world: World) -> None:
    world.check()


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_hold_at_rest_is_named(world: World, name: str) -> None:
    rule, harm = BROKEN[name]
    harm(world)
    with pytest.raises(InvariantViolated, match=f"^{rule}"):
        world.check()


@pytest.mark.parametrize("seed", range(12))
def test_repeats_change_nothing_that_counts(seed: int) -> None:
    """The same world with every other frame twice: same books, same positions.

    Ways are short, so that nothing is asked for again: what is sent again may overtake.
    """

    def books(repeat: float) -> tuple[object, ...]:
        faults = {"repeat": repeat} if repeat else {}
        quick = msgspec.structs.replace(draw(seed, 2.0), way_s=0.05, batch=1, faults=faults)
        trial = Trial(quick)
        assert trial.run().finding is None
        nodes = [endpoint.node for endpoint in trial.endpoints()]
        (hub,) = [node.state for node in nodes if isinstance(node, Hub)]
        spokes = [node.state.traders for node in nodes if isinstance(node, Spoke)]
        return hub.ledger.balances, {*hub.reservations.values()}, spokes

    assert books(1.0) == books(0.0)
