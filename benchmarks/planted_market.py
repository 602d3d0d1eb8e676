"""Hourly bid bars with a signal of known strength planted in them: what the real pipeline must be able to find."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sac_kernel.prices import costs
from sac_kernel.prices.bars import Bars
from sac_kernel.prices.ingest.split import split_table
from sac_kernel.prices.ingest.tables import BarTable
from sac_kernel.prices.pipeline import DataConfig

if TYPE_CHECKING:
    from sac_kernel.prices.processed_file import ProcessedData

BAR_S = 3600
HOURLY_SD = 0.08 / np.sqrt(252 * 24)
"""Of EURUSD at 8 % a year."""
YEARS = 6
CLIP = 2.0
LOOKBACK = 24


def planted_data(ic: float, seed: int, years: float = YEARS, folds: int = 0) -> ProcessedData:
    """Return an instrument whose expected next return follows its last 24 hours, in three splits.

    E[r_t+1] = ic x sigma x clip(sum of the last 24 returns / (sigma sqrt 24), -2, 2), sigma an hour's
    standard deviation; the rest is normal noise. Prices are bid: mid less half the clock's spread at base costs, so
    that the evening's wide spread shows in them as it does in real bars. `folds` is of `DataConfig`.
    """
    rng = np.random.default_rng(seed)
    times = pd.date_range("2014-01-05", periods=int(years * 365.25 * 24), freq="h", tz="UTC")
    local = pd.DatetimeIndex(times.tz_convert("America/New_York").tz_localize(None)) + pd.Timedelta(hours=7)
    times = pd.DatetimeIndex(times[local.dayofweek < 5], name="open_time_utc").as_unit("ns")
    n = len(times)
    noise = HOURLY_SD * np.sqrt(1.0 - ic * ic) * rng.standard_normal(n)
    moves = np.zeros(n)
    for t in range(n):
        past = moves[max(0, t - LOOKBACK) : t].sum() / (HOURLY_SD * np.sqrt(LOOKBACK))
        moves[t] = ic * HOURLY_SD * np.clip(past, -CLIP, CLIP) + noise[t]
    close = np.log(1.1) + np.cumsum(moves)
    opened = np.append(np.log(1.1), close[:-1]) + 0.02 * HOURLY_SD * rng.standard_normal(n)
    wick = HOURLY_SD / 3.0 * np.abs(rng.standard_normal((2, n)))
    opening = times.as_unit("s").asi8
    low, high = np.minimum(opened, close) - wick[0], np.maximum(opened, close) + wick[1]
    half_open, half_close = (
        costs.spread_bps(moment, "base") * 0.5e-4 for moment in (opening, opening + BAR_S - 1)
    )
    half_mean = np.maximum(half_open, half_close)
    columns = {
        "open": opened - half_open,
        "high": np.maximum(high - half_mean, np.maximum(opened - half_open, close - half_close)),
        "low": low - half_mean,
        "close": close - half_close,
    }
    prices = pd.DataFrame({name: np.exp(values) for name, values in columns.items()}, index=times)
    bars = Bars(prices, side="bid", seconds=BAR_S, instrument="EURUSD")
    return split_table(BarTable(bars, f"planted, IC {ic:g}", "UTC"), DataConfig(folds=folds))
