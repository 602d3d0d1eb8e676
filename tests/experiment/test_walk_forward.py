"""The walk-forward: joins and means by hand, a tiny run from the command's inside, resumed, refused, on a page."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sac_kernel.agent.config import SACConfig
from sac_kernel.backtest import policies, runner
from sac_kernel.backtest.judgement import RANDOM_DRAWS
from sac_kernel.core.clock import Deadline
from sac_kernel.core.errors import ConfigError, DataError, SacKernelError
from sac_kernel.experiment import fold_jobs, job_pool, walk_forward, walk_forward_report
from sac_kernel.experiment.fold_jobs import Job, Settings
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.stats import fold_statistics, significance, trials
from tests.conftest import make_data
from tests.support import says


def pass_of(equity, day, start=100.0, cost=0.0, first="2020-01-06"):
    n = len(equity)
    return runner.EpisodeResult(
        policy=policies.named("x"),
        tier="base",
        open_time_utc=pd.date_range(first, periods=n, freq="12h", tz="UTC"),
        close=np.ones(n),
        equity=np.array(equity, float),
        exposure=np.full(n, 0.5),
        cost_paid=np.linspace(cost / n, cost, n),
        action=np.full(n, 0.5),
        day=np.array(day),
        turnover=1.0,
        trades=2,
        start_equity=start,
        costs={"spread": cost},
    )


def test_folds_are_chained_in_date_order_and_each_starts_with_what_the_last_left():
    first = pass_of([101.0, 110.0], [1, 2], cost=2.0)
    later = pass_of([100.0, 90.0], [3, 4], cost=1.0, first="2020-02-03")
    whole = walk_forward_report.joined([later, first], policies.named("both"))
    np.testing.assert_allclose(whole.equity, [101.0, 110.0, 110.0, 99.0])
    np.testing.assert_allclose(whole.daily_returns, [0.01, 9 / 101, 0.0, -0.1], atol=1e-12)
    assert whole.cost_paid[-1] == pytest.approx(2.0 + 1.1 * 1.0)
    assert (whole.turnover, whole.trades, whole.costs) == (2.0, 4, {"spread": 3.0})
    assert whole.open_time_utc.is_monotonic_increasing


def test_the_mean_over_seeds_has_the_mean_of_their_daily_returns():
    one = pass_of([100.0, 102.0, 103.0, 104.04], [1, 1, 2, 2])  # +2 %, +2 %
    two = pass_of([99.0, 96.0, 90.0, 86.4], [1, 1, 2, 2])  # -4 %, -10 %
    mean = walk_forward_report.averaged([one, two], policies.named("mean"))
    np.testing.assert_allclose(mean.daily_returns, [-0.01, -0.04])
    np.testing.assert_allclose(mean.equity[:2], [99.5, 99.0])  # inside the day: the sum of the halves
    np.testing.assert_allclose(mean.equity[3], 99.0 * 0.96)
    assert walk_forward_report.averaged([one, one], policies.named("same")).equity == pytest.approx(
        one.equity
    )


def test_a_refit_in_another_fold_is_the_same_trial_on_other_days():
    def trial(fold, first, seed=0, checkpoint=5):
        day = np.arange(first, first + 3)
        return trials.Trial(1, seed, f"val {fold}", checkpoint, "c", "d", day, 0.01 * day)

    found = fold_statistics.over_folds(
        [trial(2, 20), trial(1, 10), trial(1, 10, seed=1), trial(1, 10, checkpoint=9)]
    )
    assert [t.day.tolist() for t in found] == [[10, 11, 12, 20, 21, 22], [10, 11, 12], [10, 11, 12]]
    np.testing.assert_allclose(found[0].daily, 0.01 * found[0].day)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "processed_data.h5"
    write_processed(make_data(3600), path)
    return Settings(
        str(path),
        agents=(1, 2),
        seeds=(0, 1),
        folds=2,
        tiers=("base", "retail"),
        updates=20,
        evaluations=2,
        test_days=30,
        val_days=22,
        purge_days=2,
        config=RunConfig(
            learner="gaussian",
            sac=SACConfig(hidden_dims=(8,), batch_size=16, warmup_steps=120, utd_ratio=0.1),
            env=TradingEnvConfig(episode_lengths=(600,), horizon=150),
            left_to_preset=("sac_gamma", "env_decision_interval_min"),
        ),
    )


@pytest.fixture(scope="module")
def folder(settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("walk")
    walk_forward.run(settings, out, command="the command")
    return out


def folder_of(settings, folder, job):
    where = f"{fold_jobs.__name__}:{fold_jobs.run_pool_job.__name__}"
    return folder / "jobs" / job_pool.job_name(fold_jobs.pool_job(settings, job), where)


def result_of(settings, folder, job):
    return fold_jobs.load(folder_of(settings, folder, job) / fold_jobs.FILE)


@pytest.fixture(scope="module")
def collected(settings, folder):
    return walk_forward_report.collect(settings, [result_of(settings, folder, job) for job in settings.jobs])


@pytest.fixture(scope="module")
def summary(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def test_jobs_are_every_agent_seed_fold_and_tier_and_the_baselines(settings):
    assert len(settings.jobs) == 2 * 2 * (1 + 2 * 2)
    assert settings.jobs[0] == Job(0, 0, 1, "base")
    assert settings.jobs[-1].name == "agent_2_seed_1_fold_2_retail"
    assert len(Settings("", tiers=("raw", "base", "retail")).jobs) == 108 + 12


def test_a_finished_job_is_not_run_again_and_a_missing_one_alone_is(settings, folder):
    def times():
        return {
            job: (folder_of(settings, folder, job) / fold_jobs.FILE).stat().st_mtime_ns
            for job in settings.jobs
        }

    lost = settings.jobs[3]
    equity, before = result_of(settings, folder, lost).passes[0].equity, times()
    (folder_of(settings, folder, lost) / job_pool.RESULT).unlink()
    walk_forward.run(settings, folder, command="the command")
    after = times()
    assert [job for job in settings.jobs if after[job] != before[job]] == [lost]
    assert result_of(settings, folder, lost).passes[0].equity.tolist() == equity.tolist()
    page = (folder / "report.html").read_bytes()
    walk_forward.run(settings, folder, command="the command")
    assert times() == after
    assert (folder / "report.html").read_bytes() == page


def test_a_job_of_the_pool_is_the_job_run_here(settings, folder, tmp_path):
    job = Job(2, 1, 2, "retail")
    fold_jobs.run_job(settings, job, tmp_path / "here.npz")
    here, there = fold_jobs.load(tmp_path / "here.npz"), result_of(settings, folder, job)
    assert here.passes[0].equity.tolist() == there.passes[0].equity.tolist()
    assert here.facts["trials"] == there.facts["trials"]  # with the hash of all settings


def test_a_job_with_another_setting_bars_or_code_is_another_job(settings, tmp_path, monkeypatch):
    job = settings.jobs[1]
    first = folder_of(settings, tmp_path, job)
    assert folder_of(dataclasses.replace(settings, updates=40), tmp_path, job) != first
    assert folder_of(dataclasses.replace(settings, config=RunConfig()), tmp_path, job) != first
    assert folder_of(dataclasses.replace(settings, tiers=("base",), seeds=(0,)), tmp_path, job) == first
    write_processed(make_data(3600, seed=1), tmp_path / "others.h5")
    assert (
        folder_of(dataclasses.replace(settings, h5_path=str(tmp_path / "others.h5")), tmp_path, job) != first
    )
    monkeypatch.setattr(fold_jobs.packages, "code_hash", lambda: "edited")
    assert folder_of(settings, tmp_path, job) != first


def test_every_validated_checkpoint_at_base_cost_is_in_the_ledger_once(settings, folder):
    ledger = trials.read(folder / trials.NAME)
    assert len(ledger) == 2 * 2 * 2 * 2  # agents, seeds, folds, evaluations; the dear tier is no trial
    assert {t.split for t in ledger} == {"walk-forward val 1", "walk-forward val 2"}
    merged = fold_statistics.over_folds(ledger)
    assert len(merged) == 2 * 2 * 2
    assert {t.day.size for t in merged} == {2 * settings.val_days}


def test_no_test_day_is_a_train_or_validation_day_of_its_fold(settings, folder):
    days = fold_jobs.opened(settings.h5_path).days
    for job, fold in ((Job(1, 0, f, "base"), settings.fold_list()[f - 1]) for f in (1, 2)):
        result = result_of(settings, folder, job)
        tested = np.unique(result.passes[0].day)
        assert np.array_equal(tested, days[fold.test])
        seen = {*days[fold.train], *(d for t in result.trials for d in t.day)}
        assert max(seen) + settings.purge_days < tested[0]


def test_the_verdict_is_on_the_mean_of_the_seeds_joined_over_folds(settings, collected, folder, summary):
    by_hand = []
    for fold in (1, 2):
        runs = [result_of(settings, folder, Job(1, s, fold, "base")) for s in (0, 1)]
        by_hand.append(np.mean([r.passes[0].daily_returns for r in runs], axis=0))
    np.testing.assert_allclose(
        collected.headline[1, "base"].daily_returns, np.concatenate(by_hand), atol=1e-12
    )
    told = summary["verdicts"]["1"]
    assert told["days"] == 60
    assert told["low_frac"] == pytest.approx(significance.bootstrap_interval(np.concatenate(by_hand))[0])
    assert told["trials"]["listed"] == 4  # seeds x checkpoints, whatever the number of folds
    p = sorted(one["p_value"] for one in summary["verdicts"].values())
    assert sorted(one["p_holm"] for one in summary["verdicts"].values())[0] == pytest.approx(min(1, 2 * p[0]))


def test_the_account_on_the_mean_target_trades_no_more_than_the_seeds_do(collected):
    for key, one in collected.ensemble.items():
        assert one.turnover <= collected.headline[key].turnover * 1.01
        targets = np.mean([seed.action for seed in collected.seeds[key]], axis=0)
        np.testing.assert_allclose(one.action, targets)


def test_random_policies_of_all_seeds_are_shifted_alike(collected):
    share, growth = walk_forward_report.percentile(collected, 1)
    assert growth.shape == (RANDOM_DRAWS,)
    assert 0.0 <= share <= 1.0
    one, two = collected.of(1)
    by_hand = [np.exp([a.random_growth, b.random_growth]).mean(axis=0) for a, b in zip(one, two, strict=True)]
    np.testing.assert_allclose(growth, by_hand[0] * by_hand[1] - 1)


def test_break_even_lies_where_the_line_between_two_multiples_crosses_zero(collected, monkeypatch):
    def growing(values):
        parts = [[dataclasses.replace(r, facts={**r.facts, "cost_growth": values}) for r in f] for f in runs]
        monkeypatch.setattr(walk_forward_report.Collected, "of", lambda *_: parts)
        return walk_forward_report.cost_rows(collected, 1)[1]

    runs = collected.of(1)
    at = fold_jobs.COST_MULTIPLES
    assert at[:4] == (0.0, 0.5, 1.0, 1.5)
    # Over two folds: 1.1^2 - 1 = .21 at 0.5, .9^2 - 1 = -.19 at 1.
    assert growing(np.log([1.2, 1.1, 0.9, 0.8, 0.7, 0.6, 0.5])) == pytest.approx(0.5 + 0.5 * 0.21 / 0.40)
    assert growing(np.log([0.9] * 7)) == 0.0
    assert growing(np.log([1.1] * 7)) is None


def test_results_are_in_one_table_and_on_one_page(settings, folder, summary):
    with (folder / "results.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert sum(row["agent"] == "1" for row in rows) == 2 * 2 * 2
    assert {row["policy"] for row in rows} >= {"agent 1", "ridge + band", "perfect foresight (bound)"}
    page = (folder / "report.html").read_text(encoding="utf-8")
    for text in ("the command", "20 updates", *(table["title"] for table in summary["tables"])):
        assert text in page, text
    assert len(summary["tables"]) == 4
    labels = [row["policy"] for row in summary["table"] if row["tier"] == "base"][:2]
    assert all("agent" in label for label in labels)


def test_the_results_as_markdown_have_every_table_with_its_rows(summary, folder):
    text = (folder / "results.md").read_text(encoding="utf-8")
    assert text.startswith("    the command\n\n**")
    for table in summary["tables"]:
        assert f"## {table['title']}\n" in text
        assert f"| {table['rows'][-1][0]} |" in text
    assert (
        sum(line.startswith("| agent 1, 2 seeds' mean account | base |") for line in text.splitlines()) == 1
    )


def test_the_page_needs_every_job(settings, collected):
    with pytest.raises(DataError, match=says("1")):
        walk_forward_report.collect(settings, collected.jobs[1:])


def test_a_damaged_file_says_what_to_do(tmp_path):
    path = tmp_path / "agent_1_seed_0_fold_1_base.npz"
    path.write_bytes(b"PK")
    with pytest.raises(DataError, match=says("result.json")):
        fold_jobs.load(path)


def test_a_job_that_fails_is_named_with_its_reason_and_log(settings, tmp_path):
    bars = make_data(3600)
    still = {k: {"EURUSD": split["EURUSD"] * 0 + 1.0} for k, split in bars.splits.items()}
    write_processed(dataclasses.replace(bars, **still), tmp_path / "still.h5")
    one = dataclasses.replace(
        settings, h5_path=str(tmp_path / "still.h5"), agents=(1,), seeds=(0,), folds=1, tiers=("base",)
    )
    with pytest.raises(SacKernelError, match=says("2", "_fold_1_base", "log.txt")):
        walk_forward.run(one, tmp_path / "out")
    assert not (tmp_path / "out" / "report.html").exists()


def test_parameters_are_checked_before_anything_runs(capsys):
    with pytest.raises(ConfigError, match=says("tiers", "base")):
        Settings("", tiers=("raw",))
    with pytest.raises(ConfigError, match=says("agents")):
        Settings("", agents=(1, 1))
    with pytest.raises(ConfigError, match=says("agent_id")):
        Settings("", agents=(4,))


def test_exact_sac_is_the_learner_of_a_walk_forward_and_its_job_runs_from_plain_values(settings, tmp_path):
    """What a worker is told gives the same recipe, and the trainings of seeds differ."""
    exact = dataclasses.replace(
        settings,
        config=RunConfig(
            sac=SACConfig.for_market(utd_ratio=0.25, hidden_dims=(8,), batch_size=16),
            env=TradingEnvConfig(episode_lengths=(600,), horizon=150),
            left_to_preset=("sac_gamma", "sac_learning_rate", "env_decision_interval_min"),
        ),
    )
    assert Settings(settings.h5_path).updates == 3_000
    assert Settings(settings.h5_path, config=RunConfig(learner="gaussian")).updates == 5_000
    made = []
    for seed in (0, 1):
        job = Job(1, seed, 1, "base")
        folder = tmp_path / str(seed)
        place = job_pool.Place(folder, "cpu", {fold_jobs.BARS: Path(settings.h5_path)}, Deadline())
        given = fold_jobs.pool_job(exact, job)
        assert given["learner"] == "exact"
        fold_jobs.run_pool_job(given, place)
        made.append(fold_jobs.load(folder / fold_jobs.FILE))
    assert [result.facts["updates"] for result in made] == [20, 20]
    assert len(made[0].trials) == exact.evaluations
    assert made[0].facts["stats"]["critic_losses"] != made[1].facts["stats"]["critic_losses"]
    assert len(made[0].facts["stats"]["entropies"]) == 20
