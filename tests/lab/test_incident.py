"""The forged release: what each defence is worth, and that the figures are the run's own."""

import json
from itertools import product
from pathlib import Path
from subprocess import CompletedProcess

import msgspec
import pytest

from lab.incident.loss import Loss, build, lose
from lab.incident.plan import Defences, Plan, check, rows
from lab.summary import usd
from messaging.errors import InputRefused
from messaging.units import USD
from tests.lab.shell import omnimargin

ROOT = Path(__file__).parent.parent.parent
PLAN = Plan()
NONE = Defences(cap=False, hold=False, halt_min=None)


@pytest.fixture(scope="module")
def losses() -> dict[Defences, Loss]:
    return {defences: lose(PLAN, defences) for defences in rows(PLAN)}


def spared(first: Defences, second: Defences) -> bool:
    """Tell whether `second` has every defence of `first`; an earlier halt is one more."""
    late = float("inf")
    halts = [late if one.halt_min is None else one.halt_min for one in (first, second)]
    return first.cap <= second.cap and first.hold <= second.hold and halts[1] <= halts[0]


def test_every_check_holds_in_every_row(losses: dict[Defences, Loss]) -> None:
    assert len(losses) == 12
    assert all(loss.finding is None and loss.checked > 10_000 for loss in losses.values())


def test_no_defence_loses_all_that_was_forged(losses: dict[Defences, Loss]) -> None:
    loss = losses[NONE]

    assert loss.forged_usd6 == round(196_500 * 2_506 * USD)
    assert 0 <= loss.forged_usd6 - loss.taken_usd6 < PLAN.slice_usd6
    assert loss.stopped_by == ()


def test_a_defence_more_never_loses_more(losses: dict[Defences, Loss]) -> None:
    for (first, before), (second, after) in product(losses.items(), losses.items()):
        if spared(first, second):
            assert after.taken_usd6 <= before.taken_usd6


def test_the_cap_bounds_the_loss_whatever_else_stands(losses: dict[Defences, Loss]) -> None:
    """One cap, though there are three honest spokes with as much each (P2)."""
    for defences, loss in losses.items():
        if defences.cap:
            assert loss.taken_usd6 <= loss.counted_usd6 <= PLAN.cap_usd * USD
    assert "cap" in losses[NONE._replace(cap=True)].stopped_by


def test_a_halt_alone_loses_the_first_claim_and_a_hold_before_it_nothing(
    losses: dict[Defences, Loss],
) -> None:
    halted = NONE._replace(halt_min=PLAN.halt_min)
    first_usd6 = PLAN.claims[0][1]

    assert 0 <= first_usd6 - losses[halted].taken_usd6 < PLAN.slice_usd6
    assert losses[halted].refused_usd6 == 2 * PLAN.claims[1][1]
    assert losses[halted._replace(hold=True)].taken_usd6 == 0


def test_a_hold_without_a_halt_only_puts_it_off(losses: dict[Defences, Loss]) -> None:
    at_once, later = losses[NONE], losses[NONE._replace(hold=True)]

    assert later.taken_usd6 == at_once.taken_usd6
    assert at_once.last_min is not None
    assert later.last_min is not None
    assert later.last_min >= at_once.last_min + PLAN.hold_min - 1


def test_booked_gains_back_no_credit_once_the_forger_is_halted(
    losses: dict[Defences, Loss],
) -> None:
    """At most two orders had their grant when the halt came."""
    loss = losses[NONE._replace(halt_min=PLAN.early_min)]

    assert loss.counted_usd6 == PLAN.claims[0][1]
    assert loss.taken_usd6 <= 3 * PLAN.slice_usd6
    assert "halt" in loss.stopped_by


def test_the_checks_find_a_cap_that_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without rule L9 the three honest spokes' own caps are all there is."""
    monkeypatch.setattr("hub.gains.book", lambda *_, **__: None)
    loss = lose(PLAN, NONE._replace(cap=True))

    assert loss.taken_usd6 > 2 * PLAN.cap_usd * USD
    assert loss.finding is not None
    assert loss.finding.startswith("CAP: won at forger beyond its cap")


def test_the_same_row_has_the_same_digest_twice(losses: dict[Defences, Loss]) -> None:
    defences = Defences(cap=True, hold=False, halt_min=PLAN.halt_min)

    assert lose(PLAN, defences) == losses[defences]


def test_the_document_shows_what_the_command_prints(losses: dict[Defences, Loss]) -> None:
    lines = (ROOT / "docs" / "incident.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("|") and "%" in line]

    assert len(table) == len(losses)
    for line, loss in zip(table, losses.values(), strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[3] == usd(loss.taken_usd6)
        assert cells[6] == (", ".join(loss.stopped_by) or "nothing")


def test_the_forger_holds_nothing_and_only_says_so() -> None:
    built, forger = build(PLAN, NONE)

    assert built.liars == {forger.name}
    assert not forger.state.traders


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"units": 0.0}, "--units: expected 1 to"),
        ({"price_usd": float("nan")}, "--price-usd: expected 0.01 to 1e+06, found nan"),
        ({"cap_usd": -1.0}, "--cap-usd: expected 1 to 1e+12, found -1"),
        ({"early_min": 50.0}, "--early-min: expected 0 to 46, found 50"),
        ({"halt_min": 90.0}, "--halt-min: expected 0 to 85, found 90"),
        ({"units": 1e9}, "--units: expected $1,000 to $100,000,000,000 forged in all"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused(changed: dict[str, float], said: str) -> None:
    with pytest.raises(InputRefused) as refused:
        check(msgspec.structs.replace(PLAN, **changed))

    assert said in str(refused.value)


def command(*arguments: str) -> CompletedProcess[str]:
    return omnimargin("incident", *arguments, expect=None)


def test_bad_input_gets_one_line_and_code_2() -> None:
    done = command("--hold-min", "0")

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "omnimargin: --hold-min: expected 0.1 to 1,440, found 0\n"


def test_json_has_the_plan_and_every_row() -> None:
    """Smaller and faster: one claim, used within five minutes."""
    quick = ("--draw-min=5", "--more-units=0", "--hold-min=8", "--halt-min=6", "--freeze-min=7")
    done = command("--json", *quick)
    told = json.loads(done.stdout)

    assert done.returncode == 0
    assert told["plan"]["halt_min"] == 6
    assert [row["halt_min"] for row in told["rows"]] == [None] * 4 + [6] * 4 + [1] * 4
    assert all(row["forged_usd6"] == told["forged_usd6"] for row in told["rows"])
