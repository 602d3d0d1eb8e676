"""Writes `processed_data.h5` atomically, one instrument at a time; equal data give equal bytes.

`prices.processed_file` has the layout and the reader.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

import h5py
import numpy as np

from sac_kernel.core import files
from sac_kernel.prices.bars import PRICE_COLUMNS, SPREAD, Bars, open_seconds, spec_for
from sac_kernel.prices.instruments import choose_traded
from sac_kernel.prices.processed_file import (
    SCHEMA_VERSION,
    SPLITS,
    ProcessedData,
    check_alike,
    hash_bars,
    joint_hash,
    with_traded,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd

    from sac_kernel.prices.instruments import InstrumentSpec

_CHUNK_ROWS = 16_384
_MAX_NOTES = 40


class ProcessedWriter:
    """Writes a processed file one instrument at a time, so that only one need be in memory.

    Use it through `writing`, and call `finish` at the end: it writes the metadata.
    """

    def __init__(self, file: h5py.File, traded: str) -> None:
        self._file, self._traded = file, traded
        self._first: Bars | None = None
        self._digests: dict[str, str] = {}
        self._spans: dict[str, list[pd.Timestamp]] = {split: [] for split in SPLITS}
        self._specs: dict[str, InstrumentSpec] = {}
        self.finished = False

    def add(
        self, instrument: str, splits: dict[str, pd.DataFrame], spec: InstrumentSpec | None = None
    ) -> None:
        """Write the three splits of one instrument: chunked, gzip, shuffle, checksums, no timestamps."""
        spec = spec or spec_for(Bars(splits["train"], instrument=instrument))
        self._specs[instrument] = dataclasses.replace(spec, symbol=instrument)
        self._first = Bars(splits["train"].iloc[:0]) if self._first is None else self._first
        for split in SPLITS:
            bars = splits[split]
            check_alike(bars, self._first, f"{self._file.filename}: {instrument} in {split}")
            group = self._file.create_group(f"{split}/{instrument}")
            columns = {"timestamp": open_seconds(bars)}
            stored = (*PRICE_COLUMNS, SPREAD) if SPREAD in bars else PRICE_COLUMNS
            columns |= {name: bars[name].to_numpy(np.float64) for name in stored}
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
            self._digests[f"{split} {instrument}"] = hash_bars(bars)
            self._spans[split] += [bars.index[0], bars.index[-1]]

    def finish(self, source: str, clock: str, notes: tuple[str, ...] = ()) -> None:
        """Write /metadata."""
        assert self._first is not None
        group = self._file.create_group("metadata")
        attrs = group.attrs
        attrs["traded"] = choose_traded(self._specs, self._traded, self._file.filename)
        attrs["pairs"] = sorted(self._specs)
        for split, span in self._spans.items():
            attrs[f"{split}_start"] = min(span).isoformat()
            attrs[f"{split}_end"] = max(span).isoformat()
        attrs["bar_seconds"] = self._first.seconds
        attrs["price_side"] = self._first.side
        attrs["source"] = source
        attrs["clock"] = clock
        attrs["notes"] = "\n".join(notes[:_MAX_NOTES])
        digest = joint_hash(self._digests, self._first.seconds, self._first.side)
        attrs["content_hash"] = with_traded(digest, self._traded, self._specs[self._traded])
        attrs["schema_version"] = SCHEMA_VERSION
        table = group.create_group("instruments")
        rows = [(name, self._specs[name].toml()) for name in sorted(self._specs)]
        for column, values in zip(("symbol", "spec"), zip(*rows, strict=True), strict=True):
            texts = np.array([text.encode() for text in values], dtype="S")
            table.create_dataset(column, data=texts, track_times=False)
        self.finished = True


@contextlib.contextmanager
def writing(path: Path, traded: str) -> Iterator[ProcessedWriter]:
    """Yield a writer whose file replaces `path` when it is finished and is deleted on any error."""
    with files.replacing(path) as temporary, h5py.File(temporary, "w", track_order=False) as file:
        writer = ProcessedWriter(file, traded)
        yield writer
        assert writer.finished, f"{path} was not finished"
        file.flush()


def write_processed(data: ProcessedData, path: Path) -> None:
    """Write the processed file atomically; equal data give equal bytes."""
    specs = {spec.symbol: spec for spec in data.specs}
    with writing(path, data.traded) as writer:
        for name in sorted(data.train):
            writer.add(name, {split: bars[name] for split, bars in data.splits.items()}, specs.get(name))
        writer.finish(data.source, data.clock, data.notes)
