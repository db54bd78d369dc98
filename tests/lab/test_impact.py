"""What a run says of fills: the largest fall, and whose it is."""

import pytest

from lab.impact import Drop
from lab.result import Fall


@pytest.mark.parametrize(
    ("rows", "worst"),
    [
        # price, path
        ([(100, 100), (80, 90)], Fall(0, 1, 200_000, 100_000, 500_000)),
        # A fall begins at its peak, for the path as well.
        ([(50, 50), (100, 80), (80, 76)], Fall(1, 2, 200_000, 50_000, 750_000)),
        # The larger of two, each from its own peak; a higher peak alone ends a fall.
        ([(100, 100), (70, 85), (90, 99), (60, 90), (200, 100), (150, 75)],
         Fall(0, 3, 400_000, 100_000, 750_000)),
        ([(100, 100), (70, 85), (200, 100), (100, 75)], Fall(2, 3, 500_000, 250_000, 500_000)),
        # The path may have risen, or fallen more than the price.
        ([(100, 100), (80, 105)], Fall(0, 1, 200_000, -50_000, 1_250_000)),
        ([(100, 100), (80, 75)], Fall(0, 1, 200_000, 250_000, -250_000)),
        ([(100, 100), (101, 50), (102, 40)], None),
    ],
)  # fmt: skip
def test_the_largest_fall_and_the_paths_share(
    rows: list[tuple[int, int]], worst: Fall | None
) -> None:
    drop = Drop()
    for at_us, (price_usd6, path_usd6) in enumerate(rows):
        drop.see(at_us, price_usd6, path_usd6)
    assert drop.worst == worst
