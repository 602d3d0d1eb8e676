"""Baselines: by hand, against other libraries, dynamic programming and every sequence there is."""

import dataclasses
import itertools
import math

import numpy as np
import pandas as pd
import pytest

from sac_kernel.backtest import baselines, runner
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.records import PRICES
from sac_kernel.prices import costs
from tests.conftest import make_bars
from tests.small_runs import BASELINES

CONFIG = TradingEnvConfig()
START = 100_000.0


def market_of(n=600, config=CONFIG, features=None, seed=0, tier="base", **kwargs):
    bars = make_bars(n, seed=seed, **kwargs)
    if features is None:
        features = np.random.default_rng(seed).normal(0, 1, (n, 2))
    return runner.market_of(bars, pd.DataFrame(features, index=bars.index), config, tier)


@pytest.fixture(scope="module")
def market():
    return market_of()


def replace_closes(market, close):
    """The same market with these closes and opens equal to the close before."""
    bars = market.bars.copy()
    bars["close"] = close
    bars["open"] = np.concatenate(([close[0]], close[:-1]))
    return dataclasses.replace(market, bars=bars)


# -- rules ---------------------------------------------------------------------------------------


def test_every_baseline_decides_once_a_decision_within_bounds(market):
    targets = baselines.all_targets(market, market_of(900, seed=1))
    assert tuple(targets) == BASELINES
    for name, values in targets.items():
        assert values.shape == (runner.decisions(market),), name
        assert np.all(np.abs(values) <= 1.0)


def test_without_train_rows_only_the_fitted_are_left_out(market):
    missing = set(baselines.all_targets(market, market)) - set(baselines.all_targets(market))
    assert missing == {"session means", "ridge + band", "logistic + band"}


def test_momentum_is_the_sign_of_the_past_return(market):
    # Hourly bars, two hours back: rows 0 and 1 have no past.
    close = market.bars["close"]
    found = baselines.momentum(market, 120)
    assert found[:2].tolist() == [0.0, 0.0]
    assert all(found[t] == np.sign(close[t] - close[t - 2]) for t in range(2, 400, 7))


def test_moving_averages_compare_the_two_means(market):
    close = market.bars["close"]
    found = baselines.moving_averages(market, 180, 600)  # 3 and 10 hourly bars
    assert found[:9].tolist() == [0.0] * 9
    for t in range(9, 300, 11):
        assert found[t] == np.sign(close[t - 2 : t + 1].mean() - close[t - 9 : t + 1].mean())


@pytest.mark.parametrize("name", ["momentum, 5 days", "moving averages, 1 and 5 days", "reversal, 1 day"])
def test_rules_know_nothing_of_later_bars(market, name):
    bars = market.bars.copy()
    for price in PRICES:
        bars[price][301:] *= 1.5
    edited = dataclasses.replace(market, bars=bars)
    before, after = baselines.all_targets(market)[name], baselines.all_targets(edited)[name]
    np.testing.assert_array_equal(before[:301], after[:301])
    assert not np.array_equal(before, after)


def test_daily_rules_change_at_most_once_in_24_bars(market):
    changes = np.flatnonzero(np.diff(baselines.all_targets(market)["reversal, 1 day"]))
    assert np.all((changes + 1) % 24 == 0)


def test_session_means_find_the_planted_hours():
    # Prices rise by 20 bps in the bar that opens at 9 New York and fall by 20 in that of 14; noise is 1 bp.
    train = market_of(3000, sigma=1e-4)
    hour = costs.new_york_minute(train.open_time) // 60
    push = np.select([hour == 9, hour == 14], [20e-4, -20e-4], 0.0)
    train = replace_closes(train, train.bars["close"] * np.exp(np.cumsum(push)))
    found = baselines.session_means(train, train)
    ahead = hour[baselines.decision_rows(train) + 1]  # one bar ahead: the fill is at its open
    assert set(found[ahead == 9]) == {1.0}
    assert set(found[ahead == 14]) == {-1.0}
    assert np.mean(found[(ahead != 9) & (ahead != 14)] == 0.0) > 0.6


# -- forecasts -----------------------------------------------------------------------------------


def planted(n=3000, seed=0, strength=1.0):
    """A market whose feature 0 tells the return of the next four hours, feature 1 nothing."""
    rng = np.random.default_rng(seed)
    signal = np.repeat(rng.normal(0, 1, n // 4 + 1), 4)[:n]
    market = market_of(n, features=np.column_stack((signal, rng.normal(0, 1, n))), seed=seed)
    drift = np.concatenate(([0.0], strength * 5e-4 * signal[:-1]))
    return replace_closes(market, market.bars["close"] * np.exp(np.cumsum(drift)))


def test_ridge_weights_solve_the_penalised_normal_equations():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (300, 4))
    y = x @ [1.0, 0.0, -2.0, 0.5] + rng.normal(0, 1, 300)
    w = baselines._ridge_weights(x, y, 0.1)
    assert x.T @ (y - x @ w) == pytest.approx(0.1 * 300 * w, rel=1e-9)
    assert not baselines._ridge_weights(x, y, math.inf).any()


def test_logistic_weights_are_where_the_penalised_likelihood_is_level(monkeypatch):
    train = planted()
    monkeypatch.setattr(baselines, "_chosen_penalty", lambda x, y, bars: 0.01)
    found = baselines.logistic(train, train)
    x, y, bars = baselines._samples(train)
    # (2 P(up) - 1) x mean |y| over the horizon: read the weights back from it.
    tilt = found.test[train.first_bar : train.first_bar + len(x)] * bars / np.abs(y).mean()
    w = np.linalg.lstsq(x, 2.0 * np.arctanh(tilt), rcond=None)[0]
    p = 1.0 / (1.0 + np.exp(-x @ w))
    level = x.T @ ((y > 0) - p)
    assert level == pytest.approx(0.01 / 4.0 * len(x) * w, abs=1e-6 * len(x))
    assert abs(w[0]) > 0.1 > abs(w[1])


@pytest.mark.parametrize("fit", [baselines.ridge, baselines.logistic])
def test_forecasts_find_a_planted_signal_out_of_sample(fit):
    train, test = planted(seed=1), planted(seed=2)
    forecast = fit(test, train).test
    assert np.corrcoef(forecast, test.observed[:, 0])[0, 1] > 0.95


def test_without_signal_the_penalty_is_mostly_infinite_and_the_band_never_trades():
    train = market_of(3000, seed=5)
    x, y, bars = baselines._samples(train)
    assert baselines._chosen_penalty(x, y, bars) == math.inf
    fitted = baselines.ridge(train, train)
    assert not baselines.band_targets(train, train, fitted).any()


def test_labels_run_from_the_next_open_to_the_end_of_the_horizon():
    train = market_of(300, features=np.random.default_rng(0).normal(0, 1, (300, 1)))
    _, y, bars = baselines._samples(train)
    assert bars == 4
    raw = [math.log(train.bars["close"][t + 4] / train.bars["open"][t + 1]) for t in range(296)]
    assert y == pytest.approx(np.array(raw) - np.mean(raw), abs=1e-12)


def test_ridge_band_earns_most_of_a_planted_edge_after_costs():
    # "Most": the same signal with its sign known exactly, traded through the same engine, is the yardstick.
    train, test = planted(seed=3), planted(seed=4)
    run = {
        name: runner.run_targets(test, targets, START, name, "base").log_growth
        for name, targets in {
            "band": baselines.all_targets(test, train)["ridge + band"],
            "sign": np.sign(test.observed[baselines.decision_rows(test), 0]).astype(float),
        }.items()
    }
    assert run["band"] > 0.9 * run["sign"] > 0


def dp_threshold(rho, deviation, cost):
    """Average-reward value iteration over (forecast, position) on a grid; the forecast at which long begins."""
    special = pytest.importorskip("scipy.special")
    sd = deviation / math.sqrt(1 - rho**2)
    grid = np.linspace(-4.5 * sd, 4.5 * sd, 241)
    edges = np.concatenate(([-np.inf], (grid[1:] + grid[:-1]) / 2, [np.inf]))
    move = np.diff(special.ndtr((edges[None] - rho * grid[:, None]) / deviation), axis=1)
    value = np.zeros((2, grid.size))  # held short, held long
    for _ in range(4000):
        ahead = value @ move.T
        choose = np.stack((-grid + ahead[0], grid + ahead[1]))  # go short, go long
        new = np.stack([np.max(choose - 2 * cost * (np.arange(2)[:, None] != w), axis=0) for w in (0, 1)])
        new -= new[0, grid.size // 2]
        if np.abs(new - value).max() < 1e-5 * cost:
            break
        value = new
    long = choose[1] - 2 * cost > choose[0]  # held short, turn long
    return float(grid[long].min())


@pytest.mark.parametrize(("rho", "cost"), [(0.9, 0.5), (0.95, 2.0), (0.98, 6.0)])
def test_band_is_that_of_dynamic_programming(rho, cost):
    # Units of the innovation; the correction for looking once a bar is itself good to about .1 of it.
    found = baselines.band_width(1 - rho, 1.0, cost)
    assert found == pytest.approx(dp_threshold(rho, 1.0, cost), abs=0.15)


def test_band_solves_the_published_equation():
    q = baselines.band_width(0.05, 1.0, 3.0) + 0.53
    s = 1 / math.sqrt(0.05)
    t = (np.arange(100_000) + 0.5) / 100_000 * q / s
    dawson = q / s * np.mean(np.exp(t**2 - (q / s) ** 2))  # by the midpoint rule
    assert q - s * dawson == pytest.approx(0.05 * 3.0, rel=1e-6)
    # For small costs the cube-root law: (3/2 cost deviation^2)^(1/3).
    small = baselines.band_width(1e-4, 1.0, 3.0) + 0.53
    assert small == pytest.approx((1.5 * 3.0) ** (1 / 3), rel=0.02)


def test_band_holds_between_its_edges():
    train = market_of(50)
    forecast = np.zeros(50)
    width = baselines.band_width(*baselines.mean_reversion(np.ones(50) * 1e-9), baselines.one_way_cost(train))
    forecast[[5, 20]] = 10.0 * width, -10.0 * width
    fitted = baselines.Fitted(np.ones(50) * 1e-9, forecast)
    found = baselines.band_targets(train, train, fitted)
    assert found.tolist() == [0.0] * 5 + [1.0] * 15 + [-1.0] * 29


# -- the bound -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("tier", "interval"), [("raw", 0), ("retail", 0), ("base", 120)])
def test_perfect_foresight_is_the_best_of_all_sequences(seed, tier, interval):
    # 7 decisions, each -1, 0 or 1: every one of 2,187 sequences is run through the engine.
    n = 8 if interval == 0 else 15
    config = TradingEnvConfig(decision_interval_min=interval)
    start = ["2017-01-03T15:00:00Z", "2017-01-04T19:00:00Z"][seed % 2]  # the second meets hours without trade
    market = market_of(n, config, seed=seed, tier=tier, sigma=8e-4, start=start)
    assert runner.decisions(market) == 7
    every = [
        runner.run_targets(market, np.array(t, float), START, "x", tier).log_growth
        for t in itertools.product((-1, 0, 1), repeat=7)
    ]
    targets = baselines.perfect_foresight(market)
    found = runner.run_targets(market, targets, START, "x", tier).log_growth
    assert found == pytest.approx(max(every), abs=2e-7)


def test_perfect_foresight_beats_every_other_baseline_and_pays_less_where_trading_is_dearer(market):
    growth = {
        name: runner.run_targets(market, targets, START, name, "base").log_growth
        for name, targets in baselines.all_targets(market, market_of(900, seed=1)).items()
    }
    assert max(growth, key=growth.get) == "perfect foresight (bound)"
    dear = runner.run_targets(
        market_of(tier="retail"), baselines.perfect_foresight(market_of(tier="retail")), START, "x", "retail"
    )
    cheap = runner.run_targets(market, baselines.perfect_foresight(market), START, "x", "base")
    assert dear.trades < cheap.trades


def test_one_way_cost_is_half_the_spread_and_the_fees(market):
    # Base: half of .55 bps + .32 + .155 = .75 bps.
    assert baselines.one_way_cost(market) == pytest.approx(0.75e-4, rel=1e-9)
    assert market.terms.commission == pytest.approx(0.32e-4)
