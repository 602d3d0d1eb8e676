"""The trainer on small data: every promised file, strict figures, and errors that name the cause."""

import dataclasses
import json
import math
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from sac_kernel.agent.sac import SACAgent
from sac_kernel.core import files
from sac_kernel.core.clock import Deadline
from sac_kernel.core.errors import ConfigError, DataError, DeviceError, InputNotFoundError
from sac_kernel.experiment import job_outputs
from sac_kernel.experiment.job_queue import run_jobs
from sac_kernel.experiment.progress_log import CSV_FILE, EVENTS_FILE
from sac_kernel.experiment.run_config import RUN_PRESETS, RunConfig
from sac_kernel.experiment.trainer import KaggleTrainer
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.prices.ingest.split import split_table
from sac_kernel.prices.ingest.tables import BarTable
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.prices.pipeline import DataConfig
from sac_kernel.train_sac_kaggle import main
from tests.conftest import figures_left_blank, make_bars, make_data
from tests.small_runs import BASELINES, SAC, TINY, small_trainer
from tests.support import says, told

CURVES = [CSV_FILE, EVENTS_FILE] if find_spec("tensorboard") else [CSV_FILE]
ROOT = Path(__file__).resolve().parents[2]
TIERS = ("raw", "base", "retail")
POLICIES = ["agent 1 (final)", "agent 1 (best)", *BASELINES, "random, same turnover"]


def make_trainer(h5, folder, **changes):
    ours = {
        "num_episodes": 5,
        "eval_frequency": 2,
        "checkpoint_frequency": 2,
        "sac_config": dataclasses.replace(SAC, buffer_capacity=2000),
        "env_config": TradingEnvConfig(episode_lengths=(60,), horizon=100),
    }
    return small_trainer(h5, folder, **{**ours, **changes})


@pytest.fixture(scope="module")
def run(h5, tmp_path_factory):
    """One finished run: 5 episodes of 60 steps; validation after 2, 4 and 5; checkpoints after 2 and 4."""
    trainer = make_trainer(h5, tmp_path_factory.mktemp("out"))
    agent, stats = trainer.run_training()
    return trainer, agent, stats


def names_in(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def strict(path):
    """JSON without the NaN and Infinity that Python's own reader lets pass."""

    def refuse(token):
        pytest.fail(f"{path.name} holds {token}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


# -- files ---------------------------------------------------------------------------------------


def test_output_folder_has_every_promised_file_and_nothing_else(run):
    found = [name for name in names_in(run[0].folder) if not name.startswith("figures/")]
    assert found == [
        "agent_1_best.pt",
        "agent_1_final.pt",
        "checkpoints/agent_1_ep2.pt",
        "checkpoints/agent_1_ep4.pt",
        "checkpoints/metrics_ep2.json",
        "checkpoints/metrics_ep4.json",
        "daily_returns.csv",
        "equity.csv",
        "fills.csv",
        *CURVES,
        "logs/training_stats.json",
        "logs/training_stats.npz",
        "manifest.json",
        "models.zip",
        "report.html",
        "state/job.json",
        "state/state.json",
        "state/trainer_a.state",
        "state/trainer_b.state",
        "summary.json",
        "trials.csv",
    ]
    figures = {path.stem for path in (run[0].folder / "figures").glob("*.png")}
    assert {"equity", "exposure", "training"} <= figures


def test_every_pt_loads_with_weights_only_and_says_what_inference_needs(run):
    paths = sorted(run[0].folder.rglob("*.pt"))
    assert len(paths) == 4
    needed = {"config", "features", "observation_names", "env", "data_hash", "code_hash", "weights"}
    for path in paths:
        assert needed <= set(torch.load(path, weights_only=True))


def test_stats_have_one_value_an_episode(run):
    _, _, stats = run
    assert {name: len(values) for name, values in stats.items()} == dict.fromkeys(stats, 5)
    assert stats["episode_lengths"] == [60] * 5
    # 60 steps of warm-up: the first update comes with the first episode's last step. 60 x 0.25 = 15 each.
    assert stats["updates"] == [15] * 5
    assert [v is not None for v in stats["eval_rewards"]] == [False, True, False, True, True]
    assert all(v is not None and math.isfinite(v) for v in stats["critic_losses"])


def test_stats_have_the_guides_names(run):
    guide = {"episode_rewards", "episode_lengths", "eval_rewards", "actor_losses"}
    assert guide | {"critic_losses", "alpha_values"} <= set(run[2])


def test_stats_on_disk_equal_the_returned_ones(run):
    trainer, _, stats = run
    # Null where there is no value: no validation yet, or too few days for a Sharpe ratio (NaN).
    plain = {name: [None if v is None or v != v else v for v in values] for name, values in stats.items()}
    assert strict(trainer.folder / "logs" / "training_stats.json") == plain
    with np.load(trainer.folder / "logs" / "training_stats.npz", allow_pickle=False) as arrays:
        assert set(arrays) == set(stats)
        for name, values in stats.items():
            expected = np.array([np.nan if v is None else v for v in values], np.float64)
            np.testing.assert_array_equal(arrays[name], expected)


def test_every_json_is_strict(run):
    paths = sorted(run[0].folder.rglob("*.json"))
    assert len(paths) == 7
    assert all(strict(path) is not None for path in paths)


def test_manifest_lists_every_file_with_its_hash_and_ends_complete(run):
    trainer, _, _ = run
    manifest = job_outputs.read_manifest(trainer.folder)
    assert sorted(manifest["files"]) == [n for n in names_in(trainer.folder) if n != "manifest.json"]
    for name, entry in manifest["files"].items():
        content = (trainer.folder / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": files.sha256(content)}
    expected = {"env_steps": 300, "updates": 75, "episodes": 5, "status": "complete"}
    assert {name: manifest[name] for name in expected} == expected
    assert manifest["data_hash"] == trainer.data.content_hash
    assert manifest["end"] == "complete"


def test_models_zip_holds_the_agents_checkpoints_and_logs(run):
    folder = run[0].folder
    with zipfile.ZipFile(folder / "models.zip") as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == [
            "agent_1_best.pt",
            "agent_1_final.pt",
            "checkpoints/agent_1_ep2.pt",
            "checkpoints/agent_1_ep4.pt",
            "checkpoints/metrics_ep2.json",
            "checkpoints/metrics_ep4.json",
            *CURVES,
            "logs/training_stats.json",
            "logs/training_stats.npz",
        ]
        assert archive.read("agent_1_final.pt") == (folder / "agent_1_final.pt").read_bytes()


def test_metrics_file_tells_the_state_of_its_checkpoint(run):
    trainer, _, stats = run
    metrics = strict(trainer.folder / "checkpoints" / "metrics_ep4.json")
    assert (metrics["episode"], metrics["env_steps"], metrics["total_updates"]) == (4, 240, 60)
    assert metrics["critic_losses"] == stats["critic_losses"][3]
    assert metrics["eval_rewards"] == stats["eval_rewards"][3]
    agent = SACAgent.from_checkpoint(trainer.folder / "checkpoints" / "agent_1_ep4.pt", "cpu")
    assert agent.updates == 60


def test_best_is_the_highest_mean_of_the_last_three_validations(run):
    _, _, stats = run
    scores = [v for v in stats["eval_rewards"] if v is not None]
    # Windows of the three evaluations: {1}, {1, 2}, {1, 2, 3}; they came after 30, 60 and 75 updates.
    means = [np.mean(scores[:1]), np.mean(scores[:2]), np.mean(scores)]
    best = SACAgent.from_checkpoint(run[0].folder / "agent_1_best.pt", "cpu")
    assert best.updates == [30, 60, 75][int(np.argmax(means))]


def test_figures_and_pages_are_no_picture_of_time_or_place(h5, run, tmp_path):
    again = make_trainer(h5, tmp_path / "an other place")
    with figures_left_blank():
        again.run_training()
    for name in ("agent_1_best.pt", "agent_1_final.pt", "checkpoints/agent_1_ep4.pt", "models.zip"):
        assert (again.folder / name).read_bytes() == (run[0].folder / name).read_bytes(), name


def test_another_seed_is_another_agent(h5, run, tmp_path):
    trainer = make_trainer(h5, tmp_path, seed=1, num_episodes=2)
    trainer.train()
    first = torch.load(run[0].folder / "checkpoints" / "agent_1_ep2.pt", weights_only=True)
    other = torch.load(tmp_path / "agent_1_final.pt", weights_only=True)
    name = "actor.body.0.weight"
    assert not torch.equal(first["weights"][name], other["weights"][name])


# -- judgement -----------------------------------------------------------------------------------


def test_results_table_has_every_policy_at_every_tier_with_the_headline_first(run):
    rows = run[0].judgement.rows
    order = [(tier, policy) for tier in ("base", "raw", "retail") for policy in POLICIES]
    assert [(row["tier"], row["policy"]) for row in rows] == order
    assert strict(run[0].folder / "summary.json")["table"] == json.loads(files.strict_json(rows))


def test_dearer_tiers_cost_more_and_flat_costs_nothing(run):
    rows = {(row["tier"], row["policy"]): row for row in run[0].judgement.rows}
    hold = [rows[tier, "buy and hold"]["cost_frac"] for tier in TIERS]
    assert 0 < hold[0] < hold[1] < hold[2]
    assert [rows[tier, "flat"]["net_return_frac"] for tier in TIERS] == [0.0] * 3


EVALUATE = """
import json, sys
from pathlib import Path
from sac_kernel.backtest.judgement import evaluate_file
from sac_kernel.core import files
for name in ("agent_1_final.pt", "agent_1_best.pt"):
    _, judged = evaluate_file(Path(sys.argv[1]) / name, Path(sys.argv[2]))
    own = [row for row in judged.rows if row["policy"] in (f"agent 1 ({name[8:-3]})", "flat", "buy and hold")]
    print(files.strict_json([own, judged.percentile, judged.verdict]).replace(chr(10), ""))
"""


def test_a_fresh_process_gives_the_same_figures_to_the_last_digit(h5, run):
    folder = run[0].folder
    command = [sys.executable, "-c", EVALUATE, str(folder), str(h5)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    final, best = (json.loads(line) for line in done.stdout.splitlines())
    summary = strict(folder / "summary.json")
    table = {(row["tier"], row["policy"]): row for row in summary["table"]}
    assert len(final[0]) == len(best[0]) == 9
    for row in (*final[0], *best[0]):
        assert row == table[row["tier"], row["policy"]]
    assert final[1] == summary["random"]["percentile"]
    assert final[2] == summary["verdict"]


# -- several jobs --------------------------------------------------------------------------------

HUNDRED = {**TINY, "env_horizon": 100}


@pytest.fixture(scope="module")
def two_seeds(h5, tmp_path_factory):
    top = tmp_path_factory.mktemp("two")
    config = RunConfig.from_flat({"h5_path": str(h5), "output_dir": str(top), "seeds": (7, 3), **HUNDRED})
    with figures_left_blank():
        return top, config, run_jobs(config)


def test_several_jobs_live_in_runs_with_the_first_seeds_agents_at_the_top(two_seeds):
    top, _, _ = two_seeds
    assert sorted(p.name for p in (top / "runs").iterdir()) == ["agent_1_seed_3", "agent_1_seed_7"]
    first = top / "runs" / "agent_1_seed_7"  # first by order, not by number and not by result
    for kind in ("best", "final"):
        name = f"agent_1_{kind}.pt"
        assert (top / name).read_bytes() == (first / name).read_bytes()
        other = top / "runs" / "agent_1_seed_3" / name
        assert other.read_bytes() != (first / name).read_bytes()
    for name in ("logs/training_stats.json", "checkpoints/agent_1_ep2.pt", "state/state.json"):
        assert (first / name).is_file()


def test_several_jobs_share_one_report_summary_manifest_and_archive(two_seeds):
    top, _, _ = two_seeds
    names = names_in(top)
    for name in ("report.html", "summary.json", "manifest.json", "models.zip"):
        assert [n for n in names if n.endswith(name)] == [name]
    assert sorted(job_outputs.read_manifest(top)["files"]) == [n for n in names if n != "manifest.json"]
    summary = strict(top / "summary.json")
    assert [job["seed"] for job in summary["jobs"]] == [7, 3]
    policies = {row["policy"] for row in summary["table"]}
    assert {"agent 1 (final)", "agent_1_seed_3: agent 1 (final)"} <= policies


def test_a_job_among_several_is_bit_equal_to_the_same_job_alone(two_seeds, h5, tmp_path):
    top, _, _ = two_seeds
    with figures_left_blank():
        run_jobs(
            RunConfig.from_flat({"h5_path": str(h5), "output_dir": str(tmp_path), "seeds": (3,), **HUNDRED})
        )
    alone = tmp_path / "agent_1_final.pt"
    assert alone.read_bytes() == (top / "runs" / "agent_1_seed_3" / alone.name).read_bytes()


def test_a_finished_run_of_several_jobs_starts_anew_and_keeps_the_old_in_previous(two_seeds, h5, tmp_path):
    """The second run's clock is over before its first step."""
    shutil.copytree(two_seeds[0], tmp_path / "run")
    tmp_path /= "run"
    config = dataclasses.replace(two_seeds[1], output_dir=str(tmp_path))
    report = (tmp_path / "report.html").read_bytes()
    agent = (tmp_path / "runs" / "agent_1_seed_3" / "agent_1_final.pt").read_bytes()
    with figures_left_blank():
        again = run_jobs(config, Deadline(0.0))
    assert [job["env_steps"] for job in again.summary["jobs"]] == [0, 0]
    (previous,) = (tmp_path / "previous").iterdir()
    assert (previous / "report.html").read_bytes() == report
    assert (previous / "runs" / "agent_1_seed_3" / "agent_1_final.pt").read_bytes() == agent
    listed = job_outputs.read_manifest(tmp_path)["files"]
    assert not [name for name in listed if "previous" in name]


# -- one setting for each agent ------------------------------------------------------------------


@pytest.mark.parametrize(("agent_id", "interval"), [(2, 60), (3, 240)])
def test_presets_differ_in_their_decision_interval_only(h5, tmp_path, agent_id, interval):
    trainer = KaggleTrainer(h5, tmp_path, agent_id=agent_id, device="cpu")
    first = KaggleTrainer(h5, tmp_path, device="cpu")
    assert trainer.env_config.decision_interval_min == interval
    assert first.env_config.decision_interval_min == 0
    assert trainer.config.sac == first.config.sac


def test_trainer_without_a_config_has_the_stated_recipe(h5, tmp_path):
    trainer = KaggleTrainer(h5, tmp_path, device="cpu")
    config = trainer.config
    assert (config.num_episodes, config.eval_frequency, config.checkpoint_frequency) == (100, 10, 5)
    assert (config.sac.utd_ratio, config.sac.batch_size) == (0.25, 256)
    assert (trainer.env_config.episode_length, config.num_envs) == (3000, 60)
    assert trainer.env_config == RunConfig().env_config(1)
    assert RUN_PRESETS == {"quick": (50, 5, 10), "full": (500, 10, 20), "long": (1000, 20, 50)}


def test_rewards_are_scaled_to_one_a_bar_for_learning_and_left_alone_in_the_statistics(run):
    trainer, _, stats = run
    closes = trainer.train_market.bars["close"][trainer.train_market.first_bar :]
    expected = 1.0 / np.std(np.diff(np.log(closes)))
    assert trainer.learning.config.reward_scale == pytest.approx(expected, rel=1e-4)
    # 60 random positions of |a| about 1/2 on bars of 1e-3: log equity moves by about 1e-3 x sqrt(60) / 2.
    assert 0 < abs(stats["episode_rewards"][0]) < 0.05


# -- what is refused -----------------------------------------------------------------------------


def test_agent_seven_is_refused_naming_the_presets(h5, tmp_path):
    with pytest.raises(ConfigError, match=says("1 short-term", "2 medium", "3 swing", 7)):
        make_trainer(h5, tmp_path, agent_id=7)


@pytest.mark.parametrize(
    ("num_envs", "nearest"), [(7, "6 and 10"), (11, "10 and 12"), (61, "60 and 60"), (31, "30 and 60")]
)
def test_num_envs_must_divide_the_episode_and_the_nearest_divisors_are_named(h5, tmp_path, num_envs, nearest):
    with pytest.raises(ConfigError, match=says("60", num_envs, nearest)):
        make_trainer(h5, tmp_path, num_envs=num_envs)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_cuda_device_that_is_absent_is_refused_with_a_way_out(h5, tmp_path):
    with pytest.raises(DeviceError, match=says("CUDA", "device='auto'")):
        make_trainer(h5, tmp_path, device="cuda")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["num_episodes", "eval_frequency", "checkpoint_frequency", "num_envs", "time_budget_s"]
)
@pytest.mark.parametrize("value", [0, -1])
def test_a_count_that_is_not_positive_is_refused_by_name(h5, tmp_path, name, value):
    with pytest.raises(ConfigError, match=name):
        make_trainer(h5, tmp_path, **{name: value})


def test_more_than_three_hundred_files_are_refused_with_the_frequency_that_fits(h5, tmp_path):
    # 300 - 20 fixed - 12 of the job = 268 places, two files a checkpoint: 1000 episodes fit from 8 on.
    with pytest.raises(ConfigError, match=says(300, "checkpoint_frequency", 8)):
        make_trainer(h5, tmp_path, num_episodes=1000, checkpoint_frequency=1)
    make_trainer(h5, tmp_path, num_episodes=1000, checkpoint_frequency=8)


def test_a_missing_file_is_refused_naming_it(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"nowhere\.h5"):
        make_trainer(tmp_path / "nowhere.h5", tmp_path / "out").run_training()
    assert not (tmp_path / "out").exists()


def processed(bars, path):
    table = BarTable(bars, "synthetic", "UTC")
    write_processed(split_table(table, DataConfig()), path)
    return path


def test_a_price_that_never_moves_names_itself_as_the_cause_of_zero_rewards(tmp_path):
    bars = make_bars(1600)
    bars[["open", "high", "low", "close"]] = 1.1
    h5 = processed(bars, tmp_path / "flat.h5")
    with pytest.raises(DataError, match=says("price", "never move")):
        make_trainer(h5, tmp_path / "out").run_training()
    assert not (tmp_path / "out").exists()


def test_too_few_bars_for_the_horizon_says_how_many_there_are(h5, tmp_path):
    config = TradingEnvConfig(episode_lengths=(60,), horizon=5000)
    with pytest.raises(DataError, match=says(5000, "env_horizon")):
        make_trainer(h5, tmp_path / "out", env_config=config).run_training()
    assert not (tmp_path / "out").exists()


def test_an_error_leaves_earlier_outputs_untouched(h5, run, tmp_path):
    trainer = make_trainer(h5, tmp_path, num_episodes=1)
    trainer.run_training()
    before = {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)}
    broken = tmp_path.parent / "broken.h5"
    broken.write_bytes(h5.read_bytes()[:2000])
    with pytest.raises(DataError, match=says("HDF5")):
        make_trainer(broken, tmp_path).run_training()
    assert {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)} == before


# -- the command line ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def short_h5(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "data with é.h5"
    write_processed(make_data(5400, bar_seconds=3600), path)
    return path


def test_command_line_with_every_flag_of_the_guide(short_h5, tmp_path):
    command = [
        sys.executable,
        "-m",
        "sac_kernel.train_sac_kaggle",
        *("--h5-path", str(short_h5), "--output-dir", str(tmp_path / "out put")),
        *("--num-episodes", "1", "--eval-frequency", "1", "--checkpoint-frequency", "1"),
        *("--agent-id", "1", "--device", "cpu"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert told(done.stdout, "1/1", "report.html")
    assert job_outputs.read_manifest(tmp_path / "out put")["updates"] == 30


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--agent-id", "7"], ("agent_id", 7)),
        (["--num-episodes", "0"], ("num_episodes", 0)),
        (["--h5-path", "nowhere.h5"], ("nowhere.h5",)),
        (["--device", "tpu"], ("device", "auto, cpu, cuda", "'tpu'")),
    ],
)
def test_command_line_says_what_is_wrong_and_exits_2(tmp_path, caplog, flags, named, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--output-dir", str(tmp_path / "out"), *flags]) == 2
    assert told(caplog.text, *named)
    assert not (tmp_path / "out").exists()
