"""The incident as numbers: what is forged when, how fast it is used, which defences stand."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from lab import reading
from lab.amounts import usd6
from lab.scenario import Scenario
from messaging.errors import InputRefused
from messaging.units import SECOND_US, AccountId, Micros, NodeId, Usd6

FORGER, LENDERS = NodeId("forger"), (NodeId("lender-a"), NodeId("lender-b"), NodeId("lender-c"))
TAKER = AccountId("taker")
ASSET = "WETH"
MINUTE_US = 60 * SECOND_US
START_US = 5 * MINUTE_US  # prices and first watermarks come before
SLICES = 120  # orders in which the first sum is used
OTHERS, OTHERS_USD, TAKER_USD = 20, 50_000_000.0, 1_000.0
NO_CAP_USD = 1e12
MINUTES_MAX, SUM_USD_MAX = 24 * 60.0, 1e11


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is forged, and how it is used and met; minutes count from the first forgery.

    Attributes:
        units, price_usd: the first forged sum.
        more_units, more_min: the later ones, and when.
        draw_min: how long using the first sum takes; later ones go at the same pace.
        cap_usd: every zone's cap where there is one.
        hold_min: how long gains are held where they are.
        halt_min, early_min: when people, or a watch, halt the forger.
        freeze_min: when people halt every spoke, if they have halted one.
        way_s: what a message takes between hub and spoke.
    """

    units: float = 116_500.0
    price_usd: float = 2_506.0
    more_units: float = 40_000.0
    more_min: tuple[float, ...] = (51.0, 53.0)
    draw_min: float = 40.0
    cap_usd: float = 50_000_000.0
    hold_min: float = 60.0
    halt_min: float = 46.0
    early_min: float = 1.0
    freeze_min: float = 85.0
    way_s: float = 15.0

    @property
    def forged_usd(self) -> float:
        """Return all that is claimed."""
        return (self.units + len(self.more_min) * self.more_units) * self.price_usd

    @property
    def slice_usd6(self) -> Usd6:
        """Return the size of one order of the taker."""
        return usd6(self.units * self.price_usd / SLICES)

    @property
    def claims(self) -> tuple[tuple[Micros, Usd6], ...]:
        """Return when what is forged."""
        first = (Micros(START_US), usd6(self.units * self.price_usd))
        if not self.more_units:
            return (first,)
        more_usd6 = usd6(self.more_units * self.price_usd)
        return (first, *((at_us(minute), more_usd6) for minute in self.more_min))

    @property
    def lasts_min(self) -> float:
        """Return how long a run takes: all could be used, whatever was held."""
        draw_min = self.draw_min * self.forged_usd / (self.units * self.price_usd)
        return max(self.freeze_min, max(self.more_min) + self.hold_min) + draw_min + 10.0


class Defences(NamedTuple):
    """Which defences stand; without `halt_min` nobody ever halts anything."""

    cap: bool
    hold: bool
    halt_min: float | None


def rows(plan: Plan) -> tuple[Defences, ...]:
    """Return every combination, the ones that lose least last."""
    return tuple(
        Defences(cap, hold, halt_min)
        for halt_min in (None, plan.halt_min, plan.early_min)
        for cap in (False, True)
        for hold in (False, True)
    )


def at_us(minute: float) -> Micros:
    """Return the virtual time of a minute of the incident."""
    return Micros(START_US + round(minute * MINUTE_US))


def check(plan: Plan) -> Plan:
    """Return the plan if it can be run.

    Raises:
        InputRefused: the option, what was expected, what was found.
    """
    longest = MINUTES_MAX
    for option, found, low, high in (
        ("--units", plan.units, 1.0, 1e9),
        ("--price-usd", plan.price_usd, 0.01, 1e6),
        ("--more-units", plan.more_units, 0.0, 1e9),
        ("--cap-usd", plan.cap_usd, 1.0, NO_CAP_USD),
        ("--draw-min", plan.draw_min, 1.0, longest),
        ("--hold-min", plan.hold_min, 0.1, longest),
        ("--freeze-min", plan.freeze_min, 0.0, longest),
        ("--halt-min", plan.halt_min, 0.0, plan.freeze_min),
        ("--early-min", plan.early_min, 0.0, plan.halt_min),
        ("--way-s", plan.way_s, 0.1, 600.0),
    ):
        if not (math.isfinite(found) and low <= found <= high):
            raise InputRefused(option, expected=f"{low:,g} to {high:,g}", found=f"{found:,g}")
    if not 1_000.0 <= plan.forged_usd <= SUM_USD_MAX:
        expected = f"$1,000 to ${SUM_USD_MAX:,.0f} forged in all"
        raise InputRefused("--units", expected=expected, found=f"${plan.forged_usd:,.0f}")
    return plan


def scenario_of(plan: Plan, defences: Defences) -> Scenario:
    """Return the world of one row of the table.

    Credit is used at 100 % margin, so a dollar used is a dollar gone; the price stands still
    and the venue takes nothing, so that the figures are the incident's alone.
    """
    cap_usd = plan.cap_usd if defences.cap else NO_CAP_USD
    spokes: list[dict[str, Any]] = [
        {
            "name": name,
            "chain": "base",
            "safe_after_s": 12.0,
            "final_after_s": 12.0,
            "zone_cap_usd": cap_usd,
            "gain_hold_s": plan.hold_min * 60.0 if defences.hold else 0.0,
        }
        for name in (FORGER, *LENDERS)
    ]
    weth = {
        "name": ASSET,
        "initial_margin_ppm": 1_000_000,
        "maintenance_margin_ppm": 500_000,
        "depth_usd": 1e12,
        "half_spread_ppm": 0,
        "fee_ppm": 0,
        "funding_ppm": 0,
    }
    tables: dict[str, Any] = {
        "title": "a forged release, 18 April 2026",
        "duration_h": (START_US / MINUTE_US + plan.lasts_min) / 60.0,
        "tick_s": 60.0,
        "latency": {"kind": "constant", "value_s": plan.way_s},
        "buffer": {"kind": "none"},
        "prices": {
            "kind": "gbm",
            "correlation": 0.0,
            "assets": {ASSET: {"price_usd": plan.price_usd, "volatility_per_sqrt_year": 0.0}},
        },
        "assets": [weth],
        "spokes": spokes,
        "hub": {"reservation_max_usd": NO_CAP_USD},
        "reservation": {"headroom_ppm": 0, "renewals_max": 0},
        "reporting": {"watermark_s": 12.0},
        "traders": {"accounts": 1, "open_until_h": 0.01},
    }
    return reading.check(tables, directory=Path())
