"""The figures of historic stress events: anchors of price and depth, as data.

Anchors are (hours since the start, US dollars): true levels of the public record, rounded;
depth is (hours since the start, ppm of normal). Depth is our reading of reports on order
books, not a measurement, except where `source` says otherwise.
"""

import msgspec

from messaging.units import Asset, Ppm

Anchors = tuple[tuple[float, float], ...]

BTC, ETH, SOL, LUNA = Asset("BTC"), Asset("ETH"), Asset("SOL"), Asset("LUNA")
AVAX, DOGE = Asset("AVAX"), Asset("DOGE")


class StressEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event. Every list of anchors starts at hour 0 and ends at the same hour.

    Attributes:
        title: for the report.
        start_utc: hour 0.
        anchors_usd: for each asset, (hours, price in USD).
        depth_ppm: (hours, depth).
        volatility_per_sqrt_year: of the noise between anchors.
        correlation: of the noise of any two assets.
        source: who published the figures.
    """

    title: str
    start_utc: str
    anchors_usd: dict[Asset, Anchors]
    depth_ppm: tuple[tuple[float, Ppm], ...]
    volatility_per_sqrt_year: float
    correlation: float
    source: str


def depth(*points: tuple[float, float]) -> tuple[tuple[float, Ppm], ...]:
    """Return (hours, multiplier) as (hours, ppm)."""
    return tuple((hours, Ppm(round(multiplier * 1_000_000))) for hours, multiplier in points)


# fmt: off
MARCH_2020 = StressEvent(
    title="12-13 March 2020, Black Thursday",
    start_utc="2020-03-12 06:00",
    anchors_usd={
        BTC: (
            (0.0, 7_650), (1.0, 7_490), (2.0, 7_390), (4.0, 7_300), (4.8, 5_690), (5.25, 6_300),
            (6.0, 6_070), (7.0, 6_030), (7.5, 5_750), (8.0, 5_990), (9.0, 6_090), (11.0, 6_090),
            (13.0, 5_990), (14.0, 6_040), (15.0, 5_740), (16.0, 5_820), (17.0, 5_800),
            (17.75, 4_450), (18.0, 4_800), (19.0, 4_650), (20.0, 4_130), (20.25, 3_800),
            (20.6, 5_000), (21.0, 4_850), (21.5, 5_450), (22.0, 5_170), (23.0, 4_770),
            (24.0, 4_960),
        ),
        ETH: (
            (0.0, 182), (1.0, 174), (2.0, 171.5), (4.0, 168), (4.8, 126), (5.25, 146),
            (6.0, 136.5), (7.0, 137), (7.5, 127.5), (8.0, 135), (9.0, 139.5), (11.0, 139.5),
            (13.0, 137), (14.0, 138.5), (15.0, 129), (16.0, 131), (17.0, 127), (17.75, 102),
            (18.0, 108), (19.0, 107), (20.0, 96.5), (20.25, 90), (20.6, 117), (21.0, 111),
            (21.5, 135), (22.0, 124), (23.0, 110), (24.0, 116.5),
        ),
    },
    depth_ppm=depth(
        (0.0, 1.0), (4.0, 0.8), (4.8, 0.2), (7.0, 0.4), (11.0, 0.6), (15.0, 0.45), (17.0, 0.4),
        (17.75, 0.15), (20.0, 0.15), (20.25, 0.1), (21.0, 0.15), (24.0, 0.3),
    ),
    volatility_per_sqrt_year=1.5,
    correlation=0.85,
    source="public spot prices by the hour (Binance), rounded; ChainCatcher 2058014, btcmex blog "
    "and CryptoAdventure for the two falls at 10-11 UTC and 23-02:15 UTC",
)

MAY_2021 = StressEvent(
    title="19 May 2021",
    start_utc="2021-05-19 00:00",
    anchors_usd={
        BTC: (
            (0.0, 42_800), (0.5, 43_500), (1.0, 42_600), (2.0, 40_800), (4.0, 40_600),
            (5.0, 39_300), (8.0, 40_400), (10.0, 40_300), (11.0, 39_400), (11.5, 36_500),
            (12.0, 38_700), (12.5, 38_300), (12.75, 36_400), (12.9, 32_900), (13.0, 35_200),
            (13.15, 30_100), (13.3, 35_300), (13.5, 33_600), (14.0, 35_900), (15.0, 37_500),
            (16.0, 37_300), (17.0, 39_600), (18.0, 39_400), (19.0, 38_000), (20.0, 39_300),
            (22.0, 38_800), (23.0, 39_100), (24.0, 36_700),
        ),
        ETH: (
            (0.0, 3_375), (0.5, 3_430), (1.0, 3_355), (2.0, 3_190), (4.0, 3_100), (5.0, 2_930),
            (8.0, 2_985), (10.0, 2_975), (11.0, 2_857), (11.5, 2_460), (12.0, 2_720),
            (12.5, 2_650), (12.75, 2_425), (12.9, 2_000), (13.0, 2_365), (13.15, 1_900),
            (13.3, 2_400), (13.5, 2_350), (14.0, 2_495), (15.0, 2_610), (16.0, 2_740),
            (17.0, 2_850), (18.0, 2_770), (19.0, 2_600), (20.0, 2_600), (22.0, 2_590),
            (23.0, 2_660), (24.0, 2_440),
        ),
    },
    depth_ppm=depth(
        (0.0, 1.0), (11.0, 0.7), (12.75, 0.25), (13.15, 0.1), (14.0, 0.25), (17.0, 0.5),
        (24.0, 0.5),
    ),
    volatility_per_sqrt_year=1.5,
    correlation=0.85,
    source="public spot prices by the hour (Binance), rounded; NewsBreak (Bybt) and mftkaraj 1283 "
    "for the fall of BTC to 30-31k and of ETH below 2,000",
)

LUNA_2022 = StressEvent(
    title="9-13 May 2022, the end of LUNA",
    start_utc="2022-05-09 00:00",
    anchors_usd={
        LUNA: (
            (0.0, 64.3), (6.0, 61.6), (12.0, 59.4), (18.0, 51.5), (22.0, 42), (24.0, 30.3),
            (30.0, 32.6), (36.0, 32.5), (45.0, 23), (48.0, 17.5), (51.0, 15.5), (54.0, 9.4),
            (57.0, 5.8), (60.0, 1.6), (63.0, 4.1), (66.0, 1.8), (72.0, 1.08), (75.0, 0.55),
            (78.0, 0.31), (81.0, 0.076), (84.0, 0.032), (87.0, 0.0066), (90.0, 0.02),
            (93.0, 0.0275), (96.0, 0.0003),
        ),
        BTC: (
            (0.0, 34_000), (12.0, 33_100), (18.0, 31_300), (24.0, 30_100), (30.0, 31_800),
            (45.0, 31_000), (54.0, 31_400), (60.0, 31_500), (61.0, 29_300), (63.0, 31_800),
            (69.0, 28_500), (72.0, 29_100), (78.0, 27_100), (87.0, 29_600), (96.0, 29_000),
        ),
        ETH: (
            (0.0, 2_520), (12.0, 2_406), (18.0, 2_300), (24.0, 2_229), (30.0, 2_405),
            (45.0, 2_329), (54.0, 2_381), (60.0, 2_410), (61.0, 2_175), (63.0, 2_349),
            (69.0, 2_043), (72.0, 2_085), (78.0, 1_835), (87.0, 2_026), (96.0, 1_960),
        ),
    },
    depth_ppm=depth((0.0, 1.0), (18.0, 0.5), (54.0, 0.3), (60.0, 0.15), (78.0, 0.1), (96.0, 0.1)),
    volatility_per_sqrt_year=1.2,
    correlation=0.6,
    source="public spot prices by the hour (Binance), rounded; DefiLlama wiki and Cointelegraph "
    "for the fall from above 80 to about 0",
)

FTX_2022 = StressEvent(
    title="8-9 November 2022, the fall of FTX",
    start_utc="2022-11-08 00:00",
    anchors_usd={
        BTC: (
            (0.0, 20_590), (3.0, 20_440), (6.0, 19_700), (12.0, 19_700), (15.0, 19_420),
            (16.0, 19_520), (16.5, 20_600), (17.0, 20_370), (18.0, 19_340), (19.0, 18_600),
            (19.5, 17_200), (20.0, 18_260), (24.0, 18_550), (30.0, 18_400), (33.0, 18_150),
            (34.5, 17_300), (36.0, 17_820), (39.0, 17_650), (40.0, 17_120), (42.0, 16_960),
            (44.0, 16_780), (45.0, 16_240), (46.0, 15_750), (47.5, 15_600), (48.0, 15_920),
        ),
        ETH: (
            (0.0, 1_568), (3.0, 1_539), (6.0, 1_470), (12.0, 1_477), (15.0, 1_444), (16.0, 1_462),
            (16.5, 1_570), (17.0, 1_546), (18.0, 1_447), (19.0, 1_346), (19.5, 1_240),
            (20.0, 1_315), (24.0, 1_335), (30.0, 1_303), (33.0, 1_264), (34.5, 1_140),
            (36.0, 1_220), (39.0, 1_226), (40.0, 1_163), (42.0, 1_169), (44.0, 1_195),
            (45.0, 1_165), (46.0, 1_107), (47.5, 1_080), (48.0, 1_103),
        ),
        SOL: (
            (0.0, 29.6), (3.0, 27.8), (6.0, 26.2), (9.0, 28.2), (12.0, 28), (15.0, 27.3),
            (16.0, 27.7), (16.5, 31.5), (17.0, 29.2), (18.0, 25.5), (19.0, 24.4), (19.5, 20),
            (20.0, 23.8), (24.0, 24.4), (27.0, 22), (30.0, 20.5), (33.0, 18.5), (34.5, 16.4),
            (36.0, 20), (39.0, 18.5), (40.0, 16.1), (42.0, 14.6), (42.5, 12.7), (44.0, 13.8),
            (46.0, 12.5), (47.0, 14.2), (48.0, 14.1),
        ),
    },
    depth_ppm=depth(
        (0.0, 1.0), (16.0, 0.7), (19.5, 0.25), (24.0, 0.4), (34.5, 0.25), (42.5, 0.15),
        (46.0, 0.15), (48.0, 0.2),
    ),
    volatility_per_sqrt_year=1.5,
    correlation=0.75,
    source="public spot prices by the hour (Binance), rounded; egrowonline and Decrypt, "
    "thefinancialtrends for SOL below 13 and the falls of the week",
)

OCTOBER_2025 = StressEvent(
    title="10-11 October 2025",
    start_utc="2025-10-10 15:00",
    anchors_usd={
        BTC: (
            (0.0, 121_000), (1.0, 118_500), (5.8, 117_000), (6.25, 108_000), (6.35, 104_000),
            (7.0, 112_000), (12.0, 112_500),
        ),
        ETH: (
            (0.0, 4_330), (1.0, 4_140), (3.85, 4_070), (5.8, 3_970), (6.25, 3_600),
            (6.35, 3_436), (7.0, 3_800), (12.0, 3_830),
        ),
        SOL: (
            (0.0, 222), (1.0, 207), (3.85, 205), (5.8, 200), (6.25, 178), (6.35, 168), (7.0, 186),
            (12.0, 187),
        ),
        AVAX: (
            (0.0, 28.2), (1.0, 26.8), (5.8, 26), (6.25, 17), (6.35, 8.5), (6.5, 16), (7.0, 21),
            (12.0, 21.5),
        ),
        DOGE: (
            (0.0, 0.248), (1.0, 0.237), (5.8, 0.23), (6.25, 0.16), (6.35, 0.094), (6.5, 0.15),
            (7.0, 0.186), (12.0, 0.188),
        ),
    },
    depth_ppm=depth(
        (0.0, 1.0), (5.5, 0.7), (5.8, 0.4), (6.25, 0.02), (6.6, 0.02), (7.5, 0.2), (12.0, 0.5),
    ),
    volatility_per_sqrt_year=1.0,
    correlation=0.85,
    source="followin and cryptonewsnavigator for BTC from about 117k to 104k with the peak of "
    "liquidations at 21:15 UTC, Rena Labs for depth down by 98 %; Derive.xyz through newspage360 "
    "and globalstocknews for ETH at 3,436 and SOL -24.6, DOGE -62 and AVAX -70 %, igcurrencynews "
    "for the levels after; levels before 20:50 and the minutes of falls and recoveries are press "
    "figures, placed by us",
)
# fmt: on

EVENTS = {
    "march_2020": MARCH_2020,
    "may_2021": MAY_2021,
    "luna_2022": LUNA_2022,
    "ftx_2022": FTX_2022,
    "october_2025": OCTOBER_2025,
}
