"""What each stress event must show of collateral, which no run holds: valued along its prices.

By the rules that books are margined by (O3, O9, O10, O15, O16). Pure functions.
"""

from collections.abc import Iterator

from msgspec.structs import replace

from hub.margin.buffer import AssetRisk, SqrtTimeBuffer
from hub.margin.requirement import Conditions, MarginPolicy
from hub.margin.scan.account import Holding, stand
from hub.margin.scan.collateral import Collateral, CollateralRisk, valued
from hub.margin.scan.grid import GRIDS, VolatilityShock
from hub.margin.scan.legs import Leg, Market, OptionRisk, ScanPolicy
from lab.events.claims import Claim, Found, hour
from lab.policies import risk_of
from lab.scenario import RiskTable
from lab.summary import usd
from markets.price_path import PricePath
from messaging.units import ONE, USD, Asset, Micros, Ppm, Qty8, Usd6

VALUED = "valued"
WHOLE = 1_000_000
E_MODE_LTV_PPM, E_MODE_THRESHOLD_PPM = 930_000, 950_000  # of ETH against stETH elsewhere

STETH = CollateralRisk(
    asset=Asset("STETH"),
    maintenance_haircut_ppm=Ppm(170_000),
    initial_haircut_ppm=Ppm(220_000),
    volatility_ppm=Ppm(2_500_000),
    quantile_z=3.09,
    depth_usd6_per_s=250_000 * USD,
    participation_ppm=Ppm(100_000),
    volume_usd6=1_000_000_000 * USD,
    impact_ppm=Ppm(200_000),
    cap_usd6=Usd6(100_000_000 * USD),
    pegged=False,
    depeg_factor=0,
    follows=0,
)
USDC = replace(
    STETH,
    asset=Asset("USDC"),
    maintenance_haircut_ppm=Ppm(20_000),
    initial_haircut_ppm=Ppm(40_000),
    volatility_ppm=Ppm(10_000),
    pegged=True,
    depeg_factor=4,
    follows=None,
)
# Spot feeds print every 3 minutes elsewhere; a minute of grace.
LUNA = replace(
    STETH,
    asset=Asset("LUNA"),
    maintenance_haircut_ppm=Ppm(350_000),
    initial_haircut_ppm=Ppm(450_000),
    volatility_ppm=Ppm(3_500_000),
    age_max_s=240.0,
    follows=None,
)
ETH_RISK = risk_of(RiskTable(name="ETH"))
SOL_RISK = risk_of(
    RiskTable(
        name="SOL",
        initial_margin_ppm=200_000,
        maintenance_margin_ppm=100_000,
        stress_volatility_ppm=3_500_000,
        jump_ppm=50_000,
        depth_usd_per_s=50_000,
    )
)
SOL = replace(
    STETH,
    asset=Asset("SOL"),
    maintenance_haircut_ppm=Ppm(250_000),
    initial_haircut_ppm=Ppm(350_000),
    volatility_ppm=Ppm(3_500_000),
    depth_usd6_per_s=50_000 * USD,
    follows=None,
)


def policy_of(risk: AssetRisk) -> ScanPolicy:
    """Return how a book on one asset is scanned."""
    return ScanPolicy(
        margin=MarginPolicy(assets=(risk,), buffer=SqrtTimeBuffer(), gain_age_max_s=600.0),
        options=(OptionRisk(),),
        grid=GRIDS["span16"],
        shock=VolatilityShock(),
    )


TAU_S = 150.0  # a minute of state and price each, half a minute of way


def _rows(path: PricePath, *names: str) -> Iterator[tuple[Micros, list[Usd6]]]:
    """Yield (time, prices of some assets)."""
    columns = [str(asset) for asset in path.assets]
    places = [columns.index(name) for name in names]
    for at_us, row in zip(path.times_us, path.prices_usd6, strict=True):
        yield at_us, [row[place] for place in places]


def _held(risk: CollateralRisk, units: int, price_usd6: Usd6, age_s: float = 0.0) -> Collateral:
    return Collateral(risk=risk, qty8=Qty8(units * ONE), price_usd6=price_usd6, age_s=age_s)


def luna_2022(
    found: Found, risk: CollateralRisk = LUNA, stopped_usd6: int = 107_000, units: int = 100_000_000
) -> list[Claim]:
    """Judge E3: what a deposit at a price that has stopped would let its owner borrow."""
    endless, most, without, from_us = replace(risk, age_max_s=float("inf")), 0, 0, None
    halted_us = None
    for at_us, (true_usd6,) in _rows(found.path, "LUNA"):
        if from_us is None and true_usd6 > stopped_usd6:
            continue
        from_us = at_us if from_us is None else from_us
        age_s = (at_us - from_us) / 1e6
        worth = units * true_usd6
        price_usd6 = Usd6(stopped_usd6)
        lent = valued(_held(risk, units, price_usd6, age_s)).initial_usd6
        most = max(most, lent - worth)
        halted_us = at_us if halted_us is None and not lent else halted_us
        plain = valued(_held(endless, units, price_usd6, age_s)).initial_usd6
        without = max(without, plain - worth)
    text = "collateral at a price that has stopped gives no credit beyond its worth"
    if from_us is None:
        return [Claim(text, "the price never fell so far", False, VALUED)]
    when = "never" if halted_us is None else f"{(halted_us - from_us) / 6e7:.0f} min after that"
    figures = (
        f"stopped at ${stopped_usd6 / 1e6:.3f} at {hour(from_us)}, worth nothing for IM {when}; "
        f"most to gain on {units / 1e6:.0f} million units {usd(most)}, {usd(without)} without O15"
    )
    return [Claim(text, figures, most == 0 < without and halted_us is not None, VALUED)]


def _known(price_usd6: Usd6) -> Market:
    conditions = Conditions(
        prices_usd6=(price_usd6,), tau_s=((TAU_S,),), gain_share_ppm=(Ppm(WHOLE),)
    )
    return Market(conditions, (Ppm(WHOLE),))


def _book(qty8: int, opened_usd6: Usd6, *collateral: Collateral, cash_usd6: int = 0) -> Holding:
    """Return a book of one perpetual."""
    cost_usd6 = Usd6(qty8 * opened_usd6 // ONE)
    leg = Leg(spoke=0, place=0, qty8=Qty8(qty8), cost_usd6=cost_usd6)
    return Holding(cash_usd6=cash_usd6, unsettled_usd6=(0,), legs=(leg,), collateral=collateral)


def ftx_2022(found: Found, risk: CollateralRisk = SOL, backed_usd: int = 5_000_000) -> list[Claim]:
    """Judge E5: SOL, or dollars, behind a long in SOL of one and a half times as much."""
    policy = policy_of(SOL_RISK)
    called: dict[str, int] = {}
    last: dict[str, int] = {}
    opened_usd6 = None
    for at_us, (price_usd6,) in _rows(found.path, "SOL"):
        opened_usd6 = opened_usd6 or price_usd6
        units = backed_usd * USD // opened_usd6
        qty8 = units * ONE * 3 // 2
        for name, book in (
            ("SOL", _book(qty8, opened_usd6, _held(risk, units, price_usd6))),
            ("dollars", _book(qty8, opened_usd6, cash_usd6=units * opened_usd6)),
        ):
            one = stand(policy, _known(price_usd6), book)
            last[name] = min(last.get(name, one.equity_usd6), one.equity_usd6)
            if one.equity_usd6 < one.maintenance_usd6:
                called.setdefault(name, at_us)
    when = {name: hour(called[name]) if name in called else "never" for name in last}
    return [
        Claim(
            "collateral that falls with the position fails first",
            f"{usd(backed_usd * USD)} behind a long half as large again: below MM {when['SOL']} "
            f"with SOL behind it, {when['dollars']} with dollars; at the worst equity is "
            f"{usd(last['SOL'])} and {usd(last['dollars'])}",
            "SOL" in called and called["SOL"] < called.get("dollars", called["SOL"] + 1),
            VALUED,
        )
    ]


def steth_2022(found: Found, risk: CollateralRisk = STETH, units: int = 1_000) -> list[Claim]:
    """Judge E4: stETH as collateral of a short in ETH."""
    policy, rows, fired = policy_of(ETH_RISK), 0, 0
    more: list[int] = []
    ratio_ppm = WHOLE
    for _, (eth_usd6, steth_usd6) in _rows(found.path, "ETH", "STETH"):
        rows += 1
        ratio_ppm = min(ratio_ppm, steth_usd6 * WHOLE // eth_usd6)
        if rows % 20:
            continue
        (one,), (other,) = (
            stand(
                policy,
                _known(eth_usd6),
                _book(-units * ONE * 7 // 10, eth_usd6, _held(each, units, steth_usd6)),
            ).requirements
            for each in (risk, replace(risk, follows=None))
        )
        fired += one.worst is None and one.scan_usd6 == -one.ratio_usd6
        more.append(one.maintenance_usd6 - other.maintenance_usd6)
    ours_ppm = WHOLE - risk.initial_haircut_ppm
    return [
        Claim(
            "the ratio scenario fires",
            f"the worst of {len(more)} scans for {fired}, of {units:,} stETH against a short of "
            f"70 %; MM {usd(max(more))} more at most",
            fired == len(more) > 0,
            VALUED,
        ),
        Claim(
            "a threshold of 95 % would have failed",
            f"opened at par, at the low of {ratio_ppm / 1e4:.1f} %: borrowed to "
            f"{E_MODE_LTV_PPM / 1e4:.0f} % {(ratio_ppm - E_MODE_LTV_PPM) / 1e4:+.1f} points of "
            f"equity, to our {ours_ppm / 1e4:.0f} % {(ratio_ppm - ours_ppm) / 1e4:+.1f}; at the "
            f"threshold and {risk.ratio_ppm / 1e4:.0f} % off "
            f"{(WHOLE - risk.ratio_ppm - E_MODE_THRESHOLD_PPM) / 1e4:+.1f}",
            ratio_ppm < E_MODE_LTV_PPM
            and ours_ppm < ratio_ppm
            and WHOLE - risk.ratio_ppm < E_MODE_THRESHOLD_PPM,
            VALUED,
        ),
    ]


def usdc_2023(found: Found, risk: CollateralRisk = USDC, units: int = 1_000_000) -> list[Claim]:
    """Judge E8: USDC as collateral, for opening and for staying."""
    shares: dict[bool, list[int]] = {True: [], False: []}
    steps, last = [], None
    lowest = (WHOLE, 0, 0)
    for _, (price_usd6,) in _rows(found.path, "USDC"):
        one = valued(_held(risk, units, price_usd6))
        shares[price_usd6 < 990_000].append(one.initial_haircut_ppm)
        lowest = min(lowest, (price_usd6, one.initial_haircut_ppm, one.maintenance_haircut_ppm))
        if last is not None:
            # What the value for MM falls by beyond what the price does.
            fall = last[1] - one.maintenance_usd6 - (last[0] - one.market_usd6)
            steps.append(fall)
        last = one.market_usd6, one.maintenance_usd6
    fires = bool(shares[True]) and min(shares[True]) > risk.initial_haircut_ppm
    idle = bool(shares[False]) and max(shares[False]) == risk.initial_haircut_ppm
    price, initial, maintenance = lowest
    return [
        Claim(
            "the add-on for IM fires below 0.99",
            f"haircut {risk.initial_haircut_ppm / 1e4:.0f} % above, {initial / 1e4:.0f} % at "
            f"{price / 1e6:.2f}",
            fires and idle,
            VALUED,
        ),
        Claim(
            "there is no cliff in MM",
            f"haircut {maintenance / 1e4:.0f} % at {price / 1e6:.2f} as at par; from one price "
            f"to the next {usd(units * USD)} never lose {usd(max(steps, default=0))} more than "
            "the market",
            bool(steps) and max(steps) <= units * USD // 1_000,
            VALUED,
        ),
    ]
