"""From the tables of a book to what the hub's margin engine takes, checked."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from hub.margin.options.black import CALL, PUT
from hub.margin.requirement import Conditions, MarginPolicy
from hub.margin.scan.account import Holding
from hub.margin.scan.collateral import Collateral, CollateralRisk
from hub.margin.scan.exposure import Limits
from hub.margin.scan.grid import GRIDS, Grid, Scenario, VolatilityShock
from hub.margin.scan.legs import Leg, Market, OptionRisk, ScanPolicy, Series
from lab import reading, sense
from lab.amounts import usd6
from lab.margin.tables import (
    AccountTable,
    BookTable,
    CollateralTable,
    GreekLimits,
    GridTable,
    PositionTable,
    UnderlyingTable,
)
from lab.policies import risk_of
from messaging.errors import InputRefused, nearest
from messaging.units import ONE, USD, Asset, Micros, Ppm, Qty8, Usd6

SIGNS = {"call": CALL, "put": PUT}
WAYS = {"up": 1, "down": -1, "unchanged": 0}


class Book(NamedTuple):
    """A file, understood.

    Attributes:
        names: of the accounts, in the order of `holdings`.
    """

    tables: BookTable
    policy: ScanPolicy
    market: Market
    names: tuple[str, ...]
    holdings: tuple[Holding, ...]
    account_limits: Limits
    spoke_limits: Limits
    system_limits: Limits
    band_usd6: Usd6


def read(path: Path, grid: str) -> Book:
    """Return the book of a file, to be scanned in a grid: a name or another file.

    Raises:
        InputRefused: key, what was expected, what was found.
    """
    tables = reading.convert(reading.read_file(path, "a book"), BookTable)
    _check(tables)
    scenarios, shock = read_grid(grid)
    policy = ScanPolicy(
        margin=MarginPolicy(
            assets=tuple(map(risk_of, tables.underlyings)),
            buffer=tables.buffer,
            gain_age_max_s=tables.gain_age_max_s,
        ),
        options=tuple(_option_risk(one) for one in tables.underlyings),
        grid=scenarios,
        shock=shock,
    )
    return Book(
        tables=tables,
        policy=policy,
        market=_market(tables),
        names=tuple(one.name for one in tables.accounts),
        holdings=tuple(
            _holding(tables, one, f"accounts[{index}]") for index, one in enumerate(tables.accounts)
        ),
        account_limits=_limits(tables.limits.account),
        spoke_limits=_limits(tables.limits.spoke),
        system_limits=_limits(tables.limits.system),
        band_usd6=usd6(tables.limits.hedge_band_usd),
    )


def read_grid(name: str) -> tuple[Grid, VolatilityShock]:
    """Return a grid by its name, or from a TOML file, and how volatilities move in it.

    Raises:
        InputRefused: neither a known name nor a sound file.
    """
    if name in GRIDS:
        return GRIDS[name], VolatilityShock()
    if not name.endswith(".toml"):
        known = f"{', '.join(GRIDS)}, or a .toml file"
        raise InputRefused("--grid", expected=known, found=f"{name!r}{nearest(name, GRIDS)}")
    table = reading.convert(reading.read_file(Path(name), "a grid"), GridTable)
    rows = tuple(
        Scenario(
            move_ppm=one.move_ppm,
            volatility=WAYS[one.volatility],
            share_ppm=Ppm(one.share_ppm),
        )
        for one in table.scenarios
    )
    shock = VolatilityShock(
        up_ppm=Ppm(table.shock.up_ppm),
        down_ppm=Ppm(table.shock.down_ppm),
        near=table.shock.near,
        far=table.shock.far,
    )
    return Grid(table.name, rows), shock


def _check(book: BookTable) -> None:
    """Refuse what is well formed and cannot be meant."""
    for key, names in (
        ("underlyings", [one.name for one in book.underlyings]),
        ("spokes", [one.name for one in book.spokes]),
        ("collateral", [one.name for one in book.collateral]),
        ("accounts", [one.name for one in book.accounts]),
    ):
        sense.check_once(key, names)
    for index, one in enumerate(book.underlyings):
        _check_underlying(f"underlyings[{index}]", one, book.now_utc)
    for index, asset in enumerate(book.collateral):
        if asset.initial_haircut_ppm < asset.maintenance_haircut_ppm:
            raise InputRefused(
                f"collateral[{index}].initial_haircut_ppm",
                expected=f"at least maintenance_haircut_ppm = {asset.maintenance_haircut_ppm}",
                found=asset.initial_haircut_ppm,
            )


def _check_underlying(at: str, one: UnderlyingTable, now: datetime) -> None:
    sense.check_risk(at, one)
    if one.jump_ppm >= one.scan_range_ppm:
        expected = f"less than scan_range_ppm = {one.scan_range_ppm}"
        raise InputRefused(f"{at}.jump_ppm", expected=expected, found=one.jump_ppm)
    seen: list[datetime] = []
    for number, expiry in enumerate(one.expiries):
        key, moment = f"{at}.expiries[{number}].expires_utc", expiry.expires_utc
        if moment < now:
            expected = f"now_utc = {now.isoformat()} or later"
            raise InputRefused(key, expected=expected, found=moment.isoformat())
        if moment in seen:
            raise InputRefused(key, expected="each expiry once", found=moment.isoformat())
        seen.append(moment)


def _option_risk(one: UnderlyingTable) -> OptionRisk:
    return OptionRisk(
        range_ppm=Ppm(one.scan_range_ppm),
        initial_factor_ppm=Ppm(one.initial_factor_ppm),
        naked_ppm=Ppm(one.naked_ppm),
        perpetual_ppm=Ppm(one.perpetual_ppm),
        basis_ppm=Ppm(one.basis_ppm),
        kept_ppm=Ppm(one.kept_ppm),
        discount_ppm=Ppm(one.discount_ppm),
        rate_ppm=Ppm(one.rate_ppm),
    )


def _market(book: BookTable) -> Market:
    """Return what is known and how old it is (rules M2, M4)."""
    shares = [
        max(0, int(1e6 - (one.state_age_s + book.clock_skew_s) * 1e6 / book.gain_age_max_s))
        for one in book.spokes
    ]
    conditions = Conditions(
        prices_usd6=tuple(usd6(one.price_usd) for one in book.underlyings),
        tau_s=tuple(
            tuple(
                asset.price_age_s + spoke.state_age_s + book.clock_skew_s + spoke.command_s
                for asset in book.underlyings
            )
            for spoke in book.spokes
        ),
        gain_share_ppm=tuple(map(Ppm, shares)),
    )
    return Market(conditions, tuple(Ppm(one.confidence_ppm) for one in book.underlyings))


def _holding(book: BookTable, account: AccountTable, at: str) -> Holding:
    spokes = [one.name for one in book.spokes]
    assets = {one.name: one for one in book.collateral}
    for name in account.unsettled_usd:
        _known(f"{at}.unsettled_usd", name, spokes)
    for name in account.collateral:
        _known(f"{at}.collateral", name, list(assets))
    return Holding(
        cash_usd6=_signed6(account.cash_usd),
        unsettled_usd6=tuple(_signed6(account.unsettled_usd.get(name, 0.0)) for name in spokes),
        legs=tuple(
            _leg(book, one, f"{at}.positions[{index}]")
            for index, one in enumerate(account.positions)
        ),
        collateral=tuple(
            Collateral(
                risk=_collateral_risk(assets[name], _followed(book, assets[name])),
                qty8=Qty8(round(quantity * ONE)),
                price_usd6=usd6(assets[name].price_usd),
                age_s=assets[name].price_age_s,
            )
            for name, quantity in account.collateral.items()
        ),
    )


def _followed(book: BookTable, one: CollateralTable) -> int | None:
    """Return the place of the underlying whose price an asset follows."""
    if one.follows is None:
        return None
    place = [asset.name for asset in book.collateral].index(one.name)
    names = [underlying.name for underlying in book.underlyings]
    return _known(f"collateral[{place}].follows", one.follows, names)


def _collateral_risk(one: CollateralTable, follows: int | None) -> CollateralRisk:
    return CollateralRisk(
        asset=Asset(one.name),
        maintenance_haircut_ppm=Ppm(one.maintenance_haircut_ppm),
        initial_haircut_ppm=Ppm(one.initial_haircut_ppm),
        volatility_ppm=Ppm(one.volatility_ppm),
        quantile_z=one.quantile_z,
        depth_usd6_per_s=usd6(one.depth_usd_per_s),
        participation_ppm=Ppm(one.participation_ppm),
        volume_usd6=usd6(one.volume_usd_per_day),
        impact_ppm=Ppm(one.impact_ppm),
        cap_usd6=usd6(one.cap_usd),
        pegged=one.pegged,
        depeg_factor=one.depeg_factor,
        age_max_s=one.price_age_max_s,
        follows=follows,
        ratio_ppm=Ppm(one.ratio_ppm),
    )


def _leg(book: BookTable, one: PositionTable, at: str) -> Leg:
    place = _known(f"{at}.underlying", one.underlying, [each.name for each in book.underlyings])
    qty8 = Qty8(round(one.quantity * ONE))
    if not qty8:
        raise InputRefused(f"{at}.quantity", expected="1e-8 or more", found=one.quantity)
    return Leg(
        spoke=_known(f"{at}.spoke", one.spoke, [each.name for each in book.spokes]),
        place=place,
        qty8=qty8,
        cost_usd6=_signed6(one.cost_usd),
        series=_series(book.now_utc, book.underlyings[place], one, at),
    )


def _series(
    now: datetime, underlying: UnderlyingTable, one: PositionTable, at: str
) -> Series | None:
    """Return the option that a position is in; none for a perpetual."""
    if one.kind == "perpetual":
        for key in ("strike_usd", "expires_utc"):
            if getattr(one, key) is not None:
                raise InputRefused(f"{at}.{key}", expected="none of a perpetual", found="it")
        return None
    if one.strike_usd is None:
        raise InputRefused(f"{at}.strike_usd", expected=f"that of the {one.kind}", found="none")
    listed = {expiry.expires_utc: expiry for expiry in underlying.expiries}
    if one.expires_utc not in listed:
        names = ", ".join(moment.isoformat() for moment in listed) or "none"
        found = "none" if one.expires_utc is None else one.expires_utc.isoformat()
        expected = f"an expiry of {underlying.name} ({names})"
        raise InputRefused(f"{at}.expires_utc", expected=expected, found=found)
    expiry = listed[one.expires_utc]
    return Series(
        sign=SIGNS[one.kind],
        strike_usd6=usd6(one.strike_usd),
        left_us=Micros((expiry.expires_utc - now) // timedelta(microseconds=1)),
        volatility_ppm=Ppm(expiry.volatility_ppm),
    )


def _known(key: str, name: str, names: list[str]) -> int:
    if name not in names:
        expected = f"one of {', '.join(names) or 'none'}"
        raise InputRefused(key, expected=expected, found=f"{name!r}{nearest(name, names)}")
    return names.index(name)


def _signed6(dollars: float) -> Usd6:
    return Usd6(round(dollars * USD))


def _limits(table: GreekLimits) -> Limits:
    def most(dollars: float | None) -> Usd6 | None:
        return None if dollars is None else usd6(dollars)

    return Limits(
        delta_usd6=most(table.delta_usd),
        gamma_usd6=most(table.gamma_usd),
        vega_usd6=most(table.vega_usd),
        theta_usd6=most(table.theta_usd),
    )
