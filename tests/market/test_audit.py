"""Audits pass what is honest and catch what is planted: leaks, free turnover, false ends, drifts."""

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest

from benchmarks.audit_envs import anytrading, our_env
from benchmarks.rollover_artefact import INSTRUMENTS, read_bars, run_rule
from sac_kernel.backtest.random_walk import audit_random_walk, simulate_bars
from sac_kernel.core.errors import DataError
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.audit import Subject, audit, audit_bars
from sac_kernel.market.envs import TradingEnvironment
from sac_kernel.prices.costs import COST_TIERS
from sac_kernel.prices.instruments import spec_of
from tests.support import says, told

CHECKS = ["seed", "leak", "latency", "info", "costs", "costs in reward", "marking", "time limit", "ruin"]


def found(report, check):
    return next(f.found for f in report.findings if f.check == check)


def our_env_with(change):
    """Our own env, its features spoilt by `change` (features of all bars, bars)."""

    def make(bars):
        first, second = int(0.55 * len(bars)), int(0.6 * len(bars))
        parts = [{"EURUSD": part} for part in (bars[:first], bars[first:second], bars[second:])]
        features = pd.concat(FeaturePipeline().run_full_pipeline(*parts))
        test = change(features, bars)[second:].astype(np.float32)
        return TradingEnvironment(bars[second:], test, TradingEnvConfig(price_side="bid"), eval_mode=True)

    return make


def test_our_env_passes_every_check():
    report = audit(Subject("ours", our_env))
    assert [f.check for f in report.findings] == CHECKS
    assert report.failed == ()
    assert told(found(report, "leak"), "close of bar 287", "open of bar 288")


# -- planted leaks


def test_a_future_column_is_caught():
    def ahead(features, bars):
        return features.assign(ahead=np.log(bars["close"]).diff().shift(-1).fillna(0.0) * 100)

    report = audit(Subject("future column", our_env_with(ahead)))
    assert report.failed == ("leak",)
    assert told(found(report, "leak"), "close of bar 288", "open of bar 288")


def test_a_scaler_fitted_on_all_data_is_caught():
    def rescaled(features, bars):
        close = np.log(bars["close"])
        return features.assign(level=(close - close.mean()) / close.std())

    report = audit(Subject("scaler", our_env_with(rescaled)))
    assert report.failed == ("leak",)
    assert "the close of bar 399 (the last of the data)" in found(report, "leak")


class Toy(gym.Env):
    """The smallest trading env: shows the last return, one switch for each way to go wrong."""

    def __init__(
        self, bars, fill="open", lag=1, fee=1e-4, ends="truncated", marks=True, draw=False, free=True
    ):
        self.close_at, self.fill_at = bars["close"].to_numpy(), bars[fill].to_numpy()
        self.lag, self.fee = lag, fee
        self.ends, self.marks, self.draw, self.free = ends, marks, draw, free
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.held, self.entry, self.cash = 20, 0, 0.0, 1.0
        return self._obs(), {"equity": 1.0}

    def _obs(self):
        noise = np.random.rand() if self.draw else 0.0  # noqa: NPY002  # the fault itself
        return np.array([self.close_at[self.t] / self.close_at[self.t - 1] - 1.0 + noise])

    def step(self, action):
        before = self._equity()
        price = self.fill_at[self.t + self.lag]
        if action != self.held:
            self.cash *= (1 - self.fee) * (price / self.entry if self.held else 1.0)
            self.held, self.entry = action, price
        if not self.free:
            self.cash *= 1 - 1e-5
        self.t += 1
        end = self.t == len(self.close_at) - 2
        reward = np.log(self._equity() / before)
        return (
            self._obs(), reward, end and self.ends == "terminated", end and self.ends == "truncated",
            {"equity": self._equity()},
        )  # fmt: skip

    def _equity(self):
        mark = self.close_at[self.t]
        return self.cash * (mark / self.entry if self.held and self.marks else 1.0)


def audited(**faults):
    return audit(Subject("toy", lambda bars: Toy(bars, **faults), round))


def test_a_toy_without_faults_passes():
    assert audited().failed == ()


@pytest.mark.parametrize(
    ("faults", "failed"),
    [
        ({"lag": 0}, ("leak",)),  # filled at the open of the bar whose close it has shown
        ({"fill": "close", "lag": 0}, ("latency",)),
        ({"fill": "close", "lag": -1}, ("leak", "info")),
        ({"fee": 0.0}, ("costs", "costs in reward")),
        ({"ends": "terminated"}, ("time limit",)),
        ({"marks": False}, ("marking",)),
        ({"free": False}, ("costs",)),
    ],
)
def test_each_fault_is_named(faults, failed):
    report = audited(**faults)
    # An account valued at a close that comes after the fill is found as well where the fill is early.
    assert set(failed) <= set(report.failed)
    assert set(report.failed) - set(failed) <= {"info"}


def test_an_env_that_draws_unseeded_numbers_is_named():
    assert "seed" in audited(draw=True).failed


def test_an_env_that_fills_nothing_is_an_error():
    with pytest.raises(DataError, match=says("toy", "fill", "step")):
        audit(Subject("toy", Toy, lambda exposure: 0))


def test_an_env_without_an_account_value_is_an_error():
    class Silent(Toy):
        def reset(self, **kwargs):
            return super().reset(**kwargs)[0], {"profit": 0}

    with pytest.raises(DataError, match=says("info", "profit")):
        audit(Subject("silent", Silent, round))


@pytest.mark.parametrize("name", ["stocks-v0", "forex-v0"])
def test_a_peers_env_is_audited_through_its_public_interface(name):
    pytest.importorskip("gym_anytrading")
    options = {"unit_side": "right"} if name == "forex-v0" else {}
    report = audit(Subject(name, anytrading(name, **options), round))
    # Read from its source: the fee is in total_profit, not in the reward; both move when a trade closes.
    assert report.failed == ("costs in reward", "marking")
    assert told(found(report, "leak"), "filled at the close")


def test_the_report_is_a_table_and_bars_are_a_walk():
    text = str(audited(fee=0.0))
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"
    ]
    assert rows[0][0] == "toy"
    assert ["seed", "pass"] in [row[:2] for row in rows]
    assert told(next(row[2] for row in rows if row[:2] == ["costs", "FAIL"]), "0.00 bps")
    assert len(audit_bars(50)) == 50


# -- the random walk


def test_nobody_earns_on_a_random_walk_and_a_planted_leak_is_found():
    """The short form: 6 seeds, so the bound of 20 is widened by sqrt(20 / 6)."""

    def leak(sample):
        # sign(rho z + noise) earns .8 rho sigma a bar: a daily t of .8 rho sqrt(bars), 1.5 over the test rows.
        close, opened = sample.bars["close"].to_numpy(), sample.bars["open"].to_numpy()
        coming = np.append(np.log(close[1:] / opened[1:]), 0.0) / 3e-4
        rho = 1.5 / (np.sqrt(2 / np.pi) * np.sqrt(len(coming) - sample.n_train))
        noise = np.random.default_rng(sample.seed).normal(size=coming.size)
        return {"planted leak": np.sign(rho * coming + np.sqrt(1 - rho**2) * noise)}

    report = audit_random_walk(6, leak)
    assert len(report.before_costs) == 41
    assert report.before_costs["planted leak"].mean() == pytest.approx(1.5, abs=0.75)
    wide = np.sqrt(20 / 6)
    assert [line.split(":")[0] for line in report.failures()].count("planted leak") == 1
    del report.before_costs["planted leak"]
    assert report.failures(before=0.75 * wide, after=0.5 * wide) == []
    assert told(report.summary(), "40 families", "6 seeds", "40 days")
    # Something was traded at all: signs of a feature pay for it.
    assert report.after_costs["sign eurusd_rsi_4h"].mean() < -1.0


def test_simulated_prices_have_no_drift():
    closes = [b["close"].to_numpy() for seed in range(3) for b in simulate_bars(seed, 40).values()]
    growth = np.array([c[-1] / 1.1 - 1.0 for c in closes])
    spread = 3e-4 * np.sqrt(40 * 288)
    assert abs(growth.mean()) < 3 * spread / np.sqrt(len(growth))
    assert growth.std() == pytest.approx(spread, rel=0.4)


# -- the real panel


@pytest.mark.slow
@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_the_rollover_rule_earns_nothing_at_any_tier(shared_data, instrument):
    folder = shared_data / "fx_m5_2017_2019"
    bars, spec = read_bars(folder, instrument), spec_of(instrument)
    year = bars.loc["2018"]
    # By default it cannot even trade; with the freeze off it loses at the right sides.
    assert run_rule(year, "raw", spec, naive=False, freeze=True).log_growth == 0.0
    for tier in COST_TIERS:
        open_all_day = run_rule(year, tier, spec, naive=False, freeze=False)
        assert open_all_day.trades > 500
        assert open_all_day.log_growth < (0.0 if instrument == "XAUUSD" else -0.02)
    # What it would seem to earn with bid taken for mid: the reason for all this.
    seeming = run_rule(bars, "raw", spec, naive=True, freeze=False)
    sharpe = {"EURUSD": 3.3, "EURGBP": 4.9, "USDCHF": 1.6, "XAUUSD": 1.0}[instrument]
    assert seeming.row()["sharpe_ann"] == pytest.approx(sharpe, abs=0.3)
