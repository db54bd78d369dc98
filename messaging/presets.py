"""Delays that protocols are known to have, each with its source, and the choice among them.

The figures are quoted, not ours. A preset that lacks a number is listed and refused when
chosen: an unknown stays unknown. The sources hold quartiles; beyond the third, every lognormal
here extrapolates.
"""

from collections.abc import Mapping
from itertools import product
from types import MappingProxyType

import msgspec

from messaging.errors import InputRefused, nearest
from messaging.latency import Constant, Latency, Lognormal, Uniform, parse

END_TO_END = "end to end"
SOURCE = "source part only"
SIGNED = "source part + signing"


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """One named delay.

    Attributes:
        latency: the distribution; None for what cannot be a whole lane: `note` says why.
        basis: how the figure came about.
        measured_quartiles_s: what was measured, beside what the distribution makes of it.
        covers: the parts of the way that the figure includes. Never add a part twice.
    """

    name: str
    latency: Latency | None
    basis: str
    source: str
    note: str = ""
    measured_quartiles_s: tuple[float, float, float] | None = None
    covers: str


_COARSE = "1 s resolution: quartiles missed by 15-22 %; prefer an empirical table or floor + tail"
_PAPER = "XChainDataGen@6ff7d50 notebook table (arXiv 2503.13637), Jun-Dec 2024, measured quartiles"

# Name, sigma, quartiles [s], the lane they were measured on and its messages, note.
_MEASURED: tuple[tuple[str, float, tuple[float, float, float], str, str], ...] = (
    (
        "ccip.eth_to_l2",
        0.125,
        (951, 1042, 1125.5),
        "ethereum -> arbitrum, n = 443",
        "near symmetric; waits for source finality",
    ),
    ("ccip.l2_to_l2", 0.134, (1029, 1130.5, 1232), "arbitrum -> base, n = 450", ""),
    ("ccip.base_to_l2", 0.121, (1263.5, 1378, 1487.5), "base -> arbitrum, n = 379", ""),
    ("ccip.fast_l1_to_l2", 0.343, (68, 86, 108), "bnb -> base, n = 2060", ""),
    ("ccip.avax_to_eth", 0.359, (103.5, 138, 168), "avalanche -> ethereum, n = 71", "n = 71 only"),
    ("cctp_v1.eth_to_l2", 0.181, (977, 1092, 1247), "ethereum -> arbitrum, n = 17135", ""),
    ("cctp_v1.l2_to_l2", 0.137, (1013, 1119, 1218), "arbitrum -> base, n = 76498", ""),
    ("cctp_v1.op_to_l2", 0.150, (1352, 1496, 1656), "optimism -> base, n = 38762", ""),
    ("layerzero.eth_to_l2", 0.091, (192, 203, 217), "ethereum -> arbitrum, n = 22117", ""),
    (
        "layerzero.l2_to_l2",
        0.293,
        (31, 36, 46),
        "arbitrum -> base, n = 576116",
        "floor about 26 s + right tail",
    ),
    ("layerzero.l2_to_eth", 0.158, (114, 126, 141), "arbitrum -> ethereum, n = 46740", ""),
    ("layerzero.bnb_to_l2", 0.072, (69, 70, 76), "bnb -> arbitrum, n = 43525", ""),
    (
        "layerzero.batched_l2_to_l2",
        0.923,
        (57, 101, 198),
        "arbitrum -> base, n = 208847",
        "batching wait",
    ),
    ("intent.eth_to_l2", 0.415, (16, 18, 28), "ethereum -> base, n = 279910", _COARSE),
    ("intent.l2_to_l2", 0.301, (2, 3, 3), "arbitrum -> base, n = 439916", _COARSE),
    ("intent.l2_to_eth", 0.814, (4, 8, 12), "base -> ethereum, n = 140641", _COARSE),
)

_CIRCLE = 'Circle CCTP docs, page "Required block confirmations"'
_HYPERLANE = "hyperlane-xyz/hyperlane-monorepo#8872; hyperlane-registry@b34b59e"
_REGISTRY = "hyperlane-registry@b34b59e"
_AXELAR = "axelar-docs@bf9267d learn/txduration.mdx"
_WORMHOLE = "wormhole-docs@119288a consistency-levels.md"

# Name, value [s], what it covers, source, basis. Hyperlane adds the relay's floor, the wait for
# reorganisations of the source chain, and one destination block.
_QUOTED: tuple[tuple[str, float, str, str, str], ...] = (
    ("cctp_v2.fast_eth", 20, SIGNED, _CIRCLE, "docs average, attestation only"),
    ("cctp_v2.fast_l2", 8, SIGNED, _CIRCLE, "docs average, attestation only"),
    ("hyperlane.base_origin", 10 + 20 + 2, END_TO_END, _HYPERLANE, "team measurement ~29 s"),
    ("hyperlane.arbitrum_origin", 10 + 1.25 + 1, END_TO_END, _HYPERLANE, "team measurement ~10 s"),
    (
        "hyperlane.ethereum_origin",
        10 + 195 + 2,
        END_TO_END,
        _REGISTRY,
        "derived from formula, not measured",
    ),
    ("axelar.ethereum_origin", 960, SOURCE, _AXELAR, "docs typical confirm"),
    ("axelar.arbitrum_origin", 1146, SOURCE, _AXELAR, "docs typical confirm"),
    ("axelar.base_origin", 1440, SOURCE, _AXELAR, "docs typical confirm"),
    ("axelar.avalanche_origin", 3, SOURCE, _AXELAR, "docs typical confirm"),
    ("wormhole.finalized_l2", 1080, SIGNED, _WORMHOLE, "docs, signing only"),
    ("wormhole.finalized_solana", 14, SIGNED, _WORMHOLE, "docs, signing only"),
)

_OTHER = (
    Preset(
        name="ethereum.finality",
        latency=Uniform(low_s=768, high_s=1152),
        basis="protocol: 64 slots + up to 1 epoch; Foundation says 13-19 min",
        source='Ethereum Foundation, page "Fast confirmation"; Chainlink CCIP docs',
        covers=SOURCE,
    ),
    Preset(
        name="ibc.cosmos",
        latency=None,
        basis="published mean 55.448 s and lognormal family; sigma unknown",
        source="Essaid, Kim, Ju, Appl. Sci. 2023 13(20):11135",
        note="a sigma of your own: lognormal:<median>,<sigma>, median = 55.448s * exp(-sigma^2/2)",
        covers="relay time as its authors measured it",
    ),
    Preset(
        name="hold.governor",
        latency=None,
        basis="rule: over-cap queue or large transfer, up to 86,400 s",
        source="Wormhole whitepaper 0007 (Governor)",
        note="a lane under it: a hold is a mixture on top, kind 'held' with hold_max_s = 86400",
        covers="extra hold on top of a lane",
    ),
    Preset(
        name="outage.base_2025_08_05",
        latency=None,
        basis="33 min halt, 1,980 s",
        source="molly/web3-is-going-great#1249",
        note="a lane beside it: an outage is a window in which a chain stands still, not a draw",
        covers="window, all messages of a chain at once",
    ),
)

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        name: Preset(
            name=name,
            latency=Lognormal(median_s=quartiles_s[1], sigma=sigma),
            basis="measured end to end; sigma from IQR",
            source=f"{_PAPER}, {lane}",
            note=note,
            measured_quartiles_s=quartiles_s,
            covers=END_TO_END,
        )
        for name, sigma, quartiles_s, lane, note in _MEASURED
    }
    | {
        name: Preset(
            name=name,
            latency=Constant(value_s=value_s),
            basis=basis,
            source=source,
            covers=covers,
        )
        for name, value_s, covers, source, basis in _QUOTED
    }
    | {preset.name: preset for preset in _OTHER}
)

_ANY = "any chain"
_L2 = "l2"
_ROLLUPS = ("arbitrum", "base", "optimism", "unichain")
_CLASSES = dict.fromkeys(_ROLLUPS, _L2) | {"ethereum": "eth"}
# The others are like no other: linea and polygon wait far longer than what was measured on
# the rollups above.
_CHAINS = (*_CLASSES, "linea", "polygon", "bnb", "avalanche", "solana")

# For each family, (source, destination) to preset; each side is a chain or a class. Families
# that wait for the source only go to any chain, from the chains that their docs name.
_LANES: Mapping[str, Mapping[tuple[str, str], str]] = {
    "ccip": {
        ("eth", _L2): "ccip.eth_to_l2",
        ("base", _L2): "ccip.base_to_l2",
        (_L2, _L2): "ccip.l2_to_l2",
        ("bnb", _L2): "ccip.fast_l1_to_l2",
        ("avalanche", _L2): "ccip.fast_l1_to_l2",
        ("avalanche", "eth"): "ccip.avax_to_eth",
    },
    "cctp_v1": {
        ("eth", _L2): "cctp_v1.eth_to_l2",
        ("optimism", _L2): "cctp_v1.op_to_l2",
        (_L2, _L2): "cctp_v1.l2_to_l2",
    },
    "layerzero": {
        ("eth", _L2): "layerzero.eth_to_l2",
        (_L2, _L2): "layerzero.l2_to_l2",
        (_L2, "eth"): "layerzero.l2_to_eth",
        ("bnb", _L2): "layerzero.bnb_to_l2",
    },
    "intent": {
        ("eth", _L2): "intent.eth_to_l2",
        (_L2, _L2): "intent.l2_to_l2",
        (_L2, "eth"): "intent.l2_to_eth",
    },
    "cctp_v2": {("eth", _ANY): "cctp_v2.fast_eth"}
    | {(name, _ANY): "cctp_v2.fast_l2" for name in (*_ROLLUPS, "linea")},
    "wormhole": {("solana", _ANY): "wormhole.finalized_solana"}
    | {(name, _ANY): "wormhole.finalized_l2" for name in ("arbitrum", "base", "optimism")},
    "hyperlane": {
        (name, _ANY): f"hyperlane.{name}_origin" for name in ("base", "arbitrum", "ethereum")
    },
    "axelar": {
        (name, _ANY): f"axelar.{name}_origin"
        for name in ("ethereum", "arbitrum", "base", "avalanche")
    },
}


def resolve_families() -> tuple[str, ...]:
    """Return the families from which `for_lane` can choose."""
    return tuple(_LANES)


def named(text: str) -> Latency:
    """Return the latency of a preset, or of a literal such as `constant:900s`.

    Raises:
        InputRefused: no such preset, a literal that does not parse, or a preset that cannot be
            a whole lane; the message says what to give instead.
    """
    if ":" in text:
        return parse(text)
    preset = PRESETS.get(text)
    if preset is None:
        expected = "a preset, or a literal such as constant:900s"
        raise InputRefused("latency", expected=expected, found=f"{text!r}{nearest(text, PRESETS)}")
    if preset.latency is None:
        found = f"only its {preset.basis}"
        raise InputRefused(f"latency {text!r}", expected=preset.note, found=found)
    return preset.latency


def for_lane(text: str, source_chain: str, destination_chain: str) -> tuple[str, Latency]:
    """Return the latency from one chain to another, and the preset or literal it is from.

    `text` is a family, a preset, or a literal; only a family looks at the chains. A lane that
    was measured itself goes before the lane between the classes of its chains.

    Raises:
        InputRefused: as `named`; for a family also an unknown chain, one chain twice, or a lane
            that the family lacks.
    """
    lanes = _LANES.get(text)
    if lanes is None:
        known = (*_LANES, *PRESETS)
        if ":" not in text and text not in PRESETS:
            expected = f"a preset, a literal, or a family ({', '.join(_LANES)})"
            raise InputRefused(
                "latency", expected=expected, found=f"{text!r}{nearest(text, known)}"
            )
        return text, named(text)

    for chain in (source_chain, destination_chain):
        if chain not in _CHAINS:
            found = f"{chain!r}{nearest(chain, _CHAINS)}"
            raise InputRefused("chain", expected=f"one of {', '.join(_CHAINS)}", found=found)
    sources = (source_chain, _CLASSES.get(source_chain, source_chain))
    destinations = (destination_chain, _CLASSES.get(destination_chain, destination_chain), _ANY)
    for lane in product(sources, destinations):
        if lane in lanes and source_chain != destination_chain:
            return lanes[lane], named(lanes[lane])
    expected = ", ".join(f"{source} -> {destination}" for source, destination in lanes)
    found = f"{source_chain} -> {destination_chain}"
    raise InputRefused(f"latency {text!r}", expected=f"a lane it has ({expected})", found=found)
