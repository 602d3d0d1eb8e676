"""From sources of bars to a processed file, one instrument at a time to save memory.

The traded instrument comes first: its bars set the splits' boundaries. Instruments with incomplete bars are left
out with a note.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from sac_kernel.core.errors import DataError
from sac_kernel.prices.bars import Bars, check_plausible, split_notes, with_spread
from sac_kernel.prices.ingest import download, formats
from sac_kernel.prices.ingest.cleaning import NAMED_ROWS
from sac_kernel.prices.ingest.holes import LONG_WEEKS, find_holes, hole_notes
from sac_kernel.prices.ingest.questions import ask
from sac_kernel.prices.ingest.split import SplitTimes, split_times
from sac_kernel.prices.ingest.suspect import suspects
from sac_kernel.prices.ingest.tables import BarTable, aggregate
from sac_kernel.prices.ingest.writer import writing
from sac_kernel.prices.instruments import DEFAULT, INSTRUMENTS, choose_traded, known, spec_or_default
from sac_kernel.prices.pipeline import DataConfig, day_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sac_kernel.prices.instruments import InstrumentSpec

_EDGE = pd.Timedelta(days=7)
_LEAST_SHARE = 0.5


def write_source(config: DataConfig, target: Path, *, fetch: bool = False) -> None:
    """Write the processed file of the configured source; `fetch` downloads, whatever the source is."""
    if fetch or config.source == "download":
        tables = _downloaded(config)
    else:
        ask(config)
        tables = source_tables(config)
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
    traded_name, given = next(tables)
    spec, traded = charged(traded_name, given, config, spec)
    first = traded_name, traded
    times = split_times(traded.bars, config)
    lengths = {name: len(part) for name, part in times.parts(traded.bars).items()}
    grave: list[str] = []
    changes: list[str] = []
    notes: list[str] = []
    left_out: list[str] = []
    names: set[str] = set()
    with writing(target, traded_name) as writer:
        for name, table in itertools.chain([first], tables):
            names.add(name)
            require_alike(name, table, traded)
            parts = times.parts(table.bars)
            reason = _gap_in_splits(parts, lengths, times)
            if reason:
                left_out.append(f"{name}: left out, {reason}")
                continue
            own = spec if name == traded_name else spec_or_default(name)
            said = notes_on(name, table, config, own, traded=name == traded_name)
            grave, changes, notes = [*grave, *said.grave], [*changes, *table.changes], [*notes, *said.others]
            writer.add(name, {split: Bars(part, instrument=name) for split, part in parts.items()}, own)
        if len(names) > 1:
            left_out += [
                f"No {name} bars: its features are left out." for name in INSTRUMENTS if name not in names
            ]
        more = f" and {len(names) - 1} more instruments" if len(names) > 1 else ""
        writer.finish(traded.source + more, traded.clock, (*grave, *changes, *left_out, *notes))


def charged(
    name: str, table: BarTable, config: DataConfig, spec: InstrumentSpec | None = None
) -> tuple[InstrumentSpec, BarTable]:
    """Return what the traded instrument costs, and its bars with their own spread if that is charged.

    Raises
    ------
    DataError
        If its kind is unknown, or its prices are not plausible.
    """
    kind = config.kind or ("" if known(name) else table.kind)
    spec = spec or dataclasses.replace(config, kind=kind).spec_of(name)
    bars = table.with_spread_column() if spec.spread_from == "column" else table.bars
    table = dataclasses.replace(table, bars=with_spread(bars, spec))
    check_plausible(table.bars, spec, table.source)
    return spec, table


class Notes(NamedTuple):
    """What there is to say on an instrument's bars, the gravest apart."""

    grave: list[str]
    others: list[str]


def notes_on(name: str, table: BarTable, config: DataConfig, spec: InstrumentSpec, *, traded: bool) -> Notes:
    """Return the notes on an instrument's bars; raise DataError if some cannot be right (`suspect`)."""
    holes = find_holes(table.bars, table.bars.seconds)
    grave = [*_outliers(name, table, config), *split_notes(table.bars, spec)]
    grave += hole_notes(name, [h for h in holes if h.weeks >= LONG_WEEKS])
    others = [*table.notes, *(_spread_notes(name, table, spec) if traded else [])]
    return Notes(grave, others + hole_notes(name, [h for h in holes if h.weeks < LONG_WEEKS]))


def require_alike(name: str, table: BarTable, traded: BarTable) -> None:
    """Raise DataError unless an instrument has the traded one's bar length and price side."""
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


def _outliers(name: str, table: BarTable, config: DataConfig) -> list[str]:
    """Return a note that counts suspect bars if they are accepted; raise DataError if they are not."""
    found = suspects(table.bars)
    if not found:
        return []
    listed = "\n  ".join(s.text for s in found[:NAMED_ROWS])
    more = f"\n  and {len(found) - NAMED_ROWS} more" if len(found) > NAMED_ROWS else ""
    if not config.accept_outliers:
        msg = (
            f"{table.source}: {len(found)} of {len(table.bars):,} bars of {name} cannot be right:\n  {listed}{more}\n"
            "Correct them in the source, or pass --accept-outliers to take all bars as they are."
        )
        raise DataError(msg)
    return [f"{name}: {len(found)} bars that look wrong were accepted, first {found[0].text}"]


def _spread_notes(name: str, table: BarTable, spec: InstrumentSpec) -> list[str]:
    """Return a note that offers the file's own spread as a cost."""
    if table.spread is None or spec.spread_from == "column":
        return []
    typical = float(np.median(table.spread))
    close = float(table.bars["close"].median())
    bps = 1e4 * typical * (spec.price_step / close if table.spread_unit == "points" else 1.0)
    offer = f"--costs spread=column charges it instead of the profile's {spec.spread_bps:g}"
    return [f"{name}: the file has its own spread, {bps:.3g} bps in the middle; {offer}"]


def source_tables(c: DataConfig) -> Iterator[tuple[str, BarTable]]:
    """Yield the bars of each instrument, the traded one first."""
    seconds = 60 * c.bar_minutes
    if c.source == "sample":
        sample = formats.read_sample(c.price_side, c.clock, c.instrument)
        yield sample.bars.instrument, aggregate(sample, seconds or 3600)
        return

    def read(paths: list[Path], name: str) -> BarTable:
        return formats.read_instrument(
            paths, c.price_side, c.clock, name, seconds, repair_rounding=c.repair_rounding
        )

    path = Path(c.path)
    if not path.is_dir():
        table = read([path], c.instrument)
        yield table.bars.instrument, table
        return
    files = formats.find_files(path)
    wanted = c.instrument or (next(iter(files)) if len(files) == 1 else "")
    traded = choose_traded(files, wanted, str(path))
    for name in (traded, *(n for n in files if n != traded)):
        yield name, read(files[name], name)


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
