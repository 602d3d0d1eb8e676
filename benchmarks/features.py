"""`python -m benchmarks.features`: time and memory of the thirty features on ten synthetic instruments.

Processor seconds of one thread. Each size runs in fresh processes, so that its peak memory is its own; the
indicators and TA-Lib's take turns in one process, so that a busy neighbour slows both sides alike.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pandas as pd

from sac_kernel.features import indicators
from sac_kernel.features.pipeline import INSTRUMENTS, FeaturePipeline

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = (250_000, 500_000, 1_000_000)
ROUNDS = 3
PERIOD = 48  # four hours of five minutes
SIGMA = 3e-4


def synthetic(n: int) -> dict[str, pd.DataFrame]:
    """Return n five-minute bars of each instrument on one weekday clock; no copies are left behind."""
    times = pd.date_range("2005-01-03", periods=int(n * 1.45), freq="5min", tz="UTC")
    times = pd.DatetimeIndex(times[times.day_of_week < 5][:n], name="open_time_utc")
    return {name: _walk(np.random.default_rng(i), times) for i, name in enumerate(INSTRUMENTS)}


def _walk(rng: np.random.Generator, times: pd.DatetimeIndex) -> pd.DataFrame:
    n = len(times)
    prices = np.empty((n, 4))
    prices[:, 3] = 1.1 * np.exp(np.cumsum(rng.normal(0.0, SIGMA, n)))
    prices[0, 0], prices[1:, 0] = 1.1, prices[:-1, 3]
    prices[:, 1] = prices[:, [0, 3]].max(axis=1) * (1.0 + SIGMA / 3)
    prices[:, 2] = prices[:, [0, 3]].min(axis=1) * (1.0 - SIGMA / 3)
    frame = pd.DataFrame(np.asfortranarray(prices), times, ["open", "high", "low", "close"], copy=False)
    frame.attrs = {"price_side": "bid", "bar_seconds": 300}
    return frame


def split(bars: dict[str, pd.DataFrame], n: int) -> list[dict[str, pd.DataFrame]]:
    first, second = int(0.6 * n), int(0.8 * n)
    cuts = (slice(0, first), slice(first, second), slice(second, None))
    return [{name: table.iloc[cut] for name, table in bars.items()} for cut in cuts]


def child(n: int) -> dict[str, float]:
    """Return seconds and peak MiB of one run over n bars, compiled before; inputs are counted in the peak."""
    FeaturePipeline().run_full_pipeline(*split(synthetic(3000), 3000))
    parts = split(synthetic(n), n)
    before = peak_mib()
    started = time.process_time()
    train, *_ = FeaturePipeline().run_full_pipeline(*parts)
    seconds = time.process_time() - started
    return {"seconds": seconds, "peak_mib": peak_mib(), "inputs_mib": before, "features": train.shape[1]}


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(n: int) -> dict[str, float]:
    """Return the medians of some fresh processes."""
    command = [sys.executable, "-m", "benchmarks.features", "child", str(n)]
    runs = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(ROUNDS)
    ]
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def indicator_pairs(n: int) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Return the same indicators here and in TA-Lib, on one log path."""
    import talib

    path = indicators.log_path(_walk(np.random.default_rng(0), synthetic_times(n)), 300)
    high, low, close = path.high, path.low, path.close
    return {
        "RSI": (lambda: indicators.rsi(close, PERIOD), lambda: talib.RSI(close, PERIOD)),
        "MACD histogram": (
            lambda: indicators.macd_histogram(close, PERIOD),
            lambda: talib.MACD(close, PERIOD, PERIOD * 26 // 12, PERIOD * 9 // 12),
        ),
        "ATR": (lambda: indicators.atr(path, PERIOD), lambda: talib.ATR(high, low, close, PERIOD)),
        "Bollinger": (
            lambda: indicators.bollinger_position(close, PERIOD),
            lambda: talib.BBANDS(close, PERIOD),
        ),
        "ADX": (lambda: indicators.adx(path, PERIOD), lambda: talib.ADX(high, low, close, PERIOD)),
    }


def synthetic_times(n: int) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(pd.date_range("2005-01-03", periods=n, freq="5min", tz="UTC"))


def seconds_of(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> int:
    print(f"{time.strftime('%Y-%m-%d', time.gmtime())}, one thread, processor seconds, medians of {ROUNDS}")
    versions = (
        f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "pandas", "numba", "TA-Lib")
    )
    print(f"Python {platform.python_version()}, {', '.join(versions)}")
    n = SIZES[-1]
    pairs = indicator_pairs(n)
    print(f"\n| indicator, {n:,} bars | here, ms | TA-Lib, ms | here over TA-Lib |\n|---|---|---|---|")
    ours_s = theirs_s = 0.0
    for name, (ours, theirs) in pairs.items():
        ours(), theirs()
        times = [(seconds_of(ours), seconds_of(theirs)) for _ in range(ROUNDS)]
        a, b = (statistics.median(side) for side in zip(*times, strict=True))
        ours_s, theirs_s = ours_s + a, theirs_s + b
        ratio = statistics.median(x / y for x, y in times)
        print(f"| {name} | {a * 1e3:.1f} | {b * 1e3:.1f} | {ratio:.2f} |")
    print(f"| all five | {ours_s * 1e3:.1f} | {theirs_s * 1e3:.1f} | {ours_s / theirs_s:.2f} |")
    print(
        "\n| bars x 10 instruments | features | s | us a bar | over TA-Lib's five | peak MiB (inputs and imports) |"
        "\n|---|---|---|---|---|---|"
    )
    for size in SIZES:
        m = measure(size)
        share = m["seconds"] / (theirs_s * size / n)
        print(
            f"| {size:,} | {m['features']:.0f} | {m['seconds']:.2f} | {m['seconds'] / size * 1e6:.2f} | "
            f"{share:.0f} | {m['peak_mib']:.0f} ({m['inputs_mib']:.0f}) |"
        )
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        print(json.dumps(child(int(sys.argv[2]))))
        sys.exit(0)
    sys.exit(main())
