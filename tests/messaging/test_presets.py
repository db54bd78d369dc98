import pytest

from messaging.errors import InputRefused
from messaging.latency import Constant, Lognormal, Uniform, quantile_us
from messaging.presets import (
    END_TO_END,
    PRESETS,
    SIGNED,
    SOURCE,
    for_lane,
    named,
    resolve_families,
)

NO_LANE = ("ibc.cosmos", "hold.governor", "outage.base_2025_08_05")
FINALITY = [name for name in PRESETS if name.startswith(("ccip.", "cctp_v1."))]
LAYERZERO = [name for name in PRESETS if name.startswith("layerzero.")]
CHAINS = ("ethereum", "arbitrum", "base", "optimism", "linea", "unichain", "polygon", "bnb")


def miss(name: str) -> float:
    """Return by how much a preset misses the worse of the measured Q1 and Q3."""
    measured_s = PRESETS[name].measured_quartiles_s
    assert measured_s is not None
    latency = named(name)
    return max(
        abs(quantile_us(latency, q) / (value_s * 1e6) - 1)
        for q, value_s in ((0.25, measured_s[0]), (0.75, measured_s[2]))
    )


def refusal_of(text: str, source_chain: str = "base", destination_chain: str = "arbitrum") -> str:
    with pytest.raises(InputRefused) as refusal:
        for_lane(text, source_chain, destination_chain)
    return str(refusal.value)


def test_every_preset_is_listed_with_its_source_and_what_it_covers() -> None:
    assert len(PRESETS) == 31
    for name, preset in PRESETS.items():
        assert preset.name == name
        assert preset.source
        assert preset.basis
        assert preset.covers
        assert (preset.latency is None) == (name in NO_LANE)


@pytest.mark.parametrize("name", FINALITY)
def test_finality_presets_meet_the_measured_quartiles(name: str) -> None:
    assert miss(name) < 0.05
    assert quantile_us(named(name), 0.5) == PRESETS[name].measured_quartiles_s[1] * 1e6  # type: ignore[index]


@pytest.mark.parametrize("name", LAYERZERO)
def test_layerzero_presets_nearly_meet_the_measured_quartiles(name: str) -> None:
    assert miss(name) < 0.06


def test_intent_presets_miss_the_measured_quartiles_and_say_so() -> None:
    for name in (name for name in PRESETS if name.startswith("intent.")):
        assert 0.14 < miss(name) < 0.23
        assert "missed by" in PRESETS[name].note


def test_what_a_figure_covers_is_told() -> None:
    assert PRESETS["layerzero.l2_to_l2"].covers == END_TO_END
    assert PRESETS["hyperlane.ethereum_origin"].covers == END_TO_END
    assert PRESETS["ethereum.finality"].covers == SOURCE
    assert PRESETS["axelar.base_origin"].covers == SOURCE
    assert PRESETS["cctp_v2.fast_l2"].covers == SIGNED
    assert PRESETS["wormhole.finalized_l2"].covers == SIGNED


def test_a_name_or_a_literal_chooses() -> None:
    assert named("layerzero.l2_to_l2") == Lognormal(median_s=36, sigma=0.293)
    assert named("ethereum.finality") == Uniform(low_s=768, high_s=1152)
    assert named("hyperlane.arbitrum_origin") == Constant(value_s=12.25)
    assert named("constant:900s") == Constant(value_s=900)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ibc.cosmos", "a sigma of your own"),
        ("hold.governor", "a mixture on top"),
        ("outage.base_2025_08_05", "a window"),
    ],
)
def test_a_preset_that_is_no_lane_is_refused_with_what_to_give(name: str, said: str) -> None:
    with pytest.raises(InputRefused, match=said):
        named(name)
    assert said in refusal_of(name)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputRefused, match=r"did you mean 'layerzero\.l2_to_l2'"):
        named("layerzero.l2_to_l3")
    with pytest.raises(InputRefused, match="expected a preset, or a literal"):
        named("ccip")
    assert "did you mean 'layerzero'" in refusal_of("layerzer")
    assert "did you mean 'ibc.cosmos'" in refusal_of("ibc.cosmo")


@pytest.mark.parametrize(
    ("family", "source_chain", "destination_chain", "name"),
    [
        ("ccip", "ethereum", "base", "ccip.eth_to_l2"),
        ("ccip", "base", "arbitrum", "ccip.base_to_l2"),
        ("ccip", "arbitrum", "base", "ccip.l2_to_l2"),
        ("ccip", "bnb", "base", "ccip.fast_l1_to_l2"),
        ("ccip", "avalanche", "arbitrum", "ccip.fast_l1_to_l2"),
        ("ccip", "avalanche", "ethereum", "ccip.avax_to_eth"),
        ("cctp_v1", "optimism", "base", "cctp_v1.op_to_l2"),
        ("cctp_v1", "base", "optimism", "cctp_v1.l2_to_l2"),
        ("cctp_v1", "ethereum", "unichain", "cctp_v1.eth_to_l2"),
        ("layerzero", "bnb", "unichain", "layerzero.bnb_to_l2"),
        ("layerzero", "base", "ethereum", "layerzero.l2_to_eth"),
        ("layerzero", "arbitrum", "base", "layerzero.l2_to_l2"),
        ("intent", "base", "ethereum", "intent.l2_to_eth"),
        ("hyperlane", "base", "bnb", "hyperlane.base_origin"),
        ("hyperlane", "ethereum", "base", "hyperlane.ethereum_origin"),
        ("axelar", "avalanche", "base", "axelar.avalanche_origin"),
        ("cctp_v2", "ethereum", "base", "cctp_v2.fast_eth"),
        ("cctp_v2", "linea", "ethereum", "cctp_v2.fast_l2"),
        ("wormhole", "solana", "base", "wormhole.finalized_solana"),
        ("wormhole", "optimism", "base", "wormhole.finalized_l2"),
    ],
)
def test_a_family_chooses_by_lane_most_specific_first(
    family: str, source_chain: str, destination_chain: str, name: str
) -> None:
    assert for_lane(family, source_chain, destination_chain) == (name, named(name))


def test_a_name_and_a_literal_hold_for_any_lane() -> None:
    expected = ("constant:900s", Constant(value_s=900))
    assert for_lane("constant:900s", "base", "mars") == expected
    assert for_lane("cctp_v2.fast_eth", "base", "mars")[0] == "cctp_v2.fast_eth"


@pytest.mark.parametrize(
    ("family", "source_chain", "destination_chain", "said"),
    [
        ("ccip", "arbitrum", "ethereum", "eth -> l2, base -> l2, l2 -> l2"),
        ("layerzero", "avalanche", "base", "l2 -> eth"),
        ("hyperlane", "optimism", "base", "base -> any chain"),
        ("cctp_v2", "polygon", "base", "linea -> any chain"),
        ("layerzero", "polygon", "base", "l2 -> l2"),
        ("cctp_v1", "linea", "base", "l2 -> l2"),
        ("wormhole", "linea", "base", "arbitrum -> any chain"),
        ("ccip", "base", "base", "base -> l2"),
        ("axelar", "base", "base", "base -> any chain"),
    ],
)
def test_a_lane_that_a_family_lacks_is_refused_with_what_it_has(
    family: str, source_chain: str, destination_chain: str, said: str
) -> None:
    refusal = refusal_of(family, source_chain, destination_chain)

    assert said in refusal
    assert f"found {source_chain} -> {destination_chain}" in refusal


def test_an_unknown_chain_is_refused_with_the_nearest() -> None:
    assert "found 'arbitrun' (did you mean 'arbitrum'?)" in refusal_of("ccip", "base", "arbitrun")
    assert "expected one of" in refusal_of("ccip", "hub", "base")


def test_every_family_has_a_lane_and_no_lane_leads_to_a_refused_preset() -> None:
    assert set(resolve_families()) == {
        "ccip", "cctp_v1", "cctp_v2", "layerzero", "intent", "hyperlane", "axelar", "wormhole",
    }  # fmt: skip
    for family in resolve_families():
        found = set()
        for source_chain in CHAINS:
            for destination_chain in CHAINS:
                try:
                    found.add(for_lane(family, source_chain, destination_chain)[0])
                except InputRefused:
                    continue
        assert found
        assert all(name.startswith(f"{family}.") for name in found)
