"""The headline's pass as CSV, for other tools; docs/report-files.md describes every column."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sac_kernel.core import files

if TYPE_CHECKING:
    from pathlib import Path

    from sac_kernel.backtest.runner import EpisodeResult
    from sac_kernel.market.market import Market


def write_tables(folder: Path, market: Market, result: EpisodeResult, fills: pd.DataFrame) -> None:
    """Write equity.csv, fills.csv and daily_returns.csv of a pass; numbers are read back as the same doubles."""
    close = result.open_time_utc + pd.Timedelta(seconds=market.bar_seconds)
    equity = {
        "time_utc": close.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "equity_ccy": result.equity,
        "exposure_x_equity": result.exposure,
        "costs_paid_ccy": result.cost_paid,
    }
    days = np.unique(result.day).astype("datetime64[D]").astype(str)
    daily = {"date": days, "net_return_frac": result.daily_returns}
    for name, table in (
        ("equity.csv", pd.DataFrame(equity)),
        ("fills.csv", fills),
        ("daily_returns.csv", pd.DataFrame(daily)),
    ):
        files.write_text(folder / name, table.to_csv(index=False, lineterminator="\n"))
