"""A trial is a trial across folders: the ledgers of the project, one for each data set."""

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

import build_kernel
from sac_kernel.cli.main import main
from sac_kernel.core import locks
from sac_kernel.core.errors import BusyError, DataError
from sac_kernel.core.homes import Home
from sac_kernel.kaggle import wheels
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.stats import ledgers, trials
from sac_kernel.stats.trials import Trial
from tests.conftest import make_data
from tests.support import told

ROOT = Path(__file__).resolve().parents[2]
A, B = "a" * 64, "b" * 64


def trial(checkpoint, data_hash=A, config="c"):
    days = np.arange(100, 150)
    daily = np.random.default_rng(checkpoint).normal(0, 1e-3, 50)
    return Trial(1, 0, "val", checkpoint, config, data_hash, days, daily)


def ids(path):
    return {t.trial_id for t in trials.read(path) or ()}


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "ledgers"
    monkeypatch.setenv(ledgers.VARIABLE, str(folder))
    return folder


def test_trials_of_all_folders_are_kept_by_data(home, tmp_path):
    one, two = tmp_path / "one" / "trials.csv", tmp_path / "two" / "trials.csv"
    trials.append(one, [trial(1), trial(2), trial(1, B)])
    trials.append(two, [trial(2), trial(3)])
    trials.append(home.parent / "trials.csv", [trial(9), trial(9, B)])  # of an earlier version
    ledgers.keep(home, [one, two, tmp_path / "absent.csv"])
    assert ids(ledgers.of_data(home, A)) == {trial(k).trial_id for k in (1, 2, 3, 9)}
    assert ids(ledgers.of_data(home, B)) == {trial(k, B).trial_id for k in (1, 9)}
    assert sorted(p.name for p in home.iterdir()) == ["a" * 32 + ".csv", "b" * 32 + ".csv"]
    ledgers.keep(home, [two])
    assert len(ids(ledgers.of_data(home, A))) == 4


def test_a_command_counts_the_others_and_adds_its_own_even_if_it_fails(home, tmp_path):
    for name, listed in {"one": [trial(1), trial(2)], "two": [trial(3), trial(3, B)]}.items():
        with ledgers.shared(tmp_path / name, A):
            trials.append(tmp_path / name / "trials.csv", listed)
    shutil.rmtree(tmp_path / "one")  # a deleted folder is not forgotten
    three = tmp_path / "three"

    def fails():
        with ledgers.shared(three, A):
            known = {trial(k).trial_id for k in (1, 2, 3)}
            assert ids(three / "trials.csv") == known  # B's is not among them
            trials.append(three / "jobs" / "x" / "trials.csv", [trial(4)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert len(ids(ledgers.of_data(home, A))) == 4
    with ledgers.shared(tmp_path / "four", B):
        assert ids(tmp_path / "four" / "trials.csv") == {trial(3, B).trial_id}


def test_what_a_killed_command_left_behind_is_kept_by_the_next_one(home, tmp_path):
    trials.append(tmp_path / "out" / "trials.csv", [trial(1)])
    with ledgers.shared(tmp_path / "out", A):
        assert len(ids(ledgers.of_data(home, A))) == 1


def test_nothing_is_shared_where_the_folder_is_empty_and_a_hash_is_no_path(tmp_path, monkeypatch):
    monkeypatch.setenv(ledgers.VARIABLE, "")
    assert ledgers.of_project() is None
    with ledgers.shared(tmp_path / "out", A):
        pass
    assert not list(tmp_path.rglob("*.csv"))
    monkeypatch.delenv(ledgers.VARIABLE)
    monkeypatch.chdir(ROOT / "tests")
    assert ledgers.of_project() == ROOT / "data" / "ledgers"
    monkeypatch.chdir(tmp_path)
    assert ledgers.of_project() == tmp_path / "data" / "ledgers"
    for odd in ("../../x", "A" * 64, "", "a/b"):
        assert ledgers.of_data(tmp_path, odd).parent == tmp_path
        assert len(ledgers.of_data(tmp_path, odd).name) == 36


def test_one_command_at_a_time_writes_and_a_damaged_ledger_is_named(home, tmp_path, monkeypatch):
    monkeypatch.setattr(ledgers, "_WAIT_S", 0.0)
    trials.append(tmp_path / "one" / "trials.csv", [trial(1)])
    held, over = threading.Event(), threading.Event()

    def other():
        with locks.hold(home):
            held.set()
            over.wait()

    thread = threading.Thread(target=other)
    thread.start()
    held.wait()
    try:
        with pytest.raises(BusyError, match="ledgers"):
            ledgers.keep(home, [tmp_path / "one" / "trials.csv"])
    finally:
        over.set()
        thread.join()
    ledgers.keep(home, [tmp_path / "one" / "trials.csv"])
    (tmp_path / "one" / "trials.csv").write_text("x")
    with pytest.raises(DataError, match="one"):
        ledgers.keep(home, [tmp_path / "one" / "trials.csv"])
    assert len(ids(ledgers.of_data(home, A))) == 1


def test_trials_of_other_runs_are_counted_apart():
    listed = [trial(1), trial(2), trial(3, config="d"), trial(4, config="e"), trial(5, config="e")]
    counted = trials.count(listed, own={"c"})
    assert (counted.listed, counted.elsewhere) == (5, 3)
    assert told(counted, 5, 3)
    assert trials.count(listed).elsewhere == 0
    assert counted.effective == trials.count(listed).effective


# -- the commands

FEW = ("--set", "num_episodes=2", "--set", "eval_frequency=1", "--set", "checkpoint_frequency=2")


def verdict_of(folder):
    return json.loads((folder / "summary.json").read_text())["verdict"]


@pytest.mark.usefixtures("blank_figures")
def test_training_into_another_folder_is_counted_and_other_data_is_not(home, tmp_path):
    for name, seed in (("bars", 0), ("others", 1)):
        write_processed(make_data(5000, seed), tmp_path / f"{name}.h5")

    def train(name, seeds, data="bars"):
        words = [
            "train",
            "--data",
            tmp_path / f"{data}.h5",
            "--output",
            tmp_path / name,
            "--seeds",
            seeds,
            *FEW,
        ]
        assert main([str(word) for word in words]) == 0
        return verdict_of(tmp_path / name)["trials"]

    first = train("first", "0")
    assert (first["listed"], first["elsewhere"]) == (2, 0)  # two validations
    second = train("second", "1,2")
    assert (second["listed"], second["elsewhere"]) == (6, 2)
    shutil.rmtree(tmp_path / "first")
    assert train("other", "0", "others")["listed"] == 2
    third = train("third", "0")  # the trials of the first folder again: the same ones
    assert (third["listed"], third["elsewhere"]) == (6, 4)
    page = (tmp_path / "third" / "report.html").read_text()
    assert "4 of them" in page

    beside = tmp_path / "third" / "trials.csv"
    before, data_hash = beside.read_bytes(), trials.read(beside)[0].data_hash
    trials.append(tmp_path / "loose" / "trials.csv", [trial(7, data_hash)])
    ledgers.keep(home, [tmp_path / "loose" / "trials.csv"])
    with ledgers.joined(beside, data_hash) as path:
        assert len(ids(path)) == 7
    words = ["evaluate", "--model", tmp_path / "third" / "agent_1_final.pt", "--data", tmp_path / "bars.h5"]
    assert main([str(word) for word in words]) == 0
    assert beside.read_bytes() == before
    with ledgers.joined(tmp_path / "nowhere" / "trials.csv", A) as path:
        assert trials.read(path) is None  # a model without a ledger stays unknown


def test_the_build_sends_the_trials_of_its_data_and_no_others(tmp_path, monkeypatch):
    data = make_data(1600)
    for name in ("kernel-metadata.json", "dataset-metadata.json"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.setattr(wheels, "fetch_wheels", lambda _: ([], []))
    home = Home(tmp_path, "mine")
    trials.append(
        tmp_path / "x" / "trials.csv", [trial(1, data.content_hash), trial(2, data.content_hash), trial(3)]
    )
    ledgers.keep(home.ledgers, [tmp_path / "x" / "trials.csv"])
    folders = build_kernel.stage(data, home)
    assert {t.checkpoint for t in trials.read(folders["code"] / "trials.csv")} == {1, 2}
