"""A liquidation's trace: its stages follow each other without a gap, from price to settlement."""

from itertools import pairwise
from pathlib import Path

import msgspec

from lab import reading, running
from lab.traces import STAGES, write_traces
from lab.world import build
from messaging.envelope import Envelope
from messaging.headers import trace_of
from messaging.messages import LiquidationOrdered

ROOT = Path(__file__).parents[2]


def test_every_liquidation_is_one_trace_without_gaps(tmp_path: Path) -> None:
    tables = reading.read_file(ROOT / "scenarios" / "march_2020.toml")
    tables["duration_h"], tables["traders"] = 6, {"accounts": 150}
    world = build(reading.check(tables, directory=ROOT / "scenarios"))
    commands: dict[str, str] = {}
    for endpoint in world.endpoints:
        endpoint.observers.append(lambda now_us, event, effects: _note(event, commands))

    liquidations = running.run(world).story.liquidations
    count = write_traces(tmp_path / "traces.jsonl", liquidations, 10**18)

    found = [msgspec.json.decode(line) for line in (tmp_path / "traces.jsonl").open()]
    assert len(found) == count == len(liquidations) * (1 + len(STAGES)) > 0
    for place in range(0, count, 1 + len(STAGES)):
        whole, *stages = found[place : place + 1 + len(STAGES)]
        assert [stage["name"] for stage in stages] == list(STAGES)
        assert whole["start_time"] == stages[0]["start_time"]
        assert whole["end_time"] == stages[-1]["end_time"]
        for one, following in pairwise(stages):
            assert one["end_time"] == following["start_time"]
        ids = {stage["context"]["trace_id"] for stage in (whole, *stages)}
        assert len(ids) == 1
        # The frames on Kafka carry the same id.
        assert ids.pop().removeprefix("0x") in commands
        assert {stage["parent_id"] for stage in stages} == {whole["context"]["span_id"]}


def _note(event: object, commands: dict[str, str]) -> None:
    if type(event) is Envelope and type(event.message) is LiquidationOrdered:
        _, trace_id, _, _ = trace_of(event).decode().split("-")
        commands[trace_id] = event.message.account
