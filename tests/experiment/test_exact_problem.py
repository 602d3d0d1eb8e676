"""A market as a problem of exact SAC: what is stated is what the engine pays, and only the past is looked at."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from sac_kernel.agent.exact import train_exact
from sac_kernel.agent.exact_config import ExactConfig
from sac_kernel.agent.exact_grid import position_grid
from sac_kernel.core.errors import ConfigError, DataError
from sac_kernel.experiment.exact_problem import (
    decisions,
    exact_problem,
    greedy_targets,
)
from sac_kernel.experiment.learner import path_dependent_settings
from sac_kernel.market import decision_bars, engine
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.decision_bars import forecast_target
from sac_kernel.market.market import prepare_market
from sac_kernel.market.records import PRICES, Account, blank
from tests.conftest import make_bars

GRID = position_grid(21)


def account(hours=1, **changes):
    return TradingEnvConfig(decision_interval_min=60 * hours, **changes)


HOURLY = account()


def make_market(config=HOURLY, kind="fx", bars=1200, seed=0):
    """Hourly FX with weekends and freeze, or a share in half hours from 09:30 to 16:00 New York."""
    if kind == "fx":
        data = make_bars(bars, seed)
    else:
        data = make_bars(8 * bars, seed, bar_seconds=1800, sigma=1e-3)
        minute = data.index.tz_convert("America/New_York")
        minute = minute.hour * 60 + minute.minute
        inside = (minute >= 570) & (minute < 960)
        night = np.append(False, np.diff(np.flatnonzero(inside)) > 1)
        data = data[inside][:bars].copy()
        jump = np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 5e-3, len(data)) * night[: len(data)]))
        for name in PRICES:
            data[name] *= jump
    features = pd.DataFrame(
        np.random.default_rng(1).standard_normal((len(data), 3)).astype(np.float32), index=data.index
    )
    return prepare_market(data, features, config, close_at_end=False)


def engine_reward(market, row, position, target):
    state, bars, terms = blank(Account), market.bars, market.terms
    engine.reset(state, bars, terms, row, len(bars) - 1 - row, 1e5, position)
    return engine.step(state, bars, market.minutes, terms, target)


def largest_return(market, problem, row):
    """The largest absolute return of a unit inside the decision at `row`: between any two prices, or of a trade's cost.

    A trade of a unit pays its one-way cost and is marked half a spread lower; in a quiet hour that is all there is.
    """
    bars, side = market.bars[row : row + market.interval_bars + 1], market.terms.price_side
    close = bars["close"] * (1 + side * bars["spread_close"] / 2)
    opened = bars["open"][1:] * (1 + side * bars["spread_open"][1:] / 2)
    path = np.concatenate((close, opened))
    return max(np.abs(path[:, None] / path - 1).max(), problem.cost[row] + bars["spread_close"].max() / 2)


# Held exposures drift, and what trading and marking them costs: more than a square where costs exceed an hour's move.
@pytest.mark.parametrize(("tier", "drift"), [("raw", 0.0), ("base", 0.0), ("retail", 1.0)])
@pytest.mark.parametrize("hours", [1, 4])
@pytest.mark.parametrize("kind", ["fx", "equity"])
def test_what_is_stated_is_what_the_engine_pays(kind, hours, tier, drift):
    config = account(hours, cost_tier=tier)
    market = make_market(config, kind)
    problem = exact_problem(market, config)
    rng = np.random.default_rng(7)
    rows = rng.permutation(problem.starts)[:800]
    held, wanted = rng.integers(21, size=(2, len(rows)))
    stated = problem.reward(rows, held, wanted, GRID)
    paid = np.array([engine_reward(market, *c) for c in zip(rows, GRID[held], GRID[wanted], strict=True)])
    largest = np.array([largest_return(market, problem, row) for row in rows])
    bound = 2.0 * (np.abs(GRID[held]) + np.abs(GRID[wanted])) ** 2 * largest**2 + 1e-9
    bound += drift * 2.0 * problem.cost[rows] * (np.abs(GRID[held]) + np.abs(GRID[wanted])) * largest
    assert (np.abs(stated - paid) <= bound).all()
    # The sample has what is hard: rows that cannot fill, fills that wait, gaps over nights and weekends.
    assert (~problem.tradable[rows]).any() == (kind == "fx" and hours == 1)
    gap = market.bars["open"][rows + 1] / market.bars["close"][rows] - 1
    assert np.abs(gap).max() > (5e-3 if kind == "equity" else 2e-4)


def test_a_smaller_cap_states_smaller_rewards():
    configs = account(exposure_cap=1.0), account(exposure_cap=0.5)
    whole, half = (exact_problem(make_market(config), config) for config in configs)
    for name in ("returns", "cost", "holding_cost", "before_fill"):
        np.testing.assert_allclose(getattr(half, name), 0.5 * getattr(whole, name), rtol=1e-12)
    np.testing.assert_allclose(half.variance, 0.25 * whole.variance, rtol=1e-12)
    market = make_market(configs[1])
    row = int(half.starts[100])
    stated = half.reward(np.array([row]), np.array([20]), np.array([0]), GRID)[0]
    assert stated == pytest.approx(engine_reward(market, row, 1.0, -1.0), abs=1e-5)
    assert abs(stated) > 5e-5


# -- five bars by hand ------------------------------------------------------------------------------------


def hand_market(tradable, interval):
    """Six mid bars whose opens and closes are round, a unit spread table that is zero, one night after bar 2."""
    market = make_market(bars=200)
    bars, terms = market.bars[:6].copy(), market.terms.copy()
    bars["open"] = [100, 101, 102, 104, 104, 100]
    bars["close"] = [100, 102, 103, 104, 102, 100]
    for name in ("spread_open", "spread_close", "nights_gap", "nights_bar"):
        bars[name] = 0.0
    bars["nights_gap"][3] = 1.0
    bars["tradable"] = tradable
    terms.price_side, terms.interval_bars = 0.0, interval
    return dataclasses.replace(
        market,
        bars=bars,
        terms=terms,
        observed=market.observed[:6],
        first_bar=0,
        open_time=market.open_time[:6],
    )


def test_a_gap_and_its_night_belong_to_the_position_before():
    moves = decision_bars.unit_moves(hand_market([1, 1, 1, 1, 1, 1], 1))
    np.testing.assert_allclose(moves.before, [101 / 100 - 1, 0, 104 / 103 - 1, 0, 100 / 102 - 1])
    np.testing.assert_allclose(moves.after, [102 / 101 - 1, 103 / 102 - 1, 0, 102 / 104 - 1, 0])
    np.testing.assert_array_equal(moves.nights_before, [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(moves.nights_after, np.zeros(5))


def test_an_order_waits_for_the_first_open_that_can_be_traded():
    moves = decision_bars.unit_moves(hand_market([1, 0, 0, 1, 1, 1], 3))
    np.testing.assert_allclose(moves.before, [104 / 100 - 1, 104 / 102 - 1, 104 / 103 - 1])
    np.testing.assert_allclose(moves.after, [0, 102 / 104 - 1, 100 / 104 - 1])
    np.testing.assert_array_equal(moves.nights_before, [1, 1, 1])


def test_where_nothing_can_fill_the_whole_decision_belongs_to_the_position_before():
    moves = decision_bars.unit_moves(hand_market([1, 0, 0, 0, 1, 1], 3))
    assert moves.before[0] == pytest.approx(104 / 100 - 1)
    assert moves.after[0] == 0.0
    assert moves.nights_before[0] == 1.0
    assert moves.nights_after[0] == 0.0


def restless_policy(market):
    """A policy of random weights, large enough to trade at almost every bar."""
    config = ExactConfig(hidden_dims=(16,))
    policy = train_exact(exact_problem(market, account(market.interval_bars)), config, 0)
    weights = torch.randn(policy.weights.shape, generator=torch.Generator().manual_seed(0))
    return dataclasses.replace(policy, weights=weights)


# -- what may be looked at ------------------------------------------------------------------------------


def test_the_spread_of_the_fill_changes_no_decision_before_it():
    market = make_market(seed=3)
    policy = restless_policy(market)
    own = decisions(market, HOURLY)
    before = greedy_targets(market, policy, own)
    assert len(np.unique(before)) > 3
    fill = 700
    bars = market.bars.copy()
    for name in ("spread_open", "spread_close"):
        bars[name][fill:] *= 50.0
    edited = dataclasses.replace(market, bars=bars)
    known = decisions(edited, HOURLY)
    np.testing.assert_array_equal(greedy_targets(edited, policy, known), before)
    assert all(np.array_equal(a, b) for a, b in zip(known, own, strict=True))


@pytest.mark.parametrize("hours", [1, 4])
def test_later_prices_change_nothing_that_a_decision_looks_at(hours):
    config = account(hours)
    market = make_market(config)
    bars = market.bars.copy()
    for name in PRICES:
        bars[name][500:] *= 1.5
    seen = [decisions(m, config) for m in (market, dataclasses.replace(market, bars=bars))]
    assert all(np.array_equal(a, b) for a, b in zip(*seen, strict=True))


def test_the_cost_is_that_of_the_open_at_which_the_order_fills():
    market = make_market(account(4))
    known = decisions(market, account(4))
    minute = market.open_time.tz_convert("America/New_York")
    hour = minute.hour[1:-5]  # of the open after each close
    waits = (hour == 17) & (minute.hour[3:-3] == 19)  # frozen until 19:00
    assert waits.sum() > 20
    np.testing.assert_allclose(known.cost[:-6][hour == 10], (0.55 / 2 + 0.32 + 0.155) * 1e-4, rtol=1e-4)
    np.testing.assert_allclose(known.cost[:-6][waits], (1.2 * 0.55 / 2 + 0.32 + 0.155) * 1e-4, rtol=1e-4)
    assert known.tradable[:-6][waits].all()


def test_in_the_freeze_an_hourly_decision_cannot_be_filled():
    market = make_market()
    hour = market.open_time.tz_convert("America/New_York").hour[1:]
    np.testing.assert_array_equal(decisions(market, HOURLY).tradable[:-1], (hour != 17) & (hour != 18))


def test_the_users_own_spread_forecast_is_the_cost():
    market = make_market()
    known = decisions(market, HOURLY, np.full(len(market.bars), 4e-4))
    np.testing.assert_allclose(known.cost, 2e-4 + 0.475e-4, rtol=1e-3)


# -- rows that are starts, and the forecast ---------------------------------------------------------------


@pytest.mark.parametrize("hours", [1, 4])
def test_no_start_has_a_hole_in_its_decision_or_the_next(hours):
    config = account(hours)
    market = make_market(config)
    time = market.open_time
    time = time[:600].append(time[600:] + pd.Timedelta(days=14))
    valid = exact_problem(dataclasses.replace(market, open_time=time), config).valid
    whole = exact_problem(market, config).valid
    lost = np.flatnonzero(whole & ~valid)
    np.testing.assert_array_equal(lost, np.arange(600 - 2 * hours, 600))
    assert np.flatnonzero(valid)[-1] == len(market.bars) - 1 - 2 * hours


@pytest.mark.parametrize("hours", [1, 4])
def test_the_forecast_is_of_what_the_new_target_earns(hours):
    market, gamma = make_market(account(hours)), 0.9
    target = forecast_target(market, gamma)
    problem = exact_problem(market, account(hours))
    row = int(np.flatnonzero(np.isfinite(target))[300])
    fill = row + 1 + int(np.argmax(market.bars["tradable"][row + 1 :]))
    end = row + hours
    next_fill = end + 1 + int(np.argmax(market.bars["tradable"][end + 1 :]))
    opened = market.bars["open"] * (1 + market.bars["spread_open"] / 2)  # mid of bid bars
    closed = market.bars["close"][end] * (1 + market.bars["spread_close"][end] / 2)
    expected = closed / opened[fill] - 1 + gamma * (opened[next_fill] / closed - 1)
    assert target[row] == pytest.approx(expected, rel=1e-9)
    assert not np.isfinite(target[: len(problem.valid)][~problem.tradable]).any()
    assert (np.isfinite(target[: len(problem.valid)]) == (problem.valid & problem.tradable)).all()


def test_a_forecast_takes_the_place_of_all_moves_and_of_nothing_else():
    market = make_market()
    forecast = np.random.default_rng(0).normal(0, 1e-4, len(market.bars))
    problem, real = exact_problem(market, HOURLY, forecast=forecast), exact_problem(market, HOURLY)
    fills = problem.tradable
    np.testing.assert_array_equal(problem.returns[fills], forecast[: problem.rows][fills])
    assert (problem.returns[~fills] == 0.0).all()
    np.testing.assert_array_equal(problem.holding_cost, real.holding_cost)
    np.testing.assert_allclose(
        problem.before_fill[:, 0] - real.before_fill[:, 0], real.before_fill[:, 20] - problem.before_fill[:, 20],
        atol=1e-15,
    )  # fmt: skip
    assert np.abs(problem.before_fill).max() < 2.5e-4  # swap of a three-night Wednesday and half spreads
    assert np.abs(real.before_fill).max() > 1e-3


# -- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"stop_loss_bps": 50.0},
        {"take_profit_bps": 50.0},
        {"daily_loss_limit": 0.02},
        {"drawdown_stop": 0.1},
        {"kill_loss": 0.5},
        {"impact": 1.0},
        {"exposure_cap": 2.0},
        {"volatility_target": 10.0},  # even where the size stays at the cap
        {"atr_risk": 0.01},
        {"no_trade_band": 0.1},
    ],
    ids=str,
)
def test_an_account_whose_path_matters_is_refused_by_the_settings_name(change):
    config = account(**change)
    (name,) = change
    assert path_dependent_settings(config) == [name]
    with pytest.raises(ConfigError, match=name):
        exact_problem(make_market(config), config)
    assert path_dependent_settings(HOURLY) == []


@pytest.mark.parametrize(
    ("own", "other", "place"),
    [
        ({}, {"cost_tier": "raw"}, "commission"),
        ({}, {"hours": 4}, "interval_bars"),
        ({"exposure_cap": 0.5}, {}, "exposure_cap"),
        ({"volatility_target": 0.02}, {}, "sizes"),
    ],
)
def test_a_config_that_is_not_the_markets_is_refused(own, other, place):
    market = make_market(account(**own))
    for use in (decisions, exact_problem):
        with pytest.raises(ConfigError, match=place):
            use(market, account(**other))


def test_a_forecast_of_another_length_is_refused():
    market = make_market()
    with pytest.raises(DataError, match=f"{len(market.bars)}"):
        exact_problem(market, HOURLY, forecast=np.zeros(7))


@pytest.mark.parametrize(("hours", "found"), [(1, "18"), (12, "20")])
def test_too_few_bars_are_refused(hours, found):
    with pytest.raises(DataError, match=found):
        exact_problem(make_market(account(hours), bars=20), account(hours))


# -- through the engine -------------------------------------------------------------------------------------


def test_a_policy_that_holds_sends_no_order_for_500_bars():
    market = make_market()
    held, bars, terms = 0.3712345678901, market.bars, market.terms
    policy = train_exact(exact_problem(market, HOURLY, forecast=np.zeros(len(bars))), ExactConfig(), 100)
    values = policy.values(market.observed)
    state, known, first = blank(Account), decisions(market, HOURLY), market.first_bar
    engine.reset(state, bars, terms, first, len(bars) - 1 - first, 1e5, held)
    for _ in range(500):
        row = int(state.t)
        target = policy.target(
            market.observed[row : row + 1], [state.target], known.cost[row], known.tradable[row]
        )
        engine.step(state, bars, market.minutes, terms, target[0])
    assert state.trades == 0.0
    assert state.target == held
    assert np.ptp(values, axis=1).max() > 0.0  # it holds although its values are not all equal


def test_a_pass_follows_its_own_filled_targets():
    market = make_market(account(4))
    policy, known = restless_policy(market), decisions(market, account(4))
    targets = greedy_targets(market, policy, known)
    rows = np.arange(market.first_bar, len(market.bars) - 1, 4)
    held = np.append(0.0, targets[:-1])
    np.testing.assert_array_equal(
        policy.target(known.features[rows], held, known.cost[rows], known.tradable[rows]), targets
    )
    assert len(np.unique(targets)) > 3
