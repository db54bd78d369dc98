"""What a book requires and is exposed to: plain data, the same for the page and `--json`."""

from collections.abc import Sequence

import msgspec

from hub.margin.scan import account as margin
from hub.margin.scan.account import Alone, Holding, Standing
from hub.margin.scan.exposure import Exposure, Limits, breaches, exposure, hedge_qty8
from hub.margin.scan.grid import Scenario
from hub.margin.scan.legs import Leg
from hub.margin.scan.requirement import Requirement
from lab.margin.book import Book
from messaging.units import Asset

NO_LIMITS = Limits()


class Greeks(msgspec.Struct, frozen=True):
    """Greeks on one underlying, and which of them are beyond their limits."""

    underlying: Asset
    exposure: Exposure
    beyond: tuple[str, ...]


class SpokeGreeks(msgspec.Struct, frozen=True):
    """Greeks on one spoke, of an account or of all; only those of all have limits."""

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
        by_spoke, system: Greeks of all accounts together.
    """

    title: str
    grid: str
    scenarios: tuple[Scenario, ...]
    spokes: tuple[str, ...]
    accounts: tuple[AccountSheet, ...]
    worst: tuple[tuple[int, ...], ...]
    by_spoke: tuple[SpokeGreeks, ...]
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
    legs = [leg for holding in book.holdings for leg in holding.legs]
    system = _greeks(book, legs, book.system_limits)
    assets = [risk.asset for risk in book.policy.margin.assets]
    price_of = dict(zip(assets, book.market.conditions.prices_usd6, strict=True))
    return Sheet(
        title=book.tables.title,
        grid=book.policy.grid.name,
        scenarios=book.policy.grid.scenarios,
        spokes=tuple(one.name for one in book.tables.spokes),
        accounts=accounts,
        worst=tuple(
            tuple(_number(one) for one in sheet.standing.requirements) for sheet in accounts
        ),
        by_spoke=_by_spoke(book, legs, book.spoke_limits),
        system=system,
        band_usd6=book.band_usd6,
        hedges=tuple(
            Hedge(
                one.underlying,
                hedge_qty8(one.exposure.delta_usd6, price_of[one.underlying], book.band_usd6),
            )
            for one in system
        ),
    )


def _number(requirement: Requirement) -> int:
    return 0 if requirement.worst is None else requirement.worst + 1


def _account(book: Book, name: str, holding: Holding, alone: bool) -> AccountSheet:
    standing = margin.stand(book.policy, book.market, holding)
    return AccountSheet(
        name=name,
        underlyings=tuple(
            book.policy.margin.assets[one.place].asset for one in standing.requirements
        ),
        standing=standing,
        sound=standing.equity_usd6 >= standing.maintenance_usd6,
        may_open=standing.equity_initial_usd6 >= standing.initial_usd6,
        alone=margin.isolated(book.policy, book.market, holding) if alone else None,
        greeks=_greeks(book, holding.legs, book.account_limits),
        by_spoke=_by_spoke(book, holding.legs, NO_LIMITS),
    )


def _by_spoke(book: Book, legs: Sequence[Leg], limits: Limits) -> tuple[SpokeGreeks, ...]:
    return tuple(
        SpokeGreeks(spoke.name, _greeks(book, [leg for leg in legs if leg.spoke == place], limits))
        for place, spoke in enumerate(book.tables.spokes)
    )


def _greeks(book: Book, legs: Sequence[Leg], limits: Limits) -> tuple[Greeks, ...]:
    """Return the Greeks of legs on each underlying that they are on."""
    found = []
    for place in sorted({leg.place for leg in legs}):
        here = [leg for leg in legs if leg.place == place]
        one = exposure(book.policy, book.market, place, here)
        asset = book.policy.margin.assets[place].asset
        found.append(Greeks(asset, one, breaches(one, limits)))
    return tuple(found)
