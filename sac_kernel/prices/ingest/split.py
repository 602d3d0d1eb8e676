"""Splits bars in time: train, embargo, validation, embargo, test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sac_kernel.core.errors import DataError
from sac_kernel.prices.bars import Bars, spec_for
from sac_kernel.prices.costs import trading_day
from sac_kernel.prices.processed_file import SPLITS, ProcessedData, hash_splits

if TYPE_CHECKING:
    from sac_kernel.prices.ingest.tables import BarTable
    from sac_kernel.prices.instruments import InstrumentSpec
    from sac_kernel.prices.pipeline import DataConfig


MIN_TEST_DAYS = 30
"""Of a test block of a walk-forward, before the embargo."""
TEST_SHARE = 2.0 / 3.0
"""Of the bars that a walk-forward tests on; the first fold learns from the rest."""


@dataclass(frozen=True)
class SplitTimes:
    """When each split begins and ends, UTC; a bar belongs to it if begin <= open < end."""

    spans: dict[str, tuple[pd.Timestamp, pd.Timestamp]]

    def parts(self, bars: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Return the bars of each split."""
        at = {name: bars.index.searchsorted(span) for name, span in self.spans.items()}
        return {name: bars.iloc[start:end] for name, (start, end) in at.items()}


def split_table(table: BarTable, config: DataConfig) -> ProcessedData:
    """Split the bars of one instrument by time: train, embargo, validation, embargo, test.

    Boundaries are at `train_fraction` and `train_fraction + val_fraction` of the bars. Bars of validation
    and test within `embargo_hours` of the last bar before their boundary are left out.
    """
    traded = config.instrument or table.bars.instrument
    if not traded:
        msg = f"{table.source} does not name its instrument. Pass DataConfig(instrument=...)."
        raise DataError(msg)
    bars = Bars(table.bars, instrument=traded)
    parts = split_times(bars, config).parts(bars)
    train, val, test = ({traded: parts[name]} for name in SPLITS)
    digest = hash_splits({"train": train, "val": val, "test": test}, traded)
    return ProcessedData(train, val, test, traded, table.source, table.clock, digest, table.notes)


def _shares(index: pd.DatetimeIndex, spec: InstrumentSpec, config: DataConfig) -> tuple[float, float]:
    """Return the shares of train and validation."""
    days = np.unique(trading_day(index, spec)).size
    if (folds := folds_of(days, config.folds)) == 0:
        return config.train_fraction, config.val_fraction
    return 1.0 - 2.0 * TEST_SHARE / folds, TEST_SHARE / folds


def folds_of(days: int, wanted: int, test_days: int = MIN_TEST_DAYS) -> int:
    """Return how many test blocks of so many days fit into `TEST_SHARE` of the days: at most `wanted`, 0 or >= 2."""
    folds = min(wanted, int(TEST_SHARE * days / test_days))
    return folds if folds >= 2 and days >= 8 * MIN_TEST_DAYS else 0


def split_times(bars: pd.DataFrame, config: DataConfig) -> SplitTimes:
    """Return when the splits of the traded instrument's bars begin and end.

    Raises
    ------
    DataError
        If a split would have fewer than two bars.
    """
    index, n = pd.DatetimeIndex(bars.index), len(bars)
    train, val = _shares(index, spec_for(bars), config)
    first_val, first_test = round(n * train), round(n * (train + val))
    embargo = pd.Timedelta(hours=config.embargo_hours)
    spans, start = {}, 0
    for name, end in zip(SPLITS, (first_val, first_test, n), strict=True):
        begin = max(index[start - 1] + embargo, index[min(start, n - 1)]) if start else index[0]
        spans[name] = (begin, index[end] if end < n else index[-1] + pd.Timedelta(seconds=1))
        start = end
    times = SplitTimes(spans)
    for name, part in times.parts(bars).items():
        if len(part) < 2:
            msg = (
                f"The {name} split needs at least two bars after the embargo of {config.embargo_hours:g} h, got "
                f"{len(part)} ({n} bars in all). Pass more bars."
            )
            raise DataError(msg)
    return times
