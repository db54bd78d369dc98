"""Every account's requirement at once, from one risk array for each contract (rule O12).

Floats are fast and nearly right: what an account must hold is for `hub.margin.scan.requirement`
to say, in whole numbers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hub.margin.options.black import Floats
from hub.margin.scan import values
from hub.margin.scan.legs import Market, ScanPolicy, Series
from hub.margin.scan.requirement import reach_ppm

Places = NDArray[np.intp]
CHUNK = 4_096  # pairs of account and underlying in one pass, so that it stays in the cache


class Column(NamedTuple):
    """A contract on a spoke: a perpetual if it has no series.

    Attributes:
        unwind_s: how long a position in it is held to take to close; a third of it is charged.
    """

    spoke: int
    place: int
    series: Series | None
    unwind_s: float


class RiskArrays(NamedTuple):
    """What one unit of each column does, shares and weights of loss already taken.

    Attributes:
        pnl: by scenario [USD]: in a book with options; in a linear one (O3); as an option of an
            expiry that can only be worth something (O6). Shape (3 * columns, scenarios).
        given_up: what does not count of an option's price [USD], shape (columns, scenarios).
        basis: with the forward up and down [USD], shape (columns, 2).
        ranges: of each perpetual in a linear book [USD]. moves: of each scenario, as far as it
            counts, in ranges.
        prices: of each underlying [USD]. doubt: what IM takes of gross notional more.
    """

    pnl: Floats
    given_up: Floats
    basis: Floats
    ranges: Floats
    moves: Floats
    prices: Floats
    doubt: Floats


class Margins(NamedTuple):
    """What accounts must hold [USD], shape (accounts,)."""

    maintenance: Floats
    initial: Floats


def risk_arrays(policy: ScanPolicy, market: Market, columns: Sequence[Column]) -> RiskArrays:
    """Return what every column does in every scenario at this instant."""
    count, scenarios = len(columns), policy.grid.scenarios
    moves = np.array([one.move_ppm / 1e6 * (one.share_ppm / 1e6) for one in scenarios])
    prices = np.array([price / 1e6 for price in market.conditions.prices_usd6])
    doubt = [
        1.0 - known / 1e6 if known < extra.doubt_ppm else 0.0
        for known, extra in zip(market.confidence_ppm, policy.options, strict=True)
    ]
    found = RiskArrays(
        pnl=np.zeros((3 * count, len(scenarios))),
        given_up=np.zeros((count, len(scenarios))),
        basis=np.zeros((count, 2)),
        ranges=np.zeros(count),
        moves=moves,
        prices=prices,
        doubt=np.array(doubt),
    )
    tau_s = [market.conditions.tau_s[one.spoke][one.place] + one.unwind_s / 3.0 for one in columns]
    for number, one in enumerate(columns):
        if one.series is None:
            for linear in (False, True):
                reach = reach_ppm(policy, one.place, tau_s[number], linear=linear) / 1e6
                found.pnl[number + count * linear] = prices[one.place] * reach * moves
                if linear:
                    found.ranges[number] = prices[one.place] * reach
    for place in range(len(prices)):
        _price_options(policy, market, columns, tau_s, place, found)
    return found


def _price_options(
    policy: ScanPolicy,
    market: Market,
    columns: Sequence[Column],
    tau_s: Sequence[float],
    place: int,
    found: RiskArrays,
) -> None:
    """Fill in what options on one underlying do."""
    extra, price_usd6 = policy.options[place], market.conditions.prices_usd6[place]
    numbers, series = [], []
    for number, one in enumerate(columns):
        if one.place == place and one.series is not None:
            numbers.append(number)
            series.append(one.series)
    if not numbers:
        return
    ages_s = [tau_s[number] for number in numbers]
    reach = [reach_ppm(policy, place, age_s, linear=False) / 1e6 for age_s in ages_s]
    shares = np.array([one.share_ppm / 1e6 for one in policy.grid.scenarios])
    lost = np.array([[1.0 - values.share_kept(extra, one.left_years)] for one in series])
    weight = np.array([[values.basis_weight(extra, one.left_years)] for one in series])
    mark = values.quoted(extra, price_usd6, series).price
    worth = values.shocked(policy.grid, policy.shock, extra, price_usd6, series, reach, ages_s)
    found.pnl[numbers] = (worth - mark) * shares
    found.given_up[numbers] = worth * lost * shares
    found.pnl[[number + 2 * len(columns) for number in numbers]] = (
        found.pnl[numbers] - found.given_up[numbers]
    )
    found.basis[numbers] = (values.based(extra, price_usd6, series) - mark) * weight


class _Chunk(NamedTuple):
    """Some pairs of account and underlying.

    Attributes:
        held: units by pair, as `RiskArrays.pnl` has columns.
        mixed: units by expiry with both long and short options. of_mixed: 1 where it is a pair's.
        hedged: linear pairs with perpetuals on both sides. hedges: their units.
        expiries: units by expiry. of_expiry: its pair.
    """

    pairs: slice
    held: csr_array
    mixed: csr_array
    of_mixed: csr_array
    expiries: csr_array
    of_expiry: Places
    hedged: Places
    hedges: Floats


class RiskTable:
    """Who holds what, laid out for products with the risk arrays.

    A pair is an account and an underlying that it has legs on. All is linear in what it holds but
    for three things: an expiry of long and short options, of whose value a part does not count only
    if it is positive; basis, where each expiry has its own worst direction; and, in linear books,
    perpetuals that hedge each other, of which none wins by a larger range than any loses by (M3).
    """

    def __init__(
        self,
        policy: ScanPolicy,
        columns: Sequence[Column],
        accounts: int,
        *,
        account: Places,
        column: Places,
        units: Floats,
    ) -> None:
        """Lay out positions: three arrays of one length, no (account, column) twice."""
        self._policy, self._accounts = policy, accounts
        assets, count = len(policy.margin.assets), len(columns)
        place = np.array([one.place for one in columns])[column]
        optional = np.array([one.series is not None for one in columns])[column]
        pairs, pair = np.unique(account * assets + place, return_inverse=True)
        self._account, self._place = np.divmod(pairs, assets)
        linear = np.bincount(pair, weights=optional, minlength=len(pairs)) == 0.0
        self._factor = self._factors(linear)
        self._beside, self._gross = self._contingent(columns, pair, linear, column, units)

        left_us = [-1 if one.series is None else one.series.left_us for one in columns]
        expiry = np.unique(left_us, return_inverse=True)[1][column]
        rows, row = np.unique((pair * count + expiry)[optional], return_inverse=True)
        longs = np.bincount(row, weights=units[optional] > 0.0, minlength=len(rows))
        sizes = np.bincount(row, minlength=len(rows))
        variant = linear[pair].astype(np.intp)
        variant[optional] = np.where((longs == sizes)[row], 2, 0)
        held = csr_array((units, (pair, column + count * variant)), (len(pairs), 3 * count))
        expiries = csr_array((units[optional], (row, column[optional])), (len(rows), count))
        straight = linear[pair]
        where = (pair[straight], column[straight])
        bare = csr_array((units[straight], where), (len(pairs), count))
        mixed = (longs > 0.0) & (longs < sizes)
        self._chunks = _chunks(held, expiries, rows // count, mixed, bare)

    def _factors(self, linear: NDArray[np.bool_]) -> Floats:
        """Return what IM takes each pair's scan times."""
        policy = self._policy
        straight = np.array(
            [one.initial_margin_ppm / one.maintenance_margin_ppm for one in policy.margin.assets]
        )
        curved = np.array([one.initial_factor_ppm / 1e6 for one in policy.options])
        found: Floats = np.where(linear, straight[self._place], curved[self._place])
        return found

    def _contingent(
        self,
        columns: Sequence[Column],
        pair: Places,
        linear: NDArray[np.bool_],
        column: Places,
        units: Floats,
    ) -> tuple[Floats, Floats]:
        """Return contingencies and gross size of each pair, in units of its price.

        They change with positions alone, so no look at prices has to work them out again.
        """
        named = [None if one.series is None else one.series.contract for one in columns]
        number = {name: place for place, name in enumerate(dict.fromkeys(named))}
        contract = np.array([number[name] for name in named])[column]
        nets, net = np.unique(pair * len(number) + contract, return_inverse=True)
        total = np.bincount(net, weights=units)
        owner, of = np.divmod(nets, len(number))
        perpetual = of == number.get(None, -1)
        rates = np.array(
            [(one.naked_ppm / 1e6, one.perpetual_ppm / 1e6) for one in self._policy.options]
        )
        place = np.empty(len(linear), dtype=np.intp)
        place[pair] = np.array([one.place for one in columns])[column]
        naked_rate, perpetual_rate = rates[place[owner]].T
        charge = np.where(
            perpetual, np.abs(total) * perpetual_rate, np.maximum(-total, 0.0) * naked_rate
        )
        charge[linear[owner]] = 0.0
        gross = _summed(pair, np.abs(units), len(linear))
        return _summed(owner, charge, len(linear)), gross

    def remargin(self, arrays: RiskArrays) -> Margins:
        """Return what every account must hold, at the prices and ages of these arrays."""
        scan = np.empty(len(self._account))
        for chunk in self._chunks:
            scan[chunk.pairs] = _scan(chunk, arrays)
        price = arrays.prices[self._place]
        beside = self._beside * price
        doubt = self._gross * price * arrays.doubt[self._place]
        return Margins(
            _summed(self._account, scan + beside, self._accounts),
            _summed(self._account, scan * self._factor + beside + doubt, self._accounts),
        )


def _summed(owner: Places, amounts: Floats, owners: int) -> Floats:
    """Return the sum of the amounts of each owner."""
    return np.bincount(owner, weights=amounts, minlength=owners).astype(np.float64, copy=False)


def _chunks(
    held: csr_array,
    expiries: csr_array,
    pair: Places,
    mixed: NDArray[np.bool_],
    bare: csr_array,
) -> list[_Chunk]:
    """Cut what pairs hold into chunks; `pair` and `mixed` say of each expiry whose and what.

    `bare` is what linear pairs hold.
    """
    found = []
    both = (bare.max(axis=1).toarray() > 0.0) & (bare.min(axis=1).toarray() < 0.0)
    for start in range(0, held.shape[0], CHUNK):
        end = min(start + CHUNK, held.shape[0])
        first, last = np.searchsorted(pair, (start, end))
        here = np.flatnonzero(mixed[first:last]) + first
        whose = (pair[here] - start, np.arange(len(here)))
        of_mixed = csr_array((np.ones(len(here)), whose), (end - start, len(here)))
        hedged = np.flatnonzero(both[start:end])
        found.append(
            _Chunk(
                pairs=slice(start, end),
                held=held[start:end],
                mixed=expiries[here],
                of_mixed=of_mixed,
                expiries=expiries[first:last],
                of_expiry=pair[first:last] - start,
                hedged=hedged,
                hedges=bare[start:end][hedged].toarray(),
            )
        )
    return found


def _scan(chunk: _Chunk, arrays: RiskArrays) -> Floats:
    """Return the scan of each pair of a chunk [USD] (rules O4 to O7)."""
    pnl = chunk.held @ arrays.pnl
    given_up = chunk.mixed @ arrays.given_up
    np.maximum(given_up, 0.0, out=given_up)
    pnl -= chunk.of_mixed @ given_up
    if len(chunk.hedged):
        pnl[chunk.hedged] -= _unearned(chunk.hedges, arrays.ranges, arrays.moves)
    up, down = (chunk.expiries @ arrays.basis).T
    moved = np.minimum(up, down)
    np.minimum(moved, 0.0, out=moved)
    worst = _summed(chunk.of_expiry, moved, len(pnl))
    # NumPy takes a minimum down columns far faster than one along short rows.
    np.minimum(worst, np.ascontiguousarray(pnl.T).min(axis=0), out=worst)
    return np.negative(worst, out=worst)


def _unearned(units: Floats, ranges: Floats, moves: Floats) -> Floats:
    """Return what perpetuals win by larger ranges than others lose by, by scenario (rule M3)."""
    found = np.zeros((len(units), len(moves)))
    for side, there in ((1.0, moves < 0.0), (-1.0, moves > 0.0)):
        least = np.where(side * units > 0.0, ranges, np.inf).min(axis=1, keepdims=True)
        over = np.maximum(-side * units, 0.0) * np.maximum(ranges - least, 0.0)
        found[:, there] = over.sum(axis=1)[:, None] * np.abs(moves[there])
    return found
