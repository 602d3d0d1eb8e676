"""The flat parameters: what the notebook's cell, --set and the dataclass agree on, and what is refused."""

import ast
import types
from pathlib import Path

import pytest

from sac_kernel.cli.settings import parse_settings
from sac_kernel.core.errors import ConfigError
from sac_kernel.experiment import run_config
from sac_kernel.experiment.horizons import horizons
from sac_kernel.experiment.run_config import PARAMETERS, RunConfig, check_divides, from_parameters
from sac_kernel.kaggle.kernel_notebook import parameters_cell
from tests.support import says

OPEN = {
    "sac_gamma": 0.0, "sac_learning_rate": 0.0, "exact_weight_decay": -1.0, "env_horizon": 0,
    "env_decision_interval_min": -1, "env_no_trade_band": -1.0, "env_reward": "auto",
}  # fmt: skip
"""Values that stand for 'not set'."""


def test_the_names_and_defaults_that_are_promised():
    # Users have them in notebooks and scripts: none may change silently.
    assert RunConfig().flat() == {
        "h5_path": "", "output_dir": "", "agent_ids": [1], "seeds": [0], "folds": 0, "tiers": ["raw", "base", "retail"],
        "null_copies": 0, "power_copies": 0, "learner": "auto", "num_episodes": 100,
        "eval_frequency": 10,
        "checkpoint_frequency": 5, "num_envs": 60, "device": "auto", "time_budget_h": 11.0, "resume": "auto",
        "allow_cpu": False, "warm_start": "", "self_test": True, "features_file": "", "series_files": [],
            "only_own_features": False, "features_hash": "", "expect_data_hash": "", "expect_env_steps": [],
            "expect_files": [],
            "run_id": "", "notebook_hash": "",
        "sac_hidden_dims": [64, 64], "sac_batch_size": 256, "sac_buffer_capacity": 300_000,
        "sac_warmup_steps": 5_000, "sac_utd_ratio": 0.25, "exact_positions": 21,
        "exact_alpha": 0.02, "exact_risk_aversion": 0.0, "env_episode_length": 3_000,
        "env_cost_tier": "base", "env_exposure_cap": 1.0, "env_costs": "", "env_swap_long_bps": 1000.0,
        "env_swap_short_bps": 1000.0, "env_stop_loss_bps": 0.0, "env_take_profit_bps": 0.0,
        "env_volatility_target": 0.0, "env_daily_loss_limit": 0.0, "env_drawdown_stop": 0.0, "env_kill_loss": 0.0,
        "env_impact": 0.0, **OPEN,
    }  # fmt: skip


def test_the_parameters_cell_has_every_parameter_with_its_type_and_default_in_order():
    found = [
        (node.target.id, ast.unparse(node.annotation), ast.literal_eval(node.value))
        for node in ast.parse(parameters_cell()).body
    ]
    assert [(name, value) for name, _, value in found] == list(RunConfig().flat().items())
    types = {name: annotation for name, annotation, _ in found}
    assert types["agent_ids"] == types["sac_hidden_dims"] == "list[int]"
    assert (types["sac_gamma"], types["env_horizon"], types["env_reward"]) == ("float", "int", "str")
    assert (types["allow_cpu"], types["env_episode_length"]) == ("bool", "int")


def test_flat_values_come_back_as_they_were_given():
    given = {"sac_gamma": 0.9, "env_horizon": 7, "env_reward": "log_return", "env_episode_length": 120}
    config = RunConfig.from_flat(given)
    assert config.flat() == {**RunConfig().flat(), **given}
    assert RunConfig.from_flat(config.flat()) == config
    assert config.left_to_preset == (
        "sac_learning_rate", "exact_weight_decay", "env_decision_interval_min", "env_no_trade_band",
    )  # fmt: skip


def test_one_entry_makes_a_field_a_parameter(monkeypatch):
    monkeypatch.setitem(run_config._SHOWN, "sac", "hidden_dims tau")
    found = run_config._parameters()["sac_tau"]
    assert (found.type, found.default) == (float, 0.005)
    assert found.help.startswith("Polyak weight")


def test_parameters_are_scalars_or_flat_lists_each_with_a_word_of_help():
    lines = parameters_cell().split("\n")
    assert all("  # " in line and len(line.split("  # ", 1)[1]) > 10 for line in lines)
    assert len(lines) == len(PARAMETERS)


def test_the_cell_as_it_stands_is_the_default_run():
    namespace = {"unrelated": types, "__name__": "__main__"}
    exec(parameters_cell(), namespace)
    assert from_parameters(namespace) == RunConfig()


def test_a_wrong_type_in_the_edited_cell_is_refused_by_name():
    namespace = {}
    exec(parameters_cell(), namespace)
    with pytest.raises(ConfigError, match=says("parameters cell", "num_episodes", "int", "'50'")):
        from_parameters({**namespace, "num_episodes": "50"})


def test_parameters_reach_agent_and_account():
    config = RunConfig.from_flat(
        {
            "sac_batch_size": 64,
            "sac_hidden_dims": (32, 8),
            "sac_gamma": 0.9,
            "env_episode_length": 120,
            "env_horizon": 50,
            "env_cost_tier": "raw",
            "env_decision_interval_min": 120,
        }
    )
    sac, env = config.sac_config(1), config.env_config(1)
    assert (sac.batch_size, sac.hidden_dims, sac.gamma, sac.utd_ratio) == (64, (32, 8), 0.9, 0.25)
    assert (env.episode_lengths, env.horizon, env.cost_tier) == ((120,), 50, "raw")
    assert env.decision_interval_min == 120


def test_presets_fill_what_is_left_open():
    config = RunConfig(agent_ids=(1, 2, 3))
    assert [config.env_config(i).decision_interval_min for i in (1, 2, 3)] == [0, 60, 240]
    assert [config.sac_config(i).gamma for i in (1, 2, 3)] == [0.99] * 3
    assert config.env_config(1).horizon is None


@pytest.mark.parametrize(
    ("changes", "reward"),
    [
        ({}, "denoised"),
        ({"env_volatility_target": 0.1, "env_impact": 1.0}, "denoised"),
        ({"env_stop_loss_bps": 20.0}, "log_return"),
        ({"env_take_profit_bps": 20.0}, "log_return"),
        ({"env_daily_loss_limit": 0.02}, "log_return"),
        ({"env_drawdown_stop": 0.1}, "log_return"),
        ({"env_kill_loss": 0.2}, "log_return"),
        ({"env_exposure_cap": 2.0}, "log_return"),
        ({"env_reward": "mean_variance"}, "mean_variance"),
    ],
)
def test_rewards_are_denoised_unless_the_path_decides_what_a_bar_pays(changes, reward):
    assert RunConfig.from_flat(changes).env_config(1).reward == reward


def test_jobs_are_every_agent_with_every_seed_in_order():
    config = RunConfig(agent_ids=(2, 1), seeds=(5, 0))
    assert [job[:2] for job in config.jobs] == [(2, 5), (2, 0), (1, 5), (1, 0)]


# -- --set ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("num_episodes=50", "num_episodes", 50),
        (" num_episodes = 50 ", "num_episodes", 50),
        ("agent_ids=[1, 3]", "agent_ids", [1, 3]),
        ("agent_ids=(1, 3)", "agent_ids", [1, 3]),
        ("agent_ids=1,3", "agent_ids", [1, 3]),
        ("exact_alpha=1", "exact_alpha", 1.0),
        ("sac_learning_rate=1e-3", "sac_learning_rate", 0.001),
        ("env_cost_tier=raw", "env_cost_tier", "raw"),
        ("env_cost_tier='raw'", "env_cost_tier", "raw"),
        ("sac_batch_size=10_000", "sac_batch_size", 10_000),
        ("h5_path=a=b.h5", "h5_path", "a=b.h5"),
        ("h5_path=", "h5_path", ""),
    ],
)
def test_a_setting_is_read_as_its_type(text, name, value):
    settings = parse_settings([text])
    assert settings == {name: value}
    assert type(settings[name]) is type(value)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("num_episode=5", "num_episodes"),
        ("episodes=5", "num_episodes"),
        ("sac_batchsize=5", "sac_batch_size"),
        ("seed=1", "seeds"),
        ("agent_id=1", "agent_ids"),
        ("Device=cpu", "device"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(text, nearest):
    with pytest.raises(ConfigError, match=says(f"'{nearest}'")):
        parse_settings([text])


def test_a_name_like_no_other_is_refused_with_the_list():
    with pytest.raises(ConfigError, match=says("'zzz'", "h5_path, output_dir")):
        parse_settings(["zzz=1"])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("num_episodes", ("name=value",)),
        ("num_episodes=True", ("num_episodes", "int", True)),
        ("num_episodes=5.0", ("num_episodes", "int", 5.0)),
        ("num_episodes=five", ("num_episodes", "int", "'five'")),
        ("num_episodes=None", ("num_episodes", "int", None)),
        ("num_episodes=", ("num_episodes", "int", "''")),
        ("num_episodes=[5]", ("num_episodes", "int", "[5]")),
        ("sac_learning_rate=True", ("sac_learning_rate", "float", True)),
        ("sac_learning_rate='1e-3'", ("sac_learning_rate", "float", "'1e-3'")),
        ("agent_ids=1", ("agent_ids", "list", "int", 1)),
        ("agent_ids=[[1]]", ("agent_ids[0]", "int", "[1]")),
        ("agent_ids=[1, True]", ("agent_ids[1]", "int", True)),
        ("agent_ids=['1']", ("agent_ids[0]", "int", "'1'")),
        ("agent_ids={1: 2}", ("agent_ids", "list", "int")),
        ("sac_hidden_dims=[[256], [256]]", ("sac_hidden_dims[0]", "int")),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_saying_what_was_found(text, found):
    with pytest.raises(ConfigError, match=says(*found)):
        parse_settings([text])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("num_episodes=0", ("num_episodes", 0)),
        ("time_budget_h=-1", ("time_budget_h", -1.0)),
        ("time_budget_h=1e999", ("time_budget_h",)),
        ("env_swap_long_bps=1e999", ("env_swap_long_bps",)),
        ("agent_ids=[7]", ("1 short-term", "2 medium", "3 swing", 7)),
        ("agent_ids=[]", ("agent_ids",)),
        ("seeds=[1, 1]", ("seeds",)),
        ("sac_gamma=1.0", ("gamma", "1.0")),
        ("sac_hidden_dims=[]", ("hidden_dims",)),
        ("env_cost_tier=cheap", ("cost_tier", "raw, base, retail", "'cheap'")),
        ("env_exposure_cap=31", ("exposure_cap", 31.0)),
        ("env_episode_length=0", ("episode_length",)),
    ],
)
def test_a_value_out_of_range_is_refused(text, found):
    with pytest.raises(ConfigError, match=says(*found)):
        parse_settings([text])


def test_too_many_checkpoints_are_refused_with_the_frequency_that_fits():
    # Three jobs: (300 - 30) // 3 - 14 = 76 places each, 2 x 500 files: 1000 / 76 is 13.2, so 14.
    with pytest.raises(ConfigError, match=says("3 job", "checkpoint_frequency", 14)):
        RunConfig(seeds=(0, 1, 2), num_episodes=500, checkpoint_frequency=5)
    RunConfig(seeds=(0, 1, 2), num_episodes=500, checkpoint_frequency=14)


# -- divisors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_envs", "length", "below", "above"),
    [
        (7, 3000, 6, 8),
        (59, 3000, 50, 60),
        (64, 3000, 60, 75),
        (4, 10, 2, 5),
        (3001, 3000, 3000, 3000),
        (60, 2**70, 32, 64),
    ],
)
def test_nearest_divisors(num_envs, length, below, above):
    with pytest.raises(ConfigError, match=says(below, above)):
        check_divides(num_envs, length)


@pytest.mark.parametrize(("num_envs", "length"), [(1, 7), (60, 3000), (3000, 3000), (6, 60)])
def test_divisors_pass(num_envs, length):
    check_divides(num_envs, length)


def test_horizons_by_hand_and_as_the_page_has_them():
    # 100 decisions at gamma .99; 1.5 bps / (.798 x 2.97 bps x sqrt(100, 1,200 and 4,800 bars of five minutes)).
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in horizons()[2:]]
    assert [row[:4] for row in rows] == [
        ["1 short-term", "5", "0.99", "8.3"],
        ["2 medium", "60", "0.99", "100.0"],
        ["3 swing", "240", "0.99", "400.0"],
    ]
    assert [float(row[5]) for row in rows] == pytest.approx([0.0633, 0.0183, 0.0091], abs=5e-4)
    page = (Path(__file__).resolve().parents[2] / "docs/learning.md").read_text(encoding="utf-8")
    assert "\n".join(horizons()) in page
