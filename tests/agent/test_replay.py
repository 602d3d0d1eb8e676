"""The ring keeps the last transitions, whole and finite, and never joins two episodes."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from sac_kernel.agent.config import SACConfig
from sac_kernel.agent.replay import Batch, ReplayBuffer
from sac_kernel.agent.sac import Interaction, SACAgent, as_vector_env
from sac_kernel.core.errors import CheckpointError, NonFiniteError
from tests.support import says

CPU = torch.device("cpu")


def rows(*numbers):
    """Transitions whose every number tells which one it is."""
    k = torch.tensor(numbers, dtype=torch.float32)
    return Batch(
        obs=torch.stack((k, k + 0.1), dim=1),
        action=k[:, None] / 100,
        reward=k,
        terminated=k % 2,
        next_obs=torch.stack((k + 1, k + 1.1), dim=1),
    )


def ring(capacity=5):
    return ReplayBuffer(capacity, 2, 1, CPU)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_ring_overwrites_the_oldest_and_samples_only_whole_stored_rows():
    buffer = ring(5)
    buffer.add(rows(1, 2, 3))
    assert len(buffer) == 3
    buffer.add(rows(4, 5, 6, 7))
    assert len(buffer) == 5
    drawn = buffer.sample(400, seeded())
    assert set(drawn.reward.tolist()) == {3.0, 4.0, 5.0, 6.0, 7.0}
    expected = rows(*drawn.reward.tolist())
    assert all(torch.equal(a, b) for a, b in zip(drawn, expected, strict=True))


def test_ring_that_is_not_full_never_returns_an_empty_row():
    buffer = ring(1000)
    buffer.add(rows(8, 9))
    assert set(buffer.sample(200, seeded()).reward.tolist()) == {8.0, 9.0}


def test_sampling_is_uniform():
    # 20,000 draws from 10 rows: 2,000 each with standard deviation sqrt(20000 x .1 x .9) = 42; 5 sd = 212.
    buffer = ring(10)
    buffer.add(rows(*range(10)))
    counts = torch.bincount(buffer.sample(20_000, seeded()).reward.long(), minlength=10)
    assert int((counts - 2000).abs().max()) < 212


@pytest.mark.parametrize("field", Batch._fields)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_never_gets_in(field, bad):
    buffer = ring()
    buffer.add(rows(1))
    poisoned = rows(2, 3)
    getattr(poisoned, field)[1] = bad
    with pytest.raises(NonFiniteError) as caught:
        buffer.add(poisoned)
    assert caught.value.tensor == field
    assert len(buffer) == 1


def test_a_number_too_large_for_the_ring_never_gets_in():
    buffer = ring()
    with pytest.raises(NonFiniteError, match=says("reward")):
        buffer.add(rows(2)._replace(reward=torch.tensor([1e300], dtype=torch.float64)))
    assert len(buffer) == 0


def test_restored_ring_samples_and_goes_on_as_the_saved_one():
    first, second = ring(7), ring(7)
    first.add(rows(*range(10)[:6]))
    first.add(rows(6, 7, 8))
    second.restore(first.state())
    first.add(rows(9, 10))
    second.add(rows(9, 10))
    a, b = first.sample(50, seeded()), second.sample(50, seeded())
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert len(first) == len(second) == 7


def test_state_shares_nothing_with_the_ring():
    buffer = ring(3)
    buffer.add(rows(1, 2, 3))
    state = buffer.state()
    buffer.add(rows(4, 5, 6))
    assert state["rows"]["reward"].tolist() == [1.0, 2.0, 3.0]


def test_state_of_another_capacity_is_refused_naming_both():
    with pytest.raises(CheckpointError, match=says("6", "5")):
        ring(6).restore(ring(5).state())


def test_state_of_another_width_is_refused_naming_the_field():
    with pytest.raises(CheckpointError, match=says("obs", 3, 2)):
        ReplayBuffer(5, 3, 1, CPU).restore(ring(5).state())


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda state: state.update(next=2), (5, 2)),
        (lambda state: state.update(next=-1), (5, -1)),
        (lambda state: state["rows"].update(reward=torch.zeros(8)), (8, 5)),
        (lambda state: state["rows"].update(action=torch.zeros(4, 1)), ("action", 5)),
        (
            lambda state: state["rows"].update(reward=torch.zeros(5, dtype=torch.float64)),
            ("reward", "torch.float64"),
        ),
        (lambda state: state["rows"]["next_obs"].fill_(float("nan")), ("NaN", "next_obs")),
    ],
)
def test_a_state_that_no_ring_can_have_is_refused(change, found):
    state = ring(7)
    state.add(rows(1, 2, 3, 4, 5))
    state = state.state()
    change(state)
    with pytest.raises(CheckpointError, match=says(*found)):
        ring(7).restore(state)


# -- what the loop stores ------------------------------------------------------------------------


class Counting(gym.Env):
    """obs = [episode, step]; ends after `length` steps, by termination or by time limit."""

    observation_space = gym.spaces.Box(-1e6, 1e6, (2,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, length, terminates):
        self.length, self.terminates = length, terminates
        self.episode, self.at = -1, 0

    def reset(self, *, seed=None, options=None):
        self.episode, self.at = self.episode + 1, 0
        return self._obs(), {}

    def step(self, action):
        self.at += 1
        done = self.at == self.length
        return self._obs(), float(self.at), done and self.terminates, done and not self.terminates, {}

    def _obs(self):
        return np.array([self.episode, self.at], np.float32)


def agent_for(num_steps, utd_ratio=0.25, warmup=10_000):
    config = SACConfig(
        state_dim=2,
        hidden_dims=(4,),
        batch_size=4,
        warmup_steps=warmup,
        utd_ratio=utd_ratio,
        buffer_capacity=num_steps,
    )
    return SACAgent(config, device="cpu")


def vector_of(*envs):
    mode = gym.vector.AutoresetMode.SAME_STEP
    return gym.vector.SyncVectorEnv([lambda e=e: e for e in envs], autoreset_mode=mode)


def stored_rows(env, vector_steps):
    agent = agent_for(1000)
    loop = Interaction(agent, env, seed=0)
    for _ in range(vector_steps):
        loop.advance()
    return {name: value.numpy() for name, value in agent.buffer.state()["rows"].items()}


def test_nothing_is_stored_across_a_reset():
    stored = stored_rows(vector_of(Counting(3, terminates=True), Counting(5, terminates=False)), 40)
    episode, at = stored["obs"].T
    assert len(at) == 80
    np.testing.assert_array_equal(stored["next_obs"], np.stack((episode, at + 1), axis=1))
    assert set(at[0::2]) == {0, 1, 2}  # the first observation of an episode is stored, the last never
    assert set(at[1::2]) == {0, 1, 2, 3, 4}


def test_only_a_termination_is_stored_as_terminated_a_time_limit_is_not():
    # 40 steps: the first env ends 13 times by termination; the second 8 times by its time limit.
    stored = stored_rows(vector_of(Counting(3, terminates=True), Counting(5, terminates=False)), 40)
    assert stored["terminated"][0::2].sum() == 13
    assert stored["terminated"][1::2].sum() == 0
    np.testing.assert_array_equal(stored["terminated"][0::2] == 1, stored["next_obs"][0::2, 1] == 3)


def test_a_single_env_is_wrapped_so_that_its_last_observation_is_kept():
    stored = stored_rows(as_vector_env(Counting(4, terminates=False)), 20)
    episode, at = stored["obs"].T
    np.testing.assert_array_equal(stored["next_obs"], np.stack((episode, at + 1), axis=1))
    assert set(episode) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("num_envs", [1, 3, 4, 8])
@pytest.mark.parametrize(("utd_ratio", "updates"), [(0.25, 24), (1.0, 96), (2.0, 192)])
def test_number_of_updates_depends_on_transitions_not_on_envs(num_envs, utd_ratio, updates):
    # 96 transitions, the warm-up's 24 included: 96 x utd_ratio.
    agent = agent_for(96, utd_ratio, warmup=24)
    loop = Interaction(agent, vector_of(*(Counting(5, True) for _ in range(num_envs))), seed=0)
    while loop.env_steps < 96:
        loop.advance()
    assert loop.env_steps == 96
    assert agent.updates == updates


def test_no_update_before_the_warm_up_is_over():
    agent = agent_for(100, 1.0, warmup=40)
    loop = Interaction(agent, vector_of(Counting(5, True), Counting(5, True)), seed=0)
    for _ in range(19):
        loop.advance()
    assert (loop.env_steps, agent.updates) == (38, 0)
    loop.advance()
    assert (loop.env_steps, agent.updates) == (40, 40)


def test_a_fraction_of_an_update_is_carried_over():
    # 3 envs x 0.3 = 0.9 updates a vector step: 100 steps owe 90, within the one that is still due.
    agent = agent_for(300, 0.3, warmup=0)
    loop = Interaction(agent, vector_of(*(Counting(5, True) for _ in range(3))), seed=0)
    for _ in range(100):
        loop.advance()
    assert abs(agent.updates + loop.owed - 90) < 1e-9
    assert 0 <= loop.owed < 1
