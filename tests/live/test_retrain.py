"""Promote, reject and roll back on planted bars; new bars onto old ones; weights as a start."""

import hashlib
import json
import logging

import numpy as np
import pandas as pd
import pytest
import torch

from sac_kernel.agent.sac import SACAgent
from sac_kernel.cli.main import cut_at_dashes, main
from sac_kernel.core import files, paths
from sac_kernel.core.errors import CheckpointError, DataError, InputNotFoundError
from sac_kernel.live import promotion, retrain
from sac_kernel.live.model_store import CURRENT, HISTORY, ModelStore, resolve
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.prices.bars import Bars
from sac_kernel.prices.ingest.split import split_table
from sac_kernel.prices.ingest.tables import BarTable
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.prices.pipeline import DataConfig
from sac_kernel.prices.processed_file import read_processed
from tests.conftest import make_bars, make_data
from tests.experiment.test_trainer import make_trainer
from tests.support import says, told
from tests.use_models import lively_agent


def constant_agent(path, data, target):
    """A saved agent that asks for the same target whatever it sees."""
    agent, _ = lively_agent(path, data, 1, TradingEnvConfig())
    with torch.no_grad():
        agent.nets.average.head.weight.zero_()
        agent.nets.average.head.bias[0] = float(np.arctanh(target))
    agent.save(path)
    return path


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Bars whose last part, which no model has seen, rises by 0.3 % a day; models long, flat and short."""
    folder = tmp_path_factory.mktemp("planted")
    bars = make_bars(9000)
    rise = np.exp(np.maximum(np.arange(9000) - 7200, 0) * 0.003 / 24)
    risen = Bars(bars.mul(rise, axis=0), side="bid", seconds=3600, instrument="EURUSD")
    data = split_table(BarTable(risen, "planted", "UTC"), DataConfig())
    write_processed(data, folder / "data.h5")
    models = {
        name: constant_agent(folder / f"{name}.pt", data, target)
        for name, target in (("long", 0.9), ("flat", 0.0), ("short", -0.9))
    }
    return data, models, bars.index[7250].isoformat(), folder / "data.h5"


@pytest.fixture
def store(planted, tmp_path):
    """A store with the flat model in use, judged before the rise."""
    _, models, before, _ = planted
    store = ModelStore(tmp_path / "models")
    store.promote(models["flat"], before, {"why": "the first model"})
    return store


def test_the_better_model_is_promoted_and_the_next_look_needs_new_days(planted, store):
    data, models, *_ = planted
    assert retrain.judge(models["long"], data, store)
    current = store.current()
    assert current.path.read_bytes() == models["long"].read_bytes()
    assert current.judged_until == data.test["EURUSD"].index[-1].isoformat()
    written = json.loads((store.folder / CURRENT).read_text(encoding="utf-8"))
    assert written["sha256"] == hashlib.sha256(models["long"].read_bytes()).hexdigest()
    assert told(written["why"], "95 %")
    figures = written["figures"]
    # 1,750 bars of 24 a day; 0.9 x 0.3 % x 260 days: a log growth of .7 a year, twice the money; in use 0.
    assert 70 <= figures["days"] <= 76
    assert figures["in_use_frac"] == 0.0
    assert 0.35 < figures["candidate_frac"] < 2.0
    assert figures["evidence"] > 1.0
    assert resolve(store.folder / CURRENT) == current.path
    assert not retrain.judge(models["flat"], data, store)
    assert store.current() == current
    last = (store.folder / HISTORY).read_text(encoding="utf-8").splitlines()[-1]
    assert told(json.loads(last)["why"], "0 days", 60)


def test_the_worse_model_is_rejected_and_remembered(planted, store):
    data, models, *_ = planted
    before = store.current()
    assert not retrain.judge(models["short"], data, store)
    assert store.current() == before
    events = [json.loads(line) for line in (store.folder / HISTORY).read_text(encoding="utf-8").splitlines()]
    assert [event["event"] for event in events] == ["promoted", "rejected"]
    assert events[1]["why"]
    assert events[1]["figures"]["high_frac"] < 0


def test_rollback_returns_to_the_model_before_and_stops_at_the_first(planted, store):
    data, models, *_ = planted
    first = store.current()
    assert retrain.judge(models["long"], data, store)
    command = ["--models", str(store.folder), "--rollback", "lost 3 %"]
    assert main(["retrain", *command]) == 0
    assert store.current() == first
    assert resolve(store.folder / CURRENT) == first.path
    assert main(["retrain", *command]) == 2
    assert store.current() == first
    # What was rolled back may be tried again.
    assert retrain.judge(models["long"], data, store)


def test_the_first_model_of_all_is_taken_and_a_damaged_one_never(planted, tmp_path):
    _, models, _, h5 = planted
    command = ["--models", str(tmp_path), "--data", str(h5), "--judge"]
    with pytest.raises(InputNotFoundError, match=says("promote")):
        resolve(tmp_path / CURRENT)
    assert main(["retrain", *command, str(models["flat"])]) == 0
    assert main(["retrain", *command, str(models["flat"])]) == 2  # the one in use
    assert main(["retrain", *command, str(models["short"])]) == 3
    path = resolve(tmp_path / CURRENT)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=says("hash")):
        resolve(tmp_path / CURRENT)


# -- the rule


def days(n, seed, mean=0.0):
    return np.random.default_rng(seed).normal(mean, 0.004, n)


def test_the_rule_case_by_case():
    base = days(130, 0)
    better, likely, same = (
        base + days(130, 1, 0.002),
        base + days(130, 2, 0.0004),
        base + days(130, 3, -0.001),
    )
    assert promotion.decide(better, base, drifted=False)[0]
    assert not promotion.decide(likely, base, drifted=False)[0]
    assert promotion.decide(likely, base, drifted=True)[0]
    assert not promotion.decide(same, base, drifted=True)[0]
    assert not promotion.decide(base, better, drifted=True)[0]
    promoted, why = promotion.decide(better[:59], base[:59], drifted=True)
    assert not promoted
    assert told(why, "59 days", 60)


# -- new bars


def write_csv(bars, path):
    bars[["open", "high", "low", "close"]].to_csv(path, date_format="%Y-%m-%dT%H:%M:%S+00:00")


@pytest.fixture(scope="module")
def old_and_all():
    bars = make_bars(2600)
    return split_table(BarTable(bars.iloc[:2400], "old.csv", "UTC"), DataConfig()), bars


def test_new_bars_follow_the_old_ones_and_everything_is_split_anew(old_and_all, tmp_path):
    data, bars = old_and_all
    write_csv(bars.iloc[2350:], tmp_path / "new.csv")
    found = retrain.append_bars(data, tmp_path / "new.csv", None, tmp_path / "data.h5")
    joined = pd.concat([split["EURUSD"] for split in data.splits.values()] + [bars.iloc[2400:]])
    again = pd.concat([split["EURUSD"] for split in found.splits.values()])
    assert found.test["EURUSD"].index[-1] == bars.index[-1]
    assert found.train["EURUSD"].equals(joined.iloc[: round(0.6 * len(joined))])
    assert again.equals(bars.loc[again.index])
    assert found.source == "old.csv + new.csv"
    # The whole export fills the holes that the embargoes left.
    write_csv(bars, tmp_path / "all.csv")
    whole = retrain.append_bars(data, tmp_path / "all.csv", None, tmp_path / "all.h5")
    assert whole.train["EURUSD"].equals(bars.iloc[: round(0.6 * 2600)])
    assert read_processed(tmp_path / "all.h5").content_hash == whole.content_hash


def test_bars_that_contradict_or_leave_a_gap_or_bring_nothing_are_refused(old_and_all, tmp_path):
    data, bars = old_and_all
    target, path = tmp_path / "data.h5", tmp_path / "new.csv"
    revised = bars.iloc[2350:].copy()
    revised.iloc[10] *= 1.001
    cases = [
        (revised, ("EURUSD", 1)),
        (bars.iloc[2590:], ("new.csv", "EURUSD", bars.index[2590])),
        (bars.iloc[:2400], ("new.csv", "EURUSD", bars.index[2399])),
    ]
    for given, found in cases:
        write_csv(given, path)
        with pytest.raises(DataError, match=says(*found)):
            retrain.append_bars(data, path, None, target)
        assert not target.exists()
    (tmp_path / "folder").mkdir()
    write_csv(bars, tmp_path / "folder" / "GBPUSD.csv")
    with pytest.raises(DataError, match=says("EURUSD")):
        retrain.append_bars(data, tmp_path / "folder", None, target)


# -- a warm start


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    write_processed(make_data(1600), folder / "data.h5")
    trainer = make_trainer(folder / "data.h5", folder / "out", num_episodes=2)
    trainer.train()
    return folder


def test_a_warm_start_begins_with_the_weights_of_the_named_agent(trained, tmp_path, monkeypatch, caplog):
    model = trained / "out" / "agent_1_final.pt"
    digest = files.file_sha256(model)
    (tmp_path / paths.WARM_START).write_bytes(model.read_bytes())
    monkeypatch.chdir(tmp_path)
    trainer = make_trainer(trained / "data.h5", tmp_path / "out", num_episodes=1, warm_start=digest)
    with caplog.at_level(logging.INFO):
        trainer.prepare()
        trainer._start_or_resume()
    saved, begun = SACAgent.from_checkpoint(model, "cpu").nets.state_dict(), trainer.agent.nets.state_dict()
    assert all(torch.equal(saved[name], begun[name]) for name in saved)
    assert trainer.agent.updates == 0
    assert trainer.agent.context["data_hash"] == read_processed(trained / "data.h5").content_hash
    trainer.train()
    assert trainer.learning_identity["warm_start"] == digest
    # A run that goes on does not start again: the file may be gone.
    (tmp_path / paths.WARM_START).unlink()
    longer = make_trainer(trained / "data.h5", tmp_path / "out", num_episodes=2, warm_start=digest)
    longer.train()
    assert longer.learning.steps == 120


def test_a_warm_start_from_another_file_or_none_is_refused(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = make_trainer(trained / "data.h5", tmp_path / "out", warm_start="0" * 64)
    with pytest.raises(InputNotFoundError, match=says("warm_start.agent")):
        trainer.train()
    (tmp_path / paths.WARM_START).write_bytes(b"another")
    with pytest.raises(CheckpointError, match=says("agent")):
        trainer.train()


def test_without_a_warm_start_the_identity_is_what_it_always_was(trained, tmp_path):
    trainer = make_trainer(trained / "data.h5", tmp_path / "out")
    trainer.prepare()
    assert "warm_start" not in trainer.learning_identity


def test_what_follows_the_dashes_is_for_the_build():
    line = ["bars/", "--rehearse", "--", "--set", "num_episodes=2", "--", "x"]
    assert cut_at_dashes(line) == (line[:2], ["--set", "num_episodes=2", "--", "x"])
    assert cut_at_dashes(line[:2]) == (line[:2], [])


def test_nothing_to_do_is_an_error(tmp_path):
    assert main(["retrain", "--models", str(tmp_path)]) == 2
