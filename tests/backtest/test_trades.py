"""Fills and trade statistics: against ledgers worked out by hand, and against the pass that they come from."""

import dataclasses

import numpy as np
import pytest

from sac_kernel.backtest import runner, stress, trades
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.market.account import TradingEnvConfig
from tests.conftest import make_data


@pytest.fixture(scope="module")
def split():
    data = make_data(1600)
    frames = FeaturePipeline(instrument="EURUSD").run_full_pipeline(data.train, data.val, data.test)
    return data.test["EURUSD"], frames[2]


def passed(split, config, targets=None, tier="base"):
    market = runner.market_of(*split, config, tier)
    if targets is None:
        rng = np.random.default_rng(3)
        n = runner.decisions(market)
        targets = np.where(
            rng.random(n) < 0.5, rng.choice([-1.0, -0.5, 0.0, 0.3, 1.0], n), rng.uniform(-1, 1, n)
        )
    return market, runner.run_targets(market, targets, 1e5, "mine", tier)


ACCOUNTS = {
    "plain": TradingEnvConfig(),
    "waits": TradingEnvConfig(decision_interval_min=240, no_trade_band=0.2),
    "stops": TradingEnvConfig(decision_interval_min=180, stop_loss_bps=15, take_profit_bps=25),
    "halts": TradingEnvConfig(daily_loss_limit=0.004, decision_interval_min=120, impact=0.5),
}


@pytest.mark.parametrize("name", ACCOUNTS)
def test_fills_add_up_to_the_pass(name, split):
    market, result = passed(split, ACCOUNTS[name])
    fills = trades.fills_of(market, result)
    assert len(fills) == result.trades > 50
    end = result.equity[-1]
    # Closed at the end: what every closed part earned after its costs is what the account earned.
    assert fills["position"][-1] == 0.0
    assert fills["profit"].sum() == pytest.approx(end - 1e5, abs=1e-6)
    paid = result.costs["spread"] + result.costs["slippage"] + result.costs["commission"]
    assert fills["cost"].sum() == pytest.approx(paid, rel=1e-9)
    assert np.cumsum(fills["units"]) == pytest.approx(fills["position"], abs=1e-6)
    cash = -(fills["units"] * fills["price"]).sum() - result.costs["commission"] - result.costs["swap"]
    assert cash == pytest.approx(end - 1e5, abs=1e-6)
    places = set(fills["place"].astype(int))
    assert places >= ({0, 1} if name == "stops" else {0})


def test_a_ledger_by_hand(split):
    """Long, half closed, reversed, closed: without costs, so that each profit is units times the move."""
    market, _ = passed(split, TradingEnvConfig())
    terms, bars = market.terms.copy(), market.bars.copy()
    terms.commission = terms.slippage = terms.swap_long = terms.swap_short = 0.0
    bars["spread_open"] = bars["spread_close"] = 0.0
    bars["tradable"] = 1.0
    market = dataclasses.replace(market, terms=terms, bars=bars)
    targets = np.zeros(runner.decisions(market))
    targets[2:4], targets[4:6], targets[6:8] = 1.0, 0.5, -1.0
    result = runner.run_targets(market, targets, 1e5, "mine", "base")
    fills = trades.fills_of(market, result)
    o = bars["open"][market.first_bar + np.array([3, 5, 7, 9])]
    u1 = 1e5 / o[0]
    e2 = u1 * o[1]
    u2 = 0.5 * e2 / o[1]
    e3 = e2 + u2 * (o[2] - o[1])
    u3 = -e3 / o[2]
    np.testing.assert_allclose(fills["price"], o, rtol=1e-12)
    np.testing.assert_allclose(fills["units"], [u1, u2 - u1, u3 - u2, -u3], rtol=1e-12)
    np.testing.assert_allclose(
        fills["profit"], [0, (u1 - u2) * (o[1] - o[0]), u2 * (o[2] - o[0]), u3 * (o[3] - o[2])], rtol=1e-9
    )
    np.testing.assert_allclose(fills["closed"], [0, u1 - u2, u2, -u3], rtol=1e-12)
    assert fills["bars_held"].tolist() == [0, 2, 4, 2]
    found = trades.statistics(market, result, fills)
    won = fills["profit"][1:] > 0
    assert found["closed_trades"] == 3
    assert found["win_rate_frac"] == pytest.approx(won.mean())
    assert found["mean_hold_h"] == pytest.approx((2 + 4 + 2) / 3 * market.bar_seconds / 3600)
    assert found["exposure_time_frac"] == pytest.approx(6 / targets.size)
    assert found["long_time_frac"] == pytest.approx(4 / targets.size)
    assert found["short_time_frac"] == pytest.approx(2 / targets.size)


def test_a_remainder_is_no_position(split):
    """Fault A9: an exposure of .005 is not being long."""
    market, _ = passed(split, TradingEnvConfig())
    targets = np.full(runner.decisions(market), 0.005)
    result = runner.run_targets(market, targets, 1e5, "mine", "base")
    found = trades.statistics(market, result, trades.fills_of(market, result))
    assert found["exposure_time_frac"] == found["long_time_frac"] == 0.0
    assert np.abs(result.exposure).max() > 0.004


def test_the_longest_drawdown_is_counted_in_days_from_peak_to_peak():
    # Equity 1, .9, .99, 1.089, 1.07, 1.06, 1.05, 1.2: two days below 1, three below 1.089.
    equity = np.array([1, 0.9, 0.99, 1.089, 1.07, 1.06, 1.05, 1.2])
    assert trades.longest_drawdown(equity[1:] / equity[:-1] - 1) == 3
    assert trades.longest_drawdown(np.array([0.01, 0.02])) == 0
    assert trades.longest_drawdown(np.array([0.01, -0.02, 0.001])) == 2  # not yet over


def test_at_the_spread_that_the_gain_can_bear_it_is_gone(split):
    market, _ = passed(split, TradingEnvConfig())
    mid = market.bars["open"][market.first_bar + 1 :]
    n = runner.decisions(market)
    # It knows the next bar: a gain that costs can eat up.
    ahead = np.sign(np.append(mid[1:], mid[-1])[:n] - mid[:n])
    market, result = passed(split, TradingEnvConfig(), ahead)
    found = trades.statistics(market, result, trades.fills_of(market, result))
    assert result.log_growth > 0
    fills = trades.fills_of(market, result)
    mean = 2e4 * result.costs["spread"] / (np.abs(fills["units"]) * fills["price"]).sum()
    wide = stress.wider_spread(market, found["break_even_spread_bps"] / mean)
    assert runner.run_targets(wide, ahead, 1e5, "", "").log_growth == pytest.approx(0.0, abs=1e-6)


def test_an_account_that_never_trades_has_no_trade_statistics(split):
    n = runner.decisions(passed(split, TradingEnvConfig())[0])
    market, result = passed(split, TradingEnvConfig(), np.zeros(n))
    found = trades.statistics(market, result, trades.fills_of(market, result))
    assert found["closed_trades"] == 0
    assert found["best_day_frac"] == found["exposure_time_frac"] == 0.0
    nothing = ("win_rate_frac", "profit_factor", "mean_hold_h", "largest_order_ccy", "break_even_spread_bps")
    assert [found[key] for key in nothing] == [None] * 5


def test_the_table_of_fills_has_times_sides_and_sizes(split):
    market, result = passed(split, ACCOUNTS["stops"])
    fills = trades.fills_of(market, result)
    table = trades.fills_table(market, fills)
    assert table["time_utc"].iloc[-1] == (market.open_time[-1] + np.timedelta64(3600, "s")).strftime(
        "%Y-%m-%dT%H:%M:%SZ"
    )
    assert table["at"].iloc[-1] == "close"
    signed = np.where(table["side"] == "buy", 1, -1) * table["size_units"]
    assert signed.cumsum().to_numpy() == pytest.approx(table["position_units"].to_numpy(), abs=1e-6)
    assert (table["profit_ccy"][table["closed_units"] == 0] == 0).all()
