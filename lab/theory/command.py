"""The commands of `omnimargin theory`: simulation against closed forms, one at a time or many."""

import sys
from functools import partial
from typing import Annotated

import msgspec
import typer

from lab.progress import counted
from lab.theory.cascade import Cascade, fall
from lab.theory.check import Compared, Progress, compare
from lab.theory.combinations import COMBINATIONS
from lab.theory.plan import Plan

DIFFERS = 4
ROW_PATHS = 1_000
RATIOS = (0.0, 0.5, 0.8, 0.95, 1.0, 1.2)
DEFAULT = Plan()
HEAD = (
    *("side", "leverage", "oracle", "latency", "age", "sigma", "drift", "m", "f", "jumps"),
    *("p sim", "p exact", "e sim", "e exact", "z_p", "z_e"),
)

# \b keeps the lines as they are.
_EXAMPLES = """\b
Examples:
  omnimargin theory check
  omnimargin theory check --oracle every:5s --latency exp:15m --side short --leverage 20
  omnimargin theory check --jumps 2000,-0.01,0.02 --paths 500 --json
"""

app = typer.Typer(
    help="Compare the simulator with closed forms (docs/theory.md).",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def add_to(parent: typer.Typer) -> None:
    """Add the commands to the command line."""
    parent.add_typer(app, name="theory")


@app.command("check", epilog=_EXAMPLES)
def check_command(
    sigma: Annotated[float, typer.Option(help="Volatility a year; 0.8 is 80 %.")] = DEFAULT.sigma,
    drift: Annotated[float, typer.Option(help="Drift of the price a year.")] = DEFAULT.drift,
    latency: Annotated[
        str, typer.Option(help="From command to fill: fixed:TIME or exp:TIME (its mean).")
    ] = DEFAULT.latency,
    age: Annotated[
        str, typer.Option(help="From a print to its arrival at the hub, a TIME.")
    ] = DEFAULT.age,
    oracle: Annotated[
        str, typer.Option(help="Prints: poisson:TIME (mean gap), every:TIME or continuous.")
    ] = DEFAULT.oracle,
    maintenance: Annotated[
        float, typer.Option(help="Maintenance margin, a share of notional.")
    ] = DEFAULT.maintenance,
    fee: Annotated[
        float, typer.Option(help="Cost of the closing fill, a share of it.")
    ] = DEFAULT.fee,
    side: Annotated[str, typer.Option(help="long or short.")] = DEFAULT.side,
    leverage: Annotated[
        float, typer.Option(help="Notional over collateral when opened.")
    ] = DEFAULT.leverage,
    jumps: Annotated[
        str, typer.Option(help="none or RATE,MEAN,SD: jumps a year, mean and SD of the log jump.")
    ] = DEFAULT.jumps,
    paths: Annotated[int, typer.Option(help="Worlds to run.")] = DEFAULT.paths,
    seed: Annotated[int, typer.Option(help="Seed of all dice.")] = DEFAULT.seed,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Liquidate one position in many worlds, and compare with the formula.

    Real nodes: feed, hub, channel, spoke. p is the chance of bad debt given the trigger, e its
    mean, in hundredths of a percent of notional at the trigger. Exit code 4: four standard
    errors or more apart.
    """
    plan = Plan(
        sigma=sigma,
        drift=drift,
        latency=latency,
        age=age,
        oracle=oracle,
        maintenance=maintenance,
        fee=fee,
        side=side,
        leverage=leverage,
        jumps=jumps,
        paths=paths,
        seed=seed,
    )
    with counted("paths", paths) as progress:
        found = compare(plan, progress)
    if json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        _show(found)
    if not found.agrees:
        sys.stderr.write("omnimargin: simulation and formula differ\n")
        raise typer.Exit(DIFFERS)


def _show(found: Compared) -> None:
    out = [
        f"p_sim        {found.p_sim:.6f}",
        f"p_se         {found.p_se:.6f}",
        f"p_exact      {found.p_exact:.6f}",
        f"e_sim_bps    {found.e_sim_bps:.4f}",
        f"e_se_bps     {found.e_se_bps:.4f}",
        f"e_exact_bps  {found.e_exact_bps:.4f}",
        f"z_p          {found.z_p:+.2f}",
        f"z_e          {found.z_e:+.2f}",
        f"paths        {found.paths:,}, {found.triggered:,} triggered, {found.events:,} events",
        f"method       {found.method}",
    ]
    if found.p_bgk is not None:
        out.append(f"by T4        p {found.p_bgk:.6f}, e {found.e_bgk_bps:.4f} bps, asymptotic")
    if found.too_few:
        out.append("too few bad debts, or paths without, for z to mean much: take more --paths")
    sys.stdout.write("\n".join(out) + "\n")


@app.command("table")
def table_command(
    paths: Annotated[int, typer.Option(help="Worlds to run for each row.")] = ROW_PATHS,
    seed: Annotated[int, typer.Option(help="Seed of all dice.")] = DEFAULT.seed,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Do that for combinations of both sides, all oracles and latencies, fees and jumps.

    Prints the table of docs/theory.md. Exit code 4: a row is four standard errors or more apart.
    """
    rows: list[Compared] = []
    with counted("paths", paths * len(COMBINATIONS)) as progress:
        for plan in COMBINATIONS:
            asked = msgspec.structs.replace(plan, paths=paths, seed=seed)
            rows.append(compare(asked, partial(_after, progress, paths * len(rows))))
    if json:
        sys.stdout.write(msgspec.json.encode(rows).decode() + "\n")
    else:
        sys.stdout.write("\n".join(lines(rows)) + "\n")
    if not all(row.agrees for row in rows):
        sys.stderr.write("omnimargin: simulation and formula differ\n")
        raise typer.Exit(DIFFERS)


def _after(progress: Progress, done: int, number: int, note: str) -> None:
    progress(done + number, note)


def lines(rows: list[Compared]) -> list[str]:
    """Return the rows as a table in Markdown."""
    out = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for row in rows:
        plan = row.plan
        cells = (
            plan.side,
            f"{plan.leverage:g}",
            plan.oracle,
            plan.latency,
            plan.age,
            f"{plan.sigma:g}",
            f"{plan.drift:g}",
            f"{plan.maintenance:g}",
            f"{plan.fee:g}",
            plan.jumps,
            f"{row.p_sim:.4f}",
            f"{row.p_exact:.4f}",
            f"{row.e_sim_bps:.3f}",
            f"{row.e_exact_bps:.3f}",
            f"{row.z_p:+.2f}",
            f"{row.z_e:+.2f}",
        )
        out.append("| " + " | ".join(cells) + " |")
    return out


@app.command("cascade")
def cascade_command(
    ratio: Annotated[
        list[float] | None,
        typer.Option(help="R: what a dollar of falling price makes it fall further. Repeatable."),
    ] = None,
    shock_usd: Annotated[float, typer.Option(help="The first fall, from 10,000.")] = 100.0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Let liquidations move the price: a shock becomes shock / (1 - R), and runs away at R >= 1.

    2,000 accounts whose triggers are evenly spaced, on the hub's own margin book; then only those
    that open before the breaker stops credit. Exit code 4: more than 2 % from the formula.
    """
    rows = [fall(one, shock_usd) for one in ratio or RATIOS]
    if json:
        sys.stdout.write(msgspec.json.encode(rows).decode() + "\n")
    else:
        sys.stdout.write("\n".join(map(_fallen, rows)) + "\n")
    if not all(row.agrees for row in rows):
        sys.stderr.write("omnimargin: simulation and formula differ\n")
        raise typer.Exit(DIFFERS)


def _fallen(row: Cascade) -> str:
    formula = "runs away" if row.exact_usd is None else f"{row.exact_usd:9,.1f}"
    return (
        f"R {row.ratio:4.2f}  shock {row.shock_usd:7,.1f}  fell {row.drop_usd:9,.1f}"
        f"  formula {formula}  {row.liquidated:5,} of {row.accounts:,} liquidated"
        f" in {row.rounds} rounds\n        {_guarded(row)}"
    )


def _guarded(row: Cascade) -> str:
    measured = f"measured R {row.measured_ratio:5.3f}"
    if row.stopped_at is None:
        return f"{measured}, breaker never trips"
    return (
        f"{measured}, breaker trips at {row.stopped_at:,} open: fell {row.guarded_drop_usd:,.1f},"
        f" {row.liquidated - row.guarded_liquidated:,} fewer liquidated"
    )
