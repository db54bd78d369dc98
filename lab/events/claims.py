"""What claims of stress events are made of: what was found, and what is asked of it. Pure."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lab.events.seen import Seen, Turn
from lab.result import payers
from lab.summary import usd
from markets.price_path import PricePath
from messaging.units import HOUR_US

WHOLE = 1_000_000
ENDLESS_US = 2**63
LATE, THIN = "messages x20", "no bidders"
DRY = "ADL in a queue"
MOVED = "fills move prices"
ONE_FEED, UNPEGGED, LOWER = "one feed", "peg not watched", "the other peak"
SEEDS = (2, 3)


class Claim(NamedTuple):
    """One thing that an event must show.

    Attributes:
        how: `run`, or `valued` along the path of prices.
    """

    text: str
    figures: str
    holds: bool
    how: str = "run"


class Found(NamedTuple):
    """All ways that an event was run, by name, and the prices of the first."""

    ways: Mapping[str, Seen]
    path: PricePath


def seeded(way: str, seed: int) -> str:
    """Return the name of a way with another seed."""
    return f"{way}, seed {seed}"


def with_seeds(way: str) -> list[str]:
    """Return the names of a way with all seeds."""
    return [way, *(seeded(way, seed) for seed in SEEDS)]


def stops(turns: Iterable[Turn]) -> list[tuple[int, int]]:
    """Return the spans in which some breaker was up."""
    up: dict[str, int] = {}
    found: list[tuple[int, int]] = []
    since: int | None = None
    for turn in turns:
        up[turn.scope] = turn.level
        if since is None and turn.level:
            since = turn.at_us
        elif since is not None and not any(up.values()):
            found.append((since, turn.at_us))
            since = None
    return found if since is None else [*found, (since, ENDLESS_US)]


def stopped_since(turns: Iterable[Turn], at_us: int) -> int | None:
    """Return since when some breaker has been up without a break, None if none is at a time."""
    spans = [from_us for from_us, until_us in stops(turns) if from_us <= at_us < until_us]
    return spans[0] if spans else None


def granted_usd6(seen: Seen, from_us: int, until_us: int) -> int:
    """Return the credit granted in a span, to anybody."""
    return sum(one.amount_usd6 for one in seen.grants if from_us <= one.at_us < until_us)


def granted_to(seen: Seen, name: str, from_us: int) -> int:
    """Return the credit granted to a named account from a time on."""
    account = seen.owned[name]
    return sum(
        one.amount_usd6 for one in seen.grants if one.account == account and one.at_us >= from_us
    )


def waterfall(found: Found) -> Claim:
    """What is lost is paid by somebody, to the millionth, in every way (L10)."""
    left = [
        one.result.bad_debt_usd6 - sum(usd6 for _, usd6 in payers(one.result))
        for one in found.ways.values()
    ]
    checked = sum(one.result.invariants_checked for one in found.ways.values())
    most = max(found.ways.values(), key=lambda one: one.result.bad_debt_usd6)
    paid = ", ".join(f"{usd(usd6)} {who}" for who, usd6 in payers(most.result) if usd6)
    return Claim(
        "losses go down the waterfall and the books balance",
        f"at most {usd(most.result.bad_debt_usd6)}: {paid or 'nothing'}; {checked:,} checks",
        not any(left) and checked > 0 and most.result.bad_debt_usd6 > 0,
    )


def hour(at_us: int) -> str:
    """Return a time of a run as people read it."""
    return f"{at_us / HOUR_US:.2f} h"
