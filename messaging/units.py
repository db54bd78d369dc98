"""Units and names. Everything a message carries is one of these, a flag, or an enum.

Time is whole microseconds, money whole millionths of a dollar, quantities whole 1e-8 of
the base asset, ratios whole millionths. Division rounds, so each function that divides says
in its name which way.
"""

from hashlib import sha256
from typing import NewType

NodeId = NewType("NodeId", str)  # [a-z][a-z0-9-]{0,15}: "hub", "base", "oracle"
AccountId = NewType("AccountId", str)
Asset = NewType("Asset", str)  # "BTC": names the perpetual on it and its price feed too
ReservationId = NewType("ReservationId", bytes)  # 16 bytes
LiquidationId = NewType("LiquidationId", bytes)  # 16 bytes

HUB = NodeId("hub")  # the one hub there is
MARKET, ORACLE, TRADERS = NodeId("market"), NodeId("oracle"), NodeId("traders")  # the world outside
RELAY, MONITOR, OPERATOR = NodeId("relay"), NodeId("monitor"), NodeId("operator")  # of a live stack
OPERATORS = tuple(NodeId(f"operator-{n}") for n in (1, 2, 3))  # each has a key of his own (P70)

Micros = NewType("Micros", int)  # a time or a span, whole microseconds
Usd6 = NewType("Usd6", int)  # money, or the price of one unit, whole millionths of a dollar
Qty8 = NewType("Qty8", int)  # a quantity of the base asset, whole 1e-8; signed for positions
Ppm = NewType("Ppm", int)  # a ratio, whole millionths
Height = NewType("Height", int)  # a block number

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
YEAR_S = 365 * 86_400
USD = 1_000_000
ONE = 100_000_000  # one unit of the base asset, as Qty8
INT_MAX = 2**63 - 1  # largest whole number that a message may carry


def new_id(node: NodeId, life: int, number: int) -> bytes:
    """Return 16 bytes that no other node, life and number give (section 6 of docs/protocol.md)."""
    return sha256(f"{node}/{life}/{number}".encode()).digest()[:16]


def ratio_up(amount: int, ratio_ppm: int) -> int:
    """Return `amount * ratio`, rounded up (away from zero credit: for requirements, costs)."""
    return -(-amount * ratio_ppm // 1_000_000)


def ratio_down(amount: int, ratio_ppm: int) -> int:
    """Return `amount * ratio`, rounded down (for values and credits)."""
    return amount * ratio_ppm // 1_000_000


def value_up(qty8: int, price_usd6: int) -> Usd6:
    """Return `qty * price` [USD, 6 decimals], rounded up."""
    return Usd6(-(-qty8 * price_usd6 // ONE))


def value_down(qty8: int, price_usd6: int) -> Usd6:
    """Return `qty * price` [USD, 6 decimals], rounded down."""
    return Usd6(qty8 * price_usd6 // ONE)
