"""The monitor's figures for Prometheus: dollars and scenario seconds."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from lab.monitor.summary import Summary
from messaging.units import USD

# What only grows; the rest goes up and down.
COUNTED = frozenset(
    {
        *("orders", "fills", "requested", "granted", "rejected", "closed"),
        *("liquidations_ordered", "liquidations_filled", "liquidations_done"),
    }
)


class Metrics(Collector):
    """Makes metrics of the summary whenever it is asked."""

    def __init__(self, summary: Summary) -> None:
        self._summary = summary

    def collect(self) -> Iterable[Metric]:
        """Yield everything."""
        yield from self._of_spokes()
        yield from self._of_all()
        delay = GaugeMetricFamily(
            "omnimargin_delay_seconds",
            "Delay of a channel or a liquidation's hop in the newest windows",
            labels=["way", "quantile"],
        )
        for way, row in self._summary.delays().items():
            delay.add_metric([way, "0.5"], row["p50_s"])
            delay.add_metric([way, "0.99"], row["p99_s"])
        yield delay
        age = GaugeMetricFamily(
            "omnimargin_price_age_seconds", "Age of the hub's newest print", labels=["asset"]
        )
        for asset, age_s in self._summary.price_ages_s().items():
            age.add_metric([asset], age_s)
        yield age

    def _of_spokes(self) -> Iterable[Metric]:
        spokes = self._summary.spokes()
        for name in next(iter(spokes.values())):
            if name == "halt":
                continue
            money = name.endswith("_usd6")
            unit = name.removesuffix("_s") + "_seconds" if name.endswith("_s") else name
            kind = CounterMetricFamily if name in COUNTED else GaugeMetricFamily
            family = kind(
                f"omnimargin_{name.removesuffix('6') if money else unit}",
                f"Of a spoke: {name.removesuffix('_usd6').replace('_', ' ')}",
                labels=["spoke"],
            )
            for spoke, row in spokes.items():
                family.add_metric([spoke], row[name] / USD if money else float(row[name]))
            yield family

    def _of_all(self) -> Iterable[Metric]:
        books, reader = self._summary.books, self._summary.reader
        bad_debt_usd = books.accounts.bad_debt_usd6() / USD
        yield GaugeMetricFamily("omnimargin_bad_debt_usd", "Derived from reports", bad_debt_usd)
        yield GaugeMetricFamily("omnimargin_findings", "Money findings", len(books.findings))
        for name, text, count in (
            ("omnimargin_monitor_frames", "Records read", reader.frames),
            ("omnimargin_monitor_refused", "Records refused", reader.refused.total()),
        ):
            yield CounterMetricFamily(name, text, count)
        dead = CounterMetricFamily("omnimargin_dead_letters", "By who refused", labels=["node"])
        for node, count in reader.dead_letters.items():
            dead.add_metric([node], count)
        yield dead
