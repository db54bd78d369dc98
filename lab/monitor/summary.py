"""What the monitor knows, as one object: money in usd6, ages and delays in scenario seconds."""

import time
from collections.abc import Mapping
from typing import Any

from lab.monitor.app import HOP, Worker, standing
from lab.monitor.books import Books
from lab.monitor.delays import Spread
from lab.monitor.halting import Herald
from lab.monitor.reader import Reader
from messaging.drivers.clock import Clock


class Summary:
    """Reads everything, changes nothing.

    Attributes:
        worker: the Faust app, once there is one.
        state: what the monitor is doing. note: why it waits, if it does.
    """

    def __init__(self, books: Books, reader: Reader, herald: Herald, clock: Clock) -> None:
        self.books = books
        self.reader = reader
        self.worker: Worker | None = None
        self.state = self.note = ""
        self._herald = herald
        self._clock = clock

    def object(self) -> dict[str, Any]:
        """Return all of it."""
        books, reader, delays = self.books, self.reader, self.delays()
        spokes = self.spokes()
        return {
            "at_us": self._clock.now_us(),
            "state": self.state,
            "note": self.note,
            "frames": reader.frames,
            "refused": dict(reader.refused),
            "misplaced": books.refused,
            "dead_letters": dict(reader.dead_letters),
            "spokes": spokes,
            "all": _sums(spokes) | {"bad_debt_usd6": books.accounts.bad_debt_usd6()},
            "price_age_s": self.price_ages_s(),
            "delays": {way: one for way, one in delays.items() if not way.startswith(HOP)},
            "hops": {
                way.removeprefix(HOP): one for way, one in delays.items() if way.startswith(HOP)
            },
            "recent": self.worker.zones(time.time()) if self.worker else {},
            "doubts": books.docket.doubts,
            "findings": [
                {
                    "rule": finding.rule,
                    "spokes": finding.spokes,
                    "subject": finding.subject,
                    "text": finding.text,
                }
                for finding in books.findings
            ],
        }

    def spokes(self) -> dict[str, dict[str, Any]]:
        """Return the figures of every spoke."""
        books, at_stake = self.books, standing(self.books)
        found: dict[str, dict[str, Any]] = {}
        for spoke in books.spokes:
            lines, commands = books.lines.counts[spoke], books.commands.counts[spoke]
            state_us = at_stake[spoke].pop("state_us")
            found[spoke] = at_stake[spoke] | {
                "cap_usd6": books.lines.caps_usd6[spoke],
                "positions": books.accounts.positions(spoke),
                "orders": books.orders[spoke],
                "fills": books.accounts.fills[spoke],
                "requested": lines.requested,
                "granted": lines.granted,
                "rejected": lines.rejected,
                "closed": lines.closed,
                "liquidations_ordered": commands.ordered,
                "liquidations_filled": commands.filled,
                "liquidations_done": commands.done,
                "state_age_s": self._age_s(state_us),
                "halt": self._herald.halted.get(spoke, ""),
                "halted_by_hub": books.heard[spoke].halted,
                "blind": spoke in books.docket.blind,
            }
        return found

    def delays(self) -> dict[str, dict[str, float]]:
        """Return the delays of the newest windows, by channel, and by hop of a liquidation."""
        return _spreads(self.worker.delays(time.time())) if self.worker else {}

    def price_ages_s(self) -> dict[str, float]:
        """Return how old the newest print of each asset is at the hub."""
        known = self.books.knowledge.observed_us
        return {asset: self._age_s(observed_us) for asset, observed_us in known.items()}

    def _age_s(self, then_us: int) -> float:
        return round(max(0, self._clock.now_us() - then_us) / 1e6, 3)


def _spreads(spreads: Mapping[str, Spread]) -> dict[str, dict[str, float]]:
    return {
        way: {
            "count": spread.count,
            "p50_s": spread.quantile_s(0.5),
            "p99_s": spread.quantile_s(0.99),
        }
        for way, spread in sorted(spreads.items())
    }


def _sums(spokes: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    rows = list(spokes.values())
    whole = [name for name, value in rows[0].items() if type(value) is int]
    return {name: sum(row[name] for row in rows) for name in whole}
