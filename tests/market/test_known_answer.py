"""Markets with a known answer: the optima against closed forms, brute force and threshold searches."""

from dataclasses import replace

import numpy as np
import pytest

from sac_kernel.core.errors import ConfigError
from sac_kernel.market.known_answer import (
    POSITIONS,
    Judge,
    KnownAnswerMarket,
    Optimum,
    play,
)
from sac_kernel.market.known_answer_envs import BanditVectorEnv, MarketVectorEnv
from sac_kernel.market.known_answer_kinds import ALL_MARKETS as MARKETS
from sac_kernel.market.known_answer_kinds import HOURS, SWITCH, RegimeMarket
from tests.support import says

SIMULATED = [m for name, m in MARKETS.items() if name != "M0"]
each_market = pytest.mark.parametrize("market", SIMULATED, ids=lambda m: m.name)


def simulated(market, bars=300, n=64, seed=0):
    return market.simulate(bars, n, np.random.default_rng(seed))


def band_policy(q):
    """Long above q, short below -q, else hold: the shape of the optimum under linear costs."""
    return lambda _t, obs, p: np.where(obs[:, 0] > q, 1.0, np.where(obs[:, 0] < -q, -1.0, p))


def band(optimum):
    """Return (sell below, buy above): the states at which a full opposite position is closed."""
    long = optimum.grid[optimum.action[:, 0] > 0]
    short = optimum.grid[optimum.action[:, -1] < 0]
    return float(short.max(initial=-np.inf)), float(long.min(initial=np.inf))


# -- what a market is ----------------------------------------------------------------------------


@each_market
def test_expected_returns_are_what_returns_are_on_average(market):
    paths = simulated(market, 400, 500, seed=1)
    mean, noise = paths.mean.ravel(), (paths.returns - paths.mean).ravel()
    assert abs(noise.mean()) < 5 * max(noise.std(), 1e-12) / np.sqrt(noise.size)
    if market.ic:
        assert mean.std() == pytest.approx(market.ic, rel=0.35 if isinstance(market, RegimeMarket) else 0.03)
        slope = (mean @ paths.returns.ravel()) / (mean @ mean)
        assert slope == pytest.approx(1.0, abs=5 * noise.std() / np.sqrt(mean @ mean) + 1e-9)


@each_market
def test_paths_have_the_shapes_they_promise_and_follow_the_seed(market):
    paths, again, other = simulated(market, 30, 3), simulated(market, 30, 3), simulated(market, 30, 3, seed=1)
    assert paths.features.shape == (31, 3, market.state_dim - 1)
    assert paths.state.shape == (31, 3)
    assert paths.mean.shape == paths.returns.shape == (30, 3)
    assert all(np.array_equal(a, b) for a, b in zip(paths, again, strict=True))
    assert not np.array_equal(paths.features, other.features)


def test_predictors_are_stationary_with_the_correlation_they_claim():
    x = simulated(MARKETS["M5"], 2000, 200).features[..., :2]
    assert x.var() == pytest.approx(1.0, rel=0.02)
    assert x[0].var() == pytest.approx(1.0, rel=0.3)  # from the first bar on
    assert (x[1:] * x[:-1]).mean() / (x**2).mean() == pytest.approx(0.95, abs=0.005)


def test_regime_probability_is_that_of_the_two_state_forward_recursion():
    market = MARKETS["M8"]
    paths = simulated(market, 80, 1)
    change = np.array([[1 - SWITCH, SWITCH], [SWITCH, 1 - SWITCH]])
    p = np.array([paths.state[0, 0], 1 - paths.state[0, 0]])
    for t, y in enumerate(paths.returns[:, 0]):
        density = np.exp(-0.5 * ((y - np.array([market.ic, -market.ic])) / market.noise) ** 2)
        p = change.T @ (p * density / (p @ density))
        assert paths.state[t + 1, 0] == pytest.approx(p[0], abs=1e-12)


def test_the_regime_market_shows_the_last_thirty_returns_and_no_later_one():
    market = MARKETS["M8"]
    paths = simulated(market, 80, 2)
    unit = np.hypot(market.ic, market.noise)
    np.testing.assert_allclose(paths.features[31:, :, -1] * unit, paths.returns[30:])
    np.testing.assert_allclose(paths.features[30] * unit, paths.returns[:30].T)


# -- the optimum ---------------------------------------------------------------------------------


def test_without_cost_the_optimum_is_the_sign_and_earns_the_mean_absolute_predictor():
    judge = Judge(MARKETS["M1"])
    assert judge.best.reward == pytest.approx(np.sqrt(2 / np.pi), rel=0.01)
    sign = judge.result(lambda obs: np.sign(obs[:, 0]))
    assert judge.capture(sign) == pytest.approx(1.0, abs=1e-3)
    assert judge.turnover_ratio(sign) == pytest.approx(1.0, abs=0.05)


def test_with_an_uncorrelated_predictor_the_band_is_the_cost_itself():
    # W(p) is the same for every p: x + gamma W' > c with W' = 0, so buy above c and sell below -c.
    sell, buy = band(Optimum(MARKETS["M9"]))
    step = Optimum(MARKETS["M9"]).grid[1] - Optimum(MARKETS["M9"]).grid[0]
    assert sell == pytest.approx(-0.25, abs=step + 1e-9)
    assert buy == pytest.approx(0.25, abs=step + 1e-9)


@pytest.mark.parametrize("name", ["M2", "M3", "M4"])
def test_no_band_earns_more_than_the_optimum(name):
    market = MARKETS[name]
    judge = Judge(market, bars=300, n=400)
    rates = [play(market, judge.paths, band_policy(q)).reward for q in np.linspace(0.0, 1.6, 33)]
    best = max(rates) / judge.best.reward
    assert 0.97 < best < 1.01  # the discounted optimum may lose a little of the undiscounted rate
    assert rates[0] < 0.9 * judge.best.reward
    assert rates[-1] < 0.95 * judge.best.reward


def test_markets_of_equal_cost_to_signal_ratio_have_one_band():
    bands = {band(Optimum(MARKETS[name])) for name in ("M2", "M3", "M4", "M5")}
    assert len(bands) == 1


def test_the_hour_market_against_every_pair_of_a_buying_and_a_selling_hour():
    market = MARKETS["M10"]
    mean = market.expected_return(np.arange(HOURS, dtype=float))
    rates = []
    for buy in range(HOURS):
        for sell in range(HOURS):
            long = (np.arange(HOURS) - buy) % HOURS < (sell - buy) % HOURS
            position = np.where(long, 1.0, -1.0)
            cost = market.cost * np.abs(position - np.roll(position, 1)).sum()
            rates.append((position @ mean - cost) / HOURS)
    optimum, state, position = Optimum(market), np.zeros(1), np.zeros(1)
    total = 0.0
    for t in range(11 * HOURS):
        target = optimum.act(state, position)
        if t >= HOURS:  # the first day starts flat
            total += float((target * mean[int(state[0])] - market.cost * np.abs(target - position))[0])
        state, position = (state + 1) % HOURS, target
    assert 0.97 < total / (10 * HOURS) / max(rates) <= 1.0 + 1e-9


@pytest.mark.parametrize(
    "market", [MARKETS["M6"], KnownAnswerMarket("dear", 0.9, cost=200.0)], ids=["M6", "dear"]
)
def test_where_nothing_can_be_earned_the_optimum_stays_flat(market):
    judge = Judge(market, bars=50, n=20)
    assert judge.best[:2] == (0.0, 0.0)
    assert np.isnan(judge.capture(judge.best))


def test_transition_rows_are_chances_with_the_mean_of_the_process():
    for market in SIMULATED:
        rows = market.transitions()
        np.testing.assert_allclose(rows.sum(axis=1), 1.0, atol=1e-12)
        assert rows.min() >= 0
    grid, rows = MARKETS["M2"].grid(), MARKETS["M2"].transitions()
    inner = np.abs(grid) < 3
    np.testing.assert_allclose((rows @ grid)[inner], 0.95 * grid[inner], atol=1e-6)


def test_the_value_satisfies_bellmans_equation_at_random_states_and_actions():
    market = MARKETS["M2"]
    optimum, chance = Optimum(market), MARKETS["M2"].transitions()
    for row, column in ((10, 3), (120, 0), (150, 20), (240, 11)):
        values = [
            a * optimum.grid[row]
            - 2.0 * abs(a - POSITIONS[column])
            + 0.95 * chance[row] @ optimum.value[:, k]
            for k, a in enumerate(POSITIONS)
        ]
        assert optimum.value[row, column] == pytest.approx(max(values), abs=1e-8)


def test_a_market_out_of_range_is_refused():
    with pytest.raises(ConfigError, match="gamma"):
        KnownAnswerMarket("x", 0.9, gamma=1.0)
    with pytest.raises(ConfigError, match="cost"):
        KnownAnswerMarket("x", 0.9, cost=-1.0)


# -- the env -------------------------------------------------------------------------------------


def test_a_rewards_sum_is_the_bookkeeping_of_play():
    market = MARKETS["M2"]  # no noise: the env's reward is the noise-free one
    env = MarketVectorEnv(market, num_envs=7, horizon=50)
    obs, _ = env.reset(seed=3)
    paths = market.simulate(50, 7, np.random.default_rng(3))
    rule = band_policy(0.5)
    total = 0.0
    for t in range(50):
        action = rule(t, obs, obs[:, -1])[:, None]
        obs, reward, terminated, truncated, infos = env.step(action)
        total += reward.mean()
        assert not terminated.any()
        assert truncated.all() == (t == 49)
    expected = play(market, paths, rule)
    assert total / 50 == pytest.approx(expected.reward, abs=1e-6)
    np.testing.assert_array_equal(infos["final_obs"][:, -1], action[:, 0])  # before the reset
    np.testing.assert_allclose(infos["final_obs"][:, 0], paths.features[50, :, 0], rtol=1e-6)
    np.testing.assert_array_equal(obs[:, -1], 0.0)  # after it: flat, elsewhere
    assert env.single_observation_space.contains(obs[0])


def test_on_one_path_accounts_walk_along_it_and_earn_what_is_given():
    market = MARKETS["M5"]
    path = market.simulate(400, 1, np.random.default_rng(0))
    given = np.arange(400.0)
    env = MarketVectorEnv(market, num_envs=5, horizon=30, path=path, returns=given)
    obs, _ = env.reset(seed=1)
    rows = [
        int(np.flatnonzero((path.features[:, 0].astype(np.float32) == o[:-1]).all(axis=1))[0]) for o in obs
    ]
    assert len(set(rows)) > 1
    _, first, *_ = env.step(np.zeros((5, 1)))
    np.testing.assert_array_equal(first, 0.0)
    obs, reward, *_ = env.step(np.full((5, 1), 0.5))
    np.testing.assert_allclose(reward, 0.5 * (np.array(rows) + 1) - 0.5 * market.cost)
    np.testing.assert_array_equal(obs[:, :-1], path.features[np.array(rows) + 2, 0].astype(np.float32))


def test_between_decisions_a_position_is_held_and_its_rewards_are_summed():
    market, rng = MARKETS["M5"], np.random.default_rng(0)
    slow, fast = (MarketVectorEnv(market, 3, horizon=20, every=every) for every in (5, 1))
    slow.reset(seed=1), fast.reset(seed=1)
    for decision in range(8):
        action = rng.uniform(-1.0, 1.0, (3, 1))
        bars = [fast.step(action) for _ in range(5)]
        obs, reward, _, truncated, _ = slow.step(action)
        np.testing.assert_allclose(reward, sum(bar[1] for bar in bars), rtol=1e-12)
        np.testing.assert_array_equal(obs, bars[-1][0])
        assert truncated.all() == bars[-1][3].all() == (decision % 4 == 3)
    with pytest.raises(ConfigError, match=says("horizon", "every", 3)):
        MarketVectorEnv(market, horizon=20, every=3)


def test_the_judge_asks_now_and_then_and_pays_every_bar():
    market = MARKETS["M4"]
    judge = Judge(market, bars=30, n=20)
    result = judge.result(lambda obs: np.sign(obs[:, 0]), every=3)
    position = np.sign(judge.paths.state[np.arange(30) // 3 * 3])
    traded = np.abs(np.diff(position, axis=0, prepend=0.0))
    assert result.turnover == pytest.approx(traded.mean())
    assert result.reward == pytest.approx((position * judge.paths.mean - market.cost * traded).mean())


def test_a_path_that_is_too_short_or_returns_that_do_not_fit_are_refused():
    market = MARKETS["M4"]
    path = market.simulate(100, 1, np.random.default_rng(0))
    with pytest.raises(ConfigError, match=says("path", 250)):
        MarketVectorEnv(market, path=path)
    with pytest.raises(ConfigError, match=says("returns", 100)):
        MarketVectorEnv(market, horizon=50, path=path, returns=np.zeros(99))


def test_the_bandit_pays_action_times_sign_and_ends():
    env = BanditVectorEnv(4)
    sign, _ = env.reset(seed=0)
    _, reward, terminated, truncated, infos = env.step(np.full((4, 1), 0.25))
    np.testing.assert_array_equal(reward, 0.25 * sign[:, 0])
    assert terminated.all()
    assert not truncated.any()
    np.testing.assert_array_equal(infos["final_obs"], sign)


def test_capture_needs_the_whole_policy_right():
    judge = Judge(MARKETS["M5"], bars=200, n=100)
    flat = judge.result(lambda obs: np.zeros(len(obs)))
    wrong = judge.result(lambda obs: -np.sign(obs[:, 0]))
    noise = judge.result(lambda obs: np.sign(obs[:, 5]))
    assert judge.capture(flat) == 0.0
    assert judge.capture(wrong) < -1
    assert judge.capture(noise) < -0.4


def test_another_discount_gives_another_band():
    patient = band(Optimum(replace(MARKETS["M2"], gamma=0.99)))[1]
    myopic = band(Optimum(replace(MARKETS["M2"], gamma=0.5)))[1]
    assert patient < band(Optimum(MARKETS["M2"]))[1] < myopic


# -- the product of two inputs, the sum of many ---------------------------------------------------


def product_band(q):
    return lambda _t, obs, p: np.where(np.abs(obs[:, 0] * obs[:, 1]) > q, np.sign(obs[:, 0] * obs[:, 1]), p)


def test_neither_input_of_a_product_tells_anything_alone_nor_does_its_square():
    paths = simulated(MARKETS["M13"], 400, 500, seed=1)
    x, y = (paths.features[:-1, ..., i].ravel() for i in (0, 1))
    mean = paths.mean.ravel()
    np.testing.assert_array_equal(mean, 0.05 * x * y)
    seen = [np.corrcoef(mean, column)[0, 1] for column in (x, y, x**2, y**2, np.abs(x), np.abs(y))]
    assert np.abs(seen).max() < 0.06  # 200,000 rows of which few are independent: about .01 each
    assert mean.std() == pytest.approx(0.05, rel=0.03)  # E[x^2 y^2] = 1


def test_without_cost_the_best_position_is_the_sign_of_the_product():
    judge = Judge(replace(MARKETS["M13"], cost=0.0), bars=200, n=300)
    sign = judge.result(lambda obs: np.sign(obs[:, 0] * obs[:, 1]))
    assert judge.capture(sign) == pytest.approx(1.0, abs=5e-3)
    assert judge.best.reward == pytest.approx(0.05 * 2 / np.pi, rel=0.05)  # E|x| E|y|


def test_with_uncorrelated_inputs_the_products_band_is_the_cost_itself():
    market = replace(MARKETS["M13"], rho=0.0)
    optimum = market.optimum()
    x = optimum.grid
    inner = np.abs(x) > 1.0  # where the product moves by less than a tenth from state to state
    for i in np.flatnonzero(inner)[::7]:
        buy = x[i] * x[optimum.action[0, i] > 0]
        assert buy.min() == pytest.approx(market.cost / market.ic, abs=0.1 * abs(x[i]) + 1e-9)


def test_the_products_optimum_beats_every_band_on_it_and_satisfies_bellmans_equation():
    market = MARKETS["M13"]
    judge, optimum = Judge(market, bars=300, n=400), market.optimum()
    best = max(play(market, judge.paths, product_band(q)).reward for q in np.linspace(0.1, 1.5, 8))
    assert 0.9 < best / judge.best.reward < 1.0
    chance, grid = market.transitions(), optimum.grid
    for i, j, column in ((40, 40, 3), (55, 20, 0), (10, 71, 20)):
        ahead = chance[i] @ optimum.value @ chance[j]
        values = [
            a * 0.05 * grid[i] * grid[j] - 0.1 * abs(a - POSITIONS[column]) + 0.95 * ahead[k]
            for k, a in enumerate(POSITIONS)
        ]
        assert optimum.value[column, i, j] == pytest.approx(max(values), abs=1e-7)
        assert optimum.action[column, i, j] == POSITIONS[int(np.argmax(values))]


def test_each_of_29_inputs_tells_as_much_of_the_sum_and_the_optimum_is_that_of_one():
    paths = simulated(MARKETS["M14"], 400, 500, seed=1)
    x = paths.features[:-1].reshape(-1, 29)
    np.testing.assert_allclose(paths.mean.ravel(), 0.05 * x.sum(axis=1) / np.sqrt(29), rtol=1e-12)
    weights = np.linalg.lstsq(x, paths.returns.ravel(), rcond=None)[0]
    np.testing.assert_allclose(weights, 0.05 / np.sqrt(29), atol=0.01)
    assert (paths.state[1:] * paths.state[:-1]).mean() == pytest.approx(0.95, abs=0.02)
    np.testing.assert_array_equal(MARKETS["M14"].optimum().action, Optimum(MARKETS["M11"]).action)
