"""`python -m benchmarks.expected_return FOLDER`: what real bars let expect of the next return, on rows nobody fitted.

Agent 2's input on the M5 bars of FOLDER: fitted on train rows, then its correlation with the next return on
train rows out of fold and on the validation and test rows, and what a full position in its sign would earn
a bar there before any cost, beside what one trade costs.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from sac_kernel.core import packages
from sac_kernel.features.forecast_input import FEATURE, next_returns
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.prices.pipeline import DataConfig, DataPipeline


def main() -> int:
    """Print what was fitted and one row a split."""
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder) / "processed_data.h5")
        source = DataConfig(source="files", path=sys.argv[1], price_side="bid", output_path=target)
        pipeline = DataPipeline(source)
        pipeline.run_full_pipeline()
        splits = pipeline.get_processed_data()
    features = FeaturePipeline(forecast=True)
    parts = features.run_full_pipeline(*splits)
    assert features.task is not None
    print(
        f"{time.strftime('%Y-%m-%d', time.gmtime())}; {packages.versions()}; {len(features.feature_names)} features"
    )
    print(features.task.estimate.summary())
    print(
        "| split | rows | correlation with the next return | standard errors | sign earns [bps a bar] |\n"
        + "|---" * 5
        + "|"
    )
    for name, bars, part in zip(("train, out of fold", "val", "test"), splits, parts, strict=True):
        own = bars["EURUSD"]
        y, x = next_returns(own, features.bar_seconds), part[FEATURE].to_numpy(np.float64)
        known = np.isfinite(x) & np.isfinite(y)
        x, y = x[known], y[known]
        r = float(np.corrcoef(x, y)[0, 1]) if x.any() else 0.0
        print(
            f"| {name} | {len(x):,} | {r:+.4f} | {r * np.sqrt(len(x)):+.1f} | {1e4 * np.mean(np.sign(x) * y):+.3f} |"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
