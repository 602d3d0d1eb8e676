"""Stress: each changed market by hand, and what it does to known trades."""

import math

import numpy as np
import pandas as pd
import pytest

from sac_kernel.backtest import runner, stress
from sac_kernel.market.account import TradingEnvConfig
from tests.conftest import make_bars

START = 100_000.0


@pytest.fixture(scope="module")
def market():
    bars = make_bars(900)
    features = pd.DataFrame(np.random.default_rng(0).normal(0, 1, (900, 3)), bars.index, ["a", "b", "c"])
    return runner.market_of(bars, features, TradingEnvConfig(), "base")


def run(market, targets):
    return runner.run_targets(market, targets, START, "agent", "base")


@pytest.fixture(scope="module")
def hold(market):
    return run(market, np.ones(runner.decisions(market)))


@pytest.fixture(scope="module")
def lucky(market):
    """Trades that know the next bar, so that costs decide what is left."""
    close = market.bars["close"]
    return run(market, np.repeat(np.sign(close[12::12] - close[:-12:12]), 12)[: runner.decisions(market)])


def test_costs_scale_spread_fees_and_nothing_else(market):
    dear = stress.with_costs(market, 3.0)
    for name in market.bars.dtype.names:
        factor = 3 if name in ("spread_open", "spread_close") else 1
        np.testing.assert_allclose(dear.bars[name], factor * market.bars[name], rtol=1e-15)
    for name in market.terms.dtype.names:
        factor = 3 if name in ("commission", "slippage") else 1
        assert dear.terms[name] == pytest.approx(factor * market.terms[name], rel=1e-15)
    assert (market.terms.commission, market.terms.slippage) == pytest.approx((0.32e-4, 0.155e-4))


def test_volatility_doubles_every_log_change_and_keeps_the_bars_whole(market):
    wild = stress.more_volatile(market, 2.0)
    before, after = (np.diff(np.log(m.bars["close"])) for m in (market, wild))
    np.testing.assert_allclose(after, 2 * before, atol=1e-12)
    assert np.all(wild.bars["high"] >= np.maximum(wild.bars["open"], wild.bars["close"]) - 1e-12)


def test_gap_costs_a_held_long_five_percent(market, hold):
    row = next(r for r in stress.stress_table(market, hold) if r["scenario"].startswith("gap"))
    assert 1 + row["net_return_frac"] == pytest.approx(0.95 * hold.equity[-1] / START, rel=1e-3)
    assert row["max_drawdown_frac"] >= 0.05


def test_gap_hits_a_short_from_below(market):
    short = run(market, -np.ones(runner.decisions(market)))
    jumped = stress.gapped(market, short).bars["close"] / market.bars["close"]
    assert jumped[0] == 1.0
    assert jumped[-1] == pytest.approx(1.05)


def test_trend_is_its_rate_a_year(market):
    up = stress.trending(market, 0.10)
    ratio = up.bars["close"][-1] / market.bars["close"][-1]
    assert ratio == pytest.approx(1.10 ** ((len(market.bars) - 1) / (260 * 24)))  # hourly bars


def test_table_has_every_scenario_and_the_first_is_what_was_judged(market, lucky):
    rows = stress.stress_table(market, lucky)
    assert [r["scenario"] for r in rows] == [
        "as judged",
        "spread x5",
        "volatility x2",
        "volatility x3",
        "gap of 5% against it",
        "trend of +10% a year",
        "trend of -10% a year",
        "one more bar of latency",
    ]
    assert rows[0]["net_return_frac"] == pytest.approx(lucky.equity[-1] / START - 1)
    assert rows[1]["net_return_frac"] < rows[0]["net_return_frac"]
    filled = runner.filled_targets(market, lucky.action, START)
    late = run(market, np.append(0.0, filled[:-1]))
    assert rows[-1]["net_return_frac"] == late.equity[-1] / START - 1


def test_latency_fills_no_order_that_lapsed(market):
    """Fault A5: an account that only asks while exposure is frozen is flat, a bar later too."""
    at = np.arange(market.first_bar + 1, len(market.bars))[: runner.decisions(market)]
    asked = run(market, np.where(market.bars["tradable"][at] == 0.0, 0.9, 0.0))
    assert (asked.action != 0.0).sum() > 30
    rows = {row["scenario"]: row for row in stress.stress_table(market, asked)}
    late = rows["one more bar of latency"]
    assert (late["net_return_frac"], late["cost_frac"]) == (0.0, 0.0)


def test_break_even_is_where_the_net_return_is_zero(market, lucky):
    multiple = stress.break_even_multiple(market, lucky)
    assert 1.0 < multiple < stress.MAX_MULTIPLE
    assert run(stress.with_costs(market, multiple), lucky.action).log_growth == pytest.approx(0.0, abs=1e-7)
    table = stress.cost_table(market, lucky)
    assert [row["multiple"] for row in table] == [0.5, 1.0, 1.5, 2.0, 3.0, 4.0]
    assert all((row["net_return_frac"] > 0) == (row["multiple"] < multiple) for row in table)


def test_break_even_is_zero_for_trades_that_lose_anyway_and_absent_without_trades(market, lucky):
    assert stress.break_even_multiple(market, run(market, -lucky.action)) == 0.0
    assert stress.break_even_multiple(market, run(market, 0 * lucky.action)) is None


def test_observations_are_those_of_the_pass(market):
    seen, targets = [], np.sign(np.sin(np.arange(runner.decisions(market)) / 9.0))
    calls = iter(targets)

    def policy(obs):
        seen.append(obs.copy())
        return float(next(calls))

    base = runner.run_policy(market, policy, START, "agent", "base")
    np.testing.assert_array_equal(stress.observations(market, base), np.array(seen))


def test_importance_ranks_inputs_by_their_weight():
    rows = np.random.default_rng(1).normal(0, 1, (6000, 3)).astype(np.float32)
    found = stress.permutation_importance(lambda x: 0.3 * x[:, 2] - 0.1 * x[:, 0], rows, ["a", "b", "c"])
    assert list(found) == ["c", "a", "b"]
    # |w (x - x')| of independent normals: w x 2 / sqrt(pi).
    assert found["c"] == pytest.approx(0.3 * 2 / math.sqrt(math.pi), rel=0.05)
    assert found["a"] == pytest.approx(0.1 * 2 / math.sqrt(math.pi), rel=0.05)
    assert found["b"] == 0.0


def test_a_policy_map_is_the_policy_at_the_medians_of_all_else():
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(500, 4)).astype(np.float32)
    names = ("a", "b", "position", "c")
    act = lambda obs: 0.5 * obs[:, 1] + 0.25 * obs[:, 2] + obs[:, 3]  # noqa: E731
    found = stress.policy_map(act, seen, names, "b")
    assert found["feature"] == "b"
    assert found["values"][0] == pytest.approx(np.quantile(seen[:, 1], 0.01), abs=1e-3)
    assert (found["positions"][0], found["positions"][-1]) == (-1.0, 1.0)
    expected = (
        0.5 * np.array(found["values"]) + 0.25 * np.array(found["positions"])[:, None] + np.median(seen[:, 3])
    )
    np.testing.assert_allclose(found["action"], expected, atol=2e-4)
