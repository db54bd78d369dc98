"""Prices as the hub knows them: what its feeds say of each asset, and whether to believe it.

One feed is taken at its word. Of several, the median is in use, and what may be wrong with it
stops credit, never liquidation. Rules K1 to K6 of docs/oracle.md.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from itertools import accumulate
from statistics import median_low
from typing import NamedTuple

import msgspec

from messaging.messages import PricePublished
from messaging.units import Micros, Ppm, Usd6

FULL = 1_000_000


class Print(msgspec.Struct, frozen=True, kw_only=True):
    """The print in use for one asset; a price of 0 means that none has come yet.

    `depth_ppm`: how deep the market is; 1,000,000 is normal, and what counts if none is said (C6).
    """

    price_usd6: Usd6 = Usd6(0)
    observed_us: Micros = Micros(0)
    received_us: Micros = Micros(0)
    depth_ppm: Ppm = Ppm(FULL)


class Said(NamedTuple):
    """A feed's latest print, and how far the feed says that it may be off."""

    print: Print
    error_ppm: Ppm


class OraclePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When several feeds are believed.

    Attributes:
        feeds: how many there are of each asset.
        fresh_us: age beyond which a feed's print is stale.
        spread_ppm: how far a fresh feed may be from the median, its own error included.
        twap_us: span of the average price. twap_ppm: how far the price may be from it.
        pegs_usd6: per asset, the price it is pegged to, or 0. peg_ppm: how far it may be off.
    """

    feeds: int
    fresh_us: Micros
    spread_ppm: Ppm
    twap_us: Micros
    twap_ppm: Ppm
    pegs_usd6: tuple[Usd6, ...]
    peg_ppm: Ppm


class Doubt(StrEnum):
    """What may be wrong with the price of an asset; any of it stops credit (K4)."""

    FEW = "few"  # feeds that are fresh
    SPREAD = "spread"
    RUNAWAY = "runaway"
    OFF_PEG = "off_peg"


class Used:
    """The prices in use of the last few minutes, and their time-weighted mean (K5)."""

    def __init__(self) -> None:
        # Since when, which, and the integral over time of those before it; oldest first, the first
        # at or before the span's start.
        self._prices: deque[tuple[Micros, Usd6, int]] = deque()

    def note(self, span_us: Micros, price_usd6: Usd6, now_us: Micros) -> None:
        """Add a price in use, and keep no more than `span_us` needs."""
        prices, area = self._prices, 0
        if prices:
            since_us, before_usd6, area = prices[-1]
            area += before_usd6 * (now_us - since_us)
        prices.append((now_us, price_usd6, area))
        while len(prices) > 1 and prices[1][0] <= now_us - span_us:
            prices.popleft()

    def mean_usd6(self, span_us: Micros, now_us: Micros) -> Usd6:
        """Return the mean of the last `span_us`, or since the first price if that is less."""
        prices = self._prices
        latest_us, latest_usd6, area = prices[-1]
        start_us = max(now_us - span_us, prices[0][0])
        if start_us >= now_us:
            return latest_usd6
        area += latest_usd6 * (now_us - latest_us)
        for since_us, price_usd6, before in prices:
            if since_us > start_us:
                break
            start = before + price_usd6 * (start_us - since_us)
        return Usd6((area - start) // (now_us - start_us))


class Feeds:
    """What the feeds of one asset have said, and the prices in use that came of it.

    Attributes:
        said: latest print of each feed, by its number.
    """

    def __init__(self) -> None:
        self.said: dict[int, Said] = {}
        self.used = Used()

    def hear(
        self, policy: OraclePolicy, known: Print, published: PricePublished, now_us: Micros
    ) -> Print:
        """Return the print in use after another one has come (K1, K2)."""
        if published.feed >= policy.feeds:
            return known
        before = self.said.get(published.feed, Said(Print(), Ppm(0)))
        taken = take(before.print, published, now_us)
        if taken is before.print:
            return known
        self.said[published.feed] = Said(taken, published.error_ppm)
        if 2 * len(self.said) <= policy.feeds:
            return known
        price_usd6, observed_us = agreed(policy, list(self.said.values()), now_us)
        self.used.note(policy.twap_us, price_usd6, now_us)
        return Print(
            price_usd6=price_usd6,
            observed_us=observed_us,
            received_us=now_us,
            depth_ppm=median_low([one.print.depth_ppm for one in self.said.values()]),
        )

    def doubts(self, policy: OraclePolicy, place: int, known: Print, now_us: Micros) -> set[Doubt]:
        """Return what may be wrong with the price in use; there must be one (K3 to K6)."""
        price_usd6 = known.price_usd6
        found: set[Doubt] = set()
        fresh = [one for one in self.said.values() if _is_fresh(policy, one, now_us)]
        if 2 * len(fresh) <= policy.feeds:
            found.add(Doubt.FEW)
        if any(
            off_ppm(one.print.price_usd6, price_usd6) + one.error_ppm > policy.spread_ppm
            for one in fresh
        ):
            found.add(Doubt.SPREAD)
        if off_ppm(price_usd6, self.used.mean_usd6(policy.twap_us, now_us)) > policy.twap_ppm:
            found.add(Doubt.RUNAWAY)
        peg_usd6 = policy.pegs_usd6[place]
        if peg_usd6 and any(
            off_ppm(one.print.price_usd6, peg_usd6) > policy.peg_ppm for one in fresh
        ):
            found.add(Doubt.OFF_PEG)
        return found


def take(known: Print, published: PricePublished, now_us: Micros) -> Print:
    """Return the later of two prints; an overtaken or repeated one changes nothing."""
    if published.observed_us < known.observed_us or published.price_usd6 <= 0:
        return known
    if published.observed_us == known.observed_us and known.price_usd6:
        return known
    return Print(
        price_usd6=published.price_usd6,
        observed_us=published.observed_us,
        received_us=now_us,
        depth_ppm=published.depth_ppm or Ppm(FULL),
    )


def agreed(policy: OraclePolicy, said: Sequence[Said], now_us: Micros) -> tuple[Usd6, Micros]:
    """Return the median price of the fresh feeds, by weight, and the median of their times (K2).

    Of all feeds, if none is fresh. Of two in the middle the lower price and the earlier time.
    """
    fresh = [one for one in said if _is_fresh(policy, one, now_us)] or said
    times_us = sorted(one.print.observed_us for one in fresh)
    weighed = sorted((one.print.price_usd6, weight_ppm(policy, one, now_us)) for one in fresh)
    below = list(accumulate(weight for _, weight in weighed))
    middle = bisect_left(below, -(-below[-1] // 2))
    return weighed[middle][0], times_us[(len(times_us) - 1) // 2]


def weight_ppm(policy: OraclePolicy, one: Said, now_us: Micros) -> Ppm:
    """Return what a feed's word weighs: less with age and with the error it admits (K2).

    Never so little that the smallest majority would weigh less than all others at their most.
    """
    most = (policy.feeds - 1) // 2  # feeds that may be wrong
    least = FULL * (2 * most + 1) // (2 * (policy.feeds - most))
    age = max(0, now_us - one.print.observed_us) * FULL // policy.fresh_us
    worse = min(FULL, max(age, one.error_ppm * FULL // policy.spread_ppm))
    return Ppm(FULL - (FULL - least) * worse // FULL)


def _is_fresh(policy: OraclePolicy, one: Said, now_us: Micros) -> bool:
    return now_us - one.print.observed_us <= policy.fresh_us


def off_ppm(price_usd6: Usd6, from_usd6: Usd6) -> int:
    """Return how far a price is from another, a share of that, rounded up."""
    return -(-abs(price_usd6 - from_usd6) * FULL // from_usd6)
