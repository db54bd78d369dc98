"""Links that do to frames whatever a network, a broker or a stranger can do to them.

Faults F1 to F3, F9 and F10 of docs/swarm.md. What becomes of a frame on its first journey depends
on (seed, topic, its number) alone; resends and frames outside the row count on their own.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import log

import msgspec

from lab.swarm.draws import Draws
from lab.swarm.options import FAULTS, Lie, Options
from lab.swarm.reached import Struck
from messaging.codec import decode_frame, encode_frame
from messaging.drivers.process import Parcel
from messaging.identity import NO_DIGEST, Sealed, Signer
from messaging.messages import Message, PricePublished
from messaging.network import Window, WindowKind
from messaging.topics import Route
from messaging.units import INT_MAX, ORACLE, SECOND_US, Height, Micros, NodeId, Usd6

WIRED = {name for name, group in FAULTS.items() if group in ("F1", "F2", "F3", "F4", "F9", "F10")}
KEPT_MAX = 64  # old frames in a stranger's hands
LIES = 0.9  # a liar's frames with a draw above this are two
TAIL = 20.0  # how much longer a message of the heavy tail takes
ASKS, ACKS = b"resend_requested", b"acknowledged"  # tags of what is said outside the row
RENEWED = b"reservation_renewed"
_sealed = msgspec.msgpack.Decoder(Sealed)


class Wire:
    """All links of one seed.

    Attributes:
        counts: how often what has happened.
        prints: all that the oracle has said, under its own signature.
        later: signers of the keys that nodes have got since, by the key's id.
        turned: topics whose readers know of a new key, with the key's id.
        healed: nothing but delay any more.
    """

    def __init__(
        self,
        options: Options,
        routes: Sequence[Route],
        signers: Mapping[NodeId, Signer],
        strangers: Mapping[NodeId, Sequence[Signer]],
        struck: Struck,
    ) -> None:
        """`signers` sign for who is wrong or lies; `strangers` forge, by whom they pose as."""
        self._struck = struck
        self._faults = options.faults
        self._liar = options.liar if options.lie is Lie.TWO_FRAMES else None
        self._faulty = any(name in WIRED for name in options.faults) or self._liar is not None
        self._tails = 0.02 * self._strength("tail")
        self._losses = 0.3 * self._strength("loss")
        self._repeats = 0.5 * self._strength("repeat")
        self._breaks = 0.05 * self._strength("broken")
        # Of a node that is put back behind its new key, the old one is as good as ever.
        put_back = any(name in options.faults for name in ("backup", "lost_commit", "twin"))
        self._leaks = 0.0 if put_back else self._strength("leaked")
        # Behind a change of keys that people have passed over, whoever has the old one is the node.
        self._early = "operator" not in options.faults
        self._bounded = "capacity" in options.faults
        self._way_us = options.way_s * SECOND_US
        self._routes = routes
        self._signers = signers
        self._strangers = strangers
        topics = [route.topic for route in routes]
        self._first = {topic: Draws(options.seed, f"wire/{topic}/first") for topic in topics}
        self._again = {topic: Draws(options.seed, f"wire/{topic}/again") for topic in topics}
        self._seq_max = dict.fromkeys(topics, 0)
        self._windows = {
            key: windows(options, *key)
            for key in dict.fromkeys((route.sender, route.receiver) for route in routes)
        }
        self._under_way: dict[tuple[NodeId, NodeId], list[Micros]] = {}
        self._capacity = Draws(options.seed, "wire/capacity").whole(2, 20)
        self._thief = Draws(options.seed, "wire/leaked")
        self._kept: list[tuple[Route, bytes]] = []
        self.counts: Counter[str] = Counter()
        self.prints: set[Message] = set()
        self.later: dict[bytes, Signer] = {}
        self.turned: set[tuple[str, bytes]] = set()
        self._tried: set[str] = set()
        self.healed = False

    def carry(self, route: Route, seq: int, data: bytes, now_us: Micros) -> Iterable[Parcel]:
        """Return what comes of a frame that leaves now."""
        if seq <= self._seq_max[route.topic]:
            self._note_again(seq, data)
        draws = self._drawn(route.topic, seq)
        at_us = Micros(now_us + self._delay_us(draws[0], draws[1]))
        if self.healed or not self._faulty:
            return (Parcel(at_us, route, data),)
        stolen = self._stolen(route, data, Micros((now_us + at_us) // 2))
        held_us = self._through_windows(route, now_us, at_us)
        if held_us is None or self._is_lost(route, data, draws[2], now_us, held_us):
            return stolen
        if route.sender == ORACLE:
            data = self._print(data, draws)
        found = [*stolen, Parcel(held_us, route, self._harmed(data, draws[3]))]
        if draws[4] < self._repeats:
            self._note("repeat")
            again_us = Micros(held_us + self._delay_us(draws[5], draws[6]))
            found.append(Parcel(again_us, route, data))
        found += self._strange(route, data, draws[7], now_us, held_us)
        if route.sender == self._liar and seq and draws[6] > LIES:
            self.counts["said two things"] += 1
            first = draws[5] < 0.5  # else the true one is there before
            lie_us = Micros((now_us + at_us) // 2) if first else held_us
            key = _sealed.decode(data).key
            lie = claiming_more(data, self.later.get(key, self._signers[self._liar]))
            found.append(Parcel(lie_us, route, lie))
        return found

    def _note_again(self, seq: int, data: bytes) -> None:
        """Count what is no frame's first journey."""
        if seq:
            self.counts["published again"] += 1
        elif ASKS in data:
            self.counts["asked for a gap"] += 1
        elif ACKS not in data:
            self.counts["sent again"] += 1

    def _drawn(self, topic: str, seq: int) -> tuple[float, ...]:
        if seq <= self._seq_max[topic]:
            return self._again[topic].next()
        self._seq_max[topic] = seq
        return self._first[topic].row(seq)

    def _note(self, fault: str) -> None:
        """Count a fault that strikes."""
        self.counts[fault] += 1
        self._struck(FAULTS[fault])

    def _strength(self, fault: str) -> float:
        return self._faults.get(fault, 0.0)

    def _delay_us(self, body: float, tail: float) -> int:
        delay_us = self._way_us * (0.2 - 0.8 * log(1.0 - body))
        if tail < self._tails and not self.healed:
            self._note("tail")
            delay_us *= TAIL
        return int(delay_us)

    def _through_windows(self, route: Route, now_us: Micros, at_us: Micros) -> Micros | None:
        """Return when a frame comes through what cuts its link; None if never."""
        for name, window in self._windows[route.sender, route.receiver]:
            for time_us in (now_us, at_us):
                if window.from_us <= time_us < window.until_us:
                    self._note(name)
                    if window.kind is WindowKind.DROP:
                        return None
                    at_us = Micros(max(at_us, window.until_us))
        return at_us

    def _is_lost(
        self, route: Route, data: bytes, draw: float, now_us: Micros, at_us: Micros
    ) -> bool:
        if draw < self._losses:
            self._note("loss")
            if RENEWED in data:
                self.counts["ReservationRenewed lost"] += 1
            return True
        if self._bounded:
            under_way = self._under_way.setdefault((route.sender, route.receiver), [])
            while under_way and under_way[0] <= now_us:
                heapq.heappop(under_way)
            if len(under_way) >= self._capacity:
                self._note("capacity")
                return True
            heapq.heappush(under_way, at_us)
        return False

    def _harmed(self, data: bytes, draw: float) -> bytes:
        """Return a frame, maybe with a bit changed, cut off, or too long."""
        share = self._breaks
        if draw >= share:
            return data
        self._note("broken")
        kind, place = divmod(draw / share * 3, 1.0)
        where = int(place * len(data))
        if kind == 0:
            return data[:where]
        if kind == 1:
            return data + bytes(70_000)
        changed = bytearray(data)
        changed[where] ^= 1 << int(place * 8e6) % 8
        return bytes(changed)

    def _strange(
        self, route: Route, data: bytes, draw: float, now_us: Micros, at_us: Micros
    ) -> list[Parcel]:
        """Return what a stranger adds: old frames, frames of other topics, forged ones."""
        old, stray = 0.05 * self._strength("old"), 0.05 * self._strength("stray")
        forge = 0.05 * self._strength("forge")
        if len(self._kept) < KEPT_MAX:
            self._kept.append((route, data))
        if draw < old:
            self._note("old")
            then, kept = self._kept[int(draw / old * len(self._kept))]
            return [Parcel(at_us, then, kept)]
        draw -= old
        if 0 <= draw < stray:
            self._note("stray")
            other = self._routes[int(draw / stray * len(self._routes))]
            return [] if other == route or other.ordered else [Parcel(at_us, other, data)]
        draw -= stray
        if 0 <= draw < forge:
            self._note("forge")
            early_us = Micros((now_us + at_us) // 2)  # before the frame that it is made of
            return [Parcel(early_us, route, self._forged(route, data, draw / forge))]
        return []

    def _stolen(self, route: Route, data: bytes, at_us: Micros) -> list[Parcel]:
        """Return what somebody with the sender's first key says in this frame's place."""
        strength = self._leaks
        if not strength or self._thief.next()[0] >= 0.5 * strength:
            return []
        if not self._is_behind(route, data):
            return []
        self._note("leaked")
        return [Parcel(at_us, route, claiming_more(data, self._signers[route.sender]))]

    def _is_behind(self, route: Route, data: bytes) -> bool:
        """Tell whether who has a node's first key is to forge this frame under it: a later one's.

        Until its reader knows of the new key, whoever has the old one is the node: two of his
        frames would convict it.
        """
        sealed, topic = _sealed.decode(data), route.topic
        if sealed.key not in self.later or not decode_frame(sealed.frame).seq:
            return False
        early = self._early and topic not in self._tried
        self._tried.add(topic)
        return early or (topic, sealed.key) in self.turned

    def _forged(self, route: Route, data: bytes, draw: float) -> bytes:
        """Return a frame that claims more than the true one, under a signature that is not its."""
        strangers = self._strangers[route.sender]
        return claiming_more(data, strangers[int(draw * len(strangers))])

    def _print(self, data: bytes, draws: Sequence[float]) -> bytes:
        """Return a print of the oracle, maybe an old or a wrong one under its own signature."""
        frame = decode_frame(_sealed.decode(data).frame)
        message = frame.message
        assert type(message) is PricePublished
        if draws[6] < 0.4 * self._strength("outlier"):
            self._note("outlier")
            factor = 0.5 + draws[5]
            price_usd6 = Usd6(max(1, int(message.price_usd6 * factor)))
            message = msgspec.structs.replace(message, price_usd6=price_usd6)
        if draws[5] < 0.4 * self._strength("stale"):
            self._note("stale")
            observed_us = Micros(int(message.observed_us * draws[6]))
            message = msgspec.structs.replace(message, observed_us=observed_us)
        if message is frame.message:
            return data
        self.prints.add(message)
        wrong = msgspec.structs.replace(frame, message=message)
        return self._signers[ORACLE].seal(encode_frame(wrong), NO_DIGEST)[0]


def claiming_more(data: bytes, signer: Signer) -> bytes:
    """Return a frame in the same place that claims more, and says that more is final."""
    sealed = _sealed.decode(data)
    frame = decode_frame(sealed.frame)
    claims = {
        name: min(2 * found + 1, INT_MAX)
        for name in frame.message.__struct_fields__
        if name.endswith(("_usd6", "_us", "_qty8"))
        and type(found := getattr(frame.message, name)) is int
    }
    message = msgspec.structs.replace(frame.message, **claims)
    last = Height(frame.height + 1_000)
    worse = msgspec.structs.replace(frame, message=message, final_height=last)
    return signer.seal(encode_frame(worse), sealed.before)[0]


def windows(options: Options, source: NodeId, target: NodeId) -> list[tuple[str, Window]]:
    """Return when a directed link is cut, and by which fault."""
    faults, safety_us = options.faults, options.safety_s * SECOND_US
    found: list[tuple[str, Window]] = []
    pair = "+".join(sorted((source, target)))
    # Whoever shares a stream is cut at the same time.
    for name, stream, kind, mean_s in (
        ("clog", f"{source}>{target}", WindowKind.HOLD, 5.0),
        ("cut", pair, WindowKind.DROP, 60.0),
        ("one_way", f"{source}>{target}", WindowKind.DROP, 120.0),
        ("isolate", source if source != "hub" else target, WindowKind.DROP, 120.0),
        ("jam", pair, WindowKind.HOLD, 120.0),
        ("swizzle", f"{source}>{target}", WindowKind.HOLD, 40.0),
        ("outage", "broker", WindowKind.HOLD, 60.0),
    ):
        strength = faults.get(name, 0.0)
        if not strength:
            continue
        draws = Draws(options.seed, f"window/{name}/{stream}")
        times = 1 + int(3 * strength)
        if name == "swizzle":  # all begin together and end one by one
            common = Draws(options.seed, "window/swizzle")
            starts_us = [common.uniform(0, safety_us) for _ in range(times)]
        else:
            starts_us = [draws.uniform(0, safety_us) for _ in range(times)]
        for from_us in starts_us:
            lasts_us = -log(1.0 - draws.next()[0]) * mean_s * SECOND_US
            until_us = min(from_us + lasts_us, safety_us)
            window = Window(from_us=Micros(int(from_us)), until_us=Micros(int(until_us)), kind=kind)
            found.append((name, window))
    return found
