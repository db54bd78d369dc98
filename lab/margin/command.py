"""`omnimargin margin`: what a book of perpetuals and options requires, and why."""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from lab.margin.book import read
from lab.margin.page import lines
from lab.margin.sheet import compute
from messaging.errors import InputRefused, nearest

MODES = ("cross", "isolated", "both")

# \b keeps the lines as they are.
_EXAMPLES = """\b
A book is a TOML file:
  title = "covered call"
  now_utc = 2026-03-01T08:00:00Z
  [[underlyings]]
  name = "BTC"
  price_usd = 60_000
  expiries = [{ expires_utc = 2026-03-27T08:00:00Z, volatility_ppm = 600_000 }]
  [[spokes]]
  name = "base"
  state_age_s = 40
  command_s = 73
  [[accounts]]
  name = "ann"
  cash_usd = 20_000
  [[accounts.positions]]
  spoke = "base"
  underlying = "BTC"
  kind = "call"                                # or "put", or "perpetual", which has neither
  strike_usd = 66_000                          # strike nor expiry
  expires_utc = 2026-03-27T08:00:00Z
  quantity = -1                                # below 0: sold
  cost_usd = -1_500                            # premium, or price times quantity; signed
\b
Examples:
  omnimargin margin books/two_spokes.toml
  omnimargin margin books/two_spokes.toml --mode both --grid pmrm
  omnimargin margin books/two_spokes.toml --grid books/grid.toml --json
"""


def add_to(parent: typer.Typer) -> None:
    """Add the command to the command line."""
    parent.command("margin", epilog=_EXAMPLES)(margin_command)


def margin_command(
    book: Annotated[Path, typer.Argument(help="A book, as in books/.")],
    grid: Annotated[
        str, typer.Option(help="span16, span16x3 (extremes 3x at 33 %), pmrm, or a TOML file.")
    ] = "span16",
    mode: Annotated[
        str, typer.Option(help="cross: all spokes together; isolated: one by one; both.")
    ] = "cross",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what accounts with perpetuals and options must hold, and what they are exposed to.

    All positions are revalued in every scenario of the grid, each at the range that the age of
    its own spoke makes (docs/options.md). Prints P&L by scenario with the worst marked, equity,
    MM and IM, Greeks with limits, and the hedge of all accounts. Moves are in ranges R.
    """
    if mode not in MODES:
        known = f"one of {', '.join(MODES)}"
        raise InputRefused("--mode", expected=known, found=f"{mode!r}{nearest(mode, MODES)}")
    sheet = compute(read(book, grid), alone=mode != "cross")
    if json:
        sys.stdout.write(msgspec.json.encode(sheet).decode() + "\n")
    else:
        sys.stdout.write("\n".join(lines(sheet, cross=mode != "isolated")) + "\n")
