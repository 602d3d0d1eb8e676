"""One gradient update: targets worked out by hand, gradients where they belong, nothing hidden inside."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sac_kernel.agent.config import SACConfig
from sac_kernel.agent.networks import Networks
from sac_kernel.agent.replay import Batch
from sac_kernel.agent.sac import SACAgent
from sac_kernel.agent.update import SACUpdate, Schedule
from sac_kernel.market.known_answer_envs import BanditVectorEnv
from tests.sac_oracle import AutogradLearner, actor_loss, alpha_loss, critic_loss

STATES = torch.eye(2)  # one-hot


def schedule(gamma=0.9, tau=0.005, target_entropy=-1.0, reward_scale=1.0, average_weight=0.001):
    values = (gamma, tau, target_entropy, reward_scale, average_weight)
    return Schedule(*(torch.tensor(v) for v in values))


def make_nets(seed=0, action_dim=1, hidden_dims=(16, 16), initial_alpha=0.02):
    torch.manual_seed(seed)
    return Networks(2, action_dim, hidden_dims, initial_alpha)


def random_batch(n=64, seed=0, action_dim=1):
    g = torch.Generator().manual_seed(seed)
    return Batch(
        torch.randn(n, 2, generator=g),
        2 * torch.rand(n, action_dim, generator=g) - 1,
        torch.randn(n, generator=g),
        (torch.rand(n, generator=g) < 0.1).float(),
        torch.randn(n, 2, generator=g),
    )


def random_noise(n=64, seed=1, action_dim=1):
    """Return the noise of next actions and of actions, (2, n, A)."""
    return torch.randn(2, n, action_dim, generator=torch.Generator().manual_seed(seed))


def set_policy(actor, mean, log_std):
    """Make the policy the same Gaussian in every state."""
    raw = math.atanh((log_std + 5.0) / 3.5 - 1.0)
    with torch.no_grad():
        actor.head.weight.zero_()
        actor.head.bias.copy_(torch.tensor([mean, raw]))


def set_table(critic, values):
    """Make Q(s, a) = values[s] on one-hot states: relu passes the state on, the action has weight 0."""
    with torch.no_grad():
        critic.body[0].weight.zero_()
        critic.body[0].weight[:, :2] = torch.eye(2)
        critic.body[0].bias.zero_()
        critic.head.weight.copy_(torch.tensor([values]))
        critic.head.bias.zero_()


# -- the soft target, by hand --------------------------------------------------------------------


def table_nets():
    """Targets min(4, 3) = 3 in state 0 and min(1, 5) = 1 in state 1; online critics 0; alpha 0.2."""
    nets = make_nets(hidden_dims=(2,), initial_alpha=0.2)
    set_policy(nets.actor, mean=0.5, log_std=-1.0)
    set_table(nets.target.q1, [4.0, 1.0])
    set_table(nets.target.q2, [3.0, 5.0])
    set_table(nets.critic.q1, [0.0, 0.0])
    set_table(nets.critic.q2, [0.0, 0.0])
    return nets


def soft_target(state, reward, terminated):
    """The target of one transition: both online critics are 0, so the loss is y^2 / 2 + y^2 / 2 = y^2."""
    batch = Batch(
        STATES[state : state + 1],
        torch.zeros(1, 1),
        torch.tensor([reward]),
        torch.tensor([terminated]),
        STATES[1 - state : 2 - state],
    )
    scaled = schedule(gamma=0.9, reward_scale=2.0)
    loss, _ = critic_loss(table_nets(), batch, torch.tensor([[0.25]]), scaled)
    return math.sqrt(float(loss.detach()))


# u = 0.5 + 0.25 e^-1 = 0.5919699; log N = -0.25^2/2 + 1 - ln(2 pi)/2 = 0.0498115;
# log(1 - tanh(u)^2) = log(1 - 0.5313109^2) = -0.3316914; log pi = 0.3815029; alpha log pi = 0.0763006.
ALPHA_LOG_PI = 0.0763006


def test_the_hand_worked_log_density_is_what_plain_arithmetic_gives():
    u = 0.5 + 0.25 * math.exp(-1.0)
    log_normal = -0.5 * 0.25**2 + 1.0 - 0.5 * math.log(2 * math.pi)
    log_pi = log_normal - math.log(1 - math.tanh(u) ** 2)
    assert 0.2 * log_pi == pytest.approx(ALPHA_LOG_PI, abs=1e-6)


@pytest.mark.parametrize(
    ("state", "reward", "terminated", "target"),
    [
        (0, 0.7, 0.0, 1.4 + 0.9 * (1.0 - ALPHA_LOG_PI)),  # to state 1, min(1, 5)
        (1, 0.7, 0.0, 1.4 + 0.9 * (3.0 - ALPHA_LOG_PI)),  # to state 0, min(4, 3)
        (0, 0.7, 1.0, 1.4),  # the end: reward x scale and nothing after it
        (1, 0.7, 1.0, 1.4),
    ],
)
def test_soft_target_on_a_two_state_chain(state, reward, terminated, target):
    assert soft_target(state, reward, terminated) == pytest.approx(target, abs=1e-5)


def test_terminated_and_truncated_differ_by_the_bootstrap_term_alone():
    bootstrap = soft_target(1, 0.7, 0.0) - soft_target(1, 0.7, 1.0)
    assert bootstrap == pytest.approx(0.9 * (3.0 - ALPHA_LOG_PI), abs=1e-5)


def test_critic_loss_is_half_the_summed_squared_errors_of_both():
    # Terminated, reward 1: y = 1. Q1 = 3, Q2 = -1: (4 + 4) / 2 = 4. Mean Q reported is the first's.
    nets = table_nets()
    set_table(nets.critic.q1, [3.0, 3.0])
    set_table(nets.critic.q2, [-1.0, -1.0])
    batch = Batch(STATES, torch.zeros(2, 1), torch.ones(2), torch.ones(2), STATES)
    loss, q_mean = critic_loss(nets, batch, torch.zeros(2, 1), schedule())
    assert float(loss.detach()) == pytest.approx(4.0, abs=1e-6)
    assert float(q_mean) == pytest.approx(3.0, abs=1e-6)


# -- the written-out passes against autograd ------------------------------------------------------


def double(values):
    return type(values)(*(v.double() for v in values))


@pytest.mark.parametrize("hidden_dims", [(8,), (16, 8), (8, 16, 8)])
@pytest.mark.parametrize("action_dim", [1, 6])
def test_updates_equal_the_autograd_form_in_double_precision(hidden_dims, action_dim):
    """Metrics, every weight and both of Adam's moments, over several updates, ends of episodes included."""
    nets = make_nets(action_dim=action_dim, hidden_dims=hidden_dims, initial_alpha=0.2).double()
    with torch.no_grad():
        nets.actor.head.weight.normal_()  # a zero mean head would hide the gradients below it
    peer_nets = copy.deepcopy(nets)
    learner, peer = SACUpdate(nets, 3e-3), AutogradLearner(peer_nets, 3e-3)
    settings = double(schedule(tau=0.05, reward_scale=2.0, average_weight=0.1))
    for k in range(6):
        batch = double(random_batch(seed=k, action_dim=action_dim))
        assert set(batch.terminated.tolist()) == {0.0, 1.0}
        noise = random_noise(seed=100 + k, action_dim=action_dim).double()
        found, expected = learner.update(batch, noise, settings), peer.update(batch, noise, settings)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)
    weights = zip(nets.named_parameters(), peer_nets.parameters(), strict=True)
    for (name, own), other in weights:
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-13, msg=lambda m, n=name: f"{n}: {m}")
    state = learner.state()
    for own, other in zip(nets.parameters(), peer_nets.parameters(), strict=True):
        if other in peer.moments("exp_avg"):  # not the averages
            stack = "critic" if any(own is p for p in nets.critic.parameters()) else "actor"
            for moment, key in (("mean", "exp_avg"), ("square", "exp_avg_sq")):
                expected = peer.moments(key)[other]
                found = torch.as_strided(
                    state[f"{stack}_{moment}"], own.shape, own.stride(), own.storage_offset()
                )
                torch.testing.assert_close(
                    found, expected, rtol=1e-9, atol=1e-11 * float(expected.abs().max())
                )
    assert float(learner.state()["step"]) == 6.0


def test_equal_critics_share_the_actors_gradient():
    # Where both values are equal, torch.minimum sends half the gradient to each; so does the written form.
    nets = make_nets(initial_alpha=1e-12).double()
    nets.critic.q2.load_state_dict(nets.critic.q1.state_dict())
    peer_nets = copy.deepcopy(nets)
    batch, noise, settings = double(random_batch()), random_noise().double(), double(schedule())
    SACUpdate(nets, 1e-3).update(batch, noise, settings)
    AutogradLearner(peer_nets, 1e-3).update(batch, noise, settings)
    for own, other in zip(nets.parameters(), peer_nets.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-13)


def test_weights_stay_the_networks_own():
    """Loading weights after the learner took the storage over is seen by the next update."""
    first, second = make_nets(seed=1), make_nets(seed=2)
    learners = [SACUpdate(nets, 1e-3) for nets in (first, second)]
    second.load_state_dict(first.state_dict())
    for learner in learners:
        learner.update(random_batch(), random_noise(), schedule())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


# -- fixed points --------------------------------------------------------------------------------


def entropy_of(mean, std):
    """E[-log pi] by quadrature over u: entropy of the normal + E[log(1 - tanh^2)]."""
    x = np.linspace(-10, 10, 200_001)
    weight = np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi) * (x[1] - x[0])
    log_slope = -2 * np.log(np.cosh(mean + std * x))
    return 0.5 * math.log(2 * math.pi * math.e * std**2) + float(weight @ log_slope)


def chain_batch(g, n, reward):
    """Half the rows in each state of the chain 0 -> 1 -> 0, actions uniform."""
    states = torch.arange(n) % 2
    action = 2 * torch.rand(n, 1, generator=g) - 1
    return Batch(STATES[states], action, reward(states, action[:, 0]), torch.zeros(n), STATES[1 - states])


def test_soft_policy_evaluation_reaches_its_fixed_point():
    # Q0 = r0 + gamma (Q1 + alpha H), Q1 = r1 + gamma (Q0 + alpha H): two linear equations.
    gamma, alpha, r0, r1 = 0.8, 0.5, 1.0, -0.5
    bonus = alpha * entropy_of(0.0, math.exp(-0.5))
    exact = np.linalg.solve([[1, -gamma], [-gamma, 1]], [r0 + gamma * bonus, r1 + gamma * bonus])
    nets = make_nets(hidden_dims=(32,), initial_alpha=alpha)
    set_policy(nets.actor, mean=0.0, log_std=-0.5)
    adam = torch.optim.Adam(nets.critic.parameters(), lr=3e-3)
    settings, g = schedule(gamma=gamma), torch.Generator().manual_seed(0)
    for _ in range(1500):
        batch = chain_batch(g, 256, lambda s, _a: torch.tensor([r0, r1])[s])
        loss, _ = critic_loss(nets, batch, torch.randn(256, 1, generator=g), settings)
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            for slow, fast in zip(nets.target.parameters(), nets.critic.parameters(), strict=True):
                slow.lerp_(fast, 0.02)
    actions = torch.linspace(-1, 1, 9)[:, None]
    with torch.no_grad():
        found = [nets.critic.minimum(STATES[s].expand(9, 2), actions).numpy() for s in (0, 1)]
    assert np.abs(np.stack(found) - exact[:, None]).max() < 5e-2


def test_the_whole_update_finds_the_optimal_values_of_a_controlled_chain():
    # Reward a in state 0 and -a in state 1, gamma 0.5, alpha about 0: the best action earns 1 a step, so
    # V = 1 / (1 - 0.5) = 2 and Q*(0, a) = a + 1, Q*(1, a) = -a + 1.
    nets = make_nets(hidden_dims=(32, 32), initial_alpha=1e-6)
    learner, g = SACUpdate(nets, 2e-3), torch.Generator().manual_seed(0)
    settings = schedule(gamma=0.5, tau=0.02, target_entropy=-3.0)
    for _ in range(1500):
        batch = chain_batch(g, 128, lambda s, a: torch.where(s == 0, a, -a))
        learner.update(batch, torch.randn(2, 128, 1, generator=g), settings)
    actions = torch.linspace(-1, 1, 9)
    with torch.no_grad():
        low, high = (nets.critic.minimum(STATES[s].expand(9, 2), actions[:, None]) for s in (0, 1))
        greedy = nets.actor.greedy(STATES)[:, 0]
    assert float((low - (actions + 1)).abs().max()) < 5e-2
    assert float((high - (1 - actions)).abs().max()) < 5e-2
    assert float(greedy[0]) > 0.95
    assert float(greedy[1]) < -0.95


# -- where gradients go --------------------------------------------------------------------------


def actor_gradient(nets):
    batch, noise = random_batch(), random_noise()
    loss, _ = actor_loss(nets, batch.obs, noise[1])
    return torch.autograd.grad(loss, list(nets.actor.parameters()))


def test_actor_gradient_flows_through_the_critic():
    # With alpha about 0 the loss is -min Q: three times the critic is three times the gradient.
    nets = make_nets(initial_alpha=1e-12)
    plain = actor_gradient(nets)
    with torch.no_grad():
        for critic in (nets.critic.q1, nets.critic.q2):
            critic.head.weight.mul_(3.0)
            critic.head.bias.mul_(3.0)
    scaled = actor_gradient(nets)
    assert max(float(g.abs().max()) for g in plain) > 1e-3
    for a, b in zip(plain, scaled, strict=True):
        torch.testing.assert_close(3.0 * a, b, rtol=1e-4, atol=1e-7)


def test_actor_follows_the_smaller_critic():
    # Q1 falls with the action, Q2 rises and is 10 higher: the minimum is Q1, so descent lowers the mean.
    nets = make_nets(initial_alpha=1e-12, hidden_dims=(2,))
    for critic, slope, offset in ((nets.critic.q1, -1.0, 0.0), (nets.critic.q2, 1.0, 10.0)):
        with torch.no_grad():
            critic.body[0].weight.zero_()
            critic.body[0].weight[:, 2] = 1.0
            critic.body[0].bias.fill_(1.0)  # relu(a + 1) = a + 1
            critic.head.weight.fill_(slope / 2)
            critic.head.bias.fill_(offset)
    gradient = actor_gradient(nets)[-1]  # of the head's bias: mean, raw log-std
    assert float(gradient[0]) > 0.1


def test_actor_loss_is_alpha_log_pi_minus_q():
    # Both critics 2 and 3 everywhere, noise as above: 0.0763006 - 2.
    nets = table_nets()
    set_table(nets.critic.q1, [2.0, 2.0])
    set_table(nets.critic.q2, [3.0, 3.0])
    loss, log_prob = actor_loss(nets, STATES, torch.full((2, 1), 0.25))
    assert float(loss.detach()) == pytest.approx(ALPHA_LOG_PI - 2.0, abs=1e-5)
    assert float(log_prob) == pytest.approx(ALPHA_LOG_PI / 0.2, abs=1e-5)


def test_critic_loss_sends_no_gradient_into_actor_or_temperature():
    nets = make_nets()
    critic_loss(nets, random_batch(), random_noise()[0], schedule())[0].backward()
    assert all(p.grad is None for p in nets.actor.parameters())
    assert nets.log_alpha.grad is None


# -- temperature and averages --------------------------------------------------------------------


@pytest.mark.parametrize(("target_entropy", "direction"), [(5.0, 1.0), (-50.0, -1.0)])
def test_alpha_rises_below_the_target_entropy_and_falls_above(target_entropy, direction):
    # Adam's first step is the learning rate in full: log alpha moves by +-0.01. Entropy of a policy on
    # [-1, 1] is at most ln 2, so it is below 5; that of a new actor is far above -50.
    nets = make_nets(initial_alpha=0.05)
    settings = schedule(target_entropy=target_entropy)
    SACUpdate(nets, 0.01).update(random_batch(), random_noise(), settings)
    change = float(nets.log_alpha.detach()) - math.log(0.05)
    assert change == pytest.approx(0.01 * direction, rel=1e-3)


def test_alpha_loss_by_hand():
    # -log(0.05) (log pi + target) = 2.9957323 x (0.4 - 1) = -1.7974394.
    loss = alpha_loss(make_nets(initial_alpha=0.05), torch.tensor(0.4), schedule())
    assert float(loss.detach()) == pytest.approx(-1.7974394, abs=1e-6)


def test_target_moves_by_tau_towards_the_new_critic():
    nets = make_nets()
    old = copy.deepcopy(nets.target)
    settings = schedule(tau=0.1, average_weight=0.01)
    learner = SACUpdate(nets, 1e-2)
    learner.update(random_batch(), random_noise(), settings)
    for slow, before, fast in zip(
        nets.target.parameters(), old.parameters(), nets.critic.parameters(), strict=True
    ):
        assert not torch.equal(before, fast)
        torch.testing.assert_close(slow, 0.9 * before + 0.1 * fast.detach())


def test_average_actor_moves_by_its_weight_towards_the_new_actor():
    nets = make_nets()
    old = copy.deepcopy(nets.average)
    settings = schedule(average_weight=0.01)
    SACUpdate(nets, 1e-2).update(random_batch(), random_noise(), settings)
    for slow, before, fast in zip(
        nets.average.parameters(), old.parameters(), nets.actor.parameters(), strict=True
    ):
        torch.testing.assert_close(slow, 0.99 * before + 0.01 * fast.detach())


def test_reported_metrics_are_those_of_the_losses():
    nets, batch, noise = make_nets(initial_alpha=0.3), random_batch(), random_noise()
    before = copy.deepcopy(nets)
    loss_q, q_mean = critic_loss(before, batch, noise[0], schedule())
    values = SACUpdate(nets, 1e-3).update(batch, noise, schedule()).tolist()
    assert values[0] == pytest.approx(float(loss_q.detach()))
    assert values[2] == pytest.approx(float(nets.log_alpha.detach().exp()))
    assert values[4] == pytest.approx(float(q_mean), abs=1e-7)
    with torch.no_grad():
        log_prob = before.actor.sample(batch.obs, noise[1])[1].mean()
    assert values[3] == pytest.approx(-float(log_prob), rel=1e-5)


# -- nothing hidden inside -----------------------------------------------------------------------


class OpList(TorchDispatchMode):
    """Writes down every operation with the shapes that it sees."""

    def __init__(self):
        super().__init__()
        self.ops = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        shapes = [tuple(a.shape) for a in args if isinstance(a, torch.Tensor)]
        self.ops.append((str(func), *shapes))
        return func(*args, **(kwargs or {}))


def ops_of_updates(count):
    nets = make_nets(seed=4)
    learner, settings = SACUpdate(nets, 3e-4), schedule()
    recorded = []
    for k in range(count):
        batch, noise = random_batch(seed=k), random_noise(seed=100 + k)
        with OpList() as mode:
            learner.update(batch, noise, settings)
        recorded.append(mode.ops)
    return recorded


def test_updates_are_one_fixed_list_of_operations():
    first, second, third = ops_of_updates(3)
    assert 50 < len(first) < 200
    assert first == second == third


@pytest.mark.parametrize(
    "forbidden",
    ["_local_scalar_dense", "item", "rand", "normal", "uniform", "bernoulli", "nonzero",
     "masked_select", "unique", "equal.default", "_to_copy"],
)  # fmt: skip
def test_update_reads_nothing_on_the_host_and_draws_nothing(forbidden):
    _, second = ops_of_updates(2)
    assert not [op for op, *_ in second if forbidden in op]


def test_update_leaves_the_global_generators_alone():
    nets = make_nets()
    learner = SACUpdate(nets, 1e-3)
    before = torch.random.get_rng_state()
    learner.update(random_batch(), random_noise(), schedule())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_update_is_a_function_of_networks_batch_and_noise():
    first, second = make_nets(seed=2), make_nets(seed=2)
    for nets in (first, second):
        learner = SACUpdate(nets, 1e-3)
        for k in range(5):
            learner.update(random_batch(seed=k), random_noise(seed=k), schedule())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


# -- the bandit ----------------------------------------------------------------------------------


@pytest.mark.learns
def test_bandit_is_learnt_by_the_default_recipe_in_a_thousand_updates():
    # Optimum sign(s). A policy whose actor gets no gradient through Q stays at 0.
    agent = SACAgent(SACConfig.for_market(state_dim=1, warmup_steps=250, utd_ratio=1.0), device="cpu", seed=0)
    agent.learn(BanditVectorEnv(10), 1000, seed=0)
    assert agent.updates == 1000
    states = np.array([[-1.0], [1.0]], np.float32)
    assert float((agent.select_action(states, evaluate=True) * states).mean()) > 0.95
