"""Combinatorial purged cross-validation (CPCV): every choice of test blocks, joined to several backtest paths.

It follows Lopez de Prado 2018, ch. 12.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from sac_kernel.backtest.validation import Fold
from sac_kernel.core.config import require
from sac_kernel.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sac_kernel.backtest.runner import EpisodeResult

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]


def combinatorial(
    days: int, groups: int = 6, test_groups: int = 2, purge_days: int = 1, embargo_days: int = 1
) -> list[Fold]:
    """Return the splits of combinatorial purged cross-validation (Lopez de Prado 2018, ch. 12).

    Every choice of `test_groups` of the `groups` consecutive blocks is judged once. The other days are for fitting,
    except the purge before and the embargo after each test block. There are C(groups, test_groups) splits.
    """
    where = "combinatorial"
    require(
        0 < test_groups < groups <= days,
        where,
        "0 < test_groups < groups <= days must hold",
        (test_groups, groups, days),
    )
    require(
        min(purge_days, embargo_days) >= 0,
        where,
        "purge_days and embargo_days must be >= 0",
        (purge_days, embargo_days),
    )
    blocks = np.array_split(np.arange(days), groups)
    folds = []
    for chosen in itertools.combinations(range(groups), test_groups):
        free = np.ones(days, dtype=bool)
        for g in chosen:
            free[max(0, blocks[g][0] - purge_days) : blocks[g][-1] + embargo_days + 1] = False
        test = np.concatenate([blocks[g] for g in chosen])
        folds.append(Fold(np.flatnonzero(free), np.zeros(0, np.int64), test))
    return folds


def paths(groups: int = 6, test_groups: int = 2) -> NDArray[np.int64]:
    """Return which split gives each group's result on each backtest path, shape (paths, groups).

    There are test_groups / groups x C(groups, test_groups) paths; each judges every group once.
    """
    splits = list(itertools.combinations(range(groups), test_groups))
    by_group = [[s for s, chosen in enumerate(splits) if g in chosen] for g in range(groups)]
    return np.array(by_group, np.int64).T


def joined_daily_returns(results: Sequence[EpisodeResult]) -> tuple[IntArray, FloatArray]:
    """Return days and daily returns of folds in date order; no day may be judged twice (pool paths separately)."""
    days = np.concatenate([np.unique(result.day) for result in results])
    daily = np.concatenate([result.daily_returns for result in results])
    order = np.argsort(days, kind="stable")
    days = days[order]
    twice = days[1:][np.diff(days) == 0]
    if twice.size:
        first = twice[0].astype("datetime64[D]")
        msg = f"Day {first} is judged in two folds. Join the folds of one backtest path only."
        raise DataError(msg)
    return days, daily[order]
