"""From sources of bars to `processed_data.h5`: bars are checked, described and split in time with an embargo.

Unusable bars are rejected, never repaired. `prices.ingest` reads sources and writes the file; the kernel lacks it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sac_kernel.core import paths
from sac_kernel.core.config import require
from sac_kernel.core.errors import ConfigError, DataError
from sac_kernel.prices.instruments import EURUSD, KINDS, InstrumentSpec, from_toml, spec_of
from sac_kernel.prices.processed_file import ProcessedData, read_processed

if TYPE_CHECKING:
    from sac_kernel.prices.bars import BarsByInstrument

SOURCES = ("sample", "files", "h5", "download")


@dataclass(frozen=True)
class DataConfig:
    """Where bars come from and how they are split.

    Settings that contradict the source are rejected: an instrument, price side or clock other than the file's, or
    a bar length other than an h5's.

    Attributes
    ----------
    source : 'sample' (embedded, needs gym-anytrading), 'files' (your bars, see docs/data.md), 'h5' (an
        existing processed file) or 'download' (needs tradedesk-marketdata)
    path : a file of bars or a folder of them, one instrument or more; the h5 file
    instrument : the traded instrument; its bars set the splits' boundaries. '' takes that of a single file, its name
        or an h5; of several instruments, and of a download, EURUSD
    kind : fx, metal, index, crypto or equity: costs and hours of an instrument that is not built in
    instrument_spec : TOML file with the traded instrument's `InstrumentSpec`
    costs : own costs of it, 'spread_bps=..,commission_bps=..'
    price_side : 'bid', 'ask' or 'mid'; needed unless the file states it
    clock : 'UTC', an IANA zone, 'histdata' or 'mt-eet'; needed unless the file states it
    bar_minutes : length of the bars to make; 0 leaves them as they are (a download makes 5)
    train_fraction, val_fraction : shares of the bars, in time order; the rest is the test split
    accept_outliers : take bars that look wrong as they are (`ingest.suspect`), with a note
    repair_rounding : widen highs and lows that miss open or close by one price step, with a note
    folds : test blocks of a walk-forward that the split is for: test and validation get a share of 2 / 3 / folds each,
        fewer blocks where one would have under 30 days; 0 takes the fractions
    embargo_hours : hours of bars left out after each boundary, so that no feature or held position crosses
        it; at least the longest feature horizon (1 day)
    output_path : the processed file
    download_from : 'dukascopy' or 'histdata'
    download_start, download_end : first and last day, ISO; '' is the day before yesterday
    download_cache : folder of downloaded files
    """

    source: str = "sample"
    path: str = ""
    instrument: str = ""
    kind: str = ""
    instrument_spec: str = ""
    costs: str = ""
    price_side: str | None = None
    clock: str | None = None
    bar_minutes: int = 0
    train_fraction: float = 0.6
    val_fraction: float = 0.2
    accept_outliers: bool = False
    repair_rounding: bool = False
    folds: int = 0
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
        require(self.folds >= 0, where, "folds must be >= 0", self.folds)
        require(self.embargo_hours >= 24, where, "embargo_hours must be >= 24", self.embargo_hours)
        require(self.kind in ("", *KINDS), where, f"kind must be one of {', '.join(KINDS)}", self.kind)
        EURUSD.with_costs(self.costs)  # checks names and numbers
        for name in ("download_start", "download_end"):
            day_of(getattr(self, name), name)

    @property
    def states_spec(self) -> bool:
        """Return whether a kind, a spec or costs are set."""
        return bool(self.kind or self.instrument_spec or self.costs)

    def spec_of(self, name: str, stored: InstrumentSpec | None = None) -> InstrumentSpec:
        """Return the spec of the traded instrument: of the TOML file, else `stored`, else built in; own costs on top.

        Raises
        ------
        DataError
            If the instrument is not known and neither kind nor spec is set.
        """
        if self.instrument_spec:
            spec = from_toml(Path(self.instrument_spec))
        else:
            spec = stored if stored and not self.kind else spec_of(name, self.kind)
        return dataclasses.replace(spec.with_costs(self.costs), symbol=name)


def _import_module(name: str) -> Any:  # noqa: ANN401  # a module
    """Return a module of `prices.ingest`; the kernel notebook does not carry it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as err:
        if not str(err.name).startswith("sac_kernel."):  # another package is missing
            raise
        msg = (
            f"This notebook can read {paths.DATA_FILE} only. "
            "Build that file at home with `python build_kernel.py --data PATH`."
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

        With the source 'sample' or 'download' an existing processed file is used as it is, unless
        `force_download` is set: that downloads the ten instruments again, except for days in the cache.
        """
        target = Path(self.config.output_path)
        own_files = self.config.source in ("files", "h5")
        if target.is_file() and not force_download and not own_files:
            return self.get_processed_data()
        data = self.write(download=force_download and not own_files)
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
            _import_module("sac_kernel.prices.ingest.panel").write_source(c, target, fetch=download)
        return target

    def get_processed_data(self) -> tuple[BarsByInstrument, BarsByInstrument, BarsByInstrument]:
        """Return (train, val, test) of the processed file.

        It is read from the configured output path, else from the mounted or local `processed_data.h5`.
        """
        target = Path(self.config.output_path)
        path = target if target.is_file() else paths.find_input(paths.DATA_FILE)
        data = read_processed(path, self.config.price_side, instrument=self.config.instrument)
        return data.train, data.val, data.test

    def _write_h5(self, target: Path) -> ProcessedData:
        """Return the content of an existing file, after writing it to `target` unless it is there already."""
        c, path = self.config, Path(self.config.path)
        data = read_processed(path, c.price_side, c.clock, c.instrument)
        if c.states_spec:
            data = data.with_spec(c.spec_of(data.traded, data.spec))
        if c.bar_minutes and c.bar_minutes * 60 != data.bar_seconds:
            msg = (
                f"{path} holds bars of {data.bar_seconds / 60:g} minutes, already split; they cannot become bars "
                f"of {c.bar_minutes} minutes. Leave --bar-minutes out, or pass the original bars."
            )
            raise DataError(msg)
        if path.resolve() != target.resolve() or c.instrument or c.states_spec:
            _import_module("sac_kernel.prices.ingest.writer").write_processed(data, target)
        return data


def day_of(text: str, name: str) -> dt.date | None:
    """Return the day of an ISO text, None for an empty one; raise ConfigError for any other text."""
    if not text:
        return None
    try:
        return dt.date.fromisoformat(text)
    except ValueError as err:
        msg = f"DataConfig: {name} must be a day such as 2017-01-31, got {text!r}"
        raise ConfigError(msg) from err
