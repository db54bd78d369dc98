from collections.abc import Sequence
from itertools import accumulate

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.dice import BLOCK
from messaging.envelope import Envelope
from messaging.latency import Constant, Held, Latency, Lognormal, Uniform
from messaging.link_control import Acknowledged
from messaging.messages import Family
from messaging.network import LinkPolicy, Network, Window, WindowKind
from messaging.units import HOUR_US, HUB, SECOND_US, Height, Micros, NodeId, Ppm

BASE, ARBITRUM = NodeId("base"), NodeId("arbitrum")
SLOW = Lognormal(median_s=36, sigma=0.5)
PLAIN = LinkPolicy(latency=SLOW)
COUNT = 260
FIRST = BLOCK - COUNT // 2
SEQS = range(FIRST, FIRST + COUNT)  # on both sides of the edge of a block of draws

shares = st.integers(0, 1_000_000).map(Ppm)
seeds = st.integers(0, 2**32)


def frame(
    seq: int, family: Family = Family.RESERVATION, sender: NodeId = BASE, receiver: NodeId = HUB
) -> Envelope:
    return Envelope(
        sender, receiver, family, seq, 0, Micros(0), Height(0), Height(0), Acknowledged()
    )


def network(policy: LinkPolicy, seed: int = 1, other: LinkPolicy = PLAIN) -> Network:
    return Network(seed, {(BASE, HUB): policy, (ARBITRUM, HUB): other, (HUB, BASE): other})


def row(net: Network, count: int = COUNT, now_us: int = 0) -> list[Sequence[Micros]]:
    """Send `count` frames of one channel in a row, all at the same time."""
    return [net.arrivals(frame(FIRST + number), Micros(now_us)) for number in range(count)]


def delays_us(latency: Latency, seed: int = 1, count: int = COUNT) -> list[int]:
    return [one for (one,) in row(network(LinkPolicy(latency=latency), seed), count)]


# --- draws ------------------------------------------------------------------------------


@given(seed=seeds, loss=shares, repeat=shares)
def test_loss_and_repeats_move_no_first_delay(seed: int, loss: Ppm, repeat: Ppm) -> None:
    plain = row(network(PLAIN, seed))
    faulty = row(network(LinkPolicy(latency=SLOW, loss_ppm=loss, repeat_ppm=repeat), seed))

    for (expected,), found in zip(plain, faulty, strict=True):
        assert list(found[:1]) in ([], [expected])
        assert all(later >= expected for later in found[1:])


@given(seed=seeds, low=shares, high=shares)
def test_a_link_that_loses_more_loses_the_same_and_others_besides(
    seed: int, low: Ppm, high: Ppm
) -> None:
    low, high = sorted((low, high))
    fewer = row(network(LinkPolicy(latency=SLOW, loss_ppm=low), seed))
    more = row(network(LinkPolicy(latency=SLOW, loss_ppm=high), seed))

    assert all(a or not b for a, b in zip(fewer, more, strict=True))


@given(again=st.lists(st.tuples(st.sampled_from(SEQS), st.integers(0, SEQS[-1])), max_size=60))
def test_resends_and_frames_outside_the_row_move_no_first_journey(
    again: list[tuple[int, int]],
) -> None:
    faulty = LinkPolicy(latency=SLOW, loss_ppm=Ppm(200_000), repeat_ppm=Ppm(200_000))
    net, found = network(faulty), []
    for seq in SEQS:
        found.append(net.arrivals(frame(seq), Micros(0)))
        for after, old in again:
            if after == seq:
                net.arrivals(frame(min(old, seq)), Micros(0))

    assert found == row(network(faulty))


def test_a_resend_has_a_delay_of_its_own() -> None:
    net = network(PLAIN)
    first, again, outside = (net.arrivals(frame(seq), Micros(0)) for seq in (1, 1, 0))

    assert len({*first, *again, *outside}) == 3


@given(policy=st.builds(LinkPolicy, latency=st.just(SLOW), loss_ppm=shares), data=st.data())
def test_one_link_leaves_every_other_channel_as_it_was(
    policy: LinkPolicy, data: st.DataObject
) -> None:
    channels = [(ARBITRUM, HUB, Family.RESERVATION), (HUB, BASE, Family.RESERVATION)]
    order = data.draw(st.permutations([*channels * 20, *[(BASE, HUB, Family.RESERVATION)] * 20]))
    found: dict[tuple[NodeId, NodeId, Family], list[Sequence[Micros]]] = {}
    net = network(policy, other=PLAIN)
    for sender, receiver, family in order:
        done = found.setdefault((sender, receiver, family), [])
        done.append(net.arrivals(frame(len(done) + 1, family, sender, receiver), Micros(0)))

    for sender, receiver, family in channels:
        alone = network(PLAIN)
        assert found[sender, receiver, family] == [
            alone.arrivals(frame(seq, family, sender, receiver), Micros(0)) for seq in range(1, 21)
        ]


def test_each_channel_each_direction_and_each_seed_draws_for_itself() -> None:
    net = network(PLAIN)
    rows = [
        [net.arrivals(frame(seq, *channel), Micros(0)) for seq in range(1, 20)]
        for channel in (
            (Family.RESERVATION, BASE, HUB),
            (Family.LIQUIDATION, BASE, HUB),
            (Family.RESERVATION, HUB, BASE),
            (Family.RESERVATION, ARBITRUM, HUB),
        )
    ]
    rows.append(row(network(PLAIN, seed=2), 19))

    assert len({tuple(map(tuple, one)) for one in rows}) == len(rows)


@given(st.sampled_from(SEQS))
def test_a_draw_depends_on_the_number_and_not_on_the_way_there(seq: int) -> None:
    assert network(PLAIN).arrivals(frame(seq), Micros(0))[0] == delays_us(SLOW)[seq - FIRST]


@given(seed=seeds, now_us=st.integers(0, 2**50))
def test_the_time_of_sending_adds_and_no_more(seed: int, now_us: int) -> None:
    sent_later = [one - now_us for (one,) in row(network(PLAIN, seed), 20, now_us)]

    assert sent_later == delays_us(SLOW, seed, 20)


@pytest.mark.parametrize("other", [Uniform(low_s=1, high_s=900), Lognormal(median_s=2, sigma=1.5)])
def test_two_latencies_rise_and_fall_together(other: Latency) -> None:
    one_us, other_us = np.array(delays_us(SLOW)), np.array(delays_us(other))
    order = np.argsort(one_us, kind="stable")

    assert len(set(one_us.tolist())) > 0.99 * COUNT
    assert (np.diff(other_us[order]) >= 0).all()


@given(seeds)
def test_a_hold_only_makes_a_latency_longer(seed: int) -> None:
    body = Uniform(low_s=1, high_s=9)
    held = delays_us(Held(body=body, probability=0.3, hold_max_s=100), seed, 100)
    plain = delays_us(body, seed, 100)

    assert all(after >= before for before, after in zip(plain, held, strict=True))


def test_a_delay_is_the_same_with_and_without_the_short_way() -> None:
    far = Window(from_us=Micros(2**60), until_us=Micros(2**61), kind=WindowKind.DROP)

    long = row(network(msgspec.structs.replace(PLAIN, windows=(far,))))
    assert [list(one) for one in row(network(PLAIN))] == long


# --- faults -----------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_as_many_are_lost_repeated_and_held_back_as_the_link_says(share: float) -> None:
    count, chance = 20_000, Ppm(round(share * 1_000_000))
    margin, quick = 4 * (share * (1 - share) / count) ** 0.5, Uniform(low_s=0, high_s=1)
    lossy = row(network(LinkPolicy(latency=quick, loss_ppm=chance)), count)
    twice = row(network(LinkPolicy(latency=quick, repeat_ppm=chance)), count)
    late = row(network(LinkPolicy(latency=quick, reorder_ppm=chance)), count)
    plain = row(network(LinkPolicy(latency=quick)), count)

    assert abs(sum(not one for one in lossy) / count - share) < margin
    assert abs(sum(len(one) == 2 for one in twice) / count - share) < margin
    held = sum(one != list(other) for one, other in zip(late, plain, strict=True))
    assert abs(held / count - share) < margin


@pytest.mark.parametrize("fault", ["loss_ppm", "repeat_ppm", "reorder_ppm"])
def test_a_fault_has_nothing_to_do_with_the_delay(fault: str) -> None:
    count, plain = 4_000, delays_us(SLOW, count=4_000)
    faulty = row(network(LinkPolicy(latency=SLOW, **{fault: Ppm(500_000)})), count)  # type: ignore[arg-type]
    struck = [one for one, copies in zip(plain, faulty, strict=True) if list(copies) != [one]]

    assert abs(np.mean(np.array(struck) < np.median(plain)) - 0.5) < 0.05


def test_certain_faults_happen_to_all_and_a_lost_frame_is_not_repeated() -> None:
    always = Ppm(1_000_000)
    plain = delays_us(SLOW)

    assert not any(row(network(LinkPolicy(latency=SLOW, loss_ppm=always, repeat_ppm=always))))
    assert {len(one) for one in row(network(LinkPolicy(latency=SLOW, repeat_ppm=always)))} == {2}
    late = row(network(LinkPolicy(latency=SLOW, reorder_ppm=always)))
    assert all(one > before for (one,), before in zip(late, plain, strict=True))


# --- windows and order ------------------------------------------------------------------


def through(kind: WindowKind, latency_s: float, now_s: float) -> list[float]:
    """Return when a frame arrives that leaves at `now_s`; the window is from 10 s to 20 s."""
    window = Window(from_us=Micros(10 * SECOND_US), until_us=Micros(20 * SECOND_US), kind=kind)
    net = network(LinkPolicy(latency=Constant(value_s=latency_s), windows=(window,)))
    return [at_us / SECOND_US for at_us in net.arrivals(frame(1), Micros(round(now_s * SECOND_US)))]


@pytest.mark.parametrize(
    ("now_s", "held_s", "arrives"),
    [
        (5, 8, True),
        (7, 20, False),  # would arrive as the window opens
        (8, 20, False),
        (10, 23, False),
        (19.999999, 23, False),
        (20, 23, True),
    ],
)
def test_an_outage_holds_until_its_end_and_a_partition_loses(
    now_s: float, held_s: float, arrives: bool
) -> None:
    assert through(WindowKind.HOLD, 3, now_s) == [held_s]
    assert through(WindowKind.DROP, 3, now_s) == ([held_s] if arrives else [])


def test_what_an_outage_held_arrives_in_a_burst_at_its_end() -> None:
    outage = Window(from_us=Micros(0), until_us=Micros(HOUR_US), kind=WindowKind.HOLD)
    net = network(LinkPolicy(latency=Constant(value_s=0), windows=(outage,)))

    assert {tuple(net.arrivals(frame(seq), Micros(seq))) for seq in range(1, 50)} == {(HOUR_US,)}


def test_an_outage_that_ends_in_a_partition_loses_what_it_held() -> None:
    windows = (
        Window(from_us=Micros(50), until_us=Micros(90), kind=WindowKind.DROP),
        Window(from_us=Micros(10), until_us=Micros(50), kind=WindowKind.HOLD),
    )
    net = network(LinkPolicy(latency=Constant(value_s=0), windows=windows))

    assert [net.arrivals(frame(1), Micros(at)) for at in (9, 10, 50, 90)] == [[9], [], [], [90]]


@st.composite
def windows(draw: st.DrawFn) -> tuple[Window, ...]:
    """Draw windows that may touch and overlap, in any order."""
    edges = draw(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=5))
    return tuple(
        Window(
            from_us=Micros(min(pair) * SECOND_US),
            until_us=Micros(max(pair) * SECOND_US),
            kind=draw(st.sampled_from(WindowKind)),
        )
        for pair in edges
    )


times_us = st.lists(st.integers(0, 300 * SECOND_US), min_size=1, max_size=30).map(sorted)


@given(cut=windows(), sent_us=times_us, in_order=st.booleans())
def test_no_frame_arrives_while_the_link_is_cut_off_nor_before_its_delay(
    cut: tuple[Window, ...], sent_us: list[int], in_order: bool
) -> None:
    net = network(LinkPolicy(latency=SLOW, windows=cut, in_order=in_order))
    plain = delays_us(SLOW, count=len(sent_us))

    for seq, now_us in enumerate(sent_us, start=FIRST):
        found = net.arrivals(frame(seq), Micros(now_us))
        assert all(at_us >= now_us + plain[seq - FIRST] for at_us in found)
        assert not any(one.from_us <= at < one.until_us for one in cut for at in found)
        assert found or any(one.kind is WindowKind.DROP for one in cut)


@given(sent_us=times_us, seed=seeds, repeat=shares, reorder=shares, loss=shares)
def test_a_link_in_order_never_lets_one_overtake_another(
    sent_us: list[int], seed: int, repeat: Ppm, reorder: Ppm, loss: Ppm
) -> None:
    free = LinkPolicy(latency=SLOW, repeat_ppm=repeat, reorder_ppm=reorder, loss_ppm=loss)
    one, other = network(msgspec.structs.replace(free, in_order=True), seed), network(free, seed)
    found = [one.arrivals(frame(seq), Micros(now_us)) for seq, now_us in enumerate(sent_us, 1)]
    plain = [other.arrivals(frame(seq), Micros(now_us)) for seq, now_us in enumerate(sent_us, 1)]

    assert [len(copies) for copies in found] == [len(copies) for copies in plain]
    row_us = [at_us for copies in found for at_us in copies]
    free_us = [at_us for copies in plain for at_us in copies]
    assert row_us == list(accumulate(free_us, max))


def test_order_is_kept_within_a_channel_only() -> None:
    net = network(LinkPolicy(latency=SLOW, in_order=True))
    latest_us = max(one for (one,) in row(net))

    assert min(net.arrivals(frame(1, Family.LIQUIDATION), Micros(0))) < latest_us
