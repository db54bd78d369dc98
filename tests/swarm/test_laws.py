"""What copies of the hub are asked about (INV9), and what of it a spoke's own word decides."""

from types import SimpleNamespace
from typing import cast

import pytest

from hub.reservation import State
from lab.swarm.draws import Draws
from lab.swarm.laws import either_order
from messaging.drivers.process import Process
from messaging.endpoint import Endpoint
from messaging.messages import ClosureAcknowledged, Message, Watermark
from messaging.units import USD, Micros
from tests.hub.test_oracle import BASE, SOL, Desk, ask, closes, key, uses

TIMES = 40


def desk(marked_us: int = 0, spoke: str = BASE) -> Desk:
    """Return a hub that holds a short reservation and a long one, of `spoke`; none is final yet."""
    made = Desk()
    made.tell(ask(1, ttl_us=20))
    made.tell(ask(2), spoke=spoke)
    if marked_us:
        made.tell(Watermark(spoke_time_us=marked_us, open_count=2), height=1)
    return made


def asked(made: Desk) -> int:
    """Return how often the law could be asked of draws of a pair, and of finality."""
    durable = SimpleNamespace(endpoint=Endpoint(made.hub, {}), at_us=0)
    process = cast(Process, SimpleNamespace(durable=durable))
    draws = Draws(1, "laws")
    return sum(either_order(process, draws, Micros(made.now_us)) for _ in range(TIMES))


def test_a_final_block_that_frees_one_of_two_by_an_earlier_word_is_not_asked_about() -> None:
    assert asked(desk()) == TIMES
    assert asked(desk(marked_us=19)) == TIMES, "it claims nothing of either"
    assert asked(desk(marked_us=25, spoke=SOL)) == TIMES, "the blocks of another spoke free nothing"
    assert 0 < asked(desk(marked_us=25)) < TIMES, "all whose block is not final, and no other"


@pytest.mark.parametrize("swapped", [False, True])
def test_a_close_frees_the_same_in_front_of_a_final_watermark_and_behind(swapped: bool) -> None:
    made = desk(marked_us=25)
    facts: list[Message] = [uses(2, 30 * USD), closes(1)]
    said = [
        one for fact in facts[:: -1 if swapped else 1] for one in made.tell(fact, height=1, final=1)
    ]
    assert said == [ClosureAcknowledged(rid=key(1))]
    assert (made.state_of(1), made.state_of(2)) == (State.RELEASED, State.HELD)
    assert made.reserved() == 100 * USD
    assert made.hub.state.zone_of[BASE].halted is None
