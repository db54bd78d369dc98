"""What a run has shown: plain data, the same for the summary, `--json` and the report."""

import msgspec


class Quantiles(msgspec.Struct, frozen=True):
    """Delay of one hop [us] over all that passed it."""

    p50: int
    p99: int
    count: int


class Reservations(msgspec.Struct, frozen=True):
    """What became of the requests for credit."""

    requested: int
    granted: int
    rejected: int
    released: int
    reject_reasons: dict[str, int]


class Deleveraging(msgspec.Struct, frozen=True):
    """What was closed against bankrupt accounts, at their bankruptcy prices (L12 to L14).

    Attributes:
        commands: at a price, to bankrupt accounts and to others.
        accounts: others that closed something.
        closed_usd6: what they closed, at that price.
        given_up_usd6: what they got less for it than at the mark when the price was made.
        overshoot_usd6: the part of that which no bankrupt account needed.
        unmatched_usd6: what bankrupt accounts got more, and nobody has given up.
    """

    commands: int
    accounts: int
    closed_usd6: int
    given_up_usd6: int
    overshoot_usd6: int
    unmatched_usd6: int


class Sample(msgspec.Struct, frozen=True):
    """The system at one moment; money in usd6, lists in the scenario's order.

    Attributes:
        at_us: when.
        prices_usd6: true prices; where fills move them, those of the first spoke's venue.
        equity_usd6: of all accounts together, as the hub sees it.
        maintenance_usd6, initial_usd6: requirements, buffers included.
        bad_debt_usd6, insurance_usd6: shortfalls so far, and what the fund still has.
        locked_usd6, collateral_usd6: how much of the collateral is locked, and all of it.
        reserved_usd6, used_usd6: credit held by spoke, and the part of it known to be used.
        carried_usd6: margin of positions by spoke.
        state_age_us: age of the spoke's state at the hub, by spoke.
    """

    at_us: int
    prices_usd6: list[int]
    equity_usd6: int
    maintenance_usd6: int
    initial_usd6: int
    bad_debt_usd6: int
    insurance_usd6: int
    locked_usd6: int
    collateral_usd6: int
    reserved_usd6: list[int]
    used_usd6: list[int]
    carried_usd6: list[int]
    state_age_us: list[int]


class Liquidation(msgspec.Struct, frozen=True):
    """One command that closed something, with the delay of each hop on its way [us].

    Attributes:
        at_us: when it ended, with its last fill as a rule.
        price_usd6: average price of what it closed.
        moved_usd6: what the position's holder got more than at the price the hub decided on;
            below zero, what the delay and the depth of the market have cost.
        hops: as named in `HOPS`.
        liq_id: the command's id, in hex.
        settled_us: when the hub heard of its end; 0 if it has not.
    """

    at_us: int
    account: str
    spoke: str
    asset: str
    filled_qty8: int
    price_usd6: int
    moved_usd6: int
    hops: dict[str, int]
    liq_id: str = ""
    settled_us: int = 0


class Lane(msgspec.Struct, frozen=True):
    """The two ways between the hub and a spoke, by name of preset or literal."""

    spoke: str
    up: str
    down: str


class Tripped(msgspec.Struct, frozen=True):
    """What breakers have done: how often each cause raised or lowered a level, and the highest."""

    rises: dict[str, int]
    falls: dict[str, int]
    highest: int


class Fall(msgspec.Struct, frozen=True):
    """The largest fall of one asset's price, as feeds see it, from a peak to a trough.

    Attributes:
        from_us, until_us: of peak and trough.
        fell_ppm: share of the peak. path_fell_ppm: how far the path without fills fell meanwhile,
            below zero if it rose.
        endogenous_ppm: share of the fall that is not the path's.
    """

    from_us: int
    until_us: int
    fell_ppm: int
    path_fell_ppm: int
    endogenous_ppm: int


class Impact(msgspec.Struct, frozen=True):
    """What fills did to prices (C8).

    Attributes:
        coupling_ppm: share of a venue's own move that other venues carried, measured; None if
            there was nothing to compare.
        cascades_ppm: by asset, the largest reproduction number that the hub measured (B6); None
            without breakers, for then it measures none.
        falls: by asset that ever fell.
    """

    coupling_ppm: int | None
    cascades_ppm: dict[str, int] | None
    falls: dict[str, Fall]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    Attributes:
        status: `complete`, `interrupted` or `violated`.
        digest: of all records.
        outside_digest: of what comes from outside the protocol, prices and orders; the same
            under any latency, buffer and link fault, unless fills move prices.
        messages: frames that hub and spokes have sent each other.
        equity_locked_ppm: collateral locked by requirements and reservations, over all
            collateral, averaged over time.
        bad_debt_usd6: all shortfalls of accounts closed out; of it funds of spokes have paid
            `funds_used_usd6`, the hub's insurance `insurance_used_usd6`, all accounts together
            `socialised_usd6`, and nobody `uncovered_usd6`.
        open_shortfall_usd6: negative equity at the end that is not closed out yet, by the
            spokes' own books at true prices.
        liquidations: commands on the market; `liquidated_usd6` closed by them.
        liquidation_moved_usd6: what all closed positions got more than at the prices that the
            hub decided on; below zero, the price of being late.
        delay_us: by hop, over all liquidations that closed something.
        breakers: None if the scenario has none.
        impact: None unless fills move prices.
        channel_delay_us: by direction and family, over all frames delivered.
    """

    scenario: str
    seed: int
    status: str
    digest: str
    outside_digest: str
    prices_source: str
    stylised: bool
    buffer: str
    lanes: list[Lane]
    events: int
    virtual_s: float
    wall_s: float
    accounts: int
    spokes: list[str]
    assets: list[str]
    messages: int
    messages_by_family: dict[str, int]
    orders: int
    orders_refused: int
    collateral_usd6: int
    bad_debt_usd6: int
    funds_used_usd6: int
    insurance_used_usd6: int
    socialised_usd6: int
    uncovered_usd6: int
    open_shortfall_usd6: int
    liquidations: int
    liquidated_accounts: int
    closed_out_accounts: int
    liquidated_usd6: int
    liquidation_moved_usd6: int
    deleveraging: Deleveraging
    reservations: Reservations
    equity_locked_ppm: int
    delay_us: dict[str, Quantiles]
    channel_delay_us: dict[str, Quantiles]
    invariants_checked: int
    violations: int
    breakers: Tripped | None = None
    impact: Impact | None = None


def payers(result: Result) -> list[tuple[str, int]]:
    """Return who has paid how much of the bad debt, in the order of the waterfall (L10).

    Spokes' funds and all accounts only if they have.
    """
    steps = [
        ("spokes' funds", result.funds_used_usd6),
        ("insurance", result.insurance_used_usd6),
        ("all accounts", result.socialised_usd6),
        ("none", result.uncovered_usd6),
    ]
    return [(who, usd6) for who, usd6 in steps if usd6 or who in ("insurance", "none")]


def by_fills(found: Impact) -> str:
    """Return what fills did to prices, in one line."""
    parts = [
        f"{asset} fell {fall.fell_ppm / 1e4:.1f} %, "
        f"{fall.endogenous_ppm / 1e4:.0f} % of it by fills"
        for asset, fall in found.falls.items()
    ]
    if found.cascades_ppm is not None:
        parts.append(f"R at most {max(found.cascades_ppm.values()) / 1e6:.2f}")
    if found.coupling_ppm is not None:
        parts.append(f"coupling {found.coupling_ppm / 1e6:.2f}")
    return "; ".join(parts) or "none"


class Story(msgspec.Struct, frozen=True):
    """What the report draws, beside the result."""

    result: Result
    samples: list[Sample]
    liquidations: list[Liquidation]
