"""The expected return given the features: what is left of a reward when its noise is taken out.

The trader is a price taker: the market part of a reward is action x next return, and nearly all of its
variance is noise that no action changes. Training on action x E[next return | features] - costs has the same
optimum and a far better signal (exogenous-input MDPs: Dietterich, Trimponias & Chen 2018, arXiv:1806.01584).
The expectation is estimated here, on train rows alone.

*Cross-fitted*: the estimate of a train row comes from models that never saw the rows of its fold, nor `purge`
rows on either side of it, so that no row's own noise returns as signal. *Shrunk*: a ridge whose penalty is
chosen by the same folds, then one slope towards the conditional expectation, measured out of fold; if zero
predicts better, the estimate is zero and an agent trained on it has nothing to trade on. A non-linear head
(`stump_boosting`) stands beside the ridge and is kept only if it wins out of fold. *Of the decision's own horizon*:
an agent that decides every hour is told what to expect of an hour, which a fit to five minutes does not know.

*Bias.* The estimate is not the truth: what the features say beyond these two models is lost, and a coefficient
that is noise is traded as if it were signal, though less than in sample. Rows of one fold share a model, so
the estimate jumps a little between folds. Penalty, rounds, head and slope are chosen on the rows they are
reported on, a handful of choices: the out-of-fold share of variance is slightly optimistic. Costs, stops and margin
are not touched: only the return is replaced. Evaluation must use realised prices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sac_kernel.core.config import require
from sac_kernel.core.errors import DataError
from sac_kernel.features import stumps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from sac_kernel.features.stumps import BinArray

    Array = NDArray[np.float64]
    Splits = list[tuple[NDArray[np.int64], NDArray[np.int64]]]

PENALTIES = np.logspace(-4.0, 2.0, 13)
"""Ridge penalties, as shares of the number of rows: at 1 a standardised, uncorrelated input is halved."""

ROUNDS = (25, 50, 100, 200, 400)
"""Rounds of boosting that compete out of fold."""

SIGNIFICANCE = 2.5
"""Standard errors by which an estimate must agree with the returns out of fold, or it is zero; and by which
the non-linear head must beat the ridge."""

LEAST_RUNS = 30
"""Independent looks below which overlapping returns show nothing, however well the estimate agrees with them."""

_RUN_HORIZONS = 4


@dataclass(frozen=True)
class ReturnForecast:
    """A fitted estimate of E[mean of the next `horizon` returns | features].

    Attributes
    ----------
    train : (rows,) out-of-fold estimates of the train rows, in units of the return a bar; 0 where a row has NaN
    share : out-of-fold share of the return's variance that the estimate explains, before shrinkage to zero
    t_stat : standard errors by which mean(return x estimate) exceeds zero out of fold; 0 where the rows are fewer than
        `LEAST_RUNS` independent looks
    head : 'flat', 'ridge' or 'boosting'
    penalty : of the ridge, as a share of the rows
    rounds : of the boosting; 0 where it did not compete
    slope : multiplier of the raw prediction that makes it right on average; 0 for 'flat'
    """

    train: Array
    share: float
    t_stat: float
    head: str
    penalty: float
    rounds: int
    slope: float
    _mean: Array
    _scale: Array
    _weights: Array  # (folds + 1, columns)
    _edges: Array | None = None
    _steps: Array | None = None  # (folds + 1, columns, BINS)

    @property
    def folds(self) -> int:
        """Return the number of blocks in time."""
        return len(self._weights) - 1

    def predict(self, features: ArrayLike, fold: int = -1) -> Array:
        """Return estimates (rows,) of features (rows, columns), 0 where a row has NaN.

        Parameters
        ----------
        features : new rows, or with `fold` any
        fold : the block whose rows the model never saw; -1 is the model of all train rows. A row's estimate is
            the same bit for bit whatever the other rows are
        """
        x, ok = _finite_rows(features)
        out = np.zeros(len(x))
        if self.head == "flat" or not ok.any():
            return out
        z = (x[ok] - self._mean) / self._scale
        if self._steps is not None and self._edges is not None:
            raw = stumps.added(self._steps[fold], stumps.to_bins(z, self._edges))
        else:  # column by column: a matrix product's last bits depend on the number of rows
            raw = sum(w * column for w, column in zip(self._weights[fold], z.T, strict=True))
        out[ok] = self.slope * raw
        return out

    def state(self) -> dict[str, Any]:
        """Return what `predict` needs, as plain values."""
        arrays = {"mean": self._mean, "scale": self._scale, "weights": self._weights}
        if self._steps is not None and self._edges is not None:
            arrays |= {"edges": self._edges, "steps": self._steps}
        return {**self.summary(), **{name: np.asarray(value).tolist() for name, value in arrays.items()}}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> ReturnForecast:
        """Return the estimate that `state` describes; its train rows stay where they were fitted."""
        arrays = {k: np.asarray(v, np.float64) for k, v in state.items() if isinstance(v, list)}
        return cls(
            np.zeros(0), state["out_of_fold_share"], state["t_stat"], state["head"], state["penalty"],
            state["rounds"], state["slope"], arrays["mean"], arrays["scale"], arrays["weights"],
            arrays.get("edges"), arrays.get("steps"),
        )  # fmt: skip

    def summary(self) -> dict[str, float | str]:
        """Return the plain facts for a log or a report."""
        return {
            "head": self.head,
            "penalty": self.penalty,
            "rounds": self.rounds,
            "slope": self.slope,
            "out_of_fold_share": self.share,
            "t_stat": self.t_stat,
        }


def fit_forecast(
    features: ArrayLike,
    returns: ArrayLike,
    folds: int = 5,
    purge: int = 100,
    boosting: bool = True,
    horizon: int = 1,
) -> ReturnForecast:
    """Fit E[mean of the next `horizon` returns | features] on train rows.

    Parameters
    ----------
    features : (rows, columns), known at the close of each row, in order of time
    returns : (rows,), from the close of a row to the close of the next; the last row's return lies outside
        the train rows and must be NaN, as must any other that is not to be used
    folds : blocks in time; each is predicted by models of the others
    purge : rows left out on either side of the predicted block: longer than a feature remembers
    boosting : whether the non-linear head may compete
    horizon : rows ahead whose mean return is estimated; `purge` grows by what the targets overlap

    Raises
    ------
    DataError
        If the shapes differ or fewer than 50 usable rows a fold are left.
    """
    require(folds >= 2, "fit_forecast", "folds must be >= 2", folds)
    require(purge >= 0, "fit_forecast", "purge must be >= 0", purge)
    require(horizon >= 1, "fit_forecast", "horizon must be >= 1", horizon)
    x, known = _finite_rows(features)
    y = np.asarray(returns, np.float64)
    if y.shape != (len(x),):
        msg = f"fit_forecast: returns of shape ({len(x)},) are required, found {y.shape}"
        raise DataError(msg)
    y = _mean_ahead(y, horizon)
    usable = known & np.isfinite(y)
    if usable.sum() < 50 * folds or (np.bincount(_blocks(len(x), folds)[usable], minlength=folds) < 50).any():
        msg = (
            f"fit_forecast: 50 usable rows in each of {folds} folds are required, found {usable.sum()} in all"
        )
        raise DataError(msg)
    mean, scale = x[usable].mean(axis=0), x[usable].std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    z = np.zeros_like(x)
    z[known] = (x[known] - mean) / scale
    splits = _splits(len(x), folds, purge + horizon - 1, usable)

    by_penalty, ridges = _ridge_out_of_fold(z, y, splits, known)
    best = int(np.argmin([_loss(y, raw, usable).mean() for raw in by_penalty]))
    weights = _ridge(z[usable], y[usable], PENALTIES[best : best + 1])[:, 0]
    weights = np.stack([*(fold[:, best] for fold in ridges), weights])
    head, raw, rounds, edges, steps = "ridge", by_penalty[best], 0, None, None
    if boosting:
        edges = stumps.bin_edges(z[usable])
        bins = stumps.to_bins(z, edges)
        by_rounds, grown = _boosting_out_of_fold(bins, y, splits, known)
        # Each calibrated first: a few rounds at a small rate fall short of the truth.
        losses = [_loss(y, _slope(y, each, usable) * each, usable) for each in by_rounds]
        least = int(np.argmin([loss.mean() for loss in losses]))
        rounds, ridge = ROUNDS[least], _slope(y, raw, usable) * raw
        if _t_stat(_loss(y, ridge, usable) - losses[least], horizon) > SIGNIFICANCE:  # Diebold & Mariano 1995
            head, raw = "boosting", by_rounds[least]
            whole = _grow(bins[usable], y[usable], ROUNDS[: least + 1])
            steps = np.stack([*(fold[least] for fold in grown), whole[least]])
    slope = _slope(y, raw, usable)
    t_stat = _t_stat((y * raw)[usable], horizon)
    share = 1.0 - float(_loss(y, slope * raw, usable).sum() / np.square(y)[usable].sum())
    if t_stat < SIGNIFICANCE:
        head, slope, steps = "flat", 0.0, None
    return ReturnForecast(
        slope * raw, share, t_stat, head, float(PENALTIES[best]), rounds, slope, mean, scale, weights,
        None if steps is None else edges, steps,
    )  # fmt: skip


def reward_spread(returns: ArrayLike, cost: float) -> float:
    """Return the size of a decision's reward that an agent's reward scale divides by.

    The standard deviation of what a unit position earns (the estimate where rewards are denoised), or half the
    one-way cost of a unit where that is more: rewards that are nearly all cost would be huge in units of a
    small estimate, and a critic learns huge values slowly.

    Parameters
    ----------
    returns : (rows,), of all bars of a decision; NaN is left out
    cost : of trading one unit, in the unit of the returns
    """
    return max(float(np.nanstd(np.asarray(returns, np.float64))), 0.5 * cost)


def _finite_rows(features: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    x = np.asarray(features, np.float64)
    if x.ndim != 2:
        msg = f"fit_forecast: features of shape (rows, columns) are required, found {x.shape}"
        raise DataError(msg)
    return x, np.isfinite(x).all(axis=1)


def block_starts(rows: int, folds: int) -> NDArray[np.int64]:
    """Return the first row of each block in time."""
    return np.searchsorted(_blocks(rows, folds), np.arange(folds))


def _blocks(rows: int, folds: int) -> NDArray[np.int64]:
    return np.minimum(np.arange(rows) * folds // max(rows, 1), folds - 1)


def _splits(rows: int, folds: int, purge: int, usable: NDArray[np.bool_]) -> Splits:
    """Return (rows to fit on, rows to predict): all usable rows `purge` away from a block in time, and the block."""
    block, out = _blocks(rows, folds), []
    for fold in range(folds):
        held = np.flatnonzero(block == fold)
        near = slice(max(held[0] - purge, 0), held[-1] + purge + 1)
        fit = usable.copy()
        fit[near] = False
        out.append((np.flatnonzero(fit), held))
    return out


def _ridge(z: Array, y: Array, penalties: Array) -> Array:
    """Return ridge weights, (columns, penalties), of standardised inputs; no intercept.

    A drift is no signal: an intercept would make the agent hold the train period's own trend.
    """
    values, vectors = np.linalg.eigh(z.T @ z / len(y))
    projected = vectors.T @ (z.T @ y / len(y))
    return np.asarray(vectors @ (projected[:, None] / (np.maximum(values, 0.0)[:, None] + penalties)))


def _ridge_out_of_fold(
    z: Array, y: Array, splits: Splits, known: NDArray[np.bool_]
) -> tuple[Array, list[Array]]:
    """Return raw predictions for each of `PENALTIES`, shape (penalties, rows), and the weights of each fold."""
    raw, models = np.zeros((len(PENALTIES), len(y))), []
    for fit, held in splits:
        models.append(_ridge(z[fit], y[fit], PENALTIES))
        raw[:, held] = (z[held] @ models[-1]).T
    return raw * known, models


def _boosting_out_of_fold(
    bins: BinArray, y: Array, splits: Splits, known: NDArray[np.bool_]
) -> tuple[Array, list[Array]]:
    """Return raw predictions after each of `ROUNDS`, shape (len(ROUNDS), rows), and the steps of each fold."""
    raw, models = np.zeros((len(ROUNDS), len(y))), []
    for fit, held in splits:
        models.append(_grow(bins[fit], y[fit], ROUNDS))
        for i, steps in enumerate(models[-1]):
            raw[i, held] = stumps.added(steps, bins[held])
    return raw * known, models


def _grow(bins: BinArray, y: Array, rounds: Sequence[int]) -> Array:
    return stumps.grow(bins, y - y.mean(), rounds)  # a drift is no signal here either


def _loss(y: Array, raw: Array, usable: NDArray[np.bool_]) -> Array:
    """Return the squared error of each usable row."""
    return np.asarray(np.square(y - raw)[usable])


def _slope(y: Array, raw: Array, usable: NDArray[np.bool_]) -> float:
    """Return E[y raw] / E[raw^2] out of fold, at least 0: what a prediction of one is worth in returns."""
    power = float(np.square(raw)[usable].sum())
    return max(float((y * raw)[usable].sum()) / power, 0.0) if power > 0 else 0.0


def _mean_ahead(returns: Array, horizon: int) -> Array:
    """Return the mean of each row's and the following returns, `horizon` in all; NaN where one of them is not known."""
    if horizon == 1:
        return returns
    out = np.full(len(returns), np.nan)
    if len(returns) >= horizon:
        out[: len(returns) - horizon + 1] = sliding_window_view(returns, horizon).mean(axis=1)
    return out


def _t_stat(values: Array, horizon: int) -> float:
    """Return the mean in standard errors.

    Returns of one bar are as good as uncorrelated, so rows count in full. Returns over a longer horizon overlap: the
    error is that of the means of runs of four horizons, which overlap hardly at all. Of pure noise about one in a
    hundred is above 2.5 at 30 runs.
    """
    if horizon > 1:
        length = _RUN_HORIZONS * horizon
        runs = len(values) // length
        if runs < LEAST_RUNS:
            return 0.0
        values = values[: runs * length].reshape(runs, length).mean(axis=1)
    error = float(values.std(ddof=int(horizon > 1))) / np.sqrt(len(values))
    return float(values.mean() / error) if error > 0 else 0.0
