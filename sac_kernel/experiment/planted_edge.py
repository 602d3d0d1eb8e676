"""The self-test: exact SAC on a market with a planted edge whose best policy is known, learnt in seconds.

The market is M11 of `market.known_answer`: what the features know of the next return explains 0.25 % of its variance,
28 other inputs know nothing, and trading costs. `make prove` has the other markets and more seeds.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sac_kernel.agent.config import EXACT
from sac_kernel.agent.exact import ExactTraining
from sac_kernel.agent.exact_config import ExactConfig
from sac_kernel.agent.exact_rewards import ExactProblem
from sac_kernel.core import strings
from sac_kernel.core.plot_style import WIDTH_IN
from sac_kernel.features.forecast import fit_forecast
from sac_kernel.market.known_answer import MARKETS, POSITIONS, Optimum, play
from sac_kernel.report import plots
from sac_kernel.report.page import NARROW

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

    from sac_kernel.experiment.run_config import RunConfig
    from sac_kernel.features.forecast import ReturnForecast
    from sac_kernel.market.known_answer import Array, KnownAnswerMarket, Paths, Result

    Policy = Callable[[Array], Array]
    """Observations (n, S) of the market -> actions (n, 1) or (n,) in [-1, 1]."""

MARKET, SEED = MARKETS["M11"], 0
BARS, UPDATES = 60_000, 1_000
MARK = 0.9
"""Share of the optimum that the agent must reach."""
TEST_BARS, ACCOUNTS = 300, 256


class SelfTest(NamedTuple):
    """Result of the self-test.

    Attributes
    ----------
    facts : market, learner, ic, distractors, cost_sd, accounts, bars, updates, capture and ridge_capture (shares of
        the best policy's expected profit after costs), turnover_ratio, profit_sd and optimum_profit_sd (that profit
        over `TEST_BARS` bars, mean of the accounts, in standard deviations of a bar's return), mark, passed
    profit : policy -> the same profit so far, (T,)
    policy : the agent's
    """

    facts: dict[str, Any]
    profit: dict[str, Array]
    policy: Policy

    def sentence(self) -> str:
        """Return the result in words."""
        return strings.SELF_TEST[self.facts["passed"]].format(**self.facts)

    def figure(self, width: float = WIDTH_IN) -> Figure:
        """Return the agent's policy beside the best one, and their profits."""
        return policy_figure(MARKET, self.policy, self.profit, width)

    def figures(self) -> dict[str, Figure]:
        """Return the report's figures, one for phones too."""
        return {"self_test": self.figure(), "self_test" + NARROW: self.figure(4.5)}


def of_run(config: RunConfig) -> SelfTest | None:
    """Return the self-test of a run that asks for it; None for one that trains Gaussian SAC alone."""
    exact = any(config.learner_of(job)[0] == EXACT for job in config.jobs)
    return self_test() if config.self_test and exact else None


def self_test(bars: int = BARS, updates: int = UPDATES) -> SelfTest:
    """Train exact SAC on one path of the market and judge it on fresh paths beside the optimum and ridge + band."""
    path = one_path(MARKET, bars, SEED)
    features, returns = path.features[:, 0], path.returns[:, 0]
    earned = fit_forecast(features[:-1], returns).train
    settings = ExactConfig(gamma=MARKET.gamma)
    training = ExactTraining([ExactProblem(features, earned, MARKET.cost)], [settings], [SEED])
    training.run(updates)
    agent, optimum = training.policy(0), MARKET.optimum()
    ridge = fit_forecast(features[:-1], returns, heads=("ridge",))
    policies: dict[str, Policy] = {
        strings.THE_AGENT: lambda obs: agent.target(obs[:, :-1], obs[:, -1], MARKET.cost),
        strings.THE_OPTIMUM: lambda obs: optimum.act(obs[:, 0], obs[:, -1]),
        strings.RIDGE: band_policy(MARKET, ridge),
    }
    paths = MARKET.simulate(TEST_BARS, ACCOUNTS, np.random.default_rng(12_345))
    results = {name: _played(paths, policy) for name, policy in policies.items()}
    own, best, linear = results.values()
    capture = own.reward / best.reward
    facts = {
        "market": MARKET.name, "learner": EXACT, "ic": MARKET.ic, "distractors": MARKET.distractors,
        "cost_sd": MARKET.cost, "accounts": ACCOUNTS, "bars": bars, "updates": updates, "capture": capture,
        "ridge_capture": linear.reward / best.reward, "turnover_ratio": own.turnover / best.turnover,
        "profit_sd": float(own.profit[-1]), "optimum_profit_sd": float(best.profit[-1]), "mark": MARK,
        "passed": capture >= MARK,
    }  # fmt: skip
    profit = {name: result.profit for name, result in results.items()}
    return SelfTest(facts, profit, policies[strings.THE_AGENT])


def _played(paths: Paths, policy: Policy) -> Result:
    return play(MARKET, paths, lambda _t, obs, _p: policy(obs))


def one_path(market: KnownAnswerMarket, bars: int, seed: int) -> Paths:
    """Return the path that an agent of this seed learns from."""
    return market.simulate(bars, 1, np.random.default_rng(1_000 + seed))


def band_policy(market: KnownAnswerMarket, fitted: ReturnForecast) -> Policy:
    """Return the policy that trades an estimate with the best no-trade band for its strength; (n, S) -> (n,)."""
    spread = float(fitted.train.std())
    if spread == 0.0:
        return lambda obs: np.zeros(len(obs))
    optimum = Optimum(dataclasses.replace(market, ic=spread, distractors=0))
    return lambda obs: optimum.act(fitted.predict(obs[:, :-1]) / spread, obs[:, -1])


def policy_figure(
    market: KnownAnswerMarket,
    policy: Policy,
    profit: dict[str, Array] | None = None,
    width: float = WIDTH_IN,
) -> Figure:
    """Return a policy's actions over predictor and position beside the optimum's; distractors are at zero."""
    optimum, predictor = Optimum(market), np.linspace(-3.0, 3.0, 61)
    x, p = (grid.ravel() for grid in np.meshgrid(predictor, POSITIONS))
    obs = np.zeros((x.size, market.state_dim))
    obs[:, 0], obs[:, -1] = x, p
    shape = (POSITIONS.size, predictor.size)
    action, best = np.reshape(policy(obs), shape), optimum.act(x, p).reshape(shape)
    axis = strings.PREDICTOR.format(market=market.name)
    return plots.policy_figure(predictor, POSITIONS, action, axis, best, profit, width)
