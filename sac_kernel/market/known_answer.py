"""Synthetic markets with a known optimum, which an agent must learn before training on real bars makes sense.

Each market has a predictor, an expected next return given it, noise that no action changes, and a linear
cost c |change of position|. Dynamic programming on (predictor, position) gives the best policy at the agent's
own discount. An agent is judged by its *capture*: its noise-free reward rate over that of the best policy on
the same fresh paths. Units: one-bar standard deviations of the return.

Source of such optima: de Lataillade, Deremble, Potters & Bouchaud 2012, arXiv:1203.5957
(linear cost, capped position: long above a band, short below it, hold inside).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from sac_kernel.core.config import require

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

POSITIONS = np.linspace(-1.0, 1.0, 21)
GRID_SIZE, GRID_SIGMAS = 241, 5.0


class Paths(NamedTuple):
    """n simulated paths of T decisions."""

    features: Array  # (T + 1, n, D), known at the close of t
    state: (
        Array  # (T + 1, n), input of the best policy: predictor, filtered probability, hour or pair (complex)
    )
    mean: Array  # (T, n), E[return from close t to close t + 1 | state t]
    returns: Array  # (T, n), realised


@dataclass(frozen=True)
class KnownAnswerMarket:
    """A market whose expected return is linear in an AR(1) predictor; `market.known_answer_kinds` has others.

    Attributes
    ----------
    name : M0, M1, ...
    mark : share of the optimum (or of the bound) that the default agent must reach
    ic : information coefficient, standard deviation of the expected return
    cost : of one unit of position traded, in one-bar standard deviations
    noise : standard deviation of the unpredictable part of a return
    rho : correlation of a predictor with its value one bar before
    distractors : AR(1) inputs that predict nothing
    gamma : discount per bar, of agent and optimum alike
    """

    name: str
    mark: float
    ic: float = 1.0
    cost: float = 0.0
    noise: float = 0.0
    rho: float = 0.95
    distractors: int = 0
    gamma: float = 0.95

    linear: ClassVar[bool] = True
    """Whether the expected return is linear in one input."""
    inputs: ClassVar[int] = 1
    """Inputs beside distractors and the previous position."""

    def __post_init__(self) -> None:
        require(0 <= self.gamma < 1, "KnownAnswerMarket", "gamma must be in [0, 1)", self.gamma)
        signs = self.cost >= 0 and self.noise >= 0
        require(signs, "KnownAnswerMarket", "cost and noise must be >= 0", (self.cost, self.noise))

    @property
    def state_dim(self) -> int:
        """Return the width of the observation: predictors, distractors, previous position."""
        return self.inputs + self.distractors + 1

    def expected_return(self, state: Array) -> Array:
        """Return E[next return | state], the shape of `state`."""
        return self.ic * state

    def simulate(self, bars: int, n: int, rng: np.random.Generator) -> Paths:
        """Return `n` stationary paths of `bars` decisions."""
        paths = self.drawn(bars, n, rng)
        if not self.distractors:
            return paths
        extra = ar1(self.rho, (bars + 1, n, self.distractors), rng)
        return paths._replace(features=np.concatenate((paths.features, extra), axis=-1))

    def drawn(self, bars: int, n: int, rng: np.random.Generator) -> Paths:
        """Return `simulate` without distractors."""
        state = ar1(self.rho, (bars + 1, n), rng)
        return self.with_returns(state[..., None], state, rng)

    def with_returns(self, features: Array, state: Array, rng: np.random.Generator) -> Paths:
        """Return the paths of given states: the expected returns of all but the last, and realised ones."""
        mean = self.expected_return(state[:-1])
        return Paths(features, state, mean, mean + self.noise * rng.standard_normal(mean.shape))

    def optimum(self) -> Optimum:
        """Return the best policy."""
        return Optimum(self)

    def grid(self) -> Array:
        """Return the grid of states of the dynamic programme."""
        return np.linspace(-GRID_SIGMAS, GRID_SIGMAS, GRID_SIZE)

    def transitions(self) -> Array:
        """Return P(next grid state | grid state), rows sum to 1."""
        grid = self.grid()
        nodes, weights = normal_nodes()
        landed = self.rho * grid[:, None] + np.sqrt(1.0 - self.rho**2) * nodes[None, :]
        return spread(landed, weights, grid)


MARKETS = {
    market.name: market
    for market in (
        KnownAnswerMarket("M0", 0.95),
        KnownAnswerMarket("M1", 0.97),
        KnownAnswerMarket("M2", 0.93, cost=2.0),
        KnownAnswerMarket("M3", 0.90, ic=0.3, cost=0.6, noise=0.954),
        KnownAnswerMarket("M4", 0.85, ic=0.05, cost=0.1, noise=0.9987),
        KnownAnswerMarket("M5", 0.80, ic=0.05, cost=0.1, noise=0.9987, distractors=28),
        KnownAnswerMarket("M6", 0.01, ic=0.0, cost=0.1, noise=1.0),
        KnownAnswerMarket("M7", 0.0, ic=0.0, cost=0.1, noise=1.0),
        KnownAnswerMarket("M9", 0.95, cost=0.25, rho=0.0),
        KnownAnswerMarket("M11", 0.90, ic=0.05, cost=0.1, noise=0.9987, distractors=28),
        KnownAnswerMarket("M11-02", 0.80, ic=0.02, cost=0.04, noise=0.9998, distractors=28),
    )
}
"""M0 is the one-step `known_answer_envs.BanditVectorEnv`; M7 and M11 are learnt from one finite path."""


class Optimum:
    """The best policy of a market by value iteration on (state, position), at the market's own discount.

    Attributes
    ----------
    grid : states, ascending
    action : (len(grid), 21) best next position for each state and present position of `POSITIONS`
    """

    def __init__(self, market: KnownAnswerMarket, tolerance: float = 1e-10) -> None:
        self.grid = market.grid()
        chance, mean = market.transitions(), market.expected_return(self.grid)
        trade = market.cost * np.abs(POSITIONS[:, None] - POSITIONS[None, :])  # (from, to)
        value = np.zeros((len(self.grid), len(POSITIONS)))
        for _ in range(10_000):
            held = mean[:, None] * POSITIONS + market.gamma * chance @ value  # (state, to)
            candidates = held[:, None, :] - trade
            new = candidates.max(axis=-1)
            change = float(np.abs(new - value).max())
            value = new
            if change < tolerance:
                break
        self.value = value
        self.action = POSITIONS[candidates.argmax(axis=-1)]

    def act(self, state: Array, position: Array) -> Array:
        """Return the best next position of the nearest grid state, shape of `state`."""
        return self.action[nearest(self.grid, state), nearest(POSITIONS, position)]


class Result(NamedTuple):
    """Noise-free reward and turnover of one bar, means over paths and bars; reward so far, (T,)."""

    reward: float
    turnover: float
    profit: Array


def play(market: KnownAnswerMarket, paths: Paths, act: Callable[[int, Array, Array], Array]) -> Result:
    """Return the noise-free result of a policy on `paths`, each started flat.

    Parameters
    ----------
    act : (t, observations (n, S), positions (n,)) -> next positions (n,) in [-1, 1]
    """
    position, turnover = np.zeros(paths.mean.shape[1]), 0.0
    earned = np.zeros(len(paths.mean))
    for t, mean in enumerate(paths.mean):
        obs = np.concatenate((paths.features[t], position[:, None]), axis=1)
        target = np.asarray(act(t, obs, position), np.float64)
        traded = np.abs(target - position)
        earned[t] = (target * mean - market.cost * traded).mean()
        turnover += float(traded.mean())
        position = target
    bars = len(paths.mean)
    profit = np.cumsum(earned)
    return Result(float(profit[-1]) / bars, turnover / bars, profit)


class Judge:
    """Judges policies of one market on fresh paths against the optimum on the same paths."""

    def __init__(self, market: KnownAnswerMarket, bars: int = 400, n: int = 512, seed: int = 12_345) -> None:
        self.market = market
        self.paths = market.simulate(bars, n, np.random.default_rng(seed))
        optimum = market.optimum()
        self.best = play(market, self.paths, lambda t, _obs, p: optimum.act(self.paths.state[t], p))

    def result(self, policy: Callable[[Array], Any], every: int = 1) -> Result:
        """Return the result of `policy`: observations (n, S) -> actions (n, 1) or (n,), called once in `every` bars."""

        def act(t: int, obs: Array, position: Array) -> Array:
            return position if t % every else np.reshape(policy(obs), position.shape)

        return play(self.market, self.paths, act)

    def capture(self, result: Result) -> float:
        """Return the share of the optimum's reward, 1 at best; NaN where the optimum is to stay flat."""
        return result.reward / self.best.reward if self.best.reward > 1e-9 else float("nan")

    def turnover_ratio(self, result: Result) -> float:
        """Return turnover over the optimum's; NaN where the optimum is to stay flat."""
        return result.turnover / self.best.turnover if self.best.turnover > 1e-9 else float("nan")


def nearest(grid: Array, values: Array) -> NDArray[np.int64]:
    """Return the index of the nearest value of an evenly spaced grid, the shape of `values`."""
    place = np.rint((values - grid[0]) / (grid[1] - grid[0]))
    return np.clip(place, 0, len(grid) - 1).astype(np.int64)


def ar1(rho: float, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return stationary AR(1) series of unit variance along the first axis."""
    x = rng.standard_normal(shape)
    scale = np.sqrt(1.0 - rho**2)
    for t in range(1, len(x)):
        x[t] = rho * x[t - 1] + scale * x[t]
    return x


def normal_nodes() -> tuple[Array, Array]:
    """Return nodes and weights of the mean over a standard normal variable, 101 each."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(101)
    return nodes, weights / weights.sum()


def spread(landed: Array, weights: Array, grid: Array) -> Array:
    """Return transition rows: each landing point's weight, split between its two grid neighbours."""
    step = grid[1] - grid[0]
    place = np.clip((landed - grid[0]) / step, 0.0, len(grid) - 1.0)
    low = np.minimum(place.astype(np.int64), len(grid) - 2)
    share = place - low
    rows = np.zeros((len(grid), len(grid)))
    index = np.broadcast_to(np.arange(len(grid))[:, None], low.shape)
    np.add.at(rows, (index, low), weights * (1.0 - share))
    np.add.at(rows, (index, low + 1), weights * share)
    return rows
