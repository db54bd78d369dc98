"""The nodes against the closed forms: path by path, in the mean, and from the command line."""

import json
import math
from pathlib import Path
from subprocess import CompletedProcess

import msgspec
import numpy as np
import pytest

from lab.checkers import Checker
from lab.theory import cascade, check, paths, plan, trial
from lab.theory.combinations import COMBINATIONS
from lab.theory.plan import PRINTS, Plan, understand
from messaging.drivers.virtual import VirtualDriver
from messaging.errors import InputRefused
from tests.lab.shell import omnimargin

ROOT = Path(__file__).parent.parent.parent
JUMPY = Plan(
    side="short",
    leverage=20.0,
    oracle="every:60s",
    latency="exp:900s",
    age="30s",
    jumps="2000,-0.01,0.02",
)


def quiet(done: int, note: str) -> None:
    pass


def few(asked: Plan, count: int) -> Plan:
    return msgspec.structs.replace(asked, paths=count)


def by_hand(case: plan.Case, number: int) -> tuple[bool, float]:
    """Return what becomes of a path by its prices alone: the first print beyond the trigger."""
    seed, side, held = (case.plan.seed << 32) | number, case.position.side, case.position
    scenario = msgspec.structs.replace(trial.scenario_of(case), seed=seed)
    _, command_us = trial._delays(seed, trial._links(scenario))
    path = paths.draw(case, seed, case.age_s + command_us / 1e6)
    beyond = np.flatnonzero(side * path.printed < 0)
    if not len(beyond):
        return False, 0.0
    fill = (1 - side * held.fee) * math.exp(path.filled[beyond[0]])
    return True, max(0.0, side * (1 - side * held.maintenance - fill))


@pytest.mark.parametrize("asked", COMBINATIONS, ids=range(len(COMBINATIONS)))
def test_the_nodes_do_to_each_path_what_its_prices_say(asked: Plan) -> None:
    """The hub's own books, to a ten-thousandth of a basis point, and not only in the mean."""
    case = understand(few(asked, 8))
    for number, ended in enumerate(trial.results(case)):
        triggered, bad_debt = by_hand(case, number)
        assert ended.triggered == triggered
        assert ended.bad_debt == pytest.approx(bad_debt, abs=1e-8)


@pytest.mark.parametrize(
    "asked",
    [
        Plan(),
        Plan(oracle="continuous", latency="exp:900s", side="short", leverage=3.0),
        Plan(oracle="every:60s", fee=0.003, leverage=20.0),
        JUMPY,
    ],
)
def test_the_mean_of_the_nodes_is_the_formula(asked: Plan) -> None:
    found = check.compare(few(asked, 300), quiet)

    assert found.triggered > 200
    assert not found.too_few
    assert found.agrees
    assert max(abs(found.z_p), abs(found.z_e)) < 4


def test_a_wrong_formula_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the latency in the theory alone."""
    exact = check.exact

    def wrong(case: plan.Case) -> check.Expected:
        half = msgspec.structs.replace(case.plan, latency="fixed:450s")
        return exact(understand(half))

    monkeypatch.setattr(check, "exact", wrong)
    assert not check.compare(Plan(oracle="continuous", paths=600), quiet).agrees


def outcomes(asked: Plan) -> list[float]:
    return [ended.bad_debt for ended in trial.results(understand(few(asked, 40)))]


def test_leverage_and_the_split_of_the_delay_change_no_path() -> None:
    """Sections T1 and T5 through the nodes: same dice, same bad debt, a share of notional."""
    whole = outcomes(Plan(oracle="continuous", leverage=3.0))

    assert sum(value > 0 for value in whole) > 2
    levered = outcomes(Plan(oracle="continuous", leverage=20.0))
    assert levered == pytest.approx(whole, abs=1e-8)
    split = outcomes(Plan(oracle="continuous", leverage=3.0, latency="fixed:300s", age="10m"))
    assert split == pytest.approx(whole, abs=1e-8)


def test_every_invariant_holds_in_such_a_world() -> None:
    case = understand(JUMPY)
    for number in range(3):
        built, until_us = trial.build(case, trial.scenario_of(case), number)
        checker = Checker(built.hub, built.spokes, built.endpoints, built.deposits)
        for _ in VirtualDriver(built.endpoints, built.network, until_us=until_us).run():
            pass
        checker.sweep()
        account = built.hub.state.accounts[0]
        assert checker.checked > 100
        assert trial.over(built.hub) == bool(account.liquidations)
        assert account.liquidations <= 1


def test_the_hub_looks_once_at_every_print_and_a_fill_waits_for_the_command_alone() -> None:
    case = understand(msgspec.structs.replace(Plan(), age="7s", latency="exp:60s"))
    built, _ = trial.build(case, trial.scenario_of(case), 5)
    block_us = built.scenario.hub.block_s * 1e6
    prints = built.endpoints[0].node._path.times_us[1:]  # type: ignore[attr-defined]
    arrivals = np.array(prints) + 7_000_000

    assert len(prints) == PRINTS
    assert set(arrivals % block_us) == {block_us - 1}
    assert len(set(arrivals // block_us)) == PRINTS
    waits = np.array(built.path.times_us[1:]) - arrivals - 1
    assert len(set(waits)) == 1


def test_paths_have_the_law_they_should() -> None:
    case = understand(Plan(side="short", jumps="2000,-0.01,0.02", drift=20.0))
    drawn = [paths.draw(case, seed, 900.0) for seed in range(4_000)]
    gaps = np.concatenate([np.diff(path.print_s, prepend=0.0) for path in drawn])
    later = np.array([path.filled[0] - path.printed[0] for path in drawn])
    years = case.delay.fixed_years
    compensated = 20.0 - 0.32 - 2_000 * (math.exp(-0.01 + 0.02**2 / 2) - 1)
    mean = (compensated + 2_000 * -0.01) * years
    variance = 0.64 * years + 2_000 * years * (0.01**2 + 0.02**2)

    assert gaps.mean() == pytest.approx(60, rel=0.01)
    assert gaps.std() == pytest.approx(60, rel=0.02)
    assert later.mean() == pytest.approx(mean, abs=4 * math.sqrt(variance / len(later)))
    assert later.var() == pytest.approx(variance, rel=0.25)


# --- cascades ---------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.8, 0.95])
def test_a_cascade_on_the_hubs_book_is_the_formula(ratio: float) -> None:
    found = cascade.fall(ratio, 150.0)

    assert found.exact_usd == pytest.approx(150 / (1 - ratio))
    assert found.agrees
    assert not found.runaway
    assert found.drop_usd == pytest.approx(found.exact_usd, rel=0.02)


@pytest.mark.parametrize("ratio", [1.0, 1.5, 10.0])
def test_at_a_ratio_of_one_nobody_is_left(ratio: float) -> None:
    found = cascade.fall(ratio, 60.0)

    assert found.runaway
    assert found.liquidated == found.accounts
    assert found.exact_usd is None


# --- the command line -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"maintenance": 0.2}, "--maintenance: expected less than 0.2, the initial margin"),
        ({"maintenance": 0.0}, "--maintenance: expected 0.0001 to 0.5, found 0"),
        ({"fee": -0.001}, "--fee: expected 0 to 0.2, found -0.001"),
        ({"sigma": 0.0}, "--sigma: expected 0.001 to 20, found 0"),
        ({"sigma": math.nan}, "--sigma: expected 0.001 to 20, found nan"),
        ({"sigma": 20.0, "oracle": "every:24h"}, "--sigma: expected sigma * sqrt(time) of at most"),
        ({"drift": math.inf}, "--drift: expected -100 to 100, found inf"),
        ({"leverage": 1.0}, "--leverage: expected 1.1 to 1000, found 1"),
        ({"side": "both"}, "--side: expected long or short, found 'both'"),
        ({"latency": "exp:0s"}, "--latency: expected a time from 0.001s to 24h, as 900s"),
        ({"latency": "constant:900s"}, "--latency: expected fixed:TIME or exp:TIME"),
        ({"latency": "fixed:15"}, "--latency: expected a time from 0s"),
        ({"age": "-1s"}, "--age: expected a time from 0s to 24h, as 900s, found '-1s'"),
        ({"oracle": "every:0s"}, "--oracle: expected a time from 0.1s"),
        ({"oracle": "sometimes"}, "--oracle: expected poisson:TIME, every:TIME or continuous"),
        ({"oracle": "every:100ms"}, "--oracle: expected 0.9s or more between prints"),
        ({"jumps": "1,2"}, "--jumps: expected none or RATE,MEAN,SD"),
        ({"jumps": "1,nan,0"}, "--jumps: expected none or RATE,MEAN,SD"),
        ({"sigma": 0.01, "oracle": "every:1s", "jumps": "9,0,1"}, "--jumps: expected jumps of at"),
        ({"paths": 0}, "--paths: expected 1 to 1,000,000, found 0"),
        ({"seed": -1}, "--seed: expected 0 to 2,147,483,647, found -1"),
        (
            {"side": "short", "jumps": "20000,1,1", "latency": "exp:24h", "oracle": "every:90s"},
            "--latency: expected times so short that a short's bad debt has a variance",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(changed: dict[str, object], said: str) -> None:
    with pytest.raises(InputRefused) as refused:
        understand(msgspec.structs.replace(Plan(), **changed))

    assert str(refused.value).startswith(said)


def test_a_fee_of_nothing_is_a_millionth() -> None:
    """The venue rounds the price against the trader, and the theory knows."""
    assert understand(Plan(fee=0.0)).position.fee == 1e-6
    assert understand(Plan(fee=0.001)).position.fee == 0.001


@pytest.mark.parametrize("shock_usd", [0.0, math.nan, 4_000.0])
def test_a_shock_without_room_is_refused(shock_usd: float) -> None:
    with pytest.raises(InputRefused, match="--shock-usd: expected 60 to"):
        cascade.fall(0.5, shock_usd)


def command(*arguments: str) -> CompletedProcess[str]:
    return omnimargin("theory", *arguments, expect=None)


def test_the_command_prints_figures_and_json_the_same_ones() -> None:
    quick = ("check", "--paths=20", "--oracle=continuous", "--side=short", "--seed=7")
    shown, told = command(*quick), json.loads(command(*quick, "--json").stdout)

    assert shown.returncode == 0
    assert f"p_exact      {told['p_exact']:.6f}" in shown.stdout
    assert f"e_sim_bps    {told['e_sim_bps']:.4f}" in shown.stdout
    assert told["plan"]["side"] == "short"
    assert told["paths"] == told["triggered"] == 20


def test_bad_input_gets_one_line_and_code_2() -> None:
    done = command("check", "--fee", "-1")

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "omnimargin: --fee: expected 0 to 0.2, found -1\n"


def test_the_document_has_a_row_for_each_combination_and_none_that_differs() -> None:
    lines = (ROOT / "docs" / "theory.md").read_text().splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith(("| long", "| short"))]

    assert len(rows) == len(COMBINATIONS)
    for cells, asked in zip(rows, COMBINATIONS, strict=True):
        case = understand(asked)
        theory = check.exact(case).loss
        assert float(cells[11]) == pytest.approx(theory.p, abs=6e-5)
        assert float(cells[13]) == pytest.approx(1e4 * theory.e, abs=6e-4)
        assert abs(float(cells[14])) < 4
        assert abs(float(cells[15])) < 4
