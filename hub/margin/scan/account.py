"""What an account with options is worth and must hold, on all spokes together or one by one."""

import math
from collections.abc import Mapping, Sequence

import msgspec

from hub.margin.requirement import recognised_usd6
from hub.margin.scan import values
from hub.margin.scan.collateral import Collateral, Valued, valued
from hub.margin.scan.legs import Leg, Market, ScanPolicy
from hub.margin.scan.requirement import Requirement, is_linear, require
from messaging.units import ONE, value_down

NO_RATIOS: Mapping[int, int] = {}


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """What one account has.

    Attributes:
        unsettled_usd6: by spoke, P&L reported and not in `cash_usd6` yet.
        collateral: beside dollars.
    """

    cash_usd6: int
    unsettled_usd6: tuple[int, ...]
    legs: tuple[Leg, ...]
    collateral: tuple[Collateral, ...] = ()


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How an account stands [usd6], all spokes together.

    Attributes:
        equity_usd6: what is compared with `maintenance_usd6`.
        equity_initial_usd6: with `initial_usd6`; collateral counts less in it.
        recognised_usd6: P&L that counts, by spoke.
        requirements: one for each underlying that it has legs on.
    """

    equity_usd6: int
    equity_initial_usd6: int
    maintenance_usd6: int
    initial_usd6: int
    recognised_usd6: tuple[int, ...]
    collateral: tuple[Valued, ...]
    requirements: tuple[Requirement, ...]


class Alone(msgspec.Struct, frozen=True, kw_only=True):
    """What one spoke's legs would require if nothing else counted there [usd6].

    Attributes:
        needed_usd6: cash or collateral that would have to be there for IM.
    """

    spoke: int
    maintenance_usd6: int
    initial_usd6: int
    recognised_usd6: int
    needed_usd6: int


def stand(policy: ScanPolicy, market: Market, holding: Holding) -> Standing:
    """Return an account's equity and requirements, its legs on all spokes together (rule O3).

    equity = cash + collateral after haircuts + recognised P&L of every spoke (M2, O9)
    """
    recognised = recognised_by_spoke(policy, market, holding)
    collateral = tuple(valued(one) for one in holding.collateral)
    requirements = required(policy, market, holding.legs, holding.legs, _ratios(holding))
    sure_usd6 = holding.cash_usd6 + sum(recognised)
    return Standing(
        equity_usd6=sure_usd6 + sum(one.maintenance_usd6 for one in collateral),
        equity_initial_usd6=sure_usd6 + sum(one.initial_usd6 for one in collateral),
        maintenance_usd6=sum(one.maintenance_usd6 for one in requirements),
        initial_usd6=sum(one.initial_usd6 for one in requirements),
        recognised_usd6=recognised,
        collateral=collateral,
        requirements=requirements,
    )


def isolated(policy: ScanPolicy, market: Market, holding: Holding) -> tuple[Alone, ...]:
    """Return what each spoke would require alone; an underlying stays linear or not (rule O11)."""
    found = []
    for spoke, recognised in enumerate(recognised_by_spoke(policy, market, holding)):
        legs = [leg for leg in holding.legs if leg.spoke == spoke]
        requirements = required(policy, market, legs, holding.legs)
        initial_usd6 = sum(one.initial_usd6 for one in requirements)
        found.append(
            Alone(
                spoke=spoke,
                maintenance_usd6=sum(one.maintenance_usd6 for one in requirements),
                initial_usd6=initial_usd6,
                recognised_usd6=recognised,
                needed_usd6=max(0, initial_usd6 - recognised),
            )
        )
    return tuple(found)


def required(
    policy: ScanPolicy,
    market: Market,
    legs: Sequence[Leg],
    whole: Sequence[Leg],
    ratios_usd6: Mapping[int, int] = NO_RATIOS,
) -> tuple[Requirement, ...]:
    """Return what legs require, by underlying; `whole` are all the legs of their account.

    `ratios_usd6` is, by place, what collateral that follows an underlying loses against it (O16).
    """
    return tuple(
        require(
            policy,
            market,
            place,
            [leg for leg in legs if leg.place == place],
            linear=is_linear(whole, place),
            ratio_usd6=ratios_usd6.get(place, 0),
        )
        for place in sorted({leg.place for leg in legs})
    )


def _ratios(holding: Holding) -> dict[int, int]:
    """Return what collateral loses that falls against the underlying it follows, by place (O16)."""
    found: dict[int, int] = {}
    for one in holding.collateral:
        if one.risk.follows is not None:
            lost_usd6 = valued(one).ratio_usd6
            found[one.risk.follows] = found.get(one.risk.follows, 0) + lost_usd6
    return found


def recognised_by_spoke(policy: ScanPolicy, market: Market, holding: Holding) -> tuple[int, ...]:
    """Return what counts of each spoke's P&L, options at their value now (rules M1, M2)."""
    found = []
    for spoke, unsettled_usd6 in enumerate(holding.unsettled_usd6):
        legs = [leg for leg in holding.legs if leg.spoke == spoke]
        open_usd6 = sum(worth_usd6(policy, market, leg) - leg.cost_usd6 for leg in legs)
        places = sorted({leg.place for leg in legs})
        share = market.conditions.gain_share_ppm[spoke]
        found.append(recognised_usd6(policy.margin, unsettled_usd6 + open_usd6, places, share))
    return tuple(found)


def worth_usd6(policy: ScanPolicy, market: Market, leg: Leg) -> int:
    """Return what a leg is worth now, rounded down."""
    price_usd6 = market.conditions.prices_usd6[leg.place]
    if leg.series is None:
        return value_down(leg.qty8, price_usd6)
    mark = values.quoted(policy.options[leg.place], price_usd6, [leg.series]).price
    return math.floor(float(mark[0, 0]) * leg.qty8 / (ONE / 1e6))
