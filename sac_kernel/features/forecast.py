"""Return forecast, E[next return | features]: what remains of a reward when its noise is removed.

The trader is a price taker, so training on action x E[next return | features] - costs has the same optimum as
training on realised returns, and far less noise (exogenous-input MDPs: Dietterich, Trimponias & Chen 2018,
arXiv:1806.01584). The forecast is fitted here, on train rows alone, cross-fitted and shrunk; docs/learning.md,
"Denoised rewards", describes its parts and its biases. Rows of one fold share a model, so the forecast jumps a little
between folds. Only the return is replaced; costs, stops and margin stay realised. Evaluation must use realised prices.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sac_kernel.core.config import require
from sac_kernel.core.errors import DataError
from sac_kernel.core.renamed import renamed_arguments
from sac_kernel.features import mixture_prior, products, stumps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from sac_kernel.features.stumps import BinArray

    Array = NDArray[np.float64]
    Splits = list[tuple[NDArray[np.int64], NDArray[np.int64]]]

HEADS = ("ridge", "sparse", "products", "boosting")
"""Models that compete: ridge, `mixture_prior`, `products`, `stumps`. The first two are linear."""

PENALTIES = np.logspace(-4.0, 2.0, 13)
"""Ridge penalties as shares of the number of rows; 1 halves the weight of a standardised, uncorrelated input."""

ROUNDS = (25, 50, 100, 200, 400)
"""Numbers of boosting rounds that compete out of fold."""

SIGNIFICANCE = 2.5
"""Out-of-fold t-statistic below which the forecast is zero, and which a non-linear head needs against a linear one."""

LEAST_RUNS = 30
"""With fewer independent runs than this, overlapping targets prove nothing, however well the forecast fits."""

_RUN_STRIDES = 4


@dataclass(frozen=True)
class ReturnForecast:
    """A fitted forecast, E[target | features].

    Attributes
    ----------
    train : (rows,) out-of-fold forecasts of the train rows, in the target's unit; 0 where a feature is NaN
    share : out-of-fold share of the target's variance that the forecast explains, before it is set to zero
    t_stat : out-of-fold t-statistic of mean(target x forecast); 0 with fewer than `LEAST_RUNS` independent runs
    head : one of `HEADS`, or 'flat'
    penalty : of the ridge, as a share of the rows
    rounds : of the boosting; 0 if it did not compete
    slope : factor that makes the raw prediction right on average; 0 for 'flat'
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
    _products: Array | None = None  # (folds + 1, products.MOST, 4)

    @property
    def folds(self) -> int:
        """Return the number of folds, which are blocks in time."""
        return len(self._weights) - 1

    def predict(self, features: ArrayLike, fold: int = -1) -> Array:
        """Return forecasts (rows,) of features (rows, columns), 0 where a row has NaN.

        A row's forecast does not depend on the other rows, bit for bit.

        Parameters
        ----------
        features : any rows with `fold`, otherwise new rows
        fold : use the model that never saw this block; -1 is the model of all train rows
        """
        x, ok = _finite_rows(features)
        forecast = np.zeros(len(x))
        if self.head == "flat" or not ok.any():
            return forecast
        z = (x[ok] - self._mean) / self._scale
        if self._steps is not None and self._edges is not None:
            raw = stumps.added(self._steps[fold], stumps.to_bins(z, self._edges))
        else:
            table = np.zeros((0, 4)) if self._products is None else self._products[fold]
            raw = products.added(self._weights[fold], table, z)
        forecast[ok] = self.slope * raw
        return forecast

    def state(self) -> dict[str, Any]:
        """Return what `predict` needs, as plain values."""
        arrays = {"mean": self._mean, "scale": self._scale, "weights": self._weights}
        if self._steps is not None and self._edges is not None:
            arrays |= {"edges": self._edges, "steps": self._steps}
        if self._products is not None:
            arrays["products"] = self._products
        return {**self.summary(), **{name: np.asarray(value).tolist() for name, value in arrays.items()}}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> ReturnForecast:
        """Return the forecast of `state`, without `train`."""
        arrays = {k: np.asarray(v, np.float64) for k, v in state.items() if isinstance(v, list)}
        return cls(
            np.zeros(0), state["out_of_fold_share"], state["t_stat"], state["head"], state["penalty"],
            state["rounds"], state["slope"], arrays["mean"], arrays["scale"], arrays["weights"],
            arrays.get("edges"), arrays.get("steps"), arrays.get("products"),
        )  # fmt: skip

    def summary(self) -> dict[str, float | str]:
        """Return the figures for a log or a report."""
        return {
            "head": self.head,
            "penalty": self.penalty,
            "rounds": self.rounds,
            "slope": self.slope,
            "out_of_fold_share": self.share,
            "t_stat": self.t_stat,
        }


@renamed_arguments(boosting="heads")
def fit_forecast(  # noqa: PLR0913  # one fit, all its settings
    features: ArrayLike,
    target: ArrayLike,
    folds: int = 5,
    purge: int = 100,
    heads: Sequence[str] | bool = HEADS,
    stride: int = 1,
    *,
    raw: bool = False,
) -> ReturnForecast:
    """Fit E[target | features] on train rows.

    Parameters
    ----------
    features : (rows, columns), known at the close of each row, in order of time
    target : (rows,), what a unit of position earns from a decision at the close of each row; NaN rows are
        forecast, but nothing is learnt from them. NaN belongs where the order cannot fill, and where the decision
        ends outside the train rows
    folds : blocks in time; each is predicted by a model of the others
    purge : rows left out on either side of the predicted block; must exceed the memory of the features
    heads : those of `HEADS` that compete, a linear one among them. Of the linear ones that with the least squared error
        out of fold is taken; a non-linear one replaces it if its error is lower by `SIGNIFICANCE` standard errors
    stride : rows that a decision covers, so that the targets of `stride` rows overlap; `purge` grows accordingly
    raw : take the prediction as it is, significant or not, with slope 1

    Raises
    ------
    DataError
        If the shapes differ or a fold has fewer than 50 usable rows.
    """
    require(folds >= 2, "fit_forecast", "folds must be >= 2", folds)
    require(purge >= 0, "fit_forecast", "purge must be >= 0", purge)
    require(stride >= 1, "fit_forecast", "stride must be >= 1", stride)
    if isinstance(heads, bool):  # as `boosting` was given
        heads = HEADS if heads else ("ridge",)
    linear = [name for name in heads if name in HEADS[:2]]
    good = bool(linear) and set(heads) <= set(HEADS)
    require(good, "fit_forecast", f"heads must be of {', '.join(HEADS)}, with a linear one", heads)
    x, known = _finite_rows(features)
    y = np.asarray(target, np.float64)
    if y.shape != (len(x),):
        msg = f"fit_forecast: the target must have shape ({len(x)},), got {y.shape}"
        raise DataError(msg)
    usable = known & np.isfinite(y)
    if usable.sum() < 50 * folds or (np.bincount(_blocks(len(x), folds)[usable], minlength=folds) < 50).any():
        msg = f"fit_forecast: each of {folds} folds needs 50 usable rows, got {usable.sum()} rows in all"
        raise DataError(msg)
    mean, scale = x[usable].mean(axis=0), x[usable].std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    z = np.zeros_like(x)
    z[known] = (x[known] - mean) / scale
    splits = _splits(len(x), folds, purge + stride - 1, usable)

    data = _Rows(z, y, usable, known, splits, stride)
    made = {name: _FITS[name](data) for name in HEADS if name in heads}
    losses = {name: _loss(y, _slope(y, each.raw, usable) * each.raw, usable) for name, each in made.items()}
    plain = min(linear, key=lambda name: float(losses[name].mean()))
    # Diebold & Mariano 1995: is the difference of squared errors more than luck?
    better = [name for name in made if _t_stat(losses[plain] - losses[name], stride) > SIGNIFICANCE]
    head = min([plain, *(set(better) - set(linear))], key=lambda name: float(losses[name].mean()))
    best = made[head]
    slope, t_stat = _slope(y, best.raw, usable), _t_stat((y * best.raw)[usable], stride)
    share = 1.0 - float(losses[head].sum() / np.square(y)[usable].sum())
    if raw:
        slope = 1.0
    elif t_stat < SIGNIFICANCE:
        head, slope, best = "flat", 0.0, best._replace(edges=None, steps=None, products=None)
    settings = {k: v for each in made.values() for k, v in each.settings.items()}
    return ReturnForecast(
        slope * best.raw, share, t_stat, head, settings.get("penalty", 0.0), int(settings.get("rounds", 0)), slope,
        mean, scale, best.weights, best.edges, best.steps, best.products,
    )  # fmt: skip


def mean_ahead(returns: Array, bars: int) -> Array:
    """Return the mean of `bars` returns from each row on, (rows,); NaN where one of them is not known."""
    mean = np.full(len(returns), np.nan)
    if len(returns) >= bars:
        mean[: len(returns) - bars + 1] = sliding_window_view(returns, bars).mean(axis=1)
    return mean


def reward_spread(returns: ArrayLike, cost: float) -> float:
    """Return the size of a decision's reward, by which the reward scale divides.

    This is the standard deviation of a unit position's return (of its forecast if rewards are denoised), or half
    the one-way cost of a unit if that is more: divided by a small forecast, rewards that are nearly all cost
    would be huge, and a critic learns huge values slowly.

    Parameters
    ----------
    returns : (rows,), sum over the bars of a decision; NaN is left out
    cost : of trading one unit, in the unit of the returns
    """
    return max(float(np.nanstd(np.asarray(returns, np.float64))), 0.5 * cost)


def _finite_rows(features: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    x = np.asarray(features, np.float64)
    if x.ndim != 2:
        msg = f"fit_forecast: features must have shape (rows, columns), got {x.shape}"
        raise DataError(msg)
    return x, np.isfinite(x).all(axis=1)


def block_starts(rows: int, folds: int) -> NDArray[np.int64]:
    """Return the first row of each block in time."""
    return np.searchsorted(_blocks(rows, folds), np.arange(folds))


def _blocks(rows: int, folds: int) -> NDArray[np.int64]:
    return np.minimum(np.arange(rows) * folds // max(rows, 1), folds - 1)


def _splits(rows: int, folds: int, purge: int, usable: NDArray[np.bool_]) -> Splits:
    """Return (rows to fit on, rows to predict) of each block: usable rows at least `purge` away, and the block."""
    block, splits = _blocks(rows, folds), []
    for fold in range(folds):
        held = np.flatnonzero(block == fold)
        near = slice(max(held[0] - purge, 0), held[-1] + purge + 1)
        fit = usable.copy()
        fit[near] = False
        splits.append((np.flatnonzero(fit), held))
    return splits


def _ridge(z: Array, y: Array, penalties: Array) -> Array:
    """Return ridge weights, (columns, penalties), of standardised inputs; no intercept.

    A drift is no signal: with an intercept the agent would hold the train period's own trend.
    """
    values, vectors = np.linalg.eigh(z.T @ z / len(y))
    projected = vectors.T @ (z.T @ y / len(y))
    return np.asarray(vectors @ (projected[:, None] / (np.maximum(values, 0.0)[:, None] + penalties)))


class _Rows(NamedTuple):
    """Standardised train rows, (rows, columns) and (rows,), and how they are split."""

    z: Array
    y: Array
    usable: NDArray[np.bool_]
    known: NDArray[np.bool_]
    splits: Splits
    stride: int


class _Fit(NamedTuple):
    """A head: raw out-of-fold predictions (rows,) and its models, each fold's and that of all rows."""

    raw: Array
    weights: Array
    products: Array | None = None
    edges: Array | None = None
    steps: Array | None = None
    settings: Mapping[str, float] = MappingProxyType({})


def _fit_ridge(data: _Rows) -> _Fit:
    z, y, usable = data.z, data.y, data.usable
    raw, models = np.zeros((len(PENALTIES), len(y))), []
    for fit, held in data.splits:
        models.append(_ridge(z[fit], y[fit], PENALTIES))
        raw[:, held] = (z[held] @ models[-1]).T
    raw = raw * data.known
    best = int(np.argmin([_loss(y, each, usable).mean() for each in raw]))
    whole = _ridge(z[usable], y[usable], PENALTIES[best : best + 1])[:, 0]
    weights = np.stack([*(fold[:, best] for fold in models), whole])
    return _Fit(raw[best], weights, settings={"penalty": float(PENALTIES[best])})


def _fit_sparse(data: _Rows) -> _Fit:
    z, y, raw, models = data.z, data.y, np.zeros(len(data.y)), []
    for fit, held in data.splits:
        models.append(mixture_prior.weights(z[fit], y[fit], data.stride))
        raw[held] = z[held] @ models[-1]
    models.append(mixture_prior.weights(z[data.usable], y[data.usable], data.stride))
    return _Fit(raw * data.known, np.stack(models))


def _fit_products(data: _Rows) -> _Fit:
    z, y, raw, models = data.z, data.y, np.zeros(len(data.y)), []
    for fit, held in [*data.splits, (np.flatnonzero(data.usable), np.zeros(0, np.int64))]:
        linear = mixture_prior.weights(z[fit], y[fit], data.stride)
        models.append(products.fit(z[fit], y[fit], linear, data.stride))
        raw[held] = products.added(*models[-1], z[held])
    weights, tables = zip(*models, strict=True)
    return _Fit(raw * data.known, np.stack(weights), np.stack(tables))


def _fit_boosting(data: _Rows) -> _Fit:
    z, y, usable = data.z, data.y, data.usable
    edges = stumps.bin_edges(z[usable])
    bins = stumps.to_bins(z, edges)
    raw, grown = np.zeros((len(ROUNDS), len(y))), []
    for fit, held in data.splits:
        grown.append(_grow(bins[fit], y[fit], ROUNDS))
        for i, steps in enumerate(grown[-1]):
            raw[i, held] = stumps.added(steps, bins[held])
    raw = raw * data.known
    # Calibrated first: a few rounds at a small learning rate predict too little.
    losses = [_loss(y, _slope(y, guess, usable) * guess, usable).mean() for guess in raw]
    least = int(np.argmin(losses))
    whole = _grow(bins[usable], y[usable], ROUNDS[: least + 1])
    steps = np.stack([*(fold[least] for fold in grown), whole[least]])
    unused = np.zeros(steps.shape[:2])
    return _Fit(raw[least], unused, edges=edges, steps=steps, settings={"rounds": ROUNDS[least]})


_FITS = {
    "ridge": _fit_ridge, "sparse": _fit_sparse, "products": _fit_products, "boosting": _fit_boosting,
}  # fmt: skip


def _grow(bins: BinArray, y: Array, rounds: Sequence[int]) -> Array:
    return stumps.grow(bins, y - y.mean(), rounds)  # a drift is no signal here either


def _loss(y: Array, raw: Array, usable: NDArray[np.bool_]) -> Array:
    """Return the squared error of each usable row."""
    return np.asarray(np.square(y - raw)[usable])


def _slope(y: Array, raw: Array, usable: NDArray[np.bool_]) -> float:
    """Return E[y raw] / E[raw^2] out of fold, at least 0: the return that a prediction of 1 stands for."""
    power = float(np.square(raw)[usable].sum())
    return max(float((y * raw)[usable].sum()) / power, 0.0) if power > 0 else 0.0


def _t_stat(values: Array, stride: int) -> float:
    """Return the mean in standard errors.

    Targets of one row are nearly uncorrelated, so every row counts. Longer ones overlap: their error comes from the
    means of runs of four strides, which hardly overlap. With 30 runs about 1 % of pure noise exceeds 2.5.
    """
    if stride > 1:
        length = _RUN_STRIDES * stride
        runs = len(values) // length
        if runs < LEAST_RUNS:
            return 0.0
        values = values[: runs * length].reshape(runs, length).mean(axis=1)
    error = float(values.std(ddof=int(stride > 1))) / np.sqrt(len(values))
    return float(values.mean() / error) if error > 0 else 0.0
