"""The harness of the benches against peers, without the peers: marks, caps, journals, settings, tables."""

import json
import random
import sys
import tomllib

import gymnasium as gym
import numpy as np
import pytest

from benchmarks import jobs, learners, one_path, public_tasks, time_to_mark, tune_peers
from sac_kernel.agent.config import SACConfig
from sac_kernel.agent.sac import SACAgent
from sac_kernel.market.known_answer import MARKETS
from sac_kernel.market.known_answer_envs import MarketVectorEnv


def curve(*shares):
    return [(float(i), share) for i, share in enumerate(shares, start=1)]


def test_the_time_is_that_of_the_first_of_three_evaluations_in_a_row_at_the_mark():
    # The two at seconds 1 and 2 are followed by one below: they do not count.
    assert time_to_mark.time_to_mark(curve(0.9, 0.9, 0.8, 0.85, 0.86, 0.9), 0.85) == 4.0


@pytest.mark.parametrize("shares", [(), (0.9, 0.9), (0.9, 0.9, 0.8, 0.9, 0.9)])
def test_a_run_that_does_not_get_there_counts_as_the_cap(shares):
    assert time_to_mark.time_to_mark(curve(*shares), 0.85) == 300.0


def test_the_third_evaluation_must_lie_within_the_cap():
    assert time_to_mark.time_to_mark(curve(0.9, 0.9, 0.9), 0.85, cap_s=3.0) == 1.0
    assert time_to_mark.time_to_mark(curve(0.9, 0.9, 0.9), 0.85, cap_s=2.5) == 2.5


def test_a_score_is_the_mean_share_over_the_second_half_of_the_budget():
    # From 0 at second 12 in a straight line to 1 at second 24: the mean of the second half is 1/2.
    assert tune_peers.score([(12.0, 0.0), (24.0, 1.0)], 24.0) == pytest.approx(0.5)
    # A share of -5 counts as 0, what was reached before the half does not count.
    assert tune_peers.score([(6.0, 1.0), (12.0, -5.0), (24.0, 1.0)], 24.0) == pytest.approx(0.5)


def test_a_search_counts_neither_compilation_nor_evaluation(monkeypatch):
    # A clock that stands still but for the learner: 1 s a vector step, 50 s of compilation in the first two.
    now = [0.0]
    monkeypatch.setattr(jobs.time, "process_time", lambda: now[0])
    monkeypatch.setattr(
        time_to_mark.Judge, "capture", lambda _self, _result: now.__setitem__(0, now[0] + 7) or 0.5
    )

    class Steady:
        act = staticmethod(lambda obs: np.zeros((len(obs), 1)))

        def learn(self, _env_steps, on_step):
            steps, go_on = 0, True
            while go_on:
                now[0] += 25.0 if steps < 128 else 1.0
                steps += 64
                go_on = on_step(steps)

    monkeypatch.setattr(learners, "build", lambda *_: Steady())
    limits = time_to_mark.Limits(mark=None, cap_s=4.0, every_s=2.0, free_steps=128)
    assert time_to_mark.train_curve("sb3", "M4", 0, {}, limits)[0] == [(2.0, 0.5), (4.0, 0.5)]
    # In a bench everything counts; the run ends at the first look beyond the cap.
    limits = limits._replace(cap_s=56.0, every_s=25.0, free_steps=0)
    assert time_to_mark.train_curve("sb3", "M4", 0, {}, limits)[0] == [(25.0, 0.5), (50.0, 0.5), (75.0, 0.5)]


def test_every_learner_is_tuned_on_the_same_trials_the_first_as_shipped():
    first, *drawn = tune_peers.trials(20)
    assert first == {}
    assert len(drawn) == 19
    assert drawn == tune_peers.trials(20)[1:]
    assert len({json.dumps(settings) for settings in drawn}) == 19


def test_settings_say_the_same_to_all_learners():
    settings = {
        "learning_rate": 1e-3, "batch_size": 128, "tau": 0.01, "initial_alpha": 0.1,
        "target_entropy": -2.0, "updates_per_step": 4, "width": 32, "warmup_steps": 100,
    }  # fmt: skip
    config = SACConfig(action_dim=3, **learners.our_fields(settings, num_envs=64, action_dim=3))
    assert config == SACConfig(
        action_dim=3, learning_rate=1e-3, batch_size=128, tau=0.01, initial_alpha=0.1, target_entropy=-6.0,
        final_target_entropy=-6.0, hidden_dims=(32, 32), utd_ratio=4 / 64, warmup_steps=100,
    )  # fmt: skip
    assert learners.peer_arguments(settings, action_dim=3) == {
        "learning_rate": 1e-3, "batch_size": 128, "tau": 0.01, "gradient_steps": 4, "learning_starts": 100,
        "ent_coef": "auto_0.1", "target_entropy": -6.0, "policy_kwargs": {"net_arch": [32, 32]},
    }  # fmt: skip


def test_as_shipped_changes_nothing_but_the_updates_a_step():
    assert learners.our_fields({}, num_envs=64, action_dim=1) == {"utd_ratio": 1 / 64}
    assert learners.peer_arguments({}, action_dim=1) == {}


def test_the_same_settings_are_our_defaults_said_to_the_peers():
    same = time_to_mark.settings_of("same")
    assert same["ours"] == {}
    # Target entropy goes from -1 to -2.5; the peers know a constant only.
    assert same["sb3"] == same["sbx"] == {"initial_alpha": 0.02, "target_entropy": -1.75, "width": 64}


def test_draws_are_settings_that_the_agent_takes():
    rng = random.Random(0)
    for _ in range(100):
        SACConfig(**learners.our_fields(learners.draw(rng), num_envs=64, action_dim=1))


def test_our_side_is_learn_bit_for_bit():
    def env():
        return MarketVectorEnv(MARKETS["M4"], 8)

    settings = {"width": 8, "warmup_steps": 64, "updates_per_step": 2, "batch_size": 16}
    ours = learners.build("ours", env(), settings, 0.95, seed=3)
    seen = []
    ours.learn(400, lambda steps: seen.append(steps) or True)
    config = SACConfig.for_market(state_dim=2, gamma=0.95, **learners.our_fields(settings, 8, 1))
    agent = SACAgent(config, device="cpu", seed=3).learn(env(), 400, seed=3)
    assert seen == list(range(8, 401, 8))
    obs = np.linspace(-1.0, 1.0, 8, dtype=np.float32).reshape(4, 2)
    np.testing.assert_array_equal(
        ours.agent.select_action(obs, evaluate=True), agent.select_action(obs, evaluate=True)
    )


def test_greedy_actions_are_in_the_units_of_the_env():
    ours = learners.build("ours", gym.make("Pendulum-v1"), {"width": 8}, 0.99, seed=0)
    obs = np.array([[1.0, 0.0, 0.5]], np.float32)
    assert ours.act(obs) == pytest.approx(2.0 * ours.agent.select_action(obs, evaluate=True))  # torque +-2


@pytest.mark.parametrize("rewards", ["raw", "denoised"])
def test_a_peer_sees_the_one_path_in_units_of_what_a_position_earns(rewards, monkeypatch):
    asked = []

    class Holds:
        """Holds a full long position, so a reward is the return, less the cost of the first trade."""

        def __init__(self, _name, env, settings, _gamma, _seed):
            self.env, self.settings = env, settings

        def learn(self, env_steps, on_step):
            self.env.reset(seed=0)
            for steps in range(60, env_steps + 1, 60):
                asked.append(self.env.step(np.ones((60, 1)))[1])
                assert on_step(steps)

        def act(self, obs):
            return np.zeros((len(obs), 1))

    monkeypatch.setattr(learners, "build", Holds)
    job = {
        "learner": "sb3",
        "rewards": rewards,
        "seed": 0,
        "updates": 400,
        "settings": {"updates_per_step": 2},
    }
    row = one_path.measure(job)
    # 400 updates are 200 vector steps, ten looks; who is flat captures nothing of the optimum.
    assert len(asked) == 200
    assert row["curve"] == [0.0] * 10
    assert (row["final"], row["best"]) == (0.0, 0.0)
    assert row["reference"] == pytest.approx(0.954, abs=0.01)  # docs/learning.md, seed 0
    # 12,000 rewards of few independent looks: the predictor forgets in twenty bars, which the estimate follows.
    assert np.std(asked[1:]) == pytest.approx(1.0, abs=0.05 if rewards == "raw" else 0.25)


def test_a_row_of_the_one_path_by_hand():
    rows = [
        {"rewards": "raw", "learner": "sb3", "final": 0.2, "best": 0.5, "reference": 0.8},
        {"rewards": "raw", "learner": "sb3", "final": 0.4, "best": 0.6, "reference": 0.8},
    ]
    assert one_path.table(rows)[2] == "| raw | Stable-Baselines3 | 0.300 (0.200, 0.400) | 0.550 | 0.38 |"


def test_a_stopped_journal_goes_on_and_drops_a_cut_line(tmp_path):
    path = tmp_path / "results" / "runs.jsonl"
    journal = jobs.Journal(path)
    journal.add({"learner": "sb3", "seed": 0, "settings": {"tau": 0.01}, "seconds": 3.5})
    with path.open("a", encoding="utf-8") as file:
        file.write('{"learner": "sb3", "se')  # killed while it wrote
    again = jobs.Journal(path)
    assert again.find(learner="sb3", settings={"tau": 0.01})[0]["seconds"] == 3.5
    assert again.find(learner="sb3", settings={}) == []
    again.add({"learner": "sbx", "seed": 0})
    assert [row["learner"] for row in jobs.Journal(path).rows] == ["sb3", "sbx"]


def test_only_what_the_results_file_lacks_is_run(tmp_path, monkeypatch, capsys):
    asked = []

    def run_alone(_module, job):
        asked.append((job["seed"], job["learner"]))
        seconds = {"ours": 10.0, "sb3": 25.0, "sbx": 300.0}[job["learner"]] + job["seed"]
        yield {**job, "seconds": min(seconds, 300.0), "wall_s": 40.0, "curve": []}

    monkeypatch.setattr(jobs, "run_alone", run_alone)
    path = tmp_path / "runs.jsonl"
    words = ["bench", "--how", "shipped", "--markets", "M4", "--results", str(path)]
    monkeypatch.setattr(sys, "argv", [*words, "--seeds", "2"])
    time_to_mark.main()
    assert asked == [(seed, name) for seed in (0, 1) for name in ("ours", "sb3", "sbx")]  # they take turns
    asked.clear()
    monkeypatch.setattr(sys, "argv", [*words, "--seeds", "3"])
    time_to_mark.main()
    assert asked == [(2, "ours"), (2, "sb3"), (2, "sbx")]
    printed = capsys.readouterr().out
    # By hand: medians of 10 11 12 and 25 26 27; 26 / 11 = 2.36; every run of SBX missed.
    assert "| M4, 0.85 | Stable-Baselines3 | 26.0 (25.0-27.0) | 0 of 3 | 2.36 | 40 |" in printed
    assert "| M4, 0.85 | SBX | 300.0 (300.0-300.0) | 3 of 3 | 27.27 | 40 |" in printed


def test_a_run_in_a_process_of_its_own_prints_its_rows(tmp_path):
    job = {"task": "Pendulum-v1", "total": 10, "seed": 0, "learner": "ours-market", "settings": {}}
    rows = list(jobs.run_alone("benchmarks.public_tasks", job))
    assert [row["steps"] for row in rows] == [2, 4, 6, 8, 10]
    # An untrained pendulum hangs or spins: 200 steps of at most pi^2 + .1 x 64 + .001 x 4 each.
    assert all(-200 * 16.28 < row["return"] < -100 for row in rows)
    assert rows[-1]["cpu_s"] >= 0.0


def test_a_run_that_fails_says_which(capfd):
    with pytest.raises(RuntimeError, match="unknown-task"):
        list(
            jobs.run_alone(
                "benchmarks.public_tasks",
                {"task": "unknown-task", "total": 5, "seed": 0, "learner": "ours", "settings": {}},
            )
        )


def test_the_table_of_public_tasks_takes_means_of_returns_and_medians_of_seconds():
    rows = [
        {"task": "Hopper-v5", "learner": "sb3", "steps": 50, "return": value, "cpu_s": cpu_s, "wall_s": 9.0}
        for value, cpu_s in ((1.0, 3.0), (2.0, 4.0), (6.0, 8.0))
    ]
    row = public_tasks.table(rows)[-1]
    assert row == "| Hopper-v5 | Stable-Baselines3 | 50 | 3.0 (1.0, 2.0, 6.0) | 4 | 9 |"


def test_the_best_of_the_longer_trials_is_chosen_from_the_best_of_the_short_ones(tmp_path, monkeypatch):
    short = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, *[0.0] * 14]  # trials 5, 4, 3, 2 go on
    long = {5: 0.70, 4: 0.65, 3: 0.80, 2: 0.75}

    def run_alone(_module, job):
        for trial in job["trials"]:
            score = short[trial["trial"]] if trial["budget_s"] == 5.0 else long[trial["trial"]]
            yield {**trial, "score": score, "curve": []}

    monkeypatch.setattr(jobs, "run_alone", run_alone)
    journal = jobs.Journal(tmp_path / "trials.jsonl")
    assert [row["trial"] for row in tune_peers.search("sb3", journal)] == [3, 2, 5, 4]
    found = tomllib.loads(tune_peers.toml(journal.rows, "a test"))["sb3"]
    assert (found["score"], found["trial"]) == (0.80, 3)
    assert found["settings"] == tune_peers.trials(20)[3]
    assert len(found["trials"]) == 24
    monkeypatch.setattr(jobs, "run_alone", None)  # a second search finds all of it done
    assert tune_peers.search("sb3", journal)[0]["trial"] == 3


def test_sb3_gets_the_market_as_its_own_kind_of_env():
    sb3_env = pytest.importorskip("benchmarks.sb3_env", reason="peers are in the bench environment only")
    market = MarketVectorEnv(MARKETS["M4"], 2, horizon=3)
    env = sb3_env.MarketVecEnv(market)
    env.seed(5)
    first = env.reset()
    np.testing.assert_array_equal(first, MarketVectorEnv(MARKETS["M4"], 2, horizon=3).reset(seed=5)[0])
    for _ in range(2):
        _, _, done, infos = env.step(np.ones((2, 1)))
        assert not done.any()
    obs, _, done, infos = env.step(np.ones((2, 1)))
    assert done.all()
    assert infos[1]["TimeLimit.truncated"]
    assert infos[1]["terminal_observation"][1] == 1.0  # the position before the reset
    assert (obs[:, 1] == 0.0).all()
