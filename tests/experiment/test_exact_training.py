"""Exact SAC in the trainer: resumed bit for bit, its statistics, what is chosen and refused, no fill while held."""

import dataclasses
import logging
from typing import ClassVar

import numpy as np
import pytest
import torch

from sac_kernel.agent import exact
from sac_kernel.agent.config import SACConfig
from sac_kernel.agent.exact_config import ExactConfig
from sac_kernel.agent.sac import SACAgent
from sac_kernel.backtest import runner
from sac_kernel.core.clock import Deadline
from sac_kernel.core.errors import CheckpointError, ConfigError, NonFiniteError
from sac_kernel.experiment import checkpoint, learner
from sac_kernel.experiment.job_queue import run_jobs
from sac_kernel.experiment.run_config import Job, RunConfig
from sac_kernel.experiment.trainer import STATS_KEYS, KaggleTrainer
from sac_kernel.market.account import TradingEnvConfig
from tests.small_runs import ENV, SAC, small_trainer
from tests.support import says, told

pytestmark = pytest.mark.usefixtures("blank_figures")

SMALL = ExactConfig(hidden_dims=(16,), batch_size=32, positions=5, weight_decay=1.0)


def exact_trainer(h5, folder, **changes):
    return small_trainer(
        h5, folder, **{"sac_config": None, "num_envs": None, "exact_config": SMALL, **changes}
    )


class StopAfter(Deadline):
    """A clock that runs out after so many looks: three an episode of thirty updates."""

    def __init__(self, looks):
        super().__init__()
        self.left = looks

    def passed(self, reserve_s=0.0):
        self.left -= 1
        if self.left < 0:
            self.request_stop()
        return super().passed(reserve_s)


@pytest.fixture(scope="module")
def uncut(h5, tmp_path_factory):
    trainer = exact_trainer(h5, tmp_path_factory.mktemp("uncut"))
    trainer.train()
    return trainer


def outputs(folder):
    wanted = [*folder.glob("*.pt"), *folder.glob("checkpoints/*"), *folder.glob("logs/*")]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in wanted}


# At once, within an episode, at its end, in the last one; twice.
@pytest.mark.parametrize("cuts", [(0,), (2,), (3,), (11,), (4, 3)])
def test_a_cut_and_resumed_run_equals_an_uncut_one_bit_for_bit(h5, uncut, tmp_path, cuts):
    for looks in cuts:
        assert exact_trainer(h5, tmp_path, deadline=StopAfter(looks)).train().facts["status"] == "cut"
    resumed = exact_trainer(h5, tmp_path)
    assert resumed.train().facts["status"] == "complete"
    assert outputs(tmp_path) == outputs(uncut.folder)
    ours, theirs = (checkpoint.load_state(f / "state")[0]["exact"] for f in (tmp_path, uncut.folder))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if name != "updates")
    assert ours["updates"] == theirs["updates"] == 120


def test_a_state_is_small_and_has_no_replay(uncut):
    sizes = [path.stat().st_size for path in (uncut.folder / "state").glob("*.state")]
    assert 0 < max(sizes) < 2_000_000


def test_an_episode_is_thirty_updates_with_the_twelve_statistics(uncut):
    stats = uncut.stats
    assert set(stats) == set(STATS_KEYS)
    assert stats["updates"] == [30] * 4
    assert stats["alpha_values"] == [SMALL.alpha] * 4
    assert stats["episode_lengths"] == [60] * 4  # of env_episode_length decisions
    entropies = np.array(stats["entropies"])
    assert ((entropies >= 0.0) & (entropies <= np.log(SMALL.positions))).all()
    assert all(0.0 <= size <= 1.0 for size in stats["mean_abs_actions"])
    assert all(error > 0.0 for error in stats["critic_losses"])


def test_the_reward_of_an_episode_is_the_growth_of_the_greedy_pass_over_its_window(h5, tmp_path):
    trainer = exact_trainer(h5, tmp_path, num_episodes=1)
    trainer.train()
    market, agent = trainer.train_market, trainer.agent
    first = market.first_bar  # the first window begins with the first row
    window = dataclasses.replace(
        market, bars=market.bars[first : first + 61], minutes=market.minutes[first : first + 61],
        observed=market.observed[first : first + 61], first_bar=0, open_time=market.open_time[first : first + 61],
    )  # fmt: skip
    obs = []

    def act(row):
        obs.append(row.copy())
        return float(agent.select_action(row, evaluate=True)[0])

    result = runner.run_policy(window, act, ENV.initial_equity, "", "base")
    assert trainer.stats["episode_rewards"] == [pytest.approx(result.log_growth, abs=1e-12)]
    assert trainer.stats["mean_abs_actions"] == [pytest.approx(np.abs(result.action).mean(), abs=1e-12)]
    assert len(obs) == 60


def test_a_loaded_agent_is_trained_on_from_its_weights(h5, uncut, tmp_path):
    saved = uncut.folder / "checkpoints" / "agent_1_ep2.pt"
    trainer = exact_trainer(h5, tmp_path, num_episodes=1)
    trainer.prepare()
    trainer.agent.load(saved)
    trainer._start_or_resume()
    begun = trainer.learning._training.weights.online[0]
    assert torch.equal(begun, SACAgent.from_checkpoint(saved).exact.weights)  # the same bars: the same scale
    assert trainer.learning.updates == 0
    trainer.train()
    fresh = exact_trainer(h5, tmp_path / "fresh", num_episodes=1)
    fresh.train()
    assert not torch.equal(trainer.agent.exact.weights, fresh.agent.exact.weights)


def test_values_of_a_loaded_agent_keep_their_size_under_another_scale(h5, uncut, tmp_path):
    trainer = exact_trainer(h5, tmp_path)
    trainer.prepare()
    policy = uncut.agent.exact
    other = dataclasses.replace(policy, scale=2.0 * policy.scale)  # the same numbers mean half as much
    trainer.learning._training.begin(0, other)
    features = trainer.learning.problem.features[-50:]
    begun = trainer.learning._training.policy(0)
    np.testing.assert_allclose(begun.values(features), other.values(features), rtol=1e-5, atol=1e-12)


def test_an_agent_of_the_other_learner_is_refused(h5, uncut, tmp_path):
    small_trainer(h5, tmp_path / "gaussian", num_episodes=1).train()
    trainer = exact_trainer(h5, tmp_path / "exact")
    trainer.prepare()
    with pytest.raises(CheckpointError, match=says("gaussian", "exact")):
        trainer.learning.begin(tmp_path / "gaussian" / "agent_1_final.pt")
    other = small_trainer(h5, tmp_path / "other")
    other.prepare()
    with pytest.raises(CheckpointError, match=says("learner=exact")):
        other.learning.begin(uncut.folder / "agent_1_final.pt")


def test_a_state_of_the_other_learner_is_refused_naming_both(h5, uncut, tmp_path):
    with pytest.raises(CheckpointError, match=says("exact", "learner=exact", "gaussian")):
        small_trainer(h5, tmp_path, resume=str(uncut.folder / "state")).train()


def test_weights_that_stop_being_finite_end_the_run_by_name(h5, tmp_path):
    trainer = exact_trainer(h5, tmp_path, seed=3)
    trainer.prepare()
    trainer.learning._training.weights.online[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=says("seed 3", "update 10")):
        trainer.train()


def test_a_callback_sees_every_episode_and_may_stop_the_run(h5, tmp_path):
    seen = []

    def callback(record):
        seen.append(record)
        return len(seen) < 2

    job = exact_trainer(h5, tmp_path, callback=callback).train()
    assert [record["episode"] for record in seen] == [1, 2]
    assert (job.facts["status"], job.facts["episodes"]) == ("cut", 2)
    assert set(STATS_KEYS) <= set(seen[0])


def test_a_function_for_progress_is_told_the_share_that_is_done(h5, tmp_path):
    exact_trainer(h5, tmp_path, callback=lambda record: record["episode"] < 3).train()
    shares = []
    exact_trainer(h5, tmp_path, progress=shares.append).train()
    assert shares[0] == 3 / 4  # where it goes on
    assert shares == sorted(shares)
    assert shares[-1] <= 1


# -- what is chosen and refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "exact"),
        ({"env_reward": "log_return"}, "exact"),
        ({"env_exposure_cap": 0.5}, "exact"),
        ({"env_decision_interval_min": 240, "env_cost_tier": "retail"}, "exact"),
        ({"env_no_trade_band": 0.0}, "exact"),
        ({"env_no_trade_band": 0.1}, "gaussian"),
        ({"env_stop_loss_bps": 20.0}, "gaussian"),
        ({"env_volatility_target": 0.1}, "gaussian"),
        ({"env_exposure_cap": 2.0}, "gaussian"),
        ({"env_impact": 1.0}, "gaussian"),
        ({"env_reward": "mean_variance"}, "gaussian"),
        ({"learner": "gaussian"}, "gaussian"),
    ],
)
def test_the_account_chooses_the_learner_and_says_why(changes, name):
    config = RunConfig.from_flat(changes)
    found, why = config.learner_of(config.jobs[0])
    assert found == name
    setting = next((key for key in changes if key != "learner"), "")
    assert told(why, setting) if name == "gaussian" and setting else why
    account = config.env_config(1)
    assert account.observes == ("target" if name == "exact" else "account")
    band = changes.get("env_no_trade_band", 0.1 if name == "gaussian" else 0.0)
    assert account.no_trade_band == band


@pytest.mark.parametrize("requested", ["exact", "both"])
@pytest.mark.parametrize(
    "setting", [{"env_stop_loss_bps": 20.0}, {"env_no_trade_band": 0.1}, {"env_exposure_cap": 2.0}]
)
def test_exact_sac_is_refused_where_the_path_matters_naming_the_setting(requested, setting):
    with pytest.raises(ConfigError, match=says(*setting, "learner=gaussian")):
        RunConfig.from_flat({"learner": requested, **setting})


@pytest.mark.parametrize(
    "setting",
    [
        {"sac_utd_ratio": 1.0},
        {"sac_warmup_steps": 10},
        {"sac_buffer_capacity": 10_000},
        {"num_envs": 30},
    ],
)
def test_what_only_gaussian_sac_knows_is_refused_for_an_exact_run(setting):
    with pytest.raises(ConfigError, match=says(*setting, "learner=gaussian")):
        RunConfig.from_flat(setting)
    RunConfig.from_flat({**setting, "learner": "gaussian"})
    RunConfig.from_flat({**setting, "learner": "both"})


def test_settings_that_both_learners_have_reach_exact_sac():
    given = {"sac_gamma": 0.9, "sac_hidden_dims": (8,), "sac_batch_size": 64, "sac_learning_rate": 3e-3}
    assert RunConfig.from_flat({**given, "exact_alpha": 0.1}).exact_config(1) == ExactConfig(
        gamma=0.9, hidden_dims=(8,), batch_size=64, learning_rate=3e-3, alpha=0.1
    )
    assert RunConfig().exact_config(1) == ExactConfig()
    assert RunConfig.from_flat({"env_reward": "log_return"}).exact_config(1).weight_decay == 1.0


def test_configs_handed_to_the_trainer_choose_and_contradictions_are_refused(h5, tmp_path, caplog):
    def chosen(**arguments):
        return KaggleTrainer(h5, tmp_path, device="cpu", **arguments).learner

    assert chosen() == chosen(env_config=TradingEnvConfig()) == chosen(exact_config=SMALL) == "exact"
    assert chosen(sac_config=SACConfig.for_market()) == chosen(learner="gaussian") == "gaussian"
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        chosen(sac_config=SACConfig())
    assert told(caplog.text, "M11", "for_market")
    for arguments in (
        {"sac_config": SAC, "learner": "exact"},
        {"exact_config": SMALL, "learner": "gaussian"},
        {"sac_config": SAC, "exact_config": SMALL},
        {"learner": "other"},
    ):
        with pytest.raises(ConfigError, match="learner"):
            chosen(**arguments)


def test_unknown_learners_are_refused():
    with pytest.raises(ConfigError, match=says("auto, exact, gaussian, both")):
        learner.choose(TradingEnvConfig(), "sarsa")


# -- the agent that is left ------------------------------------------------------------------------


def test_select_action_and_backtest_agree_bit_for_bit(uncut):
    market, agent = uncut.val_market, SACAgent.from_checkpoint(uncut.folder / "agent_1_final.pt")
    fast, rows = runner.greedy_policy(agent), []

    def slow(obs):
        rows.append(obs.copy())
        return float(agent.select_action(obs, evaluate=True)[0])

    one = runner.run_policy(market, slow, 1e5, "", "base")
    two = runner.run_policy(market, fast, 1e5, "", "base")
    np.testing.assert_array_equal(one.action, two.action)
    np.testing.assert_array_equal(one.equity, two.equity)


def test_five_hundred_bars_of_holding_make_no_fill(uncut):
    """Whatever is held at first, a policy whose values are all equal never trades, in float32 steps of a grid too."""
    agent = SACAgent.from_checkpoint(uncut.folder / "agent_1_final.pt")
    policy = agent.exact
    agent.take_policy(dataclasses.replace(policy, weights=torch.zeros_like(policy.weights)))
    market, act, held = uncut.train_market, runner.greedy_policy(agent), []

    def once_then_hold(obs):
        held.append(float(obs[-1]))
        return act(obs) if held[-1] else float(np.float32(0.7))

    result = runner.run_policy(market, once_then_hold, 1e5, "", "base")
    assert sum(map(bool, held)) > 500
    assert result.trades == 1


def test_both_learners_are_two_jobs_side_by_side(h5, tmp_path):
    config = RunConfig.from_flat(
        {
            "h5_path": str(h5), "output_dir": str(tmp_path), "learner": "both", "num_episodes": 1,
            "eval_frequency": 1, "checkpoint_frequency": 1, "device": "cpu", "num_envs": 6, "sac_hidden_dims": (8,),
            "sac_batch_size": 32, "sac_warmup_steps": 60, "sac_buffer_capacity": 200, "env_episode_length": 60,
        }
    )  # fmt: skip
    run = run_jobs(config)
    assert [job["learner"] for job in run.summary["jobs"]] == ["exact", "gaussian"]
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == [
        "agent_1_seed_0_exact",
        "agent_1_seed_0_gaussian",
    ]
    assert config.jobs == [Job(1, 0, "exact"), Job(1, 0, "gaussian")]
    ledger = (tmp_path / "trials.csv").read_text().splitlines()
    assert len({line.split(",")[0] for line in ledger}) >= 1
    assert sum("val" in line for line in ledger) == 2


class _Clock:
    now = 0.0

    @classmethod
    def perf_counter(cls):
        return cls.now


class _Timed:
    """A training whose updates take a time of their device's own; devices of other names do not exist here."""

    seconds: ClassVar = {"cpu": 1e-3, "cuda:0": 4e-3}

    def __init__(self, problems, configs, seeds, device):
        self.cost = self.seconds[device]

    def run(self, updates):
        _Clock.now += updates * self.cost


def test_the_device_with_more_agent_updates_a_second_is_taken_and_one_alone_is_not_timed(monkeypatch):
    monkeypatch.setattr(exact, "ExactTraining", _Timed)
    monkeypatch.setattr(exact, "time", _Clock)
    assert exact.faster_device([], [], [0], ["cuda:0"]) == ("cuda:0", {})
    name, rates = exact.faster_device([], [], [0], ["cpu", "cuda:0"])
    assert name == "cpu"
    assert rates == {"cpu": pytest.approx(1_000.0), "cuda:0": pytest.approx(250.0)}
    _Timed.seconds = {"cpu": 1e-3, "cuda:0": 0.5e-3}
    name, rates = exact.faster_device([], [], [0] * 8, ["cpu", "cuda:0"])
    assert name == "cuda:0"
    assert rates["cuda:0"] == pytest.approx(16_000.0)  # eight agents an update
