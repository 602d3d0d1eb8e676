"""Markets with a known optimum of other kinds than one linear predictor.

The expected return depends on the square of an input, a hidden regime, the hour of day, the product of two inputs, or
the sum of many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sac_kernel.market.known_answer import (
    GRID_SIZE,
    MARKETS,
    POSITIONS,
    KnownAnswerMarket,
    Optimum,
    Paths,
    ar1,
    nearest,
    normal_nodes,
    spread,
)

if TYPE_CHECKING:
    from sac_kernel.market.known_answer import Array

HOURS = 24
LAGS = 30
SWITCH = 0.02
"""Probability per bar that the hidden regime changes."""
DENSE_INPUTS = 29
PAIR_GRID = np.linspace(-4.0, 4.0, 81)
"""States of each of two inputs in the dynamic programme of their product."""


class SquareMarket(KnownAnswerMarket):
    """The response to the predictor x is (x^2 - 1) / sqrt 2."""

    linear = False

    def expected_return(self, state: Array) -> Array:
        """Return E[next return | state], the shape of `state`."""
        response: Array = self.ic * (state**2 - 1.0) / np.sqrt(2.0)
        return response


class HourMarket(KnownAnswerMarket):
    """The drift depends on the hour of day."""

    linear = False
    inputs = 4

    def expected_return(self, state: Array) -> Array:
        """Return E[next return | state], the shape of `state`."""
        drift: Array = self.ic * np.sqrt(2.0) * np.sin(2.0 * np.pi * state / HOURS)
        return drift

    def drawn(self, bars: int, n: int, rng: np.random.Generator) -> Paths:
        """Return `simulate` without distractors."""
        hour = (np.arange(bars + 1)[:, None] + rng.integers(0, HOURS, n)) % HOURS
        state = hour.astype(np.float64)
        angle = 2.0 * np.pi * state[..., None] / HOURS * np.array([1.0, 2.0])
        return self.with_returns(np.concatenate((np.sin(angle), np.cos(angle)), axis=-1), state, rng)

    def grid(self) -> Array:
        """Return the hours."""
        return np.arange(HOURS, dtype=np.float64)

    def transitions(self) -> Array:
        """Return P(next hour | hour)."""
        return np.roll(np.eye(HOURS), 1, axis=1)


class RegimeMarket(KnownAnswerMarket):
    """The drift has one of two hidden signs; the last 30 returns are observed."""

    linear = False
    inputs = LAGS

    def expected_return(self, state: Array) -> Array:
        """Return E[next return | state], the shape of `state`."""
        return self.ic * (2.0 * state - 1.0)

    def drawn(self, bars: int, n: int, rng: np.random.Generator) -> Paths:
        """Return `simulate` without distractors."""
        total = bars + LAGS
        sign = np.where(rng.random(n) < 0.5, 1.0, -1.0)
        flips = np.where(rng.random((total, n)) < SWITCH, -1.0, 1.0)
        hidden = sign * np.cumprod(flips, axis=0)  # (total, n), regime of each bar's return
        y = self.ic * hidden + self.noise * rng.standard_normal((total, n))
        filtered = np.full((total + 1, n), 0.5)
        for t in range(total):
            filtered[t + 1] = self._filter(filtered[t], y[t])
        lags = np.lib.stride_tricks.sliding_window_view(y, LAGS, axis=0) / np.hypot(self.ic, self.noise)
        state = filtered[LAGS:]
        # features[t] are the 30 returns up to the close of t; returns[t] is the next one.
        return Paths(lags, state, self.expected_return(state[:-1]), y[LAGS:])

    def _filter(self, p_up: Array, y: Array) -> Array:
        """Return P(next regime is up) after a return y, from P(this regime is up)."""
        log_ratio = 2.0 * self.ic * y / self.noise**2
        up = p_up * np.exp(np.minimum(log_ratio, 50.0))
        posterior = up / (up + 1.0 - p_up)
        return (1.0 - SWITCH) * posterior + SWITCH * (1.0 - posterior)

    def grid(self) -> Array:
        """Return the probabilities that the next regime is up."""
        return np.linspace(0.0, 1.0, GRID_SIZE)

    def transitions(self) -> Array:
        """Return P(next grid state | grid state), rows sum to 1."""
        grid = self.grid()
        nodes, weights = normal_nodes()
        rows = np.zeros((len(grid), len(grid)))
        for sign, chance in ((1.0, grid), (-1.0, 1.0 - grid)):
            y = sign * self.ic + self.noise * nodes
            landed = self._filter(np.clip(grid, 1e-9, 1 - 1e-9)[:, None], y[None, :])
            rows += chance[:, None] * spread(landed, weights, grid)
        return rows


class DenseMarket(KnownAnswerMarket):
    """The predictor is the normalised sum of 29 independent AR(1) inputs: each tells a 29th of it."""

    inputs = DENSE_INPUTS

    def drawn(self, bars: int, n: int, rng: np.random.Generator) -> Paths:
        """Return `simulate` without distractors."""
        features = ar1(self.rho, (bars + 1, n, DENSE_INPUTS), rng)
        return self.with_returns(features, features.sum(axis=-1) / np.sqrt(DENSE_INPUTS), rng)


class InteractionMarket(KnownAnswerMarket):
    """The expected return is the product of two AR(1) inputs, of which neither tells anything alone.

    The state is the pair as one complex number.
    """

    linear = False
    inputs = 2

    def expected_return(self, state: Array) -> Array:
        """Return E[next return | state], the shape of `state`."""
        response: Array = self.ic * state.real * state.imag
        return response

    def drawn(self, bars: int, n: int, rng: np.random.Generator) -> Paths:
        """Return `simulate` without distractors."""
        pair = ar1(self.rho, (bars + 1, n, 2), rng)
        return self.with_returns(pair, pair[..., 0] + 1j * pair[..., 1], rng)

    def grid(self) -> Array:
        """Return the grid of either input."""
        return PAIR_GRID

    def optimum(self) -> PairOptimum:
        """Return the best policy."""
        return PairOptimum(self)


class PairOptimum(Optimum):
    """The best policy of an `InteractionMarket` by value iteration on (first input, second input, position).

    Attributes
    ----------
    grid : values of either input, ascending
    value, action : (21, len(grid), len(grid)), value and best next position for each present position and pair
    """

    def __init__(self, market: InteractionMarket, tolerance: float = 1e-9) -> None:
        self.grid = market.grid()
        chance, size = market.transitions(), len(self.grid)
        earned = POSITIONS[:, None, None] * market.ic * np.outer(self.grid, self.grid)
        step = market.cost * (POSITIONS[1] - POSITIONS[0])
        value, change = np.zeros((len(POSITIONS), size, size)), np.inf
        while change > tolerance:
            held = earned + market.gamma * (chance @ value @ chance.T)
            new = held.copy()  # the best of all targets: linear costs are paid from neighbour to neighbour
            for i in range(1, len(POSITIONS)):
                np.maximum(new[i], new[i - 1] - step, out=new[i])
            for i in range(len(POSITIONS) - 2, -1, -1):
                np.maximum(new[i], new[i + 1] - step, out=new[i])
            change, value = float(np.abs(new - value).max()), new
        trade = market.cost * np.abs(POSITIONS[:, None] - POSITIONS)  # (from, to)
        best = [(held - paid[:, None, None]).argmax(axis=0) for paid in trade]
        self.value, self.action = value, POSITIONS[np.stack(best)]

    def act(self, state: Array, position: Array) -> Array:
        """Return the best next position of the nearest pair of the grid, shape of `state`."""
        pair = (nearest(self.grid, state.real), nearest(self.grid, state.imag))
        return self.action[nearest(POSITIONS, position), *pair]


_OTHERS = (
    RegimeMarket("M8", 0.80, ic=0.5, cost=1.0, noise=1.0),
    HourMarket("M10", 0.90, ic=0.3, cost=0.6, noise=0.954),
    SquareMarket("M12", 0.80, ic=0.05, cost=0.1, noise=0.9987, distractors=28),
    InteractionMarket("M13", 0.70, ic=0.05, cost=0.1, noise=0.9987, distractors=27),
    DenseMarket("M14", 0.90, ic=0.05, cost=0.1, noise=0.9987),
)
ALL_MARKETS = {
    market.name: market
    for market in sorted(
        (*MARKETS.values(), *_OTHERS), key=lambda market: float(market.name[1:].replace("-", "."))
    )
}
"""M0 to M14; from M11 on they are learnt from one finite path."""
