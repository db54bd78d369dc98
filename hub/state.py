"""Everything the hub knows; the only mutable state there is."""

from collections.abc import Mapping, Sequence

import msgspec

from hub.account import Account, SpokeView, nothing
from hub.adl import Claim
from hub.breakers import Breaker, BreakerPolicy
from hub.ledger import INSURANCE, Ledger, deposit, endow
from hub.liquidation import LiquidationPolicy
from hub.margin.book import Book
from hub.margin.requirement import (
    NO_BOUNDS,
    Assessment,
    Conditions,
    MarginPolicy,
    Reported,
    assess,
)
from hub.margin.volatility.estimate import Estimate, VolatilityPolicy, first, in_use_ppm, observed
from hub.oracle import Feeds, OraclePolicy, Print, Used, take
from hub.reservation import Reservation
from hub.waterfall import Funds
from hub.zone import Zone, ZonePolicy
from messaging.messages import PricePublished
from messaging.units import (
    AccountId,
    LiquidationId,
    Micros,
    NodeId,
    Ppm,
    Qty8,
    ReservationId,
    Usd6,
    new_id,
)


class HubPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The hub's knobs.

    Attributes:
        name: the hub's node id.
        block_us: time between the hub's blocks; it acts on margins once a block.
        look_us: longest time between looks at all accounts.
        margin, liquidation: how it margins and liquidates.
        zones: one for each spoke, in the scenario's order.
        clock_skew_us: bound on how far a spoke's clock may be ahead (rule M4).
        amount_max_usd6, ttl_max_us: largest reservation accepted.
        insurance_usd6: what the insurance fund starts with.
        volatility: how margin follows the volatility of prices; if at all (rule V7).
        oracle: when several feeds are believed; None if there is one of each asset.
        breakers: when credit and trading stop; if ever (rule B1).
    """

    name: NodeId
    block_us: Micros
    look_us: Micros
    margin: MarginPolicy
    liquidation: LiquidationPolicy
    zones: tuple[ZonePolicy, ...]
    clock_skew_us: Micros
    amount_max_usd6: Usd6
    ttl_max_us: Micros
    insurance_usd6: Usd6
    volatility: VolatilityPolicy | None = None
    oracle: OraclePolicy | None = None
    breakers: BreakerPolicy | None = None


class HubState:
    """Accounts, reservations, zones, prices, and the ledger behind them.

    Attributes:
        prints: the price in use of each asset. feeds: of each, what it is made of; none if there
            is one feed.
        margin: how accounts are margined at the volatility in use (rule V7).
        estimates: of that volatility, by the place of the asset.
        breakers: by asset and by spoke; used: of each asset, the prices that they look at.
        cascade_ppm: per asset, the reproduction number at the latest look (B6).
        cascades_ppm: the largest of them so far, for figures only.
        open_of: per account, its reservations HELD or OVERDUE, oldest first.
        unbooked: (account place, spoke place) whose report the book does not hold yet.
        look_due: something has come since the last look that calls for one.
        looked_us: when that was.
        life: how often the node has started; ids_made: commands given, ever.
        written_off_usd6: per account, what of its reserved cash was written off (P40).
        claims: by the bankrupt account's command, what of it was closed at a price (L13).
        halts: orders to halt that have been heard, by number and time; one counts once.
        changed: accounts that the event under way has changed.
        changed_rids: reservations that it has changed.
    """

    def __init__(self, policy: HubPolicy, deposits: Sequence[tuple[AccountId, Usd6]]) -> None:
        """Open an account for each (id, collateral) of `deposits`."""
        self.policy = policy
        self.margin = policy.margin
        self.estimates: dict[int, Estimate] = {}
        self.breakers: dict[str, Breaker] = {}
        self.cascade_ppm = [0 for _ in policy.margin.assets]
        self.cascades_ppm = self.cascade_ppm.copy()
        self.used = [Used() for _ in policy.margin.assets]
        self.places = policy.margin.index()
        self.zones = [Zone(zone, place) for place, zone in enumerate(policy.zones)]
        self.zone_of = {zone.name: zone for zone in self.zones}
        self.prints = [Print() for _ in policy.margin.assets]
        self.feeds = [Feeds() for _ in policy.margin.assets] if policy.oracle else []
        self.reservations: dict[ReservationId, Reservation] = {}
        self.ledger = Ledger()
        self.ledger.post(endow(policy.insurance_usd6))
        for zone in self.zones:
            self.ledger.open_spoke(zone.name)
            self.ledger.endow_spoke(zone.name, zone.policy.insurance_usd6)
        self.accounts: list[Account] = []
        self.place_of: dict[AccountId, int] = {}
        self.book = Book(
            policy.margin,
            self.places,
            len(self.zones),
            len(deposits),
            call_ppm=policy.liquidation.call_ppm,
            restore_ppm=policy.liquidation.restore_ppm,
        )
        self.open_of: dict[AccountId, dict[ReservationId, None]] = {}
        self.unbooked: dict[tuple[int, int], None] = {}
        self.look_due = False
        self.looked_us = Micros(0)
        self.life = 1
        self.ids_made = 0
        self.written_off_usd6: dict[AccountId, int] = {}
        self.claims: dict[LiquidationId, Claim] = {}
        self.halts: dict[tuple[int, int], None] = {}
        self.changed: dict[int, None] = {}
        self.changed_rids: dict[ReservationId, None] = {}
        for place, (name, collateral_usd6) in enumerate(deposits):
            assert name not in self.place_of, f"account {name} twice"
            view = SpokeView(nothing(name), nothing(name))
            self.place_of[name] = place
            self.accounts.append(Account(id=name, place=place, views=(view,) * len(self.zones)))
            self.ledger.open_account(name)
            self.ledger.post(deposit(name, collateral_usd6))
            self.book.set_cash(place, collateral_usd6)

    def keep_reservation(self, reservation: Reservation) -> None:
        """Replace a reservation."""
        self.reservations[reservation.rid] = reservation
        self.changed_rids[reservation.rid] = None

    def keep(self, account: Account) -> None:
        """Replace an account, and what the book holds of it."""
        self.changed[account.place] = None
        place, before = account.place, self.accounts[account.place]
        self.accounts[place] = account
        rebound = account.commands is not before.commands
        for spoke, view in enumerate(account.views):
            if view is not before.views[spoke]:
                self.unbooked[place, spoke] = None
        if rebound:
            for command in (*before.commands, *account.commands):
                self.unbooked[place, command.spoke] = None
        if rebound or account.status is not before.status or account.closed_out:
            busy = bool(account.commands)
            self.book.set_code(place, account.status, busy=busy, done=account.closed_out)

    def is_look_due(self, now_us: Micros) -> bool:
        """Tell whether accounts are to be looked at in a block of now.

        When something has come that may call for action: a price, or a report on an account
        that is under a call or in liquidation; and now and then, for what is known grows older.
        """
        return self.look_due or now_us >= self.looked_us + self.policy.look_us

    def hear_price(self, published: PricePublished, now_us: Micros) -> None:
        """Take a print into the price in use (K1), and look if that has changed."""
        place, policy = self.places[published.asset], self.policy.oracle
        known = self.prints[place]
        if policy is None:
            price = take(known, published, now_us)
        else:
            price = self.feeds[place].hear(policy, known, published, now_us)
        if price is not known:
            self.prints[place] = price
            self.look_due = True
            self.follow_volatility(place, price)
            breakers = self.policy.breakers
            if breakers is not None:
                self.used[place].note(breakers.mean_us, price.price_usd6, now_us)

    def prices_doubted(self, now_us: Micros) -> bool:
        """Tell whether something may be wrong with a price that is known (K4)."""
        policy = self.policy.oracle
        return policy is not None and any(
            feeds.doubts(policy, place, known, now_us)
            for place, (feeds, known) in enumerate(zip(self.feeds, self.prints, strict=True))
        )

    def credit_stopped(self, zone: Zone) -> bool:
        """Tell whether a breaker of the zone, or of any asset, stops credit there (B5).

        Of any asset, for a reservation does not say what it will be used for.
        """
        scopes = (zone.name, *self.places)
        return bool(self.breakers) and any(self.breakers[scope].level for scope in scopes)

    def follow_volatility(self, place: int, price: Print) -> None:
        """Let margin follow the volatility of an asset, after a new price of it (rule V7)."""
        policy, risk = self.policy.volatility, self.margin.assets[place]
        if policy is None and self.policy.breakers is None:
            return
        measured = policy or VolatilityPolicy()
        stress, known = risk.stress_volatility_ppm / 1e6, self.estimates.get(place)
        at_us, price_usd6 = price.observed_us, price.price_usd6
        if known is None:
            known = first(measured, at_us, price_usd6, stress)
        self.estimates[place] = known = observed(measured, known, at_us, price_usd6, stress)
        if policy is None:
            return  # breakers alone look at it
        used_ppm = in_use_ppm(known, risk.stress_volatility_ppm)
        if used_ppm != risk.volatility_ppm:
            assets = list(self.margin.assets)
            assets[place] = msgspec.structs.replace(risk, volatility_ppm=used_ppm)
            self.margin = msgspec.structs.replace(self.margin, assets=tuple(assets))
            self.book.margin_by(self.margin)

    def bring_book_up(self) -> None:
        """Enter what has changed since the last time."""
        rows = []
        for place, spoke in self.unbooked:
            account = self.accounts[place]
            view = account.views[spoke]
            bounds = account.bounds() if account.commands else {}
            report = Reported(view.latest, view.settled)
            rows.append(self.book.row(place, spoke, report, bounds))
        self.book.enter(rows)
        self.unbooked.clear()

    def conditions(self, now_us: Micros) -> Conditions:
        """Return what is known now and how old it is (rules M2, M4, M8)."""
        policy = self.policy
        age_max_us = policy.margin.gain_age_max_s * 1e6
        price_ages_s = [max(0, now_us - known.observed_us) / 1e6 for known in self.prints]
        tau_s, gain_share = [], []
        for zone in self.zones:
            age_us = max(0, now_us - zone.state_us) + policy.clock_skew_us
            known_s = (age_us + zone.policy.command_us) / 1e6
            ages_s = [price_age_s + known_s for price_age_s in price_ages_s]
            if zone.policy.delays:
                each = zip(zone.policy.delays, ages_s, strict=True)
                ages_s = [delay.worth_s(age_s) for delay, age_s in each]
            tau_s.append(ages_s)
            gain_share.append(Ppm(max(0, int(1e6 - age_us * 1e6 / age_max_us))))
        return Conditions(
            prices_usd6=[known.price_usd6 for known in self.prints],
            tau_s=tau_s,
            gain_share_ppm=gain_share,
        )

    def assess_latest(
        self,
        account: Account,
        conditions: Conditions,
        more: Mapping[tuple[int, int], Qty8] = NO_BOUNDS,
    ) -> Assessment:
        """Return an account's standing by the newest reports, commands under way counted (L7).

        `more` are bounds, by (spoke, asset), of commands that might be given.
        """
        reports = [Reported(view.latest, view.settled) for view in account.views]
        cash_usd6, bounds = self.ledger.cash_usd6(account.id), {**account.bounds(), **more}
        return assess(self.margin, self.places, conditions, cash_usd6, reports, bounds)

    def free_usd6(self, account: Account, conditions: Conditions) -> int:
        """Return the credit the account may still reserve (rule M6); may be negative.

            free = min(cash, equity - IM) - reserved

        equity and IM each the worse of two views: final reports, and newest reports (P54).
        Cash is without what halted spokes say was won on them (P66).
        """
        cash_usd6 = self.ledger.cash_usd6(account.id) - self._doubtful_usd6(account)
        latest = [Reported(view.latest, view.settled) for view in account.views]
        settled = [Reported(view.settled, view.settled) for view in account.views]
        both = (latest, settled) if any(view.waiting for view in account.views) else (latest,)
        standings = [
            assess(self.margin, self.places, conditions, cash_usd6, reports) for reports in both
        ]
        equity_usd6 = min(standing.equity_usd6 for standing in standings)
        initial_usd6 = max(standing.initial_usd6 for standing in standings)
        capacity_usd6 = min(cash_usd6, equity_usd6 - initial_usd6)
        return capacity_usd6 - self.ledger.reserved_usd6(account.id)

    def held_usd6(self, account: AccountId) -> int:
        """Return the account's gains that do not count yet (rule L9)."""
        return sum(
            self.ledger.held_usd6(zone.name, account) for zone in self.zones if zone.held_usd6
        )

    def funds(self) -> Funds:
        """Return what there is to pay shortfalls with (rule L10)."""
        spokes = tuple(self.ledger.fund_usd6(zone.name) for zone in self.zones)
        return Funds(spokes, self.ledger.balances[INSURANCE])

    def _doubtful_usd6(self, account: Account) -> int:
        """Return what of the account's cash rests on the word of halted spokes alone."""
        doubtful_usd6 = 0
        for zone in self.zones:
            if zone.halted is not None:
                won_usd6 = account.views[zone.place].settled.realised_usd6
                held_usd6 = self.ledger.held_usd6(zone.name, account.id)
                doubtful_usd6 += max(0, won_usd6 - held_usd6)
        return doubtful_usd6

    def next_liquidation_id(self) -> LiquidationId:
        """Return an id that has never been used (section 6 of the rules)."""
        self.ids_made += 1
        return LiquidationId(new_id(self.policy.name, self.life, self.ids_made))
