"""The blocks of docs/recipes.md, run as they stand (with fewer episodes and trials) beside a small run's outputs."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sac_kernel.backtest import runner, trades
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.report.trade_files import write_tables
from sac_kernel.stats import trials
from sac_kernel.train_sac_kaggle import KaggleTrainer
from tests.support import told
from tests.use_models import lively_agent

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "recipes.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
pytestmark = pytest.mark.filterwarnings("default")  # what other packages warn of is theirs


def block(word, *also, **fewer):
    """Return the block that imports a package, its numbers replaced; skip where the package is not installed."""
    (text,) = [found for found in BLOCKS if re.search(rf"^(import|from) {word}\b", found, re.MULTILINE)]
    for name, value in fewer.items():
        text, changed = re.subn(rf"\b{name}=\d+", f"{name}={value}", text)
        assert changed
    for package in (word, *also):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the package {package} is not installed")
    return text


@pytest.fixture
def here(sample, tmp_path, monkeypatch):
    """Work in a folder with the sample's bars and the CSV files of a backtest; return that backtest and its fills."""
    monkeypatch.chdir(tmp_path)
    write_processed(sample, tmp_path / "data/processed/processed_data.h5")
    config = RunConfig(learner="gaussian").env_config(1)
    agent, market = lively_agent(tmp_path / "agent.pt", sample, 1, config)
    result = runner.validate(agent, market, config.initial_equity)
    fills = trades.fills_table(market, trades.fills_of(market, result))
    write_tables(tmp_path / "outputs", market, result, fills)
    return result, fills


def test_pandas_prints_the_backtests_figures(here, capsys):
    result, fills = here
    (text,) = [found for found in BLOCKS if "fills.csv" in found]
    exec(text, {})
    said = capsys.readouterr().out
    assert told(
        said, f"net {result.equity[-1] / result.start_equity - 1:.2%}", f"costs {result.cost_paid[-1]:,.2f}"
    )
    assert told(said, f"{len(fills)} fills", f"{(fills['closed_units'] > 0).sum()} that closed")
    hours = [float(x) for x in re.findall(r"^\d+ +([\d.]+)$", said, re.MULTILINE)]
    assert sum(hours) == pytest.approx(fills["cost_ccy"].sum(), rel=1e-5)


def test_quantstats_has_the_reports_sharpe_ratio(here, capsys, tmp_path):
    result, _ = here
    exec(block("quantstats"), {})
    daily = result.daily_returns
    sharpe = daily.mean() / daily.std(ddof=1) * np.sqrt(260)
    assert told(capsys.readouterr().out, f"{sharpe:.3f}")
    assert "agent 1" in (tmp_path / "tearsheet.html").read_text(encoding="utf-8")


def test_tensorboard_reads_the_newest_value_of_every_curve(here, capsys):
    text = block("tensorboard")
    KaggleTrainer(output_dir="outputs", num_episodes=3, eval_frequency=1, progress=False).train()
    capsys.readouterr()
    exec(text, {})
    said = capsys.readouterr().out
    progress = pd.read_csv("outputs/logs/progress.csv")
    assert f"losses/critic: {progress['critic_loss'].iloc[-1]:.4g} at episode 3" in said
    assert said.count("at episode 3") >= 5


def test_optuna_scores_by_validation_and_every_trial_is_in_the_ledger(here, capsys):
    text = block("optuna", n_trials=2, num_episodes=10)
    space = {}
    exec(text, space)
    listed = trials.read(Path("chosen/trials.csv"))
    assert {trial.split for trial in listed} == {"val"}
    assert len({trial.config_hash for trial in listed}) == 2  # the winner's own settings are one of them
    assert len(listed) == 2  # one look each, at the tenth episode
    found = space["winner"].judgement.verdict["trials"]
    assert found["listed"] == 2
    # No trial wrote a judgement: the test split was looked at once, by the winner.
    assert not list(Path("optuna").glob("*/summary.json"))
    stats = space["winner"].stats["eval_rewards"]
    assert space["study"].best_value == pytest.approx(stats[-1])


def test_mlflow_has_the_figures_of_every_episode(here):
    text = block("mlflow", "sqlalchemy", "alembic", num_episodes=3)
    import mlflow

    space = {}
    exec(text, space)
    (run,) = mlflow.search_runs(output_format="list")
    losses = space["trainer"].stats["critic_losses"]
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "critic_losses")
    assert [(point.step, point.value) for point in history] == [
        (i, pytest.approx(v)) for i, v in enumerate(losses, 1)
    ]
    assert run.data.tags["verdict"] == space["trainer"].judgement.verdict["sentence"]


def test_gymnasium_makes_the_environment_in_a_fresh_interpreter(here, tmp_path):
    text = block("gymnasium")
    command = [sys.executable, "-W", "error::UserWarning", "-c", text]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert told(done.stdout, "inputs", "equity")
