"""What a live stack is set up with, before there is a broker."""

import socket
from pathlib import Path

import pytest

from lab.stack import folders, prepare
from lab.stack.commands import seconds
from lab.stack.plan import Plan, State, Status, write_plan, write_status
from lab.stack.prepare import Choices
from lab.world import build, names_of
from messaging.envelope import Envelope
from messaging.errors import InputRefused
from messaging.messages import CreditUsed, LiquidationFilled, ReservationGranted
from messaging.store import Entry, Store
from messaging.units import SECOND_US

SCENARIO = Path(__file__).parent.parent.parent / "scenarios" / "live.toml"
CHOICES = Choices(scenario=SCENARIO, monitor_port=0)
PLAN = Plan(
    deployment="x", bootstrap="127.0.0.1:1", epoch_ns=0, speed=60.0, settle_ms=1, monitor_port=1
)


def refusal(folder: Path, choices: Choices, *, fresh: bool = False) -> str:
    with pytest.raises(InputRefused) as caught:
        prepare.decide(folder, choices, fresh=fresh)
    return str(caught.value)


def test_fewer_spokes_are_the_first_and_more_are_copies_with_names_of_their_own() -> None:
    def names(count: int) -> tuple[str, ...]:
        return names_of(
            prepare.scenario_of(Choices(scenario=SCENARIO, spokes=count, monitor_port=0))
        )

    assert names(2) == ("base", "optimism")
    assert names(3) == ("base", "optimism", "unichain")
    assert names(7)[3:] == ("base-2", "optimism-2", "unichain-2", "base-3")


def test_a_copied_spoke_is_like_the_one_it_copies() -> None:
    scenario = prepare.scenario_of(
        Choices(scenario=SCENARIO, spokes=4, sets=("spokes.base-2.block_s=7",))
    )

    assert scenario.spokes[3].chain == scenario.spokes[0].chain
    assert scenario.spokes[3].block_s == 7
    assert scenario.spokes[0].block_s == 2


@pytest.mark.parametrize("count", [0, 33])
def test_a_number_of_spokes_that_cannot_be(tmp_path: Path, count: int) -> None:
    assert "--spokes: expected 1 to 32" in refusal(
        tmp_path, Choices(scenario=SCENARIO, spokes=count, monitor_port=0)
    )


def test_fills_that_move_prices_are_refused(tmp_path: Path) -> None:
    choices = Choices(scenario=SCENARIO, sets=("impact.half_life_s=60",), monitor_port=0)
    assert "impact: expected none in a live stack" in refusal(tmp_path, choices)


def test_a_spoke_may_not_be_named_like_a_process(tmp_path: Path) -> None:
    choices = Choices(scenario=SCENARIO, sets=("spokes.base.name=relay",), monitor_port=0)

    assert "expected a name of its own" in refusal(tmp_path, choices)


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "thesis.tex"
    mine.write_text("years of work")

    for fresh in (False, True):
        assert "expected an empty folder" in refusal(tmp_path, CHOICES, fresh=fresh)
    with pytest.raises(InputRefused):
        prepare.wipe(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_keeps_its_scenario(tmp_path: Path) -> None:
    scenario = prepare.scenario_of(Choices(scenario=SCENARIO, seed=7))
    write_plan(tmp_path, PLAN, scenario)

    assert prepare.decide(tmp_path, Choices(monitor_port=0), fresh=False) == scenario
    same = Choices(scenario=SCENARIO, seed=7, monitor_port=0)
    assert prepare.decide(tmp_path, same, fresh=False) == scenario
    assert "expected the scenario that the folder has" in refusal(tmp_path, CHOICES)
    assert prepare.decide(tmp_path, CHOICES, fresh=True).seed == 1


def test_a_stack_without_passwords_does_not_get_some_later(tmp_path: Path) -> None:
    write_plan(tmp_path, PLAN, prepare.scenario_of(CHOICES))

    assert "expected a stack with passwords" in refusal(
        tmp_path, Choices(secure=True, monitor_port=0)
    )


def test_a_taken_port_is_refused_and_0_finds_one(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]

        found = refusal(tmp_path, Choices(scenario=SCENARIO, monitor_port=taken))
        assert found == f"--monitor-port: expected a free port, or 0 to choose one, found {taken}"
        assert prepare.free_port(0) not in (0, taken)


def test_a_speed_that_cannot_be(tmp_path: Path) -> None:
    assert "--speed: expected 0.001 to 100,000" in refusal(
        tmp_path, Choices(scenario=SCENARIO, speed=0.0)
    )


def test_a_stack_goes_on_behind_all_that_any_process_has_seen(tmp_path: Path) -> None:
    """A status may be a second old when everything is killed; the journals are exact."""
    scenario = prepare.scenario_of(CHOICES)
    assert prepare.reached(tmp_path, scenario) == 0
    write_status(tmp_path, Status(role="relay", pid=1, state=State.RUNNING, at_us=5_000))
    assert prepare.reached(tmp_path, scenario) == 5_000
    with Store(tmp_path / "base.db", {"role": "base"}) as store:
        store.commit([Entry(1, 6_000, b"one"), Entry(2, 9_000, b"two")], {}, [], 0)
    assert prepare.reached(tmp_path, scenario) == 9_000

    (tmp_path / "hub.db").write_bytes(b"this is no journal" * 100)
    assert prepare.reached(tmp_path, scenario) == 9_000


def test_the_latest_folder_is_found_and_a_missing_one_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputRefused, match="omnimargin up makes one"):
        folders.chosen(None)

    one = folders.fresh()
    one.mkdir(parents=True)
    folders.mark_latest(one)
    assert folders.chosen(None) == one
    two = folders.fresh()
    assert two != one
    two.mkdir()
    folders.mark_latest(two)
    assert folders.chosen(None) == two
    assert folders.chosen(one) == one


def test_a_span_has_a_unit() -> None:
    assert [seconds(text) for text in ("90s", "10m", "2h", "1d", "0.5m")] == [
        90,
        600,
        7_200,
        86_400,
        30,
    ]
    for text in ("", "10", "0s", "m", "1w", "-5s", "1e3s"):
        with pytest.raises(InputRefused, match="expected a span"):
            seconds(text)


def test_the_live_scenario_is_worth_watching_from_the_start() -> None:
    """Credit and fills show within half a minute at the usual speed, liquidations within 1.5."""
    scenario = prepare.scenario_of(Choices(scenario=SCENARIO, sets=("duration_h=1.5",)))
    first_s: dict[type, float] = {}
    for record in build(scenario).driver().run():
        for effect in record.effects:
            if isinstance(effect, Envelope):
                first_s.setdefault(type(effect.message), record.at_us / SECOND_US / prepare.SPEED)

    assert first_s[ReservationGranted] < 30
    assert first_s[CreditUsed] < 30
    assert 30 < first_s[LiquidationFilled] < 90
