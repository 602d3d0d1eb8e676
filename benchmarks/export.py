"""ONNX against torch on random states, scaler included: python -m benchmarks.export MODEL [--states 1000000]."""

from __future__ import annotations

import argparse
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from sac_kernel.agent.sac import SACAgent
from sac_kernel.core.device import set_threads
from sac_kernel.features.pipeline import CLIP, FeaturePipeline
from sac_kernel.live import export

BLOCK = 10_000


def differences(model: Path, states: int, seed: int = 0) -> np.ndarray:
    """Return |ONNX - torch| of each state, shape (states,).

    Raw features are drawn around the train mean with 2.5 times the train deviation, so that 5 % lie beyond the
    clip; account and clock from [-5, 5], of an exact agent the cost to 10 bps. A near tie of two of its positions may
    fall to either. Torch gets them scaled as `indicators.scale_into` scales.
    """
    import onnxruntime

    set_threads(1)
    agent, pipeline = SACAgent.from_checkpoint(model, device="cpu"), FeaturePipeline.from_checkpoint(model)
    center, scale = pipeline.scaler
    with tempfile.TemporaryDirectory() as folder:
        export.export(model, Path(folder) / "agent.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            Path(folder) / "agent.onnx", options, providers=["CPUExecutionProvider"]
        )
    rng, out = np.random.default_rng(seed), []
    for first in range(0, states, BLOCK):
        n = min(BLOCK, states - first)
        raw = (center + 2.5 * scale * rng.standard_normal((n, center.size))).astype(np.float32)
        rest = rng.uniform(-5, 5, (n, agent.width - center.size)).astype(np.float32)
        if agent.exact:  # cost, can fill, held target
            rest[:, -3:] = np.column_stack(
                (rng.uniform(0, 1e-3, n), rng.integers(0, 2, n), rng.uniform(-1, 1, n))
            )
        scaled = np.clip((raw.astype(np.float64) - center) * (1.0 / scale), -CLIP, CLIP).astype(np.float32)
        wanted = agent.select_action(np.concatenate((scaled, rest), axis=1), evaluate=True)
        (found,) = session.run(None, {export.INPUT: np.concatenate((raw, rest), axis=1)})
        out.append(np.abs(found - wanted)[:, 0])
    return np.concatenate(out)


def main() -> int:
    """Print the distribution of the differences."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--states", type=int, default=1_000_000)
    args = parser.parse_args()
    found = differences(args.model, args.states)
    median, high = np.quantile(found, [0.5, 0.999])
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnx", "onnxruntime", "numpy"))
    print(
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, seed 0, {packages}\n{len(found):,} states of {args.model.name}: "
        f"largest difference {found.max():.2e}, 99.9 % below {high:.2e}, median {median:.2e}; "
        f"{np.mean(found == 0):.1%} equal"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
