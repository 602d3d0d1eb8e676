"""From sources of bars to `processed_data.h5`: checked, described, split in time with an embargo.

Bars that cannot be used are refused, never repaired. `prices.ingest.panel` reads the sources, at home alone.
"""

from __future__ import annotations

import datetime as dt
import importlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sac_kernel.core import paths
from sac_kernel.core.config import require
from sac_kernel.core.errors import ConfigError, DataError
from sac_kernel.prices.bars import (
    INDEX_NAME,
    PRICE_COLUMNS,
    PRICE_SIDES,
    Bars,
    BarsByInstrument,
    BarTable,
    inspect_bars,
)
from sac_kernel.prices.processed_file import (
    SCHEMA_VERSION,
    SPLITS,
    ProcessedData,
    hash_splits,
    read_processed,
    write_processed,
)

__all__ = [
    "INDEX_NAME",
    "PRICE_COLUMNS",
    "PRICE_SIDES",
    "SCHEMA_VERSION",
    "SPLITS",
    "Bars",
    "BarsByInstrument",
    "DataConfig",
    "DataPipeline",
    "ProcessedData",
    "hash_splits",
    "inspect_bars",
    "read_processed",
    "split_table",
    "write_processed",
]

SOURCES = ("sample", "files", "h5", "download")


@dataclass(frozen=True)
class DataConfig:
    """Where bars come from and how they are split.

    Attributes
    ----------
    source : 'sample' (embedded, needs gym-anytrading), 'files' (your bars, see docs/data.md), 'h5' (an
        existing processed file) or 'download' (needs tradedesk-marketdata)
    path : a file of bars or a folder of them, one instrument or more; the h5 file
    instrument : the traded instrument; its bars set the splits' boundaries. '' takes what a single file, its name or an
        h5 says; of several instruments, and of a download, EURUSD
    price_side : 'bid', 'ask' or 'mid'; needed unless the file tells it
    clock : 'UTC', an IANA zone, 'histdata' or 'mt-eet'; needed unless the file tells it
    bar_minutes : length of the bars to make; 0 leaves them as they are (a download makes 5)

    What a source cannot honour is refused: another instrument than a file holds, another side or clock than it
    states, another bar length than an h5 has.

    train_fraction, val_fraction : shares of the bars, in time order; the rest is the test split
    embargo_hours : bars of this many hours are left out after each boundary, so that no feature or held
        position reaches across; at least the longest feature horizon (1 day)
    output_path : the processed file
    download_from : 'dukascopy' or 'histdata'
    download_start, download_end : first and last day, ISO; '' is the day before yesterday
    download_cache : folder that keeps what was fetched
    """

    source: str = "sample"
    path: str = ""
    instrument: str = ""
    price_side: str | None = None
    clock: str | None = None
    bar_minutes: int = 0
    train_fraction: float = 0.6
    val_fraction: float = 0.2
    embargo_hours: float = 120.0
    output_path: str = str(paths.LOCAL_DATA)
    download_from: str = "dukascopy"
    download_start: str = "2012-01-01"
    download_end: str = ""
    download_cache: str = "data/cache"

    def __post_init__(self) -> None:
        where = "DataConfig"
        require(self.source in SOURCES, where, f"source must be one of {', '.join(SOURCES)}", self.source)
        needs_path = self.source in ("files", "h5")
        require(not needs_path or bool(self.path), where, f"{self.source} needs a path", self.path)
        named = not self.instrument or self.instrument.isalnum()
        require(named, where, "instrument must be letters and digits", self.instrument)
        require(0 <= self.bar_minutes <= 1440, where, "bar_minutes must be in [0, 1440]", self.bar_minutes)
        require(0 < self.train_fraction < 1, where, "train_fraction must be in (0, 1)", self.train_fraction)
        require(0 < self.val_fraction < 1, where, "val_fraction must be in (0, 1)", self.val_fraction)
        share = self.train_fraction + self.val_fraction
        require(share < 1, where, "train_fraction + val_fraction must be below 1", share)
        require(self.embargo_hours >= 24, where, "embargo_hours must be >= 24", self.embargo_hours)
        for name in ("download_start", "download_end"):
            day_of(getattr(self, name), name)


@dataclass(frozen=True)
class SplitTimes:
    """When each split begins and ends, UTC; a bar is of a split if begin <= open < end."""

    spans: dict[str, tuple[pd.Timestamp, pd.Timestamp]]

    def parts(self, bars: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Return the bars of each split."""
        at = {name: bars.index.searchsorted(span) for name, span in self.spans.items()}
        return {name: bars.iloc[start:end] for name, (start, end) in at.items()}


def _panel() -> Any:  # noqa: ANN401  # a module
    """Return what reads sources of bars, which the kernel notebook does not carry."""
    try:
        return importlib.import_module("sac_kernel.prices.ingest.panel")
    except ModuleNotFoundError as err:
        if not str(err.name).startswith("sac_kernel."):  # a package that is absent here says so itself
            raise
        msg = (
            f"DataPipeline: this notebook has no readers of foreign files; it reads {paths.DATA_FILE} only. "
            "Build that file at home with `python build_kernel.py --data PATH`"
        )
        raise ConfigError(msg) from err


class DataPipeline:
    """Bars in, `processed_data.h5` out.

    Examples
    --------
    >>> pipeline = DataPipeline(DataConfig(source="files", path="bars/", price_side="bid"))
    >>> pipeline.run_full_pipeline()                                     # doctest: +SKIP
    >>> train, val, test = pipeline.get_processed_data()                 # doctest: +SKIP
    """

    def __init__(self, config: DataConfig | None = None) -> None:
        self.config = config or DataConfig()

    def run_full_pipeline(
        self, force_download: bool = False
    ) -> tuple[BarsByInstrument, BarsByInstrument, BarsByInstrument]:
        """Read the source, check and split it, write the processed file and return the splits.

        `force_download` fetches the ten instruments anew (what the cache has is not fetched again), unless the
        config names files of its own. Without it an existing processed file is used as it is where the
        source is the sample or a download.
        """
        target = Path(self.config.output_path)
        of_its_own = self.config.source in ("files", "h5")
        if target.is_file() and not force_download and not of_its_own:
            return self.get_processed_data()
        data = self.write(download=force_download and not of_its_own)
        return data.train, data.val, data.test

    def build(self) -> ProcessedData:
        """Return the processed data of the configured source without keeping the file."""
        with tempfile.TemporaryDirectory() as folder:
            return self.write(Path(folder) / paths.DATA_FILE)

    def write(self, target: Path | None = None, *, download: bool = False) -> ProcessedData:
        """Write the processed file of the configured source, or of a download, and return its content."""
        if self.config.source == "h5" and not download:
            return self._write_h5(target or Path(self.config.output_path))
        return read_processed(self.write_file(target, download=download))

    def write_file(self, target: Path | None = None, *, download: bool = False) -> Path:
        """Write the processed file, one instrument in memory at a time, and return its path."""
        c = self.config
        target = target or Path(c.output_path)
        if c.source == "h5" and not download:
            self._write_h5(target)
        else:
            _panel().write_source(c, target, fetch=download)
        return target

    def get_processed_data(self) -> tuple[BarsByInstrument, BarsByInstrument, BarsByInstrument]:
        """Return (train, val, test) from the processed file, wherever it lies.

        The configured output path first, else the mounted or local `processed_data.h5`.
        """
        target = Path(self.config.output_path)
        path = target if target.is_file() else paths.find_input(paths.DATA_FILE)
        data = read_processed(path, self.config.price_side, instrument=self.config.instrument)
        return data.train, data.val, data.test

    def _write_h5(self, target: Path) -> ProcessedData:
        """Return what an existing file holds, after writing it to `target` unless it lies there as it is."""
        c, path = self.config, Path(self.config.path)
        data = read_processed(path, c.price_side, c.clock, c.instrument)
        if c.bar_minutes and c.bar_minutes * 60 != data.bar_seconds:
            msg = (
                f"{path}: bars of {c.bar_minutes} minutes were asked for, but this file holds bars of "
                f"{data.bar_seconds / 60:g} minutes, already split; leave --bar-minutes out, or give the source"
            )
            raise DataError(msg)
        if path.resolve() != target.resolve() or c.instrument:
            write_processed(data, target)
        return data


def split_table(table: BarTable, config: DataConfig) -> ProcessedData:
    """Split the bars of one instrument by time: train, embargo, validation, embargo, test.

    Boundaries are at `train_fraction` and `train_fraction + val_fraction` of the bars; the first bars of
    validation and test within `embargo_hours` of the bar before the boundary are left out.
    """
    traded = config.instrument or table.bars.instrument
    if not traded:
        msg = f"{table.source}: the instrument of the bars is required; pass DataConfig(instrument=...)"
        raise DataError(msg)
    bars = Bars(table.bars, instrument=traded)
    parts = split_times(bars, config).parts(bars)
    train, val, test = ({traded: parts[name]} for name in SPLITS)
    digest = hash_splits({"train": train, "val": val, "test": test}, traded)
    return ProcessedData(train, val, test, traded, table.source, table.clock, digest, table.notes)


def split_times(bars: pd.DataFrame, config: DataConfig) -> SplitTimes:
    """Return when the splits begin and end, by the traded instrument's bars.

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
                f"data_pipeline.split_table: every split needs bars after the embargo of "
                f"{config.embargo_hours:g} h, found {len(part)} in {name} of {n} bars; give more bars"
            )
            raise DataError(msg)
    return times


def day_of(text: str, name: str) -> dt.date | None:
    """Return the day that an ISO text says, None for an empty one; raise ConfigError for another text."""
    if not text:
        return None
    try:
        return dt.date.fromisoformat(text)
    except ValueError as err:
        msg = f"DataConfig: {name} must be a day such as 2017-01-31, got {text!r}"
        raise ConfigError(msg) from err
