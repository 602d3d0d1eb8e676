"""A compiled policy network for one observation at a time, as a run over a split needs at every bar.

For one row a framework's overhead is many times the arithmetic. The sums run in a fixed order, one input after the
other, so an action depends on the observation alone: a live decision equals that of the backtest bit for bit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


def compiled(layers: Sequence[tuple[Floats, Floats]]) -> Callable[[Floats], float]:
    """Return tanh of a network of ReLU layers, observation (inputs,) -> action in [-1, 1].

    Parameters
    ----------
    layers : weight (outputs, inputs) and bias (outputs,) of each, copied; the last layer's first output is used
    """
    *hidden, (weight, bias) = layers
    parts = [*hidden, (weight[:1], bias[:1])]
    widths = np.array([parts[0][0].shape[1], *(len(b) for _, b in parts)])
    packed = np.concatenate([values.ravel() for w, b in parts for values in (b, w.T)]).astype(np.float32)
    x, y = np.empty((2, widths.max()), np.float32)
    return lambda obs: _forward(obs, packed, widths, x, y)


@numba.njit(cache=True, fastmath=False)
def _forward(  # pragma: no cover  # compiled
    obs: Floats, packed: Floats, widths: NDArray[np.int64], x: Floats, y: Floats
) -> float:
    x[: widths[0]] = obs
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
    return math.tanh(float(x[0]))
