"""Gains that a spoke claims: how many count, when, and what a halt makes of them."""

from hypothesis import given
from hypothesis import strategies as st

from hub.ledger import clearing, held
from messaging.envelope import Envelope
from messaging.messages import Family, HaltOrdered, ReservationGranted
from messaging.units import HUB, MONITOR, USD
from tests.hub.test_oracle import ANN, BASE, CASH, SOL, Desk, ask, reports

GAIN = 300 * USD
HOLD = 1_000


def waiting(desk: Desk, account: str = ANN, spoke: str = BASE) -> int:
    return desk.hub.state.ledger.held_usd6(spoke, account)


def halt(desk: Desk, *spokes: str) -> None:
    order = HaltOrdered(spokes=spokes, finding="an operator's word")
    frame = Envelope(MONITOR, HUB, Family.CONTROL, 1, 0, desk.now_us, 0, 0, order)
    for effect in desk.hub.handle(desk.now_us, frame):
        assert effect.to in spokes


def test_a_final_gain_counts_at_once_without_a_hold() -> None:
    desk = Desk()
    desk.report(reports(1, realised_usd6=GAIN))

    assert desk.cash() == desk.free() == CASH + GAIN
    assert held(BASE, ANN) not in desk.hub.state.ledger.balances


def test_a_held_gain_counts_at_the_end_of_its_hold_and_not_before() -> None:
    desk = Desk(hold_us=HOLD)
    desk.now_us = 5
    desk.report(reports(1, realised_usd6=GAIN))
    desk.block(5 + HOLD - 1)
    assert (desk.free(), waiting(desk)) == (CASH, GAIN)
    desk.block(5 + HOLD)

    assert (desk.free(), waiting(desk)) == (CASH + GAIN, 0)


def test_a_loss_counts_at_once_whatever_the_hold() -> None:
    desk = Desk(hold_us=HOLD)
    desk.report(reports(1, realised_usd6=-GAIN, fees_usd6=1))

    assert desk.cash() == CASH - GAIN - 1


def test_gains_beyond_the_cap_wait_for_losses_of_others() -> None:
    desk = Desk(cap_usd6=100 * USD)
    desk.report(reports(1, realised_usd6=GAIN))
    assert (desk.cash(), waiting(desk)) == (CASH + 100 * USD, 200 * USD)
    desk.report(reports(1, realised_usd6=-50 * USD, account="bob"))
    desk.block(12)
    assert (desk.cash(), waiting(desk)) == (CASH + 150 * USD, 150 * USD)
    desk.report(reports(1, realised_usd6=GAIN), spoke=SOL)

    assert waiting(desk, spoke=SOL) == 200 * USD  # each spoke has a cap of its own


def test_a_loss_that_nobody_could_pay_makes_no_room() -> None:
    desk = Desk(cap_usd6=100 * USD)
    desk.report(reports(1, realised_usd6=-10 * CASH))  # he had a tenth of it
    desk.report(reports(1, realised_usd6=10 * CASH, account="bob"))

    assert waiting(desk, "bob") == 10 * CASH - CASH - 100 * USD


def test_a_halt_stops_what_waits_and_what_has_counted() -> None:
    desk = Desk(cap_usd6=100 * USD)
    desk.report(reports(1, realised_usd6=GAIN))
    assert desk.free() == CASH + 100 * USD
    halt(desk, BASE)
    desk.report(reports(1, realised_usd6=-100 * USD, account="bob"))
    desk.block(12)

    assert (desk.free(), waiting(desk)) == (CASH, 200 * USD)
    assert isinstance(desk.tell(ask(1, 100 * USD), spoke=SOL)[0], ReservationGranted)


def test_a_halt_leaves_losses_as_they_are() -> None:
    desk = Desk()
    desk.report(reports(1, realised_usd6=-GAIN))
    halt(desk, BASE, HUB)

    assert desk.free() == CASH - GAIN


@given(
    st.lists(
        st.tuples(st.sampled_from([ANN, "bob"]), st.integers(-400, 400), st.integers(0, 2 * HOLD)),
        max_size=30,
    ),
    st.sampled_from([0, HOLD]),
)
def test_what_counts_of_a_spokes_word_never_passes_its_cap(
    story: list[tuple[str, int, int]], hold_us: int
) -> None:
    """Money adds up, nothing held is negative, and a hold is never cut short."""
    desk = Desk(cap_usd6=500 * USD, hold_us=hold_us)
    ledger, zone = desk.hub.state.ledger, desk.hub.state.zones[0]
    sums, gained = {ANN: 0, "bob": 0}, []
    for version, (account, change_usd, later_us) in enumerate(story, start=1):
        desk.block(desk.now_us + later_us)
        sums[account] += change_usd * USD
        gained.append((desk.now_us, max(0, change_usd * USD)))
        desk.report(reports(version, realised_usd6=sums[account], account=account))

        young_usd6 = sum(usd6 for at_us, usd6 in gained if at_us + hold_us > desk.now_us)
        assert zone.held_usd6 == waiting(desk) + waiting(desk, "bob") >= young_usd6
        assert zone.won_usd6 <= 500 * USD
        assert -ledger.balances[clearing(BASE)] - zone.held_usd6 <= zone.won_usd6
        for name, cash_usd6 in ((ANN, CASH), ("bob", 100 * CASH)):
            owned_usd6 = ledger.cash_usd6(name) + waiting(desk, name)
            assert owned_usd6 == cash_usd6 + sums[name] + ledger.forgiven_usd6.get(name, 0)
