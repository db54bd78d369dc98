"""Who may wait below maintenance, and how long, by clocks of the check's own (L16)."""

from hub.account import Account
from hub.margin.requirement import Conditions
from hub.state import HubState
from messaging.errors import InvariantViolated
from messaging.messages import MarginStatus
from messaging.units import AccountId, Micros, ratio_up

ENDED = Micros(-(2**62))


class Graces:
    """Since when each account under a call has been below maintenance, until it may open again."""

    def __init__(self, hub: HubState) -> None:
        self._hub = hub
        self._since_us: dict[int, Micros | None] = {}
        self._given_usd6: dict[AccountId, int] = {}

    def follow(self, hub: HubState) -> None:
        """Look at a hub from now on; what it knows nothing of has not been for it."""
        self._hub = hub
        self._given_usd6 = dict(hub.ledger.haircut_usd6)
        before, self._since_us = self._since_us, {}
        for account in hub.accounts:
            known = account.grace_until_us is not None
            if account.status is not MarginStatus.OPEN:
                self._since_us[account.place] = before.get(account.place) if known else None

    def check(self, now_us: Micros, *, block: bool) -> int:
        """Check whom the look of a block has left under a call; return how many they are.

        Raises:
            InvariantViolated: GRACE.
        """
        hub, checked = self._hub, 0
        for place in hub.changed:
            status = hub.accounts[place].status
            if status is MarginStatus.OPEN:
                self._since_us.pop(place, None)
            elif status is MarginStatus.FROZEN:
                self._since_us[place] = ENDED
            else:
                self._since_us.setdefault(place, None)
        if block and hub.looked_us == now_us:
            conditions = hub.conditions(now_us)
            for place in self._since_us:
                if hub.accounts[place].status is MarginStatus.REDUCE_ONLY:
                    checked += 1
                    self._check(hub.accounts[place], conditions, now_us)
        if hub.ledger.haircut_usd6 != self._given_usd6:
            self._given_usd6 = dict(hub.ledger.haircut_usd6)
        return checked

    def _check(self, account: Account, conditions: Conditions, now_us: Micros) -> None:
        """Below maintenance and not liquidated: above the floor, and not for too long."""
        hub, policy = self._hub, self._hub.policy.liquidation
        standing = hub.assess_latest(account, conditions)
        # A haircut ends the block, and what it does is for the next look (L11).
        given_usd6 = hub.ledger.haircut_usd6.get(account.id, 0)
        equity_usd6 = standing.equity_usd6 + given_usd6 - self._given_usd6.get(account.id, 0)
        if equity_usd6 >= standing.maintenance_usd6:
            return
        since_us = self._since_us[account.place]
        since_us = now_us if since_us is None else since_us
        self._since_us[account.place] = since_us
        floor_usd6 = ratio_up(standing.maintenance_usd6, policy.grace_floor_ppm)
        what = f"{account.id} has equity {equity_usd6:,}, below maintenance"
        if equity_usd6 < floor_usd6:
            raise InvariantViolated("GRACE", f"{what} and floor {floor_usd6:,} usd6")
        if now_us >= since_us + policy.grace_us:
            waited_s = (now_us - since_us) / 1e6
            raise InvariantViolated("GRACE", f"{what}, and waits for {waited_s:,.0f} s")
