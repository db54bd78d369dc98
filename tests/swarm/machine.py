"""Hub and spokes as durable nodes, and a network in the hands of whoever plays against them.

A rule-based state machine for Hypothesis: orders, prices and time on one side; on the other,
every message under way is delivered, dropped, repeated or forged by choice, and every process
dies by choice. The checks of the swarm follow each event. At the end all heals and must come to
rest (docs/swarm.md, sections 3 and 5).
"""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from hub.node import Hub
from lab import reading, world
from lab.checkers import Checker
from lab.scenario import Scenario
from lab.swarm import rest
from lab.swarm.keyed import Seals, signer_of, verifier_of
from lab.swarm.lies import maker_of
from lab.swarm.options import Lie
from lab.swarm.orders import rebuild_order
from lab.swarm.rarities import Impatient
from lab.swarm.trial import chain_of
from lab.swarm.wire import claiming_more
from lab.world import Maker
from messaging.codec import decode_frame, encode_frame
from messaging.drivers.mortal import MortalDriver
from messaging.drivers.process import Death, Loss, Parcel, Point, Process
from messaging.endpoint import Endpoint
from messaging.envelope import NO_HEIGHT, Envelope
from messaging.identity import NO_DIGEST, Sealed, key_id
from messaging.messages import Family, MarketMoved, Message, OrderPlaced, PricePublished
from messaging.rebuilding import spoke_epoch_of
from messaging.topics import Route, routes, topic_of
from messaging.units import (
    HUB,
    MARKET,
    OPERATORS,
    ORACLE,
    SECOND_US,
    TRADERS,
    Asset,
    Micros,
    NodeId,
    Ppm,
    Qty8,
    ReservationId,
    Usd6,
)
from spokes.node import Spoke
from spokes.reservation import State
from spokes.state import SpokePolicy, SpokeState

TTL_S, BLOCK_S, FINAL_S, MARK_S = 60.0, 2.0, 6.0, 10.0
PRICE_USD6 = 100_000_000
SPOKES = (NodeId("east"), NodeId("west"))
PROCESSES = (*SPOKES, HUB)
POOL_MAX = 400
HOLD_S = 20.0  # of gains on the chain that loses blocks
LIE_S = 200.0  # by when a chain has lost what was final
REORGS_S = range(25, 600, 19)  # long before the last word that must be heard of a game at rest


def scenario(*, reorgs: bool) -> Scenario:
    """Return two spokes, two accounts, one asset, quick lives; the chain `west` may lose blocks."""
    spoke = {
        "chain": "base",
        "block_s": BLOCK_S,
        "safe_after_s": FINAL_S / 2,
        "final_after_s": FINAL_S,
        "zone_cap_usd": 60_000,
    }
    losses = [{"at_h": at_s / 3_600, "depth": 1 + at_s % 3} for at_s in REORGS_S if reorgs]
    west = {"name": "west", **spoke, "reorgs": losses, "gain_hold_s": HOLD_S * reorgs}
    tables: dict[str, Any] = {
        "title": "a game against the network",
        "duration_h": 24,
        "latency": {"kind": "constant", "value_s": 1.0},
        "prices": {
            "kind": "gbm",
            "assets": {"BTC": {"price_usd": 100, "volatility_per_sqrt_year": 0.1}},
        },
        "assets": [{"name": "BTC"}],
        "spokes": [{"name": "east", **spoke}, west],
        "reservation": {"ttl_s": TTL_S, "patience_s": TTL_S, "renewals_max": 1},
        "liquidation": {"command_ttl_s": TTL_S},
        "reporting": {
            "watermark_s": MARK_S,
            "digest_s": MARK_S * reorgs,
            "tend_s": 2.0,
            "ack_after_s": 2.0,
        },
        "hub": {"block_s": 1.0, "look_s": 10.0, "insurance_usd": 100.0},
        "links": {"loss_ppm": 1},
        "traders": {"accounts": 2, "collateral_sigma": 0.0},
    }
    return reading.check(tables, directory=Path())


class Pool:
    """A wire that keeps what leaves until somebody says what becomes of it."""

    def __init__(self) -> None:
        self.parcels: list[Parcel] = []

    def carry(self, route: Route, seq: int, data: bytes, now_us: Micros) -> Iterable[Parcel]:
        if len(self.parcels) < POOL_MAX:  # beyond that it is lost
            self.parcels.append(Parcel(now_us, route, data))
        return ()


class Chosen:
    """A fate that strikes when it is told to; all clocks are right."""

    def __init__(self) -> None:
        self.next: dict[NodeId, Death] = {}

    def death(self, name: NodeId, now_us: Micros) -> Death | None:
        return self.next.pop(name, None)

    def pause_us(self, name: NodeId, now_us: Micros) -> int:
        return 0

    def local_us(self, name: NodeId, now_us: Micros) -> Micros:
        return now_us

    def global_us(self, name: NodeId, local_us: Micros, now_us: Micros) -> Micros:
        return local_us


def impatient(policy: SpokePolicy) -> Spoke:
    """Return a spoke that asks again for what was long answered."""
    return Impatient(policy, every=7)


class Game(RuleBasedStateMachine):
    """One game.

    Attributes:
        reorgs: one of the chains loses blocks now and then, and gains made there wait.
        lie: what the spoke on it does otherwise than it should, if anything.
        forgetful: spokes lose all the more often; no key changes, and nobody is put back.
    """

    reorgs = forgetful = False
    lie: Lie | None = None

    def __init__(self) -> None:
        super().__init__()
        found = scenario(reorgs=self.reorgs)
        names, lanes, deposits = (
            world.names_of(found),
            world.lanes_of(found),
            world.deposits_of(found),
        )
        self.accounts = [account for account, _ in deposits]
        everyone = (*PROCESSES, MARKET, ORACLE, TRADERS, *OPERATORS)
        self.signers = {name: signer_of(name, Seals.KEYED) for name in everyone}
        verifier = verifier_of({name: self.signers[name].public for name in everyone}, Seals.KEYED)
        self.by_topic = {route.topic: route for route in routes(names)}
        self.numbers: dict[str, int] = {}
        self.pool, self.fate = Pool(), Chosen()
        self.price_usd6 = PRICE_USD6
        self.sealed = msgspec.msgpack.Decoder(Sealed)
        self.tried: set[str] = set()
        self.won = False
        self.lost = self.forgotten = False  # the hub has lost something; a spoke all

        def process(name: NodeId) -> Process:
            def make() -> Endpoint:
                if name == HUB:
                    return world.hub_of(found, lanes, deposits)
                return world.spoke_of(found, lanes, names.index(name), self.maker(name))

            return Process(
                make,
                self.signers[name],
                verifier,
                batch=3,
                snapshot_events=40,
                new_key=lambda number: signer_of(name, Seals.KEYED, number),
                outlives=None if name == HUB else chain_of,
            )

        self.processes = [process(name) for name in PROCESSES]
        nodes = [one.durable.endpoint.node for one in self.processes]
        hub = nodes[-1]
        assert isinstance(hub, Hub)
        spokes = tuple(node for node in nodes if isinstance(node, Spoke))
        flawed = SPOKES[1:] if self.lie is not None else ()
        self.checker = Checker(hub, spokes, (), deposits, flawed=flawed)
        self.driver = MortalDriver(
            self.processes,
            self.by_topic.values(),
            iter(()),
            self.pool,
            self.fate,
            lambda endpoint, restored: self.checker.watch(endpoint, restored=restored),
        )
        self.say_price()
        self.run(5)

    def maker(self, name: NodeId) -> Maker:
        """Return what makes a spoke: one that lies, or one that asks again all the time.

        But not where blocks are lost: it would hide what should have been said again.
        """
        if name == SPOKES[1] and self.lie is not None:
            return maker_of(self.lie, 1, LIE_S)
        return Spoke if name == SPOKES[1] and self.reorgs else impatient

    # --- the world ----------------------------------------------------------------------

    @initialize(dollars=st.sampled_from([500, 4_000, 30_000]), seconds=st.sampled_from([2, 5, 20]))
    def begin(self, dollars: int, seconds: int) -> None:
        """Let everybody trade everywhere, so that there is something to disturb."""
        for who in range(2):
            self.order(who, SPOKES[0], dollars, True)
        self.calm(seconds)

    @rule(
        who=st.integers(0, 1),
        where=st.sampled_from(SPOKES),
        dollars=st.sampled_from([500, 4_000, 30_000, -4_000, -30_000, 150_000]),
        everywhere=st.booleans(),
    )
    def order(self, who: int, where: NodeId, dollars: int, everywhere: bool) -> None:
        qty8 = Qty8(dollars * 10**14 // self.price_usd6)
        for spoke in SPOKES if everywhere else (where,):
            self.tell(TRADERS, spoke, Family.ORDER, self.placed(who, qty8, 0))
        self.run(0)

    @rule(who=st.integers(0, 1), where=st.sampled_from(SPOKES), half=st.booleans())
    def cut(self, who: int, where: NodeId, half: bool) -> None:
        close_ppm = 500_000 if half else 1_000_000
        self.tell(TRADERS, where, Family.ORDER, self.placed(who, Qty8(0), close_ppm))
        self.run(0)

    @rule(factor=st.sampled_from([0.8, 0.93, 0.99, 1.01, 1.2]))
    def price(self, factor: float) -> None:
        self.price_usd6 = max(1_000_000, int(self.price_usd6 * factor))
        self.say_price()
        self.run(0)

    @rule(seconds=st.sampled_from([1, 3, 12, 40, 90]))
    def tick(self, seconds: int) -> None:
        self.run(seconds)

    @rule(seconds=st.sampled_from([3, 15, 40]))
    def calm(self, seconds: int) -> None:
        """Let everything arrive for a while, so that there is something to disturb."""
        for _ in range(seconds):
            self.run(1)
            self.exchange(PROCESSES)

    @rule(place=st.integers(0, 9), left_s=st.sampled_from([1, 3]))
    def trade_at_the_end(self, place: int, left_s: int) -> None:
        """Let everything arrive until a right is about to expire, then place orders there."""
        if not self.rights():
            self.begin(4_000, 5)
        rights = list(self.rights())
        if not rights:
            return
        where, rid = rights[place % len(rights)]
        for _ in range(2 * int(TTL_S)):
            left_us = self.rights().get((where, rid), 0) - self.driver.now_us
            if left_us <= left_s * SECOND_US:
                break
            self.calm(1)
        for who in range(2):
            self.order(who, where, 500, False)
        self.calm(left_s + 1)

    def rights(self) -> dict[tuple[NodeId, ReservationId], Micros]:
        """Return when each right of each spoke expires."""
        return {
            (where, credit.rid): credit.expires_at_us
            for where in SPOKES
            for credit in self.spoke(where).credits.values()
            if credit.state is State.ACTIVE
        }

    # --- the network --------------------------------------------------------------------

    @precondition(lambda self: self.pool.parcels)
    @rule(place=st.integers(0, POOL_MAX), again=st.booleans())
    def deliver(self, place: int, again: bool) -> None:
        parcels = self.pool.parcels
        place %= len(parcels)
        parcel = parcels[place] if again else parcels.pop(place)
        self.hand_over([parcel])

    @precondition(lambda self: self.pool.parcels)
    @rule(keep=st.integers(0, 3))
    def deliver_most(self, keep: int) -> None:
        """Deliver all but the first few."""
        parcels = self.pool.parcels
        self.pool.parcels, ready = parcels[:keep], parcels[keep:]
        self.hand_over(ready)

    @precondition(lambda self: self.pool.parcels)
    @rule()
    def deliver_backwards(self) -> None:
        parcels, self.pool.parcels = self.pool.parcels, []
        self.hand_over(reversed(parcels))

    @precondition(lambda self: self.pool.parcels)
    @rule(place=st.integers(0, POOL_MAX), count=st.sampled_from([1, 5, POOL_MAX]))
    def drop(self, place: int, count: int) -> None:
        place %= len(self.pool.parcels)
        del self.pool.parcels[place : place + count]

    @precondition(lambda self: self.pool.parcels)
    @rule(place=st.integers(0, POOL_MAX), where=st.integers(0, 2_000))
    def corrupt(self, place: int, where: int) -> None:
        parcel = self.pool.parcels[place % len(self.pool.parcels)]
        changed = bytearray(parcel.data)
        changed[where % len(changed)] ^= 1 << where % 8
        self.hand_over([parcel._replace(data=bytes(changed))])

    # --- processes ----------------------------------------------------------------------

    @rule(
        who=st.sampled_from(PROCESSES),
        point=st.sampled_from(Point),
        down_s=st.sampled_from([0, 5, 100]),
        rewound=st.sampled_from([0, 20]),
        truncated=st.booleans(),
    )
    def die(self, who: NodeId, point: Point, down_s: int, rewound: int, truncated: bool) -> None:
        """Let a process die with the next thing it does."""
        self.fate.next[who] = Death(
            point, down_s * SECOND_US, again=1, truncated=truncated, rewound=rewound
        )

    @rule(
        who=st.sampled_from(PROCESSES),
        loss=st.sampled_from([Loss.LAST_COMMIT, Loss.BACKUP, Loss.SUPERVISOR]),
        rarely=st.integers(0, 9),
    )
    def lose(self, who: NodeId, loss: Loss, rarely: int) -> None:
        """Let a process lose a commit, go back to a backup, or start a second time.

        Rarely: after it, most games wait for a person.
        """
        if rarely == 9 and not self.forgetful and not (who == HUB and self.forgotten):
            self.lost = self.lost or who == HUB
            self.fate.next[who] = Death(Point.AFTER_PUBLISH, 0, loss=loss)

    @precondition(lambda self: not self.forgotten and not self.forgetful)
    @rule(who=st.sampled_from(PROCESSES), point=st.sampled_from(Point))
    def rotate(self, who: NodeId, point: Point) -> None:
        """Give a process a new key, and start it again."""
        self.fate.next[who] = Death(point, 0, rotated=True)
        self.tick(1)

    @precondition(lambda self: self.driver.counts["rotated"] and self.pool.parcels)
    @rule(place=st.integers(0, POOL_MAX))
    def steal(self, place: int) -> None:
        """Forge a frame that is under a later key, under the first one.

        Before its reader knows of the later one, once: two such frames would convict the sender.
        """
        parcels = [one for one in self.pool.parcels if self.is_behind(one)]
        if parcels:
            parcel = parcels[place % len(parcels)]
            forged = claiming_more(parcel.data, self.signers[parcel.route.sender])
            self.hand_over([parcel._replace(data=forged)])

    def is_behind(self, parcel: Parcel) -> bool:
        sealed, sender = self.sealed.decode(parcel.data), parcel.route.sender
        if sender not in PROCESSES or sealed.key == key_id(self.signers[sender].public):
            return False
        if not decode_frame(sealed.frame).seq:
            return False
        reader = self.processes[PROCESSES.index(parcel.route.receiver)].durable.endpoint
        keys = reader.inboxes[sender, parcel.route.family].keys
        topic = parcel.route.topic
        early = topic not in self.tried
        self.tried.add(topic)
        return early or key_id(keys.newest) == sealed.key

    @precondition(lambda self: not self.driver.counts["rotated"])
    @rule(who=st.sampled_from(SPOKES), point=st.sampled_from(Point), rarely=st.integers(0, 2))
    def forget(self, who: NodeId, point: Point, rarely: int) -> None:
        """Let a spoke lose all that is not on its chain, unless the hub has lost something."""
        if (rarely == 2 or self.forgetful) and not self.lost:
            self.forgotten = True
            self.fate.next[who] = Death(point, 0, loss=Loss.AMNESIA)

    @precondition(lambda self: self.forgotten)
    @rule()
    def approve(self) -> None:
        """Let two operators say that whoever was rebuilt may come back."""
        for endpoint in self.endpoints():
            if endpoint.lives.lost:
                epoch = spoke_epoch_of(endpoint.lives.node_epoch)
                number = self.numbers["approvals"] = self.numbers.get("approvals", 0) + 1
                message = rebuild_order(number, endpoint.name, epoch)
                for operator in OPERATORS[:2]:
                    self.tell(operator, HUB, Family.CONTROL, message)
        self.run(0)

    # --- ends ---------------------------------------------------------------------------

    def teardown(self) -> None:
        """Heal everything; what was said must be heard, and all must come to rest."""
        if self.won:
            return  # the node stopped in the middle of an event: what it did next says nothing
        self.fate.next.clear()
        self.driver.rouse()
        self.approve()
        said: rest.Said = {}
        for second in range(900):
            if second == 860:
                said = rest.said(self.endpoints())
            self.run(1)
            self.exchange(PROCESSES)
        lost = any(process.restored for process in self.processes) and self.driver.counts["rotated"]
        if self.driver.stopped or self.driver.counts["doubled"] or lost:
            return  # it waits for a person
        liars = SPOKES[1:] if self.lie is not None else ()
        rest.rested(self.checker, self.endpoints(), said, self.driver.now_us, liars)

    def endpoints(self) -> list[Endpoint]:
        return [one.durable.endpoint for one in self.processes]

    def spoke(self, name: NodeId) -> SpokeState:
        node = self.processes[PROCESSES.index(name)].durable.endpoint.node
        assert isinstance(node, Spoke)
        return node.state

    def run(self, seconds: int) -> None:
        self.won = True
        for _ in self.driver.run(Micros(self.driver.now_us + seconds * SECOND_US)):
            pass
        self.won = False

    def hand_over(self, parcels: Iterable[Parcel]) -> None:
        self.driver.put(parcels)
        self.run(0)

    def exchange(self, among: Collection[NodeId]) -> None:
        """Hand over what is under way among some processes."""
        ready, kept = [], []
        for one in self.pool.parcels:
            inside = one.route.sender in among and one.route.receiver in among
            (ready if inside else kept).append(one)
        self.pool.parcels = kept
        self.hand_over(ready)

    def say_price(self) -> None:
        price_usd6, now_us = Usd6(self.price_usd6), self.driver.now_us
        moved = MarketMoved(prices_usd6=(price_usd6,), depth_ppm=Ppm(1_000_000))
        for spoke in SPOKES:
            self.tell(MARKET, spoke, Family.PRICE, moved)
        print_ = PricePublished(asset=Asset("BTC"), price_usd6=price_usd6, observed_us=now_us)
        self.tell(ORACLE, HUB, Family.PRICE, print_)

    def placed(self, who: int, qty8: Qty8, close_ppm: int) -> OrderPlaced:
        number = self.numbers["orders"] = self.numbers.get("orders", 0) + 1
        return OrderPlaced(
            order_id=number,
            account=self.accounts[who],
            asset=Asset("BTC"),
            qty8=qty8,
            close_ppm=Ppm(close_ppm),
        )

    def tell(self, sender: NodeId, receiver: NodeId, family: Family, message: Message) -> None:
        """Let somebody outside say something; it comes at once."""
        now_us = self.driver.now_us
        head = (sender, receiver, family)
        frame = Envelope(*head, 1, 0, now_us, NO_HEIGHT, NO_HEIGHT, message)
        topic = topic_of(frame)
        seq = self.numbers[topic] = self.numbers.get(topic, 0) + 1
        frame = Envelope(*head, seq, 0, now_us, NO_HEIGHT, NO_HEIGHT, message)
        data, _ = self.signers[sender].seal(encode_frame(frame), NO_DIGEST)
        self.driver.put([Parcel(now_us, self.by_topic[topic], data)])
