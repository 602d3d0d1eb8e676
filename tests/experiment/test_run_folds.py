"""A walk-forward inside a run: the joined verdict by hand, the last fold's model, cut and resumed, the null in it."""

import io
import json
import zipfile

import numpy as np
import pandas as pd
import pytest

from benchmarks.planted_market import planted_data
from sac_kernel.core import files, paths
from sac_kernel.core.clock import Deadline
from sac_kernel.core.errors import ConfigError, DataError, InputNotFoundError
from sac_kernel.experiment import checkpoint, fold_jobs, job_pool, run_folds
from sac_kernel.experiment.job_queue import run_jobs
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.prices.processed_file import read_processed
from sac_kernel.stats import trials
from sac_kernel.stats.trials import Trial
from tests.conftest import make_data
from tests.support import says

pytestmark = pytest.mark.usefixtures("blank_figures")

FIELDS = {
    "num_episodes": 4,
    "eval_frequency": 4,
    "checkpoint_frequency": 4,
    "device": "cpu",
    "folds": 3,
    "seeds": (0, 1),
    "tiers": ("base", "retail"),
    "env_cost_tier": "base",
    "sac_hidden_dims": (8,),
    "sac_batch_size": 32,
    "env_reward": "log_return",
    "exact_weight_decay": 0.0,
}


def config_of(h5, folder, **changes):
    return RunConfig.from_flat({**FIELDS, "h5_path": str(h5), "output_dir": str(folder), **changes})


@pytest.fixture(scope="module")
def h5(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "processed_data.h5"
    write_processed(make_data(3600), path)
    return path


@pytest.fixture(scope="module")
def whole(h5, tmp_path_factory):
    config = config_of(h5, tmp_path_factory.mktemp("whole"))
    return config, run_jobs(config)


def packed_results(top):
    with zipfile.ZipFile(io.BytesIO((top / "state" / checkpoint.FOLDS_FILE).read_bytes())) as packed:
        for name in packed.namelist():
            if name.endswith(fold_jobs.FILE):
                files.write_bytes(top / "unpacked" / name, packed.read(name))
    return [fold_jobs.load(path) for path in sorted((top / "unpacked").rglob(fold_jobs.FILE))]


def test_the_verdict_is_on_the_mean_of_the_seeds_over_the_test_days_of_all_folds(whole):
    config, run = whole
    settings = run_folds.settings_of(config, config.data_file)
    results = packed_results(config.top_folder)
    own = run.judgements[0].results["base"][0]
    assert len(results) == len(settings.jobs) - 1
    by_seed = []
    for seed in (0, 1):
        mine = [r for r in results if (r.job.agent_id, r.job.seed, r.job.tier) == (1, seed, "base")]
        days = {int(r.passes[0].day[0]): r.passes[0].daily_returns for r in mine}
        if seed == 0:
            days[int(own.day[0])] = own.daily_returns
        assert len(days) == 3
        by_seed.append(np.concatenate([days[first] for first in sorted(days)]))
    daily = np.mean(by_seed, axis=0)
    headline = run.folds.headline[1, "base"]
    np.testing.assert_allclose(headline.daily_returns, daily, atol=1e-12)
    assert run.summary["verdict"]["days"] == daily.size == 3 * settings.test_days
    assert run.summary["table"][0]["net_return_frac"] == pytest.approx(np.prod(1.0 + daily) - 1.0)
    assert run.summary["last_fold"]["table"][0]["policy"] == own.name
    assert {row["tier"] for row in run.summary["table"]} == {"base", "retail"}


def test_the_last_fold_is_the_files_own_split_and_its_training_that_of_the_home_model(whole, tmp_path):
    config, run = whole
    settings = run_folds.settings_of(config, config.data_file)
    *earlier, last = settings.fold_list()
    source = fold_jobs.opened(str(config.data_file))
    own = run.judgements[0].results["base"][0]
    np.testing.assert_array_equal(source.days[last.test], np.unique(own.day))
    assert all(fold.test[-1] < last.test[0] for fold in earlier)
    again = fold_jobs.Job(1, 0, settings.folds, "base")
    fold_jobs.run_job(settings, again, tmp_path / fold_jobs.FILE)
    found = fold_jobs.load(tmp_path / fold_jobs.FILE).passes[0]
    # Features of the test days are made from fifteen days before them here, from all days there.
    np.testing.assert_allclose(found.daily_returns, own.daily_returns, atol=1e-6)
    np.testing.assert_array_equal(found.open_time_utc, own.open_time_utc)


def test_the_files_of_a_run_with_folds(whole):
    config, run = whole
    top = config.top_folder
    manifest = files.verify_manifest(top)
    assert manifest["status"] == "complete"
    assert f"state/{checkpoint.FOLDS_FILE}" in manifest["files"]
    assert not (top / "state" / "folds").exists()
    assert not (top / "runs").exists()
    days = pd.read_csv(top / "walk_forward.csv", float_precision="round_trip")
    seeds = days[["agent_1_seed_0_frac", "agent_1_seed_1_frac"]].mean(axis=1)
    np.testing.assert_allclose(days["net_return_frac"], seeds, atol=1e-12)
    row = run.summary["table"][0]
    assert (1.0 + days["net_return_frac"]).prod() - 1.0 == pytest.approx(row["net_return_frac"])
    page = (top / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in ("folds of", run.summary["last_fold"]["table"][0]["policy"]))
    ledger = trials.read(top / trials.NAME)
    # One look of the home model at its validation days; one a seed and fold of the others.
    assert len(ledger) == 1 + (2 * 3 - 1)


def test_a_run_cut_between_two_trainings_goes_on_and_ends_with_the_same_verdict(
    whole, h5, tmp_path, monkeypatch
):
    config, begun, run_all = config_of(h5, tmp_path / "cut"), [], job_pool.run

    def only_three(jobs, *args, **kwargs):
        first = run_all(jobs[:3], *args, **kwargs)
        return first + [job_pool.Outcome(str(i), job, None, "", 0.0) for i, job in enumerate(jobs[3:])]

    monkeypatch.setattr(job_pool, "run", only_three)
    cut = run_jobs(config)
    assert cut.summary["status"] == "cut"
    assert files.verify_manifest(config.top_folder)["status"] == "cut"
    assert "last_fold" not in cut.summary

    def counted(jobs, function, folder, **kwargs):
        begun.append(sum((folder / job_pool.job_name(j, PATH) / job_pool.RESULT).is_file() for j in jobs))
        return run_all(jobs, function, folder, **kwargs)

    monkeypatch.setattr(job_pool, "run", counted)
    done = run_jobs(config)
    assert begun == [3]
    for part in ("table", "verdict", "status"):
        one, two = (json.loads(files.strict_json(run.summary[part])) for run in (whole[1], done))
        assert one == two


PATH = f"{fold_jobs.__name__}:{fold_jobs.run_pool_job.__name__}"


def test_the_null_of_a_run_enters_its_verdict(tmp_path):
    write_processed(planted_data(0.25, 0, 2.5), tmp_path / "bars.h5")
    config = config_of(
        tmp_path / "bars.h5",
        tmp_path / "out",
        folds=2,
        seeds=(0,),
        tiers=("base",),
        null_copies=3,
        env_reward="auto",
    )
    run = run_jobs(config)
    null = run.summary["verdict"]["null"]
    assert null["copies"] == 3
    assert null["p_values"]["t"] == pytest.approx(1 / 4)
    mark = next(m for m in run.summary["verdict"]["marks"] if m["key"] == "null")
    assert mark["passed"] is False  # 2 / 4 after Holm's correction: so few copies cannot reach .05


def test_without_time_left_the_run_is_cut_not_the_training(h5, tmp_path):
    run = run_jobs(config_of(h5, tmp_path), Deadline(0.0))
    assert run.summary["status"] == "cut"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"folds": 1}, ("folds", "2")),
        ({"null_copies": -1}, ("null_copies",)),
        ({"env_cost_tier": "retail"}, ("env_cost_tier", "base")),
        ({"learner": "both"}, ("learner", "both")),
        ({"tiers": ("raw",)}, ("tiers", "base")),
        ({"tiers": ("base", "base")}, ("tiers", "base")),
        ({"seeds": (1, 1)}, ("seeds",)),
    ],
)
def test_settings_that_folds_do_not_allow_are_refused(changes, words):
    with pytest.raises(ConfigError, match=says(*words)):
        config_of("", "", **changes)


def test_more_folds_than_the_bars_have_days_for_are_refused(h5, tmp_path):
    config = config_of(h5, tmp_path, folds=9)
    with pytest.raises(DataError, match=says("9 folds")):
        run_folds.settings_of(config, config.data_file)


def test_finished_trainings_come_back_from_a_mounted_state_by_its_hash(whole, tmp_path, monkeypatch):
    packed = whole[0].top_folder / "state" / checkpoint.FOLDS_FILE
    mounted = tmp_path / "input" / "sac-trading-state" / checkpoint.FOLDS_FILE
    files.write_bytes(mounted, packed.read_bytes())
    monkeypatch.setenv(paths.INPUT_ROOT_VARIABLE, str(tmp_path / "input"))
    entry = f"{checkpoint.FOLDS_FILE} {files.file_sha256(packed)}"
    run_folds._unpack(config_of("", tmp_path, expect_files=[entry]), tmp_path, tmp_path / "found")
    with zipfile.ZipFile(packed) as archive:
        names = archive.namelist()
        assert len(names) == 2 * (
            2 * 3 * 2 - 1 + 2 * 3
        )  # two files a job: trainings but the home model's, baselines
        assert all((tmp_path / "found" / n).read_bytes() == archive.read(n) for n in names)
    other = f"{checkpoint.FOLDS_FILE} {'0' * 64}"
    with pytest.raises(InputNotFoundError):
        run_folds._unpack(config_of("", tmp_path, expect_files=[other]), tmp_path, tmp_path / "none")


def test_a_packed_file_writes_nothing_but_results(tmp_path):
    top = tmp_path / "out"
    members = {"../../outside/result.json": b"x", "0123456789abcdef/result.json": b"{}", "a.py": b"x"}
    files.write_zip(top / "state" / checkpoint.FOLDS_FILE, members)
    run_folds._unpack(config_of("", top), top, tmp_path / "a" / "b" / "found")
    written = [p for p in tmp_path.rglob("*") if p.is_file() and p.name != checkpoint.FOLDS_FILE]
    assert written == [tmp_path / "a" / "b" / "found" / "0123456789abcdef" / "result.json"]


@pytest.mark.parametrize("with_function", [False, True])
def test_folds_read_the_series_and_count_the_trials_of_other_runs(h5, tmp_path, with_function):
    data = read_processed(h5)
    index = data.whole("EURUSD").index
    known = pd.date_range(index[0] - pd.Timedelta("40D"), index[-1], freq="5D")
    net = np.random.default_rng(0).normal(size=len(known))
    values = {"known_at": [moment.isoformat() for moment in known], "net": net}
    pd.DataFrame(values).to_csv(tmp_path / "cot.csv", index=False)
    changes = {
        "series_files": [str(tmp_path / "cot.csv")],
        "only_own_features": True,
        "seeds": (0,),
        "tiers": ("base",),
    }
    if with_function:
        (tmp_path / "mine.py").write_text(
            "def features(bars, series):\n    return series['cot'][['age_days']]\n"
        )
        changes["features_file"] = str(tmp_path / "mine.py")
    config = config_of(h5, tmp_path / "out", **changes)
    days = np.arange(100, 150)
    for name, data_hash in (("same data", data.content_hash), ("other data", "0" * 64)):
        trials.append(
            tmp_path / "out" / trials.NAME, [Trial(1, 0, "val", 1, name, data_hash, days, np.sin(days) / 1e3)]
        )
    run = run_jobs(config)
    assert run.summary["verdict"]["trials"]["elsewhere"] == 1
    assert "folds" in run.summary["judged"]
    settings = run_folds.settings_of(config, h5)
    job = fold_jobs.Job(1, 0, 1, "base")
    identity = settings.identity(job)
    names = fold_jobs._fitted(settings, 1, 1).pipeline.feature_names
    assert names == (["age_days"] if with_function else ["cot_net"])
    pd.DataFrame({**values, "net": net + 1.0}).to_csv(tmp_path / "cot.csv", index=False)
    assert settings.identity(job) != identity
