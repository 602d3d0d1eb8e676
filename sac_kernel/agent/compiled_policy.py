"""Compiled policies for one observation at a time, as a run over a split needs at every bar.

For one row a framework's overhead is many times the arithmetic. The sums run in a fixed order, one input after the
other, so an action depends on the observation alone: a live decision equals that of the backtest bit for bit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba
import numpy as np

from sac_kernel.agent.exact_grid import SAME_POSITION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Widths = NDArray[np.int64]
    Doubles = NDArray[np.float64]
    Layers = Sequence[tuple[Floats, Floats]]
    """Weight (outputs, inputs) and bias (outputs,) of each layer."""


def compiled(layers: Layers) -> Callable[[Floats], float]:
    """Return tanh of a network of ReLU layers, observation (inputs,) -> action in [-1, 1].

    Parameters
    ----------
    layers : copied; the last layer's first output is used
    """
    *hidden, (weight, bias) = layers
    packed, widths = _pack([*hidden, (weight[:1], bias[:1])])
    x, y = np.empty((2, widths.max()), np.float32)
    return lambda obs: _tanh_forward(obs, packed, widths, x, y)


def compiled_exact(
    networks: Sequence[Layers], scales: Sequence[float], grid: Doubles
) -> Callable[[Floats], float]:
    """Return `exact_grid.greedy_target` on the mean W of networks of one shape, as a function of one observation.

    An observation is features (inputs,), cost of the fill, whether it can fill, target held. The target comes back as
    a float32 number, so that a target held is given back bit for bit after an environment's float32 action.

    Parameters
    ----------
    networks : layers of each
    scales : of each, from return units to those of its W
    grid : positions, (outputs,)
    """
    parts = [_pack(layers) for layers in networks]
    packed, widths = np.stack([values for values, _ in parts]), parts[0][1]
    weights = 1.0 / (len(networks) * np.asarray(scales, np.float64))
    x, y = np.empty((2, widths.max()), np.float32)
    targets, w = grid.astype(np.float32).astype(np.float64), np.empty(len(grid))
    return lambda obs: _exact_target(obs, packed, widths, weights, targets, w, x, y)


def _pack(layers: Layers) -> tuple[Floats, Widths]:
    widths = np.array([layers[0][0].shape[1], *(len(b) for _, b in layers)])
    packed = np.concatenate([values.ravel() for w, b in layers for values in (b, w.T)]).astype(np.float32)
    return packed, widths


@numba.njit(cache=True, fastmath=False)
def _tanh_forward(  # pragma: no cover  # compiled
    obs: Floats, packed: Floats, widths: Widths, x: Floats, y: Floats
) -> float:
    return math.tanh(float(_forward(obs, packed, widths, x, y)[0]))


@numba.njit(cache=True, fastmath=False)
def _exact_target(  # noqa: PLR0913  # pragma: no cover  # compiled
    obs: Floats,
    packed: Floats,
    widths: Widths,
    weights: Doubles,
    grid: Doubles,
    w: Doubles,
    x: Floats,
    y: Floats,
) -> float:
    n, count = widths[0], len(grid)
    cost, can_fill, held = float(obs[n]), obs[n + 1] > 0.0, float(obs[n + 2])
    if not can_fill:
        return held
    w[:] = 0.0
    for k in range(len(weights)):
        value = _forward(obs, packed[k], widths, x, y)
        for j in range(count):
            w[j] += weights[k] * float(value[j])
    place = (held + 1.0) * (count - 1) / 2.0
    below = min(int(place), count - 2)
    share = place - below
    best, target = w[below] * (1.0 - share) + w[below + 1] * share, held
    for j in range(count):
        distance = abs(grid[j] - held)
        if distance >= SAME_POSITION and w[j] - cost * distance > best:
            best, target = w[j] - cost * distance, grid[j]
    return target


@numba.njit(cache=True, fastmath=False)
def _forward(  # pragma: no cover  # compiled
    obs: Floats, packed: Floats, widths: Widths, x: Floats, y: Floats
) -> Floats:
    """Return the outputs, in one of the two buffers."""
    x[: widths[0]] = obs[: widths[0]]
    start = 0
    for layer in range(len(widths) - 1):
        inputs, outputs = widths[layer], widths[layer + 1]
        y[:outputs] = packed[start : start + outputs]
        start += outputs
        for i in range(inputs):
            if x[i] != 0.0:  # false for about half after a ReLU
                for j in range(outputs):
                    y[j] += x[i] * packed[start + j]
            start += outputs
        if layer < len(widths) - 2:
            for j in range(outputs):
                y[j] = max(y[j], np.float32(0.0))
        x, y = y, x
    return x
