"""A cascade on the hub's own margin book: each liquidation moves the price of the next (T14)."""

import math
from typing import NamedTuple

import msgspec

from hub.account import nothing
from hub.margin.book import Book
from hub.margin.buffer import AssetRisk, NoBuffer
from hub.margin.requirement import Conditions, MarginPolicy, Reported, assess
from hub.margin.theory import sizes
from lab.scenario import BreakerTable
from messaging.errors import InputRefused
from messaging.messages import MarginStatus, Position
from messaging.units import ONE, USD, AccountId, Asset, Ppm, Qty8, Usd6

ACCOUNTS, TOP_USD, BOTTOM_USD = 2_000, 10_000.0, 6_000.0
UNIT_QTY8 = ONE
MAINTENANCE_PPM = 50_000
ASSET = Asset("BTC")
RATIO_MAX, SHOCK_USD_MIN = 0.95, 60.0  # beyond, steps of two dollars are too coarse
STRIDE, STEP = 1_237, 10  # accounts open in this stride; credit is looked at after so many
NEAR = 0.02  # of the formula, for a price that falls in steps


class Cascade(msgspec.Struct, frozen=True, kw_only=True):
    """How far a shock brought the price down.

    Attributes:
        ratio: R, what a dollar of falling price makes it fall further; measured_ratio: what the
            hub finds in its book (B6).
        shock_usd: the first fall; drop_usd: all of it.
        exact_usd: by the formula, None for a runaway.
        rounds: looks of the hub until nobody was left to liquidate.
        liquidated, accounts: how many of how many.
        runaway: whether nobody was left at all.
        agrees: whether this is what the formula says, within 2 %.
        stopped_at: how many accounts had opened when the breaker stopped credit, if it did.
        guarded_drop_usd, guarded_liquidated: what becomes of those.
    """

    ratio: float
    measured_ratio: float
    shock_usd: float
    drop_usd: float
    exact_usd: float | None
    rounds: int
    liquidated: int
    accounts: int
    runaway: bool
    agrees: bool
    stopped_at: int | None
    guarded_drop_usd: float
    guarded_liquidated: int


class _World(NamedTuple):
    policy: MarginPolicy
    book: Book
    reports: list[Reported]
    cash: list[int]


def fall(ratio: float, shock_usd: float) -> Cascade:
    """Let a price fall by `shock_usd`, and every sale by as much as it makes for R = `ratio`.

    One unit long on each account, trigger prices evenly spaced below the first price, sales at
    once. The hub's book says who is below maintenance. Once with all accounts, and once with
    those alone that have opened before the hub's breaker has stopped credit.

    Raises:
        InputRefused: a ratio or shock that leaves no room for the accounts.
    """
    if not (0 <= ratio <= RATIO_MAX or 1 <= ratio <= 10):
        expected = f"0 to {RATIO_MAX:g}, or 1 to 10"
        raise InputRefused("--ratio", expected=expected, found=f"{ratio:g}")
    room_usd = 0.99 * (TOP_USD - BOTTOM_USD) * (1 - ratio if ratio < 1 else 1.0)
    if not SHOCK_USD_MIN <= shock_usd <= room_usd:
        expected = f"{SHOCK_USD_MIN:g} to {room_usd:,.0f} at a ratio of {ratio:g}"
        raise InputRefused("--shock-usd", expected=expected, found=f"{shock_usd:g}")
    spacing_usd = (TOP_USD - BOTTOM_USD) / ACCOUNTS
    impact_usd = ratio * spacing_usd  # of one unit, R = impact * density
    world = _world(spacing_usd)
    opened, stopped = _opened(world.book, impact_usd)
    guarded_usd, guarded, _ = _cascade(world, impact_usd, shock_usd)
    for place in range(ACCOUNTS):
        world.book.set_code(place, MarginStatus.OPEN, busy=False, done=False)
    measured = _ratio(world.book, impact_usd)
    drop_usd, liquidated, rounds = _cascade(world, impact_usd, shock_usd)
    exact_usd = sizes.final_drop(shock_usd, sizes.reproduction(impact_usd, 1 / spacing_usd))
    runaway = liquidated == ACCOUNTS
    agrees = runaway if math.isinf(exact_usd) else abs(drop_usd / exact_usd - 1) < NEAR
    return Cascade(
        ratio=ratio,
        measured_ratio=measured,
        shock_usd=shock_usd,
        drop_usd=drop_usd,
        exact_usd=None if math.isinf(exact_usd) else exact_usd,
        rounds=rounds,
        liquidated=liquidated,
        accounts=ACCOUNTS,
        runaway=runaway,
        agrees=agrees,
        stopped_at=opened if stopped else None,
        guarded_drop_usd=guarded_usd,
        guarded_liquidated=guarded,
    )


def _cascade(world: _World, impact_usd: float, shock_usd: float) -> tuple[float, int, int]:
    """Return how far the price falls, how many open accounts go with it, in how many rounds."""
    gone_all, drop_usd, rounds = 0, shock_usd, 0
    while True:
        known = _conditions(TOP_USD - drop_usd)
        gone = []
        for place in world.book.proposed(known):
            cash_usd6, report = world.cash[place], world.reports[place]
            standing = assess(world.policy, {ASSET: 0}, known, cash_usd6, [report])
            if standing.equity_usd6 < standing.maintenance_usd6:
                gone.append(place)
        if not gone:
            return drop_usd, gone_all, rounds
        rounds += 1
        gone_all += len(gone)
        for place in gone:
            world.book.set_code(place, MarginStatus.FROZEN, busy=False, done=True)
        drop_usd += impact_usd * len(gone)


def _opened(book: Book, impact_usd: float) -> tuple[int, bool]:
    """Let accounts open until credit stops (B2); return how many have, and whether it stopped.

    In an order that spreads their triggers evenly at any time. All others count as closed out.
    """
    limit_ppm = BreakerTable().cascade_ppm
    for place in range(ACCOUNTS):
        book.set_code(place, MarginStatus.OPEN, busy=False, done=True)
    for opened in range(1, ACCOUNTS + 1):
        place = opened * STRIDE % ACCOUNTS
        book.set_code(place, MarginStatus.OPEN, busy=False, done=False)
        if opened % STEP == 0 and 1e6 * _ratio(book, impact_usd) > limit_ppm:
            return opened, True
    return ACCOUNTS, False


def _ratio(book: Book, impact_usd: float) -> float:
    """Return R as the hub measures it, of a unit that moves the first price by so much (B6)."""
    whole = (Ppm(1_000_000), Ppm(MAINTENANCE_PPM))  # at such a cost nothing is worth keeping
    return impact_usd / TOP_USD**2 * book.pressures(_conditions(TOP_USD), *whole)[0]


def _conditions(price_usd: float) -> Conditions:
    # Below half a cent a price would be none; the last account went long before.
    price_usd6 = Usd6(round(max(0.005, price_usd) * USD))
    return Conditions(prices_usd6=[price_usd6], tau_s=[[0.0]], gain_share_ppm=[Ppm(1_000_000)])


def _world(spacing_usd: float) -> _World:
    """Return accounts whose triggers lie every `spacing_usd`: cost and cash as of the first price.

    cash = S_0 - (1 - m) S_m, so that equity at the trigger is m S_m (T1)       [USD a unit]
    """
    risk = AssetRisk(
        asset=ASSET,
        initial_margin_ppm=Ppm(2 * MAINTENANCE_PPM),
        maintenance_margin_ppm=Ppm(MAINTENANCE_PPM),
        stress_volatility_ppm=Ppm(1_000_000),
        jump_ppm=Ppm(0),
        quantile_z=3.0,
        depth_usd6_per_s=10**18,
        participation_ppm=Ppm(1_000_000),
    )
    policy = MarginPolicy(assets=(risk,), buffer=NoBuffer(), gain_age_max_s=600.0)
    restored = {"call_ppm": Ppm(1_000_000), "restore_ppm": Ppm(1_000_000)}
    book = Book(policy, {ASSET: 0}, 1, ACCOUNTS, **restored)
    reports, cash, rows = [], [], []
    held = Position(asset=ASSET, qty8=Qty8(UNIT_QTY8), cost_usd6=Usd6(round(TOP_USD * USD)))
    for place in range(ACCOUNTS):
        trigger_usd = TOP_USD - spacing_usd * (place + 0.5)
        cash_usd = TOP_USD - (1 - MAINTENANCE_PPM / 1e6) * trigger_usd
        cash.append(round(cash_usd * USD))
        book.set_cash(place, cash[place])
        flat = nothing(AccountId(f"t{place:05}"))
        opened = msgspec.structs.replace(flat, positions=(held,))
        reports.append(Reported(opened, opened))
        rows.append(book.row(place, 0, reports[place], {}))
    book.enter(rows)
    return _World(policy, book, reports, cash)
