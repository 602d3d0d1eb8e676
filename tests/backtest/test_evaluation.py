"""Passes over a split, baselines of equal turnover, and the verdict's rule, case by case."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from sac_kernel.agent import compiled_policy
from sac_kernel.agent.config import SACConfig
from sac_kernel.agent.sac import SACAgent
from sac_kernel.backtest import baselines, policies, runner
from sac_kernel.backtest.judgement import RANDOM, evaluate_checkpoint, instrument_returns, judge
from sac_kernel.backtest.policies import Form, Kind
from sac_kernel.backtest.runner import EpisodeResult
from sac_kernel.core import strings
from sac_kernel.core.errors import CheckpointError
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.envs import TradingEnvironment
from sac_kernel.stats import trials
from sac_kernel.stats.trials import Trial
from tests.conftest import make_data
from tests.support import says

FINAL = policies.agent(1, Form.FINAL)
CONFIG = TradingEnvConfig(episode_lengths=(60,), horizon=100)
START = 100_000.0


@pytest.fixture(scope="module")
def split():
    """The test split of synthetic bars, with features."""
    data = make_data(1600)
    features = FeaturePipeline().run_full_pipeline(data.train, data.val, data.test)
    return data.test["EURUSD"], features[2]


@pytest.fixture(scope="module")
def market(split):
    return runner.market_of(*split, CONFIG, "base")


def random_agent(market, seed=0):
    """An agent with an opinion: its averaged actor gets a random mean head."""
    width = len(market.observation_names)
    agent = SACAgent(SACConfig(state_dim=width, hidden_dims=(16,)), device="cpu", seed=seed)
    generator = torch.Generator().manual_seed(seed)
    torch.nn.init.normal_(agent.nets.average.head.weight, generator=generator)
    return agent


def blocks(n, length=25, seed=0):
    """Targets that change every `length` decisions."""
    rng = np.random.default_rng(seed)
    return np.repeat(rng.uniform(-1, 1, n // length + 1), length)[:n]


# -- passes --------------------------------------------------------------------------------------


def test_a_pass_decides_at_every_bar_but_the_last_and_ends_flat(market):
    n = len(market.bars) - 1 - market.first_bar
    assert runner.decisions(market) == n
    result = runner.run_targets(market, np.ones(n), START, "hold", "base")
    assert len(result.equity) == n
    assert result.exposure[-1] == 0.0
    assert result.exposure[n // 2] == pytest.approx(1.0, abs=0.1)
    assert result.trades == 2  # in, out
    assert list(result.open_time_utc) == list(market.open_time[market.first_bar + 1 :])


def test_a_policy_and_its_own_targets_give_the_same_pass(market):
    targets = blocks(runner.decisions(market))
    calls = iter(targets)
    followed = runner.run_policy(market, lambda _obs: float(next(calls)), START, "a", "base")
    fixed = runner.run_targets(market, targets, START, "b", "base")
    np.testing.assert_array_equal(followed.equity, fixed.equity)
    np.testing.assert_array_equal(followed.action, fixed.action)
    assert followed.costs == fixed.costs


def equity_of_the_environment(split, act):
    env = TradingEnvironment(*split, CONFIG, eval_mode=True)
    obs, _ = env.reset(seed=0)
    equity, done = [], False
    while not done:
        obs, _, terminated, truncated, info = env.step(act(obs))
        equity.append(info["equity"])
        done = terminated or truncated
    return equity


def test_validation_is_the_pass_that_the_environment_gives(split, market):
    # The single env in eval mode, asked step by step, is an independent route to the same equity.
    agent = random_agent(market)
    result = runner.validate(agent, market, CONFIG.initial_equity)
    act = runner.greedy_policy(agent)
    equity = equity_of_the_environment(split, lambda obs: np.array([act(obs)]))
    np.testing.assert_array_equal(result.equity, equity)
    assert result.log_growth == math.log(equity[-1] / CONFIG.initial_equity)
    # The framework sums in another order: equal but for the last digits of single precision.
    equity = equity_of_the_environment(split, lambda obs: agent.select_action(obs, evaluate=True))
    np.testing.assert_allclose(result.equity, equity, rtol=1e-7)


def test_targets_of_a_pass_are_its_orders_so_that_they_can_be_played_again_and_shifted(split, market):
    config = dataclasses.replace(CONFIG, no_trade_band=0.2)
    market = runner.market_of(*split, config, "base")
    agent = random_agent(market)
    once = runner.validate(agent, market, START)
    plain = runner.validate(agent, runner.market_of(*split, CONFIG, "base"), START)
    again = runner.run_targets(market, once.action, START, "", "base")
    np.testing.assert_array_equal(again.equity, once.equity)
    assert 0 < once.trades < 0.7 * plain.trades
    change = np.abs(np.diff(runner.filled_targets(market, once.action, START)))
    assert ((change == 0.0) | (change >= 0.2)).all()


def test_what_was_asked_for_in_vain_is_no_target_of_a_random_policy(market):
    # Asked for in the freeze alone, a position is never taken, and random policies that trade as much never trade.
    rows = baselines.decision_rows(market)
    frozen = market.bars["tradable"][rows + 1] == 0.0
    assert 0.05 < frozen.mean() < 0.2
    asked = np.where(frozen, 1.0, 0.0)
    filled = runner.filled_targets(market, asked, START)
    assert not filled.any()
    assert not runner.random_same_turnover(market, filled, START, 20).any()
    asked = np.where(frozen, 1.0, blocks(len(rows)))
    filled = runner.filled_targets(market, asked, START)
    assert (filled != asked).any()
    once, again = (runner.run_targets(market, t, START, "", "base") for t in (asked, filled))
    np.testing.assert_array_equal(once.equity, again.equity)


def test_a_greedy_policy_is_the_agent_as_it_was_and_checks_the_width(market):
    agent = random_agent(market)
    act, obs = runner.greedy_policy(agent), np.ones(len(market.observation_names), np.float32)
    before = act(obs)
    assert before == pytest.approx(float(agent.select_action(obs, evaluate=True)[0]), abs=1e-6)
    with torch.no_grad():
        for parameter in agent.nets.average.parameters():
            parameter.zero_()
    assert act(obs) == before != runner.greedy_policy(agent)(obs) == 0.0
    with pytest.raises(CheckpointError, match=says(len(obs), len(obs) - 1)):
        act(obs[1:])


def test_the_compiled_net_is_its_layers_by_hand():
    # Hidden: relu(x0 - 2 x1 + 1), relu(-x0), relu(x1); the mean is 0.5 h0 - h1 + 0.25 h2 + 0.1, the other row unused.
    hidden = np.float32([[1, -2], [-1, 0], [0, 1]]), np.float32([1, 0, 0])
    head = np.float32([[0.5, -1, 0.25], [9, 9, 9]]), np.float32([0.1, 9])
    act = compiled_policy.compiled([hidden, head])
    assert act(np.float32([2, 0.5])) == pytest.approx(math.tanh(0.5 * 2 + 0.25 * 0.5 + 0.1), abs=1e-7)
    assert act(np.float32([-2, 0.5])) == pytest.approx(math.tanh(-2 + 0.25 * 0.5 + 0.1), abs=1e-7)
    hidden[0][:] = 0.0
    assert act(np.float32([2, 0.5])) == pytest.approx(math.tanh(0.5 * 2 + 0.25 * 0.5 + 0.1), abs=1e-7)


@pytest.mark.parametrize("hidden_dims", [(7,), (64, 64), (3, 80, 5)])
def test_the_compiled_net_is_the_frameworks_at_any_depth(hidden_dims):
    agent = SACAgent(SACConfig(state_dim=9, hidden_dims=hidden_dims), device="cpu")
    torch.nn.init.normal_(agent.nets.average.head.weight, generator=torch.Generator().manual_seed(1))
    obs = np.random.default_rng(2).normal(0, 2, (100, 9)).astype(np.float32)
    expected = agent.select_action(obs, evaluate=True)[:, 0]
    assert np.std(expected) > 0.1
    found = [runner.greedy_policy(agent)(one) for one in obs]
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_validation_repeats_and_leaves_the_agents_generator_alone(market):
    agent = random_agent(market)
    before = agent.generator.get_state()
    first = runner.validate(agent, market, START)
    second = runner.validate(agent, market, START)
    np.testing.assert_array_equal(first.equity, second.equity)
    assert torch.equal(agent.generator.get_state(), before)


def test_cost_paid_ends_at_the_sum_of_its_kinds(market):
    result = runner.run_targets(market, blocks(runner.decisions(market)), START, "x", "base")
    assert result.cost_paid[-1] == pytest.approx(sum(result.costs.values()))
    assert np.all(np.diff(result.cost_paid) >= -1e-9)
    assert all(value > 0 for value in result.costs.values())


def test_row_states_the_figures_of_the_curve(market):
    result = runner.run_targets(market, blocks(runner.decisions(market)), START, "x", "base")
    row = result.row()
    assert row["net_return_frac"] == pytest.approx(result.equity[-1] / START - 1)
    # Compounded daily returns are the whole return.
    assert np.prod(1 + result.daily_returns) - 1 == pytest.approx(row["net_return_frac"])
    peak = np.maximum.accumulate(np.append(START, result.equity))
    assert row["max_drawdown_frac"] == pytest.approx(np.max(1 - np.append(START, result.equity) / peak))
    assert row["days"] == len(set(result.day))
    assert row["turnover_per_day"] == pytest.approx(result.turnover / row["days"])


# -- baselines -----------------------------------------------------------------------------------


def test_random_policies_keep_the_turnover_of_the_agent(market):
    # Shifting around the clock and mirroring keep every |change| but the one where the ends meet; the
    # hours without trading then fall elsewhere.
    targets = blocks(runner.decisions(market), length=15)
    agent = runner.run_targets(market, targets, START, "a", "base")
    turnovers = [
        runner.run_targets(market, sign * np.roll(targets, shift), START, "r", "base").turnover
        for sign in (-1.0, 1.0)
        for shift in range(0, len(targets), 17)
    ]
    assert np.mean(turnovers) == pytest.approx(agent.turnover, rel=0.05)
    assert np.max(np.abs(np.array(turnovers) / agent.turnover - 1)) < 0.2


def test_growth_of_random_policies_is_that_of_shifts_and_mirrors_and_of_nothing_else(market):
    targets = blocks(runner.decisions(market))
    growth = runner.random_same_turnover(market, targets, START, draws=12, seed=3)
    every = np.array(
        [
            runner.run_targets(market, sign * np.roll(targets, shift), START, "r", "b").log_growth
            for sign in (-1.0, 1.0)
            for shift in range(len(targets))
        ]
    )
    assert growth.shape == (12,)
    assert all(np.abs(every - g).min() < 1e-12 for g in growth)
    assert len(set(growth)) > 6


def test_random_policies_repeat_for_a_seed(market):
    targets = blocks(runner.decisions(market))
    first = runner.random_same_turnover(market, targets, START, 20, seed=1)
    np.testing.assert_array_equal(first, runner.random_same_turnover(market, targets, START, 20, seed=1))
    other = runner.random_same_turnover(market, targets, START, 20, seed=2)
    assert not np.array_equal(first, other)


def test_greedy_targets_of_many_observations_are_those_of_each(market):
    agent = random_agent(market)
    seen = np.random.default_rng(0).normal(0, 1, (50, len(market.observation_names))).astype(np.float32)
    one = runner.greedy_policy(agent)
    np.testing.assert_allclose(runner.greedy_batch(agent)(seen), [one(obs) for obs in seen], atol=1e-6)


def test_judgement_has_every_policy_at_three_tiers_and_ranks_the_headline(split, market):
    agent = random_agent(market)
    judged = judge({FINAL: agent}, *split, CONFIG, draws=200)
    names = ["agent 1 (final)", *baselines.all_targets(market), RANDOM.label]
    assert {"flat", "buy and hold", strings.FORESIGHT} < set(names)
    assert {tier: [r.name for r in results] for tier, results in judged.results.items()} == {
        "raw": names,
        "base": names,
        "retail": names,
    }
    n = len(names)
    assert [row["tier"] for row in judged.rows] == ["base"] * n + ["raw"] * n + ["retail"] * n
    headline = judged.results["base"][0]
    below = sum(g < headline.log_growth for g in judged.random_log_growth)
    assert judged.percentile == below / 200
    ratio = judged.results["base"][-1].turnover / headline.turnover
    assert 0.8 < ratio < 1.2


def test_timing_is_judged_against_the_instruments_own_days(split, market):
    judged = judge({FINAL: random_agent(market)}, *split, CONFIG, draws=20)
    headline, close = judged.results["base"][0], market.bars["close"]
    before = {day: close[np.flatnonzero(market.bars["trading_day"] == day)[0] - 1] for day in headline.day}
    last = {day: close[np.flatnonzero(market.bars["trading_day"] == day)[-1]] for day in headline.day}
    before[headline.day[0]] = close[market.first_bar]  # the account begins at this close
    moves = np.array([last[day] / before[day] - 1 for day in np.unique(headline.day)])
    np.testing.assert_allclose(instrument_returns(headline, market), moves, atol=1e-12)
    slope = np.polyfit(moves, headline.daily_returns, 1)
    assert judged.verdict["timing"]["beta"] == pytest.approx(slope[0], abs=1e-9)


def test_costs_rise_with_the_tier(split, market):
    judged = judge({FINAL: random_agent(market)}, *split, CONFIG, draws=20)
    paid = [judged.results[tier][0].cost_paid[-1] for tier in ("raw", "base", "retail")]
    assert 0 < paid[0] < paid[1] < paid[2]


def test_an_agent_that_never_trades_has_no_percentile_and_no_edge(split, market):
    width = len(market.observation_names)
    flat = SACAgent(SACConfig(state_dim=width, hidden_dims=(16,)), device="cpu")
    judged = judge({FINAL: flat}, *split, CONFIG, draws=20)
    assert judged.percentile is None
    assert judged.verdict["word"] == "none"
    assert "flat" in judged.verdict["sentence"]


# -- who is who -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "kind", "label"),
    [
        (policies.agent(2, Form.BEST), "agent", "agent 2 (best)"),
        (policies.agent(1, Form.ENSEMBLE, seeds=3), "agent", "agent 1 (mean target of 3 seeds)"),
        (policies.agent(1, Form.FOLD_SEED, seed=0), "agent", "agent 1, seed 0"),
        (policies.of_file(3, "agent_3_final.pt"), "agent", "agent 3 (final)"),
        (policies.of_file(3, "agent_1_final.pt"), "agent", "agent 3 (agent_1_final.pt)"),
        (policies.named("agents' rival"), "baseline", "agents' rival"),
        (baselines.policy(strings.FORESIGHT), "bound", strings.FORESIGHT),
        (baselines.policy(strings.RIDGE), "baseline", strings.RIDGE),
        (RANDOM, "random", strings.RANDOM),
    ],
)
def test_a_policy_is_known_by_its_kind_and_its_label_is_made_from_its_parts(policy, kind, label):
    assert (policy.kind, policy.label) == (kind, label)
    assert policy.is_agent == (kind == "agent")
    assert policies.from_plain(json.loads(json.dumps(dataclasses.asdict(policy)))) == policy


def test_rows_say_what_their_policy_is(split, market):
    rows = judge({FINAL: random_agent(market)}, *split, CONFIG, draws=20).rows
    base = [row for row in rows if row["tier"] == "base"]
    assert (base[0]["kind"], base[0]["agent_id"], base[0]["form"]) == (Kind.AGENT, 1, "final")
    assert [row["kind"] for row in base[1:]] == ["baseline"] * 6 + ["bound", "random"]


# -- the verdict's rule --------------------------------------------------------------------------


def result_of(daily, turnover=10.0):
    """A pass of one decision a day with these daily returns."""
    equity = START * np.cumprod(1.0 + np.asarray(daily))
    n = len(equity)
    zero = np.zeros(n)
    return EpisodeResult(
        policy=FINAL,
        tier="base",
        open_time_utc=pd.date_range("2020-01-01", periods=n, tz="UTC"),
        close=np.ones(n),
        equity=equity,
        exposure=zero,
        cost_paid=zero,
        action=zero,
        day=np.arange(n),
        turnover=turnover,
        trades=5,
        start_equity=START,
        costs={},
    )


GAIN = np.tile([0.002, 0.001], 50)  # every bootstrap mean lies between .26 and .52 a year


def test_a_pass_is_a_trial_by_its_days():
    result = dataclasses.replace(result_of([0.01, 0.02, -0.01]), day=np.array([3, 3, 7]))
    found = runner.trial_of(
        result, agent_id=1, seed=2, split="val", checkpoint=5, config_hash="c", data_hash="d"
    )
    assert found.day.tolist() == [3, 7]
    assert found.daily == pytest.approx([1.01 * 1.02 - 1, -0.01])


# -- a saved agent ---------------------------------------------------------------------------------


def test_the_ledger_beside_a_saved_agent_is_counted(split, market, tmp_path):
    data = make_data(1600)
    pipeline = FeaturePipeline()
    pipeline.run_full_pipeline(data.train, data.val, data.test)
    agent = random_agent(market)
    agent.context = {"env": dataclasses.asdict(CONFIG), "features": pipeline.state()}
    path = tmp_path / "agent_1_final.pt"
    agent.save(path)
    _, judged = evaluate_checkpoint(path, data, draws=20)
    assert not judged.verdict["trials"]["known"]
    days = np.arange(40)
    rows = [
        Trial(1, seed, "val", 5, "c", "d", days, np.random.default_rng(seed).normal(0, 0.01, 40))
        for seed in (0, 1)
    ]
    trials.append(tmp_path / trials.NAME, rows)
    _, judged = evaluate_checkpoint(path, data, draws=20)
    assert judged.verdict["trials"]["known"]
    assert judged.verdict["trials"]["listed"] == 2
    assert judged.train is not None
    assert "ridge + band" in [r.name for r in judged.results["retail"]]
