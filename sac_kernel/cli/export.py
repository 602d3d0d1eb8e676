"""Write a saved agent as ONNX: raw features and account in, target exposure out, scaler included.

With `--safetensors` write its weights alone.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from sac_kernel.cli import options
from sac_kernel.core.errors import ConfigError
from sac_kernel.live import export, model_store

logger = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give the command its options."""
    options.describe(parser, __doc__)
    options.add(parser, "model")
    options.add(
        parser, "output", metavar="FILE", help="the .onnx to write (default: the model's name with .onnx)"
    )
    parser.add_argument(
        "--safetensors", action="store_true", help="write the weights beside the .pt as .safetensors instead"
    )
    parser.add_argument("older", nargs="*", type=Path, help=argparse.SUPPRESS)  # MODEL ONNX


def run(args: argparse.Namespace) -> int:
    """Write the file; print its inputs and its output."""
    paths = [args.model, args.output]
    for place, path in enumerate(args.older[:2]):
        paths[place] = paths[place] or path
    model, target = paths
    if model is None:
        msg = "export needs --model FILE."
        raise ConfigError(msg)
    model = model_store.resolve(model)
    if args.safetensors:
        target = target or model.with_suffix(".safetensors")
        logger.info("%s: %d tensors", target, export.export_weights(model, target))
        return 0
    target = target or Path(f"{model.stem}.onnx")
    contract = export.export(model, target)
    logger.info("%s: agent %d, %s", target, contract["agent_id"], contract["instrument"])
    for i, column in enumerate(contract["input"]["columns"]):
        logger.info("%3d  %-28s %s", i, column["name"], column["unit"])
    logger.info("     %-28s %s", export.OUTPUT, contract["output"]["unit"])
    return 0
