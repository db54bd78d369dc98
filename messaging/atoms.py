"""A delay's whole law as a few atoms, none of them earlier than what it stands for.

For what is decided by all of a law, and most by its tail: the atoms are close together there.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from messaging.latency import BELOW_ONE, U_MIN, Held, Latency, Mixture, Shifted

Floats = NDArray[np.float64]

BODY, TAIL = 0.2, 1e-12  # shares of messages later than which the tail begins, and ends
STEPS, FINER = (
    64,
    0.95,
)  # atoms of the body; by how much the share falls from atom to atom behind it
HOLDS = 32  # atoms that a hold is cut into

_steps = np.ceil(np.log(TAIL / BODY) / np.log(FINER))
LATER = np.concatenate(
    (np.linspace(1.0, BODY, STEPS), BODY * FINER ** np.arange(1.0, _steps + 1.0), [0.0])
)


class Atoms(NamedTuple):
    """Delays in seconds, rising, and the share of messages that each stands for; sum 1."""

    delays_s: Floats
    shares: Floats


def atoms(latency: Latency) -> Atoms:
    """Return a law that is nowhere earlier than `latency`, and little later.

    Up to a share of 1e-12, which the latest delay that can be drawn stands for.
    """
    match latency:
        case Shifted():
            body = atoms(latency.body)
            return Atoms(body.delays_s + latency.floor_s, body.shares)
        case Mixture():
            total = sum(part.weight for part in latency.parts)
            parts = [(part.weight / total, atoms(part.body)) for part in latency.parts]
            return _gathered(parts)
        case Held():
            body = atoms(latency.body)
            hold_s = latency.hold_max_s * np.arange(1.0, HOLDS + 1.0) / HOLDS
            held_s = (body.delays_s[:, None] + hold_s).ravel()
            held = Atoms(held_s, np.repeat(body.shares / HOLDS, HOLDS))
            return _gathered([(1.0 - latency.probability, body), (latency.probability, held)])
    ends = np.clip(1.0 - LATER[1:], U_MIN, BELOW_ONE)
    return Atoms(latency.draw_s(ends, np.zeros_like(ends)), -np.diff(LATER))


def _gathered(parts: list[tuple[float, Atoms]]) -> Atoms:
    """Return the mixture of laws, with no more atoms than one of them has."""
    delays_s = np.concatenate([law.delays_s for _, law in parts])
    shares = np.concatenate([share * law.shares for share, law in parts])
    order = np.argsort(delays_s, kind="stable")
    delays_s, shares = delays_s[order], shares[order]
    # Summed from the tail, where shares are small. What ends in one step goes to its last.
    later = np.concatenate((np.cumsum(shares[::-1])[::-1][1:], [0.0]))
    step = np.searchsorted(-LATER[1:], -later, side="left")
    last = np.flatnonzero(np.diff(step, append=len(LATER)))
    kept = np.concatenate(([1.0], later[last]))
    return Atoms(delays_s[last], -np.diff(kept))


def in_line(law: Atoms, frames: int) -> Atoms:
    """Return the law of the latest of so many independent delays: a frame waits for all before."""
    later = np.concatenate((np.cumsum(law.shares[::-1])[::-1], [0.0]))
    with np.errstate(divide="ignore"):
        all_later = -np.expm1(frames * np.log1p(-np.minimum(later, 1.0)))
    return Atoms(law.delays_s, -np.diff(all_later))
