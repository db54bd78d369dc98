"""Games in a world of their own, or in which what is rare in a game happens more often."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from lab.swarm.options import Lie
from messaging.drivers.process import Death, Loss, Point
from messaging.units import HUB, SECOND_US, NodeId
from tests.swarm.machine import SPOKES, Game


class ReorgGame(Game):
    """A game with a chain that loses blocks, at times that nobody chooses."""

    reorgs = True

    @precondition(lambda self: self.next_reorg_s > 0)
    @rule(lead_s=st.sampled_from([1, 3]), dollars=st.sampled_from([500, 30_000]))
    def trade_in_lost_blocks(self, lead_s: int, dollars: int) -> None:
        """Place orders just before blocks are lost, and hand over nothing until they are."""
        self.calm(max(0, self.next_reorg_s - lead_s))
        for who in range(2):
            self.order(who, SPOKES[1], dollars, False)
        self.run(lead_s + 1)

    @property
    def next_reorg_s(self) -> int:
        """Return in how many seconds blocks are lost next; 0 if never."""
        west = self.spoke(SPOKES[1])
        left = west.policy.chain.reorgs[west.reorgs :]
        return max(0, (left[0].at_us - self.driver.now_us) // SECOND_US) if left else 0


class DeepGame(Game):
    """A game with a chain that loses blocks which it has called final."""

    lie = Lie.REORG


class DigestGame(ReorgGame):
    """A game with a spoke whose digests are not what it holds."""

    lie = Lie.DIGEST


class ForgetfulGame(Game):
    """A game in which spokes lose all but their chains more often."""

    forgetful = True

    @rule(where=st.sampled_from(SPOKES), who=st.integers(0, 1), seconds=st.sampled_from([3, 15]))
    def forget_a_grant(self, where: NodeId, who: int, seconds: int) -> None:
        """Let a spoke lose all while a grant is under way to it, and come back."""
        self.order(who, where, 4_000, False)
        self.run(2)
        self.exchange((HUB, where))
        self.fate.next[where] = Death(Point.AFTER_PUBLISH, 0, loss=Loss.AMNESIA)
        self.forgotten = True
        self.calm(2)
        self.approve()
        self.calm(seconds)


class RestoredGame(Game):
    """A game in which the hub goes back by a commit, and hears of it from one spoke first."""

    @precondition(lambda self: not self.forgotten)
    @rule(who=st.integers(0, 1), where=st.sampled_from(SPOKES))
    def put_back(self, who: int, where: NodeId) -> None:
        """Let the hub lose its last commit, and talk with one spoke only for a while."""
        self.lost = True
        self.fate.next[HUB] = Death(Point.AFTER_PUBLISH, 0, loss=Loss.LAST_COMMIT)
        self.order(who, where, 4_000, False)
        for _ in range(8):
            self.run(1)
            self.exchange((HUB, where))
