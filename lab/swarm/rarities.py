"""What is legal and rare: spokes that ask twice, small buffers, everybody wanting the last unit.

Faults F12 and F13 of docs/swarm.md.
"""

from collections.abc import Iterator, Sequence

import msgspec

from lab.swarm.draws import Draws
from lab.swarm.options import FAULTS, RESENT_MAX, Options
from lab.swarm.reached import Struck
from messaging.effects import Effect, Send
from messaging.endpoint import Endpoint
from messaging.envelope import Envelope
from messaging.messages import Family, OrderPlaced, ReservationRequested
from messaging.node import Event, Rejoined, Restarted
from messaging.units import INT_MAX, AccountId, Micros, NodeId, Qty8, Usd6
from spokes.node import Spoke
from spokes.state import SpokePolicy

KEPT_MAX = 16
PARKED_MAX = 24


class Impatient(Spoke):
    """Asks again for what it has asked for before, long answered or not (P32, P33, P38, P50).

    And for what nobody may have (P33, P41), if it is made so.
    """

    def __init__(self, policy: SpokePolicy, every: int, spam_every: int = 0) -> None:
        """Ask again after so many events, for nonsense after so many; 0 for never."""
        super().__init__(policy)
        self._every = every
        self._spam_every = spam_every
        self._handled = 0
        self._asked: list[Send] = []

    def handle(self, now_us: Micros, event: Event) -> Sequence[Effect]:
        """See `messaging.node.Node.handle`."""
        effects = list(super().handle(now_us, event))
        if type(event) is Rejoined and event.family is Family.RESERVATION:
            self._asked = self._known_from_the_chain(now_us)  # what came before is forgotten
        for effect in effects:
            if type(effect) is Send and type(effect.message) is ReservationRequested:
                self._asked = [*self._asked[-KEPT_MAX + 1 :], effect]
        self._handled += 1
        started = type(event) is Restarted  # nobody observes what a start says
        if not self._asked or started:
            return effects
        if self._every and self._handled % self._every == 0:
            effects.append(self._asked[self._handled // self._every % len(self._asked)])
        if self._spam_every and self._handled % self._spam_every == 0:
            effects.append(self._nonsense(self._handled // self._spam_every))
        return effects

    def _nonsense(self, number: int) -> Send:
        """Change the last request: another body under its id, or what breaks a bound."""
        last = self._asked[-1]
        asked = last.message
        assert type(asked) is ReservationRequested
        if number % 4 == 0:
            asked = msgspec.structs.replace(asked, amount_usd6=Usd6(asked.amount_usd6 + 1))
        else:
            asked = msgspec.structs.replace(asked, rid=self.state.next_reservation_id())
        match number % 4:
            case 1:
                asked = msgspec.structs.replace(asked, account=AccountId("nobody"))
            case 2:
                asked = msgspec.structs.replace(asked, amount_usd6=Usd6(INT_MAX))
            case 3:
                asked = msgspec.structs.replace(asked, ttl_us=Micros(asked.ttl_us + 1))
        return msgspec.structs.replace(last, message=asked)

    def _known_from_the_chain(self, now_us: Micros) -> list[Send]:
        """Return the requests that led to the rights in the contract: of another epoch."""
        spoke = self.state
        return [
            spoke.tell(
                ReservationRequested(
                    rid=credit.rid,
                    account=credit.account,
                    amount_usd6=credit.amount_usd6,
                    ttl_us=spoke.policy.ttl_us,
                ),
                now_us,
            )
            for credit in list(spoke.credits.values())[-KEPT_MAX:]
        ]


def narrow(endpoint: Endpoint) -> None:
    """Give an endpoint small buffers, large enough to keep up with honest links."""
    for inbox in endpoint.inboxes.values():
        inbox.parked_max = PARKED_MAX
    for outbox in endpoint.outboxes.values():
        outbox.resent_max = RESENT_MAX


class Greedy:
    """Traders who place the same order on every chain at once, as large as can be."""

    def __init__(self, options: Options, spokes: Sequence[NodeId], struck: Struck) -> None:
        self._struck = struck
        self._busy = "burst" in options.faults
        self._share = 0.5 * options.faults.get("last_unit", 0.0)
        self._draws = Draws(options.seed, "greedy")
        self._spokes = spokes
        self._counts: dict[NodeId, int] = {}

    def orders(self, frame: Envelope) -> Iterator[Envelope]:
        """Yield an order, its number as it comes to stand, and what greed makes of it."""
        order = frame.message
        assert type(order) is OrderPlaced
        yield self._numbered(frame)
        if self._busy:
            self._struck(FAULTS["burst"])
        if order.qty8 and self._draws.chance(self._share):
            self._struck(FAULTS["last_unit"])
            for spoke in self._spokes:
                order_id = order.order_id + 1_000_000
                qty8 = Qty8(order.qty8 * 2)
                more = msgspec.structs.replace(order, order_id=order_id, qty8=qty8)
                yield self._numbered(msgspec.structs.replace(frame, receiver=spoke, message=more))

    def _numbered(self, frame: Envelope) -> Envelope:
        seq = self._counts[frame.receiver] = self._counts.get(frame.receiver, 0) + 1
        return msgspec.structs.replace(frame, seq=seq)
