"""A market as a problem of exact SAC: what is stated is what the engine pays, and only the past is looked at."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from sac_kernel import bar_engine
from sac_kernel.agent.exact import ExactConfig, position_grid, train_exact
from sac_kernel.bar_engine import Acc, Bar, Par
from sac_kernel.errors import ConfigError, DataError
from sac_kernel.experiment.exact_problem import (
    decisions,
    exact_problem,
    forecast_target,
    greedy_targets,
    path_dependent_settings,
)
from sac_kernel.market import TradingEnvConfig, prepare_market
from tests.conftest import make_bars

GRID = position_grid(21)


def make_market(kind="fx", hours=1, bars=1200, seed=0, **changes):
    """Hourly FX with weekends and freeze, or a share in half hours from 09:30 to 16:00 New York."""
    if kind == "fx":
        data = make_bars(bars, seed)
    else:
        data = make_bars(8 * bars, seed, bar_seconds=1800, sigma=1e-3)
        minute = data.index.tz_convert("America/New_York")
        minute = minute.hour * 60 + minute.minute
        inside = (minute >= 570) & (minute < 960)
        night = np.append(False, np.diff(np.flatnonzero(inside)) > 1)
        attrs, data = data.attrs, data[inside][:bars].copy()
        data.attrs = attrs
        jump = np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 5e-3, len(data)) * night[: len(data)]))
        data[["open", "high", "low", "close"]] *= jump[:, None]
    features = pd.DataFrame(
        np.random.default_rng(1).standard_normal((len(data), 3)).astype(np.float32), index=data.index
    )
    config = TradingEnvConfig(decision_interval_min=60 * hours, **changes)
    return prepare_market(data, features, config, close_at_end=False)


def engine_reward(market, row, position, target):
    state = np.zeros(len(Acc))
    left = len(market.bars) - 1 - row
    bar_engine.reset(state, market.bars, market.par, row, left, 1e5, position)
    return bar_engine.step(state, market.bars, market.par, target)


def largest_return(market, problem, row):
    """The largest absolute return of a unit inside the decision at `row`: between any two prices, or of a trade's cost.

    A trade of a unit pays its one-way cost and is marked half a spread lower; in a quiet hour that is all there is.
    """
    bars, side = market.bars[row : row + market.interval_bars + 1], market.par[Par.SIDE]
    close = bars[:, Bar.CLOSE] * (1 + side * bars[:, Bar.SPREAD_CLOSE] / 2)
    opened = bars[1:, Bar.OPEN] * (1 + side * bars[1:, Bar.SPREAD_OPEN] / 2)
    path = np.concatenate((close, opened))
    return max(
        np.abs(path[:, None] / path - 1).max(), problem.cost[row] + bars[:, Bar.SPREAD_CLOSE].max() / 2
    )


# Held exposures drift, and what trading and marking them costs: more than a square where costs exceed an hour's move.
@pytest.mark.parametrize(("tier", "drift"), [("raw", 0.0), ("base", 0.0), ("spec", 1.0)])
@pytest.mark.parametrize("hours", [1, 4])
@pytest.mark.parametrize("kind", ["fx", "equity"])
def test_what_is_stated_is_what_the_engine_pays(kind, hours, tier, drift):
    market = make_market(kind, hours, cost_tier=tier)
    problem = exact_problem(market)
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
    gap = market.bars[rows + 1, Bar.OPEN] / market.bars[rows, Bar.CLOSE] - 1
    assert np.abs(gap).max() > (5e-3 if kind == "equity" else 2e-4)


def test_a_smaller_cap_states_smaller_rewards():
    whole, half = (exact_problem(make_market(exposure_cap=cap)) for cap in (1.0, 0.5))
    for name in ("returns", "cost", "holding_cost", "before_fill"):
        np.testing.assert_allclose(getattr(half, name), 0.5 * getattr(whole, name), rtol=1e-12)
    np.testing.assert_allclose(half.variance, 0.25 * whole.variance, rtol=1e-12)
    market = make_market(exposure_cap=0.5)
    row = int(half.starts[100])
    stated = half.reward(np.array([row]), np.array([20]), np.array([0]), GRID)[0]
    assert stated == pytest.approx(engine_reward(market, row, 1.0, -1.0), abs=1e-5)
    assert abs(stated) > 5e-5


# -- five bars by hand ------------------------------------------------------------------------------------


def hand_market(tradable, interval):
    """Six mid bars whose opens and closes are round, a unit spread table that is zero, one night after bar 2."""
    market = make_market(bars=200)
    bars = market.bars[:6].copy()
    bars[:, Bar.OPEN] = [100, 101, 102, 104, 104, 100]
    bars[:, Bar.CLOSE] = [100, 102, 103, 104, 102, 100]
    bars[:, [Bar.SPREAD_OPEN, Bar.SPREAD_CLOSE, Bar.NIGHTS_GAP, Bar.NIGHTS_BAR]] = 0.0
    bars[3, Bar.NIGHTS_GAP] = 1.0
    bars[:, Bar.TRADABLE] = tradable
    par = market.par.copy()
    par[[Par.SIDE, Par.INTERVAL, Par.SWAP_LONG, Par.SWAP_SHORT]] = 0.0, interval, 6e-5, 3e-5
    return dataclasses.replace(
        market, bars=bars, par=par, observed=market.observed[:6], first_bar=0, open_time=market.open_time[:6]
    )


def arrays_of(market):
    """Rewards' parts of all rows, whatever their number: five bars are too few for a problem."""
    from sac_kernel.experiment import exact_problem as module

    return module._moves(market)


def test_a_gap_and_its_night_belong_to_the_position_before():
    moves = arrays_of(hand_market([1, 1, 1, 1, 1, 1], 1))
    np.testing.assert_allclose(moves.before, [101 / 100 - 1, 0, 104 / 103 - 1, 0, 100 / 102 - 1])
    np.testing.assert_allclose(moves.after, [102 / 101 - 1, 103 / 102 - 1, 0, 102 / 104 - 1, 0])
    np.testing.assert_array_equal(moves.nights_before, [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(moves.nights_after, np.zeros(5))


def test_an_order_waits_for_the_first_open_that_can_be_traded():
    moves = arrays_of(hand_market([1, 0, 0, 1, 1, 1], 3))
    np.testing.assert_allclose(moves.before, [104 / 100 - 1, 104 / 102 - 1, 104 / 103 - 1])
    np.testing.assert_allclose(moves.after, [0, 102 / 104 - 1, 100 / 104 - 1])
    np.testing.assert_array_equal(moves.nights_before, [1, 1, 1])


def test_where_nothing_can_fill_the_whole_decision_belongs_to_the_position_before():
    moves = arrays_of(hand_market([1, 0, 0, 0, 1, 1], 3))
    assert moves.before[0] == pytest.approx(104 / 100 - 1)
    assert moves.after[0] == 0.0
    assert moves.nights_before[0] == 1.0
    assert moves.nights_after[0] == 0.0


def restless_policy(market):
    """A policy of random weights, large enough to trade at almost every bar."""
    config = ExactConfig(hidden_dims=(16,))
    policy = train_exact(exact_problem(market), config, 0)
    weights = torch.randn(policy.weights.shape, generator=torch.Generator().manual_seed(0))
    return dataclasses.replace(policy, weights=weights)


# -- what may be looked at ------------------------------------------------------------------------------


def test_the_spread_of_the_fill_changes_no_decision_before_it():
    market = make_market(seed=3)
    policy = restless_policy(market)
    before = greedy_targets(market, policy)
    assert len(np.unique(before)) > 3
    fill = 700
    bars = market.bars.copy()
    bars[fill:, [Bar.SPREAD_OPEN, Bar.SPREAD_CLOSE]] *= 50.0
    edited = dataclasses.replace(market, bars=bars)
    np.testing.assert_array_equal(greedy_targets(edited, policy), before)
    known, own = decisions(edited), decisions(market)
    assert all(np.array_equal(a, b) for a, b in zip(known, own, strict=True))


@pytest.mark.parametrize("hours", [1, 4])
def test_later_prices_change_nothing_that_a_decision_looks_at(hours):
    market = make_market(hours=hours)
    bars = market.bars.copy()
    bars[500:, : Bar.CLOSE + 1] *= 1.5
    edited = dataclasses.replace(market, bars=bars)
    assert all(np.array_equal(a, b) for a, b in zip(decisions(edited), decisions(market), strict=True))


def test_the_cost_is_that_of_the_open_at_which_the_order_fills():
    market = make_market(hours=4)
    known = decisions(market)
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
    np.testing.assert_array_equal(decisions(market).tradable[:-1], (hour != 17) & (hour != 18))


def test_the_users_own_spread_forecast_is_the_cost():
    market = make_market()
    known = decisions(market, np.full(len(market.bars), 4e-4))
    np.testing.assert_allclose(known.cost, 2e-4 + 0.475e-4, rtol=1e-3)


# -- rows that are starts, and the forecast ---------------------------------------------------------------


@pytest.mark.parametrize("hours", [1, 4])
def test_no_start_has_a_hole_in_its_decision_or_the_next(hours):
    data_market = make_market(hours=hours)
    time = data_market.open_time
    time = time[:600].append(time[600:] + pd.Timedelta(days=14))
    valid = exact_problem(dataclasses.replace(data_market, open_time=time)).valid
    whole = exact_problem(data_market).valid
    lost = np.flatnonzero(whole & ~valid)
    np.testing.assert_array_equal(lost, np.arange(600 - 2 * hours, 600))
    assert np.flatnonzero(valid)[-1] == len(data_market.bars) - 1 - 2 * hours


@pytest.mark.parametrize("hours", [1, 4])
def test_the_forecast_is_of_what_the_new_target_earns(hours):
    market, gamma = make_market(hours=hours), 0.9
    target = forecast_target(market, gamma)
    problem = exact_problem(market)
    row = int(np.flatnonzero(np.isfinite(target))[300])
    fill = row + 1 + int(np.argmax(market.bars[row + 1 :, Bar.TRADABLE]))
    end = row + hours
    next_fill = end + 1 + int(np.argmax(market.bars[end + 1 :, Bar.TRADABLE]))
    mid = lambda column, spread, t: market.bars[t, column] * (1 + market.bars[t, spread] / 2)  # noqa: E731
    opened = lambda t: mid(Bar.OPEN, Bar.SPREAD_OPEN, t)  # noqa: E731
    closed = mid(Bar.CLOSE, Bar.SPREAD_CLOSE, end)
    expected = closed / opened(fill) - 1 + gamma * (opened(next_fill) / closed - 1)
    assert target[row] == pytest.approx(expected, rel=1e-9)
    assert not np.isfinite(target[: len(problem.valid)][~problem.tradable]).any()
    assert (np.isfinite(target[: len(problem.valid)]) == (problem.valid & problem.tradable)).all()


def test_a_forecast_takes_the_place_of_all_moves_and_of_nothing_else():
    market = make_market()
    forecast = np.random.default_rng(0).normal(0, 1e-4, len(market.bars))
    problem, real = exact_problem(market, forecast=forecast), exact_problem(market)
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
        {"volatility_target": 0.02},
    ],
    ids=str,
)
def test_an_account_whose_path_matters_is_refused_by_the_settings_name(change):
    market = make_market(**change)
    (name,) = change
    assert name in " ".join(path_dependent_settings(market))
    with pytest.raises(ConfigError, match=name):
        exact_problem(market)
    assert path_dependent_settings(make_market()) == []


def test_a_forecast_of_another_length_is_refused():
    market = make_market()
    with pytest.raises(DataError, match=f"{len(market.bars)}"):
        exact_problem(market, forecast=np.zeros(7))


@pytest.mark.parametrize(("hours", "found"), [(1, "18 of 19"), (12, "20 bars")])
def test_too_few_bars_are_refused(hours, found):
    with pytest.raises(DataError, match=found):
        exact_problem(make_market(hours=hours, bars=20))


# -- through the engine -------------------------------------------------------------------------------------


def test_a_policy_that_holds_sends_no_order_for_500_bars():
    market = make_market()
    policy = train_exact(exact_problem(market, forecast=np.zeros(len(market.bars))), ExactConfig(), 100)
    values = policy.values(market.observed)
    state, known = np.zeros(len(Acc)), decisions(market)
    first = market.first_bar
    bar_engine.reset(
        state, market.bars, market.par, first, len(market.bars) - 1 - first, 1e5, 0.3712345678901
    )
    for _ in range(500):
        row = int(state[Acc.T])
        target = policy.target(
            market.observed[row : row + 1], state[[Acc.TARGET]], known.cost[row], known.tradable[row]
        )
        bar_engine.step(state, market.bars, market.par, target[0])
    assert state[Acc.TRADES] == 0.0
    assert state[Acc.TARGET] == 0.3712345678901
    assert np.ptp(values, axis=1).max() > 0.0  # it holds although its values are not all equal


def test_a_pass_follows_its_own_filled_targets():
    market = make_market(hours=4)
    policy = restless_policy(market)
    targets, known = greedy_targets(market, policy), decisions(market)
    rows = np.arange(market.first_bar, len(market.bars) - 1, 4)
    held = np.append(0.0, targets[:-1])
    np.testing.assert_array_equal(
        policy.target(known.features[rows], held, known.cost[rows], known.tradable[rows]), targets
    )
    assert len(np.unique(targets)) > 3
