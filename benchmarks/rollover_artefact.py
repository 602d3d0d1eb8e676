"""`python -m benchmarks.rollover_artefact FOLDER`: an edge that bid bars show and nobody can trade.

FOLDER holds EURUSD_M5.parquet and others (timestamp, open, high, low, close; bid prices, UTC). Prints the
tables of docs/rollover-artefact.md: the rule "long from 17:05 to 19:00 New York" with bid taken for mid and
a flat cost, and with the sides and the spread of the hour.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from sac_kernel import market_costs, metrics
from sac_kernel.bar_engine import Bar
from sac_kernel.evaluation import EpisodeResult, run_targets
from sac_kernel.trading_env import Market, TradingEnvConfig, prepare_market

INSTRUMENTS = ("EURUSD", "EURGBP", "USDCHF")
START_MIN, END_MIN = 17 * 60 + 5, 19 * 60
START_EQUITY = 1e5


def read_bars(folder: Path, instrument: str) -> pd.DataFrame:
    """Return the bid bars of one Parquet file of the panel."""
    raw = pd.read_parquet(folder / f"{instrument}_M5.parquet").set_index("timestamp")
    bars = raw.loc[:, ["open", "high", "low", "close"]].astype(np.float64)
    bars.index = pd.DatetimeIndex(bars.index, name="open_time_utc").as_unit("ns")
    bars.attrs = {"price_side": "bid", "bar_seconds": 300}
    return bars


def rule(market: Market) -> np.ndarray:
    """Return the targets of the rule: long if the order's fill falls into 17:05 to 19:00 New York."""
    minute = market_costs.new_york_minute(market.open_time[market.first_bar + 1 :])
    return ((minute >= START_MIN) & (minute < END_MIN)).astype(np.float64)


def market_at(bars: pd.DataFrame, tier: str, *, naive: bool, freeze: bool) -> Market:
    """Return the market; naive is bid taken for mid at the flat cost of normal hours, without swap."""
    swaps = {"swap_long_bps": 0.0, "swap_short_bps": 0.0} if naive else {}
    config = TradingEnvConfig(cost_tier=tier, price_side="mid" if naive else "bid", **swaps)
    nothing = pd.DataFrame({"none": np.zeros(len(bars), np.float32)}, index=bars.index)
    market = prepare_market(bars, nothing, config, close_at_end=True)
    table = market.bars.copy()
    if naive:
        spread = table[:, [Bar.SPREAD_OPEN, Bar.SPREAD_CLOSE]]
        table[:, [Bar.SPREAD_OPEN, Bar.SPREAD_CLOSE]] = np.median(spread)
    if not freeze:
        table[:, Bar.TRADABLE] = 1.0
    return dataclasses.replace(market, bars=table)


def run_rule(bars: pd.DataFrame, tier: str, *, naive: bool, freeze: bool) -> EpisodeResult:
    """Return the rule's pass over all bars."""
    market = market_at(bars, tier, naive=naive, freeze=freeze)
    return run_targets(market, rule(market), START_EQUITY, "long 17:05-19:00", tier)


def figures(result: EpisodeResult) -> str:
    """Return annual Sharpe ratio and annual return in words."""
    daily = result.daily_returns
    annual = daily.mean() * metrics.TRADING_DAYS_PER_YEAR
    return f"{metrics.sharpe_ann(daily):+.1f} ({annual:+.1%})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print(
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, numpy {np.__version__}, pandas {pd.__version__}; "
        "annual Sharpe ratio (annual return)\n"
    )
    tiers = tuple(market_costs.COST_TIERS)
    ways = {
        "bid taken for mid, flat cost": (True, False),
        "bid and ask, spread of the hour": (False, False),
        "the same, no change of exposure 16:45-19:00": (False, True),
    }
    print(f"| instrument | how | {' | '.join(tiers)} |\n|---|---|{'---|' * len(tiers)}")
    for instrument in INSTRUMENTS:
        bars = read_bars(folder, instrument)
        for how, (naive, freeze) in ways.items():
            cells = [figures(run_rule(bars, tier, naive=naive, freeze=freeze)) for tier in tiers]
            print(f"| {instrument} | {how} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
