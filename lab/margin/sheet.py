"""What a book requires and is exposed to: plain data, the same for the page and `--json`."""

import msgspec

from hub.margin.scan import account as margin
from hub.margin.scan.account import Alone, Holding, Standing
from hub.margin.scan.exposure import Exposure, breaches, exposure, hedge_qty8, total
from hub.margin.scan.grid import Scenario
from hub.margin.scan.requirement import Requirement
from lab.margin.book import Book


class Greeks(msgspec.Struct, frozen=True):
    """Greeks on one underlying, and which of them are beyond their limits."""

    underlying: str
    exposure: Exposure
    beyond: tuple[str, ...]


class SpokeGreeks(msgspec.Struct, frozen=True):
    """Greeks of an account on one spoke."""

    spoke: str
    greeks: tuple[Greeks, ...]


class AccountSheet(msgspec.Struct, frozen=True, kw_only=True):
    """One account.

    Attributes:
        standing: all spokes together; requirements follow the order of `underlyings`.
        sound: equity covers MM. may_open: it covers IM as well.
        alone: what each spoke would require by itself; None if not asked for.
    """

    name: str
    underlyings: tuple[str, ...]
    standing: Standing
    sound: bool
    may_open: bool
    alone: tuple[Alone, ...] | None
    greeks: tuple[Greeks, ...]
    by_spoke: tuple[SpokeGreeks, ...]


class Hedge(msgspec.Struct, frozen=True):
    """The trade in perpetuals that brings the delta of all accounts inside the band."""

    underlying: str
    qty8: int


class Sheet(msgspec.Struct, frozen=True, kw_only=True):
    """A whole book.

    Attributes:
        worst: of each account and underlying the number of the worst row, from 1; 0 if none.
        system: Greeks of all accounts together.
    """

    title: str
    grid: str
    scenarios: tuple[Scenario, ...]
    spokes: tuple[str, ...]
    accounts: tuple[AccountSheet, ...]
    worst: tuple[tuple[int, ...], ...]
    system: tuple[Greeks, ...]
    band_usd6: int
    hedges: tuple[Hedge, ...]

    @property
    def sound(self) -> bool:
        """Return whether every account is."""
        return all(one.sound for one in self.accounts)


def compute(book: Book, *, alone: bool) -> Sheet:
    """Return what comes out of a book; `alone` says whether spokes are margined one by one too."""
    accounts = tuple(
        _account(book, name, holding, alone)
        for name, holding in zip(book.names, book.holdings, strict=True)
    )
    prices = book.market.conditions.prices_usd6
    system = []
    for place, risk in enumerate(book.policy.margin.assets):
        legs = [leg for holding in book.holdings for leg in holding.legs if leg.place == place]
        found = exposure(book.policy, book.market, place, legs)
        system.append(Greeks(risk.asset, found, breaches(found, book.system_limits)))
    return Sheet(
        title=book.tables.title,
        grid=book.policy.grid.name,
        scenarios=book.policy.grid.scenarios,
        spokes=tuple(one.name for one in book.tables.spokes),
        accounts=accounts,
        worst=tuple(
            tuple(_number(one) for one in sheet.standing.requirements) for sheet in accounts
        ),
        system=tuple(system),
        band_usd6=book.band_usd6,
        hedges=tuple(
            Hedge(one.underlying, hedge_qty8(one.exposure.delta_usd6, price_usd6, book.band_usd6))
            for one, price_usd6 in zip(system, prices, strict=True)
        ),
    )


def _number(requirement: Requirement) -> int:
    return 0 if requirement.worst is None else requirement.worst + 1


def _account(book: Book, name: str, holding: Holding, alone: bool) -> AccountSheet:
    standing = margin.stand(book.policy, book.market, holding)
    by_spoke = tuple(
        SpokeGreeks(spoke.name, _greeks(book, holding, place))
        for place, spoke in enumerate(book.tables.spokes)
    )
    summed = []
    for requirement in standing.requirements:
        asset = book.policy.margin.assets[requirement.place].asset
        parts = [
            one.exposure for spoke in by_spoke for one in spoke.greeks if one.underlying == asset
        ]
        found = total(parts)
        summed.append(Greeks(asset, found, breaches(found, book.account_limits)))
    return AccountSheet(
        name=name,
        underlyings=tuple(one.underlying for one in summed),
        standing=standing,
        sound=standing.equity_usd6 >= standing.maintenance_usd6,
        may_open=standing.equity_initial_usd6 >= standing.initial_usd6,
        alone=margin.isolated(book.policy, book.market, holding) if alone else None,
        greeks=tuple(summed),
        by_spoke=by_spoke,
    )


def _greeks(book: Book, holding: Holding, spoke: int) -> tuple[Greeks, ...]:
    found = []
    for place, risk in enumerate(book.policy.margin.assets):
        legs = [leg for leg in holding.legs if leg.spoke == spoke and leg.place == place]
        if legs:
            one = exposure(book.policy, book.market, place, legs)
            found.append(Greeks(risk.asset, one, breaches(one, book.spoke_limits)))
    return tuple(found)
