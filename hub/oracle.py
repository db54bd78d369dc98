"""Prices as the hub knows them: the latest print of each asset, and when it was true."""

import msgspec

from messaging.messages import PricePublished
from messaging.units import Micros, Usd6


class Print(msgspec.Struct, frozen=True, kw_only=True):
    """The print in use for one asset; a price of 0 means that none has come yet."""

    price_usd6: Usd6 = Usd6(0)
    observed_us: Micros = Micros(0)
    received_us: Micros = Micros(0)


def take(known: Print, published: PricePublished, now_us: Micros) -> Print:
    """Return the later of two prints; an overtaken or repeated one changes nothing."""
    if published.observed_us < known.observed_us or published.price_usd6 <= 0:
        return known
    if published.observed_us == known.observed_us and known.price_usd6:
        return known
    return Print(
        price_usd6=published.price_usd6, observed_us=published.observed_us, received_us=now_us
    )
