"""From sources of bars to a processed file, one instrument at a time to save memory.

The traded instrument comes first: its bars set the splits' boundaries. Instruments with incomplete bars are left
out with a note.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sac_kernel.core.errors import DataError
from sac_kernel.prices.bars import Bars, check_plausible, inspect_bars, split_notes, with_spread
from sac_kernel.prices.ingest import download, formats
from sac_kernel.prices.ingest.split import SplitTimes, split_times
from sac_kernel.prices.ingest.tables import BarTable, aggregate
from sac_kernel.prices.ingest.writer import writing
from sac_kernel.prices.instruments import DEFAULT, INSTRUMENTS, choose_traded, spec_or_default
from sac_kernel.prices.pipeline import DataConfig, day_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sac_kernel.prices.instruments import InstrumentSpec

_EDGE = pd.Timedelta(days=7)
_LEAST_SHARE = 0.5
_SHOWN_GAP_H = 24.0


def write_source(config: DataConfig, target: Path, *, fetch: bool = False) -> None:
    """Write the processed file of the configured source; `fetch` downloads, whatever the source is."""
    tables = _downloaded(config) if fetch or config.source == "download" else _tables(config)
    write_tables(tables, config, target)


def write_tables(
    tables: Iterator[tuple[str, BarTable]],
    config: DataConfig,
    target: Path,
    spec: InstrumentSpec | None = None,
) -> None:
    """Write the processed file of a stream of instruments; the first is traded and sets the splits.

    `spec` is the traded instrument's; None takes the config's.
    """
    traded_name, traded = next(tables)
    spec = spec or config.spec_of(traded_name)
    traded = dataclasses.replace(traded, bars=with_spread(traded.bars, spec))
    first = traded_name, traded
    check_plausible(traded.bars, spec, traded.source)
    times = split_times(traded.bars, config)
    lengths = {name: len(part) for name, part in times.parts(traded.bars).items()}
    notes: list[str] = []
    left_out: list[str] = []
    names: set[str] = set()
    with writing(target, traded_name) as writer:
        for name, table in itertools.chain([first], tables):
            names.add(name)
            _require_alike(name, table, traded)
            parts = times.parts(table.bars)
            reason = _gap_in_splits(parts, lengths, times)
            if reason:
                left_out.append(f"{name}: left out, {reason}")
                continue
            own = spec if name == traded_name else spec_or_default(name)
            notes += [*table.notes, *split_notes(table.bars, own), *_quality(name, table)]
            writer.add(name, {split: Bars(part, instrument=name) for split, part in parts.items()}, own)
        if len(names) > 1:
            left_out += [
                f"No {name} bars: its features are left out." for name in INSTRUMENTS if name not in names
            ]
        more = f" and {len(names) - 1} more instruments" if len(names) > 1 else ""
        writer.finish(traded.source + more, traded.clock, (*left_out, *notes))


def _require_alike(name: str, table: BarTable, traded: BarTable) -> None:
    options = {"seconds": ("bar seconds", "--bar-minutes"), "side": ("price side", "--price-side")}
    for attribute, (what, option) in options.items():
        expected, value = getattr(traded.bars, attribute), getattr(table.bars, attribute)
        if value != expected:
            msg = (
                f"{table.source}: the {what} of {name} is {value}, but that of {traded.source} is {expected}. "
                f"Pass {option}."
            )
            raise DataError(msg)


def _gap_in_splits(parts: dict[str, pd.DataFrame], lengths: dict[str, int], times: SplitTimes) -> str:
    """Return why an instrument cannot be used in all three splits, '' if it can.

    Its features would be NaN or stale in gaps, so its bars must reach to within a week of both ends of every
    split, and there must be at least half as many as of the traded instrument.
    """
    for name, part in parts.items():
        begin, end = times.spans[name]
        if len(part) < 2 or part.index[0] > begin + _EDGE or part.index[-1] < end - _EDGE:
            span = (
                f"from {part.index[0]:%Y-%m-%d} to {part.index[-1]:%Y-%m-%d}" if len(part) else "are missing"
            )
            return f"the {name} split runs from {begin:%Y-%m-%d} to {end:%Y-%m-%d}, its bars {span}"
        if len(part) < _LEAST_SHARE * lengths[name]:
            return f"it has {len(part):,} bars in {name}, the traded instrument {lengths[name]:,}"
    return ""


def _quality(name: str, table: BarTable) -> list[str]:
    """Return a note if a gap inside the week is longer than a day."""
    facts = inspect_bars(table.bars, table.bars.seconds)
    if facts["longest_weekday_gap_h"] <= _SHOWN_GAP_H:
        return []
    gaps = facts["gaps"] - facts["weekend_gaps"]
    return [
        f"{name}: {gaps} gaps inside the week, the longest {facts['longest_weekday_gap_h']:.0f} h; nothing is filled"
    ]


def _tables(c: DataConfig) -> Iterator[tuple[str, BarTable]]:
    """Yield the bars of each instrument, the traded one first."""
    seconds = 60 * c.bar_minutes
    if c.source == "sample":
        sample = formats.read_sample(c.price_side, c.clock, c.instrument)
        yield sample.bars.instrument, aggregate(sample, seconds or 3600)
        return
    path = Path(c.path)
    if not path.is_dir():
        table = formats.read_instrument([path], c.price_side, c.clock, c.instrument, seconds)
        yield table.bars.instrument, table
        return
    files = formats.find_files(path)
    wanted = c.instrument or (next(iter(files)) if len(files) == 1 else "")
    traded = choose_traded(files, wanted, str(path))
    for name in (traded, *(n for n in files if n != traded)):
        yield name, formats.read_instrument(files[name], c.price_side, c.clock, name, seconds)


def _downloaded(c: DataConfig) -> Iterator[tuple[str, BarTable]]:
    """Fetch one instrument after another, the traded one first; skip those that the provider lacks."""
    if c.clock not in (None, "UTC"):
        msg = f"Downloads are on UTC, so --clock {c.clock} does not fit. Leave it out."
        raise DataError(msg)
    traded = c.instrument or DEFAULT
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=2)
    order = download.Download(
        c.download_from,
        day_of(c.download_start, "download_start") or yesterday,
        day_of(c.download_end, "download_end") or yesterday,
        Path(c.download_cache),
        c.price_side or "bid",
        60 * (c.bar_minutes or 5),
    )
    for name in (traded, *(n for n in INSTRUMENTS if n != traded)):
        table = download.fetch(order, name)
        if table is not None:
            yield name, table
        elif name == traded:
            msg = f"{c.download_from} has no bars of {name} for these dates. Choose others."
            raise DataError(msg)
