"""A second set of books, from frames alone: do the money rules hold? Rules W1 to W18.

Knows neither hub nor spokes, has no clock and no I/O. Feed it every frame of the senders'
topics and of `delivered.*`, in order within each topic and in any order between topics; repeats
do no harm. See docs/monitor.md.
"""

from collections.abc import Iterator, Mapping
from functools import partial

import msgspec

from lab.monitor.accounts import Accounts
from lab.monitor.commands import Command, Commands
from lab.monitor.delays import Knowledge
from lab.monitor.docket import Docket, Finding
from lab.monitor.heard import Heard
from lab.monitor.lines import Lines
from lab.monitor.rows import Row
from lab.monitor.transit import Transit
from messaging.envelope import Envelope
from messaging.messages import (
    CHANNEL_FAMILIES,
    Family,
    LiquidationOrdered,
    MarginSet,
    PricePublished,
    Watermark,
)
from messaging.topics import DELIVERED, Route, routes
from messaging.units import HUB, AccountId, Asset, NodeId, Ppm, Usd6


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What is known beforehand.

    Attributes:
        deposits_usd6: collateral of every account.
        caps_usd6: every spoke, and the most that may be at stake there (P2).
        margins_ppm: every asset, and its initial margin at age zero.
    """

    deposits_usd6: Mapping[AccountId, Usd6]
    caps_usd6: Mapping[NodeId, Usd6]
    margins_ppm: Mapping[Asset, Ppm]


class Books:
    """All of it.

    Attributes:
        findings: oldest first; the same is found once.
        refused: frames that do not belong on their topic.
        orders: by spoke, orders that traders have placed.
        knowledge: what has been delivered to the hub.
        ended: liquidations whose whole way is known; whoever takes them out empties it.
    """

    def __init__(self, terms: Terms) -> None:
        spokes = tuple(terms.caps_usd6)
        self.spokes = spokes
        self.docket = Docket(spokes)
        self.refused = 0
        self.orders = dict.fromkeys(spokes, 0)
        self.knowledge = Knowledge()
        self.ended: list[Command] = []
        self._routes: dict[str, Route] = {}
        self._rows: dict[str, Row] = {}
        for route in routes(spokes):
            self._routes[route.topic] = route
            if route.relayed:
                self._routes[route.read_from] = route
            if route.family in CHANNEL_FAMILIES:
                self._rows[route.topic] = Row()
        heard = {spoke: Heard(spoke, self.docket) for spoke in spokes}
        self.heard = heard
        self.accounts = Accounts(terms.deposits_usd6, terms.margins_ppm, heard, self.docket)
        self.lines = Lines(terms.caps_usd6, heard, self.accounts, self.docket)
        self.commands = Commands(spokes, self.accounts, self.docket, self.ended.append)
        self.transit = Transit(tuple(self._rows))
        self._orders_seen = dict.fromkeys(spokes, 0)

    @property
    def findings(self) -> list[Finding]:
        """Return what has been found."""
        return self.docket.findings

    def confirm(self, newest: int) -> None:
        """Settle doubts up to `docket.newest` as it was before every topic's end was noted."""
        self.docket.confirm(newest)

    def topics(self) -> Iterator[str]:
        """Yield every topic that there is something to learn from."""
        yield from self._routes

    def row(self, topic: str) -> Row | None:
        """Return the cursor of a channel's topic."""
        return self._rows.get(topic)

    def cut(self, topic: str) -> None:
        """Note that some part of a topic is gone. Its spoke is no longer judged."""
        if topic in self._rows:
            route = self._routes[topic]
            self._rows[topic].cut()
            self.docket.blind.add(route.receiver if route.sender == HUB else route.sender)

    def feed(self, topic: str, frame: Envelope, at_us: int = 0) -> None:
        """Take in one authentic frame of a topic; `at_us` is when it was delivered, if it was."""
        route = self._routes.get(topic)
        said = (frame.sender, frame.receiver, frame.family)
        if route is None or said != (route.sender, route.receiver, route.family):
            self.refused += 1
        elif topic.startswith(DELIVERED):
            self._delivered(route, frame, at_us)
        elif topic in self._rows:
            self._sent(route, frame)
        elif route.family is Family.ORDER:
            fresh = frame.seq > self._orders_seen[route.receiver]
            self._orders_seen[route.receiver] = max(frame.seq, self._orders_seen[route.receiver])
            self.orders[route.receiver] += fresh

    def _sent(self, route: Route, frame: Envelope) -> None:
        """Take in a frame of a channel: those that are now in order are judged."""
        topic, row = route.topic, self._rows[route.topic]
        by_hub = route.sender == HUB
        told = by_hub and route.family is Family.MARGIN_STATE
        if told:
            self.accounts.acknowledged(route.receiver, frame)
        if frame.seq == 0:
            if told:
                self.lines.told(route.receiver, frame.sent_us)
            return
        spoke = route.receiver if by_hub else route.sender
        if not row.begun and frame.seq > 1:
            self.cut(topic)  # the topic was made anew behind the first frames
        if frame.chan_epoch > 1:  # blocks were lost, and these books cannot take words back
            self.cut(topic)
            return
        ready, twin = row.take(frame)
        if twin:
            text = f"{topic}: expected one frame under number {frame.seq:,}, found two"
            self.docket.find("W1", spoke, topic, text, by_hub=by_hub)
        elif not ready and frame.seq > row.next_seq:
            check = partial(_gap, topic, row, row.next_seq, frame.seq)
            self.docket.doubt("W1", spoke, topic, check, by_hub=by_hub)
        for one in ready:
            self.transit.sent(topic, one)
            if by_hub:
                self._from_hub(route, one)
            else:
                self._from_spoke(route, one)

    def _from_hub(self, route: Route, frame: Envelope) -> None:
        spoke, message = route.receiver, frame.message
        if route.family is Family.RESERVATION:
            self.lines.from_hub(spoke, frame)
        elif route.family is Family.LIQUIDATION:
            self.commands.from_hub(spoke, frame)
        elif isinstance(message, MarginSet):
            self.accounts.set(spoke, message, frame.sent_us)
            self.lines.told(spoke, frame.sent_us)

    def _from_spoke(self, route: Route, frame: Envelope) -> None:
        spoke = route.sender
        self.heard[spoke].hear(frame)
        if route.family is Family.RESERVATION:
            self.lines.from_spoke(spoke, frame)
        elif route.family is Family.LIQUIDATION:
            self.commands.from_spoke(spoke, frame)
        else:
            self.accounts.reported(spoke, frame)

    def _delivered(self, route: Route, frame: Envelope, at_us: int) -> None:
        if isinstance(frame.message, PricePublished):
            self.knowledge.printed(frame.message.asset, frame.message.observed_us, at_us)
            return
        if frame.seq == 0 or route.topic not in self._rows:
            return
        for one in self.transit.delivered(route.topic, frame):
            match one.message:
                case Watermark(spoke_time_us=time_us) if route.family is Family.MARGIN_STATE:
                    self.knowledge.stated(route.sender, time_us, at_us)
                case LiquidationOrdered() as ordered:
                    self.commands.arrived(route.receiver, ordered, at_us)


def _gap(topic: str, row: Row, expected: int, found: int) -> str | None:
    if row.whole and row.next_seq <= found and row.next_seq == expected:
        return f"{topic}: expected frame {expected:,}, found frame {found:,}"
    return None
