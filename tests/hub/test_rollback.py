"""Blocks are lost: the hub takes back what they told, and nothing that was final."""

import pytest

from benchmarks.reorgs import try_all
from hub.reservation import State
from messaging.messages import ChainReorganised, Family, HaltReason, Message
from messaging.units import USD, Height
from tests.hub.test_oracle import BASE, CASH, Desk, ask, closes, key, reports, uses
from tests.hub.test_watch import at, ended, orders, placed


def test_behind_any_event_the_hub_is_where_one_is_that_never_saw_the_lost_blocks() -> None:
    result = try_all(0.3, stride=11)
    assert result.reorgs > 300
    assert min(result.lost.values()) > 0, "every kind of fact was taken back"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_so_it_is_behind_every_event_of_longer_runs(seed: int) -> None:
    assert try_all(0.6, seed).reorgs > 3_000


def lose(desk: Desk, fork: int, family: Family = Family.RESERVATION) -> list[Message]:
    word = ChainReorganised(fork_height=Height(fork), old_height=Height(fork + 6), base_epoch=1)
    return desk.tell(word, height=fork, family=family)


def test_a_close_that_is_lost_frees_nothing_until_it_comes_again_and_is_final() -> None:
    desk = Desk()
    desk.tell(ask(1))
    desk.tell(uses(1, 30 * USD), height=5)
    desk.tell(closes(1, 40 * USD), height=7)
    lose(desk, 6)
    known = desk.hub.state.reservations[key(1)]
    assert (known.used_usd6, known.use_height, known.closed) == (30 * USD, 5, None)

    desk.mark(9, final=9)
    assert desk.reserved() == 100 * USD
    assert desk.state_of(1) is State.HELD
    desk.tell(closes(1, 30 * USD), height=10)
    desk.mark(11, final=10)
    assert desk.state_of(1) is State.SETTLED
    assert desk.hub.state.zone_of[BASE].halted is None


def test_a_watermark_that_is_lost_releases_nothing() -> None:
    desk = Desk()
    desk.tell(ask(1, ttl_us=20))
    desk.mark(25, final=0)
    lose(desk, 20)
    desk.tell(ask(2), height=21, final=21)
    assert desk.state_of(1) is State.HELD
    assert desk.hub.state.zone_of[BASE].heard_us == 0
    desk.mark(22, final=22)
    assert desk.state_of(1) is State.RELEASED


def test_time_may_fall_with_the_blocks_and_age_grows() -> None:
    desk = Desk()
    for time_us in (10, 20, 30):
        desk.mark(time_us, final=5, family=Family.MARGIN_STATE)
    lose(desk, 15, Family.MARGIN_STATE)
    zone = desk.hub.state.zone_of[BASE]
    assert (zone.state_us, list(zone.covers)) == (10, [10])
    desk.mark(18, final=5, family=Family.MARGIN_STATE)
    assert zone.halted is None
    assert zone.state_us == 18


def test_the_loss_of_a_final_block_halts_the_spoke_and_undoes_nothing_final() -> None:
    desk = Desk()
    desk.tell(ask(1))
    desk.tell(uses(1, 30 * USD), height=5)
    desk.tell(uses(1, 40 * USD), height=9, final=6)
    told = lose(desk, 4)
    zone = desk.hub.state.zone_of[BASE]
    assert zone.halted is HaltReason.FINALITY_VIOLATED
    assert any(getattr(one, "reason", None) is HaltReason.FINALITY_VIOLATED for one in told)
    assert desk.hub.state.reservations[key(1)].used_usd6 == 30 * USD
    desk.tell(closes(1, 30 * USD), height=10, final=10)
    assert desk.reserved() == 100 * USD


def test_a_word_that_calls_more_final_than_it_leaves_halts_the_spoke() -> None:
    desk = Desk()
    desk.tell(ask(1))
    lost = ChainReorganised(fork_height=Height(4), old_height=Height(9), base_epoch=1)
    desk.tell(lost, height=4, final=5)
    assert desk.hub.state.zone_of[BASE].halted is HaltReason.FINALITY_VIOLATED


@pytest.mark.parametrize("first", [Family.MARGIN_STATE, Family.LIQUIDATION])
def test_a_command_whose_end_is_lost_is_under_way_again_whichever_channel_tells_it_first(
    first: Family,
) -> None:
    desk = Desk()
    placed(desk)
    (order,) = orders(at(desk, 95))
    before = desk.account()
    desk.tell(ended(order, 2), height=7, family=Family.LIQUIDATION)
    desk.report(reports(2, realised_usd6=-CASH // 2), at=7)
    assert not desk.account().commands
    second = ({Family.MARGIN_STATE, Family.LIQUIDATION} - {first}).pop()
    lose(desk, 6, first)
    assert len(desk.account().commands) == 1
    lose(desk, 6, second)

    account = desk.account()
    assert (account.commands, account.views) == (before.commands, before.views)
    assert not orders(at(desk, 95)), "it counts as executed, so nothing is closed twice"
    desk.tell(ended(order, 2), height=8, final=8, family=Family.LIQUIDATION)
    desk.report(reports(2), at=8, final=8)
    assert not desk.account().commands
