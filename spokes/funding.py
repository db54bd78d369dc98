"""Funding payments at a spoke."""

from spokes import venue
from spokes.state import SpokeState
from spokes.undo import Funded


def pay(spoke: SpokeState) -> None:
    """Let every position pay or get funding once, at the prices of now."""
    spoke.note(Funded())
    for trader in list(spoke.traders.values()):
        after = trader
        for market, price_usd6 in zip(spoke.policy.markets, spoke.prices_usd6, strict=True):
            after = venue.fund(after, market, price_usd6)
        if after is not trader:
            spoke.keep_trader(after)
