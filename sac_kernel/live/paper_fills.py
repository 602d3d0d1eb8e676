"""The fills of a paper account's newest bar, each with the cost that the agent's training assumed for it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from sac_kernel.core.config import from_flat
from sac_kernel.market import fills
from sac_kernel.market.account import TradingEnvConfig, account_terms
from sac_kernel.market.market import fees_of
from sac_kernel.market.records import MINUTE_DTYPE, Account, Fill, blank, new_table
from sac_kernel.prices import costs

if TYPE_CHECKING:
    from sac_kernel.live.decide import Decider
    from sac_kernel.market.records import Bar, Records, Terms

_NO_MINUTES = np.empty((0, 0), MINUTE_DTYPE)
_PLACES = 3  # in a bar: its open, inside it, its close


def fills_of_newest_bar(base: Account, rows: Records, terms: Terms, order: float) -> Records:
    """Return the fills in the last of `rows` as `Fill` records; `profit` leaves out what was paid before `base`.

    Parameters
    ----------
    base : account at the close of a decision, its `t` a row of `rows`
    order : target decided on there
    """
    state, last = base.copy(), len(rows) - 1
    out = new_table(Fill, _PLACES * max(1, last - int(state.t)))
    n = fills.replay(state, blank(Account), rows, _NO_MINUTES, terms, np.array([order]), out)
    return out[:n][out["t"][:n] == last]


class TrainingCosts:
    """What the agent's training charged for a fill: its cost tier, its own costs and its spread at that time."""

    def __init__(self, decider: Decider) -> None:
        env = from_flat(TradingEnvConfig, decider.agent.context["env"], "env")
        self._tier, self._bar_seconds = env.cost_tier, decider.bar_seconds
        self._spec = decider.training_spec.with_costs(env.costs)
        config = dataclasses.replace(env, reward="log_return")
        self._terms = account_terms(
            config, decider.price_side, decider.bar_seconds, close_at_end=False, spec=self._spec
        )
        # A spread from the bars' own column was scaled by the tier of the account.
        self._scale = self._spec.factor(self._tier) / decider.spec.factor(decider.config.cost_tier)

    def of(self, fill: Fill, bar: Bar, open_s: int) -> float:
        """Return the half spread, commission and slippage that training charged for a fill, account currency."""
        if self._spec.spread_from == "column":
            spread = float(bar.spread_open) * self._scale
        else:
            moment = np.array([open_s])
            spread = 1e-4 * float(costs.spread_bps(moment, self._tier, self._spec, self._bar_seconds)[0])
        mid = float(bar.open * (1.0 + self._terms.price_side * bar.spread_open / 2.0))
        fees = float(fees_of(self._terms, np.array(mid)))
        return abs(float(fill.units)) * (float(bar.open) * spread / 2.0 + mid * fees)

    def plain(self, newest: Records, bar: Bar, open_s: int) -> list[dict[str, Any]]:
        """Return fills of one bar as JSON values: place, units, price, cost and the cost assumed."""
        return [
            {
                "place": int(fill.place),
                **{name: float(getattr(fill, name)) for name in ("units", "price", "cost", "position")},
                "assumed": self.of(fill, bar, open_s),
            }
            for fill in newest
        ]
