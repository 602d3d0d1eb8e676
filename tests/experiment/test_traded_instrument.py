"""GBPUSD traded among three instruments: build, trainer, report, walk-forward, sweep and retraining follow."""

import shutil

import numpy as np
import pytest

from sac_kernel.agent.config import SACConfig
from sac_kernel.core import files
from sac_kernel.core.errors import CheckpointError, ConfigError, DataError
from sac_kernel.experiment import fold_jobs, sweep
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.kaggle import display
from sac_kernel.live import retrain
from sac_kernel.live.decide import Decider
from sac_kernel.live.model_store import ModelStore
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.prices.pipeline import DataConfig, DataPipeline
from sac_kernel.prices.processed_file import read_processed
from tests.conftest import make_bars
from tests.experiment.test_trainer import make_trainer

NAMES = ("EURUSD", "GBPUSD", "USDJPY")


def write_folder(folder, rows):
    folder.mkdir()
    for seed, name in enumerate(NAMES):
        make_bars(2000, seed).iloc[rows].to_csv(folder / f"{name}.csv", date_format="%Y-%m-%dT%H:%M:%SZ")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("pounds")


@pytest.fixture(scope="module")
def h5(place):
    """The file that `build_kernel.py --data FOLDER --instrument GBPUSD` makes."""
    config = DataConfig(
        source="files",
        path=str(write_folder(place / "bars", slice(0, 1900))),
        instrument="GBPUSD",
        price_side="bid",
        output_path=str(place / "processed_data.h5"),
    )
    DataPipeline(config).write()
    return place / "processed_data.h5"


@pytest.fixture(scope="module")
def run(h5, place, blank_figures):
    trainer = make_trainer(h5, place / "out", num_episodes=2, eval_frequency=1)
    trainer.run_training()
    return trainer


def test_the_trainer_learns_and_judges_by_the_traded_instruments_bars(run, h5):
    data = read_processed(h5)
    assert run.instrument == "GBPUSD"
    assert run.train_market.bars["close"].tolist() == data.train["GBPUSD"]["close"].tolist()
    assert run.judgement.results["base"][0].close[-1] == data.test["GBPUSD"]["close"].iloc[-1]
    assert run.agent.context["features"]["instrument"] == "GBPUSD"
    assert any(name.startswith("gbpusd_") for name in run.agent.context["features"]["names"])


def test_summary_and_report_name_it(run):
    summary = files.read_json(run.folder / "summary.json")
    assert summary["run"]["instrument"] == summary["data"]["traded"] == "GBPUSD"
    # Half of .54 bps, .32 commission and .155 slippage at the base tier: .745 bps.
    assert "GBPUSD" in summary["data"]["costs"][0]
    assert "0.745 bps" in summary["data"]["costs"][0]
    page = (run.folder / "report.html").read_text("utf-8")
    assert "GBPUSD" in page.split("<body")[1].split("<details")[0]  # in the headline


def test_the_header_names_it_before_the_data_are_read(h5, monkeypatch):
    monkeypatch.setattr(display.packages, "add_wheels", lambda _: {})
    package = display.Path(display.sac_kernel.__file__).parent
    assert display.run_header(RunConfig(h5_path=str(h5)), "", package)["instrument"] == "GBPUSD"


def test_a_run_on_the_same_bars_with_another_instrument_does_not_go_on_with_its_state(run, h5, tmp_path):
    write_processed(read_processed(h5, instrument="EURUSD"), tmp_path / "euro.h5")
    shutil.copytree(run.folder / "state", tmp_path / "out" / "state")
    other = make_trainer(tmp_path / "euro.h5", tmp_path / "out", num_episodes=4)
    with pytest.raises(CheckpointError, match="data_hash"):
        other.train()
    mounted = make_trainer(tmp_path / "euro.h5", tmp_path / "x", expect_data_hash=run.data.content_hash)
    with pytest.raises(DataError, match="euro"):
        mounted.load_data()


def test_the_walk_forward_trades_it_in_every_fold(h5, place):
    settings = fold_jobs.Settings(
        str(h5), agents=(1,), seeds=(0,), folds=1, tiers=("base",), updates=10, evaluations=1, test_days=20,
        val_days=15, purge_days=2,
        config=RunConfig(
            learner="gaussian",
            num_envs=50,
            sac=SACConfig(hidden_dims=(8,), batch_size=16, warmup_steps=60, utd_ratio=0.1),
            env=TradingEnvConfig(episode_lengths=(100,), horizon=100),
        ),
    )  # fmt: skip
    job = settings.jobs[1]
    fold_jobs.run_job(settings, job, place / "job.npz")
    (result,) = fold_jobs.load(place / "job.npz").passes
    close = read_processed(h5).whole("GBPUSD")["close"]
    assert np.array_equal(result.close, close[result.open_time_utc])
    euro = place / "euro.h5"
    write_processed(read_processed(h5, instrument="EURUSD"), euro)
    other = fold_jobs.Settings(**{**vars(settings), "h5_path": str(euro)})
    assert other.identity(job) != settings.identity(job)


def test_the_folds_of_a_sweep_trade_it(h5, tmp_path):
    (path,) = sweep.write_folds(read_processed(h5), tmp_path, 1, 20, 15)
    fold = read_processed(path)
    assert fold.traded == "GBPUSD"
    assert sorted(fold.train) == list(NAMES)


def test_retraining_keeps_it_and_judges_models_of_it_alone(run, h5, place, tmp_path):
    new = write_folder(tmp_path / "new", slice(1850, 2000))
    data = retrain.append_bars(read_processed(h5), new, None, tmp_path / "new.h5")
    assert data.traded == read_processed(tmp_path / "new.h5").traded == "GBPUSD"
    assert data.test["GBPUSD"].index[-1] == make_bars(2000).index[-1]
    store = ModelStore(tmp_path / "models")
    model = run.folder / "agent_1_final.pt"
    with pytest.raises(ConfigError, match="EURUSD"):
        retrain.judge(model, read_processed(h5, instrument="EURUSD"), store)
    assert retrain.judge(model, data, store)
    assert store.current().judged_until == data.test["GBPUSD"].index[-1].isoformat()


def test_a_decision_is_on_the_agents_own_instrument_and_side(run, h5):
    decider = Decider.from_checkpoint(run.folder / "agent_1_final.pt", "bid")
    data = read_processed(h5)
    assert decider.instrument == "GBPUSD"
    with pytest.raises(DataError, match="EURUSD"):
        decider.follow(data.train["EURUSD"])
    decider.follow(data.train)
    asks = Decider.from_checkpoint(run.folder / "agent_1_final.pt", "ask")
    with pytest.raises(DataError, match="GBPUSD"):
        asks.follow(data.train)
