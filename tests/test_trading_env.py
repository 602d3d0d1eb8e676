"""The environment as Gymnasium sees it, and its clock, errors and statistics."""

import math
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
from gymnasium.utils.env_checker import check_env

from sac_kernel import bar_engine, market_costs, metrics
from sac_kernel.bar_engine import Acc, Bar
from sac_kernel.errors import DataError, NonFiniteError
from sac_kernel.feature_engineering import FeaturePipeline
from sac_kernel.trading_env import (
    TradingEnvConfig,
    TradingEnvironment,
    TradingVectorEnv,
    prepare_market,
)
from tests.conftest import make_bars, make_data

ROOT = Path(__file__).resolve().parents[1]
CONFIG = TradingEnvConfig(horizon=50)


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
    with pytest.raises(
        NonFiniteError, match=r"trading_env\.step: a finite action is required, got .* at bar \d+"
    ):
        env.step(np.array([action]))
    vector = make_vector(3)
    vector.reset(seed=0)
    with pytest.raises(NonFiniteError, match=r"finite actions are required, got .* for env 1"):
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
    k = 10 + int(np.argmax(market_costs.is_tradable(bars.index[rows[10:-1] + 1])))
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
    edited["EURUSD"].attrs = data.train["EURUSD"].attrs
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
    spread = market_costs.spread_bps(times, "base") * 1e-4
    # A bar shows the bid at its open; its close is the next bar's open.
    bid = 1.0 / (1.0 + spread / 2)
    close = np.append(bid[1:], bid[-1])
    bars = pd.DataFrame(
        {"open": bid, "high": np.maximum(bid, close), "low": np.minimum(bid, close), "close": close}, times
    )
    bars.attrs = {"price_side": "bid", "bar_seconds": 300}
    nothing = pd.DataFrame({"zero": np.zeros(len(bars), np.float32)}, times)
    minute = np.asarray(
        times.tz_convert("America/New_York").hour * 60 + times.tz_convert("America/New_York").minute
    )

    def earned(market, start, end):
        held = ((minute >= start) & (minute < end)).astype(float)[1:]
        state = np.zeros(len(Acc))
        bar_engine.reset(state, market.bars, market.par, 0, 10**6, 1.0, 0.0)
        bar_engine.run_targets(state, market.bars, market.par, held, np.zeros((len(held), 4)))
        return math.log(state[Acc.EQUITY]), state[Acc.TRADES]

    for tier in market_costs.COST_TIERS:
        config = TradingEnvConfig(cost_tier=tier, swap_long_bps=0.0)
        market = prepare_market(bars, nothing, config, close_at_end=True)
        windows = [(s, s + length) for s in range(0, 1380, 30) for length in (30, 60, 120, 240)]
        assert max(earned(market, *window)[0] for window in [*windows, (1025, 1140)]) <= 1e-12
        assert earned(market, 960, 1200)[1] > 0  # there were trades to lose with
    naive = prepare_market(
        bars, nothing, TradingEnvConfig(cost_tier="raw", price_side="mid"), close_at_end=True
    )
    naive.bars[:, Bar.TRADABLE] = 1.0
    naive.bars[:, [Bar.SPREAD_OPEN, Bar.SPREAD_CLOSE]] = 0.48 * 0.55e-4
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
    day = market.bars[49:, Bar.DAY].astype(np.int64)
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
    day = env.market.bars[49:, Bar.DAY].astype(np.int64)
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


def test_training_can_start_flat(make_env):
    env = make_env(config=TradingEnvConfig(horizon=50, random_start_position=False))
    assert [env.reset(seed=seed)[1]["position"] for seed in range(5)] == [0.0] * 5


# -- what is refused


def test_features_of_other_bars_are_refused(bars_of, features):
    expected = (
        r"trading_env: features on the bars' own index are required, found \d+ rows from 2017.* for \d+ bars"
    )
    with pytest.raises(DataError, match=expected):
        TradingEnvironment(bars_of["train"], features["val"], CONFIG)


def test_a_missing_feature_value_is_named(bars_of, features):
    table = features["train"].copy()
    table.iloc[100, 5] = np.nan
    when = str(table.index[100]).replace("+", r"\+")
    expected = f"trading_env: finite features are required after the warm-up, found eurusd_.* = .* at {when}"
    with pytest.raises(DataError, match=expected):
        TradingEnvironment(bars_of["train"], table, CONFIG)


def test_features_that_never_begin_are_refused(bars_of, features):
    with pytest.raises(
        DataError, match="finite features are required after the warm-up, found eurusd_return_1h"
    ):
        TradingEnvironment(bars_of["train"], features["train"] * np.nan, CONFIG)


def test_bars_without_a_price_side_are_refused_unless_it_is_told(bars_of, features):
    bars = bars_of["train"].copy()
    bars.attrs = {}
    expected = (
        r"trading_env: the bars' price side \(bid, ask or mid\) is required, found None; read them with"
    )
    with pytest.raises(DataError, match=expected):
        TradingEnvironment(bars, features["train"], CONFIG)
    told = TradingEnvironment(bars, features["train"], TradingEnvConfig(horizon=50, price_side="bid"))
    own = TradingEnvironment(bars_of["train"], features["train"], CONFIG)
    assert np.array_equal(play(told, actions_for(50))[1], play(own, actions_for(50))[1])


@pytest.mark.parametrize("side", ["bid", "ask", "mid"])
def test_the_price_side_matters(make_env, side):
    env = make_env(config=TradingEnvConfig(horizon=50, price_side=side))
    assert env.market.par[0] == {"bid": 1.0, "ask": -1.0, "mid": 0.0}[side]


def test_fewer_bars_than_the_horizon_are_refused(bars_of, features):
    # 480 validation bars less the embargo; no warm-up there.
    n = len(bars_of["val"])
    config = TradingEnvConfig(horizon=n)
    expected = (
        rf"trading_env: {n} bars \(horizon\) after the warm-up are required, found {n - 1} of {n}; "
        rf"give more bars, or set env_horizon \(or env_episode_length\) to {n - 1} or less"
    )
    with pytest.raises(DataError, match=expected):
        TradingEnvironment(bars_of["val"], features["val"], config)
    market = prepare_market(bars_of["val"], features["val"], config, close_at_end=False)
    with pytest.raises(DataError, match=expected):
        TradingVectorEnv(market, config, 4)
    exact = TradingEnvironment(bars_of["val"], features["val"], TradingEnvConfig(horizon=n - 1))
    assert len(play(exact, actions_for(n))[1]) == n - 1


def test_evaluation_needs_a_bar_to_trade_in(bars_of, features):
    # Only the last row has features: there is no next open. An episode here would never end.
    table = features["val"].copy()
    table.iloc[:-1] = np.nan
    with pytest.raises(DataError, match=r"trading_env: .*required.*found"):
        TradingEnvironment(bars_of["val"], table, CONFIG, eval_mode=True)


def test_an_interval_that_is_no_multiple_of_the_bar_is_refused(make_env):
    expected = r"decision_interval_min must be a multiple of the bar \(60 min\), got 90"
    with pytest.raises(DataError, match=expected):
        make_env(config=TradingEnvConfig(horizon=50, decision_interval_min=90))


def test_unusable_bars_are_refused_with_the_first_of_them(bars_of, features):
    bars = bars_of["train"].copy()
    bars.iloc[7, 1] = bars.iloc[7, 2] * 0.5
    with pytest.raises(
        DataError, match="trading_env: high >= low required, found 1 bad of 1440 bars, first at bar 7"
    ):
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
    left = env.state()["accounts"][:, Acc.LEFT]
    assert left.min() >= 1
    assert left.max() <= 50
    assert len(np.unique(left)) > 40
    ended = []
    for _ in range(50):
        _, _, _, truncated, _ = env.step(np.zeros((200, 1)))
        ended.append(int(truncated.sum()))
    assert sum(ended) == 200  # each once in its first 50 steps
    assert max(ended) < 20
    assert set(env.state()["accounts"][:, Acc.LEFT]) <= set(range(1, 51))


def test_accounts_start_inside_the_block_and_never_leave_it(make_vector):
    env = make_vector(300)
    env.reset(seed=3)
    accounts = env.state()["accounts"]
    end = accounts[:, Acc.T] + accounts[:, Acc.LEFT]
    assert accounts[:, Acc.T].min() >= 48
    assert end.max() <= len(env.market.bars) - 1
    assert len(np.unique(accounts[:, Acc.T])) > 200


def test_each_account_is_a_single_env_action_by_action(make_vector, make_env):
    vector, singles = make_vector(4), [make_env() for _ in range(4)]
    obs, _ = vector.reset(seed=7)
    for single, account, row in zip(singles, vector.state()["accounts"], obs, strict=True):
        single.reset(seed=0)
        single._state[:] = account
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
                single._state[:] = vector.state()["accounts"][i]
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
    accounts = env.state()["accounts"]
    i = int(np.argmax(truncated))
    assert accounts[i, [Acc.LEFT, Acc.TRUNCATED, Acc.EQUITY]].tolist() == [50, 0, 100_000.0]
    assert infos["_final_obs"].tolist() == truncated.tolist()
    assert not np.array_equal(infos["final_obs"][i], obs[i])
    assert np.array_equal(env.restore(env.state()), obs)


def test_a_ruined_account_terminates_and_starts_again(make_vector):
    env = make_vector(2)
    env.reset(seed=0)
    state = env.state()
    state["accounts"][0, [Acc.CASH, Acc.UNITS]] = 5.0, 0.0  # 5 of 100,000 left
    env.restore(state)
    _, rewards, terminated, truncated, infos = env.step(np.zeros((2, 1)))
    assert terminated.tolist() == [True, False]
    assert not truncated[0]
    assert math.isfinite(rewards[0])
    assert infos["_final_obs"].tolist() == [True, False]
    assert env.state()["accounts"][0, Acc.EQUITY] == 100_000.0


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
    code = "import sys, sac_kernel.trading_env; assert 'torch' not in sys.modules"
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
