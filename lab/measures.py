"""Turns events into numbers, with each liquidation's delay attributed to its hops.

Watches and never touches. The hops (docs/latency.md):

    oracle        age of the price print when it reached the hub
    state_report  age of the spoke's state when the hub decided; runs beside `oracle`
    hub           from the price's arrival to the decision
    command       from the decision to the spoke
    inclusion     from there to the first block that trades
    unwind        from the first to the last fill
    total         oracle + hub + command + inclusion + unwind: from the price to the end
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from hub.ledger import DEFICIT, INSURANCE
from hub.reservation import State
from lab import policies
from lab.deleveraging import Takings
from lab.impact import Impacts
from lab.result import (
    Impact,
    Lane,
    Liquidation,
    Quantiles,
    Reservations,
    Result,
    Sample,
    Story,
    Tripped,
)
from lab.scenario import Scenario
from lab.world import World
from messaging.breakers import BreakerSet
from messaging.effects import Effect, Send
from messaging.envelope import Envelope
from messaging.messages import (
    CHANNEL_FAMILIES,
    LiquidationDone,
    LiquidationFilled,
    LiquidationOrdered,
    OrderPlaced,
    ReservationRejected,
)
from messaging.node import Event
from messaging.record import Record
from messaging.units import HUB, MARKET, ONE, LiquidationId, Micros, NodeId, value_down
from spokes.node import Spoke

HOPS = ("oracle", "state_report", "hub", "command", "inclusion", "unwind", "total")
SAMPLES = 288


class Command(NamedTuple):
    """What is known of a liquidation when it is ordered."""

    ordered: LiquidationOrdered
    sent_us: int
    decided_usd6: int
    oracle_us: int
    state_us: int
    hub_us: int


class Measures:
    """Collects while a run goes on."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._hub = world.hub.state
        self._families: Counter[str] = Counter()
        self._channel_delays: dict[str, list[int]] = {}
        self._commands: dict[LiquidationId, Command] = {}
        self._arrived_us: dict[LiquidationId, int] = {}
        self._first_us: dict[LiquidationId, int] = {}
        self._takings = Takings(self._hub)
        self._settled_us: dict[str, int] = {}
        self._breakers: dict[str, list[BreakerSet]] = {}
        self._samples: list[Sample] = []
        self._step_us = max(1, round(world.scenario.duration_h * 3.6e9) // SAMPLES)
        self.liquidations: list[Liquidation] = []
        self.orders = 0
        self.next_sample_us = 0
        spokes = {spoke.name: spoke for spoke in world.spokes}
        self._impacts = None
        if policies.impact_policy(world.scenario) is not None:
            self._impacts = Impacts(world.path, tuple(spokes))
        for endpoint in world.endpoints:
            if endpoint.name == HUB:
                endpoint.observers.append(self._after_hub)
            elif endpoint.name in spokes:
                endpoint.observers.append(partial(self._after_spoke, spokes[endpoint.name]))
            elif endpoint.name == MARKET and self._impacts is not None:
                endpoint.observers.append(self._impacts.after_market)

    def see(self, record: Record) -> None:
        """Take in a frame's journey."""
        event = record.event
        if type(event) is Envelope and event.family in CHANNEL_FAMILIES:
            way = f"{'from' if record.node == HUB else 'to'}-spoke.{event.family}"
            delays = self._channel_delays.setdefault(way, [])
            delays.append(record.at_us - event.sent_us)
        for effect in record.effects:
            if type(effect) is Envelope and effect.family in CHANNEL_FAMILIES:
                self._families[effect.family] += 1
        if record.at_us >= self.next_sample_us:
            self._sample(record.at_us)

    def _after_hub(self, now_us: Micros, event: Event, effects: Sequence[Effect]) -> None:
        if type(event) is Envelope and type(event.message) is LiquidationDone:
            self._settled_us.setdefault(event.message.liq_id.hex(), now_us)
        for effect in effects:
            if type(effect) is Send and type(effect.message) is LiquidationOrdered:
                self._note_command(now_us, effect.to, effect.message)
                if effect.message.price_usd6:
                    self._takings.ordered(effect.message)
            elif type(effect) is Send and type(effect.message) is BreakerSet:
                told = self._breakers.setdefault(effect.message.scope, [])
                if not told or told[-1].version < effect.message.version:  # one for several spokes
                    told.append(effect.message)

    def _note_command(self, now_us: int, spoke: NodeId, ordered: LiquidationOrdered) -> None:
        hub = self._hub
        known = hub.prints[hub.places[ordered.asset]]
        self._commands[ordered.liq_id] = Command(
            ordered=ordered,
            sent_us=now_us,
            decided_usd6=known.price_usd6,
            oracle_us=known.received_us - known.observed_us,
            state_us=max(0, now_us - hub.zone_of[spoke].state_us),
            hub_us=now_us - known.received_us,
        )

    def _after_spoke(
        self, spoke: Spoke, now_us: Micros, event: Event, effects: Sequence[Effect]
    ) -> None:
        if type(event) is Envelope:
            message = event.message
            if type(message) is LiquidationOrdered:
                self._arrived_us.setdefault(message.liq_id, now_us)
            elif type(message) is OrderPlaced:
                self.orders += 1
            return
        for effect in effects:
            if type(effect) is not Send:
                continue
            done = effect.message
            if type(done) is LiquidationFilled:
                self._first_us.setdefault(done.liq_id, now_us)
            elif type(done) is LiquidationDone and self._commands[done.liq_id].ordered.price_usd6:
                self._takings.ended(done)
            elif type(done) is LiquidationDone and done.filled_qty8:
                proceeds_usd6 = spoke.state.orders[done.liq_id].proceeds_usd6
                self._note_end(now_us, spoke.name, done, proceeds_usd6)

    def _note_end(
        self, now_us: int, spoke: NodeId, done: LiquidationDone, proceeds_usd6: int
    ) -> None:
        command = self._commands[done.liq_id]
        arrived_us = self._arrived_us[done.liq_id]
        first_us = self._first_us.get(done.liq_id, now_us)
        hops = {
            "oracle": command.oracle_us,
            "state_report": command.state_us,
            "hub": command.hub_us,
            "command": arrived_us - command.sent_us,
            "inclusion": first_us - arrived_us,
            "unwind": now_us - first_us,
        }
        hops["total"] = sum(hops.values()) - hops["state_report"]
        price_usd6 = abs(proceeds_usd6) * ONE // done.filled_qty8
        # Proceeds of closing a short are negative: money paid.
        decided_usd6 = command.decided_usd6 * done.filled_qty8 // ONE
        moved_usd6 = proceeds_usd6 - (decided_usd6 if proceeds_usd6 > 0 else -decided_usd6)
        self.liquidations.append(
            Liquidation(
                at_us=now_us,
                account=command.ordered.account,
                spoke=spoke,
                asset=command.ordered.asset,
                filled_qty8=done.filled_qty8,
                price_usd6=price_usd6,
                moved_usd6=moved_usd6,
                hops=hops,
                liq_id=done.liq_id.hex(),
            )
        )

    def _sample(self, now_us: Micros) -> None:
        """Take a picture of the whole system."""
        hub, market = self._hub, self._world.spokes[0].state
        self.next_sample_us = (now_us // self._step_us + 1) * self._step_us
        hub.bring_book_up()
        conditions = hub.conditions(now_us)
        equity, maintenance, initial, _ = hub.book.standings(conditions)
        cash = np.array([float(hub.ledger.cash_usd6(account.id)) for account in hub.accounts])
        held = np.array([float(hub.ledger.reserved_usd6(account.id)) for account in hub.accounts])
        collateral = np.maximum(cash, 0.0)
        self._samples.append(
            Sample(
                at_us=now_us,
                prices_usd6=list(market.prices_usd6),
                equity_usd6=round(equity.sum()),
                maintenance_usd6=round(maintenance.sum()),
                initial_usd6=round(initial.sum()),
                bad_debt_usd6=hub.ledger.bad_debt_usd6,
                insurance_usd6=hub.ledger.balances[INSURANCE],
                locked_usd6=round(np.minimum(collateral, initial + held).sum()),
                collateral_usd6=round(collateral.sum()),
                reserved_usd6=[zone.encumbered_usd6 for zone in hub.zones],
                used_usd6=self._used_usd6(),
                carried_usd6=[zone.carried_usd6 for zone in hub.zones],
                state_age_us=[now_us - zone.state_us for zone in hub.zones],
            )
        )

    def _used_usd6(self) -> list[int]:
        hub = self._hub
        used = dict.fromkeys(hub.zone_of, 0)
        for rids in hub.open_of.values():
            for rid in rids:
                known = hub.reservations[rid]
                used[known.spoke] += known.used_usd6
        for zone in hub.zones:
            for rid in {rid for _, rid in zone.uncarried}:
                used[zone.name] += hub.reservations[rid].used_usd6
        return [used[zone.name] for zone in hub.zones]

    def story(
        self,
        *,
        status: str,
        digest: str,
        outside_digest: str,
        events: int,
        now_us: int,
        wall_s: float,
        checked: int,
    ) -> Story:
        """Return everything, now that the run is over."""
        world, hub = self._world, self._hub
        scenario, ledger = world.scenario, hub.ledger
        self._sample(Micros(now_us))
        hops = {
            hop: quantiles([one.hops[hop] for one in self.liquidations])
            for hop in HOPS
            if self.liquidations
        }
        result = Result(
            scenario=scenario.title,
            seed=scenario.seed,
            status=status,
            digest=digest,
            outside_digest=outside_digest,
            prices_source=world.path.source,
            stylised=world.path.stylised,
            buffer=_buffer_name(scenario),
            lanes=[
                Lane(spoke.name, one.up_name, one.down_name)
                for spoke, one in zip(world.spokes, world.lanes, strict=True)
            ],
            events=events,
            virtual_s=now_us / 1e6,
            wall_s=round(wall_s, 3),
            accounts=len(hub.accounts),
            spokes=[spoke.name for spoke in world.spokes],
            assets=[table.name for table in scenario.assets],
            messages=sum(self._families.values()),
            messages_by_family=dict(sorted(self._families.items())),
            orders=self.orders,
            orders_refused=sum(spoke.state.refused for spoke in world.spokes),
            collateral_usd6=sum(usd6 for _, usd6 in world.deposits),
            bad_debt_usd6=ledger.bad_debt_usd6,
            funds_used_usd6=ledger.funds_used_usd6,
            insurance_used_usd6=ledger.insurance_used_usd6,
            socialised_usd6=sum(ledger.haircut_usd6.values()),
            uncovered_usd6=-ledger.balances[DEFICIT],
            open_shortfall_usd6=self._open_shortfall_usd6(),
            liquidations=sum(account.liquidations for account in hub.accounts),
            liquidated_accounts=sum(account.liquidations > 0 for account in hub.accounts),
            closed_out_accounts=sum(account.closed_out for account in hub.accounts),
            liquidated_usd6=sum(
                one.filled_qty8 * one.price_usd6 // ONE for one in self.liquidations
            ),
            liquidation_moved_usd6=sum(one.moved_usd6 for one in self.liquidations),
            deleveraging=self._takings.result(),
            reservations=self._reservations(),
            equity_locked_ppm=self._locked_ppm(),
            delay_us=hops,
            channel_delay_us={
                way: quantiles(delays) for way, delays in sorted(self._channel_delays.items())
            },
            invariants_checked=checked,
            violations=int(status == "violated"),
            breakers=self._tripped() if scenario.breakers is not None else None,
            impact=self._impact(),
        )
        return Story(result, self._samples, self._settled())

    def _settled(self) -> list[Liquidation]:
        """Return the liquidations, with when the hub heard of their ends."""
        return [
            replace(one, settled_us=self._settled_us.get(one.liq_id, 0))
            for one in self.liquidations
        ]

    def _locked_ppm(self) -> int:
        """Return locked over all collateral, each sample weighing as long as it lasts."""
        locked = collateral = 0
        for one, following in zip(self._samples, self._samples[1:], strict=False):
            lasts_us = following.at_us - one.at_us
            locked += one.locked_usd6 * lasts_us
            collateral += one.collateral_usd6 * lasts_us
        return locked * 1_000_000 // collateral if collateral else 0

    def _reservations(self) -> Reservations:
        known = self._hub.reservations.values()
        reasons = Counter(
            one.answer.reason.value for one in known if isinstance(one.answer, ReservationRejected)
        )
        rejected = sum(reasons.values())
        return Reservations(
            requested=len(known),
            granted=len(known) - rejected,
            rejected=rejected,
            released=sum(one.state in (State.RELEASED, State.SETTLED) for one in known),
            reject_reasons=dict(sorted(reasons.items())),
        )

    def _tripped(self) -> Tripped:
        rises, falls, highest = Counter[str](), Counter[str](), 0
        for told in self._breakers.values():
            level = 0
            for one in told:
                (rises if one.level > level else falls)[one.cause.value] += 1
                level = int(one.level)
                highest = max(highest, level)
        return Tripped(dict(sorted(rises.items())), dict(sorted(falls.items())), highest)

    def _impact(self) -> Impact | None:
        if self._impacts is None:
            return None
        measured = self._world.scenario.breakers is not None
        return self._impacts.result(self._hub.cascades_ppm if measured else None)

    def _open_shortfall_usd6(self) -> int:
        """Return negative equity by the spokes' own books at true prices, not by the hub's view."""
        world, books = self._world, self._hub.ledger
        shortfall_usd6 = 0
        for account, deposit_usd6 in world.deposits:
            equity_usd6 = deposit_usd6 + books.forgiven_usd6.get(account, 0)
            equity_usd6 -= books.haircut_usd6.get(account, 0)
            for spoke in world.spokes:
                state = spoke.state
                trader = state.trader(account)
                equity_usd6 += trader.realised_usd6 - trader.fees_usd6
                equity_usd6 -= trader.liquidation_fees_usd6
                for asset, held in trader.holdings:
                    price_usd6 = state.prices_usd6[state.places[asset]]
                    equity_usd6 += value_down(held.qty8, price_usd6) - held.cost_usd6
            shortfall_usd6 += max(0, -equity_usd6)
        return shortfall_usd6


def _buffer_name(scenario: Scenario) -> str:
    return str(type(scenario.buffer).__struct_config__.tag)


def quantiles(values: list[int]) -> Quantiles:
    """Return median and 99th percentile of a list that is not empty, as values of the list."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return Quantiles(ordered[last // 2], ordered[-(-last * 99 // 100)], len(ordered))
