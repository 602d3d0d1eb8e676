"""The agent from outside: actions, saved files, and learning on any Box env."""

import math
import os
import pickle
import warnings
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch

from sac_kernel.agent.config import SACConfig
from sac_kernel.agent.sac import Interaction, SACAgent, as_vector_env
from sac_kernel.core import files
from sac_kernel.core.errors import CheckpointError, ConfigError, NonFiniteError
from tests.support import says


def make_agent(seed=0, **fields):
    config = {
        "state_dim": 4,
        "action_dim": 2,
        "hidden_dims": (16, 16),
        "batch_size": 32,
        "warmup_steps": 40,
        "buffer_capacity": 500,
    }
    agent = SACAgent(SACConfig(**{**config, **fields}), agent_id=1, device="cpu", seed=seed)
    torch.nn.init.normal_(agent.nets.average.head.weight, generator=torch.Generator().manual_seed(seed))
    return agent


class Drift(gym.Env):
    """A point in the plane that is pushed by the action; the nearer to 0 the better."""

    observation_space = gym.spaces.Box(-10, 10, (4,), np.float32)
    action_space = gym.spaces.Box(np.float32([-2, 0]), np.float32([2, 4]), dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.age = self.np_random.uniform(-1, 1, 4).astype(np.float32), 0
        return self.at.copy(), {}

    def step(self, action):
        assert self.action_space.contains(np.asarray(action, np.float32))
        self.age += 1
        self.at[:2] = np.clip(self.at[:2] + 0.1 * np.asarray(action), -10, 10)
        return self.at.copy(), -float(np.square(self.at).sum()), False, self.age == 25, {}


def same_weights(a, b):
    left, right = a.nets.state_dict(), b.nets.state_dict()
    return all(torch.equal(left[name], right[name]) for name in left)


# -- acting --------------------------------------------------------------------------------------


def test_one_state_gives_one_action_and_a_batch_gives_a_batch():
    agent = make_agent()
    states = np.random.default_rng(0).normal(size=(7, 4))
    one, batch = agent.select_action(states[0], evaluate=True), agent.select_action(states, True)
    assert one.shape == (2,)
    assert batch.shape == (7, 2)
    assert one.dtype == batch.dtype == np.float32
    np.testing.assert_allclose(batch[0], one, rtol=1e-6)
    assert agent.select_action(states[0]).shape == (2,)
    assert agent.select_action(states).shape == (7, 2)


def test_greedy_action_is_the_same_fifty_times():
    agent = make_agent()
    state = np.linspace(-1, 1, 4)
    actions = {agent.select_action(state, evaluate=True).tobytes() for _ in range(50)}
    assert len(actions) == 1
    assert np.any(agent.select_action(state, evaluate=True) != 0)


def test_sampled_actions_differ_from_call_to_call_and_follow_the_seed():
    states = np.ones((20, 4))
    first, second, other = make_agent(5), make_agent(5), make_agent(6)
    a, b = first.select_action(states), first.select_action(states)
    assert not np.array_equal(a, b)
    np.testing.assert_array_equal(second.select_action(states), a)
    assert not np.array_equal(other.select_action(states), a)


@pytest.mark.parametrize("evaluate", [True, False])
def test_actions_stay_within_one(evaluate):
    agent = make_agent()
    torch.nn.init.constant_(agent.nets.average.head.bias, 50.0)
    torch.nn.init.constant_(agent.nets.actor.head.bias, 50.0)
    states = np.random.default_rng(1).normal(scale=100, size=(500, 4))
    actions = agent.select_action(states, evaluate)
    assert float(np.abs(actions).max()) <= 1.0
    assert np.isfinite(actions).all()


@pytest.mark.parametrize("shape", [(5,), (3, 5)])
def test_state_of_the_wrong_width_is_refused_naming_both_widths(shape):
    with pytest.raises(CheckpointError, match=says(4, 5)):
        make_agent().select_action(np.zeros(shape), evaluate=True)


def test_the_message_about_the_width_lists_the_observation():
    agent = make_agent()
    agent.context["observation_names"] = ["return_1h", "volatility", "position", "age"]
    with pytest.raises(CheckpointError, match=says("return_1h, volatility, position, age")):
        agent.select_action(np.zeros(3))


def test_making_an_agent_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    make_agent()
    assert torch.equal(torch.random.get_rng_state(), before)


# -- configuration -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("state_dim", 0),
        ("hidden_dims", ()),
        ("hidden_dims", (16, 0)),
        ("hidden_dims", (16, 65_537)),
        ("state_dim", 2**70),
        ("action_dim", 65_537),
        ("batch_size", 0),
        ("buffer_capacity", 0),
        ("warmup_steps", -1),
        ("gamma", 1.0),
        ("tau", 0.0),
        ("utd_ratio", 0.0),
        ("learning_rate", float("nan")),
        ("initial_alpha", -1.0),
        ("reward_scale", float("inf")),
        ("average_decay", 1.0),
        ("schedule_updates", 0),
    ],
)
def test_a_hyper_parameter_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=field):
        SACConfig(**{field: value})


def test_the_entropy_target_goes_from_minus_one_to_minus_two_and_a_half_an_action_and_stays_there():
    three = SACConfig.for_market(action_dim=3, schedule_updates=1000)
    assert [three.entropy_target(k) for k in (0, 500, 1000, 50_000)] == [-3.0, -5.25, -7.5, -7.5]
    textbook = SACConfig(action_dim=3)
    assert {textbook.entropy_target(k) for k in (0, 500, 50_000)} == {-3.0}
    given = SACConfig(target_entropy=-0.5, final_target_entropy=-2.5, schedule_updates=4)
    assert [given.entropy_target(k) for k in range(6)] == [-0.5, -1.0, -1.5, -2.0, -2.5, -2.5]


def test_each_update_gets_the_target_entropy_of_its_own_number(monkeypatch):
    agent = make_agent(target_entropy=-1.0, final_target_entropy=-3.0, schedule_updates=4)
    agent.learn(Drift(), 39)
    seen, update = [], agent.learner.update

    def recorded(batch, noise, schedule):
        seen.append(float(schedule.target_entropy))
        return update(batch, noise, schedule)

    monkeypatch.setattr(agent.learner, "update", recorded)
    for _ in range(6):
        agent.update()
    assert seen == [-1.0, -1.5, -2.0, -2.5, -3.0, -3.0]


# -- learning ------------------------------------------------------------------------------------


def trained(seed, env_seed=0):
    return make_agent(seed).learn(Drift(), 100, seed=env_seed)


def test_equal_seeds_give_equal_weights_and_other_seeds_do_not():
    first, second = trained(3), trained(3)
    assert first.updates == second.updates == 100
    assert same_weights(first, second)
    assert not same_weights(first, trained(4))
    assert not same_weights(first, trained(3, env_seed=1))


def test_learning_goes_through_an_env_or_a_vector_env():
    mode = gym.vector.AutoresetMode.SAME_STEP
    vector = gym.vector.SyncVectorEnv([Drift] * 4, autoreset_mode=mode)
    agent = make_agent().learn(vector, 100)
    assert (agent.updates, len(agent.buffer)) == (100, 100)


def test_actions_are_scaled_to_the_envs_own_bounds_and_stored_within_one():
    agent = make_agent().learn(Drift(), 60)  # Drift asserts its bounds [-2, 2] x [0, 4]
    stored = agent.buffer.state()["rows"]["action"]
    assert float(stored.abs().max()) <= 1.0
    assert float(stored[:, 1].min()) < -0.5  # 0 to 4 in the env is -1 to 1 in the ring


def test_the_average_reaches_back_over_a_tenth_of_the_updates_until_that_is_its_horizon():
    # What was there at a half of n updates weighs prod_{k=n/2+1..n} (1 - 10/k), which tends to 2^-10.
    weights = [SACConfig.for_market().average_weight(n) for n in range(20_000)]
    assert weights[:10] == [1.0] * 10
    assert math.prod(1.0 - w for w in weights[2_000:4_000]) == pytest.approx(2**-10, rel=0.02)
    assert weights[9_999:] == pytest.approx([0.001] * 10_001, rel=1e-9)
    assert SACConfig(average_decay=0.0).average_weight(10**6) == 1.0


def test_the_first_update_makes_the_average_the_actor_itself():
    agent = make_agent(warmup_steps=40)
    loop = Interaction(agent, as_vector_env(Drift()), 0)
    for _ in range(39):
        loop.advance()
    agent.update()
    for slow, fast in zip(agent.nets.average.parameters(), agent.nets.actor.parameters(), strict=True):
        torch.testing.assert_close(slow, fast.detach())


@pytest.mark.parametrize("warmup_steps", [40, 1])
def test_the_stored_action_is_the_one_that_was_executed(warmup_steps):
    """In the random warm-up and after it: a ring of actions that nobody took teaches nothing."""
    executed = []

    class Witness(Drift):
        def step(self, action):
            executed.append(np.asarray(action, np.float32).copy())
            return super().step(action)

    agent = make_agent(warmup_steps=warmup_steps)
    loop = Interaction(agent, as_vector_env(Witness()), 0)
    for _ in range(30):
        loop.advance()
    stored = agent.buffer.state()["rows"]["action"].numpy()
    low, high = Drift.action_space.low, Drift.action_space.high
    np.testing.assert_allclose(low + (stored + 1) * (high - low) / 2, np.array(executed), atol=1e-6)
    assert np.ptp(stored) > 0


class Discrete(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)
    action_space = gym.spaces.Discrete(3)


class Unbounded(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)
    action_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)


class Picture(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (8, 8), np.float32)
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)


@pytest.mark.parametrize(
    ("env", "found"),
    [(Discrete, "Discrete"), (Unbounded, "bounded"), (Picture, "one-dimensional")],
)
def test_spaces_that_cannot_be_learnt_on_are_refused(env, found):
    with pytest.raises(ConfigError, match=found):
        make_agent().learn(env(), 10)


@pytest.mark.parametrize("mode", ["NEXT_STEP", "DISABLED"])
def test_other_autoreset_modes_are_refused(mode):
    mode = gym.vector.AutoresetMode[mode]
    with pytest.raises(ConfigError, match="SAME_STEP"):
        make_agent().learn(gym.vector.SyncVectorEnv([Drift] * 2, autoreset_mode=mode), 10)


@pytest.mark.parametrize(("fields", "widths"), [({"state_dim": 3}, (4, 3)), ({"action_dim": 1}, (2, 1))])
def test_an_env_of_another_width_is_refused_naming_both(fields, widths):
    with pytest.raises((ConfigError, CheckpointError), match=says(*widths)):
        make_agent(**fields).learn(Drift(), 10)


def mean_return(policy, episodes=5):
    env, total = gym.make("Pendulum-v1"), 0.0
    for k in range(episodes):
        obs, _ = env.reset(seed=1000 + k)
        done = False
        while not done:
            obs, reward, _, done, _ = env.step(2.0 * policy(obs))
            total += float(reward)
    return total / episodes


@pytest.mark.learns
@pytest.mark.slow
def test_pendulum_improves_clearly_over_random():
    # Random: about -1,200 an episode. Solved: about -150.
    rng = np.random.default_rng(0)
    random_return = mean_return(lambda _obs: rng.uniform(-1, 1, 1), 20)
    config = SACConfig(
        state_dim=3,
        hidden_dims=(64, 64),
        warmup_steps=300,
        buffer_capacity=3000,
        learning_rate=1e-3,
        initial_alpha=0.5,
        average_decay=0.98,
        batch_size=128,
    )
    agent = SACAgent(config, device="cpu", seed=0)
    agent.learn(gym.make("Pendulum-v1"), 3000, seed=0)
    learnt = mean_return(lambda obs: agent.select_action(obs, evaluate=True))
    assert -1500 < random_return < -900
    assert learnt > random_return + 500


# -- saved agents --------------------------------------------------------------------------------


def saved(tmp_path, name="agent_1_best.pt", **fields):
    agent = make_agent(**fields)
    agent.context = {"observation_names": ["a", "b", "c", "d"], "env": {"cost_tier": "base"}}
    agent.save(tmp_path / name)
    return agent, tmp_path / name


def test_equal_content_is_equal_bytes_under_two_names_in_two_folders(tmp_path):
    _, first = saved(tmp_path, "agent_1_best.pt")
    _, second = saved(tmp_path / "elsewhere" / "deep", "other name é.pt")
    assert first.read_bytes() == second.read_bytes()


def test_saved_agent_loads_with_weights_only_and_holds_plain_values(tmp_path):
    _, path = saved(tmp_path)
    content = torch.load(path, weights_only=True)
    assert content["config"]["hidden_dims"] == [16, 16]
    assert content["env"] == {"cost_tier": "base"}
    assert all(isinstance(v, torch.Tensor) for v in content["weights"].values())


def test_saved_agent_says_nothing_of_time_host_or_path(tmp_path):
    _, path = saved(tmp_path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
        years = {info.date_time[0] for info in archive.infolist()}
    text = b"\0".join([*members.values(), *(name.encode() for name in members)])
    host = os.uname().nodename if hasattr(os, "uname") else os.environ["COMPUTERNAME"]
    assert str(tmp_path).encode() not in text
    assert host.encode() not in text
    assert path.stem.encode() not in text
    assert years == {1980}


def test_from_checkpoint_acts_identically(tmp_path):
    agent, path = saved(tmp_path)
    states = np.random.default_rng(2).normal(size=(100, 4)).astype(np.float32)
    again = SACAgent.from_checkpoint(path, device="cpu")
    expected = agent.select_action(states, evaluate=True)
    np.testing.assert_array_equal(again.select_action(states, evaluate=True), expected)
    assert again.config == agent.config
    assert again.context == agent.context


def test_load_fills_an_agent_of_the_same_shape(tmp_path):
    agent, path = saved(tmp_path)
    other = make_agent(seed=9)
    other.load(path)
    assert same_weights(agent, other)


def test_save_then_more_training_is_bit_equal_to_training_on(tmp_path):
    first = trained(1)
    second = make_agent(seed=7)
    files.write_bytes(tmp_path / "s", files.pt_bytes(first.training_state()))
    second.restore(files.read_pt(tmp_path / "s"))
    for agent in (first, second):
        for _ in range(20):
            agent.update()
    assert same_weights(first, second)
    assert first.pop_metrics(20) == second.pop_metrics(20)


@pytest.mark.parametrize(
    ("fields", "difference"),
    [
        ({"state_dim": 5}, ("state_dim", 4, 5)),
        ({"action_dim": 1}, ("action_dim", 2, 1)),
        ({"hidden_dims": (16, 8)}, ("hidden_dims", "[16, 16]", "[16, 8]")),
    ],
)
def test_loading_into_another_shape_names_the_difference_and_changes_nothing(tmp_path, fields, difference):
    _, path = saved(tmp_path)
    other, untouched = make_agent(seed=9, **fields), make_agent(seed=9, **fields)
    with pytest.raises(CheckpointError, match=says(*difference)):
        other.load(path)
    assert same_weights(other, untouched)


def test_loading_another_order_of_features_names_both(tmp_path):
    _, path = saved(tmp_path)
    other = make_agent()
    other.context["observation_names"] = ["b", "a", "c", "d"]
    with pytest.raises(CheckpointError, match=says("['a', 'b', 'c', 'd']", "['b', 'a', 'c', 'd']")):
        other.load(path)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    agent, path = saved(tmp_path)
    content = agent.content()
    content["weights"]["actor.head.bias"][0] = float("nan")
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=says("weights.actor.head.bias")):
        SACAgent.from_checkpoint(path, device="cpu")


def test_a_config_that_claims_wide_networks_is_refused_before_they_are_made(tmp_path):
    agent, path = saved(tmp_path)
    content = agent.content()
    for widths in ([60_000, 60_000], [8] * 100_000):
        content["config"]["hidden_dims"] = widths
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=says("weights")):
            SACAgent.from_checkpoint(path, device="cpu")


def test_a_step_of_the_loop_returns_the_rewards_of_the_env():
    loop = Interaction(make_agent(), as_vector_env(Drift()), seed=0)
    rewards = loop.advance()
    assert rewards.dtype == np.float64
    # Drift's reward is minus the squared distance of the state it returns.
    assert rewards == pytest.approx([-float(np.square(loop.obs[0]).sum())], rel=1e-6)


# -- numbers that are not finite -----------------------------------------------------------------


def test_an_agent_that_is_not_finite_is_not_saved_and_the_old_file_stays(tmp_path):
    agent, path = saved(tmp_path)
    before = path.read_bytes()
    with torch.no_grad():
        agent.nets.critic.q1.head.bias[0] = float("inf")
    for refused in (lambda: agent.save(path), agent.training_state):
        with pytest.raises(
            NonFiniteError, match=says("weights.critic.q1.head.bias", "update 0", "learning_rate")
        ):
            refused()
    assert path.read_bytes() == before


def test_every_number_that_an_update_changes_is_looked_at():
    agent = make_agent()
    for tensor in (*agent.learner.vectors(), agent.metrics_sum):
        agent.check_finite()
        number = tensor.view(-1)[-1:]
        before = number.clone()
        number.fill_(float("nan"))
        with pytest.raises(NonFiniteError, match=says("NaN")):
            agent.check_finite()
        number.copy_(before)


class Poisoned(Drift):
    """An env one of whose numbers is not finite from a step on."""

    def __init__(self, what, step):
        self.what, self.left = what, step

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        return self.spoil(obs, "first obs"), info

    def spoil(self, obs, what):
        return np.full_like(obs, np.nan) if self.what == what and self.left <= 0 else obs

    def step(self, action):
        obs, reward, *rest = super().step(action)
        self.left -= 1
        reward = np.inf if self.what == "reward" and self.left <= 0 else reward
        return self.spoil(obs, "next_obs"), reward, *rest


@pytest.mark.parametrize(
    ("what", "name", "step"),
    [("next_obs", "next_obs", 59), ("reward", "reward", 59), ("first obs", "obs", 0)],
)
def test_a_number_of_the_env_that_is_not_finite_stops_before_the_buffer(what, name, step):
    agent = make_agent(warmup_steps=0 if what == "first obs" else 40)
    env = Poisoned(what, 60 if step else 0)
    with pytest.raises(NonFiniteError, match=says(f"step {step}", "the env")) as caught:
        agent.learn(env, 100)
    assert caught.value.tensor == name
    assert len(agent.buffer) == step
    assert all(torch.isfinite(rows).all() for rows in agent.buffer.state()["rows"].values())


def test_an_update_that_diverges_stops_before_the_buffer_naming_the_weights_and_the_cause():
    agent = make_agent(learning_rate=1e36)
    with pytest.raises(NonFiniteError, match=r"(?s)step 4\d.*weights\..*update \d.*learning_rate"):
        agent.learn(Drift(), 100)
    assert all(torch.isfinite(rows).all() for rows in agent.buffer.state()["rows"].values())
    assert len(agent.buffer) < 60


@pytest.mark.parametrize("poisoned", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_never_reaches_a_file(tmp_path, monkeypatch, poisoned):
    agent, path = saved(tmp_path)
    agent.learn(Drift(), 60)
    before = path.read_bytes()
    if poisoned == "loss":
        agent.buffer._ring.reward[:] = float("nan")  # no check sees it there
    else:
        agent.buffer._ring.reward[:] = 3e38  # finite, but its squared error is not
    agent.update()
    with pytest.raises(NonFiniteError, match=says("update")):
        agent.save(path)
    with pytest.raises(NonFiniteError, match=says("update")):
        agent.training_state()
    assert path.read_bytes() == before


def damage_nothing_there(path):
    path.unlink()


def damage_empty(path):
    path.write_bytes(b"")


def damage_text(path):
    path.write_text("this is no agent\n" * 50)


def damage_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_middle(path):
    content = bytearray(path.read_bytes())
    content[300:700] = bytes(400)
    path.write_bytes(bytes(content))


def damage_list(path):
    torch.save([1, 2, 3], path)


def damage_other_content(path):
    torch.save({"model_state_dict": {}, "epoch": 3}, path)


def damage_schema(path):
    torch.save({**torch.load(path, weights_only=True), "schema": 99}, path)


def damage_missing_weight(path):
    content = torch.load(path, weights_only=True)
    content["weights"].pop("log_alpha")
    torch.save(content, path)


def damage_unknown_setting(path):
    content = torch.load(path, weights_only=True)
    content["config"]["gama"] = 0.5
    torch.save(content, path)


def damage_plain_pickle(path):
    path.write_bytes(pickle.dumps({"schema": 1}))


@pytest.mark.parametrize(
    "damage",
    [
        damage_nothing_there,
        damage_empty,
        damage_text,
        damage_half,
        damage_middle,
        damage_list,
        damage_other_content,
        damage_schema,
        damage_missing_weight,
        damage_unknown_setting,
        damage_plain_pickle,
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, damage):
    _, path = saved(tmp_path)
    damage(path)
    with pytest.raises(CheckpointError, match=r"agent_1_best\.pt"):
        SACAgent.from_checkpoint(path, device="cpu")


class Bomb:
    """Unpickling this writes a file."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return (open, (self.marker, "w"))


@pytest.mark.parametrize("pack", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_code_in_a_file_is_refused_and_never_runs(tmp_path, pack):
    path, marker = tmp_path / "agent_1_best.pt", tmp_path / "ran"
    content = make_agent().content()
    pack({**content, "weights": Bomb(marker)}, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CheckpointError, match=r"agent_1_best\.pt"):
            SACAgent.from_checkpoint(path, device="cpu")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("part", "change", "found"),
    [
        (
            "learner",
            lambda state: state["learner"].update(critic_mean=torch.zeros(3)),
            ("critic_mean", "torch.float32"),
        ),
        ("learner", lambda state: state["learner"].pop("step"), ("'step'",)),
        (
            "weights",
            lambda state: state["weights"]["log_alpha"].fill_(float("nan")),
            ("log_alpha", "finite"),
        ),
        ("generator", lambda state: state.update(generator=torch.zeros(3)), ("torch.uint8",)),
        ("metrics_sum", lambda state: state.update(metrics_sum=[0.0] * 5), ("list",)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_state_of_another_shape_is_refused_before_any_of_it_is_used(part, change, found):
    agent, other = make_agent(), make_agent(seed=1)
    state, before = other.training_state(), agent.training_state()
    change(state)
    with pytest.raises(CheckpointError, match=says(part, *found)):
        agent.restore(state)
    after = agent.training_state()
    assert all(torch.equal(before["weights"][k], v) for k, v in after["weights"].items())


def test_a_failed_save_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    agent, path = saved(tmp_path)
    before = path.read_bytes()

    def full_disk(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    agent.updates = 77
    with pytest.raises(OSError, match="No space"):
        agent.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["agent_1_best.pt"]
