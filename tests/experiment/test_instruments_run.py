"""Several instruments in one run: a planted signal beside a null, the joint account, costs, files, cuts, failures."""

import dataclasses
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sac_kernel.core import files
from sac_kernel.core.clock import Deadline
from sac_kernel.core.errors import ConfigError, DataError
from sac_kernel.experiment import checkpoint, instruments_run, job_outputs, run_folds
from sac_kernel.experiment.instruments_run import run_instruments
from sac_kernel.experiment.job_queue import job_trainer, run_jobs
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.kaggle.state_export import export_states
from sac_kernel.prices.ingest.split import split_table
from sac_kernel.prices.ingest.tables import BarTable
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.prices.instruments import EURUSD, spec_of
from sac_kernel.prices.pipeline import DataConfig
from sac_kernel.prices.processed_file import read_processed
from sac_kernel.stats import trials, verdict
from tests.conftest import make_bars
from tests.experiment.test_run_folds import FIELDS
from tests.small_runs import TINY
from tests.support import says, told

pytestmark = pytest.mark.usefixtures("blank_figures")

NAMES = ("EURUSD", "GBPUSD")
COSTS = "EURUSD:spread_bps=1,commission_bps=.5,slippage_bps=.25;GBPUSD:spread_bps=2,commission_bps=.4,slippage_bps=.1"
LEAD = """
def features(bars):
    lead = bars["LEAD"]["close"].reindex(bars[bars.traded].index, method="ffill")
    return (lead - 100.0).to_frame("lead")
"""
HOURS = 9000


def planted(signal):
    """EURUSD hours whose next return is .1 sigma x signal + noise of sigma = 15 bps."""
    returns = 1.5e-3 * np.append(0.0, 0.1 * signal[:-1] + np.random.default_rng(5).normal(size=HOURS - 1))
    close = 1.1 * np.exp(np.cumsum(returns))
    opened = np.append(1.1, close[:-1])
    bars = make_bars(HOURS)
    for name, values in {
        "open": opened, "close": close, "high": np.maximum(opened, close), "low": np.minimum(opened, close),
    }.items():  # fmt: skip
        bars[name] = values
    return bars


@pytest.fixture(scope="module")
def h5(tmp_path_factory):
    """EURUSD with a planted signal, LEAD that shows it, GBPUSD a random walk without three days of the test split."""
    rng, signal = np.random.default_rng(3), np.zeros(HOURS)
    for t in range(1, HOURS):
        signal[t] = 0.98 * signal[t - 1] + np.sqrt(1 - 0.98**2) * rng.normal()
    lead = make_bars(HOURS)
    for name in ("open", "high", "low", "close"):
        lead[name] = 100.0 + signal
    tables = {"EURUSD": planted(signal), "GBPUSD": make_bars(HOURS, 7), "LEAD": lead}
    parts = {
        name: split_table(BarTable(bars, "synthetic", "UTC"), DataConfig()) for name, bars in tables.items()
    }
    splits = {
        split: {name: next(iter(getattr(part, split).values())) for name, part in parts.items()}
        for split in ("train", "val", "test")
    }
    pounds = splits["test"]["GBPUSD"]
    local = pounds.index.tz_convert("America/New_York").tz_localize(None) + pd.Timedelta(hours=7)
    days = np.unique(local.normalize())[20:23]
    splits["test"]["GBPUSD"] = pounds[~local.normalize().isin(days)]
    specs = tuple(spec_of(name).with_costs(COSTS) for name in NAMES)
    path = tmp_path_factory.mktemp("two") / "processed_data.h5"
    data = dataclasses.replace(
        parts["EURUSD"], **splits, specs=(*specs, dataclasses.replace(EURUSD, symbol="LEAD"))
    )
    write_processed(data.with_spec(specs[0]), path)
    return path


def config_of(h5, folder, **changes):
    return RunConfig.from_flat(
        {"h5_path": str(h5), "output_dir": str(folder), "instruments": NAMES, "device": "cpu", **changes}
    )


@pytest.fixture(scope="module")
def run(h5, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "lead.py").write_text(LEAD)
    config = config_of(
        h5, folder / "out", features_file=str(folder / "lead.py"), only_own_features=True, num_episodes=40
    )
    return config.top_folder, run_instruments(config)


@pytest.mark.learns
def test_the_planted_signal_is_an_edge_and_the_null_is_none_with_holms_p_by_hand(run):
    top, _ = run
    verdicts = files.read_json(top / "summary.json")["verdicts"]
    assert [verdicts[name]["word"] for name in NAMES] == ["edge (null not run)", "none"]
    # Two hypotheses: the smaller p counts twice; the account that never traded has no p, which counts as 1.
    p = verdicts["EURUSD"]["p_value"]
    assert 0.0 <= p < 0.025
    assert verdicts["EURUSD"]["p_holm"] == pytest.approx(2.0 * p)
    assert verdicts["GBPUSD"]["p_holm"] == 1.0


def test_each_page_and_the_table_show_the_corrected_verdict(run):
    top, _ = run
    (table,) = files.read_json(top / "summary.json")["tables"]
    verdicts = files.read_json(top / "summary.json")["verdicts"]
    assert [row[0] for row in table["rows"]] == list(NAMES)
    for row, name in zip(table["rows"], NAMES, strict=True):
        folder = top / "instruments" / name
        own = files.read_json(folder / "summary.json")
        assert own["verdict"] == verdicts[name]
        base = own["table"][0]
        assert row[1] == own["verdict"]["word"]
        assert (row[2], row[4]) == (100.0 * base["net_return_frac"], base["sharpe_ann"])
        assert (row[7], row[8]) == (base["trades"], f"instruments/{name}/report.html")
        page = (folder / "report.html").read_text("utf-8")
        assert "holds among 2 instruments" in page
        assert f'<a href="{row[8]}">' in (top / "report.html").read_text("utf-8")


def test_the_joint_account_earns_the_mean_of_the_instruments_daily_returns_by_pandas(run):
    top, done = run
    own = {
        name: pd.read_csv(top / "instruments" / name / "daily_returns.csv", index_col="date")[
            "net_return_frac"
        ]
        for name in NAMES
    }
    assert own["EURUSD"].size - own["GBPUSD"].size == 3
    mean = pd.DataFrame(own).fillna(0.0).mean(axis=1)
    joint = pd.read_csv(top / "daily_returns.csv", index_col="date")
    assert joint.index.tolist() == mean.index.tolist()
    assert joint["net_return_frac"].to_numpy() == pytest.approx(mean.to_numpy(), abs=1e-13)
    for name in NAMES:
        assert joint[name].dropna().to_numpy() == pytest.approx(own[name].to_numpy(), abs=1e-15)
    account = done.judgements[0].results["base"][0]
    assert done.summary["table"][0]["net_return_frac"] == pytest.approx(np.prod(1.0 + mean) - 1.0)
    assert account.daily_returns == pytest.approx(mean.to_numpy(), abs=1e-13)


def test_the_joint_verdict_is_the_rules_own_on_those_returns(run):
    top, done = run
    decided = done.summary["verdict"]
    daily = pd.read_csv(top / "daily_returns.csv")["net_return_frac"].to_numpy()
    count = trials.count(trials.read(top / "trials.csv"))
    assert count.listed == 2 * 4  # two trainings of 40 episodes, validated every ten
    expected = verdict.decide(
        daily, decided["random_percentile"], count, done.summary["table"][0]["turnover_per_day"]
    )
    for key in ("word", "days", "dsr", "low_frac", "annual_frac"):
        assert decided[key] == pytest.approx(expected[key]), key
    assert "p_holm" not in decided  # it is the one main result


def test_each_instrument_pays_its_own_costs_and_the_account_half_of_each(run):
    top, done = run
    summaries = [files.read_json(top / "instruments" / name / "summary.json") for name in NAMES]
    # Half the spread, commission, slippage: .5 + .5 + .25 and 1 + .4 + .1 bps one way.
    assert told(summaries[0]["data"]["costs"][0], "EURUSD", "base 1.25 bps")
    assert told(summaries[1]["data"]["costs"][0], "GBPUSD", "base 1.5 bps")
    assert done.summary["data"]["costs"] == [*summaries[0]["data"]["costs"], *summaries[1]["data"]["costs"]]
    joint, euro, pound = (
        next(r for r in j.results["base"] if r.name == "buy and hold") for j in done.judgements
    )
    assert euro.costs["commission"] / euro.costs["slippage"] == pytest.approx(0.5 / 0.25)
    assert pound.costs["commission"] / pound.costs["slippage"] == pytest.approx(0.4 / 0.1)
    # On the first day both pay for one purchase of all their equity, the account for half of each.
    first = [float(r.cost_paid[r.day == r.day[0]][-1]) for r in (joint, euro, pound)]
    assert first[0] == pytest.approx((first[1] + first[2]) / 2.0)
    assert first[1] != pytest.approx(first[2])


def test_the_files_are_listed_and_few_enough(run):
    top, done = run
    manifest = job_outputs.read_manifest(top)
    for name in NAMES:
        assert f"instruments/{name}/manifest.json" in manifest["files"]
        assert job_outputs.read_manifest(top / "instruments" / name)["files"]
    there = {p.relative_to(top).as_posix() for p in top.rglob("*") if p.is_file()}
    assert there == {*manifest["files"], "manifest.json"}
    # 30 and 14 for each instrument, 10 at the top, two for each checkpoint
    assert len(there) <= 2 * (30 + 14) + 10 + 2 * 2 * (40 // 5)
    assert (manifest["status"], manifest["episodes"], done.summary["status"]) == ("complete", 40, "complete")
    assert manifest["updates"] == sum(job["updates"] for job in done.summary["jobs"])
    assert [job["job"] for job in done.summary["jobs"]] == [f"{name}_agent_1_seed_0" for name in NAMES]


# -- cuts, failures, earlier runs


def two_walks(path, hours):
    """Write two instruments that are random walks of hourly bars."""
    tables = {name: make_bars(hours, seed) for seed, name in enumerate(NAMES)}
    parts = {
        name: split_table(BarTable(bars, "synthetic", "UTC"), DataConfig()) for name, bars in tables.items()
    }
    splits = {
        split: {name: next(iter(getattr(part, split).values())) for name, part in parts.items()}
        for split in ("train", "val", "test")
    }
    write_processed(dataclasses.replace(parts["EURUSD"], **splits), path)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return two_walks(tmp_path_factory.mktemp("small") / "processed_data.h5", 1600)


def tiny(h5, folder, **changes):
    return config_of(h5, folder, **{**TINY, **changes})


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    config = tiny(small, tmp_path_factory.mktemp("whole"))
    return config, run_instruments(config)


def finals(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.glob("instruments/*/agent_1_final.pt")
    }


def test_a_cut_run_goes_on_as_an_uncut_one_here_and_from_a_state_dataset(small, whole, tmp_path, monkeypatch):
    config = tiny(small, tmp_path / "first")
    cut = run_instruments(config, Deadline(0.0))
    assert (cut.summary["status"], job_outputs.read_manifest(config.top_folder)["episodes"]) == ("cut", 0)
    run_jobs(config.runs[0])  # EURUSD alone is over
    folders = {name: folder / "state" for name, folder in config.job_folders().items()}
    index = export_states(folders, tmp_path / "input" / "datasets" / "me" / "x-state")
    facts = [index["jobs"][f"{name}_agent_1_seed_0"]["facts"] for name in NAMES]
    assert [fact["finished"] for fact in facts] == [True, False]

    again = run_instruments(config)
    assert not list(config.top_folder.rglob("previous"))
    assert again.summary["status"] == "complete"
    assert finals(config.top_folder) == finals(whole[0].top_folder)
    assert again.summary["table"] == whole[1].summary["table"]

    monkeypatch.setenv("SAC_INPUT_ROOT", str(tmp_path / "input"))
    path = tmp_path / "input" / "datasets" / "me" / "x-state" / checkpoint.EXPORT_INDEX
    second = tiny(
        small,
        tmp_path / "second",
        expect_files=[f"{checkpoint.EXPORT_INDEX} {files.file_sha256(path)}"],
        expect_env_steps=[fact["env_steps"] for fact in facts],
    )
    assert run_instruments(second).summary["status"] == "complete"
    assert finals(second.top_folder) == finals(whole[0].top_folder)


def test_a_finished_run_starts_anew_and_other_instruments_go_to_previous(small, whole, tmp_path):
    shutil.copytree(whole[0].top_folder, tmp_path / "run")
    config = tiny(small, tmp_path / "run")
    run_instruments(config, Deadline(0.0))
    (previous,) = (tmp_path / "run" / "previous").iterdir()
    assert finals(previous) == finals(whole[0].top_folder)
    assert not list((tmp_path / "run" / "instruments").rglob("previous"))
    alone = dataclasses.replace(config, instruments=("GBPUSD",))
    done = run_instruments(alone, Deadline(0.0))
    assert done.summary["judged"]["instrument"] == "GBPUSD"
    assert not (tmp_path / "run" / "instruments").exists()
    assert len(list((tmp_path / "run" / "previous").iterdir())) == 2


def test_an_instrument_that_fails_is_named_and_costs_the_other_nothing(small, whole, tmp_path):
    """EURUSD finds a state that was learnt from other settings."""
    other = tiny(small, tmp_path, sac_batch_size=64, num_episodes=1).runs[0]
    job_trainer(other, other.jobs[0]).train()
    done = run_instruments(tiny(small, tmp_path))
    assert list(done.failures) == ["EURUSD"]
    assert told(done.failures["EURUSD"], "batch_size", 64, 32)
    assert [row[0] for row in done.summary["tables"][0]["rows"]] == ["GBPUSD", "EURUSD"]
    assert any("EURUSD" in note for note in done.summary["verdict"]["notes"])
    assert job_outputs.read_manifest(tmp_path)["status"] == "cut"
    own = done.judgements[1].results["base"][0].daily_returns
    assert done.judgements[0].results["base"][0].daily_returns == pytest.approx(own, abs=1e-13)
    path = "instruments/GBPUSD/agent_1_final.pt"
    assert (tmp_path / path).read_bytes() == (whole[0].top_folder / path).read_bytes()


def test_if_every_instrument_fails_the_run_fails(small, tmp_path):
    with pytest.raises(DataError, match=says("hash ffffffffffff")):
        run_instruments(tiny(small, tmp_path, expect_data_hash="f" * 64))
    assert not (tmp_path / "report.html").exists()


def test_the_time_left_is_shared_equally_and_what_the_others_leave_goes_to_those_that_were_cut(
    small, tmp_path, monkeypatch
):
    used, given = [100.0], []
    needs = {"EURUSD": 400.0, "GBPUSD": 50.0, "USDJPY": 100.0}

    class Clock(Deadline):
        def elapsed_s(self):
            return used[0]

    def work(run, deadline, _devices, _tested):
        (name,) = run.instruments
        seconds = min(deadline.left_s(), needs[name])
        given.append((name, deadline.left_s()))
        needs[name] -= seconds
        used[0] += seconds
        return SimpleNamespace(summary={"status": "cut" if needs[name] else "complete"}, failures={})

    config = tiny(small, tmp_path, instruments=tuple(needs))
    monkeypatch.setattr(instruments_run, "run_jobs", work)
    done, failures = instruments_run._run_each(config.runs, Clock(700.0), None, None)
    # 600 s: a third, half of the 400 that are left, the rest; 250 remain for the one that was cut.
    assert given == [("EURUSD", 200.0), ("GBPUSD", 200.0), ("USDJPY", 350.0), ("EURUSD", 250.0)]
    assert {name: run.summary["status"] for name, run in done.items()} == dict.fromkeys(needs, "complete")
    assert not failures


def test_several_agents_and_seeds_of_each_instrument_have_their_folders(small, tmp_path):
    config = tiny(small, tmp_path, agent_ids=(1, 2))
    done = run_instruments(config, Deadline(0.0))
    assert len(done.jobs) == 4
    assert list(config.job_folders()) == [f"{name}_agent_{i}_seed_0" for name in NAMES for i in (1, 2)]
    assert all((folder / "agent_1_final.pt").is_file() for folder in list(config.job_folders().values())[::2])
    # Holm over two agents, then over two instruments
    own = files.read_json(tmp_path / "instruments" / "GBPUSD" / "summary.json")["verdict"]
    assert [mark["key"] for mark in own["marks"]].count("holm") == 2


# -- parameters


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"instruments": ("EURUSD", "eurusd")}, ("instruments", "eurusd")),
        ({"instruments": ("EUR/USD",)}, ("instruments", "EUR/USD")),
        ({"instruments": NAMES, "expect_env_steps": (1,)}, ("expect_env_steps", 2)),
        ({"instruments": tuple("ABCDEFGHIJ")}, (10, 300)),
        ({"instruments": NAMES, "num_episodes": 500}, ("checkpoint_frequency", 300)),
    ],
)
def test_what_a_run_of_several_instruments_refuses(changes, named):
    with pytest.raises(ConfigError, match=says(*named)):
        RunConfig(**changes)


def test_one_named_instrument_is_a_run_of_its_own(small, tmp_path):
    config = tiny(small, tmp_path, instruments=("GBPUSD",))
    assert config.runs == [config]
    assert config.job_folders() == {"GBPUSD_agent_1_seed_0": tmp_path}
    trainer = job_trainer(config, config.jobs[0])
    trainer.load_data()
    assert trainer.instrument == "GBPUSD"
    assert trainer.data.content_hash == read_processed(small, instrument="GBPUSD").content_hash
    with pytest.raises(DataError, match=says("USDJPY", "EURUSD, GBPUSD")):
        job_trainer(tiny(small, tmp_path, instruments=("USDJPY",)), config.jobs[0]).load_data()


# -- with a walk-forward


def test_the_joined_folds_of_each_instrument_stand_for_it_in_the_account(tmp_path, monkeypatch):
    h5 = two_walks(tmp_path / "processed_data.h5", 3600)
    config = config_of(h5, tmp_path / "out", **{**FIELDS, "tiers": ("base",), "folds": 2})
    done = run_instruments(config)
    folders = [tmp_path / "out" / "instruments" / name for name in NAMES]
    own = [
        pd.read_csv(folder / "walk_forward.csv", index_col="date")["net_return_frac"] for folder in folders
    ]
    mean = pd.concat(own, axis=1).fillna(0.0).mean(axis=1)
    joint = pd.read_csv(tmp_path / "out" / "daily_returns.csv", index_col="date")["net_return_frac"]
    assert joint.index.tolist() == mean.index.tolist()
    assert joint.to_numpy() == pytest.approx(mean.to_numpy(), abs=1e-13)
    assert done.summary["status"] == "complete"
    assert done.summary["verdict"]["days"] == mean.size
    for name, folder, daily in zip(NAMES, folders, own, strict=True):
        summary = files.read_json(folder / "summary.json")
        assert summary["verdict"] == files.read_json(tmp_path / "out" / "summary.json")["verdicts"][name]
        assert summary["verdict"]["days"] == daily.size
        assert summary["data"]["content_hash"] == read_processed(h5, instrument=name).content_hash
        assert (folder / "state" / checkpoint.FOLDS_FILE).is_file()

    # The finished folds of each instrument travel under its name, and none is trained again.
    target = tmp_path / "input" / "datasets" / "me" / "x-state"
    states = {name: folder / "state" for name, folder in config.job_folders().items()}
    export_states(states, target)
    mounted = [target / checkpoint.EXPORT_INDEX]
    for name, folder in zip(NAMES, folders, strict=True):
        mounted.append(target / f"{name}_{checkpoint.FOLDS_FILE}")
        shutil.copyfile(folder / "state" / checkpoint.FOLDS_FILE, mounted[-1])
    monkeypatch.setenv("SAC_INPUT_ROOT", str(tmp_path / "input"))
    known = [f"{path.name} {files.file_sha256(path)}" for path in mounted]
    second = dataclasses.replace(
        config, output_dir=str(tmp_path / "second"), expect_files=tuple(known), num_episodes=4
    )
    for run, folder in zip(second.runs, folders, strict=True):
        run_folds._unpack(run, run.top_folder, run.top_folder / "state" / "folds")
        with zipfile.ZipFile(folder / "state" / checkpoint.FOLDS_FILE) as packed:
            there = {
                p.relative_to(run.top_folder / "state" / "folds").as_posix()
                for p in (run.top_folder / "state" / "folds").rglob("*")
                if p.is_file()
            }
            assert there == set(packed.namelist()) != set()
