"""The report: one page of HTML that needs no network and no other file."""

import json
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import vl_convert

from lab.report import charts
from lab.report.style import (
    CONFIG,
    CSS,
    EXPORT,
    HALF,
    HOPS,
    START,
    dollars,
    duration,
    percent,
    table,
)
from lab.result import Result, Story, by_fills, payers
from messaging.errors import InputRefused
from messaging.presets import END_TO_END, PRESETS

# Title of each chart, and on a line of its own what it shows, in plain words.
WORDS = {
    "prices": "Prices and liquidations\n"
    "Line: the true price, in US dollars. Circles: liquidations when their last fill was, at "
    "their average price; area says how many dollars were closed. One circle is one command, "
    "or, where there are very many, all of a spoke that are close in time.",
    "equity": "Equity and what it must cover\n"
    "All accounts together, in US dollars, as the hub sees them: from prices and positions "
    "that are already old. Both margins include the latency buffer. New credit needs equity "
    "above initial margin; an account whose own equity falls below its own maintenance "
    "margin is liquidated, however well the others stand.",
    "losses": "Bad debt and the insurance fund\n"
    "Bad debt, in US dollars: what accounts owed beyond their collateral when they were closed "
    "out, added up, when the hub hears of the last fill. Insurance pays while it can.",
    "hops": "Where the time goes: delay of liquidations by hop\n"
    "Upper bar: the way from a price print to the last fill, hop by hop. The black mark is the "
    "quantile of whole ways; quantiles of hops need not add up to it. Grey bar: how old the "
    "hub's picture of the spoke was when it decided; this runs beside the way, not on top. "
    "Channels keep order: a command also waits for slower frames that were sent before it.",
    "totals": "Total delay\n"
    "Liquidation commands that closed something, by time from the price print to the last "
    "fill. Bins are equal in ratio where delays differ more than twelvefold.",
    "moves": "What the delay cost whoever was liquidated\n"
    "Average fill price against the price that the hub decided on, in % of what was closed; "
    "area: dollars closed. Below zero the position's holder got less, for the price had moved "
    "against him or the sale itself moved it.",
    "blind": "How far prices move while one liquidation is under way\n"
    "Change of the true price over the median total delay before each moment, in %. Expect "
    "bad debt where it exceeds what maintenance margin leaves before equity is gone.",
    "credit": "Credit held by spoke\n"
    "Solid: credit that the hub has set aside for a spoke, in US dollars. Dashed: the part "
    "that the hub knows to be used. Between them lies capital that idles while messages "
    "travel.",
    "carried": "Margin of positions by spoke\n"
    "Margin that the hub carries for positions a spoke has reported, in US dollars.",
    "ages": "Age of what the hub knows\n"
    "Time since the moment that the hub's newest state of a spoke describes. A long climb is "
    "silence: a cut lane or a halted chain.",
}

BANDS = (
    "Red bands, in all charts over time: at least 1 % of all bad debt was booked between two "
    "samples. The loss came earlier: a hub hears of it one message late."
)
# Forbids the page every request, whatever is in it.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data:"
)


def write_report(story: Story, path: Path) -> None:
    """Write the report of a run as one HTML file; the same story gives the same bytes.

    Raises:
        InputRefused: the file cannot be written.
    """
    page = render(story)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8", newline="\n")
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputRefused(str(path), expected="a file to write to", found=reason) from None


def render(story: Story) -> str:
    """Return the page."""
    result = story.result
    late = _figures(charts.late(story))
    start = START.replace("CONFIG", _json(CONFIG))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(result.scenario)}</title>
<style>{CSS}</style>
</head>
<body>
<main>
{_header(result)}
{_tiles(result)}
<p>{escape(_in_short(story))}</p>
{_facts(result)}
<noscript><p class="banner">Charts need JavaScript; all else is readable without.</p></noscript>
<h2>What happened</h2>
<p class="soft">{BANDS if result.bad_debt_usd6 else "No bad debt was booked in this run."}</p>
{_figures(charts.happened(story))}
<h2>Why: what was late, and what that cost</h2>
{late or '<p class="soft">No liquidation closed anything, so there is no delay to show.</p>'}
<h2>Credit, and what the hub knows</h2>
{_figures(charts.credit(story))}
<h2>Messages and reservations</h2>
{_tables(result)}
</main>
<script>{_bundle()}</script>
<script>{start}</script>
</body>
</html>
"""


@cache
def _bundle() -> str:
    """Return the JavaScript that draws the charts; it takes seconds to put together."""
    return vl_convert.javascript_bundle(EXPORT).replace("</script", "<\\/script")


def _json(value: Any) -> str:
    """Return JSON that may stand inside a script element, whatever texts it holds."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _figures(specs: Mapping[str, dict[str, Any]]) -> str:
    """Return charts with their titles, what they show, and the data to draw them from."""
    figures = []
    for name, spec in specs.items():
        title, note = WORDS[name].split("\n")
        width = "" if spec.get("width") == HALF else ' class="wide"'
        figures.append(
            f'<figure{width}><h3>{title}</h3><div class="chart" id="chart-{name}"></div>'
            f"<figcaption>{note}</figcaption>\n"
            f'<script type="application/json" id="{name}">{_json(spec)}</script></figure>'
        )
    return '<div class="figures">\n' + "\n".join(figures) + "\n</div>" if figures else ""


def _header(result: Result) -> str:
    """Return the title, and what must be known before reading on."""
    ended = f"{result.virtual_s / 3600:,.2f} h of virtual time"
    banners = ""
    if result.status == "violated":
        banners += _banner(f"An invariant did not hold: the run stopped after {ended}. ", bad=True)
    elif result.status != "complete":
        banners += _banner(f"Run {result.status} after {ended}: all below is of the part run.")
    if result.stylised:
        banners += _banner("Prices are stylised: a path through true anchor points, not tick data.")
    ways = ", ".join(sorted({way for one in result.lanes for way in (one.up, one.down)}))
    line = f"seed {result.seed} · {result.status} · latency {ways} · buffer {result.buffer}"
    return f"<h1>{escape(result.scenario)}</h1>\n<p>{escape(line)}</p>\n{banners}"


def _facts(result: Result) -> str:
    """Return what was run, for those who want to run it again."""
    facts = {
        "Prices": result.prices_source,
        "Run": f"{result.virtual_s / 3600:,.2f} h of virtual time, {result.events:,} events, "
        f"{result.messages:,} messages, {result.invariants_checked:,} invariant checks",
        "Digest": result.digest or "none",
    }
    if result.impact is not None:
        facts["Impact of fills"] = by_fills(result.impact)
    rows = "\n".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
    return f"<dl>{rows}</dl>"


def _banner(text: str, *, bad: bool = False) -> str:
    return f'<p class="banner{" bad" if bad else ""}">{escape(text)}</p>\n'


def _tiles(result: Result) -> str:
    """Return the key figures."""
    total = result.delay_us.get("total")
    lost = result.bad_debt_usd6
    paid = ", ".join(f"{dollars(usd6)} by {who}" for who, usd6 in payers(result))
    share = percent(lost, result.collateral_usd6)
    accounts, struck = result.accounts, result.liquidated_accounts
    ended, shut = total.count if total else 0, result.closed_out_accounts
    slow = f"99th percentile {duration(total.p99)}" if total else "nothing was liquidated"
    tiles = [
        (
            "Bad debt",
            dollars(lost),
            f"paid {paid}; {share} of all collateral",
        ),
        (
            "Open shortfall at the end",
            dollars(result.open_shortfall_usd6),
            "negative equity that is not closed out yet",
        ),
        (
            "Accounts liquidated",
            f"{struck:,} of {accounts:,}",
            f"{percent(struck, accounts)}; {shut:,} lost everything and were closed out",
        ),
        (
            "Liquidated",
            dollars(result.liquidated_usd6),
            f"at fill prices, by {ended:,} of {result.liquidations:,} commands",
        ),
        (
            "Collateral locked",
            f"{result.equity_locked_ppm / 1e4:.1f} %",
            "by margin and by credit set aside, average over time",
        ),
        (
            "Median delay of a liquidation",
            duration(total.p50) if total else "–",
            f"from the price to the last fill; {slow}",
        ),
    ]
    cells = []
    for name, value, more in tiles:
        loss = " loss" if name == "Bad debt" and lost else ""
        cells.append(
            f'<div class="tile{loss}"><span>{name}</span><b>{value}</b><span>{more}</span></div>'
        )
    return '<div class="tiles">\n' + "\n".join(cells) + "\n</div>"


def _in_short(story: Story) -> str:
    """Return what latency did, in a sentence or two."""
    delay_us = story.result.delay_us
    if not delay_us:
        return "No liquidation closed anything in this run."
    longest = max(HOPS, key=lambda hop: delay_us[hop].p50)
    text = (
        f"Half of the liquidations had their last fill more than {duration(delay_us['total'].p50)} "
        f"after the price that called for them; the longest hop was “{longest}”, with a median of "
        f"{duration(delay_us[longest].p50)}."
    )
    moved = []
    for asset, moves in charts.moves(story).items():
        known = [move for move in moves if move is not None]
        if known:
            span = f"{min(known):+.1f} to {max(known):+.1f}\u00a0%".replace("-", "−")
            moved.append(f"{asset} by {span}")
    return text + (f" Within such a time, prices moved: {', '.join(moved)}." if moved else "")


def _tables(result: Result) -> str:
    """Return lanes, delays of channels and what became of requests for credit."""
    lanes = [(one.spoke, _way(one.up), _way(one.down)) for one in result.lanes]
    delays = []
    for name, delay in result.channel_delay_us.items():
        way, _, family = name.partition(".")
        way = {"from-spoke": "spoke to hub", "to-spoke": "hub to spoke"}.get(way, way)
        quantiles = duration(delay.p50), duration(delay.p99), f"{delay.count:,}"
        delays.append((way, family, *quantiles))
    asked = result.reservations
    counts = [
        (name, f"{count:,}", percent(count, asked.requested))
        for name, count in (
            ("requested", asked.requested),
            ("granted", asked.granted),
            ("released again", asked.released),
            ("rejected", asked.rejected),
            *((f"… {why}".replace("_", " "), n) for why, n in asked.reject_reasons.items()),
        )
    ]
    return (
        "<h3>Lanes</h3>"
        + table(("spoke", "spoke to hub", "hub to spoke"), lanes, 3)
        + "<h3>Delay of messages, from sent to delivered</h3>"
        + table(("way", "family", "median", "99th percentile", "messages"), delays, 2)
        + "<h3>Reservations: requests of spokes for credit</h3>"
        + table(("outcome", "count", "of requests"), counts)
        + f'<p class="soft">{result.orders:,} orders were placed, '
        f"{result.orders_refused:,} of them refused for want of credit.</p>"
    )


def _way(name: str) -> str:
    """Return a way's name, and how much of the way its figure covers."""
    preset = PRESETS.get(name)
    if preset is None:
        return name
    covers = "" if preset.covers == END_TO_END else f" ({preset.covers} only)"
    return f"{name}{covers}: {preset.basis}; {preset.source}"
