"""Splits bars in time: train, embargo, validation, embargo, test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from sac_kernel.core.errors import DataError
from sac_kernel.prices.bars import Bars
from sac_kernel.prices.processed_file import SPLITS, ProcessedData, hash_splits

if TYPE_CHECKING:
    from sac_kernel.prices.ingest.tables import BarTable
    from sac_kernel.prices.pipeline import DataConfig


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


def split_times(bars: pd.DataFrame, config: DataConfig) -> SplitTimes:
    """Return when the splits of the traded instrument's bars begin and end.

    Raises
    ------
    DataError
        If a split would have fewer than two bars.
    """
    index, n = pd.DatetimeIndex(bars.index), len(bars)
    first_val = round(n * config.train_fraction)
    first_test = round(n * (config.train_fraction + config.val_fraction))
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
