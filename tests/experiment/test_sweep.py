"""The grid of experiments: its jobs, its table, its ledger, and no job twice."""

import csv
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sac_kernel.agent.sac import SACAgent
from sac_kernel.backtest import validation
from sac_kernel.backtest.judgement import evaluate_file
from sac_kernel.cli.main import main
from sac_kernel.core.errors import ConfigError
from sac_kernel.experiment import sweep
from sac_kernel.prices.costs import COST_TIERS
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.prices.processed_file import read_processed
from sac_kernel.stats import trials
from tests.conftest import make_data
from tests.support import says, told

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "learner=gaussian",
    "num_episodes=2", "eval_frequency=1", "checkpoint_frequency=1", "num_envs=6", "sac_hidden_dims=[16,16]",
    "sac_batch_size=32", "sac_warmup_steps=60", "sac_buffer_capacity=2000", "env_episode_length=60",
    "env_horizon=50",
)  # fmt: skip


def test_the_grid_is_the_product_with_the_last_setting_fastest():
    runs = sweep.grid([1, 2], [0], ["env_cost_tier=base,retail", "sac_gamma=.99,.995", "num_episodes=5"])
    assert len(runs) == 2 * 1 * 2 * 2
    assert runs[1] == {
        "agent_ids": [1], "seeds": [0], "env_cost_tier": "base", "sac_gamma": 0.995, "num_episodes": 5,
    }  # fmt: skip
    assert [run["env_cost_tier"] for run in runs[:4]] == ["base", "base", "retail", "retail"]
    assert sweep.grid([1], [0, 1], ["sac_hidden_dims=[64,64],[32]"])[3]["sac_hidden_dims"] == [32]


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("sac_gama=.9", ("'sac_gama'", "'sac_gamma'")),
        ("seeds=0,1", ("'seeds'",)),
        ("sac_gamma", ("sac_gamma", "name=value,value")),
        ("sac_gamma=.9,high", ("sac_gamma", "high")),
        ("num_episodes=1.5", ("num_episodes", "int", 1.5)),
        ("env_cost_tier=base,cheap", ("cost_tier", "'cheap'")),
        ("num_envs=7", ("num_envs", 7, "learner=gaussian")),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_anything_runs(setting, found):
    with pytest.raises(ConfigError, match=says(*found)):
        sweep.grid([1], [0], [setting])


def test_folds_are_those_of_the_walk_forward(tmp_path):
    data = make_data(2400)
    paths = sweep.write_folds(data, tmp_path, folds=2, test_days=10, val_days=5)
    first, second = (read_processed(path) for path in paths)
    days = {k: np.unique(validation.trading_days(b["EURUSD"])) for k, b in second.splits.items()}
    whole = np.unique(np.concatenate([validation.trading_days(b["EURUSD"]) for b in data.splits.values()]))
    assert days["test"].tolist() == whole[-10:].tolist()
    assert days["val"].tolist() == whole[-16:-11].tolist()  # one day purged between the parts
    assert days["train"].tolist() == whole[:-17].tolist()
    before = np.unique(validation.trading_days(first.test["EURUSD"]))
    assert before.tolist() == whole[-20:-10].tolist()
    assert first.content_hash != second.content_hash


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two jobs on two processes, from the command line, and the same command again."""
    folder = tmp_path_factory.mktemp("sweep")
    write_processed(make_data(1600), folder / "bars.h5")
    command = [
        sys.executable, "-m", "sac_kernel.sweep", "--h5-path", str(folder / "bars.h5"), "--seeds", "3",
        "--set", "env_cost_tier=base,retail", "--device", "cpu", "--workers", "2", "--output", str(folder / "out"),
    ]  # fmt: skip
    command += [word for setting in TINY for word in ("--set", setting)]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    times = {p: p.stat().st_mtime_ns for p in (folder / "out/jobs").rglob("*.*")}
    return folder, first, command[3:], times


def rows_of(folder):
    with (folder / "out" / sweep.TABLE).open() as stream:
        return list(csv.DictReader(stream))


def test_every_job_has_a_row_with_the_figures_of_its_own_agents(swept):
    folder, first, _, _ = swept
    assert first.returncode == 0, first.stdout + first.stderr
    rows = rows_of(folder)
    assert [(r["seed"], r["env_cost_tier"], r["status"]) for r in rows] == [
        ("3", "base", "finished"), ("3", "retail", "finished"),
    ]  # fmt: skip
    assert {(r["env_steps"], r["updates"]) for r in rows} == {("120", "30")}  # 2 x 60 steps x 0.25
    # The package's own judgement of the file that the job left, in another process and by another way.
    job = folder / "out" / "jobs" / rows[1]["job"]
    _, judgement = evaluate_file(job / "agent_1_final.pt", folder / "bars.h5")
    for tier in COST_TIERS:
        row = judgement.results[tier][0].row()
        assert float(rows[1][f"test_final_{tier}_annual_frac"]) == pytest.approx(
            row["annual_return_frac"], rel=1e-5
        )
    agent = SACAgent.from_checkpoint(job / "agent_1_best.pt", "cpu")
    assert agent.context["env"]["cost_tier"] == "retail"
    assert not (job / "state").exists()
    assert not (job / "checkpoints").exists()


def test_the_ledger_has_every_validated_checkpoint_of_every_job(swept):
    listed = trials.read(swept[0] / "out" / trials.NAME)
    assert len(listed) == 2 * 2
    assert len({trial.config_hash for trial in listed}) == 2


def test_the_same_command_again_trains_nothing(swept, caplog):
    folder, first, arguments, times = swept
    assert len(re.findall(r"(?m)^[12]/2 \w+ finished$", first.stdout)) == 2
    with caplog.at_level("INFO", logger="sac_kernel"):
        assert main(["sweep", *arguments]) == 0
    assert any(told(line, "2 jobs", "2 finished") for line in caplog.messages)
    assert {p: p.stat().st_mtime_ns for p in (folder / "out/jobs").rglob("*.*")} == times


def test_a_job_that_fails_has_its_reason_in_the_table(tmp_path):
    data = make_data(1600)
    flat = {k: {"EURUSD": b["EURUSD"] * 0 + 1.0} for k, b in data.splits.items()}
    write_processed(dataclasses.replace(data, **flat), tmp_path / "flat.h5")
    runs = sweep.grid([1], [0], list(TINY))
    outcomes = sweep.run_sweep(runs, {"all": tmp_path / "flat.h5"}, tmp_path / "out")
    assert told(outcomes[0].failure, "DataError", "price")
    (row,) = rows_of(tmp_path)
    assert told(row["status"], "DataError", "price")
    assert main(["sweep", "--data", str(tmp_path / "none.h5"), "--output", str(tmp_path / "x")]) == 2
