"""The policy's density against torch's own distributions, quadrature and closed forms."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from sac_kernel.agent.networks import LOG_STD_MAX, LOG_STD_MIN, Actor, TwinCritic, squashed_log_prob


def actor_with_head(mean, raw_log_std):
    """An actor whose output is the same for every observation."""
    actor = Actor(3, 1, (4,))
    with torch.no_grad():
        actor.head.weight.zero_()
        actor.head.bias.copy_(torch.tensor([mean, raw_log_std]))
    return actor


def torch_log_prob(mean, log_std, pre_tanh):
    # The cache hands the exact u back to log_prob, so torch's form is exact here too.
    tanh = TanhTransform(cache_size=1)
    policy = TransformedDistribution(Normal(mean, log_std.exp()), [tanh])
    return Independent(policy, 1).log_prob(tanh(pre_tanh))


@pytest.mark.parametrize("width", [1, 3])
def test_log_density_equals_torchs_tanh_transform(width):
    generator = torch.Generator().manual_seed(width)
    shape = (500, width)
    mean = 2.0 * torch.randn(shape, generator=generator, dtype=torch.float64)
    log_std = -5.0 + 7.0 * torch.rand(shape, generator=generator, dtype=torch.float64)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    pre_tanh = mean + log_std.exp() * noise
    ours = squashed_log_prob(pre_tanh, noise, log_std)
    torch.testing.assert_close(ours, torch_log_prob(mean, log_std, pre_tanh), rtol=1e-10, atol=1e-10)


def test_actor_samples_the_action_and_density_of_its_own_gaussian():
    torch.manual_seed(0)
    actor = Actor(5, 2, (16, 16))
    torch.nn.init.normal_(actor.head.weight, std=0.3)
    obs, noise = torch.randn(64, 5), torch.randn(64, 2)
    with torch.no_grad():
        mean, log_std = actor(obs)
        action, log_prob = actor.sample(obs, noise)
    pre_tanh = mean + log_std.exp() * noise
    torch.testing.assert_close(action, torch.tanh(pre_tanh))
    expected = torch_log_prob(mean, log_std, pre_tanh)
    torch.testing.assert_close(log_prob, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.089), (0.8, 0.5), (-1.5, 1.0), (0.0, 1.3)])
def test_density_integrates_to_one_over_the_action_interval(mean, std):
    # Midpoint rule with 2e6 cells over a in [-1, 1], u = atanh(a).
    cells = 2_000_000
    action = (torch.arange(cells, dtype=torch.float64) + 0.5) * (2.0 / cells) - 1.0
    pre_tanh = torch.atanh(action)[:, None]
    log_std = torch.full_like(pre_tanh, math.log(std))
    density = squashed_log_prob(pre_tanh, (pre_tanh - mean) / std, log_std).exp()
    assert float(density.sum()) * 2.0 / cells == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("pre_tanh", [20.0, -20.0])
def test_log_density_is_exact_at_twenty_with_no_epsilon_floor(pre_tanh):
    # Unit normal at its mean: log N = -ln(2 pi)/2 = -0.9189385. 1 - tanh(20)^2 = 4 e^-40 / (1 + e^-40)^2, so
    # log pi = -0.9189385 - (2 ln 2 - 40 - 2 log1p(e^-40)) = 37.6947671. With 1 - a^2 + 1e-6 it would be
    # -0.9189 + 13.8155 = 12.9.
    expected = -0.5 * math.log(2 * math.pi) - 2 * math.log(2) + 40 + 2 * math.log1p(math.exp(-40))
    assert expected == pytest.approx(37.6947671, abs=1e-7)
    u = torch.tensor([[pre_tanh]], requires_grad=True)
    log_prob = squashed_log_prob(u, torch.zeros(1, 1), torch.zeros(1, 1))
    assert float(log_prob.detach()) == pytest.approx(expected, abs=1e-5)
    # d/du of -log(1 - tanh(u)^2) = 2 tanh(u): still there where a has rounded to 1.
    (slope,) = torch.autograd.grad(log_prob.sum(), u)
    assert float(slope) == pytest.approx(2.0 * math.tanh(pre_tanh), abs=1e-6)


@pytest.mark.parametrize(("raw", "log_std"), [(-100.0, LOG_STD_MIN), (0.0, -1.5), (100.0, LOG_STD_MAX)])
def test_log_std_is_squashed_between_its_bounds(raw, log_std):
    # lo + (hi - lo) / 2 (tanh(raw) + 1) with [-5, 2]: the middle is -1.5.
    _, value = actor_with_head(0.0, raw)(torch.zeros(1, 3))
    assert float(value.detach()) == pytest.approx(log_std, abs=1e-6)


def test_log_std_keeps_its_gradient_where_a_clamp_would_lose_it():
    # At raw = 5 a clamp to [-5, 2] has gradient 0; the squash has 3.5 (1 - tanh(5)^2) = 6.3552e-4.
    actor = actor_with_head(0.0, 5.0)
    actor(torch.zeros(1, 3))[1].sum().backward()
    assert float(actor.head.bias.grad[1]) == pytest.approx(6.3552e-4, rel=1e-3)


def test_exploring_is_sampling_without_the_density():
    generator = torch.Generator().manual_seed(5)
    actor = Actor(3, 2, (8,))
    torch.nn.init.normal_(actor.head.weight, generator=generator)
    obs, noise = torch.randn(40, 3, generator=generator), torch.randn(40, 2, generator=generator)
    assert torch.equal(actor.explore(obs, noise), actor.sample(obs, noise)[0])
    assert not torch.equal(actor.explore(obs, noise), actor.explore(obs, -noise))


def test_greedy_action_is_tanh_of_the_mean():
    action = actor_with_head(0.5, 1.0).greedy(torch.randn(4, 3)).detach()
    torch.testing.assert_close(action, torch.full((4, 1), math.tanh(0.5)))


def test_new_actor_is_flat_for_every_observation():
    torch.manual_seed(3)
    actor = Actor(4, 2, (32, 32))
    assert torch.equal(actor.greedy(torch.randn(50, 4)).detach(), torch.zeros(50, 2))


def test_twin_critics_are_independent_and_their_minimum_is_taken_row_by_row():
    torch.manual_seed(0)
    critic = TwinCritic(3, 2, (16,))
    obs, action = torch.randn(40, 3), torch.rand(40, 2)
    with torch.no_grad():
        q1, q2 = critic(obs, action)
        low = critic.minimum(obs, action)
    assert q1.shape == q2.shape == (40,)
    assert bool((q1 < q2).any())
    assert bool((q2 < q1).any())
    torch.testing.assert_close(low, torch.where(q1 < q2, q1, q2))
