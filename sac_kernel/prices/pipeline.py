"""From sources of bars to `processed_data.h5`: checked, described, split in time with an embargo.

One instrument is read, split and written at a time, so that ten of them need the memory of one. Bars that
cannot be used are refused, never repaired; instruments that cannot be used whole are left out with a note.
"""

from __future__ import annotations

import datetime as dt
import importlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sac_kernel.core import paths
from sac_kernel.core.config import require
from sac_kernel.core.errors import ConfigError, DataError
from sac_kernel.prices.bars import INDEX_NAME, PRICE_COLUMNS, PRICE_SIDES, BarTable, aggregate, inspect_bars
from sac_kernel.prices.instruments import INSTRUMENTS
from sac_kernel.prices.processed_file import (
    SCHEMA_VERSION,
    SPLITS,
    Bars,
    ProcessedData,
    hash_splits,
    read_processed,
    write_processed,
    writing,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "INDEX_NAME",
    "PRICE_COLUMNS",
    "PRICE_SIDES",
    "SCHEMA_VERSION",
    "SPLITS",
    "Bars",
    "DataConfig",
    "DataPipeline",
    "ProcessedData",
    "hash_splits",
    "inspect_bars",
    "read_processed",
    "split_table",
    "write_processed",
    "write_tables",
]

SOURCES = ("sample", "files", "h5", "download")

_EDGE = pd.Timedelta(days=7)
_LEAST_SHARE = 0.5
_SHOWN_GAP_H = 24.0


@dataclass(frozen=True)
class DataConfig:
    """Where bars come from and how they are split.

    Attributes
    ----------
    source : 'sample' (embedded, needs gym-anytrading), 'files' (your bars, see docs/data.md), 'h5' (an
        existing processed file) or 'download' (needs tradedesk-marketdata)
    path : a file of bars or a folder of them, one instrument or more; the h5 file
    instrument : the traded instrument; its bars set the splits' boundaries
    price_side : 'bid', 'ask' or 'mid'; needed unless the file tells it
    clock : 'UTC', an IANA zone, 'histdata' or 'mt-eet'; needed unless the file tells it
    bar_minutes : length of the bars to make; 0 leaves them as they are (a download makes 5)
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
    instrument: str = "EURUSD"
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
        require(self.instrument.isalnum(), where, "instrument must be letters and digits", self.instrument)
        require(0 <= self.bar_minutes <= 1440, where, "bar_minutes must be in [0, 1440]", self.bar_minutes)
        require(0 < self.train_fraction < 1, where, "train_fraction must be in (0, 1)", self.train_fraction)
        require(0 < self.val_fraction < 1, where, "val_fraction must be in (0, 1)", self.val_fraction)
        share = self.train_fraction + self.val_fraction
        require(share < 1, where, "train_fraction + val_fraction must be below 1", share)
        require(self.embargo_hours >= 24, where, "embargo_hours must be >= 24", self.embargo_hours)
        for name in ("download_start", "download_end"):
            _day(getattr(self, name), name)


@dataclass(frozen=True)
class SplitTimes:
    """When each split begins and ends, UTC; a bar is of a split if begin <= open < end."""

    spans: dict[str, tuple[pd.Timestamp, pd.Timestamp]]

    def parts(self, bars: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Return the bars of each split."""
        at = {name: bars.index.searchsorted(span) for name, span in self.spans.items()}
        return {name: bars.iloc[start:end] for name, (start, end) in at.items()}


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

    def run_full_pipeline(self, force_download: bool = False) -> tuple[Bars, Bars, Bars]:
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
        return read_processed(self.write_file(target, download=download))

    def write_file(self, target: Path | None = None, *, download: bool = False) -> Path:
        """Write the processed file, one instrument in memory at a time, and return its path."""
        c = self.config
        target = target or Path(c.output_path)
        if c.source == "h5" and not download:
            write_processed(read_processed(Path(c.path), c.price_side, c.clock), target)
        else:
            tables = self._downloaded() if download or c.source == "download" else self._tables()
            write_tables(tables, c, target)
        return target

    def get_processed_data(self) -> tuple[Bars, Bars, Bars]:
        """Return (train, val, test) from the processed file, wherever it lies.

        The configured output path first, else the mounted or local `processed_data.h5`.
        """
        target = Path(self.config.output_path)
        path = target if target.is_file() else paths.find_input(paths.DATA_FILE)
        data = read_processed(path, self.config.price_side)
        return data.train, data.val, data.test

    def _tables(self) -> Iterator[tuple[str, BarTable]]:
        """Give the bars of each instrument, the traded one first."""
        c = self.config
        seconds = 60 * c.bar_minutes
        if c.source == "sample":
            yield c.instrument, aggregate(_readers().read_sample(), seconds or 3600)
            return
        path, formats = Path(c.path), _readers()
        files = formats.find_files(path) if path.is_dir() else {c.instrument: [path]}
        if c.instrument not in files:
            msg = f"{path}: bars of {c.instrument} are required, found {', '.join(files)}; pass --instrument"
            raise DataError(msg)
        for name in (c.instrument, *(n for n in files if n != c.instrument)):
            yield name, formats.read_instrument(files[name], c.price_side, c.clock, name, seconds)

    def _downloaded(self) -> Iterator[tuple[str, BarTable]]:
        """Fetch instrument after instrument, the traded one first; one that the provider lacks is absent."""
        c = self.config
        yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=2)
        from sac_kernel.prices.ingest import download

        what = download.Download(
            c.download_from,
            _day(c.download_start, "download_start") or yesterday,
            _day(c.download_end, "download_end") or yesterday,
            Path(c.download_cache),
            c.price_side or "bid",
            60 * (c.bar_minutes or 5),
        )
        for name in (c.instrument, *(n for n in INSTRUMENTS if n != c.instrument)):
            table = download.fetch(what, name)
            if table is not None:
                yield name, table
            elif name == c.instrument:
                msg = f"data_download: bars of {name} are required, found none at {c.download_from}; other dates?"
                raise DataError(msg)


def _readers() -> Any:  # noqa: ANN401  # a module
    """Return the readers of foreign files, which the kernel notebook does not carry."""
    try:
        return importlib.import_module("sac_kernel.prices.ingest.formats")
    except ModuleNotFoundError as err:
        if not str(err.name).startswith("sac_kernel."):  # a package that is absent here says so itself
            raise
        msg = (
            f"DataPipeline: this notebook has no readers of foreign files; it reads {paths.DATA_FILE} only. "
            "Build that file at home with `python build_kernel.py --data PATH`"
        )
        raise ConfigError(msg) from err


def split_table(table: BarTable, config: DataConfig) -> ProcessedData:
    """Split the bars of one instrument by time: train, embargo, validation, embargo, test.

    Boundaries are at `train_fraction` and `train_fraction + val_fraction` of the bars; the first bars of
    validation and test within `embargo_hours` of the bar before the boundary are left out.
    """
    parts = split_times(table.bars, config).parts(table.bars)
    train, val, test = ({config.instrument: parts[name]} for name in SPLITS)
    digest = hash_splits({"train": train, "val": val, "test": test}, table.bar_seconds, table.price_side)
    return ProcessedData(
        train, val, test, table.bar_seconds, table.price_side, table.source, table.clock, digest, table.notes
    )


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


def write_tables(tables: Iterator[tuple[str, BarTable]], config: DataConfig, target: Path) -> None:
    """Write the processed file of instruments as they come; the first is the traded one and sets the splits."""
    _, traded = first = next(tables)
    times = split_times(traded.bars, config)
    lengths = {name: len(part) for name, part in times.parts(traded.bars).items()}
    notes: list[str] = []
    found: set[str] = set()
    with writing(target, traded.bar_seconds, traded.price_side) as writer:
        for name, table in _chain(first, tables):
            found.add(name)
            _require_alike(name, table, traded)
            parts = times.parts(table.bars)
            reason = _gap_in_splits(parts, lengths, times)
            if reason:
                notes.append(f"{name}: left out, {reason}")
                continue
            notes += [*table.notes, *_quality(name, table)]
            writer.add(name, parts)
        if len(found) > 1:
            notes += [
                f"{name}: absent, its features will be too" for name in INSTRUMENTS if name not in found
            ]
        more = f" and {len(found) - 1} instruments more" if len(found) > 1 else ""
        writer.finish(traded.source + more, traded.clock, tuple(sorted(notes, key=_weight)))


def _chain(
    first: tuple[str, BarTable], rest: Iterator[tuple[str, BarTable]]
) -> Iterator[tuple[str, BarTable]]:
    yield first
    yield from rest


def _require_alike(name: str, table: BarTable, traded: BarTable) -> None:
    for what, option in (("bar_seconds", "--bar-minutes"), ("price_side", "--price-side")):
        required, found = getattr(traded, what), getattr(table, what)
        if found != required:
            msg = (
                f"{table.source}: {what.replace('_', ' ')} {required} is required, as in {traded.source}, found "
                f"{found} for {name}; pass {option}"
            )
            raise DataError(msg)


def _gap_in_splits(parts: dict[str, pd.DataFrame], lengths: dict[str, int], times: SplitTimes) -> str:
    """Return why an instrument cannot be used in all three splits, '' if it can.

    Its features would be NaN or stale where it is missing, so it must reach to within a week of both ends
    of every split and have half as many bars as the traded instrument.
    """
    for name, part in parts.items():
        begin, end = times.spans[name]
        if len(part) < 2 or part.index[0] > begin + _EDGE or part.index[-1] < end - _EDGE:
            span = f"{part.index[0]:%Y-%m-%d} to {part.index[-1]:%Y-%m-%d}" if len(part) else "no bars"
            return f"{name} runs from {begin:%Y-%m-%d} to {end:%Y-%m-%d} and it has {span} there"
        if len(part) < _LEAST_SHARE * lengths[name]:
            return f"it has {len(part):,} bars in {name} where {lengths[name]:,} are traded"
    return ""


def _quality(name: str, table: BarTable) -> list[str]:
    """Return a note of holes beyond a day in the week; shorter ones are in `inspect_bars`."""
    facts = inspect_bars(table.bars, table.bar_seconds)
    if facts["longest_weekday_gap_h"] <= _SHOWN_GAP_H:
        return []
    gaps = facts["gaps"] - facts["weekend_gaps"]
    return [
        f"{name}: {gaps} gaps inside the week, the longest {facts['longest_weekday_gap_h']:.0f} h; nothing is filled"
    ]


def _weight(note: str) -> int:
    """Return 0 for what is missing, which must be seen first, 1 for the rest."""
    return 0 if ": absent" in note or ": left out" in note else 1


def _day(text: str, name: str) -> dt.date | None:
    if not text:
        return None
    try:
        return dt.date.fromisoformat(text)
    except ValueError as err:
        msg = f"DataConfig: {name} must be a day such as 2017-01-31, got {text!r}"
        raise ConfigError(msg) from err
