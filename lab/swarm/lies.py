"""Spokes that lie, as the options of a seed have drawn them: fault F10 of docs/swarm.md."""

from functools import partial

import msgspec

from lab.liars import Afterthought, Claim, Denier, Forger, Misreporter, Withholder
from lab.swarm.draws import Draws
from lab.swarm.options import Lie, Options
from lab.world import Maker
from markets.traders import account_name
from messaging.messages import CloseReason
from messaging.units import SECOND_US, USD, Micros, NodeId, Usd6
from spokes.chain import Reorg
from spokes.node import Spoke
from spokes.state import SpokePolicy

BELOW_MAX = 20  # blocks below what was final


def told_by(options: Options) -> tuple[tuple[NodeId, ...], tuple[NodeId, ...]]:
    """Return who lies beyond all bounds, and who keeps to the rules in all but its lie."""
    if options.liar is None:
        return (), ()
    one = (options.liar,)
    return ((), one) if options.lie in (Lie.DIGEST, Lie.REORG) else (one, ())


def maker_of(lie: Lie, seed: int, safety_s: float) -> Maker:
    """Return what makes the spoke that lies so, some time before `safety_s`."""
    draws = Draws(seed, f"lie/{lie}")
    safety_us = safety_s * SECOND_US
    match lie:
        case Lie.TWO_FRAMES:
            return Spoke  # it is the wire that signs the second frame
        case Lie.DIGEST:
            return Misreporter
        case Lie.REORG:
            at_us, below = draws.uniform(0.1, 1.0) * safety_us, draws.whole(1, BELOW_MAX)
            return partial(_faithless, at_us=Micros(int(at_us)), below=below)
        case Lie.SILENCE:
            return partial(Withholder, since_us=Micros(int(draws.uniform(0.0, 0.5) * safety_us)))
        case Lie.DENIAL:
            return Denier
        case Lie.USE:
            reason = draws.choice([CloseReason.DONE, CloseReason.REVOKED, CloseReason.EXPIRED])
            after_us = Micros(int(draws.log_uniform(1.0, 120.0) * SECOND_US))
            return partial(Afterthought, reason=reason, after_us=after_us)
        case Lie.CLAIM:
            claims = [
                Claim(
                    Micros(int(draws.uniform(0.0, safety_us))),
                    account_name(0),
                    Usd6(int(draws.log_uniform(1e2, 1e6) * USD)),
                )
                for _ in range(3)
            ]
            return partial(Forger, claims=claims)


def _faithless(policy: SpokePolicy, at_us: Micros, below: int) -> Spoke:
    """Return a spoke whose chain loses blocks that it has called final (P56)."""
    chain = policy.chain
    final = chain.height_at(at_us) - chain.trusted_height_at(at_us)
    reorgs = (Reorg(at_us=at_us, depth=final + below),)
    chain = msgspec.structs.replace(chain, halts=(), reorgs=reorgs)
    return Spoke(msgspec.structs.replace(policy, chain=chain))
