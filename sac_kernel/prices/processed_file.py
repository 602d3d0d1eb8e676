"""`processed_data.h5`: the contract between a user's machine and the kernel; `prices.ingest.writer` writes it.

/train|val|test/<INSTRUMENT>/{timestamp, open, high, low, close, optional spread}, /metadata attributes, among them the
traded instrument, and /metadata/instruments/{symbol, spec}, a row for each instrument: its `InstrumentSpec` as TOML.
Files are untrusted: links, external storage and unknown filters are rejected, and sizes are checked before
memory is allocated.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd

from sac_kernel.core.errors import ConfigError, DataError, InputNotFoundError
from sac_kernel.core.printable import printable
from sac_kernel.prices import bars as bar_table
from sac_kernel.prices import clocks, hdf5
from sac_kernel.prices.bars import (
    PRICE_COLUMNS,
    PRICE_SIDES,
    SPREAD,
    Bars,
    BarsByInstrument,
    make_bars,
    open_seconds,
    utc_index,
)
from sac_kernel.prices.costs import describe
from sac_kernel.prices.instruments import (
    DEFAULT,
    EURUSD,
    InstrumentSpec,
    choose_traded,
    from_values,
    known,
    spec_or_default,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SPLITS = ("train", "val", "test")
SCHEMA_VERSION = 4
_OLDER_VERSIONS = (2, 3)
_WITH_TRADED, _WITH_SPECS = 3, 4
COLUMNS = ("timestamp", *PRICE_COLUMNS)

_ATTRIBUTES = (
    "schema_version", "traded", "price_side", "bar_seconds", "source", "clock", "notes", "content_hash",
)  # fmt: skip

_FIRST_PLAUSIBLE_S = 31_536_000  # 1971; seconds divided by 1000 are far below
_LAST_PLAUSIBLE_S = 4_102_444_800  # 2100; milliseconds are far above
_MAX_INSTRUMENTS = 64
_MAX_SPEC_BYTES = 8192
_MAX_TOTAL_BYTES = 1 << 31  # ten instruments of minute bars over fourteen years; several names may share data


@dataclass(frozen=True)
class ProcessedData:
    """The content of a processed file: three splits, the traded instrument, and their origin.

    Attributes
    ----------
    train, val, test : instrument -> `Bars`, all of one side and length
    traded : the instrument that agents trade; the others give features
    source, clock : where the bars came from, in words
    content_hash : of the bars, the traded instrument and its spec (`hash_splits`)
    notes : for the reader
    specs : of each instrument, by name; those left out are built in, or EURUSD's under another name
    """

    train: BarsByInstrument
    val: BarsByInstrument
    test: BarsByInstrument
    traded: str
    source: str
    clock: str
    content_hash: str
    notes: tuple[str, ...] = field(default=())
    specs: tuple[InstrumentSpec, ...] = field(default=())

    def __post_init__(self) -> None:
        for name in ("source", "clock"):  # a file's words, which messages and pages show
            object.__setattr__(self, name, printable(getattr(self, name)))
        object.__setattr__(self, "notes", tuple(map(printable, self.notes)))
        where = f"ProcessedData {self.source}"
        choose_traded(self.train, self.traded, where)
        first = self.train[self.traded]
        for split, instruments in self.splits.items():
            for name, bars in instruments.items():
                check_alike(bars, first, f"{where}: {name} in {split}")
        given = {spec.symbol: spec for spec in self.specs}
        specs = {name: given.get(name) or spec_or_default(name) for name in sorted(self.train)}
        object.__setattr__(self, "specs", tuple(specs.values()))
        for split, instruments in self.splits.items():
            made = {name: Bars(bars, spec=specs[name]) for name, bars in instruments.items()}
            object.__setattr__(self, split, made)

    @property
    def bar_seconds(self) -> int:
        """Return the length of a bar [s]."""
        bars = self.train[self.traded]
        assert isinstance(bars, Bars)
        return bars.seconds

    @property
    def price_side(self) -> str:
        """Return the price side of all bars."""
        bars = self.train[self.traded]
        assert isinstance(bars, Bars)
        return bars.side

    @property
    def splits(self) -> dict[str, BarsByInstrument]:
        """Return the splits by name, in time order."""
        return {"train": self.train, "val": self.val, "test": self.test}

    def whole(self, name: str) -> Bars:
        """Return an instrument's bars of all splits in time order, with gaps at the embargoes."""
        return bar_table.concat_bars([split[name] for split in self.splits.values()])

    @property
    def spec(self) -> InstrumentSpec:
        """Return what the traded instrument costs and when it trades."""
        return next(spec for spec in self.specs if spec.symbol == self.traded)

    def trading(self, name: str) -> ProcessedData:
        """Return the same bars with another traded instrument."""
        if name == self.traded:
            return self
        other = replace(self, traded=choose_traded(self.train, name, self.source))
        return replace(other, content_hash=hash_splits(self.splits, other.traded, other.spec))

    def with_spec(self, spec: InstrumentSpec) -> ProcessedData:
        """Return the same bars with another spec of the traded instrument."""
        spec = replace(spec, symbol=self.traded)
        digest = hash_splits(self.splits, self.traded, spec)
        specs = tuple(spec if own.symbol == self.traded else own for own in self.specs)
        return replace(self, specs=specs, content_hash=digest)

    def cost_lines(self, costs: str = "") -> list[str]:
        """Return what the traded instrument costs, a run's own costs on top, for headers and reports."""
        return describe(self.spec.with_costs(costs), float(self.train[self.traded]["close"].median()))

    @property
    def cost_note(self) -> str:
        """Return a note if nothing is known of the traded instrument's costs, '' otherwise."""
        guessed = not known(self.traded) and self.spec == spec_or_default(self.traded)
        return f"{self.traded} is not known: its costs are {DEFAULT}'s. Pass --kind." if guessed else ""

    def describe(self, costs: str = "") -> dict[str, Any]:
        """Return plain facts for headers and reports; `costs` are a run's own (`TradingEnvConfig.costs`)."""
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
            "traded": self.traded,
            "instruments": sorted(self.train),
            "bar_seconds": self.bar_seconds,
            "price_side": self.price_side,
            "source": self.source,
            "clock": self.clock,
            "content_hash": self.content_hash,
            "notes": [*filter(None, [self.cost_note]), *self.notes],
            "costs": self.cost_lines(costs),
            "splits": spans,
        }


def hash_splits(splits: dict[str, BarsByInstrument], traded: str, spec: InstrumentSpec | None = None) -> str:
    """Return the SHA-256 of the splits' content, independent of the file's bytes.

    It covers names, times, prices, spreads, price side, bar length, the traded instrument and its spec.
    """
    first = Bars(splits["train"][traded])
    digest = joint_hash(_digests(splits), first.seconds, first.side)
    return with_traded(digest, traded, spec or spec_or_default(traded))


def read_processed(
    path: Path, price_side: str | None = None, clock: str | None = None, instrument: str = ""
) -> ProcessedData:
    """Read a processed file, its bars bit-identical to those written.

    Parameters
    ----------
    path : the h5 file
    price_side : needed only for a file that does not state it (one without a schema version)
    clock : only for such a file: 'UTC' takes its times as they are; 'histdata' takes them as HistData's labels
        plus five hours and corrects them
    instrument : the instrument to trade; '' takes the file's, or EURUSD in a file before schema 3

    Raises
    ------
    InputNotFoundError
        If there is no such file.
    DataError
        If it is truncated, empty or of another layout, holds unusable bars, does not match its hash, lacks the
        instrument to trade, or states another price side or clock.
    """
    if not path.is_file():
        msg = f"There is no processed file at {path}. Make it with DataPipeline or --data."
        raise InputNotFoundError(msg)
    try:
        with h5py.File(path, "r") as file:
            return _read_file(file, path, price_side, clock, instrument)
    except DataError:
        raise
    # Errors of HDF5, and of NumPy and h5py for types and texts that they cannot hold
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, OverflowError, MemoryError) as err:
        msg = f"{path} is not a readable HDF5 file: {err}. Fetch or build it again."
        raise DataError(msg) from err


def read_traded(path: Path) -> str:
    """Return the traded instrument of a processed file; '' if it states none or cannot be read."""
    try:
        with h5py.File(path, "r") as file:
            return str(_attributes(file, path).get("traded", ""))
    except (DataError, OSError, RuntimeError, LookupError, TypeError, ValueError):
        return ""


def hash_bars(bars: pd.DataFrame) -> str:
    """Return the SHA-256 of bars: their number, times, prices and spreads."""
    digest = hashlib.sha256(f"{len(bars)}".encode())
    digest.update(open_seconds(bars).tobytes())
    for column in (*PRICE_COLUMNS, *((SPREAD,) if SPREAD in bars else ())):
        digest.update(bars[column].to_numpy(np.float64).tobytes())
    return digest.hexdigest()


def _digests(splits: dict[str, BarsByInstrument]) -> dict[str, str]:
    return {f"{split} {name}": hash_bars(bars) for split in SPLITS for name, bars in splits[split].items()}


def joint_hash(digests: dict[str, str], bar_seconds: int, price_side: str) -> str:
    """Return the hash of all bars, from those of each split and instrument (`hash_bars`)."""
    lines = [f"2 {bar_seconds} {price_side}", *(f"{k} {digests[k]}" for k in sorted(digests))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def with_traded(bars_hash: str, traded: str, spec: InstrumentSpec | None) -> str:
    """Return the content hash of bars, the traded instrument and its spec; None for schemas before 4.

    With EURUSD's built-in spec it is that of the bars alone, so that runs on files of schema 2 can be resumed.
    """
    if traded == DEFAULT and spec in (None, EURUSD):
        return bars_hash
    text = f"{bars_hash} traded {traded}" + (f"\n{spec.toml()}" if spec else "")
    return hashlib.sha256(text.encode()).hexdigest()


def check_alike(bars: pd.DataFrame, first: pd.DataFrame, where: str) -> None:
    """Raise DataError unless bars have a side and a length, the same as the first."""
    facts = [(b.side, b.seconds) if isinstance(b, Bars) else ("", 0) for b in (bars, first)]
    if not all(facts[0]) or facts[0] != facts[1]:
        listed = "; ".join(f"side {side or None!r}, {seconds} s" for side, seconds in dict.fromkeys(facts))
        msg = (
            f"{where}: all bars must have the same price side and bar length, got {listed}. "
            "Pass Bars(bars, side=..., seconds=...)."
        )
        raise DataError(msg)


def _read_file(
    file: h5py.File, path: Path, price_side: str | None, clock: str | None, instrument: str
) -> ProcessedData:
    _refuse_normalised(file, path)
    attrs = _attributes(file, path)
    own = attrs.get("schema_version") is not None
    version = int(attrs.get("schema_version", 0))
    if own and version not in (SCHEMA_VERSION, *_OLDER_VERSIONS):
        msg = f"{path} must have schema version {SCHEMA_VERSION}, got {version}. Build the file again."
        raise DataError(msg)
    if own:
        _refuse_other_statements(attrs, path, price_side, clock)
    room = [_MAX_TOTAL_BYTES]
    splits = {split: _read_split(file, split, path, room) for split in SPLITS}
    side = str(attrs.get("price_side", price_side))
    if side not in PRICE_SIDES:
        msg = (
            f"{path} does not state a price side (bid, ask or mid), and price_side is {price_side!r}. "
            "Pass --price-side."
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
    for split in splits.values():
        for name, bars in split.items():
            split[name] = Bars(bars, side=side, seconds=seconds, instrument=name)
    stored = str(attrs["traded"]) if version >= _WITH_TRADED and "traded" in attrs else ""
    traded = choose_traded(splits["train"], instrument or stored, str(path))
    digest = joint_hash(_digests(splits), seconds, side)
    specs = _read_specs(file, splits["train"], path) if version >= _WITH_SPECS else {}
    charged = specs.get(stored or DEFAULT)
    if attrs.get("content_hash", kept := with_traded(digest, stored or DEFAULT, charged)) != kept:
        msg = f"{path}: the bars do not match the stored content hash. Build the file again."
        raise DataError(msg)
    stored_notes = filter(None, str(attrs.get("notes", "")).split("\n"))
    return ProcessedData(
        **splits,
        traded=traded,
        source=str(attrs.get("source", path.name)),
        clock=str(attrs.get("clock", clock or "UTC")),
        content_hash=with_traded(digest, traded, specs.get(traded) or spec_or_default(traded)),
        notes=(*stored_notes, *notes),
        specs=tuple(specs.values()),
    )


def _refuse_other_statements(
    attrs: dict[str, Any], path: Path, price_side: str | None, clock: str | None
) -> None:
    """Reject a price side or clock other than the file's, because it would have no effect."""
    stored = str(attrs.get("price_side", price_side))
    if price_side is not None and price_side != stored:
        msg = f"{path} holds {stored} prices, so --price-side {price_side} does not fit. Leave it out."
        raise DataError(msg)
    if clock not in (None, "UTC", str(attrs.get("clock", ""))):
        msg = f"{path} holds UTC times, so --clock {clock} does not fit. Leave it out."
        raise DataError(msg)


def _read_specs(file: h5py.File, names: Iterable[str], path: Path) -> dict[str, InstrumentSpec]:
    """Return the file's facts about each of its instruments."""
    where, table = f"{path}:/metadata/instruments", None
    if (metadata := hdf5.child(file, "metadata", f"{path}:/metadata")) is not None:
        table = hdf5.child(metadata, "instruments", where)
    if not isinstance(table, h5py.Group):
        return {}
    symbols = hdf5.texts(table, "symbol", f"{where}/symbol", _MAX_INSTRUMENTS)
    specs = hdf5.texts(table, "spec", f"{where}/spec", _MAX_INSTRUMENTS, _MAX_SPEC_BYTES)
    if symbols is None or specs is None or len(symbols) != len(specs):
        msg = f"{where} must have the columns symbol and spec of one length. Build the file again."
        raise DataError(msg)
    try:
        rows = {
            name: from_values(tomllib.loads(text), where) for name, text in zip(symbols, specs, strict=True)
        }
    except (ConfigError, tomllib.TOMLDecodeError) as err:
        msg = f"{where} holds no instrument: {err}. Build the file again."
        raise DataError(msg) from err
    return {name: rows[name] for name in sorted(names) if name in rows}


def _attributes(file: h5py.File, path: Path) -> dict[str, Any]:
    """Return the known metadata attributes."""
    where = f"{path}:/metadata"
    group = hdf5.child(file, "metadata", where)
    if group is None:
        return {}
    if not isinstance(group, h5py.Group):
        msg = f"{where} must be a group, got {type(group).__name__}"
        raise DataError(msg)
    return hdf5.attributes(group, _ATTRIBUTES, where)


def _refuse_normalised(file: h5py.File, path: Path) -> None:
    """Raise DataError for a file of normalised features without bars."""
    if "features" in list(file) and "train" not in list(file):
        msg = (
            f"{path} holds normalised features without their scaler, not bars. "
            "Pass processed_data.h5 or the bars themselves."
        )
        raise DataError(msg)


def _read_split(file: h5py.File, split: str, path: Path, room: list[int]) -> BarsByInstrument:
    group = hdf5.child(file, split, f"{path}:/{split}")
    names = [] if not isinstance(group, h5py.Group) else sorted(group)
    # combined_data.h5 keeps its features beside the instruments
    names = [name for name in names if name != "features"]
    if odd := [name for name in names if len(name) > 64 or printable(name) != name or {*name} & {*"\t\n"}]:
        msg = f"{path}:/{split}: {odd[0]!r:.100} is no instrument: use 64 letters at most, no controls."
        raise DataError(msg)
    if not names:
        msg = (
            f"{path} must have the layout /train|val|test/<INSTRUMENT>/, got {_layout(file)}. "
            "Build the file with DataPipeline."
        )
        raise DataError(msg)
    if len(names) > _MAX_INSTRUMENTS:
        msg = f"{path}:/{split} may have at most {_MAX_INSTRUMENTS} instruments, got {len(names)}"
        raise DataError(msg)
    return {
        name: _read_bars(hdf5.child(group, name, f"{path}:/{split}/{name}"), f"{path}:/{split}/{name}", room)
        for name in names
    }


def _read_bars(group: Any, where: str, room: list[int]) -> Bars:  # noqa: ANN401  # group or dataset
    children = {}
    if isinstance(group, h5py.Group):
        children = {c: hdf5.child(group, c, f"{where}/{c}") for c in COLUMNS}
    if any(not isinstance(children.get(c), h5py.Dataset) for c in COLUMNS):
        content = ", ".join(group) if isinstance(group, h5py.Group) else type(group).__name__
        msg = f"{where} must have the datasets {', '.join(COLUMNS)}, got {content}"
        raise DataError(msg)
    if isinstance(spread := hdf5.child(group, SPREAD, f"{where}/{SPREAD}"), h5py.Dataset):
        children[SPREAD] = spread
    shapes = {c: dataset.shape for c, dataset in children.items()}
    if len(set(shapes.values())) != 1 or len(shapes["timestamp"] or ()) != 1:
        msg = f"{where}: the datasets must be one-dimensional and of equal length, got {shapes}"
        raise DataError(msg)
    kinds = [str(dataset.dtype) for dataset in children.values()]
    if "".join(dataset.dtype.kind for dataset in children.values()) != "iffff" + "f" * (SPREAD in children):
        msg = f"{where}: timestamp must be int64 and prices float, got {kinds}"
        raise DataError(msg)
    for name, dataset in children.items():
        hdf5.check_storage(dataset, f"{where}/{name}")
        room[0] -= dataset.size * dataset.dtype.itemsize
    if room[0] < 0:
        msg = f"{where}: a file may hold at most {_MAX_TOTAL_BYTES:,} bytes of bars. Split it."
        raise DataError(msg)
    seconds = children["timestamp"][:].astype(np.int64)
    if seconds.size and (
        seconds[-1] < _FIRST_PLAUSIBLE_S or seconds.min() < 0 or seconds.max() > _LAST_PLAUSIBLE_S
    ):
        msg = (
            f"{where}: timestamps must be Unix seconds from 1971 to 2100, got {seconds[0]}..{seconds[-1]}. They "
            "may be milliseconds, or seconds divided by 1000 (a pandas 3 unit slip). Build the file again."
        )
        raise DataError(msg)
    prices = np.stack([children[c][:].astype(np.float64) for c in PRICE_COLUMNS], axis=1)
    spread = children[SPREAD][:] if SPREAD in children else None
    return make_bars(utc_index(seconds), prices, where, spread=spread)


def _only_common(splits: dict[str, BarsByInstrument], path: Path) -> list[str]:
    """Remove instruments that are not in every split; return notes that name them."""
    common = set.intersection(*(set(split) for split in splits.values()))
    if not common:
        listed = "; ".join(f"{name}: {', '.join(sorted(split))}" for name, split in splits.items())
        msg = f"{path}: no instrument is in all of train, val and test; got {listed}"
        raise DataError(msg)
    left_out = sorted(set.union(*(set(split) for split in splits.values())) - common)
    for split in splits.values():
        for name in left_out:
            split.pop(name, None)
    return [f"{path.name}: {name} is not in every split and was left out" for name in left_out]


def _refuse_fixed_est(splits: dict[str, BarsByInstrument], path: Path) -> None:
    """Reject times whose weeks open at 22:00 UTC all year: they ignore daylight saving."""
    opens = pd.DatetimeIndex([t for bars in splits["train"].values() for t in _week_opens(bars)])
    if opens.empty:
        return
    hours = {
        season: opens[opens.month.isin(months)].hour
        for season, months in (("w", (12, 1, 2)), ("s", (6, 7, 8)))
    }
    if min(len(h) for h in hours.values()) >= 4 and all((h == 22).mean() > 0.8 for h in hours.values()):
        msg = (
            f"{path}: the times are not UTC. Weeks open at 22:00 in summer as in winter, so these are HistData's "
            "labels plus five hours, one hour late in summer. Pass --clock histdata to correct them, or "
            "--clock UTC to take them as they are."
        )
        raise DataError(msg)


def _week_opens(bars: pd.DataFrame) -> pd.DatetimeIndex:
    """Return the first open of each week that opens on a Sunday."""
    index = pd.DatetimeIndex(bars.index)
    first = index[bar_table.follows_gap(bars, 86_400)]
    return first[first.day_of_week == 6]


def _from_fixed_est(splits: dict[str, BarsByInstrument], path: Path) -> dict[str, BarsByInstrument]:
    corrected: dict[str, BarsByInstrument] = {}
    for split, instruments in splits.items():
        corrected[split] = {}
        for name, bars in instruments.items():
            where = f"{path}:/{split}/{name}"
            labels = pd.DatetimeIndex(bars.index).tz_localize(None) - pd.Timedelta(hours=5)
            moved = bars.set_axis(clocks.to_utc(labels, clocks.HISTDATA, where), axis=0)
            moved, _ = bar_table.drop_repeats(Bars(moved), where)
            prices = moved[list(PRICE_COLUMNS)].to_numpy()
            corrected[split][name] = make_bars(pd.DatetimeIndex(moved.index), prices, where)
    return corrected


def _check_order(splits: dict[str, BarsByInstrument], path: Path) -> None:
    for earlier, later in (("train", "val"), ("val", "test")):
        ends = {name: bars.index[-1] for name, bars in splits[earlier].items()}
        starts = {name: bars.index[0] for name, bars in splits[later].items()}
        last, first = max(ends, key=ends.__getitem__), min(starts, key=starts.__getitem__)
        if starts[first] <= ends[last]:
            msg = (
                f"{path}: the splits overlap. {later} of {first} starts at {starts[first].isoformat()}, not after "
                f"the end of {earlier}{'' if first == last else f' of {last}'} at {ends[last].isoformat()}. "
                "Agents would be judged on training bars: split the data again."
            )
            raise DataError(msg)


def _check_bar_seconds(splits: dict[str, BarsByInstrument], bar_seconds: int, path: Path) -> None:
    for split, instruments in splits.items():
        for name, bars in instruments.items():
            step = int(np.diff(open_seconds(bars)).min(initial=bar_seconds))
            if bar_seconds <= 0 or step < bar_seconds - (3600 if bar_seconds >= 86_400 else 0):
                msg = (
                    f"{path}:/{split}/{name}: bars must be at least {bar_seconds} s apart, got {step} s. "
                    "Build the file again."
                )
                raise DataError(msg)


def _layout(file: h5py.File) -> str:
    names = sorted(f"/{name}" for name in file)
    for name in list(file)[:8]:
        if isinstance(file.get(name, getlink=True), h5py.HardLink) and isinstance(file[name], h5py.Group):
            names += [f"/{name}/{inner}" for inner in list(file[name])[:4]]
    return ", ".join(names[:8]) or "an empty file"
