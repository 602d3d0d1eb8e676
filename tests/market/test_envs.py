"""The environment as Gymnasium sees it, and its clock, errors and statistics."""

import copy
import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
from gymnasium.utils.env_checker import check_env

from sac_kernel.core.errors import ConfigError, DataError, NonFiniteError
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.market import engine
from sac_kernel.market.account import REWARDS, TradingEnvConfig
from sac_kernel.market.envs import TradingEnvironment, TradingVectorEnv
from sac_kernel.market.market import prepare_market
from sac_kernel.market.records import Account, Trace, blank, new_table, one_row, to_matrix, to_table
from sac_kernel.prices import costs
from sac_kernel.prices.bars import Bars
from sac_kernel.stats import metrics
from tests.conftest import make_bars, make_data
from tests.support import says

ROOT = Path(__file__).resolve().parents[2]
CONFIG = TradingEnvConfig(horizon=50)


def accounts_of(env):
    """The accounts of a vector env by name."""
    return to_table(env.state()["accounts"], Account)


@pytest.fixture(scope="module")
def features(data):
    train, val, test = FeaturePipeline().run_full_pipeline(data.train, data.val, data.test)
    return {"train": train, "val": val, "test": test}


@pytest.fixture(scope="module")
def bars_of(data):
    return {name: split["EURUSD"] for name, split in data.splits.items()}


@pytest.fixture
def make_env(bars_of, features):
    def make(split="train", config=CONFIG, **kwargs):
        return TradingEnvironment(bars_of[split], features[split], config, **kwargs)

    return make


@pytest.fixture
def make_vector(bars_of, features):
    def make(num_envs=8, config=CONFIG, split="train"):
        market = prepare_market(bars_of[split], features[split], config, close_at_end=False)
        return TradingVectorEnv(market, config, num_envs)

    return make


def actions_for(n, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, n)


def play(env, actions, seed=0):
    """Return observations, rewards and infos of one episode, the reset's first."""
    obs, info = env.reset(seed=seed)
    seen, rewards, infos = [obs], [], [info]
    for action in actions:
        obs, reward, terminated, truncated, info = env.step(np.array([action], np.float32))
        seen.append(obs)
        rewards.append(reward)
        infos.append(info)
        if terminated or truncated:
            break
    return np.array(seen), np.array(rewards), infos


# -- Gymnasium


@pytest.mark.parametrize("eval_mode", [False, True])
def test_gymnasiums_own_checker_is_content(make_env, eval_mode):
    check_env(make_env(eval_mode=eval_mode), skip_render_check=True)


def test_gymnasiums_own_checker_is_content_with_a_registered_env_and_its_pictures(make_env):
    gym.register("SacTradingTest-v0", entry_point=make_env)
    try:
        env = gym.make("SacTradingTest-v0", render_mode="rgb_array")
        check_env(env.unwrapped)
    finally:
        del gym.registry["SacTradingTest-v0"]


def test_equal_seeds_are_equal_episodes_and_others_are_not(make_env):
    first, second = play(make_env(), actions_for(60), seed=3), play(make_env(), actions_for(60), seed=3)
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    other = play(make_env(), actions_for(60), seed=4)
    assert other[2][0]["open_time_utc"] != first[2][0]["open_time_utc"]


def test_a_reset_without_a_seed_goes_on_with_the_generator(make_env):
    env = make_env()
    starts = [env.reset(seed=5 if i == 0 else None)[1]["open_time_utc"] for i in range(6)]
    assert len(set(starts)) > 3


def test_a_copy_goes_on_as_the_original_and_apart_from_it(make_env):
    env = make_env()
    env.reset(seed=1)
    env.step(0.5)
    twin = copy.deepcopy(env)
    expected = [env.step(0.7)[1:4] for _ in range(5)]
    assert [twin.step(0.7)[1:4] for _ in range(5)] == expected
    assert np.array_equal(twin.reset()[0], env.reset()[0])
    assert twin.step(-1.0)[1:] == env.step(-1.0)[1:]


def test_an_episode_ends_by_truncation_after_its_horizon(make_env):
    _, rewards, _ = play(make_env(), actions_for(500))
    assert len(rewards) == 50


@pytest.mark.parametrize("cap", [1.0, 30.0])
def test_observations_stay_within_their_space(make_env, cap):
    env = make_env(config=TradingEnvConfig(horizon=300, exposure_cap=cap))
    seen, _, _ = play(env, np.sign(actions_for(300)))
    assert seen.dtype == np.float32
    assert all(env.observation_space.contains(obs) for obs in seen)
    assert np.abs(seen).max() <= 5.0


def test_the_space_owns_the_width_and_the_names_tell_each_number(make_env, features):
    env = make_env()
    names = env.observation_names
    assert env.observation_space.shape == (len(names),) == (22,)
    assert names[:16] == tuple(features["train"].columns)
    assert names[16:] == (
        *("trading_cost", "time_to_rollover", "can_trade"),
        *("position", "unrealised_pnl", "holding_time"),
    )
    assert env.action_space == gym.spaces.Box(-1.0, 1.0, (1,), np.float32)


def test_clock_features_say_what_an_order_now_would_meet(make_env):
    env = make_env(eval_mode=True)
    market, names = env.market, list(env.observation_names)
    close = market.open_time + pd.Timedelta(hours=1)
    cost = market.observed[:, names.index("trading_cost")]
    clock = close.tz_convert("America/New_York").hour
    # At 18:00 New York the spread is 3.5 times as wide: .55 x 3.5 / 2 + .475 = 1.4375 of .75 bps.
    assert cost[clock == 18] == pytest.approx(math.log(1.4375 / 0.75), abs=1e-6)
    assert cost[clock == 12] == pytest.approx(0.0, abs=1e-7)
    rollover = market.observed[:, names.index("time_to_rollover")]
    assert rollover[clock == 12] == pytest.approx(5 / 24, abs=1e-6)
    may = market.observed[:, names.index("can_trade")]
    assert may[(clock == 17) | (clock == 18)].max() == 0.0
    assert may[(clock != 17) & (clock != 18)].min() == 1.0


@pytest.mark.parametrize("action", [math.nan, math.inf, -math.inf])
def test_an_action_that_is_no_number_is_refused(make_env, make_vector, action):
    env = make_env()
    env.reset(seed=0)
    with pytest.raises(NonFiniteError, match=says(action, "bar ")):
        env.step(np.array([action]))
    vector = make_vector(3)
    vector.reset(seed=0)
    with pytest.raises(NonFiniteError, match=says(action, "env 1")):
        vector.step(np.array([[0.0], [action], [0.0]]))


@pytest.mark.parametrize("action", [0.5, np.float32(0.5), [0.5], np.array([0.5]), np.array(0.5)])
def test_an_action_may_be_a_number_or_an_array_of_one(make_env, action):
    env = make_env()
    env.reset(seed=0)
    expected = make_env()
    expected.reset(seed=0)
    assert env.step(action)[1] == expected.step(np.array([0.5], np.float32))[1]


# -- the clock


def future_edited(bars, t, seed=9):
    edited = bars.copy()
    edited.iloc[t + 1 :] *= np.random.default_rng(seed).uniform(0.7, 1.4, (len(bars) - t - 1, 1))
    return edited


def test_editing_the_next_open_changes_the_reward_and_nothing_seen_before_it(bars_of, features, make_env):
    seen, rewards, infos = play(make_env(), actions_for(50), seed=1)
    bars = bars_of["train"]
    rows = bars.index.get_indexer([info["open_time_utc"] for info in infos])
    # The first decision from the tenth on whose next open is not frozen; it is given at the close of `row`.
    k = 10 + int(np.argmax(costs.is_tradable(bars.index[rows[10:-1] + 1])))
    row = rows[k]
    edited = bars.copy()
    low, high = edited.iloc[row + 1][["low", "high"]]
    edited.iloc[row + 1, 0] = low + 0.9 * (high - low)
    env = TradingEnvironment(edited, features["train"], CONFIG)
    seen_now, rewards_now, infos_now = play(env, actions_for(50), seed=1)
    assert np.array_equal(seen[: k + 1], seen_now[: k + 1])
    assert [str(info) for info in infos[: k + 1]] == [str(info) for info in infos_now[: k + 1]]
    assert np.array_equal(rewards[:k], rewards_now[:k])
    assert abs(rewards[k] - rewards_now[k]) > 1e-7


def test_no_bar_after_t_reaches_an_observation_or_info_at_t(data, make_env):
    seen, rewards, infos = play(make_env(), actions_for(50), seed=2)
    row = data.train["EURUSD"].index.get_loc(infos[20]["open_time_utc"])
    edited = {"EURUSD": future_edited(data.train["EURUSD"], row)}
    pipeline = FeaturePipeline()
    pipeline.run_full_pipeline(data.train, data.val, data.test)
    frozen = FeaturePipeline.from_state(pipeline.state())
    features, _, _ = frozen.run_full_pipeline(edited, data.val, data.test)
    seen_now, rewards_now, infos_now = play(
        TradingEnvironment(edited["EURUSD"], features, CONFIG), actions_for(50), 2
    )
    assert np.array_equal(seen[:21], seen_now[:21])
    assert np.array_equal(rewards[:20], rewards_now[:20])
    assert [str(info) for info in infos[:21]] == [str(info) for info in infos_now[:21]]
    assert not np.array_equal(rewards[20:], rewards_now[20:])


def test_a_market_cut_short_is_the_beginning_of_the_whole(bars_of, features):
    bars, table = bars_of["val"], features["val"]
    whole = prepare_market(bars, table, CONFIG, close_at_end=True)
    part = prepare_market(bars.iloc[:100], table.iloc[:100], CONFIG, close_at_end=True)
    assert np.array_equal(part.bars, whole.bars[:100])
    assert np.array_equal(part.observed, whole.observed[:100])


def test_the_reward_is_the_change_of_log_equity(make_env):
    _, rewards, infos = play(make_env(), actions_for(50))
    equity = np.array([info["equity"] for info in infos])
    assert rewards == pytest.approx(np.diff(np.log(equity)), abs=1e-12)


def test_an_edge_does_not_hide_in_the_evening_spread():
    # The mid stands still; the bid falls as the spread opens at 17:00 and recovers by 19:30. With bid taken
    # for mid, the cost flat and orders free, long from 17:05 to 19:00 earns; here no window of the day does.
    times = pd.date_range("2017-01-09", periods=5 * 288, freq="5min", tz="UTC")
    spread = costs.spread_bps(times, "base") * 1e-4
    # A bar shows the bid at its open; its close is the next bar's open.
    bid = 1.0 / (1.0 + spread / 2)
    close = np.append(bid[1:], bid[-1])
    bars = pd.DataFrame(
        {"open": bid, "high": np.maximum(bid, close), "low": np.minimum(bid, close), "close": close}, times
    )
    bars = Bars(bars, side="bid", seconds=300)
    nothing = pd.DataFrame({"zero": np.zeros(len(bars), np.float32)}, times)
    minute = np.asarray(
        times.tz_convert("America/New_York").hour * 60 + times.tz_convert("America/New_York").minute
    )

    def earned(market, start, end):
        held = ((minute >= start) & (minute < end)).astype(float)[1:]
        state, trace = blank(Account), new_table(Trace, len(held))
        engine.reset(state, market.bars, market.terms, 0, 10**6, 1.0, 0.0)
        engine.run_targets(state, market.bars, market.minutes, market.terms, held, trace)
        return math.log(state.equity), state.trades

    for tier in costs.COST_TIERS:
        config = TradingEnvConfig(cost_tier=tier, swap_long_bps=0.0)
        market = prepare_market(bars, nothing, config, close_at_end=True)
        windows = [(s, s + length) for s in range(0, 1380, 30) for length in (30, 60, 120, 240)]
        assert max(earned(market, *window)[0] for window in [*windows, (1025, 1140)]) <= 1e-12
        assert earned(market, 960, 1200)[1] > 0  # there were trades to lose with
    naive = prepare_market(
        Bars(bars, side="mid"), nothing, TradingEnvConfig(cost_tier="raw"), close_at_end=True
    )
    naive.bars["tradable"] = 1.0
    naive.bars["spread_open"] = naive.bars["spread_close"] = 0.48 * 0.55e-4
    assert earned(naive, 1025, 1140)[0] > 4 * 1e-4 * 0.5  # the artefact that the rules above remove


# -- what info says


def test_info_has_what_users_read(make_env):
    _, _, infos = play(make_env(), actions_for(10))
    assert set(infos[0]) >= {"equity", "total_return", "sharpe_ratio", "max_drawdown", "costs"}
    assert set(infos[0]["costs"]) == {"spread", "commission", "slippage", "swap"}
    assert infos[0]["equity"] == 100_000.0
    assert infos[-1]["total_return"] == pytest.approx(infos[-1]["equity"] / 100_000.0 - 1.0, abs=1e-15)
    assert math.isnan(infos[-1]["sharpe_ratio"])


def test_info_tells_the_bar_just_closed(make_env, bars_of):
    _, _, infos = play(make_env(eval_mode=True), actions_for(5))
    times = [info["open_time_utc"] for info in infos]
    assert times == list(bars_of["train"].index[48:54])  # the first bar after the warm-up of two days


def test_statistics_of_a_whole_pass_are_those_of_its_equity_curve(make_env):
    env = make_env(eval_mode=True)
    _, rewards, infos = play(env, actions_for(5000))
    market = env.market
    assert len(rewards) == len(market.bars) - 1 - 48
    equity = np.array([info["equity"] for info in infos[1:]])
    day = market.bars["trading_day"][49:].astype(np.int64)
    last = infos[-1]
    daily = metrics.daily_returns(equity, day, 100_000.0)
    assert last["sharpe_ratio"] == pytest.approx(metrics.sharpe_ann(daily), rel=1e-9)
    assert last["max_drawdown"] == pytest.approx(
        metrics.max_drawdown(np.concatenate(([100_000.0], equity))), abs=1e-12
    )
    assert 0.0 < last["max_drawdown"] < 1.0
    assert last["total_return"] == pytest.approx(math.expm1(rewards.sum()), abs=1e-10)
    assert last["position"] == 0.0


def test_sharpe_is_nan_until_twenty_days_have_ended(make_env):
    env = make_env(eval_mode=True)
    _, _, infos = play(env, actions_for(5000))
    day = env.market.bars["trading_day"][49:].astype(np.int64)
    equity = np.array([info["equity"] for info in infos[1:]])
    sharpe = np.array([info["sharpe_ratio"] for info in infos[1:]])
    finished = np.array([len(np.unique(day[: i + 1])) - 1 for i in range(len(day))])
    assert np.isnan(sharpe[finished < 20]).all()
    some = np.flatnonzero(finished >= 20)[:-1:97]
    assert len(some) >= 5
    ended = [day[: i + 1] < day[i] for i in some]
    expected = [
        metrics.sharpe_ann(metrics.daily_returns(equity[: len(e)][e], day[: len(e)][e], 1e5)) for e in ended
    ]
    assert sharpe[some] == pytest.approx(expected, rel=1e-9)


def test_evaluation_starts_flat_at_the_first_features_and_closes_at_the_end(make_env):
    env = make_env("test", eval_mode=True)
    _, rewards, infos = play(env, np.full(5000, 0.7))
    assert infos[0]["position"] == 0.0
    assert infos[-2]["position"] == pytest.approx(0.7, abs=0.05)
    assert infos[-1]["position"] == 0.0
    assert infos[-1]["trades"] == 2
    assert len(rewards) == len(env.market.bars) - 1


def test_evaluation_is_one_path_whatever_the_seed(make_env):
    first = play(make_env("val", eval_mode=True), actions_for(99), seed=1)
    second = play(make_env("val", eval_mode=True), actions_for(99), seed=2)
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


def test_a_decision_interval_makes_fewer_longer_steps(make_env):
    config = TradingEnvConfig(decision_interval_min=240)
    env = make_env("val", config, eval_mode=True)
    _, rewards, infos = play(env, actions_for(5000))
    bars = len(env.market.bars) - 1
    assert len(rewards) == -(-bars // 4)
    index = list(env.market.open_time)
    assert [index.index(info["open_time_utc"]) for info in infos[:4]] == [0, 4, 8, 12]
    assert rewards.sum() == pytest.approx(math.log(infos[-1]["equity"] / 100_000.0), abs=1e-12)


def test_training_starts_anywhere_and_at_any_exposure(make_env):
    env = make_env()
    infos = [env.reset(seed=seed)[1] for seed in range(60)]
    rows = env.market.open_time.get_indexer([info["open_time_utc"] for info in infos])
    assert rows.min() >= 48
    assert rows.max() <= len(env.market.bars) - 1 - 50
    assert np.ptp(rows) > 0.7 * len(env.market.bars)
    positions = np.array([info["position"] for info in infos])
    assert positions.min() < -0.7
    assert positions.max() > 0.7
    assert all(info["equity"] == 100_000.0 for info in infos)


def test_accounts_of_a_vector_start_anywhere_from_full_short_to_full_long(make_vector):
    env = make_vector(400)
    env.reset(seed=0)
    starts = accounts_of(env)["target"]
    assert -1.0 <= starts.min() < -0.9
    assert 0.9 < starts.max() <= 1.0
    assert abs(starts.mean()) < 0.12  # four of the mean's standard deviations, .577 / sqrt(400)


def test_a_vector_of_no_accounts_is_refused(make_vector):
    with pytest.raises(ConfigError, match=says("TradingVectorEnv", "num_envs", "0")):
        make_vector(0)


def test_training_can_start_flat(make_env):
    env = make_env(config=TradingEnvConfig(horizon=50, random_start_position=False))
    assert [env.reset(seed=seed)[1]["position"] for seed in range(5)] == [0.0] * 5


# -- what is refused


def test_features_of_other_bars_are_refused(bars_of, features):
    with pytest.raises(DataError, match=says(len(features["val"]), len(bars_of["train"]), "2017-")):
        TradingEnvironment(bars_of["train"], features["val"], CONFIG)


def test_a_missing_feature_value_is_named(bars_of, features):
    table = features["train"].copy()
    table.iloc[100, 5] = np.nan
    with pytest.raises(DataError, match=says(table.columns[5], table.index[100])):
        TradingEnvironment(bars_of["train"], table, CONFIG)


def test_features_that_never_begin_are_refused(bars_of, features):
    with pytest.raises(DataError, match=says("eurusd_return_1h")):
        TradingEnvironment(bars_of["train"], features["train"] * np.nan, CONFIG)


def test_bars_without_a_price_side_are_refused_unless_it_is_told(bars_of, features):
    bars = pd.DataFrame(bars_of["train"])
    with pytest.raises(DataError, match=says("TradingEnvConfig(price_side=...)", "Bars(bars, side=...)")):
        TradingEnvironment(bars, features["train"], CONFIG)
    told = TradingEnvironment(bars, features["train"], TradingEnvConfig(horizon=50, price_side="bid"))
    own = TradingEnvironment(bars_of["train"], features["train"], CONFIG)
    assert np.array_equal(play(told, actions_for(50))[1], play(own, actions_for(50))[1])


@pytest.mark.parametrize("side", ["bid", "ask", "mid"])
def test_the_price_side_matters_said_by_the_bars_or_stated(bars_of, features, side):
    said, plain = Bars(bars_of["train"], side=side), pd.DataFrame(bars_of["train"])
    stated = TradingEnvConfig(horizon=50, price_side=side)
    for bars, config in ((said, CONFIG), (said, stated), (plain, stated)):
        env = TradingEnvironment(bars, features["train"], config)
        assert env.market.terms[0] == {"bid": 1.0, "ask": -1.0, "mid": 0.0}[side]


def test_a_stated_side_that_the_bars_deny_is_refused(bars_of, features):
    with pytest.raises(DataError, match=says("bid", "ask")):
        TradingEnvironment(bars_of["train"], features["train"], TradingEnvConfig(price_side="ask"))


def test_fewer_bars_than_the_horizon_are_refused(bars_of, features):
    # 480 validation bars less the embargo; no warm-up there.
    n = len(bars_of["val"])
    config = TradingEnvConfig(horizon=n)
    with pytest.raises(DataError, match=says(n, n - 1, "env_horizon", "env_episode_length")):
        TradingEnvironment(bars_of["val"], features["val"], config)
    market = prepare_market(bars_of["val"], features["val"], config, close_at_end=False)
    with pytest.raises(DataError, match=says(n, n - 1, "env_horizon", "env_episode_length")):
        TradingVectorEnv(market, config, 4)
    exact = TradingEnvironment(bars_of["val"], features["val"], TradingEnvConfig(horizon=n - 1))
    assert len(play(exact, actions_for(n))[1]) == n - 1


def test_evaluation_needs_a_bar_to_trade_in(bars_of, features):
    # Only the last row has features: there is no next open. An episode here would never end.
    table = features["val"].copy()
    table.iloc[:-1] = np.nan
    with pytest.raises(DataError, match=says(len(table))):
        TradingEnvironment(bars_of["val"], table, CONFIG, eval_mode=True)


def test_an_interval_that_is_no_multiple_of_the_bar_is_refused(make_env):
    with pytest.raises(DataError, match=says("decision_interval_min", 60, 90)):
        make_env(config=TradingEnvConfig(horizon=50, decision_interval_min=90))


def test_unusable_bars_are_refused_with_the_first_of_them(bars_of, features):
    bars = bars_of["train"].copy()
    bars.iloc[7, 1] = bars.iloc[7, 2] * 0.5
    with pytest.raises(DataError, match=says("high", "low", 1, 1440, "bar 7")):
        TradingEnvironment(bars, features["train"], CONFIG)


# -- many accounts


def test_the_vector_env_is_gymnasiums(make_vector):
    env = make_vector(8)
    assert isinstance(env, gym.vector.VectorEnv)
    assert env.metadata["autoreset_mode"] is gym.vector.AutoresetMode.SAME_STEP
    assert env.observation_space.shape == (8, 22)
    assert env.action_space.shape == (8, 1)
    obs, infos = env.reset(seed=0)
    assert infos == {}
    assert env.observation_space.contains(obs)
    env.action_space.seed(0)
    for _ in range(120):
        obs, rewards, terminated, truncated, infos = env.step(env.action_space.sample())
        assert env.observation_space.contains(obs)
        assert (rewards.shape, rewards.dtype) == ((8,), np.float64)
        assert (terminated.shape, terminated.dtype) == ((8,), np.bool_)
        assert (truncated.shape, truncated.dtype) == ((8,), np.bool_)
        assert not (terminated & truncated).any()
        assert np.isfinite(rewards).all()
    env.close()


def test_equal_seeds_are_equal_vectors(make_vector):
    first, second, other = make_vector(), make_vector(), make_vector()
    starts = [env.reset(seed=seed)[0] for env, seed in ((first, 1), (second, 1), (other, 2))]
    assert np.array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[0], starts[2])
    actions = np.random.default_rng(0).uniform(-1, 1, (120, 8, 1))
    for action in actions:
        one, two = first.step(action), second.step(action)
        assert np.array_equal(one[0], two[0])
        assert np.array_equal(one[1], two[1])


def test_ages_are_desynchronised_at_the_start_alone(make_vector):
    env = make_vector(200)
    env.reset(seed=0)
    left = accounts_of(env)["bars_left"]
    assert left.min() >= 1
    assert left.max() <= 50
    assert len(np.unique(left)) > 40
    ended = []
    for _ in range(50):
        _, _, _, truncated, _ = env.step(np.zeros((200, 1)))
        ended.append(int(truncated.sum()))
    assert sum(ended) == 200  # each once in its first 50 steps
    assert max(ended) < 20
    assert set(accounts_of(env)["bars_left"]) <= set(range(1, 51))


def test_accounts_start_inside_the_block_and_never_leave_it(make_vector):
    env = make_vector(300)
    env.reset(seed=3)
    accounts = accounts_of(env)
    end = accounts["t"] + accounts["bars_left"]
    assert accounts["t"].min() >= 48
    assert end.max() <= len(env.market.bars) - 1
    assert len(np.unique(accounts["t"])) > 200


def test_each_account_is_a_single_env_action_by_action(make_vector, make_env):
    vector, singles = make_vector(4), [make_env() for _ in range(4)]
    obs, _ = vector.reset(seed=7)
    for single, account, row in zip(singles, accounts_of(vector), obs, strict=True):
        single.reset(seed=0)
        single._state[:] = account.item()
        assert np.array_equal(single._observe(), row)
    ended = 0
    for action in np.random.default_rng(1).uniform(-1, 1, (130, 4, 1)):
        obs, rewards, terminated, truncated, infos = vector.step(action)
        for i, single in enumerate(singles):
            own, reward, ended_by_ruin, cut, _ = single.step(action[i])
            assert (reward, ended_by_ruin, cut) == (rewards[i], terminated[i], truncated[i])
            if cut:
                ended += 1
                assert infos["_final_obs"][i]
                assert np.array_equal(infos["final_obs"][i], own)
                single._state[:] = accounts_of(vector)[i].item()
            assert np.array_equal(single._observe(), obs[i])
    assert ended >= 8


def test_the_step_that_ends_an_account_shows_the_next_ones_start(make_vector):
    env = make_vector(3)
    env.reset(seed=0)
    for _ in range(60):
        obs, _, _, truncated, infos = env.step(np.zeros((3, 1)))
        assert ("final_obs" in infos) == truncated.any()
        if truncated.any():
            break
    accounts = accounts_of(env)
    i = int(np.argmax(truncated))
    assert (accounts[i].bars_left, accounts[i].truncated, accounts[i].equity) == (50, 0, 100_000.0)
    assert infos["_final_obs"].tolist() == truncated.tolist()
    assert not np.array_equal(infos["final_obs"][i], obs[i])
    assert np.array_equal(env.restore(env.state()), obs)


def test_a_ruined_account_terminates_and_starts_again(make_vector):
    env = make_vector(2)
    env.reset(seed=0)
    state = env.state()
    accounts = accounts_of(env)
    accounts[0].cash, accounts[0].units = 5.0, 0.0  # 5 of 100,000 left
    state["accounts"] = to_matrix(accounts)
    env.restore(state)
    _, rewards, terminated, truncated, infos = env.step(np.zeros((2, 1)))
    assert terminated.tolist() == [True, False]
    assert not truncated[0]
    assert math.isfinite(rewards[0])
    assert infos["_final_obs"].tolist() == [True, False]
    assert accounts_of(env)["equity"][0] == 100_000.0


def test_a_restored_vector_goes_on_bit_for_bit(make_vector):
    actions = np.random.default_rng(2).uniform(-1, 1, (150, 6, 1))
    env = make_vector(6)
    env.reset(seed=11)
    for action in actions[:40]:
        obs, *_ = env.step(action)
    saved = env.state()
    expected = [env.step(action) for action in actions[40:]]
    other = make_vector(6)
    assert np.array_equal(other.restore(saved), obs)
    for action, (obs_then, rewards_then, *_) in zip(actions[40:], expected, strict=True):
        obs_now, rewards_now = other.step(action)[:2]
        assert np.array_equal(obs_now, obs_then)
        assert np.array_equal(rewards_now, rewards_then)
    assert any(truncated.any() for *_, truncated, _infos in expected)  # the generator was used on the way


def test_what_a_step_returned_is_not_changed_by_the_next(make_vector):
    env = make_vector(3)
    env.reset(seed=0)
    obs, rewards, *_ = env.step(np.ones((3, 1)))
    kept = obs.copy(), rewards.copy()
    env.step(-np.ones((3, 1)))
    assert np.array_equal(obs, kept[0])
    assert np.array_equal(rewards, kept[1])


def test_infos_of_ended_accounts_are_laid_out_as_gymnasium_does(make_env, bars_of, features):
    # The same two accounts in Gymnasium's own vector env and in ours, ended in the same step.
    config = TradingEnvConfig(horizon=30)
    theirs = gym.vector.SyncVectorEnv(
        [lambda: make_env(config=config)] * 2, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP
    )
    theirs.reset(seed=[3, 4])
    market = prepare_market(bars_of["train"], features["train"], config, close_at_end=False)
    ours = TradingVectorEnv(market, config, 2)
    ours.reset(seed=0)
    ours.restore(
        {
            "accounts": np.concatenate([to_matrix(one_row(env._account)) for env in theirs.envs]),
            "rng": ours.state()["rng"],
        }
    )
    for action in np.random.default_rng(0).uniform(-1, 1, (30, 2, 1)).astype(np.float32):
        expected, infos = theirs.step(action), ours.step(action)[-1]
    assert expected[3].tolist() == [True, True]
    wanted = expected[-1]
    assert infos["_final_info"].tolist() == wanted["_final_info"].tolist() == [True, True]
    assert np.array_equal(infos["final_obs"], np.stack(list(wanted["final_obs"])))
    flat, wanted_flat = flattened(infos["final_info"]), flattened(wanted["final_info"])
    assert flat.keys() == wanted_flat.keys()
    for name, values in flat.items():
        assert values.dtype == wanted_flat[name].dtype, name
        assert values.tolist() == wanted_flat[name].tolist() or name == "sharpe_ratio", name


def flattened(infos):
    flat = {}
    for name, value in infos.items():
        flat |= flattened(value) if isinstance(value, dict) else {name: value}
    return flat


def test_only_ended_accounts_have_a_final_info(make_vector):
    env = make_vector(20)
    env.reset(seed=0)
    seen = 0
    for _ in range(60):
        before = accounts_of(env)
        _, _, _, truncated, infos = env.step(np.full((20, 1), 0.5))
        assert ("final_info" in infos) == truncated.any()
        if truncated.any():
            final = infos["final_info"]
            assert infos["_final_info"].tolist() == final["_equity"].tolist() == truncated.tolist()
            # One bar moves equity by little: it is the old account's, not the fresh 100,000.
            assert final["equity"][truncated] == pytest.approx(before["equity"][truncated], rel=0.02)
            assert not np.any(final["equity"][~truncated])
            seen += int(truncated.sum())
    assert seen >= 20


# -- other libraries


def test_stable_baselines_checks_and_trains_on_it(make_env):
    pytest.importorskip("stable_baselines3")
    from stable_baselines3 import SAC
    from stable_baselines3.common.env_checker import check_env as check_sb3

    env = make_env()
    check_sb3(env)
    model = SAC(
        "MlpPolicy",
        env,
        learning_starts=60,
        batch_size=16,
        policy_kwargs={"net_arch": [8]},
        seed=0,
        device="cpu",
    )
    model.learn(160)
    action, _ = model.predict(env.reset(seed=1)[0], deterministic=True)
    assert env.action_space.contains(action)
    assert model.num_timesteps == 160
    assert model._n_updates == 100


# -- sizes, limits, rewards, minutes


def test_the_page_on_the_account_names_every_option_but_those_of_the_episode():
    page = (ROOT / "docs" / "account.md").read_text(encoding="utf-8")
    elsewhere = {"cost_tier", "episode_lengths", "horizon", "initial_equity", "price_side"}
    elsewhere |= {"costs", "swap_long_bps", "swap_short_bps"}
    names = {field.name for field in dataclasses.fields(TradingEnvConfig)} - elsewhere
    assert {name for name in names if f"`{name}`" not in page} == set()
    assert {name for name in REWARDS if f"`{name}`" not in page} == set()


def test_the_volatility_target_sets_the_size_from_each_close(make_env):
    config = TradingEnvConfig(horizon=50, exposure_cap=2.0, volatility_target=0.1)
    bars = make_env(config=config).market.bars
    # Hourly bars, 24 x 260 a year; the walk's sigma of .001 an hour is 8 % a year: 1.27 of a cap of 2.
    wanted = np.minimum(2.0, 0.1 / (bars["volatility"] * math.sqrt(24 * 260))) / 2.0
    assert bars["cap_share"] == pytest.approx(wanted, rel=1e-12)
    assert 0.5 < np.median(bars["cap_share"][48:]) < 0.8
    env = make_env(config=config, eval_mode=True)
    env.reset()
    _, _, _, _, info = env.step(1.0)
    account = env._account
    filled = 2.0 * env.market.bars["cap_share"][int(account.t) - 1]
    assert info["position"] == pytest.approx(filled, rel=1e-2)


def test_the_atr_size_risks_its_share_over_so_many_true_ranges(bars_of, features):
    config = TradingEnvConfig(horizon=50, exposure_cap=30.0, atr_risk=0.02, atr_window_min=480)
    market = prepare_market(bars_of["train"], features["train"], config, close_at_end=False)
    # Wilder's average by hand over the first week, which has no hole: hours 1 to 8, then one eighth a time.
    bars = np.log(bars_of["train"].iloc[:100][["high", "low", "close"]].to_numpy())
    ranges = [
        max(h, before) - min(low, before) for (h, low, _), before in zip(bars[1:], bars[:-1, 2], strict=True)
    ]
    average = np.mean(ranges[:8])
    for t in range(9, 100):
        average += (ranges[t - 1] - average) / 8
        assert market.bars["cap_share"][t] * 30 == pytest.approx(min(30, 0.02 / (2 * average)), rel=1e-3)


def test_the_spread_of_a_full_positions_reward_follows_cap_interval_and_size(make_env):
    def sd(**config):
        return make_env(config=TradingEnvConfig(horizon=50, **config)).market.reward_sd

    assert sd() == pytest.approx(1e-3, rel=0.1)  # the bars' sigma an hour
    assert sd(exposure_cap=5.0, decision_interval_min=240) == pytest.approx(10 * sd(), rel=1e-12)
    # A target of 4 % a year is about half of the bars' 8 %.
    assert sd(volatility_target=0.04) == pytest.approx(0.04 / math.sqrt(24 * 260), rel=0.1)
    assert sd(reward="differential_sharpe") == 1.0


def test_sizes_know_only_the_past(bars_of, features):
    config = TradingEnvConfig(horizon=50, volatility_target=0.05, atr_risk=0.001)
    whole = prepare_market(bars_of["val"], features["val"], config, close_at_end=True)
    part = prepare_market(bars_of["val"].iloc[:100], features["val"].iloc[:100], config, close_at_end=True)
    assert np.array_equal(part.bars, whole.bars[:100])
    assert whole.bars["cap_share"].max() < 1.0


def test_options_add_their_numbers_to_the_observation_and_nothing_else_does(make_env):
    plain = make_env().observation_names
    limits = make_env(config=TradingEnvConfig(horizon=50, kill_loss=0.5))
    assert limits.observation_names == (*plain, "halted")
    both = make_env(config=TradingEnvConfig(horizon=50, drawdown_stop=0.5, reward="differential_sharpe"))
    assert both.observation_names == (*plain, "halted", "sharpe_mean", "sharpe_rms")
    check_env(both, skip_render_check=True)
    assert (
        make_env(config=TradingEnvConfig(horizon=50, volatility_target=0.1, impact=1.0)).observation_names
        == plain
    )


def test_a_halted_account_says_so(make_env):
    env = make_env(config=TradingEnvConfig(horizon=500, exposure_cap=30.0, kill_loss=0.01))
    _, _, infos = play(env, np.sign(actions_for(500)))
    halted = [info["halted"] for info in infos]
    assert halted == sorted(halted)
    assert halted[-1]
    assert infos[-1]["position"] == 0.0


def test_the_expected_reward_needs_an_expectation_and_evaluation_does_not(bars_of, features):
    config = TradingEnvConfig(horizon=50, reward="denoised")
    with pytest.raises(DataError, match=says("denoised", "prepare_market", "return_forecast")):
        TradingEnvironment(bars_of["train"], features["train"], config)
    judged = TradingEnvironment(bars_of["train"], features["train"], config, eval_mode=True)
    _, rewards, infos = play(judged, actions_for(50))
    equity = np.array([info["equity"] for info in infos])
    assert rewards == pytest.approx(np.diff(np.log(equity)), abs=1e-12)


def test_the_expected_reward_of_the_realised_return_differs_by_gaps_alone(bars_of, features):
    bars, table = bars_of["train"], features["train"]
    plain = TradingEnvironment(bars, table, TradingEnvConfig(horizon=400))
    known = plain.market.mid_return
    env = TradingEnvironment(
        bars, table, TradingEnvConfig(horizon=400, reward="denoised"), return_forecast=known
    )
    assert env.market.return_forecast is known
    paid, realised = (play(e, actions_for(400), seed=2) for e in (env, plain))
    assert [i["equity"] for i in paid[2]] == [i["equity"] for i in realised[2]]
    # Opens lie 1e-4 off the close before (a tenth of a bar's sigma): that is all the difference, times exposure.
    difference = paid[1] - realised[1]
    assert np.corrcoef(paid[1], realised[1])[0, 1] > 0.95
    assert 1e-6 < difference.std() < 3e-4


def test_mid_return_is_the_move_of_mid_to_the_next_close(bars_of, features):
    market = prepare_market(bars_of["val"], features["val"], CONFIG, close_at_end=True)
    close = bars_of["val"]["close"].to_numpy()
    last_second = bars_of["val"].index + pd.Timedelta(seconds=3599)
    mid = close * (1 + costs.spread_bps(last_second, "base") * 1e-4 / 2)
    assert market.mid_return[:-1] == pytest.approx(np.diff(np.log(mid)), abs=1e-15)
    assert math.isnan(market.mid_return[-1])


def test_no_return_reaches_over_a_hole_but_over_a_weekend_it_does(bars_of, features):
    bars = bars_of["val"]
    weekend = int(np.argmax(np.diff(bars.index) > np.timedelta64(24, "h")))
    late = bars.index + pd.Timedelta(days=5) * (np.arange(len(bars)) > weekend + 20).astype(int)
    moved, seen = bars.set_axis(late), features["val"].set_axis(late)
    market = prepare_market(moved, seen, CONFIG, close_at_end=False)
    assert np.flatnonzero(np.isnan(market.mid_return)).tolist() == [weekend + 20, len(bars) - 1]


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        (np.zeros(7), ("(1440,)", "(7,)")),
        (np.full(1440, np.nan), ("NaN", "2017-")),
    ],
)
def test_an_unusable_expectation_is_refused(bars_of, features, expected, found):
    with pytest.raises(DataError, match=says("return_forecast", *found)):
        prepare_market(
            bars_of["train"], features["train"], CONFIG, close_at_end=False, return_forecast=expected
        )


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (
            {"reward": "sharpe"},
            ("reward", "log_return, mean_variance, differential_sharpe, denoised", "'sharpe'"),
        ),
        ({"reward": "denoised", "stop_loss_bps": 50.0}, ("denoised", "stop_loss_bps", 50.0)),
        ({"reward": "denoised", "drawdown_stop": 0.1}, ("denoised", "drawdown_stop", 0.1)),
        ({"reward": "denoised", "exposure_cap": 2.0}, ("denoised", "exposure_cap", 2.0)),
        ({"daily_loss_limit": 1.0}, ("daily_loss_limit", 1.0)),
        ({"kill_loss": -0.1}, ("kill_loss", -0.1)),
        ({"volatility_target": -1.0}, ("volatility_target", -1.0)),
        ({"daily_volume": 0.0}, ("daily_volume", 0.0)),
        ({"sharpe_rate": 0.0}, ("sharpe_rate", 0.0)),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(values, found):
    with pytest.raises(ConfigError, match=says(*found)):
        TradingEnvConfig(**values)


def minutes_and_bars():
    """A day of minutes with some missing, and the five-minute bars they make."""
    minute = make_bars(1440, bar_seconds=60, sigma=1e-4)
    minute = minute.drop(minute.index[[0, 7, 8, 33, *range(100, 105)]])
    bars = (
        minute.resample("5min").agg({"open": "first", "high": "max", "low": "min", "close": "last"}).dropna()
    )
    bars = Bars(bars, side="bid", seconds=300)
    return minute, bars, pd.DataFrame({"zero": np.zeros(len(bars), np.float32)}, bars.index)


def test_minutes_that_make_up_a_bar_stand_beside_it():
    minute, bars, nothing = minutes_and_bars()
    bars.iloc[50, 1] += 1e-3  # a high that no minute shows: this bar's minutes are not known
    market = prepare_market(bars, nothing, CONFIG, close_at_end=True, minute_bars=minute)
    inside = to_matrix(market.minutes).reshape(len(bars), 5, 3)
    assert np.isnan(inside[50]).all()
    known = ~np.isnan(inside[:, 0, 0])
    assert known.sum() == len(bars) - 1
    assert np.nanmax(inside[known, :, 1], axis=1) == pytest.approx(bars["high"].to_numpy()[known])
    assert np.nanmin(inside[known, :, 2], axis=1) == pytest.approx(bars["low"].to_numpy()[known])
    third = minute.loc[bars.index[3] : bars.index[3] + pd.Timedelta(minutes=4)]
    assert inside[3].tolist() == third[["open", "high", "low"]].to_numpy().tolist()
    assert np.isnan(inside[1, 2:4]).all()  # minutes 7 and 8 have no bar
    assert inside[0, 0].tolist() == [bars["open"].iloc[0]] * 3  # nor has minute 0: it repeats the open


def test_minutes_of_something_else_are_refused():
    minute, bars, nothing = minutes_and_bars()
    with pytest.raises(DataError, match=says("minute_bars", "287", "1431")):
        prepare_market(bars, nothing, CONFIG, close_at_end=True, minute_bars=minute * 1.001)


def test_minutes_change_nothing_where_no_level_is_touched(bars_of):
    minute, bars, nothing = minutes_and_bars()
    config = TradingEnvConfig(horizon=100)
    envs = [
        TradingEnvironment(bars, nothing, config, eval_mode=True, minute_bars=each) for each in (None, minute)
    ]
    assert [env.market.minutes.shape for env in envs] == [
        (len(bars), 0),
        (len(bars), 5),
    ]  # the minutes are there
    plain, minutely = (play(env, actions_for(500)) for env in envs)
    assert np.array_equal(plain[0], minutely[0])
    assert np.array_equal(plain[1], minutely[1])


# -- pictures and imports


def test_render_gives_a_picture_of_the_episode(make_env):
    env = make_env(render_mode="rgb_array")
    play(env, actions_for(30))
    picture = env.render()
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert picture.std() > 5  # something is drawn
    assert make_env().render() is None


def test_the_environment_never_imports_the_framework():
    code = "import sys, sac_kernel.market.envs; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_bars_of_fifteen_minutes_make_an_environment():
    data = make_data(6000, bar_seconds=900)
    train, *_ = FeaturePipeline().run_full_pipeline(data.train, data.val, data.test)
    env = TradingEnvironment(data.train["EURUSD"], train, TradingEnvConfig(horizon=100))
    assert len(play(env, actions_for(200))[1]) == 100
    assert env.market.first_bar == 192


def test_a_default_environment_needs_no_config():
    data = make_data(8000)
    train, *_ = FeaturePipeline().run_full_pipeline(data.train, data.val, data.test)
    env = TradingEnvironment(data.train["EURUSD"], train)
    assert env.config == TradingEnvConfig()
    assert len(play(env, np.zeros(3001))[1]) == 3000


def test_bars_straight_from_a_frame_are_enough(features):
    bars = make_bars(300)
    table = pd.DataFrame({"zero": np.zeros(300, np.float32)}, bars.index)
    config = TradingEnvConfig(episode_lengths=[100])
    assert len(play(TradingEnvironment(bars, table, config), actions_for(200))[1]) == 100


def test_a_late_step_costs_what_an_early_one_does(make_env):
    """No work over the past: statistics are kept as the account goes. Calls are counted, Python's and C's."""
    env = make_env(config=TradingEnvConfig(horizon=400))
    env.reset(seed=0)
    counts = []
    for k in range(390):
        calls = []
        sys.setprofile(lambda _frame, event, _arg, calls=calls: calls.append(event))
        try:
            env.step(np.array([0.5 if k % 2 else -0.5], np.float32))
        finally:
            sys.setprofile(None)
        counts.append(len(calls))
    assert max(counts[340:]) <= max(counts[5:50])
