"""Games of Hypothesis against hub and spokes: a few always, many with `-m slow`."""

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from messaging.drivers.process import Death, Loss, Point
from tests.swarm.games import ForgetfulGame, ReorgGame, RestoredGame
from tests.swarm.machine import SPOKES, Game

GAMES = [Game, ReorgGame, ForgetfulGame, RestoredGame]
CALM = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("game", GAMES)
def test_no_game_is_won_against_hub_and_spokes(game: type[Game]) -> None:
    few = settings(CALM, max_examples=15, stateful_step_count=50)
    run_state_machine_as_test(game, settings=few)


@pytest.mark.slow
@pytest.mark.parametrize("game", GAMES)
def test_no_long_game_is_won_either(game: type[Game]) -> None:
    many = settings(CALM, max_examples=1_500, stateful_step_count=80)
    run_state_machine_as_test(game, settings=many)


@pytest.mark.parametrize(
    ("losses", "rebuilt"),
    [
        ([Loss.AMNESIA, Loss.AMNESIA], 2),
        ([Loss.BACKUP, Loss.AMNESIA], 0),
        ([Loss.LAST_COMMIT, Loss.AMNESIA], 0),
        ([Loss.AMNESIA, Loss.BACKUP, Loss.AMNESIA], 1),
    ],
)
def test_a_chain_does_not_go_back_with_a_store(losses: Sequence[Loss], rebuilt: int) -> None:
    game, east = Game(), SPOKES[0]
    game.begin(4_000, 20)
    for loss in losses:
        game.fate.next[east] = Death(Point.AFTER_PUBLISH, 0, loss=loss)
        game.run(12)  # a mark, at least; nobody hears of it
    assert game.driver.counts["amnesia"] == rebuilt
    game.teardown()
