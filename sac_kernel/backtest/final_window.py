"""Dates that stay unseen until everything else is decided."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from sac_kernel.core import files
from sac_kernel.core.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from sac_kernel.prices.bars import BarsByInstrument


@dataclass(frozen=True)
class FinalWindow:
    """Dates that stay unseen until everything else is decided: frozen, hashed, opened once."""

    first_utc: str
    last_utc: str
    data_hash: str

    @property
    def dates_hash(self) -> str:
        """Return the hash of the dates and the data."""
        return files.content_hash(dataclasses.asdict(self))

    def open_once(self, record: Path, bars: BarsByInstrument, purpose: str) -> BarsByInstrument:
        """Return the bars inside the window, after recording that it was opened and for what.

        Parameters
        ----------
        record : a JSON file that travels with the trial ledger
        purpose : the configuration that is judged: free text, no secret

        Raises
        ------
        DataError
            If the record exists (the window was opened before), or the window holds no bars.
        """
        if record.is_file():
            was = files.read_json(record)
            msg = (
                f"{record}: this final window was already opened, for {was.get('purpose')!r}. A second look is "
                "no test. Choose a later window."
            )
            raise DataError(msg)
        first, last = pd.Timestamp(self.first_utc), pd.Timestamp(self.last_utc)
        inside = {name: frame[(frame.index >= first) & (frame.index <= last)] for name, frame in bars.items()}
        if not any(len(frame) for frame in inside.values()):
            msg = f"There are no bars from {first} to {last}. Fetch them first."
            raise DataError(msg)
        entry = {**dataclasses.asdict(self), "dates_hash": self.dates_hash, "purpose": purpose}
        files.write_json(record, {**entry, "opened_utc": pd.Timestamp.now("UTC").isoformat()})
        return inside
