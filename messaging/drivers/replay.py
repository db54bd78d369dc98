"""Show a log to fresh nodes and insist that they do the same again."""

from collections.abc import Iterable, Iterator, Sequence

from messaging.endpoint import Endpoint
from messaging.errors import ReplayDiverged
from messaging.record import Record


def replay(endpoints: Iterable[Endpoint], records: Iterable[Record]) -> Iterator[Record]:
    """Yield each record once its node has repeated it.

    Raises:
        ReplayDiverged: at the first record whose effects differ, or whose node is unknown.
    """
    by_name = {endpoint.name: endpoint for endpoint in endpoints}
    for endpoint in by_name.values():
        endpoint.start()
    for index, record in enumerate(records):
        endpoint_or_none = by_name.get(record.node)
        if endpoint_or_none is None:
            raise ReplayDiverged(
                index, record.at_us, record.node, expected="one of our nodes", found="no such node"
            )
        found = endpoint_or_none.handle(record.at_us, record.event)
        if found != record.effects:
            expected_one, found_one = _first_difference(record.effects, found)
            raise ReplayDiverged(
                index, record.at_us, record.node, expected=expected_one, found=found_one
            )
        yield record


def _first_difference(expected: Sequence[object], found: Sequence[object]) -> tuple[object, object]:
    """Return the first pair of effects that differ; `nothing` where a list has ended."""
    for one, other in zip(expected, found, strict=False):
        if one != other:
            return one, other
    longer, shorter = max(expected, found, key=len), min(expected, found, key=len)
    rest = longer[len(shorter)]
    return (rest, "nothing") if longer is expected else ("nothing", rest)
