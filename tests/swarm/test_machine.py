"""Games of Hypothesis against hub and spokes: a few always, many with `-m slow`."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.swarm.games import ForgetfulGame, ReorgGame, RestoredGame
from tests.swarm.machine import Game

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
