"""How much to close, and when a command is over."""

from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.account import Account, Command, SpokeView, nothing
from hub.liquidation import LiquidationPolicy, added, end, keep_share, plan, sweep
from hub.margin.requirement import Assessment
from messaging.messages import LiquidationDone, LiquidationEnd, LiquidationOrdered, Position
from messaging.units import ONE, USD
from tests.hub.test_oracle import reports

POLICY = LiquidationPolicy(
    call_ppm=1_150_000,
    restore_ppm=1_250_000,
    target_extra_ppm=20_000,
    cost_ppm=12_000,
    dust_usd6=1_000 * USD,
    command_ttl_us=1_000,
    insurance_share_ppm=500_000,
)
NO_DUST = msgspec.structs.replace(POLICY, dust_usd6=0)
PLACES = {"BTC": 0, "SOL": 1}

notionals = st.integers(10**3, 10**16)
shares = st.fractions(0, 1)
quantities = st.integers(-(10**12), 10**12).filter(bool)
holdings = st.dictionaries(st.sampled_from(["BTC", "SOL"]), quantities)


def standing(equity_usd6: int, notional_usd6: int, ratio_ppm: int = 65_000) -> Assessment:
    return Assessment(
        equity_usd6=equity_usd6,
        maintenance_usd6=-(-notional_usd6 * ratio_ppm // 1_000_000),
        initial_usd6=0,
        notional_usd6=notional_usd6,
    )


def account(*spokes: dict[str, int], commands: tuple[Command, ...] = ()) -> Account:
    views = []
    for version, held in enumerate(spokes, start=5):
        positions = tuple(Position(asset=a, qty8=q, cost_usd6=0) for a, q in held.items())
        state = msgspec.structs.replace(nothing("ann"), version=version, positions=positions)
        views.append(SpokeView(state, state))
    return Account(id="ann", place=0, views=tuple(views), commands=commands)


def command(target_qty8: int, *, spoke: int = 0, asset: int = 0, number: int = 1) -> Command:
    ordered = LiquidationOrdered(
        liq_id=number.to_bytes(16, "big"),
        account="ann",
        asset="BTC",
        target_qty8=target_qty8,
        max_qty8=10**12,
        state_version=5,
        price_usd6=0,
        deadline_us=10,
        margin_version=1,
    )
    return Command(ordered=ordered, spoke=spoke, asset=asset)


def ended(number: int = 1, version: int = 6) -> LiquidationDone:
    return LiquidationDone(
        liq_id=number.to_bytes(16, "big"),
        filled_qty8=0,
        position_after_qty8=0,
        state_version=version,
        reason=LiquidationEnd.DONE,
    )


@given(notionals, shares, st.integers(10_000, 400_000))
def test_closing_the_share_restores_the_target_margin(
    notional: int, level: Fraction, ratio_ppm: int
) -> None:
    """(E - phi*f*N) / ((1 - phi)*N) = m_t, the closed form, for E between f*N and the target."""
    cost = Fraction(12, 1_000)
    target = Fraction(ratio_ppm + 20_000, 1_000_000)
    equity = int(notional * (cost + (target - cost) * level)) + 1
    stays = Fraction(*keep_share(POLICY, standing(equity, notional, ratio_ppm), 0))
    after = equity - (1 - stays) * cost * notional

    assert 0 <= stays <= 1
    assert abs(after - target * stays * notional) <= 3


@given(notionals, st.integers(-(10**16), 10**16))
def test_who_cannot_pay_for_closing_twice_is_closed_whole(notional: int, equity: int) -> None:
    stays, _ = keep_share(POLICY, standing(equity, notional), 0)
    cost = -(-notional * 12_000 // 1_000_000)

    assert (stays == 0) == (equity <= cost)


@given(notionals, st.integers(0, 10**15), st.integers(0, 10**15))
def test_what_commands_under_way_will_cost_is_gone_already(
    notional: int, equity: int, pending: int
) -> None:
    spent = keep_share(POLICY, standing(equity - pending, notional), 0)

    assert keep_share(POLICY, standing(equity, notional), pending) == spent


def test_a_sound_account_keeps_all() -> None:
    stays, of = keep_share(POLICY, standing(10**12, 10**12), 0)

    assert stays == of
    assert plan(POLICY, account({"BTC": ONE}), standing(10**12, 10**12), PLACES, 0) == []


def test_a_hedge_can_be_liquidated_under_the_tightest_policy_that_a_scenario_allows() -> None:
    tight = msgspec.structs.replace(POLICY, target_extra_ppm=POLICY.cost_ppm + 1)

    assert keep_share(tight, standing(0, 10**12, ratio_ppm=0), 0)[0] == 0


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["BTC", "SOL"]), st.integers(-(10**12), 10**12).filter(bool)
        ),
        min_size=1,
        max_size=3,
    ),
    st.integers(13, 85),
)
def test_every_position_gives_the_same_share_rounded_toward_closing(
    spokes: list[dict[str, int]], thousandths: int
) -> None:
    now = standing(10**9 * thousandths, 10**12)
    share = Fraction(*keep_share(NO_DUST, now, 0))
    reductions = plan(NO_DUST, account(*spokes), now, PLACES, 0)
    ordered = {(one.spoke, one.asset): one for one in reductions}

    for spoke, held in enumerate(spokes):
        for asset, qty8 in held.items():
            one = ordered.get((spoke, PLACES[asset]))
            if share == 1:
                assert one is None
                continue
            assert one is not None
            assert one.reported_qty8 == abs(qty8)
            assert one.target_qty8 == int(abs(qty8) * share) < abs(qty8)
            assert one.state_version == 5 + spoke


@pytest.mark.parametrize(("dust_usd6", "target"), [(500_000_000, 50_000_000), (500_000_001, 0)])
def test_what_would_be_left_below_dust_is_closed_too(dust_usd6: int, target: int) -> None:
    policy = msgspec.structs.replace(POLICY, dust_usd6=dust_usd6)
    half = standing(48_500_000, 1_000 * USD)  # (48.5 - 12) / (85 - 12) = one half
    (one,) = plan(policy, account({"BTC": ONE}), half, PLACES, 0)

    assert one.target_qty8 == target


def test_commands_under_way_count_as_executed() -> None:
    """The position is 100; 40 may stay after the first command, of which half may stay now."""
    busy = account({"BTC": 100}, commands=(command(40), command(60, number=2)))
    half = standing(48_500_000, 1_000 * USD)
    (one,) = plan(NO_DUST, busy, half, PLACES, 0)

    assert (one.reported_qty8, one.target_qty8) == (100, 20)


@pytest.mark.parametrize("stays_usd6", [0, 48_500_000])
def test_nothing_is_ordered_twice(stays_usd6: int) -> None:
    busy = account({"BTC": 100}, commands=(command(0),))

    assert plan(NO_DUST, busy, standing(stays_usd6, 1_000 * USD), PLACES, 0) == []


def test_the_smallest_target_bounds_a_position_on_its_own_spoke_only() -> None:
    one, other = command(40), command(25, number=2)
    busy = account({"BTC": 100}, {"BTC": 100}, commands=(one, other, command(90, spoke=1)))

    assert busy.bounds() == {(0, 0): 25, (1, 0): 90}


@pytest.mark.parametrize(("count", "target"), [(6, 20), (7, 0)])
def test_the_last_of_many_commands_closes_the_position_whole(count: int, target: int) -> None:
    commands = tuple(command(40, number=number) for number in range(count))
    half = standing(48_500_000, 1_000 * USD)
    (one,) = plan(NO_DUST, account({"BTC": 100}, commands=commands), half, PLACES, 0)

    assert one.target_qty8 == target


def test_a_command_is_over_when_ended_and_its_outcome_reported_in_either_order() -> None:
    waiting = account({"BTC": 1}, commands=(command(0), command(3, number=2)))
    told = end(waiting, ended())
    newer = SpokeView(msgspec.structs.replace(nothing("ann"), version=6), nothing("ann"))

    assert [one.done is not None for one in told.commands] == [True, False]
    assert end(told, ended()) == told
    assert sweep(waiting) is waiting
    assert len(sweep(msgspec.structs.replace(told, views=(newer,))).commands) == 1
    assert len(end(msgspec.structs.replace(waiting, views=(newer,)), ended()).commands) == 1


@given(*[st.integers(0, 10**12)] * 4, st.integers(-(10**12), 10**12))
def test_the_fee_that_is_charged_is_all_that_cash_can_bear(
    loss: int, fees: int, asked: int, before: int, cash: int
) -> None:
    old = reports(1, realised_usd6=before, fees_usd6=before, penalty_usd6=before)
    new = reports(
        2, realised_usd6=before - loss, fees_usd6=before + fees, penalty_usd6=before + asked
    )
    realised, charged, penalty = added(new, old, cash)

    assert (realised, charged) == (-loss, fees)
    assert 0 <= penalty <= asked
    assert cash - loss - fees - penalty >= min(0, cash - loss - fees)
    assert penalty == asked or cash - loss - fees - penalty <= 0
