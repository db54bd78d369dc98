"""What a commit has left to publish goes into batches: all of it, in order, none too large."""

from collections import defaultdict
from collections.abc import AsyncIterator

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from messaging.drivers import client
from messaging.drivers.client import TOPIC_BYTES_MAX, Connection
from messaging.drivers.publisher import _batches
from messaging.identity import SEALED_BYTES_MAX
from messaging.store import Row

TOPICS = ("to-base.reservation", "to-base.liquidation", "dlq.hub")
SIZES = (100, 1_000, 20_000, SEALED_BYTES_MAX)


@pytest.fixture
async def producer() -> AsyncIterator[AIOKafkaProducer]:
    """Yield a producer of ours that is connected to nothing."""
    made = client.producer(Connection("127.0.0.1:1"))
    yield made
    await made.stop()


wanted = st.lists(st.tuples(st.sampled_from(TOPICS), st.sampled_from(SIZES)), max_size=80)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(wanted=wanted)
def test_every_row_is_in_one_batch_of_its_topic_behind_those_before_it(
    producer: AIOKafkaProducer, wanted: list[tuple[str, int]]
) -> None:
    rows, expected = [], defaultdict(list)
    for number, (topic, size) in enumerate(wanted, start=1):
        value, headers = number.to_bytes(4) + bytes(size - 4), [("order", b"%d" % number)]
        rows.append(Row(number, topic, number, msgspec.msgpack.encode(headers), value))
        expected[topic].append((value, headers))

    found = defaultdict(list)
    for topic, batch in _batches(producer, rows):
        data = bytes(batch._build())
        assert len(data) <= TOPIC_BYTES_MAX
        records = MemoryRecords(data)
        while records.has_next():
            found[topic] += [(one.value, one.headers) for one in records.next_batch()]

    assert found == expected
