"""A margin sheet for the eye: what each account requires, why, and what it is exposed to."""

from collections.abc import Sequence

from hub.margin.scan.account import Alone
from hub.margin.scan.exposure import BUCKETS, Exposure
from hub.margin.scan.grid import Scenario
from hub.margin.scan.requirement import Requirement
from lab.margin.sheet import AccountSheet, Greeks, Sheet
from messaging.units import ONE

WAYS = {1: "up", 0: "", -1: "down"}


def lines(sheet: Sheet, *, cross: bool) -> list[str]:
    """Return the page; without `cross` only what spokes would require alone."""
    out = [f"{sheet.title}", f"grid {sheet.grid}, {len(sheet.scenarios)} scenarios"]
    for account in sheet.accounts:
        out += ["", f"account {account.name}"]
        if cross:
            out += _standing(account)
            for name, requirement in zip(
                account.underlyings, account.standing.requirements, strict=True
            ):
                out += ["", *_requirement(name, requirement, sheet.scenarios)]
        if account.alone is not None:
            out += ["", *_alone(account, account.alone, sheet.spokes, cross)]
        out += ["", *_greeks("all spokes", account.greeks, head=True)]
        for spoke in account.by_spoke:
            out += _greeks(spoke.spoke, spoke.greeks)
    out += ["", "all accounts", "", *_greeks("all spokes", sheet.system, head=True)]
    for spoke in sheet.by_spoke:
        out += _greeks(spoke.spoke, spoke.greeks)
    for hedge in sheet.hedges:
        trade = "nothing" if not hedge.qty8 else ("buy" if hedge.qty8 > 0 else "sell")
        size = f" {abs(hedge.qty8) / ONE:,.8f}" if hedge.qty8 else ""
        band = f"{sheet.band_usd6 / 1e6:,.0f}"
        out.append(f"  hedge {hedge.underlying:5} to a delta of {band} or less: {trade}{size}")
    return out


def _usd(amount_usd6: int) -> str:
    return f"{amount_usd6 / 1e6:,.2f}"


def _standing(account: AccountSheet) -> list[str]:
    found = account.standing
    verdict = "may open" if account.may_open else "may not open"
    sound = "sound" if account.sound else "below maintenance: to be liquidated"
    out = [
        f"  equity {_usd(found.equity_usd6):>18}   to open {_usd(found.equity_initial_usd6):>18}",
        f"  MM     {_usd(found.maintenance_usd6):>18}   IM      {_usd(found.initial_usd6):>18}",
        f"  {sound}, {verdict}",
    ]
    for one in found.collateral:
        haircuts = (
            f"haircut {one.maintenance_haircut_ppm / 1e4:.2f} %, "
            f"to open {one.initial_haircut_ppm / 1e4:.2f} %"
        )
        values = f"counts {_usd(one.maintenance_usd6)}, to open {_usd(one.initial_usd6)}"
        out.append(f"  {one.asset} at market {_usd(one.market_usd6)}, {haircuts}: {values}")
    return out


def _requirement(name: str, requirement: Requirement, scenarios: Sequence[Scenario]) -> list[str]:
    book = "linear" if requirement.linear else "with options"
    out = [f"  {name} ({book})", "     #      move        vol    counts                P&L"]
    for number, (row, pnl_usd6) in enumerate(
        zip(scenarios, requirement.pnl_usd6, strict=True), start=1
    ):
        mark = "  <- worst" if requirement.worst == number - 1 else ""
        out.append(
            f"    {number:2}  {row.move_ppm / 1e6:+8.4f} R  {WAYS[row.volatility]:>6}"
            f"    {row.share_ppm / 1e4:5.1f} %  {_usd(pnl_usd6):>17}{mark}"
        )
    for what, lost_usd6, shown in (
        ("basis", requirement.basis_usd6, not requirement.linear),
        ("ratio", requirement.ratio_usd6, requirement.ratio_usd6 != 0),
    ):
        if shown:
            worst = requirement.worst is None and -lost_usd6 == requirement.scan_usd6 > 0
            out.append(f"        {what} {_usd(lost_usd6):>41}{'  <- worst' if worst else ''}")
    parts = (
        ("scan", requirement.scan_usd6),
        ("naked short options", requirement.naked_usd6),
        ("perpetuals", requirement.perpetual_usd6),
        ("doubt about the price (IM)", requirement.doubt_usd6),
        ("MM", requirement.maintenance_usd6),
        ("IM", requirement.initial_usd6),
    )
    return out + [f"    {what:34} {_usd(amount):>16}" for what, amount in parts]


def _alone(
    account: AccountSheet, alone: Sequence[Alone], spokes: Sequence[str], cross: bool
) -> list[str]:
    rows = [
        [one.maintenance_usd6, one.initial_usd6, one.recognised_usd6, one.needed_usd6]
        for one in alone
    ]
    names = [*(spokes[one.spoke] for one in alone), "sum"]
    rows.append([sum(column) for column in zip(*rows, strict=True)])
    if cross:
        found, pnl_usd6 = account.standing, sum(account.standing.recognised_usd6)
        needed_usd6 = max(0, found.initial_usd6 - pnl_usd6)
        names.append("together")
        rows.append([found.maintenance_usd6, found.initial_usd6, pnl_usd6, needed_usd6])
    heads = ("MM", "IM", "P&L", "needs for IM")
    out = [f"  {'spoke by spoke':16}" + "".join(f"{head:>18}" for head in heads)]
    return out + [
        f"  {name:16}" + "".join(f"{_usd(amount):>18}" for amount in row)
        for name, row in zip(names, rows, strict=True)
    ]


def _greeks(title: str, every: Sequence[Greeks], *, head: bool = False) -> list[str]:
    out = []
    if head:
        names = ("delta", "gamma 1 %", *(f"vega {name}" for name in BUCKETS), "theta/day")
        out.append(f"  {'Greeks [USD]':18}" + "".join(f"{name:>11}" for name in names))
    for one in every:
        beyond = f"  beyond: {', '.join(one.beyond)}" if one.beyond else ""
        cells = "".join(f"{amount / 1e6:>11,.0f}" for amount in _figures(one.exposure))
        out.append(f"  {title:12} {one.underlying:5}{cells}{beyond}")
    return out


def _figures(found: Exposure) -> tuple[int, ...]:
    return (found.delta_usd6, found.gamma_usd6, *found.vega_usd6, found.theta_usd6)
