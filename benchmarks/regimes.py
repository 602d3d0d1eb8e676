"""`python -m benchmarks.regimes FOLDER`: is the regime model worth more than a ratio of two averages?

On the real EURUSD bars of FOLDER (EURUSD_M5.parquet): how much of the next hour's log volatility is explained
out of sample by the volatility of a day and the clock, and by the regime probability or the log ratio of EWMA
volatilities (4 h over 1 day) on top. Fitted on the first 60 % of the bars, judged on the last 40 %.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.rollover_artefact import read_bars
from sac_kernel.features.indicators import ewma_volatility, log_path
from sac_kernel.features.pipeline import time_features
from sac_kernel.features.regimes import RegimeDetector

HOUR = 12


def main() -> int:
    bars = read_bars(Path(sys.argv[1]), "EURUSD")
    step = log_path(bars, 300).bar_return
    day, hours4 = ewma_volatility(step, 288), ewma_volatility(step, 48)
    square = np.cumsum(np.append(0.0, step**2))
    y = 0.5 * np.log((square[1 + HOUR :] - square[1:-HOUR]) / HOUR + 1e-12)
    n, cut = len(y), int(0.6 * len(bars))
    prob = RegimeDetector.fit(bars.iloc[576:cut], 300).high_vol_prob(bars, 300)
    base = [np.log(day), *time_features(bars.index, 300).values()]
    models = {
        "volatility of a day and the clock": base,
        "and the regime probability": [*base, prob],
        "and the EWMA ratio": [*base, np.log(hours4 / day)],
        "and both": [*base, prob, np.log(hours4 / day)],
    }
    print(
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {n:,} bars\n\n| explained by | R2 out of sample |\n|---|---|"
    )
    for name, columns in models.items():
        x = np.column_stack([np.ones(n), *(column[:n] for column in columns)])
        train, test = slice(576, cut - HOUR), slice(cut, n)
        error = y[test] - x[test] @ np.linalg.lstsq(x[train], y[train], rcond=None)[0]
        print(f"| {name} | {1.0 - error.var() / y[test].var():.3f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
