"""From what a scenario's keys say to whole units; what is more than nothing stays so."""

from messaging.units import HOUR_US, SECOND_US, USD, Micros, Usd6


def micros(seconds: float) -> Micros:
    """Return seconds as whole microseconds."""
    return Micros(max(1, round(seconds * SECOND_US)) if seconds else 0)


def hours(count: float) -> Micros:
    """Return hours as whole microseconds."""
    return Micros(max(1, round(count * HOUR_US)) if count else 0)


def usd6(dollars: float) -> Usd6:
    """Return dollars as whole millionths."""
    return Usd6(max(1, round(dollars * USD)) if dollars else 0)
