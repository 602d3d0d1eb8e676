"""`python -m benchmarks.rollover_artefact FOLDER`: an edge that bid bars show and nobody can trade.

FOLDER holds EURUSD_M5.parquet and others (timestamp, open, high, low, close; bid prices, UTC). Prints the table of
docs/rollover-artefact.md: the rule "long from 17:05 to 19:00 New York" with bid taken for mid and a flat cost, and with
the right sides and the costs of the hour.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from sac_kernel.backtest.runner import EpisodeResult, run_targets
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.market import Market, prepare_market
from sac_kernel.prices import costs
from sac_kernel.prices.bars import Bars
from sac_kernel.prices.instruments import EURUSD, InstrumentSpec, spec_of
from sac_kernel.stats import metrics

INSTRUMENTS = ("EURUSD", "EURGBP", "USDCHF", "XAUUSD")
START_MIN, END_MIN = 17 * 60 + 5, 19 * 60
START_EQUITY = 1e5


def read_bars(folder: Path, instrument: str) -> pd.DataFrame:
    """Return the bid bars of one Parquet file of the panel."""
    raw = pd.read_parquet(folder / f"{instrument}_M5.parquet").set_index("timestamp")
    bars = raw.loc[:, ["open", "high", "low", "close"]].astype(np.float64)
    bars.index = pd.DatetimeIndex(bars.index, name="open_time_utc").as_unit("ns")
    return Bars(bars, side="bid", seconds=300, instrument=instrument)


def rule(market: Market) -> np.ndarray:
    """Return the targets of the rule: long if the order's fill falls into 17:05 to 19:00 New York."""
    minute = costs.new_york_minute(market.open_time[market.first_bar + 1 :])
    return ((minute >= START_MIN) & (minute < END_MIN)).astype(np.float64)


def market_at(bars: pd.DataFrame, tier: str, spec: InstrumentSpec, *, naive: bool, freeze: bool) -> Market:
    """Return the market; naive is bid taken for mid at the flat cost of normal hours, without swap."""
    swaps = {"swap_long_bps": 0.0, "swap_short_bps": 0.0} if naive else {}
    config = TradingEnvConfig(cost_tier=tier, **swaps)
    bars = Bars(bars, side="mid" if naive else "bid", spec=spec)
    nothing = pd.DataFrame({"none": np.zeros(len(bars), np.float32)}, index=bars.index)
    market = prepare_market(bars, nothing, config, close_at_end=True)
    table = market.bars.copy()
    if naive:
        table["spread_open"] = table["spread_close"] = np.median(
            np.concatenate((table["spread_open"], table["spread_close"]))
        )
    if not freeze:
        table["tradable"] = 1.0
    return dataclasses.replace(market, bars=table)


def run_rule(
    bars: pd.DataFrame, tier: str, spec: InstrumentSpec, *, naive: bool, freeze: bool
) -> EpisodeResult:
    """Return the rule's pass over all bars."""
    market = market_at(bars, tier, spec, naive=naive, freeze=freeze)
    return run_targets(market, rule(market), START_EQUITY, "long 17:05-19:00", tier)


def figures(result: EpisodeResult) -> str:
    """Return annual Sharpe ratio and annual return in words."""
    daily = result.daily_returns
    annual = metrics.annual_return(daily)
    return f"{metrics.sharpe_ann(daily):+.1f} ({annual:+.1%})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print(
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, numpy {np.__version__}, pandas {pd.__version__}; "
        "annual Sharpe ratio (annual return)\n"
    )
    tiers = tuple(costs.COST_TIERS)
    ways = {
        "bid taken for mid, flat cost": (True, False, False),
        "bid and ask, EURUSD's costs of the hour": (False, False, False),
        "bid and ask, its own costs of the hour": (False, True, False),
        "the same, no change of exposure 16:45-19:00": (False, True, True),
    }
    print(f"| instrument | how | {' | '.join(tiers)} |\n|---|---|{'---|' * len(tiers)}")
    for instrument in INSTRUMENTS:
        bars = read_bars(folder, instrument)
        for how, (naive, own, freeze) in ways.items():
            spec = spec_of(instrument) if own else EURUSD
            cells = [figures(run_rule(bars, tier, spec, naive=naive, freeze=freeze)) for tier in tiers]
            print(f"| {instrument} | {how} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
