"""The market an agent learns on: denoised rewards say what train rows let expect, and nothing of other rows."""

import dataclasses

import numpy as np
import pytest

from sac_kernel.core import strings
from sac_kernel.core.errors import DataError
from sac_kernel.experiment import job_outputs
from sac_kernel.experiment.trainer import KaggleTrainer
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.market import training
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.prices.ingest.writer import write_processed
from tests.conftest import make_bars, make_data
from tests.support import says, told

EXPECTED = TradingEnvConfig(reward="denoised", episode_lengths=(60,), horizon=50)


def reverting_bars(n=6000, share=0.35):
    """Hours of which each takes back a share of the one before: the next return is known but for its noise."""
    bars = make_bars(n, seed=3, weekends=False)
    rng = np.random.default_rng(5)
    returns = np.zeros(n)
    for t in range(1, n):
        returns[t] = -share * returns[t - 1] + rng.normal(0, 1e-3)
    close = 1.1 * np.exp(np.cumsum(returns))
    opened = np.concatenate(([1.1], close[:-1]))
    return bars.assign(
        open=opened,
        close=close,
        high=np.maximum(opened, close) * 1.0001,
        low=np.minimum(opened, close) * 0.9999,
    )


def features_of(bars):
    train, val, test = bars[:-600], bars[-600:-300], bars[-300:]
    features, _, _ = FeaturePipeline("EURUSD").run_full_pipeline(
        {"EURUSD": train}, {"EURUSD": val}, {"EURUSD": test}
    )
    return train, features


def laid_out(bars, config=EXPECTED):
    train, features = features_of(bars)
    return training.build_training_market(train, features, config)[0], features


def fillable(market):
    """Rows with features whose order fills within the decision: not in the evening freeze, nor at the end."""
    tradable = np.append(market.bars["tradable"][1:], 0.0) > 0
    hours = market.interval_bars
    soon = np.any([np.roll(tradable, -i) for i in range(hours)], axis=0)
    rows = np.flatnonzero(soon)
    return rows[(rows >= market.first_bar) & (rows < len(market.bars) - hours)]


@pytest.fixture(scope="module")
def predictable():
    return laid_out(reverting_bars())


def test_what_is_expected_is_the_planted_share_of_the_last_return(predictable):
    """The true expectation is -0.35 x the last return, of standard deviation 0.35 x 1.07e-3."""
    market, _ = predictable
    rows = fillable(market)
    expected = market.bars["return_forecast"][rows]
    truth = -0.35 * np.diff(np.log(market.bars["close"]))[rows - 1]
    assert np.corrcoef(expected, truth)[0, 1] > 0.9
    assert 0.85 < np.polyfit(truth, expected, 1)[0] < 1.1


def test_noise_lets_expect_nothing():
    market, _ = laid_out(make_bars(6000, seed=8, weekends=False))
    assert not market.bars["return_forecast"].any()


def test_the_scale_is_that_of_what_is_expected(predictable):
    market, features = predictable
    plain, _ = training.build_training_market(reverting_bars()[:-600], features, TradingEnvConfig(horizon=50))
    spread = float(np.std(market.bars["return_forecast"][market.first_bar : -1]))
    assert training.reward_scale(market) == pytest.approx(1.0 / spread, rel=1e-4)
    assert training.reward_scale(plain) == pytest.approx(1.0 / plain.reward_sd, rel=1e-5)


def test_a_decision_of_two_bars_is_told_what_to_expect_of_two_bars():
    # E[mean of the next two returns] = (-.35 + .35^2) / 2 of the last one = -.11375; a decision earns both.
    market, _ = laid_out(reverting_bars(), dataclasses.replace(EXPECTED, decision_interval_min=120))
    rows = fillable(market)
    expected = market.bars["return_forecast"]
    last = np.diff(np.log(market.bars["close"]))[rows - 1]
    assert np.polyfit(last, expected[rows], 1)[0] == pytest.approx(-0.11375, abs=0.03)
    size = 2 * np.std(expected[market.first_bar : -1])
    assert training.reward_scale(market) == pytest.approx(1.0 / size, rel=1e-4)


@pytest.mark.parametrize("hours", [1, 2])
def test_rows_whose_order_cannot_fill_teach_neither_learner_and_expect_nothing(hours, monkeypatch):
    config, targets = dataclasses.replace(EXPECTED, decision_interval_min=60 * hours), []
    train, features = features_of(reverting_bars())
    fit = training.fit_forecast
    monkeypatch.setattr(
        training, "fit_forecast", lambda x, y, **options: targets.append(y) or fit(x, y, **options)
    )
    market, facts = training.build_training_market(train, features, config)
    exact, exact_facts = training.forecast_of_decisions(market, features, gamma=0.9)
    rows = np.arange(market.first_bar, len(market.bars) - 2 * hours)
    frozen = np.setdiff1d(rows, fillable(market))
    assert frozen.size > 100
    for target, expected in zip(targets, (market.bars["return_forecast"], exact), strict=True):
        assert np.array_equal(np.flatnonzero(np.isnan(target[rows])) + rows[0], frozen)
        assert not expected[frozen].any()
        assert expected[np.setdiff1d(rows, frozen)].all()
    assert "flat" not in (facts["head"], exact_facts["head"])


def test_exact_sac_is_told_what_a_decision_earns_from_its_fill_to_the_next():
    # Opens are the closes before: no gap, so the target is the return of the decision's two bars.
    market, features = laid_out(reverting_bars(), dataclasses.replace(EXPECTED, decision_interval_min=120))
    expected, facts = training.forecast_of_decisions(market, features, gamma=0.9)
    rows = fillable(market)
    last = np.diff(np.log(market.bars["close"]))[rows - 1]
    whole = np.flatnonzero(market.bars["tradable"][rows + 1] > 0)  # filled at once
    assert np.polyfit(last[whole], expected[rows][whole], 1)[0] == pytest.approx(-0.2275, abs=0.05)
    assert (facts["decision_bars"], expected.shape) == (2, (len(market.bars),))


def test_the_report_says_over_how_many_bars_and_when_there_are_too_few():
    fit = {"head": "ridge", "out_of_fold_share": 0.0004, "t_stat": 3.1, "decision_bars": 12}
    assert told(note_of(fit), "0.040%", "12 returns", "ridge", "3.10")
    assert told(note_of(fit, head="flat", t_stat=1.8), "12 returns", "1.80", 2.5)
    assert told(note_of(fit, head="flat", t_stat=0.0), "12 returns", "too few", 30)


def note_of(fit, **changed):
    return job_outputs._forecast_note({**fit, **changed}, strings.FORECAST_NOISE)


def test_prices_that_never_move_are_refused_by_name():
    bars = make_bars(800)
    flat = bars.assign(open=1.1, high=1.1, low=1.1, close=1.1)
    train, features = features_of(bars)
    with pytest.raises(DataError, match=says("price", "never move")):
        training.build_training_market(flat[: len(train)], features, EXPECTED)


def test_a_run_with_denoised_rewards_is_judged_on_realised_prices(tmp_path):
    write_processed(make_data(2400), tmp_path / "processed_data.h5")
    trainer = KaggleTrainer(
        tmp_path / "processed_data.h5",
        tmp_path / "out",
        num_episodes=1,
        eval_frequency=1,
        checkpoint_frequency=1,
        num_envs=6,
        device="cpu",
        env_config=EXPECTED,
        learner="gaussian",
    )
    trainer.run_training()
    assert trainer.learning.market.return_forecast is not None
    assert trainer.val_market.return_forecast is None
    # What was learnt from is told: these bars hold nothing to find.
    note = trainer.summary["verdict"]["finding"]
    t_stat = trainer.summary["run"]["forecast"]["t_stat"]
    assert told(note, f"{t_stat:.2f}", 2.5)
    row = trainer.judgement.rows[0]
    result = trainer.judgement.results["base"][0]
    assert row["net_return_frac"] == pytest.approx(result.equity[-1] / 100_000.0 - 1.0, abs=1e-9)
