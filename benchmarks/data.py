"""Time and peak memory of the data pipeline: ten instruments of 13 years of M5 bars (1 M each) from files to splits.

python -m benchmarks.data                      # three sizes, to show that time is linear and memory is not
python -m benchmarks.data --bars 1000000 --instruments 10

Each size runs in a process of its own, whose peak resident memory is read at its end: once after the file
is written (one instrument in memory at a time) and once with all splits read back.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from sac_kernel.prices.instruments import INSTRUMENTS
from sac_kernel.prices.pipeline import DataConfig, DataPipeline
from sac_kernel.prices.processed_file import read_processed

SEED = 20261122
ROOT = Path(__file__).resolve().parents[1]


def write_panel(folder: Path, bars: int, instruments: int, suffix: str) -> None:
    """Write random walks on the five-minute grid of the FX week, one file an instrument."""
    times = pd.date_range("2010-01-03T22:00Z", periods=int(bars * 7 / 5) + 3000, freq="5min")
    times = times[(times + pd.Timedelta(hours=2)).day_of_week < 5][:bars]
    for k, name in enumerate(INSTRUMENTS[:instruments]):
        rng = np.random.default_rng([SEED, k])
        close = 1.1 * np.exp(np.cumsum(rng.normal(0, 2e-4, bars)))
        open_ = np.concatenate(([1.1], close[:-1]))
        half = np.abs(rng.normal(0, 1e-4, (2, bars)))
        frame = pd.DataFrame(
            {
                "open": open_,
                "high": np.maximum(open_, close) * (1 + half[0]),
                "low": np.minimum(open_, close) * (1 - half[1]),
                "close": close,
            },
            index=pd.DatetimeIndex(times, name="timestamp"),
        )
        if suffix == "parquet":
            frame.to_parquet(folder / f"{name}_M5.parquet")
        else:
            frame.round(5).to_csv(folder / f"{name}_M5.csv", date_format="%Y-%m-%dT%H:%M:%SZ")


def measure(folder: Path) -> dict[str, float]:
    """Run the pipeline on a folder in this process; times in s, memory in MB above what imports take."""
    before = peak_mb()
    target = folder / "processed_data.h5"
    config = DataConfig(source="files", path=str(folder), price_side="bid", output_path=str(target))
    began = time.perf_counter()
    written = DataPipeline(config).write_file()
    wrote = time.perf_counter()
    memory = peak_mb()
    data = read_processed(written)
    done = time.perf_counter()
    return {
        "write_s": wrote - began,
        "read_s": done - wrote,
        "imports_mb": before,
        "write_peak_mb": memory,
        "read_peak_mb": peak_mb(),
        "bars": float(sum(len(bars) for split in data.splits.values() for bars in split.values())),
        "file_mb": target.stat().st_size / 1e6,
    }


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e3 if sys.platform == "linux" else 1e6)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bars", type=int, nargs="*", default=[250_000, 500_000, 1_000_000])
    parser.add_argument("--instruments", type=int, nargs="*", default=[10])
    parser.add_argument("--suffix", choices=("parquet", "csv"), default="parquet")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        print(json.dumps(measure(args.folder)))
        return 0
    print(
        f"data pipeline, {args.suffix}, seed {SEED}; Python {platform.python_version()}, NumPy {np.__version__}, "
        f"pandas {pd.__version__}; {time.strftime('%Y-%m-%d')}\n"
        "bars x instruments   write s  read s   us/bar   peak MB writing  reading back   file MB"
    )
    for instruments in args.instruments:
        for bars in args.bars:
            with tempfile.TemporaryDirectory() as folder:
                write_panel(Path(folder), bars, instruments, args.suffix)
                command = [sys.executable, "-m", "benchmarks.data", "--folder", folder]
                done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
            r = json.loads(done.stdout)
            each_us = 1e6 * r["write_s"] / r["bars"]
            print(
                f"{bars:9,} x {instruments:<9} {r['write_s']:8.1f} {r['read_s']:7.1f} {each_us:8.2f}"
                f" {r['write_peak_mb']:14.0f} {r['read_peak_mb']:14.0f} {r['file_mb']:11.0f}"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
