"""What each stress event must show, judged from runs: figures, and whether it holds.

Pure functions of what was seen. Figures of collateral, which no run holds, are in `along`.
"""

from lab.events.claims import (
    DRY,
    LATE,
    LOWER,
    MOVED,
    ONE_FEED,
    THIN,
    UNPEGGED,
    Claim,
    Found,
    granted_to,
    granted_usd6,
    hour,
    stopped_since,
    stops,
    waterfall,
    with_seeds,
)
from lab.events.seen import Seen, ZoneSight
from lab.events.ways import BARE, FULL, NO_BREAKERS, NO_BUFFER, NO_CAPS
from lab.summary import usd
from markets.price_path import PricePath
from messaging.units import HOUR_US

HEARD_US = 130_000_000  # a tick, a heartbeat and the oracle's delay
HALF_PPM = 490_000  # of the price, less what a small fill rounds to: no venue sells for less


def march_2020(found: Found) -> list[Claim]:
    """Judge E1: bidders missing, late commands, and credit before insolvency."""
    full, thin = found.ways[FULL], found.ways[THIN]
    soon = [found.ways[name].lost_usd6 for name in with_seeds(NO_BUFFER)]
    late = [found.ways[name].lost_usd6 for name in with_seeds(LATE)]
    lowest = thin.lowest_fill_ppm or 0
    jump = sum(late) / max(1, sum(soon))
    return [
        Claim(
            "with hardly a bidder nothing is sold near zero",
            f"lowest of {thin.result.liquidations:,} liquidations at {lowest / 1e4:.1f} % of the "
            "lowest price meanwhile",
            lowest >= HALF_PPM and thin.result.liquidations > 0,
        ),
        Claim(
            "mean loss jumps when messages take 20 times as long (no buffer)",
            f"{usd(sum(soon) // len(soon))} to {usd(sum(late) // len(late))}, times {jump:.1f}; "
            f"mean of {len(soon)} seeds",
            jump >= 2,
        ),
        _before_insolvency(full, found.ways[NO_BREAKERS]),
        waterfall(found),
    ]


def _before_insolvency(full: Seen, without: Seen) -> Claim:
    text = "a breaker stops credit before the first account is insolvent"
    lost_us = full.insolvent_us
    if lost_us is None:
        return Claim(text, "nobody was insolvent", False)
    since_us = stopped_since(full.turns, lost_us)
    if since_us is None:
        return Claim(text, f"first insolvent at {hour(lost_us)}, no breaker up", False)
    spans = stops(full.turns)
    granted, otherwise = (
        sum(granted_usd6(one, *span) for span in spans) for one in (full, without)
    )
    return Claim(
        text,
        f"up since {hour(since_us)}, first insolvent at {hour(lost_us)}; while one was up "
        f"{usd(granted)} was granted, {usd(otherwise)} without breakers",
        since_us < lost_us and granted == 0 < otherwise,
    )


def may_2021(found: Found) -> list[Claim]:
    """Judge E2: a silent spoke."""
    full = found.ways[FULL]
    silent, sights = max(full.zones.items(), key=lambda item: max(one.age_us for one in item[1]))
    others_us = [one.age_us for name, row in full.zones.items() if name != silent for one in row]
    dark = [one for one in sights if one.age_us >= 600_000_000]
    if not dark:
        return [Claim("a spoke is silent for 90 minutes", "none was for 10", False)]
    before = next(one for one in reversed(sights) if one.at_us < dark[0].at_us - 600_000_000)
    oldest_us = max(one.age_us for one in sights)
    freed = dark[-1].ended - dark[0].ended
    later = sights[-1].ended - dark[-1].ended
    expired_usd6 = max(one.expired_usd6 for one in dark)
    off = [one.off_usd6 for row in full.zones.values() for one in row]
    return [
        Claim(
            "the age of its state grows",
            f"to {oldest_us / 6e7:,.0f} min on {silent}, {max(others_us) / 6e7:,.1f} elsewhere",
            oldest_us >= 85 * 60_000_000 > 10 * max(others_us),
        ),
        Claim(
            "gains there are discounted, to nothing",
            f"{_counted(before)} before, {_counted(dark[0])} after 10 min",
            before.counted_usd6 > 0 < dark[0].gains_usd6
            and not any(one.counted_usd6 for one in dark),
        ),
        Claim(
            "reservations stay pinned though they have expired",
            f"{usd(expired_usd6)} past its expiry meanwhile, {freed} freed; {later} afterwards",
            expired_usd6 > 0 == freed < later,
        ),
        Claim(
            "nothing is released twice",
            f"{full.reopened} open after their end, {sum(map(abs, off))} usd6 off in "
            f"{len(off)} recounts, {full.result.invariants_checked:,} checks",
            full.reopened == 0 and not any(off) and full.result.invariants_checked > 0,
        ),
    ]


def _counted(sight: ZoneSight) -> str:
    share = 100 * sight.counted_usd6 / sight.gains_usd6 if sight.gains_usd6 else 0
    return f"{share:.0f} % of {usd(sight.gains_usd6)}"


def luna_2022(found: Found) -> list[Claim]:
    """Judge E3: a feed that has stopped."""
    full, without = found.ways[FULL], found.ways[NO_BREAKERS]
    since_us = next((one.at_us for one in full.turns if one.cause == "feed_stuck"), None)
    text = "a price too old stops all credit, an attacker's too"
    if since_us is None:
        return [Claim(text, "no breaker saw the feed stop", False)]
    end_us = round(full.result.virtual_s * 1e6)
    granted, otherwise = (granted_usd6(one, since_us, end_us) for one in (full, without))
    his = granted_to(full, "attacker", since_us), granted_to(without, "attacker", since_us)
    return [
        Claim(
            text,
            f"from {hour(since_us)} on {usd(granted)} granted, to the attacker {usd(his[0])}; "
            f"without breakers {usd(otherwise)}, {usd(his[1])}",
            granted == 0 < his[1],
        )
    ]


def ftx_2022(found: Found) -> list[Claim]:
    """Judge E5: one position far above depth."""
    bare, full = found.ways[BARE], found.ways[FULL]
    rows = [one for one in full.holders["whale"] if one.notional_usd6]
    held = max(rows, key=lambda one: one.unwind_s)
    longer = sum(one.unwind_s > one.rest_s for one in rows)
    unwind_us, other_us = bare.unwinds_us["whale"]
    sizes = [max(one.notional_usd6 for one in seen.holders["whale"]) for seen in (full, bare)]
    return [
        Claim(
            "the time to unwind dominates tau",
            f"a third of it {held.unwind_s:,.0f} s for {usd(held.notional_usd6)}, all else "
            f"{held.rest_s:,.0f} s; the longer in {longer} of {len(rows)} looks",
            held.unwind_s > held.rest_s and longer >= 0.9 * len(rows),
        ),
        Claim(
            "so it does when it is sold",
            f"{unwind_us / 6e7:,.0f} min of selling, {other_us / 6e7:,.0f} min on the way "
            "(none of the three)",
            unwind_us > other_us,
        ),
        Claim(
            "the buffer keeps such a position smaller",
            f"at most {usd(sizes[0])}, {usd(sizes[1])} without",
            sizes[0] < sizes[1],
        ),
    ]


def mango_2022(found: Found) -> list[Claim]:
    """Judge E6: a gain on a thin asset."""
    claims = [_borrowable(found, FULL), _borrowable(found, BARE), _borrowable(found, LOWER)]
    full = found.ways[FULL]
    place = [str(asset) for asset in found.path.assets].index("MNGO")
    row = max(range(len(found.path.times_us)), key=lambda at: found.path.prices_usd6[at][place])
    peak_us = found.path.times_us[row]
    since_us = stopped_since(full.turns, peak_us)
    text = "a price far off its mean stops credit before the peak"
    if since_us is None:
        return [*claims, Claim(text, f"peak at {hour(peak_us)}, no gate", False)]
    granted = granted_usd6(full, since_us, peak_us)
    refused = sum(
        one.reason in ("price_doubted", "breaker")
        for one in full.refusals
        if since_us <= one.at_us < peak_us
    )
    won = granted_to(full, "long", since_us)
    gate = Claim(
        text,
        f"gate at {hour(since_us)}, peak at {hour(peak_us)}; {usd(granted)} granted between, "
        f"{refused} refused for it; to the winner {usd(won)} from then on",
        granted == won == 0 < refused,
    )
    return [*claims, gate]


def _borrowable(found: Found, way: str) -> Claim:
    rows = found.ways[way].holders["long"]
    peak = max(rows, key=lambda one: one.pnl_usd6)
    most = max(max(0, one.free_usd6) + one.reserved_usd6 for one in rows)
    return Claim(
        f"the gain does not become borrowable ({way})",
        f"up {usd(peak.pnl_usd6)}, equity counts {usd(peak.equity_usd6)}; credit then "
        f"{usd(max(0, peak.free_usd6))} free and {usd(peak.reserved_usd6)} reserved, at any time "
        f"{usd(most)}, never above cash",
        peak.pnl_usd6 > 10 * peak.cash_usd6
        and all(max(0, one.free_usd6) + one.reserved_usd6 <= max(0, one.cash_usd6) for one in rows),
    )


def crv_2022(found: Found) -> list[Claim]:
    """Judge E7: a size far above depth."""
    full, bare = found.ways[FULL], found.ways[BARE]
    tripped = [one for one in full.turns if one.cause == "cascade"]
    ratios = [one.ratios_ppm["CRV"] / 1e6 for one in (full, bare)]
    first = f"first at {hour(tripped[0].at_us)}" if tripped else "never"
    moved = found.ways[MOVED]
    high = moved.used_ppm["CRV"][1]
    return [
        Claim(
            "its liquidation feeds itself: R above 1",
            f"R {ratios[0]:.1f}, {ratios[1]:.1f} without defences, at normal depth (B6); the "
            f"cascade breaker rose {first}",
            min(ratios) > 1 and bool(tripped),
        ),
        Claim(
            "it moves the price itself",
            f"where fills move prices R {_measured(moved, 'CRV'):.1f} at the depth of the hour, "
            f"CRV up to {high / 1e4 - 100:.0f} % above the path; lost {usd(moved.lost_usd6)}, "
            f"{usd(full.lost_usd6)} where they do not",
            _measured(moved, "CRV") > 1 and high > 1_100_000 and moved.lost_usd6 > full.lost_usd6,
        ),
    ]


def _measured(seen: Seen, asset: str) -> float:
    """Return the largest R that the hub measured, depth included; 0 if it measured none."""
    impact = seen.result.impact
    measured = None if impact is None else impact.cascades_ppm
    return 0.0 if measured is None else measured[asset] / 1e6


def usdc_2023(found: Found) -> list[Claim]:
    """Judge E8: the numeraire of others off its peg."""
    full, without = found.ways[FULL], found.ways[UNPEGGED]
    spans = _below_peg(found.path)
    if not spans:
        return [Claim("off its peg it stops credit", "it never was", False)]
    granted, otherwise = (
        sum(granted_usd6(one, *span) for span in spans) for one in (full, without)
    )
    sold = sum(low <= at_us < high for at_us in full.liquidated_us for low, high in spans)
    hours = sum(high - low for low, high in spans) / HOUR_US
    cash = {one.cash_usd6 for seen in found.ways.values() for one in seen.holders["saver"]}
    return [
        Claim(
            "off its peg it stops credit and no liquidation",
            f"{usd(granted)} granted and {sold} liquidations in {hours:.1f} h below 0.99; "
            f"{usd(otherwise)} granted where the peg is not watched",
            granted == 0 < otherwise and sold > 0,
        ),
        Claim(
            "the hub books in dollars",
            f"who holds dollars has {usd(min(cash))} at the lowest and {usd(max(cash))} at the "
            "highest, whatever USDC is",
            len(cash) == 1,
        ),
    ]


def _below_peg(path: PricePath) -> list[tuple[int, int]]:
    """Return the spans in which USDC is below 0.99 and a feed must have said so."""
    place = [str(asset) for asset in path.assets].index("USDC")
    found: list[tuple[int, int]] = []
    since: int | None = None
    for at_us, row in zip(path.times_us, path.prices_usd6, strict=True):
        if row[place] >= 990_000:
            if since is not None and since + HEARD_US < at_us:
                found.append((since + HEARD_US, at_us))
            since = None
        elif since is None:
            since = at_us
    end_us = path.times_us[-1]
    if since is not None and since + HEARD_US < end_us:
        found.append((since + HEARD_US, end_us))
    return found


def october_2025(found: Found) -> list[Claim]:
    """Judge E9: one venue's price, depth that is gone, who pays, and what one venue may win."""
    full, one_feed = found.ways[FULL], found.ways[ONE_FEED]
    low, bent = full.used_ppm["USDE"][0], one_feed.used_ppm["USDE"][0]
    moved = found.ways[MOVED]
    asset = max(moved.ratios_ppm, key=lambda name: moved.ratios_ppm[name])
    usual, fallen = moved.ratios_ppm[asset] / 1e6, _measured(moved, asset)
    fall = moved.result.impact.falls.get(asset) if moved.result.impact else None
    own = "" if fall is None else f"; of its fall fills made {fall.endogenous_ppm / 1e4:.0f} %"
    rata, queue = full.result.deleveraging, found.ways[DRY].result.deleveraging
    free, capped = found.ways[NO_CAPS].won_usd6, full.won_usd6
    venue = max(free, key=lambda name: free[name])
    cap = full.caps_usd6[venue]
    return [
        Claim(
            "one venue's price does not drive the price in use",
            f"USDe at {low / 1e4:.1f} % of its peg at the lowest; with that feed alone "
            f"{bent / 1e4:.1f} %",
            low >= 980_000,
        ),
        Claim(
            "the collapse of depth takes R across 1",
            f"{asset}: R {usual:.2f} at most at normal depth, {fallen:.1f} at the depth of the "
            f"hour (B6), where fills move prices{own}",
            usual < 1 < fallen,
        ),
        Claim(
            "a queue takes more than is needed, pro rata does not",
            f"pro rata closed {usd(rata.closed_usd6)}, {usd(rata.overshoot_usd6)} too much given "
            f"up; queue {usd(queue.closed_usd6)}, {usd(queue.overshoot_usd6)}",
            rata.closed_usd6 > 0 < queue.closed_usd6
            and rata.overshoot_usd6 <= queue.overshoot_usd6,
        ),
        Claim(
            "the zone cap limits what one venue may win",
            f"{venue} won {usd(capped[venue])} on balance at most, cap {usd(cap)}; without caps "
            f"{usd(free[venue])}",
            capped[venue] <= cap < free[venue],
        ),
        waterfall(found),
    ]
