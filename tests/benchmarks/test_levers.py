"""The levers of the ablation tables do what their rows say, and nothing else."""

import numpy as np
import pytest
import torch

from benchmarks import ablations, levers
from sac_kernel.agent.config import SACConfig
from sac_kernel.agent.replay import Batch
from sac_kernel.agent.sac import Interaction, SACAgent
from sac_kernel.market.known_answer import MARKETS, Judge, MarketVectorEnv

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
        levers.ClampedLogStd,
        levers.warm_start(MARKET, 1_000, 0),
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


def test_the_update_by_autograd_is_the_default_so_only_the_clamp_differs():
    ours, plain = (trained(kind, steps=10).nets.state_dict() for kind in (levers.ByAutograd, SACAgent))
    for name, value in plain.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-6)


def test_a_clamped_log_standard_deviation_is_the_raw_output_and_learns_nothing_beyond():
    actor = levers.ClampedLogStd(CONFIG, device="cpu").nets.actor
    with torch.no_grad():
        actor.head.weight.zero_()
    for raw, expected, slope in ((0.0, 0.0, 1.0), (1.5, 1.5, 1.0), (3.0, 2.0, 0.0), (-21.0, -20.0, 0.0)):
        with torch.no_grad():
            actor.head.bias[1] = raw
        log_std = actor(torch.ones(1, 2))[1].sum()
        (gradient,) = torch.autograd.grad(log_std, [actor.head.bias])
        assert (float(log_std.detach()), float(gradient[1])) == (expected, slope)


def test_a_fixed_horizon_weighs_every_actor_by_its_age_alone():
    weight = levers.FixedHorizon(CONFIG, device="cpu").config.average_weight
    shares = np.zeros(40)
    for update in range(40):
        shares *= 1.0 - weight(update)
        shares[update] = weight(update)
    by_age = 0.999 ** np.arange(40)[::-1]
    np.testing.assert_allclose(shares, by_age / by_age.sum(), rtol=1e-9)


def test_a_warm_start_plays_the_band_of_the_ridge_and_keeps_to_it_while_critics_learn():
    market = MARKETS["M4"]
    agent = levers.warm_start(market, 20_000, held=20)(CONFIG, device="cpu", seed=0)
    judge = Judge(market, bars=100, n=100)
    assert judge.capture(judge.result(lambda obs: agent.select_action(obs, evaluate=True))) > 0.85

    def learnt():
        return {name: value.clone() for name, value in agent.nets.state_dict().items()}

    start, loop = learnt(), Interaction(agent, MarketVectorEnv(market, 8, horizon=20), 0)
    while agent.updates < 20:
        loop.advance()
    same = {name.split(".")[0] for name, value in learnt().items() if torch.equal(value, start[name])}
    assert same == {"actor", "average", "log_alpha"}
    loop.advance()
    assert not any(torch.equal(value, start[name]) for name, value in learnt().items())


def test_the_best_policy_that_decides_now_and_then_is_as_good_as_the_best_band():
    def captured(row):
        return float(row.split("|")[2])

    assert captured(ablations.held(1)) == 1.0
    judge = Judge(ablations.MARKET, bars=300, n=256)
    bands = [
        judge.result(
            lambda obs, q=q: np.where(np.abs(obs[:, 0]) > q, np.sign(obs[:, 0]), obs[:, -1]), every=5
        )
        for q in np.arange(0.2, 0.6, 0.1)
    ]
    best = max(judge.capture(band) for band in bands)
    assert best == pytest.approx(captured(ablations.held(5)), abs=0.001)
