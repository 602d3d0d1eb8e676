"""`processed_data.h5`: the contract between a user's machine and the kernel, written whole and read with distrust.

/train|val|test/<INSTRUMENT>/{timestamp, open, high, low, close} and /metadata attributes. A file from
elsewhere is data: links, foreign storage and unknown filters are refused, and what it claims of its size is
checked before memory is taken for it.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd

from sac_kernel.core import files
from sac_kernel.core.errors import DataError, InputNotFoundError
from sac_kernel.prices import bars as bar_table
from sac_kernel.prices import clocks
from sac_kernel.prices.bars import MAX_ROWS, PRICE_COLUMNS, PRICE_SIDES, make_bars, open_seconds, utc_index

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Bars = dict[str, pd.DataFrame]
"""Instrument -> DataFrame with index open_time_utc and float64 open, high, low, close."""

SPLITS = ("train", "val", "test")
SCHEMA_VERSION = 2
COLUMNS = ("timestamp", *PRICE_COLUMNS)

_CHUNK_ROWS = 16_384
_FIRST_PLAUSIBLE_S = 31_536_000  # 1971; seconds divided by 1000 once too often lie far below
_LAST_PLAUSIBLE_S = 4_102_444_800  # 2100; milliseconds lie far above
_FILTERS = (1, 2, 3, 32_000)  # deflate, shuffle, fletcher32, lzf: what h5py itself brings
_MAX_INSTRUMENTS = 64
_MAX_CHUNK_BYTES = 1 << 26
_MAX_ATTRIBUTE_BYTES = 1 << 20
_MAX_GROWTH = 1200  # deflate cannot do better than 1032
_MAX_TOTAL_BYTES = (
    1 << 31
)  # ten instruments of minute bars over fourteen years; a name may stand for another's data
_MAX_NOTES = 40


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
    notes: tuple[str, ...] = field(default=())

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
            "notes": list(self.notes),
            "splits": spans,
        }


class ProcessedWriter:
    """Writes a processed file one instrument at a time, so that no more than one need be in memory.

    Use it through `writing`; `finish` writes the metadata, without which the file never appears.
    """

    def __init__(self, file: h5py.File, bar_seconds: int, price_side: str) -> None:
        self._file = file
        self._bar_seconds, self._price_side = bar_seconds, price_side
        self._digests: dict[str, str] = {}
        self._spans: dict[str, list[pd.Timestamp]] = {split: [] for split in SPLITS}
        self._instruments: set[str] = set()
        self.finished = False

    def add(self, instrument: str, splits: dict[str, pd.DataFrame]) -> None:
        """Write the three splits of one instrument: chunked, gzip with shuffle, checksummed, without times."""
        self._instruments.add(instrument)
        for split in SPLITS:
            bars = splits[split]
            group = self._file.create_group(f"{split}/{instrument}")
            columns = {"timestamp": open_seconds(bars)}
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
            self._digests[f"{split} {instrument}"] = _hash_bars(bars)
            self._spans[split] += [bars.index[0], bars.index[-1]]

    def finish(self, source: str, clock: str, notes: tuple[str, ...] = ()) -> None:
        """Write /metadata."""
        attrs = self._file.create_group("metadata").attrs
        attrs["pairs"] = sorted(self._instruments)
        for split, span in self._spans.items():
            attrs[f"{split}_start"] = min(span).isoformat()
            attrs[f"{split}_end"] = max(span).isoformat()
        attrs["bar_seconds"] = self._bar_seconds
        attrs["price_side"] = self._price_side
        attrs["source"] = source
        attrs["clock"] = clock
        attrs["notes"] = "\n".join(notes[:_MAX_NOTES])
        attrs["content_hash"] = _joint_hash(self._digests, self._bar_seconds, self._price_side)
        attrs["schema_version"] = SCHEMA_VERSION
        self.finished = True


@contextlib.contextmanager
def writing(path: Path, bar_seconds: int, price_side: str) -> Iterator[ProcessedWriter]:
    """Give a writer whose file takes the place of `path` when it is finished, or vanishes on any error."""
    with files.replacing(path) as temporary, h5py.File(temporary, "w", track_order=False) as file:
        writer = ProcessedWriter(file, bar_seconds, price_side)
        yield writer
        assert writer.finished, f"{path} was not finished"
        file.flush()


def write_processed(data: ProcessedData, path: Path) -> None:
    """Write the processed file atomically; equal data are equal bytes."""
    with writing(path, data.bar_seconds, data.price_side) as writer:
        for instrument in sorted(data.train):
            writer.add(instrument, {name: split[instrument] for name, split in data.splits.items()})
        writer.finish(data.source, data.clock, data.notes)


def hash_splits(splits: dict[str, Bars], bar_seconds: int, price_side: str) -> str:
    """Return the SHA-256 of the bars themselves: names, times and prices, not the file's bytes."""
    digests = {
        f"{split} {instrument}": _hash_bars(bars)
        for split in SPLITS
        for instrument, bars in splits[split].items()
    }
    return _joint_hash(digests, bar_seconds, price_side)


def read_processed(path: Path, price_side: str | None = None, clock: str | None = None) -> ProcessedData:
    """Read a processed file, its bars bit-identical to those written.

    Parameters
    ----------
    path : the h5 file
    price_side : needed only for a file that does not state its own (one without schema version)
    clock : only for such a file: 'UTC' takes its times as they are, 'histdata' takes them for HistData's
        labels plus five hours, as the first attempt wrote them, and corrects them

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
            return _read_file(file, path, price_side, clock)
    except DataError:
        raise
    # HDF5's own errors, and what NumPy and h5py say of types and texts that they cannot hold
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, OverflowError, MemoryError) as err:
        msg = f"{path}: a readable HDF5 file is required, found: {err}; fetch or build it again"
        raise DataError(msg) from err


def _hash_bars(bars: pd.DataFrame) -> str:
    digest = hashlib.sha256(f"{len(bars)}".encode())
    digest.update(open_seconds(bars).tobytes())
    for column in PRICE_COLUMNS:
        digest.update(bars[column].to_numpy(np.float64).tobytes())
    return digest.hexdigest()


def _joint_hash(digests: dict[str, str], bar_seconds: int, price_side: str) -> str:
    lines = [f"{SCHEMA_VERSION} {bar_seconds} {price_side}", *(f"{k} {digests[k]}" for k in sorted(digests))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _read_file(file: h5py.File, path: Path, price_side: str | None, clock: str | None) -> ProcessedData:
    _refuse_normalised(file, path)
    attrs = _attributes(file, path)
    own = attrs.get("schema_version") is not None
    if own and int(attrs["schema_version"]) != SCHEMA_VERSION:
        msg = (
            f"{path}: schema version {SCHEMA_VERSION} is required, found {attrs['schema_version']}; "
            "build the file again"
        )
        raise DataError(msg)
    room = [_MAX_TOTAL_BYTES]
    splits = {split: _read_split(file, split, path, room) for split in SPLITS}
    side = str(attrs.get("price_side", price_side))
    if side not in PRICE_SIDES:
        msg = (
            f"{path}: the price side (bid, ask or mid) is required and the file does not state it, "
            f"got {price_side!r}; pass price_side (--price-side)"
        )
        raise DataError(msg)
    notes = _only_common(splits, path)
    if not own and clock == clocks.HISTDATA:
        splits = _from_fixed_est(splits, path)
        notes.append(f"{path.name}: times minus 5 h taken as HistData's labels and converted")
    elif not own and clock != "UTC":
        _refuse_fixed_est(splits, path)
    _check_order(splits, path)
    first = next(iter(splits["train"].values()))
    seconds = int(attrs.get("bar_seconds", bar_table.infer_bar_seconds(first, path)))
    _check_bar_seconds(splits, seconds, path)
    digest = hash_splits(splits, seconds, side)
    if attrs.get("content_hash", digest) != digest:
        msg = f"{path}: bars that match the stored content hash are required, found others; build it again"
        raise DataError(msg)
    stored = tuple(filter(None, str(attrs.get("notes", "")).split("\n")))
    return ProcessedData(
        **splits,
        bar_seconds=seconds,
        price_side=side,
        source=str(attrs.get("source", path.name)),
        clock=str(attrs.get("clock", clock or "UTC")),
        content_hash=digest,
        notes=(*stored, *notes),
    )


def _attributes(file: h5py.File, path: Path) -> dict[str, Any]:
    """Return the metadata attributes that matter; their size is checked before they are read."""
    group = _child(file, "metadata", f"{path}:/metadata")
    if group is None:
        return {}
    if not isinstance(group, h5py.Group):
        msg = f"{path}:/metadata: a group is required, found {type(group).__name__}"
        raise DataError(msg)
    found = {}
    for name in ("schema_version", "price_side", "bar_seconds", "source", "clock", "notes", "content_hash"):
        if name not in group.attrs:
            continue
        stored = group.attrs.get_id(name)
        if stored.shape != () or stored.get_storage_size() > _MAX_ATTRIBUTE_BYTES:
            msg = f"{path}:/metadata: one value for {name} is required, found shape {stored.shape}"
            raise DataError(msg)
        found[name] = group.attrs[name]
    return found


def _refuse_normalised(file: h5py.File, path: Path) -> None:
    """Say why the first attempt's features_normalized.h5 cannot be used."""
    if "features" in list(file) and "train" not in list(file):
        msg = (
            f"{path}: bars are required, found normalised features without the scaler that made them; give "
            "processed_data.h5 or the bars themselves"
        )
        raise DataError(msg)


def _read_split(file: h5py.File, split: str, path: Path, room: list[int]) -> Bars:
    group = _child(file, split, f"{path}:/{split}")
    names = [] if not isinstance(group, h5py.Group) else sorted(group)
    # combined_data.h5 of the first attempt keeps its features beside the instruments
    names = [name for name in names if name != "features"]
    if not names:
        msg = (
            f"{path}: the layout /train|val|test/<INSTRUMENT>/ is required, found {_layout(file)}; "
            "build the file with DataPipeline"
        )
        raise DataError(msg)
    if len(names) > _MAX_INSTRUMENTS:
        msg = f"{path}:/{split}: at most {_MAX_INSTRUMENTS} instruments are required, found {len(names)}"
        raise DataError(msg)
    return {
        name: _read_bars(_child(group, name, f"{path}:/{split}/{name}"), f"{path}:/{split}/{name}", room)
        for name in names
    }


def _child(parent: h5py.Group, name: str, where: str) -> Any:  # noqa: ANN401  # group or dataset
    """Return what lies under a name, None if nothing does; a link is refused before it is followed."""
    if name not in list(parent):  # `in parent` itself would follow links
        return None
    link = parent.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        msg = f"{where}: data inside this file are required, found a {type(link).__name__}; build the file again"
        raise DataError(msg)
    return parent[name]


def _read_bars(group: Any, where: str, room: list[int]) -> pd.DataFrame:  # noqa: ANN401  # group or dataset
    children = {}
    if isinstance(group, h5py.Group):
        children = {c: _child(group, c, f"{where}/{c}") for c in COLUMNS}
    if any(not isinstance(children.get(c), h5py.Dataset) for c in COLUMNS):
        found = ", ".join(group) if isinstance(group, h5py.Group) else type(group).__name__
        msg = f"{where}: datasets {', '.join(COLUMNS)} are required, found {found}"
        raise DataError(msg)
    shapes = {c: children[c].shape for c in COLUMNS}
    if len(set(shapes.values())) != 1 or len(shapes["timestamp"] or ()) != 1:
        msg = f"{where}: five one-dimensional datasets of equal length are required, found {shapes}"
        raise DataError(msg)
    kinds = [str(children[c].dtype) for c in COLUMNS]
    if [children[c].dtype.kind for c in COLUMNS] != ["i", "f", "f", "f", "f"]:
        msg = f"{where}: timestamp int64 and float prices are required, found {kinds}"
        raise DataError(msg)
    for name, dataset in children.items():
        _check_storage(dataset, f"{where}/{name}")
        room[0] -= dataset.size * dataset.dtype.itemsize
    if room[0] < 0:
        msg = f"{where}: at most {_MAX_TOTAL_BYTES:,} bytes of bars in a file are required, found more; split it"
        raise DataError(msg)
    seconds = children["timestamp"][:].astype(np.int64)
    if seconds.size and (
        seconds[-1] < _FIRST_PLAUSIBLE_S or seconds.min() < 0 or seconds.max() > _LAST_PLAUSIBLE_S
    ):
        msg = (
            f"{where}: timestamps in Unix seconds are required, found {seconds[0]}..{seconds[-1]}, not from 1971 "
            "to 2100: probably seconds divided by 1000 (a pandas 3 unit slip), or milliseconds; build the file again"
        )
        raise DataError(msg)
    prices = np.stack([children[c][:].astype(np.float64) for c in PRICE_COLUMNS], axis=1)
    return make_bars(utc_index(seconds), prices, where)


def _check_storage(dataset: h5py.Dataset, where: str) -> None:
    """Refuse data outside the file, filters that need a plugin, and sizes the file cannot hold."""
    created = dataset.id.get_create_plist()
    filters = [created.get_filter(i)[0] for i in range(created.get_nfilters())]
    chunk = int(np.prod(dataset.chunks or (1,))) * dataset.dtype.itemsize
    nbytes, stored = dataset.size * dataset.dtype.itemsize, dataset.id.get_storage_size()
    faults = {
        "data inside this file": dataset.is_virtual or bool(dataset.external),
        "no filter but gzip, shuffle, fletcher32, lzf": any(f not in _FILTERS for f in filters),
        f"at most {MAX_ROWS:,} rows": dataset.size > MAX_ROWS,
        f"chunks of at most {_MAX_CHUNK_BYTES:,} bytes": chunk > _MAX_CHUNK_BYTES,
        "as many bytes as the rows need": nbytes > _MAX_GROWTH * max(stored, 1) and dataset.size > 0,
    }
    for required, wrong in faults.items():
        if wrong:
            msg = (
                f"{where}: {required} required, found {dataset.size:,} rows in {stored:,} bytes, filters {filters}; "
                "build the file again"
            )
            raise DataError(msg)


def _only_common(splits: dict[str, Bars], path: Path) -> list[str]:
    """Leave out instruments that are not in every split; return what was left out, as notes."""
    common = set.intersection(*(set(split) for split in splits.values()))
    if not common:
        found = "; ".join(f"{name}: {', '.join(sorted(split))}" for name, split in splits.items())
        msg = f"{path}: an instrument present in train, val and test is required, found {found}"
        raise DataError(msg)
    left_out = sorted(set.union(*(set(split) for split in splits.values())) - common)
    for split in splits.values():
        for name in left_out:
            split.pop(name, None)
    return [f"{path.name}: {name} is not in every split and was left out" for name in left_out]


def _refuse_fixed_est(splits: dict[str, Bars], path: Path) -> None:
    """Refuse times whose weeks open at 22:00 UTC all year round: a clock without daylight saving was assumed."""
    opens = pd.DatetimeIndex([t for bars in splits["train"].values() for t in _week_opens(bars)])
    if opens.empty:
        return
    hours = {
        season: opens[opens.month.isin(months)].hour
        for season, months in (("w", (12, 1, 2)), ("s", (6, 7, 8)))
    }
    if min(len(h) for h in hours.values()) >= 4 and all((h == 22).mean() > 0.8 for h in hours.values()):
        msg = (
            f"{path}: UTC times are required, found weeks that open at 22:00 in summer as in winter (21:00 would "
            "be right in summer): HistData's labels plus five hours, one hour late under daylight saving; pass "
            "clock histdata (--clock histdata) to correct them, or UTC to take them as they are"
        )
        raise DataError(msg)


def _week_opens(bars: pd.DataFrame) -> pd.DatetimeIndex:
    """Return the first open of each week, where it is a Sunday's."""
    index = pd.DatetimeIndex(bars.index)
    first = index[bar_table.follows_gap(bars, 86_400)]
    return first[first.day_of_week == 6]


def _from_fixed_est(splits: dict[str, Bars], path: Path) -> dict[str, Bars]:
    corrected: dict[str, Bars] = {}
    for split, instruments in splits.items():
        corrected[split] = {}
        for name, bars in instruments.items():
            where = f"{path}:/{split}/{name}"
            labels = pd.DatetimeIndex(bars.index).tz_localize(None) - pd.Timedelta(hours=5)
            moved = bars.set_axis(clocks.to_utc(labels, clocks.HISTDATA, where), axis=0)
            moved, _ = bar_table.drop_repeats(moved, where)
            corrected[split][name] = make_bars(pd.DatetimeIndex(moved.index), moved.to_numpy(), where)
    return corrected


def _check_order(splits: dict[str, Bars], path: Path) -> None:
    for earlier, later in (("train", "val"), ("val", "test")):
        ends = {name: bars.index[-1] for name, bars in splits[earlier].items()}
        starts = {name: bars.index[0] for name, bars in splits[later].items()}
        last, first = max(ends, key=ends.__getitem__), min(starts, key=starts.__getitem__)
        if starts[first] <= ends[last]:
            msg = (
                f"{path}: splits disjoint in time are required, found {first} {later} starting at "
                f"{starts[first].isoformat()}, not after {earlier}'s end {ends[last].isoformat()}"
                f"{'' if first == last else f' ({last})'}: what is trained on would be judged on; "
                "split the data again"
            )
            raise DataError(msg)


def _check_bar_seconds(splits: dict[str, Bars], bar_seconds: int, path: Path) -> None:
    for split, instruments in splits.items():
        for name, bars in instruments.items():
            step = int(np.diff(open_seconds(bars)).min(initial=bar_seconds))
            if bar_seconds <= 0 or step < bar_seconds - (3600 if bar_seconds >= 86_400 else 0):
                msg = (
                    f"{path}:/{split}/{name}: bars of {bar_seconds} s are required, found two {step} s apart; "
                    "build the file again"
                )
                raise DataError(msg)


def _layout(file: h5py.File) -> str:
    names = sorted(f"/{name}" for name in file)
    for name in list(file)[:8]:
        if isinstance(file.get(name, getlink=True), h5py.HardLink) and isinstance(file[name], h5py.Group):
            names += [f"/{name}/{inner}" for inner in list(file[name])[:4]]
    return ", ".join(names[:8]) or "an empty file"
