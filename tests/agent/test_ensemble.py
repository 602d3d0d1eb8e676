"""Seed ensembles: the mean of what each agent asks for; members that differ are refused by name."""

import dataclasses

import numpy as np
import pytest

from sac_kernel.agent.config import SACConfig
from sac_kernel.agent.ensemble import Ensemble
from sac_kernel.agent.sac import SACAgent
from sac_kernel.backtest import policies, runner
from sac_kernel.backtest.policies import Form
from sac_kernel.core.errors import CheckpointError, ConfigError
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.market.account import TradingEnvConfig
from tests.backtest.test_evaluation import random_agent
from tests.conftest import make_data
from tests.support import says

CONFIG = SACConfig(state_dim=3, hidden_dims=(8,))


def members(tmp_path, count=3, **changed):
    paths = []
    for seed in range(count):
        agent = SACAgent(CONFIG, device="cpu", seed=seed)
        agent.nets.average.head.bias.data[0] = [0.2, -0.4, 1.0][seed]
        agent.context = {"features": {"names": ["a", "b"], "mean": [0.0]}, "env": {"cost_tier": "base"}}
        paths.append(tmp_path / f"agent_1_seed_{seed}.pt")
        agent.save(paths[-1])
    return paths


def test_the_action_is_the_mean_of_the_members(tmp_path):
    ensemble = Ensemble.from_checkpoints(members(tmp_path))
    state = np.zeros(3, np.float32)
    # A zero mean head but for its bias: tanh(.2), tanh(-.4), tanh(1).
    expected = (0.19737532 - 0.37994896 + 0.76159416) / 3
    assert ensemble.select_action(state, evaluate=True) == pytest.approx([expected], abs=1e-6)
    batch = ensemble.select_action(np.zeros((5, 3), np.float32), evaluate=True)
    np.testing.assert_allclose(batch, np.full((5, 1), expected), atol=1e-6)
    assert ensemble.context["features"]["names"] == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": {"names": ["b", "a"], "mean": [0.0]}}, ("features.names", "['a', 'b']")),
        ({"features": {"names": ["a", "b"], "mean": [0.1]}}, ("features.mean",)),
        ({"env": {"cost_tier": "raw"}}, ("env.cost_tier", "'base'", "'raw'")),
    ],
)
def test_a_member_of_other_features_or_account_is_refused(tmp_path, change, words):
    paths = members(tmp_path, 2)
    other = SACAgent.from_checkpoint(paths[1], "cpu")
    other.context.update(change)
    other.save(paths[1])
    with pytest.raises(CheckpointError, match=says("seed_1.pt", "seed_0.pt", *words)):
        Ensemble.from_checkpoints(paths)


def test_a_member_of_other_settings_and_an_empty_ensemble_are_refused(tmp_path):
    agents = [SACAgent(dataclasses.replace(CONFIG, gamma=gamma), device="cpu") for gamma in (0.99, 0.9)]
    with pytest.raises(CheckpointError, match=says("agent 1", "gamma", 0.99, 0.9)):
        Ensemble(agents)
    with pytest.raises(ConfigError, match=says("agents")):
        Ensemble([])


def test_an_ensemble_of_one_agent_and_itself_passes_as_the_agent_does():
    data = make_data(1600)
    features = FeaturePipeline().run_full_pipeline(data.train, data.val, data.test)[2]
    config = TradingEnvConfig(episode_lengths=(60,), horizon=100)
    split = data.test["EURUSD"], features
    agent = random_agent(runner.market_of(*split, config, "base"))
    found = runner.at_every_tier(
        {policies.agent(1): agent, policies.agent(1, Form.ENSEMBLE, seeds=2): Ensemble([agent, agent])},
        *split,
        config,
    )
    assert [(r.tier, r.name) for r in found] == [
        (t, n) for t in ("raw", "base", "retail") for n in ("agent 1", "agent 1 (mean target of 2 seeds)")
    ]
    for alone, both in zip(found[::2], found[1::2], strict=True):
        np.testing.assert_array_equal(alone.equity, both.equity)
    assert found[0].equity[-1] > found[4].equity[-1]  # spec costs more
