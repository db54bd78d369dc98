"""How much faster the hub's looks are for not looking at every account, with the same outcome.

    python -m benchmarks.looks [--accounts 100000] [--ticks 120] [--seed 1] [--json]

Two hubs are told the same: prices on a random walk, watermarks, reports, ends of liquidations.
One looks as the hub does, the other at all accounts each time. They must do the same at every
tick. Timed, on the processor's clock, is the finding of accounts to judge, back to back; and a bare
matrix product of all positions and 16 scenarios, in the same run.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from statistics import median

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.scenario import MARCH_2020
from hub import positions, watch
from hub.margin.book import CALLED, DONE, FROZEN, HAIR_USD6, OPEN, Book, Pass
from hub.margin.requirement import Conditions
from hub.oracle import take
from hub.state import HubState
from lab import reading
from lab.policies import hub_policy
from lab.world import lanes_of
from messaging.effects import Effect, Send
from messaging.fingerprint import fingerprint
from messaging.messages import (
    LiquidationDone,
    LiquidationEnd,
    LiquidationOrdered,
    MarginSet,
    Position,
    PricePublished,
    StateReported,
)
from messaging.units import AccountId, Asset, Height, Micros, Qty8, Usd6

SCENARIOS = 16
TICK_US, MARK_EVERY, MARK_LAG_US = 2_000_000, 6, 30_000_000
MOVE = 0.0005  # of a price in a tick: a volatility of 200 % a year
ASSETS, PRICES_USD = (Asset("BTC"), Asset("ETH")), (58_000, 2_500)
NEAR = 0.01  # share of accounts that stand within `NEAR_MOVE` of a margin call
NEAR_MOVE, FAR_MOVE = 0.002, 0.5


class AllBook(Book):
    """A book that looks at every account each time; what the other one is compared with."""

    def proposed(self, conditions: Conditions) -> list[int]:
        """Return the places of accounts whose status may have to change, in order."""
        equity, maintenance, _, gross = self.standings(conditions)
        hair = HAIR_USD6 + gross * (1e-6 * self._restore) + maintenance * 1e-9
        code = self._code
        at_risk = (maintenance > 0.0) | (equity < 0.0)
        low = (equity < maintenance + hair) & at_risk
        called = (equity < maintenance * self._call + hair) & at_risk
        restored = equity > maintenance * self._restore - hair
        wanted = (called & (code == OPEN)) | (low & (code != DONE))
        wanted |= (restored & (code == CALLED)) | (code == FROZEN)
        return np.flatnonzero(wanted).tolist()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What came out; times are medians over the ticks [us].

    Attributes:
        looked_at: accounts looked at in a tick after the first, mean.
        whole_us: finding who is to be judged among all. found_us: as the hub does it.
        ratio: all over ours. mean_ratio: the same of means, for some of our looks take longer.
        first_us: our first look, at all accounts.
        product_us: the bare matrix product. whole_over_product: of the same run.
        told, ordered: changes of status told to spokes and liquidations, the same from both hubs.
        digest: of all that the hubs did.
    """

    accounts: int
    ticks: int
    looked_at: float
    whole_us: float
    found_us: float
    ratio: float
    mean_ratio: float
    first_us: float
    product_us: float
    whole_over_product: float
    told: int
    ordered: int
    digest: str


class OurBook(Book):
    """The hub's own book, counting the accounts that it looks at."""

    looked_at = 0

    def _stand(
        self,
        conditions: Conditions,
        places: NDArray[np.intp],
        prices_usd6: NDArray[np.int64] | None = None,
    ) -> Pass:
        self.looked_at += len(places)
        return super()._stand(conditions, places, prices_usd6)


class Side:
    """One of the two hubs, and the time that its looks take."""

    def __init__(self, hub: HubState) -> None:
        self.hub = hub
        self.took_us: list[float] = []
        find = hub.book.proposed

        def timed(conditions: Conditions) -> list[int]:
            began_s = time.process_time()
            found = find(conditions)
            self.took_us.append((time.process_time() - began_s) * 1e6)
            return found

        hub.book.proposed = timed  # type: ignore[method-assign]


def hub_of(deposits: Sequence[tuple[AccountId, Usd6]], kind: type[Book]) -> HubState:
    """Return the state of a hub with these accounts, of the scenario march_2020."""
    scenario = reading.check(reading.read_file(MARCH_2020), directory=MARCH_2020.parent)
    policy = hub_policy(scenario, lanes_of(scenario))
    hub = HubState(policy, deposits)
    hub.book = kind(
        policy.margin,
        hub.places,
        len(hub.zones),
        len(deposits),
        call_ppm=policy.liquidation.call_ppm,
        restore_ppm=policy.liquidation.restore_ppm,
    )
    for place, (_, cash_usd6) in enumerate(deposits):
        hub.book.set_cash(place, cash_usd6)
    return hub


def reports_of(dice: np.random.Generator, accounts: int) -> list[list[StateReported]]:
    """Return a first report of each account on one to three spokes, long or short."""
    found = []
    for account in range(accounts):
        states = []
        for _ in range(int(dice.integers(1, 4))):
            place = int(dice.integers(0, 2))
            value_usd = float(dice.uniform(1_000, 50_000)) * (1 if dice.random() < 0.5 else -1)
            qty8 = Qty8(round(value_usd / PRICES_USD[place] * 1e8))
            cost_usd6 = Usd6(round(value_usd * float(dice.uniform(0.97, 1.03)) * 1e6))
            held = (Position(asset=ASSETS[place], qty8=qty8, cost_usd6=cost_usd6),)
            states.append(_state(account, 1, held))
        found.append(states)
    return found


def _state(account: int, version: int, held: tuple[Position, ...]) -> StateReported:
    return StateReported(
        account=AccountId(f"t{account}"),
        version=version,
        block_time_us=Micros(0),
        positions=held,
        realised_usd6=Usd6(0),
        fees_usd6=Usd6(0),
        liquidation_fees_usd6=Usd6(0),
    )


def cash_of(dice: np.random.Generator, reports: list[list[StateReported]]) -> list[int]:
    """Return deposits that leave each account some way from its call: a few close, others not."""
    nobody = [(AccountId(f"t{account}"), Usd6(0)) for account in range(len(reports))]
    hub = hub_of(nobody, AllBook)
    _begin(hub, reports)
    hub.bring_book_up()
    equity, maintenance, _, gross = hub.book.standings(hub.conditions(Micros(TICK_US)))
    near = dice.random(len(reports)) < NEAR
    away = np.where(near, dice.uniform(0.0, NEAR_MOVE, len(near)), 0.0)
    away += np.where(near, 0.0, dice.uniform(0.01, FAR_MOVE, len(near)))
    level = hub.policy.liquidation.call_ppm / 1e6
    return [round(cash) for cash in (maintenance * level - equity + away * gross).tolist()]


def _begin(hub: HubState, reports: list[list[StateReported]]) -> None:
    for states in reports:
        for spoke, state in enumerate(states):
            positions.reported(hub, hub.zones[spoke], state, Height(0))
    for place, price_usd in enumerate(PRICES_USD):
        _price(hub, place, price_usd, Micros(TICK_US))


def _price(hub: HubState, place: int, price_usd: float, now_us: Micros) -> None:
    asset = hub.policy.margin.assets[place].asset
    price_usd6 = Usd6(round(price_usd * 1e6))
    published = PricePublished(asset=asset, price_usd6=price_usd6, observed_us=now_us)
    hub.prints[place] = take(hub.prints[place], published, now_us)
    hub.look_due = True


def _carry_out(hub: HubState, effects: Sequence[Effect], tick: int) -> None:
    """Do what was ordered: the position is as small as it was to be, then the command is over."""
    for effect in effects:
        if not (isinstance(effect, Send) and isinstance(effect.message, LiquidationOrdered)):
            continue
        order, zone = effect.message, hub.zone_of[effect.to]
        view = hub.accounts[hub.place_of[order.account]].views[zone.place].latest
        held = []
        for position in view.positions:
            if position.asset == order.asset and abs(position.qty8) > order.target_qty8:
                left = Qty8(order.target_qty8 if position.qty8 > 0 else -order.target_qty8)
                cost = Usd6(position.cost_usd6 * abs(left) // abs(position.qty8))
                held.append(Position(asset=position.asset, qty8=left, cost_usd6=cost))
            else:
                held.append(position)
        version = view.version + 1
        state = msgspec.structs.replace(view, version=version, positions=tuple(held))
        positions.reported(hub, zone, state, Height(tick))
        done = LiquidationDone(
            liq_id=order.liq_id,
            filled_qty8=order.max_qty8,
            position_after_qty8=order.target_qty8,
            state_version=version,
            reason=LiquidationEnd.DONE,
        )
        positions.done(hub, zone, done, Height(tick))


def _trade(hub: HubState, accounts: Sequence[int], tick: int) -> None:
    """Let some accounts' positions on the first spoke become smaller by a tenth."""
    for account in accounts:
        view = hub.accounts[account].views[0].latest
        held = tuple(
            Position(
                asset=one.asset,
                qty8=Qty8(one.qty8 - one.qty8 // 10),
                cost_usd6=Usd6(one.cost_usd6 - one.cost_usd6 // 10),
            )
            for one in view.positions
        )
        state = msgspec.structs.replace(view, version=view.version + 1, positions=held)
        positions.reported(hub, hub.zones[0], state, Height(tick))


def product_us(accounts: int, rows: int) -> float:
    """Return how long all positions times 16 scenarios take, median of 9."""
    table, moves = np.ones((accounts, rows)), np.ones((rows, SCENARIOS))
    values = np.empty((accounts, SCENARIOS))
    took_us = []
    for _ in range(9):
        began_s = time.process_time()
        np.matmul(table, moves, out=values)
        took_us.append((time.process_time() - began_s) * 1e6)
    return median(took_us)


def measure(accounts: int, ticks: int, seed: int) -> Report:
    """Walk both hubs through the same ticks.

    Raises:
        AssertionError: they did not do the same.
    """
    dice = np.random.default_rng(seed)
    reports = reports_of(dice, accounts)
    cash = cash_of(dice, reports)
    deposits = [(AccountId(f"t{account}"), Usd6(cash[account])) for account in range(accounts)]
    ours, whole = (Side(hub_of(deposits, kind)) for kind in (OurBook, AllBook))
    for side in (ours, whole):
        _begin(side.hub, reports)
    prices = list(map(float, PRICES_USD))
    did: list[list[Effect]] = []
    for tick in range(1, ticks + 1):
        now_us = Micros((tick + 1) * TICK_US)
        prices = [price * float(np.exp(MOVE * dice.standard_normal())) for price in prices]
        traders = dice.integers(0, accounts, max(1, accounts // 5_000)).tolist()
        effects = []
        for side in (ours, whole) if tick % 2 else (whole, ours):
            if tick % MARK_EVERY == 0:
                for zone in side.hub.zones:
                    zone.state_us = Micros(max(0, now_us - MARK_LAG_US))
            for place, price_usd in enumerate(prices):
                _price(side.hub, place, price_usd, now_us)
            _trade(side.hub, traders, tick)
            effects.append(watch.look(side.hub, now_us))
            _carry_out(side.hub, effects[-1], tick)
        assert effects[0] == effects[1], f"tick {tick}: other accounts are acted upon"
        did.append(effects[0])
    return _report(ours, whole, did)


def _report(ours: Side, whole: Side, did: list[list[Effect]]) -> Report:
    book, sent = ours.hub.book, [one for effects in did for one in effects if type(one) is Send]
    assert isinstance(book, OurBook)
    accounts, spokes = len(ours.hub.accounts), len(ours.hub.zones)
    bare_us = product_us(accounts, spokes * len(PRICES_USD))
    whole_us, found_us = median(whole.took_us), median(ours.took_us[1:])
    return Report(
        accounts=accounts,
        ticks=len(did),
        looked_at=(book.looked_at - accounts) / (len(did) - 1),
        whole_us=whole_us,
        found_us=found_us,
        ratio=whole_us / found_us,
        mean_ratio=sum(whole.took_us[1:]) / sum(ours.took_us[1:]),
        first_us=ours.took_us[0],
        product_us=bare_us,
        whole_over_product=whole_us / bare_us,
        told=sum(type(one.message) is MarginSet for one in sent),
        ordered=sum(type(one.message) is LiquidationOrdered for one in sent),
        digest=fingerprint(did),
    )


def main() -> None:
    """Print what the looks cost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--ticks", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    if given.accounts < 1 or given.ticks < 2:
        parser.error("expected at least 1 account and 2 ticks")
    report = measure(given.accounts, given.ticks, given.seed)
    if given.json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
        return
    print(f"{report.accounts:,} accounts, {report.ticks} ticks, seed {given.seed}")
    print(f"  all accounts      {report.whole_us:>10,.0f} us a tick")
    print(f"  the hub's looks   {report.found_us:>10,.0f} us, the first {report.first_us:,.0f} us")
    print(f"  looked at         {report.looked_at:>10,.0f} accounts a tick")
    print(f"  times as fast     {report.ratio:>10.1f} by medians, {report.mean_ratio:.1f} by means")
    print(f"  matrix product    {report.product_us:>10,.0f} us for {SCENARIOS} scenarios")
    print(f"  all over product  {report.whole_over_product:>10.2f}")
    print(f"{report.told} changes of status told, {report.ordered} liquidations ordered")
    print(f"digest {report.digest}, the same for both")


if __name__ == "__main__":
    main()
