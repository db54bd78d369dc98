"""What a book of perpetuals and options must hold on one underlying (rules O3 to O8).

Money is whole millionths. Perpetuals are margined in whole numbers throughout; the P&L of options
is computed in floats and rounded down once for each scenario.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from hub.margin.buffer import range_ppm
from hub.margin.requirement import fall_and_rise
from hub.margin.scan import values
from hub.margin.scan.legs import Leg, Market, OptionRisk, ScanPolicy
from messaging.units import ONE, Ppm, Usd6, ratio_up, value_up

WHOLE = 1_000_000


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """What is required on one underlying [usd6].

    Attributes:
        linear: without options: R0 and IM / MM of the asset's perpetual (M3).
        pnl_usd6: by scenario, as far as it counts; rounded down.
        basis_usd6: P&L of each expiry's forward moving alone; 0 or less.
        ratio_usd6: P&L of collateral that falls against this underlying alone (O16); 0 or less.
        scan_usd6: the worst of these, turned positive.
        naked_usd6, perpetual_usd6: contingencies. doubt_usd6: one more, of IM alone.
    """

    place: int
    linear: bool
    pnl_usd6: tuple[int, ...]
    basis_usd6: int
    ratio_usd6: int
    scan_usd6: int
    naked_usd6: int
    perpetual_usd6: int
    doubt_usd6: int
    maintenance_usd6: int
    initial_usd6: int

    @property
    def worst(self) -> int | None:
        """Return the row of the worst scenario; None if nothing is lost, or most in no row.

        Then basis or the ratio is worse.
        """
        lowest = min(self.pnl_usd6)
        if self.scan_usd6 == 0 or min(self.basis_usd6, self.ratio_usd6) < lowest:
            return None
        return self.pnl_usd6.index(lowest)


def is_linear(legs: Sequence[Leg], place: int) -> bool:
    """Return whether none of the legs is an option on this underlying."""
    return all(leg.series is None for leg in legs if leg.place == place)


def size_usd6(leg: Leg, price_usd6: Usd6) -> int:
    """Return quantity times price of the underlying, without sign, rounded up."""
    return value_up(abs(leg.qty8), price_usd6)


def reach_ppm(policy: ScanPolicy, place: int, tau_s: float, *, linear: bool) -> Ppm:
    """Return R(tau) of an underlying, as books with or without options on it are margined."""
    risk = policy.margin.assets[place]
    if not linear:
        wide_ppm = policy.options[place].range_ppm
        risk = msgspec.structs.replace(risk, maintenance_margin_ppm=wide_ppm)
    return range_ppm(policy.margin.buffer, risk, tau_s)


def require(
    policy: ScanPolicy,
    market: Market,
    place: int,
    legs: Sequence[Leg],
    *,
    linear: bool,
    ratio_usd6: int = 0,
) -> Requirement:
    """Return what these legs on one underlying require.

        scan = max(0, -min over scenarios of P&L, ratio)                rounded up
        MM   = scan + naked + perpetual
        IM   = scan * factor + naked + perpetual + doubt                rounded up

    `linear` says whether the account has no option on it, here or elsewhere: rule O3. `ratio_usd6`
    is what collateral that follows the underlying loses if it alone falls: rule O16.
    """
    risk, extra = policy.margin.assets[place], policy.options[place]
    price_usd6 = market.conditions.prices_usd6[place]
    sizes_usd6 = [size_usd6(leg, price_usd6) for leg in legs]
    tau_s = [
        market.conditions.tau_s[leg.spoke][place] + size / risk.unwind_usd6_per_s / 3.0
        for leg, size in zip(legs, sizes_usd6, strict=True)
    ]
    ratios = [reach_ppm(policy, place, age_s, linear=linear) for age_s in tau_s]
    bare = [
        (size if leg.qty8 > 0 else -size, ratio)
        for leg, size, ratio in zip(legs, sizes_usd6, ratios, strict=True)
        if leg.series is None
    ]
    fall = sum(size * ratio for size, ratio in bare)
    fall, rise = fall_and_rise(bare) if linear else (fall, -fall)
    optional = [index for index, leg in enumerate(legs) if leg.series is not None]
    worth, basis_usd6 = [0] * len(policy.grid.scenarios), 0
    if optional:
        held = [legs[index] for index in optional]
        reach = [ratios[index] / 1e6 for index in optional]
        ages_s = [tau_s[index] for index in optional]
        worth, basis_usd6 = _revalue(policy, extra, price_usd6, held, reach, ages_s)
    pnl_usd6 = tuple(
        ((fall if one.move_ppm < 0 else -rise) * one.move_ppm + value * WHOLE**2)
        * one.share_ppm
        // WHOLE**3
        for one, value in zip(policy.grid.scenarios, worth, strict=True)
    )
    scan_usd6 = max(ratio_usd6, -min(*pnl_usd6, basis_usd6))
    naked_usd6, perpetual_usd6 = (0, 0) if linear else _contingencies(extra, legs, price_usd6)
    doubt_usd6 = 0
    if market.confidence_ppm[place] < extra.doubt_ppm:
        doubt_usd6 = ratio_up(sum(sizes_usd6), WHOLE - market.confidence_ppm[place])
    if linear:
        more_usd6 = -(-scan_usd6 * risk.initial_margin_ppm // risk.maintenance_margin_ppm)
    else:
        more_usd6 = ratio_up(scan_usd6, extra.initial_factor_ppm)
    return Requirement(
        place=place,
        linear=linear,
        pnl_usd6=pnl_usd6,
        basis_usd6=basis_usd6,
        ratio_usd6=-ratio_usd6,
        scan_usd6=scan_usd6,
        naked_usd6=naked_usd6,
        perpetual_usd6=perpetual_usd6,
        doubt_usd6=doubt_usd6,
        maintenance_usd6=scan_usd6 + naked_usd6 + perpetual_usd6,
        initial_usd6=more_usd6 + naked_usd6 + perpetual_usd6 + doubt_usd6,
    )


def _revalue(
    policy: ScanPolicy,
    extra: OptionRisk,
    price_usd6: Usd6,
    legs: Sequence[Leg],
    ranges: Sequence[float],
    tau_s: Sequence[float],
) -> tuple[list[int], int]:
    """Return the P&L of options by scenario, and of their basis [usd6], rounded down.

    Each expiry's value counts for itself: discounted in a scenario if it is positive (O6), and
    in its own worst direction where its forward moves alone (O7).
    """
    series = [leg.series for leg in legs if leg.series is not None]
    amounts = np.array([leg.qty8 / (ONE / 1e6) for leg in legs])[:, None]  # so that P&L is usd6
    marks = values.quoted(extra, price_usd6, series).price * amounts
    worth = values.shocked(policy.grid, policy.shock, extra, price_usd6, series, ranges, tau_s)
    worth *= amounts
    based = values.based(extra, price_usd6, series) * amounts - marks
    pnl, basis = np.zeros(worth.shape[1]), 0.0
    for left_us in sorted({one.left_us for one in series}):
        rows = [index for index, one in enumerate(series) if one.left_us == left_us]
        years = series[rows[0]].left_years
        value = worth[rows].sum(axis=0)
        pnl += np.minimum(value, value * values.share_kept(extra, years)) - marks[rows].sum()
        worst = min(0.0, float(based[rows].sum(axis=0).min()))
        basis += worst * values.basis_weight(extra, years)
    return [math.floor(value) for value in pnl.tolist()], math.floor(basis)


def _contingencies(extra: OptionRisk, legs: Sequence[Leg], price_usd6: Usd6) -> tuple[int, int]:
    """Return what naked short options and perpetuals require beside the scan (O8)."""
    net: dict[tuple[int, int, int] | None, int] = {}
    for leg in legs:
        key = None if leg.series is None else leg.series.contract
        net[key] = net.get(key, 0) + leg.qty8
    perpetual8 = abs(net.pop(None, 0))
    naked8 = sum(max(0, -qty8) for qty8 in net.values())
    return (
        ratio_up(value_up(naked8, price_usd6), extra.naked_ppm),
        ratio_up(value_up(perpetual8, price_usd6), extra.perpetual_ppm),
    )
