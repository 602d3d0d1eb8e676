"""All bars of a source as they are, without splits and without embargoes: what is judged, not trained on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sac_kernel.core.errors import DataError
from sac_kernel.prices import costs
from sac_kernel.prices.bars import Bars, BarsByInstrument
from sac_kernel.prices.ingest.panel import charged, notes_on, require_alike, source_tables
from sac_kernel.prices.ingest.questions import ask
from sac_kernel.prices.instruments import InstrumentSpec, spec_or_default
from sac_kernel.prices.processed_file import hash_bars, joint_hash, read_processed, with_traded

if TYPE_CHECKING:
    import pandas as pd

    from sac_kernel.prices.pipeline import DataConfig


@dataclass(frozen=True)
class WholeBars:
    """Bars of every instrument of a source, in time order.

    Attributes
    ----------
    bars : instrument -> `Bars`; those of the traded one have its spec
    traded : the traded instrument
    source, clock : where the bars came from, in words
    notes : for the reader, the gravest first
    """

    bars: BarsByInstrument
    traded: str
    source: str
    clock: str
    notes: tuple[str, ...]

    @property
    def own(self) -> Bars:
        """Return the bars of the traded instrument."""
        return Bars(self.bars[self.traded])

    @property
    def spec(self) -> InstrumentSpec:
        """Return what the traded instrument costs and when it trades."""
        spec = self.own.spec
        assert spec
        return spec

    @property
    def content_hash(self) -> str:
        """Return the SHA-256 of all bars, the traded instrument and its spec."""
        digests = {f"all {name}": hash_bars(table) for name, table in self.bars.items()}
        digest = joint_hash(digests, self.own.seconds, self.own.side)
        return with_traded(digest, self.traded, self.spec)

    def until(self, moment: pd.Timestamp) -> WholeBars:
        """Return the bars that open before a moment."""
        kept = {name: table[table.index < moment] for name, table in self.bars.items()}
        return dataclasses.replace(self, bars={name: table for name, table in kept.items() if len(table)})

    def facts(self, rows: pd.Index) -> dict[str, Any]:
        """Return plain facts for headers and reports on the rows that are judged."""
        return {
            "traded": self.traded,
            "instruments": sorted(self.bars),
            "bar_seconds": self.own.seconds,
            "price_side": self.own.side,
            "source": self.source,
            "clock": self.clock,
            "bars": len(rows),
            "first_utc": rows[0].isoformat(),
            "last_utc": rows[-1].isoformat(),
            "content_hash": self.content_hash,
            "notes": list(self.notes),
            "costs": costs.describe(self.spec, float(self.own["close"].median())),
        }


def read_whole(config: DataConfig) -> WholeBars:
    """Return all bars of the configured files, checked as those of a build are, or of a processed file.

    The bars between the splits of a processed file are not in it: they are holes.

    Raises
    ------
    DataError, InputNotFoundError
        As a build with this source (`panel.write_source`).
    """
    if config.source == "h5":
        return _of_processed(config)
    ask(config)
    tables = source_tables(config)
    traded, given = next(tables)
    spec, first = charged(traded, given, config)
    said = notes_on(traded, first, config, spec, traded=True)
    bars: BarsByInstrument = {traded: Bars(first.bars, instrument=traded, spec=spec)}
    grave, changes, others = said.grave, list(first.changes), said.others
    for name, table in tables:
        require_alike(name, table, first)
        own = spec_or_default(name)
        said = notes_on(name, table, config, own, traded=False)
        bars[name] = Bars(table.bars, instrument=name, spec=own)
        grave, changes, others = [*grave, *said.grave], [*changes, *table.changes], [*others, *said.others]
    more = f" and {len(bars) - 1} more instruments" if len(bars) > 1 else ""
    return WholeBars(bars, traded, first.source + more, first.clock, (*grave, *changes, *others))


def _of_processed(config: DataConfig) -> WholeBars:
    path = Path(config.path)
    data = read_processed(path, config.price_side, config.clock, config.instrument)
    if config.bar_minutes and config.bar_minutes * 60 != data.bar_seconds:
        msg = (
            f"{path} holds bars of {data.bar_seconds / 60:g} minutes, not {config.bar_minutes}. Leave --bar-minutes "
            "out, or pass the original bars."
        )
        raise DataError(msg)
    if config.states_spec:
        data = data.with_spec(config.spec_of(data.traded, data.spec))
    bars: BarsByInstrument = {name: data.whole(name) for name in data.train}
    return WholeBars(bars, data.traded, data.source, data.clock, data.notes)
