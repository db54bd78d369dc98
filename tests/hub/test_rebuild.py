"""A spoke has lost its memory: what the hub lets go of, and when (P22, P24, P61)."""

import pytest

from messaging.effects import Readmit, Refused, Send
from messaging.messages import CloseReason, Family, Message, ReservationClosed, ReservationGranted
from messaging.node import Rejoined
from messaging.operator_orders import EpochNamed, Verb
from messaging.rebuilding import ChannelRebuilt, OldEpochsClosed
from messaging.units import USD
from tests.hub.test_operators import order
from tests.hub.test_oracle import BASE, TTL, Desk, ask, key

EPOCH = 2


def rejoin(desk: Desk, family: Family = Family.RESERVATION) -> list[Message]:
    event = Rejoined(BASE, family, EPOCH, 1, 3, 5)
    effects = desk.hub.handle(desk.now_us, event)
    word = ChannelRebuilt(spoke_epoch=EPOCH, base_epoch=1)
    desk.tell(word, family=family)
    return [effect.message for effect in effects if isinstance(effect, Send)]


def test_a_watermark_of_another_epoch_releases_nothing() -> None:
    desk = Desk()
    desk.tell(ask(1))
    rejoin(desk)
    desk.mark(2 * TTL, final=2 * TTL)
    assert desk.reserved() == 100 * USD

    (granted,) = desk.tell(ask(2))
    assert isinstance(granted, ReservationGranted)
    assert granted.spoke_epoch == EPOCH
    desk.mark(4 * TTL, final=4 * TTL)
    assert desk.reserved() == 100 * USD  # the one of this epoch is free again


def test_what_never_arrived_is_free_when_the_last_word_is_final() -> None:
    desk = Desk()
    desk.tell(ask(1))
    rejoin(desk)
    desk.tell(OldEpochsClosed(spoke_epoch=EPOCH), height=9, final=8)
    assert desk.reserved() == 100 * USD
    desk.mark(9, final=9)
    assert desk.reserved() == 0


def test_what_was_used_of_an_earlier_epoch_stays_when_its_close_is_final() -> None:
    desk = Desk()
    desk.tell(ask(1))
    rejoin(desk)
    used = ReservationClosed(rid=key(1), used_usd6=30 * USD, reason=CloseReason.REBUILT)
    desk.tell(used, height=9, final=8)
    assert desk.reserved() == 100 * USD
    desk.tell(OldEpochsClosed(spoke_epoch=EPOCH), height=9, final=9)
    assert desk.reserved() == 30 * USD
    assert desk.hub.state.zones[0].halted is None


@pytest.mark.parametrize(
    ("spoke", "epoch", "why"),
    [
        ("nobody", 2, "expected one of base, sol, found nobody"),
        (BASE, 1, "expected an epoch of base after 1, found 1"),
    ],
)
def test_nobody_is_let_in_but_a_known_spoke_in_a_later_epoch(
    spoke: str, epoch: int, why: str
) -> None:
    desk = Desk()
    assert order(desk, Verb.REBUILD, EpochNamed(spoke=spoke, spoke_epoch=epoch)) == [Refused(why)]
    later = order(desk, Verb.REBUILD, EpochNamed(spoke=BASE, spoke_epoch=EPOCH))
    assert later == [Readmit(BASE, EPOCH)]


def test_an_epoch_that_a_spoke_has_come_back_in_is_approved_once() -> None:
    desk = Desk()
    rejoin(desk)
    again = order(desk, Verb.REBUILD, EpochNamed(spoke=BASE, spoke_epoch=EPOCH))
    assert again == [Refused("expected an epoch of base after 2, found 2")]
