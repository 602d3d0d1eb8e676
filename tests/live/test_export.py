"""The exported agent is the agent: ONNX against torch on the raw features, and what the file says of itself."""

import importlib.util

import numpy as np
import pandas as pd
import pytest
import torch

from sac_kernel.agent.sac import SACAgent
from sac_kernel.cli.main import main
from sac_kernel.core.errors import CheckpointError, InputNotFoundError
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.live import export
from sac_kernel.market.account import TradingEnvConfig
from tests.conftest import make_data
from tests.use_models import lively_agent

NEEDED = ("onnx", "onnxruntime")
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED),
    reason="onnx and onnxruntime are not installed",
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "agent_1_best.pt"
    data = make_data(900)
    agent, market = lively_agent(path, data, 1, TradingEnvConfig(kill_loss=0.5))
    return path, agent, data, market


def contract_of(path):
    agent = SACAgent.from_checkpoint(path, device="cpu")
    return export.contract_of(agent, FeaturePipeline.from_checkpoint(path), "hash")


def test_the_contract_names_every_input_in_order_with_its_unit(saved):
    path, _agent, _, market = saved
    columns = contract_of(path)["input"]["columns"]
    assert [column["name"] for column in columns] == list(market.observation_names)
    assert all(column["unit"] for column in columns)
    assert columns[-1] == {"name": "halted", "unit": "1 while a limit keeps the account flat, else 0"}


def test_an_agent_with_an_input_that_nobody_describes_is_refused(saved, tmp_path):
    path, _agent, *_ = saved
    other = SACAgent.from_checkpoint(path, device="cpu")
    other.context["observation_names"][-1] = "mood"
    with pytest.raises(CheckpointError, match="mood"):
        export.contract_of(other, FeaturePipeline.from_checkpoint(path), "")


@needs_onnx
def test_onnx_is_torch_over_a_split_and_over_random_states(saved, tmp_path):
    import onnxruntime

    path, agent, data, market = saved
    assert main(["export", str(path), str(tmp_path / "a.onnx")]) == 0
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    pipeline = FeaturePipeline.from_checkpoint(path)
    # Real features, unscaled, in single precision, beside the ones that the backtest scaled in double.
    bars = pd.concat([split["EURUSD"] for split in data.splits.values()])
    raw = pipeline.compute(bars).iloc[-len(market.bars) :].to_numpy(np.float32)
    account = np.random.default_rng(0).uniform(-2, 2, (len(raw), 4)).astype(np.float32)
    clock = market.observed[:, -3:]
    (found,) = session.run(None, {export.INPUT: np.concatenate((raw, clock, account), axis=1)})
    obs = np.concatenate((market.observed, account), axis=1)
    wanted = agent.select_action(obs, evaluate=True)
    assert found.shape == wanted.shape == (len(raw), 1)
    assert np.abs(found - wanted).max() < 2e-5  # raw values rounded to single precision before scaling
    assert found.std() > 0.3
    # One state at a time gives the same.
    (one,) = session.run(None, {export.INPUT: np.concatenate((raw, clock, account), axis=1)[7:8]})
    assert abs(float(one[0, 0]) - float(found[7, 0])) < 1e-6


def test_the_weights_as_safetensors_are_those_of_the_agent(saved, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch", reason="the package safetensors is not installed")
    target = tmp_path / "a.safetensors"
    assert main(["export", "--model", str(saved[0]), "--output", str(target), "--safetensors"]) == 0
    expected = SACAgent.from_checkpoint(saved[0], device="cpu").nets.state_dict()
    found = safetensors.load_file(target)
    assert sorted(found) == sorted(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_without_the_package_it_is_one_error(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputNotFoundError, match="pip install safetensors"):
        export.export_weights(saved, tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()
