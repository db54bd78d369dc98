"""What is well formed in a scenario and cannot be meant: names, orders, margins, windows."""

from collections.abc import Sequence

from lab.chains import depth_max
from lab.scenario import RiskTable, Scenario, SpokeTable, assets_of
from messaging.errors import InputRefused
from messaging.units import HUB, MARKET, MONITOR, OPERATOR, OPERATORS, ORACLE, RELAY, TRADERS

# Of nodes, processes, keys and topics that are not a spoke's.
PEOPLE = (MONITOR, OPERATOR, *OPERATORS)
RESERVED_NAMES = (HUB, MARKET, ORACLE, TRADERS, RELAY, *PEOPLE, "world", "channel")


def check(scenario: Scenario) -> None:
    """Refuse what cannot be meant.

    Raises:
        InputRefused: key, what was expected, what was found.
    """
    _check_names(scenario)
    _check_sense(scenario)


def _check_names(scenario: Scenario) -> None:
    for key, names in (
        ("spokes", [table.name for table in scenario.spokes]),
        ("assets", [table.name for table in scenario.assets]),
    ):
        check_once(key, names)
        for index, name in enumerate(names):
            if name in RESERVED_NAMES:
                raise InputRefused(
                    f"{key}[{index}].name", expected="a name of its own", found=repr(name)
                )


def check_once(key: str, names: Sequence[str]) -> None:
    """Refuse a name that stands twice in the tables under a key."""
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InputRefused(
                f"{key}[{index}].name", expected="each name once", found=f"{name!r} again"
            )


def check_risk(at: str, risk: RiskTable) -> None:
    """Refuse margins that cannot be meant: maintenance is below initial, and above jumps."""
    maintenance = risk.maintenance_margin_ppm
    if maintenance >= risk.initial_margin_ppm:
        expected = f"less than initial_margin_ppm = {risk.initial_margin_ppm}"
        raise InputRefused(f"{at}.maintenance_margin_ppm", expected=expected, found=maintenance)
    if risk.jump_ppm >= maintenance:
        expected = f"less than maintenance_margin_ppm = {maintenance}"
        raise InputRefused(f"{at}.jump_ppm", expected=expected, found=risk.jump_ppm)


def _check_sense(scenario: Scenario) -> None:
    traders, liquidation = scenario.traders, scenario.liquidation
    for index, asset in enumerate(scenario.assets):
        check_risk(f"assets[{index}]", asset)
    if liquidation.target_extra_ppm <= liquidation.cost_ppm:
        # Else closing would cost more margin than it frees, for a hedged account at the latest.
        expected = f"less than target_extra_ppm = {liquidation.target_extra_ppm}"
        raise InputRefused("liquidation.cost_ppm", expected=expected, found=liquidation.cost_ppm)
    _check_order("traders.leverage_max", traders.leverage_min, traders.leverage_max)
    _check_order("traders.open_until_h", traders.open_from_h, traders.open_until_h)
    _check_order("liquidation.restore_ppm", liquidation.call_ppm, liquidation.restore_ppm)
    _check_order("traders.open_until_h", traders.open_until_h, scenario.duration_h, last=True)
    _check_feeds(scenario)
    _check_named(scenario)
    for index, spoke in enumerate(scenario.spokes):
        _check_order(f"spokes[{index}].final_after_s", spoke.safe_after_s, spoke.final_after_s)
        for name in ("outages", "partitions"):
            until_h = 0.0
            for number, window in enumerate(getattr(spoke, name)):
                at = f"spokes[{index}].{name}[{number}]"
                _check_order(f"{at}.from_h", until_h, window.from_h)
                if window.until_h <= window.from_h:
                    expected = f"more than from_h = {window.from_h}"
                    raise InputRefused(f"{at}.until_h", expected=expected, found=window.until_h)
                until_h = window.until_h
        _check_reorgs(f"spokes[{index}].reorgs", spoke)


def _check_feeds(scenario: Scenario) -> None:
    """Refuse two feeds, for which of them were wrong, and faults of what is not there."""
    oracle, names = scenario.oracle, assets_of(scenario)
    if oracle.feeds == 2:
        raise InputRefused("oracle.feeds", expected="1, or 3 and more", found=2)
    if isinstance(oracle.error_ppm, tuple) and len(oracle.error_ppm) != oracle.feeds:
        expected = f"one number, or one for each of {oracle.feeds} feeds"
        raise InputRefused("oracle.error_ppm", expected=expected, found=list(oracle.error_ppm))
    for index, fault in enumerate(oracle.faults):
        at = f"oracle.faults[{index}]"
        if fault.feed >= oracle.feeds:
            expected = f"less than oracle.feeds = {oracle.feeds}"
            raise InputRefused(f"{at}.feed", expected=expected, found=fault.feed)
        if fault.asset is not None and fault.asset not in names:
            expected = f"one of {', '.join(names)}"
            raise InputRefused(f"{at}.asset", expected=expected, found=repr(fault.asset))
        if fault.until_h <= fault.from_h:
            expected = f"more than from_h = {fault.from_h}"
            raise InputRefused(f"{at}.until_h", expected=expected, found=fault.until_h)


def _check_named(scenario: Scenario) -> None:
    """Refuse orders of named accounts for what is not there, and behind the end."""
    named = scenario.traders.named
    check_once("traders.named", [one.name for one in named])
    for index, one in enumerate(named):
        for number, order in enumerate(one.orders):
            at = f"traders.named[{index}].orders[{number}]"
            for key, name, known in (
                ("spoke", order.spoke, [spoke.name for spoke in scenario.spokes]),
                ("asset", order.asset, assets_of(scenario)),
            ):
                if name not in known:
                    expected = f"one of {', '.join(known)}"
                    raise InputRefused(f"{at}.{key}", expected=expected, found=repr(name))
            _check_order(f"{at}.at_h", order.at_h, scenario.duration_h, last=True)
            if (order.notional_usd == 0) == (order.close_ppm == 0):
                found = "both" if order.close_ppm else "neither"
                raise InputRefused(at, expected="notional_usd or close_ppm", found=found)


def _check_reorgs(key: str, spoke: SpokeTable) -> None:
    """Refuse reorganisations out of order, and of blocks that the spoke vouches for as final."""
    before_h = 0.0
    for number, reorg in enumerate(spoke.reorgs):
        if reorg.at_h <= before_h:
            expected = f"more than {before_h}"
            raise InputRefused(f"{key}[{number}].at_h", expected=expected, found=reorg.at_h)
        before_h = reorg.at_h
        most = depth_max(spoke, number)
        if reorg.depth > most:
            expected = f"at most {most}, the blocks that are not final then"
            raise InputRefused(f"{key}[{number}].depth", expected=expected, found=reorg.depth)


def _check_order(key: str, low: float, high: float, *, last: bool = False) -> None:
    if high < low:
        expected, found = (f"at most {high}", low) if last else (f"at least {low}", high)
        raise InputRefused(key, expected=expected, found=found)
