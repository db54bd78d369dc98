"""What an account is worth and must hold, a second time: exact, from the rules and the words heard.

Follows M1 to M4 and M6 of docs/margin.md in code of its own, without rounding, and takes ages from
the watermarks that have been heard. The hub may think less of an account, never more.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import lcm
from typing import NamedTuple

from hub.account import Account, SpokeView
from hub.margin.buffer import range_ppm
from hub.margin.requirement import NO_BOUNDS, Assessment, Conditions, Reported, assess
from hub.state import HubState
from lab.evidence import Evidence
from messaging.errors import InvariantViolated
from messaging.messages import StateReported
from messaging.units import ONE, Micros, NodeId, Qty8

FULL = 1_000_000  # ppm


class Exact(NamedTuple):
    """An account's standing, not rounded.

    Attributes:
        equity: [usd6 / ONE]. maintenance, initial: [usd6 / ONE / FULL].
        hedged: legs on both sides of some asset, of which the hub rounds those that win up too.
    """

    equity: Fraction
    maintenance: int
    initial: Fraction
    hedged: bool


class Standing:
    """Compares the hub's view of accounts with our own."""

    def __init__(self, evidence: Mapping[NodeId, Evidence]) -> None:
        self._evidence = evidence

    def check(self, hub: HubState, accounts: Sequence[Account], now_us: Micros) -> int:
        """Compare the standing by which the hub calls and liquidates accounts with our own.

        Return how many were compared.

        Raises:
            InvariantViolated: INV18, it thinks more of one than is there.
        """
        if not accounts or not all(known.price_usd6 for known in hub.prints):
            return 0
        conditions, ages_us = hub.conditions(now_us), self._state_ages_us(hub, now_us)
        for account in accounts:
            found = hub.assess_latest(account, conditions)
            reports = [view.latest for view in account.views]
            exact = _exact(hub, account, reports, account.bounds(), ages_us, now_us)
            _compare(account, found, exact)
        return len(accounts)

    def capacity_usd6(self, hub: HubState, account: Account, now_us: Micros) -> Fraction:
        """Return the most that the account may have reserved (M6).

        Raises:
            InvariantViolated: INV18, the hub thinks more of it than is there.
        """
        conditions, ages_us = hub.conditions(now_us), self._state_ages_us(hub, now_us)
        latest = [view.latest for view in account.views]
        settled = [view.settled for view in account.views]
        both = [
            _checked(hub, account, reports, conditions, ages_us, now_us)
            for reports in (latest, settled)
        ]
        equity_usd6 = Fraction(min(exact.equity for exact in both), ONE)
        initial_usd6 = max(exact.initial for exact in both) / (ONE * FULL)
        if any(exact.hedged for exact in both):
            initial_usd6 -= 1
        return min(Fraction(hub.ledger.cash_usd6(account.id)), equity_usd6 - initial_usd6)

    def _state_ages_us(self, hub: HubState, now_us: Micros) -> list[int]:
        """Return the age of each spoke's state and the clock skew (M4)."""
        told_us = (self._evidence[zone.name].told_us for zone in hub.zones)
        return [max(0, now_us - at_us) + hub.policy.clock_skew_us for at_us in told_us]


def _checked(
    hub: HubState,
    account: Account,
    reports: Sequence[StateReported],
    conditions: Conditions,
    ages_us: Sequence[int],
    now_us: Micros,
) -> Exact:
    pairs = zip(reports, account.views, strict=True)
    reported = [Reported(report, view.settled) for report, view in pairs]
    cash_usd6 = hub.ledger.cash_usd6(account.id)
    found = assess(hub.margin, hub.places, conditions, cash_usd6, reported)
    exact = _exact(hub, account, reports, NO_BOUNDS, ages_us, now_us)
    _compare(account, found, exact)
    return exact


def _compare(account: Account, found: Assessment, exact: Exact) -> None:
    """Demand that no figure is in the account's favour."""
    rounded_usd6, unit = int(exact.hedged), ONE * FULL
    short = (
        ("equity", (found.equity_usd6 * ONE - exact.equity) * FULL),
        ("maintenance", exact.maintenance - (found.maintenance_usd6 + rounded_usd6) * unit),
        ("initial", exact.initial - (found.initial_usd6 + rounded_usd6) * unit),
    )
    for figure, by in short:
        if by > 0:
            what = f"{figure} of {account.id} is in its favour"
            raise InvariantViolated("INV18", f"{what}: found {float(by / unit):,.6f} usd6 off")


def _exact(
    hub: HubState,
    account: Account,
    reports: Sequence[StateReported],
    bounds: Mapping[tuple[int, int], Qty8],
    ages_us: Sequence[int],
    now_us: Micros,
) -> Exact:
    policy = hub.margin
    owned, gained = hub.ledger.cash_usd6(account.id) * ONE, Fraction(0)
    legs: dict[int, list[tuple[int, int]]] = {}
    for spoke, (report, view) in enumerate(zip(reports, account.views, strict=True)):
        pnl = _unsettled_usd6(report, view) * ONE
        for position in report.positions:
            place = hub.places[position.asset]
            price_usd6 = hub.prints[place].price_usd6
            pnl += position.qty8 * price_usd6 - position.cost_usd6 * ONE
            size_qty8 = min(abs(position.qty8), bounds.get((spoke, place), abs(position.qty8)))
            size = size_qty8 * price_usd6
            ratio_ppm = _range_ppm(hub, spoke, place, ages_us[spoke], size / ONE, now_us)
            leg = (size if position.qty8 > 0 else -size, ratio_ppm)
            legs.setdefault(place, []).append(leg)
        if pnl > 0:
            gained += _counted(hub, report, pnl, ages_us[spoke])
        else:
            owned += pnl
    maintenance, initial, hedged = 0, 0, False
    shares = lcm(*(risk.maintenance_margin_ppm for risk in policy.assets))
    for place, held in legs.items():
        risk, need = policy.assets[place], max(_cost(held, 1), _cost(held, -1))
        maintenance += need
        initial += need * risk.initial_margin_ppm * (shares // risk.maintenance_margin_ppm)
        hedged = hedged or len({size > 0 for size, _ in held}) == 2
    return Exact(owned + gained, maintenance, Fraction(initial, shares), hedged)


def _counted(hub: HubState, report: StateReported, gain: int, age_us: int) -> Fraction:
    """Return what counts of a gain [usd6 / ONE] (M2)."""
    policy = hub.margin
    assets = [policy.assets[hub.places[one.asset]] for one in report.positions]
    depth_usd6_per_s = sum(one.depth_usd6_per_s * one.participation_ppm for one in assets)
    age_max_s = Fraction(policy.gain_age_max_s)
    left = 1 - age_us / (age_max_s * 1_000_000)
    cap = depth_usd6_per_s * age_max_s * ONE / FULL
    return min(Fraction(gain), cap) * max(Fraction(0), left)


def _range_ppm(
    hub: HubState, spoke: int, place: int, age_us: int, size_usd6: float, now_us: Micros
) -> int:
    """Return R(tau) of a leg, in whole millionths as rule M5 has it."""
    risk, zone = hub.margin.assets[place], hub.zones[spoke].policy
    price_age_us = max(0, now_us - hub.prints[place].observed_us)
    tau_s = price_age_us / 1e6 + (age_us + zone.command_us) / 1e6
    if zone.delays:
        tau_s = zone.delays[place].worth_s(tau_s)
    tau_s += size_usd6 / (risk.depth_usd6_per_s * risk.participation_ppm / 1e6) / 3.0
    return range_ppm(hub.margin.buffer, risk, tau_s)


def _unsettled_usd6(report: StateReported, view: SpokeView) -> int:
    settled = view.settled
    fees_usd6 = report.fees_usd6 + report.liquidation_fees_usd6
    settled_usd6 = settled.realised_usd6 - settled.fees_usd6 - settled.liquidation_fees_usd6
    return report.realised_usd6 - fees_usd6 - settled_usd6


def _cost(legs: Sequence[tuple[int, int]], side: int) -> int:
    """Return what a move against one side costs: what wins counts at no larger range (M3)."""
    losing = [ratio_ppm for size, ratio_ppm in legs if size * side > 0]
    most_ppm = min(losing, default=max(ratio_ppm for _, ratio_ppm in legs))
    return sum(
        size * side * (min(ratio_ppm, most_ppm) if size * side < 0 else ratio_ppm)
        for size, ratio_ppm in legs
    )
