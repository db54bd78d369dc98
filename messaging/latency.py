"""How long a message is under way in one direction, as distributions that a TOML table spells.

A draw takes two numbers in [0, 1): u is the quantile, v chooses (the part of a mixture, whether
a message is held and how long). Fed the same u and v, two distributions rise and fall together.
Fields are seconds, as people write them; results are whole microseconds.
"""

import math
import re
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from messaging.errors import InputRefused
from messaging.units import HOUR_US, SECOND_US, Micros

Floats = NDArray[np.float64]

TIME_MAX_S = 1e9  # longest time that a field may state; the largest weight too
DRAW_MAX_S = 1e12  # longest draw; with floors and holds added it still fits 63 bits of us
FLOOR_RATIO_MAX = 4.0  # above it, how the quartiles were rounded decides the tail
GRID = 2**18  # points behind a quantile without closed form
U_MIN = 2.0**-54  # u = 0 would be a draw of minus infinity
BELOW_ONE = 1 - 2.0**-53
Z_QUARTILE = float(ndtri(0.75))
Z_MAX = -float(ndtri(U_MIN))

_FORMS = (
    "constant:value_s uniform:low_s,high_s exponential:mean_s lognormal:median_s,sigma "
    "quartiles:q1_s,q2_s,q3_s"
)
_UNIT_US = {"us": 1, "ms": 1_000, "s": SECOND_US, "m": 60 * SECOND_US, "h": HOUR_US}
_SPELLED = re.compile(rf"([0-9]+(?:\.[0-9]+)?)({'|'.join(_UNIT_US)})?")


def _need(holds: bool, expected: str, found: object) -> None:
    """Raise ValueError unless `holds`. State bounds so that NaN fails them."""
    if not holds:
        raise ValueError(f"expected {expected}, found {found}")


def _choose(v: Floats, edges: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Return which interval between `edges` each `v` is in, and where in it, from 0 to 1."""
    chosen = np.searchsorted(edges[1:-1], v, side="right")
    rest = (v - edges[chosen]) / (edges[chosen + 1] - edges[chosen])
    return chosen, np.minimum(rest, BELOW_ONE)


class Distribution(msgspec.Struct, frozen=True, tag_field="kind", forbid_unknown_fields=True):
    """What all kinds share. Numbers that a kind cannot have raise ValueError."""

    def __post_init__(self) -> None:
        for key in self.__struct_fields__:
            if key.endswith("_s"):
                value_s = getattr(self, key)
                _need(0 <= value_s <= TIME_MAX_S, f"{key} from 0 to {TIME_MAX_S:g} s", value_s)
        self._check()

    def _check(self) -> None:
        """Raise ValueError for what the bounds of a time do not catch."""

    def draw_s(self, u: Floats, v: Floats) -> Floats:
        """Return delays in seconds, not below 0, never falling as u rises with v held."""
        raise NotImplementedError

    def sample_us(self, u: Floats, v: Floats) -> NDArray[np.int64]:
        """Return delays in whole microseconds; `u` and `v` in [0, 1), of one shape, not 0-d."""
        drawn_s = self.draw_s(np.clip(u, U_MIN, BELOW_ONE), v)
        return np.rint(drawn_s * SECOND_US).astype(np.int64)


class Constant(Distribution, frozen=True, kw_only=True, tag="constant"):
    value_s: float

    def draw_s(self, u: Floats, v: Floats) -> Floats:
        return np.full(u.shape, self.value_s, dtype=np.float64)


class Uniform(Distribution, frozen=True, kw_only=True, tag="uniform"):
    low_s: float
    high_s: float

    def _check(self) -> None:
        _need(self.low_s <= self.high_s, f"high_s >= low_s = {self.low_s:g}", self.high_s)

    def draw_s(self, u: Floats, v: Floats) -> Floats:
        return self.low_s + (self.high_s - self.low_s) * u


class Exponential(Distribution, frozen=True, kw_only=True, tag="exponential"):
    mean_s: float

    def draw_s(self, u: Floats, v: Floats) -> Floats:
        return -self.mean_s * np.log1p(-u)


class Lognormal(Distribution, frozen=True, kw_only=True, tag="lognormal"):
    median_s: float
    sigma: float  # standard deviation of ln(delay)

    def _check(self) -> None:
        _need(self.median_s > 0, "median_s > 0", self.median_s)
        sigma_max = math.log(DRAW_MAX_S / self.median_s) / Z_MAX
        expected = f"sigma from 0 to {sigma_max:.3f} (no draw over {DRAW_MAX_S:g} s)"
        _need(0 <= self.sigma <= sigma_max, expected, self.sigma)

    def draw_s(self, u: Floats, v: Floats) -> Floats:
        return self.median_s * np.exp(self.sigma * np.asarray(ndtri(u), dtype=np.float64))


class Quartiles(Distribution, frozen=True, kw_only=True, tag="quartiles"):
    """A lognormal from measured quartiles; `floor` puts a hard minimum under it.

    Without a floor it meets the median, and the other two only in their ratio. With a floor it
    meets all three and has a far heavier tail. The data decide for neither.
    """

    q1_s: float
    q2_s: float
    q3_s: float
    floor: bool = False

    def _check(self) -> None:
        found = f"{self.q1_s:g}, {self.q2_s:g}, {self.q3_s:g}"
        _need(0 < self.q1_s <= self.q2_s <= self.q3_s, "0 < q1_s <= q2_s <= q3_s", found)
        self.fitted()

    def fitted(self) -> "Lognormal | Shifted":
        """Return what the quartiles stand for; raise ValueError where a floor does not fit.

        Plain: sigma = ln(q3 / q1) / 1.349 around q2. Floor, with r = (q3 - q2) / (q2 - q1):

            sigma = ln(r) / 0.6745,  m = (q3 - q2) / (r - 1),  floor = q2 - m      [s]
        """
        if not self.floor:
            sigma = math.log(self.q3_s / self.q1_s) / (2 * Z_QUARTILE)
            return Lognormal(median_s=self.q2_s, sigma=sigma)

        below_s, above_s = self.q2_s - self.q1_s, self.q3_s - self.q2_s
        fits = below_s < above_s <= FLOOR_RATIO_MAX * below_s
        expected = f"1 < (q3_s - q2_s) / (q2_s - q1_s) <= {FLOOR_RATIO_MAX:g} for a floor"
        _need(fits, expected, f"{above_s:g} / {below_s:g}")
        median_s = above_s * (below_s / (above_s - below_s))
        floor_s = self.q2_s - median_s
        _need(floor_s >= 0, "q1_s, q2_s, q3_s that leave a floor >= 0 s", f"{floor_s:g}")
        sigma = math.log(above_s / below_s) / Z_QUARTILE
        return Shifted(floor_s=floor_s, body=Lognormal(median_s=median_s, sigma=sigma))

    def draw_s(self, u: Floats, v: Floats) -> Floats:
        return self.fitted().draw_s(u, v)


class Shifted(Distribution, frozen=True, kw_only=True, tag="shifted"):
    floor_s: float
    body: "Latency"

    def draw_s(self, u: Floats, v: Floats) -> Floats:
        return self.floor_s + self.body.draw_s(u, v)


class Empirical(Distribution, frozen=True, kw_only=True, tag="empirical"):
    """Straight lines between rows of (quantile, seconds). A quantile given twice is a jump."""

    table: tuple[tuple[float, float], ...]

    def _check(self) -> None:
        ends = self.table[:1] + self.table[-1:]
        _need([q for q, _ in ends] == [0, 1], "table from quantile 0 to quantile 1", ends)
        fits = ends[0][1] >= 0 and ends[1][1] <= TIME_MAX_S
        _need(fits, f"table values from 0 to {TIME_MAX_S:g} s", ends)
        for before, after in pairwise(self.table):
            rises = before[0] <= after[0] and before[1] <= after[1]
            _need(rises, "table rows that never fall", f"{before} before {after}")

    def draw_s(self, u: Floats, v: Floats) -> Floats:
        rows = np.array(self.table, dtype=np.float64)
        return np.interp(u, rows[:, 0], rows[:, 1])


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    weight: float  # its share is this over the sum of the weights
    body: "Latency"


class Mixture(Distribution, frozen=True, kw_only=True, tag="mixture"):
    parts: tuple[Part, ...]  # each message takes one

    def _check(self) -> None:
        _need(len(self.parts) > 0, "one or more parts", "none")
        for weight in (part.weight for part in self.parts):
            _need(0 < weight <= TIME_MAX_S, f"0 < weight <= {TIME_MAX_S:g}", weight)

    def draw_s(self, u: Floats, v: Floats) -> Floats:
        totals = np.cumsum([0.0, *(part.weight for part in self.parts)])
        chosen, rest = _choose(v, totals / totals[-1])
        drawn_s = np.empty_like(u)
        for number, part in enumerate(self.parts):
            mine = chosen == number
            drawn_s[mine] = part.body.draw_s(u[mine], rest[mine])
        return drawn_s


class Held(Distribution, frozen=True, kw_only=True, tag="held"):
    """The body and, with `probability`, an extra hold uniform in (0, hold_max_s]."""

    body: "Latency"
    probability: float
    hold_max_s: float

    def _check(self) -> None:
        _need(0 <= self.probability <= 1, "probability from 0 to 1", self.probability)
        _need(self.hold_max_s > 0, "hold_max_s > 0", self.hold_max_s)

    def draw_s(self, u: Floats, v: Floats) -> Floats:
        chosen, rest = _choose(v, np.array([0.0, self.probability, 1.0]))
        held = chosen == 0
        hold_s = np.where(held, self.hold_max_s * (1 - rest), 0.0)
        # The hold spends v; its finer digits, about independent of the length, serve the body.
        return self.body.draw_s(u, np.where(held, rest * 2**16 % 1.0, rest)) + hold_s


Latency = (
    Constant | Uniform | Exponential | Lognormal | Quartiles | Shifted | Empirical | Mixture | Held
)


def quantile_us(latency: Latency, q: float) -> Micros:
    """Return the delay that a share `q` (0 to 1) of messages does not exceed, in microseconds.

    Exact, except for mixtures and holds: they come from a fixed grid, rough beyond 1 - 1e-4.
    """
    body = latency
    while isinstance(body, Shifted):
        body = body.body
    if not isinstance(body, Mixture | Held):
        return Micros(int(latency.sample_us(np.array([q]), np.zeros(1))[0]))
    middles = np.arange(0.5, GRID, dtype=np.float64)
    # Golden-ratio steps spread v evenly over every stretch of u, in its fine digits too.
    drawn_us = latency.sample_us(middles / GRID, middles * 0.618033988749895 % 1.0)
    return Micros(int(np.quantile(drawn_us, q, method="inverted_cdf")))


def scaled(latency: Latency, factor: float) -> Latency:
    """Return `latency` with times `factor` as long; raise ValueError if one leaves its bounds."""
    _need(0 < factor < math.inf, "factor > 0", factor)
    keys = [key for key in latency.__struct_fields__ if key.endswith("_s")]
    changes: dict[str, object] = {key: getattr(latency, key) * factor for key in keys}
    match latency:
        case Quartiles():  # rounding after scaling could undo a fit, so fit first
            return scaled(latency.fitted(), factor)
        case Shifted() | Held():
            changes["body"] = scaled(latency.body, factor)
        case Empirical():
            changes["table"] = tuple((q, value_s * factor) for q, value_s in latency.table)
        case Mixture():
            bodies = ((part.weight, scaled(part.body, factor)) for part in latency.parts)
            changes["parts"] = tuple(Part(weight=weight, body=body) for weight, body in bodies)
    changed: Latency = msgspec.structs.replace(latency, **changes)
    return changed


def parse(text: str) -> Latency:
    """Return the latency that a literal such as `uniform:768s,1152s` spells.

    Raises InputRefused for another form, a time without its unit, or numbers that do not fit.
    """
    kind, _, values = text.partition(":")
    keys = dict(form.split(":") for form in _FORMS.split()).get(kind, "").split(",")
    given = values.split(",")
    if keys == [""] or len(keys) != len(given):
        raise InputRefused("latency", expected=_FORMS.replace(" ", " or "), found=repr(text))
    try:
        numbers = {key: _number(key, spelled) for key, spelled in zip(keys, given, strict=True)}
        parsed: Latency = msgspec.convert({"kind": kind, **numbers}, Latency)
        return parsed
    except ValueError as error:
        expected, _, found = str(error).removeprefix("expected ").partition(", found ")
        raise InputRefused(f"latency {text!r}", expected=expected, found=found) from None


def _number(key: str, text: str) -> float:
    spelled, is_time = _SPELLED.fullmatch(text.strip()), key.endswith("_s")
    if spelled is None or (spelled[2] is not None) != is_time:
        form = f"with a unit ({', '.join(_UNIT_US)}), as 900s" if is_time else "without a unit"
        raise ValueError(f"expected {key.removesuffix('_s')} >= 0 {form}, found {text!r}")
    return float(spelled[1]) * _UNIT_US[spelled[2] or "s"] / SECOND_US


def describe(latency: Latency) -> str:
    """Return the latency in words, times in seconds."""
    match latency:
        case Constant():
            return f"{latency.value_s:,.6g} s"
        case Uniform():
            return f"uniform {latency.low_s:,.6g} to {latency.high_s:,.6g} s"
        case Exponential():
            return f"exponential, mean {latency.mean_s:,.6g} s"
        case Lognormal():
            return f"lognormal, median {latency.median_s:,.6g} s, sigma {latency.sigma:.3g}"
        case Quartiles():
            return f"{describe(latency.fitted())} (fitted to quartiles)"
        case Shifted():
            return f"{latency.floor_s:,.6g} s + {describe(latency.body)}"
        case Empirical(table=rows):
            return f"table of {len(rows)} rows, {rows[0][1]:,.6g} to {rows[-1][1]:,.6g} s"
        case Mixture(parts=parts):
            total = sum(part.weight for part in parts)
            return ", ".join(f"{p.weight / total:.3g} of ({describe(p.body)})" for p in parts)
        case Held(probability=share, hold_max_s=hold_s):
            return f"({describe(latency.body)}), share {share:.3g} held up to {hold_s:,.6g} s more"
