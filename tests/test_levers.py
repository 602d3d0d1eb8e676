"""The levers of the ablation tables do what their rows say, and nothing else."""

import numpy as np
import pytest
import torch

from benchmarks import levers
from sac_kernel.replay_buffer import Batch
from sac_kernel.sac_agent import Interaction, SACAgent
from sac_kernel.sac_config import SACConfig
from sac_kernel.synthetic_markets import MARKETS, MarketVectorEnv

MARKET = MARKETS["M2"]
CONFIG = SACConfig(
    state_dim=2, hidden_dims=(8, 8), batch_size=16, warmup_steps=40, utd_ratio=0.25, buffer_capacity=400
)


def trained(kind, steps=30):
    agent = kind(CONFIG, device="cpu", seed=0)
    loop = Interaction(agent, MarketVectorEnv(MARKET, 8, horizon=20), 0)
    for _ in range(steps):
        loop.advance()
    return agent


@pytest.mark.parametrize(
    "kind",
    [
        levers.RandomMeanHead,
        levers.WeightDecay,
        levers.relabelled(MARKET.cost),
        levers.next_return_head(MARKET.cost, 1.0),
        levers.next_features_head(1),
    ],
)
def test_every_lever_learns_something_else_than_the_default(kind):
    agent, plain = trained(kind), trained(SACAgent)
    assert agent.updates == plain.updates > 0
    assert all(torch.isfinite(p).all() for p in agent.nets.parameters())
    weight = next(iter(agent.nets.actor.body.parameters()))
    assert not torch.equal(weight, next(iter(plain.nets.actor.body.parameters())))


def test_relabelled_rewards_are_those_of_the_market():
    rng = np.random.default_rng(0)
    y, p, a = rng.normal(size=64), rng.uniform(-1, 1, 64), rng.uniform(-1, 1, 64)
    a[4] = 1e-4  # too small to recover the return from
    reward = a * y - 2.0 * np.abs(a - p)
    values = (np.column_stack((y, p)), a[:, None], reward, np.zeros(64), np.column_stack((y, a)))
    batch = Batch(*(torch.as_tensor(v, dtype=torch.float32) for v in values))
    new = levers._relabel(batch, 2.0, torch.Generator().manual_seed(0))
    target, position = new.action[:, 0].numpy(), new.obs[:, 1].numpy()
    np.testing.assert_allclose(new.reward, target * y - 2.0 * np.abs(target - position), atol=1e-4)
    np.testing.assert_array_equal(new.next_obs[:, 1], target)
    np.testing.assert_array_equal(new.obs[:, 0], batch.obs[:, 0])
    changed = target != batch.action[:, 0].numpy()
    assert changed.sum() == 31
    assert not changed[1::2].any()
    assert not changed[4]


def test_the_next_return_head_finds_the_return_in_the_rewards():
    agent = trained(levers.next_return_head(MARKET.cost, 1.0), steps=600)
    obs = torch.tensor([[-2.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
    low, middle, high = agent._heads[0](agent.nets.actor.body(obs))[:, 0].tolist()
    assert low < middle < high  # the market's return is the predictor itself
    assert high - low > 1.0


def test_a_random_head_starts_away_from_zero():
    obs = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        default, random = (
            kind(CONFIG, device="cpu").nets.actor(obs) for kind in (SACAgent, levers.RandomMeanHead)
        )
    assert not default[0].any()
    assert random[0].all()
