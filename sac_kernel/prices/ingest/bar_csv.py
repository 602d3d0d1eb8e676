"""Bars written as the CSV that every reader of this package takes without a question but the price side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sac_kernel.core import files
from sac_kernel.prices.bars import INDEX_NAME, PRICE_COLUMNS

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


def write_bars(bars: pd.DataFrame, path: Path) -> None:
    """Write bars atomically, times in UTC, prices with all the digits that they need."""
    table = bars.loc[:, list(PRICE_COLUMNS)].rename_axis(INDEX_NAME)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, table.to_csv(date_format="%Y-%m-%dT%H:%M:%SZ", lineterminator="\n"))
