"""Daily returns of agents trained on every split of combinatorial purged cross-validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sac_kernel.backtest import combinatorial, validation
from sac_kernel.experiment.fold_training import WARMUP_DAYS, Recipe, fit_agent

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sac_kernel.prices.bars import BarsByInstrument


def combinatorial_paths(
    bars: BarsByInstrument,
    instrument: str,
    recipe: Recipe,
    groups: int = 6,
    test_groups: int = 2,
    purge_days: int = 5,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return days and the daily returns of each CPCV path, shape (n_days,) and (paths, n_days).

    Trains C(groups, test_groups) agents, 15 by default, without selection: a small budget is meant. Purge and
    embargo are `purge_days` each. The first two days, before any feature, are NaN. All paths judge the same
    days by other trainings: their spread says how much of a walk-forward hangs on the one history it saw.
    """
    days = np.unique(validation.trading_days(bars[instrument]))
    folds = combinatorial.combinatorial(days.size, groups, test_groups, purge_days, purge_days)
    daily = np.full((len(folds), days.size), np.nan)
    for i, fold in enumerate(folds):
        passes = validation.fold_passes(
            bars,
            instrument,
            [fold],
            lambda train, val: fit_agent(train, val, recipe, instrument),
            recipe.env_config,
            recipe.tier,
            WARMUP_DAYS,
        )
        for one in passes:
            daily[i, np.searchsorted(days, np.unique(one.result.day))] = one.result.daily_returns
    of_group = np.repeat(np.arange(groups), [block.size for block in np.array_split(days, groups)])
    chosen = combinatorial.paths(groups, test_groups)[:, of_group]
    return days, np.take_along_axis(daily, chosen, axis=0)
