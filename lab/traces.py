"""One trace for each liquidation, from the price that called for it to its settlement.

The trace's id is the command's, which also stands in `traceparent` beside its frames on Kafka, so
a record on a topic leads to its trace. One OpenTelemetry span a line, as JSON.
"""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.util.types import AttributeValue

from lab.result import Liquidation
from messaging.errors import InputRefused

# In order, each begins where the one before ends; the age of the report runs beside them.
STAGES = ("oracle", "hub", "command", "inclusion", "unwind", "settlement")
_RESOURCE = Resource({"service.name": "omnimargin"})


def write_traces(path: Path, liquidations: Iterable[Liquidation], starts_at_ns: int) -> int:
    """Write all traces; return how many spans there are.

    `starts_at_ns` is what scenario time 0 stands for, nanoseconds since 1970.

    Raises:
        InputRefused: the file cannot be written.
    """
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            for one in liquidations:
                for span in spans(one, starts_at_ns):
                    file.write(span.to_json(indent=None) + "\n")
                    count += 1
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputRefused(str(path), expected="a file to write", found=reason) from None
    return count


def spans(one: Liquidation, starts_at_ns: int) -> Iterator[ReadableSpan]:
    """Yield a liquidation's spans: the whole, then its stages in order."""
    lasts_us = {stage: one.hops.get(stage, 0) for stage in STAGES}
    lasts_us["settlement"] = max(0, one.settled_us - one.at_us)
    began_us = one.at_us - one.hops["total"]
    whole = _context(one, "liquidation")
    attributes: dict[str, AttributeValue] = {
        "account": one.account,
        "spoke": one.spoke,
        "asset": one.asset,
        "filled_qty8": one.filled_qty8,
        "price_usd6": one.price_usd6,
        "moved_usd6": one.moved_usd6,
        "state_report_us": one.hops["state_report"],
        "settled": one.settled_us > 0,
    }
    ends_us = began_us + sum(lasts_us.values())

    def span(name: str, from_us: int, until_us: int, parent: SpanContext | None) -> ReadableSpan:
        return ReadableSpan(
            name=name,
            context=_context(one, name),
            parent=parent,
            resource=_RESOURCE,
            attributes=attributes if parent is None else None,
            start_time=starts_at_ns + from_us * 1_000,
            end_time=starts_at_ns + until_us * 1_000,
        )

    yield span("liquidation", began_us, ends_us, None)
    for stage in STAGES:
        yield span(stage, began_us, began_us + lasts_us[stage], whole)
        began_us += lasts_us[stage]


def _context(one: Liquidation, name: str) -> SpanContext:
    span_id = int(sha256(f"{one.liq_id}/{name}".encode()).hexdigest()[:16], 16)
    return SpanContext(int(one.liq_id, 16), span_id, is_remote=False, trace_flags=TraceFlags(1))
