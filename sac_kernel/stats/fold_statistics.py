"""Statistics over the seeds and folds of a walk-forward."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sac_kernel.core import strings
from sac_kernel.stats import metrics
from sac_kernel.stats.significance import BOOTSTRAP_DRAWS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from sac_kernel.stats.trials import Trial

    FloatArray = NDArray[np.float64]


def iqm(scores: FloatArray) -> float:
    """Return the interquartile mean: the mean of the middle half of all runs (Agarwal et al. 2021)."""
    ordered = np.sort(scores, axis=None)
    cut = ordered.size // 4
    return float(ordered[cut : ordered.size - cut].mean())


def iqm_interval(
    scores: FloatArray, level: float = 0.95, draws: int = BOOTSTRAP_DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Return the interval of the IQM of `scores`, shape (seeds, folds): seeds are resampled within each fold.

    Stratified bootstrap, Agarwal et al. 2021, arXiv:2108.13264.
    """
    seeds, folds = scores.shape
    picked = np.random.default_rng(seed).integers(0, seeds, (draws, seeds, folds))
    sample = np.sort(scores[picked, np.arange(folds)].reshape(draws, -1), axis=1)
    cut = seeds * folds // 4
    value = sample[:, cut : seeds * folds - cut].mean(axis=1)
    low, high = np.quantile(value, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def probability_of_improvement(ours: FloatArray, theirs: FloatArray) -> float:
    """Return the chance that a run of ours beats one of theirs, averaged over folds; ties count half.

    Both of shape (runs, folds). Agarwal et al. 2021, section 4.3.
    """
    above = (ours[:, None, :] > theirs[None]) + 0.5 * (ours[:, None, :] == theirs[None])
    return float(above.mean())


def path_sharpes(paths: FloatArray) -> dict[str, Any]:
    """Return the distribution of the Sharpe ratio over the backtest paths of CPCV (Lopez de Prado 2018, ch. 12).

    The paths share days and training data, so the deviation is no standard error.

    Parameters
    ----------
    paths : daily returns, shape (n_paths, n_days)

    Returns
    -------
    dict
        sharpe_ann (one a path, increasing), mean, sd (ddof 1; NaN for one path), low, middle, high (quartiles),
        negative (share of paths below 0), sentence
    """
    sharpes = np.sort([metrics.sharpe_ann(path) for path in paths])
    low, middle, high = (float(q) for q in np.quantile(sharpes, [0.25, 0.5, 0.75]))
    figures = {
        "mean": float(sharpes.mean()),
        "sd": float(sharpes.std(ddof=1)) if sharpes.size > 1 else math.nan,
        "low": low,
        "middle": middle,
        "high": high,
        "negative": float(np.mean(sharpes < 0.0)),
    }
    least, most = float(sharpes[0]), float(sharpes[-1])
    sentence = strings.CPCV.format(paths=sharpes.size, least=least, most=most, **figures)
    return {"sharpe_ann": sharpes.tolist(), **figures, "sentence": sentence}


def over_folds(trials: Iterable[Trial]) -> list[Trial]:
    """Return one trial for each configuration at each checkpoint, with the days of all its folds.

    A refit in another fold is the same trial on other days. For a day scored twice the first result counts.
    """
    groups: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in trials:
        key = (trial.agent_id, trial.seed, trial.checkpoint, trial.config_hash, trial.data_hash)
        groups.setdefault(key, []).append(trial)
    joined = []
    for group in groups.values():
        day, first = np.unique(np.concatenate([trial.day for trial in group]), return_index=True)
        daily = np.concatenate([trial.daily for trial in group])[first]
        joined.append(
            dataclasses.replace(group[0], split="+".join(t.split for t in group), day=day, daily=daily)
        )
    return joined
