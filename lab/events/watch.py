"""Watches the hub through a stress event, after each of its events. Never touches."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from hub.margin.requirement import Conditions, Reported, recognised_usd6
from hub.reservation import State
from hub.state import HubState
from hub.zone import Zone
from lab.events.seen import Grant, HolderSight, Refusal, Seen, Turn, ZoneSight
from lab.reading import duration_us
from lab.result import Liquidation, Story
from lab.world import World
from markets.price_path import PricePath
from messaging.breakers import BreakerSet
from messaging.effects import Effect, Send
from messaging.envelope import Envelope
from messaging.messages import PricePublished, ReservationGranted, ReservationRejected
from messaging.node import Event
from messaging.units import HUB, AccountId, Micros, Ppm, ReservationId, value_down

SIGHTS = 120
SOLVENCY_US = 30_000_000
ENDED = (State.RELEASED, State.SETTLED)
WHOLE = 1_000_000


class Watch:
    """Collects while a run goes on."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._hub: HubState = world.hub.state
        self._step_us = max(1, duration_us(world.scenario) // SIGHTS)
        self._next_us = self._next_solvency_us = 0
        self._insolvent_us: int | None = None
        self._turns: list[Turn] = []
        self._told: dict[str, int] = {}
        self._grants: list[Grant] = []
        self._refusals: list[Refusal] = []
        self._losses: list[tuple[int, int]] = []
        self._exposure_usd6 = {str(zone.name): 0 for zone in self._hub.zones}
        self._won_usd6 = dict(self._exposure_usd6)
        self._zones: dict[str, list[ZoneSight]] = {zone.name: [] for zone in self._hub.zones}
        self._ended: dict[ReservationId, None] = {}
        self._reopened = 0
        traders = world.scenario.traders
        accounts = [account.id for account in self._hub.accounts[traders.accounts :]]
        self._owned = dict(zip([one.name for one in traders.named], accounts, strict=True))
        self._holders: dict[str, list[HolderSight]] = {name: [] for name in self._owned}
        self._used_ppm = {str(risk.asset): (WHOLE, WHOLE) for risk in self._hub.margin.assets}
        self._ratios_ppm = dict.fromkeys(self._used_ppm, 0)
        for endpoint in world.endpoints:
            if endpoint.name == HUB:
                endpoint.observers.append(self._after)

    def _after(self, now_us: Micros, event: Event, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if type(effect) is Send:
                self._hear(now_us, effect)
        if type(event) is Envelope and type(event.message) is PricePublished:
            self._price(event.message)
        lost_usd6 = self._hub.ledger.bad_debt_usd6
        if lost_usd6 != (self._losses[-1][1] if self._losses else 0):
            self._losses.append((now_us, lost_usd6))
        for zone in self._hub.zones:
            name = zone.name
            self._exposure_usd6[name] = max(self._exposure_usd6[name], zone.exposure_usd6)
            self._won_usd6[name] = max(self._won_usd6[name], zone.won_usd6)
        if not all(known.price_usd6 for known in self._hub.prints):
            return
        if self._insolvent_us is None and now_us >= self._next_solvency_us:
            self._next_solvency_us = now_us + SOLVENCY_US
            self._hub.bring_book_up()
            if self._hub.book.standings(self._hub.conditions(now_us)).equity.min() < 0:
                self._insolvent_us = now_us
        if now_us >= self._next_us:
            self._next_us = now_us + self._step_us
            self._look(now_us)

    def _hear(self, now_us: Micros, effect: Send) -> None:
        """Note an answer to a request, or a breaker's change; one for several spokes is one."""
        message = effect.message
        if type(message) is ReservationGranted:
            grant = Grant(now_us, effect.to, message.account, message.amount_usd6)
            self._grants.append(grant)
        elif type(message) is ReservationRejected:
            account = self._hub.reservations[message.rid].account
            self._refusals.append(Refusal(now_us, effect.to, account, message.reason.value))
        elif type(message) is BreakerSet and message.version > self._told.get(message.scope, 0):
            self._told[message.scope] = message.version
            level = int(message.level)
            self._turns.append(Turn(now_us, message.scope, level, message.cause.value))

    def _price(self, published: PricePublished) -> None:
        """Compare the price in use with what it should be: the peg, or the price of its time."""
        hub, world = self._hub, self._world
        place = hub.places[published.asset]
        known, table = hub.prints[place], world.scenario.assets[place]
        if not known.price_usd6:
            return
        true_usd6 = round(table.peg_usd * WHOLE) or price_at(world.path, known.observed_us, place)
        share = known.price_usd6 * WHOLE // true_usd6
        low, high = self._used_ppm[table.name]
        self._used_ppm[table.name] = (min(low, share), max(high, share))

    def _look(self, now_us: Micros) -> None:
        hub = self._hub
        conditions = hub.conditions(now_us)
        rows = dict.fromkeys([zone.name for zone in hub.zones], 0)
        expired = dict.fromkeys(rows, 0)
        ended = dict.fromkeys(rows, 0)
        for rid, known in hub.reservations.items():
            rows[known.spoke] += known.encumbered_usd6
            if known.state in ENDED:
                ended[known.spoke] += 1
                self._ended[rid] = None
                continue
            self._reopened += rid in self._ended
            if known.open and known.expires_max_us <= now_us:
                expired[known.spoke] += known.encumbered_usd6
        for zone in hub.zones:
            share = conditions.gain_share_ppm[zone.place]
            gains_usd6, counted_usd6 = self._gains(zone, share)
            sight = ZoneSight(
                at_us=now_us,
                age_us=now_us - zone.state_us,
                gain_share_ppm=share,
                gains_usd6=gains_usd6,
                counted_usd6=counted_usd6,
                expired_usd6=expired[zone.name],
                ended=ended[zone.name],
                off_usd6=rows[zone.name] - zone.encumbered_usd6,
            )
            self._zones[zone.name].append(sight)
        for name, account in self._owned.items():
            self._holders[name].append(self._hold(account, conditions, now_us))
        self._probe(conditions)

    def _gains(self, zone: Zone, share: Ppm) -> tuple[int, int]:
        """Return what all traders who are up on a spoke have won there, and what counts of it."""
        hub, total_usd6, counted_usd6 = self._hub, 0, 0
        for account in hub.accounts:
            view = account.views[zone.place]
            if not view.latest.positions:
                continue
            pnl_usd6 = self._pnl(Reported(view.latest, view.settled))
            if pnl_usd6 > 0:
                places = [hub.places[one.asset] for one in view.latest.positions]
                total_usd6 += pnl_usd6
                counted_usd6 += recognised_usd6(hub.margin, pnl_usd6, places, share)
        return total_usd6, counted_usd6

    def _pnl(self, report: Reported) -> int:
        hub, pnl_usd6 = self._hub, report.unsettled_usd6
        for one in report.state.positions:
            price_usd6 = hub.prints[hub.places[one.asset]].price_usd6
            pnl_usd6 += value_down(one.qty8, price_usd6) - one.cost_usd6
        return pnl_usd6

    def _hold(self, name: AccountId, conditions: Conditions, now_us: Micros) -> HolderSight:
        hub = self._hub
        account = hub.accounts[hub.place_of[name]]
        standing = hub.assess_latest(account, conditions)
        pnl_usd6, unwind_s, rest_s = 0, 0.0, 0.0
        for spoke, view in enumerate(account.views):
            pnl_usd6 += self._pnl(Reported(view.latest, view.settled))
            for one in view.latest.positions:
                place = hub.places[one.asset]
                size_usd6 = value_down(abs(one.qty8), hub.prints[place].price_usd6)
                third_s = size_usd6 / hub.margin.assets[place].unwind_usd6_per_s / 3.0
                if third_s > unwind_s:
                    unwind_s, rest_s = third_s, conditions.tau_s[spoke][place]
        return HolderSight(
            at_us=now_us,
            cash_usd6=hub.ledger.cash_usd6(name),
            pnl_usd6=pnl_usd6,
            equity_usd6=standing.equity_usd6,
            maintenance_usd6=standing.maintenance_usd6,
            notional_usd6=standing.notional_usd6,
            free_usd6=hub.free_usd6(account, conditions),
            reserved_usd6=hub.ledger.reserved_usd6(name),
            unwind_s=unwind_s,
            rest_s=rest_s,
        )

    def _probe(self, conditions: Conditions) -> None:
        """Measure how far liquidations feed themselves, whether or not a breaker looks (B6)."""
        hub, sizes = self._hub, self._hub.policy.liquidation
        impacts = [one.impact_ppm_per_million_usd for one in self._world.scenario.assets]
        if not any(impacts):
            return
        hub.bring_book_up()
        pressures = hub.book.pressures(conditions, sizes.target_extra_ppm, sizes.cost_ppm)
        for name, impact, pressure in zip(self._ratios_ppm, impacts, pressures, strict=True):
            self._ratios_ppm[name] = max(self._ratios_ppm[name], int(pressure * impact / 1e6))

    def seen(self, story: Story) -> Seen:
        """Return everything, now that the run is over."""
        covers = [
            one.equity_usd6 * WHOLE // one.maintenance_usd6
            for one in story.samples
            if one.maintenance_usd6
        ]
        fills = [_fill_ppm(self._world.path, one) for one in story.liquidations]
        return Seen(
            result=story.result,
            caps_usd6={str(zone.name): zone.policy.cap_usd6 for zone in self._hub.zones},
            exposure_usd6=self._exposure_usd6,
            won_usd6=self._won_usd6,
            least_cover_ppm=min(covers, default=0),
            lowest_fill_ppm=min(fills, default=None),
            liquidated_us=[one.at_us for one in story.liquidations],
            unwinds_us=self._unwinds(story),
            grants=self._grants,
            refusals=self._refusals,
            turns=self._turns,
            losses=self._losses,
            insolvent_us=self._insolvent_us,
            zones=self._zones,
            holders=self._holders,
            owned={name: str(account) for name, account in self._owned.items()},
            used_ppm=self._used_ppm,
            ratios_ppm=self._ratios_ppm,
            reopened=self._reopened,
        )

    def _unwinds(self, story: Story) -> dict[str, tuple[int, int]]:
        """Return the hops of each named account's liquidations: while it sold, and all others."""
        found = {}
        for name, account in self._owned.items():
            hops = [one.hops for one in story.liquidations if one.account == account]
            unwind_us = sum(each["unwind"] for each in hops)
            found[name] = (unwind_us, sum(each["total"] for each in hops) - unwind_us)
        return found


def price_at(path: PricePath, at_us: int, place: int) -> int:
    """Return the true price of an asset at a time [usd6]."""
    return path.prices_usd6[max(0, bisect_right(path.times_us, at_us) - 1)][place]


def _fill_ppm(path: PricePath, done: Liquidation) -> int:
    """Return a liquidation's price as a share of the lowest true price while it was closed."""
    place = [str(asset) for asset in path.assets].index(done.asset)
    from_us = done.at_us - done.hops["unwind"]
    first = max(0, bisect_right(path.times_us, from_us) - 1)
    last = bisect_left(path.times_us, done.at_us) + 1
    lowest_usd6 = min(row[place] for row in path.prices_usd6[first:last])
    return done.price_usd6 * WHOLE // lowest_usd6
