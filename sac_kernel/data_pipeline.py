"""From a source of bars to `processed_data.h5`: checked, described, split in time with an embargo.

The file is the contract between a user's machine and the kernel: /train|val|test/<INSTRUMENT>/{timestamp,
open, high, low, close} and /metadata attributes. Bars that cannot be used are refused, never repaired.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from sac_kernel import bar_formats, files, runtime
from sac_kernel.bar_formats import INDEX_NAME, PRICE_COLUMNS, PRICE_SIDES, BarTable
from sac_kernel.config import require
from sac_kernel.errors import DataError, InputNotFoundError

Bars = dict[str, pd.DataFrame]
"""Instrument -> DataFrame with index open_time_utc and float64 open, high, low, close."""

SPLITS = ("train", "val", "test")
SCHEMA_VERSION = 1
SOURCES = ("sample", "csv", "h5")

_CHUNK_ROWS = 16_384
_FIRST_PLAUSIBLE_S = 31_536_000  # 1971; seconds divided by 1000 once too often lie far below
_LAST_PLAUSIBLE_S = 4_102_444_800  # 2100; milliseconds lie far above


@dataclass(frozen=True)
class DataConfig:
    """Where bars come from and how they are split.

    Attributes
    ----------
    source : 'sample' (embedded, needs gym-anytrading), 'csv' or 'h5' (an existing processed file)
    path : the CSV or h5 file; unused for 'sample'
    instrument : name of the CSV's instrument
    price_side : 'bid', 'ask' or 'mid'; required for a CSV and for an h5 without that attribute
    clock : 'UTC' if the CSV's times have no offset
    train_fraction, val_fraction : shares of the bars, in time order; the rest is the test split
    embargo_hours : bars of this many hours are left out after each boundary, so that no feature or held
        position reaches across; at least the longest feature horizon (1 day)
    output_path : the processed file
    """

    source: str = "sample"
    path: str = ""
    instrument: str = "EURUSD"
    price_side: str | None = None
    clock: str | None = None
    train_fraction: float = 0.6
    val_fraction: float = 0.2
    embargo_hours: float = 120.0
    output_path: str = str(runtime.LOCAL_DATA)

    def __post_init__(self) -> None:
        where = "DataConfig"
        require(self.source in SOURCES, where, f"source must be one of {', '.join(SOURCES)}", self.source)
        require(self.source == "sample" or bool(self.path), where, f"{self.source} needs a path", self.path)
        require(self.instrument.isalnum(), where, "instrument must be letters and digits", self.instrument)
        require(0 < self.train_fraction < 1, where, "train_fraction must be in (0, 1)", self.train_fraction)
        require(0 < self.val_fraction < 1, where, "val_fraction must be in (0, 1)", self.val_fraction)
        share = self.train_fraction + self.val_fraction
        require(share < 1, where, "train_fraction + val_fraction must be below 1", share)
        require(self.embargo_hours >= 24, where, "embargo_hours must be >= 24", self.embargo_hours)


@dataclass(frozen=True)
class ProcessedData:
    """What a processed file holds: three splits and how they came about."""

    train: Bars
    val: Bars
    test: Bars
    bar_seconds: int
    price_side: str
    source: str
    clock: str
    content_hash: str

    def __post_init__(self) -> None:
        # The side travels with the bars, so that an env never has to be told it.
        for split in self.splits.values():
            for bars in split.values():
                bars.attrs = {"price_side": self.price_side, "bar_seconds": self.bar_seconds}

    @property
    def splits(self) -> dict[str, Bars]:
        """Return the splits by name, in time order."""
        return {"train": self.train, "val": self.val, "test": self.test}

    def describe(self) -> dict[str, Any]:
        """Return plain facts for headers and reports."""
        spans = {
            name: {
                instrument: {
                    "bars": len(bars),
                    "first_utc": bars.index[0].isoformat(),
                    "last_utc": bars.index[-1].isoformat(),
                }
                for instrument, bars in split.items()
            }
            for name, split in self.splits.items()
        }
        return {
            "instruments": sorted(self.train),
            "bar_seconds": self.bar_seconds,
            "price_side": self.price_side,
            "source": self.source,
            "clock": self.clock,
            "content_hash": self.content_hash,
            "splits": spans,
        }


class DataPipeline:
    """Bars in, `processed_data.h5` out.

    Examples
    --------
    >>> pipeline = DataPipeline(DataConfig(source="csv", path="eurusd.csv", price_side="bid"))
    >>> pipeline.run_full_pipeline()                                     # doctest: +SKIP
    >>> train, val, test = pipeline.get_processed_data()                 # doctest: +SKIP
    """

    def __init__(self, config: DataConfig | None = None) -> None:
        self.config = config or DataConfig()

    def run_full_pipeline(self, force_download: bool = False) -> tuple[Bars, Bars, Bars]:
        """Read the source, check and split it, write the processed file and return the splits.

        An existing processed file is used as it is, unless `force_download` asks for the source again or
        the config names a source of its own (csv, h5).
        """
        target = Path(self.config.output_path)
        if target.is_file() and not force_download and self.config.source == "sample":
            return self.get_processed_data()
        data = self.build()
        write_processed(data, target)
        return data.train, data.val, data.test

    def build(self) -> ProcessedData:
        """Return the processed data of the configured source without writing it."""
        c = self.config
        if c.source == "h5":
            return read_processed(Path(c.path), c.price_side)
        table = (
            bar_formats.read_sample()
            if c.source == "sample"
            else bar_formats.read_csv(Path(c.path), c.price_side, c.clock)
        )
        return split_table(table, c)

    def get_processed_data(self) -> tuple[Bars, Bars, Bars]:
        """Return (train, val, test) from the processed file, wherever it lies.

        The configured output path first, else the mounted or local `processed_data.h5`.
        """
        target = Path(self.config.output_path)
        path = target if target.is_file() else runtime.find_input(runtime.DATA_FILE)
        data = read_processed(path, self.config.price_side)
        return data.train, data.val, data.test


def split_table(table: BarTable, config: DataConfig) -> ProcessedData:
    """Split bars by time: train, embargo, validation, embargo, test.

    Boundaries are at `train_fraction` and `train_fraction + val_fraction` of the bars; the first bars of
    validation and test within `embargo_hours` of the bar before the boundary are left out.
    """
    bars, n = table.bars, len(table.bars)
    first_val = round(n * config.train_fraction)
    first_test = round(n * (config.train_fraction + config.val_fraction))
    embargo = pd.Timedelta(hours=config.embargo_hours)
    parts = []
    for start, end in ((0, first_val), (first_val, first_test), (first_test, n)):
        part = bars.iloc[start:end]
        if start > 0:
            part = part[part.index >= bars.index[start - 1] + embargo]
        parts.append(part)
    for name, part in zip(SPLITS, parts, strict=True):
        if len(part) < 2:
            msg = (
                f"data_pipeline.split_table: every split needs bars after the embargo of "
                f"{config.embargo_hours:g} h, found {len(part)} in {name} of {n} bars; give more bars"
            )
            raise DataError(msg)
    train, val, test = ({config.instrument: part} for part in parts)
    digest = hash_splits({"train": train, "val": val, "test": test}, table.bar_seconds, table.price_side)
    return ProcessedData(
        train, val, test, table.bar_seconds, table.price_side, table.source, table.clock, digest
    )


def hash_splits(splits: dict[str, Bars], bar_seconds: int, price_side: str) -> str:
    """Return the SHA-256 of the bars themselves: names, times and prices, not the file's bytes."""
    digest = hashlib.sha256(f"{SCHEMA_VERSION} {bar_seconds} {price_side}".encode())
    for split in SPLITS:
        for instrument in sorted(splits[split]):
            bars = splits[split][instrument]
            digest.update(f"{split} {instrument} {len(bars)}".encode())
            digest.update(_seconds(bars).tobytes())
            for column in PRICE_COLUMNS:
                digest.update(bars[column].to_numpy(np.float64).tobytes())
    return digest.hexdigest()


def write_processed(data: ProcessedData, path: Path) -> None:
    """Write the processed file atomically: chunked, gzip with shuffle, checksummed, without times."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", track_order=False) as file:
        for split, instruments in data.splits.items():
            for instrument, bars in sorted(instruments.items()):
                group = file.create_group(f"{split}/{instrument}")
                columns = {"timestamp": _seconds(bars)}
                columns |= {name: bars[name].to_numpy(np.float64) for name in PRICE_COLUMNS}
                for name, values in columns.items():
                    group.create_dataset(
                        name,
                        data=values,
                        chunks=(min(len(values), _CHUNK_ROWS),),
                        compression="gzip",
                        shuffle=True,
                        fletcher32=True,
                        track_times=False,
                    )
        _write_metadata(file, data)
    files.write_bytes(path, buffer.getvalue())


def read_processed(path: Path, price_side: str | None = None) -> ProcessedData:
    """Read a processed file, its bars bit-identical to those written.

    Parameters
    ----------
    path : the h5 file
    price_side : needed only for a file that does not state its own (one without schema version)

    Raises
    ------
    InputNotFoundError
        If there is no such file.
    DataError
        If it is truncated, empty, of another layout, holds unusable bars, or differs from its hash.
    """
    if not path.is_file():
        msg = f"{path}: a processed_data.h5 is required, found no file; make it with DataPipeline or --data"
        raise InputNotFoundError(msg)
    try:
        with h5py.File(path, "r") as file:
            return _read_file(file, path, price_side)
    except (OSError, RuntimeError, KeyError, TypeError) as err:
        msg = f"{path}: a readable HDF5 file is required, found: {err}; fetch or build it again"
        raise DataError(msg) from err


def inspect_bars(bars: pd.DataFrame, bar_seconds: int) -> dict[str, Any]:
    """Return what a reader of the bars should know: gaps, flat bars, the largest move. Nothing is changed.

    `gaps` counts jumps of the open time beyond one bar; `weekend_gaps` those that contain a Saturday noon.
    """
    seconds = _seconds(bars)
    jump = np.diff(seconds)
    gap = jump > bar_seconds
    # 1970-01-03 12:00 UTC was a Saturday noon.
    saturday = (seconds - 216_000) // 604_800
    weekend = gap & (np.diff(saturday) > 0)
    move = np.abs(np.diff(np.log(bars["close"].to_numpy())))
    largest = int(np.argmax(move)) + 1
    return {
        "bars": len(bars),
        "first_utc": bars.index[0].isoformat(),
        "last_utc": bars.index[-1].isoformat(),
        "gaps": int(gap.sum()),
        "weekend_gaps": int(weekend.sum()),
        "longest_gap_h": float(jump.max() / 3600),
        "flat_bars": int((bars["high"] == bars["low"]).sum()),
        "largest_move_bps": float(move[largest - 1] * 1e4),
        "largest_move_utc": bars.index[largest].isoformat(),
    }


def _seconds(bars: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.asarray(bars.index.as_unit("s").asi8)  # type: ignore[attr-defined]  # a DatetimeIndex


def _write_metadata(file: h5py.File, data: ProcessedData) -> None:
    attrs = file.create_group("metadata").attrs
    attrs["pairs"] = sorted(data.train)
    for split, instruments in data.splits.items():
        attrs[f"{split}_start"] = min(b.index[0] for b in instruments.values()).isoformat()
        attrs[f"{split}_end"] = max(b.index[-1] for b in instruments.values()).isoformat()
    attrs["bar_seconds"] = data.bar_seconds
    attrs["price_side"] = data.price_side
    attrs["source"] = data.source
    attrs["clock"] = data.clock
    attrs["content_hash"] = data.content_hash
    attrs["schema_version"] = SCHEMA_VERSION


def _read_file(file: h5py.File, path: Path, price_side: str | None) -> ProcessedData:
    splits: dict[str, Bars] = {}
    for split in SPLITS:
        if split not in file or not isinstance(file[split], h5py.Group) or len(file[split]) == 0:
            msg = (
                f"{path}: the layout /train|val|test/<INSTRUMENT>/ is required, found {_layout(file)}; "
                "build the file with DataPipeline"
            )
            raise DataError(msg)
        splits[split] = {
            name: _read_bars(file[split], name, f"{path}:/{split}/{name}") for name in sorted(file[split])
        }
    attrs: dict[str, Any] = dict(file["metadata"].attrs) if "metadata" in file else {}
    version = attrs.get("schema_version")
    if version is not None and int(version) != SCHEMA_VERSION:
        msg = f"{path}: schema version {SCHEMA_VERSION} is required, found {version}; build the file again"
        raise DataError(msg)
    side = str(attrs.get("price_side", price_side))
    if side not in PRICE_SIDES:
        msg = (
            f"{path}: the price side (bid, ask or mid) is required and the file does not state it, "
            f"got {price_side!r}; pass price_side (--price-side)"
        )
        raise DataError(msg)
    _check_order(splits, path)
    first = next(iter(splits["train"].values()))
    seconds = int(attrs.get("bar_seconds", bar_formats.infer_bar_seconds(first, path)))
    digest = hash_splits(splits, seconds, side)
    if attrs.get("content_hash", digest) != digest:
        msg = f"{path}: bars that match the stored content hash are required, found others; build it again"
        raise DataError(msg)
    return ProcessedData(
        **splits,
        bar_seconds=seconds,
        price_side=side,
        source=str(attrs.get("source", path.name)),
        clock=str(attrs.get("clock", "UTC")),
        content_hash=digest,
    )


def _read_bars(parent: h5py.Group, name: str, where: str) -> pd.DataFrame:
    group = parent[name]
    columns = ("timestamp", *PRICE_COLUMNS)
    if not isinstance(group, h5py.Group) or any(not isinstance(group.get(c), h5py.Dataset) for c in columns):
        found = ", ".join(group) if isinstance(group, h5py.Group) else type(group).__name__
        msg = f"{where}: datasets {', '.join(columns)} are required, found {found}"
        raise DataError(msg)
    shapes = {c: group[c].shape for c in columns}
    if len(set(shapes.values())) != 1 or len(shapes["timestamp"]) != 1:
        msg = f"{where}: five one-dimensional datasets of equal length are required, found {shapes}"
        raise DataError(msg)
    if group["timestamp"].dtype.kind != "i" or any(group[c].dtype.kind != "f" for c in PRICE_COLUMNS):
        msg = f"{where}: timestamp int64 and float prices are required, found {[str(group[c].dtype) for c in columns]}"
        raise DataError(msg)
    seconds = group["timestamp"][:].astype(np.int64)
    if seconds.size and (
        seconds[-1] < _FIRST_PLAUSIBLE_S or seconds.min() < 0 or seconds.max() > _LAST_PLAUSIBLE_S
    ):
        msg = (
            f"{where}: timestamps in Unix seconds are required, found {seconds[0]}..{seconds[-1]}, not from 1971 "
            "to 2100: probably seconds divided by 1000 (a pandas 3 unit slip), or milliseconds; build the file again"
        )
        raise DataError(msg)
    index = pd.DatetimeIndex(seconds.astype("datetime64[s]"), tz="UTC", name=INDEX_NAME).as_unit("ns")
    bars = pd.DataFrame({c: group[c][:].astype(np.float64) for c in PRICE_COLUMNS}, index=index)
    bar_formats.check_bars(bars, where)
    return bars


def _check_order(splits: dict[str, Bars], path: Path) -> None:
    for earlier, later in (("train", "val"), ("val", "test")):
        for name in sorted(set(splits[earlier]) & set(splits[later])):
            end, start = splits[earlier][name].index[-1], splits[later][name].index[0]
            if start <= end:
                msg = (
                    f"{path}: splits disjoint in time are required, found {name} {later} starting at "
                    f"{start.isoformat()}, not after {earlier}'s end {end.isoformat()}: what is trained on "
                    "would be judged on; split the data again"
                )
                raise DataError(msg)


def _layout(file: h5py.File) -> str:
    names: list[str] = []
    file.visit(names.append)
    return ", ".join("/" + n for n in names[:8]) or "an empty file"
