"""Refits in folds: fitted on train days alone, no episode across a hole, the chosen checkpoint, CPCV paths."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from sac_kernel.agent.config import SACConfig
from sac_kernel.agent.exact_config import ExactConfig
from sac_kernel.backtest import runner, validation
from sac_kernel.core.errors import ConfigError, DataError
from sac_kernel.experiment import fold_training, population, stretches
from sac_kernel.experiment.combinatorial_paths import combinatorial_paths
from sac_kernel.experiment.fold_training import Recipe
from sac_kernel.experiment.run_config import Job, RunConfig
from sac_kernel.market.account import TradingEnvConfig
from tests.conftest import make_bars
from tests.support import says, told

SAC = SACConfig(hidden_dims=(16,), batch_size=32, warmup_steps=120, utd_ratio=0.2, schedule_updates=100)
ENV = TradingEnvConfig(episode_lengths=(600,), horizon=150)
RECIPE = Recipe(updates=100, evaluations=4, learner_config=SAC, env=ENV)


@pytest.fixture(scope="module")
def bars():
    return {"EURUSD": make_bars(2400)}


def days_of(bars, first, last):
    """The bars of trading days first to last, by position."""
    frame = bars["EURUSD"]
    day = validation.trading_days(frame)
    listed = np.unique(day)
    part = frame[np.isin(day, listed[first : last + 1])]
    return {"EURUSD": part}


@pytest.fixture(scope="module")
def refit(bars):
    return fold_training.fit_agent([days_of(bars, 0, 60)], days_of(bars, 62, 75), RECIPE, "EURUSD")


def test_the_scaler_is_that_of_the_train_rows_alone(bars):
    train = days_of(bars, 0, 60)
    fitted = fold_training.fit_features([train], days_of(bars, 62, 75), "EURUSD")
    alone = fitted.pipeline.compute(train).iloc[48:]  # hourly bars: two days of warm-up
    state = fitted.pipeline.state()
    np.testing.assert_allclose(state["mean"], alone.mean(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(state["std"], alone.std(ddof=0), rtol=1e-9)
    assert fitted.train[1].index.equals(train["EURUSD"].index)
    assert fitted.val[1].notna().all().all()


def test_features_of_a_test_block_do_not_depend_on_where_its_warm_up_begins(bars):
    fitted = fold_training.fit_features([days_of(bars, 0, 60)], days_of(bars, 62, 75), "EURUSD")
    whole = fitted.features(days_of(bars, 0, 90))
    short = fitted.features(days_of(bars, 80 - fold_training.WARMUP_DAYS, 90))
    block = days_of(bars, 80, 90)["EURUSD"].index
    assert np.abs(whole.loc[block] - short.loc[block]).max().max() < 5e-3  # of a standard deviation


def test_no_account_ever_lives_across_a_hole(bars):
    train = [days_of(bars, 0, 30), days_of(bars, 45, 75)]
    fitted = fold_training.fit_features(train, days_of(bars, 77, 77), "EURUSD")
    market = runner.market_of(*fitted.train, ENV, "base")
    env = stretches.block_env(market, ENV, 10)
    assert [e.num_envs for e in env.envs] == [5, 5]
    ends = [(e.market.open_time[0], e.market.open_time[-1]) for e in env.envs]
    hole = pd.DatetimeIndex([train[0]["EURUSD"].index[-1], train[1]["EURUSD"].index[0]])
    assert ends[0][1] == hole[0]
    assert ends[1][0] == hole[1]
    env.reset(seed=0)
    for _ in range(400):
        _, _, terminated, truncated, infos = env.step(np.zeros((10, 1)))
        done = terminated | truncated
        assert done.any() == bool(infos)
        if done.any():
            assert infos["final_obs"].shape == (10, len(market.observation_names))
    longest = max(np.diff(e.market.open_time).max() for e in env.envs)
    assert longest <= np.timedelta64(72, "h")


def test_observations_of_the_parts_are_those_of_the_whole(bars):
    train = [days_of(bars, 0, 30), days_of(bars, 45, 75)]
    fitted = fold_training.fit_features(train, days_of(bars, 77, 77), "EURUSD")
    market = runner.market_of(*fitted.train, ENV, "base")
    second = stretches.block_env(market, ENV, 10).envs[1].market
    at = market.open_time.get_loc(second.open_time[0])
    np.testing.assert_array_equal(second.bars["close"], market.bars["close"][at:])
    np.testing.assert_array_equal(second.observed, market.observed[at:])


def test_accounts_are_shared_out_by_largest_remainder():
    assert stretches._shares(10, np.array([100, 100, 100])).tolist() == [4, 3, 3]
    assert stretches._shares(60, np.array([1, 5])).tolist() == [10, 50]


def test_train_days_shorter_than_an_episode_are_refused_with_what_was_found(bars):
    fitted = fold_training.fit_features([days_of(bars, 0, 6)], days_of(bars, 62, 75), "EURUSD")
    market = runner.market_of(*fitted.train, ENV, "base")
    with pytest.raises(DataError, match=says("150 train bars")):
        stretches.block_env(market, ENV, 10)
    with pytest.raises(DataError, match=says("EURUSD")):
        fold_training.fit_features([], days_of(bars, 62, 75), "EURUSD")
    with pytest.raises(ConfigError, match=says("evaluations", 20)):
        Recipe(evaluations=3)


def test_every_evaluation_is_a_trial_and_the_best_mean_of_three_is_kept(refit, bars):
    assert [updates for updates, _ in refit.trials] == sorted({updates for updates, _ in refit.trials})
    assert len(refit.trials) == RECIPE.evaluations
    growth = [result.log_growth / len(result.equity) for _, result in refit.trials]
    means = [np.mean(growth[max(0, i - 2) : i + 1]) for i in range(len(growth))]
    chosen = refit.trials[int(np.argmax(means))][1]
    market = runner.market_of(*refit.val, ENV, "base")
    again = runner.run_policy(market, refit.act, ENV.initial_equity, "", "base")
    np.testing.assert_array_equal(again.equity, chosen.equity)
    assert chosen.turnover > 0


def test_curves_have_a_value_a_report(refit):
    assert {len(refit.stats[k]) for k in ("episode_rewards", "critic_losses", "entropies")} == {20}
    assert refit.stats["eval_episodes"] == [5, 10, 15, 20]


EXACT = dataclasses.replace(
    RECIPE, updates=60, learner_config=ExactConfig(hidden_dims=(8,), batch_size=16, positions=5),
    env=dataclasses.replace(ENV, observes="target"),
)  # fmt: skip


def learning_of(bars, recipe):
    fitted = fold_training.preset_features([days_of(bars, 0, 40)], days_of(bars, 42, 60), recipe, "EURUSD")
    return fold_training.FoldTraining(fitted, recipe).learning


def same_fold(one, two):
    assert torch.equal(one.agent.exact.weights, two.agent.exact.weights)
    assert one.stats == two.stats
    for (_, a), (_, b) in zip(one.trials, two.trials, strict=True):
        np.testing.assert_array_equal(a.equity, b.equity)


def test_trainings_of_several_folds_and_tiers_together_equal_each_alone(bars, monkeypatch):
    folds = [
        ([days_of(bars, 0, 30), days_of(bars, 45, 60)], days_of(bars, 62, 75), EXACT),
        ([days_of(bars, 0, 40)], days_of(bars, 42, 60), dataclasses.replace(EXACT, seed=1, tier="retail")),
        ([days_of(bars, 0, 40)], days_of(bars, 42, 60), EXACT),
    ]
    together = population.fit_together(folds, "EURUSD", "cpu")
    alone = [fold_training.fit_agent(*fold, "EURUSD") for fold in folds]
    for one, two in zip(together, alone, strict=True):
        same_fold(one, two)
    assert {refit.updates for refit in together} == {60}
    whole, made = population.Population, []

    def small(members, device):
        made.append(whole(members, device, chunk=2))
        return made[-1]

    monkeypatch.setattr(population, "Population", small)
    for one, two in zip(population.fit_together(folds, "EURUSD", "cpu"), alone, strict=True):
        same_fold(one, two)
    assert [len(part) for _, part in made[0]._parts] == [2, 1]


def test_a_chunk_that_does_not_fit_is_halved_and_said(bars, monkeypatch, caplog):
    trainings = [learning_of(bars, EXACT) for _ in range(3)]
    part = population.Population._part

    def refuses(self, at):
        if self.chunk > 1:
            raise torch.cuda.OutOfMemoryError
        return part(self, at)

    monkeypatch.setattr(population.Population, "_part", refuses)
    together = population.Population(trainings, "cpu", chunk=3)
    assert together.chunk == 1
    assert told(caplog.text, "cpu", 1)


def test_a_training_of_several_that_diverges_is_named_and_the_others_go_on(bars):
    trainings = [learning_of(bars, dataclasses.replace(EXACT, seed=seed)) for seed in (4, 5)]
    together = population.Population(trainings)
    together._parts[0][0].weights.online[1, 0] = float("nan")
    together.advance_to(20)
    assert list(together.failures) == [trainings[1]]
    assert told(str(together.failures[trainings[1]]), "seed 5", 10)
    assert trainings[0].updates == 20
    assert torch.isfinite(trainings[0].agent.exact.weights).all()


def test_a_training_at_other_costs_is_judged_at_them(bars):
    recipe = dataclasses.replace(RECIPE, tier="retail", updates=20)
    assert recipe.env_config.cost_tier == "retail"
    refit = fold_training.fit_agent([days_of(bars, 0, 40)], days_of(bars, 42, 60), recipe, "EURUSD")
    dear = refit.trials[-1][1]
    market = runner.market_of(*refit.val, ENV, "base")
    cheap = runner.run_targets(market, dear.action, ENV.initial_equity, "", "base")
    assert dear.tier == "retail"
    assert dear.costs["commission"] == pytest.approx(cheap.costs["commission"] * 14 / 3, rel=0.01)


def test_a_short_budget_has_a_short_warm_up_and_schedule():
    gaussian = RunConfig(learner="gaussian")
    short, long = (Recipe.of_run(gaussian, Job(1, 0), updates=n).learner_config for n in (2_000, 75_000))
    assert (short.warmup_steps, short.schedule_updates) == (800, 2_000)  # of 8,000 steps
    assert (long.warmup_steps, long.schedule_updates) == (5_000, 10_000)


def test_cpcv_judges_every_day_once_on_every_path(bars):
    small = {"EURUSD": days_of(bars, 0, 79)["EURUSD"]}
    recipe = dataclasses.replace(RECIPE, updates=10)
    days, daily = combinatorial_paths(small, "EURUSD", recipe, 4, 2, 1)
    assert daily.shape == (3, days.size)  # 2 / 4 x C(4, 2) paths
    assert np.isfinite(daily[:, 2:]).all()  # the first two days come before the first feature
    assert np.isnan(daily[:, 0]).all()
    assert not np.array_equal(daily[0, 2:], daily[1, 2:])
