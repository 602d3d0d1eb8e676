"""`python -m benchmarks.rollover_artefact FOLDER`: an edge that bid bars show and nobody can trade.

FOLDER holds EURUSD_M5.parquet and others (timestamp, open, high, low, close; bid prices, UTC), its parent
OANDA_spread_by_hour_2023.csv (symbol, hour_utc, median in pips). Prints the table of docs/rollover-artefact.md:
the rule "long from 17:05 to 19:00 New York" with bid taken for mid and a flat cost, and with the right sides
and the spread of the hour.
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
from sac_kernel.stats import metrics

INSTRUMENTS = ("EURUSD", "EURGBP", "USDCHF")
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


def own_spread(folder: Path, instrument: str) -> np.ndarray:
    """Return how many times EURUSD's spread, both in bps, a pair's is in each hour of New York, shape (24,).

    The cost table is EURUSD's. OANDA's medians are by UTC hour, almost all of them in New York's summer.
    """
    table = pd.read_csv(folder.parent / "OANDA_spread_by_hour_2023.csv").set_index(["symbol", "hour_utc"])
    price = {name: float(read_bars(folder, name)["close"].median()) for name in ("EURUSD", instrument)}
    own, base = (table.loc[name, "median"].to_numpy() / price[name] for name in (instrument, "EURUSD"))
    return np.roll(own / base, -4)


def market_at(bars: pd.DataFrame, tier: str, factor: np.ndarray, *, naive: bool, freeze: bool) -> Market:
    """Return the market; naive is bid taken for mid at the flat cost of normal hours, without swap.

    `factor` is the pair's spread over EURUSD's by New York hour, not used by the naive market.
    """
    swaps = {"swap_long_bps": 0.0, "swap_short_bps": 0.0} if naive else {}
    config, bars = TradingEnvConfig(cost_tier=tier, **swaps), Bars(bars, side="mid" if naive else "bid")
    nothing = pd.DataFrame({"none": np.zeros(len(bars), np.float32)}, index=bars.index)
    market = prepare_market(bars, nothing, config, close_at_end=True)
    table = market.bars.copy()
    if naive:
        table["spread_open"] = table["spread_close"] = np.median(
            np.concatenate((table["spread_open"], table["spread_close"]))
        )
    else:
        hour = costs.new_york_minute(market.open_time) // 60
        for name in ("spread_open", "spread_close"):
            table[name] *= factor[hour]
    if not freeze:
        table["tradable"] = 1.0
    return dataclasses.replace(market, bars=table)


def run_rule(
    bars: pd.DataFrame, tier: str, factor: np.ndarray, *, naive: bool, freeze: bool
) -> EpisodeResult:
    """Return the rule's pass over all bars."""
    market = market_at(bars, tier, factor, naive=naive, freeze=freeze)
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
        "bid and ask, EURUSD's spread of the hour": (False, False, False),
        "bid and ask, its own spread of the hour": (False, True, False),
        "the same, no change of exposure 16:45-19:00": (False, True, True),
    }
    print(f"| instrument | how | {' | '.join(tiers)} |\n|---|---|{'---|' * len(tiers)}")
    for instrument in INSTRUMENTS:
        bars, factor = read_bars(folder, instrument), own_spread(folder, instrument)
        for how, (naive, own, freeze) in ways.items():
            spread = factor if own else np.ones(24)
            cells = [figures(run_rule(bars, tier, spread, naive=naive, freeze=freeze)) for tier in tiers]
            print(f"| {instrument} | {how} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
