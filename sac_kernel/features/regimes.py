"""Two volatility regimes: a Gaussian hidden Markov model fitted on train bars, then filtered forward.

At bar t an agent may know the filtered probability P(state_t | bars <= t). The smoothed probability that
libraries return by default uses the future, so only the fit comes from hmmlearn; the filter is written here.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from sac_kernel.core.config import require
from sac_kernel.core.errors import DataError, InputNotFoundError
from sac_kernel.features import indicators
from sac_kernel.features.indicators import Memory

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

OBSERVATIONS = ("return_1h", "realised_volatility_4h", "range_1h")
"""Log return over one hour; log volatility of one-bar returns over four hours; log mean bar range over one hour."""

COVARIANCE_FLOOR = 1e-3
"""Smallest eigenvalue of a state's covariance, in units of the train variance."""

MIN_FIT_BARS = 500
_LOG_FLOOR = 1e-9
_FIT_BLOCKS, _BLOCK_BARS = 20, 2500  # the fit reads at most these, spread evenly over the train bars
_ITERATIONS = 60


@dataclass(frozen=True)
class RegimeDetector:
    """A fitted two-state model; state 0 is calm, state 1 has the larger variance of returns.

    Attributes
    ----------
    center, scale : train mean and standard deviation of each observation, shape (3,)
    start : probability of each state at the first bar, shape (2,)
    transition : probability of state j after state i, shape (2, 2), rows sum to 1
    means, covariances : of the standardised observations by state, shapes (2, 3) and (2, 3, 3)
    """

    center: FloatArray
    scale: FloatArray
    start: FloatArray
    transition: FloatArray
    means: FloatArray
    covariances: FloatArray

    @classmethod
    def fit(cls, bars: pd.DataFrame, bar_seconds: int, restarts: int = 4, seed: int = 0) -> RegimeDetector:
        """Fit on train bars by maximum likelihood (EM), the best of several starts.

        Raises
        ------
        InputNotFoundError
            If hmmlearn is not installed; only the fit needs it.
        DataError
            If there are fewer than 500 bars.
        """
        require(restarts > 0, "RegimeDetector.fit", "restarts must be > 0", restarts)
        if len(bars) < MIN_FIT_BARS:
            msg = (
                f"RegimeDetector.fit needs at least {MIN_FIT_BARS} train bars, got {len(bars)}. "
                "Pass more bars, or train an agent without regimes."
            )
            raise DataError(msg)
        hmm = _hmmlearn()
        x = observations(bars, bar_seconds)
        center, scale = x.mean(axis=0), np.maximum(x.std(axis=0), _LOG_FLOOR)
        z = (x - center) / scale
        starts = np.linspace(0, max(0, len(z) - _BLOCK_BARS), _FIT_BLOCKS if len(z) > _BLOCK_BARS else 1)
        blocks = [z[int(i) : int(i) + _BLOCK_BARS] for i in starts]
        sample, lengths = np.concatenate(blocks), [len(block) for block in blocks]
        models = [_spread_start(hmm, z, seed + k).fit(sample, lengths) for k in range(restarts)]
        best = max(models, key=lambda model: float(model.score(sample, lengths)))
        order = np.argsort(best.covars_[:, 0, 0])
        return cls(
            center,
            scale,
            best.startprob_[order],
            best.transmat_[np.ix_(order, order)],
            best.means_[order],
            np.stack([_floored(best.covars_[i]) for i in order]),
        )

    def filter(self, x: FloatArray, memory: Memory | None = None) -> FloatArray:
        """Return P(state_t | x_0 .. x_t), shape (n, 2), of raw observations, shape (n, 3).

        The forward recursion, normalised at every bar: alpha_t(j) = b_j(x_t) sum_i alpha_{t-1}(i) A_ij.
        """
        last = (memory or Memory()).state(2)
        precision, log_norm = self._density
        z = (x - self.center) / self.scale
        return np.asarray(_forward(z, self.start, self.transition, self.means, precision, log_norm, last))

    @functools.cached_property
    def _density(self) -> tuple[FloatArray, FloatArray]:
        """Inverse covariance of each state, and the log of its density's constant factor."""
        log_norm = np.linalg.slogdet(self.covariances)[1] + len(self.center) * math.log(2.0 * math.pi)
        return np.linalg.inv(self.covariances), -0.5 * log_norm

    def high_vol_prob(self, bars: pd.DataFrame, bar_seconds: int, memory: Memory | None = None) -> FloatArray:
        """Return the filtered probability of the volatile state at the close of each bar, shape (n,)."""
        return self.filter(observations(bars, bar_seconds, memory), memory)[:, 1].copy()

    def state(self) -> dict[str, Any]:
        """Return the model as plain values."""
        return {field.name: np.asarray(getattr(self, field.name)).tolist() for field in fields(self)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> RegimeDetector:
        """Return the model of `state`."""
        return cls(**{name: np.asarray(value, np.float64) for name, value in state.items()})


def observations(bars: pd.DataFrame, bar_seconds: int, memory: Memory | None = None) -> FloatArray:
    """Return the `OBSERVATIONS` at the close of each bar, shape (n, 3)."""
    path = indicators.log_path(bars, bar_seconds, memory)
    hour, hours4 = (max(1, round(s / bar_seconds)) for s in (3600, 4 * 3600))
    change = indicators.change(path.close, hour, memory)
    mean_square = indicators.rolling_mean(path.bar_return**2, hours4, memory)
    volatility = np.sqrt(np.maximum(mean_square, 0.0))
    bar_range = np.maximum(indicators.rolling_mean(path.high - path.low, hour, memory), 0.0)
    return np.stack((change, np.log(volatility + _LOG_FLOOR), np.log(bar_range + _LOG_FLOOR)), axis=1)


def _hmmlearn() -> Any:  # noqa: ANN401
    try:
        from hmmlearn import hmm
    except ImportError as err:
        msg = (
            f"RegimeDetector.fit needs the package hmmlearn: {err}. Run `pip install hmmlearn` at home. On Kaggle, "
            "add its wheel to the code dataset, or train an agent without regimes."
        )
        raise InputNotFoundError(msg) from err
    return hmm


def _spread_start(hmm: Any, z: FloatArray, seed: int) -> Any:  # noqa: ANN401
    """Return an unfitted model whose states start at random train rows, with the train covariance."""
    rng = np.random.default_rng(seed)
    model = hmm.GaussianHMM(
        2, "full", min_covar=COVARIANCE_FLOOR, n_iter=_ITERATIONS, tol=1e-2, random_state=seed, init_params=""
    )
    model.startprob_ = np.full(2, 0.5)
    stay = rng.uniform(0.9, 0.999)
    model.transmat_ = np.array([[stay, 1.0 - stay], [1.0 - stay, stay]])
    model.means_ = z[rng.choice(len(z), 2, replace=False)]
    model.covars_ = np.stack([_floored(np.cov(z.T))] * 2)
    return model


def _floored(covariance: FloatArray) -> FloatArray:
    values, vectors = np.linalg.eigh(covariance)
    floored = (vectors * np.maximum(values, COVARIANCE_FLOOR)) @ vectors.T
    return np.asarray((floored + floored.T) / 2.0)


@numba.njit(cache=True, fastmath=False)
def _forward(  # pragma: no cover  # noqa: PLR0913  # compiled
    z: FloatArray,
    start: FloatArray,
    transition: FloatArray,
    means: FloatArray,
    precision: FloatArray,
    log_norm: FloatArray,
    last: FloatArray,
) -> FloatArray:
    n, states, width = z.shape[0], means.shape[0], z.shape[1]
    begun = last.sum() > 0.0
    filtered = np.empty((n, states))
    log_density = np.empty(states)
    for t in range(n):
        for j in range(states):
            square = 0.0
            for a in range(width):
                for b in range(width):
                    square += (z[t, a] - means[j, a]) * precision[j, a, b] * (z[t, b] - means[j, b])
            log_density[j] = log_norm[j] - 0.5 * square
        top, total = log_density.max(), 0.0
        for j in range(states):
            prior = start[j]
            if begun or t > 0:
                prior = 0.0
                for i in range(states):
                    prior += last[i] * transition[i, j]
            filtered[t, j] = max(prior, 1e-300) * math.exp(log_density[j] - top)
            total += filtered[t, j]
        for j in range(states):
            filtered[t, j] /= total
        last[:] = filtered[t]
    return filtered
