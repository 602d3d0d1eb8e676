"""A saved agent as ONNX: raw features and account in, target exposure out, scaler included.

The graph is written node by node with the onnx package (opset 13, which MetaTrader 5 and every runtime read). The
model's `metadata_props` and docs/use.md describe its inputs.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from sac_kernel import __version__
from sac_kernel.agent.exact_grid import SAME_POSITION
from sac_kernel.agent.sac import SACAgent
from sac_kernel.core import files
from sac_kernel.core.config import from_flat
from sac_kernel.core.errors import CheckpointError, InputNotFoundError
from sac_kernel.features import forecast_input
from sac_kernel.features.pipeline import CLIP, FeaturePipeline
from sac_kernel.market.account import TradingEnvConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from sac_kernel.agent.exact_policy import ExactPolicy

    FloatArray = NDArray[np.float64]

logger = logging.getLogger(__name__)

INPUT, OUTPUT = "observation", "target"
OPSET = 13
IR_VERSION = 8
_CONTRACT = 1

UNITS = {
    forecast_input.FEATURE: "in standard deviations, as FeaturePipeline.compute gives it",
    "trading_cost": "log of the one-way cost now over that of normal hours",
    "fill_cost": "one-way cost of a full position at the next open, as a fraction of equity",
    "can_fill": "1 if an order given now fills before the next decision, else 0",
    "held_target": "the last target that was filled, in [-1, 1]; 0 before the first",
    "time_to_rollover": "days to the next {ends} {zone}, in (0, 1]",
    "can_trade": "1 if an order given now is filled at the next open, 0 {frozen}",
    "position": "notional over equity, over the exposure cap, signed",
    "unrealised_pnl": "over equity, in standard deviations of a day",
    "holding_time": "log(1 + bars held) / 5",
    "halted": "1 while a limit keeps the account flat, else 0",
    "sharpe_mean": "state of the differential Sharpe ratio",
    "sharpe_rms": "state of the differential Sharpe ratio",
}
"""Units of the inputs that are not scaled; the market features come as `FeaturePipeline.compute` gives them."""


def export(model: Path, target: Path) -> dict[str, Any]:
    """Write the agent of a `.pt` as ONNX and return its contract, which the file also holds.

    Raises
    ------
    InputNotFoundError
        If the package onnx is not installed.
    CheckpointError
        If the file holds no agent, or the agent has inputs that this version does not know.
    """
    agent = SACAgent.from_checkpoint(model, device="cpu")
    pipeline = FeaturePipeline.from_checkpoint(model)
    contract = contract_of(agent, pipeline, files.file_sha256(model))
    center, scale = pipeline.scaler
    files.write_bytes(target, onnx_bytes(agent, center, scale, contract))
    return contract


def export_weights(model: Path, target: Path) -> int:
    """Write the weights of a `.pt` as safetensors; return how many tensors that are.

    The names are those of the agent's networks; `metadata` has the SHA-256 of the `.pt` and the agent's id.

    Raises
    ------
    InputNotFoundError
        If the package safetensors is not installed.
    CheckpointError
        If the file holds no agent.
    """
    if importlib.util.find_spec("safetensors") is None:
        msg = "The package safetensors is not installed. Run `pip install safetensors` and export again."
        raise InputNotFoundError(msg)
    from safetensors.torch import save

    agent = SACAgent.from_checkpoint(model, device="cpu")
    tensors = {name: value.detach().clone().contiguous() for name, value in agent.nets.state_dict().items()}
    facts = {
        "agent_id": str(agent.agent_id),
        "model_sha256": files.file_sha256(model),
        "code_version": __version__,
    }
    files.write_bytes(target, save(tensors, metadata=facts))
    return len(tensors)


def contract_of(agent: SACAgent, pipeline: FeaturePipeline, model_sha256: str) -> dict[str, Any]:
    """Return the inputs and the output as plain values: name, order and unit of each."""
    names = list(agent.context.get("observation_names", ()))
    known = tuple(UNITS)
    market, others = names[: len(pipeline.feature_names)], names[len(pipeline.feature_names) :]
    if market != pipeline.feature_names or not {*others} <= {*known}:
        msg = (
            f"The agent observes {', '.join(names) or 'nothing that it names'}. This version can export "
            f"{', '.join(pipeline.feature_names)}, followed by any of {', '.join(known)}. "
            "Use the code version that trained the agent."
        )
        raise CheckpointError(msg)
    inputs = [
        {"name": n, "unit": UNITS.get(n, "as FeaturePipeline.compute gives it, unscaled")} for n in market
    ]
    spec = pipeline.spec
    ends = ", ".join(spec.session[1:] or spec.rollover)
    frozen = (
        "from {} to {} ".format(*spec.freeze) + spec.zone
        if any(spec.frozen(pipeline.bar_seconds))
        else "never"
    )
    inputs += [{"name": n, "unit": UNITS[n].format(ends=ends, zone=spec.zone, frozen=frozen)} for n in others]
    env = from_flat(TradingEnvConfig, agent.context["env"], "env")
    return {
        "contract": _CONTRACT,
        "agent_id": agent.agent_id,
        "model_sha256": model_sha256,
        "code_version": __version__,
        "instrument": pipeline.instrument,
        "instrument_spec": spec.flat(),
        "bar_seconds": pipeline.bar_seconds,
        "other_instruments": list(pipeline.panel.instruments),
        "decision_interval_min": env.decision_interval_min or pipeline.bar_seconds // 60,
        "exposure_cap": env.exposure_cap,
        "no_trade_band": env.no_trade_band,
        "freeze_min": list(spec.frozen(pipeline.bar_seconds)),
        "input": {"name": INPUT, "type": "float32", "shape": ["batch", len(names)], "columns": inputs},
        "output": {
            "name": OUTPUT,
            "type": "float32",
            "shape": ["batch", 1],
            "unit": "target exposure over the exposure cap, in [-1, 1], positive long; filled at the next open",
        },
    }


def onnx_bytes(agent: SACAgent, center: FloatArray, scale: FloatArray, contract: Mapping[str, Any]) -> bytes:
    """Return the bytes of the model file: clip((x - center) / scale), then the policy.

    The policy is the averaged actor and tanh, or the rule of exact SAC on its W (`agent.exact_grid.greedy_target`).

    Parameters
    ----------
    center, scale : of the market features; the inputs after them pass unchanged
    """
    onnx = _onnx()
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    width = agent.width
    shift, factor, limit = np.zeros(width), np.ones(width), np.full(width, np.inf, np.float32)
    shift[: center.size], factor[: center.size], limit[: center.size] = center, 1.0 / scale, CLIP
    # In double precision and rounded once, as the pipeline scales the features.
    weights = {"center": shift, "factor": factor, "limit": limit, "floor": -limit}
    nodes = [
        helper.make_node("Cast", [INPUT], ["wide"], to=onnx.TensorProto.DOUBLE),
        helper.make_node("Sub", ["wide", "center"], ["centered"]),
        helper.make_node("Mul", ["centered", "factor"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["narrow"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Min", ["narrow", "limit"], ["below"]),
        helper.make_node("Max", ["below", "floor"], ["scaled_inputs"]),
    ]
    actions, layers = 1 if agent.exact else agent.config.action_dim, _layers(agent)
    if agent.exact:
        more, constants = _exact_nodes(helper, agent.exact, f"linear_{len(layers) - 1}", onnx.TensorProto)
        nodes.append(helper.make_node("Slice", ["scaled_inputs", "zero", "inputs", "one"], ["layer_0"]))
        weights |= constants
    else:
        more = [helper.make_node("Tanh", [f"linear_{len(layers) - 1}"], [OUTPUT])]
        nodes.append(helper.make_node("Identity", ["scaled_inputs"], ["layer_0"]))
    for i, (weight, bias) in enumerate(layers):
        last = i == len(layers) - 1
        # The first rows of a Gaussian head are the mean; the rest is not exported.
        rows = slice(0, actions if last and not agent.exact else None)
        weights |= {f"weight_{i}": weight[rows], f"bias_{i}": bias[rows]}
        nodes.append(
            helper.make_node("Gemm", [f"layer_{i}", f"weight_{i}", f"bias_{i}"], [f"linear_{i}"], transB=1)
        )
        nodes += [] if last else [helper.make_node("Relu", [f"linear_{i}"], [f"layer_{i + 1}"])]
    nodes += more
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", columns])
        for name, columns in ((INPUT, width), (OUTPUT, actions))
    ]
    initial = [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, f"agent_{agent.agent_id}", ends[:1], ends[1:], initial)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="sac_kernel",
    )
    helper.set_model_props(model, {k: _text(v) for k, v in contract.items()})
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _exact_nodes(
    helper: Any,  # noqa: ANN401  # onnx has no types
    policy: ExactPolicy,
    values: str,
    kinds: Any,  # noqa: ANN401
) -> tuple[list[Any], dict[str, NDArray[Any]]]:
    """Return the nodes from W to the target, and their constants; in double precision, as `greedy_target`."""
    d, half = policy.inputs, (len(policy.grid) - 1) / 2.0
    steps = [
        ("Slice", [INPUT, "inputs", "cost_end", "one"], "cost_32"),
        ("Slice", [INPUT, "cost_end", "fill_end", "one"], "can_fill_32"),
        ("Slice", [INPUT, "fill_end", "held_end", "one"], "held_32"),
        ("Cast:d", ["cost_32"], "cost"),
        ("Cast:d", ["held_32"], "held"),
        ("Cast:d", [values], "scaled_w"),
        ("Div", ["scaled_w", "w_scale"], "w"),
        ("Sub", ["grid", "held"], "difference"),
        ("Abs", ["difference"], "distance"),
        ("Mul", ["cost", "distance"], "paid"),
        ("Sub", ["w", "paid"], "gain_all"),
        ("Less", ["distance", "same"], "is_held"),
        ("Where", ["is_held", "never", "gain_all"], "gain"),
        # W at the held target by linear interpolation: each position weighs what its hat function says.
        ("Mul", ["distance", "half"], "places"),
        ("Sub", ["one_wide", "places"], "hat_all"),
        ("Max", ["hat_all", "zero_wide"], "hat"),
        ("Mul", ["w", "hat"], "hat_w"),
        ("ReduceSum", ["hat_w", "one"], "holding"),
        ("ReduceMax:axes", ["gain"], "best"),
        ("ArgMax", ["gain"], "place"),
        ("Gather", ["grid_32", "place"], "target_32"),
        ("Greater", ["best", "holding"], "better"),
        ("Greater", ["can_fill_32", "zero_32"], "fills"),
        ("And", ["better", "fills"], "trades"),
        ("Where", ["trades", "target_32", "held_32"], OUTPUT),
    ]
    arguments = {"Cast:d": {"to": kinds.DOUBLE}, "ReduceMax:axes": {"axes": [1]}, "ArgMax": {"axis": 1}}
    nodes = [
        helper.make_node(kind.partition(":")[0], inputs, [output], **arguments.get(kind, {}))
        for kind, inputs, output in steps
    ]
    grid = policy.grid
    constants: dict[str, NDArray[Any]] = {
        name: np.array([value], np.int64)
        for name, value in {
            "zero": 0,
            "one": 1,
            "inputs": d,
            "cost_end": d + 1,
            "fill_end": d + 2,
            "held_end": d + 3,
        }.items()
    }
    constants |= {
        "grid": grid, "grid_32": grid.astype(np.float32), "w_scale": np.array([policy.scale]),
        "same": np.array([SAME_POSITION]), "never": np.array([-np.inf]), "half": np.array([half]),
        "one_wide": np.array([1.0]), "zero_wide": np.array([0.0]), "zero_32": np.zeros(1, np.float32),
    }  # fmt: skip
    return nodes, constants


def _layers(agent: SACAgent) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return weight (out, in) and bias (out,) of each layer: of W, or of the averaged actor, its head last."""
    if agent.exact:
        return agent.exact.layers()
    state = {k: v.numpy() for k, v in agent.nets.average.state_dict().items()}
    stems = [name.removesuffix(".weight") for name in state if name.endswith(".weight")]
    return [(state[f"{stem}.weight"], state[f"{stem}.bias"]) for stem in stems]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _onnx() -> Any:  # noqa: ANN401  # onnx has no types
    if importlib.util.find_spec("onnx") is None:
        msg = "The package onnx is not installed. Run `pip install onnx` and export again."
        raise InputNotFoundError(msg)
    import onnx

    return onnx
