"""Out-of-sample tests: purged walk-forward with a refit in each fold.

Splits are by trading day. `purge_days` are left out before a test block, because the outcome of a
train row reaches into later days; `embargo_days` are left out after it, because a feature's window reaches
back. Scaler, regime model and agent are refitted in each fold on its train days alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from sac_kernel.backtest import runner
from sac_kernel.core.config import require
from sac_kernel.core.errors import DataError
from sac_kernel.prices import costs
from sac_kernel.prices.bars import seconds_of, spec_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from sac_kernel.backtest.runner import EpisodeResult
    from sac_kernel.market.account import TradingEnvConfig
    from sac_kernel.market.market import Market
    from sac_kernel.prices.bars import BarsByInstrument

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Fold:
    """Positions of the days for fitting, for selection (none in CPCV) and for judging."""

    train: IntArray
    val: IntArray
    test: IntArray

    @property
    def train_blocks(self) -> list[IntArray]:
        """Return the train days as consecutive blocks: no episode may cross a gap."""
        return np.split(self.train, np.flatnonzero(np.diff(self.train) > 1) + 1)


def walk_forward(
    days: int,
    folds: int = 4,
    test_days: int = 60,
    val_days: int = 40,
    purge_days: int = 1,
    expanding: bool = True,
) -> list[Fold]:
    """Return folds whose consecutive test blocks end at the last day; all three parts are purged.

    Train is all days before (`expanding`), or as many as the first fold has.

    Examples
    --------
    10 days, 2 folds of 2 test days, 1 day for selection, purge 1: train 0-2, val 4, test 6-7; then train
    0-4, val 6, test 8-9.
    """
    where = "walk_forward"
    require(folds >= 1, where, "folds must be >= 1", folds)
    require(test_days >= 1, where, "test_days must be >= 1", test_days)
    require(
        min(val_days, purge_days) >= 0, where, "val_days and purge_days must be >= 0", (val_days, purge_days)
    )
    made: list[Fold] = []
    length = 0
    for i in range(folds):
        first = days - (folds - i) * test_days
        val = np.arange(first - purge_days - val_days, first - purge_days)
        end = first - purge_days - (val_days + purge_days if val_days else 0)
        if end < 2:
            msg = (
                f"{days} days leave no train days before {folds} folds of {test_days} test days and {val_days} "
                "validation days. Take fewer or shorter folds."
            )
            raise DataError(msg)
        length = length or end
        made.append(
            Fold(np.arange(0 if expanding else end - length, end), val, np.arange(first, first + test_days))
        )
    return made


# -- running the folds --------------------------------------------------------------------------------


class Fitted(Protocol):
    """Result of a refit: a policy, and features of later bars by its own scaler."""

    def features(self, bars: BarsByInstrument) -> pd.DataFrame:
        """Return scaled features on the traded instrument's index; NaN rows at the start are the warm-up."""

    def act(self, obs: NDArray[np.float32]) -> float:
        """Return the target for one observation."""


class Pass(NamedTuple):
    """One test block: the pass of the policy, its market, and the refit."""

    result: EpisodeResult
    market: Market
    fitted: Fitted


def fold_passes(  # noqa: PLR0913  # a fold needs all of these
    bars: BarsByInstrument,
    instrument: str,
    folds: Iterable[Fold],
    fit: Callable[[list[BarsByInstrument], BarsByInstrument], Fitted],
    config: TradingEnvConfig,
    tier: str = "base",
    warmup_days: int = 0,
) -> Iterator[Pass]:
    """Yield the pass over each block of test days of a policy refitted on the fold's train days.

    Parameters
    ----------
    bars : instrument -> bars of the whole period
    fit : train blocks (in time order, none crossing a gap) and validation bars -> the refit
    warmup_days : days before a test block passed to `features` for its warm-up; they are not traded
    """
    day = trading_days(bars[instrument])
    listed = np.unique(day)
    for i, fold in enumerate(folds):
        train = [cut(bars, listed[block]) for block in fold.train_blocks]
        fitted = fit(train, cut(bars, listed[fold.val]))
        for block in np.split(fold.test, np.flatnonzero(np.diff(fold.test) > 1) + 1):
            seen = listed[max(0, block[0] - warmup_days) : block[-1] + 1]
            before_and_in = cut(bars, seen)
            frame, features = before_and_in[instrument], fitted.features(before_and_in)
            inside = np.isin(trading_days(frame), listed[block])
            market = runner.market_of(frame[inside], features[inside], config, tier)
            name = f"fold {i + 1}"
            result = runner.run_policy(market, fitted.act, config.initial_equity, name, tier)
            yield Pass(result, market, fitted)


def trading_days(bars: pd.DataFrame) -> IntArray:
    """Return the trading-day number of each bar's close, by its instrument's calendar."""
    seconds = seconds_of(bars, "trading_days")
    index: Any = bars.index
    closed = index + pd.Timedelta(seconds=seconds) - pd.Timedelta(seconds=1)
    return costs.trading_day(closed, spec_for(bars))


def cut(bars: BarsByInstrument, days: IntArray) -> BarsByInstrument:
    """Return the bars of some trading days."""
    return {name: frame[np.isin(trading_days(frame), days)] for name, frame in bars.items()}
